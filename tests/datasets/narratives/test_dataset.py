"""Narratives: published names, onsets from events, the authors' exclusions, and one clock from sound file to scan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from langcortex.brain.recording import Cleaning
from langcortex.datasets import Corpus, Reading
from langcortex.datasets.narratives.dataset import Narratives, corpus
from langcortex.errors import RecordingError, SettingsError, StoryError

MNI = "space-MNI152NLin2009cAsym_res-native"
EVENTS = {
    "pieman": "0.0\t13.0\tmusic\tpieman_audio.wav\n15.0\t422.0\tstory\tpieman_audio.wav\n",
    "tunnel": "3.0\t1534.0\tstory\ttunnel_audio.wav\n",
    "merlin": "4.5\t25.0\tmusic\tmerlin_audio.wav\n33.5\t886.0\tstory\tmerlin_audio.wav\n",
    "bronx": "12.0\t536.0\tstory\tbronx_audio.wav\n",
    "slumlordreach": (
        "4.5\t22.0\tmusic\tslumlordreach_audio.wav\n29.5\t903.0\tstory\tslumlordreach_audio.wav\n"
        "944.5\t22.0\tmusic\tslumlordreach_audio.wav\n969.5\t825.0\tstory\tslumlordreach_audio.wav\n"
    ),
    "schema": (
        "5.0\t189.0\tmovie\tn/a\n199.93\t163.0\tstory\tfriends_audio.wav\n"
        "369.17\t184.0\tmovie\tn/a\n558.61\t171.0\tstory\tbigbang_audio.wav\n"
    ),
}
RAW = Reading(cleaning={"detrend": False, "high_pass": None, "standardise": False})


def milkyway(version: str, onset: float = 21.0) -> str:
    sound = f"milkyway{version}_audio.wav"
    return f"0.0\t18.0\tmusic\t{sound}\n{onset}\t404.0\tstory\t{sound}\n"


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def raw(base: Path, stem: str, events: str, tr: float | None = 1.5) -> None:
    """Write the files of ds002345 beside a raw image."""
    folder = base / stem.split("_")[0] / "func"
    put(folder / f"{stem}_events.tsv", "onset\tduration\ttrial_type\tstim_file\n" + events)
    if tr is not None:
        put(folder / f"{stem}_bold.json", json.dumps({"RepetitionTime": tr, "TaskName": "x"}))


def in_derivatives(base: Path, stem: str, ending: str, pipeline: str = "fmriprep") -> Path:
    path = base / "derivatives" / pipeline / stem.split("_")[0] / "func" / f"{stem}_{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def volume(path: Path, rng: np.random.Generator, tr: float = 1.5) -> np.ndarray:
    data = rng.standard_normal((5, 4, 3, 12)).astype(np.float32) + 100
    image = nibabel.Nifti1Image(data, np.diag([3.0, 3.0, 4.0, 1.0]))
    image.header.set_zooms((3, 3, 4, tr))
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return data


def mask(path: Path, n: int = 7) -> np.ndarray:
    inside = np.zeros((5, 4, 3), dtype=bool)
    inside.ravel()[:n] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), np.diag([3.0, 3.0, 4.0, 1.0])), path)
    return inside


def surface(path: Path, data: np.ndarray, single: bool, step: float | None = None) -> None:
    """Write scans × vertices as fMRIPrep does (one array per scan) or as the authors' gifti_io does (one array)."""
    meta = (
        nibabel.gifti.GiftiMetaData()
        if step is None
        else nibabel.gifti.GiftiMetaData({"TimeStep": str(step)})
    )
    parts = [data.T] if single else list(data)
    arrays = [
        nibabel.gifti.GiftiDataArray(
            np.ascontiguousarray(p, dtype=np.float32), datatype="NIFTI_TYPE_FLOAT32", meta=meta
        )
        for p in parts
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)


