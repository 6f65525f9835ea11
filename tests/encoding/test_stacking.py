"""Stacking: convex weights that a solver agrees with, learnt in training, on what was planted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.encoding.stacking import simplex_weights, stack
from langcortex.errors import FitError


@pytest.fixture
def planted(rng, arrays_design):
    """Five runs; targets follow space a (0–9), b (10–19), both (20–29) or nothing; c is noise."""
    run = np.repeat([f"run-{i}" for i in range(5)], 40)
    X = {name: rng.standard_normal((200, p)) for name, p in (("a", 6), ("b", 5), ("c", 70))}
    a, b = (X[n] @ rng.standard_normal((X[n].shape[1], 40)) / 2 for n in ("a", "b"))
    follows_a = np.isin(np.arange(40) // 10, (0, 2))
    follows_b = np.isin(np.arange(40) // 10, (1, 2))
    y = a * follows_a + b * follows_b + rng.standard_normal((200, 40))
    return arrays_design(X, y.astype(np.float32), run)


def test_weights_go_where_the_truth_is(planted):
    stacked = stack(planted, ["a", "b", "c"], Protocol(), keep_predictions=True)
    w = stacked.weight.mean(axis=1)
    np.testing.assert_allclose(stacked.weight.sum(axis=0), 1.0)
    assert (stacked.weight >= 0).all()
    assert w[0, :10].min() > 0.6
    assert w[1, 10:20].min() > 0.6
    assert w[:2, 20:30].mean(axis=1).min() > 0.35
    assert w[2, :30].max() < 0.4
    r2 = score(stacked.encoding).r2
    alone = np.stack([score(fit(planted, s, Protocol())).r2 for s in "abc"])
    assert (r2[20:30] > alone[:, 20:30].max(axis=0)).all()
    assert (r2[:30] > alone[:, :30].max(axis=0) - 0.05).all()
    assert abs(r2[30:].mean()) < 0.02
    np.testing.assert_allclose(
        stacked.product_measure.sum(axis=0), stacked.encoding.sst - stacked.encoding.sse, rtol=1e-4, atol=1e-3
    )


def test_one_space_is_what_fit_gives(planted):
    for change in ({}, {"choose_by": "r"}, {"pca": 3}, {"confounds": ("b",)}, {"standardise": "run"}):
        protocol = replace(Protocol(), **change)
        expected, stacked = (
            fit(planted, "a", protocol, keep_predictions=True),
            stack(planted, ["a"], protocol, keep_predictions=True),
        )
        np.testing.assert_array_equal(stacked.penalty[0], expected.penalty)
        np.testing.assert_array_equal(stacked.weight, 1.0)
        for name in ("r", "sse", "sst", "predicted", "observed"):
            np.testing.assert_allclose(
                getattr(stacked.encoding, name), getattr(expected, name), rtol=1e-4, atol=2e-5
            )


def test_the_mixture_is_the_weighted_sum_of_single_fits_and_weights_come_from_inner_folds(planted):
    """Predictions are those of single fits, mixed; weights minimise the error of held-out training rows."""
    stacked = stack(planted, ["a", "b", "c"], Protocol(), keep_predictions=True)
    singles = [fit(planted, s, Protocol(), keep_predictions=True) for s in "abc"]
    np.testing.assert_array_equal(stacked.penalty, np.stack([e.penalty for e in singles]))
    run = planted.run
    for k, outer in enumerate(dict.fromkeys(run.tolist())):
        here, train = run == outer, run != outer
        mixed = sum(w * e.predicted[here] for w, e in zip(stacked.weight[:, k], singles, strict=True))
        np.testing.assert_allclose(stacked.encoding.predicted[here], mixed, atol=1e-5)
        # each training run predicted from the other training runs, at the penalty chosen in this fold
        residuals = []
        for s, e in zip("abc", singles, strict=True):
            inner = np.full((train.sum(), 40), np.nan)
            for target in (0, 15, 25, 35):
                only = replace(
                    planted, X={s: planted.X[s][train]}, Y={0.0: planted.Y[0.0][train][:, [target]]},
                    run=run[train], ids=planted.ids[train], scans=planted.scans[train],
                    space=replace(planted.space, names=planted.space.names[[target]]),
                )  # fmt: skip
                one = fit(only, s, Protocol(penalties=(float(e.penalty[k, target]),)), keep_predictions=True)
                inner[:, target] = (one.observed - one.predicted)[:, 0]
            residuals.append(inner)
        for target in (0, 15, 25, 35):
            columns = np.stack([r[:, target] for r in residuals], axis=1)
            products, w = columns.T @ columns, stacked.weight[:, k, target]
            best = _slsqp(products)
            assert w @ products @ w == pytest.approx(best @ products @ best, rel=1e-5)
            if target != 35:  # where nothing is predicted the minimum is flat
                np.testing.assert_allclose(w, best, atol=2e-3)


def _slsqp(products):
    n, scale = len(products), np.trace(products)
    result = optimize.minimize(
        lambda w: w @ products @ w / scale, np.full(n, 1 / n), jac=lambda w: 2 * products @ w / scale,
        bounds=[(0, 1)] * n, constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        method="SLSQP", options={"ftol": 1e-13, "maxiter": 500},
    )  # fmt: skip
    return result.x


@settings(max_examples=60, deadline=None)
@given(
    n_spaces=st.integers(1, 6), n_rows=st.integers(1, 20), size=st.floats(-5, 5), seed=st.integers(0, 10**6)
)
def test_weights_meet_the_conditions_of_the_minimum(n_spaces, n_rows, size, seed):
    """Where a weight is above 0 the gradient is at its least; elsewhere it is no lower. Also for singular products."""
    rng = np.random.default_rng(seed)
    residuals = 10**size * (rng.standard_normal((n_rows, 1)) + rng.standard_normal((n_rows, n_spaces)))
    products = residuals.T @ residuals
    w = simplex_weights(products[None])[0]
    assert w.sum() == pytest.approx(1.0)
    assert (w >= 0).all()
    gradient = products @ w / np.trace(products)
    assert (gradient[w > 1e-6] < gradient.min() + 2e-5).all()
    assert w @ products @ w <= _slsqp(products) @ products @ _slsqp(products) + 1e-5 * np.trace(products)


def test_equal_spaces_share_equally_and_a_perfect_or_silent_one_is_no_crash():
    e = np.random.default_rng(0).standard_normal((30, 1))
    e -= e.mean()
    twins = np.hstack([e, e, e + 3.0])
    np.testing.assert_allclose(simplex_weights((twins.T @ twins)[None])[0], [0.5, 0.5, 0.0], atol=1e-3)
    np.testing.assert_allclose(simplex_weights(np.zeros((1, 2, 2))), 0.5)
    np.testing.assert_allclose(
        simplex_weights(np.array([[[0.0, 0.0], [0.0, 2.0]]]))[0], [1.0, 0.0], atol=1e-6
    )


def test_undefined_targets_are_nan_and_their_neighbours_do_not_notice(planted):
    y = planted.Y[0.0].copy()
    y[:, 1], y[4, 2] = 0.1, np.nan
    whole, stacked = (
        stack(planted, ["a", "b"], Protocol()),
        stack(replace(planted, Y={0.0: y}), ["a", "b"], Protocol()),
    )
    for values in (stacked.encoding.r, stacked.encoding.sse, stacked.weight, stacked.encoding.inner):
        assert np.isnan(values[..., [1, 2]]).all()
    keep = np.delete(np.arange(40), [1, 2])
    np.testing.assert_allclose(stacked.weight[..., keep], whole.weight[..., keep], atol=2e-3)
    np.testing.assert_allclose(stacked.encoding.r[:, keep], whole.encoding.r[:, keep], atol=1e-4)


def test_held_out_responses_take_no_part_in_weights(planted):
    y = planted.Y[0.0].copy()
    y[planted.run == "run-1"] = 50 * np.random.default_rng(1).standard_normal((40, 40))
    one, two = (stack(d, ["a", "b", "c"], Protocol()) for d in (planted, replace(planted, Y={0.0: y})))
    np.testing.assert_allclose(one.weight[:, 1], two.weight[:, 1], atol=1e-4)


def test_mistakes_are_named(planted):
    with pytest.raises(FitError, match="'z' is not among the feature spaces: a, b, c"):
        stack(planted, ["a", "z"], Protocol())
    with pytest.raises(FitError, match="named twice"):
        stack(planted, ["a", "a"], Protocol())
