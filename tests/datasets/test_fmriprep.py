"""fMRIPrep: images and words are matched by run, and every gap is reported in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from langcortex.datasets import Corpus, bids, fmriprep
from langcortex.datasets.corpus import Reading
from langcortex.errors import LangcortexError, RecordingError, SettingsError, StoryError

MNI = "space-MNI152NLin2009cAsym"
WORDS = [
    ("Once", 1.0),
    ("there", 1.5),
    ("was", 2.0),
    ("a", 2.25),
    ("king.", 2.5),
    ("He", 4.0),
    ("slept.", 4.5),
]
RAW = {"detrend": False, "high_pass": None, "standardise": False}


def touch(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()


def volume(path: Path, scans: int = 8, zeros: int = 0, **sidecar: object) -> np.ndarray:
    """Write an image of noise, and a sidecar as fMRIPrep does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    data = 100 + rng.standard_normal((4, 3, 2, scans)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0])), path)
    metadata = {"RepetitionTime": 1.5, "StartTime": 0.72} | sidecar
    path.with_name(path.name.removesuffix(".nii.gz") + ".json").write_text(json.dumps(metadata))
    mask = np.ones((4, 3, 2), dtype=np.uint8)
    mask.reshape(-1)[:zeros] = 0
    name = path.name.replace("desc-preproc_bold", "desc-brain_mask")
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([3.0, 3.0, 3.0, 1.0])), path.with_name(name))
    return data


def surface(path: Path, scans: int = 5, vertices: int = 7, one_array: bool = False) -> np.ndarray:
    """Write a GIFTI file: one array per scan, or one (vertices, scans) array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (
        np.random.default_rng(list(path.name.encode())).standard_normal((scans, vertices)).astype(np.float32)
    )
    arrays = [data.T] if one_array else list(data)
    data_arrays = [nibabel.gifti.GiftiDataArray(a, datatype="NIFTI_TYPE_FLOAT32") for a in arrays]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=data_arrays), path)
    return data


def events(
    path: Path, late: float = 0.0, words: list[tuple[str, float]] | None = None, extra: str = ""
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{onset + late}\t0.2\t{word}" for word, onset in words or WORDS]
    path.write_text("onset\tduration\ttrial_type\n" + "\n".join(rows) + "\n" + extra, encoding="utf-8")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Write a BIDS dataset of two subjects and two runs, whose derivatives are fMRIPrep's."""
    for s, run in ((s, r) for s in ("01", "02") for r in ("1", "2")):
        stem = f"sub-{s}_task-story_run-{run}"
        volume(
            tmp_path / f"derivatives/fmriprep/sub-{s}/func/{stem}_{MNI}_desc-preproc_bold.nii.gz",
            zeros=int(s),
        )
        table = tmp_path / f"derivatives/fmriprep/sub-{s}/func/{stem}_desc-confounds_timeseries.tsv"
        table.write_text("trans_x\tcosine00\n" + "n/a\t1\n" + "".join(f"{i % 3}\t{i}\n" for i in range(7)))
        events(tmp_path / f"sub-{s}/func/{stem}_events.tsv")
    (tmp_path / "derivatives/fmriprep/dataset_description.json").write_text(
        '{"GeneratedBy": [{"Name": "fMRIPrep"}]}'
    )
    (tmp_path / "dataset_description.json").write_text('{"DatasetDOI": "doi:10.1/x", "License": "CC0"}')
    return tmp_path


# links


def test_the_name_of_a_link_is_parsed_not_that_of_its_target(tmp_path: Path) -> None:
    """A git-annex link is named by its checksum; the entities are in the link's own name."""
    path = tmp_path / f"sub-01/func/sub-01_task-t_{MNI}_desc-preproc_bold.nii.gz"
    path.parent.mkdir(parents=True)
    path.symlink_to("../../.git/annex/objects/x/MD5E-s9--0.nii.gz")
    corpus = fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), words="w.tsv")
    assert corpus.files("01")["task-t"].path == path
    with pytest.raises(LangcortexError, match="datalad get"):
        corpus.inventory("01")


# which images


