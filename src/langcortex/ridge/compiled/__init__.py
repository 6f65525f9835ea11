"""Compiled code for a few components (numba, optional): products in registers, moments, fits."""
