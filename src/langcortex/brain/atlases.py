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

from langcortex.brain.space import load_image, read_data
from langcortex.errors import RecordingError
from langcortex.paths import require_file

HEMISPHERES = (("L", "R"), ("lh", "rh"), ("left", "right"))


@dataclass(frozen=True)
class Atlas:
    """Where an atlas lies and how it is read.

    Attributes
    ----------
    file : for images: 3D, a whole number a parcel (0 is none), or 4D, a probability map a parcel. For surfaces: GIFTI
        labels or FreeSurfer's .annot, "{hemi}" in the name standing for L and R, lh and rh, or left and right. For
        named columns: .tsv or .csv with the columns ``target`` and ``region``. For any: .npy, (n_targets,) numbers
    labels : names of the numbers (`langcortex.brain.atlases.read_labels`); "parcel-17" without
    keep : parcels to take; all when empty
    threshold : the least probability that belongs to a parcel
    """

    file: Path
    labels: Path | None = None
    keep: tuple[str, ...] = ()
    threshold: float = 0.25


def read_atlas_labels(atlas: Atlas) -> dict[int, str]:
    """Read the atlas's table of labels, if it has one: number → name."""
    return {} if atlas.labels is None else read_labels(atlas.labels)


def numbers_in(path: Path) -> np.ndarray:
    """Read a number a target from .npy."""
    require_file(path, RecordingError, "atlas")
    try:
        numbers = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RecordingError(f"The atlas {path} cannot be read ({error}).") from error
    if numbers.ndim != 1:
        raise RecordingError(f"The atlas {path} has shape {numbers.shape}; a number a target is needed.")
    return _whole(numbers, path)


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    """Turn an atlas's values into whole numbers; NaN is no parcel."""
    if values.dtype.kind not in "biuf":
        raise RecordingError(f"The atlas {path} holds {values.dtype} values; numbers are needed.")
    if values.dtype.kind != "f":
        return np.asarray(values, dtype=np.int32)
    filled = np.nan_to_num(values, nan=0.0, posinf=0.5, neginf=0.5)
    rounded = np.round(filled)
    if np.abs(filled - rounded).max(initial=0.0) > 1e-3:
        raise RecordingError(
            f"The atlas {path} holds {filled[np.abs(filled - rounded) > 1e-3][0]:.4g}, but numbers of parcels are whole. "
            "Probabilities need a 4D image, a map a parcel."
        )
    return np.asarray(rounded, dtype=np.int32)


def name_parcels(numbers: np.ndarray, labels: Mapping[int, str], path: Path) -> list[tuple[int, str]]:
    """Name numbers; those that are 0 or less, or whose label is the background's, are no parcels."""
    out = [(n, labels.get(n, f"parcel-{n}")) for n in numbers.tolist() if n > 0]
    out = [(n, name) for n, name in out if not is_background(name)]
    seen: dict[str, int] = {}
    for number, name in out:
        if name in seen:
            raise RecordingError(
                f"The numbers {seen[name]} and {number} of {path} are both called '{name}'. Give each parcel a name of its own in its labels."
            )
        seen[name] = number
    return out


def is_probabilistic(image: Any) -> bool:
    """Say whether an atlas is a stack of probabilities."""
    return len(image.shape) == 4 and image.shape[3] > 1


def read_label_image(image: Any, path: Path) -> np.ndarray:
    """Read a 3D atlas: a number a voxel."""
    data = read_data(image)
    if data.ndim != 3:
        raise RecordingError(f"The atlas {path} has shape {data.shape}; a 3D or 4D image is needed.")
    return _whole(data, path)


def name_maps(image: Any, atlas: Atlas, labels: Mapping[int, str]) -> list[tuple[int, str]]:
    """Name the maps of a 4D atlas, which are counted from 0."""
    n = int(image.shape[3])
    first = _first_number(labels, n, atlas) if labels else 0
    shifted = {number - first + 1: name for number, name in labels.items()}
    return [(i - 1, name) for i, name in name_parcels(np.arange(1, n + 1), shifted, atlas.file)]


