"""Recordings: brain responses as scans × targets, with the scanner's clock moved to the story's once, when read."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.errors import RecordingError
from langcortex.files import require_file
from langcortex.store import written_whole


@dataclass(frozen=True, eq=False)
class Space:
    """Where the columns of a recording lie in the brain, both ways.

    Attributes
    ----------
    kind : "volume", "surface" or "columns"
    names : (n_targets,) column names; for images the column numbers
    mask : (x, y, z) bool, the voxels that are columns, in C order ("volume")
    affine : (4, 4) voxel to world coordinates in mm ("volume")
    hemispheres : vertices of the left and right hemisphere ("surface"), e.g. (10242, 10242)
    regions : name → (n_targets,) bool
    """

    kind: str
    names: np.ndarray
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    hemispheres: tuple[int, int] | None = None
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_targets(self) -> int:
        """How many columns a recording in this space has."""
        return len(self.names)

    def with_regions(self, regions: Mapping[str, Path | Sequence[str]]) -> Space:
        """Name groups of targets.

        Parameters
        ----------
        regions : name → a mask image (nearest-neighbour resampled to this grid), a .npy of booleans or of
            column numbers, or a list of column names
        """
        return replace(self, regions={name: self._region(name, where) for name, where in regions.items()})

    def _region(self, name: str, where: Path | Sequence[str]) -> np.ndarray:
        if isinstance(where, Path):
            path = require_file(where, RecordingError, f"mask of region '{name}'")
            if path.suffix == ".npy":
                inside = np.zeros(self.n_targets, dtype=bool)
                try:
                    inside[np.load(path, allow_pickle=False)] = True
                except (IndexError, ValueError, OSError) as error:
                    raise RecordingError(
                        f"Region '{name}': {path} must hold {self.n_targets} booleans, or column numbers below {self.n_targets} ({error})."
                    ) from error
            elif self.kind == "volume":
                inside = _on_grid(_load_image(path), self.mask, self.affine)[self.mask]
            else:
                raise RecordingError(
                    f"Region '{name}': {path} is an image, but this recording has {self.kind}. List names, or give a .npy."
                )
        else:
            known = set(self.names.tolist())
            missing = [str(c) for c in where if str(c) not in known]
            if missing:
                raise RecordingError(
                    f"Region '{name}': no column is called '{missing[0]}'. The columns are: {', '.join(self.names[:12])}."
                )
            inside = np.isin(self.names, [str(c) for c in where])
        if not inside.any():
            raise RecordingError(
                f"Region '{name}' covers none of the {self.n_targets} targets. Is its mask in the same space?"
            )
        return inside

    def image(self, values: np.ndarray) -> Any:
        """Place (n_targets,) or (n_targets, n_maps) back into a volume; outside the mask is NaN."""
        import nibabel

        if self.mask is None:
            raise RecordingError(f"A recording with {self.kind} has no image.")
        shape = self.mask.shape + values.shape[1:]
        volume = np.full(shape, np.nan, dtype=np.float32)
        volume[self.mask] = values
        return nibabel.Nifti1Image(volume, self.affine)

    def write(self, values: np.ndarray, stem: Path) -> list[Path]:
        """Write a map: `stem`.nii.gz, `stem`_hemi-{L,R}.func.gii, or `stem`.tsv with a row a column name."""
        import nibabel

        if self.kind == "volume":
            path = stem.with_name(stem.name + ".nii.gz")
            with written_whole(path) as draft:
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
                with written_whole(path) as draft:
                    draft.write_bytes(nibabel.gifti.GiftiImage(darrays=[array]).to_bytes())
                paths.append(path)
                start += size
            return paths
        path = stem.with_name(stem.name + ".tsv")
        with written_whole(path) as draft:
            pd.DataFrame({"target": self.names, "value": values}).to_csv(
                draft, sep="\t", index=False, na_rep="n/a"
            )
        return [path]

    def same_as(self, other: Space) -> bool:
        """Say whether columns mean the same in both."""
        return (
            self.kind == other.kind
            and np.array_equal(self.names, other.names)
            and self.hemispheres == other.hemispheres
            and (self.mask is None or (other.mask is not None and np.array_equal(self.mask, other.mask)))
            and (self.affine is None or (other.affine is not None and np.allclose(self.affine, other.affine)))
        )


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of one subject.

    Attributes
    ----------
    values : (n_scans, n_targets) float32; a column that is NaN throughout is a target without data
    onset : (n_scans,) when each scan begins, in seconds since the run's stimulus began (negative: before it)
    tr : seconds from scan to scan
    run, subject : names
    space : where the columns lie
    reference : the moment a scan stands for, as a share of the TR after its onset (.5: its middle)
    """

    values: np.ndarray
    onset: np.ndarray
    tr: float
    run: str
    subject: str
    space: Space
    reference: float = 0.5

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != (len(self.onset), self.space.n_targets):
            raise RecordingError(
                f"Run '{self.run}' of subject '{self.subject}': {self.values.shape} values, "
                f"but {len(self.onset)} scans and {self.space.n_targets} targets."
            )
        if not self.tr > 0:
            raise RecordingError(
                f"Run '{self.run}' of subject '{self.subject}': the TR is {self.tr} s. Set recording.tr."
            )

    @property
    def time(self) -> np.ndarray:
        """(n_scans,) the moment each scan stands for, in seconds on the story's clock."""
        moments: np.ndarray = self.onset + self.reference * self.tr
        return moments

    @property
    def end(self) -> float:
        """When the last scan ends, in seconds on the story's clock."""
        return float(self.onset[-1] + self.tr)