def test_a_dataset_is_a_corpus_with_named_runs(dataset: Path) -> None:
    corpus = fmriprep.corpus(dataset, Reading())
    assert isinstance(corpus, Corpus)
    assert corpus.subjects() == ["01", "02"]
    assert corpus.runs("01") == ["task-story_run-1", "task-story_run-2"] == list(corpus.story().runs)


def test_folders_are_listed_once(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[str] = []
    scandir = bids.os.scandir
    monkeypatch.setattr(bids.os, "scandir", lambda path: (folders.append(str(path)), scandir(path))[1])
    corpus = fmriprep.corpus(dataset, Reading())
    corpus.story()
    for _ in range(2):
        for subject in corpus.subjects():
            corpus.inventory(subject)
    image_folders = [path for path in folders if "/func" in path and "fmriprep" in path]
    assert len(image_folders) == len(set(image_folders)) == 2


# recordings


def test_a_volume_is_read_with_its_tr_inside_the_masks_of_all_runs(dataset: Path) -> None:
    corpus = fmriprep.corpus(dataset, Reading(cleaning=RAW))
    recording = corpus.recording("01", "task-story_run-2")
    assert recording.tr == 1.5
    assert recording.reference == pytest.approx(0.72 / 1.5)
    assert recording.onset[:2].tolist() == [0.0, 1.5]
    assert recording.values.shape == (8, 22)  # the masks leave out one and two of 24 voxels
    written = nibabel.load(corpus.files("01")["task-story_run-2"].path).get_fdata()
    np.testing.assert_allclose(recording.values, written.reshape(24, 8).T[:, 2:], rtol=1e-6)
    assert corpus.inventory("01")["task-story_run-1"] == (8, 1.5, 0.0)


def test_in_a_native_space_each_subject_has_their_own_voxels(tmp_path: Path) -> None:
    for s in ("01", "02"):
        volume(tmp_path / f"sub-{s}/func/sub-{s}_task-t_space-T1w_desc-preproc_bold.nii.gz", zeros=int(s))
    corpus = fmriprep.corpus(tmp_path, Reading(stimulus_onset=0.0), words="w.tsv")
    assert [corpus.space_of(s).n_targets for s in ("01", "02")] == [23, 22]
    assert corpus.recording("01", "task-t").values.shape == (8, 23)
    assert corpus.space_of("01") is corpus.space_of("01")


def test_the_mask_is_that_of_the_run(dataset: Path) -> None:
    touch(
        dataset / "derivatives/fmriprep/sub-01/func",
        "sub-01_task-story_run-1_desc-brain_mask.nii.gz",
        "sub-01_task-other_run-1_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
    )
    mask = fmriprep.corpus(dataset, Reading()).files("01")["task-story_run-1"].mask
    assert mask is not None
    assert mask.name == f"sub-01_task-story_run-1_{MNI}_desc-brain_mask.nii.gz"


def test_a_mask_of_another_space_is_not_used(dataset: Path) -> None:
    name = f"sub-01_task-story_run-1_{MNI}_desc-brain_mask.nii.gz"
    folder = dataset / "derivatives/fmriprep/sub-01/func"
    (folder / name).rename(folder / name.replace(f"_{MNI}", ""))
    assert fmriprep.corpus(dataset, Reading()).files("01")["task-story_run-1"].mask is None


def test_confounds_are_regressed_out_only_when_columns_are_named(dataset: Path) -> None:
    assert fmriprep.corpus(dataset, Reading()).files("01")["task-story_run-1"].confounds is None
    corpus = fmriprep.corpus(dataset, Reading(cleaning={**RAW, "confounds": ("trans_x",)}))
    file = corpus.files("01")["task-story_run-1"]
    assert file.confounds is not None
    assert file.confounds.name == "sub-01_task-story_run-1_desc-confounds_timeseries.tsv"
    cleaned = corpus.recording("01", "task-story_run-1").values
    moved = np.array([0.0, *(i % 3 for i in range(7))])
    assert np.abs((moved - moved.mean()) @ cleaned).max() < 1e-3


def test_the_older_name_of_confounds_is_found_and_a_missing_table_is_an_error(dataset: Path) -> None:
    new = dataset / "derivatives/fmriprep/sub-01/func/sub-01_task-story_run-1_desc-confounds_timeseries.tsv"
    old = new.with_name(new.name.replace("timeseries", "regressors"))
    new.rename(old)
    reading = Reading(cleaning={"confounds": ("trans_x",)})
    assert fmriprep.corpus(dataset, reading).files("01")["task-story_run-1"].confounds == old
    old.unlink()
    with pytest.raises(RecordingError, match="has no desc-confounds table beside"):
        fmriprep.corpus(dataset, reading).files("01")


@pytest.mark.parametrize("name", ["hemi-{}_space-fsaverage5_bold", "space-fsaverage6_hemi-{}"])
@pytest.mark.parametrize("one_array", [False, True])
def test_both_generations_of_surface_names_are_read(tmp_path: Path, name: str, one_array: bool) -> None:
    stem = tmp_path / "sub-1/func"
    hemispheres = [
        surface(stem / f"sub-1_task-t_{name.format(h)}.func.gii", one_array=one_array) for h in "LR"
    ]
    corpus = fmriprep.corpus(
        tmp_path, Reading(stimulus_onset=1.0, tr=2.0, cleaning=RAW), kind="surface", words="w.tsv"
    )
    recording = corpus.recording("1", "task-t")
    np.testing.assert_allclose(recording.values, np.hstack(hemispheres), rtol=1e-5)
    assert recording.space.hemispheres == (7, 7)
    assert recording.onset[0] == -1.0


def test_cleaned_surfaces_need_their_desc_and_both_hemispheres(tmp_path: Path) -> None:
    stem = "sub-1/func/sub-1_task-t_space-fsaverage6_hemi"
    touch(tmp_path, f"{stem}-L.func.gii", f"{stem}-R.func.gii", f"{stem}-L_desc-clean.func.gii")
    reading = Reading(stimulus_onset=0.0)
    plain = fmriprep.corpus(tmp_path, reading, kind="surface", words="w").files("1")["task-t"].path
    assert plain == (tmp_path / f"{stem}-L.func.gii", tmp_path / f"{stem}-R.func.gii")
    with pytest.raises(RecordingError, match="has one hemisphere only"):
        fmriprep.corpus(tmp_path, reading, kind="surface", desc="clean", words="w").files("1")


# words


def test_words_in_the_events_are_the_story_on_the_scanners_clock(dataset: Path) -> None:
    story = fmriprep.corpus(dataset, Reading()).story()
    first = story.take(["task-story_run-1"])
    assert first.text.tolist() == [word for word, _ in WORDS]
    assert first.onset.tolist() == [onset for _, onset in WORDS]
    assert first.duration.tolist() == [0.2] * 7
    assert len(first.sentences) == 2
    assert (
        len(
            fmriprep.corpus(dataset, Reading(sentences="pauses")).story().take(["task-story_run-1"]).sentences
        )
        == 1
    )


def test_events_that_are_no_words_are_left_out(dataset: Path) -> None:
    for path in sorted(dataset.glob("sub-*/func/*_events.tsv")):
        rows = [f"{onset}\t0.2\tword\t{word}\n" for word, onset in WORDS]
        rows.insert(2, "1.6\t0\ttrigger\tn/a\n")
        rows.append('9\tn/a\tpause\tn/a\n5\t0.1\tword\t"\n')
        path.write_text("onset\tduration\ttrial_type\tword\n" + "".join(rows), encoding="utf-8-sig")
    story = fmriprep.corpus(dataset, Reading()).story().take(["task-story_run-1"])
    words = [word for word, _ in WORDS]
    assert story.text.tolist() == [*words[:-1], f'{words[-1]}"']  # a mark belongs to its word
    assert story.remarks[0] == "2 marks of punctuation were attached to their words."


def test_a_subject_who_heard_the_words_later_has_a_later_onset(dataset: Path) -> None:
    for run in ("1", "2"):
        events(dataset / f"sub-02/func/sub-02_task-story_run-{run}_events.tsv", late=2.25)
    corpus = fmriprep.corpus(dataset, Reading())
    assert corpus.story().onset[0] == 1.0
    assert corpus.files("01")["task-story_run-1"].stimulus_onset == 0.0
    assert corpus.files("02")["task-story_run-1"].stimulus_onset == 2.25
    assert corpus.recording("02", "task-story_run-1").onset[0] == -2.25
    with pytest.raises(SettingsError, match=r"come 2.25 s later for subject '02'"):
        fmriprep.corpus(dataset, Reading(stimulus_onset=0.0)).files("02")


def test_other_words_or_another_pace_are_errors(dataset: Path) -> None:
    path = dataset / "sub-02/func/sub-02_task-story_run-1_events.tsv"
    events(path, words=[*WORDS[:3], ("the", 2.25), *WORDS[4:]])
    with pytest.raises(
        StoryError,
        match=r"'01' and '02' heard different words in run 'task-story_run-1' \(7 and 7; they differ from word 4 on",
    ):
        fmriprep.corpus(dataset, Reading()).files("01")
    events(path, words=[(word, 1.5 * onset) for word, onset in WORDS])
    with pytest.raises(StoryError, match="at different paces"):
        fmriprep.corpus(dataset, Reading()).files("01")
    assert fmriprep.corpus(dataset, Reading(subjects=["02"])).story().onset[0] == 1.5


def test_events_of_all_subjects_may_be_in_the_top_folder(dataset: Path) -> None:
    """BIDS lets one table hold for everyone; runs may be numbered 01 there and 1 by fMRIPrep."""
    for path in dataset.glob("sub-*/func/*_events.tsv"):
        path.unlink()
    events(dataset / "task-story_run-01_events.tsv")
    events(dataset / "task-story_run-02_events.tsv", late=3.0)
    story = fmriprep.corpus(dataset, Reading()).story()
    assert [story.take([run]).onset[0] for run in story.runs] == [1.0, 4.0]


def test_events_of_a_subject_override_those_of_all_subjects(dataset: Path) -> None:
    events(dataset / "task-story_events.tsv", late=3.0)
    assert fmriprep.corpus(dataset, Reading()).story().onset[0] == 1.0
    (dataset / "sub-01/func/sub-01_task-story_run-1_events.tsv").unlink()
    assert fmriprep.corpus(dataset, Reading(subjects=["sub-01"])).story().onset[0] == 4.0


def test_two_tables_that_fit_equally_well_are_an_error(dataset: Path) -> None:
    events(dataset / "sub-01/func/sub-01_task-story_run-01_events.tsv")
    with pytest.raises(RecordingError, match=r"Both .* go with sub-01_task-story_run-1_.* Remove one"):
        fmriprep.corpus(dataset, Reading()).story()


def test_the_events_are_found_from_the_derivatives_folder(dataset: Path) -> None:
    assert len(fmriprep.corpus(dataset / "derivatives/fmriprep", Reading()).story()) == 14


CONDITIONS = "onset\tduration\ttrial_type\n" + "".join(f"{i}\t1\t{'ab'[i % 2]}\n" for i in range(30))
PLAYED = "onset\tduration\ttrial_type\tstim_file\n0\t15\tmusic\tn/a\n15\t400\tstory\tstory_audio.wav\n420\t9\tend\tstory_audio.wav\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            PLAYED,
            r"has no words \(its columns are: onset, duration, trial_type, stim_file\). Name story files",
        ),
        (CONDITIONS, "has no words"),
        ("onset\tduration\tvalue\n1\t1\t17\n", "has no words"),
        ("onset\tduration\ttrial_type\n1\t1\n", "row 2 has 2 cells but the header 3"),
        ("onset\ttrial_type\n1\tthe\n", "needs one column 'duration', in seconds"),
        ("onset\tonset\tduration\n1\t1\t1\n", "needs one column"),
        (
            "onset\tduration\ttrial_type\nsoon\t1\tthe\n",
            "row 2: 'soon' in column 'onset' is not a number of seconds",
        ),
        ("onset\tduration\ttrial_type\nn/a\t1\tthe\n", "1 words have no time"),
        ("onset\tduration\ttrial_type\n3\t-1\tthe\n", "ends before it begins"),
        ("onset\tduration\ttrial_type\n", "has no words"),
        ("", "is empty"),
        ("/annex/objects/MD5E-s8--0.tsv", "datalad get"),
    ],
)
def test_events_without_words_and_damaged_events_are_errors(
    dataset: Path, content: str, sentence: str
) -> None:
    for path in dataset.glob("sub-*/func/*_events.tsv"):
        path.write_text(content, encoding="utf-8")
    with pytest.raises(StoryError, match=sentence):
        fmriprep.corpus(dataset, Reading()).story()


