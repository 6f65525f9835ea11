"""Nulls that shift whole runs, few axes, penalties chosen anew: no response is moved, and no null is read twice.

What the engine needs of responses that were shifted within their runs are their products with axes and confounds, run by run.
There are fewer shifts than nulls, so products with a vector of targets are made once for every shift that some null has, and
every null adds up its own. numba compiles this when it is first used and keeps the result on disk; without it, with many
axes, or on a GPU, `langcortex.encoding.null_test` moves responses. This module loads numba: import it when it is used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import fft

from langcortex.arrays import chunks
from langcortex.nulls.permutations import RowPermutations
from langcortex.ridge.compiled.fit import (
    FitOutput,
    PackedMoments,
    PackedPlan,
    Workspace,
    fit_lane_group,
    new_output,
    new_workspace,
)
from langcortex.ridge.compiled.tiles import FLOATS, LANES, ROWS, compile_function, project
from langcortex.ridge.moments import response_moments
from langcortex.ridge.pack import pack_moments, pack_plan
from langcortex.ridge.plan import Plan, RowSets

TABLE_BYTES = 2**27  # memory for the products of the axes of one plan
TOGETHER = LANES // FLOATS  # nulls that go through together


class Shifts(NamedTuple):
    """What some nulls do to the runs, for compiled code. Runs are those of the folds, segment after segment.

    Attributes
    ----------
    edges : (n_runs + 1,) where the rows of each run begin, in the order of segments
    shift : (n_lines,) every shift that some null has, run after run
    begins : (n_runs + 1,) where the shifts of each run begin
    lines : (n_nulls, n_runs) which of them each null has
    of : (n_segments + 1,) where the runs of each segment begin
    runs, runs_from : the runs of each set of rows; (n_sets + 1,) where they begin
    """

    edges: np.ndarray
    shift: np.ndarray
    begins: np.ndarray
    lines: np.ndarray
    of: np.ndarray
    runs: np.ndarray
    runs_from: np.ndarray


class Shifted:
    """All nulls of some folds, ready for any responses and plans.

    Parameters
    ----------
    sets : of the folds; every segment is made of whole runs
    moves : of kind "shift"
    n_bases : of the plan that has most
    """

    def __init__(self, sets: RowSets, moves: RowPermutations, n_bases: int) -> None:
        self.sets, self.n_nulls = sets, moves.n_nulls
        inside = [[i for i, part in enumerate(moves.parts) if part.start in rows] for rows in sets.blocks]
        runs = [i for some in inside for i in some]
        self.parts, self.shifts = [moves.parts[i] for i in runs], [moves.shifts[i] for i in runs]
        self.of = np.cumsum([0, *map(len, inside)])
        every = self._lines(slice(0, moves.n_nulls))
        size, at_most = 4 * FLOATS * n_bases, moves.n_nulls
        if len(every.shift) * size > TABLE_BYTES:
            at_most = max(TOGETHER, TABLE_BYTES // (size * len(runs)))
        self.groups = chunks(moves.n_nulls, at_most)
        self.made = [every] if len(self.groups) == 1 else [self._lines(group) for group in self.groups]

    def _lines(self, nulls: slice) -> Shifts:
        used = [np.unique(shift[nulls]) for shift in self.shifts]
        begins = np.cumsum([0, *map(len, used)])
        each = [
            first + np.searchsorted(some, shift[nulls])
            for first, some, shift in zip(begins[:-1], used, self.shifts, strict=True)
        ]
        sets = [
            [run for s in parts for run in range(self.of[s], self.of[s + 1])]
            for parts in self.sets.block_numbers.values()
        ]
        return Shifts(
            np.cumsum([0, *(part.stop - part.start for part in self.parts)]),
            np.concatenate(used),
            begins,
            np.stack(each, axis=1),
            self.of,
            np.array([run for some in sets for run in some], dtype=np.int64),
            np.cumsum([0, *map(len, sets)]),
        )

    def scores(self, y: np.ndarray, plans: Sequence[Plan]) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Choose penalties and score.

        Parameters
        ----------
        y : (n_rows, at most FLOATS) float32 responses, centred
        plans : compiled code serves them, see `langcortex.ridge.solve.can_compile`

        Yields
        ------
        number : of the plan
        nulls : which
        r : (n_pieces, n_nulls, n) float64, pieces of all outer folds, one after the other
        """
        n = y.shape[1]
        full = np.zeros((len(y), FLOATS), np.float32)
        full[:, :n] = y
        sums = response_moments(full, self.sets)
        twice = np.concatenate([full[part] for part in self.parts for _ in range(2)])[None]
        on = [self._on(full, made) for made in self.made]
        most = max(plan.bases.shape[1] for plan in plans) + ROWS
        room_for = np.empty(max(len(made.shift) for made in self.made) * most * FLOATS, np.float32)
        for number, plan in enumerate(plans):
            packed: PackedPlan = plan.compiled_form(self.sets, functools.partial(pack_plan, plan, sums))
            found = new_output(packed, LANES)
            room = new_workspace(packed, len(plan.training_sets[0].shrinkage))
            whole = pack_moments(sums, plan)
            said = whole._replace(
                cross=np.zeros((*whole.cross.shape[:2], LANES)),
                sum_of_squares=np.tile(whole.sum_of_squares, TOGETHER),
                is_constant=np.tile(whole.is_constant, TOGETHER),
            )
            for nulls, made, own in zip(self.groups, self.made, on, strict=True):
                shape = (len(made.shift), room.products.shape[1], FLOATS)
                table = room_for[: math.prod(shape)].reshape(shape)
                _tabulate(table, twice, packed.panels, made)
                r = np.empty((found.segment_scores.shape[0], len(made.lines), FLOATS))
                _score(r, table, own, made, found, said, packed, room)
                yield number, nulls, r[:, :, :n]

    def _on(self, y: np.ndarray, made: Shifts) -> np.ndarray:
        """Give [1, C]ᵀy over every run at every shift: (n_lines, 1 + c, FLOATS) float64."""
        out = np.empty((len(made.shift), self.sets.nuisance.shape[1], FLOATS))
        for part, (first, last) in zip(self.parts, pairwise(made.begins.tolist()), strict=True):
            spectrum = fft.rfft(y[part].astype(np.float64), axis=0)
            out[first:last, 0] = spectrum[0].real
            for j in range(1, out.shape[1]):
                own = np.conj(fft.rfft(self.sets.nuisance[part, j]))
                every = fft.irfft(own[:, None] * spectrum, part.stop - part.start, axis=0)
                out[first:last, j] = every[made.shift[first:last]]
        return out


