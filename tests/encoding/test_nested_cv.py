"""Encoding: pinned to scikit-learn, true to what was planted_layers, and deaf to what it must not hear."""

from dataclasses import replace

import numpy as np
import pytest
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from langcortex.encoding.nested_cv import fit
from langcortex.encoding.prepare import Engine
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.encoding.selection import choose_delays
from langcortex.errors import FitError
from langcortex.ridge.backend import Backend

GRID = (0.3, 10.0, 100.0, 1000.0, 30000.0)
ABSOLUTE = Protocol(relative=False, penalties=GRID)


def _data(rng, p=12, lengths=(16, 14, 18, 15), n_targets=5, dtype=np.float32):
    run = np.repeat([f"run-{i}" for i in range(len(lengths))], lengths)
    mixing = rng.standard_normal((p, p)) * np.logspace(0.5, -1, p)
    x = 3.0 + rng.standard_normal((len(run), p)) @ mixing
    strength = np.linspace(0, 1.5, n_targets)
    y = strength * ((x - 3.0) @ rng.standard_normal((p, n_targets)) / 3) + rng.standard_normal(
        (len(run), n_targets)
    )
    return x, (y + 5.0).astype(dtype), run


def _steps(protocol):
    scaler = StandardScaler(with_std=protocol.standardise == "training")
    return [scaler] + ([PCA(protocol.pca, svd_solver="full")] if protocol.pca else [])


def _r2(estimator, x, y):
    """1 − SSE/SST against the training mean, which is the intercept of a ridge on centred features."""
    return 1 - np.sum((y - estimator.predict(x)) ** 2) / np.sum((y - estimator[-1].intercept_) ** 2)


def _r(estimator, x, y):
    return stats.pearsonr(estimator.predict(x), y).statistic


def _nested(x, y, run, protocol):
    """Scikit-learn, target by target: leave a run out, and inside again to choose the penalty."""
    groups, chosen, predicted, inner = list(dict.fromkeys(run)), [], np.full(y.shape, np.nan), []
    if protocol.standardise == "run":
        x = np.concatenate([StandardScaler().fit_transform(x[run == g]) for g in groups])
    for train, test in sorted(LeaveOneGroupOut().split(x, groups=run), key=lambda s: s[1][0]):
        row, best = [], []
        for j in range(y.shape[1]):
            search = GridSearchCV(
                make_pipeline(*_steps(protocol), Ridge()), {"ridge__alpha": protocol.penalties}, cv=LeaveOneGroupOut(),
                scoring=_r2 if protocol.choose_by == "r2" else _r,
            ).fit(x[train], y[train, j].astype(float), groups=run[train])  # fmt: skip
            row.append(search.best_params_["ridge__alpha"])
            best.append(search.best_score_)
            predicted[test, j] = search.predict(x[test]) - y[train, j].mean()
        chosen.append(row)
        inner.append(best)
    return np.array(chosen), predicted, np.array(inner)


