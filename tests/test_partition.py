"""Partition: a band that carries signal has unique variance, one that does not has none, and twins share."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from langcortex.banded import fit_bands
from langcortex.encoding import fit, score
from langcortex.errors import FitError
from langcortex.partition import omega, partition
from langcortex.protocol import Protocol


def _rng():
    return np.random.default_rng(7)


def _design(rng, arrays_design, autocorrelated, n_targets=60):
    """Five runs; targets follow the model's own part (0–19), the part it shares with a control (20–39), or nothing."""
    run = np.repeat([f"run-{i}" for i in range(5)], 60)
    own, common, other = (
        np.concatenate([autocorrelated(rng, 60, 4, 0.4) for _ in range(5)]) for _ in range(3)
    )
    model, control = np.hstack([own, common]), np.hstack([common, other])
    y = np.concatenate([autocorrelated(rng, 60, n_targets, 0.6) for _ in range(5)])
    y[:, :20] += own @ rng.standard_normal((4, 20)) / 2
    y[:, 20:40] += common @ rng.standard_normal((4, 20)) / 2
    X = {
        "model": model @ rng.standard_normal((8, 40)), "control": control,
        "noise": np.concatenate([autocorrelated(rng, 60, 5, 0.4) for _ in range(5)]),
    }  # fmt: skip
    return arrays_design(X, y.astype(np.float32), run)


OWN, SHARED, SILENT = slice(0, 20), slice(20, 40), slice(40, 60)


@pytest.fixture
def planted(rng, arrays_design, autocorrelated):
    return _design(rng, arrays_design, autocorrelated)


def test_unique_variance_is_found_where_it_was_planted_and_nowhere_else(planted):
    found = partition(planted, "model", ["control"], Protocol(), _rng(), 20)
    unique, shared = found.unique[0], found.shared
    own = found.alone[0, OWN]
    assert own.min() > 0.1
    # what only the model has is unique to it
    np.testing.assert_allclose(unique[OWN].mean(), own.mean(), atol=0.03)
    assert stats.ttest_1samp(unique[OWN], 0).pvalue < 1e-6
    # what both have is shared, and unique to neither
    assert found.alone[0, SHARED].mean() > 0.1
    assert found.alone[1, SHARED].mean() > 0.1
    assert np.abs(found.unique[:, SHARED].mean(axis=1)).max() < 0.03
    np.testing.assert_allclose(shared[SHARED].mean(), found.joint[SHARED].mean(), atol=0.05)
    assert np.abs(shared[OWN].mean()) < 0.03
    # what follows nothing has nothing
    for values in (unique[SILENT], shared[SILENT], found.joint[SILENT]):
        assert abs(values.mean()) < 0.02
    assert found.omega[OWN].mean() < 20
    assert np.nanmean(found.omega[SHARED]) > 80


def test_a_band_of_noise_adds_nothing_and_takes_next_to_nothing(planted):
    found = partition(planted, "noise", ["model"], Protocol(), _rng(), 20)
    unique = found.unique[0]
    assert np.abs(unique).max() < 0.05
    assert -0.01 < unique.mean() < 0.005
    assert np.abs(found.alone[0]).max() < 0.06


def test_untouched_by_chance_over_draws_of_noise(arrays_design, autocorrelated):
    """Over fresh data, the unique R² of noise beside signal is never far below 0: the search can leave it out."""
    means = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        design = _design(rng, arrays_design, autocorrelated, 60)
        means.append(partition(design, "noise", ["control"], Protocol(), rng, 12).unique[0].mean())
    assert -0.006 < np.mean(means) < 0.004


def test_every_r2_is_that_of_the_fit_it_names_on_the_same_folds(planted):
    found = partition(planted, "model", ["control", "noise"], Protocol(), _rng(), 8)
    assert found.sets == ("model", "control", "noise")
    assert set(found.fits) == {
        ("model", "control", "noise"), ("model",), ("control",), ("noise",),
        ("control", "noise"), ("model", "noise"), ("model", "control"),
    }  # fmt: skip
    np.testing.assert_allclose(found.alone[1], score(fit(planted, "control", Protocol())).r2, atol=1e-5)
    np.testing.assert_array_equal(found.without[0], score(found.fits[("control", "noise")].encoding).r2)
    np.testing.assert_allclose(found.joint, found.unique.sum(axis=0) + found.shared, atol=1e-12)
    first = fit_bands(planted, ["model", "control", "noise"], Protocol(), _rng(), 8)
    np.testing.assert_array_equal(found.joint, score(first.encoding).r2)
    pieces = [fit.encoding.pieces.tolist() for fit in found.fits.values()]
    assert all(p == pieces[0] for p in pieces)
    for one in found.fits.values():
        np.testing.assert_allclose(one.encoding.sst, first.encoding.sst, rtol=1e-6)


