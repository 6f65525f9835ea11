"""Sums of responses over segments of rows, compiled. Loads numba: import it when it is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.ridge.compiled.tiles import compile_function, rows_of

COLUMNS = 512  # responses whose sums stay in the first cache
TOGETHER = 64  # rows that are summed in float32 before they are added up in float64


def sum_segments(
    y: np.ndarray, segments: Sequence[np.ndarray], c1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum responses over segments.

    Parameters
    ----------
    y : (n_rows, n) float32
    segments : row numbers
    c1 : (n_rows, 1 + c), the first column of ones

    Returns
    -------
    on : (n_segments, 1 + c, n) float64, [1, C]ᵀy
    power : (n_segments, n) float64, Σ y²
    """
    n, order = y.shape[1], np.concatenate(segments)
    on, power = np.zeros((len(segments), c1.shape[1], n)), np.zeros((len(segments), n))
    _sum_rows(on, power, rows_of(y), order, np.cumsum([0, *map(len, segments)]), c1[order].astype(np.float32))
    return on, power


@compile_function()
def _sum_rows(
    on: np.ndarray, power: np.ndarray, y: np.ndarray, order: np.ndarray, edges: np.ndarray, c1: np.ndarray
) -> None:
    width = c1.shape[1]
    total = np.empty((width + 1, COLUMNS), np.float32)
    n = power.shape[1]
    for v0 in range(0, n, COLUMNS):
        size = min(COLUMNS, n - v0)
        for s in range(len(edges) - 1):
            for begin in range(edges[s], edges[s + 1], TOGETHER):
                end = min(begin + TOGETHER, edges[s + 1])
                total[:] = np.float32(0.0)
                done = begin
                while done + 4 <= end:
                    _add_four(total, y, order[done : done + 4], c1[done : done + 4], v0, size)
                    done += 4
                for i in range(done, end):
                    _add_one(total, y[order[i], v0 : v0 + size], c1[i])
                for j in range(width):
                    sums, part = on[s, j, v0 : v0 + size], total[j]
                    for v in range(size):
                        sums[v] += part[v]
                sums, part = power[s, v0 : v0 + size], total[width]
                for v in range(size):
                    sums[v] += part[v]


@compile_function()
def _add_four(
    total: np.ndarray, y: np.ndarray, numbers: np.ndarray, c1: np.ndarray, v0: int, size: int
) -> None:
    a, b = y[numbers[0], v0 : v0 + size], y[numbers[1], v0 : v0 + size]
    c, d = y[numbers[2], v0 : v0 + size], y[numbers[3], v0 : v0 + size]
    width = c1.shape[1]
    plain, power = total[0], total[width]
    for v in range(size):
        plain[v] += (a[v] + b[v]) + (c[v] + d[v])
        power[v] += (a[v] * a[v] + b[v] * b[v]) + (c[v] * c[v] + d[v] * d[v])
    for j in range(1, width):
        sums, k, m, n, o = total[j], c1[0, j], c1[1, j], c1[2, j], c1[3, j]
        for v in range(size):
            sums[v] += (k * a[v] + m * b[v]) + (n * c[v] + o * d[v])


@compile_function()
def _add_one(total: np.ndarray, row: np.ndarray, c1: np.ndarray) -> None:
    width = len(c1)
    for j in range(width):
        sums, k = total[j], c1[j]
        for v in range(len(row)):
            sums[v] += k * row[v]
    power = total[width]
    for v in range(len(row)):
        power[v] += row[v] * row[v]
