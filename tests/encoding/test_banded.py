"""Banded ridge: one band is fit(), more are himalaya and scikit-learn, and each band gets the penalty it needs."""

from dataclasses import replace

import numpy as np
import pytest
from himalaya.backend import set_backend
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from himalaya.ridge import GroupRidgeCV
from himalaya.scoring import r2_score_split
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

import langcortex.encoding.joint
from langcortex.arrays import pearson
from langcortex.encoding.banded import fit_bands
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.encoding.selection import choose_delays
from langcortex.errors import FitError
from langcortex.ridge.multikernel import (
    Band,
    BandSet,
    PenaltyScorer,
    draw_band_weights,
    held_out_responses,
    predict_bands,
    product_measure,
)
from reference.partition import split_scores

GRID = (0.3, 10.0, 100.0, 1000.0, 30000.0)
ABSOLUTE = Protocol(relative=False, penalties=GRID)
FIELDS = ("r", "sse", "sst", "inner", "predicted", "observed")


def _data(rng, widths=(8, 5), lengths=(16, 14, 18, 15), n_targets=6, dtype=np.float32, noise=1.0):
    """Bands of these widths; target j follows all of them, the more the later it comes."""
    run = np.repeat([f"run-{i}" for i in range(len(lengths))], lengths)
    bands, y = {}, 5.0 + noise * rng.standard_normal((len(run), n_targets))
    for i, p in enumerate(widths):
        x = rng.standard_normal((len(run), p)) @ (rng.standard_normal((p, p)) * np.logspace(0.5, -1, p))
        bands[f"band-{i}"] = x + 3.0
        y += np.linspace(0, 1.5, n_targets) * (x @ rng.standard_normal((p, n_targets))) / np.sqrt(p)
    return bands, y.astype(dtype), run


def _rng():
    return np.random.default_rng(7)


# One band is fit()


@pytest.mark.parametrize(
    ("change", "p", "dtype"),
    [
        ({}, 8, np.float64),
        ({}, 8, np.float32),
        ({}, 90, np.float32),
        ({"choose_by": "r"}, 8, np.float32),
        ({"choose_by": "r"}, 90, np.float64),
        ({"pca": 4}, 8, np.float32),
        ({"standardise": "none"}, 8, np.float32),
        ({"standardise": "run"}, 90, np.float32),
        ({"relative": False, "penalties": GRID}, 8, np.float32),
        ({"penalties": (0.5,)}, 8, np.float32),
        ({"confounds": ("c",)}, 8, np.float32),
        ({"folds": 2, "inner": 2}, 8, np.float32),
        ({"test_runs": ("run-1",)}, 8, np.float32),
    ],
)
def test_one_band_is_what_fit_gives(rng, arrays_design, change, p, dtype):
    bands, y, run = _data(rng, (p,), dtype=dtype)
    design = arrays_design(bands | {"c": rng.standard_normal((len(run), 2))}, y, run)
    protocol = replace(Protocol(), **change)
    expected = fit(design, "band-0", protocol, keep_predictions=True)
    banded = fit_bands(design, ["band-0"], protocol, _rng(), keep_predictions=True)
    np.testing.assert_array_equal(banded.encoding.penalty, expected.penalty)
    np.testing.assert_array_equal(banded.penalty[0], expected.penalty)
    np.testing.assert_array_equal(banded.encoding.segments, expected.segments)
    np.testing.assert_array_equal(banded.encoding.row_segment, expected.row_segment)
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(banded.encoding, name), getattr(expected, name), rtol=1e-4, atol=2e-5, err_msg=name
        )
    np.testing.assert_allclose(score(banded.encoding).r, score(expected).r, atol=1e-5)


