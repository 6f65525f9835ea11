"""Chance with autocorrelation: the shift test equals a plain loop, and keeps its level where nothing is there."""

import functools
import warnings

import numpy as np
import pytest
from scipy import stats

from langcortex.arrays import pearson
from langcortex.errors import FitError
from langcortex.nulls.heldout import cut_blocks, draw_orders
from langcortex.nulls.heldout_test import time_test
from langcortex.nulls.surrogates import KINDS
from langcortex.stats.null_counts import NullCounts


def _plain(observed, predicted, piece, n_shifts, seed):
    """Roll every held-out piece with np.roll, and count by hand."""
    labels = sorted({str(x) for one in piece for x in one})
    rng = np.random.default_rng(seed)
    share = {label: rng.uniform(0.1, 0.9, n_shifts) for label in labels}

    def mean_r(k):
        people = []
        for y, p, which in zip(observed, predicted, piece, strict=True):
            parts = []
            for label in dict.fromkeys(which.tolist()):
                rows = which == label
                shift = 0 if k is None else round(share[label][k] * rows.sum())
                parts.append(pearson(y[rows], np.roll(p[rows], shift, axis=0)))
            people.append(np.mean(parts, axis=0))
        return np.mean(people, axis=0)

    r = mean_r(None)
    beaten = sum(mean_r(k) >= r for k in range(n_shifts))
    return r, (1 + beaten) / (1 + n_shifts)


def _two_people(rng, autocorrelated):
    lengths = (23, 40, 31)
    piece = np.repeat(["run-1", "run-2", "run-3"], lengths)
    observed = [autocorrelated(rng, 94, 6).astype(np.float32) for _ in range(2)]
    predicted = [
        (y * [0, 0, 0, 0.2, 0.5, 1] + autocorrelated(rng, 94, 6)).astype(np.float32) for y in observed
    ]
    return observed, predicted, [piece, piece[:63]]


