"""Refits of shifted whole runs with few components, penalties chosen anew: no response is shifted, no null read twice.

What the engine needs of responses that are shifted within their runs are their products with components and confounds, run by
run. There are fewer shifts than nulls, so products with a vector of targets are computed once for every shift that occurs, and
every null adds up its own. numba compiles this when it is first used and keeps the result on disk; without it, with many
components, or on a GPU, `langcortex.nulls.refit` permutes responses. This module loads numba: import it only where it is used.
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

TABLE_BYTES = 2**27  # memory for the products of the bases of one plan
NULLS = LANES // FLOATS  # at a time


class ShiftTable(NamedTuple):
    """The shifts of some nulls, as arrays for compiled code. Runs are in the order of the row blocks.

    Attributes
    ----------
    edges : (n_runs + 1,) where the rows of each run begin, in the order of blocks
    shifts : (n_lines,) every shift that occurs, run after run
    shift_begins : (n_runs + 1,) where the shifts of each run begin
    lines : (n_nulls, n_runs) which of them each null has
    block_begins : (n_blocks + 1,) where the runs of each block begin
    set_runs, set_begins : the runs of each set of rows, and (n_sets + 1,) where those of each set begin
    """

    edges: np.ndarray
    shifts: np.ndarray
    shift_begins: np.ndarray
    lines: np.ndarray
    block_begins: np.ndarray
    set_runs: np.ndarray
    set_begins: np.ndarray


class ShiftedRuns:
    """All shifts of the runs of some folds, ready for any responses and plans.

    Parameters
    ----------
    sets : of the folds; every block is made of whole runs
    permutations : of kind "shift"
    n_bases : columns of bases of the largest plan
    """

    def __init__(self, sets: RowSets, permutations: RowPermutations, n_bases: int) -> None:
        self.sets = sets
        runs_of_blocks = [
            [i for i, run in enumerate(permutations.runs) if run.start in rows] for rows in sets.blocks
        ]
        order = [i for runs in runs_of_blocks for i in runs]
        self.runs = [permutations.runs[i] for i in order]
        self.shifts = [permutations.shifts[i] for i in order]
        self.block_begins = np.cumsum([0, *map(len, runs_of_blocks)])
        n_nulls = permutations.n_nulls
        table = self._make_table(slice(0, n_nulls))
        size, batch = 4 * FLOATS * n_bases, n_nulls
        if len(table.shifts) * size > TABLE_BYTES:
            batch = max(NULLS, TABLE_BYTES // (size * len(self.runs)))
        self.batches = chunks(n_nulls, batch)
        self.tables = [table] if len(self.batches) == 1 else [self._make_table(b) for b in self.batches]

    def _make_table(self, nulls: slice) -> ShiftTable:
        unique = [np.unique(shifts[nulls]) for shifts in self.shifts]
        begins = np.cumsum([0, *map(len, unique)])
        lines = [
            first + np.searchsorted(u, shifts[nulls])
            for first, u, shifts in zip(begins[:-1], unique, self.shifts, strict=True)
        ]
        set_runs = [
            [run for b in blocks for run in range(self.block_begins[b], self.block_begins[b + 1])]
            for blocks in self.sets.block_numbers.values()
        ]
        return ShiftTable(
            np.cumsum([0, *(run.stop - run.start for run in self.runs)]),
            np.concatenate(unique),
            begins,
            np.stack(lines, axis=1),
            self.block_begins,
            np.array([run for runs in set_runs for run in runs], dtype=np.int64),
            np.cumsum([0, *map(len, set_runs)]),
        )

    def score_nulls(self, y: np.ndarray, plans: Sequence[Plan]) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Choose penalties and score every null.

        Parameters
        ----------
        y : (n_rows, at most FLOATS) float32 responses, centred
        plans : compiled code serves them, see `langcortex.ridge.solve.can_compile`

        Yields
        ------
        number : of the plan
        nulls : which
        r : (n_segments, n_nulls, n) float64, test segments of all outer folds, one after the other
        """
        n = y.shape[1]
        padded = np.zeros((len(y), FLOATS), np.float32)
        padded[:, :n] = y
        moments = response_moments(padded, self.sets)
        twice = np.concatenate([padded[run] for run in self.runs for _ in range(2)])[None]
        crosses = [self._cross(padded, table) for table in self.tables]
        width = max(plan.bases.shape[1] for plan in plans) + ROWS
        buffer = np.empty(max(len(table.shifts) for table in self.tables) * width * FLOATS, np.float32)
        for number, plan in enumerate(plans):
            packed: PackedPlan = plan.compiled_form(self.sets, functools.partial(pack_plan, plan, moments))
            output = new_output(packed, LANES)
            work = new_workspace(packed, len(plan.training_sets[0].shrinkage))
            packed_moments = _tile_moments(pack_moments(moments, plan))
            for nulls, table, cross in zip(self.batches, self.tables, crosses, strict=True):
                shape = (len(table.shifts), work.products.shape[1], FLOATS)
                products = buffer[: math.prod(shape)].reshape(shape)
                _tabulate(products, twice, packed.panels, table)
                r = np.empty((output.segment_scores.shape[0], len(table.lines), FLOATS))
                _score(r, products, cross, table, output, packed_moments, packed, work)
                yield number, nulls, r[:, :, :n]

    def _cross(self, y: np.ndarray, table: ShiftTable) -> np.ndarray:
        """Return [1, C]ᵀy over every run at every shift: (n_lines, 1 + c, FLOATS) float64."""
        nuisance = self.sets.nuisance
        out = np.empty((len(table.shifts), nuisance.shape[1], FLOATS))
        for run, (first, last) in zip(self.runs, pairwise(table.shift_begins.tolist()), strict=True):
            spectrum = fft.rfft(y[run].astype(np.float64), axis=0)
            out[first:last, 0] = spectrum[0].real
            for j in range(1, out.shape[1]):
                conjugate = np.conj(fft.rfft(nuisance[run, j]))
                cross = fft.irfft(conjugate[:, None] * spectrum, run.stop - run.start, axis=0)
                out[first:last, j] = cross[table.shifts[first:last]]
        return out