def test_one_run_is_cut_into_blocks_with_a_gap_as_in_fit(rng, arrays_design):
    bands, y, run = _data(rng, (6,), lengths=(120,))
    design = arrays_design(bands, y, run)
    expected = fit(design, "band-0", Protocol(gap=2), keep_predictions=True)
    banded = fit_bands(design, ["band-0"], Protocol(gap=2), _rng(), keep_predictions=True).encoding
    assert list(banded.segments) == [f"run-0/block-{k}" for k in range(5)]
    for name in FIELDS:
        np.testing.assert_allclose(getattr(banded, name), getattr(expected, name), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("delay_by", ["fold", "target"])
def test_delays_are_those_that_were_chosen(rng, arrays_design, delay_by):
    bands, y, run = _data(rng, (6,), lengths=(40, 40, 40))
    shifted = {4.0: y, 6.0: np.roll(y, 1, axis=0), 8.0: rng.standard_normal(y.shape).astype(np.float32)}
    shifted[6.0][:, :3] = y[:, :3]
    shifted[4.0] = np.where(np.arange(6) < 3, np.roll(y, 2, axis=0), y).astype(np.float32)
    design, protocol = arrays_design(bands, shifted, run), Protocol(delay_by=delay_by)
    delays = choose_delays(design, ["band-0"], protocol)
    assert delay_by == "fold" or len(np.unique(delays)) > 1
    expected = fit(design, "band-0", protocol, delays, keep_predictions=True)
    banded = fit_bands(design, ["band-0"], protocol, _rng(), delays=delays, keep_predictions=True).encoding
    np.testing.assert_array_equal(banded.delay, expected.delay)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(banded, name), getattr(expected, name), rtol=1e-4, atol=2e-5)


def test_a_slab_of_targets_at_a_time_changes_nothing(rng, arrays_design, monkeypatch):
    bands, y, run = _data(rng, (6, 3), n_targets=600)
    design = arrays_design(bands, y, run)
    whole = fit_bands(design, list(bands), Protocol(), _rng(), 6, keep_predictions=True)
    monkeypatch.setattr(langcortex.encoding.joint, "MEMORY", 1)
    apart = fit_bands(design, list(bands), Protocol(), _rng(), 6, keep_predictions=True)
    np.testing.assert_array_equal(whole.penalty, apart.penalty)
    np.testing.assert_allclose(whole.encoding.predicted, apart.encoding.predicted, atol=1e-5)


# Several bands are himalaya's and scikit-learn's


def _by_hand(bands, y, run, protocol, gammas, confounds=None):
    """Written out with scikit-learn: scale, take off confounds, weight the bands, nested choice."""
    names = list(dict.fromkeys(run))
    y, c = y.astype(float), np.zeros((len(run), 1)) if confounds is None else confounds

    def once(train, test, gamma, alpha):
        parts = []
        for g, x in zip(gamma, bands.values(), strict=True):
            z = StandardScaler(with_std=protocol.standardise == "training").fit(x[train]).transform(x)
            z = z - LinearRegression().fit(c[train], z[train]).predict(c)
            size = np.linalg.svd(z[train])[1]
            unit = np.mean(size[size > 1e-6 * size[0]] ** 2) if protocol.relative else 1.0
            parts.append(np.sqrt(g / unit) * z)
        clean = y - LinearRegression().fit(c[train], y[train]).predict(c)
        joint = np.hstack(parts)
        model = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(joint[train], clean[train])
        return model.predict(joint[test]), clean[test]

    predicted, penalty = np.full(y.shape, np.nan), np.full((len(bands), len(names), y.shape[1]), np.nan)
    best = np.full((len(names), y.shape[1]), np.nan)
    for k, outer in enumerate(names):
        train, test = np.flatnonzero(run != outer), np.flatnonzero(run == outer)
        pairs = [(g, a) for g in gammas for a in sorted(protocol.penalties, reverse=True)]
        curve = np.zeros((len(pairs), y.shape[1]))
        for i, (g, a) in enumerate(pairs):
            for held in dict.fromkeys(run[train]):
                p, t = once(train[run[train] != held], train[run[train] == held], g, a)
                r2 = 1 - np.sum((t - p) ** 2, axis=0) / np.sum(t**2, axis=0)
                curve[i] += (pearson(t, p) if protocol.choose_by == "r" else r2) / (len(names) - 1)
        chosen = np.argmax(curve, axis=0)
        best[k] = curve.max(axis=0)
        for j, i in enumerate(chosen):
            g, a = pairs[i]
            predicted[test, j] = once(train, test, g, a)[0][:, j]
            with np.errstate(divide="ignore"):
                penalty[:, k, j] = a / g
    return penalty, predicted, best


