"""Tables of words and times (.csv, .tsv, events.tsv), and whether labels and times can be those of a story."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.errors import StoryError

COLUMNS = {
    "word": ("word", "text", "token", "label", "value", "trial_type"),
    "onset": ("onset", "start", "start_time", "begin"),
    "duration": ("duration", "dur"),
    "end": ("offset", "end", "stop", "end_time"),
    "run": ("run", "section"),
    "sentence": ("sentence", "sentence_id"),
}
LONGEST = 60.0  # seconds: no word is longer
LONGEST_STORY = 36_000.0  # seconds: no run is longer
OVERLAP = 0.05  # seconds that a word may reach into the next, as aligners' rounding leaves them
LEAST_WORDS = 5  # from which on the spacing of words tells their unit


def read_word_table(path: Path) -> pd.DataFrame:
    """Read a table of words.

    Returns
    -------
    DataFrame with one row per label: word (stripped, perhaps empty), onset and duration in seconds, and perhaps run and
    sentence

    Raises
    ------
    StoryError : the table has no such columns, or cells that are no numbers
    """
    raw = _read_cells(path)
    columns = _find_columns(raw, path)
    times = {"onset": _parse_seconds(raw[columns["onset"]], path)}
    if "duration" in columns:
        times["duration"] = _parse_seconds(raw[columns["duration"]], path)
    else:
        times["duration"] = _parse_seconds(raw[columns["end"]], path) - times["onset"]
    table = pd.DataFrame({"word": [_unquote(w).strip() for w in raw[columns["word"]]], **times})
    for noun in ("run", "sentence"):
        if noun in columns:
            table[noun] = raw[columns[noun]].to_numpy()
    return table


def _find_columns(raw: pd.DataFrame, path: Path) -> dict[str, str]:
    """Find the columns that a story needs: noun → the column's name in the file."""
    lower: dict[str, list[str]] = {}
    for column in raw.columns:
        lower.setdefault(str(column).strip().lower(), []).append(column)
    columns = {noun: next((c for c in names if c in lower), None) for noun, names in COLUMNS.items()}
    twice = next((c for c in columns.values() if c is not None and len(lower[c]) > 1), None)
    if twice is not None:
        raise StoryError(
            f"{path} has {len(lower[twice])} columns called '{twice}'. Leave one, so that it is clear which is meant."
        )
    for noun, alternative in (("word", "word"), ("onset", "onset"), ("duration", "end")):
        if columns[noun] is None and columns[alternative] is None:
            accepted = " or ".join(COLUMNS[noun] + (COLUMNS["end"] if noun == "duration" else ()))
            raise StoryError(
                f"{path} has no column for {noun} ({accepted}). Its columns are: {', '.join(map(str, raw.columns))}."
            )
    return {noun: lower[c][0] for noun, c in columns.items() if c is not None}


def _read_cells(path: Path) -> pd.DataFrame:
    """Read a table as text, and check that every row is as long as the header."""
    comma = path.suffix.lower() == ".csv"
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        lines = io.StringIO(content.decode(encoding), newline="")
        # a .tsv is not quoted: its words may be quotation marks
        reader = (
            csv.reader(lines, quoting=csv.QUOTE_MINIMAL)
            if comma
            else csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE)
        )
        header, *rows = [row for row in reader if row] or [[]]
    except (UnicodeError, csv.Error) as error:
        raise StoryError(f"{path} cannot be read as a table ({error}).") from error
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if ragged is not None:
        raise StoryError(
            f"{path} cannot be read as a table: row {ragged + 2} has {len(rows[ragged])} cells but the header {len(header)}."
        )
    return pd.DataFrame(rows, columns=pd.Index(header, dtype=object), dtype=str)


def _unquote(cell: str) -> str:
    """Undo the quoting that some writers add to a .tsv cell with a quotation mark."""
    doubled = len(cell) > 3 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]
    return cell[1:-1].replace('""', '"') if doubled else cell


def _parse_seconds(column: pd.Series, path: Path) -> np.ndarray:
    missing = column.str.strip().str.lower().isin(["n/a", "na", "", "nan"]).to_numpy(bool)
    values = pd.to_numeric(column.mask(missing, "nan"), errors="coerce").to_numpy(np.float64)
    wrong = ~np.isfinite(values) & ~missing
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise StoryError(
            f"{path}, row {row + 2}: '{column.iloc[row][:40]}' in column '{column.name}' is not a number of seconds."
        )
    seconds: np.ndarray = values
    return seconds


