"""A look before the work: every problem at once, none where there is none, and pairings that hold by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from langcortex.design.design import align_sentences
from langcortex.study.check import Check, as_lines, check_study
from langcortex.study.corpus import open_corpus
from langcortex.study.settings_file import read_study
from langcortex.study.subject import read_subject

Corpus = Callable[..., Path]


@pytest.fixture
def study(planted_corpus: Corpus, tmp_path: Path) -> Path:
    return planted_corpus(tmp_path)


def look(path: Path, *changes: str) -> Check:
    return check_study(read_study(path, changes))


def test_checking_a_study_loads_neither_reports_nor_nulls_and_little_else() -> None:
    code = "import sys, langcortex.study.check; print(*(name for name in sys.modules if name.startswith('langcortex')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert [name for name in modules if name.startswith(("langcortex.report", "langcortex.nulls"))] == []
    assert len(modules) <= 72, modules


def test_a_good_study_has_no_problems_and_is_described(study: Path) -> None:
    found = look(study)
    assert found.problems == []
    assert found.facts["story"] == (
        "1,516 words in 115 sentences and 4 runs (0 pauses and empty labels left out)"
    )
    assert found.facts["recordings"].startswith("2 subjects, 8 runs, ")
    assert found.facts["recordings"].endswith("scans, TR 2 s")
    assert found.facts["model llama"] == "3 layers of width 32, 0 million parameters"
    assert set(found.costs) >= {"features", "reading the story"}


def test_costs_of_fits_are_told_where_the_targets_are_known(study: Path, rng: np.random.Generator) -> None:
    """Only a given mask says how many targets there are before anything is read."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for run in ("run-1", "run-2", "run-3", "run-4"):
        image = nibabel.Nifti1Image(rng.standard_normal((3, 3, 3, 90)).astype(np.float32), affine)
        image.header.set_zooms((4, 4, 4, 2))
        nibabel.save(image, study.parent / f"sub-01_{run}.nii.gz")
    mask = np.zeros((3, 3, 3), dtype=np.uint8)
    mask[1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, affine), study.parent / "mask.nii.gz")
    changes = ["recording.files=sub-{subject}_{run}.nii.gz", "recording.regions={}", "compare.region=brain"]
    given = look(study, *changes, "recording.mask=mask.nii.gz")
    assert given.problems == []
    assert given.facts["targets"] == "9"
    assert set(given.costs) == {"features", "reading the story", "fits", "fitting", "memory"}
    assert look(study, *changes, "recording.mask=all").facts["targets"] == "27"
    assert "targets" not in check_study(read_study(study, changes), clock="none").facts


def test_the_first_and_last_row_of_a_run_meet_the_right_scans(study: Path) -> None:
    """By hand: 2.00 s + 4 s = 6 s is scan 3; 7.40 + 4 = 11.4 s ends in scan 5 (10 to 12 s)."""
    first, last = look(study).pairing
    assert first.startswith("run-1/sentence-000 “The letter arrived on a wet Wednesday, folded inside a ti…”")
    assert first.endswith("heard 2.00 to 7.40 s → scans 3 to 5 of 84 at a delay of 4 s")
    assert last.startswith("run-1/sentence-027 ")
    assert last.endswith("heard 149.72 to 153.32 s → scans 76 to 78 of 84 at a delay of 4 s")


def test_a_late_story_and_another_delay_move_the_pairing(study: Path) -> None:
    """By hand: the story began 5 s after the first scan: 2.00 + 6 + 5 = 13 s is scan 6, 18.4 s is scan 9."""
    found = look(study, "recording.stimulus_onset=5.0", "design.delays=[6.0]", "design.short=trim")
    assert found.pairing[0].endswith("heard 2.00 to 7.40 s → scans 6 to 9 of 84 at a delay of 6 s")


def test_the_pairing_shown_is_the_pairing_used(study: Path) -> None:
    settings = read_study(study, ["design.delays=[6.0]", "recording.stimulus_onset=3.3", "design.short=trim"])
    corpus = open_corpus(settings)
    design = align_sentences(corpus.story(), {}, read_subject(corpus, "01"), [6.0], "trim")
    rows = np.flatnonzero(design.run == "run-1")
    assert design.ids[rows[0]] == "run-1/sentence-000"
    shown = check_study(settings).pairing[0]
    a, b = design.scans[rows[0]]
    assert f"→ scans {a} to {b} of 84 at a delay of 6 s" in shown


def test_scans_as_rows_are_shown_on_the_storys_clock(study: Path) -> None:
    (line,) = look(study, "design.rows=scans", "recording.stimulus_onset=4.0", "design.short=trim").pairing
    assert line.startswith(
        "run-1, subject 01: scan 0 lasts from -4 to -2 s of the story, scan 83 ends at 164 s; "
        "the first word is heard at 2.00 s, "
    )


