"""LeBel 2023: stories and voxels by their published names, one clock, no scan trimmed twice, repeats for ceilings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from langcortex.brain.recording import Cleaning
from langcortex.datasets import Corpus, Reading
from langcortex.datasets.lebel.dataset import LeBel, corpus
from langcortex.errors import RecordingError, SettingsError, StoryError
from reference.textgrids import grid, long_grid, tiers

RAW = Reading(cleaning={"standardise": False})


def response(
    base: Path, subject: str, story: str, data: np.ndarray, repeats: np.ndarray | None = None
) -> Path:
    path = base / "derivative" / "preprocessed_data" / subject / f"{story}.hf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = data.astype(np.float64)
        if repeats is not None:
            file["individual_repeats"] = repeats.astype(np.float64)
    return path


@pytest.fixture
def stored(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The responses of two subjects with 6 and 9 voxels, and five repeats."""
    out = {
        "UTS01/adollshouse": rng.standard_normal((14, 6)),
        "UTS01/buck": rng.standard_normal((11, 6)),
        "UTS02/adollshouse": rng.standard_normal((14, 9)),
        "repeats": rng.standard_normal((5, 12, 6)),
    }
    out["UTS01/wheretheressmoke"] = out["repeats"].mean(axis=0)
    out["UTS01/adollshouse"][:, 3] = np.nan
    return out


@pytest.fixture
def tree(tmp_path: Path, stored: dict[str, np.ndarray]) -> Path:
    for name, data in stored.items():
        if name != "repeats":
            subject, story = name.split("/")
            response(tmp_path, subject, story, data, stored["repeats"] if story.startswith("where") else None)
    for story in ("adollshouse", "buck", "wheretheressmoke", "life"):
        grid(tmp_path, story)
    published = {"adollshouse": 34, "buck": 31, "wheretheressmoke": 32, "life": 450}
    (tmp_path / "derivative" / "respdict.json").write_text(json.dumps(published))
    return tmp_path


# the tree


def test_lebel_is_a_corpus(tree: Path) -> None:
    assert isinstance(corpus(tree, Reading()), Corpus)


def test_runs_are_the_stories_a_subject_heard(tree: Path) -> None:
    dataset = corpus(tree, Reading())
    assert dataset.subjects() == ["UTS01", "UTS02"]
    assert dataset.runs("UTS01") == ["adollshouse", "buck", "wheretheressmoke"]
    assert dataset.runs("UTS02") == ["adollshouse"]
    assert dataset.story().runs == ("adollshouse", "buck", "wheretheressmoke")
    assert corpus(tree, Reading(subjects=["UTS02"])).story().runs == ("adollshouse",)


def test_the_path_may_be_the_folder_derivative(tree: Path) -> None:
    assert corpus(tree / "derivative", Reading()).subjects() == ["UTS01", "UTS02"]


def test_a_response_without_a_textgrid_is_no_run(tree: Path) -> None:
    (tree / "derivative" / "TextGrids" / "buck.TextGrid").unlink()
    assert corpus(tree, Reading()).runs("UTS01") == ["adollshouse", "wheretheressmoke"]
    with pytest.raises(StoryError, match="Story 'buck' has no TextGrid"):
        corpus(tree, Reading(), stories=["buck"]).files("UTS01")


def test_only_the_named_stories_are_read(tree: Path) -> None:
    dataset = corpus(tree, Reading(), stories=["buck", "adollshouse"])
    assert dataset.runs("UTS01") == ["buck", "adollshouse"]
    with pytest.raises(RecordingError, match=r"'UTS02' has no response to 'buck' .*Leave out the story"):
        dataset.files("UTS02")


def test_the_repeated_story_is_for_testing(tree: Path) -> None:
    assert corpus(tree, Reading()).test_runs == ("wheretheressmoke",)
    assert corpus(tree, Reading(subjects=["UTS02"])).test_runs == ()
    assert corpus(tree, Reading(subjects=["UTS01"]), stories=["buck"]).test_runs == ()


# the clock


def test_the_time_of_row_i_is_2i_plus_11_seconds_after_the_sound_began(tree: Path) -> None:
    dataset = corpus(tree, Reading())
    recording = dataset.recording("UTS01", "buck")
    assert recording.time.tolist() == [2.0 * i + 11.0 for i in range(11)]
    assert recording.onset[0] == 10.0
    assert dataset.inventory("UTS01") == {
        "adollshouse": (14, 2.0, -10.0),
        "buck": (11, 2.0, -10.0),
        "wheretheressmoke": (12, 2.0, -10.0),
    }


