"""Clocks: a TR that no scanner has is refused with its likely reading, and sidecars are inherited as in BIDS."""

import json

import nibabel
import numpy as np
import pytest

from langcortex.brain.clocks import check_tr, read_clock
from langcortex.brain.formats import count_scans
from langcortex.brain.recording import Recording, read_recording
from langcortex.brain.space import Space
from langcortex.datasets.corpus import Reading
from langcortex.errors import RecordingError
from reference.images import save_image


def _image(folder, name="sub-01_task-story_run-1_bold.nii.gz", tr=2.0, unit="sec"):
    folder.mkdir(parents=True, exist_ok=True)
    return save_image(np.ones((5, 6, 4, 3), dtype=np.float32), folder / name, tr=tr, unit=unit)


def _write(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("tr", "reading"),
    [
        (2000, r"2000 looks like milliseconds \(2 s\)"),
        (150, r"looks like milliseconds \(0.15 s\)"),
        (1_500_000, r"looks like microseconds \(1.5 s\)"),
        (0.002, r"looks like seconds divided by 1000 \(2 s\)"),
        (25, "gives a TR of 25 s"),
        (-2, "gives a TR of -2 s"),
        (float("nan"), "gives a TR of nan s"),
    ],
)
def test_a_tr_that_no_scanner_has_is_refused_with_its_likely_reading(tr, reading):
    with pytest.raises(RecordingError, match=reading):
        check_tr(tr, "recording.tr")


def test_a_header_in_seconds_that_counts_milliseconds_is_refused_by_name(tmp_path):
    path = _image(tmp_path, tr=2000.0)
    for read in (read_clock, count_scans):
        with pytest.raises(RecordingError, match=rf"header of {path}.*looks like milliseconds"):
            read(path)
    assert read_clock(_image(tmp_path, "msec_bold.nii.gz", tr=2000.0, unit="msec")).tr == 2.0
    with pytest.raises(RecordingError, match="seconds divided by 1000"):
        read_clock(_image(tmp_path, "thousandth_bold.nii.gz", tr=2.0, unit="msec"))
    # a study that states the TR is not judged by the file
    assert read_clock(path, 2.0).tr == 2.0
    assert count_scans(path, tr=2.0) == (3, 2.0)


def test_a_sidecar_in_milliseconds_is_refused_by_name(tmp_path):
    path = _image(tmp_path)
    sidecar = _write(tmp_path / "sub-01_task-story_run-1_bold.json", RepetitionTime=1500)
    with pytest.raises(RecordingError, match=rf"RepetitionTime of {sidecar}.*milliseconds \(1.5 s\)"):
        read_clock(path)
    _write(sidecar, RepetitionTime=2.0, StartTime=990)
    with pytest.raises(RecordingError, match=r"StartTime.*990 looks like milliseconds"):
        read_clock(path)


def test_settings_and_recordings_refuse_milliseconds(tmp_path, rng):
    with pytest.raises(RecordingError, match=r"recording.tr gives a TR of 2000 s.*milliseconds"):
        Reading(tr=2000.0)
    np.save(tmp_path / "r.npy", rng.standard_normal((60, 2)))
    with pytest.raises(RecordingError, match=r"recording.tr gives a TR of 1490 s"):
        read_recording(tmp_path / "r.npy", "1", "01", tr=1490.0)
    with pytest.raises(RecordingError, match="Run '1' of subject '01' gives a TR of 2000 s"):
        Recording(np.zeros((1, 1)), np.zeros(1), 2000, "1", "01", Space("columns", np.array(["x"])))


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("", "task-story_bold.json"),
        ("", "bold.json"),
        ("sub-01", "sub-01_task-story_bold.json"),
        ("sub-01/ses-1", "sub-01_ses-1_bold.json"),
        ("", "task-story_run-01_bold.json"),
    ],
)
def test_sidecars_of_folders_above_are_inherited(tmp_path, where, name):
    _write(tmp_path / "dataset_description.json", Name="x")
    path = _image(tmp_path / "sub-01" / "ses-1" / "func", "sub-01_ses-1_task-story_run-1_bold.nii.gz", tr=1.0)
    assert read_clock(path).tr == 1.0
    _write(tmp_path / where / name, RepetitionTime=1.5, StartTime=0.7)
    clock = read_clock(path)
    assert (clock.tr, clock.start) == (1.5, 0.7)
    assert "1.5 s, but the image's header says 1 s" in clock.remarks[0]


