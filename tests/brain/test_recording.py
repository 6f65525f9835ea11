"""Recordings: images, surfaces and tables give the same numbers; what cannot be read is said in one sentence."""

import gzip
import json

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn import signal
from nilearn.image import resample_to_img

from langcortex.brain.formats import n_scans
from langcortex.brain.recording import Cleaning, Recording, average_recordings, read_recording
from langcortex.brain.space import Space, volume_space
from langcortex.errors import RecordingError

RAW = Cleaning(detrend=False, high_pass=None, standardise=False)
AFFINE = np.array([[-4.0, 0, 0, 10], [0, 4, 0, -20], [0, 0, 4, -30], [0, 0, 0, 1]])
SHAPE = (5, 6, 4)


@pytest.fixture
def brain(rng):
    """40 scans of a tiny brain inside a block of zeros: data in [x, y, z, scan] and the block."""
    inside = np.zeros(SHAPE, dtype=bool)
    inside[1:4, 1:5, 1:3] = True
    data = np.zeros((*SHAPE, 40), dtype=np.float32)
    data[inside] = 500 + 40 * rng.standard_normal((inside.sum(), 40))
    return data, inside


def _save(data, path, tr=2.0, unit="sec", affine=AFFINE, dtype=np.float32):
    image = nibabel.Nifti1Image(data, affine, dtype=dtype)
    if data.ndim == 4:
        image.header.set_zooms((4, 4, 4, tr))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


def _mask(inside, path, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), affine), path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_an_image_is_read_voxel_by_voxel_in_the_order_of_the_mask(tmp_path, brain, ending, dtype):
    data, inside = brain
    path = _save(data, tmp_path / f"bold{ending}", dtype=dtype)
    stored = nibabel.load(path)
    assert stored.get_data_dtype() == dtype
    if dtype == np.int16:
        assert stored.dataobj.slope != 1  # scaled
    space = volume_space(_mask(inside, tmp_path / "mask.nii.gz"), [path])
    recording = read_recording(path, "1", "01", space=space, cleaning=RAW)
    np.testing.assert_allclose(recording.values, stored.get_fdata()[inside].T, rtol=1e-6)
    assert recording.values.dtype == np.float32
    assert recording.tr == 2.0
    assert n_scans(path) == (40, 2.0)


def test_the_scanners_clock_is_moved_to_the_storys_once(tmp_path):
    path = tmp_path / "r.npy"
    np.save(path, np.random.default_rng(0).standard_normal((5, 2)))
    recording = read_recording(path, "1", "01", tr=2.0, stimulus_onset=3.0, cleaning=RAW)
    np.testing.assert_allclose(recording.onset, [-3, -1, 1, 3, 5])
    np.testing.assert_allclose(recording.time, [-2, 0, 2, 4, 6])
    assert recording.end == 7.0
    np.testing.assert_allclose(
        read_recording(path, "1", "01", tr=2.0, reference=0.0, cleaning=RAW).time, [0, 2, 4, 6, 8]
    )


@pytest.mark.parametrize(
    ("tr", "unit", "seconds"), [(1.5, "sec", 1.5), (1500.0, "msec", 1.5), (0.72, "sec", 0.72)]
)
def test_the_tr_comes_from_the_header_in_its_own_unit(tmp_path, brain, tr, unit, seconds):
    path = _save(brain[0], tmp_path / "bold.nii.gz", tr, unit)
    assert n_scans(path)[1] == pytest.approx(seconds)


def test_the_sidecar_comes_before_the_header_and_the_setting_before_both(tmp_path, brain):
    data, inside = brain
    path = _save(data, tmp_path / "sub-01_bold.nii.gz", 2.0)
    space = volume_space(_mask(inside, tmp_path / "mask.nii"), [path])
    sidecar = tmp_path / "sub-01_bold.json"
    sidecar.write_text(json.dumps({"RepetitionTime": 1.25}))
    assert n_scans(path)[1] == 1.25
    assert read_recording(path, "1", "01", space=space, cleaning=RAW).tr == 1.25
    assert read_recording(path, "1", "01", space=space, cleaning=RAW, tr=3.0).tr == 3.0
    sidecar.write_text("{")
    with pytest.raises(RecordingError, match=r"sub-01_bold\.json cannot be read as a sidecar"):
        n_scans(path)


