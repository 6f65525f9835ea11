"""The engine against a plain double loop in float64: same scores, penalties and predictions, for all shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langcortex.encoding.prepare import PreparedCache
from langcortex.errors import FitError
from langcortex.ridge.decomposition import (
    kernel_components,
    least_squares_operator,
    principal_components,
    residualise,
)
from langcortex.ridge.moments import response_moments
from langcortex.ridge.plan import FEW_COMPONENTS, NestedFold, Plan, partition_rows
from langcortex.ridge.planner import make_plan
from langcortex.ridge.solve import ResponseChunk

GRID = np.logspace(-2, 4, 7)


def nested_folds(n: int, outer: int, inner: int) -> list[NestedFold]:
    """Split rows into contiguous blocks, outside and inside."""
    rows = np.arange(n)
    out = []
    for block in np.array_split(rows, outer):
        train = np.setdiff1d(rows, block)
        inside = tuple((np.setdiff1d(train, part), part) for part in np.array_split(train, inner))
        out.append(NestedFold(train, (block,), inside))
    return out


def preparer(x: np.ndarray, confounds: np.ndarray, p: int | None):  # type: ignore[no-untyped-def]
    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        power = float(np.square(x[train]).sum())
        z = residualise(confounds, least_squares_operator(confounds[train]) @ x[train], x)
        components = principal_components(z[train], p, power)
        return components.s, z @ components.v

    return prepare


def plain(
    x: np.ndarray,
    y: np.ndarray,
    c: np.ndarray,
    folds: list[NestedFold],
    p: int | None,
    metric: str,
    nested: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute all of it fold by fold: (folds, penalties, targets) inner scores, and r, SSE, SST of every penalty outside."""

    def ridge(train: np.ndarray, heldout: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = residualise(c, least_squares_operator(c[parent]) @ x[parent], x)
        components = principal_components(z[parent], p)
        scores = z @ components.v
        scores, target = (residualise(c, least_squares_operator(c[train]) @ a[train], a) for a in (scores, y))
        u, s, vt = np.linalg.svd(scores[train], full_matrices=False)
        # a penalty on the components is a penalty on their scores
        predicted = [scores[heldout] @ (vt.T * (s / (s**2 + a))) @ (u.T @ target[train]) for a in GRID[::-1]]
        return np.array(predicted), target[heldout]

    def score(prediction: np.ndarray, observed: np.ndarray) -> np.ndarray:
        if metric == "r2":
            return 1 - ((observed - prediction) ** 2).sum(axis=1) / (observed**2).sum(axis=0)
        return correlate(prediction, observed)

    def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=0)
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=0))

    inner, r, sse, sst = [], [], [], []
    for fold in folds:
        parts = [score(*ridge(t, h, t if nested else fold.train)) for t, h in fold.inner]
        inner.append(np.mean(parts, axis=0))
        predicted, observed = ridge(fold.train, fold.segments[0], fold.train)
        r.append(correlate(predicted, observed))
        sse.append(((observed - predicted) ** 2).sum(axis=1))
        sst.append((observed**2).sum(axis=0))
    return np.array(inner), np.array(r), np.array(sse), np.array(sst)


