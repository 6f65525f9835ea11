"""Unique variance in studies: the layer may change from fold to fold, the truth is found, and kept fits come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from langcortex.encoding import fit, score
from langcortex.errors import FitError
from langcortex.partition import partition
from langcortex.protocol import Protocol
from langcortex.store import Store
from langcortex.unique import partition_subject, sets_of

N, RUNS = 60, 5
OWN, SHARED, SILENT = slice(0, 10), slice(10, 20), slice(20, 30)
TRAINING = Protocol(penalties=(0.1, 1.0, 10.0, 1000.0))


@pytest.fixture
def planted(rng, arrays_design, autocorrelated):
    """Targets follow the model's own part (0–9), the part it shares with "rate" (10–19), or nothing (20–29)."""
    run = np.repeat([f"run-{i}" for i in range(RUNS)], N)
    draw = lambda k: np.concatenate([autocorrelated(rng, N, k, 0.4) for _ in range(RUNS)])  # noqa: E731
    own, common, other = draw(4), draw(4), draw(4)
    y = np.concatenate([autocorrelated(rng, N, 30, 0.6) for _ in range(RUNS)])
    y[:, OWN] += own @ rng.standard_normal((4, 10)) / 2
    y[:, SHARED] += common @ rng.standard_normal((4, 10)) / 2
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
    assert sets_of(["m", "a", "b"]) == [
        ("m", "a", "b"), ("m",), ("a",), ("b",), ("a", "b"), ("m", "b"), ("m", "a"),
    ]  # fmt: skip


def test_with_one_layer_in_every_fold_it_is_the_partition_of_that_layer(planted):
    shares = partition_subject(planted, "m", bands(rate=("rate",)), TRAINING, n_gammas=8)
    same = replace(planted, X={"m": planted.X["m/layer-1"], "rate": planted.X["rate"]})
    other = partition(same, "m", ["rate"], TRAINING, np.random.default_rng([0, 2]), 8)
    np.testing.assert_allclose(shares.whole.joint, other.joint, atol=1e-6)
    np.testing.assert_allclose(shares.whole.unique, other.unique, atol=1e-6)
    alone = score(fit(planted, "m/layer-1", TRAINING))
    np.testing.assert_allclose(shares.whole.alone[0], alone.r2, atol=1e-5)
    for i, run in enumerate(alone.runs):
        np.testing.assert_allclose(shares.by_run[run].alone[0], alone.r2_by_run[i], atol=1e-5)


def test_unique_variance_is_found_where_it_was_planted_and_nowhere_else(planted):
    shares = partition_subject(planted, "m", bands(**TWO), TRAINING, n_gammas=12)
    unique, omega = shares.whole.unique, shares.whole.omega
    assert unique[0, OWN].min() > 0.05
    assert abs(unique[0, SHARED].mean()) < 0.03
    assert abs(unique[0, SILENT].mean()) < 0.03
    assert np.abs(unique[2]).mean() < 0.03
    assert omega[OWN].mean() < 20 < 80 < np.nanmean(omega[SHARED])


def test_every_fold_is_fitted_with_its_own_layer(planted):
    layers = ("m/layer-1", "m/layer-2", "m/layer-0", "m/layer-1", "m/layer-0")
    mixed = partition_subject(planted, "m", bands(layers, **TWO), TRAINING, n_gammas=6)
    for name in set(layers):
        one = partition_subject(planted, "m", bands((name,) * RUNS, **TWO), TRAINING, n_gammas=6)
        for k, layer in enumerate(layers):
            if layer == name:
                np.testing.assert_allclose(
                    mixed.by_run[f"run-{k}"].joint, one.by_run[f"run-{k}"].joint, atol=1e-6
                )
                np.testing.assert_allclose(
                    mixed.by_run[f"run-{k}"].without, one.by_run[f"run-{k}"].without, atol=1e-6
                )
    # the layer that carries nothing spoils the runs it was chosen for, and those only
    good, bad = mixed.by_run["run-0"].unique[0, OWN].mean(), mixed.by_run["run-2"].unique[0, OWN].mean()
    assert good > 0.05 > bad


def test_spaces_of_one_band_share_a_penalty_like_one_space(planted):
    two = partition_subject(planted, "m", bands(both=("rate", "sound")), TRAINING, n_gammas=6)
    X = {**planted.X, "both": np.hstack([planted.X["rate"], planted.X["sound"]])}
    one = partition_subject(replace(planted, X=X), "m", bands(both=("both",)), TRAINING, n_gammas=6)
    np.testing.assert_allclose(two.whole.unique, one.whole.unique, atol=1e-7)


def test_what_is_in_a_band_is_not_taken_off_as_a_confound_and_the_rest_is(planted):
    protocol = replace(TRAINING, confounds=("duration", "rate"))
    kept = partition_subject(planted, "m", bands(rate=("rate",)), protocol, n_gammas=6)
    plain = partition_subject(
        planted, "m", bands(rate=("rate",)), replace(TRAINING, confounds=("duration",)), n_gammas=6
    )
    np.testing.assert_array_equal(kept.whole.joint, plain.whole.joint)
    none = partition_subject(planted, "m", bands(rate=("rate",)), TRAINING, n_gammas=6)
    assert np.abs(none.whole.joint - plain.whole.joint).max() > 1e-6


def test_only_the_targets_inside_are_fitted(planted):
    inside = np.zeros(30, dtype=bool)
    inside[[3, 12, 25]] = True
    some = partition_subject(planted, "m", bands(**TWO), TRAINING, n_gammas=6, inside=inside)
    whole = partition_subject(planted, "m", bands(**TWO), TRAINING, n_gammas=6)
    np.testing.assert_allclose(some.whole.unique[:, inside], whole.whole.unique[:, inside], atol=1e-6)
    assert np.isnan(some.whole.joint[~inside]).all()
    assert some.whole.unique.shape == (3, 30)


