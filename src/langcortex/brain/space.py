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

from langcortex.brain.volumes import check_affine, check_size, mean_and_spread
from langcortex.cache import atomic_write
from langcortex.errors import RecordingError
from langcortex.paths import as_path, require_file, safe_cells

MASK_HINT = "Set recording.mask_threshold to the least value inside."
REGION_HINT = "Region '{name}': set recording.region_threshold to the least value inside."
CENTRED = 1.0  # mean over standard deviation of a voxel, below which an image is centred


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

    def with_regions(
        self, regions: Mapping[str, Path | str | Sequence[str]], threshold: float | None = None
    ) -> Space:
        """Return this space with named groups of targets as its regions.

        Parameters
        ----------
        regions : name → a mask image (nearest-neighbour resampled to this grid), a .npy of booleans or of
            column numbers, or a list of column names
        threshold : least value inside a mask image of more than two values
        """
        if "brain" in regions:
            raise RecordingError("A region cannot be called 'brain': that is all targets. Rename it.")
        named = {name: self._region(name, source, threshold) for name, source in regions.items()}
        return replace(self, regions=named)

    def _region(self, name: str, source: Path | str | Sequence[str], threshold: float | None) -> np.ndarray:
        if isinstance(source, Path | str):
            path = require_file(as_path(source), RecordingError, f"mask of region '{name}'")
            if path.suffix == ".npy":
                inside = np.zeros(self.n_targets, dtype=bool)
                try:
                    inside[_columns_of(np.load(path, allow_pickle=False), self.n_targets)] = True
                except (IndexError, ValueError, OSError, EOFError) as error:
                    raise RecordingError(
                        f"Region '{name}': {path} must contain {self.n_targets} booleans, or column numbers below {self.n_targets} ({error})."
                    ) from error
            elif self.kind == "volume":
                hint = REGION_HINT.format(name=name)
                inside = _resample_mask(path, self.mask, self.affine, threshold, hint)[self.mask]
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


def _columns_of(stored: np.ndarray, n_targets: int) -> np.ndarray:
    """Return booleans or column numbers; refuse what may be a mask stored as numbers."""
    if stored.dtype == bool:
        if len(stored) != n_targets:
            raise ValueError(f"it has {len(stored)} booleans")
        return stored
    if stored.dtype.kind not in "iu" or stored.ndim != 1:
        raise ValueError(f"it has values of type {stored.dtype} and shape {stored.shape}")
    if len(stored) and (stored.min() < 0 or len(np.unique(stored)) < len(stored)):
        raise ValueError("its numbers are negative or occur twice, as in a mask or an atlas; save booleans")
    return stored


def volume_space(
    mask: Path | None, images: Sequence[Path], all_voxels: bool = False, threshold: float | None = None
) -> Space:
    """Return the space of the voxels inside a mask, or inside the mask computed over all images.

    Parameters
    ----------
    mask : a mask image, resampled (nearest neighbour) to the grid of the first image; None computes one with
        nilearn's ``compute_multi_epi_mask``, one image in memory at a time
    images : the 4D images of all runs
    all_voxels : use all voxels of the grid, air included, as some published pipelines do
    threshold : least value inside a mask image of more than two values

    Raises
    ------
    RecordingError : the mask has more than two values and no threshold, is empty, or would be computed over images
        that are centred already
    """
    mask = None if mask is None else as_path(mask)
    images = [as_path(path) for path in images]
    first = load_image(require_file(images[0], RecordingError, "recording"))
    if all_voxels:
        inside = np.ones(first.shape[:3], dtype=bool)
        source = "The grid"
    elif mask is not None:
        require_file(mask, RecordingError, "mask")
        inside = _resample_mask(mask, np.empty(first.shape[:3]), first.affine, threshold, MASK_HINT)
        source = f"The mask {mask}"
    else:
        inside = _compute_mask(images)
        source = f"The mask computed over {len(images)} images"
    if not inside.any():
        raise RecordingError(
            f"{source} is empty on the grid of {as_path(images[0]).name}: no voxel is inside. Are both in the same space?"
        )
    names = np.array([str(i) for i in range(int(inside.sum()))])
    return Space("volume", names, mask=inside, affine=np.asarray(first.affine))


