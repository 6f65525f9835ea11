"""The command line: clean output, exit codes, and one sentence for every mistake that the user can fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

import langcortex
from langcortex import cli

Corpus = Callable[..., Path]
Told = tuple[int, str, str]
QUICK = ("models=[]", "protocol.n_nulls=0", "compare.region=brain")


@pytest.fixture
def study(planted_corpus: Corpus, tmp_path: Path) -> Path:
    return planted_corpus(tmp_path, ("01",), runs=3)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds and has tests of its own."""
    monkeypatch.setattr("langcortex.report.html.draw_pictures", lambda results: [])


def with_set(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error")]


# what is printed


@pytest.mark.usefixtures("no_figures")
def test_run_json_prints_one_object_a_row_and_nothing_else(call: Callable[..., Told], study: Path) -> None:
    code, out, err = call("run", study, "--json", *with_set("features.layers=[1,2]", "protocol.n_nulls=9"))
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(list(row) == ["subject", "run", "model", "layer", "region", "metric", "value"] for row in rows)
    table = pd.read_csv(
        study.parent / "results" / "scores.tsv", sep="\t", na_values=["n/a"], dtype={"subject": str}
    )
    assert len(rows) == len(table)
    again = pd.DataFrame(rows)
    np.testing.assert_allclose(again.value, table.value, rtol=1e-5)
    assert again.layer.dropna().isin([1, 2]).all()
    assert {type(row["layer"]) for row in rows} == {int, type(None)}
    assert "Traceback" not in err


def test_missing_values_are_null_in_json() -> None:
    plain = [
        cli._plain(v)
        for v in (float("nan"), None, pd.NA, np.float64("nan"), np.float32(0.5), np.int64(3), "x")
    ]
    assert json.dumps(plain) == '[null, null, null, null, 0.5, 3, "x"]'


@pytest.mark.usefixtures("no_figures")
def test_run_prints_a_summary_and_where_the_report_is(call: Callable[..., Told], study: Path) -> None:
    code, out, err = call("run", study, *with_set("protocol.n_nulls=0"))
    assert code == 0
    assert "Mean r, language" in out
    for name in ("llama", "gpt2", "duration"):
        assert name in out
    assert out.splitlines()[-1] == f"Report: {study.parent / 'results' / 'report.html'}"
    assert "note  There is one subject: the spread is over runs" in err
    assert (study.parent / "results" / "report.html").is_file()


@pytest.mark.usefixtures("no_figures")
def test_leaks_are_told_on_standard_error(call: Callable[..., Told], study: Path) -> None:
    code, out, err = call(
        "run", study, "--json",
        *with_set('protocol={preset = "replication-2025"}', "story.sentences=column"),
    )  # fmt: skip
    assert code == 0
    assert err.count("LEAK") == 6
    assert all(json.loads(line)["metric"] == "r" for line in out.splitlines())


def test_check_prints_what_was_read_and_ends_well(call: Callable[..., Told], study: Path) -> None:
    code, out, err = call("check", study)
    assert (code, err) == (0, "")
    assert "pairing: run-1/sentence-000" in out
    assert out.splitlines()[-1] == f"No problems found. Run it with: langcortex run {study}"


def test_check_tells_every_problem_and_ends_with_2(call: Callable[..., Told], study: Path) -> None:
    code, out, err = call("check", study, *with_set("design.delays=[5.0]", "models.0.source=/no/[old]/model"))
    assert code == 2
    assert "No problems" not in out
    lines = err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("problem  ") for line in lines)
    assert "The model folder /no/[old]/model does not exist." in err  # brackets are no markup


