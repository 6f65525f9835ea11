"""Masks: two values, or a threshold; a mask is never guessed from images without a mean."""

import nibabel
import numpy as np
import pytest
from nilearn import masking

from langcortex.brain.space import Space, common_mask, volume_space
from langcortex.errors import RecordingError
from reference.images import AFFINE, SHAPE, save_image, save_mask


def _save(values, path):
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), AFFINE), path)
    return path


@pytest.fixture
def bold(tmp_path, brain):
    return save_image(brain[0], tmp_path / "bold.nii.gz")


@pytest.mark.parametrize("value", [1.0, 255.0, 2.5, 0.5])
@pytest.mark.parametrize("outside", [0.0, np.nan])
def test_a_mask_of_two_values_is_read_as_it_is(tmp_path, brain, bold, value, outside):
    inside = brain[1]
    mask = _save(np.where(inside, value, outside), tmp_path / "mask.nii")
    np.testing.assert_array_equal(volume_space(mask, [bold]).mask, inside)
    np.testing.assert_array_equal(common_mask([mask], bold).mask, inside)


def test_a_probability_map_asks_for_a_threshold(tmp_path, brain, bold, rng):
    probability = np.where(brain[1], rng.uniform(0.001, 1, SHAPE), 0)
    mask = _save(probability, tmp_path / "probability.nii")
    for read in (lambda: volume_space(mask, [bold]), lambda: common_mask([mask], bold)):
        with pytest.raises(
            RecordingError, match=r"probability.nii has 25 different values.*recording.mask_threshold"
        ):
            read()
    np.testing.assert_array_equal(
        volume_space(mask, [bold], threshold=0.5).mask, probability.astype(np.float32) >= 0.5
    )
    with pytest.raises(RecordingError, match="empty"):
        volume_space(mask, [bold], threshold=2.0)


@pytest.mark.parametrize("n_labels", [2, 17])
def test_an_atlas_of_labels_asks_for_the_atlas_setting(tmp_path, brain, bold, rng, n_labels):
    labels = np.where(brain[1], rng.permutation(np.arange(np.prod(SHAPE)) % n_labels).reshape(SHAPE) + 1, 0)
    with pytest.raises(RecordingError, match=r"mask_threshold.*recording.atlas.file"):
        volume_space(_save(labels, tmp_path / "labels.nii"), [bold])


@pytest.mark.parametrize("values", [(-1, 1), (1, 2), (-3, 0), (0, np.inf)])
def test_two_values_of_which_none_means_outside_are_refused(tmp_path, brain, bold, values):
    mask = _save(np.where(brain[1], values[1], values[0]), tmp_path / "mask.nii")
    with pytest.raises(RecordingError, match="a mask has two, one of them 0"):
        volume_space(mask, [bold])


def test_regions_of_more_than_two_values_ask_for_a_threshold(tmp_path, brain, bold, rng):
    space = volume_space(save_mask(brain[1], tmp_path / "mask.nii"), [bold])
    probability = rng.uniform(0.001, 1, SHAPE)
    path = _save(probability, tmp_path / "region.nii")
    with pytest.raises(RecordingError, match=r"Region 'IFG': set recording.region_threshold"):
        space.with_regions({"IFG": path})
    region = space.with_regions({"IFG": path}, 0.5).regions["IFG"]
    np.testing.assert_array_equal(region, (probability.astype(np.float32) >= 0.5)[brain[1]])


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.array([0, 1, 1, 0, 1]), "as in a mask or an atlas; save booleans"),
        (np.array([-1, 2]), "negative"),
        (np.array([0.2, 0.4, 1, 0, 0]), "type float64"),
        (np.array([True, False]), "2 booleans"),
        (np.array([5]), "out of bounds"),
    ],
)
def test_a_region_of_numbers_is_booleans_or_column_numbers(tmp_path, stored, message):
    np.save(tmp_path / "region.npy", stored)
    space = Space("columns", np.array(list("abcde")))
    with pytest.raises(RecordingError, match=message):
        space.with_regions({"IFG": tmp_path / "region.npy"})


def _scans(rng, shape=(14, 14, 14), n_scans=60):
    inside = np.zeros(shape, dtype=bool)
    inside[3:-3, 3:-3, 3:-3] = True
    data = np.abs(rng.standard_normal((*shape, n_scans))) * 10
    data[inside] = 900 + 30 * rng.standard_normal((inside.sum(), n_scans))
    return data.astype(np.float32), inside


def test_a_mask_is_that_of_nilearn(tmp_path, rng):
    paths = [save_image(_scans(rng)[0], tmp_path / f"{i}.nii.gz") for i in range(3)]
    expected = masking.compute_multi_epi_mask([str(p) for p in paths])
    np.testing.assert_array_equal(volume_space(None, paths).mask, expected.get_fdata() > 0)


@pytest.mark.parametrize("outside", ["noise", "zero", "nan"])
@pytest.mark.parametrize("scaled", [True, False])
def test_no_mask_is_guessed_from_centred_images(tmp_path, rng, outside, scaled):
    data, inside = _scans(rng)
    centred = data - data.mean(axis=-1, keepdims=True)
    centred = centred / centred.std(axis=-1, keepdims=True) if scaled else centred
    if outside != "noise":
        centred[~inside] = 0 if outside == "zero" else np.nan
    good, path = save_image(data, tmp_path / "raw.nii.gz"), save_image(centred, tmp_path / "z.nii.gz")
    for images in ([path], [good, path]):
        with pytest.raises(RecordingError, match=rf"{path} varies about 0.*Give a mask"):
            volume_space(None, images)
    mask = save_mask(inside, tmp_path / "mask.nii.gz")
    assert volume_space(mask, [path]).n_targets == inside.sum()


def test_no_mask_is_guessed_from_the_middle_of_a_z_scored_run(tmp_path, rng):
    data, inside = _scans(rng)
    scores = (data - data.mean(axis=-1, keepdims=True)) / data.std(axis=-1, keepdims=True)
    scores[~inside] = 0
    with pytest.raises(RecordingError, match="varies about 0"):
        volume_space(None, [save_image(scores[..., 5:-10], tmp_path / "z.nii")])


def test_raw_images_with_nan_or_zero_outside_keep_their_mask(tmp_path, rng):
    data, inside = _scans(rng)
    for value in (0, np.nan):
        data[~inside] = value
        assert volume_space(None, [save_image(data, tmp_path / "raw.nii")]).n_targets > 0


def test_a_mask_that_is_smaller_than_its_header_says_is_one_sentence(tmp_path, bold):
    image = nibabel.Nifti1Image(np.ones((9, 9, 9), dtype=np.float64), AFFINE)
    path = tmp_path / "cut.nii"
    path.write_bytes(image.to_bytes()[:2000])
    with pytest.raises(RecordingError, match="declares 5,832 bytes of voxels"):
        volume_space(path, [bold])