@dataclass(frozen=True)
class Cleaning:
    """What is done to every target within a run, before any model sees it.

    Attributes
    ----------
    detrend : remove the linear trend
    high_pass : cut-off in Hz of the cosine drift model; None leaves slow drifts in
    standardise : scale to mean 0 and standard deviation 1
    confounds : columns of the run's confound table to regress out, e.g. motion; with a table and no names, all
    """

    detrend: bool = True
    high_pass: float | None = 1 / 128
    standardise: bool = True
    confounds: tuple[str, ...] = ()

    def apply(self, values: np.ndarray, tr: float, confounds: np.ndarray | None, where: str) -> np.ndarray:
        """Clean (n_scans, n_targets); targets that are NaN throughout, or constant, come back as NaN."""
        from nilearn import signal

        bad = ~np.isfinite(values)
        undefined = bad.all(axis=0)
        partial = bad[:, ~undefined].any(axis=1)
        if partial.any():
            raise RecordingError(
                f"{where}: scan {int(np.flatnonzero(partial)[0])} of {len(values)} holds NaN or infinite values ({int(partial.sum())} "
                "scans do). Repair or censor the image; targets that are NaN in every scan are allowed."
            )
        undefined |= np.ptp(values, axis=0) == 0
        if undefined.all():
            raise RecordingError(
                f"{where}: all {values.shape[1]} targets are constant or empty. Check the mask and the image."
            )
        cleaned = np.full(values.shape, np.nan, dtype=np.float32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*standard deviation.*", category=UserWarning)
            # a run shorter than the slowest drift to remove has no such drift
            warnings.filterwarnings("ignore", message="Cosine filter was not created", category=UserWarning)
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # nilearn announces what standardize=False will be called
            cleaned[:, ~undefined] = signal.clean(
                values[:, ~undefined],
                detrend=self.detrend,
                standardize="zscore_sample" if self.standardise else False,
                standardize_confounds=True,
                confounds=confounds,
                filter="cosine" if self.high_pass else False,
                high_pass=self.high_pass or None,
                t_r=tr,
                ensure_finite=False,
            )
        flat = ~undefined & ~np.isfinite(cleaned).all(axis=0)
        cleaned[:, flat] = np.nan
        return cleaned


def read_recording(
    path: Path | tuple[Path, Path],
    run: str,
    subject: str,
    *,
    space: Space | None = None,
    tr: float | None = None,
    stimulus_onset: float = 0.0,
    reference: float = 0.5,
    cleaning: Cleaning | None = None,
    confounds: Path | None = None,
    columns: Sequence[str] | None = None,
) -> Recording:
    """Read one run.

    Parameters
    ----------
    path : a 4D NIfTI image, a table (.tsv, .csv, .txt, .npy; scans × targets), or the GIFTI files of the left
        and right hemisphere
    run, subject : names
    space : the voxels to take (`volume_space`), and the grid every run must lie on; needed for images
    tr : seconds; from the image's sidecar or header when None
    stimulus_onset : when the story began, in seconds after the first stored scan (8 if four 2-s scans came first)
    reference : the moment a scan stands for, as a share of the TR
    cleaning : `Cleaning()` when None
    confounds : a table of nuisance signals (fMRIPrep's confounds .tsv, or plain columns)
    columns : names of the targets of a table without a header

    Returns
    -------
    Recording, float32
    """
    cleaning = cleaning or Cleaning()
    if cleaning.confounds and confounds is None:
        raise RecordingError(
            f"Run '{run}' of subject '{subject}': the confounds {', '.join(cleaning.confounds)} are to be regressed out, but no table is given. Set recording.confounds."
        )
    where = f"Run '{run}' of subject '{subject}' ({path[0] if isinstance(path, tuple) else path})"
    if isinstance(path, tuple):
        values, tr_found, found = _read_surface(path)
    else:
        require_file(path, RecordingError, "recording")
        if path.name.endswith((".nii", ".nii.gz")):
            if space is None:
                raise RecordingError(f"{where}: an image needs a mask; give recording.mask, or 'compute'.")
            values, tr_found, found = _read_volume(path, space)
        else:
            values, tr_found, found = _read_columns(path, columns)
    if space is not None and not found.same_as(space):
        raise RecordingError(
            f"{where}: its {found.n_targets} targets are not those of the other runs ({space.n_targets})."
        )
    tr = tr or tr_found
    if not tr:
        raise RecordingError(
            f"{where}: neither a sidecar nor the header says how far scans are apart. Set recording.tr, in seconds."
        )
    nuisance = _read_confounds(confounds, cleaning.confounds, len(values)) if confounds else None
    cleaned = cleaning.apply(values, tr, nuisance, where)
    onset = np.arange(len(values), dtype=np.float64) * tr - stimulus_onset
    return Recording(cleaned, onset, float(tr), run, subject, space or found, reference)


def n_scans(path: Path | tuple[Path, Path], columns: Sequence[str] | None = None) -> tuple[int, float | None]:
    """Read how many scans a run has, and its TR if it says so, from its header alone where there is one."""
    if isinstance(path, tuple):
        values, tr, _ = _read_surface(path)
        return len(values), tr
    require_file(path, RecordingError, "recording")
    if path.name.endswith((".nii", ".nii.gz")):
        image = _load_image(path)
        if len(image.shape) != 4:
            raise RecordingError(f"{path} has shape {image.shape}; a 4D image (x, y, z, scans) is needed.")
        return int(image.shape[3]), _tr_of(path, image)
    if path.suffix == ".npy":
        return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0]), None
    return len(_read_columns(path, columns)[0]), None