def test_a_file_of_another_length_than_published_is_refused(tree: Path, rng: np.random.Generator) -> None:
    response(tree, "UTS01", "buck", rng.standard_normal((31, 6)))
    with pytest.raises(RecordingError, match="'buck' of subject 'UTS01' has 31 scans, but 11 were published"):
        corpus(tree, Reading()).recording("UTS01", "buck")
    (tree / "derivative" / "respdict.json").unlink()
    assert len(corpus(tree, Reading()).recording("UTS01", "buck").onset) == 31


@pytest.mark.parametrize("text", ["", '{"buck"', "[1]", '{"buck": "many"}'])
def test_a_damaged_table_of_scans_is_named(tree: Path, text: str) -> None:
    (tree / "derivative" / "respdict.json").write_text(text)
    with pytest.raises(RecordingError, match=r"respdict\.json"):
        corpus(tree, Reading()).files("UTS01")


# responses


def test_responses_are_read_as_stored_and_empty_voxels_are_nan(
    tree: Path, stored: dict[str, np.ndarray]
) -> None:
    recording = corpus(tree, RAW).recording("UTS01", "adollshouse")
    np.testing.assert_allclose(recording.values, stored["UTS01/adollshouse"], rtol=1e-6)
    assert recording.values.dtype == np.float32
    assert np.isnan(recording.values[:, 3]).all()
    assert recording.space.names.tolist() == list("012345")


def test_default_cleaning_only_scales(tree: Path, stored: dict[str, np.ndarray]) -> None:
    assert LeBel.default_cleaning == Cleaning(detrend=False, high_pass=None, standardise=True)
    values = corpus(tree, Reading()).recording("UTS01", "wheretheressmoke").values
    data = stored["UTS01/wheretheressmoke"]
    np.testing.assert_allclose(values, (data - data.mean(0)) / data.std(0, ddof=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("listed", [np.array([4, 0]), np.array([True, False, False, False, True, False])])
def test_voxels_are_chosen_by_number_or_by_booleans(
    tree: Path, stored: dict[str, np.ndarray], listed: np.ndarray
) -> None:
    np.save(tree / "UTS01.npy", listed)
    dataset = corpus(tree, Reading(subjects=["UTS01"], cleaning=RAW.cleaning), voxels="UTS01.npy")
    number = [4, 0] if listed.dtype != bool else [0, 4]
    recording = dataset.recording("UTS01", "buck")
    np.testing.assert_allclose(recording.values, stored["UTS01/buck"][:, number], rtol=1e-6)
    assert recording.space.names.tolist() == [str(n) for n in number]
    np.testing.assert_allclose(dataset.repeats("UTS01"), stored["repeats"][:, :, number], rtol=1e-6)


def test_each_subject_may_have_a_file_of_voxels(tree: Path) -> None:
    np.save(tree / "UTS01.npy", [0, 5])
    np.save(tree / "UTS02.npy", [0, 8, 2])
    dataset = corpus(tree, Reading(), voxels="{subject}.npy")
    assert dataset.recording("UTS01", "buck").values.shape == (11, 2)
    assert dataset.recording("UTS02", "adollshouse").values.shape == (14, 3)
    with pytest.raises(SettingsError, match=r"one file .* for 2 subjects.*Write \{subject\}"):
        corpus(tree, Reading(), voxels="UTS01.npy").recording("UTS01", "buck")


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        (np.array([0, 6]), "has 6 voxels, numbered from 0; there is no voxel 6"),
        (np.array([-1, 2]), "there is no voxel -1"),
        (np.array([2, 2]), "listed twice"),
        (np.array([0.0, 1.0]), "type float64; a list of voxel numbers or of booleans"),
        (np.zeros((2, 2), dtype=int), r"shape \(2, 2\)"),
        (np.zeros(0, dtype=int), r"shape \(0,\)"),
        (np.ones(5, dtype=bool), "has 5 booleans, but subject 'UTS01' 6 voxels"),
    ],
)
def test_impossible_voxels_are_errors(tree: Path, listed: np.ndarray, sentence: str) -> None:
    np.save(tree / "v.npy", listed)
    with pytest.raises((RecordingError, SettingsError), match=sentence):
        corpus(tree, Reading(subjects=["UTS01"]), voxels="v.npy").recording("UTS01", "buck")


