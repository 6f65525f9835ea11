"""Planted brains with a known answer, and the demo that recovers it."""
