"""The responses' side of the engine: numpy, torch and any array of the standard give the same; compiled code too."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from langcortex.arrays import as_numpy
from langcortex.ridge import solve as scoring
from langcortex.ridge.decomposition import least_squares_operator, principal_components, residualise
from langcortex.ridge.plan import FEW, NestedFold, Plan, RowSets, partition_rows
from langcortex.ridge.planner import make_plan
from langcortex.ridge.solve import COMPILED, ResponseChunk, best_penalty

GRID = np.logspace(-1, 4, 6)


def made(
    p: int | None, metric: str, nested: bool, dtype: type = np.float32, n: int = 96, v: int = 45
) -> tuple[Plan, RowSets, np.ndarray]:
    """Make a plan and responses: signal, noise, a constant one, and one that is constant where it is held out."""
    rng = np.random.default_rng(5)
    x, c = rng.standard_normal((n, 70)) * np.arange(70, 0, -1) ** -0.5, rng.standard_normal((n, 1))
    rows, nests = np.arange(n), []
    for block in np.array_split(rows, 3):
        train = np.setdiff1d(rows, block)
        inner = tuple((np.setdiff1d(train, part), part) for part in np.array_split(train, 3))
        nests.append(NestedFold(train, tuple(np.array_split(block, 2)), inner))

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = residualise(c, least_squares_operator(c[train]) @ x[train], x)
        axes = principal_components(z[train], p)
        return axes.s, z @ axes.v

    y = x @ rng.standard_normal((70, v)) + 2 * rng.standard_normal((n, v)) + c
    y[:, 3], y[: n // 6, 7] = 1.0, 2.0
    y = (y - y.mean(axis=0)).astype(dtype)
    plan = make_plan("x", nests, prepare, c, GRID, False, metric, nested, dtype)
    return plan, partition_rows(nests, c), y


def everything(plan: Plan, sets: RowSets, y: object) -> list[np.ndarray]:
    """Score all penalties, choose, test and predict."""
    reader = ResponseChunk.of(y, sets).read(plan)
    out = []
    for k in range(len(plan.inner)):
        curve = reader.choose(k)
        best, score = best_penalty(curve)
        rows = np.sort(np.concatenate([sets.rows[one.held] for one in plan.outer[k]]))
        out += [as_numpy(curve), best, score, *(a for piece in reader.test(k, best) for a in piece)]
        out += list(reader.predict(k, best, rows))
    return out


REGIMES = pytest.mark.parametrize(
    ("p", "nested"), [(6, True), (6, False), (FEW + 8, False), (None, True), (None, False)], ids=str
)


@REGIMES
@pytest.mark.parametrize("metric", ["r2", "r"])
def test_torch_gives_what_numpy_gives(p: int | None, metric: str, nested: bool) -> None:
    plan, sets, y = made(p, metric, nested, np.float64)
    for ours, theirs in zip(
        everything(plan, sets, y), everything(plan, sets, torch.from_numpy(y)), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, atol=1e-9)


@REGIMES
def test_any_array_of_the_standard_will_do(p: int | None, nested: bool) -> None:
    """array_api_strict refuses whatever the standard does not promise."""
    plan, sets, y = made(p, "r2", nested, np.float64)
    strict = array_api_strict.asarray(y)
    for ours, theirs in zip(everything(plan, sets, y), everything(plan, sets, strict), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-9)


@pytest.mark.parametrize("nested", [True, False], ids=["axes anew", "outer axes"])
@pytest.mark.parametrize("metric", ["r2", "r"])
@pytest.mark.parametrize("p", [COMPILED, 15, FEW])
def test_compiled_code_gives_what_numpy_gives(
    p: int, metric: str, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constant targets, pieces of a fold, and a number of targets that no vector divides included."""
    plan, sets, y = made(p, metric, nested, v=301)
    reader = ResponseChunk.of(y, sets).read(plan)
    assert scoring.can_compile(plan)
    ours = list(reader.folds())
    monkeypatch.setattr(scoring, "has_numba", lambda: False)
    theirs = list(ResponseChunk.of(y, sets).read(plan).folds())
    for a, b in zip(ours, theirs, strict=True):
        same = a.best == b.best
        assert same.mean() > 0.99
        np.testing.assert_allclose(a.inner, b.inner, atol=2e-5)
        for piece, other in zip(a.tested, b.tested, strict=True):
            for mine, numpys in zip(piece, other, strict=True):
                np.testing.assert_allclose(mine[same], numpys[same], rtol=1e-4, atol=2e-5)
    assert np.isnan(ours[0].tested[0][0][[3, 7]]).all()
    assert np.isinf(ours[0].inner[3])


def test_axes_of_unequal_number_are_padded_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features whose rank falls where some rows are left out."""
    rng = np.random.default_rng(2)
    n, c = 60, np.zeros((60, 0))
    x = rng.standard_normal((n, 5))
    x[20:, 4] = x[20:, 3]  # one axis less without the first rows
    nests = []
    for block in np.array_split(np.arange(n), 3):
        train = np.setdiff1d(np.arange(n), block)
        nests.append(
            NestedFold(train, (block,), tuple((np.setdiff1d(train, b), b) for b in np.array_split(train, 2)))
        )

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = x - x[train].mean(axis=0)
        axes = principal_components(z[train])
        return axes.s, z @ axes.v

    plan, sets = make_plan("x", nests, prepare, c, GRID, False, "r2"), partition_rows(nests, c)
    assert {t.shrink.shape[1] for t in plan.tasks} == {4, 5}
    y = (x[:, :1] + rng.standard_normal((n, 33))).astype(np.float32)
    y -= y.mean(axis=0)
    found = []
    for numba in (True, False):
        monkeypatch.setattr(scoring, "has_numba", lambda numba=numba: numba)
        found.append(list(ResponseChunk.of(y, sets).read(plan).folds()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.best, b.best)
        np.testing.assert_allclose(a.inner, b.inner, atol=1e-5)
        np.testing.assert_allclose(a.tested[0], b.tested[0], rtol=1e-4, atol=1e-5)
