"""Small images of a brain, for the tests that read and write them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

AFFINE = np.array([[-4.0, 0, 0, 10], [0, 4, 0, -20], [0, 0, 4, -30], [0, 0, 0, 1]])
SHAPE = (5, 6, 4)


def save_image(
    data: np.ndarray,
    path: Path,
    tr: float = 2.0,
    unit: str = "sec",
    affine: np.ndarray = AFFINE,
    dtype: type = np.float32,
) -> Path:
    """Write (x, y, z) or (x, y, z, scans) data as NIfTI."""
    image = nibabel.Nifti1Image(data, affine, dtype=dtype)
    if data.ndim == 4:
        image.header.set_zooms((4, 4, 4, tr))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


def save_mask(inside: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> Path:
    """Write a mask as NIfTI."""
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), affine), path)
    return path
