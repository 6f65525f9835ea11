"""Features that are constant over held-out rows predict nothing there: their r is undefined, never 1 or −1."""

import numpy as np
import pytest
from scipy import linalg

from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.errors import FitError
from langcortex.features.controls.oasm import smoothed_identity
from langcortex.ridge.decomposition import leading_eigenpairs

SIZES = ((30,) * 9, (60, 50, 40, 55))


def _design(arrays_design, rng, sizes, dtype, sigma=1.0):
    run = np.concatenate([np.repeat(f"run-{i}", n) for i, n in enumerate(sizes)])
    y = rng.standard_normal((len(run), 7)).astype(dtype)
    return arrays_design({"oasm": smoothed_identity(run, sigma)}, y, run)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("pca", [15, None])
@pytest.mark.parametrize("inner", ["runs", 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oasm_of_left_out_runs_has_no_r(arrays_design, rng, sizes, pca, inner, dtype):
    """Columns of a left-out run are constant in training: rounding used to score r = ±1."""
    design = _design(arrays_design, rng, sizes, dtype)
    for standardise in ("training", "run", "none"):
        for nested in (True, False):
            protocol = Protocol(pca=pca, inner=inner, standardise=standardise, nested_axes=nested)
            encoding = fit(design, "oasm", protocol)
            assert np.isnan(encoding.r).all()
            assert np.isfinite(encoding.sst).all()
            assert np.abs(score(encoding).r2).max() < 0.05  # a constant predicts what the training mean does


def test_a_feature_that_is_constant_in_one_run_is_undefined_there_and_nowhere_else(arrays_design, rng):
    run = np.repeat(["run-1", "run-2", "run-3", "run-4"], 40)
    x = rng.standard_normal((160, 3))
    x[run == "run-2"] = [0.3, -1.0, 2.0]
    y = x @ rng.standard_normal((3, 5)) + 0.1 * rng.standard_normal((160, 5))
    encoding = fit(arrays_design({"x": x}, y.astype(np.float32), run), "x", Protocol())
    constant = encoding.segments == "run-2"
    assert np.isnan(encoding.r[constant]).all()
    assert (encoding.r[~constant] > 0.9).all()


def test_small_features_that_vary_keep_their_r(arrays_design, rng):
    """A run whose features vary a ten-thousandth as much as elsewhere is scored as ever."""
    run = np.repeat(["run-1", "run-2", "run-3"], 40)
    x = rng.standard_normal((120, 2))
    x[run == "run-2"] *= 1e-4
    y = np.where(run == "run-2", 1e4, 1.0)[:, None] * (x @ np.ones((2, 4)))
    encoding = fit(arrays_design({"x": x}, y, run), "x", Protocol(standardise="none"))
    assert (encoding.r[encoding.segments == "run-2"] > 0.99).all()


@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.0])
def test_equal_eigenvalues_are_all_found(sigma):
    """Equal runs give equal eigenvalues, and centred rows have a constant null vector."""
    x = smoothed_identity(np.repeat([f"run-{i}" for i in range(8)], 25), sigma)
    gram = (x - x.mean(axis=0)) @ (x - x.mean(axis=0)).T
    gram -= gram.mean(axis=0)
    value, vector = leading_eigenpairs(gram, 15)
    np.testing.assert_allclose(value, linalg.eigvalsh(gram)[::-1][:15], rtol=1e-9)
    np.testing.assert_allclose(vector.T @ vector, np.eye(15), atol=1e-9)
    np.testing.assert_allclose(gram @ vector, vector * value, atol=1e-9 * value[0])


def test_runs_of_random_lengths_end_in_scores_or_a_sentence(arrays_design, rng):
    """A training set without components came before one with some: shapes (0, 7) and (15, 7)."""
    for _ in range(12):
        sizes = rng.integers(4, 40, rng.integers(2, 10)).tolist()
        design = _design(arrays_design, rng, sizes, np.float32, float(rng.choice([0, 1, 3])))
        for standardise in ("run", "training"):
            try:
                encoding = fit(design, "oasm", Protocol(pca=15, standardise=standardise))
            except FitError:
                continue
            assert np.isnan(encoding.r).all()