@pytest.mark.parametrize(
    ("widths", "change"),
    [
        ((8, 5), {}),
        ((60, 70), {"relative": True}),
        ((60, 70), {"choose_by": "r"}),
        ((2, 40, 3), {"choose_by": "r", "relative": True}),
        ((1, 30, 3), {"standardise": "none"}),
    ],
)
def test_penalties_and_predictions_are_those_of_a_plain_double_loop(rng, arrays_design, widths, change):
    bands, y, run = _data(rng, widths, lengths=(16, 14, 18), n_targets=4, dtype=np.float64)
    confounds = rng.standard_normal((len(run), 2))
    protocol = replace(ABSOLUTE, penalties=(0.1, 10.0, 300.0), confounds=("c",), **change)
    gammas = draw_band_weights(len(widths), 6, rng, (1.0,))  # no two alike, so there are no ties
    penalty, predicted, best = _by_hand(bands, y, run, protocol, gammas, confounds)
    design = arrays_design(bands | {"c": confounds}, y, run)
    banded = fit_bands(design, list(bands), protocol, _rng(), band_weights=gammas, keep_predictions=True)
    np.testing.assert_allclose(banded.encoding.inner, best, atol=1e-8)
    np.testing.assert_allclose(banded.penalty, penalty)
    np.testing.assert_allclose(banded.encoding.predicted, predicted, atol=1e-6)
    assert len(np.unique(penalty)) > 3  # the choice was a choice


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("widths", [(8, 5), (60, 70, 3)])
def test_himalaya_agrees_at_equal_weights_and_penalty(rng, arrays_design, widths, dtype):
    """Both of himalaya's random searches, given one γ and one α: predictions to 1e-6, r to 1e-5."""
    set_backend("numpy")
    bands, y, run = _data(rng, widths, dtype=dtype)
    gamma = rng.dirichlet(np.ones(len(widths)))[None]
    protocol = Protocol(relative=False, penalties=(40.0,), standardise="none")
    banded = fit_bands(
        arrays_design(bands, y, run), list(bands), protocol, _rng(), band_weights=gamma, keep_predictions=True
    ).encoding
    y = y.astype(float)
    for i, name in enumerate(dict.fromkeys(run)):
        train, test = run != name, run == name
        x, x_new = ([v[rows] - v[train].mean(axis=0) for v in bands.values()] for rows in (train, test))
        split = PredefinedSplit(np.where(np.arange(train.sum()) < 9, 0, -1))
        options = {"n_iter": gamma, "alphas": np.array([40.0]), "progress_bar": False}
        kernels, mean = np.stack([v @ v.T for v in x]), y[train].mean(axis=0)
        kernel = MultipleKernelRidgeCV(
            kernels="precomputed", solver="random_search", solver_params=options, cv=split
        ).fit(kernels, y[train] - mean)
        group = GroupRidgeCV(
            groups=np.repeat(np.arange(len(widths)), widths), solver="random_search", solver_params=options | {"warn": False},
            cv=split, fit_intercept=False,
        ).fit(np.hstack(x), y[train] - mean)  # fmt: skip
        for theirs in (
            kernel.predict(np.stack([a @ b.T for a, b in zip(x_new, x, strict=True)])),
            group.predict(np.hstack(x_new)),
        ):
            close = 1e-6 if dtype is np.float64 else 2e-5
            np.testing.assert_allclose(banded.predicted[test], theirs, atol=max(close, 1e-6), rtol=1e-5)
            np.testing.assert_allclose(banded.r[i], pearson(y[test], theirs), atol=1e-5)


