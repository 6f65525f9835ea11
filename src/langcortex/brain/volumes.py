"""The voxels of a mask, read from a 4D NIfTI image a few scans at a time: the image never stands whole in memory."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.errors import RecordingError
from langcortex.paths import as_path

BLOCK_BYTES = 2**24  # of float64 voxels read at once
DEFLATE_RATIO = 1032  # no byte of a .gz file stands for more bytes than this (zlib's documentation)
HEADER_BYTES = 352  # of a NIfTI-1 file, the least that precedes its data


def open_volume(path: Path | str) -> Any:
    """Open a 4D image without reading its data, and hold its header against the file.

    Raises
    ------
    RecordingError : no image, not 4D, an affine that is no affine, or a file too small for what the header declares
    """
    path = as_path(path)
    import nibabel

    try:
        # kept open, a .gz file is decompressed once, however many blocks are read
        image = nibabel.load(path, keep_file_open=True)
        shape = tuple(int(n) for n in image.shape)
    except Exception as error:  # nibabel raises errors of many kinds for a file that is no image
        raise RecordingError(f"{path} cannot be read as an image ({error}). Is it complete?") from error
    if len(shape) != 4:
        raise RecordingError(f"{path} has shape {shape}; a 4D image (x, y, z, scans) is needed.")
    if min(shape) < 1:
        raise RecordingError(f"{path} has shape {shape}: it holds no voxel or no scan. Fetch it again.")
    check_affine(image.affine, path)
    check_size(image, path)
    return image


def check_affine(affine: np.ndarray | None, path: Path) -> None:
    """Refuse an affine that places all voxels on a plane, or nowhere."""
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise RecordingError(
            f"The header of {path} does not say where its voxels lie (its affine is not finite or not invertible). "
            "Write the image again with the affine of the scan."
        )


def check_size(image: Any, path: Path) -> None:
    """Refuse an image whose file cannot hold what its header declares, before memory is taken for it."""
    try:
        declared = int(np.prod(image.shape, dtype=object)) * int(image.get_data_dtype().itemsize)
        offset = int(getattr(image.dataobj, "offset", 0))
    except Exception as error:  # nibabel raises errors of many kinds for a damaged header
        raise RecordingError(f"{path} cannot be read as an image ({error}). Is it complete?") from error
    size = path.stat().st_size
    possible = size * DEFLATE_RATIO if path.name.endswith(".gz") else size
    if offset < 0 or max(offset, HEADER_BYTES) + declared > possible:
        raise RecordingError(
            f"{path} declares {declared:,} bytes of voxels, more than its {size:,} bytes can hold. "
            "It is incomplete or its header is damaged. Fetch it again."
        )


def read_masked_scans(path: Path | str, mask: np.ndarray) -> np.ndarray:
    """Read the voxels of a mask from a 4D image.

    Parameters
    ----------
    path : .nii or .nii.gz
    mask : (x, y, z) bool, on the image's grid

    Returns
    -------
    (n_scans, n_voxels) float32, voxels in the order of ``mask``; values that are not finite are NaN

    Raises
    ------
    RecordingError : the file breaks off, or lies on another grid
    """
    path = as_path(path)
    image = open_volume(path)
    if image.shape[:3] != mask.shape:
        raise RecordingError(
            f"{path} lies on another grid than the mask: {image.shape[:3]}, not {mask.shape}."
        )
    n_scans = int(image.shape[3])
    step = max(1, BLOCK_BYTES // (8 * mask.size))
    blocks = []
    try:
        for first in range(0, n_scans, step):
            scans = np.asarray(image.dataobj[..., first : first + step])
            if scans.dtype.kind not in "fiu":
                raise RecordingError(
                    f"{path} holds {scans.dtype} values; an image of real numbers is needed."
                )
            blocks.append(scans[mask].T.astype(np.float32))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecordingError(f"{path} cannot be read to its end ({error}). Fetch it again.") from error
    values = np.concatenate(blocks)
    values[~np.isfinite(values)] = np.nan
    return values


def mean_and_spread(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the mean and the standard deviation of every voxel of a 4D image over time, a few scans at a time.

    Returns
    -------
    mean : (x, y, z) float32
    spread : (x, y, z) float32
    affine : (4, 4)
    """
    image = open_volume(path)
    total: np.ndarray = np.zeros(image.shape[:3])
    n_scans, step = int(image.shape[3]), max(1, BLOCK_BYTES // (8 * total.size))
    squares, first_scan = np.zeros_like(total), np.zeros_like(total)
    try:
        for first in range(0, n_scans, step):
            scans = np.asarray(image.dataobj[..., first : first + step])
            if scans.dtype.kind not in "fiu":
                raise RecordingError(
                    f"{path} holds {scans.dtype} values; an image of real numbers is needed."
                )
            scans = scans.astype(np.float64)
            if first == 0:
                first_scan = scans[..., 0].copy()
            scans -= first_scan[..., None]  # squares of large numbers would leave rounding
            total += scans.sum(axis=-1)
            squares += np.square(scans).sum(axis=-1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecordingError(f"{path} cannot be read to its end ({error}). Fetch it again.") from error
    with np.errstate(invalid="ignore"):
        shift = total / n_scans
        spread = np.sqrt(np.maximum(squares / n_scans - np.square(shift), 0.0))
        mean = first_scan + shift
    return mean.astype(np.float32), spread.astype(np.float32), np.asarray(image.affine)