def iterate_probability_maps(
    image: Any, atlas: Atlas, labels: Mapping[int, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Cut the maps of a probabilistic atlas at the threshold, one map in memory at a time."""
    largest = max(float(np.nanmax(np.asarray(image.dataobj[..., i]))) for i in range(image.shape[3]))
    # some atlases give probabilities in percent
    cut = atlas.threshold * (100.0 if largest > 1.5 else 1.0)
    for i, name in name_maps(image, atlas, labels):
        chance = np.nan_to_num(np.asarray(image.dataobj[..., i], dtype=np.float32))
        yield name, (chance >= cut).astype(np.uint8)


def _first_number(labels: Mapping[int, str], n: int, atlas: Atlas) -> int:
    """Say which number the first map has: labels count maps from 0 or from 1, and 0 may be the background."""
    real = sorted(number for number, name in labels.items() if number != 0 or not is_background(name))
    for first in (0, 1):
        if real == list(range(first, first + n)):
            return first
    raise RecordingError(
        f"{atlas.labels} names {len(real)} parcels, but {atlas.file} has {n} maps. Number them from 0 or from 1, one a map."
    )


Side = tuple[np.ndarray, dict[int, str]]
"""One hemisphere: the number of each vertex, and number → name."""


def side_names(sides: list[Side]) -> list[str]:
    """Name the parcels of left and right; those with one name in both are told apart."""
    left, right = (list(named.values()) for _, named in sides)
    both = set(left) & set(right)
    return [f"{side}-{n}" if n in both else n for side, names in (("L", left), ("R", right)) for n in names]


def read_hemispheres(path: Path, labels: Mapping[int, str]) -> list[Side]:
    """Read the label files of left and right; "{hemi}" in the path stands for whichever of `HEMISPHERES` there is."""
    for pair in HEMISPHERES:
        files = [Path(str(path).replace("{hemi}", side)) for side in pair]
        if all(file.exists() or file.is_symlink() for file in files):
            return [_side(file, labels) for file in files]
    first = Path(str(path).replace("{hemi}", "L"))
    require_file(first, RecordingError, "atlas")
    raise RecordingError(f"The atlas {path} has one hemisphere only: {first} is there, the other is not.")


def _side(path: Path, labels: Mapping[int, str]) -> Side:
    """Read one hemisphere's labels, from FreeSurfer's .annot or from GIFTI."""
    import nibabel

    require_file(path, RecordingError, "atlas")
    if path.suffix == ".annot":
        try:
            numbers, _, raw = nibabel.freesurfer.read_annot(path)
        except Exception as error:  # nibabel raises errors of many kinds for a file that is no annotation
            raise RecordingError(f"{path} cannot be read as an annotation ({error}).") from error
        own = {i: name.decode("utf-8", "replace") for i, name in enumerate(raw)}
    else:
        image = load_image(path)
        if not isinstance(image, nibabel.gifti.GiftiImage) or not image.darrays:
            raise RecordingError(f"{path} holds no surface labels.")
        numbers = _whole(np.asarray(image.darrays[0].data).ravel(), path)
        own = {int(k): str(v) for k, v in image.labeltable.get_labels_as_dict().items()}
    named = {**own, **labels}
    # 0 is a parcel where the file's own table gives it the name of one
    present = [n for n in np.unique(numbers).tolist() if n > 0 or (n == 0 and own.get(0))]
    shifted = name_parcels(np.array(present) + 1, {n + 1: s for n, s in named.items()}, path)
    return np.asarray(numbers), {n - 1: named.get(n - 1, f"parcel-{n - 1}") for n, _ in shifted}


def read_memberships(path: Path) -> pd.DataFrame:
    """Read which target belongs to which region: the columns ``target`` and ``region``, rows without a region left out."""
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
    given: pd.DataFrame = table.loc[~table.region.isin(["", "n/a"]), ["target", "region"]]
    return given


NUMBERS = ("index", "value", "id", "key", "number", "no")
NAMES = ("name", "region", "parcel", "label", "structure")
BACKGROUND = re.compile(r"\?+|unknown|background.*|medial[ _-]?wall|.*medial[ _-]wall", re.IGNORECASE)


def read_labels(path: Path) -> dict[int, str]:
    """Read which number in an atlas means which parcel.

    Parameters
    ----------
    path : .tsv or .csv with the columns ``index`` and ``name`` (BIDS ``dseg.tsv``, nilearn's tables; ``value``,
        ``region`` and the like are understood too); .json, a list of names or number → name; .txt, a line a parcel:
        ``number name``, with colours behind it as in FreeSurfer's ``ColorLUT.txt`` or not, or a name alone

    Returns
    -------
    number → name. Names without numbers are counted from 1, or from 0 where the first is the background

    Raises
    ------
    RecordingError : there is no such file, it cannot be understood, or one number or name stands twice

    References
    ----------
    BIDS 1.9, "Imaging data type derivatives", discrete segmentations
    """
    require_file(path, RecordingError, "table of labels")
    try:
        rows = _rows(path)
    except (ValueError, OSError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path} cannot be read as a table of labels ({error}).") from error
    if not rows:
        raise RecordingError(f"{path} names no parcel.")
    return _numbered(rows, path)


def _rows(path: Path) -> list[tuple[int | None, str]]:
    """Read (number, name) from any of the formats; the number is None where there is none."""
    if path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, Mapping):
            return [(int(number), str(name)) for number, name in found.items()]
        return [(None, str(name)) for name in found]
    if path.suffix in (".tsv", ".csv"):
        return _table_rows(path)
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [_line(line) for line in lines if line and not line.startswith("#")]


def _table_rows(path: Path) -> list[tuple[int | None, str]]:
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    columns = {str(c).strip().lower(): c for c in table.columns}
    number, name = (next((columns[w] for w in wanted if w in columns), None) for wanted in (NUMBERS, NAMES))
    if number is None or name is None:
        raise RecordingError(
            f"{path} needs the columns 'index' and 'name'. It has: {', '.join(map(str, table.columns[:12]))}."
        )
    return [(int(float(n)), str(label).strip()) for n, label in zip(table[number], table[name], strict=True)]


def _line(line: str) -> tuple[int | None, str]:
    """Read one line of text.

    >>> _line("17  Left-Hippocampus  220 216 20 0"), _line("3 Middle frontal gyrus"), _line("IFG orb")
    ((17, 'Left-Hippocampus'), (3, 'Middle frontal gyrus'), (None, 'IFG orb'))
    """
    words = line.replace(",", " ").split()
    if not words[0].lstrip("-").isdigit():
        return None, line
    rest = words[1:]
    for n_colours in (4, 3):
        if len(rest) > n_colours and all(w.isdigit() for w in rest[-n_colours:]):
            rest = rest[:-n_colours]
            break
    return int(words[0]), " ".join(rest)


def _numbered(rows: Sequence[tuple[int | None, str]], path: Path) -> dict[int, str]:
    numbers = [number for number, _ in rows]
    if None in numbers:
        if any(number is not None for number in numbers):
            raise RecordingError(f"{path} gives numbers to some of its parcels only. Give all of them one.")
        first = 0 if is_background(rows[0][1]) else 1
        rows = [(first + i, name) for i, (_, name) in enumerate(rows)]
    out: dict[int, str] = {}
    for number, name in rows:
        if number is None or number in out:
            raise RecordingError(f"{path} names number {number} twice. Each parcel has one number.")
        if not name:
            raise RecordingError(f"{path} has no name for number {number}.")
        out[number] = name
    return out


def is_background(name: str) -> bool:
    """Say whether a label means "no parcel".

    >>> is_background("???"), is_background("Background+FreeSurfer_Defined_Medial_Wall"), is_background("IFG")
    (True, True, False)
    """
    return BACKGROUND.fullmatch(name.strip()) is not None