def test_the_split_adds_up_to_r2_and_is_himalayas(rng, arrays_design):
    set_backend("numpy")
    bands, y, run = _data(rng, (8, 5, 30))
    banded = fit_bands(arrays_design(bands, y, run), list(bands), Protocol(), _rng(), 20)
    split = split_scores(banded)
    assert split.shape == (3, 6)
    np.testing.assert_allclose(split.sum(axis=0), score(banded.encoding).r2, atol=1e-5)
    np.testing.assert_allclose(
        banded.product_measure.sum(axis=0), banded.encoding.sst - banded.encoding.sse, rtol=1e-4, atol=1e-3
    )
    p, t = rng.standard_normal((3, 40, 5)), rng.standard_normal((40, 5))
    t -= t.mean(axis=0)
    np.testing.assert_allclose(product_measure(t, p) / np.sum(t**2, axis=0), r2_score_split(t, p))


# What it is for


def test_each_band_gets_the_penalty_it_needs(rng, arrays_design):
    """A target of band-1 alone shrinks band-0 away, and is predicted better than with one penalty for both."""
    run = np.repeat([f"run-{i}" for i in range(5)], 40)
    wide, narrow = rng.standard_normal((200, 150)), rng.standard_normal((200, 4))
    y = np.hstack([narrow @ rng.standard_normal((4, 20)), rng.standard_normal((200, 20))])
    y = (y + rng.standard_normal(y.shape)).astype(np.float32)
    design = arrays_design({"wide": wide, "narrow": narrow, "both": np.hstack([wide, narrow])}, y, run)
    banded = fit_bands(design, ["wide", "narrow"], Protocol(), _rng(), 30)
    r2, one_penalty = score(banded.encoding).r2, score(fit(design, "both", Protocol())).r2
    alone = score(fit(design, "narrow", Protocol())).r2
    assert (r2[:20] > one_penalty[:20] + 0.1).all()
    np.testing.assert_allclose(r2[:20], alone[:20], atol=0.05)
    assert np.median(banded.penalty[0][:, :20] / banded.penalty[1][:, :20]) > 10
    wide_share, narrow_share = split_scores(banded)
    assert (narrow_share[:20] > 0.4).all()
    assert np.abs(wide_share[:20]).max() < 0.06
    assert np.median(r2[20:]) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("standardise", ["training", "none", "run"])
def test_the_size_of_a_band_changes_nothing(rng, arrays_design, standardise):
    bands, y, run = _data(rng, (8, 70))
    protocol = Protocol(standardise=standardise)
    one = fit_bands(arrays_design(bands, y, run), list(bands), protocol, _rng(), 8, keep_predictions=True)
    other = bands | {"band-1": 1e4 * bands["band-1"]}
    two = fit_bands(arrays_design(other, y, run), list(bands), protocol, _rng(), 8, keep_predictions=True)
    np.testing.assert_array_equal(one.penalty, two.penalty)
    np.testing.assert_allclose(one.encoding.predicted, two.encoding.predicted, atol=1e-5)


def test_the_order_of_bands_changes_nothing_when_their_weights_follow(rng, arrays_design):
    bands, y, run = _data(rng, (8, 5, 3))
    design, gammas = arrays_design(bands, y, run), draw_band_weights(3, 10, rng)
    names = list(bands)
    one = fit_bands(design, names, Protocol(), _rng(), band_weights=gammas)
    two = fit_bands(design, names[::-1], Protocol(), _rng(), band_weights=gammas[:, ::-1])
    np.testing.assert_allclose(one.penalty, two.penalty[::-1])
    np.testing.assert_allclose(split_scores(one), split_scores(two)[::-1], atol=1e-5)


def test_held_out_responses_take_no_part_in_any_choice(rng, arrays_design):
    bands, y, run = _data(rng, (8, 5))
    changed = y.copy()
    changed[run == "run-2"] = 100.0 * rng.standard_normal(changed[run == "run-2"].shape)
    one, two = (
        fit_bands(arrays_design(bands, v, run), list(bands), Protocol(), _rng(), 8, keep_predictions=True)
        for v in (y, changed)
    )
    np.testing.assert_array_equal(one.penalty[:, 2], two.penalty[:, 2])
    here = run == "run-2"
    np.testing.assert_allclose(one.encoding.predicted[here], two.encoding.predicted[here], atol=1e-4)