def test_without_any_tr_there_is_no_recording(tmp_path, rng):
    np.save(tmp_path / "r.npy", rng.standard_normal((9, 2)))
    with pytest.raises(RecordingError, match=r"how far scans are apart\. Set recording\.tr, in seconds"):
        read_recording(tmp_path / "r.npy", "1", "01")


def test_a_mask_on_another_grid_is_brought_to_the_images_by_nearest_neighbour(tmp_path, brain):
    data, _ = brain
    path = _save(data, tmp_path / "bold.nii")
    fine = np.zeros((12, 14, 10), dtype=np.uint8)
    fine[3:9, 3:11, 3:7] = 1
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])
    space = volume_space(_mask(fine, tmp_path / "mask.nii", affine), [path])
    expected = resample_to_img(
        nibabel.Nifti1Image(fine, affine), nibabel.Nifti1Image(data[..., 0], AFFINE), interpolation="nearest",
        force_resample=True, copy_header=True,
    ).get_fdata()  # fmt: skip
    np.testing.assert_array_equal(space.mask, expected > 0)
    assert 0 < space.n_targets == len(space.names) < data[..., 0].size


def test_a_mask_can_be_computed_over_all_runs(tmp_path, rng):
    grid = np.indices((14, 14, 14)).T - 6.5
    inside = (np.square(grid).sum(axis=-1) < 30).T
    data = 20 * rng.random((14, 14, 14, 8)).astype(np.float32)
    data[inside] += 900
    paths = [_save(data + i, tmp_path / f"run-{i}.nii.gz") for i in range(2)]
    space = volume_space(None, paths)
    assert (space.mask & ~inside).sum() == 0
    assert (space.mask & inside).sum() > 0.3 * inside.sum()


def test_an_empty_mask_is_an_error(tmp_path, brain):
    path = _save(brain[0], tmp_path / "bold.nii")
    with pytest.raises(
        RecordingError, match=r"mask.nii is empty on the grid of bold.nii: no voxel is inside"
    ):
        volume_space(_mask(np.zeros(SHAPE), tmp_path / "mask.nii"), [path])
    far = AFFINE.copy()
    far[:3, 3] += 1000
    with pytest.raises(RecordingError, match="Are both in the same space"):
        volume_space(_mask(np.ones(SHAPE), tmp_path / "far.nii", far), [path])
    with pytest.raises(RecordingError, match="computed"):
        volume_space(None, [_save(np.zeros((*SHAPE, 6), dtype=np.float32), tmp_path / "zero.nii")])


def test_a_voxel_without_data_is_nan_and_a_scan_with_a_hole_is_an_error(tmp_path, brain):
    data, inside = brain
    mask = _mask(inside, tmp_path / "mask.nii")
    clean = _save(data, tmp_path / "clean.nii")
    space = volume_space(mask, [clean])
    whole = read_recording(clean, "1", "01", space=space).values
    data[2, 2, 2] = np.nan
    column = np.argwhere(inside).tolist().index([2, 2, 2])
    found = read_recording(_save(data, tmp_path / "hole.nii"), "1", "01", space=space).values
    assert np.isnan(found[:, column]).all()
    others = np.arange(found.shape[1]) != column
    np.testing.assert_allclose(found[:, others], whole[:, others], atol=1e-6)
    data[1, 1, 1, 7] = np.nan
    with pytest.raises(RecordingError, match=r"Run '1' of subject '01' .*scan 7 of 40 holds NaN"):
        read_recording(_save(data, tmp_path / "scan.nii"), "1", "01", space=space)


