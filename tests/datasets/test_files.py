"""Corpora of files: patterns match files in natural order, and a missing file is reported in one sentence."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from langcortex.brain.recording import Recording
from langcortex.datasets import Corpus, FilesCorpus, Reading
from langcortex.errors import RecordingError, SettingsError, StoryError

RAW = {"detrend": False, "high_pass": None, "standardise": False}
LPP = "derivatives/sub-{subject}/func/sub-{subject}_task-lppEN_run-{run}_space-MNIColin27_desc-preproc_bold.nii.gz"


def corpus(base: Path, recordings: str, story: object = "story/{run}.tsv", **options: object) -> FilesCorpus:
    """Return a corpus; options of `Reading` are passed to it, the others to the corpus."""
    reading = {k: v for k, v in options.items() if k in Reading.__dataclass_fields__}
    corpus_options = {k: v for k, v in options.items() if k not in reading}
    return FilesCorpus(base, story, recordings, reading=Reading(**reading), **corpus_options)  # type: ignore[arg-type]


def read(dataset: FilesCorpus, subject: str) -> list[Recording]:
    return [dataset.recording(subject, run) for run in dataset.runs(subject)]


def paths(dataset: FilesCorpus, subject: str) -> dict[str, object]:
    return {run: file.path for run, file in dataset.files(subject).items()}


def touch(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()


def words(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{word}\t{float(i)}\t0.5" for i, word in enumerate(texts)]
    path.write_text("\n".join(["word\tonset\tduration", *rows]) + "\n", encoding="utf-8")


def table(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"t{i}" for i in range(values.shape[1])]
    pd.DataFrame(values, columns=names).to_csv(path, sep="\t", index=False)


def volume(path: Path, rng: np.random.Generator, shape: tuple[int, int, int] = (5, 4, 3)) -> np.ndarray:
    """Write eight scans of noise, brighter inside than at the edges of the grid."""
    data = rng.standard_normal((*shape, 8)).astype(np.float32)
    data[2:-2, 2:-2, 2:-2] += 1000
    image = nibabel.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0]))
    image.header.set_zooms((4, 4, 4, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return data


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
    with pytest.raises(RecordingError, match="Two files stand for 'a'"):
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


def test_tables_are_read_with_their_onsets_and_regions(tmp_path: Path, rng: np.random.Generator) -> None:
    values = {run: rng.standard_normal((20, 4)) for run in ("a", "b")}
    for run, data in values.items():
        table(tmp_path / f"s1_{run}.tsv", data)
    dataset = corpus(
        tmp_path, "s{subject}_{run}.tsv", tr=1.5, stimulus_onset={"a": 3.0, "b": 0.5}, cleaning=RAW,
        regions={"front": ["t0", "t3"]}, reference=0.0,
    )  # fmt: skip
    a, b = read(dataset, "1")
    assert (a.run, b.run) == ("a", "b")
    np.testing.assert_allclose(a.values, values["a"], rtol=1e-5)
    np.testing.assert_allclose(b.values, values["b"], rtol=1e-5)
    np.testing.assert_allclose(a.onset, 1.5 * np.arange(20) - 3.0)
    np.testing.assert_allclose(b.onset, 1.5 * np.arange(20) - 0.5)
    assert a.reference == 0.0
    for recording in (a, b):
        assert recording.space.regions["front"].tolist() == [True, False, False, True]
    assert dataset.inventory("1") == {"a": (20, 1.5, 3.0), "b": (20, 1.5, 0.5)}


def test_a_run_without_a_stimulus_onset_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    table(tmp_path / "s1_a.tsv", rng.standard_normal((20, 2)))
    dataset = corpus(tmp_path, "s{subject}_{run}.tsv", tr=2.0, stimulus_onset={"b": 1.0})
    with pytest.raises(SettingsError, match=r"^recording\.stimulus_onset has no number for run 'a'"):
        read(dataset, "1")


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


def test_a_mask_is_computed_over_all_runs_of_all_subjects(tmp_path: Path, rng: np.random.Generator) -> None:
    for subject in ("1", "2"):
        for run in ("a", "b"):
            volume(tmp_path / f"s{subject}_{run}.nii.gz", rng, (12, 12, 12))
    dataset = corpus(tmp_path, "s{subject}_{run}.nii.gz", cleaning=RAW)
    assert len(dataset.volumes()) == 4
    space = dataset.space_of("1")
    assert space.mask is not None
    bright = np.zeros((12, 12, 12), dtype=bool)
    bright[2:-2, 2:-2, 2:-2] = True
    assert not (space.mask & ~bright).any()
    assert space.mask[4:-4, 4:-4, 4:-4].all()
    first, second = read(dataset, "1")[0], read(dataset, "2")[1]
    assert first.space.same_as(second.space)
    assert first.tr == 2.0


def test_a_mask_may_be_a_file_or_all_voxels(tmp_path: Path, rng: np.random.Generator) -> None:
    data = volume(tmp_path / "s1_a.nii.gz", rng)
    inside = np.zeros((5, 4, 3), dtype=np.uint8)
    inside[2, 2, 1] = inside[3, 1, 0] = 1
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(inside, affine), tmp_path / "mask.nii.gz")
    region = np.zeros_like(inside)
    region[2, 2, 1] = 1
    nibabel.save(nibabel.Nifti1Image(region, affine), tmp_path / "region.nii.gz")
    masked = corpus(
        tmp_path, "s{subject}_{run}.nii.gz", mask=tmp_path / "mask.nii.gz", cleaning=RAW,
        regions={"spot": tmp_path / "region.nii.gz"},
    )  # fmt: skip
    (recording,) = read(masked, "1")
    np.testing.assert_allclose(recording.values.T, data[inside.astype(bool)], rtol=1e-5)
    assert recording.space.regions["spot"].tolist() == [True, False]
    (unmasked,) = read(corpus(tmp_path, "s{subject}_{run}.nii.gz", mask="all", cleaning=RAW), "1")
    np.testing.assert_allclose(unmasked.values.T, data.reshape(60, -1), rtol=1e-5)
    assert masked.inventory("1") == {"a": (8, 2.0, 0.0)}
