"""File formats of brain responses: NIfTI, GIFTI, HDF5 and plain tables, and the tables of confounds beside them."""

from __future__ import annotations

import contextlib
import json
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.brain.space import Space, load_image
from langcortex.errors import RecordingError
from langcortex.paths import as_path, require_file

HDF5_BYTES = 2**26  # read at once from an HDF5 file, which stores complete rows
HDF5_EXTENSIONS = (".hf5", ".h5", ".hdf5")


@dataclass(frozen=True)
class Clock:
    """The timing that a file states, in seconds; None where it states nothing.

    Attributes
    ----------
    tr : repetition time
    start : the moment within a scan that slice timing was corrected to (BIDS ``StartTime``)
    """

    tr: float | None = None
    start: float | None = None


def count_scans(
    path: Path | tuple[Path, Path], columns: Sequence[str] | None = None, key: str = "data"
) -> tuple[int, float | None]:
    """Return the number of scans of a run, and its TR if stated, from the header alone where there is one."""
    if isinstance(path, tuple):
        return len(read_surface(path)[0]), read_clock(path).tr
    require_file(path, RecordingError, "recording")
    if path.name.endswith((".nii", ".nii.gz")):
        image = load_image(path)
        if len(image.shape) != 4:
            raise RecordingError(f"{path} has shape {image.shape}; a 4D image (x, y, z, scans) is needed.")
        return int(image.shape[3]), read_clock(path).tr
    if path.suffix == ".npy":
        return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0]), None
    if path.suffix in HDF5_EXTENSIONS:
        with open_hdf5(path, key) as data:
            return int(data.shape[0]), None
    return len(read_columns(path, columns)[0]), None


def read_clock(path: Path | str | tuple[Path | str, Path | str]) -> Clock:
    """Read the TR and the moment slice timing was corrected to, from the sidecar first, then the header."""
    path = (as_path(path[0]), as_path(path[1])) if isinstance(path, tuple) else as_path(path)
    first = path[0] if isinstance(path, tuple) else path
    sidecar = _read_sidecar(first)
    tr = float(sidecar["RepetitionTime"]) if sidecar.get("RepetitionTime") else None
    if tr is None and isinstance(path, tuple):
        tr = _surface_tr(path)
    elif tr is None and first.name.endswith((".nii", ".nii.gz")):
        header = load_image(first).header
        zooms = header.get_zooms()
        scale = {"msec": 1e-3, "usec": 1e-6}.get(header.get_xyzt_units()[1], 1.0)
        tr = float(zooms[3]) * scale if len(zooms) > 3 and zooms[3] > 0 else None
    start = sidecar.get("StartTime")
    return Clock(tr, float(start) if start is not None else None)


def _read_sidecar(path: Path) -> Mapping[str, Any]:
    """Read the .json file beside an image; empty where there is none."""
    stem = path.name
    for extension in (".nii.gz", ".nii", ".func.gii", ".gii", ".tsv"):
        stem = stem.removesuffix(extension)
    sidecar = path.with_name(stem + ".json")
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        for name in ("RepetitionTime", "StartTime"):
            float(content.get(name) or 0)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordingError(f"{sidecar} cannot be read as a sidecar ({error}).") from error
    return dict(content)


@contextlib.contextmanager
def open_hdf5(path: Path, key: str) -> Iterator[Any]:
    """Open one dataset of an HDF5 file; nothing is read until it is sliced."""
    try:
        import h5py
    except ImportError as error:
        raise RecordingError(f"{path} is an HDF5 file. Install its reader with: pip install h5py") from error
    require_file(path, RecordingError, "recording")
    try:
        with h5py.File(path, "r") as file:
            if key not in file:
                raise RecordingError(f"{path} has no dataset '{key}'. It has: {', '.join(file) or 'none'}.")
            yield file[key]
    except OSError as error:
        raise RecordingError(f"{path} cannot be read as HDF5 ({error}). Fetch it again.") from error


