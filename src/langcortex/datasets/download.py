"""Download of a published corpus with DataLad or openneuro-py, and verification of its files."""

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
from langcortex.paths import as_path, require_file
from langcortex.progress import Progress, silent

__all__ = ["DownloadPlan", "download", "list_present", "plan_download", "verify"]

BATCH = 20  # files that DataLad fetches per call
_KEY = re.compile(r"^([A-Z0-9_]+?)(E?)((?:-[a-zA-Z]\d+)*)--(.+)$")
_HASHES = {"MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512"}


def download(plan: DownloadPlan, tool: str = "auto", progress: Progress | None = None) -> list[str]:
    """Download the files of a plan that are not here yet, so that an interrupted download can be resumed.

    Parameters
    ----------
    plan : see `plan_download`
    tool : "datalad", "openneuro" (the package openneuro-py), or "auto": DataLad if it is installed, else openneuro-py
    progress : called with the task, the number of files done, and the number of all files

    Returns
    -------
    the files of the plan, relative to its folder

    Raises
    ------
    SettingsError : the tool is unknown, is not installed, or cannot fetch this corpus
    RecordingError : the disk is full, or the tool failed
    """
    chosen_tool = _choose_tool(plan, tool)
    _check_disk_space(plan)
    if chosen_tool == "datalad":
        _fetch_with_datalad(plan, progress or silent)
    else:
        _fetch_with_openneuro(plan, progress or silent)
    files = list_present(plan)
    missing = next((name for name in files if not _is_fetched(plan.folder / name)), None)
    if missing is not None:
        raise RecordingError(
            f"{plan.folder / missing} did not arrive. Run the same command again; it continues where it stopped."
        )
    return files


def list_present(plan: DownloadPlan) -> list[str]:
    """List the files of a plan that its folder has, fetched or still links, relative to the folder.

    Raises
    ------
    RecordingError : no file matches a pattern that must have one
    """
    files: dict[str, None] = {}
    for pattern in plan.include:
        matches = _list_matches(plan.folder, pattern)
        if not matches:
            raise RecordingError(
                f"{plan.dataset} has no file {pattern} in {plan.folder}. Check the subjects and the options."
            )
        files |= dict.fromkeys(matches)
    for pattern in plan.extras:
        files |= dict.fromkeys(_list_matches(plan.folder, pattern))
    return list(files)


def verify(folder: Path | str, files: Sequence[str | Path]) -> list[str]:
    """Check files against the sizes and checksums in their git-annex keys.

    A file that DataLad fetched is a link into ``.git/annex/objects`` whose last part is its key, e.g.
    ``MD5E-s1041287--<md5>.csv``. A file without a key (openneuro-py writes none, and checks sizes and checksums
    while it downloads) is only reported if it is missing, empty or a pointer.

    Parameters
    ----------
    folder : the dataset
    files : paths relative to it

    Returns
    -------
    one sentence for each file that is missing, truncated or changed
    """
    folder = as_path(folder)
    problems = (_check_file(Path(folder) / name) for name in files)
    return [problem for problem in problems if problem]


def _check_file(path: Path) -> str | None:
    """Return a sentence on what is wrong with a file, or None."""
    try:
        require_file(path, RecordingError, "file")
    except LangcortexError as error:
        return str(error)
    key = _read_key(path)
    if key is None:
        return None
    size, algorithm, checksum = key
    size_here = path.stat().st_size
    advice = f"Run: git annex fsck {path} and then: datalad get {path}"
    if size is not None and size_here != size:
        return f"The file {path} has {size_here} bytes, but {size} were published. {advice}"
    if algorithm is not None and _checksum(path, algorithm) != checksum:
        return f"The file {path} has the right size but another {algorithm} than was published. {advice}"
    return None


def _read_key(path: Path) -> tuple[int | None, str | None, str] | None:
    """Read the key of an annexed file: its size, the algorithm and the checksum; None if it has no key."""
    if not path.is_symlink():
        return None
    target = Path(os.readlink(path)).as_posix()  # noqa: PTH115  the text of the link, one step
    match = _KEY.match(target.rsplit("/", 1)[-1])
    if "annex/objects/" not in target or match is None:
        return None
    backend, ending, fields, name = match.groups()
    size = re.search(r"-s(\d+)", fields)
    algorithm = backend if backend in _HASHES else None
    return int(size[1]) if size else None, algorithm, name.split(".")[0] if ending else name


def _checksum(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm.lower(), usedforsecurity=False)
        ).hexdigest()


def _choose_tool(plan: DownloadPlan, tool: str) -> str:
    """Return the tool that fetches a plan."""
    installed = {
        "datalad": shutil.which("datalad") is not None,
        "openneuro": importlib.util.find_spec("openneuro") is not None,
    }
    if tool not in ("auto", *installed):
        raise SettingsError(f"A corpus is fetched by datalad or openneuro, or auto; not by '{tool}'.")
    if tool != "auto" and tool not in plan.tools:
        raise SettingsError(f"{tool} cannot fetch {plan.corpus}: {plan.estimate}. Use {plan.tools[0]}.")
    usable = [name for name in plan.tools if installed[name] and tool in ("auto", name)]
    if usable:
        return usable[0]
    if "openneuro" not in plan.tools:
        raise SettingsError(
            f"{plan.corpus} can only be fetched by DataLad, which is not installed ({plan.estimate}). "
            "Install it as https://www.datalad.org says."
        )
    if tool == "datalad":
        raise SettingsError(
            "DataLad is not installed. Install it as https://www.datalad.org says, or use openneuro."
        )
    raise SettingsError("Neither DataLad nor openneuro-py is installed. Run: pip install openneuro-py")


