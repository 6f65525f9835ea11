"""Moves of rows: the same for everyone who heard a run, and the same from both sides of a product."""

import numpy as np
import pytest

from langcortex.errors import FitError
from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.surrogates import KINDS

RUN = np.repeat(["a", "b", "c"], (45, 60, 52))


@pytest.mark.parametrize("kind", KINDS)
def test_moving_the_columns_back_is_moving_the_responses(rng, kind):
    moves = RowPermutations(kind, RUN, 5, 1)
    x, y = rng.standard_normal((157, 3)), rng.standard_normal((157, 4))
    for b in range(5):
        expected = x.T @ moves.of(y)(b)
        np.testing.assert_allclose(moves.columns(moves.basis(x), b).T @ moves.basis(y), expected, atol=1e-9)
        np.testing.assert_allclose(moves.basis(x).T @ moves.responses(moves.basis(y), b), expected, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_moved_alike_whatever_other_runs_there_are(rng, kind):
    y = rng.standard_normal((157, 2))
    alone = RowPermutations(kind, RUN[45:105], 4, 1).of(y[45:105])
    among = RowPermutations(kind, RUN, 4, 1)
    some, rows = among.only(np.array([50, 51]))
    np.testing.assert_array_equal(rows, np.arange(45, 105))
    for b in range(4):
        np.testing.assert_allclose(among.of(y)(b)[45:105], alone(b))
        np.testing.assert_allclose(some.of(y[rows])(b), alone(b))


@pytest.mark.parametrize("kind", KINDS)
def test_a_subject_who_lacks_a_row_is_moved_almost_alike(rng, kind):
    """What two subjects share is still shared after the move, where one of them has a row less of a long run."""
    shared = np.cumsum(rng.standard_normal((400, 50)), axis=0)
    shared -= np.linspace(0, 1, 400)[:, None] * shared[-1]
    one = RowPermutations(kind, np.full(400, "a"), 3, 1, block=40).of(shared)
    other = RowPermutations(kind, np.full(399, "a"), 3, 1, block=40).of(shared[:399])
    for b in range(3):
        r = [np.corrcoef(one(b)[:399, j], other(b)[:, j])[0, 1] for j in range(50)]
        assert np.mean(r) > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_nulls_differ_and_a_seed_repeats_them(rng, kind):
    y = rng.standard_normal((157, 1))
    one, same, other = (RowPermutations(kind, RUN, 3, seed).of(y) for seed in (1, 1, [1, 2]))
    np.testing.assert_array_equal(one(0), same(0))
    assert np.abs(one(0) - one(1)).max() > 0.1
    assert np.abs(one(0) - other(0)).max() > 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_dtype_means_and_powers_of_runs_stay(rng, kind, dtype):
    y = (rng.standard_normal((157, 3)) + 2).astype(dtype)
    moves = RowPermutations(kind, RUN, 2, 1)
    moved = moves.of(y)(1)
    assert moved.dtype == moves.columns(moves.basis(y), 0).dtype == dtype
    for part in moves.parts:
        np.testing.assert_allclose(moved[part].mean(axis=0), y[part].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(moved[part].var(axis=0), y[part].var(axis=0), rtol=1e-4)


def test_runs_too_short_for_a_kind_are_said():
    with pytest.raises(FitError, match="Run 'a' has 45 rows; a null of kind 'block' and blocks of 12"):
        RowPermutations("block", RUN, 2, 1, block=12)