def test_an_absent_or_damaged_list_of_voxels_is_an_error(tree: Path) -> None:
    reading = Reading(subjects=["UTS01"])
    with pytest.raises(SettingsError, match=r"list of voxels .*v\.npy does not exist"):
        corpus(tree, reading, voxels="v.npy").recording("UTS01", "buck")
    (tree / "v.npy").write_bytes(b"no array")
    with pytest.raises(SettingsError, match=r"cannot be read as a \.npy"):
        corpus(tree, reading, voxels="v.npy").recording("UTS01", "buck")


def test_files_of_one_subject_must_have_equally_many_voxels(tree: Path, rng: np.random.Generator) -> None:
    response(tree, "UTS01", "buck", rng.standard_normal((11, 7)))
    for ask in (lambda c: c.recording("UTS01", "buck"), lambda c: c.inventory("UTS01")):
        with pytest.raises(RecordingError, match=r"buck\.hf5 has 7 voxels, but adollshouse\.hf5 .* 6"):
            ask(corpus(tree, Reading()))


def test_a_story_can_be_read_if_others_were_not_fetched(tree: Path) -> None:
    path = tree / "derivative" / "preprocessed_data" / "UTS01" / "adollshouse.hf5"
    path.unlink()
    path.symlink_to("../../../.git/annex/objects/xx/yy/MD5E-s9--a.hf5")
    dataset = corpus(tree, Reading())
    assert dataset.recording("UTS01", "buck").values.shape == (11, 6)
    with pytest.raises(RecordingError, match=r"has not been downloaded.*datalad get .*adollshouse\.hf5"):
        dataset.recording("UTS01", "adollshouse")


def test_damaged_responses_are_errors(tree: Path) -> None:
    path = tree / "derivative" / "preprocessed_data" / "UTS01" / "buck.hf5"
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    with pytest.raises(RecordingError, match=r"buck\.hf5 cannot be read as HDF5"):
        corpus(tree, Reading()).recording("UTS01", "buck")
    path.write_bytes(b"")
    with pytest.raises(RecordingError, match="is empty"):
        corpus(tree, Reading()).recording("UTS01", "buck")
    response(tree, "UTS01", "buck", np.zeros((2, 11, 6)))
    with pytest.raises(RecordingError, match=r"shape \(2, 11, 6\) under 'data'"):
        corpus(tree, Reading()).recording("UTS01", "buck")
    with h5py.File(path, "w") as file:
        file["zRresp"] = np.zeros((11, 6))
    with pytest.raises(RecordingError, match=r"has no dataset 'data'\. It has: zRresp"):
        corpus(tree, Reading()).recording("UTS01", "buck")


def test_an_absent_subject_or_run_is_named(tree: Path) -> None:
    with pytest.raises(RecordingError, match="'UTS10' was not found"):
        corpus(tree, Reading(subjects=["UTS10"])).subjects()
    with pytest.raises(RecordingError, match="named twice"):
        corpus(tree, Reading(subjects=["UTS01", "UTS01"])).subjects()
    with pytest.raises(RecordingError, match=r"'UTS10' was not found .*Found: UTS01, UTS02"):
        corpus(tree, Reading()).files("UTS10")
    with pytest.raises(RecordingError, match="'UTS01' has no run 'life'"):
        corpus(tree, Reading()).recording("UTS01", "life")


# repeats


