"""Fetching a published corpus with DataLad or openneuro-py, and checking what has arrived."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from langcortex.datasets.manifests import DownloadPlan, human_size, plan_download
from langcortex.errors import LangcortexError, RecordingError, SettingsError
from langcortex.paths import require_file

__all__ = ["DownloadPlan", "download", "list_present", "plan_download", "verify"]

from langcortex.progress import Progress, silent

BATCH = 20  # files asked of DataLad at once
_KEY = re.compile(r"^([A-Z0-9_]+?)(E?)((?:-[a-zA-Z]\d+)*)--(.+)$")
_HASHES = {"MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512"}


def download(what: DownloadPlan, tool: str = "auto", progress: Progress | None = None) -> list[str]:
    """Fetch what a plan names, leaving alone what is there already, so that a broken download can be repeated.

    Parameters
    ----------
    what : see `plan_download`
    tool : "datalad", "openneuro" (the package openneuro-py), or "auto": DataLad if it is installed, else openneuro-py
    progress : called with what is being done, how many files are done, and of how many

    Returns
    -------
    the files the plan names, relative to its folder

    Raises
    ------
    SettingsError : the tool is not known, not installed, or cannot fetch this corpus
    RecordingError : there is no room, or the tool failed
    """
    chosen = _tool(what, tool)
    _check_room(what)
    if chosen == "datalad":
        _with_datalad(what, progress or silent)
    else:
        _with_openneuro(what, progress or silent)
    found = list_present(what)
    missing = next((name for name in found if not _is_here(what.to / name)), None)
    if missing is not None:
        raise RecordingError(
            f"{what.to / missing} did not arrive. Run the same command again; it goes on where it stopped."
        )
    return found


def list_present(what: DownloadPlan) -> list[str]:
    """List the files of a plan that its folder has, fetched or still links, relative to the folder.

    Raises
    ------
    RecordingError : the folder has no file for a pattern that must have one
    """
    out: dict[str, None] = {}
    for pattern in what.include:
        found = _matching(what.to, pattern)
        if not found:
            raise RecordingError(
                f"{what.dataset} has no file {pattern} in {what.to}. Check the subjects and the options."
            )
        out |= dict.fromkeys(found)
    for pattern in what.extras:
        out |= dict.fromkeys(_matching(what.to, pattern))
    return list(out)


def verify(folder: Path, files: Sequence[str | Path]) -> list[str]:
    """Check files against the sizes and checksums that git-annex names them by.

    A file that DataLad fetched is a link into ``.git/annex/objects`` whose last part is its key, e.g.
    ``MD5E-s1041287--<md5>.csv``. A file without a key (openneuro-py writes none, and checks sizes and checksums
    itself while it downloads) can only be missing, empty or a pointer.

    Parameters
    ----------
    folder : the dataset
    files : paths relative to it

    Returns
    -------
    a sentence for every file that is missing, short or wrong
    """
    problems = (_problem(Path(folder) / name) for name in files)
    return [problem for problem in problems if problem]


def _problem(path: Path) -> str | None:
    try:
        require_file(path, RecordingError, "file")
    except LangcortexError as error:
        return str(error)
    key = _key(path)
    if key is None:
        return None
    size, algorithm, checksum = key
    there = path.stat().st_size
    again = f"Run: git annex fsck {path} and then: datalad get {path}"
    if size is not None and there != size:
        return f"The file {path} has {there} bytes, but {size} were published. {again}"
    if algorithm is not None and _checksum(path, algorithm) != checksum:
        return f"The file {path} has the right size but another {algorithm} than was published. {again}"
    return None


def _key(path: Path) -> tuple[int | None, str | None, str] | None:
    """Read the key of an annexed file: its size, the checksum's name and the checksum; None if it has no key."""
    if not path.is_symlink():
        return None
    target = Path(os.readlink(path)).as_posix()  # noqa: PTH115  the link's own text, one step
    match = _KEY.match(target.rsplit("/", 1)[-1])
    if "annex/objects/" not in target or match is None:
        return None
    backend, ending, fields, name = match.groups()
    size = re.search(r"-s(\d+)", fields)
    known = backend if backend in _HASHES else None
    return int(size[1]) if size else None, known, name.split(".")[0] if ending else name


def _checksum(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm.lower(), usedforsecurity=False)
        ).hexdigest()


def _tool(what: DownloadPlan, tool: str) -> str:
    """Choose what fetches a plan."""
    installed = {
        "datalad": shutil.which("datalad") is not None,
        "openneuro": importlib.util.find_spec("openneuro") is not None,
    }
    if tool not in ("auto", *installed):
        raise SettingsError(f"A corpus is fetched by datalad or openneuro, or auto; not by '{tool}'.")
    if tool != "auto" and tool not in what.tools:
        raise SettingsError(f"{tool} cannot fetch {what.corpus}: {what.estimate}. Use {what.tools[0]}.")
    able = [name for name in what.tools if installed[name] and tool in ("auto", name)]
    if able:
        return able[0]
    if "openneuro" not in what.tools:
        raise SettingsError(
            f"{what.corpus} can only be fetched by DataLad, which is not installed ({what.estimate}). "
            "Install it as https://www.datalad.org says."
        )
    if tool == "datalad":
        raise SettingsError(
            "DataLad is not installed. Install it as https://www.datalad.org says, or use openneuro."
        )
    raise SettingsError("Nothing that can fetch is installed. Run: pip install openneuro-py")


