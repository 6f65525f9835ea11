"""Saved results: named by everything that decides them, written completely or not at all, never pickled."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.errors import StoreError

_READING_UMASK = threading.Lock()


def digest(*parts: Any) -> str:
    """Return the name of a result from all that decides it: arrays (dtype, shape, bytes) and JSON values.

    A part that is neither is an error, so that nothing can change a result without changing its name.

    >>> digest(np.arange(3), {"layers": [1, 2]}) == digest(np.arange(3), {"layers": [1, 2]})
    True
    """
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            if part.dtype.kind not in "biufcSU":
                raise TypeError(f"an array of {part.dtype} cannot name a result; use numbers or text")
            h.update(f"array {part.dtype.str} {part.shape} ".encode())
            h.update(np.ascontiguousarray(part).tobytes())
        else:
            h.update(b"json " + json.dumps(part, sort_keys=True, allow_nan=True).encode())
    return h.hexdigest()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` to write into, and move it to `path` if there was no error."""
    draft: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_suffixes(path))
        os.close(handle)
        draft = Path(name)
        yield draft
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} could not be written: {error.strerror or error}. Free some space or choose another folder."
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _suffixes(path: Path) -> str:
    """Return the suffix that libraries read the format from, both parts of '.nii.gz'."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _umask() -> int:
    """Return the permissions that this process removes from new files (they can only be read by setting them)."""
    with _READING_UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


@dataclass(frozen=True)
class Store:
    """A folder of saved results, one folder per result.

    Attributes
    ----------
    root : the folder; created when the first result is saved
    """

    root: Path

    def __contains__(self, key: str) -> bool:
        return (self.root / key / "meta.json").is_file()

    def save(self, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> None:
        """Save named arrays and JSON values under `key`, completely or not at all.

        Two processes may save the same key: the first to finish wins, the copy of the other is dropped.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{key}."))
        except OSError as error:
            raise StoreError(
                f"Nothing can be saved in {self.root}: {error.strerror or error}. Choose another folder."
            ) from error
        try:
            for name, array in arrays.items():
                np.save(draft / f"{name}.npy", array, allow_pickle=False)
            (draft / "meta.json").write_text(json.dumps(dict(meta or {}), sort_keys=True))
            draft.chmod(0o777 & ~_umask())
            try:
                draft.replace(self.root / key)
            except OSError:
                if key not in self:
                    raise
        except OSError as error:
            raise StoreError(
                f"'{key}' could not be saved in {self.root}: {error.strerror or error}. "
                "Free some space; results saved before are complete."
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def array(self, key: str, name: str) -> np.ndarray:
        """Return one array of a saved result, loaded from disk as it is used."""
        try:
            loaded: np.ndarray = np.load(self.root / key / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"{self.root / key / name}.npy cannot be read ({error}). Delete the folder {self.root / key} and run again."
            ) from error
        return loaded

    def meta(self, key: str) -> dict[str, Any]:
        """Return the JSON values of a saved result."""
        try:
            value: dict[str, Any] = json.loads((self.root / key / "meta.json").read_text())
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.root / key}/meta.json cannot be read ({error}). Delete the folder {self.root / key} and run again."
            ) from error
        return value
