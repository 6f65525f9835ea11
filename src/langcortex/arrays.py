"""Arrays of any library (numpy, torch on a CPU or a GPU, or another of the array API standard), and slices of rows."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

Array = Any
"""An array of any library that follows the array API standard."""


def as_array_like(values: Array, y: Array, wide: bool = False) -> Array:
    """Return numbers in the library, on the device and in the dtype of `y`.

    Parameters
    ----------
    wide : in float64 instead. Integers and booleans keep their dtype
    """
    xp = array_namespace(y)
    if is_numpy_array(y):
        kind = np.asarray(values).dtype.kind
        return np.asarray(values, dtype=None if kind in "ib" else np.float64 if wide else y.dtype)
    array = xp.asarray(np.ascontiguousarray(values), device=device(y))
    if array.dtype in (xp.int64, xp.bool):
        return array
    return xp.astype(array, xp.float64 if wide else y.dtype)


def as_numpy(values: Array) -> np.ndarray:
    """Return numbers as a numpy array, detached and copied from their device."""
    if is_torch_array(values):
        values = values.detach().cpu()
    return np.asarray(values)


def column_dots(a: Array, b: Array) -> Array:
    """Return the dot products of columns with columns: Σᵢ aᵢⱼ bᵢⱼ over the last axis but one."""
    if is_numpy_array(a):
        return np.einsum("...ij,...ij->...j", a, b)
    return array_namespace(a).sum(a * b, axis=-2)


@functools.cache
def has_numba() -> bool:
    """Return whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def take_rows(y: Array, rows: np.ndarray) -> Array:
    """Return some rows, without a copy where they are contiguous."""
    if len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
        return y[int(rows[0]) : int(rows[-1]) + 1, ...]
    return array_namespace(y).take(y, as_array_like(rows, y), axis=0)


def pearson(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Correlate each column of `y` with the same column of `p`.

    Parameters
    ----------
    y, p : (n_samples, n_targets)

    Returns
    -------
    r : (n_targets,) float64; NaN where either column is constant, not finite, or has fewer than 3 rows.

    >>> pearson(np.array([[1., 1.], [2., 1.], [3., 1.]]), np.array([[2., 0.], [4., 1.], [6., 2.]]))
    array([ 1., nan])
    """
    if y.shape != p.shape:
        raise ValueError(f"y is {y.shape} but p is {p.shape}; they must be of one shape")
    if y.dtype.kind != "f" or p.dtype.kind != "f":
        y, p = y.astype(np.float64), p.astype(np.float64)
    if len(y) < 3:
        return np.full(y.shape[1:], np.nan)
    with np.errstate(invalid="ignore"):
        yc = y - y.mean(axis=0, dtype=np.float64)
        pc = p - p.mean(axis=0, dtype=np.float64)
    yy = np.einsum("ij,ij->j", yc, yc)
    pp = np.einsum("ij,ij->j", pc, pc)
    yp = np.einsum("ij,ij->j", yc, pc)
    # a constant column has the rounding error of its mean
    is_constant = (yy <= rounding_error(y)) | (pp <= rounding_error(p))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = yp / np.sqrt(yy * pp)
    return np.where(is_constant, np.nan, np.clip(r, -1.0, 1.0)).astype(np.float64)


def centre_columns(y: np.ndarray) -> np.ndarray:
    """Subtract the mean from every column, in the dtype of `y` (the mean itself is summed in float64)."""
    out: np.ndarray = y - y.mean(axis=0, dtype=np.float64).astype(y.dtype)
    return out


def rounding_error(y: np.ndarray) -> np.ndarray:
    """Return the sum of squares that rounding alone can leave in a constant column of `y`."""
    # of the values, and of a float64 mean over that many rows
    eps = np.finfo(y.dtype if y.dtype.kind == "f" else np.float64).eps + len(y) * np.finfo(np.float64).eps
    scale = np.abs(y).max(axis=0) if len(y) else np.zeros(y.shape[1:])
    bound: np.ndarray = len(y) * (4.0 * eps * scale) ** 2
    return bound


CHUNK = 2048  # targets handled at once: keeps every temporary in the cache and memory flat in n_targets


def chunks(n: int, size: int = CHUNK) -> list[slice]:
    """Split `n` targets into slices of at most `size`.

    >>> chunks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(a, min(a + size, n)) for a in range(0, n, size)]


def run_slices(run: np.ndarray) -> list[slice]:
    """Return the rows of each run: one slice per run, in order.

    >>> run_slices(np.array(["a", "a", "b"]))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    if len(run) == 0:
        return []
    edges = np.flatnonzero(run[1:] != run[:-1]) + 1
    bounds = [0, *edges.tolist(), len(run)]
    slices = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    if len({str(run[s.start]) for s in slices}) != len(slices):
        raise ValueError("the rows of a run must be contiguous")
    return slices
