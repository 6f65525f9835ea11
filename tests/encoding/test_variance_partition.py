"""Partition: a band that carries signal has unique variance, one that does not has none, and twins share."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from langcortex.cache import Store
from langcortex.encoding.banded import fit_bands
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.encoding.variance_partition import band_subsets, omega, partition_subject
from langcortex.errors import FitError
from reference.partition import partition


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
    parts = partition(planted, "model", ["control"], Protocol(), _rng(), 20)
    unique, shared = parts.unique[0], parts.shared
    own = parts.alone[0, OWN]
    assert own.min() > 0.1
    # what only the model has is unique to it
    np.testing.assert_allclose(unique[OWN].mean(), own.mean(), atol=0.03)
    assert stats.ttest_1samp(unique[OWN], 0).pvalue < 1e-6
    # what both have is shared, and unique to neither
    assert parts.alone[0, SHARED].mean() > 0.1
    assert parts.alone[1, SHARED].mean() > 0.1
    assert np.abs(parts.unique[:, SHARED].mean(axis=1)).max() < 0.03
    np.testing.assert_allclose(shared[SHARED].mean(), parts.joint[SHARED].mean(), atol=0.05)
    assert np.abs(shared[OWN].mean()) < 0.03
    # what follows nothing has nothing
    for values in (unique[SILENT], shared[SILENT], parts.joint[SILENT]):
        assert abs(values.mean()) < 0.02
    assert parts.omega[OWN].mean() < 20
    assert np.nanmean(parts.omega[SHARED]) > 80


def test_a_band_of_noise_adds_nothing_and_takes_next_to_nothing(planted):
    parts = partition(planted, "noise", ["model"], Protocol(), _rng(), 20)
    unique = parts.unique[0]
    assert np.abs(unique).max() < 0.05
    assert -0.01 < unique.mean() < 0.005
    assert np.abs(parts.alone[0]).max() < 0.06


def test_untouched_by_chance_over_draws_of_noise(arrays_design, autocorrelated):
    """Over fresh data, the unique R² of noise beside signal is never far below 0: the search can leave it out."""
    means = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        design = _design(rng, arrays_design, autocorrelated, 60)
        means.append(partition(design, "noise", ["control"], Protocol(), rng, 12).unique[0].mean())
    assert -0.006 < np.mean(means) < 0.004


def test_every_r2_is_that_of_the_fit_it_names_on_the_same_folds(planted):
    parts = partition(planted, "model", ["control", "noise"], Protocol(), _rng(), 8)
    assert parts.sets == ("model", "control", "noise")
    assert set(parts.fits) == {
        ("model", "control", "noise"), ("model",), ("control",), ("noise",),
        ("control", "noise"), ("model", "noise"), ("model", "control"),
    }  # fmt: skip
    np.testing.assert_allclose(parts.alone[1], score(fit(planted, "control", Protocol())).r2, atol=1e-5)
    np.testing.assert_array_equal(parts.without[0], score(parts.fits[("control", "noise")].encoding).r2)
    np.testing.assert_allclose(parts.joint, parts.unique.sum(axis=0) + parts.shared, atol=1e-12)
    first = fit_bands(planted, ["model", "control", "noise"], Protocol(), _rng(), 8)
    np.testing.assert_array_equal(parts.joint, score(first.encoding).r2)
    pieces = [fit.encoding.segments.tolist() for fit in parts.fits.values()]
    assert all(p == pieces[0] for p in pieces)
    for one in parts.fits.values():
        np.testing.assert_allclose(one.encoding.sst, first.encoding.sst, rtol=1e-6)


def test_two_sets_share_what_the_textbook_says(planted):
    parts = partition(planted, "model", ["control"], Protocol(), _rng(), 8)
    assert len(parts.fits) == 3
    np.testing.assert_allclose(parts.shared, parts.alone.sum(axis=0) - parts.joint, atol=1e-12)


def test_what_is_partitioned_is_not_a_confound_in_any_fit(planted):
    plain = partition(planted, "model", ["control"], Protocol(), _rng(), 6)
    named = partition(planted, "model", ["control"], Protocol(confounds=("control",)), _rng(), 6)
    np.testing.assert_array_equal(plain.joint, named.joint)
    np.testing.assert_array_equal(plain.alone, named.alone)


def test_components_are_kept_by_name(planted):
    parts = partition(planted, "model", ["control"], Protocol(), _rng(), 6, pca={"model": 2})
    expected = score(fit(planted, "model", Protocol(pca=2))).r2
    np.testing.assert_allclose(parts.alone[0], expected, atol=1e-5)
    assert np.abs(expected - score(fit(planted, "model", Protocol())).r2).max() > 0.01


def test_an_undefined_target_is_nan_everywhere_and_the_others_do_not_notice(planted):
    broken = planted.Y[0.0].copy()
    broken[:, 3], broken[7, 25] = 0.5, np.nan
    whole = partition(planted, "model", ["control"], Protocol(), _rng(), 6)
    parts = partition(replace(planted, Y={0.0: broken}), "model", ["control"], Protocol(), _rng(), 6)
    keep = np.delete(np.arange(60), [3, 25])
    for name in ("joint", "alone", "without", "unique", "shared", "omega"):
        values = getattr(parts, name)
        assert np.isnan(values[..., [3, 25]]).all(), name
        np.testing.assert_allclose(values[..., keep], getattr(whole, name)[..., keep], atol=1e-3)


def test_regions_average_the_defined_targets_and_omega_is_that_of_means(planted):
    broken = planted.Y[0.0].copy()
    broken[:, 3] = np.nan
    parts = partition(replace(planted, Y={0.0: broken}), "model", ["control"], Protocol(), _rng(), 6)
    inside = np.zeros(60, dtype=bool)
    inside[OWN] = True
    nowhere = np.zeros(60, dtype=bool)
    nowhere[3] = True
    table = parts.by_region({"own": inside, "nowhere": nowhere})
    assert list(table) == ["brain", "own", "nowhere"]
    assert list(table["own"]) == [
        "joint", "shared", "alone model", "without model", "unique model",
        "alone control", "without control", "unique control", "omega",
    ]  # fmt: skip
    assert table["own"]["unique model"] == pytest.approx(np.nanmean(parts.unique[0, OWN]))
    both, controls, model = (
        np.nanmean(np.maximum(v[OWN], 0)) for v in (parts.joint, parts.without[0], parts.alone[0])
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


N, RUNS = 60, 5
MODEL_PART, SHARED_PART, SILENT_PART = slice(0, 10), slice(10, 20), slice(20, 30)
TRAINING = Protocol(penalties=(0.1, 1.0, 10.0, 1000.0))


@pytest.fixture
def planted_subject(rng, arrays_design, autocorrelated):
    """Targets follow the model's own part (0–9), the part it shares with "rate" (10–19), or nothing (20–29)."""
    run = np.repeat([f"run-{i}" for i in range(RUNS)], N)
    draw = lambda k: np.concatenate([autocorrelated(rng, N, k, 0.4) for _ in range(RUNS)])  # noqa: E731
    own, common, other = draw(4), draw(4), draw(4)
    y = np.concatenate([autocorrelated(rng, N, 30, 0.6) for _ in range(RUNS)])
    y[:, MODEL_PART] += own @ rng.standard_normal((4, 10)) / 2
    y[:, SHARED_PART] += common @ rng.standard_normal((4, 10)) / 2
    layer = np.hstack([own, common])
    X = {
        "m/layer-0": draw(12), "m/layer-1": layer @ rng.standard_normal((8, 20)), "m/layer-2": layer @ rng.standard_normal((8, 20)),
        "rate": np.hstack([common, other]), "sound": draw(3), "duration": draw(1),
    }  # fmt: skip
    return arrays_design(X, y.astype(np.float32), run)


