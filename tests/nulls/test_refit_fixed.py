"""Products with permuted responses, from tables of shifts or by permuting the narrower side: those of a plain loop."""

import numpy as np
import pytest

from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.refit_fixed import PermutedProducts, PermutedSquares
from langcortex.nulls.surrogates import KINDS

RUN = np.repeat(["a", "b", "c"], (45, 60, 52))
ROWS = {"whole runs": np.arange(45, 157), "a part of a run": np.arange(50, 80)}


@pytest.mark.parametrize("n_nulls", [5, 400])
@pytest.mark.parametrize("n_columns", [2, 9])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_permuted_responses(rng, kind, rows, n_columns, n_nulls):
    permutations = RowPermutations(kind, RUN, n_nulls, 1)
    columns, y = rng.standard_normal((157, n_columns)), rng.standard_normal((157, 4))
    permute = permutations.make_permuter(y)
    expected = np.stack([columns[rows].T @ permute(b)[rows] for b in range(n_nulls)])
    products = PermutedProducts(columns, rows, y, permutations)
    assert (products.table is not None) == (kind == "shift" and n_nulls == 400)
    np.testing.assert_allclose(products.of_nulls(slice(0, n_nulls)), expected, atol=1e-9)
    np.testing.assert_allclose(products.of_nulls(slice(2, 5)), expected[2:5], atol=1e-9)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("kind", ["shift", "block"])
def test_squares_are_those_of_permuted_responses(rng, kind, rows):
    permutations = RowPermutations(kind, RUN, 5, 1)
    y = rng.standard_normal((157, 4))
    permute = permutations.make_permuter(y)
    expected = np.stack([np.square(permute(b)[rows]).sum(axis=0) for b in range(5)])
    np.testing.assert_allclose(PermutedSquares(rows, y, permutations).of_nulls(slice(0, 5)), expected)
