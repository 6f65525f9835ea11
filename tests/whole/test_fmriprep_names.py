"""Real lists of names: what fMRIPrep and XCP-D write is opened as they write it, with everything that lies beside images."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest

from langcortex.datasets import fmriprep, open_named
from langcortex.datasets.corpus import Reading
from langcortex.datasets.fmriprep import FmriprepCorpus
from langcortex.errors import LangcortexError, RecordingError, SettingsError

MNI = "MNI152NLin2009cAsym"
SCANS = 6
LISTS = {
    "ds000001": "fmriprep_ds000001/names.txt",
    "ds000114": "fmriprep_ds000114/names.txt",
    "ds002345": "fmriprep_ds002345/names.txt",
    "ds005": "fmriprep_ci_lists/ds005_outputs.txt",
    "ds054": "fmriprep_ci_lists/ds054_outputs.txt",
    "xcpd-nifti": "fmriprep_ci_lists/xcpd_test_ds001419_nifti_outputs.txt",
    "xcpd-cifti": "fmriprep_ci_lists/xcpd_test_ds001419_cifti_outputs.txt",
}


@functools.cache
def content(kind: str) -> bytes:
    """Return the bytes of a tiny file of a kind: a run, a mask, a 3D image, a surface."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    if kind == "surface":
        rows = np.random.default_rng(0).standard_normal((SCANS, 5)).astype(np.float32)
        arrays = [nibabel.gifti.GiftiDataArray(row, datatype="NIFTI_TYPE_FLOAT32") for row in rows]
        return bytes(nibabel.gifti.GiftiImage(darrays=arrays).to_bytes())
    shape = (4, 3, 2, SCANS) if kind == "run" else (4, 3, 2)
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 100
    if kind == "mask":
        data = (np.arange(24).reshape(shape) > 3).astype(np.float32)
    image = nibabel.Nifti1Image(data.astype(np.uint8) if kind == "mask" else data, affine)
    return bytes(image.to_bytes())


def kind_of(name: str) -> str:
    if name.endswith(".func.gii"):
        return "surface"
    if not name.endswith((".nii", ".nii.gz")) or ".dtseries" in name:
        return ""
    return "run" if name.split(".")[0].endswith("_bold") else "mask" if "_mask." in name else "3D"


def build(base: Path, names: Iterable[str], real: Path | None = None) -> Path:
    """Write a folder with these names; sidecars are the real ones where `real` has them."""
    import gzip

    for name in names:
        path = base / name
        if not path.suffix:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if real is not None and (real / name).is_file():
            shutil.copyfile(real / name, path)
        elif kind := kind_of(path.name):
            path.write_bytes(gzip.compress(content(kind), 1) if path.name.endswith(".gz") else content(kind))
        elif path.name.endswith("timeseries.tsv"):
            path.write_text(
                "trans_x\tcsf\n" + "n/a\t1\n" + "".join(f"{i}\t{i * i}\n" for i in range(SCANS - 1))
            )
        else:
            path.write_text('{"RepetitionTime": 2.0}' if path.suffix == ".json" else "x")
    return base


@pytest.fixture
def real_list(shared_data: Path, tmp_path: Path) -> Callable[..., Path]:
    """Build the folder of a real list of names, of some subjects and everything that is no subject's."""

    def make(name: str, subjects: Sequence[str] = ()) -> Path:
        path = shared_data / "real2" / LISTS[name]
        if not path.is_file():
            pytest.skip(f"the real list {path} is absent")
        names = path.read_text().split("\n")
        chosen = [
            n
            for n in names
            if n and (not subjects or not n.startswith("sub-") or n.startswith(tuple(subjects)))
        ]
        return build(tmp_path / name, chosen, path.parent)

    return make


def opened(path: Path, reading: Reading | None = None, **options: object) -> FmriprepCorpus:
    corpus = open_named(
        "fmriprep", path, reading or Reading(stimulus_onset=0.0), {"words": "w.tsv", **options}
    )
    assert isinstance(corpus, FmriprepCorpus)
    return corpus


# fMRIPrep


