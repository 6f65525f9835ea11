"""P values from nulls that are counted as they come, of one subject or averaged over subjects."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
from scipy import stats

from langcortex.arrays import chunks
from langcortex.stats.resampling import Resampling

TIE = 1e-6  # a null that reproduces the observed value up to rounding counts against it
SCRATCH_BYTES = 5e8  # sums of nulls that are larger are kept on disk
READ_BYTES = 2**26  # how much of them is read at once


@dataclass(frozen=True, eq=False)
class Significance:
    """Values tested against chance, each with its p; all arrays have the same shape.

    Attributes
    ----------
    value : the observed values
    p : (1 + number of nulls at least as large) / (1 + number of nulls); NaN where undefined
    p_corrected : the same, against the largest value of each null (family-wise)
    q : p adjusted for the false-discovery rate over all values (Benjamini & Hochberg)
    resampling : unit, number, correction, seed
    """

    value: np.ndarray
    p: np.ndarray
    p_corrected: np.ndarray
    q: np.ndarray
    resampling: Resampling


class NullCounts:
    """Counts of nulls that reach the observed values, so that thousands of nulls need not be kept in memory.

    Parameters
    ----------
    observed : (n_targets,) or (n_layers, n_targets); NaN is undefined and takes no part
    n_nulls : how many will be added

    Attributes
    ----------
    defined : (n_layers, n_targets) bool, where an observed value is
    n_exceeding : (n_layers, n_targets) how many nulls are at least as large as the observed value
    n_defined : (n_layers, n_targets) how many nulls are defined
    largest : (n_nulls, n_layers) the largest over targets
    sums, sums_of_squares : (n_layers,) over targets, nulls and observed values
    n_values : (n_layers,) how many values are in these sums

    Notes
    -----
    For the correction over layers, the nulls of each layer are standardised before the largest is taken: by one mean and one
    standard deviation per layer, over its targets and nulls and the observed values (which are one more draw, in the
    spread as in p). So a layer with wide nulls does not decide the threshold of the other layers. Only the largest value
    of each null and layer is kept: that is exact, because such a scaling keeps the order within a layer.
    """

    def __init__(self, observed: np.ndarray, n_nulls: int) -> None:
        self.shape = np.shape(observed)
        self.observed = np.atleast_2d(np.asarray(observed, dtype=np.float64))
        self.defined = np.isfinite(self.observed)
        self.n_exceeding = np.zeros(self.observed.shape, dtype=np.int64)
        self.n_defined = np.zeros(self.observed.shape, dtype=np.int64)
        self.largest = np.full((n_nulls, len(self.observed)), -np.inf)
        values = np.where(self.defined, self.observed, 0.0)
        self.sums, self.sums_of_squares = values.sum(axis=1), np.square(values).sum(axis=1)
        self.n_values = self.defined.sum(axis=1).astype(np.float64)

    def add(self, null: np.ndarray, first: int, targets: slice = slice(None)) -> None:
        """Add nulls of all targets or of a slice of them.

        Parameters
        ----------
        null : (n, n_targets) or (n, n_layers, n_targets), or as many targets as the slice has
        first : the number of the first of these nulls, from 0
        targets : which targets
        """
        null = null[:, None] if null.ndim == 2 else null
        observed, defined = self.observed[:, targets], self.defined[:, targets]
        self.n_exceeding[:, targets] += (null >= (observed - TIE).astype(null.dtype)).sum(axis=0)
        finite = np.isfinite(null)
        if finite.all():
            self.n_defined[:, targets] += len(null)
        else:
            self.n_defined[:, targets] += finite.sum(axis=0)
            null, defined = np.where(finite, null, 0.0), defined & finite
        last, complete = first + len(null), bool(defined.all())
        largest = (null if complete else np.where(defined, null, -np.inf)).max(axis=2, initial=-np.inf)
        self.largest[first:last] = np.maximum(self.largest[first:last], largest)
        null = null if complete else np.where(defined, null, 0.0)
        self.sums += null.sum(axis=(0, 2), dtype=np.float64)
        self.sums_of_squares += np.einsum("blv,blv->l", null, null, dtype=np.float64)
        n_all = null.shape[0] * null.shape[2]
        self.n_values += n_all if complete else np.broadcast_to(defined, null.shape).sum(axis=(0, 2))

    def add_counts(
        self, n_exceeding: np.ndarray, largest: np.ndarray, sums: np.ndarray, sums_of_squares: np.ndarray
    ) -> None:
        """Add all nulls, already counted, which are defined wherever the observed value is.

        Parameters
        ----------
        n_exceeding : (n_layers, n_targets) how many reach the observed value
        largest : (n_nulls, n_layers) the largest over targets
        sums, sums_of_squares : (n_layers,) over targets and nulls
        """
        n_nulls = len(self.largest)
        self.n_exceeding += n_exceeding
        self.n_defined += n_nulls * self.defined
        self.largest = np.maximum(self.largest, largest)
        self.sums += sums
        self.sums_of_squares += sums_of_squares
        self.n_values += n_nulls * self.defined.sum(axis=1)

    def significance(self, unit: str, how: str, seed: str, studentise: bool = True) -> Significance:
        """Compute p values; a target that is undefined in any null is undefined.

        Parameters
        ----------
        unit, how, seed : for the record
        studentise : standardise the nulls of each layer before the largest over layers is taken
        """
        n = len(self.largest)
        defined = self.defined & (self.n_defined == n)
        p = np.where(defined, (1 + self.n_exceeding) / (1 + n), np.nan)
        p_corrected = self._corrected(defined, studentise)
        family = "targets and layers" if len(self.observed) > 1 else "targets"
        scaling = ", each layer standardised" if studentise and len(self.observed) > 1 else ""
        record = Resampling(unit, how, n, seed, f"largest over {family}{scaling}")
        p, p_corrected = p.reshape(self.shape), p_corrected.reshape(self.shape)
        return Significance(self.observed.reshape(self.shape), p, p_corrected, adjust_p(p), record)

    def _corrected(self, defined: np.ndarray, studentise: bool) -> np.ndarray:
        """Return p against the largest of each null over targets and layers."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.sums / self.n_values
            spread = np.sqrt(self.sums_of_squares / self.n_values - mean**2)
        if not studentise:
            mean, spread = np.zeros_like(mean), np.ones_like(spread)
        with np.errstate(invalid="ignore", divide="ignore"):
            largest = np.sort(np.nanmax((self.largest - mean) / spread, axis=1, initial=-np.inf))
            z = (self.observed - TIE - mean[:, None]) / spread[:, None]
        n = len(largest)
        n_exceeding = n - np.searchsorted(largest, np.where(defined, z, 0.0), side="left")
        return np.where(defined, (1 + n_exceeding) / (1 + n), np.nan)


