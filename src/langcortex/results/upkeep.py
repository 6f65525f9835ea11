"""Checks of what a study left on disk, and a list of what no study needs any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langcortex.cache import Store, list_drafts, remove
from langcortex.errors import StoreError
from langcortex.features.models.weights import cache_folder
from langcortex.results.manifest import FILE, read_manifest, verify_files


@dataclass(frozen=True)
class Leftover:
    """A draft, or a stored result, that nothing needs.

    Attributes
    ----------
    path : a file or a folder
    size : bytes
    reason : why it is not needed
    """

    path: Path
    size: int
    reason: str


def verify_folders(folders: Sequence[Path]) -> tuple[list[str], int]:
    """Check results folders and stores: every file against the manifest, every stored array against its digest.

    Parameters
    ----------
    folders : of results, with a manifest or ``kept/``; of kept results; or the cache. The cache of features where there are none

    Returns
    -------
    problems : one sentence each
    n_checked : files and stored results that were looked at

    Raises
    ------
    StoreError : a folder is not there, or holds neither results nor a store
    """
    problems, n_checked = [], 0
    for folder in folders or [cache_folder() / "features"]:
        if not folder.is_dir() and (folders or folder.exists()):
            raise StoreError(f"{folder} is not a folder. Give a results folder, or a folder of kept results.")
        has_manifest, stores = (folder / FILE).exists(), _stores(folder)
        if not has_manifest and not stores and folders:
            raise StoreError(
                f"{folder} holds neither {FILE} nor stored results. Give a results folder, or a folder of kept results."
            )
        if has_manifest:
            try:
                n_checked += len(read_manifest(folder).files)
                problems += verify_files(folder)
            except StoreError as error:
                problems.append(str(error))
        for store in stores:
            for key in store.list_keys():
                n_checked += 1
                if problem := store.problem(key):
                    problems.append(
                        f"{store.root / key} is damaged: {problem}. The next run computes it again."
                    )
    return problems, n_checked


def _stores(folder: Path) -> list[Store]:
    """Return the stores of a folder: those inside it, or the folder itself."""
    inside = [Store(folder / name) for name in ("kept", "features") if (folder / name).is_dir()]
    itself = Store(folder)
    return inside or (
        [itself] if any(os.path.lexists(folder / key / "meta.json") for key in itself.list_keys()) else []
    )


def list_leftovers(folders: Sequence[Path]) -> list[Leftover]:
    """List drafts that no process will finish, and stored results that no manifest of some results folders names.

    Parameters
    ----------
    folders : of the results that are needed. Where there are none, stored features are not listed: nothing says which are needed

    Raises
    ------
    StoreError : a folder has no manifest
    """
    features = Store(cache_folder() / "features")
    named: set[str] = set()
    for folder in folders:
        if not (folder / FILE).is_file():
            raise StoreError(
                f"{folder} has no {FILE}, which names the stored results that it needs. Run the study, then clean again."
            )
        named.update(read_manifest(folder).kept_results)
    leftovers = [
        Leftover(path, _size(path), "draft of a process that ended")
        for folder in [*folders, cache_folder()]
        for path in list_drafts(folder)
    ]
    for store in [*(Store(folder / "kept") for folder in folders), *([features] if folders else [])]:
        leftovers += [
            Leftover(store.root / key, _size(store.root / key), "named by no manifest")
            for key in store.list_keys()
            if key not in named
        ]
    return leftovers


def remove_leftovers(leftovers: Sequence[Leftover]) -> list[Leftover]:
    """Remove leftovers, and return those that are still there."""
    for leftover in leftovers:
        remove(leftover.path)
    return [leftover for leftover in leftovers if os.path.lexists(leftover.path)]


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder, links not followed."""
    try:
        total = path.lstat().st_size
        if path.is_dir() and not path.is_symlink():
            total = sum(
                Path(root, name).lstat().st_size for root, _, names in os.walk(path) for name in names
            )
    except OSError:
        return 0
    return total