@pytest.fixture(params=["numba", "numpy"])
def way(request, monkeypatch):
    """Nulls of blocks are counted by compiled code where there is numba, and without it."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr("langcortex.nulls.heldout_test.has_numba", lambda: request.param == "numba")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
def test_over_time_it_equals_a_plain_loop_that_moves_the_responses(rng, autocorrelated, kind):
    piece = np.repeat(["a", "", "b"], (60, 7, 45))
    held = piece != ""
    y = autocorrelated(rng, 112, 4)
    q = np.stack([autocorrelated(rng, 112, 4), y + autocorrelated(rng, 112, 4)])
    found = time_test(y, q, piece, 30, np.random.default_rng(3), kind)
    drawn = _draws(kind, piece[held], 30, np.random.default_rng(3))

    def scores(values):
        return np.stack([
            np.mean([pearson(values[r], one[held][r]) for r in (piece[held] == "a", piece[held] == "b")], axis=0)
            for one in q
        ])  # fmt: skip

    true, null = scores(y[held]), np.stack([scores(draw(y[held])) for draw in drawn])
    np.testing.assert_allclose(found.value, true)
    np.testing.assert_allclose(found.p, (1 + (null >= true).sum(axis=0)) / 31)
    assert found.resampling.n == 30
    assert found.resampling.seed == "3"
    assert kind in found.resampling.how


def _draws(kind, run, n, rng):
    if kind == "block":
        orders = draw_orders(run, n, rng)
        return [functools.partial(_shuffled, orders=orders, k=k) for k in range(n)]
    from langcortex.nulls.surrogates import _turned, draw_run_shifts

    turns = draw_run_shifts(kind, run, n, rng)
    return [lambda y, k=k: _turned(y, [(part, turn[k : k + 1]) for part, turn in turns]) for k in range(n)]


def _shuffled(y, orders, k):
    out = np.full(y.shape, np.nan)
    for where, order in orders:
        length = where[-1]
        for place, come in zip(where[:-1], where[:-1][order[k]], strict=True):
            out[place : place + length] = y[come : come + length]
    assert np.isfinite(out).all()  # every row has a place
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_over_time_the_level_is_kept_where_runs_are_long_beside_the_memory(rng, autocorrelated, kind):
    """600 rows, half-life 3 rows, blocks of 40; a t-test finds three times too much."""
    piece = np.repeat(["a", "b"], 600)
    y, q = (np.concatenate([autocorrelated(rng, 600, 500) for _ in range(2)]) for _ in range(2))
    found = time_test(y, q, piece, 99, rng, kind, block=40)
    assert 0.025 < np.mean(found.p <= 0.05) < 0.085
    assert (found.p_corrected > 0.02).all()
    naive = stats.pearsonr(y, q, axis=0, alternative="greater").pvalue
    assert np.mean(naive <= 0.05) > 0.15


def test_over_time_a_planted_layer_is_found_and_the_silent_one_is_not(rng, autocorrelated):
    y = autocorrelated(rng, 400, 20)
    q = np.stack([autocorrelated(rng, 400, 20), 1.5 * y + autocorrelated(rng, 400, 20)])
    found = time_test(y, q, np.full(400, "a"), 199, rng, "phase")
    assert (found.p_corrected[1] <= 0.05).all()
    assert (found.p_corrected[0] > 0.05).all()
    assert (found.q[1] <= 0.05).all()


@pytest.mark.usefixtures("way")
def test_over_time_one_layer_may_come_as_a_matrix_and_undefined_targets_are_nan(rng):
    y, q = rng.standard_normal((2, 80, 5))
    y[:, 2] = 1.0
    piece = np.full(80, "a")
    one = time_test(y, q, piece, 19, np.random.default_rng(0))
    other = time_test(y, q[None], piece, 19, np.random.default_rng(0))
    np.testing.assert_array_equal(one.p, other.p[0])
    assert np.isnan(one.p).tolist() == [False, False, True, False, False]
    with pytest.raises(FitError, match="No row was held out"):
        time_test(y, q, np.full(80, ""), 19, rng)


@pytest.mark.parametrize("n", [40, 41, 47, 155, 310, 311])
def test_blocks_are_long_enough_and_no_length_has_only_one(n):
    lengths = np.diff(cut_blocks(n, 10))
    assert lengths.sum() == n
    if n in (41, 47):  # a few rows stay
        lengths = lengths[:-1]
    assert lengths.min() >= 10
    assert np.ptp(lengths) <= 1
    assert all((lengths == one).sum() > 1 for one in set(lengths.tolist()))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
def test_over_time_float32_and_chunks_change_nothing_but_rounding(rng, autocorrelated, kind, monkeypatch):
    y, q = autocorrelated(rng, 90, 20), autocorrelated(rng, 90, 20)
    piece = np.repeat(["a", "b"], 45)
    whole = time_test(y, q, piece, 30, np.random.default_rng(1), kind)
    monkeypatch.setattr("langcortex.nulls.heldout_test.CHUNK", 7)
    monkeypatch.setattr("langcortex.nulls.heldout.AT_ONCE", 11)
    parts = time_test(y.astype(np.float32), q.astype(np.float32), piece, 30, np.random.default_rng(1), kind)
    np.testing.assert_allclose(parts.value, whole.value, atol=1e-6)
    np.testing.assert_array_equal(parts.p, whole.p)
    np.testing.assert_array_equal(parts.p_corrected, whole.p_corrected)


def _both_ways(y, q, piece, monkeypatch):
    pytest.importorskip("numba")
    tallies, found = [], []

    class Kept(NullCounts):
        def __init__(self, true, n_nulls):
            super().__init__(true, n_nulls)
            tallies.append(self)

    monkeypatch.setattr("langcortex.nulls.heldout_test.NullCounts", Kept)
    for numba in (True, False):
        monkeypatch.setattr("langcortex.nulls.heldout_test.has_numba", lambda numba=numba: numba)
        with np.errstate(invalid="ignore"):  # an infinite response
            found.append(time_test(y, q, piece, 40, np.random.default_rng(5), "block"))
    return tallies, found


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("n_targets", [1, 300])
def test_compiled_blocks_are_those_of_numpy(rng, autocorrelated, monkeypatch, dtype, close, n_targets):
    """Runs of unequal length, blocks of two lengths, rows never held out, an undefined target here and there."""
    piece = np.repeat(["a", "", "b", "c"], (206, 7, 95, 41))
    assert set(np.diff(cut_blocks(206, 10)).tolist()) == {10, 11}
    y = (autocorrelated(rng, 349, n_targets) + 5).astype(dtype)
    q = np.stack([0.2 * y + autocorrelated(rng, 349, n_targets) for _ in range(3)]).astype(dtype)
    q[2] *= 1e-3
    undefined = np.zeros((3, n_targets), dtype=bool)
    if n_targets > 1:
        y[250, 3], q[1, 20, 130], q[:, 0, 257] = np.nan, np.nan, np.inf
        y[:, 140], q[2, piece == "c", 299] = 0.1, 0.1
        undefined[:, [3, 140, 257]] = undefined[1, 130] = undefined[2, 299] = True
    (one, other), (compiled, plain) = _both_ways(y, q, piece, monkeypatch)
    np.testing.assert_array_equal(np.isnan(compiled.p), undefined)
    np.testing.assert_allclose(compiled.value, plain.value, atol=close)
    np.testing.assert_allclose(one.largest, other.largest, atol=close)
    np.testing.assert_allclose(one.total, other.total, atol=close * other.count.max())
    np.testing.assert_allclose(one.squares, other.squares, rtol=10 * close)
    for name in ("known", "seen", "count"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    near = 2 if dtype == np.float32 else 0  # nulls that lie within rounding of the observed value
    assert np.abs(one.beaten - other.beaten).sum() <= near
    np.testing.assert_allclose(compiled.p_corrected, plain.p_corrected, atol=near / 41)


def test_a_layer_without_a_defined_target_takes_no_part(rng, monkeypatch):
    y, q = rng.standard_normal((90, 4)), rng.standard_normal((2, 90, 4))
    q[1] = 0.1
    with warnings.catch_warnings(action="ignore"):  # means of nothing
        (one, other), (compiled, plain) = _both_ways(y, q, np.full(90, "a"), monkeypatch)
    np.testing.assert_array_equal(one.largest[:, 1], other.largest[:, 1])
    np.testing.assert_allclose(compiled.p_corrected, plain.p_corrected)
    assert np.isnan(compiled.p[1]).all()
    assert np.isfinite(compiled.p[0]).all()


@pytest.mark.usefixtures("way")
def test_whole_numbers_and_mixed_kinds_of_numbers_are_tested_alike(rng):
    y, q = rng.integers(0, 9, (90, 3)), rng.standard_normal((90, 3))
    piece = np.repeat(["a", "b"], 45)
    one, other = (time_test(v, q, piece, 20, np.random.default_rng(2), "block") for v in (y, y * 1.0))
    np.testing.assert_allclose(one.p, other.p)
    time_test((y * 1.0).astype(np.float32), q, piece, 20, np.random.default_rng(2), "block")
