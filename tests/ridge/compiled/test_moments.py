"""Compiled sums over blocks of rows are those of float64, of views as of whole matrices."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from langcortex.ridge.compiled.moments import COLUMNS, sum_blocks


@pytest.mark.parametrize("n", [1, 37, COLUMNS + 5])
def test_sums_over_blocks_are_those_of_float64(rng: np.random.Generator, n: int) -> None:
    """Blocks of one row, of rows far apart and of more than are summed in float32; some columns of a larger matrix."""
    blocks = [np.array([4]), np.r_[0:3, 90:97], np.arange(5, 90), np.arange(97, 300)]
    nuisance = np.column_stack([np.ones(300), rng.standard_normal((300, 2))])
    matrix = rng.standard_normal((300, n + 9)).astype(np.float32)
    for y in (matrix[:, 4 : n + 4], np.ascontiguousarray(matrix[:, :n]), np.asfortranarray(matrix[:, :n])):
        cross, squares = sum_blocks(y, blocks, nuisance)
        wide = y.astype(np.float64)
        for b, rows in enumerate(blocks):
            np.testing.assert_allclose(cross[b], nuisance[rows].T @ wide[rows], atol=2e-5)
            np.testing.assert_allclose(squares[b], np.square(wide[rows]).sum(axis=0), rtol=2e-6)
