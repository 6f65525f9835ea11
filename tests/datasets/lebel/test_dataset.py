"""LeBel 2023: stories and voxels by their published names, one clock, no scan trimmed twice, repeats for ceilings."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.brain.recording import Cleaning
from langcortex.datasets import Corpus, Reading
from langcortex.datasets.lebel.dataset import LeBel, corpus
from langcortex.datasets.lebel.words import read_words
from langcortex.errors import RecordingError, SettingsError, StoryError

RAW = Reading(cleaning={"standardise": False})
OVERLAP = 1.0000000000000002  # 1 + 2e-16
WORDS = [
    (0.0, OVERLAP, "{SP}"),
    (1.0, 1.5, "i"),
    (1.5, 1.9, "didn't"),
    (1.9, 2.0, "{br}"),
    (2.0, 2.4, "know"),
    (2.4, 3.0, "sp"),
    (3.0, 3.6, "Spain"),
    (3.6, 4.0, ""),
    (4.0, 4.5, "{LG}"),
    (4.5, 5.0, "null"),
]
Tier = tuple[str, list[tuple[float, float, str]]]


def long_grid(tiers: list[Tier]) -> str:
    out = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0 ",
        "xmax = 5 ",
        "tiers? <exists> ",
    ]
    out += [f"size = {len(tiers)} ", "item []: "]
    for i, (name, rows) in enumerate(tiers, 1):
        out += [f"    item [{i}]:", '        class = "IntervalTier" ', f'        name = "{name}" ']
        out += ["        xmin = 0 ", "        xmax = 5 ", f"        intervals: size = {len(rows)} "]
        for k, (begin, end, label) in enumerate(rows, 1):
            out += [f"        intervals [{k}]:", f"            xmin = {begin!r} "]
            out += [f"            xmax = {end!r} ", f'            text = "{label}" ']
    return "\n".join(out) + "\n"


def short_grid(tiers: list[Tier]) -> str:
    out = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "5", "<exists>", str(len(tiers))]
    for name, rows in tiers:
        out += ['"IntervalTier"', f'"{name}"', "0", "5", str(len(rows))]
        for begin, end, label in rows:
            out += [repr(begin), repr(end), f'"{label}"']
    return "\n".join(out) + "\n"


def tiers(words: list[tuple[float, float, str]] = WORDS, name: str = "word") -> list[Tier]:
    return [("phone", [(0.0, 2.5, "AH1"), (2.5, 5.0, "")]), (name, words), ("Stimulus", [(0.0, 5.0, "x")])]


def grid(base: Path, story: str, text: str | None = None, encoding: str = "utf-8") -> Path:
    path = base / "derivative" / "TextGrids" / f"{story}.TextGrid"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(long_grid(tiers()) if text is None else text, encoding=encoding)
    return path


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


def test_intervals_that_overlap_by_a_rounding_error_are_read(tmp_path: Path) -> None:
    table = read_words(grid(tmp_path, "a"))
    assert table["onset"].tolist()[:2] == [0.0, 1.0]
    assert table["duration"].tolist()[0] == 1.0


def test_intervals_that_overlap_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = grid(tmp_path, "a", long_grid(tiers([(0.0, 1.2, "one"), (1.0, 2.0, "two")])))
    with pytest.raises(StoryError, match="overlap") as caught:
        read_words(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("write", [long_grid, short_grid])
def test_both_formats_and_encodings_are_read_alike(tmp_path: Path, encoding: str, write: Any) -> None:
    words = [(0.0, OVERLAP, "café"), (1.0, 1.5, 'say ""no""'), (1.5, 5.0, "1.123456789")]
    table = read_words(grid(tmp_path, "a", write(tiers(words)), encoding))
    assert table["word"].tolist() == ["café", 'say "no"', "1.123456789"]
    assert table["onset"].tolist() == [0.0, 1.0, 1.5]


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = grid(tmp_path, "a")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_words(path)["word"].tolist()[:3] == ["sp", "i", "didn't"]


def test_the_tier_is_named_word_or_is_the_second(tmp_path: Path) -> None:
    reordered = [("Words of it", [(0.0, 5.0, "first")]), *tiers([(0.0, 5.0, "second")], "x")]
    assert read_words(grid(tmp_path, "a", long_grid(reordered)))["word"].tolist() == ["first"]
    unnamed = tiers([(0.0, 5.0, "second")], "TRS")
    assert read_words(grid(tmp_path, "b", long_grid(unnamed)))["word"].tolist() == ["second"]
    with pytest.raises(StoryError, match="has no tier of words: its interval tiers are phone"):
        read_words(grid(tmp_path, "c", long_grid(unnamed[:1])))


@pytest.mark.parametrize("mark", ["sentence_start", "sentence_end", "BR", "{lg}", "{ LS }", "ns"])
def test_marks_are_no_words_and_only_sp_ends_a_sentence(tmp_path: Path, mark: str) -> None:
    words = [(0.0, 1.0, "a"), (1.0, 2.0, mark), (2.0, 3.0, "b"), (3.0, 4.0, "sp"), (4.0, 5.0, "c")]
    assert read_words(grid(tmp_path, "a", long_grid(tiers(words))))["word"].tolist() == [
        "a",
        "",
        "b",
        "sp",
        "c",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (long_grid(tiers()).encode()[:700], "breaks off after interval 3 of 12"),
        (long_grid(tiers()).rstrip().encode()[:-3], "breaks off after interval 12 of 13"),
        (b"no grid at all\n", "has no tier of words"),
        (b"\xff\xfe\x00", "neither UTF-8 nor UTF-16"),
        (b"../../.git/annex/objects/aa/bb/MD5E-s9--x.TextGrid", "datalad get"),
    ],
)
def test_a_damaged_textgrid_is_named_in_one_sentence(tree: Path, content: bytes, sentence: str) -> None:
    path = tree / "derivative" / "TextGrids" / "buck.TextGrid"
    path.write_bytes(content)
    with pytest.raises(StoryError, match=sentence) as caught:
        corpus(tree, Reading()).story()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [long_grid, short_grid])
def test_a_truncated_textgrid_is_refused(tmp_path: Path, write: Any) -> None:
    path = grid(tmp_path, "a", write(tiers()))
    content = path.read_bytes().rstrip()
    for at in range(len(content)):
        path.write_bytes(content[:at])
        with pytest.raises(StoryError):
            read_words(path)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=6), st.sampled_from([long_grid, short_grid]))
def test_times_are_those_of_the_file_to_a_microsecond(
    tmp_path: Path, lengths: list[float], write: Any
) -> None:
    edges = np.cumsum([0.0, *lengths])
    words = [(float(a), float(b), f"w{i}") for i, (a, b) in enumerate(pairwise(edges))]
    table = read_words(grid(tmp_path, "a", write(tiers(words))))
    np.testing.assert_allclose(table["onset"], edges[:-1], atol=1e-6)
    np.testing.assert_allclose(table["onset"] + table["duration"], edges[1:], atol=2e-6)
    assert table["word"].tolist() == [w for _, _, w in words]


# mistakes of a user


def test_another_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"has no folder derivative/preprocessed_data \(derivative without s\)"
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
