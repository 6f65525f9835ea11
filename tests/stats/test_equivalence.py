"""TOST, JZS Bayes factors and power: against scipy, statsmodels, pingouin and published values."""

import numpy as np
import pytest
from scipy import integrate, stats

from langcortex.stats.equivalence import bayes_factor, equivalence, smallest_difference, widening


def test_equivalence_is_the_tost_of_statsmodels(rng):
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    d = 0.02 * rng.standard_normal((14, 5)) + np.linspace(0, 0.02, 5)
    error = d.std(axis=0, ddof=1) / np.sqrt(14)
    for j, p in enumerate(equivalence(d.mean(axis=0), error, 13, 0.012)):
        assert p == pytest.approx(weightstats.DescrStatsW(d[:, j]).ttost_mean(-0.012, 0.012)[0])


def test_equivalence_without_spread_is_certain():
    p = equivalence(np.array([0.005, 0.02, np.nan]), np.zeros(3), 5, 0.01)
    np.testing.assert_array_equal(p, [0.0, 1.0, np.nan])


def test_bayes_factors_are_the_published_ones():
    """pingouin's documentation, itself checked against R's BayesFactor: t = 3.5 of 20 pairs gives 17.185."""
    assert bayes_factor(np.array([3.5]), 20)[0] == pytest.approx(17.185, abs=0.001)


@pytest.mark.parametrize("scale", [1.0, np.sqrt(0.5)])
def test_bayes_factors_are_those_of_the_articles_integral(scale):
    """Rouder et al. 2009, eq. 1, integrated over g as printed (their g is scaled by the prior's width)."""
    for t, n in ((0.0, 5), (1.5, 12), (2.2, 80), (6.0, 9)):
        nu = n - 1

        def printed(g, t=t, n=n, nu=nu):
            wide = 1 + n * g * scale**2
            return (
                wide**-0.5 * (1 + t**2 / (wide * nu)) ** (-(nu + 1) / 2)
                * (2 * np.pi) ** -0.5 * g**-1.5 * np.exp(-1 / (2 * g))
            )  # fmt: skip

        expected = integrate.quad(printed, 0, np.inf)[0] / (1 + t**2 / nu) ** (-(nu + 1) / 2)
        assert bayes_factor(np.array([t]), n, scale=scale)[0] == pytest.approx(expected, rel=1e-5)


def test_bayes_factors_are_those_of_pingouin():
    pingouin = pytest.importorskip("pingouin")
    for t in (0.0, 0.7, -2.5, 5.0):
        for n in (4, 15, 112):
            expected = float(pingouin.bayesfactor_ttest(t, n))
            assert bayes_factor(np.array([t]), n)[0] == pytest.approx(expected, rel=1e-3)


def test_bayes_factors_of_extreme_and_undefined_t():
    factors = bayes_factor(np.array([[np.nan, np.inf], [200.0, 0.0]]), 100)
    assert np.isnan(factors[0, 0])
    assert factors[0, 1] == np.inf
    assert factors[1, 0] > 1e50
    assert 0 < factors[1, 1] < 1 / 3


def test_more_units_without_a_difference_are_stronger_evidence_against_one():
    factors = [bayes_factor(np.array([0.0]), n)[0] for n in (5, 20, 100, 1000)]
    assert (np.diff(factors) < 0).all()


@pytest.mark.parametrize("n", [2, 3, 6, 20, 112])
def test_the_smallest_difference_is_found_four_times_in_five(n):
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    difference = smallest_difference(np.array([0.03 / np.sqrt(n), 0.0]), n - 1)
    assert power.power(difference[0] / 0.03, n, 0.05) == pytest.approx(0.8, abs=2e-4)
    assert difference[1] == 0.0


def test_the_smallest_difference_is_found_four_times_in_five_in_simulations(rng):
    d = rng.standard_normal((8, 4000)) + smallest_difference(np.array([1 / np.sqrt(8)]), 7)[0]
    assert np.mean(stats.ttest_1samp(d, 0).pvalue <= 0.05) == pytest.approx(0.8, abs=0.03)


def test_only_runs_are_widened():
    assert widening("subjects", 6) == 1.0
    assert widening("runs", 6) == pytest.approx(np.sqrt(1 + 6 / 5))
