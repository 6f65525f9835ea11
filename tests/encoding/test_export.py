"""Predictions and weights on disk are those of the fit, whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from langcortex.arrays import pearson
from langcortex.encoding.export import array_on_disk, write_predictions, write_weights
from langcortex.encoding.folded_design import confound_columns
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.prepare import adjusted_features
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.errors import StoreError


@pytest.fixture
def design(rng, arrays_design):
    x = {"x": rng.standard_normal((60, 12)), "duration": rng.standard_normal((60, 1))}
    y = (x["x"][:, :2] @ rng.standard_normal((2, 9)) + rng.standard_normal((60, 9))).astype(np.float32)
    y[:, 4] = np.nan
    return arrays_design(x, y, np.repeat(["a", "b", "c"], 20))


def test_predictions_are_those_of_the_fit_and_give_its_scores(design, tmp_path: Path) -> None:
    protocol = Protocol(confounds=("duration",), n_nulls=0)
    encoding = fit(design, "x", protocol, keep_predictions=True)
    predicted, observed, rows = write_predictions(design, ["x"] * 3, protocol, encoding, tmp_path / "p")
    np.testing.assert_allclose(np.load(predicted), encoding.predicted, atol=1e-6)
    np.testing.assert_allclose(np.load(observed), encoding.observed, atol=1e-6)
    assert np.isnan(np.load(predicted)[:, 4]).all()
    table = pd.read_csv(rows, sep="\t")
    assert table.columns.tolist() == ["id", "run", "piece"]
    for piece, r in zip(encoding.segments, encoding.r, strict=True):
        here = (table.piece == piece).to_numpy()
        np.testing.assert_allclose(pearson(np.load(observed)[here], np.load(predicted)[here]), r, atol=1e-5)


@pytest.mark.parametrize("standardise", ["training", "run", "none"])
@pytest.mark.parametrize("pca", [None, 4])
def test_weights_on_features_give_the_predictions(design, tmp_path: Path, standardise: str, pca) -> None:
    protocol = Protocol(confounds=("duration",), n_nulls=0, standardise=standardise, pca=pca)
    encoding = fit(design, "x", protocol, keep_predictions=True)
    weights = np.load(write_weights(design, ["x"] * 3, protocol, encoding, tmp_path / "w.npy"))
    confounds = confound_columns(design, ["x"], protocol)
    known = [0, 1, 2, 3, 5, 6, 7, 8]
    for k, fold in enumerate(outer_folds(design.run, design.scans, protocol)):
        z = adjusted_features(design.X["x"], "x", design.run, protocol, confounds, fold.train)[fold.test]
        np.testing.assert_allclose(
            (z @ weights[k])[:, known], encoding.predicted[fold.test][:, known], atol=1e-5
        )


def test_weights_are_scikit_learns(design, tmp_path: Path) -> None:
    protocol = Protocol(confounds=(), n_nulls=0, relative=False)
    encoding = fit(design, "x", protocol)
    weights = np.load(write_weights(design, ["x"] * 3, protocol, encoding, tmp_path / "w.npy"))
    assert weights.shape == (3, 12, 9)
    for k, fold in enumerate(outer_folds(design.run, design.scans, protocol)):
        z = StandardScaler().fit(design.X["x"][fold.train]).transform(design.X["x"])[fold.train]
        y = np.asarray(design.Y[0.0])[fold.train]
        for target in (0, 3, 8):
            theirs = Ridge(encoding.penalty[k, target]).fit(z, y[:, target]).coef_
            np.testing.assert_allclose(weights[k, :, target], theirs, atol=1e-5)


def test_an_array_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with array_on_disk(tmp_path / "a.npy", (3, 4)) as out:
            out[0] = 1.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with (
        pytest.raises(StoreError, match="No space left on device"),
        array_on_disk(tmp_path / "a.npy", (3, 4)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