@pytest.mark.parametrize(
    "name",
    ["task-rest_bold.json", "task-story_events.json", "task-story_run-2_bold.json", "task-story_echo-1_bold.json", "notes.json"],
)  # fmt: skip
def test_sidecars_of_other_images_are_not_inherited(tmp_path, name):
    _write(tmp_path / "dataset_description.json", Name="x")
    path = _image(tmp_path / "sub-01" / "func")
    _write(tmp_path / name, RepetitionTime=1.5)
    assert read_clock(path).tr == 2.0


def test_the_nearest_sidecar_wins_key_by_key(tmp_path):
    path = _image(tmp_path / "sub-01" / "func")
    _write(tmp_path / "task-story_bold.json", RepetitionTime=1.0, StartTime=0.25)
    _write(tmp_path / "sub-01" / "sub-01_task-story_bold.json", RepetitionTime=2.0)
    assert (read_clock(path).tr, read_clock(path).start, read_clock(path).remarks) == (2.0, 0.25, ())
    _write(path.with_name("sub-01_task-story_run-1_bold.json"), RepetitionTime=2.01)
    assert read_clock(path).tr == 2.01
    assert read_clock(path).remarks == ()  # within a hundredth


def test_preprocessed_images_inherit_within_derivatives_and_from_the_dataset(tmp_path):
    _write(tmp_path / "dataset_description.json", Name="raw")
    derivatives = tmp_path / "derivatives" / "fmriprep"
    _write(derivatives / "dataset_description.json", Name="fMRIPrep")
    name = "sub-01_task-story_run-1_space-MNI152_desc-preproc_bold.nii.gz"
    path = _image(derivatives / "sub-01" / "func", name, tr=1.0)
    _write(tmp_path / "task-story_bold.json", RepetitionTime=1.5)
    assert read_clock(path).tr == 1.5
    _write(derivatives / "task-story_bold.json", RepetitionTime=1.6)
    assert read_clock(path).tr == 1.6


def test_two_sidecars_that_apply_alike_are_an_error(tmp_path):
    path = _image(tmp_path / "sub-01" / "func")
    _write(tmp_path / "task-story_bold.json", RepetitionTime=1.5)
    _write(tmp_path / "run-1_bold.json", RepetitionTime=1.6)
    with pytest.raises(RecordingError, match="are sidecars of one image"):
        read_clock(path)


@pytest.mark.parametrize(
    "text", ['{"RepetitionTime": true}', '{"RepetitionTime": "soon"}', "[1]", '{"StartTime": 1e400}']
)
def test_a_sidecar_that_states_no_number_is_one_sentence(tmp_path, text):
    path = _image(tmp_path)
    path.with_name("sub-01_task-story_run-1_bold.json").write_text(text)
    with pytest.raises(RecordingError, match="cannot be read as a sidecar"):
        read_clock(path)


def test_a_recording_carries_the_remark(tmp_path, brain):
    from langcortex.brain.space import volume_space

    data, _ = brain
    path = save_image(data, tmp_path / "sub-01_task-story_bold.nii.gz", tr=1.0)
    _write(tmp_path / "sub-01_task-story_bold.json", RepetitionTime=2.0)
    space = volume_space(None, [path], all_voxels=True)
    recording = read_recording(path, "1", "01", space=space)
    assert recording.tr == 2.0
    assert "The sidecar is used" in recording.remarks[0]


def test_the_timestep_of_a_surface_is_judged_too(tmp_path):
    from langcortex.brain.formats import count_scans

    array = nibabel.gifti.GiftiDataArray(np.ones(4, dtype=np.float32))
    array.meta["TimeStep"] = "2.0"  # seconds, where milliseconds belong
    image = nibabel.gifti.GiftiImage(darrays=[array])
    paths = (tmp_path / "hemi-L_bold.func.gii", tmp_path / "hemi-R_bold.func.gii")
    for path in paths:
        nibabel.save(image, path)
    with pytest.raises(RecordingError, match="seconds divided by 1000"):
        count_scans(paths)
