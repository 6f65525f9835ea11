"""The manifest of a results folder: which files belong to a study, made by which step, from which inputs.

A step replaces its own files only: what an earlier run of it wrote and nobody changed since is removed, everything else
stays and is named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langcortex.cache import NOTES, atomic_write
from langcortex.errors import StoreError

FILE = "manifest.json"
VERSION = 1
BESIDE = ("kept",)  # folders that hold no results


@dataclass(frozen=True)
class ManifestEntry:
    """One file of a results folder.

    Attributes
    ----------
    size : bytes
    sha256 : of its contents
    step : what made it, such as "run" or "audit"
    """

    size: int
    sha256: str
    step: str


@dataclass(frozen=True)
class Manifest:
    """Every file that belongs to a study, and what it was made from.

    Attributes
    ----------
    study : name of the study
    files : path relative to the folder, with ``/`` → entry
    inputs : step → input → hash, such as a recording or a model and the digest of its contents
    kept_results : names of kept results that files were made from
    """

    study: str = ""
    files: Mapping[str, ManifestEntry] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kept_results: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what is written to disk, in order of names."""
        return {
            "version": VERSION,
            "study": self.study,
            "files": {name: asdict(self.files[name]) for name in sorted(self.files)},
            "inputs": {step: dict(sorted(self.inputs[step].items())) for step in sorted(self.inputs)},
            "kept": sorted(self.kept_results),
        }


def file_sha256(path: Path) -> str:
    """Hash a file's contents without holding it in memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a results folder; an empty one where there is none.

    Raises
    ------
    StoreError : it cannot be read
    """
    path = folder / FILE
    if not path.is_file():
        return Manifest()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        files = {
            str(name): ManifestEntry(int(entry["size"]), str(entry["sha256"]), str(entry["step"]))
            for name, entry in values["files"].items()
        }
        inputs = {
            str(step): {str(k): str(v) for k, v in hashes.items()}
            for step, hashes in values["inputs"].items()
        }
        return Manifest(str(values["study"]), files, inputs, tuple(map(str, values["kept"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}). Delete it: the next run writes it anew and leaves all other files as they are."
        ) from error


def update_manifest(
    folder: Path,
    step: str,
    written: Iterable[Path],
    *,
    study: str,
    inputs: Mapping[str, str] | None = None,
    kept_results: Iterable[str] = (),
    only: Iterable[str] | None = None,
) -> list[str]:
    """Enter the files that a step wrote, and remove what an earlier run of it wrote and nobody changed since.

    A manifest that is damaged is written anew, with a note; nothing is removed then.

    Parameters
    ----------
    folder : of the results
    step : what made the files
    written : their paths, inside ``folder``
    study : its name; that of the manifest where it is ""
    inputs : input → hash, of what the step read
    kept_results : names of kept results that the files were made from
    only : names of files that this part of the step makes; what other parts wrote stays. All when None

    Returns
    -------
    files of the folder that no step of the study wrote, or that were changed since: they stay
    """
    try:
        before = read_manifest(folder)
    except StoreError as error:
        NOTES.warning(f"{folder / FILE} was damaged and is written anew ({error.__cause__}).")
        before = Manifest()
    parts = None if only is None else set(only)
    entries = {
        path.relative_to(folder).as_posix(): ManifestEntry(path.stat().st_size, file_sha256(path), step)
        for path in written
    }
    other_files: dict[str, ManifestEntry] = {}
    for name, entry in before.files.items():
        if entry.step != step or (parts is not None and name not in parts):
            other_files[name] = entry
        elif name not in entries and _is_unchanged(folder / name, entry):
            with contextlib.suppress(OSError):  # it stays, and is named
                (folder / name).unlink()
    manifest = Manifest(
        study or before.study,
        {**other_files, **entries},
        {**before.inputs, step: {**(before.inputs.get(step, {}) if parts else {}), **(inputs or {})}},
        tuple(sorted({*kept_results})) if step == "run" else before.kept_results,
    )
    with atomic_write(folder / FILE) as draft:
        draft.write_text(json.dumps(manifest.as_json(), indent=1) + "\n", encoding="utf-8")
    return list_strangers(folder, manifest)


def list_strangers(folder: Path, manifest: Manifest) -> list[str]:
    """List the files of a results folder that its manifest does not name, hidden files aside."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        name.as_posix()
        for name in names
        if name.parts[0] not in BESIDE
        and not any(part.startswith(".") for part in name.parts)
        and name.as_posix() not in manifest.files
        and name.as_posix() != FILE
    )


def describe_strangers(folder: Path, names: Sequence[str]) -> str:
    """Return a sentence about files of a results folder that are not the study's."""
    first = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    files = (
        "a file that this study did not write, or that was"
        if len(names) == 1
        else "files that this study did not write, or that were"
    )
    return f"{folder} has {files} changed since: {first}. Nothing was done to {'it' if len(names) == 1 else 'them'}."


def verify_files(folder: Path) -> list[str]:
    """Hold the files of a results folder against its manifest.

    Returns
    -------
    one sentence per file that is missing or was changed
    """
    problems = []
    for name, entry in sorted(read_manifest(folder).files.items()):
        if not (folder / name).is_file():
            problems.append(f"{folder / name} is missing. Run the study again.")
        elif not _is_unchanged(folder / name, entry):
            problems.append(
                f"{folder / name} was changed since the study wrote it. Run the study again to restore it."
            )
    return problems


def _is_unchanged(path: Path, entry: ManifestEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and file_sha256(path) == entry.sha256