def volume_space(mask: Path | None, images: Sequence[Path], every_voxel: bool = False) -> Space:
    """Make the space of voxels inside a mask, or inside the mask computed over all the images.

    Parameters
    ----------
    mask : a mask image, resampled (nearest neighbour) to the grid of the first image; None computes one with
        nilearn's ``compute_multi_epi_mask``, one image in memory at a time
    images : the 4D images of every run
    every_voxel : take all voxels of the grid, air included, as some published pipelines do
    """
    first = _load_image(require_file(images[0], RecordingError, "recording"))
    if every_voxel:
        inside = np.ones(first.shape[:3], dtype=bool)
        source = "The grid"
    elif mask is not None:
        image = _load_image(require_file(mask, RecordingError, "mask"))
        inside = _on_grid(image, np.empty(first.shape[:3]), first.affine)
        source = f"The mask {mask}"
    else:
        from nilearn import masking

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nilearn warns of an empty mask; it is an error below
            try:
                computed = masking.compute_multi_epi_mask([str(p) for p in images], n_jobs=1)
            except (ValueError, OSError, EOFError, zlib.error) as error:
                raise RecordingError(
                    f"No mask could be computed over the {len(images)} images ({error}). Give recording.mask."
                ) from error
        inside = np.asarray(computed.dataobj).astype(bool)
        source = f"The mask computed over {len(images)} images"
    if not inside.any():
        raise RecordingError(
            f"{source} is empty on the grid of {images[0].name}: no voxel is inside. Are both in the same space?"
        )
    names = np.array([str(i) for i in range(int(inside.sum()))])
    return Space("volume", names, mask=inside, affine=np.asarray(first.affine))