class MeanNulls:
    """The mean over subjects of scores and of their nulls, null by null.

    A null of the mean is the mean of the subjects' nulls of the same number, so responses of all subjects must be permuted alike
    (`langcortex.nulls.permutations.RowPermutations`). The nulls of a single subject are counted as they come. The sums of
    several subjects take 4 bytes per target, null and layer, on disk where that is more than `SCRATCH_BYTES`: 200 MB for
    50,000 targets and 1,000 nulls of one layer.

    Parameters
    ----------
    n_nulls : how many
    n_subjects : how many will be added
    shape : (n_layers, n_targets)
    """

    def __init__(self, n_nulls: int, n_subjects: int, shape: tuple[int, int]) -> None:
        self.n_nulls, self.shape = n_nulls, shape
        self.counts: NullCounts | None = None  # of a single subject
        self.several = n_subjects > 1
        self.observed_sums, self.n_defined = np.zeros(shape), np.zeros(shape, dtype=np.int32)
        self.null_sums = _scratch_zeros((shape[1], shape[0], n_nulls)) if self.several else None
        self._observed = np.zeros(shape)

    def begin_subject(self, observed: np.ndarray) -> None:
        """Begin another subject: its scores, (n_layers, n_targets)."""
        self._observed = observed
        if not self.several:
            self.counts = NullCounts(observed, self.n_nulls)

    def add_nulls(self, targets: slice, null: np.ndarray) -> None:
        """Add all nulls of some targets of the subject: (n_nulls, n_layers, n)."""
        if self.counts is not None:
            self.counts.add(null, 0, targets)
            return
        assert self.null_sums is not None
        observed = self._observed[:, targets]
        defined = np.isfinite(observed) & np.isfinite(null).all(axis=0)
        self.null_sums[targets] += np.where(defined, null, 0.0).transpose(2, 1, 0)
        self.observed_sums[:, targets] += np.where(defined, observed, 0.0)
        self.n_defined[:, targets] += defined

    def significance(self, unit: str, how: str, seed: str) -> Significance:
        """Test the means; a target without a score in any subject is NaN."""
        counts = self.counts if self.counts is not None else self._count_means()
        return counts.significance(unit, how, seed)

    def _count_means(self) -> NullCounts:
        assert self.null_sums is not None
        n = np.where(self.n_defined > 0, self.n_defined, np.nan)
        counts = NullCounts(self.observed_sums / n, self.n_nulls)
        size = max(1, int(READ_BYTES // (4 * self.n_nulls * self.shape[0])))
        for targets in chunks(self.shape[1], size):
            null = self.null_sums[targets].transpose(2, 1, 0) / n[:, targets].astype(np.float32)
            counts.add(null, 0, targets)
        return counts


def _scratch_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros in float32, on disk where they would take much memory; the file goes with the array."""
    if 4 * np.prod(shape, dtype=float) <= SCRATCH_BYTES:
        return np.zeros(shape, dtype=np.float32)
    with tempfile.TemporaryFile(prefix="langcortex-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def adjust_p(p: np.ndarray) -> np.ndarray:
    """Adjust p values for the false-discovery rate: a test is significant at rate q where its adjusted p is at most q.

    Parameters
    ----------
    p : any shape; all defined values are one family, and NaN stays NaN

    References
    ----------
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x

    >>> adjust_p(np.array([0.01, np.nan, 0.04]))
    array([0.02,  nan, 0.04])
    """
    adjusted = np.full(np.shape(p), np.nan)
    defined = ~np.isnan(p)
    if defined.any():
        adjusted[defined] = stats.false_discovery_control(p[defined])
    return adjusted


def false_discovery(p: np.ndarray, q: float = 0.05) -> np.ndarray:
    """Mark the tests that are significant at false-discovery rate `q`; NaN is never significant and not counted.

    References
    ----------
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x

    >>> false_discovery(np.array([0.001, 0.9, np.nan]))
    array([ True, False, False])
    """
    significant = np.zeros(len(p), dtype=bool)
    defined = np.flatnonzero(~np.isnan(p))
    if len(defined):
        significant[defined] = stats.false_discovery_control(p[defined]) <= q
    return significant
