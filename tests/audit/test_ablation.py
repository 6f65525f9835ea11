"""A study's recipe taken apart on its own words and scans, from Python and from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langcortex.audit import ablate, audit_study
from langcortex.encoding.replication.ablation import FLAWS
from langcortex.errors import RecordingError, SettingsError
from langcortex.simulation.planted import Plant
from langcortex.study.settings_file import read_study

Corpus = Callable[..., Path]


@pytest.fixture(scope="module")
def recipe(planted_corpus: Corpus, gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a study by the published recipe, of a brain that carries no story."""
    folder = tmp_path_factory.mktemp("recipe")
    path = planted_corpus(folder, ("01",), runs=2, what=Plant(signal=0.0, autocorrelation=0.8), n_targets=900)
    path.write_text(
        f'[story]\nfiles = "story/{{run}}.tsv"\nsentences = "column"\n[recording]\nfiles = "sub-{{subject}}_{{run}}.tsv"\ntr = 2.0\n'
        f'[[models]]\nname = "gpt2"\nsource = "{gpt2_folder}"\n[protocol]\npreset = "replication-2025"\n',
        encoding="utf-8",
    )
    return path


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_study_is_taken_apart_on_its_own_words(recipe: Path) -> None:
    before = files_of(recipe.parent)
    found = ablate(read_study(recipe), 2, "ar", seed=1)
    assert files_of(recipe.parent) == before
    assert found.causes == tuple(c for c in FLAWS if c != "row_shift")
    assert found.together.shape == (2, 6)
    assert (found.model, found.layer, found.subject, found.runs) == ("gpt2", 1, "01", ("run-1", "run-2"))
    assert found.n_targets == 900
    assert found.together[:, 0].mean() > 0.15
    assert abs(found.together[:, -1].mean()) < 0.1
    again = ablate(read_study(recipe), 1, "ar", seed=1)
    np.testing.assert_array_equal(again.together[0], found.together[0])


def test_rows_paired_by_position_are_a_cause_where_the_study_says_so(recipe: Path) -> None:
    study = read_study(recipe, ["protocol.row_shift=true"])
    assert "row_shift" in ablate(study, 1, most_runs=1, most_targets=50).causes


def test_the_audit_names_every_cause(recipe: Path) -> None:
    said = {
        "voxels": "Voxels are chosen", "delay": "The delay is chosen", "folds": "Folds are shuffled",
        "row_shift": "paired by position", "confounds": "residualised on themselves", "scaling": "freed of its mean",
    }  # fmt: skip
    assert list(said) == list(FLAWS)
    # one of the units has one word, so that the recipe drops it
    words = recipe.parent / "story" / "run-1.tsv"
    whole = words.read_text(encoding="utf-8")
    head, first, rest = whole.split("\n", 2)
    cells = dict(zip(head.split("\t"), first.split("\t"), strict=True))
    alone = "\t".join({**cells, "sentence": "lonely"}.values())
    words.write_text("\n".join([head, alone, rest]), encoding="utf-8")
    findings = audit_study(read_study(recipe, ["protocol.row_shift=true"])).findings
    words.write_text(whole, encoding="utf-8")
    for cause, told in said.items():
        (found,) = [f for f in findings if told in f.what]
        assert found.how_bad, cause
        assert found.fix, cause


def test_few_targets_and_runs_are_taken_at_even_distances(recipe: Path) -> None:
    found = ablate(read_study(recipe), 1, most_runs=1, most_targets=50)
    assert (found.n_targets, found.runs) == (50, ("run-1",))


def test_rest_takes_the_place_of_runs(
    recipe: Path, tmp_path: Path, autocorrelated: Callable[..., np.ndarray]
) -> None:
    np.save(tmp_path / "rest.npy", autocorrelated(np.random.default_rng(0), 900, 900, 0.7))
    found = ablate(read_study(recipe), 1, "rest", rest_path=tmp_path / "rest.npy", most_targets=60)
    assert (found.kind, found.n_targets) == ("rest", 60)
    np.save(tmp_path / "short.npy", np.random.default_rng(0).standard_normal((20, 900)))
    with pytest.raises(RecordingError, match="Give a longer recording of rest"):
        ablate(read_study(recipe), 1, "rest", rest_path=tmp_path / "short.npy")


def test_mistakes_are_one_sentence(recipe: Path) -> None:
    study = read_study(recipe)
    with pytest.raises(SettingsError, match="is of the preset 'replication-2025', and this study's is"):
        ablate(read_study(recipe, ["protocol={}"]))
    with pytest.raises(SettingsError, match="1 or more draws; not 0"):
        ablate(study, 0)
    with pytest.raises(SettingsError, match="not 'pink'"):
        ablate(study, 1, "pink")
    with pytest.raises(SettingsError, match="needs a model"):
        ablate(study.model_copy(update={"models": []}))


# the command line


def test_audit_ablate_prints_steps_and_leaves_them_for_the_report(
    call: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path
) -> None:
    where = ("--set", f"output={tmp_path}")
    code, out, _ = call("audit", recipe, "--ablate", "--null", 2, "--json", *where, "--kind", "ar")
    assert code == 0
    told = json.loads(out)
    assert (told["n"], told["ablation"]["n"], told["ablation"]["seed"]) == (2, 2, 0)
    assert told["ablation"]["r"][0] > 0.15
    assert json.loads((tmp_path / "ablation.json").read_text(encoding="utf-8")) == told["ablation"]
    assert json.loads((tmp_path / "null_calibration.json").read_text(encoding="utf-8"))["n"] == 2
    code, _, err = call("audit", recipe, "--ablate", "--set", "protocol={}")
    assert code == 2
    assert err.strip().startswith("error")
    assert len(err.strip().splitlines()) == 1


def test_a_run_of_the_recipe_shows_it_in_its_report(
    call: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path
) -> None:
    code, _, _ = call("run", recipe, "--set", f"output={tmp_path}")
    assert code == 0
    assert (tmp_path / "ablation.json").is_file()
    assert (tmp_path / "figures" / "ablation.png").is_file()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What noise scores with the recipe, flaw by flaw" in page