def average(recordings: Sequence[Recording], subject: str = "average") -> Recording:
    """Average one run over subjects, target by target, leaving out those without data for it."""
    first = recordings[0]
    for other in recordings[1:]:
        if len(other.onset) != len(first.onset) or not np.allclose(other.onset, first.onset):
            raise RecordingError(
                f"Run '{first.run}' cannot be averaged: subject '{first.subject}' has {len(first.onset)} scans and "
                f"'{other.subject}' {len(other.onset)}, or they began at different times."
            )
        if not other.space.same_as(first.space):
            raise RecordingError(
                f"Run '{first.run}' cannot be averaged: '{other.subject}' has other targets than '{first.subject}'."
            )
    total = np.zeros(first.values.shape)
    count = np.zeros(first.values.shape[1])
    for one in recordings:
        defined = ~np.isnan(one.values).any(axis=0)
        total[:, defined] += one.values[:, defined]
        count += defined
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / count, np.nan).astype(np.float32)
    return replace(first, values=mean, subject=subject)


def _load_image(path: Path) -> Any:
    import nibabel

    try:
        return nibabel.load(path)
    except Exception as error:  # nibabel raises errors of many kinds for a file that is no image
        raise RecordingError(f"{path} cannot be read as an image ({error}). Is it complete?") from error


def _tr_of(path: Path, image: Any) -> float | None:
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    if sidecar.is_file():
        try:
            said = json.loads(sidecar.read_text()).get("RepetitionTime")
        except ValueError as error:
            raise RecordingError(f"{sidecar} is not JSON ({error}).") from error
        if said:
            return float(said)
    zooms = image.header.get_zooms()
    scale = {"msec": 1e-3, "usec": 1e-6}.get(image.header.get_xyzt_units()[1], 1.0)
    return float(zooms[3]) * scale if len(zooms) > 3 and zooms[3] > 0 else None


def _read_volume(path: Path, space: Space) -> tuple[np.ndarray, float | None, Space]:
    from nilearn.maskers import NiftiMasker

    image = _load_image(path)
    if len(image.shape) != 4:
        raise RecordingError(f"{path} has shape {image.shape}; a 4D image (x, y, z, scans) is needed.")
    if (
        space.mask is None
        or space.affine is None
        or image.shape[:3] != space.mask.shape
        or not np.allclose(image.affine, space.affine, atol=1e-3)
    ):
        raise RecordingError(
            f"{path} lies on another grid than the mask: {image.shape[:3]}. All runs must share one grid."
        )
    mask = space.image(np.ones(space.n_targets, dtype=np.float32))
    masker = NiftiMasker(_as_mask(mask), standardize=False, dtype="float32", reports=False, verbose=0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Nn]on-finite.*")
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # nilearn announces what standardize=False will be called
            values = _masked_keeping_nan(image, space, masker)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecordingError(f"{path} cannot be read to its end ({error}). Fetch it again.") from error
    return values, _tr_of(path, image), space


def _masked_keeping_nan(image: Any, space: Space, masker: Any) -> np.ndarray:
    """Mask one run; nilearn puts 0 where an image holds NaN, so NaN voxels are put back."""
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


