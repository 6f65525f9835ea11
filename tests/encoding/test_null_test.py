"""Refitted nulls: each is what a plain loop of fits to moved responses gives, whatever path it takes."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from langcortex.encoding.folded_design import confound_columns, label_segments, segments_of_fold
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.null_test import null_chunks, null_scores, null_test
from langcortex.encoding.prepare import Engine
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.encoding.scores import score
from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.surrogates import KINDS
from langcortex.ridge.backend import Backend
from reference.nulls import p_values

LENGTHS = (24, 30, 27, 24)
SEED = 5


def _design(rng, arrays_design, p=6, n_targets=7, dtype=np.float64, lengths=LENGTHS):
    run = np.repeat([f"run-{i}" for i in range(len(lengths))], lengths)
    x = rng.standard_normal((len(run), p)) * np.logspace(0.5, -0.5, p) + 2
    y = rng.standard_normal((len(run), n_targets)) + x @ rng.standard_normal((p, n_targets)) / 3
    other = rng.standard_normal((len(run), p))
    length = rng.standard_normal((len(run), 1))
    return arrays_design({"x": x, "z": other, "length": length}, (y + 4).astype(dtype), run)


PROTOCOL = Protocol(
    penalties=(1.0, 30.0, 1000.0), relative=False, confounds=("length",), n_nulls=12, null_block=6
)


def _loop(design, spaces, protocol, encoding):
    """Move every run's responses and fit again, null by null: with `fit`, or with the penalties that are kept."""
    moves = RowPermutations(protocol.null, design.run, protocol.n_nulls, SEED, protocol.null_block)
    y = {d: np.asarray(design.Y[d]) for d in design.delays}
    out = []
    for b in range(protocol.n_nulls):
        moved = dataclasses.replace(design, Y={d: moves.make_permuter(one)(b) for d, one in y.items()})
        if protocol.null_penalties == "chosen":
            out.append(score(fit(moved, spaces[0], protocol, encoding.delay)).r)
        else:
            out.append(_one_by_one(moved, spaces, protocol, encoding))
    return np.stack(out)


def _one_by_one(design, spaces, protocol, encoding):
    """Ridge target by target with its penalty, every step written out."""
    folds = outer_folds(design.run, design.scans, protocol)
    labels, _ = label_segments(design.run, folds)
    r = []
    c = confound_columns(design, ["x"], protocol)
    for k, fold in enumerate(folds):
        x, t = np.asarray(design.X[spaces[k]], dtype=float), fold.train
        z = (x - x[t].mean(axis=0)) / x[t].std(axis=0)
        c1 = np.column_stack([np.ones(len(x)), c])
        z = z - c1 @ np.linalg.lstsq(c1[t], z[t], rcond=None)[0]
        y = np.stack([np.asarray(design.Y[d])[:, j] for j, d in enumerate(encoding.delay[k])], axis=1).astype(
            float
        )
        y = y - c1 @ np.linalg.lstsq(c1[t], y[t], rcond=None)[0]
        gram, cross = z[t].T @ z[t], z[t].T @ y[t]
        w = [
            np.linalg.solve(gram + a * np.eye(len(gram)), cross[:, j])
            for j, a in enumerate(encoding.penalty[k])
        ]
        p = z @ np.stack(w, axis=1)
        for rows in segments_of_fold(labels, fold).values():
            held = fold.test[rows]
            r.append([np.corrcoef(p[held, j], y[held, j])[0, 1] for j in range(y.shape[1])])
    return np.mean(r, axis=0)


@pytest.mark.parametrize("p", [6, 90], ids=["few axes", "more axes than held-out rows"])
@pytest.mark.parametrize("n_nulls", [12, 60], ids=["products", "tables"])
@pytest.mark.parametrize("kind", KINDS)
def test_nulls_with_kept_penalties_are_a_loop_of_refits(rng, arrays_design, kind, n_nulls, p):
    design = _design(rng, arrays_design, p)
    protocol = dataclasses.replace(PROTOCOL, null=kind, n_nulls=n_nulls)
    encoding = fit(design, "x", protocol)
    assert len(np.unique(encoding.penalty)) > 1
    null = null_scores(design, ["x"] * 4, protocol, encoding, SEED)
    np.testing.assert_allclose(null, _loop(design, ["x"] * 4, protocol, encoding), atol=1e-6)