@pytest.mark.parametrize(
    ("change", "p", "dtype"),
    [
        ({}, 12, np.float64),
        ({}, 12, np.float32),
        ({}, 90, np.float32),
        ({"choose_by": "r"}, 12, np.float32),
        ({"pca": 4}, 12, np.float64),
        ({"pca": 7, "choose_by": "r"}, 90, np.float32),
        ({"standardise": "none"}, 12, np.float64),
        ({"standardise": "run"}, 12, np.float32),
        ({"penalties": (50.0,)}, 12, np.float32),
    ],
)
def test_penalties_and_predictions_are_those_of_scikit_learn(rng, arrays_design, change, p, dtype):
    x, y, run = _data(rng, p, dtype=dtype)
    protocol = replace(ABSOLUTE, **change)
    encoding = fit(arrays_design({"x": x}, y, run), "x", protocol, keep_predictions=True)
    penalty, predicted, inner = _nested(x, y, run, protocol)
    np.testing.assert_array_equal(encoding.penalty, penalty)
    size = y.std(axis=0)
    np.testing.assert_allclose(encoding.predicted / size, predicted / size, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(encoding.inner, inner, atol=1e-5)
    assert len(protocol.penalties) == 1 or len(np.unique(penalty)) > 2  # the choice was a choice
    groups = list(dict.fromkeys(run))
    for i, name in enumerate(groups):
        here = run == name
        baseline = y[~here].mean(axis=0, dtype=float)
        np.testing.assert_allclose(encoding.sst[i], np.sum((y[here] - baseline) ** 2, axis=0), rtol=1e-4)
        np.testing.assert_allclose(
            encoding.sse[i], np.sum((y[here] - baseline - predicted[here]) ** 2, axis=0), rtol=1e-4
        )
        expected = [stats.pearsonr(predicted[here, j], y[here, j]).statistic for j in range(y.shape[1])]
        np.testing.assert_allclose(encoding.r[i], expected, atol=1e-4)
    np.testing.assert_allclose(
        encoding.observed, y - np.stack([y[run != g].mean(axis=0, dtype=float) for g in run]), atol=1e-5
    )


def _residual(confounds, train, rows, values):
    model = LinearRegression().fit(confounds[train], values[train])
    return values[rows] - model.predict(confounds[rows])


def _one_fit(x, y, confounds, train, test, alpha, protocol):
    """Everything learnt on the training rows alone, written out."""
    scaler = StandardScaler(with_std=protocol.standardise == "training").fit(x[train])
    scaled = scaler.transform(x)
    x_train, x_test = (_residual(confounds, train, rows, scaled) for rows in (train, test))
    y_train, y_test = (_residual(confounds, train, rows, y) for rows in (train, test))
    if protocol.pca:
        pca = PCA(protocol.pca, svd_solver="full").fit(x_train)
        x_train, x_test = pca.transform(x_train), pca.transform(x_test)
    return Ridge(alpha=alpha, fit_intercept=False).fit(x_train, y_train).predict(x_test), y_test


@pytest.mark.parametrize("change", [{}, {"pca": 5}, {"choose_by": "r"}, {"standardise": "none"}])
def test_confounds_are_learnt_on_the_training_rows_of_every_fold_as_in_a_plain_double_loop(
    rng, arrays_design, change
):
    x, y, run = _data(rng)
    confounds = rng.standard_normal((len(run), 2)) + x[:, :2]
    y = (y + 2 * confounds @ rng.standard_normal((2, 5))).astype(np.float32)
    protocol = replace(ABSOLUTE, confounds=("a", "b"), **change)
    design = arrays_design({"x": x, "a": confounds[:, :1], "b": confounds[:, 1:]}, y, run)
    encoding = fit(design, "x", protocol, keep_predictions=True)
    for k, outer in enumerate(dict.fromkeys(run)):
        train, test = np.flatnonzero(run != outer), np.flatnonzero(run == outer)
        curve = np.zeros((len(GRID), 5))
        for held in dict.fromkeys(run[train]):
            inside, out = train[run[train] != held], train[run[train] == held]
            for a, alpha in enumerate(GRID):
                p, t = _one_fit(x, y.astype(float), confounds, inside, out, alpha, protocol)
                if protocol.choose_by == "r":
                    curve[a] += [stats.pearsonr(p[:, j], t[:, j]).statistic / 3 for j in range(5)]
                else:
                    curve[a] += (1 - np.sum((t - p) ** 2, axis=0) / np.sum(t**2, axis=0)) / 3
        best = np.argmax(curve, axis=0)
        np.testing.assert_array_equal(encoding.penalty[k], np.array(GRID)[best])
        np.testing.assert_allclose(encoding.inner[k], curve.max(axis=0), atol=1e-4)
        for j in range(5):
            p, t = _one_fit(x, y.astype(float), confounds, train, test, GRID[best[j]], protocol)
            np.testing.assert_allclose(encoding.predicted[test, j], p[:, j], atol=1e-4)
            np.testing.assert_allclose(encoding.observed[test, j], t[:, j], atol=1e-4)


def test_a_confound_is_not_cleaned_of_itself(rng, arrays_design):
    x, y, run = _data(rng)
    design = arrays_design({"x": x, "rate": x[:, :1]}, y, run)
    alone = fit(design, "rate", ABSOLUTE)
    encoding = fit(design, "rate", replace(ABSOLUTE, confounds=("rate",)))
    np.testing.assert_allclose(encoding.r, alone.r)


@pytest.mark.parametrize("relative", [True, False])
def test_features_that_the_confounds_say_already_predict_nothing(rng, arrays_design, relative):
    x, _, run = _data(rng, p=3)
    y = (x + rng.standard_normal(x.shape)).astype(np.float32)
    design = arrays_design({"x": x @ rng.standard_normal((3, 3)), "c": x}, y, run)
    encoding = fit(design, "x", Protocol(relative=relative, confounds=("c",)), keep_predictions=True)
    np.testing.assert_allclose(encoding.predicted, 0.0, atol=1e-4)


def test_features_without_variance_predict_nothing_and_score_nan(rng, arrays_design):
    _, y, run = _data(rng)
    for constant in (0.0, 0.1, 1e4):
        encoding = fit(arrays_design({"x": np.full((len(run), 3), constant)}, y, run), "x", Protocol())
        assert np.isnan(score(encoding).r).all()
        np.testing.assert_allclose(score(encoding).r2, 0.0, atol=1e-6)


def test_with_relative_penalties_the_size_of_features_changes_nothing(rng, arrays_design):
    x, y, run = _data(rng)
    for standardise in ("training", "none", "run"):
        protocol = Protocol(standardise=standardise)
        one, other = (
            fit(arrays_design({"x": s * x}, y, run), "x", protocol, keep_predictions=True)
            for s in (1.0, 1000.0)
        )
        np.testing.assert_array_equal(one.penalty, other.penalty)
        np.testing.assert_allclose(one.predicted, other.predicted, atol=1e-5)


def test_himalaya_agrees_at_equal_penalty(rng, arrays_design):
    x, y, run = _data(rng, dtype=np.float64)
    protocol = Protocol(penalties=(0.5,))
    encoding = fit(arrays_design({"x": x}, y, run), "x", protocol, keep_predictions=True)
    for name in dict.fromkeys(run):
        train, test = run != name, run == name
        scaler = StandardScaler().fit(x[train])
        z, z_new = scaler.transform(x[train]), scaler.transform(x[test])
        alpha = 0.5 * np.trace(z.T @ z) / z.shape[1]
        split = PredefinedSplit(np.where(np.arange(train.sum()) < 9, 0, -1))
        solver = RidgeCV(alphas=[alpha], fit_intercept=True, cv=split, solver_params={"warn": False}).fit(
            z, y[train]
        )
        np.testing.assert_allclose(
            encoding.predicted[test], solver.predict(z_new) - y[train].mean(axis=0), atol=1e-5
        )


# Targets that are undefined


def test_targets_without_data_score_nan_and_their_neighbours_do_not_notice(rng, arrays_design):
    x, y, run = _data(rng, n_targets=6)
    design = arrays_design({"x": x}, y, run)
    alone = fit(design, "x", Protocol(), keep_predictions=True)
    broken = y.copy()
    broken[:, 1], broken[4, 2], broken[:, 4] = np.nan, np.nan, 0.1
    encoding = fit(arrays_design({"x": x}, broken, run), "x", Protocol(), keep_predictions=True)
    for name in ("r", "sse", "sst"):
        assert np.isnan(getattr(encoding, name)[:, [1, 2, 4]]).all()
    keep = [0, 3, 5]
    np.testing.assert_array_equal(encoding.penalty[:, keep], alone.penalty[:, keep])
    for name in ("r", "sse", "sst", "inner", "predicted", "observed"):
        np.testing.assert_allclose(
            getattr(encoding, name)[:, keep], getattr(alone, name)[:, keep], rtol=1e-5, atol=1e-6
        )
    assert np.isnan(score(encoding).r).tolist() == [False, True, True, False, True, False]
    assert np.isnan(score(encoding).r2).tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [16, 700])
