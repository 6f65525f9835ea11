"""Files of atlases: images of numbers or of probabilities, labels of surfaces, tables of columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.brain.space import read_data
from langcortex.brain.surfaces import SIDES, check_hemisphere, load_gifti
from langcortex.errors import RecordingError
from langcortex.paths import as_path, require_file

HEMISPHERES = (("L", "R"), ("lh", "rh"), ("left", "right"))


@dataclass(frozen=True)
class Atlas:
    """Where the files of an atlas are and how they are read.

    Attributes
    ----------
    file : for images: 3D, one integer per parcel (0 is none), or 4D, one probability map per parcel. For surfaces: GIFTI
        labels or FreeSurfer's .annot, "{hemi}" in the name standing for L and R, lh and rh, or left and right. For
        named columns: .tsv or .csv with the columns ``target`` and ``region``. For any: .npy, (n_targets,) numbers
    labels : names of the numbers (`langcortex.brain.atlases.read_labels`); "parcel-17" without
    keep : the parcels to use; all when empty
    threshold : the lowest probability at which a voxel belongs to a parcel
    """

    file: Path
    labels: Path | None = None
    keep: tuple[str, ...] = ()
    threshold: float = 0.25


def read_atlas_labels(atlas: Atlas) -> dict[int, str]:
    """Read the table of labels of an atlas: number → name; empty where it has none."""
    return {} if atlas.labels is None else read_labels(atlas.labels)


def read_parcel_numbers(path: Path) -> np.ndarray:
    """Read one parcel number per target from a .npy file."""
    require_file(path, RecordingError, "atlas")
    try:
        numbers = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RecordingError(f"The atlas {path} cannot be read ({error}).") from error
    if numbers.ndim != 1:
        raise RecordingError(f"The atlas {path} has shape {numbers.shape}; one number per target is needed.")
    return _as_integers(numbers, path)


def _as_integers(values: np.ndarray, path: Path) -> np.ndarray:
    """Convert the values of an atlas to integers; NaN is no parcel."""
    if values.dtype.kind not in "biuf":
        raise RecordingError(f"The atlas {path} has {values.dtype} values; numbers are needed.")
    if values.dtype.kind != "f":
        return np.asarray(values, dtype=np.int32)
    filled = np.nan_to_num(values, nan=0.0, posinf=0.5, neginf=0.5)
    rounded = np.round(filled)
    if np.abs(filled - rounded).max(initial=0.0) > 1e-3:
        raise RecordingError(
            f"The atlas {path} has the value {filled[np.abs(filled - rounded) > 1e-3][0]:.4g}, but parcel numbers are integers. "
            "Give probabilities as a 4D image with one map per parcel."
        )
    return np.asarray(rounded, dtype=np.int32)


def name_parcels(numbers: np.ndarray, labels: Mapping[int, str], path: Path) -> list[tuple[int, str]]:
    """Name the parcels with these numbers; 0, negative numbers and labels of the background are no parcels."""
    parcels = [(n, labels.get(n, f"parcel-{n}")) for n in numbers.tolist() if n > 0]
    parcels = [(n, name) for n, name in parcels if not is_background(name)]
    number_of: dict[str, int] = {}
    for number, name in parcels:
        if name in number_of:
            raise RecordingError(
                f"The numbers {number_of[name]} and {number} of {path} are both called '{name}'. Give each parcel its own name in the labels."
            )
        number_of[name] = number
    return parcels


def is_probabilistic(image: Any) -> bool:
    """Whether an atlas is a 4D image of probability maps."""
    return len(image.shape) == 4 and image.shape[3] > 1


def read_label_image(image: Any, path: Path) -> np.ndarray:
    """Read a 3D atlas: one integer per voxel."""
    data = read_data(image)
    if data.ndim != 3:
        raise RecordingError(f"The atlas {path} has shape {data.shape}; a 3D or 4D image is needed.")
    return _as_integers(data, path)


def name_maps(image: Any, atlas: Atlas, labels: Mapping[int, str]) -> list[tuple[int, str]]:
    """Name the maps of a 4D atlas, counted from 0."""
    n_maps = int(image.shape[3])
    first = _first_number(labels, n_maps, atlas) if labels else 0
    shifted = {number - first + 1: name for number, name in labels.items()}
    return [(i - 1, name) for i, name in name_parcels(np.arange(1, n_maps + 1), shifted, atlas.file)]


def iterate_probability_maps(
    image: Any, atlas: Atlas, labels: Mapping[int, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the thresholded maps of a probabilistic atlas, one map in memory at a time."""
    largest = max(float(np.nanmax(np.asarray(image.dataobj[..., i]))) for i in range(image.shape[3]))
    # some atlases give probabilities in percent
    threshold = atlas.threshold * (100.0 if largest > 1.5 else 1.0)
    for i, name in name_maps(image, atlas, labels):
        probability = np.nan_to_num(np.asarray(image.dataobj[..., i], dtype=np.float32))
        yield name, (probability >= threshold).astype(np.uint8)


