"""The responses' side of the engine: numpy, torch and any array of the standard agree; so does compiled code."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from langcortex.arrays import as_numpy
from langcortex.ridge import solve
from langcortex.ridge.decomposition import least_squares_operator, principal_components, residualise
from langcortex.ridge.plan import FEW_COMPONENTS, NestedFold, Plan, RowSets, partition_rows
from langcortex.ridge.planner import make_plan
from langcortex.ridge.solve import MIN_COMPILED, ResponseChunk, best_penalty

GRID = np.logspace(-1, 4, 6)


def plan_and_responses(
    p: int | None, metric: str, nested: bool, dtype: type = np.float32, n: int = 96, v: int = 45
) -> tuple[Plan, RowSets, np.ndarray]:
    """Make a plan and responses: signal, noise, one constant, and one constant where it is held out."""
    rng = np.random.default_rng(5)
    x, c = rng.standard_normal((n, 70)) * np.arange(70, 0, -1) ** -0.5, rng.standard_normal((n, 1))
    rows, nests = np.arange(n), []
    for block in np.array_split(rows, 3):
        train = np.setdiff1d(rows, block)
        inner = tuple((np.setdiff1d(train, part), part) for part in np.array_split(train, 3))
        nests.append(NestedFold(train, tuple(np.array_split(block, 2)), inner))

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = residualise(c, least_squares_operator(c[train]) @ x[train], x)
        components = principal_components(z[train], p)
        return components.s, z @ components.v

    y = x @ rng.standard_normal((70, v)) + 2 * rng.standard_normal((n, v)) + c
    y[:, 3], y[: n // 6, 7] = 1.0, 2.0
    y = (y - y.mean(axis=0)).astype(dtype)
    plan = make_plan("x", nests, prepare, c, GRID, False, metric, nested, dtype)
    return plan, partition_rows(nests, c), y


def everything(plan: Plan, sets: RowSets, y: object) -> list[np.ndarray]:
    """Score all penalties, choose, test and predict."""
    reader = ResponseChunk.from_responses(y, sets).read(plan)
    out = []
    for k in range(len(plan.inner)):
        scores = reader.inner_scores(k)
        best, score = best_penalty(scores)
        rows = np.sort(np.concatenate([sets.rows[validation.key] for validation in plan.outer[k]]))
        out += [
            as_numpy(scores),
            best,
            score,
            *(a for segment in reader.score_segments(k, best) for a in segment),
        ]
        out += list(reader.predict(k, best, rows))
    return out


SOLVERS = pytest.mark.parametrize(
    ("p", "nested"),
    [(6, True), (6, False), (FEW_COMPONENTS + 8, False), (None, True), (None, False)],
    ids=str,
)


@SOLVERS
@pytest.mark.parametrize("metric", ["r2", "r"])
def test_torch_agrees_with_numpy(p: int | None, metric: str, nested: bool) -> None:
    plan, sets, y = plan_and_responses(p, metric, nested, np.float64)
    for ours, theirs in zip(
        everything(plan, sets, y), everything(plan, sets, torch.from_numpy(y)), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, atol=1e-9)


@SOLVERS
def test_any_array_of_the_standard_agrees_with_numpy(p: int | None, nested: bool) -> None:
    """array_api_strict refuses whatever the standard does not promise."""
    plan, sets, y = plan_and_responses(p, "r2", nested, np.float64)
    strict = array_api_strict.asarray(y)
    for ours, theirs in zip(everything(plan, sets, y), everything(plan, sets, strict), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-9)


@pytest.mark.parametrize("nested", [True, False], ids=["nested components", "outer components"])
@pytest.mark.parametrize("metric", ["r2", "r"])
@pytest.mark.parametrize("p", [MIN_COMPILED, 15, FEW_COMPONENTS])
def test_compiled_code_agrees_with_numpy(
    p: int, metric: str, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With constant targets, several test segments, and a number of targets that no vector divides."""
    plan, sets, y = plan_and_responses(p, metric, nested, v=301)
    reader = ResponseChunk.from_responses(y, sets).read(plan)
    assert solve.can_compile(plan)
    ours = list(reader.folds())
    monkeypatch.setattr(solve, "has_numba", lambda: False)
    theirs = list(ResponseChunk.from_responses(y, sets).read(plan).folds())
    for a, b in zip(ours, theirs, strict=True):
        is_equal = a.penalty_index == b.penalty_index
        assert is_equal.mean() > 0.99
        np.testing.assert_allclose(a.inner_score, b.inner_score, atol=2e-5)
        for our_scores, their_scores in zip(a.segment_scores, b.segment_scores, strict=True):
            for compiled, plain in zip(our_scores, their_scores, strict=True):
                np.testing.assert_allclose(compiled[is_equal], plain[is_equal], rtol=1e-4, atol=2e-5)
    assert np.isnan(ours[0].segment_scores[0][0][[3, 7]]).all()
    assert np.isinf(ours[0].inner_score[3])


def test_training_sets_with_fewer_components_are_padded_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rank of the features falls where some rows are left out."""
    rng = np.random.default_rng(2)
    n, c = 60, np.zeros((60, 0))
    x = rng.standard_normal((n, 5))
    x[20:, 4] = x[20:, 3]  # one component less without the first rows
    nests = []
    for block in np.array_split(np.arange(n), 3):
        train = np.setdiff1d(np.arange(n), block)
        nests.append(
            NestedFold(train, (block,), tuple((np.setdiff1d(train, b), b) for b in np.array_split(train, 2)))
        )

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = x - x[train].mean(axis=0)
        components = principal_components(z[train])
        return components.s, z @ components.v

    plan, sets = make_plan("x", nests, prepare, c, GRID, False, "r2"), partition_rows(nests, c)
    assert {t.shrinkage.shape[1] for t in plan.training_sets} == {4, 5}
    y = (x[:, :1] + rng.standard_normal((n, 33))).astype(np.float32)
    y -= y.mean(axis=0)
    fits = []
    for numba in (True, False):
        monkeypatch.setattr(solve, "has_numba", lambda numba=numba: numba)
        fits.append(list(ResponseChunk.from_responses(y, sets).read(plan).folds()))
    for a, b in zip(*fits, strict=True):
        np.testing.assert_array_equal(a.penalty_index, b.penalty_index)
        np.testing.assert_allclose(a.inner_score, b.inner_score, atol=1e-5)
        np.testing.assert_allclose(a.segment_scores[0], b.segment_scores[0], rtol=1e-4, atol=1e-5)
