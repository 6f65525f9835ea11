"""Scores of predictions, one a column. Undefined is NaN, never 0."""

from __future__ import annotations

import numpy as np


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
    # A column that should be constant carries rounding error of its own mean: compare with that.
    flat = (yy <= rounding(y)) | (pp <= rounding(p))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = yp / np.sqrt(yy * pp)
    return np.where(flat, np.nan, np.clip(r, -1.0, 1.0)).astype(np.float64)


def squared_errors(y: np.ndarray, p: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares for the out-of-sample R², which add up over folds.

    R² = 1 − Σ_f SSE_f / Σ_f SST_f, where SSE = ‖y − p‖² and SST = ‖y − baseline‖², and the baseline is
    what the training rows alone predict without features (their mean): a score below 0 is worse than that.

    Parameters
    ----------
    y, p : (n_samples, n_targets)
    baseline : (n_targets,) the training mean

    Returns
    -------
    sse, sst : (n_targets,) float64; both NaN where `y` is constant or not finite

    References
    ----------
    Hadidi et al. 2026, doi:10.1038/s41467-026-72253-7 (the out-of-sample R² against the training mean)
    """
    error, yc, base = y - p, centred(y), y - baseline
    sse = np.einsum("ij,ij->j", error, error)
    sst = np.einsum("ij,ij->j", base, base)
    undefined = ~(np.einsum("ij,ij->j", yc, yc) > rounding(y)) | ~np.isfinite(sse)
    return np.where(undefined, np.nan, sse).astype(np.float64), np.where(undefined, np.nan, sst).astype(
        np.float64
    )


def centred(y: np.ndarray) -> np.ndarray:
    """Take the mean off every column, in the dtype of `y` (the mean itself is summed in float64)."""
    out: np.ndarray = y - y.mean(axis=0, dtype=np.float64).astype(y.dtype)
    return out


def rounding(y: np.ndarray) -> np.ndarray:
    """Return the sum of squares that rounding alone can leave in a constant column of `y`."""
    # of the values themselves, and of a float64 mean over so many rows
    eps = np.finfo(y.dtype if y.dtype.kind == "f" else np.float64).eps + len(y) * np.finfo(np.float64).eps
    scale = np.abs(y).max(axis=0) if len(y) else np.zeros(y.shape[1:])
    bound: np.ndarray = len(y) * (4.0 * eps * scale) ** 2
    return bound