def _first_number(labels: Mapping[int, str], n_maps: int, atlas: Atlas) -> int:
    """Return the number of the first map: labels count maps from 0 or from 1, and 0 may be the background."""
    numbers = sorted(number for number, name in labels.items() if number != 0 or not is_background(name))
    for first in (0, 1):
        if numbers == list(range(first, first + n_maps)):
            return first
    raise RecordingError(
        f"{atlas.labels} names {len(numbers)} parcels, but {atlas.file} has {n_maps} maps. Number them from 0 or from 1, one per map."
    )


Hemisphere = tuple[np.ndarray, dict[int, str]]
"""One hemisphere: the parcel number of each vertex, and number → name."""


def hemisphere_parcels(hemispheres: list[Hemisphere]) -> list[str]:
    """Name the parcels of left and right; names that occur in both get the prefix "L-" or "R-"."""
    left, right = (list(names.values()) for _, names in hemispheres)
    shared = set(left) & set(right)
    return [f"{side}-{n}" if n in shared else n for side, names in (("L", left), ("R", right)) for n in names]


def read_hemispheres(path: Path, labels: Mapping[int, str]) -> list[Hemisphere]:
    """Read the label files of left and right; "{hemi}" in the path stands for a pair of `HEMISPHERES`."""
    for pair in HEMISPHERES:
        files = [Path(str(path).replace("{hemi}", side)) for side in pair]
        if all(file.exists() or file.is_symlink() for file in files):
            return [_read_hemisphere(file, labels, side) for file, side in zip(files, SIDES, strict=True)]
    first = Path(str(path).replace("{hemi}", "L"))
    require_file(first, RecordingError, "atlas")
    raise RecordingError(f"The atlas {path} has one hemisphere only: {first} exists, the other does not.")


def _read_hemisphere(path: Path, labels: Mapping[int, str], side: str) -> Hemisphere:
    """Read the labels of one hemisphere, from FreeSurfer's .annot or from GIFTI."""
    import nibabel

    require_file(path, RecordingError, "atlas")
    if path.suffix == ".annot":
        try:
            numbers, _, raw = nibabel.freesurfer.read_annot(path)
        except Exception as error:  # nibabel raises errors of many kinds for a file that is no annotation
            raise RecordingError(f"{path} cannot be read as an annotation ({error}).") from error
        file_labels = {i: name.decode("utf-8", "replace") for i, name in enumerate(raw)}
    else:
        image = load_gifti(path)
        check_hemisphere(image, path, side)
        numbers = _as_integers(np.asarray(image.darrays[0].data).ravel(), path)
        file_labels = {int(k): str(v) for k, v in image.labeltable.get_labels_as_dict().items()}
    names = {**file_labels, **labels}
    # 0 is a parcel where the file's own table names it
    present = [n for n in np.unique(numbers).tolist() if n > 0 or (n == 0 and file_labels.get(0))]
    shifted = name_parcels(np.array(present) + 1, {n + 1: s for n, s in names.items()}, path)
    return np.asarray(numbers), {n - 1: names.get(n - 1, f"parcel-{n - 1}") for n, _ in shifted}


def read_memberships(path: Path) -> pd.DataFrame:
    """Read which target belongs to which region: the columns ``target`` and ``region``, without rows that lack a region."""
    require_file(path, RecordingError, "atlas")
    try:
        table = pd.read_csv(
            path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False
        )
    except ValueError as error:
        raise RecordingError(f"The atlas {path} cannot be read as a table ({error}).") from error
    if not {"target", "region"} <= set(table):
        raise RecordingError(
            f"The atlas {path} needs the columns 'target' and 'region'. It has: {', '.join(map(str, table.columns[:12]))}."
        )
    memberships: pd.DataFrame = table.loc[~table.region.isin(["", "n/a"]), ["target", "region"]]
    return memberships


