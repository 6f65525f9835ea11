"""Ceilings from repeats: the equations of the articles, planted reliability inside the interval, noise refused."""

import numpy as np
import pytest

from langcortex.errors import FitError
from langcortex.stats.noise_ceiling import normalise
from langcortex.stats.repeat_ceiling import estimate_signal_power


def _repeats(rng, n, share, n_scans=300, n_targets=100, memory=0.6):
    def slow(*shape):
        x = rng.standard_normal(shape)
        for i in range(1, shape[-2]):
            x[..., i, :] = memory * x[..., i - 1, :] + np.sqrt(1 - memory**2) * x[..., i, :]
        return x

    signal = slow(n_scans, n_targets)
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    return signal, np.sqrt(share) * signal + np.sqrt(1 - share) * slow(n, n_scans, n_targets)


def test_explainable_variance_is_that_of_the_huth_lab(rng):
    """1 − var(residual)/var, less (1 − that)/(N − 1), of standardised repeats."""
    _, y = _repeats(rng, 5, 0.3, n_targets=6)
    y = (y - y.mean(axis=1, keepdims=True)) / y.std(axis=1, keepdims=True)
    plain = 1 - (y - y.mean(axis=0)).var(axis=(0, 1))
    expected = plain - (1 - plain) / 4
    np.testing.assert_allclose(estimate_signal_power(y, rng).explainable.value, expected)


def test_signal_power_is_that_of_sahani_and_linden(rng):
    """(var(Σy) − Σ var(y)) / (N (N − 1)), as the article prints it."""
    _, y = _repeats(rng, 4, 0.4, n_targets=6)
    power = estimate_signal_power(y, rng)
    expected = (y.sum(axis=0).var(axis=0) - y.var(axis=1).sum(axis=0)) / 12
    np.testing.assert_allclose(power.signal, expected)
    np.testing.assert_allclose(power.total, y.var(axis=1).mean(axis=0))
    np.testing.assert_allclose(power.ceiling.value, np.sqrt(expected / y.mean(axis=0).var(axis=0)))


def test_the_ceiling_is_that_of_random_halves(rng):
    """Hsu et al. 2004: CC_max = √(2 / (1 + √(1/CC_half²)))."""
    _, y = _repeats(rng, 8, 0.3, n_scans=3000, n_targets=5)
    half = np.mean([
        [np.corrcoef(y[o[:4], :, j].mean(axis=0), y[o[4:], :, j].mean(axis=0))[0, 1] for j in range(5)]
        for o in (rng.permutation(8) for _ in range(60))
    ], axis=0)  # fmt: skip
    ceiling = estimate_signal_power(y, rng).ceiling.value
    np.testing.assert_allclose(ceiling, np.sqrt(2 / (1 + np.sqrt(1 / half**2))), atol=0.01)


@pytest.mark.parametrize("n", [2, 4, 10])
@pytest.mark.parametrize("share", [0.15, 0.5])
def test_planted_reliability_is_inside_the_interval_nine_times_in_ten(n, share):
    rng = np.random.default_rng([n, int(100 * share)])
    _, y = _repeats(rng, n, share)
    power = estimate_signal_power(y, rng)
    best = np.sqrt(share / (share + (1 - share) / n))
    for c, truth in ((power.explainable, share), (power.ceiling, best)):
        inside = (c.low <= truth) & (truth <= c.high)
        assert inside.mean() >= 0.9
        assert np.mean(c.value) == pytest.approx(truth, abs=0.06)
    assert (power.explainable.unit, power.ceiling.unit) == ("r2", "r")


def test_noise_has_no_ceiling(rng):
    _, y = _repeats(rng, 4, 0.0)
    power = estimate_signal_power(y, rng)
    assert abs(np.mean(power.explainable.value)) < 0.02
    assert np.isnan(normalise(np.full(100, 0.1), power.ceiling, "r").value).mean() > 0.9


def test_the_seed_and_the_unit_are_on_record(rng):
    _, y = _repeats(rng, 3, 0.3, n_targets=2)
    first, second = (
        estimate_signal_power(y, np.random.default_rng(4), block=20, n_resamples=200) for _ in range(2)
    )
    np.testing.assert_array_equal(first.ceiling.low, second.ceiling.low)
    assert str(first.ceiling.resampling) == (
        "bootstrap (percentile) of blocks of 20 scans, 200 resamples, correction: none, seed: 4"
    )


def test_undefined_targets_are_nan_and_bad_shapes_raise(rng):
    _, y = _repeats(rng, 3, 0.3, n_targets=3)
    y[1, 5, 0], y[:, :, 2] = np.nan, 1.0
    power = estimate_signal_power(y, rng)
    assert np.isnan(power.explainable.value).tolist() == [True, False, True]
    assert normalise(np.ones(3), power.ceiling, "r").reason[2] == "the ceiling is undefined"
    with pytest.raises(FitError, match="with at least 2 repeats"):
        estimate_signal_power(y[:1], rng)
    with pytest.raises(FitError, match="300 scans hold fewer than 5 blocks of 80"):
        estimate_signal_power(y, rng, block=80)
