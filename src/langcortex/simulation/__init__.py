"""Simulated brains whose answer is known ("planted"), and the demo that recovers it.

The demo runs a whole study, so this room stands above all others but the command line.
"""
