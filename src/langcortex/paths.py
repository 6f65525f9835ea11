"""Finding input files, and saying plainly why one cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

from langcortex.errors import LangcortexError

_ANNEX = b"/annex/objects/"


def require_file(path: Path, error: type[LangcortexError], what: str) -> Path:
    """Return `path` if it is a file with content, else raise `error` with the reason and the mend.

    Files of a DataLad dataset are links into git-annex until they are fetched: a dangling link, or on some
    systems a small text file that names the annexed object. The path itself is returned, never what the
    link points to, because the name carries the BIDS entities.
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


def expand(
    pattern: str,
    base: Path,
    error: type[LangcortexError] = LangcortexError,
    several: bool = False,
    **known: str,
) -> dict[str, Path]:
    """Find the files that a pattern names and what its ``{run}`` stands for in each.

    Parameters
    ----------
    pattern : a path with ``{run}`` once or more, and perhaps ``{subject}`` and ``{hemi}``; ``*`` matches any text
    base : the folder a relative pattern starts from
    error : what to raise when two files stand for one run
    several : take the first of several files instead, where only the names are wanted
    known : values already decided, e.g. ``subject="01"``

    Returns
    -------
    run → path, in natural order of the run names (run-9 before run-10)
    """
    for name, value in known.items():
        pattern = pattern.replace(f"{{{name}}}", value)
    tidy = Path(pattern).expanduser()
    root = Path(tidy.anchor) if tidy.is_absolute() else base
    relative = tidy.relative_to(tidy.anchor).as_posix()
    regex = _regex(relative)
    found: dict[str, Path] = {}
    for path in sorted(root.glob(relative.replace("{run}", "*"))):
        match = regex.fullmatch(path.relative_to(root).as_posix())
        if match:
            run = match.groupdict().get("run") or path.name.split(".")[0]
            if run in found and not several:
                raise error(
                    f"Two files stand for '{run}': {found[run]} and {path}. Make the pattern '{pattern}' more exact."
                )
            found.setdefault(run, path)
    return {run: found[run] for run in sorted(found, key=natural)}


def _regex(pattern: str) -> re.Pattern[str]:
    out, seen = "", False
    for part in re.split(r"(\{run\}|\*)", pattern):
        if part == "{run}":
            out += "(?P=run)" if seen else "(?P<run>[^/]+?)"
            seen = True
        elif part == "*":
            out += "[^/]*"
        else:
            out += re.escape(part)
    return re.compile(out)


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key in which run-9 comes before run-10.

    >>> sorted(["run-10", "run-9"], key=natural)
    ['run-9', 'run-10']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
