"""Finding input files, errors that say why one cannot be read, and labels as names of files and cells of tables."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langcortex.errors import LangcortexError

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 100
"""Bytes of a safe name: with what is written before and after it, a file's name stays below 255."""

_ANNEX = b"/annex/objects/"


def as_path(path: Path | str) -> Path:
    """Return a path of text or a path, with ``~`` as the user's own folder."""
    return Path(path).expanduser()


def require_file(path: Path | str, error: type[LangcortexError], what: str) -> Path:
    """Return `path` if it is a file with content; otherwise raise `error` with the reason and the fix.

    Files of a DataLad dataset are links into git-annex until they are fetched: a dangling link, or on some
    systems a small text file that names the annexed object. The path itself is returned, never what the
    link points to, because the name contains the BIDS entities.

    Parameters
    ----------
    error : what to raise
    what : the kind of file, for the message
    """
    path = as_path(path)
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
    base: Path | str,
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
    base = as_path(base)
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


_ALLOWED = "._-+=@,() "
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_SUFFIXES = re.compile(
    r"_(layer|stat|hemi|group)\b|_group_|-minus-|^ceiling-|-[0-9a-f]{10}$"
)  # parts that files of results add


def safe_name(text: str, avoid: str = "") -> str:
    """Return a label as a name of a file: no path, nothing that a disk refuses, and no other label's name.

    A label that is a good name stays as it is. Another one is mended and gets a digest of itself, so that two labels never
    become one file.

    Parameters
    ----------
    text : a label of a study, such as a subject or a model
    avoid : further characters that a name must not have

    >>> safe_name("smollm2-untrained-0")
    'smollm2-untrained-0'
    >>> safe_name("../../x")
    'x-4217833fef'
    """
    letters = [
        c if (c in _ALLOWED or unicodedata.category(c)[0] in "LMN") and c not in avoid else "-" for c in text
    ]
    name = unicodedata.normalize("NFC", "".join(letters)).strip("-. ")
    is_good = name == text and not _DEVICES.fullmatch(name) and not _SUFFIXES.search(name)
    if is_good and name and len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    stem = name.encode()[: LONGEST - 11].decode(errors="ignore").rstrip("-. ")
    if _DEVICES.fullmatch(stem):
        stem = stem.split(".")[0]
    return f"{stem or 'unnamed'}-{digest}"


_BREAKS = {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"} | {
    code: f"\\x{code:02x}" for code in (*range(9), 11, 12, *range(14, 32), *range(127, 160), 0x2028, 0x2029)
}


def safe_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts and names of columns have no tabs, line breaks and control characters: they are written as \\t, \\n, \\x00."""

    def mend(value: Any) -> Any:
        return value.translate(_BREAKS) if isinstance(value, str) else value

    texts = [name for name in table.columns if table[name].dtype.kind not in "biufcmM"]
    return table.assign(**{name: table[name].map(mend) for name in texts}).rename(columns=mend)


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key by which run-9 comes before run-10.

    >>> sorted(["run-10", "run-9"], key=natural_key)
    ['run-9', 'run-10']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
