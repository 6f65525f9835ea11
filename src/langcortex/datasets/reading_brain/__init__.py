"""Reading Brain (OpenNeuro ds003974, ds003988): people read five texts in the scanner, with eye tracking."""

from langcortex.datasets.reading_brain.dataset import corpus

__all__ = ["corpus"]
