"""Preprocessed images, selected by the entities of their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from langcortex.datasets.bids import ENTITIES, BidsFile, is_volume, list_entries, list_files
from langcortex.errors import RecordingError, SettingsError
from langcortex.paths import natural_key

KINDS = ("volume", "surface")
_NOT_OF_RUNS = ("sub", "task", "echo", "hemi", "space", "cohort", "res", "den", "desc")


def find_derivatives(path: Path, derivatives: str) -> tuple[Path, list[BidsFile]]:
    """Find the folder of derivatives, below `path` or `path` itself, and list its files.

    Without a name, the folders searched are `path`, ``derivatives/fmriprep`` and ``derivatives`` in it, and then the folders
    directly below the first and the last, so that ``derivatives`` may be given for ``derivatives/fmriprep-24.1``.

    Raises
    ------
    RecordingError : there is no such folder, or there are several
    """
    if derivatives:
        folder = path / Path(derivatives).expanduser()
        if not folder.is_dir():
            raise RecordingError(
                f"There is no folder {folder}. Check data.options.derivatives and data.path."
            )
        return folder, list_files(folder)
    folders = [path, path / "derivatives" / "fmriprep", path / "derivatives"]
    listed = {folder: list_files(folder) for folder in folders}
    for folder in folders:
        if any(_is_preprocessed(file) for file in listed[folder]):
            return folder, listed[folder]
    below = {folder: list_files(folder) for parent in (path, folders[2]) for folder in _pipelines(parent)}
    matches = [folder for folder, files in below.items() if any(_is_preprocessed(file) for file in files)]
    if len(matches) > 1:
        names = ", ".join(str(folder.relative_to(path)) for folder in matches)
        raise RecordingError(
            f"{path} has {len(matches)} folders of preprocessed images: {names}. Choose with data.options.derivatives."
        )
    if matches:
        return matches[0], below[matches[0]]
    raise RecordingError(_explain_nothing(path, listed | below))


def _pipelines(folder: Path) -> list[Path]:
    """List the folders that may be a pipeline's, which holds the subjects."""
    skipped = ("sub-", ".", "sourcedata", "code", "logs", "figures", "stimuli")
    return [Path(e.path) for e in list_entries(folder) if e.is_dir() and not e.name.startswith(skipped)]


def _is_preprocessed(file: BidsFile) -> bool:
    is_surface = file.extension in (".func.gii", ".dtseries.nii")
    return is_surface or (file.suffix == "bold" and is_volume(file) and bool(file.get("desc")))


def _explain_nothing(path: Path, listed: Mapping[Path, Sequence[BidsFile]]) -> str:
    """Return a sentence on why no folder has preprocessed images."""
    for folder, files in listed.items():
        minimal = any(f.suffix == "boldref" and f.get("desc") in ("hmc", "coreg") for f in files)
        if minimal or any(f.suffix == "xfm" and f.get("from") == "boldref" for f in files):
            return (
                f"{folder} is what fMRIPrep writes with --level minimal: reference images and transforms, but no preprocessed "
                f"BOLD images. Run fMRIPrep with --level full (--derivatives {folder} takes over what is there)."
            )
    if path.name.startswith(("sub-", "ses-")) or path.name == "func":
        top = next((p for p in path.absolute().parents if not p.name.startswith(("sub-", "ses-"))), path)
        return (
            f"{path} is inside the folder of one subject. Set data.path to the folder of all subjects: {top}."
        )
    return (
        f"No preprocessed images (sub-*/func/*_desc-preproc_bold.nii.gz or *.func.gii) were found in {path}, "
        f"{path / 'derivatives' / 'fmriprep'} or {path / 'derivatives'}. Check data.path, or set data.options.derivatives."
    )


def leave_out_concatenations(images: list[BidsFile]) -> tuple[list[BidsFile], list[str]]:
    """Leave out images of several runs in one, which some pipelines (XCP-D) write beside the runs.

    Returns
    -------
    images : the others
    remarks : a sentence per image left out
    """
    numbered = {_without_run(image) for image in images if image.get("run")}
    single = [image for image in images if image.get("run") or _without_run(image) not in numbered]
    remarks = [
        f"{image.path.name} is left out: it stands beside runs with a number, whose scans it joins."
        for image in images
        if image not in single
    ]
    return single, remarks


