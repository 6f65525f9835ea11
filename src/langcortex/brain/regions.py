"""Regions from atlases: each parcel of an atlas becomes a region, and parcel means may replace targets.

An atlas is an image of parcel numbers, a stack of probability maps, one label file per hemisphere, or a table of
columns and their regions. It is resampled to the grid of the recording, never the recording to the grid of the
atlas.
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
    hemisphere_parcels,
    is_probabilistic,
    iterate_probability_maps,
    name_maps,
    name_parcels,
    read_atlas_labels,
    read_hemispheres,
    read_label_image,
    read_memberships,
    read_parcel_numbers,
)
from langcortex.brain.space import Space, is_on_grid, load_image, resample_nearest
from langcortex.errors import RecordingError
from langcortex.paths import as_path, expand_pattern, require_file

IMAGES = (".nii", ".nii.gz")
TABLES = (".tsv", ".csv")
N_LISTED = 8  # names listed in a message


@dataclass(frozen=True, eq=False)
class _Parcels:
    """The parcels of an atlas: name → (n_targets,) bool, empty parcels too, and remarks for the reader."""

    masks: Mapping[str, np.ndarray]
    remarks: tuple[str, ...] = ()


def add_atlas_regions(space: Space, atlas: Atlas) -> Space:
    """Add the parcels of an atlas to the regions of a space.

    Volumes on another grid are resampled to the grid of the space by nearest neighbour (nilearn). Parcels without a
    target are left out. `Space.remarks` reports both. Parcels of a probabilistic atlas may overlap.

    Raises
    ------
    RecordingError : the atlas cannot be read, covers no target, lacks a parcel of `Atlas.keep`, or has a parcel
        whose name occurs twice or is the name of a region
    """
    parcels = _read_parcels(space, atlas)
    names = _select_parcels(list(parcels.masks), atlas)
    empty = [name for name in names if not parcels.masks[name].any()]
    if len(empty) == len(names):
        raise RecordingError(
            f"The atlas {atlas.file} covers none of the {space.n_targets:,} targets. Is it in the same space as the recording?"
        )
    duplicate = next((name for name in names if name in space.regions or name == "brain"), None)
    if duplicate is not None:
        region = "all targets" if duplicate == "brain" else "a region of recording.regions"
        raise RecordingError(
            f"'{duplicate}' is a parcel of {atlas.file} and also the name of {region}. Rename one, or leave the parcel out with recording.atlas.keep."
        )
    empty_selected = next((name for name in empty if _is_selected(name, atlas)), None)
    if empty_selected is not None:
        raise RecordingError(
            f"The parcel '{empty_selected}' of {atlas.file}, which recording.atlas.keep names, covers none of the {space.n_targets:,} targets."
        )
    regions = {name: parcels.masks[name] for name in names if name not in empty}
    remarks = (*space.remarks, *parcels.remarks, *_describe_empty(empty, len(names), space, atlas))
    return replace(space, regions={**space.regions, **regions}, remarks=remarks)


def _describe_empty(empty: list[str], n_parcels: int, space: Space, atlas: Atlas) -> list[str]:
    if not empty:
        return []
    names = ", ".join(empty[:N_LISTED]) + (" …" if len(empty) > N_LISTED else "")
    return [
        f"{len(empty)} of the {n_parcels} parcels of {atlas.file.name} contain none of the {space.n_targets:,} targets and are left out: {names}."
    ]


def average_parcels(space: Space) -> Space:
    """Return the space whose targets are means over the regions of another space.

    Returns
    -------
    Space of kind "parcels": one target per region, in the order of regions; each target is a region too

    Raises
    ------
    RecordingError : the space has no regions
    """
    if not space.regions:
        raise RecordingError(
            'recording.targets is "parcels", but there are none. Set recording.atlas or recording.regions.'
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

    Targets with NaN are left out; a parcel of such targets alone is NaN.
    """
    assert parcels.within is not None
    defined = np.isfinite(values).all(axis=0)
    means = np.full((len(values), parcels.n_targets), np.nan, dtype=np.float32)
    for i, name in enumerate(parcels.names):
        targets = np.flatnonzero(parcels.within.regions[str(name)] & defined)
        if len(targets):
            means[:, i] = values[:, targets].mean(axis=1, dtype=np.float64)
    return means