def test_missing_and_undecodable_events_are_errors(dataset: Path) -> None:
    path = dataset / "sub-01/func/sub-01_task-story_run-1_events.tsv"
    path.write_bytes(b"onset\tduration\ttrial_type\n1\t1\t\xff\xfe\n")
    with pytest.raises(StoryError, match="cannot be read as a table"):
        fmriprep.corpus(dataset, Reading()).story()
    path.unlink()
    with pytest.raises(StoryError, match=r"Run 'task-story_run-1' of subject '01' has no events.tsv in"):
        fmriprep.corpus(dataset, Reading()).story()
    path.symlink_to(".git/annex/objects/MD5E-s1--0")
    with pytest.raises(StoryError, match="datalad get"):
        fmriprep.corpus(dataset, Reading()).story()


@pytest.fixture
def played(dataset: Path) -> Callable[..., fmriprep.FmriprepCorpus]:
    """Change the dataset: events state only when a sound file began, and words are in story files."""
    for i, path in enumerate(sorted(dataset.glob("sub-*/func/*_events.tsv"))):
        path.write_text(PLAYED.replace("\n15\t", f"\n{15 + i // 2}\t"), encoding="utf-8")
    for name in ("story", "task-story_run-1", "task-story_run-2"):
        path = dataset / "stimuli" / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("word\tonset\tduration\n" + f"{name}\t1\t0.5\n", encoding="utf-8")

    def make(words: str, **options: object) -> fmriprep.FmriprepCorpus:
        return fmriprep.corpus(dataset, Reading(**options), words=words)  # type: ignore[arg-type]

    return make