def test_a_target_that_is_constant_in_one_run_is_scored_and_learnt_on_the_others(
    rng, arrays_design, dtype, length
):
    x, y, run = _data(rng, p=4, lengths=(length,) * 4, dtype=dtype)
    quiet = y.copy()
    quiet[run == "run-2", 3] = 0.1
    encoding = fit(arrays_design({"x": x}, quiet, run), "x", ABSOLUTE)
    whole = fit(arrays_design({"x": x}, y, run), "x", ABSOLUTE)
    assert np.isnan(encoding.r[2, 3])
    assert np.isnan(encoding.sse[2, 3])
    assert np.isfinite(np.delete(encoding.r[:, 3], 2)).all()
    np.testing.assert_allclose(np.delete(encoding.r, 3, axis=1), np.delete(whole.r, 3, axis=1), atol=1e-6)
    np.testing.assert_allclose(score(encoding).r[3], np.delete(encoding.r[:, 3], 2).mean())
    # where the constant run is held out inside, it says nothing: the best penalty is that of the other runs
    expected = []
    for k, outer in enumerate(dict.fromkeys(run)):
        curve = []
        for held in dict.fromkeys(run):
            if held in (outer, "run-2"):
                continue
            inside = (run != outer) & (run != held)
            models = [
                make_pipeline(StandardScaler(), Ridge(alpha=a)).fit(x[inside], quiet[inside, 3].astype(float))
                for a in GRID
            ]
            curve.append([_r2(m, x[run == held], quiet[run == held, 3].astype(float)) for m in models])
        expected.append(GRID[int(np.argmax(np.mean(curve, axis=0)))])
        assert encoding.inner[k, 3] == pytest.approx(np.mean(curve, axis=0).max(), abs=1e-3)
    np.testing.assert_array_equal(encoding.penalty[:, 3], expected)