def gentle(base: Path, story: str, *words: tuple[str, float]) -> None:
    """Write align.json of words and onsets, half a second each; a negative onset was not heard."""
    transcript = " ".join(w for w, _ in words) + "."
    rows, stop = [], 0
    for word, onset in words:
        begin = transcript.index(word, stop)
        stop = begin + len(word)
        row: dict[str, Any] = {
            "word": word,
            "startOffset": begin,
            "endOffset": stop,
            "case": "not-found-in-audio",
        }
        if onset >= 0:
            row |= {
                "case": "success",
                "alignedWord": word.lower(),
                "start": onset,
                "end": onset + 0.5,
                "phones": [],
            }
        rows.append(row)
    put(
        base / "stimuli" / "gentle" / story / "align.json",
        json.dumps({"transcript": transcript, "words": rows}),
    )


@pytest.fixture
def tree(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two subjects who heard pieman once, one who heard it twice, and one whom the authors excluded."""
    stems = ["sub-002_task-pieman", "sub-004_task-pieman", "sub-021_task-pieman"]
    stems += [f"sub-015_task-pieman_run-{i}" for i in (1, 2)]
    for stem in stems:
        raw(tmp_path, stem, EVENTS["pieman"])
        volume(in_derivatives(tmp_path, stem, f"{MNI}_desc-preproc_bold.nii.gz"), rng)
        mask(in_derivatives(tmp_path, stem, f"{MNI}_desc-brain_mask.nii.gz"), 7 if "002" in stem else 9)
    put(tmp_path / "sub-038" / "._.DS_Store")
    gentle(tmp_path, "pieman", ("I", 2.0), ("began", 15.09), ("my", -1.0), ("tale", 16.0))
    return tmp_path


# the tree


def test_narratives_is_a_corpus(tree: Path) -> None:
    assert isinstance(corpus(tree, Reading()), Corpus)


def test_subjects_are_those_with_a_scan_that_the_authors_did_not_exclude(tree: Path) -> None:
    dataset = corpus(tree, Reading())
    assert dataset.subjects() == ["002", "004", "015"]
    assert dataset.excluded("pieman") == ["sub-021_task-pieman"]
    assert dataset.excluded("tunnel") == []
    unfiltered = corpus(tree, Reading(), exclude=False)
    assert unfiltered.subjects() == ["002", "004", "015", "021"]
    assert unfiltered.excluded("pieman") == []


def test_the_list_of_excluded_scans_is_read_if_it_exists(tree: Path) -> None:
    put(
        tree / "code" / "scan_exclude.json",
        json.dumps({"pieman": {"sub-002": ["sub-002_task-pieman"]}, "lucy": {}}),
    )
    assert corpus(tree, Reading()).subjects() == ["004", "015", "021"]
    put(tree / "code" / "scan_exclude.json", '{"pieman": ["sub-002"]}')
    with pytest.raises(RecordingError, match=r"scan_exclude\.json cannot be read"):
        corpus(tree, Reading()).subjects()


@pytest.mark.parametrize(
    ("task", "included", "excluded"),
    [
        ("pieman", ["sub-013_task-pieman_run-1", "sub-014_task-pieman_run-1"],
         ["sub-001_task-pieman_run-1", "sub-001_task-pieman_run-2", "sub-013_task-pieman_run-2",
          "sub-014_task-pieman_run-2", "sub-069_task-pieman"]),
        ("tunnel", ["sub-053_task-tunnel"], ["sub-004_task-tunnel", "sub-013_task-tunnel"]),
    ],
)  # fmt: skip
def test_the_published_exclusions_are_by_scan(
    tmp_path: Path, task: str, included: list[str], excluded: list[str]
) -> None:
    for stem in (*included, *excluded):
        raw(tmp_path, stem, EVENTS[task])
        in_derivatives(tmp_path, stem, f"{MNI}_desc-preproc_bold.nii.gz").touch()
    dataset = corpus(tmp_path, Reading(), tasks=task)
    assert dataset.excluded(task) == excluded
    assert [dataset.files(s)[task].path.name.split("_space")[0] for s in dataset.subjects()] == included  # type: ignore[union-attr]


def test_a_second_presentation_is_a_run_only_with_repeats(tree: Path) -> None:
    once = corpus(tree, Reading()).files("015")
    assert list(once) == ["pieman"]
    assert "_run-1_" in once["pieman"].path.name  # type: ignore[union-attr]
    assert corpus(tree, Reading(), repeats=True).runs("015") == ["pieman_run-1", "pieman_run-2"]
    assert corpus(tree, Reading(), repeats=True).story().runs == ("pieman", "pieman_run-1", "pieman_run-2")


def test_naming_an_excluded_subject_is_an_error_with_the_reason(tree: Path) -> None:
    with pytest.raises(
        RecordingError, match="'021' has scans of pieman, but they were excluded by the authors"
    ):
        corpus(tree, Reading(subjects=["021"])).subjects()
    with pytest.raises(RecordingError, match="'999' was not found"):
        corpus(tree, Reading(subjects=["999"])).subjects()
    with pytest.raises(RecordingError, match="named twice"):
        corpus(tree, Reading(subjects=["002", "002"])).subjects()
    with pytest.raises(RecordingError, match="'999' has no scan of pieman"):
        corpus(tree, Reading()).files("999")


def test_other_spaces_pipelines_and_files_are_no_scans(tree: Path) -> None:
    for ending in (
        "space-T1w_desc-preproc_bold.nii.gz",
        f"{MNI}_desc-aparcaseg_dseg.nii.gz",
        f"{MNI}_desc-preproc_bold.nii.gz.bak",
        f"{MNI}_boldref.nii.gz",
    ):
        in_derivatives(tree, "sub-077_task-pieman", ending).touch()
    in_derivatives(tree, "sub-077_task-piemanpni", f"{MNI}_desc-preproc_bold.nii.gz").touch()
    assert corpus(tree, Reading()).subjects() == ["002", "004", "015"]


def test_two_files_for_one_scan_are_refused(tree: Path) -> None:
    ending = "space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
    in_derivatives(tree, "sub-002_task-pieman", ending).touch()
    with pytest.raises(RecordingError, match="Two files are the same scan"):
        corpus(tree, Reading()).subjects()


@pytest.mark.parametrize(
    ("pipeline", "clean", "kind", "ending"),
    [
        ("fmriprep", True, "volume", f"{MNI}_desc-preproc_bold.nii.gz"),
        ("fmriprep", True, "surface", "space-fsaverage6_hemi-{}.func.gii"),
        ("afni-smooth", True, "volume", f"{MNI}_desc-clean_bold.nii.gz"),
        ("afni-smooth", True, "surface", "space-fsaverage6_hemi-{}_desc-clean.func.gii"),
        ("afni-smooth", False, "volume", f"{MNI}_desc-sm6_bold.nii.gz"),
        ("afni-smooth", False, "surface", "space-fsaverage6_hemi-{}_desc-sm6.func.gii"),
        ("afni-nosmooth", True, "volume", f"{MNI}_desc-clean_bold.nii.gz"),
        ("afni-nosmooth", True, "surface", "space-fsaverage6_hemi-{}_desc-clean.func.gii"),
    ],
)
def test_each_pipeline_has_its_own_names(
    tmp_path: Path, pipeline: str, clean: bool, kind: str, ending: str
) -> None:
    everything = {
        "fmriprep": [f"{MNI}_desc-preproc_bold.nii.gz", "space-fsaverage6_hemi-{}.func.gii"],
        "afni-smooth": [
            f"{MNI}_desc-{d}_bold.nii.gz" for d in ("sm6", "clean")
        ] + [f"space-fsaverage6_hemi-{{}}_desc-{d}.func.gii" for d in ("sm6", "clean")],
        "afni-nosmooth": [f"{MNI}_desc-clean_bold.nii.gz", "space-fsaverage6_hemi-{}_desc-clean.func.gii"],
    }  # fmt: skip
    stem = "sub-002_task-tunnel"
    raw(tmp_path, stem, EVENTS["tunnel"])
    for folder, endings in everything.items():
        for name in endings:
            for hemi in "LR":
                in_derivatives(tmp_path, stem, name.format(hemi), folder).touch()
    dataset = corpus(tmp_path, Reading(), tasks="tunnel", derivatives=pipeline, clean=clean, kind=kind)
    file = dataset.files("002")["tunnel"]
    expected = tuple(in_derivatives(tmp_path, stem, ending.format(h), pipeline) for h in "LR")
    assert file.path == (expected if kind == "surface" else expected[0])
    cleaned = clean and pipeline != "fmriprep"
    assert dataset.default_cleaning == (Cleaning(detrend=False, high_pass=None) if cleaned else Cleaning())


def test_a_lone_hemisphere_is_named(tmp_path: Path) -> None:
    raw(tmp_path, "sub-002_task-tunnel", EVENTS["tunnel"])
    in_derivatives(tmp_path, "sub-002_task-tunnel", "space-fsaverage6_hemi-L.func.gii").touch()
    with pytest.raises(RecordingError, match=r"hemi-L\.func\.gii has no other hemisphere"):
        corpus(tmp_path, Reading(), tasks="tunnel", kind="surface").subjects()


# the clock


def test_the_onset_of_the_sound_is_its_first_event(tmp_path: Path) -> None:
    for task in ("pieman", "tunnel", "merlin", "slumlordreach", "bronx"):
        raw(tmp_path, f"sub-002_task-{task}", EVENTS[task])
        in_derivatives(tmp_path, f"sub-002_task-{task}", f"{MNI}_desc-preproc_bold.nii.gz").touch()
    dataset = corpus(tmp_path, Reading(), tasks=["merlin", "pieman", "tunnel", "slumlordreach", "bronx"])
    onsets = {run: file.stimulus_onset for run, file in dataset.files("002").items()}
    assert onsets == {"merlin": 4.5, "pieman": 0.0, "tunnel": 3.0, "slumlordreach": 4.5, "bronx": 12.0}


def test_a_recording_is_on_the_storys_clock(tree: Path, rng: np.random.Generator) -> None:
    stem = "sub-002_task-merlin"
    raw(tree, stem, EVENTS["merlin"])
    volume(in_derivatives(tree, stem, f"{MNI}_desc-preproc_bold.nii.gz"), rng, tr=1.52)
    recording = corpus(tree, replace(RAW, mask="all"), tasks="merlin").recording("002", "merlin")
    np.testing.assert_allclose(recording.onset[:3], [-4.5, -2.98, -1.46], atol=1e-6)
    assert recording.tr == pytest.approx(1.52)
    assert recording.reference == 0.5


def test_an_onset_of_the_study_overrides_events_and_needs_none(tree: Path) -> None:
    (tree / "sub-002" / "func" / "sub-002_task-pieman_events.tsv").unlink()
    with pytest.raises(
        RecordingError, match=r"table of events .*sub-002_task-pieman_events\.tsv does not exist"
    ):
        corpus(tree, Reading(subjects=["002"])).files("002")
    dataset = corpus(tree, Reading(subjects=["002"], stimulus_onset=7.0))
    assert dataset.inventory("002") == {"pieman": (12, 1.5, 7.0)}
    assert dataset.story().runs == ("pieman",)


def test_two_tasks_have_notes_on_their_onset() -> None:
    assert "15.2 s" in Narratives.notes("bronx")
    assert "8.7 s" in Narratives.notes("piemanpni")
    assert Narratives.notes("pieman") == ""


def test_a_scan_whose_events_contradict_the_sound_file_is_refused(tmp_path: Path) -> None:
    for subject, onset in (("100", 21.0), ("101", 21.0), ("105", 13.5)):
        stem = f"sub-{subject}_task-milkyway"
        raw(tmp_path, stem, milkyway("original", onset))
        in_derivatives(tmp_path, stem, f"{MNI}_desc-preproc_bold.nii.gz").touch()
    assert corpus(tmp_path, Reading(), tasks="milkyway").subjects() == ["100", "101"]
    dataset = corpus(tmp_path, Reading(), tasks="milkyway", exclude=False)
    assert dataset.files("100")["milkywayoriginal"].stimulus_onset == 0.0
    with pytest.raises(
        RecordingError, match=r"13\.5 s into milkywayoriginal_audio\.wav, but most scans say 21 s"
    ):
        dataset.files("105")
    with_onset = corpus(tmp_path, Reading(stimulus_onset=-7.5), tasks="milkyway", exclude=False)
    assert with_onset.runs("105") == ["milkywayoriginal"]


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        (EVENTS["schema"], r"movie n/a, story friends_audio.wav, .* must be one story from one sound file"),
        (
            "0.0\t13.0\tmusic\tpieman_audio.wav\n",
            "presents music pieman_audio.wav, but a run must be one story",
        ),
        ("", "presents nothing"),
        ("early\t13.0\tstory\tpieman_audio.wav\n", "'early' is no time in seconds"),
        ("0.0\t13.0\tstory\n", "row 2, has 3 cells but the header 4"),
    ],
)
def test_events_without_exactly_one_story_are_refused(tree: Path, events: str, sentence: str) -> None:
    raw(tree, "sub-002_task-pieman", events)
    with pytest.raises(RecordingError, match=sentence):
        corpus(tree, Reading(subjects=["002"])).files("002")


def test_events_without_their_columns_are_refused(tree: Path) -> None:
    put(tree / "sub-002" / "func" / "sub-002_task-pieman_events.tsv", "onset\tduration\n0.0\t1.0\n")
    with pytest.raises(
        RecordingError, match=r"has no column 'trial_type'\. Its columns are: onset, duration"
    ):
        corpus(tree, Reading()).files("002")


# the story


def test_words_are_on_the_clock_of_the_sound_and_none_is_in_the_music(tree: Path) -> None:
    dataset = corpus(tree, Reading())
    story = dataset.story()
    assert story.name == "ds002345"
    assert story.text.tolist() == ["began", "tale."]
    assert story.onset.tolist() == [15.09, 16.0]
    assert story.before.tolist() == ["I ", " my "]
    assert dataset.untimed()["word"].tolist() == ["I", "my"]
    assert dataset.story() is story


def test_each_version_of_milkyway_is_a_run(tmp_path: Path) -> None:
    table = "participant_id\tage\tsex\ttask\tcondition\tcomprehension\n"
    for subject, version in (("100", "original"), ("101", "vodka"), ("102", "original")):
        stem = f"sub-{subject}_task-milkyway"
        raw(tmp_path, stem, milkyway(version))
        in_derivatives(tmp_path, stem, f"{MNI}_desc-preproc_bold.nii.gz").touch()
        table += f"sub-{subject}\t22,22\tF,F\tpieman,milkyway\tn/a,{version}\tn/a,1.0\n"
        gentle(tmp_path, f"milkyway{version}", ("Once", 21.5), (version, 22.0))
    put(tmp_path / "participants.tsv", table)
    dataset = corpus(tmp_path, Reading(), tasks="milkyway")
    assert [dataset.runs(s) for s in dataset.subjects()] == [
        ["milkywayoriginal"],
        ["milkywayvodka"],
        ["milkywayoriginal"],
    ]
    assert dataset.story().runs == ("milkywayoriginal", "milkywayvodka")
    assert dataset.conditions("milkyway") == {"100": "original", "101": "vodka", "102": "original"}
    grouped = corpus(tmp_path, Reading(), tasks="milkyway", condition="original")
    assert grouped.subjects() == ["100", "102"]
    assert grouped.story().runs == ("milkywayoriginal",)
    with pytest.raises(RecordingError, match="not of condition 'original'"):
        corpus(tmp_path, Reading(subjects=["101"]), tasks="milkyway", condition="original").subjects()
    with pytest.raises(SettingsError, match="those of milkyway are: original, vodka"):
        corpus(tmp_path, Reading(), tasks="milkyway", condition="synonym").subjects()


def test_a_story_without_word_timings_is_named(tree: Path) -> None:
    (tree / "stimuli" / "gentle" / "pieman" / "align.json").unlink()
    with pytest.raises(StoryError, match=r"gentle/pieman holds neither align\.json nor align\.csv"):
        corpus(tree, Reading()).story()


# images


def test_voxels_are_those_inside_the_masks_of_all_runs(tree: Path) -> None:
    dataset = corpus(tree, RAW)
    recording = dataset.recording("004", "pieman")
    stored = nibabel.load(in_derivatives(tree, "sub-004_task-pieman", f"{MNI}_desc-preproc_bold.nii.gz"))
    data = np.asarray(stored.dataobj)  # type: ignore[attr-defined]
    assert recording.values.shape == (12, 7)
    np.testing.assert_allclose(recording.values, data.reshape(-1, 12)[:7].T, rtol=1e-6)
    assert recording.values.dtype == np.float32
    assert dataset.inventory("004") == {"pieman": (12, 1.5, 0.0)}


def test_afni_has_one_mask_per_task_which_may_be_in_the_other_pipeline(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    stem = "sub-002_task-tunnel"
    raw(tmp_path, stem, EVENTS["tunnel"])
    volume(in_derivatives(tmp_path, stem, f"{MNI}_desc-clean_bold.nii.gz", "afni-smooth"), rng)
    name = "tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-tunnel_desc-brain_mask.nii.gz"
    dataset = corpus(tmp_path, Reading(), tasks="tunnel", derivatives="afni-smooth")
    assert dataset.files("002")["tunnel"].mask is None
    mask(tmp_path / "derivatives" / "afni-nosmooth" / name, 5)
    dataset = corpus(tmp_path, Reading(), tasks="tunnel", derivatives="afni-smooth")
    assert dataset.recording("002", "tunnel").values.shape == (12, 5)
    mask(tmp_path / "derivatives" / "afni-smooth" / name, 6)
    dataset = corpus(tmp_path, Reading(), tasks="tunnel", derivatives="afni-smooth")
    assert dataset.recording("002", "tunnel").values.shape == (12, 6)


@pytest.mark.parametrize("single", [False, True])
def test_surfaces_of_both_layouts_are_read(tmp_path: Path, rng: np.random.Generator, single: bool) -> None:
    stem = "sub-002_task-tunnel"
    left, right = rng.standard_normal((10, 6)), rng.standard_normal((10, 4))
    left[:, 2] = np.nan
    raw(tmp_path, stem, EVENTS["tunnel"], tr=1.52)
    for hemi, data in (("L", left), ("R", right)):
        ending = f"space-fsaverage6_hemi-{hemi}_desc-clean.func.gii"
        surface(in_derivatives(tmp_path, stem, ending, "afni-smooth"), data, single)
    dataset = corpus(tmp_path, RAW, tasks="tunnel", derivatives="afni-smooth", kind="surface")
    recording = dataset.recording("002", "tunnel")
    np.testing.assert_allclose(recording.values, np.hstack([left, right]), rtol=1e-6)
    assert recording.space.hemispheres == (6, 4)
    assert recording.tr == 1.52
    assert recording.onset[0] == -3.0


def test_the_raw_sidecar_overrides_the_tr_in_a_surface(tmp_path: Path, rng: np.random.Generator) -> None:
    stem = "sub-002_task-tunnel"
    raw(tmp_path, stem, EVENTS["tunnel"], tr=1.52)
    for hemi in "LR":
        path = in_derivatives(tmp_path, stem, f"space-fsaverage6_hemi-{hemi}.func.gii")
        surface(path, rng.standard_normal((10, 4)), False, step=1500.0)
    assert corpus(tmp_path, RAW, tasks="tunnel", kind="surface").inventory("002") == {
        "tunnel": (10, 1.52, 3.0)
    }
    sidecar = tmp_path / "sub-002" / "func" / f"{stem}_bold.json"
    sidecar.unlink()
    assert corpus(tmp_path, RAW, tasks="tunnel", kind="surface").inventory("002") == {
        "tunnel": (10, 1.5, 3.0)
    }
    put(sidecar, '{"RepetitionTime": "soon"}')
    with pytest.raises(RecordingError, match="cannot be read as a sidecar"):
        corpus(tmp_path, RAW, tasks="tunnel", kind="surface").files("002")


def test_confounds_are_used_only_when_named(tree: Path, rng: np.random.Generator) -> None:
    assert corpus(tree, Reading()).files("002")["pieman"].confounds is None
    reading = Reading(
        cleaning={"confounds": ("trans_x",), "detrend": False, "high_pass": None, "standardise": False}
    )
    with pytest.raises(
        RecordingError, match=r"confound table .*_desc-confounds_regressors\.tsv does not exist"
    ):
        corpus(tree, reading).recording("002", "pieman")
    x = rng.standard_normal(12)
    lines = ["csf\ttrans_x", *(f"n/a\t{v}" for v in x)]
    put(in_derivatives(tree, "sub-002_task-pieman", "desc-confounds_regressors.tsv"), "\n".join(lines) + "\n")
    values = corpus(tree, reading).recording("002", "pieman").values
    assert np.abs((values - values.mean(0)).T @ (x - x.mean())).max() < 1e-3


def test_confounds_of_newer_fmriprep_are_found(tree: Path) -> None:
    path = put(in_derivatives(tree, "sub-002_task-pieman", "desc-confounds_timeseries.tsv"), "x\n")
    dataset = corpus(tree, Reading(cleaning={"confounds": ("x",)}))
    assert dataset.files("002")["pieman"].confounds == path


# mistakes of a user


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"derivatives": "afni"}, "derivatives is one of fmriprep, afni-smooth, afni-nosmooth, not 'afni'"),
        ({"kind": "cifti"}, "kind is volume or surface, not 'cifti'"),
        ({"tasks": []}, "names no task"),
        ({"tasks": ["pieman", "pieman"]}, "one of them twice"),
        ({"derivatives": "afni-nosmooth", "clean": False}, "has cleaned images only"),
        ({"exclude": "no"}, "data.options.exclude is true or false, not 'no'"),
    ],
)
def test_an_impossible_option_is_an_error(tree: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        corpus(tree, Reading(), **options)


def test_confounds_are_not_regressed_out_twice(tree: Path) -> None:
    with pytest.raises(SettingsError, match="have been regressed out"):
        corpus(tree, Reading(cleaning={"confounds": ("csf",)}), derivatives="afni-smooth")


def test_a_folder_without_derivatives_is_an_error_that_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="datalad install ///labs/hasson/narratives"):
        corpus(tmp_path, Reading())


def test_a_task_without_scans_is_named(tree: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"No scan of lucy in .* is a volume in space MNI152NLin2009cAsym"
    ):
        corpus(tree, Reading(), tasks="lucy").subjects()


def test_an_image_that_was_not_fetched_is_named(tree: Path) -> None:
    path = in_derivatives(tree, "sub-002_task-pieman", f"{MNI}_desc-preproc_bold.nii.gz")
    path.unlink()
    path.symlink_to("../../.git/annex/objects/4W/1g/MD5E-s9--a.nii.gz/MD5E-s9--a.nii.gz")
    dataset = corpus(tree, Reading())
    assert dataset.subjects() == ["002", "004", "015"]
    with pytest.raises(
        RecordingError, match=r"has not been downloaded.*datalad get .*sub-002_task-pieman_space"
    ):
        dataset.inventory("002")


def test_participants_without_conditions_are_an_error(tree: Path) -> None:
    with pytest.raises(RecordingError, match=r"participants\.tsv does not exist"):
        corpus(tree, Reading(), condition="affair").subjects()
    put(tree / "participants.tsv", "participant_id\tage\nsub-002\t20\n")
    with pytest.raises(RecordingError, match="has no column 'task'"):
        corpus(tree, Reading(), condition="affair").subjects()


def test_citation_and_licence_are_those_published() -> None:
    assert "10.1038/s41597-021-01033-3" in Narratives.citation()
    assert Narratives.licence().startswith("CC0")