def test_an_equal_generator_gives_an_equal_result(rng, arrays_design):
    bands, y, run = _data(rng, (8, 5))
    design = arrays_design(bands, y, run)
    one, two = (fit_bands(design, list(bands), Protocol(), _rng(), 12) for _ in range(2))
    np.testing.assert_array_equal(one.encoding.sse, two.encoding.sse)
    np.testing.assert_array_equal(one.product_measure, two.product_measure)


def test_pca_is_of_each_band_and_learnt_on_training_rows(rng, arrays_design):
    bands, y, run = _data(rng, (30, 20))
    design = arrays_design(bands, y, run)
    by_name = fit_bands(
        design, list(bands), Protocol(), _rng(), 6, pca={"band-0": 4, "band-1": None}, keep_predictions=True
    )
    whole = fit_bands(design, list(bands), Protocol(), _rng(), 6, keep_predictions=True)
    both = fit_bands(
        design, list(bands), Protocol(pca=4), _rng(), 6, pca={"band-1": None}, keep_predictions=True
    )
    np.testing.assert_array_equal(by_name.encoding.predicted, both.encoding.predicted)
    assert np.abs(by_name.encoding.predicted - whole.encoding.predicted).max() > 1e-2
    alone = np.array([[1.0, 0.0]])
    banded = fit_bands(
        design, list(bands), Protocol(), _rng(), band_weights=alone, pca={"band-0": 4}, keep_predictions=True
    )
    np.testing.assert_allclose(
        banded.encoding.predicted,
        fit(design, "band-0", Protocol(pca=4), keep_predictions=True).predicted,
        atol=1e-5,
    )


def test_a_band_that_is_a_confound_too_is_not_taken_off(rng, arrays_design):
    bands, y, run = _data(rng, (8, 5))
    design = arrays_design(bands, y, run)
    plain = fit_bands(design, list(bands), Protocol(), _rng(), 6)
    named = fit_bands(design, list(bands), Protocol(confounds=("band-1",)), _rng(), 6)
    np.testing.assert_array_equal(plain.encoding.r, named.encoding.r)


# Edges


@pytest.mark.parametrize("metric", ["r2", "r"])
def test_undefined_targets_score_nan_and_their_neighbours_do_not_notice(rng, arrays_design, metric):
    bands, y, run = _data(rng, (8, 5), n_targets=7)
    broken = y.copy()
    broken[:, 1], broken[4, 2], broken[:, 4] = np.nan, np.nan, 0.1
    broken[run == "run-2", 6] = 0.1
    protocol = Protocol(choose_by=metric)
    alone, banded = (
        fit_bands(arrays_design(bands, v, run), list(bands), protocol, _rng(), 8, keep_predictions=True)
        for v in (y, broken)
    )
    for name in ("r", "sse", "sst"):
        assert np.isnan(getattr(banded.encoding, name)[:, [1, 2, 4]]).all()
        assert np.isnan(getattr(banded.encoding, name)[:, 6]).tolist() == [False, False, True, False]
    keep = [0, 3, 5]
    np.testing.assert_array_equal(banded.penalty[..., keep], alone.penalty[..., keep])
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(banded.encoding, name)[:, keep],
            getattr(alone.encoding, name)[:, keep],
            atol=1e-4,
            rtol=1e-5,
        )
    undefined = [False, True, True, False, True, False, False]
    assert np.isnan(split_scores(banded)).all(axis=0).tolist() == undefined
    assert np.isnan(score(banded.encoding).r2).tolist() == undefined


def test_no_target_with_data_is_no_crash(rng, arrays_design):
    bands, y, run = _data(rng)
    banded = fit_bands(arrays_design(bands, np.full_like(y, np.nan), run), list(bands), Protocol(), _rng(), 4)
    assert np.isnan(score(banded.encoding).r2).all()
    assert np.isnan(split_scores(banded)).all()