def bands(layers=("m/layer-1",) * RUNS, **controls):
    return {"m": [(one,) for one in layers], **{k: [v] * RUNS for k, v in controls.items()}}


TWO = {"rate": ("rate",), "sound": ("sound",)}


def test_the_sets_are_all_each_and_all_without_each():
    assert band_subsets(["m", "a", "b"]) == [
        ("m", "a", "b"), ("m",), ("a",), ("b",), ("a", "b"), ("m", "b"), ("m", "a"),
    ]  # fmt: skip


def test_with_one_layer_in_every_fold_it_is_the_partition_of_that_layer(planted_subject):
    shares = partition_subject(planted_subject, "m", bands(rate=("rate",)), TRAINING, n_band_weights=8)
    same = replace(
        planted_subject, X={"m": planted_subject.X["m/layer-1"], "rate": planted_subject.X["rate"]}
    )
    other = partition(same, "m", ["rate"], TRAINING, np.random.default_rng([0, 2]), 8)
    np.testing.assert_allclose(shares.pooled.joint, other.joint, atol=1e-6)
    np.testing.assert_allclose(shares.pooled.unique, other.unique, atol=1e-6)
    alone = score(fit(planted_subject, "m/layer-1", TRAINING))
    np.testing.assert_allclose(shares.pooled.alone[0], alone.r2, atol=1e-5)
    for i, run in enumerate(alone.runs):
        np.testing.assert_allclose(shares.by_run[run].alone[0], alone.r2_by_run[i], atol=1e-5)


