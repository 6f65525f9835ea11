"""Ridge on principal components: against scikit-learn and himalaya, one decomposition for every penalty and target."""

import numpy as np
import pytest
from himalaya.ridge import RidgeCV
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from langcortex.arrays import chunks
from langcortex.ridge.decomposition import (
    learn_scale,
    least_squares_operator,
    principal_components,
    residualise,
    scaled_penalties,
)
from langcortex.ridge.multikernel import held_out_responses
from reference.ridge import predict, validate


def _validate(components, weight, h_new, y_new, alphas, metric):
    return validate(components, weight, h_new, held_out_responses(y_new, metric), alphas)


SHAPES = [(30, 8), (30, 30), (20, 70)]


@pytest.fixture(params=SHAPES, ids=["n > p", "n = p", "n < p"])
def data(request, rng):
    n, p = request.param
    mixing = rng.standard_normal((p, p)) * np.logspace(0, -1, p)
    x, x_new = rng.standard_normal((n, p)) @ mixing, rng.standard_normal((12, p)) @ mixing
    y = x @ rng.standard_normal((p, 5)) / np.sqrt(p) + rng.standard_normal((n, 5))
    y_new = x_new @ rng.standard_normal((p, 5)) / np.sqrt(p) + rng.standard_normal((12, 5))
    mean = x.mean(axis=0)
    return x - mean, y - y.mean(axis=0), x_new - mean, y_new - y.mean(axis=0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_predictions_equal_scikit_learn_for_a_penalty_per_target(data, dtype):
    x, y, x_new, _ = data
    alpha = np.array([0.1, 1.0, 10.0, 100.0, 1e4])
    components = principal_components(x)
    result = predict(components, (components.u.T @ y).astype(dtype), x_new @ components.v, alpha)
    expected = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(x, y).predict(x_new)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, atol=1e-8 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("n_components", [1, 4, 500])
def test_components_are_those_of_exact_pca(data, n_components):
    x = data[0]
    components = principal_components(x, n_components)
    pca = PCA(min(n_components, *x.shape), svd_solver="full").fit(x)
    k = len(components.s)
    assert k == (n_components if n_components < 8 else np.linalg.matrix_rank(x))
    np.testing.assert_allclose(components.s, pca.singular_values_[:k], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(components.v * pca.components_[:k].T, axis=0)), 1.0, atol=1e-6)
    np.testing.assert_allclose(components.u.T @ components.u, np.eye(k), atol=1e-6)
    np.testing.assert_allclose(
        (components.u * components.s) @ components.v.T, x @ components.v @ components.v.T, atol=1e-7
    )


def test_repeated_columns_leave_no_component_of_rounding_error(rng):
    x = rng.standard_normal((30, 3))
    x = np.hstack([x, x, x @ rng.standard_normal((3, 4))])
    assert len(principal_components(x - x.mean(axis=0)).s) == 3


def test_features_without_variance_have_no_components():
    components = principal_components(np.zeros((10, 4)))
    assert components.s.shape == (0,)
    assert np.isnan(components.mean_eigenvalue)


@pytest.mark.parametrize("metric", ["r2", "r"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scores_without_predictions_equal_scores_of_predictions(data, metric, dtype):
    x, y, x_new, y_new = data
    components = principal_components(x)
    alphas = np.logspace(4, -2, 7)
    result = _validate(
        components,
        (components.u.T @ y).astype(dtype),
        x_new @ components.v,
        y_new.astype(dtype),
        alphas,
        metric,
    )
    for a, row in zip(alphas, result, strict=True):
        p = Ridge(alpha=a, fit_intercept=False, solver="cholesky").fit(x, y).predict(x_new)
        for j in range(5):
            if metric == "r":
                expected = np.corrcoef(p[:, j], y_new[:, j])[0, 1]
            else:
                expected = 1 - np.sum((y_new[:, j] - p[:, j]) ** 2) / np.sum(y_new[:, j] ** 2)
            assert row[j] == pytest.approx(expected, abs=1e-8 if dtype == np.float64 else 2e-4)


def test_himalaya_agrees_on_one_penalty_per_target(data):
    x, y, x_new, _ = data
    alphas = np.logspace(-1, 3, 5)
    split = np.where(np.arange(len(x)) < 10, 0, -1)
    solver = RidgeCV(
        alphas=alphas,
        fit_intercept=False,
        solver_params={"local_alpha": True, "warn": False},
        cv=PredefinedSplit(split),
    )
    solver.fit(x, y)
    components = principal_components(x)
    np.testing.assert_allclose(
        predict(components, components.u.T @ y, x_new @ components.v, np.asarray(solver.best_alphas_)),
        solver.predict(x_new),
        atol=1e-6,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [20, 900, 3000])
def test_a_held_out_target_that_is_constant_scores_nan_and_no_other_does(rng, dtype, n):
    x, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 4)).astype(dtype)
    new, y_new = rng.standard_normal((n, 6)), rng.standard_normal((n, 4)).astype(dtype)
    components = principal_components(x - x.mean(axis=0))
    weight = components.u.T.astype(dtype) @ y
    for metric in ("r2", "r"):
        alone = _validate(components, weight, new @ components.v, y_new, np.array([10.0, 1.0]), metric)
        broken = y_new.copy()
        broken[:, 2] = 0.1
        result = _validate(components, weight, new @ components.v, broken, np.array([10.0, 1.0]), metric)
        assert np.isnan(result[:, 2]).all()
        np.testing.assert_array_equal(result[:, [0, 1, 3]], alone[:, [0, 1, 3]])


