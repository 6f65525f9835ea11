"""Masked voxels are read in blocks of scans, exactly, in little memory, and never beyond what a file holds."""

from __future__ import annotations

import gzip
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from langcortex.brain.volumes import open_volume, read_masked_scans
from langcortex.errors import RecordingError


def _write(path, data, affine=None, scale=None):
    image = nibabel.Nifti1Image(data, np.diag([2.0, 2, 2, 1]) if affine is None else affine)
    if scale:
        image.header.set_slope_inter(*scale)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
@pytest.mark.parametrize("block", [1, 5000, 2**24])
def test_blocks_hold_exactly_the_voxels_of_the_mask(rng, tmp_path, monkeypatch, ending, dtype, block):
    monkeypatch.setattr("langcortex.brain.volumes.BLOCK_BYTES", block)
    data = (100 * rng.random((5, 6, 7, 11))).astype(dtype)
    mask = rng.random((5, 6, 7)) < 0.3
    values = read_masked_scans(_write(tmp_path / f"bold{ending}", data), mask)
    np.testing.assert_array_equal(values, data[mask].T.astype(np.float32))
    assert values.dtype == np.float32


def test_scaled_integers_are_scaled_and_infinite_values_are_nan(rng, tmp_path):
    data = rng.integers(0, 100, (4, 4, 4, 6)).astype(np.int16)
    image = nibabel.Nifti1Image(data * 0.5 + 3, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    mask = np.ones((4, 4, 4), dtype=bool)
    np.testing.assert_allclose(
        read_masked_scans(tmp_path / "scaled.nii.gz", mask), (data * 0.5 + 3)[mask].T, atol=0.002
    )
    floats = rng.random((4, 4, 4, 6)).astype(np.float32)
    floats[0, 0, 0, 2], floats[1, 0, 0, 3] = np.inf, np.nan
    values = read_masked_scans(_write(tmp_path / "odd.nii", floats), mask)
    assert np.isnan(values).sum() == 2


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_file_that_breaks_off_is_one_sentence(rng, tmp_path, ending, share):
    path = _write(tmp_path / f"bold{ending}", rng.random((8, 8, 8, 20)).astype(np.float32))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        RecordingError, match=r"bold\.nii.* (cannot be read to its end|declares|cannot be read as)"
    ):
        read_masked_scans(path, np.ones((8, 8, 8), dtype=bool))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_declares_more_than_the_file_holds_takes_no_memory(tmp_path, ending):
    path = _write(tmp_path / "bold.nii", np.zeros((4, 4, 4, 5), dtype=np.float32))
    content = bytearray(path.read_bytes())
    content[40:56] = np.array([4, 32000, 32000, 32000, 32000, 1, 1, 1], dtype="<i2").tobytes()
    path = tmp_path / f"huge{ending}"
    path.write_bytes(gzip.compress(bytes(content)) if ending.endswith("gz") else bytes(content))
    with pytest.raises(RecordingError, match=r"more than its .* bytes can hold"):
        open_volume(path)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_an_affine_that_is_none_is_refused(tmp_path, affine):
    path = _write(tmp_path / "bold.nii", np.zeros((4, 4, 4, 5), dtype=np.float32))
    image = nibabel.load(path)
    content = bytearray(path.read_bytes())
    rows = affine[:3].astype("<f4").tobytes()
    content[280:328] = rows
    content[252:256] = np.array([0, 1], dtype="<i2").tobytes()
    del image
    path.write_bytes(bytes(content))
    with pytest.raises(RecordingError, match="does not say where its voxels lie"):
        open_volume(path)


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 4, 4, 2, 3)])
def test_only_4d_images_are_recordings(tmp_path, shape):
    with pytest.raises(RecordingError, match="a 4D image"):
        open_volume(_write(tmp_path / "bold.nii", np.zeros(shape, dtype=np.float32)))


SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
import nibabel
from langcortex.brain.volumes import read_masked_scans
mask = np.zeros((64, 64, 64), dtype=bool)
mask[30:34, 30:34, 30:34] = True
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_masked_scans(Path(sys.argv[1]), mask)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_large_image_with_a_small_mask_takes_little_memory(tmp_path, ending):
    """A quarter of a gigabyte is read within 100 MB; a slow twin reads two gigabytes."""
    path = tmp_path / f"large{ending}"
    _write(path, np.zeros((64, 64, 64, 240), dtype=np.float32))
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 100


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_two_gigabytes_with_a_small_mask_take_at_most_300_megabytes(tmp_path, ending):
    path = tmp_path / f"large{ending}"
    _write(path, np.zeros((64, 64, 64, 2048), dtype=np.float32))
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 300
