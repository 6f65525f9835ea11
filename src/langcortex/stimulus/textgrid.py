"""Praat TextGrids in every form that Praat writes: long, short, chronological and binary; whole or broken off.

Text is read by Praat's own rule: what counts are free-standing numbers, quoted strings and flags such as ``<exists>``;
everything else (``xmin =``, ``intervals [1]:``, comments after ``!``) is decoration, which other programs write
differently.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import as_path, require_file

SLIVER = 0.005  # seconds: intervals that overlap by less are mended, as aligners' rounding leaves them
WORD_TIER = re.compile(
    r"(?:^|[^a-z])(?:orthographic )?(?:words?|wrd|mots?|w[oö]rter|wort|palabras?)(?:$|[^a-z])"
)
PART_TIER = re.compile(
    r"phon|segment|syll|mora|tones?\b|intonation|pitch|gesture|part.?of.?speech|\bpos\b|lemma|speaker",
    re.IGNORECASE,
)
CHRONOLOGICAL = "Praat chronological TextGrid text file"
BINARY = b"ooBinaryFile"

# a string in quotes, one that the end of the file breaks off, a comment, or a word: text between blanks
_TOKEN = re.compile(r'"((?:[^"]|"")*)"(?=\s|$)|"(?:[^"]|"")*\Z|!.*|(\S+)')
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?")

Interval = tuple[float, float, str]


class TruncatedTextGrid(StoryError):
    """A TextGrid breaks off; `read_tier` can read it as far as it is whole."""


@dataclass(frozen=True, eq=False)
class Tier:
    """One interval tier of a TextGrid.

    Attributes
    ----------
    name : as the file has it
    intervals : one row per interval: word (stripped, perhaps empty), onset and duration in seconds
    remarks : what was mended
    """

    name: str
    intervals: pd.DataFrame
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Tier:
    """A tier as it stands in the file; only interval tiers have intervals."""

    name: str
    is_interval: bool
    declared: int
    intervals: list[Interval]


@dataclass(frozen=True, eq=False)
class _Grid:
    """What a file holds, how many tiers it declares, and whether all it declares is there."""

    tiers: list[_Tier]
    n_tiers: int
    is_whole: bool

    def end(self) -> str:
        """Describe where a file that is not whole ends."""
        tiers = [t for t in self.tiers if t.is_interval]
        complete, declared = sum(len(t.intervals) for t in tiers), sum(t.declared for t in tiers)
        if complete < declared:
            return f"after interval {complete} of {declared}"
        return f"after {len(self.tiers)} of its {self.n_tiers or '?'} tiers"


class _BreaksOff(Exception):
    """The file ends before what it declares."""


def read_textgrid(
    path: Path | str, tier: int | str | None = 0, accept_truncated: bool = False
) -> pd.DataFrame:
    """Read the intervals of one tier; see `read_tier`.

    Returns
    -------
    DataFrame with one row per interval: word (stripped, perhaps empty), onset and duration in seconds
    """
    path = as_path(path)
    return read_tier(path, tier, accept_truncated).intervals


def read_tier(path: Path | str, tier: int | str | None = None, accept_truncated: bool = False) -> Tier:
    """Read one interval tier, and only judge that one.

    Parameters
    ----------
    path : a TextGrid, in any of Praat's forms, UTF-8 or UTF-16
    tier : the interval tier, by position among interval tiers or by name; None takes the only one, or the only one whose name
        says that it holds words
    accept_truncated : read a file that breaks off as far as it is whole

    Returns
    -------
    Tier; intervals that overlap by less than 5 ms end where the next begins, which is a remark

    Raises
    ------
    StoryError : the file is no TextGrid, breaks off, has no such tier, or the tier's intervals are impossible
    """
    path = as_path(path)
    grid = _read(path)
    if not grid.is_whole and not accept_truncated:
        raise TruncatedTextGrid(f"{path} breaks off {grid.end()}. Fetch the file again.")
    chosen = _choose([t for t in grid.tiers if t.is_interval], tier, path)
    intervals, remarks = _checked(chosen, path)
    if tier is None and PART_TIER.search(chosen.name) and not WORD_TIER.search(chosen.name.lower()):
        remarks += (f"{path.name}: the only interval tier is called '{chosen.name}'. Are its labels words?",)
    table = pd.DataFrame(
        {
            "word": [text.strip() for _, _, text in intervals],
            "onset": [begin for begin, _, _ in intervals],
            "duration": [end - begin for begin, end, _ in intervals],
        }
    )
    return Tier(chosen.name, table, remarks)


def read_interval_tiers(path: Path | str) -> list[str]:
    """List the names of the interval tiers, in order.

    Raises
    ------
    StoryError : the file cannot be read as a TextGrid
    """
    path = as_path(path)
    return [tier.name for tier in _read(path).tiers if tier.is_interval]


def _choose(tiers: list[_Tier], tier: int | str | None, path: Path) -> _Tier:
    """Return the tier that is asked for, or the one that holds words."""
    names = ", ".join(f"'{t.name}'" for t in tiers)
    if not tiers:
        raise StoryError(
            f"{path} has no interval tier, so no words with times. Save words as an interval tier."
        )
    if isinstance(tier, int):
        if not 0 <= tier < len(tiers):
            raise StoryError(
                f"{path} has {len(tiers)} interval tiers, so none at position {tier}. They are: {names}."
            )
        return tiers[tier]
    if tier is None:
        matches = tiers if len(tiers) == 1 else [t for t in tiers if WORD_TIER.search(t.name.lower())]
        if len(matches) != 1:
            which = "none is" if not matches else f"{len(matches)} are"
            raise StoryError(
                f"{path} has {len(tiers)} interval tiers, of which {which} called words: {names}. "
                "Name the tier of words with story.tier."
            )
        return matches[0]
    matches = [t for t in tiers if t.name == tier]
    if not matches:
        raise StoryError(f"{path} has no interval tier called '{tier}'. It has: {names}.")
    if len(matches) > 1:
        raise StoryError(
            f"{path} has {len(matches)} interval tiers called '{tier}'. Give its position among {len(tiers)} as story.tier, from 0."
        )
    return matches[0]


def _checked(tier: _Tier, path: Path) -> tuple[list[Interval], tuple[str, ...]]:
    """Hold a tier's intervals against time, and mend overlaps that are rounding."""
    out: list[Interval] = []
    mended: list[float] = []
    for number, (begin, end, text) in enumerate(_rounded(tier.intervals), start=1):
        where = (
            f"{path}, tier '{tier.name}', interval {number} ('{text.strip()[:30]}', {begin:g} to {end:g} s)"
        )
        if not (math.isfinite(begin) and math.isfinite(end)) or end < begin:
            raise StoryError(f"{where} ends before it begins or has no time. Mend it in Praat.")
        if end == begin:
            if text.strip():
                raise StoryError(f"{where} has no duration. Give it one in Praat, or remove it.")
            continue
        if out and begin < out[-1][1]:
            overlap = out[-1][1] - begin
            if overlap > SLIVER or begin <= out[-1][0]:
                raise StoryError(
                    f"{where} overlaps the interval before it by {overlap:.3g} s. Mend it in Praat, or name another tier."
                )
            if overlap > 1e-9:
                mended.append(overlap)
            out[-1] = (out[-1][0], begin, out[-1][2])
        out.append((begin, end, text))
    remarks = (
        f"{path.name}: {len(mended)} intervals of tier '{tier.name}' overlapped the next by up to {1e3 * max(mended):.3g} ms "
        "and were made to end where it begins."
        if mended
        else ""
    )
    return out, (remarks,) if remarks else ()


