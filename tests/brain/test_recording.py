"""Recordings: images, surfaces and tables give the same numbers on the story's clock, and errors name the file."""

import gzip

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn import signal

from langcortex.brain.formats import count_scans
from langcortex.brain.recording import Cleaning, Recording, average_recordings, read_recording
from langcortex.brain.space import Space, volume_space
from langcortex.errors import RecordingError
from reference.images import AFFINE, save_image, save_mask

RAW = Cleaning(detrend=False, high_pass=None, standardise=False)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_an_image_is_read_voxel_by_voxel_in_the_order_of_the_mask(tmp_path, brain, ending, dtype):
    data, inside = brain
    path = save_image(data, tmp_path / f"bold{ending}", dtype=dtype)
    stored = nibabel.load(path)
    assert stored.get_data_dtype() == dtype
    if dtype == np.int16:
        assert stored.dataobj.slope != 1  # scaled
    space = volume_space(save_mask(inside, tmp_path / "mask.nii.gz"), [path])
    recording = read_recording(path, "1", "01", space=space, cleaning=RAW)
    np.testing.assert_allclose(recording.values, stored.get_fdata()[inside].T, rtol=1e-6)
    assert recording.values.dtype == np.float32
    assert recording.tr == 2.0
    assert count_scans(path) == (40, 2.0)


def test_onsets_are_on_the_storys_clock(tmp_path):
    path = tmp_path / "r.npy"
    np.save(path, np.random.default_rng(0).standard_normal((5, 2)))
    recording = read_recording(path, "1", "01", tr=2.0, stimulus_onset=3.0, cleaning=RAW)
    np.testing.assert_allclose(recording.onset, [-3, -1, 1, 3, 5])
    np.testing.assert_allclose(recording.time, [-2, 0, 2, 4, 6])
    assert recording.end == 7.0
    np.testing.assert_allclose(
        read_recording(path, "1", "01", tr=2.0, reference=0.0, cleaning=RAW).time, [0, 2, 4, 6, 8]
    )


def test_a_recording_without_a_tr_is_an_error(tmp_path, rng):
    np.save(tmp_path / "r.npy", rng.standard_normal((9, 2)))
    with pytest.raises(RecordingError, match=r"states the TR\. Set recording\.tr, in seconds"):
        read_recording(tmp_path / "r.npy", "1", "01")


def test_a_voxel_without_data_is_nan_and_a_scan_with_a_nan_voxel_is_an_error(tmp_path, brain):
    data, inside = brain
    mask = save_mask(inside, tmp_path / "mask.nii")
    clean = save_image(data, tmp_path / "clean.nii")
    space = volume_space(mask, [clean])
    complete = read_recording(clean, "1", "01", space=space).values
    data[2, 2, 2] = np.nan
    column = np.argwhere(inside).tolist().index([2, 2, 2])
    values = read_recording(save_image(data, tmp_path / "hole.nii"), "1", "01", space=space).values
    assert np.isnan(values[:, column]).all()
    defined = np.arange(values.shape[1]) != column
    np.testing.assert_allclose(values[:, defined], complete[:, defined], atol=1e-6)
    data[1, 1, 1, 7] = np.nan
    with pytest.raises(RecordingError, match=r"Run '1' of subject '01' .*scan 7 of 40 has NaN"):
        read_recording(save_image(data, tmp_path / "scan.nii"), "1", "01", space=space)


def test_a_constant_voxel_is_nan_and_a_brain_of_constant_voxels_is_an_error(tmp_path, rng):
    values = rng.standard_normal((80, 4)).astype(np.float32)
    alone = Cleaning().apply(values, 2.0, None, "here")
    values[:, 1] = 7.1
    cleaned = Cleaning().apply(values, 2.0, None, "here")
    assert np.isnan(cleaned[:, 1]).all()
    np.testing.assert_allclose(np.delete(cleaned, 1, axis=1), np.delete(alone, 1, axis=1), atol=1e-6)
    with pytest.raises(RecordingError, match="here: all 4 targets are constant or empty"):
        Cleaning().apply(np.full((80, 4), 3.0), 2.0, None, "here")


