"""Comparisons: against scipy's permutation test, TOST by its formula, and verdicts that claim no more than the data show."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from langcortex.errors import FitError
from langcortex.stats.comparison import compare, compare_chosen
from langcortex.stats.equivalence import bayes_factor


def _compare(d, margin=0.01, seed=0, unit="subjects", **options):
    d = np.asarray(d, dtype=float)
    a = np.random.default_rng(99).uniform(0, 0.5, d.shape)
    return compare(
        a + d,
        a,
        np.arange(d.shape[1]),
        ("tuned", "base"),
        unit,
        np.random.default_rng(seed),
        margin,
        **options,
    )


@pytest.mark.parametrize("n", [3, 6, 9])
def test_few_units_try_every_pattern_of_signs_as_scipy_does(rng, n):
    d = rng.standard_normal((n, 4)) + np.array([0, 0.3, 1, -2])
    comparison = _compare(d)
    for j in range(4):
        reference = stats.permutation_test(
            (d[:, j], np.zeros(n)),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert comparison.p[j] == pytest.approx(reference.pvalue)
        assert comparison.effect[j] == pytest.approx(d[:, j].mean())
    assert comparison.smallest_p == pytest.approx(2 / 2**n)
    assert (comparison.p_corrected >= comparison.p - 1e-12).all()


def test_the_correction_compares_with_the_largest_layer(rng):
    d = rng.standard_normal((7, 3)) + np.array([0.2, 0.8, 0.0])
    comparison = _compare(d)
    signs = np.array(np.meshgrid(*[[1, -1]] * 7)).reshape(7, -1).T
    largest = np.abs(signs @ d / 7).max(axis=1)
    expected = [(largest >= abs(e) - 1e-12).mean() for e in d.mean(axis=0)]
    np.testing.assert_allclose(comparison.p_corrected, expected)


def test_many_units_draw_patterns_and_agree_with_scipy(rng):
    d = rng.standard_normal((30, 2)) + np.array([0.35, 0.0])
    comparison = _compare(d, n_resamples=4000)
    for j in range(2):
        assert comparison.p[j] == pytest.approx(stats.ttest_1samp(d[:, j], 0).pvalue, abs=0.03)
        assert comparison.p[j] >= comparison.smallest_p == 1 / 4001


def test_equivalence_is_two_one_sided_t_tests(rng):
    d = 0.01 * rng.standard_normal((12, 3)) + np.array([0.0, 0.004, 0.02])
    comparison = _compare(d, margin=0.012)
    for j in range(3):
        lower = stats.ttest_1samp(d[:, j], -0.012, alternative="greater").pvalue
        upper = stats.ttest_1samp(d[:, j], 0.012, alternative="less").pvalue
        assert comparison.p_equivalent[j] == pytest.approx(max(lower, upper))


def test_the_interval_is_a_bootstrap_over_units(rng):
    d = rng.standard_normal((25, 2)) + np.array([1.0, 0.0])
    comparison = _compare(d, interval="percentile")
    for j in range(2):
        reference = stats.bootstrap(
            (d[:, j],), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(5)
        ).confidence_interval
        np.testing.assert_allclose([comparison.low[j], comparison.high[j]], reference, atol=0.05)


def test_noise_differs_about_as_often_as_the_level_says(rng):
    hits = [
        (_compare(rng.standard_normal((8, 5)), n_resamples=10).p_corrected <= 0.05).any() for _ in range(300)
    ]
    assert 0.01 < np.mean(hits) < 0.09


def test_swapping_the_models_swaps_the_sign_and_nothing_else(rng):
    a, b = rng.uniform(size=(2, 8, 3))
    first = compare(a, b, np.arange(3), ("a", "b"), "runs", np.random.default_rng(0))
    second = compare(b, a, np.arange(3), ("b", "a"), "runs", np.random.default_rng(0))
    np.testing.assert_allclose(first.effect, -second.effect)
    np.testing.assert_allclose(first.p, second.p)
    np.testing.assert_allclose(first.low, -second.high, atol=0.02)


def test_the_verdict_names_the_layer_of_a_clear_difference(rng):
    d = 0.01 * rng.standard_normal((10, 4))
    d[:, 2] -= 0.08
    comparison = _compare(d)
    assert comparison.verdict == (
        f"tuned differs from base at 1 of 4 layers (largest at layer 2: {abs(d[:, 2].mean()):.3f} below; "
        "10 subjects, corrected over layers)."
    )
    assert "above" in _compare(-d).verdict


def test_the_verdict_is_undecided_where_nothing_is_shown(rng):
    noise = rng.standard_normal((10, 4))
    noise -= noise.mean(axis=0)
    assert _compare(0.001 * noise).verdict == "No difference: within ±0.01 at every layer (10 subjects)."
    assert _compare(0.1 * noise).verdict == (
        "Undecided: no layer differs (corrected over layers), and only 0 of 4 are shown to lie within ±0.01 (10 subjects)."
    )
    assert _compare(np.hstack([0.001 * noise[:, :1], 0.1 * noise[:, 1:]])).verdict.startswith("Undecided")
    assert "only 1 of 4" in _compare(np.hstack([0.001 * noise[:, :1], 0.1 * noise[:, 1:]])).verdict


@pytest.mark.parametrize("n", [2, 5])
def test_the_verdict_says_when_units_are_too_few(n):
    comparison = _compare(np.full((n, 3), 0.5) + 0.01 * np.arange(n)[:, None], unit="runs")
    assert (
        comparison.verdict
        == f"{n} runs are too few for sign flips to give a p below .05 (the smallest possible is {2 / 2**n:.2g})."
        " The uncorrected 95 % interval of tuned − base excludes 0 at 3 of 3 layers (largest at layer 0: "
        f"{comparison.effect[0]:+.3f} [{comparison.low[0]:+.3f}, {comparison.high[0]:+.3f}])."
    )


def test_identical_models_do_not_differ():
    comparison = _compare(np.zeros((8, 3)))
    np.testing.assert_array_equal(comparison.p, 1.0)
    np.testing.assert_array_equal(comparison.p_equivalent, 0.0)
    assert comparison.verdict.startswith("No difference")


def test_units_without_both_scores_are_left_out(rng):
    a, b = rng.uniform(size=(2, 8, 3))
    a[2, 1] = np.nan
    keep = np.arange(8) != 2
    first = compare(a, b, np.arange(3), ("a", "b"), "runs", np.random.default_rng(0))
    second = compare(a[keep], b[keep], np.arange(3), ("a", "b"), "runs", np.random.default_rng(0))
    assert first.n_units == 7
    np.testing.assert_array_equal(first.p, second.p)
    with pytest.raises(FitError, match="1 runs have scores for both a and b; a comparison needs at least 2"):
        compare(a[2:4], b[2:4], np.arange(3), ("a", "b"), "runs", rng)


def test_p_and_interval_name_what_was_resampled(rng):
    few, many = (
        _compare(rng.standard_normal((8, 3))),
        _compare(rng.standard_normal((20, 3)), seed=4, n_resamples=500),
    )
    assert str(few.p_resampling) == (
        "every pattern of signs of subjects, 256 resamples, correction: largest difference over 3 layers, seed: none"
    )
    assert str(many.p_resampling) == (
        "random signs of subjects, 500 resamples, correction: largest difference over 3 layers, seed: 4"
    )
    assert (
        str(many.interval_resampling)
        == "bootstrap (stretched) of subjects, 500 resamples, correction: none, seed: 4"
    )
    runs = _compare(rng.standard_normal((6, 3)), unit="runs")
    assert "spread widened by 1.48" in str(runs.interval_resampling)
    assert "nothing is said about other people" in runs.caution
    assert few.caution == ""


def test_bayes_factors_and_power_come_with_every_layer(rng):
    d = 0.01 * rng.standard_normal((15, 2)) + np.array([0.0, 0.03])
    comparison = _compare(d)
    t = stats.ttest_1samp(d, 0).statistic
    np.testing.assert_allclose(comparison.bayes_factor, bayes_factor(t, 15))
    assert comparison.bayes_factor[0] < 1 < 3 < comparison.bayes_factor[1]
    # 15 units see .78 standard deviations with 80 % power
    np.testing.assert_allclose(comparison.detectable_difference / d.std(axis=0, ddof=1), 0.7784, atol=1e-3)
    assert "for a difference (above 3) at 1 of 2 layers" in comparison.evidence


def test_runs_weigh_less_than_as_many_subjects(rng):
    d = 0.01 * rng.standard_normal((8, 3)) + 0.02
    people, runs = _compare(d), _compare(d, unit="runs")
    assert (runs.bayes_factor < people.bayes_factor).all()
    wide = np.sqrt(1 + 8 / 7)
    t = stats.ttest_1samp(d, 0).statistic / wide
    np.testing.assert_allclose(runs.bayes_factor, bayes_factor(t, 8 / wide**2, 7))
    np.testing.assert_allclose(runs.detectable_difference, people.detectable_difference * wide)


def test_a_layer_with_a_wide_spread_does_not_hide_studentised_ones(rng):
    d = rng.standard_normal((9, 3)) * np.array([1.0, 1.0, 0.02]) + np.array([0, 0, 0.04])
    assert _compare(d).p_corrected[2] > 0.5
    comparison = _compare(d, studentise=True)
    assert comparison.p_corrected[2] < 0.05
    assert "largest t over 3 layers" in str(comparison.p_resampling)
    np.testing.assert_allclose(comparison.p, _compare(d).p)  # one layer by itself is ordered alike


def test_the_chosen_layer_is_one_test_without_correction(rng):
    a = rng.uniform(size=10)
    comparison = compare_chosen(a + 0.05 + 0.01 * rng.standard_normal(10), a, ("x", "y"), "subjects", rng)
    assert comparison.p_corrected[0] == comparison.p[0] == 2 / 1024
    assert comparison.verdict == (
        f"x differs from y at the layer chosen in training: {comparison.effect[0]:.3f} above (10 subjects)."
    )
    noise = 0.001 * rng.standard_normal(10)
    noise -= noise.mean()
    assert compare_chosen(a + noise, a, ("x", "y"), "subjects", rng).verdict == (
        "No difference at the layer chosen in training: within ±0.01 (10 subjects)."
    )
    assert compare_chosen(a + 100 * noise, a, ("x", "y"), "subjects", rng).verdict.startswith(
        "Undecided at the layer chosen in training: neither a difference nor its absence within ±0.01"
    )


def test_a_difference_may_be_real_and_too_small_to_matter(rng):
    d = 0.002 + 0.0005 * rng.standard_normal((10, 3))
    assert "all of it within ±0.01" in _compare(d).verdict


def test_equivalent_models_with_a_small_likely_difference_are_not_called_the_same(rng):
    """Intervals without 0 and Bayes factors for a difference stand in the sentence; "no difference" does not."""
    d = 0.004 + 0.0062 * rng.standard_normal((10, 6))
    comparison = _compare(d, margin=0.02)
    comparison = replace(comparison, p_corrected=np.full(6, 0.2))
    assert comparison.decision == "equivalent, smaller"
    assert comparison.verdict.startswith(
        "Equivalent within ±0.02 at every layer (10 subjects); a smaller difference is likely."
    )
    assert f"excludes 0 at {int(comparison.excludes_zero.sum())} of 6 layers" in comparison.verdict


def test_two_models_at_zero_leave_nothing_to_compare(rng):
    a, b = 0.003 * rng.standard_normal((2, 10, 5))
    comparison = compare(a, b, np.arange(5), ("x", "y"), "subjects", rng, margin=0.01)
    assert comparison.decision == "nothing"
    assert (
        comparison.verdict
        == "Nothing to compare: the score of neither x nor y is shown to be above 0 at any layer (10 subjects)."
    )
    assert compare(a + 0.1, b, np.arange(5), ("x", "y"), "subjects", rng).decision == "different"


def test_an_interval_that_excludes_zero_is_always_reported(rng):
    """Whatever the decision, but "different", whose sentence names the difference itself."""
    for _ in range(60):
        d = rng.normal(0.01, 0.02, 3) + rng.uniform(0.001, 0.05) * rng.standard_normal(
            (int(rng.integers(3, 14)), 3)
        )
        comparison = _compare(d, margin=float(rng.choice([0.005, 0.02, 0.1])), n_resamples=200)
        if comparison.decision not in ("different", "nothing"):
            assert ("excludes 0" in comparison.verdict) == bool(comparison.excludes_zero.any())
        if comparison.excludes_zero.any():
            assert not comparison.verdict.startswith("No difference")