def test_init_writes_a_study_once(call: Callable[..., Told], tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.toml"
    code, out, _ = call("init", path)
    assert (code, out) == (0, f"Wrote {path}. Fill in the paths, then: langcortex check {path}\n")
    assert langcortex.read_study(path).models[0].label == "base"
    path.write_text("mine")
    code, _, err = call("init", path)
    assert code == 2
    assert errors(err) == [f"error  {path} exists already and is left as it is. Give another name."]
    assert path.read_text() == "mine"
    assert [p.name for p in path.parent.iterdir()] == ["mine.toml"]


def test_the_version_is_printed(call: Callable[..., Told]) -> None:
    assert call("--version") == (0, f"langcortex {langcortex.__version__}\n", "")


@pytest.mark.parametrize("argv", [(), ("walk",), ("run",), ("run", "x.toml", "--jsn")])
def test_a_command_that_is_none_ends_with_2(call: Callable[..., Told], argv: tuple[str, ...]) -> None:
    code, _, err = call(*argv)
    assert code == 2
    assert "Traceback" not in err


def test_a_stopped_run_says_that_it_can_go_on(
    call: Callable[..., Told], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("langcortex.study.fit.fit_layers", stop)
    code, _, err = call("run", study, *with_set(*QUICK))
    assert code == 130
    assert err.splitlines()[-1] == "Stopped. What was finished is kept; the same command goes on from there."


def test_a_bug_is_a_traceback(monkeypatch: pytest.MonkeyPatch, study: Path) -> None:
    """Only mistakes that the user can fix are one sentence."""
    monkeypatch.setattr("langcortex.audit.run.audited_run", lambda *args: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["langcortex", "run", str(study)])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_the_installed_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "langcortex.cli", "run", "absent.toml"],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "error  The study file absent.toml does not exist. Write one with: langcortex init absent.toml\n"
    )


# every mistake


def images(study: Path, data: np.ndarray, **broken: np.ndarray) -> tuple[str, ...]:
    """Put images in the place of the tables, some of them with other data."""
    for name in ("run-1", "run-2", "run-3"):
        image = nibabel.Nifti1Image(broken.get(name.replace("-", "_"), data), np.diag([4.0, 4.0, 4.0, 1.0]))
        image.header.set_zooms((4, 4, 4, 2))
        nibabel.save(image, study.parent / f"sub-01_{name}.nii.gz")
    return ("recording.files=sub-{subject}_{run}.nii.gz", "recording.regions={}", "recording.mask=all")


def brain() -> np.ndarray:
    return np.random.default_rng(0).normal(1000, 10, (3, 3, 3, 110)).astype(np.float32)


def missing_story(study: Path) -> tuple[tuple[str, ...], str]:
    return (
        'story.files={run-1 = "story/lost.tsv"}',
    ), f"The story file {study.parent}/story/lost.tsv does not exist"


def wrong_path(study: Path) -> tuple[tuple[str, ...], str]:
    return ("data.path=/nowhere",), "No story file matches /nowhere/story/{run}.tsv"


def wrong_recordings(study: Path) -> tuple[tuple[str, ...], str]:
    return (
        "recording.files=bold/{subject}.tsv",
    ), f"No recording matches {study.parent}/bold/{{subject}}.tsv"


def unreadable_image(study: Path) -> tuple[tuple[str, ...], str]:
    changes = images(study, brain())
    file = study.parent / "sub-01_run-2.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    return changes, "sub-01_run-2.nii.gz"


def not_an_image(study: Path) -> tuple[tuple[str, ...], str]:
    changes = images(study, brain())
    (study.parent / "sub-01_run-1.nii.gz").write_text("no image")
    return changes, "sub-01_run-1.nii.gz cannot be read as an image"


def nan_scans(study: Path) -> tuple[tuple[str, ...], str]:
    data = brain()
    data[..., 7] = np.nan
    return images(study, brain(), run_2=data), "scan 7 of 110 has NaN or infinite values (1 scans have)"


def constant_voxels(study: Path) -> tuple[tuple[str, ...], str]:
    return images(
        study, brain(), run_3=np.full((3, 3, 3, 110), 5, np.float32)
    ), "all 27 targets are constant or empty"


def silent_run(study: Path) -> tuple[tuple[str, ...], str]:
    (study.parent / "story" / "run-2.tsv").write_text("word\tonset\tduration\tsentence\n#\t1.0\t0.5\t0\n")
    return (), "Run 'run-2' has no words: its 1 labels are all empty, pauses or marks"


def long_story(study: Path) -> tuple[tuple[str, ...], str]:
    file = study.parent / "sub-01_run-2.tsv"
    pd.read_csv(file, sep="\t").iloc[:30].to_csv(file, sep="\t", index=False)
    return (), "The story of run 'run-2' lasts until"


def odd_delay(study: Path) -> tuple[tuple[str, ...], str]:
    return (
        "design.delays=[4.0, 5.0]",
    ), "A delay of 5 s falls between scans of run 'run-1', which are 2 s apart"


