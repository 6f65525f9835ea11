"""Corpora of files: patterns match files in natural order, and a missing file is reported in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.brain.formats import count_scans
from langcortex.brain.recording import read_recording
from langcortex.datasets import Corpus, FilesCorpus
from langcortex.errors import RecordingError, StoryError
from reference.corpora import RAW, corpus, paths, read, table, touch, words
from reference.textgrids import long_grid, tiers

LPP = "derivatives/sub-{subject}/func/sub-{subject}_task-lppEN_run-{run}_space-MNIColin27_desc-preproc_bold.nii.gz"


# names


def test_a_corpus_of_files_is_a_corpus(tmp_path: Path) -> None:
    assert isinstance(corpus(tmp_path, "x"), Corpus)


def test_subjects_are_found_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-{s}/sub-{s}_run-{r}_bold.tsv" for s in ("10", "9", "1") for r in ("1", "2")))
    dataset = corpus(tmp_path, "sub-{subject}/sub-{subject}_run-{run}_bold.tsv")
    assert dataset.subjects() == ["1", "9", "10"]
    assert corpus(tmp_path, "sub-{subject}/sub-{subject}_run-{run}_bold.tsv", subjects=["9", "1"]).subjects() == ["9", "1"]  # fmt: skip


def test_a_pattern_without_a_subject_has_one_subject(tmp_path: Path) -> None:
    assert corpus(tmp_path, "run-{run}.tsv").subjects() == ["01"]


def test_runs_of_a_subject_are_in_natural_order_without_those_of_others(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"s{s}_r{r}.tsv" for s in ("1", "11") for r in ("2", "10")), "s1_r3.txt", "s1_r4.tsv.bak"
    )
    dataset = corpus(tmp_path, "s{subject}_r{run}.tsv")
    assert dataset.subjects() == ["1", "11"]
    assert paths(dataset, "1") == {"2": tmp_path / "s1_r2.tsv", "10": tmp_path / "s1_r10.tsv"}
    assert list(paths(dataset, "11").values()) == [tmp_path / "s11_r2.tsv", tmp_path / "s11_r10.tsv"]


def test_subjects_who_lack_the_first_run_are_found_too(tmp_path: Path) -> None:
    touch(tmp_path, "s1_r1.tsv", "s2_r2.tsv")
    dataset = corpus(tmp_path, "s{subject}_r{run}.tsv")
    assert dataset.subjects() == ["1", "2"]
    assert list(paths(dataset, "2")) == ["2"]


def test_an_error_for_no_recording_has_the_complete_pattern(tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        corpus(tmp_path, "sub-{subject}_{run}.nii.gz").subjects()
    assert str(caught.value) == (
        f"No recording matches {tmp_path}/sub-{{subject}}_{{run}}.nii.gz. Check recording.files and data.path."
    )


def test_a_subject_without_recordings_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_a.tsv")
    with pytest.raises(
        RecordingError, match=rf"^Subject '7' has no recording that matches {tmp_path}/sub-7_\{{run\}}\.tsv\."
    ):
        corpus(tmp_path, "sub-{subject}_{run}.tsv").files("7")


def test_two_files_for_one_run_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "ses-1/sub-1_a.tsv", "ses-2/sub-1_a.tsv")
    with pytest.raises(RecordingError, match="Two files match the run 'a'"):
        corpus(tmp_path, "ses-*/sub-{subject}_{run}.tsv").files("1")


def test_the_files_of_the_little_prince_are_matched(tmp_path: Path, shared_data: Path) -> None:
    """The published file list of ds003643: 49 English subjects with nine runs, whose numbers differ from the story's."""
    listed = (shared_data / "lpp" / "ds003643_v2.0.7_files.txt").read_text().split()
    touch(tmp_path, *(name for name in listed if "lppEN" in name))
    labels = {f"section{i + 1}": str(15 + i) for i in range(9)}
    dataset = corpus(tmp_path, LPP, run_labels=labels, subjects=["EN057"])
    names = {run: path.name for run, path in paths(dataset, "EN057").items()}
    assert names == {
        run: f"sub-EN057_task-lppEN_run-{label}_space-MNIColin27_desc-preproc_bold.nii.gz"
        for run, label in labels.items()
    }
    everyone = corpus(tmp_path, LPP)
    subjects = everyone.subjects()
    assert len(subjects) == 49
    assert subjects[0] == "EN057"
    assert all(len(everyone.files(subject)) == 9 for subject in subjects)