def parcel_names(atlas: Atlas) -> list[str]:
    """Return the names of an atlas's parcels, as `add_atlas_regions` will use them, before any recording is read.

    Raises
    ------
    RecordingError : the atlas or its labels cannot be read, or lack a parcel of `Atlas.keep`
    """
    labels = read_atlas_labels(atlas)
    path = atlas.file
    if "{hemi}" in str(path):
        names = list(dict.fromkeys(hemisphere_parcels(read_hemispheres(path, labels))))
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
        names = list(_group_by_number(read_parcel_numbers(path), labels, path))
    return _select_parcels(names, atlas)


def _select_parcels(names: list[str], atlas: Atlas) -> list[str]:
    """Return the parcels of `Atlas.keep`, in the order of the atlas."""
    choices = {choice for name in names for choice in (name, _without_hemisphere(name))}
    for name in atlas.keep:
        if name not in choices:
            matches = difflib.get_close_matches(name, sorted(choices), n=1)
            hint = (
                f" Did you mean '{matches[0]}'?" if matches else f" It has: {', '.join(names[:N_LISTED])} …"
            )
            raise RecordingError(
                f"recording.atlas.keep names '{name}', which {atlas.file} does not have.{hint}"
            )
    return [name for name in names if not atlas.keep or _is_selected(name, atlas)]


def _is_selected(name: str, atlas: Atlas) -> bool:
    return name in atlas.keep or _without_hemisphere(name) in atlas.keep


def _without_hemisphere(name: str) -> str:
    """Remove the prefix of a parcel that both hemispheres have."""
    return name[2:] if name[:2] in ("L-", "R-") else name


def _read_parcels(space: Space, atlas: Atlas) -> _Parcels:
    """Read the parcels of an atlas as masks over the targets of a space."""
    labels, path = read_atlas_labels(atlas), atlas.file
    if path.suffix == ".npy":
        numbers = read_parcel_numbers(path)
        if len(numbers) != space.n_targets:
            raise RecordingError(
                f"The atlas {path} has {len(numbers):,} numbers, but there are {space.n_targets:,} targets."
            )
        return _Parcels(_group_by_number(numbers, labels, path))
    if space.kind == "volume" and path.name.endswith(IMAGES):
        return _volume_parcels(space, atlas, labels)
    if space.kind == "surface" and "{hemi}" in str(path):
        return _surface_parcels(space, atlas, labels)
    if space.kind == "columns" and path.suffix in TABLES:
        return _Parcels(_column_parcels(space, path))
    file_kinds = {
        "volume": "a NIfTI image",
        "surface": "label files with {hemi} in their name",
        "columns": "a .tsv with the columns target and region",
    }
    raise RecordingError(
        f"The atlas {path} does not fit a recording with targets of kind '{space.kind}'. Give {file_kinds.get(space.kind, 'another')}, or a .npy with one number per target."
    )


def _group_by_number(numbers: np.ndarray, labels: Mapping[int, str], path: Path) -> dict[str, np.ndarray]:
    """Group targets by their parcel number; numbers below 1 are no parcel."""
    parcels = name_parcels(np.unique(numbers), labels, path)
    return {name: numbers == number for number, name in parcels}


