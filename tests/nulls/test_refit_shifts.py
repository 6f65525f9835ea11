"""Compiled nulls of shifted runs: the scores of shifting the responses and fitting again, null by null."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("numba")

from langcortex.encoding.nested_cv import fit
from langcortex.encoding.null_test import null_chunks, null_scores
from langcortex.encoding.protocol import Protocol
from langcortex.nulls import refit_shifts

LENGTHS = (24, 30, 27, 24, 33)
PROTOCOL = Protocol(
    penalties=(1.0, 30.0, 1000.0),
    relative=False,
    confounds=("length",),
    n_nulls=50,
    null_penalties="chosen",
)


def _design(rng, arrays_design, n_targets, dtype):
    run = np.repeat([f"run-{i}" for i in range(len(LENGTHS))], LENGTHS)
    x = rng.standard_normal((len(run), 6)) * np.logspace(0.5, -0.5, 6) + 2
    y = rng.standard_normal((len(run), n_targets)) + x @ rng.standard_normal((6, n_targets)) / 3
    spaces = {"x": x, "z": rng.standard_normal((len(run), 9)), "length": rng.standard_normal((len(run), 1))}
    return arrays_design(spaces, (y + 4).astype(dtype), run)


def _nulls_both_ways(design, protocol):
    """Nulls in float32, compiled, and in float64, every response shifted and fitted as a further target."""
    wide = dataclasses.replace(design, Y={d: np.asarray(y, dtype=np.float64) for d, y in design.Y.items()})
    encodings = [fit(d, "x", protocol) for d in (design, wide)]
    return [
        null_scores(d, ["x"] * len(encoding.penalty), protocol, encoding, 5)
        for d, encoding in zip((design, wide), encodings, strict=True)
    ]


@pytest.fixture
def compiled_calls(monkeypatch):
    """Record how many targets each call of the compiled refit has."""
    calls = []
    score_nulls = refit_shifts.ShiftedRuns.score_nulls
    monkeypatch.setattr(
        refit_shifts.ShiftedRuns,
        "score_nulls",
        lambda self, y, plans: calls.append(y.shape[1]) or score_nulls(self, y, plans),
    )
    return calls


@pytest.mark.parametrize("n_targets", [16, 21])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pca": 4},
        {"nested_axes": False},
        {"choose_by": "r"},
        {"folds": 2, "inner": 2},
        {"test_runs": ("run-4",), "inner": 2},
    ],
    ids=str,
)
def test_nulls_are_fits_of_shifted_responses(rng, arrays_design, compiled_calls, change, n_targets):
    design = _design(rng, arrays_design, n_targets, np.float32)
    null, expected = _nulls_both_ways(design, dataclasses.replace(PROTOCOL, **change))
    assert compiled_calls == [16, 5][: len(compiled_calls)]
    assert sum(compiled_calls) == n_targets
    assert np.isfinite(null).all()
    assert null.std() > 0.05
    np.testing.assert_allclose(null, expected, atol=5e-5)


def test_a_table_that_is_too_large_is_computed_in_batches_of_nulls(rng, arrays_design, monkeypatch):
    design = _design(rng, arrays_design, 9, np.float32)
    encoding = fit(design, "x", PROTOCOL)
    at_once = null_scores(design, ["x"] * 5, PROTOCOL, encoding, 5)
    batches = []
    tabulate = refit_shifts._tabulate
    monkeypatch.setattr(refit_shifts, "_tabulate", lambda *args: batches.append(1) or tabulate(*args))
    monkeypatch.setattr(refit_shifts, "TABLE_BYTES", 30_000)
    np.testing.assert_array_equal(null_scores(design, ["x"] * 5, PROTOCOL, encoding, 5), at_once)
    assert len(batches) > 2


def test_all_that_is_tested_has_the_same_nulls(rng, arrays_design, compiled_calls):
    design = _design(rng, arrays_design, 7, np.float32)
    mixed = ["x", "z", "x", "z", "x"]
    tested = [(spaces, fit(design, spaces[0], PROTOCOL)) for spaces in (["x"] * 5, ["z"] * 5, mixed)]
    ((_, null),) = null_chunks(design, tested, PROTOCOL, 5)
    assert compiled_calls == [7]
    for i, (spaces, encoding) in enumerate(tested):
        alone = null_scores(design, spaces, PROTOCOL, encoding, 5)
        np.testing.assert_allclose(null[:, i], alone, atol=1e-6)


def test_undefined_targets_are_nan_and_change_no_other_target(rng, arrays_design, compiled_calls):
    design = _design(rng, arrays_design, 20, np.float32)
    clean = null_scores(design, ["x"] * 5, PROTOCOL, fit(design, "x", PROTOCOL), 5)
    y = np.asarray(design.Y[0.0]).copy()
    y[3, 1], y[:, 4] = np.nan, 2.0
    design = dataclasses.replace(design, Y={0.0: y})
    null = null_scores(design, ["x"] * 5, PROTOCOL, fit(design, "x", PROTOCOL), 5)
    defined = np.setdiff1d(np.arange(20), [1, 4])
    assert np.isnan(null[:, [1, 4]]).all()
    np.testing.assert_allclose(null[:, defined], clean[:, defined], atol=1e-6)


@pytest.mark.parametrize(
    "change", [{"null": "block", "null_block": 6}, {"null": "phase"}, {"null_penalties": "kept"}], ids=str
)
def test_other_nulls_are_not_compiled(rng, arrays_design, compiled_calls, change):
    design = _design(rng, arrays_design, 7, np.float32)
    null, expected = _nulls_both_ways(design, dataclasses.replace(PROTOCOL, **change))
    assert not compiled_calls
    np.testing.assert_allclose(null, expected, atol=5e-5)


def test_runs_that_folds_split_are_shifted_whole(rng, arrays_design, compiled_calls):
    run = np.repeat("run-0", 150)
    x = rng.standard_normal((150, 6))
    y = (rng.standard_normal((150, 5)) + x[:, :5]).astype(np.float32)
    design = arrays_design({"x": x, "length": rng.standard_normal((150, 1))}, y, run)
    null, expected = _nulls_both_ways(design, dataclasses.replace(PROTOCOL, gap=2))
    assert not compiled_calls
    np.testing.assert_allclose(null, expected, atol=5e-5)
