"""The shape of a layer curve: a planted inverted U is found at its layer, and not in rising, flat or noisy curves."""

import numpy as np
import pytest
from scipy import ndimage, stats

from langcortex.errors import FitError
from langcortex.stats.layer_curve import (
    analyse_layer_curve,
    fit_two_lines,
    flat_test,
    locate_peak,
    profile_test,
)

LAYERS = np.arange(25)
U = 0.1 - 0.08 * ((LAYERS - 14) / 14) ** 2


def _noise(rng, n, size=0.01, smooth=3.0):
    """Curves whose neighbouring layers are correlated, as those of models are, each unit with its own level."""
    noise = ndimage.gaussian_filter1d(rng.standard_normal((n, len(LAYERS))), smooth, axis=1)
    return size * noise / noise.std() + 0.02 * rng.standard_normal((n, 1))


def test_the_peak_is_found_with_an_interval_around_it(rng):
    peak = locate_peak(U + _noise(rng, 12), LAYERS, "subjects", rng)
    assert peak.low <= 14 <= peak.high
    assert 10 <= peak.low <= peak.layer <= peak.high <= 18
    assert peak.share.sum() == pytest.approx(1)
    assert str(peak.resampling).startswith("bootstrap (percentile) of subjects, 10000 resamples")


def test_runs_leave_the_peak_less_certain_than_subjects(rng):
    curves = U + _noise(rng, 8, 0.02)
    people, runs = (
        locate_peak(curves, LAYERS, unit, np.random.default_rng(0)) for unit in ("subjects", "runs")
    )
    assert runs.high - runs.low > people.high - people.low
    assert runs.layer == people.layer


def test_equal_curves_have_an_interval_of_one_layer():
    peak = locate_peak(np.tile(U, (4, 1)), LAYERS, "subjects", np.random.default_rng(0))
    assert (peak.low, peak.layer, peak.high) == (14, 14, 14)


def test_two_lines_are_each_units_regressions_tested_over_units(rng):
    curves = U + _noise(rng, 9)
    lines = fit_two_lines(curves, LAYERS, "subjects")
    for k, side in enumerate((lines.split >= LAYERS, lines.split <= LAYERS)):
        slopes = [stats.linregress(LAYERS[side], curve[side]).slope for curve in curves]
        assert lines.slope[k] == pytest.approx(np.mean(slopes))
        assert lines.p[k] == pytest.approx(stats.ttest_1samp(slopes, 0).pvalue)
    assert lines.inverted_u
    assert 9 <= lines.split <= 19
    assert (fit_two_lines(curves, LAYERS, "runs").p > lines.p).all()


def test_the_split_takes_layers_from_the_stronger_line(rng):
    """A steep rise to layer 8, level to 16, then a faint fall: the second line gets the level layers, and the other way round."""
    true = np.interp(LAYERS, [0, 8, 16, 24], [0.0, 0.1, 0.1, 0.09])
    noise = _noise(rng, 10, 0.01)
    lines, mirrored = (fit_two_lines(c + noise, LAYERS, "subjects") for c in (true, true[::-1]))
    assert lines.p[0] < lines.p[1]
    assert lines.split < 11
    assert mirrored.split > 13


def test_two_lines_are_a_regression_with_units_as_clusters(rng):
    api = pytest.importorskip("statsmodels.api")
    curves = U + _noise(rng, 10)
    lines = fit_two_lines(curves, LAYERS, "subjects")
    side = lines.split >= LAYERS
    x = np.column_stack([np.ones(side.sum()), LAYERS[side]])
    fit = api.OLS(curves[:, side].ravel(), np.tile(x, (10, 1))).fit(
        cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(10), side.sum()), "use_correction": False}
    )
    assert fit.params[1] == pytest.approx(lines.slope[0])
    error = lines.slope[0] / stats.t.isf(lines.p[0] / 2, 9)
    assert fit.bse[1] * np.sqrt(10 / 9) == pytest.approx(error)


@pytest.mark.parametrize(
    "true",
    [0 * LAYERS, 0.004 * LAYERS, -0.004 * LAYERS, 0.008 * np.minimum(LAYERS, 12)],
    ids=["flat", "up", "down", "plateau"],
)
def test_curves_without_an_inverted_u_are_rarely_called_one(rng, true):
    called = [fit_two_lines(true + _noise(rng, 8), LAYERS, "subjects").inverted_u for _ in range(200)]
    assert np.mean(called) <= 0.08


