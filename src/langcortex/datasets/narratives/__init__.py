"""Narratives (OpenNeuro ds002345)."""

from langcortex.datasets.narratives.dataset import corpus

__all__ = ["corpus"]