def test_a_constant_voxel_is_nan_and_a_brain_of_them_an_error(tmp_path, rng):
    values = rng.standard_normal((80, 4)).astype(np.float32)
    alone = Cleaning().apply(values, 2.0, None, "here")
    values[:, 1] = 7.1
    found = Cleaning().apply(values, 2.0, None, "here")
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(np.delete(found, 1, axis=1), np.delete(alone, 1, axis=1), atol=1e-6)
    with pytest.raises(RecordingError, match="here: all 4 targets are constant or empty"):
        Cleaning().apply(np.full((80, 4), 3.0), 2.0, None, "here")


def test_an_infinite_value_is_as_much_an_error_as_nan(rng):
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
    found = Cleaning(detrend, high_pass, standardise).apply(values, 2.0, confounds, "here")
    expected = signal.clean(
        values.astype(np.float64), detrend=detrend, standardize="zscore_sample" if standardise else None, confounds=confounds,
        filter="cosine" if high_pass else False, high_pass=high_pass, t_r=2.0,
    )  # fmt: skip
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_confounds_are_taken_by_name_and_their_first_row_may_be_absent(tmp_path, rng):
    values = rng.standard_normal((50, 3)) + 10
    table = pd.DataFrame(rng.standard_normal((50, 3)), columns=["trans_x", "rot_y", "csf"])
    table.loc[0, "rot_y"] = np.nan
    table.to_csv(tmp_path / "confounds.tsv", sep="\t", index=False, na_rep="n/a")
    np.save(tmp_path / "r.npy", values)
    some = Cleaning(confounds=("trans_x", "rot_y"))
    found = read_recording(
        tmp_path / "r.npy", "1", "01", tr=2.0, cleaning=some, confounds=tmp_path / "confounds.tsv"
    )
    expected = some.apply(
        values.astype(np.float32), 2.0, table[["trans_x", "rot_y"]].fillna(0).to_numpy(), ""
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    slopes = np.linalg.lstsq(
        np.column_stack([np.ones(50), np.arange(50), table.trans_x]), found.values, rcond=None
    )[0]
    np.testing.assert_allclose(slopes[2], 0.0, atol=0.05)
    everything = read_recording(tmp_path / "r.npy", "1", "01", tr=2.0, confounds=tmp_path / "confounds.tsv")
    assert np.abs(everything.values - found.values).max() > 1e-3


def test_confounds_that_do_not_fit_are_named(tmp_path, rng):
    np.save(tmp_path / "r.npy", rng.standard_normal((50, 3)))
    pd.DataFrame({"trans_x": rng.standard_normal(49), "text": ["a"] * 49}).to_csv(
        tmp_path / "c.tsv", sep="\t", index=False
    )

    def read(names, **options):
        return read_recording(
            tmp_path / "r.npy", "1", "01", tr=2.0, cleaning=Cleaning(confounds=names), **options
        )

    with pytest.raises(RecordingError, match=r"has no column 'trans_z'\. It has: trans_x, text"):
        read(("trans_z",), confounds=tmp_path / "c.tsv")
    with pytest.raises(RecordingError, match="has 49 rows but the recording 50 scans"):
        read(("trans_x",), confounds=tmp_path / "c.tsv")
    pd.DataFrame({"text": ["a"] * 50}).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    with pytest.raises(RecordingError, match=r"t.tsv"):
        read(("text",), confounds=tmp_path / "t.tsv")


def test_confounds_asked_for_by_name_are_never_left_out_in_silence(tmp_path, rng):
    np.save(tmp_path / "r.npy", rng.standard_normal((50, 3)))
    with pytest.raises(RecordingError, match="trans_x"):
        read_recording(tmp_path / "r.npy", "1", "01", tr=2.0, cleaning=Cleaning(confounds=("trans_x",)))


def test_files_that_are_broken_or_elsewhere_are_named(tmp_path, brain):
    data, inside = brain
    good = _save(data, tmp_path / "good.nii.gz")
    space = volume_space(_mask(inside, tmp_path / "mask.nii"), [good])
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
    for name, said in {
        "cut.nii.gz": "Fetch it again", "bits.nii.gz": "Fetch it again", "cut.nii": "Fetch it again", "text.nii": "Is it complete",
        "header.nii.gz": "header.nii.gz", "pointer.nii.gz": "datalad get", "link.nii.gz": "datalad get", "empty.nii.gz": "is empty",
        "absent.nii.gz": "does not exist",
    }.items():  # fmt: skip
        with pytest.raises(RecordingError, match=said):
            read_recording(tmp_path / name, "1", "01", space=space)


@pytest.mark.parametrize("broken", ["cut.nii.gz", "bits.nii.gz"])
def test_a_mask_is_not_computed_over_a_broken_image(tmp_path, brain, broken):
    good = _save(brain[0], tmp_path / "good.nii.gz")
    content = bytearray(good.read_bytes())
    if broken.startswith("cut"):
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2 : len(content) // 2 + 40] = b"\xff" * 40
    (tmp_path / broken).write_bytes(bytes(content))
    with pytest.raises(RecordingError):
        volume_space(None, [good, tmp_path / broken])
    with pytest.raises(RecordingError):
        volume_space(tmp_path / broken, [good])


def test_runs_must_share_one_grid_and_images_have_four_dimensions(tmp_path, brain):
    data, inside = brain
    space = volume_space(_mask(inside, tmp_path / "mask.nii"), [_save(data, tmp_path / "a.nii")])
    moved = AFFINE.copy()
    moved[0, 3] += 2
    for odd in (_save(data, tmp_path / "b.nii", affine=moved), _save(data[:, :, :3], tmp_path / "c.nii")):
        with pytest.raises(RecordingError, match="another grid"):
            read_recording(odd, "1", "01", space=space)
    with pytest.raises(RecordingError, match="a 4D image"):
        read_recording(_save(data[..., 0], tmp_path / "d.nii"), "1", "01", space=space)
    with pytest.raises(RecordingError, match="a 4D image"):
        n_scans(tmp_path / "d.nii")
    with pytest.raises(RecordingError, match="an image needs a mask"):
        read_recording(tmp_path / "a.nii", "1", "01")


def _gifti(path, values, one_array, step=None):
    meta = nibabel.gifti.GiftiMetaData({"TimeStep": step} if step else {})
    parts = [values.T] if one_array else list(values)
    arrays = [
        nibabel.gifti.GiftiDataArray(p.astype(np.float32), datatype="NIFTI_TYPE_FLOAT32", meta=meta)
        for p in parts
    ]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    return path


@pytest.mark.parametrize("one_array", [True, False], ids=["one array", "an array a scan"])
def test_surfaces_are_read_left_then_right(tmp_path, rng, one_array):
    left, right = rng.standard_normal((20, 7)), rng.standard_normal((20, 9))
    paths = tuple(
        _gifti(tmp_path / f"hemi-{h}.func.gii", v, one_array, "1500.0")
        for h, v in (("L", left), ("R", right))
    )
    recording = read_recording(paths, "1", "01", cleaning=RAW)
    np.testing.assert_allclose(recording.values, np.hstack([left, right]), rtol=1e-6)
    assert recording.space.hemispheres == (7, 9)
    assert recording.tr == 1.5
    assert n_scans(paths) == (20, 1.5)


def test_surfaces_that_do_not_fit_are_named(tmp_path, rng):
    left = _gifti(tmp_path / "L.func.gii", rng.standard_normal((20, 7)), False)
    short = _gifti(tmp_path / "R.func.gii", rng.standard_normal((19, 7)), False)
    with pytest.raises(RecordingError, match=r"L.func.gii has 20 scans but R.func.gii 19"):
        read_recording((left, short), "1", "01", tr=2.0)
    (tmp_path / "text.gii").write_text("no surface " * 200)
    with pytest.raises(RecordingError, match=r"text.gii"):
        read_recording((left, tmp_path / "text.gii"), "1", "01", tr=2.0)


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".txt", ".npy"])
def test_tables_are_scans_by_targets(tmp_path, rng, ending):
    values = rng.standard_normal((12, 3)).astype(np.float32)
    path = tmp_path / f"regions{ending}"
    if ending == ".npy":
        np.save(path, values)
    elif ending == ".txt":
        np.savetxt(path, values)
    else:
        pd.DataFrame(values, columns=["LATL", "RATL", "IFG"]).to_csv(
            path, sep="\t" if ending == ".tsv" else ",", index=False
        )
    names = None if ending in (".tsv", ".csv") else ["LATL", "RATL", "IFG"]
    recording = read_recording(path, "1", "01", tr=2.0, cleaning=RAW, columns=names)
    np.testing.assert_allclose(recording.values, values, rtol=1e-5)
    assert recording.space.names.tolist() == ["LATL", "RATL", "IFG"]
    assert n_scans(path)[0] == 12
    if names:
        with pytest.raises(RecordingError, match="has 3 columns but 2 names were given"):
            read_recording(path, "1", "01", tr=2.0, columns=["a", "b"])