def check_unit(onset: np.ndarray, duration: np.ndarray, where: str) -> None:
    """Refuse times that cannot be seconds.

    Parameters
    ----------
    onset, duration : (n_words,) of one run
    where : the file or the run, to begin the message

    Raises
    ------
    StoryError : words last more than 20 s (the median), a run more than 10 h, or all times are whole numbers and words
        come more than 50 s after each other (the median)
    """
    timed = np.isfinite(onset) & np.isfinite(duration)
    onset, duration = onset[timed], duration[timed]
    if not len(onset):
        return
    spacing = float(np.median(np.diff(np.unique(onset)))) if len(np.unique(onset)) > 1 else 0.0
    length = float(np.median(duration))
    end = float((onset + duration).max())
    is_whole = bool((onset == np.round(onset)).all() and (duration == np.round(duration)).all())
    is_wide = len(onset) >= LEAST_WORDS and is_whole and spacing > 50
    if not (length > 20 or end > LONGEST_STORY or is_wide):
        return
    raise StoryError(
        f"{where}: the times look like {_likely_unit(spacing or length)}, not seconds: a word lasts {length:g} and the last "
        f"ends at {end:g}. Write onset and duration in seconds."
    )


def _likely_unit(spacing: float) -> str:
    """Return the unit in which words, which come a few times per second, have that spacing."""
    units = ((5e3, "milliseconds"), (1e5, "samples of a sound"), (1e6, "microseconds"))
    return next((unit for limit, unit in units if spacing < limit), "units of 100 ns")


def check_labels(table: pd.DataFrame, is_word: np.ndarray, where: str) -> list[str]:
    """Refuse labels and times that cannot be those of a story's words.

    Parameters
    ----------
    table : one row per label: word, onset and duration in seconds
    is_word : (n_labels,) bool, which labels are no pauses
    where : the file or the run, to begin messages

    Returns
    -------
    remarks : what is doubtful

    Raises
    ------
    StoryError : characters that no word has, or onsets and durations that no words have
    """
    words = table[is_word]
    text, onset = words["word"].astype(str).tolist(), words["onset"].to_numpy(np.float64)
    duration = words["duration"].to_numpy(np.float64)
    for word in text:
        if any(unicodedata.category(c) in ("Cc", "Cs") or c == "\ufffd" for c in word):
            raise StoryError(
                f"{where}: the word {word[:30]!r} has characters that cannot be read. Save the file as UTF-8 text, one word per label."
            )
    early = np.flatnonzero(onset < 0)
    if len(early):
        raise StoryError(
            f"{where}: word '{text[early[0]][:30]}' begins at {onset[early[0]]:g} s, before the story. Count onsets from the "
            "beginning of the stimulus."
        )
    long = np.flatnonzero(duration > LONGEST)
    if len(long):
        raise StoryError(
            f"{where}: word '{text[long[0]][:30]}' lasts {duration[long[0]]:g} s. No word is longer than {LONGEST:g} s: are "
            "the durations end times, or the label a pause (story.pauses)?"
        )
    return _check_order(text, onset, duration, where)


def _check_order(text: list[str], onset: np.ndarray, duration: np.ndarray, where: str) -> list[str]:
    """Refuse words that are heard at the same time."""
    step = np.diff(onset)
    equal = int((step == 0).sum())
    if equal >= 3 and equal > 0.1 * len(onset):
        first = int(np.flatnonzero(step == 0)[0])
        raise StoryError(
            f"{where}: {equal} of {len(onset)} words begin together with the word before, first '{text[first + 1][:30]}' at "
            f"{onset[first]:g} s. Give every word its own onset."
        )
    overlap = np.where(step > 0, onset[:-1] + duration[:-1] - onset[1:], 0.0)
    wrong = np.flatnonzero(overlap > OVERLAP)
    if len(wrong):
        i = int(wrong[0])
        count = f" ({len(wrong)} words do)" if len(wrong) > 1 else ""
        raise StoryError(
            f"{where}: word '{text[i][:30]}' ({onset[i]:g} to {onset[i] + duration[i]:g} s) lasts {overlap[i]:.3g} s into the "
            f"next, '{text[i + 1][:30]}'{count}. Are the durations end times? Otherwise end each word where the next begins."
        )
    n = int((overlap > 0.001).sum())
    return [f"{where}: {n} words last up to {1e3 * overlap.max():.3g} ms into the next."] if n else []
