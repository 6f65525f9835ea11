"""Tests of held-out predictions over time: equal to a plain loop, and at their level for autocorrelated noise."""

import functools

import numpy as np
import pytest
from scipy import stats

from langcortex.arrays import pearson
from langcortex.errors import FitError
from langcortex.nulls.heldout_test import time_test
from langcortex.nulls.surrogates import KINDS, draw_block_orders, draw_spectral_factors, multiply_spectra


@pytest.fixture(params=["numba", "numpy"])
def implementation(request, monkeypatch):
    """Nulls of blocks are counted by compiled code where numba is installed, and by numpy."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr("langcortex.nulls.heldout_test.has_numba", lambda: request.param == "numba")


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_a_plain_loop_that_permutes_the_responses(rng, autocorrelated, kind):
    segment = np.repeat(["a", "", "b"], (60, 7, 45))
    heldout = segment != ""
    run = segment[heldout]
    y = autocorrelated(rng, 112, 4)
    q = np.stack([autocorrelated(rng, 112, 4), y + autocorrelated(rng, 112, 4)])
    test = time_test(y, q, segment, 30, np.random.default_rng(3), kind)
    draws = _draw_nulls(kind, run, 30, np.random.default_rng(3))

    def scores(values):
        return np.stack([
            np.mean([pearson(values[rows], layer[heldout][rows]) for rows in (run == "a", run == "b")], axis=0)
            for layer in q
        ])  # fmt: skip

    true, null = scores(y[heldout]), np.stack([scores(draw(y[heldout])) for draw in draws])
    np.testing.assert_allclose(test.value, true)
    np.testing.assert_allclose(test.p, (1 + (null >= true).sum(axis=0)) / 31)
    assert test.resampling.n == 30
    assert test.resampling.seed == "3"
    assert kind in test.resampling.how


def _draw_nulls(kind, run, n, rng):
    if kind == "block":
        orders = draw_block_orders(run, n, rng)
        return [functools.partial(_shuffled, orders=orders, k=k) for k in range(n)]
    factors = draw_spectral_factors(kind, run, n, rng)
    return [
        lambda y, k=k: multiply_spectra(y, [(rows, f[k : k + 1]) for rows, f in factors]) for k in range(n)
    ]


def _shuffled(y, orders, k):
    out = np.full(y.shape, np.nan)
    for first, length, order in orders:
        for place, source in zip(first, first[order[k]], strict=True):
            out[place : place + length] = y[source : source + length]
    assert np.isfinite(out).all()  # every row has a place
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_significant_at_the_level_where_runs_are_much_longer_than_its_autocorrelation(
    rng, autocorrelated, kind
):
    """600 rows, half-life 3 rows, blocks of 40; a t-test finds three times too much."""
    segment = np.repeat(["a", "b"], 600)
    y, q = (np.concatenate([autocorrelated(rng, 600, 500) for _ in range(2)]) for _ in range(2))
    test = time_test(y, q, segment, 99, rng, kind, block=40)
    assert 0.025 < np.mean(test.p <= 0.05) < 0.085
    assert (test.p_corrected > 0.02).all()
    naive = stats.pearsonr(y, q, axis=0, alternative="greater").pvalue
    assert np.mean(naive <= 0.05) > 0.15


def test_a_planted_layer_is_found_and_a_layer_of_noise_is_not(rng, autocorrelated):
    y = autocorrelated(rng, 400, 20)
    q = np.stack([autocorrelated(rng, 400, 20), 1.5 * y + autocorrelated(rng, 400, 20)])
    test = time_test(y, q, np.full(400, "a"), 199, rng, "phase")
    assert (test.p_corrected[1] <= 0.05).all()
    assert (test.p_corrected[0] > 0.05).all()
    assert (test.q[1] <= 0.05).all()


@pytest.mark.usefixtures("implementation")
def test_one_layer_may_be_a_matrix_and_undefined_targets_are_nan(rng):
    y, q = rng.standard_normal((2, 80, 5))
    y[:, 2] = 1.0
    segment = np.full(80, "a")
    matrix = time_test(y, q, segment, 19, np.random.default_rng(0))
    layers = time_test(y, q[None], segment, 19, np.random.default_rng(0))
    np.testing.assert_array_equal(matrix.p, layers.p[0])
    assert np.isnan(matrix.p).tolist() == [False, False, True, False, False]
    with pytest.raises(FitError, match="No row was held out"):
        time_test(y, q, np.full(80, ""), 19, rng)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("kind", KINDS)
def test_float32_and_chunks_change_nothing_but_rounding(rng, autocorrelated, kind, monkeypatch):
    y, q = autocorrelated(rng, 90, 20), autocorrelated(rng, 90, 20)
    segment = np.repeat(["a", "b"], 45)
    wide = time_test(y, q, segment, 30, np.random.default_rng(1), kind)
    monkeypatch.setattr("langcortex.nulls.heldout_test.CHUNK", 7)
    monkeypatch.setattr("langcortex.nulls.heldout.BATCH", 11)
    y, q = y.astype(np.float32), q.astype(np.float32)
    chunked = time_test(y, q, segment, 30, np.random.default_rng(1), kind)
    np.testing.assert_allclose(chunked.value, wide.value, atol=1e-6)
    np.testing.assert_array_equal(chunked.p, wide.p)
    np.testing.assert_array_equal(chunked.p_corrected, wide.p_corrected)


@pytest.mark.usefixtures("implementation")
def test_integers_and_mixed_dtypes_give_the_same_p(rng):
    y, q = rng.integers(0, 9, (90, 3)), rng.standard_normal((90, 3))
    segment = np.repeat(["a", "b"], 45)
    integers, floats = (time_test(v, q, segment, 20, np.random.default_rng(2), "block") for v in (y, y * 1.0))
    np.testing.assert_allclose(integers.p, floats.p)
    time_test((y * 1.0).astype(np.float32), q, segment, 20, np.random.default_rng(2), "block")