def test_story_files_are_named_by_run_or_task_and_start_with_their_sound(
    played: Callable[..., fmriprep.FmriprepCorpus],
) -> None:
    corpus = played("stimuli/{run}.tsv")
    assert corpus.story().text.tolist() == ["task-story_run-1", "task-story_run-2"]
    assert [corpus.files(s)["task-story_run-1"].stimulus_onset for s in ("01", "02")] == [15.0, 16.0]
    (corpus.path / "stimuli/task-story_run-2.tsv").unlink()
    assert played("stimuli/{run}.tsv").story().text.tolist() == ["task-story_run-1", "story"]
    with pytest.raises(StoryError, match=r"\{run\} must be 'task-story_run-1' or 'story'. Found: none"):
        played("elsewhere/{run}.tsv").story()


def test_one_table_may_have_all_runs(played: Callable[..., fmriprep.FmriprepCorpus]) -> None:
    path = played("x").path / "words.tsv"
    rows = [f"{run}\tyes\t1\t1\n" for run in ("task-story_run-1", "task-story_run-2")]
    path.write_text("run\tword\tonset\tduration\n" + "".join(rows), encoding="utf-8")
    assert played("words.tsv").story().runs == ("task-story_run-1", "task-story_run-2")
    path.write_text("run\tword\tonset\tduration\n" + rows[0] * 2, encoding="utf-8")
    with pytest.raises(StoryError, match="has no words of run 'task-story_run-2'"):
        played("words.tsv").story()