def test_tables_that_hold_text_or_ragged_rows_are_named(tmp_path):
    (tmp_path / "a.tsv").write_text("x\ty\n1\ttwo\n")
    (tmp_path / "b.txt").write_text("1 2\n3\n")
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 4)))
    for name in ("a.tsv", "b.txt", "c.npy"):
        with pytest.raises(RecordingError, match=name):
            read_recording(tmp_path / name, "1", "01", tr=2.0)


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


def test_an_average_leaves_out_who_has_no_data_for_a_target(rng):
    values = rng.standard_normal((3, 10, 4)).astype(np.float32)
    values[0][:, 1] = values[2][:, 1] = np.nan
    values[:, :, 3] = np.nan
    found = average_recordings([_recording(v, str(i)) for i, v in enumerate(values)])
    np.testing.assert_allclose(found.values[:, [0, 2]], values.mean(axis=0)[:, [0, 2]], atol=1e-6)
    np.testing.assert_allclose(found.values[:, 1], values[1][:, 1])
    assert np.isnan(found.values[:, 3]).all()
    assert (found.subject, found.values.dtype) == ("average", np.float32)


def test_only_like_recordings_are_averaged(rng):
    one = _recording(rng.standard_normal((10, 2)))
    with pytest.raises(RecordingError, match="'01' has 10 scans and 'b' 9"):
        average_recordings([one, _recording(rng.standard_normal((9, 2)), "b")])
    with pytest.raises(RecordingError, match="'b' has other targets than '01'"):
        average_recordings(
            [one, _recording(rng.standard_normal((10, 2)), "b", Space("columns", np.array(["x", "y"])))]
        )