@pytest.mark.parametrize("widths", [(1, 1), (1, 200), (200, 300)])
@pytest.mark.parametrize("penalties", [(1.0,), Protocol().penalties])
def test_one_column_more_features_than_rows_and_one_penalty_all_run(rng, arrays_design, widths, penalties):
    bands, y, run = _data(rng, widths, lengths=(12, 9, 10))
    banded = fit_bands(arrays_design(bands, y, run), list(bands), Protocol(penalties=penalties), _rng(), 5)
    assert np.isfinite(score(banded.encoding).r2).all()
    assert np.isfinite(banded.encoding.inner).all()


@pytest.mark.parametrize("values", [0.0, 0.1, 1e4])
@pytest.mark.parametrize("metric", ["r2", "r"])
def test_a_band_without_variance_is_as_if_it_were_not_there(rng, arrays_design, values, metric):
    bands, y, run = _data(rng, (8,))
    design = arrays_design(bands | {"still": np.full((len(run), 3), values)}, y, run)
    protocol = Protocol(choose_by=metric)
    gammas = np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    banded = fit_bands(
        design, ["band-0", "still"], protocol, _rng(), band_weights=gammas, keep_predictions=True
    )
    half = fit_bands(
        design, ["band-0"], protocol, _rng(), band_weights=np.array([[0.5], [1.0]]), keep_predictions=True
    )  # noise-free reference: the same weights, without the empty band
    np.testing.assert_allclose(banded.encoding.predicted, half.encoding.predicted, atol=1e-6)
    np.testing.assert_allclose(split_scores(banded)[1], 0.0, atol=1e-6)
    nothing = fit_bands(design, ["still"], protocol, _rng(), keep_predictions=True)
    np.testing.assert_allclose(nothing.encoding.predicted, 0.0)
    assert np.isnan(score(nothing.encoding).r).all()


@pytest.mark.parametrize("relative", [True, False])
def test_two_equal_bands_are_one(rng, arrays_design, relative):
    bands, y, run = _data(rng, (8,))
    design = arrays_design(bands | {"twin": bands["band-0"]}, y, run)
    protocol = Protocol(relative=relative)
    one = fit(design, "band-0", protocol, keep_predictions=True)
    two = fit_bands(design, ["band-0", "twin"], protocol, _rng(), 20, keep_predictions=True)
    # γ adds up to 1 over equal kernels, so every draw is the one kernel
    np.testing.assert_array_equal(two.encoding.penalty, one.penalty)
    np.testing.assert_allclose(two.encoding.predicted, one.predicted, atol=1e-4)


def test_weights_are_drawn_on_the_simplex_and_begin_with_the_known_ones(rng):
    gammas = draw_band_weights(3, 50, rng)
    assert gammas.shape == (50, 3)
    np.testing.assert_allclose(gammas.sum(axis=1), 1.0)
    assert (gammas >= 0).all()
    np.testing.assert_allclose(gammas[:4], np.vstack([np.full((1, 3), 1 / 3), np.eye(3)]))
    assert len(np.unique(gammas, axis=0)) == 50
    assert draw_band_weights(1, 50, rng).tolist() == [[1.0]]
    assert len(draw_band_weights(3, 1, rng)) == 4


@pytest.mark.parametrize(
    ("bands", "options", "message"),
    [
        (["band-0", "band-7"], {}, "feature space 'band-7' is not among the feature spaces: band-0, band-1"),
        (["band-0", "band-0"], {}, "'band-0' is named twice"),
        ([], {}, "at least one"),
        (
            ["band-0", "band-1"],
            {"band_weights": np.ones((4, 3))},
            r"shape \(4, 3\); pass \(n_band_weights, 2\)",
        ),
        (["band-0", "band-1"], {"band_weights": np.array([[1.0, -1.0]])}, "none below 0"),
        (["band-0", "band-1"], {"band_weights": np.zeros((1, 2))}, "not all 0"),
        (["band-0"], {"pca": {"band-1": 3}}, "pca names 'band-1'"),
        (["band-0"], {"pca": {"band-0": 0}}, "keep at least 1"),
    ],
)
def test_mistakes_are_named(rng, arrays_design, bands, options, message):
    x, y, run = _data(rng)
    with pytest.raises(FitError, match=message):
        fit_bands(arrays_design(x, y, run), bands, Protocol(), _rng(), **options)


