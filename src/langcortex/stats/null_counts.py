"""Nulls averaged over subjects: their sums wait on disk, and are counted a chunk of targets at a time."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
from scipy import stats

from langcortex.arrays import chunks
from langcortex.stats.resampling import Resampling

SCRATCH_BYTES = 5e8  # sums of nulls beyond which they wait on disk
READ_BYTES = 2**26  # what is read of them at once


class MeanNulls:
    """The mean over subjects of scores and of their nulls, null by null.

    A null of the mean is the mean of the subjects' nulls of one number, so subjects must have been moved alike
    (`langcortex.nulls.permutations.RowPermutations`). One subject's nulls are counted as they come. The sums of several take 4 bytes a
    target, null and layer, on disk where that is more than `SCRATCH_BYTES`: 200 MB for 50,000 targets and 1,000 nulls of
    one layer.

    Parameters
    ----------
    n_nulls : how many
    n_subjects : how many will be added
    shape : (n_layers, n_targets)
    """

    def __init__(self, n_nulls: int, n_subjects: int, shape: tuple[int, int]) -> None:
        self.n_nulls, self.shape = n_nulls, shape
        self.tally: NullCounts | None = None
        self.several = n_subjects > 1
        self.true, self.count = np.zeros(shape), np.zeros(shape, dtype=np.int32)
        self.sums = _scratch((shape[1], shape[0], n_nulls)) if self.several else None
        self._now = np.zeros(shape)

    def begin(self, true: np.ndarray) -> None:
        """Begin another subject: its scores, (n_layers, n_targets)."""
        self._now = true
        if not self.several:
            self.tally = NullCounts(true, self.n_nulls)

    def add(self, chunk: slice, null: np.ndarray) -> None:
        """Add some targets of the subject, all of its nulls: (n_nulls, n_layers, n)."""
        if self.tally is not None:
            self.tally.add(null, 0, chunk)
            return
        assert self.sums is not None
        true = self._now[:, chunk]
        known = np.isfinite(true) & np.isfinite(null).all(axis=0)
        self.sums[chunk] += np.where(known, null, 0.0).transpose(2, 1, 0)
        self.true[:, chunk] += np.where(known, true, 0.0)
        self.count[:, chunk] += known

    def significance(self, unit: str, how: str, seed: str) -> Significance:
        """Test the means; a target that no subject has a score of is NaN."""
        tally = self.tally if self.tally is not None else self._counted()
        return tally.significance(unit, how, seed)

    def _counted(self) -> NullCounts:
        assert self.sums is not None
        count = np.where(self.count > 0, self.count, np.nan)
        tally = NullCounts(self.true / count, self.n_nulls)
        size = max(1, int(READ_BYTES // (4 * self.n_nulls * self.shape[0])))
        for part in chunks(self.shape[1], size):
            null = self.sums[part].transpose(2, 1, 0) / count[:, part].astype(np.float32)
            tally.add(null, 0, part)
        return tally


def _scratch(shape: tuple[int, ...]) -> np.ndarray:
    """Make an array of zeros, float32, on disk where it would take much memory; it is gone when nothing holds it."""
    if 4 * np.prod(shape, dtype=float) <= SCRATCH_BYTES:
        return np.zeros(shape, dtype=np.float32)
    with tempfile.TemporaryFile(prefix="langcortex-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


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


TIE = 1e-6  # a null that reproduces the observed value up to rounding counts against it


@dataclass(frozen=True, eq=False)
class Significance:
    """Values tested against chance, each with its p; all arrays have one shape.

    Attributes
    ----------
    value : what was observed
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
        record = Resampling(unit, how, n, seed, f"largest over {many}{scaled}")
        p, corrected = p.reshape(self.shape), corrected.reshape(self.shape)
        return Significance(self.true.reshape(self.shape), p, corrected, adjust_p(p), record)


def adjust_p(p: np.ndarray) -> np.ndarray:
    """Adjust p-values for the false-discovery rate: found at rate q where the result is at most q; NaN stays NaN.

    Parameters
    ----------
    p : any shape; all defined values are one family

    References
    ----------
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x

    >>> adjust_p(np.array([0.01, np.nan, 0.04]))
    array([0.02,  nan, 0.04])
    """
    out = np.full(np.shape(p), np.nan)
    defined = ~np.isnan(p)
    if defined.any():
        out[defined] = stats.false_discovery_control(p[defined])
    return out
