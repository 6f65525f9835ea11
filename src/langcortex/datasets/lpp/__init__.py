"""Le Petit Prince (OpenNeuro ds003643)."""

from langcortex.datasets.lpp.dataset import corpus

__all__ = ["corpus"]
