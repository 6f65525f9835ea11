"""GIFTI files, opened so that they read no other file, and the vertices of both hemispheres."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from langcortex.brain.space import Space, load_image
from langcortex.errors import RecordingError
from langcortex.paths import require_file

STRUCTURE = "AnatomicalStructurePrimary"
SIDES = ("left", "right")


def load_gifti(path: Path) -> Any:
    """Open a GIFTI file.

    Raises
    ------
    RecordingError : no GIFTI file, one without data, or one whose data lie in another file
    """
    import nibabel

    require_file(path, RecordingError, "surface")
    _refuse_external(path)
    image = load_image(path)
    if not isinstance(image, nibabel.gifti.GiftiImage) or not image.darrays:
        raise RecordingError(f"{path} has no surface data. Give GIFTI files of both hemispheres.")
    if any(array.data is None for array in image.darrays):
        raise RecordingError(f"{path} has an array without data. Fetch it again.")
    return image


def _refuse_external(path: Path) -> None:
    """Refuse a GIFTI file that names another file, or defines entities, before its data are read."""

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "DataArray" and (
            attributes.get("Encoding", "") == "ExternalFileBinary" or attributes.get("ExternalFileName")
        ):
            raise RecordingError(
                f"{path} takes its data from another file ({attributes.get('ExternalFileName', '')[:80]}). "
                "Write the data into the GIFTI file itself."
            )

    def entity(*_: object) -> None:
        raise RecordingError(f"{path} defines XML entities, which no GIFTI file needs. Write it again.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EntityDeclHandler = entity
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise RecordingError(f"{path} cannot be read as GIFTI ({error}). Is it complete?") from error


def check_hemisphere(image: Any, path: Path, side: str) -> None:
    """Refuse the file of one hemisphere in the place of the other, by its ``AnatomicalStructurePrimary``.

    Parameters
    ----------
    side : "left" or "right"
    """
    metas = [image.meta, *(array.meta for array in image.darrays)]
    opposite = SIDES[1 - SIDES.index(side)]
    for meta in metas:
        structure = str(meta.get(STRUCTURE) or "")
        if opposite in structure.lower():
            raise RecordingError(
                f"{path} is given as the {side} hemisphere, but it says that it is {structure} ({STRUCTURE}). "
                "Are the two files swapped?"
            )


def read_surface(paths: tuple[Path, Path]) -> tuple[np.ndarray, Space]:
    """Read the vertices of both hemispheres: (n_scans, n_targets) float32.

    Raises
    ------
    RecordingError : a file is no GIFTI file, is that of the other hemisphere, or has other scans than its partner
    """
    parts = []
    for path, side in zip(paths, SIDES, strict=True):
        image = load_gifti(path)
        check_hemisphere(image, path, side)
        parts.append(_scans(image, path))
    if len(parts[0]) != len(parts[1]):
        raise RecordingError(
            f"{paths[0].name} has {len(parts[0])} scans but {paths[1].name} {len(parts[1])}."
        )
    values = np.hstack(parts)
    names = np.array([str(i) for i in range(values.shape[1])])
    return values, Space("surface", names, hemispheres=(parts[0].shape[1], parts[1].shape[1]))


def _scans(image: Any, path: Path) -> np.ndarray:
    """Return the data of one hemisphere: (n_scans, n_vertices) float32."""
    try:
        arrays = [np.asarray(array.data, dtype=np.float32) for array in image.darrays]
        # fMRIPrep writes one array per scan; gifti_io one (vertices, scans) array for all
        values = arrays[0].T if len(arrays) == 1 and arrays[0].ndim == 2 else np.stack(arrays)
    except (ValueError, TypeError) as error:
        raise RecordingError(f"{path} has arrays that are no scans of one surface ({error}).") from error
    if values.ndim != 2 or 0 in values.shape:
        raise RecordingError(f"{path} has data of shape {values.shape}; scans × vertices are needed.")
    return values