def _tile_moments(moments: PackedMoments) -> PackedMoments:
    """Repeat the moments of one vector of targets for all nulls that are fitted at a time."""
    return moments._replace(
        cross=np.zeros((*moments.cross.shape[:2], LANES)),
        sum_of_squares=np.tile(moments.sum_of_squares, NULLS),
        is_constant=np.tile(moments.is_constant, NULLS),
    )


@compile_function()
def _tabulate(products: np.ndarray, twice: np.ndarray, panels: np.ndarray, table: ShiftTable) -> None:
    """Multiply bases with every run at every shift: a slice of its rows written twice.

    Parameters
    ----------
    products : (n_lines, n_bases padded, FLOATS) written
    twice : (1, 2 · n_rows, FLOATS) every run, twice
    """
    for i in range(len(table.edges) - 1):
        begin, end = table.edges[i], table.edges[i + 1]
        for line in range(table.shift_begins[i], table.shift_begins[i + 1]):
            project(products[line], panels, begin, end, twice, 2 * begin + table.shifts[line])


@compile_function()
def _score(
    r: np.ndarray,
    products: np.ndarray,
    cross: np.ndarray,
    table: ShiftTable,
    output: FitOutput,
    moments: PackedMoments,
    packed: PackedPlan,
    work: Workspace,
) -> None:
    """Add up the lines of every null and fit: r is (n_segments, n_nulls, FLOATS), written."""
    for first in range(0, len(table.lines), NULLS):
        n = min(NULLS, len(table.lines) - first)
        for j in range(n):
            lines, v0 = table.lines[first + j], j * FLOATS
            _add_blocks(work.products, products, lines, table.block_begins, v0)
            _add_sets(moments.cross, cross, lines, table.set_runs, table.set_begins, v0)
        fit_lane_group(output, moments, packed, work, 0, n * FLOATS)
        for i in range(len(r)):
            for j in range(n):
                row, lanes = r[i, first + j], output.segment_scores[i, 0, j * FLOATS : (j + 1) * FLOATS]
                for v in range(FLOATS):
                    row[v] = lanes[v]


@compile_function()
def _add_blocks(
    out: np.ndarray, products: np.ndarray, lines: np.ndarray, block_begins: np.ndarray, v0: int
) -> None:
    """Write the products of one null with every block into the lanes from `v0`."""
    for b in range(len(out)):
        product = products[lines[block_begins[b]]]
        for i in range(out.shape[1]):
            row, lanes = out[b, i, v0 : v0 + FLOATS], product[i]
            for v in range(FLOATS):
                row[v] = lanes[v]
        for k in range(block_begins[b] + 1, block_begins[b + 1]):
            product = products[lines[k]]
            for i in range(out.shape[1]):
                row, lanes = out[b, i, v0 : v0 + FLOATS], product[i]
                for v in range(FLOATS):
                    row[v] += lanes[v]


@compile_function()
def _add_sets(
    out: np.ndarray,
    cross: np.ndarray,
    lines: np.ndarray,
    set_runs: np.ndarray,
    set_begins: np.ndarray,
    v0: int,
) -> None:
    """Write the sums of one null over every set into the lanes from `v0`."""
    for s in range(len(out)):
        for i in range(out.shape[1]):
            row = out[s, i, v0 : v0 + FLOATS]
            for v in range(FLOATS):
                row[v] = 0.0
            for run in set_runs[set_begins[s] : set_begins[s + 1]]:
                lanes = cross[lines[run], i]
                for v in range(FLOATS):
                    row[v] += lanes[v]