def test_an_upright_u_is_no_inverted_u(rng):
    assert not fit_two_lines(-U + _noise(rng, 12), LAYERS, "subjects").inverted_u


@pytest.mark.parametrize("statistic", ["range", "quadratic"])
def test_flat_curves_are_called_flat_with_signs(rng, statistic):
    p = [flat_test(_noise(rng, 10), LAYERS, "subjects", rng, 99, statistic).p for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.085


def test_shuffled_layers_find_bends_in_smooth_noise_and_signs_do_not(rng):
    p = [flat_test(_noise(rng, 10), LAYERS, "subjects", rng, 99, "quadratic", "labels").p for _ in range(100)]
    assert np.mean(np.array(p) <= 0.05) > 0.15


def test_a_curve_that_is_not_flat_is_found(rng):
    curves = U + _noise(rng, 10)
    for statistic in ("range", "quadratic"):
        for how in ("signs", "labels"):
            test = flat_test(curves, LAYERS, "subjects", rng, 999, statistic, how)
            assert test.p <= 0.01
            assert test.resampling.n == (1024 if how == "signs" else 999)
    with pytest.raises(FitError, match="with 'signs' or 'labels'; not 'range' with 'shuffle'"):
        flat_test(curves, LAYERS, "subjects", rng, how="shuffle")


def test_a_peak_that_noise_has_too_is_not_significant_against_noise(rng):
    """Selection gives noise a peak at layer 12: a curve with that peak alone is no finding, one with more is."""
    fake = 0.3 * np.exp(-((LAYERS - 12.0) ** 2) / 8)
    null = fake + _noise(rng, 200, 0.02)
    p = [profile_test(fake + _noise(rng, 1, 0.02)[0], null).p for _ in range(200)]
    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert profile_test(fake + 2 * U + _noise(rng, 1, 0.02)[0], null).p == pytest.approx(1 / 201)
    with pytest.raises(FitError, match=r"18 curves of noise cannot give p = \.05"):
        profile_test(U, null[:18])
    with pytest.raises(FitError, match=r"The noise's curves are \(200, 24\), but the curve has 25 layers"):
        profile_test(U, null[:, 1:])


def test_verdicts_claim_what_was_shown(rng):
    def verdict(true, null=None, unit="subjects"):
        return analyse_layer_curve(true + _noise(rng, 12), LAYERS, "smollm2", unit, rng, null, 2000).verdict

    assert verdict(U).startswith("Inverted U: smollm2 rises and falls (+")
    assert "12 runs)." in verdict(U, unit="runs")
    assert verdict(0 * LAYERS).startswith(
        "Undecided: the curve of smollm2 is not shown to differ from a flat one"
    )
    assert verdict(0.004 * LAYERS).startswith(
        "No inverted U is shown: the curve of smollm2 is not flat, but not both"
    )
    noise = U + _noise(rng, 99, 0.02)
    assert "but noise gives such a curve in this protocol" in verdict(U, noise)


def test_curves_that_are_too_short_or_undefined_raise(rng):
    with pytest.raises(FitError, match="at least 6 layers in rising order; there are 5"):
        locate_peak(np.ones((4, 5)), np.arange(5), "subjects", rng)
    with pytest.raises(FitError, match="rising order"):
        locate_peak(np.ones((4, 6)), np.arange(6)[::-1], "subjects", rng)
    curves = U + _noise(rng, 4)
    curves[:2, 3] = np.nan
    with pytest.raises(FitError, match="2 units have a score at every layer"):
        fit_two_lines(curves, LAYERS, "subjects")
    with pytest.raises(FitError, match=r"Curves are \(4, 25\), but there are 24 layers"):
        fit_two_lines(curves, LAYERS[1:], "subjects")


@pytest.mark.parametrize("n", [3, 5, 12])
def test_few_units_try_every_pattern_of_signs(rng, n):
    """The smallest p is 2 / 2ⁿ, exactly, and drawing again changes nothing."""
    layers = np.arange(8.0)
    curves = -np.square(layers - 4) + 0.01 * rng.standard_normal((n, 8))
    shapes = [flat_test(curves, layers, "subjects", np.random.default_rng(seed), 500) for seed in (1, 2)]
    assert shapes[0].p == shapes[1].p == 2 / 2**n
    assert (shapes[0].resampling.n, shapes[0].resampling.seed) == (2**n, "none")