def test_an_infinite_value_is_an_error_like_nan(rng):
    values = rng.standard_normal((80, 4)).astype(np.float32)
    values[3, 2] = np.inf
    with pytest.raises(RecordingError, match="scan 3"):
        Cleaning().apply(values, 2.0, None, "here")


@pytest.mark.parametrize("detrend", [True, False])
@pytest.mark.parametrize("high_pass", [1 / 128, None])
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("with_confounds", [True, False])
def test_cleaning_is_nilearns(rng, detrend, high_pass, standardise, with_confounds):
    values = (100 + np.cumsum(rng.standard_normal((120, 5)), axis=0)).astype(np.float32)
    confounds = rng.standard_normal((120, 2)) if with_confounds else None
    cleaned = Cleaning(detrend, high_pass, standardise).apply(values, 2.0, confounds, "here")
    expected = signal.clean(
        values.astype(np.float64), detrend=detrend, standardize="zscore_sample" if standardise else None, confounds=confounds,
        filter="cosine" if high_pass else False, high_pass=high_pass, t_r=2.0,
    )  # fmt: skip
    assert cleaned.dtype == np.float32
    np.testing.assert_allclose(cleaned, expected, atol=2e-3)


def test_confounds_are_selected_by_name_and_their_first_row_may_be_missing(tmp_path, rng):
    values = rng.standard_normal((50, 3)) + 10
    table = pd.DataFrame(rng.standard_normal((50, 3)), columns=["trans_x", "rot_y", "csf"])
    table.loc[0, "rot_y"] = np.nan
    table.to_csv(tmp_path / "confounds.tsv", sep="\t", index=False, na_rep="n/a")
    np.save(tmp_path / "r.npy", values)
    cleaning = Cleaning(confounds=("trans_x", "rot_y"))
    recording = read_recording(
        tmp_path / "r.npy", "1", "01", tr=2.0, cleaning=cleaning, confounds=tmp_path / "confounds.tsv"
    )
    expected = cleaning.apply(
        values.astype(np.float32), 2.0, table[["trans_x", "rot_y"]].fillna(0).to_numpy(), ""
    )
    np.testing.assert_allclose(recording.values, expected, atol=1e-5)
    slopes = np.linalg.lstsq(
        np.column_stack([np.ones(50), np.arange(50), table.trans_x]), recording.values, rcond=None
    )[0]
    np.testing.assert_allclose(slopes[2], 0.0, atol=0.05)
    everything = read_recording(tmp_path / "r.npy", "1", "01", tr=2.0, confounds=tmp_path / "confounds.tsv")
    assert np.abs(everything.values - recording.values).max() > 1e-3


def test_named_confounds_without_a_table_are_an_error(tmp_path, rng):
    np.save(tmp_path / "r.npy", rng.standard_normal((50, 3)))
    with pytest.raises(RecordingError, match="trans_x"):
        read_recording(tmp_path / "r.npy", "1", "01", tr=2.0, cleaning=Cleaning(confounds=("trans_x",)))


def test_files_that_are_damaged_or_not_fetched_are_named(tmp_path, brain):
    data, inside = brain
    good = save_image(data, tmp_path / "good.nii.gz")
    space = volume_space(save_mask(inside, tmp_path / "mask.nii"), [good])
    content = good.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    broken = bytearray(content)
    broken[len(broken) // 2 : len(broken) // 2 + 40] = b"\xff" * 40
    (tmp_path / "bits.nii.gz").write_bytes(bytes(broken))
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(content)[:5000])
    (tmp_path / "text.nii").write_text("this is no image " * 100)
    (tmp_path / "header.nii.gz").write_bytes(content[:100])
    (tmp_path / "pointer.nii.gz").write_text("/annex/objects/SHA256E-s3--abc.nii.gz\n")
    (tmp_path / "link.nii.gz").symlink_to("../.git/annex/objects/abc")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    for name, message in {
        "cut.nii.gz": "Fetch it again", "bits.nii.gz": "Fetch it again", "cut.nii": "Fetch it again", "text.nii": "Is it complete",
        "header.nii.gz": "header.nii.gz", "pointer.nii.gz": "datalad get", "link.nii.gz": "datalad get", "empty.nii.gz": "is empty",
        "absent.nii.gz": "does not exist",
    }.items():  # fmt: skip
        with pytest.raises(RecordingError, match=message):
            read_recording(tmp_path / name, "1", "01", space=space)


