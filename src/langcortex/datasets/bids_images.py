"""Choosing preprocessed images by what their names say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from langcortex.datasets.bids import ENTITIES, BidsFile, list_entities
from langcortex.errors import RecordingError, SettingsError
from langcortex.paths import natural_key

KINDS = ("volume", "surface")
_NOT_RUNS = ("sub", "task", "echo", "hemi", "space", "cohort", "res", "den", "desc")


def find_images(path: Path, derivatives: str) -> tuple[Path, list[BidsFile]]:
    """Find the folder of derivatives, below `path` or `path` itself, and list it.

    Raises
    ------
    RecordingError : there is none
    """
    if derivatives:
        folder = path / Path(derivatives).expanduser()
        if not folder.is_dir():
            raise RecordingError(
                f"There is no folder {folder}. Check data.options.derivatives and data.path."
            )
        return folder, list_entities(folder)
    for folder in (path, path / "derivatives" / "fmriprep", path / "derivatives"):
        names = list_entities(folder)
        if any(
            n.extension in (".func.gii", ".dtseries.nii") or (n.suffix == "bold" and n.of("desc"))
            for n in names
        ):
            return folder, names
    raise RecordingError(
        f"No preprocessed images (sub-*/func/*_desc-preproc_bold.nii.gz or *.func.gii) were found in {path}, "
        f"{path / 'derivatives' / 'fmriprep'} or {path / 'derivatives'}. Check data.path, or set data.options.derivatives."
    )


def is_image(named: BidsFile, kind: str) -> bool:
    """Say whether a file is a run's image; single echoes and phase images are not."""
    if not named.of("sub") or not named.of("task") or named.of("echo") or named.of("part") == "phase":
        return False
    if kind == "volume":
        return named.suffix == "bold" and named.extension in (".nii", ".nii.gz")
    return named.suffix in ("bold", "") and named.extension == ".func.gii" and named.of("hemi") in ("L", "R")


def no_images(folder: Path, names: Sequence[BidsFile], kind: str) -> str:
    """Say why a folder has no images of a kind, and what to do."""
    other = next(k for k in KINDS if k != kind)
    if any(is_image(n, other) for n in names):
        return f'{folder} has no {kind} images, but {other} images. Set data.options.kind = "{other}".'
    if any(n.extension == ".dtseries.nii" for n in names):
        return (
            f"{folder} has CIFTI images (.dtseries.nii), which are not read. Let fMRIPrep write surfaces "
            "(--output-spaces fsaverage) or volumes (MNI152NLin2009cAsym)."
        )
    return f"{folder} has no {kind} images. Check data.path and data.options.derivatives."


def keep_space(
    images: list[BidsFile], entity: str, wanted: str | Sequence[str], option: str
) -> list[BidsFile]:
    """Keep the images with the wanted value of an entity; the only one there is, when none is wanted.

    Parameters
    ----------
    entity : e.g. "space"
    wanted : one value or several; "func" and "none" are the images whose name lacks the space, or another entity
    option : what the study file calls it

    Raises
    ------
    SettingsError : there are several and none is wanted, or there is no such image
    """
    absent = "func" if entity == "space" else "none"
    values = {image: image.of(entity) or absent for image in images}
    there = sorted(set(values.values()), key=natural_key)
    shown = ", ".join(there[:12]) + (" …" if len(there) > 12 else "")
    if not wanted and len(there) > 1:
        raise SettingsError(
            f"There are images of {len(there)} kinds of {option}: {shown}. Choose with data.options.{option}."
        )
    asked = [str(w) for w in wanted] if isinstance(wanted, list | tuple) else [str(wanted)]
    missing = next((w for w in asked if w and w not in there), None)
    if missing is not None:
        raise SettingsError(
            f"No image has the {option} '{missing}' (data.options.{option}). There are: {shown}."
        )
    return [image for image in images if not wanted or values[image] in asked]


def describe_image(images: list[BidsFile], desc: str, kind: str) -> list[BidsFile]:
    """Keep the images of one description; fMRIPrep's own surfaces have none."""
    if kind == "surface" and desc == "preproc":
        plain = [image for image in images if image.of("desc") in ("", "preproc")]
        if plain:
            return plain
    return keep_space(images, "desc", desc, "desc")


def varying_entities(images: Iterable[BidsFile]) -> list[str]:
    """List the entities that tell a subject's runs apart, beside the task, in the order of names."""
    values: dict[tuple[str, str], set[str]] = {}
    images = list(images)
    known = [e for e in ENTITIES if e not in _NOT_RUNS]
    others = {e for image in images for e in image.entities if e not in ENTITIES}
    for image in images:
        for entity in (*known, *others):
            values.setdefault((image.of("sub"), entity), set()).add(image.of(entity))
    varies = {entity for (_, entity), found in values.items() if len(found) > 1}
    return [e for e in (*known, *sorted(others)) if e in varies]


def run_name(image: BidsFile, varying: Sequence[str]) -> str:
    """Name a run by its task and the entities that vary, e.g. "ses-2_task-story_run-1"."""
    front = [e for e in varying if e == "ses"]
    parts = [*front, "task", *(e for e in varying if e != "ses")]
    return "_".join(f"{entity}-{image.of(entity)}" for entity in parts if image.of(entity))