def test_ds000001_is_opened_with_the_mask_and_the_confounds_of_each_run(
    real_list: Callable[..., Path],
) -> None:
    """A sidecar lies beside every mask, and images of other kinds beside every run."""
    path = real_list("ds000001", ("sub-01/", "sub-02/"))
    reading = Reading(stimulus_onset=0.0, cleaning={"confounds": ("trans_x",), "high_pass": None})
    corpus = opened(path, reading, space=MNI)
    assert corpus.subjects() == ["01", "02"]
    assert corpus.runs("01") == [f"task-balloonanalogrisktask_run-{i}" for i in (1, 2, 3)]
    for run, file in corpus.files("02").items():
        stem = f"sub-02_{run}"
        assert isinstance(file.path, Path)
        assert file.path.name == f"{stem}_space-{MNI}_res-2_desc-preproc_bold.nii.gz"
        assert file.mask is not None
        assert file.mask.name == f"{stem}_space-{MNI}_res-2_desc-brain_mask.nii.gz"
        assert file.confounds is not None
        assert file.confounds.name == f"{stem}_desc-confounds_timeseries.tsv"
    assert corpus.inventory("01")["task-balloonanalogrisktask_run-2"] == (SCANS, 2.0, 0.0)
    recording = corpus.recording("01", "task-balloonanalogrisktask_run-2")
    assert recording.values.shape == (SCANS, 20)
    assert recording.tr == 2.0


@pytest.mark.parametrize("mask", ["all", "compute"])
def test_no_choice_of_a_mask_meets_a_sidecar(real_list: Callable[..., Path], mask: str) -> None:
    corpus = opened(real_list("ds000001", ("sub-01/",)), Reading(stimulus_onset=0.0, mask=mask), space=MNI)
    assert corpus.space_of("01").n_targets == (24 if mask == "all" else 20)


def test_the_spaces_and_the_descriptions_of_ds000001_are_listed_and_may_be_chosen(
    real_list: Callable[..., Path],
) -> None:
    path = real_list("ds000001", ("sub-01/",))
    with pytest.raises(SettingsError, match=r"3 kinds of space: MNI152NLin2009cAsym, T1w, func. Choose with"):
        opened(path)
    native = opened(path, space="T1w")
    assert native.files("01")["task-balloonanalogrisktask_run-1"].mask is not None
    plain = opened(path, space="func").files("01")["task-balloonanalogrisktask_run-1"]
    assert str(plain.mask).endswith("sub-01_task-balloonanalogrisktask_run-1_desc-brain_mask.nii.gz")
    aroma = opened(path, desc="smoothAROMAnonaggr", space="MNI152NLin6Asym")
    assert aroma.files("01")["task-balloonanalogrisktask_run-1"].mask is None
    surface = opened(path, kind="surface", space="fsaverage5")
    assert surface.recording("01", "task-balloonanalogrisktask_run-3").values.shape == (SCANS, 10)


def test_all_names_of_all_subjects_of_ds000001_have_their_mask(shared_data: Path, tmp_path: Path) -> None:
    names = (shared_data / "real2" / LISTS["ds000001"]).read_text().split()
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}") if name.endswith(".json") else path.touch()
    corpus = opened(tmp_path, space=MNI)
    assert len(corpus.subjects()) == 16
    files = [file for subject in corpus.subjects() for file in corpus.files(subject).values()]
    assert len(files) == 48
    assert all(file.mask is not None and file.mask.name.endswith("_mask.nii.gz") for file in files)


def test_ds000114_has_sessions_and_several_tasks(real_list: Callable[..., Path]) -> None:
    path = real_list("ds000114", ("sub-01/", "sub-02/"))
    with pytest.raises(SettingsError, match="kinds of task: covertverbgeneration, fingerfootlips"):
        opened(path, space=MNI)
    corpus = opened(path, space=MNI, task="overtwordrepetition")
    assert corpus.runs("01") == [f"ses-{s}_task-overtwordrepetition" for s in ("retest", "test")]
    files = corpus.files("02")
    for session in ("test", "retest"):
        mask = files[f"ses-{session}_task-overtwordrepetition"].mask
        assert mask is not None
        assert mask.parent.parent.name == f"ses-{session}"
        assert mask.name.startswith(f"sub-02_ses-{session}_task-overtwordrepetition_space-{MNI}")
    one = opened(path, space=MNI, task=["overtwordrepetition", "linebisection"], session="test")
    assert one.runs("01") == ["task-linebisection", "task-overtwordrepetition"]
    assert one.inventory("01")["task-linebisection"][:2] == (SCANS, 2.5)


def test_the_minimal_level_is_told_in_a_sentence(real_list: Callable[..., Path]) -> None:
    path = real_list("ds002345")
    with pytest.raises(
        RecordingError, match=r"--level minimal: .* no preprocessed BOLD images.*--level full"
    ):
        opened(path)
    with pytest.raises(RecordingError, match="--level minimal"):
        opened(path, kind="surface")