def read_hdf5(path: Path | str, key: str = "data", space: Space | None = None) -> tuple[np.ndarray, Space]:
    """Read (n_scans, n_targets) float32: all columns, or those whose numbers `space` names."""
    path = as_path(path)
    with open_hdf5(path, key) as data:
        if data.ndim != 2:
            raise RecordingError(f"{path} has shape {data.shape} under '{key}'; scans × targets are needed.")
        columns = None if space is None else space.names.astype(np.intp)
        if columns is not None and len(columns) and columns.max() >= data.shape[1]:
            raise RecordingError(f"{path} has {data.shape[1]} targets; there is no target {columns.max()}.")
        n_targets = data.shape[1] if columns is None else len(columns)
        values = np.empty((data.shape[0], n_targets), dtype=np.float32)
        step = max(1, HDF5_BYTES // (8 * max(1, data.shape[1])))
        for first in range(0, len(values), step):
            rows = data[first : first + step]
            values[first : first + step] = rows if columns is None else rows[:, columns]
    names = np.array([str(i) for i in range(values.shape[1])]) if space is None else space.names
    return values, space or Space("columns", names)


def read_volume(path: Path | str, space: Space) -> tuple[np.ndarray, Space]:
    """Read the voxels of a mask from a 4D image: (n_scans, n_targets) float32."""
    path = as_path(path)
    from nilearn.maskers import NiftiMasker

    image = load_image(path)
    if len(image.shape) != 4:
        raise RecordingError(f"{path} has shape {image.shape}; a 4D image (x, y, z, scans) is needed.")
    if (
        space.mask is None
        or space.affine is None
        or image.shape[:3] != space.mask.shape
        or not np.allclose(image.affine, space.affine, atol=1e-3)
    ):
        raise RecordingError(
            f"{path} is on another grid than the mask: {image.shape[:3]}. All runs must share one grid."
        )
    mask = space.image(np.ones(space.n_targets, dtype=np.float32))
    masker = NiftiMasker(_as_mask(mask), standardize=False, dtype="float32", reports=False, verbose=0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Nn]on-finite.*")
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # nilearn announces what standardize=False will be called
            values = _mask_with_nan(image, space, masker)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecordingError(f"{path} cannot be read to its end ({error}). Fetch it again.") from error
    return values, space


def _mask_with_nan(image: Any, space: Space, masker: Any) -> np.ndarray:
    """Mask one run and restore its NaN voxels, which nilearn sets to 0."""
    import nibabel

    data = np.asarray(image.dataobj, dtype=np.float32)
    values: np.ndarray = masker.fit_transform(nibabel.Nifti1Image(data, image.affine)).astype(
        np.float32, copy=False
    )
    if not np.isfinite(data.sum(dtype=np.float64)):
        values[~np.isfinite(data[space.mask].T)] = np.nan
    return values


def _as_mask(image: Any) -> Any:
    import nibabel

    return nibabel.Nifti1Image(np.nan_to_num(np.asarray(image.dataobj)).astype(np.uint8), image.affine)


def read_surface(paths: tuple[Path | str, Path | str]) -> tuple[np.ndarray, Space]:
    """Read the vertices of both hemispheres: (n_scans, n_targets) float32."""
    paths = (as_path(paths[0]), as_path(paths[1]))
    import nibabel

    parts = []
    for path in paths:
        image = load_image(require_file(path, RecordingError, "surface"))
        if not isinstance(image, nibabel.gifti.GiftiImage) or not image.darrays:
            raise RecordingError(f"{path} has no surface data. Give GIFTI files of both hemispheres.")
        arrays = [np.asarray(a.data, dtype=np.float32) for a in image.darrays]
        # fMRIPrep writes one array per scan; gifti_io one (vertices, scans) array for all
        parts.append(arrays[0].T if len(arrays) == 1 and arrays[0].ndim == 2 else np.stack(arrays))
    if len(parts[0]) != len(parts[1]):
        raise RecordingError(
            f"{paths[0].name} has {len(parts[0])} scans but {paths[1].name} {len(parts[1])}."
        )
    values = np.hstack(parts)
    names = np.array([str(i) for i in range(values.shape[1])])
    return values, Space("surface", names, hemispheres=(parts[0].shape[1], parts[1].shape[1]))


def _surface_tr(paths: tuple[Path, Path]) -> float | None:
    """Return the TimeStep of GIFTI files, in seconds."""
    image = load_image(require_file(paths[0], RecordingError, "surface"))
    arrays = getattr(image, "darrays", [])
    steps = [a.meta.get("TimeStep") for a in arrays] + [getattr(image, "meta", {}).get("TimeStep")]
    return next((float(step) / 1000.0 for step in steps if step), None)


def read_columns(path: Path | str, columns: Sequence[str] | None) -> tuple[np.ndarray, Space]:
    """Read a table of scans × targets: (n_scans, n_targets) float32."""
    path = as_path(path)
    if path.name.endswith(".gii"):
        raise RecordingError(
            f"{path} is a surface of one hemisphere; both are read together. Give the files of the left and the right one."
        )
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
            names = columns
        elif path.suffix in (".tsv", ".csv"):
            # with given names there is no header: the first row is a scan
            table = pd.read_csv(
                path,
                sep="\t" if path.suffix == ".tsv" else ",",
                na_values=["n/a"],
                header=None if columns else "infer",
            )
            values, names = table.to_numpy(np.float32), columns or [str(c) for c in table.columns]
            if not columns and all(map(_is_float, names)) and not all(n.isdigit() for n in names):
                raise RecordingError(
                    f"{path} begins with numbers instead of column names. Give their names with recording.columns."
                )
        else:
            values, names = np.loadtxt(path, dtype=np.float32, ndmin=2), columns
    except (ValueError, OSError) as error:
        raise RecordingError(f"{path} cannot be read as scans × targets ({error}).") from error
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2:
        raise RecordingError(f"{path} has shape {values.shape}; scans × targets are needed.")
    names = list(names) if names is not None else [f"column-{i}" for i in range(values.shape[1])]
    if len(names) != values.shape[1]:
        raise RecordingError(f"{path} has {values.shape[1]} columns but {len(names)} names were given.")
    return values, Space("columns", np.array([str(n) for n in names]))


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_confounds(path: Path | str, names: Sequence[str], scans: int) -> np.ndarray:
    """Read columns of a confound table, or all: (n_scans, n_confounds); n/a in the first row becomes 0."""
    path = as_path(path)
    require_file(path, RecordingError, "confound table")
    if path.suffix in (".tsv", ".csv"):
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", na_values=["n/a"])
    else:
        table = pd.DataFrame(np.loadtxt(path, ndmin=2))
        table.columns = pd.Index([str(i) for i in range(table.shape[1])])
    missing = [name for name in names if name not in table]
    if missing:
        raise RecordingError(
            f"{path} has no column '{missing[0]}'. It has: {', '.join(map(str, table.columns[:12]))}."
        )
    columns = table[list(names)] if names else table
    if len(columns) != scans:
        raise RecordingError(f"{path} has {len(columns)} rows but the recording has {scans} scans.")
    # the first row of a temporal derivative is n/a, and becomes 0
    try:
        numbers: np.ndarray = columns.to_numpy(np.float64)
    except (ValueError, TypeError) as error:
        raise RecordingError(
            f"{path} has text where numbers are needed ({error}). Name the columns to use."
        ) from error
    undefined_rows = np.flatnonzero(np.isnan(numbers[1:]).any(axis=1)) + 1
    if len(undefined_rows):
        raise RecordingError(
            f"{path} has no number in row {undefined_rows[0]} (only the first row may lack one). Choose other columns."
        )
    filled: np.ndarray = np.nan_to_num(numbers, nan=0.0)
    return filled
