"""Finding input files, and errors that say why one cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

from langcortex.errors import LangcortexError

_ANNEX = b"/annex/objects/"


def require_file(path: Path, error: type[LangcortexError], what: str) -> Path:
    """Return `path` if it is a file with content; otherwise raise `error` with the reason and the fix.

    Files of a DataLad dataset are links into git-annex until they are fetched: a dangling link, or on some
    systems a small text file that names the annexed object. The path itself is returned, never what the
    link points to, because the name contains the BIDS entities.

    Parameters
    ----------
    error : what to raise
    what : the kind of file, for the message
    """
    if path.is_symlink() and not path.exists():
        raise error(
            f"The {what} {path} has not been downloaded (its link points nowhere). Run: datalad get {path}"
        )
    if not path.exists():
        parent = next((p for p in path.parents if p.exists()), Path())
        where = "" if parent == path.parent else f" (the folder {path.parent} does not exist either)"
        raise error(
            f"The {what} {path} does not exist{where}. Check the path in the study file, or data.path."
        )
    if path.is_dir():
        raise error(f"The {what} {path} is a folder; a file is needed.")
    size = path.stat().st_size
    if size == 0:
        raise error(f"The {what} {path} is empty (0 bytes). Fetch it again.")
    if size < 1024 and _ANNEX in path.read_bytes().replace(b"\\", b"/"):
        raise error(
            f"The {what} {path} has not been downloaded (it holds a git-annex pointer). Run: datalad get {path}"
        )
    return path


def expand_pattern(
    pattern: str,
    base: Path,
    error: type[LangcortexError] = LangcortexError,
    allow_duplicates: bool = False,
    **entities: str,
) -> dict[str, Path]:
    """Find the files that match a pattern, and what ``{run}`` stands for in each.

    Parameters
    ----------
    pattern : a path with ``{run}`` once or more, and perhaps ``{subject}`` and ``{hemi}``; ``*`` matches any text
    base : the folder a relative pattern starts from
    error : what to raise when two files stand for one run
    allow_duplicates : take the first of several files instead, where only the names of runs are needed
    entities : values of other placeholders, e.g. ``subject="01"``

    Returns
    -------
    run → path, in natural order of the run names (run-9 before run-10)
    """
    for name, value in entities.items():
        pattern = pattern.replace(f"{{{name}}}", value)
    tidy = Path(pattern).expanduser()
    root = Path(tidy.anchor) if tidy.is_absolute() else base
    relative = tidy.relative_to(tidy.anchor).as_posix()
    regex = _regex(relative)
    files: dict[str, Path] = {}
    for path in sorted(root.glob(relative.replace("{run}", "*"))):
        match = regex.fullmatch(path.relative_to(root).as_posix())
        if match:
            run = match.groupdict().get("run") or path.name.split(".")[0]
            if run in files and not allow_duplicates:
                raise error(
                    f"Two files match the run '{run}': {files[run]} and {path}. Make the pattern '{pattern}' more exact."
                )
            files.setdefault(run, path)
    return {run: files[run] for run in sorted(files, key=natural_key)}


def _regex(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; all occurrences of ``{run}`` match the same text."""
    regex, has_run = "", False
    for part in re.split(r"(\{run\}|\*)", pattern):
        if part == "{run}":
            regex += "(?P=run)" if has_run else "(?P<run>[^/]+?)"
            has_run = True
        elif part == "*":
            regex += "[^/]*"
        else:
            regex += re.escape(part)
    return re.compile(regex)


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key by which run-9 comes before run-10.

    >>> sorted(["run-10", "run-9"], key=natural_key)
    ['run-9', 'run-10']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