def test_a_recording_is_checked_at_birth():
    with pytest.raises(RecordingError, match=r"\(3, 2\) values, but 3 scans and 1 targets"):
        _recording(np.zeros((3, 2)), space=Space("columns", np.array(["x"])))
    with pytest.raises(RecordingError, match="the TR is 0 s"):
        Recording(np.zeros((1, 1)), np.zeros(1), 0, "1", "01", Space("columns", np.array(["x"])))


def test_a_volume_map_comes_back_from_its_file(tmp_path, brain, rng):
    _, inside = brain
    space = Space("volume", np.arange(inside.sum()).astype(str), mask=inside, affine=AFFINE)
    values = rng.standard_normal(space.n_targets)
    values[3] = np.nan
    (path,) = space.write(values, tmp_path / "maps" / "model_stat-r")
    assert path.name == "model_stat-r.nii.gz"
    back = nibabel.load(path)
    np.testing.assert_allclose(back.affine, AFFINE)
    np.testing.assert_allclose(back.get_fdata()[inside], values, rtol=1e-6)
    assert np.isnan(back.get_fdata()[~inside]).all()
    assert space.image(rng.standard_normal((space.n_targets, 3))).shape == (*SHAPE, 3)


def test_a_surface_map_comes_back_from_its_two_files(tmp_path, rng):
    space = Space("surface", np.arange(16).astype(str), hemispheres=(7, 9))
    values = rng.standard_normal(16).astype(np.float32)
    paths = space.write(values, tmp_path / "model_stat-r")
    assert [p.name for p in paths] == ["model_stat-r_hemi-L.func.gii", "model_stat-r_hemi-R.func.gii"]
    np.testing.assert_array_equal(np.concatenate([nibabel.load(p).darrays[0].data for p in paths]), values)