def test_the_newest_fmriprep_writes_surfaces_or_volumes(real_list: Callable[..., Path]) -> None:
    surfaces = real_list("ds005")
    with pytest.raises(RecordingError, match=r'no volume images, but surface images. Set .*kind = "surface"'):
        opened(surfaces)
    with pytest.raises(SettingsError, match="2 kinds of space: fsaverage5, fsnative"):
        opened(surfaces, kind="surface")
    corpus = opened(surfaces, kind="surface", space="fsaverage5")
    assert corpus.runs("01") == [f"task-mixedgamblestask_run-0{i}" for i in (1, 2)]
    assert "logs/CITATION.md" in corpus.citation()
    volumes = opened(real_list("ds054"), space=MNI, res="2")
    files = volumes.files("100185")
    assert list(files) == [f"task-machinegame_run-0{i}" for i in range(1, len(files) + 1)]
    assert all(file.mask is not None for file in files.values())


# XCP-D


def test_xcpd_joins_runs_and_the_join_is_left_out(real_list: Callable[..., Path]) -> None:
    """The image without a run number holds the scans of both runs: to use all three would test on what was trained on."""
    path = real_list("xcpd-nifti")
    with pytest.raises(SettingsError, match=r"No image has the desc 'preproc'.*There are: denoised"):
        opened(path, task="imagery")
    corpus = opened(path, task="imagery", desc="denoised")
    assert corpus.runs("01") == ["task-imagery_run-01", "task-imagery_run-02"]
    assert corpus.remarks() == [
        "sub-01_task-imagery_space-MNI152NLin6Asym_res-2_desc-denoised_bold.nii.gz is left out: it stands beside runs with a "
        "number, whose scans it joins."
    ]
    assert opened(path, task="rest", desc="denoised").remarks() == []


def test_cifti_is_told_in_a_sentence(real_list: Callable[..., Path]) -> None:
    with pytest.raises(RecordingError, match=r"CIFTI images \(.dtseries.nii\), which are not read"):
        opened(real_list("xcpd-cifti"))


# names made for these tests, so that they are run everywhere

STEM = "sub-01/func/sub-01_task-story"
BESIDE = (
    f"{STEM}_boldref.nii.gz",
    f"{STEM}_space-{MNI}_res-2_boldref.json",
    f"{STEM}_space-{MNI}_res-2_desc-aparcaseg_dseg.nii.gz",
    f"{STEM}_space-{MNI}_res-2_T2starmap.nii.gz",
    f"{STEM}_space-{MNI}_res-2_T2starmap.json",
    f"{STEM}_space-fsLR_den-91k_bold.dtseries.nii",
    f"{STEM}_space-fsLR_den-91k_desc-preproc_bold.dtseries.json",
    f"{STEM}_echo-1_desc-preproc_bold.nii.gz",
    f"{STEM}_echo-2_desc-preproc_bold.json",
    f"{STEM}_desc-brain_mask.json",
    f"{STEM}_desc-confounds_timeseries.json",
    f"{STEM}_desc-confounds_timeseries.tsv",
    "sub-01/func/._sub-01_task-story_desc-preproc_bold.nii.gz",
    "sub-01/func/.DS_Store.x",
    "sub-01/figures/sub-01_task-story_desc-carpetplot_bold.svg",
    "sub-01.html",
    "logs/CITATION.md",
    "sourcedata/freesurfer/fsaverage/mri/T1.mgz",
)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    kinds = ("desc-preproc_bold", "desc-brain_mask")
    images = [f"{STEM}_space-{MNI}_res-2_{kind}.{e}" for kind in kinds for e in ("nii.gz", "json")]
    return build(tmp_path / "derivatives" / "fmriprep", [*images, *BESIDE])


def test_what_lies_beside_images_is_no_image_and_no_mask(made: Path) -> None:
    corpus = opened(made)
    files = corpus.files("01")
    assert list(files) == ["task-story"]
    assert str(files["task-story"].mask).endswith(f"space-{MNI}_res-2_desc-brain_mask.nii.gz")
    assert corpus.recording("01", "task-story").values.shape == (SCANS, 20)


