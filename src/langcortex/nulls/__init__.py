"""Null models: surrogate responses, permutations of rows, and refits under them.

Arrays only. This room fits with `ridge` and counts with `stats`.
"""