def _without_run(image: BidsFile) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in image.entities.items() if key != "run"))


def is_image(file: BidsFile, kind: str) -> bool:
    """Whether a file is the image of a run; single echoes and phase images are not."""
    if not file.get("sub") or not file.get("task") or file.get("echo") or file.get("part") == "phase":
        return False
    if kind == "volume":
        return file.suffix == "bold" and is_volume(file)
    return file.suffix in ("bold", "") and file.extension == ".func.gii" and file.get("hemi") in ("L", "R")


def explain_no_images(folder: Path, files: Sequence[BidsFile], kind: str) -> str:
    """Return a sentence on why a folder has no images of a kind, and what to do."""
    alternative = next(k for k in KINDS if k != kind)
    if any(is_image(file, alternative) for file in files):
        return f'{folder} has no {kind} images, but {alternative} images. Set data.options.kind = "{alternative}".'
    if any(file.extension == ".dtseries.nii" for file in files):
        return (
            f"{folder} has CIFTI images (.dtseries.nii), which are not read. Let fMRIPrep write surfaces "
            "(--output-spaces fsaverage) or volumes (MNI152NLin2009cAsym)."
        )
    if any(file.get("echo") and file.suffix == "bold" for file in files):
        return (
            f"{folder} has single echoes only (echo-1, …), no image that combines them. Run fMRIPrep without --me-output-echos, or "
            'on all echoes, or read one echo with data.corpus = "files".'
        )
    return f"{folder} has no {kind} images. Check data.path and data.options.derivatives."


def select_images(
    images: list[BidsFile], entity: str, choice: str | Sequence[str], option: str
) -> list[BidsFile]:
    """Select the images with the chosen values of an entity; without a choice, all must have the same value.

    Parameters
    ----------
    entity : e.g. "space"
    choice : one value or several; "func" (for the space) and "none" select the images whose name lacks the entity
    option : the name of the choice in the study file

    Raises
    ------
    SettingsError : there are several values and no choice, or no image has the chosen value
    """
    absent = "func" if entity == "space" else "none"
    values = {image: image.get(entity) or absent for image in images}
    available = sorted(set(values.values()), key=natural_key)
    listed = ", ".join(available[:12]) + (" …" if len(available) > 12 else "")
    if not choice and len(available) > 1:
        raise SettingsError(
            f"There are images of {len(available)} kinds of {option}: {listed}. Choose with data.options.{option}."
        )
    choices = [str(value) for value in choice] if isinstance(choice, list | tuple) else [str(choice)]
    missing = next((value for value in choices if value and value not in available), None)
    if missing is not None:
        raise SettingsError(
            f"No image has the {option} '{missing}' (data.options.{option}). There are: {listed}."
        )
    return [image for image in images if not choice or values[image] in choices]


def select_description(images: list[BidsFile], desc: str, kind: str) -> list[BidsFile]:
    """Select the images of one description; surfaces of fMRIPrep have none."""
    if kind == "surface" and desc == "preproc":
        surfaces = [image for image in images if image.get("desc") in ("", "preproc")]
        if surfaces:
            return surfaces
    return select_images(images, "desc", desc, "desc")


def varying_entities(images: Iterable[BidsFile]) -> list[str]:
    """List the entities other than the task that differ between the runs of a subject, in the order of names."""
    values: dict[tuple[str, str], set[str]] = {}
    images = list(images)
    standard = [e for e in ENTITIES if e not in _NOT_OF_RUNS]
    custom = {e for image in images for e in image.entities if e not in ENTITIES}
    for image in images:
        for entity in (*standard, *custom):
            values.setdefault((image.get("sub"), entity), set()).add(image.get(entity))
    varying = {entity for (_, entity), distinct in values.items() if len(distinct) > 1}
    return [e for e in (*standard, *sorted(custom)) if e in varying]


def name_run(image: BidsFile, varying: Sequence[str]) -> str:
    """Name a run by its task and the entities that vary, e.g. "ses-2_task-story_run-1"."""
    session = [e for e in varying if e == "ses"]
    entities = [*session, "task", *(e for e in varying if e != "ses")]
    return "_".join(f"{entity}-{image.get(entity)}" for entity in entities if image.get(entity))