def _rounded(intervals: list[Interval]) -> list[Interval]:
    """Round times to a nanosecond, since published files overlap by the rounding of their numbers, and put them in order."""
    return sorted(
        ((round(begin, 9), round(end, 9), text) for begin, end, text in intervals), key=lambda x: x[:2]
    )


def _read(path: Path) -> _Grid:
    """Read all tiers of a file, as far as it goes."""
    require_file(path, StoryError, "TextGrid")
    content = path.read_bytes()
    try:
        if content.startswith(BINARY):
            return _read_binary(content)
        tokens = _tokens(_decoded(content))
        first = next(tokens, "")
        if first == CHRONOLOGICAL:
            return _read_chronological(tokens)
        if not (isinstance(first, str) and first.startswith("ooTextFile") and next(tokens, "") == "TextGrid"):
            raise ValueError("it does not begin as one")
        return _read_tiers(_Source(tokens))
    except (ValueError, struct.error, OverflowError) as error:
        raise StoryError(
            f"{path} cannot be read as a TextGrid ({str(error).splitlines()[0]}). Save it from Praat as a text file."
        ) from error


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise ValueError(f"it is neither UTF-8 nor UTF-16: {error}") from error


def _tokens(text: str) -> Iterator[str | float | bool]:
    """Yield strings as str, numbers as float, and ``<exists>`` / ``<absent>`` as bool."""
    for match in _TOKEN.finditer(text):
        string, word = match[1], match[2]
        if string is not None:
            yield string.replace('""', '"')
        elif word in ("<exists>", "<absent>"):
            yield word == "<exists>"
        elif word and _NUMBER.fullmatch(word):
            yield float(word.rstrip("%"))


