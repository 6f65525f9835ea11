"""What each null does to the rows of every run, drawn by the run's name: whoever heard a run shares its nulls."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft, sparse

from langcortex.arrays import run_slices
from langcortex.nulls.surrogates import BLOCK, LEAST, block_rows, check_null


class RowPermutations:
    """Random moves of rows within runs, as many as there are nulls.

    Every run has a source of randomness of its own, made from the seed and its name. So subjects who heard the same
    run, and models that are tested on it, meet the same nulls, whatever other runs they have: what they share stays
    shared. Where two subjects have a different number of rows of a run, shifts are the same share of it, phases the same
    at every number of cycles a run, and blocks are shuffled in the same order.

    Rows are taken as equally far apart. Where they are not (sentences), a null keeps what neighbouring rows have in common by
    their number and not by their seconds.

    Parameters
    ----------
    kind : "shift", "block" or "phase", see `langcortex.nulls.surrogates.draw_null`
    run : (n_rows,) the run of each row, the rows of a run together
    n_nulls : how many
    seed : of all runs
    block : rows in a block, for "block": at least as many as the responses remember

    Attributes
    ----------
    parts : the rows of each run
    shifts : (n_nulls,) rows a run, for "shift": a response comes from so many rows later
    turns : (n_nulls, n_frequencies) complex factors of ``rfft`` a run, for "phase"
    """

    def __init__(
        self, kind: str, run: np.ndarray, n_nulls: int, seed: int | Sequence[int], block: int = BLOCK
    ) -> None:
        check_null(kind, run, block)
        self._some: dict[bytes, tuple[RowPermutations, np.ndarray]] = {}
        self._picked: dict[tuple[int, int, str], sparse.csr_array] = {}
        self.kind, self.n_nulls, self.n_rows, self.parts = kind, n_nulls, len(run), run_slices(run)
        self._drawn = self.parts  # where the rows of each run are in _rows
        self.shifts: list[np.ndarray] = []
        self.turns: list[np.ndarray] = []
        self._rows = np.empty((n_nulls, len(run)), dtype=np.int32) if kind == "block" else None
        for part in self.parts:
            key = [*np.atleast_1d(seed).tolist(), _number_of(str(run[part.start]))]
            n = part.stop - part.start
            if kind == "shift":
                self.shifts.append(_shifts(n, n_nulls, np.random.default_rng(key)))
            elif kind == "phase":
                self.turns.append(_phases(n, n_nulls, np.random.default_rng(key)))
            else:
                assert self._rows is not None
                one = np.zeros(n, dtype=np.int8)
                for b in range(n_nulls):
                    drawn = block_rows(one, np.random.default_rng([*key, b]), block)
                    self._rows[b, part] = drawn

    def only(self, rows: np.ndarray) -> tuple[RowPermutations, np.ndarray]:
        """Keep the runs that some rows belong to: their moves, and all of their rows, which these then count from 0."""
        key = np.ascontiguousarray(rows, dtype=np.int64).tobytes()
        if key not in self._some:
            inside = np.zeros(self.n_rows, dtype=bool)
            inside[rows] = True
            self._some[key] = self._kept([i for i, part in enumerate(self.parts) if inside[part].any()])
        return self._some[key]

    def _kept(self, numbers: Sequence[int]) -> tuple[RowPermutations, np.ndarray]:
        some = copy.copy(self)
        parts = [self.parts[i] for i in numbers]
        ends = np.cumsum([0, *(part.stop - part.start for part in parts)]).tolist()
        some.parts, some.n_rows = [slice(a, b) for a, b in itertools.pairwise(ends)], ends[-1]
        some._drawn = [self._drawn[i] for i in numbers]
        some.shifts = [self.shifts[i] for i in numbers] if self.shifts else []
        some.turns = [self.turns[i] for i in numbers] if self.turns else []
        some._some, some._picked = {}, {}
        return some, np.concatenate([np.arange(part.start, part.stop) for part in parts])

    def used(self) -> list[np.ndarray]:
        """List the shifts of each run that some null has."""
        return [np.unique(shift) for shift in self.shifts]

    def pick(self, group: slice, dtype: np.dtype[np.floating]) -> sparse.csr_array:
        """Make what adds up a table of the `used` shifts of every run, one after the other, for some nulls."""
        key = (group.start, group.stop, dtype.str)
        if key not in self._picked:
            used = self.used()
            first = np.cumsum([0, *map(len, used)])
            each = [
                at + np.searchsorted(u, s[group])
                for at, u, s in zip(first[:-1], used, self.shifts, strict=True)
            ]
            lines = np.stack(each, axis=1).astype(np.int32)
            ends = np.arange(0, lines.size + 1, lines.shape[1], dtype=np.int32)
            ones = np.ones(lines.size, dtype=dtype)
            shape = (len(lines), int(first[-1]))
            self._picked[key] = sparse.csr_array((ones, lines.ravel(), ends), shape=shape)
        return self._picked[key]

    def rows(self, b: int) -> np.ndarray:
        """Give the row that null `b` puts in the place of each row: (n_rows,); not for "phase"."""
        if self._rows is not None:
            return np.concatenate(
                [p.start + self._rows[b, d] for p, d in zip(self.parts, self._drawn, strict=True)]
            )
        each = [(p.start, p.stop - p.start, s[b]) for p, s in zip(self.parts, self.shifts, strict=True)]
        return np.concatenate([first + (np.arange(n) + shift) % n for first, n, shift in each])

    def of(self, y: np.ndarray) -> Callable[[int], np.ndarray]:
        """Make what gives the responses of one null after the other: number → (n_rows, n), in the dtype of `y`."""
        if self.kind != "phase":
            return lambda b: np.asarray(y[self.rows(b)])
        spectra = [fft.rfft(y[part], axis=0) for part in self.parts]

        def moved(b: int) -> np.ndarray:
            out = np.empty_like(y)
            for part, spectrum, turn in zip(self.parts, spectra, self.turns, strict=True):
                turned = spectrum * turn[b][:, None].astype(spectrum.dtype)
                out[part] = fft.irfft(turned, part.stop - part.start, axis=0, overwrite_x=True)
            return out

        return moved

    def basis(self, values: np.ndarray) -> np.ndarray:
        """Write columns in the terms in which nulls are cheap: as they are, or by the waves of each run for "phase".

        Products of columns over whole runs stay what they were: the waves have length 1.

        Returns
        -------
        (n_rows, n), or (n_waves, n) for "phase": of each run the cosines, then the sines
        """
        if self.kind != "phase":
            return values
        waves = []
        for part in self.parts:
            spectrum = fft.rfft(values[part], axis=0, norm="ortho")
            spectrum[1 : len(spectrum) - (part.stop - part.start + 1) % 2] *= np.sqrt(2.0).astype(
                values.dtype
            )
            waves += [spectrum.real, spectrum.imag]
        return np.concatenate(waves)

    def whole(self, rows: np.ndarray) -> bool:
        """Say whether some rows are whole runs."""
        inside = np.zeros(self.n_rows, dtype=bool)
        inside[rows] = True
        return all(inside[part].all() or not inside[part].any() for part in self.parts)

    def responses(self, values: np.ndarray, b: int) -> np.ndarray:
        """Move responses, given as `basis` gives them."""
        return values[self.rows(b)] if self.kind != "phase" else self._turned(values, b, 1)

    def columns(self, values: np.ndarray, b: int) -> np.ndarray:
        """Move what responses are multiplied with the other way: ``columns(x)ᵀ y`` is ``xᵀ responses(y)``."""
        if self.kind == "phase":
            return self._turned(values, b, -1)
        out = np.empty_like(values)
        out[self.rows(b)] = values
        return out

    def _turned(self, values: np.ndarray, b: int, sign: int) -> np.ndarray:
        out, first = np.empty_like(values), 0
        for turn in self.turns:
            n = turn.shape[1]
            cos, sin = turn[b].real[:, None].astype(values.dtype), turn[b].imag[:, None].astype(values.dtype)
            even, odd = values[first : first + n], values[first + n : first + 2 * n]
            out[first : first + n] = cos * even - sign * sin * odd
            out[first + n : first + 2 * n] = sign * sin * even + cos * odd
            first += 2 * n
        return out


def _number_of(name: str) -> int:
    """Turn a run's name into a number that is the same everywhere."""
    return int(hashlib.blake2b(b"json " + json.dumps(name).encode(), digest_size=16).hexdigest()[:8], 16)


def _shifts(n: int, n_nulls: int, rng: np.random.Generator) -> np.ndarray:
    """Draw shifts of a tenth to nine tenths of a run, in whole rows, never none and never all."""
    rows: np.ndarray = np.round(rng.uniform(LEAST, 1 - LEAST, n_nulls) * n).astype(int)
    return np.asarray(np.clip(rows, 1, n - 1))


def _phases(n: int, n_nulls: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a phase for every frequency of a run; none for the mean, and a sign where the highest is real."""
    turn: np.ndarray = np.exp(2j * np.pi * rng.random((n // 2 + 1, n_nulls))).T.copy()
    turn[:, 0] = 1.0
    if n % 2 == 0:
        turn[:, -1] = np.where(turn[:, -1].real < 0, -1.0, 1.0)
    return turn