def test_each_subject_may_have_story_files(played: Callable[..., fmriprep.FmriprepCorpus]) -> None:
    for s, late in (("01", 0.0), ("02", 0.5)):
        rows = "".join(f"{word}\t{onset + late}\t0.2\n" for word, onset in WORDS)
        (played("x").path / f"stimuli/{s}_story.tsv").write_text(
            "word\tonset\tduration\n" + rows, encoding="utf-8"
        )
    corpus = played("stimuli/{subject}_{run}.tsv")
    assert corpus.story().onset[0] == 1.0
    assert [corpus.files(s)["task-story_run-1"].stimulus_onset for s in ("01", "02")] == [15.0, 16.5]


def test_a_run_without_a_known_onset_needs_a_setting(
    played: Callable[..., fmriprep.FmriprepCorpus],
) -> None:
    path = played("x").path / "sub-01/func/sub-01_task-story_run-1_events.tsv"
    path.write_text("onset\tduration\ttrial_type\n12\t400\tstory\n", encoding="utf-8")
    with pytest.raises(RecordingError, match=r"has no event with a stim_file. Set recording.stimulus_onset"):
        played("stimuli/{run}.tsv").files("01")
    path.unlink()
    with pytest.raises(RecordingError, match=r"it has no events.tsv. Set recording.stimulus_onset"):
        played("stimuli/{run}.tsv").files("01")
    corpus = played("stimuli/{run}.tsv", stimulus_onset=12.0)
    assert corpus.recording("01", "task-story_run-1").onset[0] == -12.0