def test_run_numbers_of_the_little_prince_differ_between_subjects(tmp_path: Path, shared_data: Path) -> None:
    """A mapping for one subject must be an error for another, and never pair another section."""
    listed = (shared_data / "lpp" / "ds003643_v2.0.7_files.txt").read_text().split()
    touch(tmp_path, *(name for name in listed if "lppEN" in name))
    labels = {f"section{i + 1}": str(15 + i) for i in range(9)}
    dataset = corpus(tmp_path, LPP, run_labels=labels)
    subject = next(s for s in dataset.subjects() if "15" not in corpus(tmp_path, LPP).files(s))
    with pytest.raises(
        RecordingError,
        match=rf"^Subject '{subject}': recording\.runs names run section1 \(15\), but the runs found are: ",
    ):
        dataset.files(subject)


def test_run_labels_select_and_order_the_runs(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s1_r{r}.tsv" for r in (1, 2, 3)))
    dataset = corpus(tmp_path, "s{subject}_r{run}.tsv", run_labels={"b": "3", "a": "1"})
    assert {run: path.name for run, path in paths(dataset, "1").items()} == {
        "b": "s1_r3.tsv",
        "a": "s1_r1.tsv",
    }


def test_both_hemispheres_are_paired(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s1_{r}_hemi-{h}.func.gii" for r in ("a", "b") for h in "LR"))
    dataset = corpus(tmp_path, "s{subject}_{run}_hemi-{hemi}.func.gii")
    assert dataset.subjects() == ["1"]
    assert paths(dataset, "1")["b"] == (tmp_path / "s1_b_hemi-L.func.gii", tmp_path / "s1_b_hemi-R.func.gii")


@pytest.mark.parametrize("lone", ["L", "R"])
def test_one_hemisphere_only_is_an_error(tmp_path: Path, lone: str) -> None:
    touch(tmp_path, "s1_a_hemi-L.func.gii", "s1_a_hemi-R.func.gii", f"s1_b_hemi-{lone}.func.gii")
    with pytest.raises(RecordingError, match=r"^Run 'b' of subject '1' has one hemisphere only"):
        corpus(tmp_path, "s{subject}_{run}_hemi-{hemi}.func.gii").files("1")


# the story


def test_the_story_is_a_pattern_a_table_or_a_single_file(tmp_path: Path) -> None:
    for run in ("r2", "r10"):
        words(tmp_path / "story" / f"{run}.tsv", "One", "two.", run + ".")
    assert corpus(tmp_path, "x").story().runs == ("r2", "r10")
    listed = corpus(tmp_path, "x", story={"b": "story/r10.tsv", "a": "story/r2.tsv"})
    assert listed.story().runs == ("b", "a")
    assert corpus(tmp_path, "x", story="story/r2.tsv").story().runs == ("r2",)


def test_an_absent_story_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoryError, match=rf"^No story file matches {tmp_path}/story/\{{run\}}\.tsv\."):
        corpus(tmp_path, "x").story()
    with pytest.raises(StoryError, match=r"lost\.tsv does not exist"):
        corpus(tmp_path, "x", story="lost.tsv").story()


def test_the_rule_for_sentences_is_passed_on(tmp_path: Path) -> None:
    words(tmp_path / "story" / "a.tsv", "One", "two.", "#", "three")
    assert len(corpus(tmp_path, "x", sentences="punctuation").story().sentences) == 2
    assert corpus(tmp_path, "x", sentences="pauses").story().sentences.text.tolist() == ["One two.", "three"]


# recordings


def test_a_single_recording_has_the_name_of_the_single_story(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    words(tmp_path / "alice.tsv", "One.", "Two.")
    table(tmp_path / "sub-18.tsv", rng.standard_normal((20, 2)))
    dataset = corpus(tmp_path, "sub-{subject}.tsv", story="alice.tsv", tr=2.0, cleaning=RAW)
    assert dataset.subjects() == ["18"]
    (recording,) = read(dataset, "18")
    assert (recording.run, recording.subject) == ("alice", "18")
    with pytest.raises(RecordingError, match="Subject '19' has no recording"):
        paths(dataset, "19")


@pytest.mark.parametrize("ending", [".tsv", ".csv"])
def test_the_first_row_of_a_table_without_a_header_is_a_scan(
    tmp_path: Path, rng: np.random.Generator, ending: str
) -> None:
    """Losing it would shift all responses by one TR."""
    values = rng.standard_normal((20, 2))
    comma = "," if ending == ".csv" else "\t"
    np.savetxt(tmp_path / f"s1_a{ending}", values, delimiter=comma, fmt="%.6f")
    pattern = f"s{{subject}}_{{run}}{ending}"
    dataset = corpus(tmp_path, pattern, tr=2.0, columns=["x", "y"], cleaning=RAW)
    assert dataset.inventory("1") == {"a": (20, 2.0, 0.0)}
    (recording,) = read(dataset, "1")
    np.testing.assert_allclose(recording.values, values, atol=1e-5)
    assert recording.space.names.tolist() == ["x", "y"]
    with pytest.raises(RecordingError, match="begins with numbers instead of column names"):
        read(corpus(tmp_path, pattern, tr=2.0), "1")


def test_names_of_columns_may_be_integers(tmp_path: Path, rng: np.random.Generator) -> None:
    pd.DataFrame(rng.standard_normal((20, 3))).to_csv(tmp_path / "s1_a.csv", index=False)
    (recording,) = read(corpus(tmp_path, "s{subject}_{run}.csv", tr=2.0, cleaning=RAW), "1")
    assert recording.values.shape == (20, 3)


def test_confounds_are_matched_by_a_pattern(tmp_path: Path, rng: np.random.Generator) -> None:
    drift = np.linspace(-1, 1, 40) ** 3
    noise = rng.standard_normal((40, 2))
    for run in ("a", "b"):
        table(tmp_path / f"s1_{run}.tsv", noise + 50 * drift[:, None])
    (tmp_path / "moved").mkdir()
    pd.DataFrame({"motion": drift, "other": rng.standard_normal(40)}).to_csv(
        tmp_path / "moved" / "s1_a.tsv", sep="\t", index=False
    )
    cleaning = {**RAW, "confounds": ("motion",)}
    dataset = corpus(
        tmp_path, "s{subject}_{run}.tsv", tr=2.0, cleaning=cleaning, confounds="moved/s{subject}_{run}.tsv"
    )
    with pytest.raises(RecordingError, match="Run 'b' of subject '1' has no confound table that matches"):
        read(dataset, "1")
    (tmp_path / "s1_b.tsv").unlink()
    only = corpus(
        tmp_path, "s{subject}_a.tsv", story="a.tsv", tr=2.0, cleaning=cleaning, confounds="moved/s{subject}_a.tsv"
    )  # fmt: skip
    words(tmp_path / "a.tsv", "One.")
    (recording,) = read(only, "1")
    assert (
        np.abs(recording.values.T @ drift).max()
        < 1e-2 * np.abs((noise + 50 * drift[:, None]).T @ drift).min()
    )


def test_a_lone_hemisphere_is_told_in_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_a_hemi-L.func.gii")
    with pytest.raises(
        RecordingError, match=r"is a surface of one hemisphere.*Write \{hemi\} in recording\.files"
    ):
        corpus(tmp_path, "sub-{subject}_{run}_hemi-L.func.gii").files("1")
    (tmp_path / "sub-1_a_hemi-L.func.gii").write_text("<?xml")
    with pytest.raises(RecordingError, match="is a surface of one hemisphere"):
        count_scans(tmp_path / "sub-1_a_hemi-L.func.gii")
    with pytest.raises(RecordingError, match="is a surface of one hemisphere"):
        read_recording(tmp_path / "sub-1_a_hemi-L.func.gii", "a", "1", tr=2.0)


def test_a_textgrid_that_breaks_off_may_be_accepted_here(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_text(long_grid(tiers())[:900])
    with pytest.raises(
        StoryError, match=r"breaks off .*accept what there is with story\.accept_truncated = true"
    ):
        FilesCorpus(tmp_path, "{run}.TextGrid", "x_{run}.tsv", tier="word").story()


def test_an_overlap_in_another_tier_and_intervals_without_a_colon_are_read(tmp_path: Path) -> None:
    """ELAN writes ``intervals [1]`` without a colon; an overlap of phones is no matter of the words."""
    phones = ("phone", [(0.0, 2.5001, "AH1"), (2.5, 5.0, "")])
    text = long_grid([phones, *tiers()[1:]])
    (tmp_path / "a.TextGrid").write_text(re.sub(r"intervals \[(\d+)\]:", r"intervals [\1]", text))
    story = FilesCorpus(tmp_path, "{run}.TextGrid", "x_{run}.tsv", tier="word").story()
    assert "didn't" in story.text.tolist()
