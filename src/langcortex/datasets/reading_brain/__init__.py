"""Reading Brain (OpenNeuro ds003974): people read five texts in the scanner, with eye tracking."""

from langcortex.datasets.reading_brain.dataset import corpus

__all__ = ["corpus"]
