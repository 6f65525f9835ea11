"""Regions by atlases: every parcel of an atlas file becomes a region, and parcels may take the place of targets.

An atlas is a picture of numbers (one a parcel), a stack of probabilities, a label file a hemisphere, or a table that
says which column belongs to which region. It is brought to the recording's own grid, never the recording to the
atlas's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.brain.atlases import Atlas as Atlas
from langcortex.brain.atlases import (
    is_probabilistic,
    iterate_probability_maps,
    name_maps,
    name_parcels,
    numbers_in,
    read_atlas_labels,
    read_hemispheres,
    read_label_image,
    read_memberships,
    side_names,
)
from langcortex.brain.space import Space, load_image, nearest_names, same_grid
from langcortex.errors import RecordingError
from langcortex.paths import expand_pattern, require_file

IMAGES = (".nii", ".nii.gz")
TABLES = (".tsv", ".csv")
SHOWN = 8  # names that a sentence lists


@dataclass(frozen=True, eq=False)
class _Parcels:
    """Parcels as an atlas has them: name → (n_targets,) bool, empty ones too, and what is to be said."""

    inside: Mapping[str, np.ndarray]
    remarks: tuple[str, ...] = ()


def with_atlas(space: Space, atlas: Atlas) -> Space:
    """Add an atlas's parcels to the regions of a space.

    Volumes on another grid are brought to the space's by nearest neighbour (nilearn), and `Space.remarks` says so. Parcels
    without a target are left out, and named there too. Parcels of a probabilistic atlas may overlap.

    Raises
    ------
    RecordingError : the atlas cannot be read, covers no target, names a parcel twice or like a region there is, or
        lacks a parcel that is to be kept
    """
    found = _read(space, atlas)
    names = _kept(list(found.inside), atlas)
    empty = [name for name in names if not found.inside[name].any()]
    if len(empty) == len(names):
        raise RecordingError(
            f"The atlas {atlas.file} covers none of the {space.n_targets:,} targets. Is it in the same space as the recording?"
        )
    taken = next((name for name in names if name in space.regions or name == "brain"), None)
    if taken is not None:
        what = "all targets" if taken == "brain" else "a region of recording.regions"
        raise RecordingError(
            f"'{taken}' is a parcel of {atlas.file} and the name of {what} too. Rename one, or leave it out with recording.atlas.keep."
        )
    wanted_empty = next((name for name in empty if _asked(name, atlas)), None)
    if wanted_empty is not None:
        raise RecordingError(
            f"The parcel '{wanted_empty}' of {atlas.file}, which recording.atlas.keep names, covers none of the {space.n_targets:,} targets."
        )
    parcels = {name: found.inside[name] for name in names if name not in empty}
    remarks = (*space.remarks, *found.remarks, *_about_empty(empty, len(names), space, atlas))
    return replace(space, regions={**space.regions, **parcels}, remarks=remarks)


def _about_empty(empty: list[str], total: int, space: Space, atlas: Atlas) -> list[str]:
    if not empty:
        return []
    shown = ", ".join(empty[:SHOWN]) + (" …" if len(empty) > SHOWN else "")
    return [
        f"{len(empty)} of the {total} parcels of {atlas.file.name} hold none of the {space.n_targets:,} targets and are left out: {shown}."
    ]


def average_parcels(space: Space) -> Space:
    """Make the space whose targets are the regions of another: means over their targets.

    Returns
    -------
    Space of kind "parcels": a target a region, in the order of regions; each is a region by itself too

    Raises
    ------
    RecordingError : there are no regions
    """
    if not space.regions:
        raise RecordingError(
            'recording.targets is "parcels", but there are none. Give recording.atlas or recording.regions.'
        )
    names = np.array([str(name) for name in space.regions])
    return Space(
        "parcels",
        names,
        regions={str(name): names == name for name in names},
        within=space,
        remarks=space.remarks,
    )


def parcel_means(values: np.ndarray, parcels: Space) -> np.ndarray:
    """Average targets over parcels: (n_scans, n_targets) → (n_scans, n_parcels) float32.

    Targets that are NaN throughout take no part; a parcel of nothing but those is NaN.
    """
    assert parcels.within is not None
    known = np.isfinite(values).all(axis=0)
    out = np.full((len(values), parcels.n_targets), np.nan, dtype=np.float32)
    for i, name in enumerate(parcels.names):
        inside = np.flatnonzero(parcels.within.regions[str(name)] & known)
        if len(inside):
            out[:, i] = values[:, inside].mean(axis=1, dtype=np.float64)
    return out


def parcel_names(atlas: Atlas) -> list[str]:
    """Name the parcels that an atlas has, before any recording is read; as `with_atlas` will name them.

    Raises
    ------
    RecordingError : the atlas or its labels cannot be read, or lack a parcel that is to be kept
    """
    labels = read_atlas_labels(atlas)
    path = atlas.file
    if "{hemi}" in str(path):
        sides = read_hemispheres(path, labels)
        names = list(dict.fromkeys(side_names(sides)))
    elif path.name.endswith(IMAGES):
        image = load_image(require_file(path, RecordingError, "atlas"))
        numbered = (
            name_maps(image, atlas, labels)
            if is_probabilistic(image)
            else name_parcels(np.unique(read_label_image(image, path)), labels, path)
        )
        names = [name for _, name in numbered]
    elif path.suffix in TABLES:
        names = list(dict.fromkeys(read_memberships(path).region))
    else:
        names = list(_by_number(numbers_in(path), labels, path))
    return _kept(names, atlas)


def _kept(names: list[str], atlas: Atlas) -> list[str]:
    """Keep the parcels that are asked for, in the atlas's order."""
    known = {bare for name in names for bare in (name, _bare(name))}
    for wanted in atlas.keep:
        if wanted not in known:
            near = difflib.get_close_matches(wanted, sorted(known), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" It has: {', '.join(names[:SHOWN])} …"
            raise RecordingError(
                f"recording.atlas.keep names '{wanted}', which {atlas.file} does not have.{hint}"
            )
    return [name for name in names if not atlas.keep or _asked(name, atlas)]


def _asked(name: str, atlas: Atlas) -> bool:
    return name in atlas.keep or _bare(name) in atlas.keep


def _bare(name: str) -> str:
    """Take the hemisphere off a parcel that both have."""
    return name[2:] if name[:2] in ("L-", "R-") else name


def _read(space: Space, atlas: Atlas) -> _Parcels:
    labels, path = read_atlas_labels(atlas), atlas.file
    if path.suffix == ".npy":
        numbers = numbers_in(path)
        if len(numbers) != space.n_targets:
            raise RecordingError(
                f"The atlas {path} has {len(numbers):,} numbers, but there are {space.n_targets:,} targets."
            )
        return _Parcels(_by_number(numbers, labels, path))
    if space.kind == "volume" and path.name.endswith(IMAGES):
        return _volume(space, atlas, labels)
    if space.kind == "surface" and "{hemi}" in str(path):
        return _surface(space, atlas, labels)
    if space.kind == "columns" and path.suffix in TABLES:
        return _columns(space, path)
    wants = {
        "volume": "a NIfTI image",
        "surface": "label files with {hemi} in their name",
        "columns": "a .tsv with the columns target and region",
    }
    raise RecordingError(
        f"The atlas {path} does not fit a recording with targets of kind '{space.kind}': give {wants.get(space.kind, 'another')}, or a .npy with a number a target."
    )


def _by_number(numbers: np.ndarray, labels: Mapping[int, str], path: Path) -> dict[str, np.ndarray]:
    """Group targets by the number they have; 0 and less is no parcel."""
    named = name_parcels(np.unique(numbers), labels, path)
    return {name: numbers == number for number, name in named}


def _volume(space: Space, atlas: Atlas, labels: Mapping[int, str]) -> _Parcels:
    assert space.mask is not None
    assert space.affine is not None
    image = load_image(require_file(atlas.file, RecordingError, "atlas"))
    grid, mask = space.mask.shape, space.mask
    if is_probabilistic(image):
        inside = {
            name: nearest_names(one, image.affine, grid, space.affine)[mask].astype(bool)
            for name, one in iterate_probability_maps(image, atlas, labels)
        }
    else:
        numbers = read_label_image(image, atlas.file)
        here = nearest_names(numbers, image.affine, grid, space.affine)[mask]
        inside = {name: here == n for n, name in name_parcels(np.unique(numbers), labels, atlas.file)}
    moved = not same_grid(np.empty(image.shape[:3], dtype=bool), image.affine, grid, space.affine)
    if not moved:
        return _Parcels(inside)
    return _Parcels(
        inside,
        (
            f"The atlas {atlas.file.name} has {_grid(image.shape, image.affine)}, the recordings {_grid(grid, space.affine)}: "
            "its parcels were brought to the recordings' grid by nearest neighbour.",
        ),
    )


def _grid(shape: Any, affine: np.ndarray) -> str:
    size = np.sqrt(np.square(affine[:3, :3]).sum(axis=0)).round(2)
    return f"{' × '.join(map(str, shape[:3]))} voxels of {' × '.join(f'{s:g}' for s in size)} mm"


def _surface(space: Space, atlas: Atlas, labels: Mapping[int, str]) -> _Parcels:
    sides = read_hemispheres(atlas.file, labels)
    sizes = tuple(len(numbers) for numbers, _ in sides)
    if sizes != space.hemispheres:
        raise RecordingError(
            f"The atlas {atlas.file} has {sizes[0]:,} and {sizes[1]:,} vertices, but the recordings "
            f"{' and '.join(f'{n:,}' for n in space.hemispheres or ())}. Use the atlas on the recordings' mesh."
        )
    inside: dict[str, np.ndarray] = {}
    names = iter(side_names(sides))
    for k, (numbers, named) in enumerate(sides):
        for number in named:
            where = np.zeros(space.n_targets, dtype=bool)
            where[k * sizes[0] : k * sizes[0] + sizes[k]] = numbers == number
            inside[next(names)] = where
    return _Parcels(inside)


def _columns(space: Space, path: Path) -> _Parcels:
    """Group named columns by a table that says which region each belongs to; a column may belong to several."""
    table = read_memberships(path)
    known = {str(name): i for i, name in enumerate(space.names)}
    missing = next((t for t in table.target if t not in known), None)
    if missing is not None:
        raise RecordingError(
            f"{path} names the target '{missing}', but the columns are: {', '.join(list(known)[:SHOWN])}."
        )
    inside: dict[str, np.ndarray] = {}
    for target, region in zip(table.target, table.region, strict=True):
        inside.setdefault(region, np.zeros(space.n_targets, dtype=bool))[known[target]] = True
    return _Parcels(inside)


def regions_in_folder(where: Path) -> dict[str, Path]:
    """Find masks by a pattern with {region}, or all masks of a folder: name → file.

    Raises
    ------
    RecordingError : nothing is found, or two files have one name
    """
    if "{region}" not in str(where):
        if not where.is_dir():
            raise RecordingError(
                f"recording.regions is '{where}', which is no folder. Give a folder of masks, a pattern with {{region}}, or a table name = file."
            )
        files = [p for p in sorted(where.iterdir()) if p.name.endswith((*IMAGES, ".npy"))]
        out = {p.name.split(".")[0]: p for p in files}
        if len(out) < len(files):
            raise RecordingError(
                f"Two masks in {where} have one name. Name them in [recording.regions] instead."
            )
    else:
        pattern = str(where).replace("{region}", "{run}")
        out = expand_pattern(pattern, Path(where.anchor or "."), RecordingError)
    if not out:
        raise RecordingError(f"No mask was found at {where}. Check recording.regions and data.path.")
    return out
