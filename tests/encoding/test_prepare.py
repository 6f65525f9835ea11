"""Features prepared from training rows: the short way through products of rows gives what the long way gives."""

from __future__ import annotations

import numpy as np
import pytest

from langcortex.encoding.prepare import PreparedCache, column_spread, make_preparer, row_products
from langcortex.encoding.protocol import Protocol
from langcortex.ridge.decomposition import (
    learn_scale,
    least_squares_operator,
    principal_components,
    residualise,
)
from langcortex.ridge.multikernel import Band, make_band

RUN = np.repeat(["a", "b", "c"], 40)
TRAIN = np.r_[0:30, 45:110]


def wide(rng: np.random.Generator) -> np.ndarray:
    """Draw features like a language model's: few directions, a few huge columns, one constant, some constant in training."""
    x = rng.standard_normal((120, 30)) @ rng.standard_normal((30, 300)) + 0.1 * rng.standard_normal(
        (120, 300)
    )
    x[:, :3] = 5000 + 3000 * x[:, :3]
    x[:, 7] = 4.0
    x[:, 8:60] = 0.0
    x[112, 8:60] = rng.standard_normal(52)
    return x


def test_spread_is_the_standard_deviation_and_knows_constant_columns(rng: np.random.Generator) -> None:
    """The same numbers as `learn_scale` of the training rows, also for columns that vary outside them alone."""
    x = wide(rng)
    around = x - x.mean(axis=0)
    computed, true = column_spread(x.mean(axis=0), around, around**2, TRAIN), learn_scale(x[TRAIN]).std
    assert np.flatnonzero(np.isinf(computed)).tolist() == list(range(7, 60))
    assert np.flatnonzero(np.isinf(true)).tolist() == list(range(7, 60))
    np.testing.assert_allclose(computed, true, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "within"), [(np.float64, 1e-9), (np.float32, 3e-6)])
@pytest.mark.parametrize("standardise", ["training", "run", "none"])
def test_wide_features_have_the_axes_of_the_long_way(
    rng: np.random.Generator, dtype: type, within: float, standardise: str
) -> None:
    """Scaled, cleaned and decomposed as they are written down; float32 responses allow float32 products of scaled features."""
    x, c = wide(rng), rng.standard_normal((120, 1))
    s, at = make_preparer(x, "x", RUN, Protocol(standardise=standardise), c, 12, dtype)(TRAIN)
    if standardise == "run":
        x = np.concatenate([learn_scale(x[name == RUN]).apply(x[name == RUN]) for name in "abc"])
    z = learn_scale(x[TRAIN]).apply(x) if standardise == "training" else x
    z = residualise(c, least_squares_operator(c[TRAIN]) @ z[TRAIN], z)
    axes = principal_components(z[TRAIN], 12)
    np.testing.assert_allclose(s, axes.s, rtol=within)
    projected = z @ axes.v
    sign = np.sign((at * projected).sum(axis=0))
    np.testing.assert_allclose(at * sign, projected, atol=within * np.abs(projected).max() * 10)


def test_large_columns_are_multiplied_in_float64(rng: np.random.Generator) -> None:
    """Float32 serves the many small columns alone: beside columns 3,000 times larger, they keep their own digits."""
    x = wide(rng)
    x -= x.mean(axis=0)
    small = x[:, 3:]
    computed = row_products(x, 12, np.float32) - x[:, :3] @ x[:, :3].T
    np.testing.assert_allclose(computed, small @ small.T, atol=1e-6 * np.square(small).sum(axis=1).max())
    true = x @ x.T
    assert np.abs(row_products(x, 12, np.float32) - true).max() > 0  # float32 it is
    np.testing.assert_array_equal(row_products(x, None, np.float32), true)
    np.testing.assert_array_equal(row_products(x, 100, np.float32), true)


def test_a_cache_that_is_full_drops_what_was_used_longest_ago() -> None:
    """Two bands of 80 bytes fit: "b" is dropped for "c", because "a" was used after it."""
    cache, prepared = PreparedCache(max_bytes=2 * 80), []

    def prepare(name: str) -> Band:
        prepared.append(name)
        return make_band(np.ones(1), np.ones((10, 1)), False)

    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(name, lambda name=name: prepare(name))
    assert prepared == ["a", "b", "c", "b"]