def ours(
    plan: Plan, folds: list[NestedFold], y: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    reader = ResponseChunk(response_moments(y, partition_rows(folds, c))).read(plan)
    curves, tested = [], []
    for k in range(len(folds)):
        curves.append(reader.inner_scores(k))
        n = y.shape[1]
        tested.append([np.array(reader.score_segments(k, np.full(n, a))[0]) for a in range(len(GRID))])
    return np.array(curves), tested


@pytest.mark.parametrize("nested", [True, False], ids=["nested components", "outer components"])
@pytest.mark.parametrize("metric", ["r2", "r"])
@pytest.mark.parametrize("p", [1, 6, FEW_COMPONENTS, FEW_COMPONENTS + 5, None], ids=str)
def test_scores_of_every_penalty_are_those_of_a_plain_double_loop(
    rng: np.random.Generator, p: int | None, metric: str, nested: bool
) -> None:
    """In float64 to ten digits, with few components and with many."""
    n, d, v = 90, 60, 7
    x, c = rng.standard_normal((n, d)) * np.arange(d, 0, -1), rng.standard_normal((n, 2))
    y = (
        x[:, :3] @ rng.standard_normal((3, v)) * 0.1
        + rng.standard_normal((n, v))
        + c @ rng.standard_normal((2, v))
    )
    y -= y.mean(axis=0)
    folds = nested_folds(n, 3, 3)
    plan = make_plan("x", folds, preparer(x, c, p), c, GRID, False, metric, nested, np.float64)
    curves, tested = ours(plan, folds, y, c)
    inner, r, sse, sst = plain(x, y, c, folds, p, metric, nested)
    np.testing.assert_allclose(curves, inner, atol=1e-9, rtol=1e-8)
    scores = np.array(tested)  # folds, penalties, (r, sse, sst), targets
    np.testing.assert_allclose(scores[:, :, 0], r, atol=1e-9)
    np.testing.assert_allclose(scores[:, :, 1], sse, rtol=1e-8)
    np.testing.assert_allclose(scores[:, 0, 2], sst, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(24, 80),
    d=st.integers(1, 60),
    n_confounds=st.integers(0, 3),
    outer=st.integers(2, 4),
    inner=st.integers(2, 4),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    offset=st.sampled_from([0.0, 1e3]),
    seed=st.integers(0, 2**16),
)
def test_float32_agrees_with_float64_at_equal_penalty(
    n: int, d: int, n_confounds: int, outer: int, inner: int, scale: float, offset: float, seed: int
) -> None:
    """For any numbers of rows, features, confounds and folds, units of the responses and offset."""
    rng = np.random.default_rng(seed)
    x, c = rng.standard_normal((n, d)), rng.standard_normal((n, n_confounds))
    y = (rng.standard_normal((n, 5)) + x[:, :1] + offset) * scale
    y -= y.mean(axis=0)
    folds = nested_folds(n, outer, inner)
    results = []
    for dtype in (np.float64, np.float32):
        plan = make_plan("x", folds, preparer(x, c, None), c, GRID, True, "r2", True, dtype)
        results.append(ours(plan, folds, y.astype(dtype), c))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=3e-4, rtol=3e-4)
    r = [np.array(tested)[:, :, 0] for _, tested in results]
    close = np.abs(r[0] - r[1]) < 3e-4
    assert close[np.isfinite(r[0])].mean() > 0.99
    np.testing.assert_array_equal(np.isnan(r[0]), np.isnan(r[1]))


def test_constant_and_nearly_constant_targets_score_nan_and_their_neighbours_do_not_notice(
    rng: np.random.Generator,
) -> None:
    x, c = rng.standard_normal((60, 8)), np.zeros((60, 0))
    y = rng.standard_normal((60, 5)).astype(np.float32)
    folds = nested_folds(60, 3, 2)
    plan = make_plan("x", folds, preparer(x, c, None), c, GRID, False, "r2")
    before, _ = ours(plan, folds, y, c)
    odd = y.copy()
    odd[:20, 1] = 3.7  # constant in the first held-out block
    odd[:, 3] = 1e-3 + 1e-12 * y[:, 3]  # constant but for rounding
    after, tested = ours(plan, folds, odd, c)
    for k in range(3):
        np.testing.assert_array_equal(after[k][:, [0, 2, 4]], before[k][:, [0, 2, 4]])
    assert np.isnan(tested[0][0][:, 1]).all()
    assert np.isfinite(tested[1][0][:, 1]).all()
    assert all(np.isnan(t[0][:, 3]).all() for t in tested)


