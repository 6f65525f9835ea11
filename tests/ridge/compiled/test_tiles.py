"""Products of small matrices in registers are those of numpy, for every number of rows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from langcortex.ridge.compiled.tiles import (
    FLOATS,
    LANES,
    ROWS,
    contiguous_rows,
    multiply,
    pack_rows,
    padded,
    panels_of,
    project,
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 4, 6, 7, 10, 14, 15, 18, 32])
def test_products_of_every_number_of_rows(rng: np.random.Generator, n: int, dtype: type) -> None:
    """Tiles of six rows and of four cover the rows exactly, with a start and a factor or without."""
    n, tolerance = padded(n), 1e-5 if dtype is np.float32 else 1e-13
    coefs, rows = rng.standard_normal((n, 11)).astype(dtype), rng.standard_normal((11, LANES)).astype(dtype)
    start, by = rng.standard_normal((2, n, LANES)).astype(dtype)
    out = np.full((n, LANES), np.nan, dtype)
    multiply(out, None, coefs, rows, None)
    np.testing.assert_allclose(out, coefs @ rows, atol=tolerance)
    multiply(out, start, coefs, rows, by)
    np.testing.assert_allclose(out, (start + coefs @ rows) * by, atol=10 * tolerance)


def test_products_of_columns_with_responses_over_some_rows(rng: np.random.Generator) -> None:
    """Rows in another order, of some columns of a larger matrix, in a number that no vector divides."""
    columns, y = rng.standard_normal((50, 8)), rng.standard_normal((50, 90)).astype(np.float32)
    order, size = rng.permutation(50), 39
    rows = np.zeros((48 // FLOATS, 20, FLOATS), np.float32)
    pack_rows(rows, contiguous_rows(y[:, 10:]), order[5:25], 7, size)
    out = np.empty((2 * ROWS, 48), np.float32)
    project(out, panels_of(columns[order]), 5, 25, rows, 0)
    true = columns[order[5:25]].T @ y[order[5:25], 17 : 17 + size]
    np.testing.assert_allclose(out[:8, :size], true, atol=1e-5)
    assert not out[8:].any()
    assert not out[:, size:].any()