def _compute_mask(images: Sequence[Path]) -> np.ndarray:
    """Compute the mask that most images share, as nilearn's ``compute_multi_epi_mask``: (x, y, z) bool."""
    import nibabel
    from nilearn import masking

    masks = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn warns of an empty mask; it is an error later
        try:
            for path in images:
                mean, spread, affine = mean_and_spread(path)
                masks.append(masking.compute_epi_mask(nibabel.Nifti1Image(mean, affine)))
                _refuse_centred(mean, spread, np.asarray(masks[-1].dataobj).astype(bool), path)
            computed = masking.intersect_masks(masks, connected=True, threshold=0.5)
        except (ValueError, OSError, EOFError, IndexError, zlib.error) as error:
            raise RecordingError(
                f"No mask could be computed over the {len(images)} images ({error}). Set recording.mask."
            ) from error
    return np.asarray(computed.dataobj).astype(bool)


def _refuse_centred(mean: np.ndarray, spread: np.ndarray, inside: np.ndarray, path: Path) -> None:
    """Refuse an image whose voxels inside its mask vary about 0: their means say nothing of where the brain is."""
    varies = np.isfinite(spread) & (spread > 0)
    varies = varies & inside if (varies & inside).any() else varies
    if not varies.any():
        return
    # noise of an empty scanner alone has a mean of 1.9 of its standard deviations
    if float(np.median(np.abs(mean[varies]) / spread[varies])) < CENTRED:
        raise RecordingError(
            f"{path} varies about 0, as images do that are centred or z-scored already, so no mask can be computed from it. "
            'Give a mask: set recording.mask to an image, or to "all".'
        )


def common_mask(masks: Sequence[Path], image: Path, threshold: float | None = None) -> Space:
    """Return the space of the voxels inside all of several masks, on the grid of an image."""
    masks = [as_path(path) for path in masks]
    image = as_path(image)
    first = load_image(require_file(image, RecordingError, "recording"))
    inside = np.ones(first.shape[:3], dtype=bool)
    for mask in dict.fromkeys(masks):
        require_file(mask, RecordingError, "mask")
        inside &= _resample_mask(mask, inside, first.affine, threshold, MASK_HINT)
    if not inside.any():
        raise RecordingError(
            f"No voxel is inside all of the {len(set(masks))} masks, the first of which is {masks[0]}. Are they in one space?"
        )
    return Space("volume", np.array([str(i) for i in range(int(inside.sum()))]), inside, first.affine)


def _resample_mask(
    path: Path, grid: np.ndarray | None, affine: np.ndarray | None, threshold: float | None, hint: str
) -> np.ndarray:
    """Resample a mask image to a grid by nearest neighbour.

    Parameters
    ----------
    threshold : least value inside; None where the mask has two values
    hint : which setting to use where it has more
    """
    image = load_image(path)
    check_size(image, path)
    if grid is None or affine is None:
        raise RecordingError("This recording has no grid to resample a mask to.")
    data = read_data(image)
    if data.ndim != 3:
        raise RecordingError(f"{path} has shape {data.shape}; a mask is a 3D image.")
    check_affine(image.affine, path)
    binary = _binarise(data, path, threshold, hint).astype(np.uint8)
    return resample_nearest(binary, image.affine, grid.shape[:3], affine).astype(bool)


def _binarise(data: np.ndarray, path: Path, threshold: float | None, hint: str) -> np.ndarray:
    """Return which voxels are inside a mask; NaN is outside."""
    if data.dtype.kind not in "biuf":
        raise RecordingError(f"{path} has {data.dtype} values; a mask of numbers is needed.")
    filled = np.where(np.isnan(data), 0, data) if data.dtype.kind == "f" else data
    if threshold is not None:
        inside: np.ndarray = filled >= threshold
        return inside
    values = np.unique(filled)
    if (
        len(values) > 2
        or (len(values) == 2 and values[0] != 0)
        or values[0] < 0
        or not np.isfinite(values).all()
    ):
        is_labels = bool((values == np.round(values)).all() and values[0] >= 0)
        what = (
            "whole numbers, as an atlas of labels has"
            if is_labels
            else "as a probability or statistical map has"
        )
        atlas = " For an atlas, set recording.atlas.file instead." if is_labels else ""
        raise RecordingError(
            f"{path} has {len(values):,} different values ({values[0]:.4g} to {values[-1]:.4g}), {what}; a mask has two, one of them 0. "
            f"{hint}{atlas}"
        )
    return filled > 0


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