def test_no_target_with_data_is_no_crash(rng, arrays_design):
    x, y, run = _data(rng)
    encoding = fit(arrays_design({"x": x}, np.full_like(y, np.nan), run), "x", Protocol())
    assert np.isnan(score(encoding).r).all()


def test_a_delay_per_target_is_used_per_target(planted_layers):
    delays = np.where(np.arange(128) < 4, 6.0, 4.0)[None].repeat(5, axis=0)
    mixed = fit(planted_layers, "layer-2", Protocol(), delays)
    for delay, targets in ((6.0, slice(0, 4)), (4.0, slice(4, 128))):
        single = fit(planted_layers, "layer-2", Protocol(), np.full((5, 1), delay))
        np.testing.assert_allclose(mixed.r[:, targets], single.r[:, targets], atol=1e-6)
        np.testing.assert_array_equal(mixed.penalty[:, targets], single.penalty[:, targets])
    np.testing.assert_array_equal(mixed.delay, delays)


# Leaks


@pytest.mark.parametrize("what", ["Y", "X", "confounds"])
def test_nothing_of_the_held_out_run_reaches_penalty_delay_scale_confounds_or_components(
    planted_layers, rng, what
):
    protocol = Protocol(pca=4, confounds=("layer-0",))
    before = fit(
        planted_layers,
        "layer-2",
        protocol,
        choose_delays(planted_layers, ["layer-2"], protocol),
        keep_predictions=True,
    )
    for k in (0, 3):
        rows = planted_layers.run == f"run-{k}"
        x, y = (
            {n: v.copy() for n, v in planted_layers.X.items()},
            {d: v.copy() for d, v in planted_layers.Y.items()},
        )
        if what == "Y":
            for values in y.values():
                values[rows] = 3 + 5 * rng.standard_normal((60, 128))
        else:
            x["layer-2" if what == "X" else "layer-0"][rows] = 3 + 50 * rng.standard_normal((60, 6))
        changed = replace(planted_layers, X=x, Y=y)
        delays = choose_delays(changed, ["layer-2"], protocol)
        after = fit(changed, "layer-2", protocol, delays, keep_predictions=True)
        np.testing.assert_array_equal(after.delay[k], before.delay[k])
        np.testing.assert_array_equal(after.penalty[k], before.penalty[k])
        np.testing.assert_allclose(after.inner[k], before.inner[k], atol=1e-5)
        if what == "Y":
            np.testing.assert_allclose(after.predicted[rows], before.predicted[rows], atol=1e-4)
        else:
            assert np.abs(after.predicted[rows] - before.predicted[rows]).max() > 0.1  # the change was felt
        others = [j for j in range(5) if j != k]
        assert np.abs(after.inner[others] - before.inner[others]).max() > 1e-3


