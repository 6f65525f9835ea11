"""Assemblies: presentations are matched to sentences by stimulus_id, and unseen sentences are left out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langcortex.datasets import Corpus
from langcortex.datasets.brainscore import corpus, read_assembly
from langcortex.datasets.corpus import Reading
from langcortex.errors import LangcortexError, RecordingError, SettingsError, StoryError

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
from reference.assemblies import write_assembly  # noqa: E402  it needs xarray

TEXTS = [
    "A bee makes honey.",
    "Bees live in hives.",
    "A hut is a small home.",
    "An iron is hot.",
    "It gets warm.",
    "None",
]
STORY = ["a.bee", "a.bee", "a.hut", "b.iron", "b.iron", "b.iron"]
EXPERIMENT = ["a", "a", "a", "b", "b", "b"]
VALUES = np.arange(30, dtype=np.float64).reshape(6, 5)


def write(
    path: Path,
    values: np.ndarray = VALUES,
    without: tuple[str, ...] = (),
    engine: str = "h5netcdf",
    **coords: Any,
) -> Path:
    """Write an assembly as Brain-Score does: a variable "data", flat coordinates on one dimension each."""
    default_coords = {
        "stimulus_id": ("presentation", [f"{e}.{i}" for i, e in enumerate(EXPERIMENT)]),
        "stimulus": ("presentation", TEXTS),
        "sentence": ("presentation", TEXTS),
        "experiment": ("presentation", EXPERIMENT),
        "stimulus_num": ("presentation", list(range(6))),
        "story": ("presentation", STORY),
        "neuroid_id": ("neuroid", ["018.0", "018.1", "018.2", "288.0", "288.1"]),
        "subject": ("neuroid", ["018", "018", "018", "288", "288"]),
        "roi": ("neuroid", ["IFG", "IFG", "PostTemp", "IFG", "AntTemp"]),
        "voxel_num": ("neuroid", [0, 1, 2, 0, 1]),
    } | coords
    coords_to_write = {
        name: (d, np.array(v, dtype=object) if isinstance(v[0], str) else v)
        for name, (d, v) in default_coords.items()
        if name not in without
    }
    dims = ("presentation", "neuroid", "time_bin")[: values.ndim]
    xarray.DataArray(values, dims=dims, coords=coords_to_write, name="data").to_netcdf(path, engine=engine)
    return path


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_an_assembly_is_read_as_written(tmp_path: Path, engine: str) -> None:
    dataset = corpus(write(tmp_path / "assy.nc", engine=engine), Reading())
    assert isinstance(dataset, Corpus)
    assert dataset.subjects() == ["018", "288"]
    assert dataset.runs("018") == ["a.bee", "a.hut", "b.iron"]
    responses = dataset.recording("288", "b.iron")
    assert responses.values.tolist() == VALUES[3:, 3:].tolist()
    assert responses.values.dtype == np.float32
    assert responses.ids.tolist() == ["b.iron/sentence-000", "b.iron/sentence-001", "b.iron/sentence-002"]
    assert responses.space.kind == "columns"
    assert responses.space.names.tolist() == ["288.0", "288.1"]
    assert {k: v.tolist() for k, v in responses.space.regions.items()} == {
        "IFG": [True, False],
        "AntTemp": [False, True],
    }


def test_the_story_has_the_sentences_in_runs_and_a_nominal_clock(tmp_path: Path) -> None:
    story = corpus(write(tmp_path / "assy.nc"), Reading()).story()
    assert story.runs == ("a.bee", "a.hut", "b.iron")
    assert story.sentences.text.tolist() == TEXTS
    assert story.sentences.onset.tolist() == [0.0, 4.0, 0.0, 0.0, 4.0, 8.0]
    assert story.sentences.duration == pytest.approx([4.0] * 6)
    assert story.ids[:2].tolist() == ["a.bee/word-0000", "a.bee/word-0001"]
    assert story.onset[:3].tolist() == [0.0, 1.0, 2.0]


def test_rows_are_matched_by_id_when_presentations_of_runs_are_mixed(tmp_path: Path) -> None:
    """Runs are contiguous in the story whatever the order in the file, and each response follows its sentence."""
    mixed = ["x", "y", "x", "y", "x", "y"]
    dataset = corpus(write(tmp_path / "assy.nc", story=("presentation", mixed)), Reading())
    assert dataset.story().sentences.text.tolist() == [TEXTS[i] for i in (0, 2, 4, 1, 3, 5)]
    assert dataset.recording("018", "y").values.tolist() == VALUES[[1, 3, 5], :3].tolist()
    table = dataset.stimuli().set_index("id")
    assert table.stimulus["y/sentence-001"] == "b.3"
    assert table.text["y/sentence-001"] == TEXTS[3]


def test_sentences_a_subject_did_not_see_are_left_out_and_never_filled(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[3:, :3] = np.nan
    values[1, 3:] = np.nan
    dataset = corpus(write(tmp_path / "assy.nc", values), Reading())
    assert dataset.runs("018") == ["a.bee", "a.hut"]
    assert dataset.runs("288") == ["a.bee", "a.hut", "b.iron"]
    assert dataset.recording("288", "a.bee").ids.tolist() == ["a.bee/sentence-000"]
    assert not np.isnan(dataset.recording("018", "a.bee").values).any()
    with pytest.raises(RecordingError, match=r"Subject '018' has no run 'b\.iron'"):
        dataset.recording("018", "b.iron")


def test_a_target_with_missing_responses_is_an_error_and_one_without_data_is_nan(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[:, 1] = np.nan
    dataset = corpus(write(tmp_path / "assy.nc", values), Reading())
    assert np.isnan(dataset.recording("018", "a.bee").values[:, 1]).all()
    values[4, 1] = 1.0
    with pytest.raises(
        RecordingError, match=r"target '018\.1' of subject '018' has no response to sentence 'a\.0'"
    ):
        corpus(write(tmp_path / "other.nc", values), Reading()).recording("018", "a.bee")


def test_experiments_runs_and_coordinates_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "assy.nc", without=("story", "subject"))
    assert corpus(path, Reading()).story().runs == ("sentences",)
    assert corpus(path, Reading()).subjects() == ["all"]
    assert corpus(path, Reading(), run="experiment").story().runs == ("a", "b")
    assert (
        corpus(path, Reading(), experiment="b", run="experiment", text="sentence")
        .story()
        .sentences.text.tolist()
        == TEXTS[3:]
    )
    assert corpus(path, Reading(), experiment=["b", "a"]).recording("all", "sentences").values.shape == (6, 5)
    assert corpus(path, Reading(), subject="roi").subjects() == ["IFG", "PostTemp", "AntTemp"]
    with pytest.raises(SettingsError, match=r"has no experiment 'c'\. It has: a, b"):
        corpus(path, Reading(), experiment="c").story()
    with pytest.raises(RecordingError, match=r"no coordinate 'passage' on presentation.*data\.options\.run"):
        corpus(path, Reading(), run="passage").story()


def test_regions_of_the_study_are_added_to_those_of_the_assembly(tmp_path: Path) -> None:
    path = write(tmp_path / "assy.nc")
    space = corpus(path, Reading(regions={"mine": ["018.2"]})).recording("018", "a.bee").space
    assert space.regions["mine"].tolist() == [False, False, True]
    assert space.regions["IFG"].tolist() == [True, True, False]


def test_a_time_bin_of_one_is_no_axis_and_more_are_an_error(tmp_path: Path) -> None:
    dataset = corpus(write(tmp_path / "one.nc", VALUES[..., None]), Reading())
    assert dataset.recording("018", "a.hut").values.tolist() == [VALUES[2, :3].tolist()]
    with pytest.raises(RecordingError, match="has 2 steps along time_bin"):
        read_assembly(write(tmp_path / "two.nc", np.stack([VALUES, VALUES], axis=2)))


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (("stimulus_id",), "no coordinate 'stimulus_id' on presentation"),
        (("stimulus", "sentence"), "no coordinate 'stimulus' on presentation"),
        (("neuroid_id",), "no coordinate 'neuroid_id' on neuroid"),
    ],
)
def test_a_missing_coordinate_is_named(tmp_path: Path, without: tuple[str, ...], message: str) -> None:
    dataset = corpus(write(tmp_path / "assy.nc", without=without), Reading())
    with pytest.raises(RecordingError, match=message):
        dataset.story() if "neuroid_id" not in without else dataset.subjects()


def test_one_name_for_two_sentences_and_a_sentence_without_text_are_errors(tmp_path: Path) -> None:
    duplicated = write(tmp_path / "a.nc", stimulus_id=("presentation", ["a", "a", "b", "c", "d", "e"]))
    with pytest.raises(StoryError, match="two sentences called 'a'"):
        corpus(duplicated, Reading()).story()
    empty = write(tmp_path / "b.nc", stimulus=("presentation", ["A", " ", "C", "D", "E", "F"]))
    with pytest.raises(StoryError, match=r"'a\.1' has no text"):
        corpus(empty, Reading()).story()


def test_settings_for_scans_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "assy.nc")
    for reading, name in (
        (Reading(tr=2.0), "tr"), (Reading(cleaning={"detrend": True}), "detrend"), (Reading(mask=tmp_path), "mask"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=rf"recording\.{name} means nothing"):
            corpus(path, reading).recording("018", "a.bee")
    untouched = Reading(mask="compute", cleaning={"detrend": False, "high_pass": None})
    assert corpus(path, untouched).recording("018", "a.bee").values.shape == (2, 3)
    with pytest.raises(SettingsError, match=r"story\.sentences"):
        corpus(path, Reading(sentences="punctuation")).story()
    with pytest.raises(RecordingError, match="'999' was not found"):
        corpus(path, Reading(subjects=["999"])).subjects()
    with pytest.raises(RecordingError, match="'999' was not found"):
        corpus(path, Reading()).recording("999", "a.bee")


def test_damaged_files_are_reported_in_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "assy.nc")
    content = path.read_bytes()
    for cut in (0, 3, 4, 100, len(content) // 2, len(content) - 200):
        path.write_bytes(content[:cut])
        with pytest.raises(LangcortexError) as error:
            read_assembly(path)
        assert "assy.nc" in str(error.value)
    path.write_text("../.git/annex/objects/SHA1E-s1.nc")
    with pytest.raises(RecordingError, match="datalad get"):
        read_assembly(path)
    path.write_text("<html>not found</html>")
    with pytest.raises(RecordingError, match="is no netCDF file"):
        read_assembly(path)
    xarray.Dataset({"data": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(RecordingError, match="no variable with the dimensions presentation and neuroid"):
        read_assembly(path)


def test_a_missing_reader_of_netcdf_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "assy.nc")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "h5netcdf" else real(name))
    with pytest.raises(RecordingError, match="pip install xarray h5netcdf"):
        read_assembly(path)


def test_a_folder_needs_one_assembly_or_its_name(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no file matches \*\.nc"):
        corpus(tmp_path, Reading())
    write(tmp_path / "a.nc")
    assert corpus(tmp_path, Reading()).path.name == "a.nc"  # type: ignore[attr-defined]
    write(tmp_path / "b.nc")
    with pytest.raises(
        RecordingError, match=r"2 files match \*\.nc: a\.nc, b\.nc. Name one with data\.options\.file"
    ):
        corpus(tmp_path, Reading())
    assert corpus(tmp_path, Reading(), file="b.nc").path.name == "b.nc"  # type: ignore[attr-defined]


def test_responses_written_as_an_assembly_are_read_back(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[3:, :3] = np.nan
    before = corpus(write(tmp_path / "assy.nc", values), Reading())
    responses = [before.recording(s, r) for s in before.subjects() for r in before.runs(s)]
    after = corpus(write_assembly(tmp_path / "out.nc", before.story(), responses), Reading())
    assert after.story().sentences.text.tolist() == before.story().sentences.text.tolist()
    for r in responses:
        again = after.recording(r.subject, r.run)
        assert again.values.tolist() == r.values.tolist()
        assert again.ids.tolist() == r.ids.tolist()
    assert after.runs("018") == ["a.bee", "a.hut"]
    with pytest.raises(RecordingError, match="which the story lacks"):
        write_assembly(tmp_path / "out.nc", before.story().take(["a.bee"]), responses)


# real assemblies, and files that declare what they do not hold


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "assy_test_TestMe.nc",
            r"has no coordinate 'stimulus' on presentation\. It has: stimulus_id, repetition\. Name",
        ),
        (
            "assy_test_package_assembly.nc",
            r"has no coordinate 'stimulus_id' on presentation\. It has: image_id, image_type\. Its stimuli look like images",
        ),
    ],
)
def test_real_assemblies_of_vision_say_what_they_lack(shared_data: Path, name: str, sentence: str) -> None:
    path = shared_data / "real2" / "brainio_nc" / name
    if not path.is_file():
        pytest.skip(f"the assembly {path} is absent")
    assembly = read_assembly(path)
    assert assembly.values.shape == (6, 3)
    assert np.isfinite(assembly.values).all()
    with pytest.raises(RecordingError, match=sentence) as caught:
        corpus(path, Reading()).story()
    assert "\n" not in str(caught.value)


def test_a_file_that_declares_more_than_it_holds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "huge.nc"
    with h5py.File(path, "w") as file:
        for name, n in (("presentation", 2**20), ("neuroid", 2**20)):
            scale = file.create_dataset(name, shape=(n,), dtype="f4", chunks=(1024,))
            scale.make_scale(name)
        data = file.create_dataset("data", shape=(2**20, 2**20), dtype="f4", chunks=(1024, 1024))
        for axis, name in enumerate(("presentation", "neuroid")):
            data.dims[axis].attach_scale(file[name])
    with pytest.raises(RecordingError, match=r"'data' declares 1,099,511,627,776 values, more than"):
        read_assembly(path)


def test_data_in_another_file_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    secret = write(tmp_path / "other.nc")
    path = tmp_path / "link.nc"
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink(str(secret), "data")
    with pytest.raises(RecordingError, match="'data' is stored in another file"):
        read_assembly(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (2, 2), "f4", external=[(str(secret), 0, 16)])
    with pytest.raises(RecordingError, match="'data' is stored in another file"):
        read_assembly(path)