def test_two_resolutions_need_a_choice_and_each_has_its_mask(made: Path) -> None:
    build(made, [f"{STEM}_space-{MNI}_desc-{d}.nii.gz" for d in ("preproc_bold", "brain_mask")])
    with pytest.raises(SettingsError, match="2 kinds of res: 2, none"):
        opened(made)
    for res, part in (("2", "_res-2_"), ("none", f"{MNI}_desc")):
        file = opened(made, res=res).files("01")["task-story"]
        assert part in str(file.mask)
        assert part in str(file.path)


@pytest.mark.parametrize("given", ["", "derivatives", "derivatives/fmriprep"])
def test_the_folder_above_the_derivatives_is_enough(made: Path, given: str) -> None:
    assert opened(made.parent.parent / given).subjects() == ["01"]


def test_a_pipeline_s_folder_of_another_name_is_found_and_two_are_a_question(made: Path) -> None:
    named = made.rename(made.with_name("fmriprep-24.1.0"))
    assert opened(named.parent).derivatives == named
    assert opened(named.parent.parent).derivatives == named
    shutil.copytree(named, named.with_name("fmriprep-20.2"))
    with pytest.raises(
        RecordingError, match=r"2 folders of preprocessed images: .*fmriprep-20.2.*data.options.derivatives"
    ):
        opened(named.parent.parent)
    assert opened(named.parent, derivatives="fmriprep-20.2").subjects() == ["01"]


def test_a_subject_s_folder_and_a_folder_that_is_not_there_are_told(made: Path) -> None:
    assert opened(made / "sub-01").subjects() == ["01"]
    build(made, [f"sub-02/ses-1/func/sub-02_ses-1_task-t_space-{MNI}_desc-preproc_bold.nii.gz"])
    with pytest.raises(RecordingError, match="inside the folder of one subject"):
        opened(made / "sub-02")
    for name in ("fmriprep", "lebel", "pereira"):
        with pytest.raises(RecordingError, match=r"The folder .*/nothing/here does not exist .*data\.path"):
            open_named(name, made / "nothing" / "here", Reading(), {})


def test_single_echoes_alone_are_told(tmp_path: Path) -> None:
    build(tmp_path, [f"{STEM}_echo-{i}_desc-preproc_bold.nii.gz" for i in (1, 2, 3)])
    with pytest.raises(RecordingError, match="single echoes only"):
        opened(tmp_path)


@pytest.mark.parametrize("what", ["bold.nii.gz", "mask.nii.gz", "timeseries.tsv"])
def test_links_without_content_say_what_to_fetch(made: Path, what: str) -> None:
    for path in made.rglob(f"sub-*{what}"):
        path.unlink()
        path.symlink_to("../../.git/annex/objects/xx/MD5E-s1--0")
    reading = Reading(stimulus_onset=0.0, cleaning={"confounds": ("trans_x",)})
    with pytest.raises(LangcortexError, match="datalad get"):
        opened(made, reading).recording("01", "task-story")


# whom to cite


def test_fmriprep_s_text_is_not_the_data_s(real_list: Callable[..., Path]) -> None:
    citation = opened(real_list("ds000001", ("sub-01/",)), space=MNI).citation()
    data, preprocessing = citation.split("Preprocessing: ")
    assert data == "Data: doi:10.18112/openneuro.ds000001.v1.0.0 (SourceDatasets of the derivatives). "
    assert preprocessing.startswith("fMRIPrep 21.0.1. Esteban, O.")
    assert "Please cite our paper" in preprocessing


def test_the_data_s_own_words_come_first(made: Path) -> None:
    (made / "dataset_description.json").write_text(
        '{"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep", "Version": "24.1.0"}], "HowToAcknowledge": "cite us",'
        ' "License": "CC0"}'
    )
    assert "has no dataset_description.json that says" in opened(made).citation()
    (made.parent.parent / "dataset_description.json").write_text(
        '{"HowToAcknowledge": "Cite Doe 2020", "License": "PDDL"}'
    )
    for path in (made, made.parent, made.parent.parent):
        corpus = opened(path)
        assert corpus.citation().startswith("Data: Cite Doe 2020. Preprocessing: fMRIPrep 24.1.0. Esteban")
        assert corpus.citation().endswith(
            'It asks: "cite us" Its text for the methods is in logs/CITATION.md.'
        )
        assert corpus.licence() == "PDDL, says dataset_description.json. The derivatives: CC0."


def test_a_description_that_is_not_here_stops_nothing(made: Path) -> None:
    (made / "dataset_description.json").symlink_to("../.git/annex/objects/none")
    assert "Preprocessing: fMRIPrep" in opened(made).citation()
    assert fmriprep.corpus(made, Reading(), words="w").licence()