def test_runs_must_share_one_grid_and_images_have_four_dimensions(tmp_path, brain):
    data, inside = brain
    space = volume_space(save_mask(inside, tmp_path / "mask.nii"), [save_image(data, tmp_path / "a.nii")])
    moved = AFFINE.copy()
    moved[0, 3] += 2
    for odd in (
        save_image(data, tmp_path / "b.nii", affine=moved),
        save_image(data[:, :, :3], tmp_path / "c.nii"),
    ):
        with pytest.raises(RecordingError, match="another grid"):
            read_recording(odd, "1", "01", space=space)
    with pytest.raises(RecordingError, match="a 4D image"):
        read_recording(save_image(data[..., 0], tmp_path / "d.nii"), "1", "01", space=space)
    with pytest.raises(RecordingError, match="a 4D image"):
        count_scans(tmp_path / "d.nii")
    with pytest.raises(RecordingError, match="an image needs a mask"):
        read_recording(tmp_path / "a.nii", "1", "01")


def test_another_run_must_have_the_same_targets(tmp_path, rng):
    for name, columns in (("a", ["x", "y"]), ("b", ["y", "x"])):
        pd.DataFrame(rng.standard_normal((90, 2)), columns=columns).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    first = read_recording(tmp_path / "a.csv", "1", "01", tr=2.0)
    with pytest.raises(RecordingError, match="are not those of the other runs"):
        read_recording(tmp_path / "b.csv", "2", "01", tr=2.0, space=first.space)


def _recording(values, subject="01", space=None, **options):
    values = np.asarray(values, dtype=np.float32)
    space = space or Space("columns", np.array([f"c{i}" for i in range(values.shape[1])]))
    return Recording(values, 2.0 * np.arange(len(values)), 2.0, "1", subject, space, **options)


def test_an_average_leaves_out_subjects_without_data_for_a_target(rng):
    values = rng.standard_normal((3, 10, 4)).astype(np.float32)
    values[0][:, 1] = values[2][:, 1] = np.nan
    values[:, :, 3] = np.nan
    average = average_recordings([_recording(v, str(i)) for i, v in enumerate(values)])
    np.testing.assert_allclose(average.values[:, [0, 2]], values.mean(axis=0)[:, [0, 2]], atol=1e-6)
    np.testing.assert_allclose(average.values[:, 1], values[1][:, 1])
    assert np.isnan(average.values[:, 3]).all()
    assert (average.subject, average.values.dtype) == ("average", np.float32)


def test_only_recordings_with_the_same_scans_and_targets_are_averaged(rng):
    recording = _recording(rng.standard_normal((10, 2)))
    with pytest.raises(RecordingError, match="'01' has 10 scans and 'b' 9"):
        average_recordings([recording, _recording(rng.standard_normal((9, 2)), "b")])
    with pytest.raises(RecordingError, match="'b' has other targets than '01'"):
        average_recordings(
            [recording, _recording(rng.standard_normal((10, 2)), "b", Space("columns", np.array(["x", "y"])))]
        )


def test_a_recording_is_checked_when_it_is_made():
    with pytest.raises(RecordingError, match=r"\(3, 2\) values, but 3 scans and 1 targets"):
        _recording(np.zeros((3, 2)), space=Space("columns", np.array(["x"])))
    with pytest.raises(RecordingError, match="the TR is 0 s"):
        Recording(np.zeros((1, 1)), np.zeros(1), 0, "1", "01", Space("columns", np.array(["x"])))
