"""P values from all nulls at once, the reference that counted nulls are held against."""

from __future__ import annotations

import numpy as np

from langcortex.stats.null_counts import TIE


def p_values(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Turn an observed value and its null into p with +1; NaN where r is.

    Parameters
    ----------
    r : (n_targets,)
    null : (n_shifts, n_targets)
    """
    beaten = (null >= r - TIE).sum(axis=0)
    known = np.isfinite(r) & np.isfinite(null).all(axis=0)
    return np.where(known, (1 + beaten) / (1 + len(null)), np.nan)


def p_corrected(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Turn an observed value and its null into p corrected over targets, by the largest value of each null.

    Parameters
    ----------
    r : (n_targets,)
    null : (n_shifts, n_targets)

    References
    ----------
    Nichols & Holmes 2002, doi:10.1002/hbm.1058
    """
    known = np.isfinite(r) & np.isfinite(null).all(axis=0)
    largest = np.sort(null[:, known].max(axis=1)) if known.any() else np.empty(0)
    beaten = len(largest) - np.searchsorted(largest, np.where(known, r, 0.0) - TIE, side="left")
    return np.where(known, (1 + beaten) / (1 + len(largest)), np.nan)