def test_unique_variance_at_chosen_layers_is_found_where_it_was_planted_and_nowhere_else(planted_subject):
    shares = partition_subject(planted_subject, "m", bands(**TWO), TRAINING, n_band_weights=12)
    unique, omega = shares.pooled.unique, shares.pooled.omega
    assert unique[0, MODEL_PART].min() > 0.05
    assert abs(unique[0, SHARED_PART].mean()) < 0.03
    assert abs(unique[0, SILENT_PART].mean()) < 0.03
    assert np.abs(unique[2]).mean() < 0.03
    assert omega[MODEL_PART].mean() < 20 < 80 < np.nanmean(omega[SHARED_PART])


def test_every_fold_is_fitted_with_its_own_layer(planted_subject):
    layers = ("m/layer-1", "m/layer-2", "m/layer-0", "m/layer-1", "m/layer-0")
    mixed = partition_subject(planted_subject, "m", bands(layers, **TWO), TRAINING, n_band_weights=6)
    for name in set(layers):
        one = partition_subject(
            planted_subject, "m", bands((name,) * RUNS, **TWO), TRAINING, n_band_weights=6
        )
        for k, layer in enumerate(layers):
            if layer == name:
                np.testing.assert_allclose(
                    mixed.by_run[f"run-{k}"].joint, one.by_run[f"run-{k}"].joint, atol=1e-6
                )
                np.testing.assert_allclose(
                    mixed.by_run[f"run-{k}"].without, one.by_run[f"run-{k}"].without, atol=1e-6
                )
    # the layer that carries nothing spoils the runs it was chosen for, and those only
    good, bad = (
        mixed.by_run["run-0"].unique[0, MODEL_PART].mean(),
        mixed.by_run["run-2"].unique[0, MODEL_PART].mean(),
    )
    assert good > 0.05 > bad


def test_spaces_of_one_band_share_a_penalty_like_one_space(planted_subject):
    two = partition_subject(planted_subject, "m", bands(both=("rate", "sound")), TRAINING, n_band_weights=6)
    X = {**planted_subject.X, "both": np.hstack([planted_subject.X["rate"], planted_subject.X["sound"]])}
    one = partition_subject(
        replace(planted_subject, X=X), "m", bands(both=("both",)), TRAINING, n_band_weights=6
    )
    np.testing.assert_allclose(two.pooled.unique, one.pooled.unique, atol=1e-7)


def test_what_is_in_a_band_is_not_taken_off_as_a_confound_and_the_rest_is(planted_subject):
    protocol = replace(TRAINING, confounds=("duration", "rate"))
    kept = partition_subject(planted_subject, "m", bands(rate=("rate",)), protocol, n_band_weights=6)
    plain = partition_subject(
        planted_subject,
        "m",
        bands(rate=("rate",)),
        replace(TRAINING, confounds=("duration",)),
        n_band_weights=6,
    )
    np.testing.assert_array_equal(kept.pooled.joint, plain.pooled.joint)
    none = partition_subject(planted_subject, "m", bands(rate=("rate",)), TRAINING, n_band_weights=6)
    assert np.abs(none.pooled.joint - plain.pooled.joint).max() > 1e-6


def test_only_the_targets_inside_are_fitted(planted_subject):
    inside = np.zeros(30, dtype=bool)
    inside[[3, 12, 25]] = True
    some = partition_subject(planted_subject, "m", bands(**TWO), TRAINING, n_band_weights=6, targets=inside)
    whole = partition_subject(planted_subject, "m", bands(**TWO), TRAINING, n_band_weights=6)
    np.testing.assert_allclose(some.pooled.unique[:, inside], whole.pooled.unique[:, inside], atol=1e-6)
    assert np.isnan(some.pooled.joint[~inside]).all()
    assert some.pooled.unique.shape == (3, 30)


def test_an_undefined_target_is_nan_and_touches_no_other(planted_subject):
    y = np.array(planted_subject.Y[0.0])
    y[:, 4], y[7, 5] = 2.5, np.nan
    holed = replace(planted_subject, Y={0.0: y})
    parts = partition_subject(holed, "m", bands(**TWO), TRAINING, n_band_weights=6)
    whole = partition_subject(planted_subject, "m", bands(**TWO), TRAINING, n_band_weights=6)
    assert np.isnan(parts.pooled.unique[:, 4:6]).all()
    rest = np.r_[0:4, 6:30]
    np.testing.assert_allclose(parts.pooled.unique[:, rest], whole.pooled.unique[:, rest], atol=1e-6)