@compile_function()
def _tabulate(table: np.ndarray, twice: np.ndarray, panels: np.ndarray, shifts: Shifts) -> None:
    """Multiply axes with every run at every shift: a stretch of the same rows written twice.

    Parameters
    ----------
    table : (n_lines, n_bases padded, FLOATS) written
    twice : (1, 2 · n_rows, FLOATS) every run, twice
    """
    for i in range(len(shifts.edges) - 1):
        begin, end = shifts.edges[i], shifts.edges[i + 1]
        for line in range(shifts.begins[i], shifts.begins[i + 1]):
            project(table[line], panels, begin, end, twice, 2 * begin + shifts.shift[line])


@compile_function()
def _score(
    r: np.ndarray,
    table: np.ndarray,
    on: np.ndarray,
    shifts: Shifts,
    found: FitOutput,
    said: PackedMoments,
    packed: PackedPlan,
    room: Workspace,
) -> None:
    """Add up the lines of every null and fit: r is (n_pieces, n_nulls, FLOATS), written."""
    lines = shifts.lines
    for first in range(0, len(lines), TOGETHER):
        n = min(TOGETHER, len(lines) - first)
        for j in range(n):
            own, v0 = lines[first + j], j * FLOATS
            _add_segments(room.products, table, own, shifts.of, v0)
            _add_sets(said.cross, on, own, shifts.runs, shifts.runs_from, v0)
        fit_lane_group(found, said, packed, room, 0, n * FLOATS)
        for i in range(len(r)):
            for j in range(n):
                row, part = r[i, first + j], found.segment_scores[i, 0, j * FLOATS : (j + 1) * FLOATS]
                for v in range(FLOATS):
                    row[v] = part[v]


@compile_function()
def _add_segments(product: np.ndarray, table: np.ndarray, lines: np.ndarray, of: np.ndarray, v0: int) -> None:
    """Write one null's products of every segment into some lanes."""
    for s in range(len(product)):
        own = table[lines[of[s]]]
        for i in range(product.shape[1]):
            row, part = product[s, i, v0 : v0 + FLOATS], own[i]
            for v in range(FLOATS):
                row[v] = part[v]
        for k in range(of[s] + 1, of[s + 1]):
            own = table[lines[k]]
            for i in range(product.shape[1]):
                row, part = product[s, i, v0 : v0 + FLOATS], own[i]
                for v in range(FLOATS):
                    row[v] += part[v]


@compile_function()
def _add_sets(
    on: np.ndarray, table: np.ndarray, lines: np.ndarray, runs: np.ndarray, runs_from: np.ndarray, v0: int
) -> None:
    """Write one null's sums over every set into some lanes."""
    for s in range(len(on)):
        for i in range(on.shape[1]):
            row = on[s, i, v0 : v0 + FLOATS]
            for v in range(FLOATS):
                row[v] = 0.0
            for run in runs[runs_from[s] : runs_from[s + 1]]:
                part = table[lines[run], i]
                for v in range(FLOATS):
                    row[v] += part[v]
