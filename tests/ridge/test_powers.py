"""Powers of predictions from divided differences are those of the predictions themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langcortex.ridge.powers import CLOSE, divided_differences

ALPHAS = np.logspace(4, -4, 9)


def powers(s: np.ndarray, alphas: np.ndarray, h: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Form every prediction, and sum its squares: (n_alphas, n)."""
    return np.array([np.square(h @ (p * (s**2 / (s**2 + a))[:, None])).sum(axis=0) for a in alphas])


def ours(s: np.ndarray, alphas: np.ndarray, h: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Combine the parts as the engine does."""
    made = divided_differences(s, alphas, h.T @ h)
    i, j = made.close.T
    return made.weights @ np.concatenate([p * (made.across @ p), p**2, p[i] * p[j]])


@settings(max_examples=60, deadline=None)
@given(
    n_axes=st.integers(1, 40),
    n_rows=st.integers(1, 50),
    decades=st.floats(0, 6),
    size=st.floats(-6, 6),
    seed=st.integers(0, 2**31),
)
def test_powers_of_all_penalties_are_those_of_the_predictions(
    n_axes: int, n_rows: int, decades: float, size: float, seed: int
) -> None:
    """Whatever the number of axes, their lengths, and how large the penalty is beside them."""
    rng = np.random.default_rng(seed)
    s = 10**size * np.sort(10 ** (-rng.uniform(0, decades / 2, n_axes)))[::-1]
    h, p = rng.standard_normal((n_rows, n_axes)), rng.standard_normal((n_axes, 20))
    alphas = ALPHAS * s[0] ** 2
    true = powers(s, alphas, h, p)
    # what noise on the leading axis gives is the size that matters
    floor = np.square(s[0] ** 2 / (s[0] ** 2 + alphas))[:, None]
    np.testing.assert_array_less(
        np.abs(ours(s, alphas, h, p) - true), 1e-9 * (true + floor * n_rows) + 1e-300
    )


def test_axes_of_equal_length_are_not_divided() -> None:
    """Twice the same axis, and two that nearly are."""
    rng = np.random.default_rng(0)
    s = np.array([3.0, 3.0, 2.0, 2.0 * (1 + CLOSE / 8), 1.0])[[0, 1, 3, 2, 4]]
    h, p = rng.standard_normal((30, 5)), rng.standard_normal((5, 10))
    made = divided_differences(s, ALPHAS, h.T @ h)
    assert made.close.tolist() == [[0, 1], [2, 3]]
    assert made.worthwhile
    np.testing.assert_allclose(ours(s, ALPHAS, h, p), powers(s, ALPHAS, h, p), rtol=1e-11)


def test_many_alike_are_not_worth_it() -> None:
    """An orthogonal design has one length only."""
    made = divided_differences(np.ones(40), ALPHAS, np.eye(40))
    assert len(made.close) == 40 * 39 // 2
    assert not made.worthwhile


@pytest.mark.parametrize("apart", [1e-3, 1e-2])
def test_pairs_just_far_enough_apart_lose_no_digits_that_float32_has(apart: float) -> None:
    """A comb of axes, each as near to the next as is divided at all."""
    rng = np.random.default_rng(1)
    s = np.sqrt((1 + apart) ** -np.arange(60.0))
    h, p = rng.standard_normal((40, 60)), rng.standard_normal((60, 50))
    np.testing.assert_allclose(ours(s, ALPHAS, h, p), powers(s, ALPHAS, h, p), rtol=1e-9)
