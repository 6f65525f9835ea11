"""What stands behind a p-value or an interval, and how nulls are counted without keeping them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from langcortex.errors import FitError

TIE = 1e-6  # a null that reproduces the observed value up to rounding counts against it


@dataclass(frozen=True)
class Resampled:
    """What stands behind a p-value or an interval.

    Attributes
    ----------
    unit : what was resampled: "subjects", "runs", "rows within runs", "layers within subjects" …
    how : in which way, e.g. "signs", "bootstrap, percentile"
    n : how many resamples
    seed : of the generator, from `seed_of`; "none" where every possibility was tried
    correction : over what p was corrected and how, or "none"
    """

    unit: str
    how: str
    n: int
    seed: str
    correction: str = "none"

    def __str__(self) -> str:
        return (
            f"{self.how} of {self.unit}, {self.n} resamples, correction: {self.correction}, seed: {self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Significance:
    """Values tested against chance, each with its p; all arrays have one shape.

    Attributes
    ----------
    value : what was observed
    p : (1 + number of nulls at least as large) / (1 + number of nulls); NaN where undefined
    p_corrected : the same, against the largest value of each null (family-wise)
    q : p adjusted for the false-discovery rate over all values (Benjamini & Hochberg)
    resampled : unit, number, correction, seed
    """

    value: np.ndarray
    p: np.ndarray
    p_corrected: np.ndarray
    q: np.ndarray
    resampled: Resampled


def seed_of(rng: np.random.Generator) -> str:
    """Name the seed a generator was made from, for the record.

    >>> seed_of(np.random.default_rng([2026, 1]))
    '[2026, 1]'
    """
    sequence = rng.bit_generator.seed_seq
    key = getattr(sequence, "spawn_key", ())
    return f"{getattr(sequence, 'entropy', 'unknown')}" + (f", child {key}" if key else "")


class Tally:
    """Nulls counted as they come, so that a thousand of them never lie in memory.

    Parameters
    ----------
    true : (n_targets,) or (n_layers, n_targets) observed values; NaN is undefined and takes no part
    n_nulls : how many will be added

    Notes
    -----
    For the correction over layers every layer's nulls are standardised before the largest is taken: by one mean and one
    standard deviation a layer, over its targets and nulls and the observed values (which are one draw more, in the
    spread as in the p). So a layer with wide nulls does not decide the threshold of the others. Only the largest value
    of each null and layer is kept: that is exact, because such a scaling keeps the order within a layer.
    """

    def __init__(self, true: np.ndarray, n_nulls: int) -> None:
        self.shape = np.shape(true)
        self.true = np.atleast_2d(np.asarray(true, dtype=np.float64))
        self.known = np.isfinite(self.true)
        self.beaten = np.zeros(self.true.shape, dtype=np.int64)
        self.seen = np.zeros(self.true.shape, dtype=np.int64)
        self.largest = np.full((n_nulls, len(self.true)), -np.inf)
        values = np.where(self.known, self.true, 0.0)
        self.total, self.squares = values.sum(axis=1), np.square(values).sum(axis=1)
        self.count = self.known.sum(axis=1).astype(np.float64)

    def add(self, null: np.ndarray, first: int, targets: slice = slice(None)) -> None:
        """Add some nulls, of all targets or of a slice of them.

        Parameters
        ----------
        null : (n, n_targets) or (n, n_layers, n_targets), or as many targets as the slice has
        first : the number of the first of them, from 0
        """
        null = null[:, None] if null.ndim == 2 else null
        known = self.known[:, targets]
        self.beaten[:, targets] += (null >= (self.true[:, targets] - TIE).astype(null.dtype)).sum(axis=0)
        defined = np.isfinite(null)
        if defined.all():
            self.seen[:, targets] += len(null)
        else:
            self.seen[:, targets] += defined.sum(axis=0)
            null, known = np.where(defined, null, 0.0), known & defined
        last, every = first + len(null), bool(known.all())
        top = (null if every else np.where(known, null, -np.inf)).max(axis=2, initial=-np.inf)
        self.largest[first:last] = np.maximum(self.largest[first:last], top)
        null = null if every else np.where(known, null, 0.0)
        self.total += null.sum(axis=(0, 2), dtype=np.float64)
        self.squares += np.einsum("blv,blv->l", null, null, dtype=np.float64)
        self.count += (
            null.shape[0] * null.shape[2] if every else np.broadcast_to(known, null.shape).sum(axis=(0, 2))
        )

    def add_counted(
        self, beaten: np.ndarray, largest: np.ndarray, total: np.ndarray, squares: np.ndarray
    ) -> None:
        """Add all nulls, counted elsewhere, defined wherever the observed value is.

        Parameters
        ----------
        beaten : (n_layers, n_targets) how many reach the observed value
        largest : (n_nulls, n_layers) the largest over targets
        total, squares : (n_layers,) sums over targets and nulls
        """
        n_nulls = len(self.largest)
        self.beaten += beaten
        self.seen += n_nulls * self.known
        self.largest = np.maximum(self.largest, largest)
        self.total += total
        self.squares += squares
        self.count += n_nulls * self.known.sum(axis=1)

    def significance(self, unit: str, how: str, seed: str, studentise: bool = True) -> Significance:
        """Give the p-values; a target without a value in some null is undefined.

        Parameters
        ----------
        unit, how, seed : for the record
        studentise : standardise each layer's nulls before the largest over layers is taken
        """
        n = len(self.largest)
        known = self.known & (self.seen == n)
        p = np.where(known, (1 + self.beaten) / (1 + n), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.total / self.count
            spread = np.sqrt(self.squares / self.count - mean**2)
        if not studentise:
            mean, spread = np.zeros_like(mean), np.ones_like(spread)
        with np.errstate(invalid="ignore", divide="ignore"):
            top = np.sort(np.nanmax((self.largest - mean) / spread, axis=1, initial=-np.inf))
            z = (self.true - TIE - mean[:, None]) / spread[:, None]
        beaten = n - np.searchsorted(top, np.where(known, z, 0.0), side="left")
        corrected = np.where(known, (1 + beaten) / (1 + n), np.nan)
        many = "targets and layers" if len(self.true) > 1 else "targets"
        scaled = ", each layer standardised" if studentise and len(self.true) > 1 else ""
        record = Resampled(unit, how, n, seed, f"largest over {many}{scaled}")
        p, corrected = p.reshape(self.shape), corrected.reshape(self.shape)
        return Significance(self.true.reshape(self.shape), p, corrected, adjusted(p), record)


def adjusted(p: np.ndarray) -> np.ndarray:
    """Adjust p-values for the false-discovery rate: found at rate q where the result is at most q; NaN stays NaN.

    Parameters
    ----------
    p : any shape; all defined values are one family

    References
    ----------
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x

    >>> adjusted(np.array([0.01, np.nan, 0.04]))
    array([0.02,  nan, 0.04])
    """
    out = np.full(np.shape(p), np.nan)
    defined = ~np.isnan(p)
    if defined.any():
        out[defined] = stats.false_discovery_control(p[defined])
    return out


INTERVALS = ("stretched", "percentile", "bca", "t")


def bootstrap(
    values: np.ndarray,
    rng: np.random.Generator,
    n_resamples: int = 10_000,
    kind: str = "stretched",
    widen: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Give the 95 % bootstrap interval of a mean over units.

    Parameters
    ----------
    values : (n_units, n_columns); whole rows are drawn, so that columns stay together
    rng : the source of randomness
    n_resamples : how many draws
    kind : "percentile"; "stretched", the same made wide enough for few units (see `stretch`); "bca", corrected for bias and
        acceleration; or "t", studentised, for 5 units and more. Of 6 normal units, "percentile" and "bca" hold the true mean
        86 times in 100, the others 95 times (benchmarks/calibration.py)
    widen : by what to stretch the interval around the mean, from `langcortex.evidence.widening`

    Returns
    -------
    low, high : (n_columns,)

    References
    ----------
    Efron 1987, doi:10.1080/01621459.1987.10478410 (BCa); Efron & Tibshirani 1993, ch. 12 (bootstrap-t)
    """
    if kind not in INTERVALS:
        raise FitError(f"A bootstrap interval is one of {', '.join(INTERVALS)}; not '{kind}'.")
    n, mean = len(values), values.mean(axis=0)
    picks = rng.integers(0, n, (n_resamples, n))
    draws = values[picks].mean(axis=1)
    if kind == "t" and n < 5:
        raise FitError(f"A studentised bootstrap of {n} units means nothing; use interval = 'stretched'.")
    if kind == "stretched":
        widen *= stretch(n)
    if kind == "t":
        low, high = _studentised(values, draws, picks)
    elif kind == "bca":
        low, high = _accelerated(values, draws)
    else:
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return mean + widen * (low - mean), mean + widen * (high - mean)


