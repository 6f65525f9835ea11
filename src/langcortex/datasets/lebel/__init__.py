"""LeBel et al. 2023: stories heard by few people for many hours (OpenNeuro ds003020)."""

from langcortex.datasets.lebel.dataset import corpus

__all__ = ["corpus"]