@pytest.mark.parametrize("change", [{}, {"pca": 4}, {"nested_axes": False}, {"choose_by": "r"}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_nulls_with_penalties_chosen_anew_are_a_loop_of_whole_fits(rng, arrays_design, kind, change):
    design = _design(rng, arrays_design)
    protocol = dataclasses.replace(PROTOCOL, null=kind, null_penalties="chosen", **change)
    encoding = fit(design, "x", protocol)
    null = null_scores(design, ["x"] * 4, protocol, encoding, SEED)
    np.testing.assert_allclose(null, _loop(design, ["x"] * 4, protocol, encoding), atol=1e-6)


def test_many_shifts_are_read_off_a_table_when_penalties_are_chosen_anew(rng, arrays_design, monkeypatch):
    design = _design(rng, arrays_design, n_targets=10)
    protocol = dataclasses.replace(PROTOCOL, null_penalties="chosen", n_nulls=50)
    encoding = fit(design, "x", protocol)
    null = null_scores(design, ["x"] * 4, protocol, encoding, SEED)
    monkeypatch.setattr("langcortex.nulls.refit.TABLE_BYTES", 0)
    np.testing.assert_allclose(null, null_scores(design, ["x"] * 4, protocol, encoding, SEED), atol=1e-6)
    np.testing.assert_allclose(null, _loop(design, ["x"] * 4, protocol, encoding), atol=1e-6)


@pytest.mark.parametrize("penalties", ["kept", "chosen"])
def test_torch_gives_the_same(rng, arrays_design, penalties):
    pytest.importorskip("torch")
    design = _design(rng, arrays_design)
    protocol = dataclasses.replace(PROTOCOL, null_penalties=penalties)
    encoding = fit(design, "x", protocol)
    one, other = (
        null_scores(design, ["x"] * 4, protocol, encoding, SEED, Engine(Backend(on)))
        for on in ("numpy", "torch")
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("penalties", ["kept", "chosen"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_run_cut_into_blocks_is_moved_as_a_whole(rng, arrays_design, kind, penalties):
    design = _design(rng, arrays_design, lengths=(140,))
    protocol = dataclasses.replace(PROTOCOL, null=kind, null_penalties=penalties, gap=2, n_nulls=9)
    encoding = fit(design, "x", protocol)
    null = null_scores(design, ["x"] * 5, protocol, encoding, SEED)
    np.testing.assert_allclose(null, _loop(design, ["x"] * 5, protocol, encoding), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_target_is_moved_at_its_own_delay_and_every_fold_has_its_own_space(rng, arrays_design, kind):
    design = _design(rng, arrays_design)
    y = np.asarray(design.Y[0.0])
    design = dataclasses.replace(design, Y={4.0: y, 6.0: rng.standard_normal(y.shape)})
    delays = rng.choice([4.0, 6.0], (4, 7))
    protocol = dataclasses.replace(PROTOCOL, null=kind)
    encoding = fit(design, "x", protocol, delays)
    spaces = ["x", "z", "x", "z"]
    null = null_scores(design, spaces, protocol, encoding, SEED)
    np.testing.assert_allclose(null, _loop(design, spaces, protocol, encoding), atol=1e-6)


def test_layers_meet_the_same_nulls_with_penalties_kept_or_chosen(rng, arrays_design):
    design = _design(rng, arrays_design)
    for penalties in ("kept", "chosen"):
        protocol = dataclasses.replace(PROTOCOL, null_penalties=penalties)
        tested = [(["x"] * 4, fit(design, "x", protocol)), (["z"] * 4, fit(design, "z", protocol))]
        both = np.concatenate([null for _, null in null_chunks(design, tested, protocol, SEED)], axis=2)
        for i, (spaces, encoding) in enumerate(tested):
            alone = null_scores(design, spaces, protocol, encoding, SEED)
            np.testing.assert_allclose(both[:, i], alone, atol=1e-6)


@pytest.mark.parametrize("penalties", ["kept", "chosen"])
def test_chunks_threads_and_float32_change_nothing_but_rounding(rng, arrays_design, penalties, monkeypatch):
    design = _design(rng, arrays_design, n_targets=45)
    protocol = dataclasses.replace(PROTOCOL, n_nulls=40, null_penalties=penalties)
    encoding = fit(design, "x", protocol)
    whole = null_scores(design, ["x"] * 4, protocol, encoding, SEED)
    monkeypatch.setattr("langcortex.encoding.null_test.CHUNK", 16)
    monkeypatch.setattr("langcortex.nulls.refit_fixed.MIN_TARGETS", 5)
    monkeypatch.setattr("langcortex.nulls.refit_fixed.TABLE_BYTES", 0)
    with ThreadPoolExecutor(2) as executor:
        parts = null_scores(design, ["x"] * 4, protocol, encoding, SEED, Engine(executor=executor))
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    single = dataclasses.replace(design, Y={0.0: np.asarray(design.Y[0.0]).astype(np.float32)})
    result = null_scores(single, ["x"] * 4, protocol, fit(single, "x", protocol), SEED)
    np.testing.assert_allclose(result, whole, atol=2e-5)


@pytest.mark.parametrize("penalties", ["kept", "chosen"])
def test_a_target_without_a_score_is_nan_and_touches_no_other(rng, arrays_design, penalties):
    design = _design(rng, arrays_design)
    protocol = dataclasses.replace(PROTOCOL, null_penalties=penalties)
    clean = null_scores(design, ["x"] * 4, protocol, fit(design, "x", protocol), SEED)
    y = np.asarray(design.Y[0.0]).copy()
    y[3, 1], y[:, 4] = np.nan, 2.0
    design = dataclasses.replace(design, Y={0.0: y})
    null = null_scores(design, ["x"] * 4, protocol, fit(design, "x", protocol), SEED)
    assert np.isnan(null).all(axis=0).tolist() == [False, True, False, False, True, False, False]
    others = [0, 2, 3, 5, 6]
    np.testing.assert_allclose(null[:, others], clean[:, others], atol=1e-6)


def test_counted_as_they_come_nulls_give_the_p_of_all_at_once(rng, arrays_design):
    design = _design(rng, arrays_design)
    protocol = dataclasses.replace(PROTOCOL, n_nulls=50)
    encoding = fit(design, "x", protocol)
    result = null_test(design, [(["x"] * 4, encoding)], protocol, SEED)
    null = null_scores(design, ["x"] * 4, protocol, encoding, SEED)
    np.testing.assert_allclose(result.p[0], p_values(score(encoding).r, null))
    assert "random shift, refitted, penalties kept" in str(result.resampling)
    assert result.resampling.n == 50


@pytest.mark.parametrize("kind", KINDS)
def test_silent_targets_are_found_about_as_often_as_the_level_says(rng, autocorrelated, arrays_design, kind):
    """End to end: two runs that take turns, autocorrelated features and noise; one target follows."""
    run = np.repeat(["a", "b"], 300)
    x = np.concatenate([autocorrelated(rng, 300, 4, 0.6) for _ in range(2)])
    y = np.concatenate([autocorrelated(rng, 300, 600, 0.6) for _ in range(2)]).astype(np.float32)
    y[:, 0] += 2 * x[:, 0]
    design = arrays_design({"x": x}, y, run)
    protocol = Protocol(null=kind, n_nulls=99, null_block=30)
    result = null_test(design, [(["x", "x"], fit(design, "x", protocol))], protocol, 1)
    assert result.p[0, 0] == pytest.approx(0.01)
    assert result.p_corrected[0, 0] == pytest.approx(0.01)
    assert 0.02 < np.mean(result.p[0, 1:] <= 0.05) < 0.09
    assert np.mean(result.p_corrected[0, 1:] <= 0.05) < 0.01


def test_shifts_are_those_of_numpy_and_refits_those_of_scikit_learn(rng, arrays_design):
    design = _design(rng, arrays_design)
    protocol = dataclasses.replace(PROTOCOL, confounds=(), n_nulls=3)
    encoding = fit(design, "x", protocol)
    shifts = RowPermutations("shift", design.run, 3, SEED).shifts
    expected = np.zeros((3, 7))
    for b in range(3):
        y = np.asarray(design.Y[0.0]).copy()
        for i, name in enumerate(dict.fromkeys(design.run)):
            y[design.run == name] = np.roll(y[design.run == name], -shifts[i][b], axis=0)
        for k, name in enumerate(dict.fromkeys(design.run)):
            train, test = design.run != name, design.run == name
            for j in range(7):
                model = make_pipeline(StandardScaler(), Ridge(alpha=encoding.penalty[k, j]))
                p = model.fit(design.X["x"][train], y[train, j]).predict(design.X["x"][test])
                expected[b, j] += np.corrcoef(p, y[test, j])[0, 1] / 4
    null = null_scores(design, ["x"] * 4, protocol, encoding, SEED)
    np.testing.assert_allclose(null, expected, atol=1e-6)