def _check_room(what: DownloadPlan) -> None:
    """Hold what is still to come against the free space of the disk."""
    if what.size is None:
        return
    patterns = (*what.include, *what.extras)
    names = {name for pattern in patterns for name in _matching(what.to, pattern)}
    there = sum((what.to / name).stat().st_size for name in names if _is_here(what.to / name))
    folder = next(p for p in (what.to, *what.to.parents) if p.exists())
    free, needed = shutil.disk_usage(folder).free, max(0, what.size - there)
    if free < needed:
        raise RecordingError(
            f"{what.corpus} still needs about {human_size(needed)}, but the disk of {what.to} has {human_size(free)} free. "
            "Make room, name fewer subjects, or give another folder."
        )


def _with_datalad(what: DownloadPlan, progress: Progress) -> None:
    """Clone the dataset once, then get the files that are not here yet."""
    if not any((what.to / name).exists() for name in (".datalad", ".git")):
        if what.to.exists() and (not what.to.is_dir() or any(what.to.iterdir())):
            raise RecordingError(
                f"{what.to} is no DataLad dataset, and is not empty. Give an empty folder, or a new one."
            )
        what.to.parent.mkdir(parents=True, exist_ok=True)
        progress(f"cloning {what.dataset}", 0, 1)
        _call(["datalad", "clone", what.url, str(what.to)], what.to.parent)
        if what.tag:
            then = f"The clone is at its newest snapshot; run: git -C {what.to} checkout {what.tag}"
            _call(["git", "checkout", "--quiet", what.tag], what.to, then)
    for pattern in (*what.include, *what.extras):
        _open_subdatasets(what.to, pattern)
    names = list_present(what)
    missing = [name for name in names if not _is_here(what.to / name)]
    for first in range(0, len(missing), BATCH):
        progress(f"fetching {what.dataset}", len(names) - len(missing) + first, len(names))
        _call(["datalad", "get", *missing[first : first + BATCH]], what.to)
    progress(f"fetching {what.dataset}", len(names), len(names))


def _open_subdatasets(folder: Path, pattern: str) -> None:
    """Fetch the names, not the contents, of every dataset within the dataset that a pattern leads through.

    DataLad shows one whose names are not here yet as an empty folder.
    """
    for part in pattern.split("/")[:-1]:
        folder = folder / part
        if "*" in part or not folder.is_dir():
            return
        if not any(folder.iterdir()):
            _call(["datalad", "get", "--no-data", str(folder)], folder.parent)


def _call(
    command: list[str], where: Path, then: str = "Run the same command again; it goes on where it stopped."
) -> None:
    """Run a command; when it fails, say its last line and what to do."""
    try:
        done = subprocess.run(
            command,
            cwd=where,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise RecordingError(
            f"{command[0]} cannot be run ({error.strerror}). Install it, or choose another tool."
        ) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        said = lines[-1] if lines else f"exit code {done.returncode}"
        raise RecordingError(f"{' '.join(command[:3])} failed in {where}: {said}. {then}")


def _with_openneuro(what: DownloadPlan, progress: Progress) -> None:
    """Let openneuro-py download the files; it skips those that are here, and checks sizes and checksums itself."""
    import openneuro

    progress(f"fetching {what.dataset}", 0, 1)
    # openneuro-py looks for a name without a slash in every folder, but for one that begins with a slash at the top
    include = [pattern if "/" in pattern else f"/{pattern}" for pattern in what.include]
    try:
        openneuro.download(dataset=what.dataset, tag=what.tag, target_dir=what.to, include=include)
    except (
        Exception
    ) as error:  # it raises errors of many kinds: of the network, of the server's answers, of the disk
        said = " ".join(str(error).split()) or type(error).__name__
        raise RecordingError(
            f"openneuro-py could not fetch {what.dataset}: {said} Run the same command again; it goes on where it stopped."
        ) from error
    progress(f"fetching {what.dataset}", 1, 1)


def _is_here(path: Path) -> bool:
    """Say whether a file has content of its own, and is no link or pointer to content elsewhere."""
    try:
        require_file(path, RecordingError, "file")
    except LangcortexError:
        return False
    return True


def _matching(folder: Path, pattern: str) -> list[str]:
    """List what matches a pattern, links that point nowhere included, relative to the folder."""
    head, _, rest = pattern.partition("/")
    try:
        with os.scandir(folder) as entries:
            found = sorted(e.name for e in entries if fnmatch.fnmatchcase(e.name, head))
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not rest:
        return found
    return [f"{name}/{below}" for name in found for below in _matching(folder / name, rest)]
