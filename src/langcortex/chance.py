"""What chance gives when neighbouring rows resemble each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langcortex.ridge import chunks


def shift_test(
    observed: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    piece: Sequence[np.ndarray],
    n_shifts: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Test a mean correlation against circular shifts of the predictions within each held-out piece.

    For pieces that took no part in one another's training, such as the test runs of a fixed split. Where runs
    take turns as test runs, their scores depend on each other and this null is too narrow: use
    `langcortex.encoding.null_scores`, which shifts the responses and refits.

    A shift keeps the autocorrelation of both series, but for the seam where end meets beginning (which makes the
    test liberal in pieces only a few times longer than the autocorrelation), and breaks only their alignment, so slow drifts that
    happen to agree are counted as chance. Every piece is shifted by its own random amount, at least a
    tenth of its length; subjects who heard the same pieces are shifted together.

    Parameters
    ----------
    observed, predicted : one (n_rows, n_targets) a subject
    piece : one (n_rows,) a subject: the label of the held-out run (or block) of each row, rows in order
    n_shifts : how many random shifts
    rng : the source of randomness

    Returns
    -------
    r : (n_targets,) mean over pieces of the correlation in each, then over subjects
    p : (n_targets,) (1 + number of shifts with a mean r at least as large) / (1 + n_shifts); NaN where r is

    References
    ----------
    Phipson & Smyth 2010, doi:10.2202/1544-6115.1585 (the +1)
    """
    share = draw_shifts([str(label) for one in piece for label in one], n_shifts, rng)
    true, null = np.zeros(observed[0].shape[1]), np.zeros((n_shifts, observed[0].shape[1]))
    for y, q, which in zip(observed, predicted, piece, strict=True):
        r, shifted = shifted_scores(y, q, which, share)
        true += r / len(observed)
        null += shifted / len(observed)
    return true, p_values(true, null)


def draw_shifts(pieces: Sequence[str], n_shifts: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw, for every held-out piece, `n_shifts` shifts as shares of its length, from a tenth to nine tenths."""
    return {name: rng.uniform(0.1, 0.9, n_shifts) for name in sorted(set(pieces))}


def shifted_scores(
    observed: np.ndarray, predicted: np.ndarray, piece: np.ndarray, share: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate predictions with responses, as they are and after every shift of `share`, averaged over pieces.

    Parameters
    ----------
    observed, predicted : (n_rows, n_targets); rows whose piece is "" were never held out and do not count
    piece : (n_rows,)
    share : from `draw_shifts`

    Returns
    -------
    r : (n_targets,)
    null : (n_shifts, n_targets) float32
    """
    names = [name for name in dict.fromkeys(str(label) for label in piece) if name]
    n_shifts = len(next(iter(share.values())))
    r = np.zeros(observed.shape[1])
    null = np.zeros((n_shifts, observed.shape[1]), dtype=np.float32)
    for name in names:
        rows = piece == name
        for chunk in chunks(observed.shape[1], 1024):
            table = _shifted_correlations(observed[rows][:, chunk], predicted[rows][:, chunk])
            n = len(table)
            shift = np.clip(np.round(share[name] * n).astype(int), min(1, n - 1), n - 1)
            r[chunk] += table[0] / len(names)
            null[:, chunk] += (table / len(names)).astype(np.float32)[shift]
    return r, null


def p_values(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Turn an observed value and its null into p with +1; NaN where r is.

    Parameters
    ----------
    r : (n_targets,)
    null : (n_shifts, n_targets)
    """
    # a shift that reproduces the observed value up to rounding counts against it
    beaten = (null >= r - 1e-6).sum(axis=0)
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
    beaten = len(largest) - np.searchsorted(largest, np.where(known, r, 0.0) - 1e-6, side="left")
    return np.where(known, (1 + beaten) / (1 + len(largest)), np.nan)


def _shifted_correlations(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Correlate `y` with every circular shift of `p`: row k is the correlation with p moved down by k rows."""
    n = len(y)
    y = y - y.mean(axis=0, dtype=np.float64)
    p = p - p.mean(axis=0, dtype=np.float64)
    table = np.fft.irfft(np.fft.rfft(y, axis=0) * np.conj(np.fft.rfft(p, axis=0)), n=n, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: np.ndarray = table / np.sqrt(np.square(y).sum(axis=0) * np.square(p).sum(axis=0))
    return scaled


def false_discovery(p: np.ndarray, q: float = 0.05) -> np.ndarray:
    """Mark the targets found at false-discovery rate `q`; NaN is never found and does not count.

    References
    ----------
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x

    >>> false_discovery(np.array([0.001, 0.9, np.nan]))
    array([ True, False, False])
    """
    from scipy import stats

    found = np.zeros(len(p), dtype=bool)
    defined = np.flatnonzero(~np.isnan(p))
    if len(defined):
        found[defined] = stats.false_discovery_control(p[defined]) <= q
    return found
