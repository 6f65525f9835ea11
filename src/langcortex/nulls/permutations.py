"""Permutations of rows within runs, drawn by the name of the run: all subjects who were played a run share its nulls."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft, sparse

from langcortex.arrays import run_slices
from langcortex.nulls.surrogates import (
    BLOCK,
    check_null,
    draw_phases_by_frequency,
    draw_shifts,
    shuffle_blocks,
)


class RowPermutations:
    """Random permutations of rows within runs, one per null.

    Every run has a source of randomness of its own, seeded by the seed and its name. So subjects who were played the same
    run, and models that are tested on it, have the same nulls, whatever other runs there are: shared signal stays
    shared. Where two subjects have a different number of rows of a run, shifts are the same share of it, phases the same
    at every number of cycles per run, and blocks are shuffled in the same order.

    Rows are taken as equally spaced. Where they are not (sentences), a null keeps the dependence of neighbouring rows by
    their number and not by their seconds.

    Parameters
    ----------
    kind : "shift", "block" or "phase", see `langcortex.nulls.surrogates.draw_null`
    run : (n_rows,) the run of each row, the rows of a run together
    n_nulls : how many
    seed : of all runs
    block : rows per block, for "block": at least as long as responses are autocorrelated

    Attributes
    ----------
    runs : the rows of each run
    shifts : for "shift", (n_nulls,) of each run: a response comes from so many rows later
    phases : for "phase", (n_nulls, n_frequencies) of each run: complex factors of ``rfft``
    """

    def __init__(
        self, kind: str, run: np.ndarray, n_nulls: int, seed: int | Sequence[int], block: int = BLOCK
    ) -> None:
        check_null(kind, run, block)
        self.kind, self.n_nulls, self.n_rows, self.runs = kind, n_nulls, len(run), run_slices(run)
        self.shifts: list[np.ndarray] = []
        self.phases: list[np.ndarray] = []
        self._blocks: list[
            np.ndarray
        ] = []  # (n_nulls, n_run_rows) int32 of each run: rows counted from its first
        for rows in self.runs:
            key = [*np.atleast_1d(seed).tolist(), _hash_name(str(run[rows.start]))]
            n = rows.stop - rows.start
            if kind == "shift":
                self.shifts.append(draw_shifts(n, n_nulls, np.random.default_rng(key)))
            elif kind == "phase":
                self.phases.append(draw_phases_by_frequency(n, n_nulls, np.random.default_rng(key)))
            else:
                self._blocks.append(_draw_blocks(n, n_nulls, key, block))
        self._clear_caches()

    def _clear_caches(self) -> None:
        self._by_rows: dict[bytes, tuple[RowPermutations, np.ndarray]] = {}
        self._selections: dict[tuple[int, int, str], sparse.csr_array] = {}

    def select_runs(self, rows: np.ndarray) -> tuple[RowPermutations, np.ndarray]:
        """Return the permutations of the runs that contain `rows`, and all rows of these runs, which they count from 0."""
        key = np.ascontiguousarray(rows, dtype=np.int64).tobytes()
        if key not in self._by_rows:
            inside = np.zeros(self.n_rows, dtype=bool)
            inside[rows] = True
            self._by_rows[key] = self._subset([i for i, run in enumerate(self.runs) if inside[run].any()])
        return self._by_rows[key]

    def _subset(self, numbers: Sequence[int]) -> tuple[RowPermutations, np.ndarray]:
        subset = copy.copy(self)
        runs = [self.runs[i] for i in numbers]
        edges = np.cumsum([0, *(run.stop - run.start for run in runs)]).tolist()
        subset.runs, subset.n_rows = [slice(a, b) for a, b in itertools.pairwise(edges)], edges[-1]
        subset.shifts = [self.shifts[i] for i in numbers] if self.shifts else []
        subset.phases = [self.phases[i] for i in numbers] if self.phases else []
        subset._blocks = [self._blocks[i] for i in numbers] if self._blocks else []
        subset._clear_caches()
        return subset, np.concatenate([np.arange(run.start, run.stop) for run in runs])

    def has_whole_runs(self, rows: np.ndarray) -> bool:
        """Return whether `rows` are whole runs."""
        inside = np.zeros(self.n_rows, dtype=bool)
        inside[rows] = True
        return all(inside[run].all() or not inside[run].any() for run in self.runs)

    def unique_shifts(self) -> list[np.ndarray]:
        """Return the shifts of each run that occur in any null."""
        return [np.unique(shift) for shift in self.shifts]

    def selection(self, nulls: slice, dtype: np.dtype[np.floating]) -> sparse.csr_array:
        """Return the matrix that adds up, for some nulls, a table of the `unique_shifts` of all runs, run after run."""
        key = (nulls.start, nulls.stop, dtype.str)
        if key not in self._selections:
            unique = self.unique_shifts()
            first = np.cumsum([0, *map(len, unique)])
            by_run = [
                begin + np.searchsorted(u, shift[nulls])
                for begin, u, shift in zip(first[:-1], unique, self.shifts, strict=True)
            ]
            lines = np.stack(by_run, axis=1).astype(np.int32)
            ends = np.arange(0, lines.size + 1, lines.shape[1], dtype=np.int32)
            ones = np.ones(lines.size, dtype=dtype)
            shape = (len(lines), int(first[-1]))
            self._selections[key] = sparse.csr_array((ones, lines.ravel(), ends), shape=shape)
        return self._selections[key]

    def row_order(self, b: int) -> np.ndarray:
        """Return the row that null `b` puts in the place of each row: (n_rows,); not for "phase"."""
        if self._blocks:
            orders = [run.start + rows[b] for run, rows in zip(self.runs, self._blocks, strict=True)]
        else:
            sizes = [(run.start, run.stop - run.start) for run in self.runs]
            orders = [
                first + (np.arange(n) + shift[b]) % n
                for (first, n), shift in zip(sizes, self.shifts, strict=True)
            ]
        return np.concatenate(orders)

    def make_permuter(self, y: np.ndarray) -> Callable[[int], np.ndarray]:
        """Return a function from the number of a null to its responses, (n_rows, n) in the dtype of `y`."""
        if self.kind != "phase":
            return lambda b: np.asarray(y[self.row_order(b)])
        spectra = [fft.rfft(y[run], axis=0) for run in self.runs]

        def permute(b: int) -> np.ndarray:
            out = np.empty_like(y)
            for run, spectrum, phases in zip(self.runs, spectra, self.phases, strict=True):
                product = spectrum * phases[b][:, None].astype(spectrum.dtype)
                out[run] = fft.irfft(product, run.stop - run.start, axis=0, overwrite_x=True)
            return out

        return permute

    def to_basis(self, values: np.ndarray) -> np.ndarray:
        """Express columns in a basis in which nulls are cheap: rows as they are, or waves of each run for "phase".

        Products of columns over whole runs stay the same: the basis is orthonormal.

        Returns
        -------
        (n_rows, n), or (n_waves, n) for "phase": of each run the cosines, then the sines
        """
        if self.kind != "phase":
            return values
        waves = []
        for run in self.runs:
            spectrum = fft.rfft(values[run], axis=0, norm="ortho")
            spectrum[1 : len(spectrum) - (run.stop - run.start + 1) % 2] *= np.sqrt(2.0).astype(values.dtype)
            waves += [spectrum.real, spectrum.imag]
        return np.concatenate(waves)

    def permute_responses(self, values: np.ndarray, b: int) -> np.ndarray:
        """Return the responses of null `b`, in the basis of `to_basis`."""
        return values[self.row_order(b)] if self.kind != "phase" else self._rotate_waves(values, b, 1)

    def permute_columns(self, values: np.ndarray, b: int) -> np.ndarray:
        """Permute features the other way round: ``permute_columns(x)ᵀ y`` is ``xᵀ permute_responses(y)``."""
        if self.kind == "phase":
            return self._rotate_waves(values, b, -1)
        out = np.empty_like(values)
        out[self.row_order(b)] = values
        return out

    def _rotate_waves(self, values: np.ndarray, b: int, sign: int) -> np.ndarray:
        out, first = np.empty_like(values), 0
        for phases in self.phases:
            n = phases.shape[1]
            factors = phases[b][:, None]
            cos, sin = factors.real.astype(values.dtype), factors.imag.astype(values.dtype)
            even, odd = values[first : first + n], values[first + n : first + 2 * n]
            out[first : first + n] = cos * even - sign * sin * odd
            out[first + n : first + 2 * n] = sign * sin * even + cos * odd
            first += 2 * n
        return out


def _hash_name(name: str) -> int:
    """Return a number from the name of a run, the same on every machine."""
    return int(hashlib.blake2b(b"json " + json.dumps(name).encode(), digest_size=16).hexdigest()[:8], 16)


def _draw_blocks(n: int, n_nulls: int, key: Sequence[int], block: int) -> np.ndarray:
    """Shuffle blocks of a run of `n` rows, each null from a source of its own: (n_nulls, n) int32."""
    run, orders = np.zeros(n, dtype=np.int8), np.empty((n_nulls, n), dtype=np.int32)
    for b in range(n_nulls):
        orders[b] = shuffle_blocks(run, np.random.default_rng([*key, b]), block)
    return orders
