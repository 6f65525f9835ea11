"""Correlations and sums of squares equal those of scipy and scikit-learn; undefined is NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import r2_score

from langcortex.arrays import pearson
from reference.ridge import squared_errors


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pearson_equals_scipy(rng, dtype):
    y = rng.standard_normal((40, 6)).astype(dtype)
    p = (y + rng.standard_normal((40, 6))).astype(dtype)
    expected = [
        stats.pearsonr(a.astype(float), b.astype(float)).statistic for a, b in zip(y.T, p.T, strict=True)
    ]
    np.testing.assert_allclose(pearson(y, p), expected, atol=1e-7)


@given(
    hnp.arrays(np.float64, (12, 2), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(0.01, 100.0),
    st.floats(-1e3, 1e3),
)
def test_pearson_stays_between_minus_one_and_one_whatever_the_units(y, scale, shift):
    p = y[::-1] * scale + shift
    r = pearson(y, p)
    assert (np.isnan(r) | (np.abs(r) <= 1.0)).all()
    defined = np.isfinite(r)
    np.testing.assert_allclose(pearson(p, y)[defined], r[defined], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 / 3, -7e8])
def test_pearson_of_a_constant_column_is_nan_and_its_neighbour_is_not(rng, dtype, value):
    y = rng.standard_normal((501, 3)).astype(dtype)
    p = rng.standard_normal((501, 3)).astype(dtype)
    alone = pearson(y, p)
    y[:, 1] = value
    r = pearson(y, p)
    assert np.isnan(r[1])
    np.testing.assert_array_equal(r[[0, 2]], alone[[0, 2]])
    assert np.isnan(pearson(p, y)[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pearson_of_a_column_that_is_not_finite_is_nan_and_its_neighbour_is_not(rng, bad):
    y, p = rng.standard_normal((2, 20, 3))
    alone = pearson(y, p)
    y[4, 1] = bad
    r = pearson(y, p)
    assert np.isnan(r[1])
    np.testing.assert_array_equal(r[[0, 2]], alone[[0, 2]])


def test_pearson_needs_three_rows_and_one_shape(rng):
    assert np.isnan(pearson(np.eye(2), np.eye(2))).all()
    with pytest.raises(ValueError, match="one shape"):
        pearson(np.zeros((4, 2)), np.zeros((4, 3)))


def test_squared_errors_give_the_r2_of_scikit_learn_when_the_baseline_is_the_test_mean(rng):
    y, p = rng.standard_normal((2, 30, 4))
    sse, sst = squared_errors(y, p, y.mean(axis=0))
    np.testing.assert_allclose(1 - sse / sst, r2_score(y, p, multioutput="raw_values"))


def test_squared_errors_add_up_over_folds_against_the_training_mean(rng):
    y, p = rng.standard_normal((2, 30, 4))
    baseline = rng.standard_normal(4)
    halves = [squared_errors(y[s], p[s], baseline) for s in (slice(0, 10), slice(10, 30))]
    for total, parts in zip(squared_errors(y, p, baseline), zip(*halves, strict=True), strict=True):
        np.testing.assert_allclose(sum(parts), total)
    sse, sst = squared_errors(y, np.broadcast_to(baseline, y.shape), baseline)
    np.testing.assert_array_equal(sse, sst)  # predicting the training mean scores exactly 0


def test_squared_errors_of_a_constant_or_broken_column_are_nan(rng):
    y, p = rng.standard_normal((2, 30, 4)).astype(np.float32)
    y[:, 1] = 0.1
    y[3, 2] = np.nan
    for part in squared_errors(y, p, np.zeros(4, dtype=np.float32)):
        assert np.isnan(part).tolist() == [False, True, True, False]