@pytest.mark.parametrize("change", [{}, {"folds": 3}, {"folds": 3, "inner": 2}])
def test_in_a_single_run_nothing_of_a_block_or_its_gap_reaches_what_is_chosen(
    rng, autocorrelated, arrays_design, change
):
    protocol = Protocol(gap=4, pca=3, **change)
    run = np.full(120, "only")
    x, y = autocorrelated(rng, 120, 5), autocorrelated(rng, 120, 20).astype(np.float32)
    before = fit(arrays_design({"x": x}, y, run), "x", protocol, keep_predictions=True)
    assert before.segments.tolist() == [f"only/block-{k}" for k in range(len(before.segments))]
    assert set(before.segment_run) == {"only"}
    for k, piece in enumerate(before.segments):
        rows = np.flatnonzero(before.row_segment == piece)
        reach = slice(max(0, rows[0] - 4), rows[-1] + 5)
        x2, y2 = x.copy(), y.copy()
        x2[reach] = 30 * rng.standard_normal(x2[reach].shape)
        y2[reach] = 30 * rng.standard_normal(y2[reach].shape)
        after = fit(arrays_design({"x": x2}, y2, run), "x", protocol)
        np.testing.assert_array_equal(after.penalty[k], before.penalty[k])
        np.testing.assert_allclose(after.inner[k], before.inner[k], atol=1e-4)


def test_named_test_runs_are_predicted_from_the_others_only(rng, arrays_design):
    x, y, run = _data(rng)
    protocol = replace(ABSOLUTE, test_runs=("run-1", "run-3"))
    encoding = fit(arrays_design({"x": x}, y, run), "x", protocol, keep_predictions=True)
    assert encoding.segments.tolist() == ["run-1", "run-3"]
    assert encoding.penalty.shape == (1, 5)
    tested = np.isin(run, ["run-1", "run-3"])
    assert np.isnan(encoding.predicted[~tested]).all()
    assert set(encoding.row_segment[~tested]) == {""}
    model = make_pipeline(StandardScaler(), Ridge(alpha=encoding.penalty[0, 4])).fit(
        x[~tested], y[~tested, 4]
    )
    np.testing.assert_allclose(
        encoding.predicted[tested, 4], model.predict(x[tested]) - y[~tested, 4].mean(), atol=1e-4
    )


def test_more_targets_than_a_chunk_change_nothing(rng, arrays_design):
    x, y, run = _data(rng, n_targets=1100)
    encoding = fit(arrays_design({"x": x}, y, run), "x", Protocol())
    some = [0, 1023, 1024, 1099]
    few = fit(arrays_design({"x": x}, y[:, some], run), "x", Protocol())
    np.testing.assert_allclose(encoding.r[:, some], few.r, atol=1e-5)
    np.testing.assert_array_equal(encoding.penalty[:, some], few.penalty)


def test_what_cannot_be_fitted_is_named(planted_layers, rng):
    with pytest.raises(FitError, match="has 5 candidate delays; choose among them with choose_delays"):
        fit(planted_layers, "layer-0", Protocol())
    one = np.full((5, 1), 6.0)
    with pytest.raises(
        FitError, match="The confound 'rate' is not among the feature spaces: layer-0, layer-1"
    ):
        fit(planted_layers, "layer-0", Protocol(confounds=("rate",)), one)
    holed = dict(planted_layers.X)
    holed["layer-0"] = np.where(rng.random((300, 6)) < 0.01, np.nan, holed["layer-0"])
    with pytest.raises(FitError, match="'layer-0' has values that are not finite"):
        fit(replace(planted_layers, X=holed), "layer-0", Protocol(), one)