def test_repeats_are_read_in_small_slices(
    tree: Path, stored: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langcortex.datasets.lebel.dataset.HDF5_BYTES", 8 * 6 * 5)  # five scans at once
    dataset = corpus(tree, Reading())
    repeats = dataset.repeats("UTS01")
    assert repeats.dtype == np.float32
    np.testing.assert_allclose(repeats, stored["repeats"], rtol=1e-6)
    np.testing.assert_allclose(dataset.repeats("UTS01", [5, 1]), stored["repeats"][:, :, [5, 1]], rtol=1e-6)
    with pytest.raises(RecordingError, match="there is no voxel 6"):
        dataset.repeats("UTS01", [6])


def test_absent_repeats_are_errors(tree: Path, rng: np.random.Generator) -> None:
    dataset = corpus(tree, Reading())
    with pytest.raises(RecordingError, match="'UTS02' has no response to 'wheretheressmoke'"):
        dataset.repeats("UTS02")
    response(tree, "UTS02", "wheretheressmoke", rng.standard_normal((12, 9)))
    with pytest.raises(RecordingError, match="no dataset 'individual_repeats'"):
        corpus(tree, Reading()).repeats("UTS02")
    response(tree, "UTS02", "wheretheressmoke", rng.standard_normal((12, 9)), rng.standard_normal((5, 13, 9)))
    with pytest.raises(RecordingError, match=r"shape \(5, 13, 9\); repeats × 12 scans"):
        corpus(tree, Reading()).repeats("UTS02")


# words


def test_words_have_no_marks_and_sentences_end_at_sp(tree: Path) -> None:
    story = corpus(tree, Reading(), stories=["adollshouse"]).story()
    assert story.name == "ds003020"
    assert story.text.tolist() == ["i", "didn't", "know", "Spain", "null"]
    assert story.onset.tolist() == [1.0, 1.5, 2.0, 3.0, 4.5]
    np.testing.assert_allclose(story.duration, [0.5, 0.4, 0.4, 0.6, 0.5])
    assert [s.rsplit("-", 1)[1] for s in story.sentence] == ["000", "000", "000", "001", "001"]
    assert story.left_out == {"adollshouse": 5}


def test_a_study_may_choose_other_sentences(tree: Path) -> None:
    story = corpus(tree, Reading(sentences="punctuation"), stories=["adollshouse"]).story()
    assert len(story.sentences) == 1
    with pytest.raises(StoryError, match="no sentence column"):
        corpus(tree, Reading(sentences="column"), stories=["adollshouse"]).story()


def test_the_story_is_read_once(tree: Path) -> None:
    dataset = corpus(tree, Reading())
    assert dataset.story() is dataset.story()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (long_grid(tiers()).encode()[:700], "breaks off after interval 3 of 12"),
        (long_grid(tiers()).rstrip().encode()[:-3], "breaks off after interval 12 of 13"),
        (b"no grid at all\n", "cannot be read as a TextGrid"),
        (b"\xff\xfe\x00", "neither UTF-8 nor UTF-16"),
        (b"../../.git/annex/objects/aa/bb/MD5E-s9--x.TextGrid", "datalad get"),
    ],
)
def test_a_damaged_textgrid_is_named_in_one_sentence(tree: Path, content: bytes, sentence: str) -> None:
    path = tree / "derivative" / "TextGrids" / "buck.TextGrid"
    path.write_bytes(content)
    (remark,) = corpus(tree, Reading()).remarks()
    assert sentence in remark
    assert str(path) in remark
    assert "\n" not in remark
    with pytest.raises(StoryError) as caught:
        corpus(tree, Reading(subjects=["UTS01"]), stories=["buck"]).story()
    assert remark.endswith(str(caught.value))


# mistakes of a user


def test_another_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"has no folder derivative/preprocessed_data \(derivatives/… in later"
    ):
        corpus(tmp_path, Reading())


def test_a_folder_without_textgrids_is_an_error(tree: Path) -> None:
    for path in (tree / "derivative" / "TextGrids").iterdir():
        path.unlink()
    with pytest.raises(StoryError, match=r"TextGrids has no TextGrid\. Fetch the folder"):
        corpus(tree, Reading()).files("UTS01")
    with pytest.raises(StoryError, match="has no TextGrid"):
        corpus(tree, Reading()).story()


def test_subjects_without_responses_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "derivative" / "preprocessed_data" / "UTS01").mkdir(parents=True)
    with pytest.raises(RecordingError, match="No subject was found"):
        corpus(tmp_path, Reading()).subjects()


@pytest.mark.parametrize("options", [{"stories": "buck"}, {"voxels": [1, 2]}])
def test_an_option_of_the_wrong_type_is_an_error(tree: Path, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="stories is a list of story names"):
        corpus(tree, Reading(), **options)


def test_citation_and_licence_are_those_published() -> None:
    assert "10.1038/s41597-023-02437-z" in LeBel.citation()
    assert LeBel.licence().startswith("CC0")


# stories that cannot be read, and later releases