def _read_surface(paths: tuple[Path, Path]) -> tuple[np.ndarray, float | None, Space]:
    import nibabel

    parts, tr = [], None
    for path in paths:
        image = _load_image(require_file(path, RecordingError, "surface"))
        if not isinstance(image, nibabel.gifti.GiftiImage) or not image.darrays:
            raise RecordingError(f"{path} holds no surface data.")
        arrays = [np.asarray(a.data, dtype=np.float32) for a in image.darrays]
        # fMRIPrep writes one array a scan; gifti_io one (vertices, scans) array for all
        parts.append(arrays[0].T if len(arrays) == 1 and arrays[0].ndim == 2 else np.stack(arrays))
        step = next(
            (a.meta.get("TimeStep") for a in image.darrays if a.meta.get("TimeStep")),
            image.meta.get("TimeStep"),
        )
        tr = float(step) / 1000.0 if step else tr
    if len(parts[0]) != len(parts[1]):
        raise RecordingError(
            f"{paths[0].name} has {len(parts[0])} scans but {paths[1].name} {len(parts[1])}."
        )
    values = np.hstack(parts)
    names = np.array([str(i) for i in range(values.shape[1])])
    return values, tr, Space("surface", names, hemispheres=(parts[0].shape[1], parts[1].shape[1]))


def _read_columns(path: Path, columns: Sequence[str] | None) -> tuple[np.ndarray, float | None, Space]:
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
            names = columns
        elif path.suffix in (".tsv", ".csv"):
            # names are given where there is no header: its first row is a scan
            table = pd.read_csv(
                path,
                sep="\t" if path.suffix == ".tsv" else ",",
                na_values=["n/a"],
                header=None if columns else "infer",
            )
            values, names = table.to_numpy(np.float32), columns or [str(c) for c in table.columns]
            if not columns and all(map(_is_number, names)) and not all(n.isdigit() for n in names):
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
    return values, None, Space("columns", np.array([str(n) for n in names]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_confounds(path: Path, names: Sequence[str], scans: int) -> np.ndarray:
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
    chosen = table[list(names)] if names else table
    if len(chosen) != scans:
        raise RecordingError(f"{path} has {len(chosen)} rows but the recording {scans} scans.")
    # the first row of a derivative has no past, is n/a and becomes 0
    try:
        numbers: np.ndarray = chosen.to_numpy(np.float64)
    except (ValueError, TypeError) as error:
        raise RecordingError(
            f"{path} holds text where numbers are needed ({error}). Name the columns to use."
        ) from error
    holes = np.flatnonzero(np.isnan(numbers[1:]).any(axis=1)) + 1
    if len(holes):
        raise RecordingError(
            f"{path} has no number in row {holes[0]} (only the first row may lack one). Choose other columns."
        )
    filled: np.ndarray = np.nan_to_num(numbers, nan=0.0)
    return filled


def _on_grid(image: Any, grid: np.ndarray | None, affine: np.ndarray | None) -> np.ndarray:
    """Bring a mask image to a grid by nearest neighbour."""
    import nibabel
    from nilearn import image as nilearn_image

    if grid is None or affine is None:
        raise RecordingError("This recording has no grid to bring a mask to.")
    name = image.get_filename() or "The mask"
    try:
        data = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecordingError(f"{name} cannot be read to its end ({error}). Fetch it again.") from error
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise RecordingError(f"{name} has shape {data.shape}; a mask is a 3D image.")
    solid = nibabel.Nifti1Image((np.nan_to_num(data) > 0).astype(np.uint8), image.affine)
    if data.shape == grid.shape[:3] and np.allclose(image.affine, affine, atol=1e-3):
        return np.asarray(solid.dataobj).astype(bool)
    try:
        moved = nilearn_image.resample_img(
            solid,
            target_affine=affine,
            target_shape=grid.shape[:3],
            interpolation="nearest",
            copy_header=True,
            force_resample=True,
        )
    except ValueError:  # nilearn's BoundingBoxError: the two do not overlap
        return np.zeros(grid.shape[:3], dtype=bool)
    return np.asarray(moved.dataobj).astype(bool)
