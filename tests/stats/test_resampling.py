"""Counting nulls as they come equals counting them all; intervals against scipy; corrections against statsmodels."""

import numpy as np
import pytest
from scipy import stats

from langcortex.errors import FitError
from langcortex.stats.null_counts import NullCounts, adjust_p
from langcortex.stats.resampling import INTERVALS, Resampling, bootstrap, describe_seed
from reference.nulls import p_corrected, p_values


def _counted(true, null, studentise=True, batch=7, columns=5):
    tally = NullCounts(true, len(null))
    for first in range(0, len(null), batch):
        for start in range(0, true.shape[-1], columns):
            part = slice(start, min(start + columns, true.shape[-1]))
            tally.add(null[first : first + batch, ..., part], first, part)
    return tally.significance("rows", "test", "0", studentise)


def test_one_layer_gives_the_p_of_all_nulls_at_once(rng):
    true, null = rng.standard_normal(12) + 1, rng.standard_normal((99, 12))
    true[3] = np.nan
    found = _counted(true, null)
    np.testing.assert_allclose(found.p, p_values(true, null))
    np.testing.assert_allclose(found.p_corrected, p_corrected(true, null))


def test_the_correction_over_layers_is_the_largest_of_standardised_nulls(rng):
    width = np.array([1.0, 10.0, 0.1])[:, None]
    true, null = width * (rng.standard_normal((3, 8)) + 1), width * rng.standard_normal((99, 3, 8))
    every = np.concatenate([true[None], null])
    z = (every - every.mean(axis=(0, 2))[:, None]) / every.std(axis=(0, 2))[:, None]
    largest = z[1:].max(axis=(1, 2))
    expected = (1 + (largest[:, None, None] >= z[0]).sum(axis=0)) / 100
    found = _counted(true, null)
    np.testing.assert_allclose(found.p_corrected, expected)
    assert found.resampling.correction == "largest over targets and layers, each layer standardised"
    # without it the widest layer alone decides
    plain = _counted(true, null, studentise=False)
    assert plain.p_corrected[2].min() > 0.9
    assert found.p_corrected[2].min() < plain.p_corrected[2].min()


def test_the_family_wise_rate_is_kept_over_targets_and_layers_of_unequal_width(rng):
    width = np.array([1.0, 5.0])[:, None]
    found = [
        _counted(
            width * rng.standard_normal((2, 10)),
            width * rng.standard_normal((39, 2, 10)),
            batch=39,
            columns=10,
        )
        for _ in range(600)
    ]
    wrong = np.mean([(f.p_corrected <= 0.05).any() for f in found])
    assert stats.binomtest(round(wrong * 600), 600, 0.05).pvalue > 0.001


def test_undefined_targets_and_nulls_are_nan_and_touch_no_other(rng):
    true, null = rng.standard_normal((2, 6)), rng.standard_normal((19, 2, 6))
    clean = _counted(np.delete(true, [1, 4], axis=1), np.delete(null, [1, 4], axis=2))
    true[:, 1] = np.nan
    null[:, :, 1] = 50.0
    null[:, :, 4] = np.nan
    found = _counted(true, null)
    assert np.isnan(found.p[:, [1, 4]]).all()
    assert np.isnan(found.p_corrected[:, [1, 4]]).all()
    np.testing.assert_allclose(np.delete(found.p, [1, 4], axis=1), clean.p)


def test_a_tally_holds_no_maps():
    tally = NullCounts(np.zeros((3, 1000)), 5000)
    held = sum(v.nbytes for v in vars(tally).values() if isinstance(v, np.ndarray))
    assert held < 5000 * 1000


def test_adjusted_p_are_those_of_statsmodels(rng):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.concatenate([rng.uniform(size=60), rng.uniform(0, 1e-3, 12)])
    np.testing.assert_allclose(adjust_p(p), multitest.multipletests(p, method="fdr_bh")[1])
    gaps = np.full((2, 72), np.nan)
    gaps[1] = p
    np.testing.assert_allclose(adjust_p(gaps)[1], adjust_p(p))
    assert np.isnan(adjust_p(gaps)[0]).all()


@pytest.mark.parametrize(("kind", "method"), [("percentile", "percentile"), ("bca", "BCa")])
def test_intervals_are_those_of_scipy(rng, kind, method):
    x = rng.exponential(size=(30, 2))
    low, high = bootstrap(x, rng, 20_000, kind)
    for j in range(2):
        reference = stats.bootstrap(
            (x[:, j],), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(5)
        ).confidence_interval
        np.testing.assert_allclose([low[j], high[j]], reference, atol=0.02)


def test_the_studentised_interval_is_near_students_where_values_are_normal(rng):
    x = rng.standard_normal((40, 1))
    low, high = bootstrap(x, rng, 20_000, "t")
    reference = stats.ttest_1samp(x[:, 0], 0).confidence_interval()
    np.testing.assert_allclose([low[0], high[0]], reference, atol=0.05)


@pytest.mark.parametrize("kind", INTERVALS)
def test_widening_stretches_around_the_mean_and_equal_values_have_no_width(rng, kind):
    x = rng.standard_normal((12, 2))
    x[:, 1] = 0.25
    narrow = bootstrap(x, np.random.default_rng(0), 500, kind)
    wide = bootstrap(x, np.random.default_rng(0), 500, kind, widen=2.0)
    mean = x.mean(axis=0)
    for one, other in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(other - mean, 2 * (one - mean), atol=1e-12)
    np.testing.assert_allclose([narrow[0][1], narrow[1][1]], 0.25)


def test_an_unknown_interval_is_said(rng):
    with pytest.raises(FitError, match="stretched, percentile, bca, t; not 'basic'"):
        bootstrap(np.zeros((3, 1)), rng, kind="basic")


def test_what_was_resampled_is_a_sentence_with_its_seed():
    child = np.random.default_rng(7).spawn(1)[0]
    assert describe_seed(np.random.default_rng(7)) == "7"
    assert describe_seed(child) == "7, child (0,)"
    assert str(Resampling("subjects", "random signs", 99, "7", "none")) == (
        "random signs of subjects, 99 resamples, correction: none, seed: 7"
    )


def test_six_units_get_an_interval_that_holds_the_mean(rng):
    x = rng.standard_normal((6, 1000))
    for kind, least, most in (("percentile", 0.8, 0.9), ("stretched", 0.93, 0.97), ("t", 0.92, 0.97)):
        low, high = bootstrap(x, rng, 999, kind)
        assert least < np.mean((low <= 0) & (high >= 0)) < most
    with pytest.raises(FitError, match="studentised bootstrap of 4 units means nothing"):
        bootstrap(x[:4], rng, kind="t")
