"""File formats of brain responses: NIfTI, GIFTI, HDF5 and plain tables, and the tables of confounds beside them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.brain.clocks import Clock as Clock
from langcortex.brain.clocks import read_clock as read_clock
from langcortex.brain.space import Space
from langcortex.brain.surfaces import read_surface as read_surface
from langcortex.brain.tables import open_npy, read_plain, read_table, select_columns, to_numbers
from langcortex.brain.volumes import DEFLATE_RATIO, open_volume, read_masked_scans
from langcortex.errors import RecordingError
from langcortex.paths import as_path, require_file

HDF5_BYTES = 2**26  # read at once from an HDF5 file, which stores complete rows
HDF5_EXTENSIONS = (".hf5", ".h5", ".hdf5")
MAX_LINKS = 10  # soft links that follow one another in an HDF5 file


def count_scans(
    path: Path | tuple[Path, Path],
    columns: Sequence[str] | None = None,
    key: str = "data",
    tr: float | None = None,
) -> tuple[int, float | None]:
    """Return the number of scans of a run, and its TR if stated, from the header alone where there is one.

    Parameters
    ----------
    columns : names of the targets of a table without a header
    key : the dataset within a .hf5 file
    tr : seconds, where it is known: what the file states is not judged then
    """
    if isinstance(path, tuple):
        return len(read_surface(path)[0]), read_clock(path, tr).tr
    require_file(path, RecordingError, "recording")
    if path.name.endswith((".nii", ".nii.gz")):
        return int(open_volume(path).shape[3]), read_clock(path, tr).tr
    stated = read_clock(path, tr).tr
    if path.suffix == ".npy":
        return int(_open_matrix(path).shape[0]), stated
    if path.suffix in HDF5_EXTENSIONS:
        with open_hdf5(path, key) as data:
            _check_matrix(data.shape, path, key)
            return int(data.shape[0]), stated
    return len(read_columns(path, columns)[0]), stated


@contextlib.contextmanager
def open_hdf5(path: Path, key: str) -> Iterator[Any]:
    """Open one dataset of an HDF5 file; nothing is read until it is sliced.

    Raises
    ------
    RecordingError : no HDF5 file, no dataset of numbers under this name, or data that lie in another file
    """
    try:
        import h5py
    except ImportError as error:
        raise RecordingError(f"{path} is an HDF5 file. Install its reader with: pip install h5py") from error
    require_file(path, RecordingError, "recording")
    try:
        with h5py.File(path, "r") as file:
            yield _find_dataset(file, key, path)
    except RecordingError:
        raise
    except Exception as error:  # h5py raises errors of many kinds for a damaged file
        raise RecordingError(f"{path} cannot be read as HDF5 ({error}). Fetch it again.") from error


def _find_dataset(file: Any, key: str, path: Path) -> Any:
    """Return a dataset of numbers that lies in this file and is no larger than the file can hold."""
    import h5py

    _check_links(file, key, path)
    if key not in file:
        raise RecordingError(f"{path} has no dataset '{key}'. It has: {', '.join(file) or 'none'}.")
    data = file[key]
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "biuf" or data.shape is None:
        raise RecordingError(f"{path}: '{key}' is no array of numbers.")
    if data.external or data.is_virtual:
        raise RecordingError(
            f"{path}: '{key}' takes its data from another file. Write the array into the file itself."
        )
    declared = math.prod(data.shape) * data.dtype.itemsize
    # compression of any kind is granted what gzip reaches at most
    stored = int(data.id.get_storage_size())
    if declared > stored * (DEFLATE_RATIO if data.chunks else 1) or stored > path.stat().st_size:
        raise RecordingError(
            f"{path}: '{key}' declares {declared:,} bytes, but the file holds {stored:,} of them. It is incomplete or damaged; fetch it again."
        )
    return data


def _check_links(file: Any, key: str, path: Path) -> None:
    """Refuse a name that leads to another file."""
    import h5py

    remaining = _parts(key)
    group, n_links = file, 0
    while remaining and isinstance(group, h5py.Group):
        # "name in group" would open the other file
        if not group.id.links.exists(remaining[0].encode()):
            return
        link = group.get(remaining[0], getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise RecordingError(
                f"{path}: '{key}' is a link to another file ({link.filename}). Copy the array into the file itself."
            )
        if isinstance(link, h5py.SoftLink):
            n_links += 1
            if n_links > MAX_LINKS:
                raise RecordingError(f"{path}: '{key}' is a circle of links.")
            remaining = _parts(link.path) + remaining[1:]
            group = file if link.path.startswith("/") else group
            continue
        group, remaining = group[remaining[0]], remaining[1:]


def _parts(key: str) -> list[str]:
    return [part for part in key.split("/") if part not in ("", ".")]


def _check_matrix(shape: Sequence[int], path: Path, key: str = "") -> None:
    if len(shape) != 2:
        within = f" under '{key}'" if key else ""
        raise RecordingError(f"{path} has shape {tuple(shape)}{within}; scans × targets are needed.")


def _open_matrix(path: Path) -> np.ndarray:
    """Open a .npy file of scans × targets without reading it."""
    values = open_npy(path)
    _check_matrix(values.shape, path)
    return values


def read_hdf5(path: Path | str, key: str = "data", space: Space | None = None) -> tuple[np.ndarray, Space]:
    """Read (n_scans, n_targets) float32: all columns, or those whose numbers `space` names."""
    path = as_path(path)
    with open_hdf5(path, key) as data:
        _check_matrix(data.shape, path, key)
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
    image = open_volume(path)
    if (
        space.mask is None
        or space.affine is None
        or image.shape[:3] != space.mask.shape
        or not np.allclose(image.affine, space.affine, atol=1e-3)
    ):
        raise RecordingError(
            f"{path} is on another grid than the mask: {image.shape[:3]}. All runs must share one grid."
        )
    return read_masked_scans(path, space.mask), space


def read_columns(path: Path | str, columns: Sequence[str] | None) -> tuple[np.ndarray, Space]:
    """Read a table of scans × targets: (n_scans, n_targets) float32.

    Raises
    ------
    RecordingError : no table of numbers, or one with other columns than are named
    """
    path = as_path(path)
    if path.name.endswith(".gii"):
        raise RecordingError(
            f"{path} is a surface of one hemisphere; both are read together. Give the files of the left and the right one."
        )
    require_file(path, RecordingError, "recording")
    names = columns
    if path.suffix == ".npy":
        stored = _open_matrix(path)
    elif path.suffix in (".tsv", ".csv"):
        # with given names there is no header: the first row is a scan
        table = read_table(path, has_header=not columns)
        stored, names = to_numbers(table, path), columns or [str(c) for c in table.columns]
    else:
        stored = read_plain(path, "scans × targets")
    with np.errstate(over="ignore"):
        values = np.asarray(stored, dtype=np.float32)
    if not values.size:
        raise RecordingError(f"{path} has no scans.")
    names = list(names) if names is not None else [f"column-{i}" for i in range(values.shape[1])]
    if len(names) != values.shape[1]:
        raise RecordingError(f"{path} has {values.shape[1]} columns but {len(names)} names were given.")
    return values, Space("columns", np.array([str(n) for n in names]))


def read_confounds(
    path: Path | str, names: Sequence[str], scans: int, where: str = ""
) -> tuple[np.ndarray, list[str]]:
    """Read columns of a confound table; n/a in the first row becomes 0.

    Parameters
    ----------
    names : of columns, or patterns such as ``a_comp_cor_*``; all columns when there are none
    scans : of the recording
    where : names the run, for messages

    Returns
    -------
    confounds : (n_scans, n_confounds) float64
    names : (n_confounds,)

    Raises
    ------
    RecordingError : a column is missing, a pattern matches none, or the table has other rows, text or gaps
    """
    path = as_path(path)
    require_file(path, RecordingError, "confound table")
    if path.suffix in (".tsv", ".csv"):
        table = read_table(path)
        selected = select_columns([str(c) for c in table.columns], names, path, where)
        # the first row of a temporal derivative is n/a, and becomes 0
        numbers = to_numbers(table[selected], path)
    else:
        everything = np.asarray(
            _open_matrix(path) if path.suffix == ".npy" else read_plain(path), dtype=np.float64
        )
        columns = [str(i) for i in range(everything.shape[1])]
        selected = select_columns(columns, names, path, where)
        numbers = everything[:, [columns.index(name) for name in selected]]
    prefix = f"{where}: " if where else ""
    if len(numbers) != scans:
        raise RecordingError(f"{prefix}{path} has {len(numbers)} rows but the recording has {scans} scans.")
    undefined_rows = np.flatnonzero(~np.isfinite(numbers[1:]).all(axis=1)) + 1
    if len(undefined_rows):
        raise RecordingError(
            f"{prefix}{path} has no number in row {undefined_rows[0]} (only the first row may lack one). Choose other columns."
        )
    filled: np.ndarray = np.nan_to_num(numbers, nan=0.0)
    return filled, selected
