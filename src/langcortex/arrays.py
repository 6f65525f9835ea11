"""Arrays of any library: numpy, torch on a CPU or a GPU, or another of the Python array API standard."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

Array = Any
"""An array of any library that follows the array API standard."""


def like(values: Array, y: Array, wide: bool = False) -> Array:
    """Put numbers where `y` is, in its dtype; in float64 where `wide`, whole numbers and truth values as they are."""
    xp = array_namespace(y)
    if is_numpy_array(y):
        kind = np.asarray(values).dtype.kind
        return np.asarray(values, dtype=None if kind in "ib" else np.float64 if wide else y.dtype)
    made = xp.asarray(np.ascontiguousarray(values), device=device(y))
    if made.dtype in (xp.int64, xp.bool):
        return made
    return xp.astype(made, xp.float64 if wide else y.dtype)


def as_numpy(values: Array) -> np.ndarray:
    """Bring numbers back."""
    if is_torch_array(values):
        values = values.detach().cpu()
    return np.asarray(values)


def column_dots(a: Array, b: Array) -> Array:
    """Multiply columns with columns: Σᵢ aᵢⱼ bᵢⱼ over the last axis but one."""
    if is_numpy_array(a):
        return np.einsum("...ij,...ij->...j", a, b)
    return array_namespace(a).sum(a * b, axis=-2)


@functools.cache
def has_numba() -> bool:
    """Say whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def taken(y: Array, rows: np.ndarray) -> Array:
    """Take rows, without a copy where they stand together."""
    if len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
        return y[int(rows[0]) : int(rows[-1]) + 1, ...]
    return array_namespace(y).take(y, like(rows, y), axis=0)
