"""Bootstrap intervals against scipy, and the record of what was resampled."""

import numpy as np
import pytest
from scipy import stats

from langcortex.errors import FitError
from langcortex.stats.resampling import INTERVALS, Resampling, bootstrap, describe_seed


@pytest.mark.parametrize(("kind", "method"), [("percentile", "percentile"), ("bca", "BCa")])
def test_intervals_are_those_of_scipy(rng, kind, method):
    x = rng.exponential(size=(30, 2))
    low, high = bootstrap(x, rng, 20_000, kind)
    for j in range(2):
        reference = stats.bootstrap(
            (x[:, j],), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(5)
        ).confidence_interval
        np.testing.assert_allclose([low[j], high[j]], reference, atol=0.02)


def test_the_studentised_interval_of_normal_values_is_near_that_of_students_t(rng):
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
    for limit, widened in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(widened - mean, 2 * (limit - mean), atol=1e-12)
    np.testing.assert_allclose([narrow[0][1], narrow[1][1]], 0.25)


def test_an_unknown_interval_raises(rng):
    with pytest.raises(FitError, match="stretched, percentile, bca, t; not 'basic'"):
        bootstrap(np.zeros((3, 1)), rng, kind="basic")


def test_what_was_resampled_is_a_sentence_with_its_seed():
    child = np.random.default_rng(7).spawn(1)[0]
    assert describe_seed(np.random.default_rng(7)) == "7"
    assert describe_seed(child) == "7, child (0,)"
    assert str(Resampling("subjects", "random signs", 99, "7", "none")) == (
        "random signs of subjects, 99 resamples, correction: none, seed: 7"
    )


def test_intervals_of_six_units_contain_the_mean(rng):
    x = rng.standard_normal((6, 1000))
    for kind, least, most in (("percentile", 0.8, 0.9), ("stretched", 0.93, 0.97), ("t", 0.92, 0.97)):
        low, high = bootstrap(x, rng, 999, kind)
        assert least < np.mean((low <= 0) & (high >= 0)) < most
    with pytest.raises(FitError, match="studentised bootstrap of 4 units means nothing"):
        bootstrap(x[:4], rng, kind="t")