def test_features_of_lower_rank_and_fewer_rows_than_features_are_no_trouble(rng: np.random.Generator) -> None:
    low = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 50))
    c = np.zeros((30, 0))
    y = rng.standard_normal((30, 3))
    y -= y.mean(axis=0)
    folds = nested_folds(30, 3, 2)
    plan = make_plan("x", folds, preparer(low, c, None), c, GRID, False, "r2", True, np.float64)
    assert plan.n_components == 2
    curves, tested = ours(plan, folds, y, c)
    assert np.isfinite(curves).all()
    assert np.isfinite(np.array(tested)).all()


def test_a_plan_states_its_solver_which_is_the_cheapest(rng: np.random.Generator) -> None:
    """Few components: pairs. More, and few held-out rows: axes; many: pairs. As many as training rows: kernel."""
    x, c = rng.standard_normal((150, 60)), np.zeros((150, 0))

    def solver(p: int | None, n_inner: int) -> str:
        plan = make_plan("x", nested_folds(150, 3, n_inner), preparer(x, c, p), c, GRID, False, "r2", False)
        return plan.solver

    solvers = [
        solver(*shape)
        for shape in ((FEW_COMPONENTS, 8), (FEW_COMPONENTS + 1, 8), (FEW_COMPONENTS + 1, 2), (None, 8))
    ]
    assert solvers == ["pairs", "axes", "pairs", "kernel"]


def test_components_of_equal_singular_values_are_scored_all_the_same(rng: np.random.Generator) -> None:
    """An orthogonal design, where no pair of components can be divided, with few components and with many."""
    n, c = 120, np.zeros((120, 0))
    folds, y = nested_folds(n, 3, 2), rng.standard_normal((n, 5))
    for p in (6, FEW_COMPONENTS + 8):
        unit = np.linalg.qr(rng.standard_normal((n, p)))[0]
        prepare = lambda train, unit=unit: (np.ones(unit.shape[1]), unit)  # noqa: E731
        plans = [
            make_plan("x", folds, prepare, c, GRID, False, "r2", True, np.float64, r)
            for r in ("auto", "axes")
        ]
        assert plans[0].solver == ("pairs" if p <= FEW_COMPONENTS else "axes")
        first, second = (ours(plan, folds, y - y.mean(axis=0), c)[0] for plan in plans)
        np.testing.assert_allclose(first, second, atol=1e-10)


@pytest.mark.parametrize("nested", [True, False], ids=["nested components", "outer components"])
@pytest.mark.parametrize("p", [5, FEW_COMPONENTS + 8, None], ids=str)
@pytest.mark.parametrize("metric", ["r2", "r"])
def test_all_solvers_agree_and_can_be_chosen(
    rng: np.random.Generator, p: int | None, metric: str, nested: bool
) -> None:
    n = 120
    x, c, folds = rng.standard_normal((n, 60)), rng.standard_normal((n, 1)), nested_folds(n, 3, 2)
    y = x[:, :4] @ rng.standard_normal((4, 6)) + rng.standard_normal((n, 6))
    y -= y.mean(axis=0)
    results = []
    for solver in ("pairs", "axes", "kernel"):
        plan = make_plan("x", folds, preparer(x, c, p), c, GRID, True, metric, nested, np.float64, solver)
        assert plan.solver == solver
        results.append(ours(plan, folds, y, c))
    for curves, tested in results[1:]:
        np.testing.assert_allclose(curves, results[0][0], atol=1e-10)
        np.testing.assert_allclose(np.array(tested), np.array(results[0][1]), atol=1e-9)
    with pytest.raises(FitError, match=r"No solver is called 'fast'\. There are: auto, pairs, axes, kernel"):
        make_plan("x", folds, preparer(x, c, p), c, GRID, True, metric, nested, np.float64, "fast")


def is_rotated(plan: Plan) -> list[bool]:
    """Return whether the components of each inner fold are rotated."""
    numbers = [validation.training_set for fold in plan.inner for validation in fold]
    return [plan.training_sets[number].rotation is not None for number in numbers]