def _check_disk_space(plan: DownloadPlan) -> None:
    """Compare the size of the missing files with the free space of the disk."""
    if plan.size is None:
        return
    patterns = (*plan.include, *plan.extras)
    names = {name for pattern in patterns for name in _list_matches(plan.folder, pattern)}
    fetched = sum((plan.folder / name).stat().st_size for name in names if _is_fetched(plan.folder / name))
    folder = next(p for p in (plan.folder, *plan.folder.parents) if p.exists())
    free, missing = shutil.disk_usage(folder).free, max(0, plan.size - fetched)
    if free < missing:
        raise RecordingError(
            f"{plan.corpus} still needs about {human_size(missing)}, but the disk of {plan.folder} has {human_size(free)} free. "
            "Make room, name fewer subjects, or give another folder."
        )


def _fetch_with_datalad(plan: DownloadPlan, progress: Progress) -> None:
    """Clone the dataset once, then get the files that are not here yet."""
    folder = plan.folder
    if not any((folder / name).exists() for name in (".datalad", ".git")):
        _clone(plan, progress)
    for pattern in (*plan.include, *plan.extras):
        _open_subdatasets(folder, pattern)
    names = list_present(plan)
    missing = [name for name in names if not _is_fetched(folder / name)]
    for first in range(0, len(missing), BATCH):
        progress(f"fetching {plan.dataset}", len(names) - len(missing) + first, len(names))
        _run_command(["datalad", "get", *missing[first : first + BATCH]], folder)
    progress(f"fetching {plan.dataset}", len(names), len(names))


def _clone(plan: DownloadPlan, progress: Progress) -> None:
    """Clone the dataset and check out the snapshot of the plan."""
    folder = plan.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecordingError(
            f"{folder} is no DataLad dataset, and is not empty. Give an empty folder, or a new one."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    progress(f"cloning {plan.dataset}", 0, 1)
    _run_command(["datalad", "clone", plan.url, str(folder)], folder.parent)
    if plan.tag:
        advice = f"The clone is at its newest snapshot; run: git -C {folder} checkout {plan.tag}"
        _run_command(["git", "checkout", "--quiet", plan.tag], folder, advice)


def _open_subdatasets(folder: Path, pattern: str) -> None:
    """Fetch the names, not the contents, of all subdatasets on the path of a pattern.

    A subdataset whose names are not here yet is an empty folder.
    """
    for part in pattern.split("/")[:-1]:
        folder = folder / part
        if "*" in part or not folder.is_dir():
            return
        if not any(folder.iterdir()):
            _run_command(["datalad", "get", "--no-data", str(folder)], folder.parent)


def _run_command(
    command: list[str],
    folder: Path,
    advice: str = "Run the same command again; it continues where it stopped.",
) -> None:
    """Run a command in a folder; if it fails, raise an error with its last line of output."""
    try:
        process = subprocess.run(
            command,
            cwd=folder,
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
    if process.returncode:
        output = process.stdout + "\n" + process.stderr
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        last_line = lines[-1] if lines else f"exit code {process.returncode}"
        raise RecordingError(f"{' '.join(command[:3])} failed in {folder}: {last_line}. {advice}")


def _fetch_with_openneuro(plan: DownloadPlan, progress: Progress) -> None:
    """Download the files with openneuro-py, which skips those that are here, and checks sizes and checksums."""
    import openneuro

    progress(f"fetching {plan.dataset}", 0, 1)
    # openneuro-py looks for a name without a slash in all folders, and for one with a leading slash at the top only
    include = [pattern if "/" in pattern else f"/{pattern}" for pattern in plan.include]
    try:
        openneuro.download(dataset=plan.dataset, tag=plan.tag, target_dir=plan.folder, include=include)
    except (
        Exception
    ) as error:  # it raises errors of many kinds: of the network, of the server's answers, of the disk
        message = " ".join(str(error).split()) or type(error).__name__
        raise RecordingError(
            f"openneuro-py could not fetch {plan.dataset}: {message} Run the same command again; it continues where it stopped."
        ) from error
    progress(f"fetching {plan.dataset}", 1, 1)


def _is_fetched(path: Path) -> bool:
    """Whether a file has its content, and is no link or pointer to content elsewhere."""
    try:
        require_file(path, RecordingError, "file")
    except LangcortexError:
        return False
    return True


def _list_matches(folder: Path, pattern: str) -> list[str]:
    """List the paths that match a pattern, relative to the folder; dangling links are included."""
    head, _, tail = pattern.partition("/")
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if fnmatch.fnmatchcase(e.name, head))
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not tail:
        return names
    return [f"{name}/{below}" for name in names for below in _list_matches(folder / name, tail)]
