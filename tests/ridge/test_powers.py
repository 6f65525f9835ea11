"""Sums of squares from divided differences are those of the predictions themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langcortex.ridge.powers import CLOSE, divided_differences

ALPHAS = np.logspace(4, -4, 9)


def squares(s: np.ndarray, alphas: np.ndarray, h: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Form every prediction and sum its squares: (n_alphas, n)."""
    return np.array([np.square(h @ (p * (s**2 / (s**2 + a))[:, None])).sum(axis=0) for a in alphas])


def ours(s: np.ndarray, alphas: np.ndarray, h: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Combine the sums as the engine does."""
    sums = divided_differences(s, alphas, h.T @ h)
    i, j = sums.close_pairs.T
    return sums.weights @ np.concatenate([p * (sums.products @ p), p**2, p[i] * p[j]])


@settings(max_examples=60, deadline=None)
@given(
    n_components=st.integers(1, 40),
    n_rows=st.integers(1, 50),
    decades=st.floats(0, 6),
    size=st.floats(-6, 6),
    seed=st.integers(0, 2**31),
)
def test_sums_of_squares_of_all_penalties_are_those_of_the_predictions(
    n_components: int, n_rows: int, decades: float, size: float, seed: int
) -> None:
    """For any number of components, singular values, and size of the penalty beside them."""
    rng = np.random.default_rng(seed)
    s = 10**size * np.sort(10 ** (-rng.uniform(0, decades / 2, n_components)))[::-1]
    h, p = rng.standard_normal((n_rows, n_components)), rng.standard_normal((n_components, 20))
    alphas = ALPHAS * s[0] ** 2
    true = squares(s, alphas, h, p)
    # what noise on the leading component gives is the size that matters
    floor = np.square(s[0] ** 2 / (s[0] ** 2 + alphas))[:, None]
    np.testing.assert_array_less(
        np.abs(ours(s, alphas, h, p) - true), 1e-9 * (true + floor * n_rows) + 1e-300
    )


def test_components_of_equal_singular_values_are_not_divided() -> None:
    """Two equal singular values, and two that nearly are."""
    rng = np.random.default_rng(0)
    s = np.array([3.0, 3.0, 2.0, 2.0 * (1 + CLOSE / 8), 1.0])[[0, 1, 3, 2, 4]]
    h, p = rng.standard_normal((30, 5)), rng.standard_normal((5, 10))
    sums = divided_differences(s, ALPHAS, h.T @ h)
    assert sums.close_pairs.tolist() == [[0, 1], [2, 3]]
    assert sums.is_worthwhile
    np.testing.assert_allclose(ours(s, ALPHAS, h, p), squares(s, ALPHAS, h, p), rtol=1e-11)


def test_many_equal_singular_values_are_not_worth_dividing() -> None:
    """An orthogonal design has a single singular value."""
    sums = divided_differences(np.ones(40), ALPHAS, np.eye(40))
    assert len(sums.close_pairs) == 40 * 39 // 2
    assert not sums.is_worthwhile


@pytest.mark.parametrize("apart", [1e-3, 1e-2])
def test_pairs_just_far_enough_apart_lose_no_digits_that_float32_has(apart: float) -> None:
    """A comb of singular values, each as near to the next as is divided at all."""
    rng = np.random.default_rng(1)
    s = np.sqrt((1 + apart) ** -np.arange(60.0))
    h, p = rng.standard_normal((40, 60)), rng.standard_normal((60, 50))
    np.testing.assert_allclose(ours(s, ALPHAS, h, p), squares(s, ALPHAS, h, p), rtol=1e-9)