def test_unknown_confounds_values_that_are_not_finite_and_open_delays_are_refused(rng, arrays_design):
    x, y, run = _data(rng)
    with pytest.raises(FitError, match="confound 'c' is not among"):
        fit_bands(arrays_design(x, y, run), list(x), Protocol(confounds=("c",)), _rng())
    with pytest.raises(FitError, match="2 candidate delays"):
        fit_bands(arrays_design(x, {4.0: y, 6.0: y}, run), list(x), Protocol(), _rng())
    x["band-1"][3, 0] = np.inf
    with pytest.raises(FitError, match="'band-1' has values that are not finite"):
        fit_bands(arrays_design(x, y, run), list(x), Protocol(), _rng())


# The arrays


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(lambda w: sum(w) > 0),
    n_train=st.integers(4, 25),
    n_held=st.integers(3, 12),
    size=st.floats(-3, 3),
    metric=st.sampled_from(["r2", "r"]),
    seed=st.integers(0, 10**6),
)
def test_scores_without_predictions_are_those_of_predictions(widths, n_train, n_held, size, metric, seed):
    """By axes, by kernels or by one matrix: the scores of every penalty are those of the predictions."""
    rng = np.random.default_rng(seed)
    train, held = np.arange(n_train), np.arange(n_train, n_train + n_held)
    made = []
    for p in widths:
        x = rng.standard_normal((n_train + n_held, p)) * 10**size
        x -= x[train].mean(axis=0)
        _, s, vt = np.linalg.svd(x[train], full_matrices=False)
        keep = s > 1e-9 * s.max(initial=1e-300)
        made.append(Band(x @ vt[keep].T / s[keep], s[keep]))
    gamma = rng.dirichlet(np.ones(len(widths)))
    alphas = np.array([100.0, 1.0, 0.01]) * 10 ** (2 * size)
    y = rng.standard_normal((n_train + n_held, 4))
    y -= y[train].mean(axis=0)
    bands = BandSet(made, train)
    mixture, product = bands.weight(gamma), bands.train_product(y[train])
    one = held_out_responses(y[held], metric)
    judge = PenaltyScorer(mixture, held, alphas, metric, np.dtype(np.float64))
    scores = judge.scores(product, bands.heldout_product(one.y, held), one)
    full = np.hstack([np.sqrt(g) * b.u * b.s for g, b in zip(gamma, made, strict=True)])
    for a, alpha in enumerate(alphas):
        each = predict_bands(mixture, product, held, np.full(4, alpha))
        expected = full[held] @ np.linalg.solve(
            full[train].T @ full[train] + alpha * np.eye(full.shape[1]), full[train].T @ y[train]
        )
        np.testing.assert_allclose(each.sum(axis=0), expected, atol=1e-7)
        np.testing.assert_allclose(
            predict_bands(mixture, product, held, np.full(4, alpha), by_band=False)[0], expected, atol=1e-7
        )
        if metric == "r2":
            theirs = 1 - np.sum((y[held] - expected) ** 2, axis=0) / np.sum(y[held] ** 2, axis=0)
        else:
            theirs = pearson(y[held], expected)
        np.testing.assert_allclose(scores[a], theirs, atol=1e-5)


def test_both_ways_of_scoring_are_taken_and_agree(rng):
    """Few axes go by a triangle, many by one matrix; the choice is by cost, not by answer."""
    train, held = np.arange(60), np.arange(60, 80)
    for p, by_map in ((5, False), (50, True)):
        x = rng.standard_normal((80, p))
        x -= x[train].mean(axis=0)
        _, s, vt = np.linalg.svd(x[train], full_matrices=False)
        bands = BandSet([Band(x @ vt.T / s, s)], train)
        assert not bands.kernels
        judge = PenaltyScorer(bands.weight(np.ones(1)), held, np.array([1.0]), "r2", np.dtype(np.float64))
        assert (judge.hat_matrix is not None) == by_map
    assert BandSet([Band(np.ones((80, 61)), np.ones(61))], train).kernels