@pytest.mark.parametrize("content", ["", "no grid", long_grid(tiers())[:900], "/annex/objects/MD5E-s1"])
def test_a_story_that_cannot_be_read_is_left_out_by_name(tree: Path, content: str) -> None:
    """One bad file of 84 stops nobody, and nothing is advised that this corpus refuses."""
    grid(tree, "buck", content)
    dataset = corpus(tree, Reading())
    assert dataset.runs("UTS01") == ["adollshouse", "wheretheressmoke"]
    assert dataset.story().runs == ("adollshouse", "wheretheressmoke")
    (remark,) = dataset.remarks()
    assert remark.startswith("Story 'buck' is left out: ")
    assert "buck.TextGrid" in remark
    assert "accept_truncated" not in remark
    named = corpus(tree, Reading(subjects=["UTS01"]), stories=["buck", "adollshouse"])
    assert named.runs("UTS01") == ["adollshouse"]
    assert named.remarks() == [remark]


def test_an_unreadable_story_to_test_on_is_told(tree: Path) -> None:
    grid(tree, "wheretheressmoke", "no grid")
    dataset = corpus(tree, Reading())
    assert dataset.test_runs == ()
    assert dataset.remarks()[1].startswith("'wheretheressmoke' was the story to test on")


def test_no_readable_story_is_an_error_with_the_first_reason(tree: Path) -> None:
    for story in ("adollshouse", "buck", "wheretheressmoke"):
        grid(tree, story, "no grid")
    with pytest.raises(StoryError, match=r"adollshouse\.TextGrid cannot be read as a TextGrid"):
        corpus(tree, Reading()).story()


def test_a_story_without_a_textgrid_is_told(tree: Path) -> None:
    (tree / "derivative" / "TextGrids" / "buck.TextGrid").unlink()
    assert corpus(tree, Reading()).remarks() == ["Story 'buck' is left out: it has no TextGrid."]


def test_what_was_mended_in_a_story_is_told(tree: Path) -> None:
    words = [(0.0, 1.0001, "one"), (1.0, 2.0, "two"), (2.0, 5.0, "sp")]
    phones = ("phone", [(0.0, 2.5, "AH1"), (2.4999, 5.0, "")])
    grid(tree, "buck", long_grid([phones, *tiers(words)[1:]]))
    (remark,) = corpus(tree, Reading()).remarks()
    assert remark.startswith("buck.TextGrid: 1 intervals of tier 'word' overlapped")


def test_the_folder_of_later_releases_has_an_s(tree: Path) -> None:
    (tree / "derivative").rename(tree / "derivatives")
    assert corpus(tree, Reading()).subjects() == ["UTS01", "UTS02"]
    assert corpus(tree / "derivatives", Reading()).subjects() == ["UTS01", "UTS02"]
    (tree / "derivative").mkdir()  # an empty one beside it hides nothing
    assert corpus(tree, Reading()).runs("UTS02") == ["adollshouse"]


def test_the_real_tree_gives_each_subject_their_stories(shared_data: Path, tmp_path: Path) -> None:
    """Every name of ds003020 v3.1.0, with a small TextGrid of the right form under each story's name."""
    listing = shared_data / "real2" / "lebel_tree" / "ds003020_v3.1.0_derivative_keys.txt"
    if not listing.is_file():
        pytest.skip(f"the list {listing} is absent")
    for line in listing.read_text().splitlines():
        path = tmp_path / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path.suffix == ".TextGrid":
            grid(tmp_path, path.stem)
    published = json.loads((listing.parent / "respdict.json").read_text())
    (tmp_path / "derivative" / "respdict.json").write_text(json.dumps(published))
    dataset = corpus(tmp_path, Reading())
    counts = {subject: len(dataset.runs(subject)) for subject in dataset.subjects()}
    assert counts == dict.fromkeys(["UTS01", "UTS02", "UTS03"], 84) | {"UTS04": 26} | dict.fromkeys(
        ["UTS05", "UTS06", "UTS07", "UTS08"], 27
    ) | {"UTS09": 54}
    assert {"legacy", "exorcism"} <= set(dataset.runs("UTS01"))
    assert "life" not in dataset.runs("UTS04")
    assert dataset.test_runs == ("wheretheressmoke",)
    assert dataset.remarks() == []
    assert dataset.files("UTS01")["legacy"].scans == published["legacy"] - 20
