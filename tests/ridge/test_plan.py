"""The engine against a plain double loop in float64: same scores, penalties and predictions, whatever the shapes."""

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
from langcortex.ridge.plan import FEW, NestedFold, Plan, partition_rows
from langcortex.ridge.planner import make_plan
from langcortex.ridge.solve import ResponseChunk

GRID = np.logspace(-2, 4, 7)


def nests_of(n: int, outer: int, inner: int) -> list[NestedFold]:
    """Cut rows into contiguous blocks, outside and inside."""
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
        axes = principal_components(z[train], p, power)
        return axes.s, z @ axes.v

    return prepare


def plain(
    x: np.ndarray,
    y: np.ndarray,
    c: np.ndarray,
    nests: list[NestedFold],
    p: int | None,
    metric: str,
    nested: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Do all of it the long way: (folds, penalties, targets) inner scores, and r, SSE, SST of every penalty outside."""

    def ridge(train: np.ndarray, held: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = residualise(c, least_squares_operator(c[whole]) @ x[whole], x)
        axes = principal_components(z[whole], p)
        scores = z @ axes.v
        scores, target = (residualise(c, least_squares_operator(c[train]) @ a[train], a) for a in (scores, y))
        u, s, vt = np.linalg.svd(scores[train], full_matrices=False)
        # a penalty on the axes is a penalty on their coordinates
        found = [scores[held] @ (vt.T * (s / (s**2 + a))) @ (u.T @ target[train]) for a in GRID[::-1]]
        return np.array(found), target[held]

    def score(prediction: np.ndarray, held: np.ndarray) -> np.ndarray:
        if metric == "r2":
            return 1 - ((held - prediction) ** 2).sum(axis=1) / (held**2).sum(axis=0)
        return correlate(prediction, held)

    def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=0)
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=0))

    inner, r, sse, sst = [], [], [], []
    for nest in nests:
        parts = [score(*ridge(t, h, t if nested else nest.train)) for t, h in nest.inner]
        inner.append(np.mean(parts, axis=0))
        predicted, held = ridge(nest.train, nest.pieces[0], nest.train)
        r.append(correlate(predicted, held))
        sse.append(((held - predicted) ** 2).sum(axis=1))
        sst.append((held**2).sum(axis=0))
    return np.array(inner), np.array(r), np.array(sse), np.array(sst)


def ours(
    plan: Plan, nests: list[NestedFold], y: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    reader = ResponseChunk(response_moments(y, partition_rows(nests, c))).read(plan)
    curves, tested = [], []
    for k in range(len(nests)):
        curves.append(reader.choose(k))
        n = y.shape[1]
        tested.append([np.array(reader.test(k, np.full(n, a))[0]) for a in range(len(GRID))])
    return np.array(curves), tested


@pytest.mark.parametrize("nested", [True, False], ids=["axes anew", "outer axes"])
@pytest.mark.parametrize("metric", ["r2", "r"])
@pytest.mark.parametrize("p", [1, 6, FEW, FEW + 5, None], ids=str)
def test_scores_of_every_penalty_are_those_of_a_plain_double_loop(
    rng: np.random.Generator, p: int | None, metric: str, nested: bool
) -> None:
    """In float64 to ten digits, with few axes and with many."""
    n, d, v = 90, 60, 7
    x, c = rng.standard_normal((n, d)) * np.arange(d, 0, -1), rng.standard_normal((n, 2))
    y = (
        x[:, :3] @ rng.standard_normal((3, v)) * 0.1
        + rng.standard_normal((n, v))
        + c @ rng.standard_normal((2, v))
    )
    y -= y.mean(axis=0)
    nests = nests_of(n, 3, 3)
    plan = make_plan("x", nests, preparer(x, c, p), c, GRID, False, metric, nested, np.float64)
    curves, tested = ours(plan, nests, y, c)
    inner, r, sse, sst = plain(x, y, c, nests, p, metric, nested)
    np.testing.assert_allclose(curves, inner, atol=1e-9, rtol=1e-8)
    found = np.array(tested)  # folds, penalties, (r, sse, sst), targets
    np.testing.assert_allclose(found[:, :, 0], r, atol=1e-9)
    np.testing.assert_allclose(found[:, :, 1], sse, rtol=1e-8)
    np.testing.assert_allclose(found[:, 0, 2], sst, rtol=1e-9)


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
    """Whatever the numbers of rows, features, confounds and folds, the units of the responses and their offset."""
    rng = np.random.default_rng(seed)
    x, c = rng.standard_normal((n, d)), rng.standard_normal((n, n_confounds))
    y = (rng.standard_normal((n, 5)) + x[:, :1] + offset) * scale
    y -= y.mean(axis=0)
    nests = nests_of(n, outer, inner)
    found = []
    for dtype in (np.float64, np.float32):
        plan = make_plan("x", nests, preparer(x, c, None), c, GRID, True, "r2", True, dtype)
        found.append(ours(plan, nests, y.astype(dtype), c))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=3e-4, rtol=3e-4)
    r = [np.array(tested)[:, :, 0] for _, tested in found]
    close = np.abs(r[0] - r[1]) < 3e-4
    assert close[np.isfinite(r[0])].mean() > 0.99
    np.testing.assert_array_equal(np.isnan(r[0]), np.isnan(r[1]))


def test_constant_and_nearly_constant_targets_score_nan_and_their_neighbours_do_not_notice(
    rng: np.random.Generator,
) -> None:
    x, c = rng.standard_normal((60, 8)), np.zeros((60, 0))
    y = rng.standard_normal((60, 5)).astype(np.float32)
    nests = nests_of(60, 3, 2)
    plan = make_plan("x", nests, preparer(x, c, None), c, GRID, False, "r2")
    before, _ = ours(plan, nests, y, c)
    odd = y.copy()
    odd[:20, 1] = 3.7  # constant in the first held-out block
    odd[:, 3] = 1e-3 + 1e-12 * y[:, 3]  # constant but for rounding
    after, tested = ours(plan, nests, odd, c)
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
    nests = nests_of(30, 3, 2)
    plan = make_plan("x", nests, preparer(low, c, None), c, GRID, False, "r2", True, np.float64)
    assert plan.n_axes == 2
    curves, tested = ours(plan, nests, y, c)
    assert np.isfinite(curves).all()
    assert np.isfinite(np.array(tested)).all()


def test_the_regime_is_stated_and_is_the_cheapest(rng: np.random.Generator) -> None:
    """Few axes: pairs. More, and few held-out rows: axes; many held-out rows: pairs. As many as training rows: kernel."""
    x, c = rng.standard_normal((150, 60)), np.zeros((150, 0))

    def regime(p: int | None, n_inner: int) -> str:
        plan = make_plan("x", nests_of(150, 3, n_inner), preparer(x, c, p), c, GRID, False, "r2", False)
        return plan.regime

    found = [regime(FEW, 8), regime(FEW + 1, 8), regime(FEW + 1, 2), regime(None, 8)]
    assert found == ["pairs", "axes", "pairs", "kernel"]


def test_axes_of_one_length_are_scored_all_the_same(rng: np.random.Generator) -> None:
    """An orthogonal design, where no pair of axes can be divided, few axes and many."""
    n, c = 120, np.zeros((120, 0))
    nests, y = nests_of(n, 3, 2), rng.standard_normal((n, 5))
    for p in (6, FEW + 8):
        unit = np.linalg.qr(rng.standard_normal((n, p)))[0]
        prepare = lambda train, unit=unit: (np.ones(unit.shape[1]), unit)  # noqa: E731
        plans = [
            make_plan("x", nests, prepare, c, GRID, False, "r2", True, np.float64, r)
            for r in ("auto", "axes")
        ]
        assert plans[0].regime == ("pairs" if p <= FEW else "axes")
        first, second = (ours(plan, nests, y - y.mean(axis=0), c)[0] for plan in plans)
        np.testing.assert_allclose(first, second, atol=1e-10)


@pytest.mark.parametrize("nested", [True, False], ids=["axes anew", "outer axes"])
@pytest.mark.parametrize("p", [5, FEW + 8, None], ids=str)
@pytest.mark.parametrize("metric", ["r2", "r"])
def test_every_regime_gives_the_same_and_can_be_asked_for(
    rng: np.random.Generator, p: int | None, metric: str, nested: bool
) -> None:
    n = 120
    x, c, nests = rng.standard_normal((n, 60)), rng.standard_normal((n, 1)), nests_of(n, 3, 2)
    y = x[:, :4] @ rng.standard_normal((4, 6)) + rng.standard_normal((n, 6))
    y -= y.mean(axis=0)
    found = []
    for regime in ("pairs", "axes", "kernel"):
        plan = make_plan("x", nests, preparer(x, c, p), c, GRID, True, metric, nested, np.float64, regime)
        assert plan.regime == regime
        found.append(ours(plan, nests, y, c))
    for curves, tested in found[1:]:
        np.testing.assert_allclose(curves, found[0][0], atol=1e-10)
        np.testing.assert_allclose(np.array(tested), np.array(found[0][1]), atol=1e-9)
    with pytest.raises(FitError, match=r"No regime is called 'fast'\. There are: auto, pairs, axes, kernel"):
        make_plan("x", nests, preparer(x, c, p), c, GRID, True, metric, nested, np.float64, "fast")


@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("metric", ["r2", "r"])
def test_blocks_left_out_of_a_complete_decomposition_are_predicted_exactly(
    rng: np.random.Generator, metric: str, relative: bool, gap: int
) -> None:
    """More features than rows: inner folds follow from the outer fold's axes, also where rows between are used by neither."""
    n, c = 60, rng.standard_normal((60, 2))
    x, y = rng.standard_normal((n, 150)) * np.arange(1, 151) ** -0.5, rng.standard_normal((n, 6))
    y[:, :3] += x[:, :5] @ rng.standard_normal((5, 3))
    nests = [
        NestedFold(
            one.train, one.pieces, tuple((t[(t < h[0] - gap) | (t > h[-1] + gap)], h) for t, h in one.inner)
        )
        for one in nests_of(n, 3, 4)
    ]
    first, second = (
        make_plan("x", nests, preparer(x, c, None), c, GRID, relative, metric, False, np.float64, regime)
        for regime in ("axes", "kernel")
    )
    assert all(first.tasks[one.task].turn is not None for group in first.inner for one in group)
    assert all(second.tasks[one.task].turn is None for group in second.inner for one in group)
    (curves, tested), (others, again) = (ours(plan, nests, y - y.mean(axis=0), c) for plan in (first, second))
    np.testing.assert_allclose(others, curves, atol=1e-9)
    np.testing.assert_allclose(np.array(again), np.array(tested), atol=1e-9)


def test_training_sets_of_two_folds_are_prepared_once(rng: np.random.Generator) -> None:
    """Whole runs outside and inside: the rows without runs j and k serve two outer folds."""
    rows, c = np.arange(50), np.zeros((50, 0))
    blocks = np.array_split(rows, 5)
    nests = []
    for k, block in enumerate(blocks):
        train = np.setdiff1d(rows, block)
        inner = tuple((np.setdiff1d(train, b), b) for j, b in enumerate(blocks) if j != k)
        nests.append(NestedFold(train, (block,), inner))
    asked = []
    prepare = preparer(rng.standard_normal((50, 4)), c, None)

    def counted(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(train)
        return prepare(train)

    make_plan("x", nests, counted, c, GRID, False, "r2")
    assert len(asked) == 5 + 10
    assert len(partition_rows(nests, c).segments) == 5


def test_axes_from_products_of_rows_are_those_from_features(rng: np.random.Generator) -> None:
    x, c = rng.standard_normal((60, 200)), rng.standard_normal((60, 2)) + 5
    train = np.setdiff1d(np.arange(60), np.arange(20, 30))
    around = x - x.mean(axis=0)
    for p in (2, 10, None):
        s, coordinates = kernel_components(around @ around.T, np.column_stack([np.ones(60), c]), train, p)
        other, theirs = preparer(x, c, p)(train)
        np.testing.assert_allclose(s, other, rtol=1e-10)
        np.testing.assert_allclose(np.abs(coordinates), np.abs(theirs), atol=1e-8)


def test_plans_are_found_again_and_the_least_recently_used_dropped_for_memory(
    rng: np.random.Generator,
) -> None:
    c, nests = np.zeros((40, 0)), nests_of(40, 2, 2)
    made = []

    def make() -> Plan:
        made.append(1)
        return make_plan("x", nests, preparer(rng.standard_normal((40, 3)), c, None), c, GRID, False, "r2")

    plans = PreparedCache(max_bytes=2.5 * make().n_bytes)
    made.clear()
    first = plans.get("a", make)
    assert plans.get("a", make) is first
    plans.get("b", make)
    plans.get("a", make)  # used again, so "b" is the oldest
    plans.get("c", make)
    assert (list(plans.entries), len(made)) == (["a", "c"], 3)
    small = PreparedCache(max_bytes=10)
    small.get("a", make)
    assert not small.entries