def _volume_parcels(space: Space, atlas: Atlas, labels: Mapping[int, str]) -> _Parcels:
    """Read the parcels of an image, resampled to the grid of the space."""
    assert space.mask is not None
    assert space.affine is not None
    image = load_image(require_file(atlas.file, RecordingError, "atlas"))
    grid, mask = space.mask.shape, space.mask
    if is_probabilistic(image):
        parcels = {
            name: resample_nearest(volume, image.affine, grid, space.affine)[mask].astype(bool)
            for name, volume in iterate_probability_maps(image, atlas, labels)
        }
    else:
        numbers = read_label_image(image, atlas.file)
        resampled = resample_nearest(numbers, image.affine, grid, space.affine)[mask]
        parcels = {name: resampled == n for n, name in name_parcels(np.unique(numbers), labels, atlas.file)}
    if is_on_grid(np.empty(image.shape[:3], dtype=bool), image.affine, grid, space.affine):
        return _Parcels(parcels)
    remark = (
        f"The atlas {atlas.file.name} has {_describe_grid(image.shape, image.affine)}, the recordings "
        f"{_describe_grid(grid, space.affine)}: its parcels were resampled to the recordings' grid by nearest neighbour."
    )
    return _Parcels(parcels, (remark,))


def _describe_grid(shape: Any, affine: np.ndarray) -> str:
    size = np.sqrt(np.square(affine[:3, :3]).sum(axis=0)).round(2)
    return f"{' × '.join(map(str, shape[:3]))} voxels of {' × '.join(f'{s:g}' for s in size)} mm"


def _surface_parcels(space: Space, atlas: Atlas, labels: Mapping[int, str]) -> _Parcels:
    """Read the parcels of both hemispheres."""
    hemispheres = read_hemispheres(atlas.file, labels)
    sizes = tuple(len(numbers) for numbers, _ in hemispheres)
    if sizes != space.hemispheres:
        raise RecordingError(
            f"The atlas {atlas.file} has {sizes[0]:,} and {sizes[1]:,} vertices, but the recordings "
            f"{' and '.join(f'{n:,}' for n in space.hemispheres or ())}. Use the atlas on the recordings' mesh."
        )
    parcels: dict[str, np.ndarray] = {}
    parcel_name = iter(hemisphere_parcels(hemispheres))
    for k, (numbers, names) in enumerate(hemispheres):
        for number in names:
            mask = np.zeros(space.n_targets, dtype=bool)
            mask[k * sizes[0] : k * sizes[0] + sizes[k]] = numbers == number
            parcels[next(parcel_name)] = mask
    return _Parcels(parcels)


def _column_parcels(space: Space, path: Path) -> dict[str, np.ndarray]:
    """Group named columns by a table of their regions; a column may belong to several."""
    table = read_memberships(path)
    column_of = {str(name): i for i, name in enumerate(space.names)}
    missing = next((t for t in table.target if t not in column_of), None)
    if missing is not None:
        raise RecordingError(
            f"{path} names the target '{missing}', but the columns are: {', '.join(list(column_of)[:N_LISTED])}."
        )
    parcels: dict[str, np.ndarray] = {}
    for target, region in zip(table.target, table.region, strict=True):
        parcels.setdefault(region, np.zeros(space.n_targets, dtype=bool))[column_of[target]] = True
    return parcels


def find_region_masks(pattern: Path | str) -> dict[str, Path]:
    """Find masks by a pattern with {region}, or all masks of a folder: name → file.

    Raises
    ------
    RecordingError : there is no mask, or two files have the same name
    """
    pattern = as_path(pattern)
    if "{region}" not in str(pattern):
        if not pattern.is_dir():
            raise RecordingError(
                f"recording.regions is '{pattern}', which is no folder. Give a folder of masks, a pattern with {{region}}, or a table name = file."
            )
        files = [p for p in sorted(pattern.iterdir()) if p.name.endswith((*IMAGES, ".npy"))]
        masks = {p.name.split(".")[0]: p for p in files}
        if len(masks) < len(files):
            raise RecordingError(
                f"Two masks in {pattern} have the same name. Name them in [recording.regions] instead."
            )
    else:
        run_pattern = str(pattern).replace("{region}", "{run}")
        masks = expand_pattern(run_pattern, Path(pattern.anchor or "."), RecordingError)
    if not masks:
        raise RecordingError(f"No mask was found at {pattern}. Check recording.regions and data.path.")
    return masks