@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("metric", ["r2", "r"])
def test_rows_left_out_of_a_complete_decomposition_are_predicted_exactly(
    rng: np.random.Generator, metric: str, relative: bool, gap: int
) -> None:
    """More features than rows: inner folds follow from the outer components, also where rows between are used by neither."""
    n, c = 60, rng.standard_normal((60, 2))
    x, y = rng.standard_normal((n, 150)) * np.arange(1, 151) ** -0.5, rng.standard_normal((n, 6))
    y[:, :3] += x[:, :5] @ rng.standard_normal((5, 3))
    folds = [
        NestedFold(
            fold.train,
            fold.segments,
            tuple((t[(t < h[0] - gap) | (t > h[-1] + gap)], h) for t, h in fold.inner),
        )
        for fold in nested_folds(n, 3, 4)
    ]
    first, second = (
        make_plan("x", folds, preparer(x, c, None), c, GRID, relative, metric, False, np.float64, solver)
        for solver in ("axes", "kernel")
    )
    assert all(is_rotated(first))
    assert not any(is_rotated(second))
    (curves, tested), (kernel_curves, kernel_tested) = (
        ours(plan, folds, y - y.mean(axis=0), c) for plan in (first, second)
    )
    np.testing.assert_allclose(kernel_curves, curves, atol=1e-9)
    np.testing.assert_allclose(np.array(kernel_tested), np.array(tested), atol=1e-9)


def test_training_sets_that_folds_share_are_prepared_once(rng: np.random.Generator) -> None:
    """Whole runs outside and inside: the rows without runs j and k belong to two outer folds."""
    rows, c = np.arange(50), np.zeros((50, 0))
    blocks = np.array_split(rows, 5)
    folds = []
    for k, block in enumerate(blocks):
        train = np.setdiff1d(rows, block)
        inner = tuple((np.setdiff1d(train, b), b) for j, b in enumerate(blocks) if j != k)
        folds.append(NestedFold(train, (block,), inner))
    prepared = []
    prepare = preparer(rng.standard_normal((50, 4)), c, None)

    def count_calls(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prepared.append(train)
        return prepare(train)

    make_plan("x", folds, count_calls, c, GRID, False, "r2")
    assert len(prepared) == 5 + 10
    assert len(partition_rows(folds, c).blocks) == 5


def test_components_from_products_of_rows_are_those_from_features(rng: np.random.Generator) -> None:
    x, c = rng.standard_normal((60, 200)), rng.standard_normal((60, 2)) + 5
    train = np.setdiff1d(np.arange(60), np.arange(20, 30))
    around = x - x.mean(axis=0)
    for p in (2, 10, None):
        s, scores = kernel_components(around @ around.T, np.column_stack([np.ones(60), c]), train, p)
        s_of_features, scores_of_features = preparer(x, c, p)(train)
        np.testing.assert_allclose(s, s_of_features, rtol=1e-10)
        np.testing.assert_allclose(np.abs(scores), np.abs(scores_of_features), atol=1e-8)


def test_plans_are_found_again_and_the_least_recently_used_dropped_for_memory(
    rng: np.random.Generator,
) -> None:
    c, folds = np.zeros((40, 0)), nested_folds(40, 2, 2)
    calls = []

    def make() -> Plan:
        calls.append(1)
        return make_plan("x", folds, preparer(rng.standard_normal((40, 3)), c, None), c, GRID, False, "r2")

    plans = PreparedCache(max_bytes=2.5 * make().n_bytes)
    calls.clear()
    first = plans.get("a", make)
    assert plans.get("a", make) is first
    plans.get("b", make)
    plans.get("a", make)  # used again, so "b" is the oldest
    plans.get("c", make)
    assert (list(plans.entries), len(calls)) == (["a", "c"], 3)
    small = PreparedCache(max_bytes=10)
    small.get("a", make)
    assert not small.entries
