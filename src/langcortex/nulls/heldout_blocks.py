"""Nulls of held-out predictions by blocks, compiled: made and counted for some targets while they lie in the cache.

numba compiles this when it is first used and keeps the result on disk; without numba (``pip install "langcortex[fast]"``)
`langcortex.nulls.heldout` and `langcortex.stats.null_counts.NullCounts` do the same in numpy. This module loads numba: import it when it
is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from langcortex.nulls.heldout import BlockNulls
from langcortex.ridge.compiled.tiles import compile_function

LANES = 128  # targets that go through together: the table of a run (25 blocks of each series) fits the second cache
EPS = float(np.finfo(np.float64).eps)


class Counts(NamedTuple):
    """What remains of nulls, see `langcortex.stats.null_counts.NullCounts`; undefined targets take no part.

    Attributes
    ----------
    true : (n_layers, n_targets) mean correlations, NaN where undefined
    beaten : (n_layers, n_targets) int64, nulls at least as large
    largest : (n_layers, n_nulls) the largest of each null, −inf where no target is defined
    total, squares : (n_layers,) sums over targets and nulls
    """

    true: np.ndarray
    beaten: np.ndarray
    largest: np.ndarray
    total: np.ndarray
    squares: np.ndarray


class Work(NamedTuple):
    """Arrays of LANES columns that are written over and over; lanes without a target are undefined.

    Attributes
    ----------
    y, q : (n_rows, LANES) responses and predictions, from `unit`
    y_known, q_known : (LANES,) bool
    table : (most entries of a table, LANES)
    sums : (n_nulls, LANES) mean correlations
    """

    y: np.ndarray
    q: np.ndarray
    y_known: np.ndarray
    q_known: np.ndarray
    table: np.ndarray
    sums: np.ndarray


def new_counts(n_layers: int, n_targets: int, n_nulls: int) -> Counts:
    """Begin to count."""
    shape = (n_layers, n_targets)
    largest = np.full((n_layers, n_nulls), -np.inf)
    return Counts(
        np.full(shape, np.nan), np.zeros(shape, np.int64), largest, np.zeros(n_layers), np.zeros(n_layers)
    )


def new_work(blocks: BlockNulls, dtype: np.dtype) -> Work:
    """Make room for `unit` and `count_layer`, in float32 or float64."""
    rows, entries, n_nulls = int(blocks.edges[-1]), int(np.diff(blocks.begins).max()), len(blocks.entries)
    y, q, table, sums = (np.zeros((n, LANES), dtype) for n in (rows, rows, entries, n_nulls))
    return Work(y, q, np.zeros(LANES, np.bool_), np.zeros(LANES, np.bool_), table, sums)


@compile_function()
def unit(out: np.ndarray, known: np.ndarray, values: np.ndarray, edges: np.ndarray, eps: float) -> None:
    """Centre columns in each run, to length 1/√n_runs there, so that a sum of products is a mean of correlations.

    Parameters
    ----------
    out : (n_rows, LANES) written; 0 where undefined
    known : (LANES,) bool, written: the column is finite and constant in no run
    values : (n_rows, n) with n ≤ LANES
    edges : (n_runs + 1,) first rows of the runs, and the number of rows
    eps : the distance of 1 from the next number of the dtype
    """
    known[:], width = True, values.shape[1]
    mean, length, scale = np.empty(LANES), np.empty(LANES), np.empty(LANES, out.dtype)
    top, centre = np.empty(LANES, out.dtype), np.empty(LANES, out.dtype)
    for part in range(len(edges) - 1):
        begin, end = edges[part], edges[part + 1]
        n = end - begin
        mean[:], length[:], top[:] = 0, 0, 0
        for i in range(begin, end):
            out[i, :width], out[i, width:] = values[i], 0
            for j in range(LANES):
                mean[j] += out[i, j]
        for j in range(LANES):
            centre[j] = mean[j] / n
        for i in range(begin, end):
            for j in range(LANES):
                size, around = abs(out[i, j]), out[i, j] - centre[j]
                top[j] = size if size > top[j] else top[j]
                length[j] += around * around
        for j in range(LANES):
            rounding = n * (4.0 * (eps + n * EPS) * top[j]) ** 2
            known[j] &= rounding < length[j] < np.inf
            scale[j] = 1.0 / np.sqrt(length[j] * (len(edges) - 1))
        for i in range(begin, end):
            for j in range(LANES):
                out[i, j] = (out[i, j] - centre[j]) * scale[j]
    for j in range(LANES):
        if not known[j]:
            out[:, j] = 0


@compile_function()
def count_layer(
    counts: Counts, layer: int, start: int, stop: int, work: Work, blocks: BlockNulls, tie: float
) -> None:
    """Make and count all nulls of the targets `start` to `stop` of a layer, from `work.y` and `work.q`.

    Parameters
    ----------
    counts : written
    layer, start, stop : whose
    work, blocks : from `unit` and `langcortex.nulls.heldout.draw_blocks`
    tie : by how much less than the observed value a null counts as equal
    """
    y, q, table, sums = work.y, work.q, work.table, work.sums
    sums[:] = 0
    for i in range(len(blocks.length)):
        first = blocks.first[blocks.since[i] : blocks.since[i + 1]]
        entries = blocks.entries[:, blocks.since[i] : blocks.since[i + 1]]
        _tabulate(table, y, q, first, blocks.length[i])
        _add(sums, table, entries, blocks.begins[i])
    known = work.y_known & work.q_known
    true, beaten = np.zeros(LANES), np.zeros(LANES, np.int32)
    for t in range(len(y)):
        for j in range(LANES):
            true[j] += y[t, j] * q[t, j]
    least, off = np.empty(LANES, sums.dtype), np.empty(LANES, sums.dtype)
    for j in range(LANES):
        least[j], off[j] = (true[j] - tie, 0.0) if known[j] else (np.inf, -np.inf)
    total, squares = _count(beaten, counts.largest[layer], least, off, sums)
    counts.total[layer] += total
    counts.squares[layer] += squares
    for j in range(stop - start):
        counts.true[layer, start + j] = true[j] if known[j] else np.nan
        counts.beaten[layer, start + j] = beaten[j]


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
        for rest in range(t, length):
            for j in range(LANES):
                table[e, j] += y[a + rest, j] * q[b + rest, j]


@compile_function()
def _add(sums: np.ndarray, table: np.ndarray, entries: np.ndarray, begin: int) -> None:
    """Add to every null its entries of a table, eight at a time: entries (n_nulls, n), the first of the table is `begin`."""
    for i in range(len(sums)):
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
                sums[i, j] += ((a[j] + b[j]) + (c[j] + d[j])) + ((e[j] + f[j]) + (g[j] + h[j]))
            done += 8
        for rest in range(done, entries.shape[1]):
            one = table[entries[i, rest] - begin]
            for j in range(LANES):
                sums[i, j] += one[j]


@compile_function("nnan", "nsz")
def _count(
    beaten: np.ndarray, largest: np.ndarray, least: np.ndarray, off: np.ndarray, sums: np.ndarray
) -> tuple[float, float]:
    """Count nulls that are finite everywhere.

    Parameters
    ----------
    beaten : (LANES,) int32, raised by the nulls of at least `least`
    largest : (n_nulls,) raised to the largest of a null with `off` added
    least, off : (LANES,)
    sums : (n_nulls, LANES)

    Returns
    -------
    sum and sum of squares of all nulls
    """
    total, squares, zero = 0.0, 0.0, 0 * sums[0, 0]
    for i in range(len(sums)):
        here, square, top = zero, zero, zero - np.inf
        for j in range(LANES):
            value = sums[i, j]
            beaten[j] += np.int32(value >= least[j])
            here += value
            square += value * value
            top = max(top, value + off[j])
        total += here
        squares += square
        largest[i] = max(largest[i], top)
    return total, squares