def empty_mask(study: Path) -> tuple[tuple[str, ...], str]:
    changes = images(study, brain())
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.diag([4.0, 4.0, 4.0, 1.0])),
        study.parent / "mask.nii.gz",
    )
    return (*changes[:2], "recording.mask=mask.nii.gz"), "mask.nii.gz is empty on the grid"


def absent_model(study: Path) -> tuple[tuple[str, ...], str]:
    models = 'models=[{source = "nobody/no-such-model"}]'
    return (models,), "The model 'nobody/no-such-model' is neither a folder, nor in the HuggingFace cache"


def typo(study: Path) -> tuple[tuple[str, ...], str]:
    return ("design.delay=4",), "study.toml, [design]: no setting is called 'delay'. Did you mean 'delays'?"


def wrong_toml(study: Path) -> tuple[tuple[str, ...], str]:
    study.write_text("[design\n")
    return (), "study.toml is not valid TOML"


def nothing_to_fit(study: Path) -> tuple[tuple[str, ...], str]:
    return ("features.controls=[]",), "names neither a model nor a control: there is nothing to fit"


def unknown_layer(study: Path) -> tuple[tuple[str, ...], str]:
    source = langcortex.read_study(study).models[0].source
    return (f'models=[{{source = "{source}", name = "tiny"}}]', "features.layers=[7]"), "'tiny' has layers 0 to 3; there is no layer 7"  # fmt: skip


MISTAKES = (
    missing_story, wrong_path, wrong_recordings, unreadable_image, not_an_image, nan_scans, constant_voxels, silent_run,
    long_story, odd_delay, empty_mask, absent_model, typo, wrong_toml, nothing_to_fit, unknown_layer,
)  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_a_mistake_is_one_sentence_exit_code_2_and_no_half_of_a_result(
    call: Callable[..., Told],
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[Path], tuple[tuple[str, ...], str]],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes, sentence = mistake(study)
    before = {p for p in study.parent.rglob("*") if p.is_file()}
    code, out, err = call("run", study, *with_set(*QUICK, *changes))
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    (line,) = errors(err)
    assert sentence in line
    assert line.rstrip().endswith((".", "?"))
    assert {p for p in study.parent.rglob("*") if p.is_file()} == before


def test_several_mistakes_in_a_study_file_are_a_line_each(call: Callable[..., Told], study: Path) -> None:
    code, _, err = call("run", study, *with_set("design.delay=4", "recording.tr=-2", "protocol.fold=3"))
    assert code == 2
    assert len(errors(err)) == len(err.splitlines()) == 3


def test_an_output_folder_that_cannot_be_written_is_one_sentence(
    call: Callable[..., Told], study: Path
) -> None:
    (study.parent / "taken").write_text("a file")
    code, _, err = call("run", study, *with_set(*QUICK, "output=taken"))
    assert code == 2
    assert "taken" in errors(err)[0]


def test_fetch_says_size_licence_and_citation_first(call: Callable[..., Told], tmp_path: Path) -> None:
    code, out, err = call(
        "fetch", "lpp", "--subjects", "EN057,sub-EN058", "--to", tmp_path / "lpp", "--dry-run"
    )
    assert (code, err) == (0, "")
    assert out.startswith("ds003643, snapshot 2.0.7: ")
    assert " GB (" in out
    assert "derivatives/sub-EN058" in out
    assert "Licence: " in out
    assert "doi" in out
    assert not (tmp_path / "lpp").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("nothing", "--subjects", "1"), "No corpus to fetch is called 'nothing'. There are: lpp, lebel, narratives, reading_brain."),
        (("lpp", "--subjects", "EN001"), "lpp has no subject 'EN001'."),
        (("lpp",), "Name at least one subject of lpp to fetch, e.g. "),
        (("lpp", "--subjects", "EN057", "--option", "kind"), "--option takes KEY=VALUE, e.g. --option kind=raw; not 'kind'."),
        (("lpp", "--subjects", "EN057", "--option", "sort=raw"), "Fetching lpp has no option 'sort'. It takes: kind, echo."),
    ],
)  # fmt: skip
def test_a_mistake_in_fetch_is_one_sentence(
    call: Callable[..., Told], tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    code, out, err = call("fetch", *options, "--to", tmp_path, "--dry-run")
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