def test_two_sets_share_what_the_textbook_says(planted):
    found = partition(planted, "model", ["control"], Protocol(), _rng(), 8)
    assert len(found.fits) == 3
    np.testing.assert_allclose(found.shared, found.alone.sum(axis=0) - found.joint, atol=1e-12)


def test_what_is_partitioned_is_not_a_confound_in_any_fit(planted):
    plain = partition(planted, "model", ["control"], Protocol(), _rng(), 6)
    named = partition(planted, "model", ["control"], Protocol(confounds=("control",)), _rng(), 6)
    np.testing.assert_array_equal(plain.joint, named.joint)
    np.testing.assert_array_equal(plain.alone, named.alone)


def test_components_are_kept_by_name(planted):
    found = partition(planted, "model", ["control"], Protocol(), _rng(), 6, pca={"model": 2})
    expected = score(fit(planted, "model", Protocol(pca=2))).r2
    np.testing.assert_allclose(found.alone[0], expected, atol=1e-5)
    assert np.abs(expected - score(fit(planted, "model", Protocol())).r2).max() > 0.01


def test_an_undefined_target_is_nan_everywhere_and_the_others_do_not_notice(planted):
    broken = planted.Y[0.0].copy()
    broken[:, 3], broken[7, 25] = 0.5, np.nan
    whole = partition(planted, "model", ["control"], Protocol(), _rng(), 6)
    found = partition(replace(planted, Y={0.0: broken}), "model", ["control"], Protocol(), _rng(), 6)
    keep = np.delete(np.arange(60), [3, 25])
    for name in ("joint", "alone", "without", "unique", "shared", "omega"):
        values = getattr(found, name)
        assert np.isnan(values[..., [3, 25]]).all(), name
        np.testing.assert_allclose(values[..., keep], getattr(whole, name)[..., keep], atol=1e-3)


def test_regions_average_the_defined_targets_and_omega_is_that_of_means(planted):
    broken = planted.Y[0.0].copy()
    broken[:, 3] = np.nan
    found = partition(replace(planted, Y={0.0: broken}), "model", ["control"], Protocol(), _rng(), 6)
    inside = np.zeros(60, dtype=bool)
    inside[OWN] = True
    nowhere = np.zeros(60, dtype=bool)
    nowhere[3] = True
    table = found.by_region({"own": inside, "nowhere": nowhere})
    assert list(table) == ["brain", "own", "nowhere"]
    assert list(table["own"]) == [
        "joint", "shared", "alone model", "without model", "unique model",
        "alone control", "without control", "unique control", "omega",
    ]  # fmt: skip
    assert table["own"]["unique model"] == pytest.approx(np.nanmean(found.unique[0, OWN]))
    both, controls, model = (
        np.nanmean(np.maximum(v[OWN], 0)) for v in (found.joint, found.without[0], found.alone[0])
    )
    expected = 100 * (1 - np.clip((max(both, model) - controls) / model, 0, 1))
    assert table["own"]["omega"] == pytest.approx(expected)
    assert np.isnan(list(table["nowhere"].values())).all()


def test_omega_is_the_table_of_its_definition():
    both = np.array([0.30, 0.20, 0.10, 0.50, np.nan, 0.20, -0.1])
    controls = np.array([0.10, 0.20, 0.00, 0.00, 0.10, -0.3, 0.10])
    model = np.array([0.20, 0.20, 0.20, 0.20, 0.20, 0.20, -0.2])
    #       all is its own, all is shared, joint below model, clipped at 1, NaN, controls below 0, model explains nothing
    np.testing.assert_allclose(
        omega(both, controls, model), [0.0, 100.0, 0.0, 0.0, np.nan, 0.0, np.nan], atol=1e-9
    )


@pytest.mark.parametrize("controls", [[], (), "control"])
def test_controls_are_a_list_of_at_least_one(planted, controls):
    with pytest.raises(FitError, match="list of at least one control"):
        partition(planted, "model", controls, Protocol(), _rng())


def test_a_control_that_is_the_model_or_unknown_is_refused(planted):
    with pytest.raises(FitError, match="'model' is named twice"):
        partition(planted, "model", ["model"], Protocol(), _rng())
    with pytest.raises(FitError, match="'words' is not among"):
        partition(planted, "model", ["words"], Protocol(), _rng())
