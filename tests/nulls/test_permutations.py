"""Permutations of rows: the same for all subjects of a run, and the same from both sides of a product."""

import numpy as np
import pytest

from langcortex.errors import FitError
from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.surrogates import KINDS

RUN = np.repeat(["a", "b", "c"], (45, 60, 52))


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_the_columns_back_is_permuting_the_responses(rng, kind):
    permutations = RowPermutations(kind, RUN, 5, 1)
    x, y = rng.standard_normal((157, 3)), rng.standard_normal((157, 4))
    for b in range(5):
        expected = x.T @ permutations.make_permuter(y)(b)
        np.testing.assert_allclose(
            permutations.permute_columns(permutations.to_basis(x), b).T @ permutations.to_basis(y),
            expected,
            atol=1e-9,
        )
        np.testing.assert_allclose(
            permutations.to_basis(x).T @ permutations.permute_responses(permutations.to_basis(y), b),
            expected,
            atol=1e-9,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_the_same_nulls_whatever_other_runs_there_are(rng, kind):
    y = rng.standard_normal((157, 2))
    alone = RowPermutations(kind, RUN[45:105], 4, 1).make_permuter(y[45:105])
    all_runs = RowPermutations(kind, RUN, 4, 1)
    subset, rows = all_runs.select_runs(np.array([50, 51]))
    np.testing.assert_array_equal(rows, np.arange(45, 105))
    for b in range(4):
        np.testing.assert_allclose(all_runs.make_permuter(y)(b)[45:105], alone(b))
        np.testing.assert_allclose(subset.make_permuter(y[rows])(b), alone(b))


@pytest.mark.parametrize("kind", KINDS)
def test_a_subject_with_a_row_less_has_almost_the_same_nulls(rng, kind):
    """Responses that two subjects share are still correlated in every null, where one of them has a row less of a long run."""
    shared = np.cumsum(rng.standard_normal((400, 50)), axis=0)
    shared -= np.linspace(0, 1, 400)[:, None] * shared[-1]
    longer = RowPermutations(kind, np.full(400, "a"), 3, 1, block=40).make_permuter(shared)
    shorter = RowPermutations(kind, np.full(399, "a"), 3, 1, block=40).make_permuter(shared[:399])
    for b in range(3):
        r = [np.corrcoef(longer(b)[:399, j], shorter(b)[:, j])[0, 1] for j in range(50)]
        assert np.mean(r) > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_nulls_differ_and_a_seed_repeats_them(rng, kind):
    y = rng.standard_normal((157, 1))
    first, again, reseeded = (RowPermutations(kind, RUN, 3, seed).make_permuter(y) for seed in (1, 1, [1, 2]))
    np.testing.assert_array_equal(first(0), again(0))
    assert np.abs(first(0) - first(1)).max() > 0.1
    assert np.abs(first(0) - reseeded(0)).max() > 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_dtype_mean_and_variance_of_runs_are_kept(rng, kind, dtype):
    y = (rng.standard_normal((157, 3)) + 2).astype(dtype)
    permutations = RowPermutations(kind, RUN, 2, 1)
    permuted = permutations.make_permuter(y)(1)
    assert permuted.dtype == permutations.permute_columns(permutations.to_basis(y), 0).dtype == dtype
    for run in permutations.runs:
        np.testing.assert_allclose(permuted[run].mean(axis=0), y[run].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(permuted[run].var(axis=0), y[run].var(axis=0), rtol=1e-4)


def test_runs_too_short_for_a_kind_raise():
    with pytest.raises(FitError, match="Run 'a' has 45 rows; a null of kind 'block' and blocks of 12"):
        RowPermutations("block", RUN, 2, 1, block=12)
