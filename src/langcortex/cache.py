"""Saved results: named by everything that decides them, written completely or not at all, never pickled."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.errors import StoreError

NOTES = logging.getLogger("langcortex")
"""Takes sentences about what was done besides the work; the command line prints them as notes."""

FORMAT = 2  # of meta.json in a store
ENVELOPE = ("store", "key", "arrays", "meta", "digest")  # what meta.json has since digests are kept
DAY = 86_400.0  # s; how long another machine's draft may be written
UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, RecursionError)
BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of the machine, not of a file
_READING_UMASK = threading.Lock()
_IDENTITIES: dict[str, tuple[int, ...]] = {}  # file → its identity when its digest was right
_DRAFT = re.compile(
    r"\.(?P<name>.+)\.((?P<host>[0-9a-f]{6})-(?P<pid>\d+)-)?[a-z0-9_]{8}(?P<suffix>\.[A-Za-z0-9]+)?(\.gz)?"
)


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
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=_draft_prefix(path.name), suffix=_suffixes(path)
        )
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


def make_folder(path: Path) -> Path:
    """Make a folder, and the folders it is in, where they are not there.

    Raises
    ------
    StoreError : it cannot be made
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder {path} cannot be made: {error.strerror or error}. Choose another folder."
        ) from error
    return path


def require_writable(folder: Path) -> None:
    """Check that files can be written in a folder, which is made where it is not there.

    Raises
    ------
    StoreError : they cannot
    """
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=_draft_prefix("test.txt")) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        raise StoreError(
            f"Nothing can be written in {folder}: {error.strerror or error}. "
            "Free some space, change its permissions or choose another folder."
        ) from error


def _draft_prefix(name: str) -> str:
    """Return how a draft's name begins: what it is of, on which machine, and by which process."""
    return f".{name}.{_host()}-{os.getpid()}-"


def _host() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()


def list_drafts(folder: Path, since: float | None = None) -> list[Path]:
    """List drafts that no process will finish, in a folder and the folders in it.

    A draft is abandoned where its process has ended. One that does not say its process is abandoned where it is older than
    `since`, and one of another machine where it is older than that by a day.

    Parameters
    ----------
    folder : of results or of a store; it need not be there
    since : when the present run began, in seconds since 1970; now when None
    """
    since = time.time() if since is None else since
    drafts: list[Path] = []
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _DRAFT.fullmatch(name)
            is_folder = name in folders
            if match is None or not (is_folder or _is_of_file(match)):
                continue
            if is_folder:
                folders.remove(name)
            if _is_abandoned(Path(root, name), match, since):
                drafts.append(Path(root, name))
    return sorted(drafts)


def _is_of_file(match: re.Match[str]) -> bool:
    """Return whether a draft of a file ends as the file does: other hidden files are the user's."""
    return match["suffix"] is not None and match["suffix"] in match["name"]


def _is_abandoned(path: Path, match: re.Match[str], since: float) -> bool:
    try:
        age = since - path.lstat().st_mtime
    except OSError:
        return False
    if match["pid"] is None:
        return age > 0
    return age > DAY if match["host"] != _host() else not _is_running(int(match["pid"]))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


def remove_drafts(folder: Path, since: float | None = None) -> list[Path]:
    """Remove what `list_drafts` lists, and return what is gone."""
    drafts = list_drafts(folder, since)
    for path in drafts:
        remove(path)
    return [path for path in drafts if not os.path.lexists(path)]


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, as far as permissions allow."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    else:
        with contextlib.suppress(OSError):
            path.chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)


class _DamageError(Exception):
    """Why a stored result is not read."""


