"""Moments of responses over blocks of rows, compiled. Loads numba: import it when it is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.ridge.compiled.tiles import compile_function, contiguous_rows

COLUMNS = 512  # responses whose sums stay in the first cache
ROWS_IN_SINGLE = 64  # rows that are summed in float32 before they are added up in float64


def sum_blocks(
    y: np.ndarray, blocks: Sequence[np.ndarray], nuisance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum responses over blocks of rows.

    Parameters
    ----------
    y : (n_rows, n) float32
    blocks : row numbers of each block
    nuisance : (n_rows, 1 + n_confounds), the first column of ones

    Returns
    -------
    cross : (n_blocks, 1 + n_confounds, n) float64, [1, C]ᵀy
    sum_of_squares : (n_blocks, n) float64, Σ y²
    """
    n, row_order = y.shape[1], np.concatenate(blocks)
    cross = np.zeros((len(blocks), nuisance.shape[1], n))
    sum_of_squares = np.zeros((len(blocks), n))
    edges = np.cumsum([0, *map(len, blocks)])
    columns = nuisance[row_order].astype(np.float32)
    _sum_rows(cross, sum_of_squares, contiguous_rows(y), row_order, edges, columns)
    return cross, sum_of_squares


@compile_function()
def _sum_rows(
    cross: np.ndarray,
    sum_of_squares: np.ndarray,
    y: np.ndarray,
    row_order: np.ndarray,
    edges: np.ndarray,
    nuisance: np.ndarray,
) -> None:
    width = nuisance.shape[1]
    total = np.empty((width + 1, COLUMNS), np.float32)
    n = sum_of_squares.shape[1]
    for v0 in range(0, n, COLUMNS):
        size = min(COLUMNS, n - v0)
        for block in range(len(edges) - 1):
            for begin in range(edges[block], edges[block + 1], ROWS_IN_SINGLE):
                end = min(begin + ROWS_IN_SINGLE, edges[block + 1])
                total[:] = np.float32(0.0)
                row = begin
                while row + 4 <= end:
                    _add_four_rows(total, y, row_order[row : row + 4], nuisance[row : row + 4], v0, size)
                    row += 4
                for i in range(row, end):
                    _add_row(total, y[row_order[i], v0 : v0 + size], nuisance[i])
                for j in range(width):
                    sums, part = cross[block, j, v0 : v0 + size], total[j]
                    for v in range(size):
                        sums[v] += part[v]
                sums, part = sum_of_squares[block, v0 : v0 + size], total[width]
                for v in range(size):
                    sums[v] += part[v]


@compile_function()
def _add_four_rows(
    total: np.ndarray, y: np.ndarray, numbers: np.ndarray, nuisance: np.ndarray, v0: int, size: int
) -> None:
    a, b = y[numbers[0], v0 : v0 + size], y[numbers[1], v0 : v0 + size]
    c, d = y[numbers[2], v0 : v0 + size], y[numbers[3], v0 : v0 + size]
    width = nuisance.shape[1]
    plain, squares = total[0], total[width]
    for v in range(size):
        plain[v] += (a[v] + b[v]) + (c[v] + d[v])
        squares[v] += (a[v] * a[v] + b[v] * b[v]) + (c[v] * c[v] + d[v] * d[v])
    for j in range(1, width):
        sums, k, m, n, o = total[j], nuisance[0, j], nuisance[1, j], nuisance[2, j], nuisance[3, j]
        for v in range(size):
            sums[v] += (k * a[v] + m * b[v]) + (n * c[v] + o * d[v])


@compile_function()
def _add_row(total: np.ndarray, row: np.ndarray, nuisance: np.ndarray) -> None:
    width = len(nuisance)
    for j in range(width):
        sums, k = total[j], nuisance[j]
        for v in range(len(row)):
            sums[v] += k * row[v]
    squares = total[width]
    for v in range(len(row)):
        squares[v] += row[v] * row[v]
