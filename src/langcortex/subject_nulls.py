"""Nulls averaged over subjects: their sums wait on disk, and are counted a chunk of targets at a time."""

from __future__ import annotations

import tempfile

import numpy as np

from langcortex.resampling import Significance, Tally
from langcortex.ridge import chunks

SCRATCH_BYTES = 5e8  # sums of nulls beyond which they wait on disk
READ_BYTES = 2**26  # what is read of them at once


class MeanNulls:
    """The mean over subjects of scores and of their nulls, null by null.

    A null of the mean is the mean of the subjects' nulls of one number, so subjects must have been moved alike
    (`langcortex.moves.Moves`). One subject's nulls are counted as they come. The sums of several take 4 bytes a
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
        self.tally: Tally | None = None
        self.several = n_subjects > 1
        self.true, self.count = np.zeros(shape), np.zeros(shape, dtype=np.int32)
        self.sums = _scratch((shape[1], shape[0], n_nulls)) if self.several else None
        self._now = np.zeros(shape)

    def begin(self, true: np.ndarray) -> None:
        """Begin another subject: its scores, (n_layers, n_targets)."""
        self._now = true
        if not self.several:
            self.tally = Tally(true, self.n_nulls)

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

    def _counted(self) -> Tally:
        assert self.sums is not None
        count = np.where(self.count > 0, self.count, np.nan)
        tally = Tally(self.true / count, self.n_nulls)
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