@dataclass(frozen=True)
class Store:
    """A folder of saved results, one folder per result.

    The file ``meta.json`` of a result has its key, and the dtype, shape, size and digest of every array. What does not agree
    with it is treated as if it were not there. Results saved without digests, by earlier versions, are read as they are.

    Attributes
    ----------
    root : the folder; created when the first result is saved
    used : keys that were looked up and found, or saved
    """

    root: Path
    used: set[str] = field(default_factory=set, compare=False, repr=False)

    def __contains__(self, key: str) -> bool:
        """Return whether a result is there and its files have the right sizes; contents are not read."""
        try:
            header = self._header(key)
            for name in header["arrays"]:
                self._require_size(key, name, header)
        except _DamageError:
            return False
        return True

    def list_keys(self) -> list[str]:
        """List what has a result's place, whole or not, in order."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))

    def check(self, key: str, arrays: Sequence[str] | None = None, values: Sequence[str] = ()) -> bool:
        """Return whether a result is there and whole; a damaged one is removed, with a note.

        Parameters
        ----------
        arrays : names of those that will be read, whose contents are checked; all when None
        values : names of values that it must have
        """
        if not os.path.lexists(self.root / key):
            return False
        problem = self.problem(key, arrays, values)
        self.used.add(key)
        if problem:
            NOTES.warning(f"{self.root / key} is damaged ({problem}) and is computed again.")
            self._set_aside(key)
        return not problem

    def problem(self, key: str, arrays: Sequence[str] | None = None, values: Sequence[str] = ()) -> str:
        """Return what is wrong with a saved result, in a few words; "" where nothing is. See `check`."""
        try:
            header = self._header(key)
            missing = [name for name in values if name not in header["meta"]]
            if missing:
                raise _DamageError(f"meta.json lacks '{missing[0]}'")
            for name in header["arrays"] if arrays is None else arrays:
                self._load(key, name, header)
        except _DamageError as damage:
            return str(damage)
        return ""

    def save(self, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> None:
        """Save named arrays and JSON values under `key`, completely or not at all.

        Two processes may save the same key: the first to finish wins, the copy of the other is dropped. A damaged result is
        replaced.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=self.root, prefix=_draft_prefix(key)))
        except OSError as error:
            raise StoreError(
                f"Nothing can be saved in {self.root}: {error.strerror or error}. Choose another folder."
            ) from error
        try:
            entries = {}
            for name, array in arrays.items():
                np.save(draft / f"{name}.npy", np.asarray(array, order="C"), allow_pickle=False)
                entries[name] = _describe(draft / f"{name}.npy", array)
            header = {"store": FORMAT, "key": key, "arrays": entries, "meta": dict(meta or {})}
            header = json.loads(json.dumps(header))  # as it will be read
            header["digest"] = _header_digest(header)
            (draft / "meta.json").write_text(json.dumps(header, sort_keys=True), encoding="utf-8")
            draft.chmod(0o777 & ~_umask())
            self._move_in(draft, key)
        except OSError as error:
            raise StoreError(
                f"'{key}' could not be saved in {self.root}: {error.strerror or error}. "
                "Free some space; results saved before are complete."
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self.used.add(key)

    def _move_in(self, draft: Path, key: str) -> None:
        """Move a draft to its place, unless a whole result is there."""
        try:
            draft.replace(self.root / key)
        except OSError:
            if self.problem(key):
                self._set_aside(key)
                draft.replace(self.root / key)

    def array(self, key: str, name: str) -> np.ndarray:
        """Return one array of a saved result, loaded from disk as it is used; its contents are checked when it is first read.

        Raises
        ------
        StoreError : it is not there, or damaged; see `check`
        """
        try:
            loaded = self._load(key, name, self._header(key))
        except _DamageError as damage:
            raise StoreError(
                f"{self.root / key / name}.npy cannot be read ({damage}). Delete the folder {self.root / key} and run again."
            ) from damage
        self.used.add(key)
        return loaded

    def meta(self, key: str) -> dict[str, Any]:
        """Return the JSON values of a saved result.

        Raises
        ------
        StoreError : it is not there, or damaged; see `check`
        """
        try:
            values: dict[str, Any] = self._header(key)["meta"]
        except _DamageError as damage:
            raise StoreError(
                f"{self.root / key}/meta.json cannot be read ({damage}). Delete the folder {self.root / key} and run again."
            ) from damage
        self.used.add(key)
        return values

    def _set_aside(self, key: str) -> None:
        """Remove what has a result's place; where it cannot be removed, it is moved out of the way as a draft."""
        aside = self.root / f"{_draft_prefix(key)}{os.urandom(4).hex()}"
        try:
            (self.root / key).rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"{self.root / key} is damaged and cannot be removed: {error.strerror or error}. Delete it and run again."
            ) from error
        remove(aside)

    def _header(self, key: str) -> dict[str, Any]:
        """Read ``meta.json``: its values, and of every array what its file must be; no arrays are listed by earlier versions."""
        path = self.root / key / "meta.json"
        _require_plain_file(path)
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
        except UNREADABLE as error:
            raise _damage(path, error) from error
        if not isinstance(header, dict):
            raise _DamageError("meta.json has no values")
        if not set(ENVELOPE) & set(header):
            files = {name[:-4]: None for name in sorted(file.name for file in path.parent.glob("*.npy"))}
            return {"arrays": files, "meta": header}
        if set(header) != set(ENVELOPE) or header["digest"] != _header_digest(header):
            raise _DamageError("meta.json was changed since it was written")
        if header["key"] != key:
            raise _DamageError(f"it is the result '{header['key']}'")
        return header

    def _require_size(self, key: str, name: str, header: Mapping[str, Any]) -> os.stat_result:
        status, entry = _require_plain_file(self.root / key / f"{name}.npy"), header["arrays"].get(name)
        if "digest" in header and (entry is None or entry["size"] != status.st_size):
            raise _DamageError(
                f"{name}.npy has another size than when it was written" if entry else f"it has no {name}.npy"
            )
        return status

    def _load(self, key: str, name: str, header: Mapping[str, Any]) -> np.ndarray:
        """Load an array whose file is what the header says; without a digest, one whose file is as long as it should be."""
        path = self.root / key / f"{name}.npy"
        status = self._require_size(key, name, header)
        identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        entry = header["arrays"].get(name)
        try:
            if entry is not None and _IDENTITIES.get(str(path)) != (*identity, hash(entry["digest"])):
                if _file_digest(path) != entry["digest"]:
                    raise _DamageError(f"{name}.npy was changed since it was written")
                _IDENTITIES[str(path)] = (*identity, hash(entry["digest"]))
            loaded: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            end = loaded.offset + loaded.nbytes if isinstance(loaded, np.memmap) else -1
        except UNREADABLE as error:
            raise _damage(path, error) from error
        if end != status.st_size:
            raise _DamageError(f"{name}.npy is not one array")
        return loaded


def _describe(path: Path, array: np.ndarray) -> dict[str, Any]:
    return {
        "dtype": array.dtype.str, "shape": list(array.shape), "size": path.stat().st_size, "digest": _file_digest(path),
    }  # fmt: skip


def _file_digest(path: Path) -> str:
    """Return the digest of a file, which has the dtype and shape of an array, and its bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _header_digest(header: Mapping[str, Any]) -> str:
    return digest({name: header[name] for name in ENVELOPE if name != "digest"})


def _require_plain_file(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _damage(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise _DamageError(f"{path.name} is not a file")
    return status


def _damage(path: Path, error: BaseException) -> Exception:
    """Return the error to raise for a file that cannot be read, which is damaged unless the machine is at its limits."""
    if getattr(error, "errno", None) in BUSY:
        return StoreError(f"{path} cannot be read now: {_reason(error)}. Close other programs and run again.")
    return _DamageError(f"{path.name}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