def stretch(n: int) -> float:
    """Say how much wider than a percentile bootstrap over `n` units an interval must be: t instead of z, n − 1 instead of n.

    References
    ----------
    Hesterberg 2015, doi:10.1080/00031305.2015.1089789

    >>> round(stretch(6), 2), round(stretch(100), 2)
    (1.44, 1.02)
    """
    return float(stats.t.isf(0.025, n - 1) / stats.norm.isf(0.025) * np.sqrt(n / (n - 1)))


def _studentised(values: np.ndarray, draws: np.ndarray, picks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, mean = len(values), values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(n)
    spread = np.sqrt(np.maximum((values**2)[picks].mean(axis=1) - draws**2, 0.0) / (n - 1))
    # a draw of one unit n times has no spread, and says nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(spread > 1e-12 * (np.abs(mean) + error), (draws - mean) / spread, np.nan)
    flat = np.isnan(t).all(axis=0)
    low, high = np.nanpercentile(np.where(flat, 0.0, t), [2.5, 97.5], axis=0)
    return mean - high * error, mean - low * error


def _accelerated(values: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, mean = len(values), values.mean(axis=0)
    below = ((draws < mean).sum(axis=0) + 0.5 * (draws == mean).sum(axis=0)) / len(draws)
    bias = stats.norm.ppf(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    away = (mean - values) / (n - 1)  # of the means without one unit from their own mean, up to sign
    power = np.square(away).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.where(power > 0, -(away**3).sum(axis=0) / (6 * power**1.5), 0.0)
    ends = []
    for z in stats.norm.ppf([0.025, 0.975]):
        share = stats.norm.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
        ends.append(np.array([np.percentile(draws[:, j], 100 * share[j]) for j in range(draws.shape[1])]))
    return ends[0], ends[1]