def test_chunks_contain_every_target_once():
    assert [s.stop - s.start for s in chunks(2500, 1000)] == [1000, 1000, 500]
    assert [s.stop - s.start for s in chunks(2000, 1000)] == [1000, 1000]
    assert chunks(0) == []


def test_relative_penalties_are_shares_of_the_mean_eigenvalue(data):
    x = data[0]
    components = principal_components(x)
    unit = np.trace(x.T @ x) / np.linalg.matrix_rank(x)
    grid = np.array([0.1, 10.0, 1.0])
    np.testing.assert_allclose(scaled_penalties(components, grid, True), unit * np.array([10.0, 1.0, 0.1]))
    np.testing.assert_array_equal(scaled_penalties(components, grid, False), [10.0, 1.0, 0.1])
    larger = principal_components(1000 * x)
    np.testing.assert_allclose(
        predict(
            larger,
            larger.u.T @ data[1],
            1000 * data[2] @ larger.v,
            scaled_penalties(larger, grid, True)[[0, 1, 2, 0, 1]],
        ),
        predict(
            components,
            components.u.T @ data[1],
            data[2] @ components.v,
            scaled_penalties(components, grid, True)[[0, 1, 2, 0, 1]],
        ),
        atol=1e-7,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scale_equals_scikit_learn_and_learns_from_its_rows_only(rng, dtype):
    x, new = (5 + 3 * rng.standard_normal((2, 20, 4))).astype(dtype)
    x[:, 2] = 0.1  # a constant column becomes 0
    scale = learn_scale(x)
    reference = StandardScaler().fit(x.astype(float))
    np.testing.assert_allclose(
        scale.apply(new)[:, [0, 1, 3]], reference.transform(new.astype(float))[:, [0, 1, 3]], atol=1e-6
    )
    np.testing.assert_allclose(scale.apply(x)[:, 2], 0.0, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_confounds_are_removed_as_linear_regression_removes_them(rng, dtype):
    c, c_new = (
        rng.standard_normal((25, 3)) * [1.0, 100.0, 0.1],
        rng.standard_normal((9, 3)) * [1.0, 100.0, 0.1],
    )
    c, c_new = np.hstack([c + 5, c[:, :1]]), np.hstack([c_new + 5, c_new[:, :1]])  # one column twice
    y, y_new = rng.standard_normal((2, 25, 6)).astype(dtype)
    y_new, original = y_new[:9], y_new[:9].copy()
    model = LinearRegression().fit(c, y.astype(float))
    coef = least_squares_operator(c) @ y
    atol = 1e-9 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(residualise(c_new, coef, y_new), y_new - model.predict(c_new), atol=atol)
    np.testing.assert_allclose(residualise(c, coef, y), y - model.predict(c), atol=atol)
    assert residualise(c, coef, y).dtype == dtype
    np.testing.assert_array_equal(y_new, original)  # the caller's array is left alone


def test_without_confounds_the_training_mean_is_removed(rng):
    y, new = rng.standard_normal((10, 3)), rng.standard_normal((4, 3))
    coef = least_squares_operator(np.empty((10, 0))) @ y
    np.testing.assert_allclose(residualise(np.empty((4, 0)), coef, new), new - y.mean(axis=0))


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="'mse'"):
        held_out_responses(np.zeros((3, 1)), "mse")