def test_a_map_of_columns_comes_back_from_its_table(tmp_path):
    space = Space("columns", np.array(["LATL", "IFG"]))
    (path,) = space.write(np.array([0.25, np.nan]), tmp_path / "model_stat-r")
    assert path.read_text().splitlines() == ["target\tvalue", "LATL\t0.25", "IFG\tn/a"]
    with pytest.raises(RecordingError, match="columns has no image"):
        space.image(np.zeros(2))


def test_spaces_are_the_same_only_if_every_column_means_the_same(brain):
    _, inside = brain
    names = np.arange(inside.sum()).astype(str)
    space = Space("volume", names, mask=inside, affine=AFFINE)
    assert space.same_as(Space("volume", names.copy(), mask=inside.copy(), affine=AFFINE.copy()))
    assert not space.same_as(Space("volume", names, mask=np.roll(inside, 1, axis=0), affine=AFFINE))
    assert not space.same_as(Space("volume", names, mask=inside, affine=2 * AFFINE))
    surface = Space("surface", np.arange(16).astype(str), hemispheres=(7, 9))
    assert not surface.same_as(Space("surface", surface.names, hemispheres=(9, 7)))


def test_regions_are_masks_numbers_booleans_or_names(tmp_path, brain):
    _, inside = brain
    names = np.arange(inside.sum()).astype(str)
    space = Space("volume", names, mask=inside, affine=AFFINE)
    half = inside.copy()
    half[2:] = False
    np.save(tmp_path / "numbers.npy", np.array([0, 5]))
    np.save(tmp_path / "booleans.npy", names == "3")
    regions = space.with_regions(
        {
            "image": _mask(half, tmp_path / "half.nii"),
            "numbers": tmp_path / "numbers.npy",
            "booleans": tmp_path / "booleans.npy",
            "names": ["7", "1"],
        }
    ).regions
    np.testing.assert_array_equal(regions["image"], half[inside])
    assert [np.flatnonzero(regions[k]).tolist() for k in ("numbers", "booleans", "names")] == [
        [0, 5],
        [3],
        [1, 7],
    ]


def test_regions_that_do_not_fit_are_named(tmp_path, brain):
    _, inside = brain
    space = Space("volume", np.arange(inside.sum()).astype(str), mask=inside, affine=AFFINE)
    with pytest.raises(RecordingError, match="Region 'IFG' covers none of the 24 targets"):
        space.with_regions({"IFG": _mask(~inside, tmp_path / "out.nii")})
    with pytest.raises(RecordingError, match="Region 'IFG': no column is called 'x'"):
        space.with_regions({"IFG": ["0", "x"]})
    with pytest.raises(RecordingError, match="is an image, but this recording has columns"):
        Space("columns", np.array(["a"])).with_regions({"IFG": _mask(inside, tmp_path / "in.nii")})
    np.save(tmp_path / "long.npy", np.ones(99, dtype=bool))
    np.save(tmp_path / "far.npy", np.array([3, 99]))
    for name in ("long.npy", "far.npy"):
        with pytest.raises(RecordingError, match="IFG"):
            space.with_regions({"IFG": tmp_path / name})


def test_the_real_mask_and_regions_of_the_little_prince_meet(shared_data, tmp_path):
    folder = shared_data / "lpp"
    if not (folder / "mask_lpp_en.nii.gz").is_file():
        pytest.skip(f"the Little Prince is absent: no folder {folder}")
    mask = nibabel.load(folder / "mask_lpp_en.nii.gz")
    image = tmp_path / "bold.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((*mask.shape[:3], 2), dtype=np.int16), mask.affine), image)
    space = volume_space(folder / "mask_lpp_en.nii.gz", [image])
    assert space.n_targets == int((mask.get_fdata() > 0).sum())
    regions = space.with_regions(
        {p.name.split(".")[0]: p for p in sorted((folder / "roi_masks").iterdir())}
    ).regions
    assert len(regions) == 7
    assert all(inside.sum() > 5 for inside in regions.values())
