"""Praat TextGrids, long and short, UTF-8 and UTF-16, complete or truncated."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import require_file

_LABEL = r'"(?:[^"]|"")*"'
_NUMBER = r"-?\d[\d.eE+-]*"
_LONG = re.compile(rf"intervals ?\[\d+\]:\s*xmin ?= ?\S+\s+xmax ?= ?\S+\s+text ?= ?{_LABEL}(?=\s|$)")
_SHORT = re.compile(rf"^{_NUMBER}\s+{_NUMBER}\s+{_LABEL}(?=\s|$)", re.MULTILINE)
_TIER = re.compile(
    rf'"(Interval|Text)Tier"\s+(?:name ?= ?)?({_LABEL})\s+(?:xmin ?= ?)?{_NUMBER}\s+(?:xmax ?= ?)?{_NUMBER}\s+'
    r"(?:(?:intervals|points): size ?= ?)?(\d+)"
)
_TIERS = re.compile(r"<exists>\s+(?:size ?= ?)?(\d+)")
_TIME = re.compile(
    r"^([ \t]*(?:x(?:min|max) ?= ?)?)(-?\d+\.\d{10,}(?:[eE][+-]?\d+)?|-?\d+(?:\.\d+)?[eE][+-]?\d+)(?=[ \t\r]*$)",
    re.MULTILINE,
)


def read_textgrid(path: Path, tier: int | str = 0, accept_truncated: bool = False) -> pd.DataFrame:
    """Read the intervals of one tier.

    Times are rounded to a nanosecond, because praatio refuses intervals that overlap by a rounding error, as they do
    in published files.

    Parameters
    ----------
    path : long or short format
    tier : the interval tier, by position among interval tiers or by name
    accept_truncated : read the complete intervals of a file that breaks off

    Returns
    -------
    DataFrame with one row per interval: word (stripped, perhaps empty), onset and duration in seconds

    Raises
    ------
    StoryError : the file is not a TextGrid, breaks off, or has no such tier
    """
    from praatio import textgrid
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.utilities.errors import PraatioException

    text = _complete_text(path, _read_text(path), accept_truncated)
    try:
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "whole.TextGrid"
            # praatio loses the last label of a file that does not end its last line
            saved.write_text(_TIME.sub(_round_time, text).rstrip("\n") + "\n", encoding="utf-8", newline="")
            grid = textgrid.openTextgrid(str(saved), includeEmptyIntervals=True, reportingMode="silence")
    except (PraatioException, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoryError(
            f"{path} cannot be read as a TextGrid ({reason}). Save it from Praat as a text file."
        ) from error
    names = [n for n in grid.tierNames if isinstance(grid.getTier(n), IntervalTier)]
    entries = grid.getTier(_select_tier(path, names, tier)).entries
    return pd.DataFrame(
        {
            "word": [entry.label.strip() for entry in entries],
            "onset": [float(entry.start) for entry in entries],
            "duration": [float(entry.end) - float(entry.start) for entry in entries],
        }
    )


def _select_tier(path: Path, names: Sequence[str], tier: int | str) -> str:
    """Return the name of an interval tier that is chosen by position or by name."""
    if isinstance(tier, int):
        if tier >= len(names):
            raise StoryError(
                f"{path} has {len(names)} interval tiers, so none at position {tier}. They are: {', '.join(names)}."
            )
        return names[tier]
    if tier not in names:
        raise StoryError(f"{path} has no interval tier called '{tier}'. It has: {', '.join(names)}.")
    return tier


def read_interval_tiers(path: Path) -> list[str]:
    """List the names of the interval tiers, in order.

    Raises
    ------
    StoryError : the file cannot be read as text
    """
    return [
        name[1:-1].replace('""', '"')
        for kind, name, _ in _TIER.findall(_read_text(path))
        if kind == "Interval"
    ]


def _read_text(path: Path) -> str:
    """Read a file as UTF-16 where it begins with a byte-order mark of it, and as UTF-8 otherwise."""
    require_file(path, StoryError, "TextGrid")
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise StoryError(
            f"{path} cannot be read as a TextGrid: it is neither UTF-8 nor UTF-16 ({error}). Save it from Praat as a text file."
        ) from error


def _complete_text(path: Path, text: str, accept_truncated: bool) -> str:
    """Return a TextGrid's text; of a truncated one that is accepted, the part up to its last complete interval."""
    tiers = _TIER.findall(text)
    n_declared = sum(int(n) for kind, _, n in tiers if kind == "Interval")
    intervals = (_LONG if "intervals: size" in text else _SHORT).finditer(text)
    ends = [interval.end() for interval in intervals]
    n_tiers = _TIERS.search(text)
    lacks_tiers = n_tiers is not None and len(tiers) < int(n_tiers[1])
    if len(ends) >= n_declared and not lacks_tiers:
        return text
    if not accept_truncated:
        place = (
            f"after interval {len(ends)} of {n_declared}"
            if len(ends) < n_declared
            else f"after {len(tiers)} of its {n_tiers[1] if n_tiers else '?'} tiers"
        )
        raise StoryError(
            f"{path} breaks off {place}. Fetch the file again, "
            "or accept its complete intervals with story.accept_truncated = true."
        )
    return text[: ends[-1]] if ends else text


def _round_time(match: re.Match[str]) -> str:
    return f"{match[1]}{float(match[2]):.9f}"