def test_an_undefined_target_is_nan_and_touches_no_other(planted):
    y = np.array(planted.Y[0.0])
    y[:, 4], y[7, 5] = 2.5, np.nan
    holed = replace(planted, Y={0.0: y})
    found = partition_subject(holed, "m", bands(**TWO), TRAINING, n_gammas=6)
    whole = partition_subject(planted, "m", bands(**TWO), TRAINING, n_gammas=6)
    assert np.isnan(found.whole.unique[:, 4:6]).all()
    rest = np.r_[0:4, 6:30]
    np.testing.assert_allclose(found.whole.unique[:, rest], whole.whole.unique[:, rest], atol=1e-6)


def test_an_interrupted_partition_goes_on_where_it_stopped(planted, tmp_path, monkeypatch):
    from langcortex import unique

    store, real, calls = Store(tmp_path), unique.fit_bands, []
    ask = {"n_gammas": 6, "kept": store, "y_digest": "y"}
    layers = ("m/layer-1", "m/layer-2", "m/layer-1", "m/layer-1", "m/layer-1")

    def stops(*args, **kwargs):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(args[1])
        return real(*args, **kwargs)

    monkeypatch.setattr(unique, "fit_bands", stops)
    with pytest.raises(KeyboardInterrupt):
        partition_subject(planted, "m", bands(layers, **TWO), TRAINING, **ask)
    monkeypatch.setattr(unique, "fit_bands", lambda *a, **k: (calls.append(a[1]), real(*a, **k))[1])
    done = []
    first = partition_subject(
        planted, "m", bands(layers, **TWO), TRAINING, **ask, tell=lambda i, n: done.append((i, n))
    )
    # two layers: the sets with the model are fitted twice, the others once
    assert len(calls) == 4 * 2 + 3
    assert done == [(i, 7) for i in range(1, 8)]
    again = partition_subject(planted, "m", bands(layers, **TWO), TRAINING, **ask)
    assert len(calls) == 11
    fresh = partition_subject(planted, "m", bands(layers, **TWO), TRAINING, n_gammas=6)
    for one in (first, again):
        np.testing.assert_allclose(one.whole.unique, fresh.whole.unique, atol=1e-6)
    for other in ({"n_gammas": 7}, {"seed": 1}, {"y_digest": "z"}):
        before = len(calls)
        partition_subject(planted, "m", bands(layers, **TWO), TRAINING, **{**ask, **other})
        assert len(calls) > before


def test_a_kept_fit_serves_only_the_folds_it_was_made_for(planted, tmp_path):
    ask = {"n_gammas": 6, "kept": Store(tmp_path), "y_digest": "y"}
    first = ("m/layer-1", "m/layer-2", "m/layer-1", "m/layer-1", "m/layer-1")
    other = ("m/layer-1", "m/layer-1", "m/layer-1", "m/layer-2", "m/layer-1")
    partition_subject(planted, "m", bands(first, rate=("rate",)), TRAINING, **ask)
    found = partition_subject(planted, "m", bands(other, rate=("rate",)), TRAINING, **ask)
    fresh = partition_subject(planted, "m", bands(other, rate=("rate",)), TRAINING, n_gammas=6)
    np.testing.assert_allclose(found.whole.joint, fresh.whole.joint, atol=1e-6)


def test_what_cannot_be_partitioned_is_said(planted):
    with pytest.raises(FitError, match="needs a model and at least one band of controls"):
        partition_subject(planted, "m", bands(), TRAINING)
    with pytest.raises(FitError, match="'m' must name feature spaces for each of the 5 outer folds"):
        partition_subject(planted, "m", {**bands(**TWO), "m": [("m/layer-1",)]}, TRAINING)
    with pytest.raises(
        FitError, match="'duration' is a confound and the name of a band that does not hold it"
    ):
        partition_subject(planted, "m", bands(duration=("rate",)), replace(TRAINING, confounds=("duration",)))
    with pytest.raises(FitError, match="No target lies in the region"):
        partition_subject(planted, "m", bands(**TWO), TRAINING, inside=np.zeros(30, dtype=bool))


def test_every_band_is_prepared_once_for_all_sets(planted, monkeypatch):
    """Seven sets of three bands: without a memory a band is prepared in four of them."""
    from langcortex import nested

    real, made = nested.make_band, []
    monkeypatch.setattr(nested, "make_band", lambda *a: (made.append(len(a[1])), real(*a))[1])
    with_memo = partition_subject(planted, "m", bands(**TWO), TRAINING, n_gammas=6)
    # ten pairs of runs are left out by two outer folds each, five single runs by one
    assert len(made) == 3 * (10 + 5)
    monkeypatch.setattr(nested.Memo, "get", lambda self, key, make: make())
    made.clear()
    without = partition_subject(planted, "m", bands(**TWO), TRAINING, n_gammas=6)
    assert len(made) == 4 * 3 * (10 + 5)
    np.testing.assert_array_equal(with_memo.whole.unique, without.whole.unique)


def test_a_memory_forgets_the_oldest_when_it_is_full():
    from langcortex.mixture import make_band
    from langcortex.nested import Memo

    memo, made = Memo(max_bytes=2 * 80), []

    def make(name):
        return lambda: (made.append(name), make_band(np.ones(1), np.ones((10, 1)), False))[1]

    for name in ("a", "b", "a", "c", "a"):
        memo.get(name, make(name))
    assert made == ["a", "b", "c", "a"]