def test_every_problem_is_told_at_once(study: Path) -> None:
    (study.parent / "story" / "run-4.tsv").unlink()
    changes = [
        "models.0.source=/nowhere/model", "features.layers=[1,2,9]", "design.delays=[4.0,5.0]", "recording.stimulus_onset=60",
        'recording.subjects=["01","03"]', "compare.region=IFG", 'features.controls=["loudness","loudest"]', "protocol.folds=1",
        'protocol.test_runs=["run-9"]',
    ]  # fmt: skip
    found = look(study, *changes).problems
    for part in (
        "The model folder /nowhere/model does not exist",
        "features.layers: 'gpt2' has layers 0 to 2; there is no layer 9",
        "A delay of 5 s falls between scans of run 'run-1', which are 2 s apart",
        "The story of run 'run-1' lasts until 153.3 s, but the recording of subject '01' ends at 108.0 s",
        "Run 'run-4' of subject '01' was recorded, but the story has no words for it",
        "Subject '03' has no recording",
        "compare.region is 'IFG', but the regions are: auditory, brain, language, silent",
        "No control is called 'loudness'",
        "No control is called 'loudest'",
        "protocol.folds is 'runs' or a number of at least 2; not 1",
    ):
        assert sum(part in problem for problem in found) == 1, (part, found)
    assert len(found) == len(set(found))
    good_protocol = look(study, 'protocol.test_runs=["run-9"]').problems
    assert any("protocol.test_runs names 'run-9'" in problem for problem in good_protocol)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("data.path=/nowhere", "No story file matches /nowhere/story/{run}.tsv. Check story.files and data.path."),
        ("recording.files=bold_{subject}.nii", "No recording matches {folder}/bold_{subject}.nii. Check recording.files and data.path."),
        ("recording.tr=11", "There is no whole multiple of the TR (11 s) from 4 to 10 s. Give design.delays."),
        ("models.1.source=nobody/no-such-model", "The model 'nobody/no-such-model' is neither a folder, nor in the HuggingFace cache"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_sentence(
    study: Path, monkeypatch: pytest.MonkeyPatch, change: str, problem: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = look(study, change).problems
    assert any(problem.replace("{folder}", str(study.parent)) in line for line in found), found
    assert all("\n" not in line and line.endswith((".", ")")) for line in found)


def test_an_unknown_tr_is_a_problem_of_every_run(study: Path) -> None:
    text = study.read_text().replace("tr = 2.0\n", "")
    study.write_text(text)
    found = look(study).problems
    assert len(found) == 8
    assert "neither a sidecar nor the header has the TR" in found[0]
    assert look(study).facts["recordings"].endswith("TR unknown s")


def test_runs_that_were_not_recorded_are_a_fact_and_no_problem(study: Path) -> None:
    (study.parent / "sub-02_run-3.tsv").unlink()
    found = look(study)
    assert found.problems == []
    assert found.facts["note, subject 02"] == "1 of 4 runs were not recorded: run-3"


def test_a_story_that_outlasts_its_scans_may_be_trimmed(study: Path) -> None:
    table = pd.read_csv(study.parent / "sub-01_run-2.tsv", sep="\t")
    table.iloc[:40].to_csv(study.parent / "sub-01_run-2.tsv", sep="\t", index=False)
    (problem,) = look(study).problems
    assert "The story of run 'run-2' lasts until" in problem
    assert "recording of subject '01' ends at 80.0 s" in problem
    assert look(study, "design.short=trim").problems == []


def test_nothing_to_fit_is_a_problem(study: Path) -> None:
    assert look(study, "models=[]", "features.controls=[]").problems == [
        "The study names neither a model nor a control: there is nothing to fit."
    ]


def test_nothing_is_written_and_no_recording_is_read(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for p in study.parent.rglob("*")}
    monkeypatch.setattr("langcortex.datasets.corpus.read_recording", None)
    monkeypatch.setattr("langcortex.features.models.loading.load_model", None)
    check_study(read_study(study), clock="none")
    assert {p: p.stat().st_mtime_ns for p in study.parent.rglob("*")} == before


def test_a_corpus_of_ones_own_is_read_by_its_recordings(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom langcortex import Recording, Space\nfrom langcortex.stimulus import make_story\n\n\nclass Mine:\n"
        "    def subjects(self):\n        return ['a']\n"
        "    def story(self):\n"
        "        words = ['one', 'two.'] * 40\n"
        "        return make_story({'r': words}, {'r': 8.0 + np.arange(80)}, {'r': np.full(80, 0.5)})\n"
        "    def runs(self, subject):\n        return ['r']\n"
        "    def recording(self, subject, run):\n"
        "        onset = np.arange(60) * 2.0 - 6\n"
        "        return Recording(np.zeros((60, 1), np.float32), onset, 2.0, run, subject, Space('columns', np.array(['x'])))\n"
        "\n\ndef corpus(path):\n    return Mine()\n",
        encoding="utf-8",
    )
    (tmp_path / "study.toml").write_text('[data]\ncorpus = "mine:corpus"\n')
    found = check_study(read_study(tmp_path / "study.toml", allow_code=True))
    assert found.problems == []
    assert found.facts["recordings"] == "1 subject, 1 run, 60 scans, TR 2 s"
    # heard at 8 s, 6 s after the first scan, with 4 s of delay: 18 s is scan 9
    assert found.pairing[0].endswith("heard 8.00 to 9.50 s → scans 9 to 9 of 60 at a delay of 4 s")


def test_lines_tell_facts_pairings_and_costs(study: Path) -> None:
    found = look(study)
    lines = as_lines(found)
    assert len(lines) == len(found.facts) + len(found.pairing) + len(found.costs)
    assert lines[0].startswith("story: ")
    assert sum(line.startswith("pairing: run-1/") for line in lines) == 2
    assert any(line.startswith("estimate, reading the story: about ") for line in lines)
    json.dumps(lines)
