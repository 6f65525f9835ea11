"""Compiled nulls of held-out blocks: the counts and p of the same nulls in numpy."""

import warnings

import numpy as np
import pytest

from langcortex.nulls.heldout_test import time_test
from langcortex.nulls.surrogates import cut_blocks
from langcortex.stats.null_counts import NullCounts


def _test_both_ways(y, q, segment, monkeypatch):
    pytest.importorskip("numba")
    counts, tests = [], []

    class RecordedCounts(NullCounts):
        def __init__(self, observed, n_nulls):
            super().__init__(observed, n_nulls)
            counts.append(self)

    monkeypatch.setattr("langcortex.nulls.heldout_test.NullCounts", RecordedCounts)
    for numba in (True, False):
        monkeypatch.setattr("langcortex.nulls.heldout_test.has_numba", lambda numba=numba: numba)
        with np.errstate(invalid="ignore"):  # an infinite response
            tests.append(time_test(y, q, segment, 40, np.random.default_rng(5), "block"))
    return counts, tests


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("n_targets", [1, 300])
def test_compiled_nulls_of_blocks_are_those_of_numpy(
    rng, autocorrelated, monkeypatch, dtype, close, n_targets
):
    """Runs of unequal length, blocks of two lengths, rows never held out, an undefined target here and there."""
    segment = np.repeat(["a", "", "b", "c"], (206, 7, 95, 41))
    assert set(np.diff(cut_blocks(206, 10)).tolist()) == {10, 11}
    y = (autocorrelated(rng, 349, n_targets) + 5).astype(dtype)
    q = np.stack([0.2 * y + autocorrelated(rng, 349, n_targets) for _ in range(3)]).astype(dtype)
    q[2] *= 1e-3
    undefined = np.zeros((3, n_targets), dtype=bool)
    if n_targets > 1:
        y[250, 3], q[1, 20, 130], q[:, 0, 257] = np.nan, np.nan, np.inf
        y[:, 140], q[2, segment == "c", 299] = 0.1, 0.1
        undefined[:, [3, 140, 257]] = undefined[1, 130] = undefined[2, 299] = True
    (counts, expected), (compiled, plain) = _test_both_ways(y, q, segment, monkeypatch)
    np.testing.assert_array_equal(np.isnan(compiled.p), undefined)
    np.testing.assert_allclose(compiled.value, plain.value, atol=close)
    np.testing.assert_allclose(counts.largest, expected.largest, atol=close)
    np.testing.assert_allclose(counts.sums, expected.sums, atol=close * expected.n_values.max())
    np.testing.assert_allclose(counts.sums_of_squares, expected.sums_of_squares, rtol=10 * close)
    for name in ("defined", "n_defined", "n_values"):
        np.testing.assert_array_equal(getattr(counts, name), getattr(expected, name))
    near = 2 if dtype == np.float32 else 0  # nulls that equal the observed value but for rounding
    assert np.abs(counts.n_exceeding - expected.n_exceeding).sum() <= near
    np.testing.assert_allclose(compiled.p_corrected, plain.p_corrected, atol=near / 41)


def test_a_layer_without_a_defined_target_takes_no_part(rng, monkeypatch):
    y, q = rng.standard_normal((90, 4)), rng.standard_normal((2, 90, 4))
    q[1] = 0.1
    with warnings.catch_warnings(action="ignore"):  # means of nothing
        (counts, expected), (compiled, plain) = _test_both_ways(y, q, np.full(90, "a"), monkeypatch)
    np.testing.assert_array_equal(counts.largest[:, 1], expected.largest[:, 1])
    np.testing.assert_allclose(compiled.p_corrected, plain.p_corrected)
    assert np.isnan(compiled.p[1]).all()
    assert np.isfinite(compiled.p[0]).all()
