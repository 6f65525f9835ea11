"""Results on disk: tables that read back as they were, a summary that is JSON, maps that lie where they belong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from langcortex import Protocol, Results, Space, compare
from langcortex.errors import StoreError
from langcortex.results.files import comparison_table, summarise, write_tables
from langcortex.results.results import COLUMNS, tidy

Made = Callable[..., Results]
N = 5


@pytest.fixture
def made(rng: np.random.Generator) -> Made:
    """Make results of two models (layers 2 and 4), a control and five targets, the third without data."""

    def make(subjects: tuple[str, ...] = ("01", "02", "average"), **changes: object) -> Results:
        rows = [
            (s, r, m, layer, g, k, value)
            for i, s in enumerate(subjects)
            for j, r in enumerate(("all", "run-1", "run-2"))
            for m, layers in (("base", (2, 4)), ("tuned", (2, 4)), ("duration", (None,)))
            for layer in layers
            for g in ("brain", "front")
            for k in ("r", "r2")
            for value in [0.1 * (m == "tuned") + 0.01 * i + 0.001 * j + (layer or 0) / 100]
        ]
        rows += [
            (s, "all", m, None, "brain", "r_chosen", float("nan"))
            for s in subjects
            for m in ("base", "tuned")
        ]
        one = rng.uniform(size=(2, N))
        one[:, 2] = np.nan
        results = Results(
            name="A study", settings={"seed": 3, "models": [{"source": "x", "revision": None}]}, protocol=Protocol(),
            counts={"words": 5}, models=("base", "tuned"), controls=("duration",),
            scores=pd.DataFrame(rows, columns=COLUMNS), maps={"base": one, "tuned": one + 1, "duration": one[:1]},
            layers={"base": np.array([2, 4]), "tuned": np.array([2, 4])}, chosen={"base": one[0], "tuned": one[1]},
            p={"base": one[0]}, p_corrected={"base": one[1]}, delays={"01": [6.0, 6.0]},
            chosen_layers={"base": {"01": [4, 4]}}, comparisons=(), space=Space("columns", np.array(list("abcde"))),
            versions={"langcortex": "0"}, warnings=("Mind.",),
        )  # fmt: skip
        return dataclasses.replace(results, **changes)

    return make


def test_scores_read_back_as_they_were(made: Made, tmp_path: Path) -> None:
    results = made()
    write_tables(results, tmp_path)
    table = pd.read_csv(tmp_path / "scores.tsv", sep="\t", dtype={"subject": str}, na_values=["n/a"], keep_default_na=False)  # fmt: skip
    assert list(table.columns) == COLUMNS
    pd.testing.assert_frame_equal(
        table, results.scores.assign(layer=results.scores.layer.astype(float)), check_dtype=False, rtol=1e-5
    )


def test_what_is_missing_is_n_a_and_layers_are_whole_numbers(made: Made, tmp_path: Path) -> None:
    write_tables(made(), tmp_path)
    lines = (tmp_path / "scores.tsv").read_text().splitlines()
    assert lines[1] == "01\tall\tbase\t2\tbrain\tr\t0.02"
    assert "01\tall\tduration\tn/a\tbrain\tr\t0" in lines
    assert "01\tall\tbase\tn/a\tbrain\tr_chosen\tn/a" in lines
    assert "nan" not in "".join(lines).lower()
    assert str(tidy(made().scores).layer.dtype) == "Int64"


def test_the_summary_is_json_without_surprises(made: Made, tmp_path: Path) -> None:
    write_tables(made(), tmp_path)
    text = (tmp_path / "summary.json").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads(text, parse_constant=refuse)
    assert read == json.loads(json.dumps(summarise(made())))
    assert read["best_layer"] == {"base": 4, "tuned": 4}
    assert read["settings"]["seed"] == 3
    assert (read["protocol"], read["leaks"], read["warnings"]) == ("rigorous", [], ["Mind."])


def test_curves_have_a_row_a_subject_and_leave_the_average_out(made: Made) -> None:
    results = made()
    curve = results.curve("tuned")
    assert results.unit == "subjects"
    assert curve.index.tolist() == ["01", "02"]
    assert curve.columns.tolist() == [2, 4]
    np.testing.assert_allclose(curve, [[0.12, 0.14], [0.13, 0.15]])
    np.testing.assert_allclose(results.by_run("tuned").loc["run-2"], [0.127, 0.147])
    assert "all" not in results.by_run("tuned").index


@pytest.mark.parametrize("subjects", [("01",), ("01", "average")])
def test_curves_of_one_subject_have_a_row_a_run(made: Made, subjects: tuple[str, ...]) -> None:
    results = made(subjects)
    assert results.unit == "runs"
    assert results.curve("base").index.tolist() == ["run-1", "run-2"]


def test_the_best_layer_is_the_highest_mean_and_none_without_scores(made: Made) -> None:
    results = made()
    assert results.best_layer("base") == 4
    scores = results.scores
    nothing = dataclasses.replace(results, scores=scores.assign(value=np.nan))
    assert nothing.best_layer("base") is None
    lower = scores.assign(value=scores.value.where(scores.layer != 4, -1.0))
    assert dataclasses.replace(results, scores=lower).best_layer("base") == 2


def test_columns_are_written_as_tables_of_names(made: Made, tmp_path: Path) -> None:
    results = made()
    paths = write_tables(results, tmp_path)
    names = {p.name for p in (tmp_path / "maps").iterdir()}
    assert names == {
        "base_layer-04_stat-r.tsv", "base_layer-chosen_stat-r.tsv", "base_layer-chosen_stat-p.tsv",
        "base_layer-chosen_stat-pfwe.tsv", "tuned_layer-04_stat-r.tsv", "tuned_layer-chosen_stat-r.tsv",
        "duration_stat-r.tsv",
    }  # fmt: skip
    assert set(paths) == {p for p in tmp_path.rglob("*") if p.is_file()}
    table = pd.read_csv(tmp_path / "maps" / "tuned_layer-04_stat-r.tsv", sep="\t", na_values=["n/a"])
    assert table.target.tolist() == list("abcde")
    np.testing.assert_allclose(table.value, results.maps["tuned"][1])
    p = pd.read_csv(tmp_path / "maps" / "base_layer-chosen_stat-pfwe.tsv", sep="\t", na_values=["n/a"])
    np.testing.assert_allclose(p.value, results.p_corrected["base"])


def test_volumes_are_written_as_images_in_their_place(made: Made, tmp_path: Path) -> None:
    mask = np.zeros((3, 4, 2), dtype=bool)
    mask[1, 1:3] = mask[2, 3, 1] = True
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -9
    space = Space("volume", np.array([str(i) for i in range(N)]), mask=mask, affine=affine)
    results = made(space=space)
    write_tables(results, tmp_path)
    image = nibabel.load(tmp_path / "maps" / "base_layer-04_stat-r.nii.gz")
    np.testing.assert_array_equal(image.affine, affine)
    data = image.get_fdata()
    np.testing.assert_allclose(data[mask], results.maps["base"][1], rtol=1e-6)
    assert np.isnan(data[~mask]).all()


def test_without_a_shared_space_there_are_no_maps(made: Made, tmp_path: Path) -> None:
    write_tables(made(space=None, maps={}, chosen={}, p={}, p_corrected={}), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"scores.tsv", "summary.json"}


def test_a_comparison_has_a_row_a_pair_and_layer(
    made: Made, tmp_path: Path, rng: np.random.Generator
) -> None:
    a, b = rng.uniform(size=(2, 6, 2))
    one = compare(a, b, np.array([2, 4]), ("base", "tuned"), "subjects", rng)
    results = made(comparisons=(one, one))
    write_tables(results, tmp_path)
    table = pd.read_csv(tmp_path / "comparisons.tsv", sep="\t")
    assert len(table) == 4
    assert table.layer.tolist() == [2, 4, 2, 4]
    np.testing.assert_allclose(table.difference[:2], (a - b).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(table.p[:2], one.p, rtol=1e-4)
    assert comparison_table(made()).empty
    assert summarise(results)["verdicts"] == [one.verdict] * 2


def test_a_table_that_cannot_be_written_leaves_the_old_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tables(made(), tmp_path)
    before = (tmp_path / "scores.tsv").read_bytes()

    def full(self: pd.DataFrame, path: Path, **options: object) -> None:
        Path(path).write_text("subject\trun")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(StoreError, match=r"scores\.tsv could not be written"):
        write_tables(made(), tmp_path)
    assert (tmp_path / "scores.tsv").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