class _Source:
    """Numbers and strings in the order that a TextGrid declares."""

    def __init__(self, tokens: Iterator[str | float | bool]) -> None:
        self.tokens = tokens

    def number(self) -> float:
        value = self._next()
        if isinstance(value, bool) or not isinstance(value, float):
            raise ValueError(f"a number is expected where {value!r} stands")
        return value

    def count(self) -> int:
        value = self.number()
        if value < 0 or value != int(value):
            raise ValueError(f"a count is expected where {value:g} stands")
        return int(value)

    def string(self) -> str:
        value = self._next()
        if not isinstance(value, str):
            raise ValueError(f"a text in quotation marks is expected where {value!r} stands")
        return value

    def kind(self) -> str:
        return self.string()

    def flag(self) -> bool:
        value = self._next()
        if not isinstance(value, bool):
            raise ValueError(f"<exists> is expected where {value!r} stands")
        return value

    def _next(self) -> str | float | bool:
        try:
            return next(self.tokens)
        except StopIteration:
            raise _BreaksOff from None


def _read_tiers(source: _Source) -> _Grid:
    """Read tier after tier: the long, the short and the binary form."""
    tiers: list[_Tier] = []
    n_tiers = 0
    try:
        source.number(), source.number()
        if not source.flag():
            raise ValueError("it declares that it has no tiers")
        n_tiers = source.count()
        for _ in range(n_tiers):
            is_interval, name = _is_interval(source.kind()), source.string()
            source.number(), source.number()
            tier = _Tier(name, is_interval, source.count(), [])
            tiers.append(tier)
            for _ in range(tier.declared):
                if is_interval:
                    tier.intervals.append((source.number(), source.number(), source.string()))
                else:
                    source.number(), source.string()
    except _BreaksOff:
        if not tiers:
            raise ValueError("it breaks off before its first tier") from None
        return _Grid(tiers, n_tiers, False)
    return _Grid(tiers, n_tiers, True)


def _is_interval(kind: str) -> bool:
    if kind not in ("IntervalTier", "TextTier"):
        raise ValueError(f"'{kind[:30]}' is no kind of tier")
    return kind == "IntervalTier"


def _read_chronological(tokens: Iterator[str | float | bool]) -> _Grid:
    """Read the form that lists the intervals and points of all tiers in order of time."""
    source = _Source(tokens)
    try:
        source.number(), source.number()
        tiers, ends = [], []
        for _ in range(source.count()):
            kind, name = source.string(), source.string()
            source.number()
            ends.append(source.number())
            tiers.append(_Tier(name, _is_interval(kind), 0, []))
    except _BreaksOff:
        raise ValueError("it breaks off before its tiers are named") from None
    is_whole = _read_chronological_entries(source, tiers)
    reached = all(
        not t.is_interval or (t.intervals and t.intervals[-1][1] >= end - SLIVER)
        for t, end in zip(tiers, ends, strict=True)
    )
    return _Grid(tiers, len(tiers), is_whole and reached)


def _read_chronological_entries(source: _Source, tiers: list[_Tier]) -> bool:
    for first in source.tokens:
        if isinstance(first, bool) or not isinstance(first, float) or not 1 <= first <= len(tiers):
            raise ValueError(f"the number of a tier is expected where {first!r} stands")
        tier = tiers[int(first) - 1]
        try:
            begin = source.number()
            end = source.number() if tier.is_interval else begin
            text = source.string()
        except _BreaksOff:
            return False
        if tier.is_interval:
            tier.intervals.append((begin, end, text))
    return True


class _BinarySource(_Source):
    """Numbers and strings of Praat's binary form: big-endian, strings with their length before them."""

    def __init__(self, content: bytes, position: int) -> None:
        self.content, self.position = content, position

    def number(self) -> float:
        return float(self._unpack(">d"))

    def count(self) -> int:
        value = int(self._unpack(">i"))
        if value < 0:
            raise ValueError(f"a count is expected where {value} stands")
        return value

    def flag(self) -> bool:
        return bool(self._unpack(">B"))

    def string(self) -> str:
        length = int(self._unpack(">H"))
        if length == 0xFFFF:  # longer or wider than Latin-1: two bytes per character
            return self._bytes(2 * int(self._unpack(">H"))).decode("utf-16-be")
        return self._bytes(length).decode("latin-1")

    def kind(self) -> str:
        return self._bytes(int(self._unpack(">B"))).decode("latin-1")

    def _unpack(self, form: str) -> float:
        value: float = struct.unpack(form, self._bytes(struct.calcsize(form)))[0]
        return value

    def _bytes(self, n: int) -> bytes:
        part = self.content[self.position : self.position + n]
        if len(part) < n:
            raise _BreaksOff
        self.position += n
        return part


def _read_binary(content: bytes) -> _Grid:
    source = _BinarySource(content, len(BINARY))
    try:
        if source.kind() != "TextGrid":
            raise ValueError("it is a binary file of another kind")
    except _BreaksOff:
        raise ValueError("it breaks off in its first line") from None
    return _read_tiers(source)
