"""A study that is run and audited: its results carry their findings, and the published recipe is ablated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from langcortex.audit import audit_results, audit_study, audited_run, sorted_audit
from langcortex.errors import FitError, SettingsError
from langcortex.study.run import run_study
from langcortex.study.settings_file import read_study

Corpus = Callable[..., Path]


@pytest.fixture(scope="module")
def study_file(planted_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_corpus(tmp_path_factory.mktemp("audited"), ("01",), runs=3)


@pytest.fixture(scope="module")
def recipe(study_file: Path, with_recipe: Callable[[Path], Path]) -> Path:
    return with_recipe(study_file)


def test_results_carry_the_findings_about_their_study_and_themselves(
    study_file: Path, tmp_path: Path
) -> None:
    study = read_study(study_file, ["models=[]", "protocol.n_nulls=9", f"output={tmp_path}"])
    results, notes = audited_run(study)
    assert notes == []
    plain = run_study(study)
    assert plain.findings is None
    assert results.scores.equals(plain.scores)
    findings = [*audit_study(study).findings, *audit_results(plain).findings]
    assert results.findings == tuple(sorted_audit(findings).as_rows())
    assert "No p can reach .05." in [finding["what"] for finding in results.findings]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_published_recipe_is_ablated_beside_its_results(recipe: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    study = read_study(recipe, [f"output={tmp_path}"])
    results, notes = audited_run(study, lambda what, done, total: stages.append(what))
    assert notes == []
    assert results.findings is not None
    assert results.findings[0]["level"] == "leak"
    ablation = json.loads((tmp_path / "ablation.json").read_text(encoding="utf-8"))
    assert (ablation["seed"], ablation["subject"]) == (study.seed, "01")
    assert stages.index("replicating") < stages.index("fixing the recipe")


def test_an_ablation_that_cannot_be_made_is_a_note(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise FitError("Too few units.")

    monkeypatch.setattr("langcortex.audit.run.ablate", refuse)
    results, notes = audited_run(read_study(recipe, [f"output={tmp_path}"]))
    assert notes == ["Too few units."]
    assert results.findings
    assert not (tmp_path / "ablation.json").exists()


def test_a_study_with_nothing_to_fit_is_refused_before_anything_is_written(
    study_file: Path, tmp_path: Path
) -> None:
    study = read_study(study_file, ["models=[]", "features.controls=[]", f"output={tmp_path}"])
    with pytest.raises(SettingsError, match="names neither a model nor a control: there is nothing to fit"):
        audited_run(study)
    assert not list(tmp_path.iterdir())