def test_an_interrupted_partition_goes_on_where_it_stopped(planted_subject, tmp_path, monkeypatch):
    from langcortex.encoding import variance_partition as unique

    store, real, calls = Store(tmp_path), unique.fit_bands, []
    ask = {"n_band_weights": 6, "store": store, "y_digest": "y"}
    layers = ("m/layer-1", "m/layer-2", "m/layer-1", "m/layer-1", "m/layer-1")

    def stops(*args, **kwargs):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(args[1])
        return real(*args, **kwargs)

    monkeypatch.setattr(unique, "fit_bands", stops)
    with pytest.raises(KeyboardInterrupt):
        partition_subject(planted_subject, "m", bands(layers, **TWO), TRAINING, **ask)
    monkeypatch.setattr(unique, "fit_bands", lambda *a, **k: (calls.append(a[1]), real(*a, **k))[1])
    done = []
    first = partition_subject(
        planted_subject, "m", bands(layers, **TWO), TRAINING, **ask, progress=lambda i, n: done.append((i, n))
    )
    # two layers: the sets with the model are fitted twice, the others once
    assert len(calls) == 4 * 2 + 3
    assert done == [(i, 7) for i in range(1, 8)]
    again = partition_subject(planted_subject, "m", bands(layers, **TWO), TRAINING, **ask)
    assert len(calls) == 11
    fresh = partition_subject(planted_subject, "m", bands(layers, **TWO), TRAINING, n_band_weights=6)
    for one in (first, again):
        np.testing.assert_allclose(one.pooled.unique, fresh.pooled.unique, atol=1e-6)
    for other in ({"n_band_weights": 7}, {"seed": 1}, {"y_digest": "z"}):
        before = len(calls)
        partition_subject(planted_subject, "m", bands(layers, **TWO), TRAINING, **{**ask, **other})
        assert len(calls) > before


def test_a_kept_fit_serves_only_the_folds_it_was_made_for(planted_subject, tmp_path):
    ask = {"n_band_weights": 6, "store": Store(tmp_path), "y_digest": "y"}
    first = ("m/layer-1", "m/layer-2", "m/layer-1", "m/layer-1", "m/layer-1")
    other = ("m/layer-1", "m/layer-1", "m/layer-1", "m/layer-2", "m/layer-1")
    partition_subject(planted_subject, "m", bands(first, rate=("rate",)), TRAINING, **ask)
    parts = partition_subject(planted_subject, "m", bands(other, rate=("rate",)), TRAINING, **ask)
    fresh = partition_subject(planted_subject, "m", bands(other, rate=("rate",)), TRAINING, n_band_weights=6)
    np.testing.assert_allclose(parts.pooled.joint, fresh.pooled.joint, atol=1e-6)


def test_what_cannot_be_partitioned_is_said(planted_subject):
    with pytest.raises(FitError, match="needs a model and at least one band of controls"):
        partition_subject(planted_subject, "m", bands(), TRAINING)
    with pytest.raises(FitError, match="'m' must name feature spaces for each of the 5 outer folds"):
        partition_subject(planted_subject, "m", {**bands(**TWO), "m": [("m/layer-1",)]}, TRAINING)
    with pytest.raises(
        FitError, match="'duration' is a confound and the name of a band that does not contain it"
    ):
        partition_subject(
            planted_subject, "m", bands(duration=("rate",)), replace(TRAINING, confounds=("duration",))
        )
    with pytest.raises(FitError, match="No target is in the region"):
        partition_subject(planted_subject, "m", bands(**TWO), TRAINING, targets=np.zeros(30, dtype=bool))


def test_every_band_is_prepared_once_for_all_sets(planted_subject, monkeypatch):
    """Seven sets of three bands: without a cache a band is prepared in four of them."""
    from langcortex.encoding import joint as nested

    real, made = nested.make_band, []
    monkeypatch.setattr(nested, "make_band", lambda *a: (made.append(len(a[1])), real(*a))[1])
    cached = partition_subject(planted_subject, "m", bands(**TWO), TRAINING, n_band_weights=6)
    # ten pairs of runs are left out by two outer folds each, five single runs by one
    assert len(made) == 3 * (10 + 5)
    monkeypatch.setattr(nested.PreparedCache, "get", lambda self, key, make: make())
    made.clear()
    without = partition_subject(planted_subject, "m", bands(**TWO), TRAINING, n_band_weights=6)
    assert len(made) == 4 * 3 * (10 + 5)
    np.testing.assert_array_equal(cached.pooled.unique, without.pooled.unique)