def test_several_sound_files_in_a_run_are_ambiguous(
    played: Callable[..., fmriprep.FmriprepCorpus],
) -> None:
    path = played("x").path / "sub-01/func/sub-01_task-story_run-1_events.tsv"
    path.write_text(PLAYED + "450\t9\tstory\tother.wav\n", encoding="utf-8")
    with pytest.raises(StoryError, match=r"plays 2 files \(story_audio.wav, other.wav, …\)"):
        played("stimuli/{run}.tsv").files("01")


# citation, licence and damaged files


def test_citation_and_licence_come_from_the_dataset(dataset: Path, tmp_path: Path) -> None:
    corpus = fmriprep.corpus(dataset, Reading())
    assert corpus.citation().startswith("Data: doi:10.1/x. Preprocessing: fMRIPrep. Esteban, O.")
    assert "doi:10.1038/s41592-018-0235-4" in corpus.citation()
    assert corpus.licence() == "CC0, says dataset_description.json."
    (dataset / "derivatives/fmriprep/dataset_description.json").write_text(
        '{"GeneratedBy": [{"Name": "afni"}]}'
    )
    assert fmriprep.corpus(dataset, Reading()).citation() == "Data: doi:10.1/x. Preprocessing: afni."
    (dataset / "dataset_description.json").write_text("{")
    damaged = fmriprep.corpus(dataset, Reading())
    assert damaged.licence() == "No dataset_description.json names a licence of the data."
    with pytest.raises(RecordingError, match="cannot be read as JSON"):
        bids.read_description(dataset)


@pytest.mark.parametrize("content", [b"", b"not an image", b"/annex/objects/MD5E-s1--0.nii.gz"])
def test_damaged_images_are_reported_in_one_sentence(dataset: Path, content: bytes) -> None:
    corpus = fmriprep.corpus(dataset, Reading())
    path = corpus.files("01")["task-story_run-1"].path
    assert isinstance(path, Path)
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="datalad get" if b"annex" in content else "empty|image"):
        corpus.recording("01", "task-story_run-1")


def test_a_truncated_image_is_reported_in_one_sentence(dataset: Path) -> None:
    corpus = fmriprep.corpus(dataset, Reading())
    path = corpus.files("01")["task-story_run-1"].path
    assert isinstance(path, Path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecordingError, match="Fetch it again"):
        corpus.recording("01", "task-story_run-1")


def test_an_absent_subject_or_run_is_named(dataset: Path) -> None:
    corpus = fmriprep.corpus(dataset, Reading())
    with pytest.raises(RecordingError, match="Subject '09' was not found in"):
        corpus.files("09")
    with pytest.raises(RecordingError, match="Subject '01' has no run 'x'"):
        corpus.recording("01", "x")
    with pytest.raises(RecordingError, match="named twice"):
        fmriprep.corpus(dataset, Reading(subjects=["01", "01"])).subjects()
