"""Spaces: where in the brain the columns of a recording are; volumes, surfaces, named columns and parcels."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.cache import atomic_write
from langcortex.errors import RecordingError
from langcortex.paths import as_path, require_file, safe_cells


@dataclass(frozen=True, eq=False)
class Space:
    """Where in the brain the columns of a recording are, with the way back to images.

    Attributes
    ----------
    kind : "volume", "surface", "columns", or "parcels" (means over groups of targets of another space)
    names : (n_targets,) column names; for images the column numbers
    mask : (x, y, z) bool, the voxels that are columns, in C order ("volume")
    affine : (4, 4) voxel to world coordinates in mm ("volume")
    hemispheres : vertices of the left and right hemisphere ("surface"), e.g. (10242, 10242)
    regions : name → (n_targets,) bool
    within : the space whose regions were averaged, under the same names ("parcels")
    remarks : sentences for the reader, such as which parcels of an atlas contain no target
    """

    kind: str
    names: np.ndarray
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    hemispheres: tuple[int, int] | None = None
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    within: Space | None = None
    remarks: tuple[str, ...] = ()

    @property
    def n_targets(self) -> int:
        """The number of columns of a recording in this space."""
        return len(self.names)

    def with_regions(self, regions: Mapping[str, Path | str | Sequence[str]]) -> Space:
        """Return this space with named groups of targets as its regions.

        Parameters
        ----------
        regions : name → a mask image (nearest-neighbour resampled to this grid), a .npy of booleans or of
            column numbers, or a list of column names
        """
        if "brain" in regions:
            raise RecordingError("A region cannot be called 'brain': that is all targets. Rename it.")
        return replace(self, regions={name: self._region(name, source) for name, source in regions.items()})

    def _region(self, name: str, source: Path | str | Sequence[str]) -> np.ndarray:
        if isinstance(source, Path | str):
            source = as_path(source)
            path = require_file(source, RecordingError, f"mask of region '{name}'")
            if path.suffix == ".npy":
                inside = np.zeros(self.n_targets, dtype=bool)
                try:
                    inside[np.load(path, allow_pickle=False)] = True
                except (IndexError, ValueError, OSError) as error:
                    raise RecordingError(
                        f"Region '{name}': {path} must contain {self.n_targets} booleans, or column numbers below {self.n_targets} ({error})."
                    ) from error
            elif self.kind == "volume":
                inside = _resample_mask(load_image(path), self.mask, self.affine)[self.mask]
            else:
                raise RecordingError(
                    f"Region '{name}': {path} is an image, but this recording has {self.kind}. List names, or give a .npy."
                )
        else:
            columns = set(self.names.tolist())
            missing = [str(c) for c in source if str(c) not in columns]
            if missing:
                raise RecordingError(
                    f"Region '{name}': no column is called '{missing[0]}'. The columns are: {', '.join(self.names[:12])}."
                )
            inside = np.isin(self.names, [str(c) for c in source])
        if not inside.any():
            raise RecordingError(
                f"Region '{name}' covers none of the {self.n_targets} targets. Is its mask in the same space?"
            )
        return inside

    def expand_parcels(self, values: np.ndarray) -> tuple[Space, np.ndarray]:
        """Return the space that parcels were averaged in, and a map on it: (n_targets,) or (n_targets, n_maps).

        A target has the value of its parcel, the mean where it belongs to several parcels, and NaN where it belongs
        to none. Other spaces are returned unchanged.
        """
        if self.within is None:
            return self, values
        members = np.stack([self.within.regions[str(name)] for name in self.names]).astype(np.float64)
        flat = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        defined = np.isfinite(flat)
        count = members.T @ defined
        with np.errstate(invalid="ignore", divide="ignore"):
            expanded = np.where(count > 0, members.T @ np.where(defined, flat, 0.0) / count, np.nan)
        return self.within, expanded.reshape(-1, *values.shape[1:])

    def image(self, values: np.ndarray) -> Any:
        """Return (n_targets,) or (n_targets, n_maps) as a volume that is NaN outside the mask."""
        import nibabel

        if self.within is not None:
            space, values = self.expand_parcels(values)
            return space.image(values)
        if self.mask is None:
            raise RecordingError(f"A recording with {self.kind} has no image.")
        shape = self.mask.shape + values.shape[1:]
        volume = np.full(shape, np.nan, dtype=np.float32)
        volume[self.mask] = values
        return nibabel.Nifti1Image(volume, self.affine)

    def write(self, values: np.ndarray, stem: Path | str) -> list[Path]:
        """Write a map: `stem`.nii.gz, `stem`_hemi-{L,R}.func.gii, or `stem`.tsv with one row per column name.

        Parcels are written twice: as a table, and as a map in the space that they were averaged in.
        """
        stem = as_path(stem)
        import nibabel

        if self.within is not None and self.within.kind != "columns":
            space, expanded = self.expand_parcels(values)
            return [*space.write(expanded, stem), *replace(self, within=None).write(values, stem)]
        if self.kind == "volume":
            path = stem.with_name(stem.name + ".nii.gz")
            with atomic_write(path) as draft:
                nibabel.save(self.image(values), draft)
            return [path]
        if self.kind == "surface" and self.hemispheres is not None:
            paths, start = [], 0
            for hemi, size in zip("LR", self.hemispheres, strict=True):
                path = stem.with_name(f"{stem.name}_hemi-{hemi}.func.gii")
                part = np.asarray(values[start : start + size], dtype=np.float32)
                array = nibabel.gifti.GiftiDataArray(
                    part, intent="NIFTI_INTENT_NONE", datatype="NIFTI_TYPE_FLOAT32"
                )
                with atomic_write(path) as draft:
                    draft.write_bytes(nibabel.gifti.GiftiImage(darrays=[array]).to_bytes())
                paths.append(path)
                start += size
            return paths
        path = stem.with_name(stem.name + ".tsv")
        with atomic_write(path) as draft:
            table = safe_cells(pd.DataFrame({"target": self.names, "value": values}))
            table.to_csv(draft, sep="\t", index=False, na_rep="n/a")
        return [path]

    def same_as(self, space: Space) -> bool:
        """Whether the columns of two spaces are the same; those of parcels are if their names are."""
        return (
            self.kind == space.kind
            and np.array_equal(self.names, space.names)
            and self.hemispheres == space.hemispheres
            and (self.mask is None or (space.mask is not None and np.array_equal(self.mask, space.mask)))
            and (self.affine is None or (space.affine is not None and np.allclose(self.affine, space.affine)))
        )


def volume_space(mask: Path | str | None, images: Sequence[Path | str], all_voxels: bool = False) -> Space:
    """Return the space of the voxels inside a mask, or inside the mask computed over all images.

    Parameters
    ----------
    mask : a mask image, resampled (nearest neighbour) to the grid of the first image; None computes one with
        nilearn's ``compute_multi_epi_mask``, one image in memory at a time
    images : the 4D images of all runs
    all_voxels : use all voxels of the grid, air included, as some published pipelines do
    """
    mask = None if mask is None else as_path(mask)
    images = [as_path(path) for path in images]
    first = load_image(require_file(images[0], RecordingError, "recording"))
    if all_voxels:
        inside = np.ones(first.shape[:3], dtype=bool)
        source = "The grid"
    elif mask is not None:
        image = load_image(require_file(mask, RecordingError, "mask"))
        inside = _resample_mask(image, np.empty(first.shape[:3]), first.affine)
        source = f"The mask {mask}"
    else:
        from nilearn import masking

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nilearn warns of an empty mask; it is an error below
            try:
                computed = masking.compute_multi_epi_mask([str(p) for p in images], n_jobs=1)
            except (ValueError, OSError, EOFError, zlib.error) as error:
                raise RecordingError(
                    f"No mask could be computed over the {len(images)} images ({error}). Set recording.mask."
                ) from error
        inside = np.asarray(computed.dataobj).astype(bool)
        source = f"The mask computed over {len(images)} images"
    if not inside.any():
        raise RecordingError(
            f"{source} is empty on the grid of {as_path(images[0]).name}: no voxel is inside. Are both in the same space?"
        )
    names = np.array([str(i) for i in range(int(inside.sum()))])
    return Space("volume", names, mask=inside, affine=np.asarray(first.affine))


def common_mask(masks: Sequence[Path | str], image: Path | str) -> Space:
    """Return the space of the voxels inside all of several masks, on the grid of an image."""
    masks = [as_path(path) for path in masks]
    image = as_path(image)
    first = load_image(require_file(image, RecordingError, "recording"))
    inside = np.ones(first.shape[:3], dtype=bool)
    for mask in dict.fromkeys(masks):
        inside &= _resample_mask(load_image(require_file(mask, RecordingError, "mask")), inside, first.affine)
    if not inside.any():
        raise RecordingError(
            f"No voxel is inside all of the {len(set(masks))} masks, the first of which is {masks[0]}. Are they in one space?"
        )
    return Space("volume", np.array([str(i) for i in range(int(inside.sum()))]), inside, first.affine)


def _resample_mask(image: Any, grid: np.ndarray | None, affine: np.ndarray | None) -> np.ndarray:
    """Resample a mask image to a grid by nearest neighbour."""
    if grid is None or affine is None:
        raise RecordingError("This recording has no grid to resample a mask to.")
    data = read_data(image)
    if data.ndim != 3:
        name = image.get_filename() or "The mask"
        raise RecordingError(f"{name} has shape {data.shape}; a mask is a 3D image.")
    binary = (np.nan_to_num(data) > 0).astype(np.uint8)
    return resample_nearest(binary, image.affine, grid.shape[:3], affine).astype(bool)


def read_data(image: Any) -> np.ndarray:
    """Read the data of an image; a fourth axis of length 1 is dropped."""
    try:
        data = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        name = image.get_filename() or "The image"
        raise RecordingError(f"{name} cannot be read to its end ({error}). Fetch it again.") from error
    return data[..., 0] if data.ndim == 4 and data.shape[3] == 1 else data


def is_on_grid(
    data: np.ndarray, affine: np.ndarray, grid_shape: Sequence[int], grid_affine: np.ndarray
) -> bool:
    """Whether an image is on a grid already, to a thousandth of a millimetre."""
    return tuple(data.shape[:3]) == tuple(grid_shape) and bool(np.allclose(affine, grid_affine, atol=1e-3))


def resample_nearest(
    data: np.ndarray, affine: np.ndarray, grid_shape: Sequence[int], grid_affine: np.ndarray
) -> np.ndarray:
    """Resample (x, y, z) data to a grid by nearest neighbour, with nilearn; 0 where the two do not overlap."""
    import nibabel
    from nilearn import image as nilearn_image

    if is_on_grid(data, affine, grid_shape, grid_affine):
        return data
    try:
        resampled = nilearn_image.resample_img(
            nibabel.Nifti1Image(data, affine),
            target_affine=grid_affine,
            target_shape=tuple(grid_shape),
            interpolation="nearest",
            copy_header=True,
            force_resample=True,
        )
    except ValueError:  # nilearn's BoundingBoxError: the two do not overlap
        return np.zeros(tuple(grid_shape), dtype=data.dtype)
    return np.asarray(resampled.dataobj)


def load_image(path: Path | str) -> Any:
    """Open an image without reading its data."""
    path = as_path(path)
    import nibabel

    try:
        return nibabel.load(path)
    except Exception as error:  # nibabel raises errors of many kinds for a file that is no image
        raise RecordingError(f"{path} cannot be read as an image ({error}). Is it complete?") from error
