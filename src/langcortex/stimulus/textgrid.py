"""Praat TextGrids, long and short, UTF-8 and UTF-16, whole or broken off."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
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

    Times are rounded to a nanosecond, because intervals that overlap by a rounding error are valid in published
    files and refused by praatio.

    Parameters
    ----------
    path : long or short format
    tier : the interval tier, by position among interval tiers or by name
    accept_truncated : read a file that breaks off before its last interval as far as it is whole

    Returns
    -------
    DataFrame with a row an interval: word (stripped, perhaps empty), onset and duration in seconds

    Raises
    ------
    StoryError : the file is no TextGrid, breaks off, or has no such tier
    """
    from praatio import textgrid
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.utilities.errors import PraatioException

    source = _Source(path, _decoded(path))
    text = source.whole(accept_truncated)
    try:
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "whole.TextGrid"
            # praatio loses the last label of a file that does not end its last line
            saved.write_text(_TIME.sub(_rounded, text).rstrip("\n") + "\n", encoding="utf-8", newline="")
            grid = textgrid.openTextgrid(str(saved), includeEmptyIntervals=True, reportingMode="silence")
    except (PraatioException, ValueError, LookupError, AttributeError, TypeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoryError(
            f"{path} cannot be read as a TextGrid ({said}). Save it from Praat as a text file."
        ) from error
    names = [n for n in grid.tierNames if isinstance(grid.getTier(n), IntervalTier)]
    if isinstance(tier, int):
        if tier >= len(names):
            raise StoryError(
                f"{path} has {len(names)} interval tiers, so none at position {tier}. They are: {', '.join(names)}."
            )
        tier = names[tier]
    if tier not in names:
        raise StoryError(f"{path} has no interval tier called '{tier}'. It has: {', '.join(names)}.")
    entries = grid.getTier(tier).entries
    return pd.DataFrame(
        {
            "word": [entry.label.strip() for entry in entries],
            "onset": [float(entry.start) for entry in entries],
            "duration": [float(entry.end) - float(entry.start) for entry in entries],
        }
    )


def read_interval_tiers(path: Path) -> list[str]:
    """List the names of the interval tiers, in order.

    Raises
    ------
    StoryError : the file cannot be read as text
    """
    return [
        name[1:-1].replace('""', '"') for kind, name, _ in _TIER.findall(_decoded(path)) if kind == "Interval"
    ]


def _decoded(path: Path) -> str:
    require_file(path, StoryError, "TextGrid")
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise StoryError(
            f"{path} cannot be read as a TextGrid: it is neither UTF-8 nor UTF-16 ({error}). Save it from Praat as a text file."
        ) from error


@dataclass(frozen=True)
class _Source:
    """The text of a TextGrid, and whether all that it declares is there."""

    path: Path
    text: str

    def whole(self, accept_truncated: bool) -> str:
        """Give the text if it is whole, or what can be saved of it if that is accepted."""
        tiers = _TIER.findall(self.text)
        declared = sum(int(n) for kind, _, n in tiers if kind == "Interval")
        found = (_LONG if "intervals: size" in self.text else _SHORT).finditer(self.text)
        ends = [m.end() for m in found]
        n_tiers = _TIERS.search(self.text)
        short_of_tiers = n_tiers is not None and len(tiers) < int(n_tiers[1])
        if len(ends) >= declared and not short_of_tiers:
            return self.text
        if not accept_truncated:
            what = (
                f"after interval {len(ends)} of {declared}"
                if len(ends) < declared
                else f"after {len(tiers)} of its {n_tiers[1] if n_tiers else '?'} tiers"
            )
            raise StoryError(
                f"{self.path} breaks off {what}. Fetch the file again, "
                "or accept what there is with story.accept_truncated = true."
            )
        return self.text[: ends[-1]] if ends else self.text


def _rounded(match: re.Match[str]) -> str:
    return f"{match[1]}{float(match[2]):.9f}"
