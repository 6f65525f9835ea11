"""Spaces: masks, regions and maps, to images and back."""

import nibabel
import numpy as np
import pytest
from nilearn.image import resample_to_img

from langcortex.brain.space import Space, volume_space
from langcortex.errors import RecordingError
from reference.images import AFFINE, SHAPE, save_image, save_mask


def test_a_mask_on_another_grid_is_resampled_by_nearest_neighbour(tmp_path, brain):
    data, _ = brain
    path = save_image(data, tmp_path / "bold.nii")
    fine = np.zeros((12, 14, 10), dtype=np.uint8)
    fine[3:9, 3:11, 3:7] = 1
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])
    space = volume_space(save_mask(fine, tmp_path / "mask.nii", affine), [path])
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
    paths = [save_image(data + i, tmp_path / f"run-{i}.nii.gz") for i in range(2)]
    space = volume_space(None, paths)
    assert (space.mask & ~inside).sum() == 0
    assert (space.mask & inside).sum() > 0.3 * inside.sum()


def test_an_empty_mask_is_an_error(tmp_path, brain):
    path = save_image(brain[0], tmp_path / "bold.nii")
    with pytest.raises(
        RecordingError, match=r"mask.nii is empty on the grid of bold.nii: no voxel is inside"
    ):
        volume_space(save_mask(np.zeros(SHAPE), tmp_path / "mask.nii"), [path])
    far = AFFINE.copy()
    far[:3, 3] += 1000
    with pytest.raises(RecordingError, match="Are both in the same space"):
        volume_space(save_mask(np.ones(SHAPE), tmp_path / "far.nii", far), [path])
    with pytest.raises(RecordingError, match="computed"):
        volume_space(None, [save_image(np.zeros((*SHAPE, 6), dtype=np.float32), tmp_path / "zero.nii")])


@pytest.mark.parametrize("broken", ["cut.nii.gz", "bits.nii.gz"])
def test_a_mask_is_not_computed_over_a_broken_image(tmp_path, brain, broken):
    good = save_image(brain[0], tmp_path / "good.nii.gz")
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


def test_a_volume_map_is_the_same_when_read_back(tmp_path, brain, rng):
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


def test_a_surface_map_is_the_same_when_read_back(tmp_path, rng):
    space = Space("surface", np.arange(16).astype(str), hemispheres=(7, 9))
    values = rng.standard_normal(16).astype(np.float32)
    paths = space.write(values, tmp_path / "model_stat-r")
    assert [p.name for p in paths] == ["model_stat-r_hemi-L.func.gii", "model_stat-r_hemi-R.func.gii"]
    np.testing.assert_array_equal(np.concatenate([nibabel.load(p).darrays[0].data for p in paths]), values)


def test_a_map_of_columns_is_the_same_when_read_back(tmp_path):
    space = Space("columns", np.array(["LATL", "IFG"]))
    (path,) = space.write(np.array([0.25, np.nan]), tmp_path / "model_stat-r")
    assert path.read_text().splitlines() == ["target\tvalue", "LATL\t0.25", "IFG\tn/a"]
    with pytest.raises(RecordingError, match="columns has no image"):
        space.image(np.zeros(2))


def test_spaces_are_the_same_only_if_their_columns_are(brain):
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
            "image": save_mask(half, tmp_path / "half.nii"),
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
        space.with_regions({"IFG": save_mask(~inside, tmp_path / "out.nii")})
    with pytest.raises(RecordingError, match="Region 'IFG': no column is called 'x'"):
        space.with_regions({"IFG": ["0", "x"]})
    with pytest.raises(RecordingError, match="is an image, but this recording has columns"):
        Space("columns", np.array(["a"])).with_regions({"IFG": save_mask(inside, tmp_path / "in.nii")})
    np.save(tmp_path / "long.npy", np.ones(99, dtype=bool))
    np.save(tmp_path / "far.npy", np.array([3, 99]))
    for name in ("long.npy", "far.npy"):
        with pytest.raises(RecordingError, match="IFG"):
            space.with_regions({"IFG": tmp_path / name})


def test_the_published_mask_and_regions_of_the_little_prince_overlap(shared_data, tmp_path):
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
