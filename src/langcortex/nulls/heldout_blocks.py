"""Nulls of held-out predictions by blocks, compiled: computed and counted for some targets while they are in the cache.

numba compiles this when it is first used and keeps the result on disk; without numba (``pip install "langcortex[fast]"``)
`langcortex.nulls.heldout` and `langcortex.stats.null_counts.NullCounts` do the same in numpy. This module loads numba: import it only
where it is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from langcortex.nulls.heldout import BlockNulls
from langcortex.ridge.compiled.tiles import compile_function

LANES = 128  # targets at a time: the table of a run (25 blocks of each series) fits the second cache
EPS = float(np.finfo(np.float64).eps)


class Counts(NamedTuple):
    """Counts of nulls, see `langcortex.stats.null_counts.NullCounts`; undefined targets take no part.

    Attributes
    ----------
    observed : (n_layers, n_targets) mean correlations, NaN where undefined
    n_exceeding : (n_layers, n_targets) int64, how many nulls are at least as large
    largest : (n_layers, n_nulls) the largest of each null, −inf where no target is defined
    sums, sums_of_squares : (n_layers,) over targets and nulls
    """

    observed: np.ndarray
    n_exceeding: np.ndarray
    largest: np.ndarray
    sums: np.ndarray
    sums_of_squares: np.ndarray


class BlockWorkspace(NamedTuple):
    """Arrays of LANES columns that are written for every part of the targets; lanes without a target are undefined.

    Attributes
    ----------
    y, q : (n_rows, LANES) responses and predictions, from `normalise_columns`
    y_defined, q_defined : (LANES,) bool
    table : (n_entries of the largest table, LANES)
    null : (n_nulls, LANES) mean correlations
    """

    y: np.ndarray
    q: np.ndarray
    y_defined: np.ndarray
    q_defined: np.ndarray
    table: np.ndarray
    null: np.ndarray


def new_counts(n_layers: int, n_targets: int, n_nulls: int) -> Counts:
    """Return counts of no null."""
    shape = (n_layers, n_targets)
    largest = np.full((n_layers, n_nulls), -np.inf)
    return Counts(
        np.full(shape, np.nan), np.zeros(shape, np.int64), largest, np.zeros(n_layers), np.zeros(n_layers)
    )


def new_workspace(blocks: BlockNulls, dtype: np.dtype) -> BlockWorkspace:
    """Allocate arrays for `normalise_columns` and `count_layer`, in float32 or float64."""
    n_rows, n_nulls = int(blocks.edges[-1]), len(blocks.entries)
    n_entries = int(np.diff(blocks.table_begins).max())
    y, q, table, null = (np.zeros((n, LANES), dtype) for n in (n_rows, n_rows, n_entries, n_nulls))
    return BlockWorkspace(y, q, np.zeros(LANES, np.bool_), np.zeros(LANES, np.bool_), table, null)


@compile_function()
def normalise_columns(
    out: np.ndarray, defined: np.ndarray, values: np.ndarray, edges: np.ndarray, eps: float
) -> None:
    """Centre columns in each run, to length 1/√n_runs there, so that a sum of products is a mean of correlations.

    Parameters
    ----------
    out : (n_rows, LANES) written; 0 where undefined
    defined : (LANES,) bool, written: whether the column is finite and constant in no run
    values : (n_rows, n) with n ≤ LANES
    edges : (n_runs + 1,) first rows of the runs, and the number of rows
    eps : machine epsilon of the dtype
    """
    defined[:], width = True, values.shape[1]
    total, squares, scale = np.empty(LANES), np.empty(LANES), np.empty(LANES, out.dtype)
    top, centre = np.empty(LANES, out.dtype), np.empty(LANES, out.dtype)
    for run in range(len(edges) - 1):
        begin, end = edges[run], edges[run + 1]
        n = end - begin
        total[:], squares[:], top[:] = 0, 0, 0
        for i in range(begin, end):
            out[i, :width], out[i, width:] = values[i], 0
            for j in range(LANES):
                total[j] += out[i, j]
        for j in range(LANES):
            centre[j] = total[j] / n
        for i in range(begin, end):
            for j in range(LANES):
                size, residual = abs(out[i, j]), out[i, j] - centre[j]
                top[j] = size if size > top[j] else top[j]
                squares[j] += residual * residual
        for j in range(LANES):
            rounding = n * (4.0 * (eps + n * EPS) * top[j]) ** 2
            defined[j] &= rounding < squares[j] < np.inf
            scale[j] = 1.0 / np.sqrt(squares[j] * (len(edges) - 1))
        for i in range(begin, end):
            for j in range(LANES):
                out[i, j] = (out[i, j] - centre[j]) * scale[j]
    for j in range(LANES):
        if not defined[j]:
            out[:, j] = 0


@compile_function()
def count_layer(
    counts: Counts, layer: int, start: int, stop: int, work: BlockWorkspace, blocks: BlockNulls, tie: float
) -> None:
    """Compute and count all nulls of the targets `start` to `stop` of a layer, from `work.y` and `work.q`.

    Parameters
    ----------
    counts : written
    layer, start, stop : which layer and targets
    work, blocks : from `normalise_columns` and `langcortex.nulls.heldout.draw_blocks`
    tie : by how much less than the observed value a null counts as equal
    """
    y, q, table, null = work.y, work.q, work.table, work.null
    null[:] = 0
    for i in range(len(blocks.length)):
        first = blocks.first[blocks.block_begins[i] : blocks.block_begins[i + 1]]
        entries = blocks.entries[:, blocks.block_begins[i] : blocks.block_begins[i + 1]]
        _tabulate(table, y, q, first, blocks.length[i])
        _add(null, table, entries, blocks.table_begins[i])
    defined = work.y_defined & work.q_defined
    observed, n_exceeding = np.zeros(LANES), np.zeros(LANES, np.int32)
    for t in range(len(y)):
        for j in range(LANES):
            observed[j] += y[t, j] * q[t, j]
    least, off = np.empty(LANES, null.dtype), np.empty(LANES, null.dtype)
    for j in range(LANES):
        least[j], off[j] = (observed[j] - tie, 0.0) if defined[j] else (np.inf, -np.inf)
    total, squares = _count(n_exceeding, counts.largest[layer], least, off, null)
    counts.sums[layer] += total
    counts.sums_of_squares[layer] += squares
    for j in range(stop - start):
        counts.observed[layer, start + j] = observed[j] if defined[j] else np.nan
        counts.n_exceeding[layer, start + j] = n_exceeding[j]


@compile_function()
def _tabulate(table: np.ndarray, y: np.ndarray, q: np.ndarray, first: np.ndarray, length: int) -> None:
    """Multiply every block of `y` with every block of `q`: entry b · size + a is block a of y with block b of q."""
    size = len(first)
    for e in range(size * size):
        a, b = first[e % size], first[e // size]
        table[e] = 0
        t = 0
        while t + 4 <= length:
            for j in range(LANES):
                table[e, j] += (y[a + t, j] * q[b + t, j] + y[a + t + 1, j] * q[b + t + 1, j]) + (
                    y[a + t + 2, j] * q[b + t + 2, j] + y[a + t + 3, j] * q[b + t + 3, j]
                )
            t += 4
        for u in range(t, length):
            for j in range(LANES):
                table[e, j] += y[a + u, j] * q[b + u, j]


@compile_function()
def _add(null: np.ndarray, table: np.ndarray, entries: np.ndarray, begin: int) -> None:
    """Add to every null its entries of a table, eight at a time: entries (n_nulls, n), counted from `begin`."""
    for i in range(len(null)):
        done = 0
        while done + 8 <= entries.shape[1]:
            a, b, c, d = (
                table[entries[i, done] - begin],
                table[entries[i, done + 1] - begin],
                table[entries[i, done + 2] - begin],
                table[entries[i, done + 3] - begin],
            )
            e, f, g, h = (
                table[entries[i, done + 4] - begin],
                table[entries[i, done + 5] - begin],
                table[entries[i, done + 6] - begin],
                table[entries[i, done + 7] - begin],
            )
            for j in range(LANES):
                null[i, j] += ((a[j] + b[j]) + (c[j] + d[j])) + ((e[j] + f[j]) + (g[j] + h[j]))
            done += 8
        for k in range(done, entries.shape[1]):
            row = table[entries[i, k] - begin]
            for j in range(LANES):
                null[i, j] += row[j]


@compile_function("nnan", "nsz")
def _count(
    n_exceeding: np.ndarray, largest: np.ndarray, least: np.ndarray, off: np.ndarray, null: np.ndarray
) -> tuple[float, float]:
    """Count nulls that are finite everywhere.

    Parameters
    ----------
    n_exceeding : (LANES,) int32, incremented by the nulls of at least `least`
    largest : (n_nulls,) raised to the largest of a null with `off` added
    least, off : (LANES,)
    null : (n_nulls, LANES)

    Returns
    -------
    sum and sum of squares of all nulls
    """
    total, squares, zero = 0.0, 0.0, 0 * null[0, 0]
    for i in range(len(null)):
        row_total, row_squares, row_largest = zero, zero, zero - np.inf
        for j in range(LANES):
            value = null[i, j]
            n_exceeding[j] += np.int32(value >= least[j])
            row_total += value
            row_squares += value * value
            row_largest = max(row_largest, value + off[j])
        total += row_total
        squares += row_squares
        largest[i] = max(largest[i], row_largest)
    return total, squares
