"""Nulls that lie in memory: shifted predictions, and p values from all nulls at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langcortex.arrays import chunks
from langcortex.stats.null_counts import TIE


def p_values(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return p of observed values, with +1; NaN where r is.

    Parameters
    ----------
    r : (n_targets,)
    null : (n_nulls, n_targets)
    """
    n_exceeding = (null >= r - TIE).sum(axis=0)
    defined = np.isfinite(r) & np.isfinite(null).all(axis=0)
    return np.where(defined, (1 + n_exceeding) / (1 + len(null)), np.nan)


def p_corrected(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return p of observed values corrected over targets, by the largest value of each null.

    Parameters
    ----------
    r : (n_targets,)
    null : (n_nulls, n_targets)

    References
    ----------
    Nichols & Holmes 2002, doi:10.1002/hbm.1058
    """
    defined = np.isfinite(r) & np.isfinite(null).all(axis=0)
    largest = np.sort(null[:, defined].max(axis=1)) if defined.any() else np.empty(0)
    n_exceeding = len(largest) - np.searchsorted(largest, np.where(defined, r, 0.0) - TIE, side="left")
    return np.where(defined, (1 + n_exceeding) / (1 + len(largest)), np.nan)


def draw_shift_shares(
    segments: Sequence[str], n_shifts: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw shifts of every test segment as shares of its length, from a tenth to nine tenths."""
    return {name: rng.uniform(0.1, 0.9, n_shifts) for name in sorted(set(segments))}


def correlate_shifted(
    observed: np.ndarray, predicted: np.ndarray, segment: np.ndarray, shares: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate predictions with responses, as they are and after every shift, averaged over test segments.

    Parameters
    ----------
    observed, predicted : (n_rows, n_targets)
    segment : (n_rows,) the test segment of each row; "" where a row was never held out, which does not count
    shares : from `draw_shift_shares`

    Returns
    -------
    r : (n_targets,)
    null : (n_shifts, n_targets) float32
    """
    names = [name for name in dict.fromkeys(str(label) for label in segment) if name]
    n_shifts = len(next(iter(shares.values())))
    r = np.zeros(observed.shape[1])
    null = np.zeros((n_shifts, observed.shape[1]), dtype=np.float32)
    for name in names:
        rows = segment == name
        for targets in chunks(observed.shape[1], 1024):
            table = _correlations_by_shift(observed[rows][:, targets], predicted[rows][:, targets])
            n = len(table)
            shift = np.clip(np.round(shares[name] * n).astype(int), min(1, n - 1), n - 1)
            r[targets] += table[0] / len(names)
            null[:, targets] += (table / len(names)).astype(np.float32)[shift]
    return r, null


def _correlations_by_shift(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Correlate `y` with every circular shift of `p`: row k is the correlation with p moved down by k rows."""
    n = len(y)
    y = y - y.mean(axis=0, dtype=np.float64)
    p = p - p.mean(axis=0, dtype=np.float64)
    table = np.fft.irfft(np.fft.rfft(y, axis=0) * np.conj(np.fft.rfft(p, axis=0)), n=n, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return table / np.sqrt(np.square(y).sum(axis=0) * np.square(p).sum(axis=0))
