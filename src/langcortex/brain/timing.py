"""Scans, windows, delays and haemodynamic responses as arrays and matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from langcortex.arrays import run_slices
from langcortex.errors import AlignmentError

HRF_STEP = 0.02  # seconds between two points of the sampled kernel


def delay_in_scans(seconds: float, tr: float, run: str = "") -> int:
    """Convert a delay in seconds to a number of scans.

    Raises
    ------
    AlignmentError : the delay is no multiple of the TR

    >>> delay_in_scans(6.0, 1.5)
    4
    """
    scans = seconds / tr
    if abs(scans - round(scans)) > 1e-6:
        where = f" of run '{run}'" if run else ""
        raise AlignmentError(
            f"A delay of {seconds:g} s falls between scans{where}, which are {tr:g} s apart. "
            f"Use whole multiples of {tr:g} s."
        )
    return round(scans)


def candidate_delays(tr: float, first: float = 4.0, last: float = 10.0) -> tuple[float, ...]:
    """List the multiples of `tr` from `first` to `last` seconds.

    >>> candidate_delays(1.5)
    (4.5, 6.0, 7.5, 9.0)
    """
    low, high = int(np.ceil(first / tr - 1e-9)), int(np.floor(last / tr + 1e-9))
    return tuple(round(k * tr, 9) for k in range(low, high + 1))


def lag_rows(x: np.ndarray, lags: tuple[int, ...], run: np.ndarray) -> np.ndarray:
    """Place lagged copies of `x` side by side, one block of columns per lag, never across the edge of a run.

    A lag of 2 puts row 0 of x into row 2: the response at scan 2 is explained by what was heard at scan 0.
    Rows with no past are 0, so centre `x` first if 0 should mean "the average".

    Parameters
    ----------
    x : (n_samples, n_features), the rows of a run contiguous and in order
    lags : in rows, not negative
    run : (n_samples,) the run of each row

    Returns
    -------
    (n_samples, n_features · n_lags)

    >>> lag_rows(np.array([[1.], [2.], [3.]]), (0, 2), np.array(["a", "a", "a"])).tolist()
    [[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]]
    """
    n, p = x.shape
    out = np.zeros((n, p * len(lags)), dtype=x.dtype)
    for rows in run_slices(run):
        block = x[rows]
        for k, lag in enumerate(lags):
            if lag < 0:
                raise ValueError(f"a lag of {lag} rows would explain the present by the future")
            if lag < len(block):
                out[rows, k * p : (k + 1) * p][lag:] = block[: len(block) - lag]
    return out


def impulse_durations(duration: np.ndarray) -> np.ndarray:
    """Return durations that can be weights: an impulse, which lasts 0 s, weighs as much as the median of the others.

    Where all are impulses, as in tables of onsets only, each weighs as much as 1 s.

    >>> impulse_durations(np.array([0.0, 0.2, 0.4])).round(1).tolist(), impulse_durations(np.zeros(2)).tolist()
    ([0.3, 0.2, 0.4], [1.0, 1.0])
    """
    lasting = duration[duration > 0]
    weight = float(np.median(lasting)) if len(lasting) else 1.0
    return np.where(duration > 0, duration, weight)


def window_weights(
    onset: np.ndarray, duration: np.ndarray, scan_onset: np.ndarray, tr: float
) -> tuple[sparse.csr_array, np.ndarray]:
    """Return weights that average scans over windows: row i · Y is the mean of Y over [onset_i, onset_i + duration_i).

    A scan lasts one TR from its onset, so a scan half inside the window counts half.

    Parameters
    ----------
    onset, duration : (n_windows,) in seconds, on the clock of `scan_onset`
    scan_onset : (n_scans,) in seconds, `tr` apart
    tr : in seconds

    Returns
    -------
    weights : (n_windows, n_scans), each row summing to 1 (or empty)
    covered : (n_windows,) the fraction of each window that the scans cover, 0 to 1
    """
    n_scans = len(scan_onset)
    start = (onset - scan_onset[0]) / tr
    stop = (onset + np.maximum(duration, 1e-9) - scan_onset[0]) / tr
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    covered = np.zeros(len(onset))
    for i, (a, b) in enumerate(zip(start, stop, strict=True)):
        scans = np.arange(max(0, int(np.floor(a))), min(n_scans, int(np.ceil(b))))
        share = np.minimum(b, scans + 1.0) - np.maximum(a, scans)
        scans, share = scans[share > 0], share[share > 0]
        if len(scans) == 0:
            continue
        covered[i] = min(1.0, share.sum() / (b - a))
        rows.append(np.full(len(scans), i))
        columns.append(scans)
        values.append(share / share.sum())
    return _matrix(rows, columns, values, (len(onset), n_scans)), covered


def bin_weights(
    onset: np.ndarray, duration: np.ndarray, scan_onset: np.ndarray, tr: float, combine: str
) -> tuple[sparse.csr_array, np.ndarray]:
    """Return weights that collect units of a story in scans: a unit belongs to the scan that contains its midpoint.

    Parameters
    ----------
    onset, duration : (n_units,) in seconds
    scan_onset : (n_scans,) in seconds
    combine : "mean", "sum", "last", or "duration" for a mean weighted by durations (see `impulse_durations`)

    Returns
    -------
    weights : (n_scans, n_units)
    filled : (n_scans,) bool, whether any unit belongs to the scan
    """
    scan_of_unit = np.floor((onset + duration / 2 - scan_onset[0]) / tr + 1e-9).astype(int)
    inside = np.flatnonzero((scan_of_unit >= 0) & (scan_of_unit < len(scan_onset)))
    scan = scan_of_unit[inside]
    count = np.bincount(scan, minlength=len(scan_onset))
    if combine == "sum":
        weight = np.ones(len(inside))
    elif combine == "mean":
        weight = 1.0 / count[scan]
    elif combine == "duration":
        length = impulse_durations(duration)[inside]
        weight = length / np.bincount(scan, length, minlength=len(scan_onset))[scan]
    elif combine == "last":
        last = dict(zip(scan.tolist(), inside.tolist(), strict=True))
        weight = np.array([float(last[s] == i) for s, i in zip(scan.tolist(), inside.tolist(), strict=True)])
    else:
        raise ValueError(f"combine must be 'mean', 'sum', 'duration' or 'last', not {combine!r}")
    weights = sparse.csr_array((weight, (scan, inside)), shape=(len(scan_onset), len(onset)))
    return weights, count > 0


def hrf_weights(
    onset: np.ndarray,
    duration: np.ndarray,
    scan_time: np.ndarray,
    kernel: str | Callable[[float, int], np.ndarray] = "glover",
    shape: str = "boxcar",
) -> sparse.csr_array:
    """Return weights that convolve units of a story with a haemodynamic response and sample it at the scans.

    Entry (s, i) is ∫ h(t_s − u) du over the unit's window (``"boxcar"``), or h(t_s − onset_i)
    (``"impulse"``), so ``weights @ values`` is the convolution of all features at once. A unit that lasts 0 s is an
    impulse (BIDS), also among boxcars, where its area is that of a boxcar of median length; see `impulse_durations`.

    Parameters
    ----------
    onset, duration : (n_units,) in seconds
    scan_time : (n_scans,) in seconds, when each scan samples the response
    kernel : "glover" or "spm" (nilearn's kernels, which integrate to 1 over time), or a function
        ``(tr, oversampling) → samples`` like nilearn's
    shape : "boxcar" or "impulse"

    References
    ----------
    Glover 1999, doi:10.1006/nimg.1998.0419; nilearn, doi:10.5281/zenodo.8397156
    """
    h = _kernel(kernel)
    grid = np.arange(len(h)) * HRF_STEP
    area = np.concatenate([[0.0], np.cumsum((h[1:] + h[:-1]) / 2 * HRF_STEP)])
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    areas = impulse_durations(duration)
    for i, (start, length) in enumerate(zip(onset, duration, strict=True)):
        since = scan_time - start
        scans = np.flatnonzero((since > 0) & (since < grid[-1] + (length if shape == "boxcar" else 0.0)))
        if len(scans) == 0:
            continue
        lag = since[scans]
        if shape == "boxcar" and length <= 0:
            value = areas[i] * np.interp(lag, grid, h, right=0.0)
        elif shape == "boxcar":
            value = np.interp(lag, grid, area) - np.interp(lag - length, grid, area, left=0.0)
        elif shape == "impulse":
            value = np.interp(lag, grid, h, right=0.0)
        else:
            raise ValueError(f"shape must be 'boxcar' or 'impulse', not {shape!r}")
        rows.append(np.full(len(scans), i))
        columns.append(scans)
        values.append(value)
    return _matrix(columns, rows, values, (len(scan_time), len(onset)))


def _kernel(kernel: str | Callable[[float, int], np.ndarray]) -> np.ndarray:
    """Sample a haemodynamic response every `HRF_STEP` seconds, scaled to integrate to 1."""
    function = _named_kernel(kernel) if isinstance(kernel, str) else kernel
    h = np.asarray(function(1.0, round(1.0 / HRF_STEP)), dtype=np.float64)
    # as in nilearn, n samples span 0 to n · HRF_STEP with both ends included
    length = len(h) * HRF_STEP
    sampled = np.interp(np.arange(len(h)) * HRF_STEP, np.linspace(0.0, length, len(h)), h)
    scaled: np.ndarray = sampled / (sampled.sum() * HRF_STEP)
    return scaled


def _named_kernel(name: str) -> Callable[[float, int], np.ndarray]:
    from nilearn.glm import first_level

    kernels: dict[str, Callable[[float, int], np.ndarray]] = {
        "glover": first_level.glover_hrf,
        "spm": first_level.spm_hrf,
    }
    if name not in kernels:
        raise AlignmentError(f"No haemodynamic response is called '{name}'. Use one of {', '.join(kernels)}.")
    return kernels[name]


def _matrix(
    rows: list[np.ndarray], columns: list[np.ndarray], values: list[np.ndarray], shape: tuple[int, int]
) -> sparse.csr_array:
    if not rows:
        return sparse.csr_array(shape, dtype=np.float64)
    return sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape
    )
