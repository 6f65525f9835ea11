"""BIDS images: preprocessed images are found and selected by the entities of their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from langcortex.datasets import fmriprep
from langcortex.datasets.corpus import Reading
from langcortex.errors import RecordingError, SettingsError

MNI = "space-MNI152NLin2009cAsym"


def touch(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()


@pytest.mark.parametrize("where", ["", "derivatives/fmriprep", "derivatives"])
def test_derivatives_are_found_below_the_path_or_are_the_path(tmp_path: Path, where: str) -> None:
    touch(tmp_path / where, f"sub-01/func/sub-01_task-t_{MNI}_desc-preproc_bold.nii.gz")
    assert fmriprep.corpus(tmp_path, Reading()).derivatives == tmp_path / where
    assert fmriprep.corpus(tmp_path / where, Reading()).subjects() == ["01"]


def test_derivatives_may_be_named(tmp_path: Path) -> None:
    touch(tmp_path, f"derivatives/afni-smooth/sub-01/func/sub-01_task-t_{MNI}_desc-clean_bold.nii.gz")
    corpus = fmriprep.corpus(tmp_path, Reading(), derivatives="derivatives/afni-smooth", desc="clean")
    assert corpus.subjects() == ["01"]
    with pytest.raises(RecordingError, match=r"There is no folder .*derivatives/other"):
        fmriprep.corpus(tmp_path, Reading(), derivatives="derivatives/other")
    with pytest.raises(SettingsError, match=r"No image has the desc 'preproc'.* There are: clean"):
        fmriprep.corpus(tmp_path, Reading())


def test_values_to_choose_from_are_listed(tmp_path: Path) -> None:
    stem = "sub-01/func/sub-01_task"
    touch(tmp_path, f"{stem}-a_{MNI}_desc-preproc_bold.nii.gz", f"{stem}-b_{MNI}_desc-preproc_bold.nii.gz")
    with pytest.raises(SettingsError, match=r"2 kinds of task: a, b. Choose with data.options.task"):
        fmriprep.corpus(tmp_path, Reading())
    touch(tmp_path, f"{stem}-a_desc-preproc_bold.nii.gz", f"{stem}-a_space-T1w_desc-preproc_bold.nii.gz")
    with pytest.raises(SettingsError, match=r"3 kinds of space: MNI152NLin2009cAsym, T1w, func. Choose"):
        fmriprep.corpus(tmp_path, Reading(), "a")
    touch(tmp_path, f"{stem}-a_{MNI}_res-2_desc-preproc_bold.nii.gz")
    with pytest.raises(SettingsError, match=r"2 kinds of res: 2, none"):
        fmriprep.corpus(tmp_path, Reading(), "a", "MNI152NLin2009cAsym")
    with pytest.raises(SettingsError, match=r"No image has the res '3'.* There are: 2, none"):
        fmriprep.corpus(tmp_path, Reading(), "a", "MNI152NLin2009cAsym", "3")
    with pytest.raises(SettingsError, match=r"No image has the desc 'clean'.* There are: preproc"):
        fmriprep.corpus(tmp_path, Reading(), "a", desc="clean")
    with pytest.raises(SettingsError, match=r"No image has the task 'c'"):
        fmriprep.corpus(tmp_path, Reading(), ["a", "c"])


@pytest.mark.parametrize(("space", "res"), [("func", ""), ("T1w", ""), (MNI[6:], "2"), (MNI[6:], "none")])
def test_a_choice_selects_one_image_per_run(tmp_path: Path, space: str, res: str) -> None:
    ends = {"func": "", "T1w": "_space-T1w", MNI[6:]: f"_{MNI}", MNI[6:] + "2": f"_{MNI}_res-2"}
    touch(tmp_path, *(f"sub-01/func/sub-01_task-a{end}_desc-preproc_bold.nii.gz" for end in ends.values()))
    corpus = fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), "a", space, res, words="w.tsv")
    end = ends[space + res.removesuffix("none")]
    assert [f.path for f in corpus.files("01").values()] == [tmp_path / f"sub-01/func/sub-01_task-a{end}_desc-preproc_bold.nii.gz"]  # fmt: skip


def test_runs_are_named_by_the_entities_that_vary_within_a_subject(tmp_path: Path) -> None:
    """One subject has a session of another name; two subjects have no run number, as in Narratives."""
    end = f"{MNI}_desc-preproc_bold.nii.gz"
    touch(
        tmp_path,
        f"sub-1/ses-a/func/sub-1_ses-a_task-t_acq-x_run-1_{end}",
        f"sub-1/ses-a/func/sub-1_ses-a_task-t_acq-x_run-2_{end}",
        f"sub-2/ses-b/func/sub-2_ses-b_task-t_acq-x_{end}",
    )
    corpus = fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), words="w.tsv")
    assert corpus.runs("1") == ["task-t_run-1", "task-t_run-2"]
    assert corpus.runs("2") == ["task-t"]
    touch(tmp_path, f"sub-1/ses-b/func/sub-1_ses-b_task-t_acq-x_run-10_{end}")
    two_sessions = fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), words="w.tsv")
    assert two_sessions.runs("1") == ["ses-a_task-t_run-1", "ses-a_task-t_run-2", "ses-b_task-t_run-10"]
    first_session = fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), words="w.tsv", session="a")
    assert (first_session.runs("1"), first_session.subjects()) == (["task-t_run-1", "task-t_run-2"], ["1"])


def test_single_echoes_phase_and_references_are_no_runs(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(
            f"sub-1/func/sub-1_task-t_{ending}"
            for ending in ("desc-preproc_bold.nii.gz", "echo-1_desc-preproc_bold.nii.gz", "desc-preproc_boldref.nii.gz",
                         "part-phase_desc-preproc_bold.nii.gz", "desc-brain_mask.nii.gz")
        ),
    )  # fmt: skip
    assert fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), words="w").runs("1") == ["task-t"]


def test_two_images_of_one_run_are_an_error(tmp_path: Path) -> None:
    stem = f"sub-1/func/sub-1_task-t_{MNI}_desc-preproc_bold.nii"
    touch(tmp_path, stem, stem + ".gz")
    with pytest.raises(RecordingError, match="Two images are run 'task-t' of subject '1'"):
        fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), words="w").files("1")


def test_cifti_and_images_of_another_kind_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1/func/sub-1_task-t_space-fsLR_den-91k_bold.dtseries.nii")
    with pytest.raises(RecordingError, match=r"CIFTI images \(.dtseries.nii\), which are not read"):
        fmriprep.corpus(tmp_path, Reading())
    touch(tmp_path, "sub-1/func/sub-1_task-t_hemi-L_space-fsaverage_bold.func.gii")
    with pytest.raises(
        RecordingError, match=r'no volume images, but surface images\. Set data\.options\.kind = "surface"'
    ):
        fmriprep.corpus(tmp_path, Reading())
    with pytest.raises(SettingsError, match="CIFTI"):
        fmriprep.corpus(tmp_path, Reading(), kind="cifti")