NUMBER_COLUMNS = ("index", "value", "id", "key", "number", "no")
NAME_COLUMNS = ("name", "region", "parcel", "label", "structure")
BACKGROUND = re.compile(r"\?+|unknown|background.*|medial[ _-]?wall|.*medial[ _-]wall", re.IGNORECASE)


def read_labels(path: Path | str) -> dict[int, str]:
    """Read a table of labels: which number of an atlas is which parcel.

    Parameters
    ----------
    path : .tsv or .csv with the columns ``index`` and ``name`` (BIDS ``dseg.tsv``, nilearn's tables; ``value``,
        ``region`` and the like are accepted too); .json, a list of names or number → name; .txt, one line per
        parcel: ``number name``, perhaps followed by colours as in FreeSurfer's ``ColorLUT.txt``, or the name alone

    Returns
    -------
    number → name. Names without numbers are counted from 1, or from 0 where the first is the background

    Raises
    ------
    RecordingError : the file does not exist or cannot be read, or a number or a name occurs twice

    References
    ----------
    BIDS 1.9, "Imaging data type derivatives", discrete segmentations
    """
    path = as_path(path)
    require_file(path, RecordingError, "table of labels")
    try:
        rows = _label_rows(path)
    except (ValueError, OSError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path} cannot be read as a table of labels ({error}).") from error
    if not rows:
        raise RecordingError(f"{path} names no parcel.")
    return _number_labels(rows, path)


def _label_rows(path: Path) -> list[tuple[int | None, str]]:
    """Read (number, name) from any of the formats; the number is None where there is none."""
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, Mapping):
            return [(int(number), str(name)) for number, name in content.items()]
        return [(None, str(name)) for name in content]
    if path.suffix in (".tsv", ".csv"):
        return _table_rows(path)
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [_parse_line(line) for line in lines if line and not line.startswith("#")]


def _table_rows(path: Path) -> list[tuple[int | None, str]]:
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    columns = {str(c).strip().lower(): c for c in table.columns}
    number = next((columns[c] for c in NUMBER_COLUMNS if c in columns), None)
    name = next((columns[c] for c in NAME_COLUMNS if c in columns), None)
    if number is None or name is None:
        raise RecordingError(
            f"{path} needs the columns 'index' and 'name'. It has: {', '.join(map(str, table.columns[:12]))}."
        )
    return [(int(float(n)), str(label).strip()) for n, label in zip(table[number], table[name], strict=True)]


def _parse_line(line: str) -> tuple[int | None, str]:
    """Read the number and the name of one line of text.

    >>> _parse_line("17  Left-Hippocampus  220 216 20 0"), _parse_line("3 Middle frontal gyrus")
    ((17, 'Left-Hippocampus'), (3, 'Middle frontal gyrus'))
    >>> _parse_line("IFG orb")
    (None, 'IFG orb')
    """
    words = line.replace(",", " ").split()
    if not words[0].lstrip("-").isdigit():
        return None, line
    name = words[1:]
    for n_colours in (4, 3):
        if len(name) > n_colours and all(w.isdigit() for w in name[-n_colours:]):
            name = name[:-n_colours]
            break
    return int(words[0]), " ".join(name)


def _number_labels(rows: Sequence[tuple[int | None, str]], path: Path) -> dict[int, str]:
    """Return number → name; names without numbers are counted from 1, or from 0 where the first is the background."""
    numbers = [number for number, _ in rows]
    if None in numbers:
        if any(number is not None for number in numbers):
            raise RecordingError(f"{path} numbers only some of its parcels. Number all of them.")
        first = 0 if is_background(rows[0][1]) else 1
        rows = [(first + i, name) for i, (_, name) in enumerate(rows)]
    labels: dict[int, str] = {}
    for number, name in rows:
        if number is None or number in labels:
            raise RecordingError(f"{path} names number {number} twice. Give each parcel one number.")
        if not name:
            raise RecordingError(f"{path} has no name for number {number}.")
        labels[number] = name
    return labels


def is_background(name: str) -> bool:
    """Whether a label means "no parcel".

    >>> is_background("???"), is_background("Background+FreeSurfer_Defined_Medial_Wall"), is_background("IFG")
    (True, True, False)
    """
    return BACKGROUND.fullmatch(name.strip()) is not None