@pytest.mark.parametrize("pca", [5, None])
def test_torch_and_every_regime_fit_like_numpy(rng, arrays_design, pca):
    """Studies may be fitted elsewhere and otherwise: scores, penalties and delays stay, and the regime is stated."""
    x = {"x": rng.standard_normal((60, 30)), "duration": rng.standard_normal((60, 1))}
    y = x["x"][:, :2] @ rng.standard_normal((2, 9)) + rng.standard_normal((60, 9))
    design = arrays_design(x, y, np.repeat(["a", "b", "c"], 20))
    protocol = Protocol(pca=pca, n_nulls=0)
    usual = fit(design, "x", protocol)
    ways = [Backend("torch"), Backend(solver="axes"), Backend(solver="kernel"), Backend(solver="pairs")]
    for backend in ways:
        other = fit(design, "x", protocol, engine=Engine(backend))
        np.testing.assert_array_equal(other.penalty, usual.penalty)
        np.testing.assert_allclose(other.r, usual.r, atol=2e-5)
        assert other.regime == (usual.regime if backend.solver == "auto" else backend.solver)


def test_a_device_that_is_not_there_is_refused_in_a_sentence():
    with pytest.raises(FitError, match=r"cannot be fitted on 'cuda:77'.*Use fit.on = \"numpy\""):
        Backend("cuda:77").check_device()
    Backend("torch").check_device()
    Backend().check_device()


@pytest.mark.parametrize("regime", ["auto", "axes", "kernel"])
def test_himalayas_kernel_ridge_chooses_the_same_where_features_outnumber_rows(rng, arrays_design, regime):
    """KernelRidgeCV on the same inner folds: the same penalty for every target but ties, and predictions to 1e-5."""
    run = np.repeat(["a", "b", "c", "d"], 15)
    x = rng.standard_normal((60, 150))
    y = x[:, :3] @ rng.standard_normal((3, 12)) + rng.standard_normal((60, 12))
    grid = (1.0, 30.0, 300.0, 3000.0)
    protocol = Protocol(penalties=grid, relative=False, standardise="none", choose_by="r", n_nulls=0)
    encoding = fit(
        arrays_design({"x": x}, y, run),
        "x",
        protocol,
        keep_predictions=True,
        engine=Engine(Backend(solver=regime)),
    )
    for k, name in enumerate(dict.fromkeys(run)):
        train, test = run != name, run == name
        inside = run[train]
        folds = [(np.flatnonzero(inside != r), np.flatnonzero(inside == r)) for r in dict.fromkeys(inside)]
        curve = np.zeros((len(grid), 12))
        for fit_rows, held in folds:
            zx, zy = x[train] - x[train][fit_rows].mean(axis=0), y[train] - y[train][fit_rows].mean(axis=0)
            for a, alpha in enumerate(grid):
                theirs = KernelRidgeCV(alphas=[alpha], cv=PredefinedSplit(np.arange(len(fit_rows)) % 2)).fit(
                    zx[fit_rows], zy[fit_rows]
                )
                p = theirs.predict(zx[held])
                curve[a] += [stats.pearsonr(p[:, t], zy[held][:, t])[0] for t in range(12)]
        best = np.array(grid)[np.argmax(curve, axis=0)]
        np.testing.assert_array_equal(encoding.penalty[k], best)
        z, z_new = x[train] - x[train].mean(axis=0), x[test] - x[train].mean(axis=0)
        for t in range(12):
            solver = KernelRidgeCV(alphas=[best[t]], cv=PredefinedSplit(np.arange(train.sum()) % 2)).fit(
                z, (y[train] - y[train].mean(axis=0))[:, [t]]
            )
            np.testing.assert_allclose(encoding.predicted[test, t], solver.predict(z_new)[:, 0], atol=2e-5)
