"""Fixations and saccades during reading: the eye-tracking tables of Reading Brain."""

from __future__ import annotations

import bisect
import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import require_file

FIXATIONS = ("run_file", "article", "sentence", "word", "text", "onset", "duration")
WEIGHTS = ("count", "arriving", "both")
_REQUIRED = (
    "onset", "duration", "Words", "CURRENT_FIX_INTEREST_AREA_ID", "SentenceID", "TRUEOffset", "TRUEOnset",
)  # fmt: skip
_SENTENCE = r"^t\.(\d{2})\.(\d{2})$"
_MISSING = ("n/a", "", ".", "UNDEFINEDnull")
_SHORTEST = 10.0  # a median fixation below this many milliseconds is in seconds


@dataclass(frozen=True, eq=False)
class EyeTrackingRun:
    """The fixations of one reader in one run.

    Attributes
    ----------
    path : the events.tsv
    fixations : one row per fixation on a word, see `read_fixations`
    windows : one row per sentence: article, sentence, onset and duration (s) of its time on the screen
    """

    path: Path
    fixations: pd.DataFrame
    windows: pd.DataFrame

    @property
    def article(self) -> int | None:
        """The article that was read (1 to 5); None if no fixation on a word was recorded."""
        return int(self.fixations.article.iloc[0]) if len(self.fixations) else None


def read_fixations(path: Path) -> pd.DataFrame:
    """Read the fixations on words from one events.tsv of Reading Brain (ds003974, doi:10.18112/openneuro.ds003974.v3.0.0).

    The file has one row per fixation and times in milliseconds, unlike BIDS. A row is used if its ``SentenceID``
    names a sentence, its onset is a number and its interest area contains a word.

    Returns
    -------
    one row per fixation, in order: run_file (the name of the file), article (1 to 5), sentence and word (counted
    from 1 within the article and the sentence), text (the word), onset and duration in seconds since the first scan

    Raises
    ------
    StoryError : the file is absent, empty or damaged, or its times are not milliseconds
    """
    return read_run(path).fixations


def read_run(path: Path) -> EyeTrackingRun:
    """Read the fixations of one events.tsv, and the times of sentences on the screen.

    Raises
    ------
    StoryError : as `read_fixations`; also if the file has two articles, or a sentence was shown twice
    """
    table = _read_events(path)
    sentence_id = table.SentenceID.str.extract(_SENTENCE).apply(pd.to_numeric)
    onset, duration = _parse_milliseconds(table, "onset", path), _parse_milliseconds(table, "duration", path)
    area = table.CURRENT_FIX_INTEREST_AREA_ID
    has_sentence = sentence_id.notna().all(axis=1)
    on_word = has_sentence & onset.notna() & area.str.fullmatch(r"\d+") & (table.Words != "n/a")
    fixations = pd.DataFrame(
        {
            "run_file": path.name,
            "article": sentence_id[0][on_word].astype(int),
            "sentence": sentence_id[1][on_word].astype(int),
            "word": area[on_word].astype(int),
            "text": table.Words[on_word],
            "onset": onset[on_word] / 1000.0,
            "duration": duration[on_word] / 1000.0,
        },
        columns=list(FIXATIONS),
    ).sort_values("onset", kind="stable", ignore_index=True)
    _check_fixations(fixations, path)
    return EyeTrackingRun(path, fixations, _sentence_windows(table, sentence_id, path))


def _read_events(path: Path) -> pd.DataFrame:
    require_file(path, StoryError, "events file")
    try:
        lines = io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")
        header, *rows = [row for row in csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE) if row] or [[]]
    except (UnicodeError, csv.Error) as error:
        raise StoryError(f"{path} cannot be read as a table ({error}). Fetch it again.") from error
    missing = [name for name in _REQUIRED if header.count(name) != 1]
    if missing:
        raise StoryError(
            f"{path} has no column '{missing[0]}', so it is no fixation table of Reading Brain (ds003974, ds003988). "
            f"Its columns are: {', '.join(header[:20]) or 'none'}."
        )
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if ragged is not None:
        raise StoryError(
            f"{path} is damaged: row {ragged + 2} has {len(rows[ragged])} cells but the header {len(header)}. Fetch it again."
        )
    table = pd.DataFrame(rows, columns=pd.Index(header), dtype=str)
    return table[list(_REQUIRED)]


def _parse_milliseconds(table: pd.DataFrame, name: str, path: Path) -> pd.Series:
    numbers = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
    invalid = ~np.isfinite(numbers) & ~table[name].isin(_MISSING)
    if invalid.any():
        row = int(np.flatnonzero(invalid)[0])
        raise StoryError(
            f"{path}, row {row + 2}: '{table[name].iloc[row]}' in column '{name}' is not a number of "
            "milliseconds. Fetch the file again."
        )
    return numbers


def _check_fixations(fixations: pd.DataFrame, path: Path) -> None:
    articles = sorted(set(fixations.article))
    if len(articles) > 1:
        raise StoryError(
            f"{path} has articles {articles[0]} and {articles[1]}, but a run is one article. Fetch it again."
        )
    if len(fixations) and fixations.duration.median() < _SHORTEST / 1000.0:
        raise StoryError(
            f"{path} has fixations of {fixations.duration.median() * 1000:g} ms: its times look like seconds, but those "
            "of Reading Brain are milliseconds. Use the file as it was published."
        )
    if (fixations.word < 1).any() or (fixations.duration < 0).any() or fixations.duration.isna().any():
        raise StoryError(
            f"{path} has a fixation without a duration, or on a word numbered 0. Fetch it again."
        )


def _sentence_windows(table: pd.DataFrame, sentence_id: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the time of each sentence on the screen; reading times are not used, as they are 0 after a time-out."""
    onset = _parse_milliseconds(table, "TRUEOnset", path)
    end = _parse_milliseconds(table, "TRUEOffset", path)
    rows = pd.DataFrame(
        {
            "article": sentence_id[0],
            "sentence": sentence_id[1],
            "onset": onset / 1000.0,
            "end": end / 1000.0,
        }
    ).dropna()
    windows = rows.drop_duplicates().astype({"article": int, "sentence": int})
    duplicates = windows.duplicated(["article", "sentence"])
    if duplicates.any():
        article, sentence = windows[duplicates][["article", "sentence"]].iloc[0]
        raise StoryError(
            f"{path} shows sentence t.{article:02d}.{sentence:02d} at two times. Fetch it again."
        )
    if (windows.end <= windows.onset).any():
        article, sentence = windows[windows.end <= windows.onset][["article", "sentence"]].iloc[0]
        raise StoryError(
            f"{path}: sentence t.{article:02d}.{sentence:02d} ends before it begins. Fetch it again."
        )
    windows["duration"] = windows.end - windows.onset
    return windows[["article", "sentence", "onset", "duration"]].sort_values("onset", ignore_index=True)


def saccades(fixations: pd.DataFrame, n_words: int, weight: str = "count") -> np.ndarray:
    """Count the saccades of one reader within one sentence.

    Row i, column j counts saccades from word i to the next fixated word j; the diagonal counts refixations, as in
    the matrices released with Gao et al. (2025, doi:10.1038/s43588-025-00863-0).

    Parameters
    ----------
    fixations : rows of `read_fixations`, of one reader and one sentence, in order
    n_words : the number of words of the sentence
    weight : the weight of a saccade: "count" is 1; "arriving" the duration of the fixation after it, which agrees
        best with the released matrices; "both" the durations of the fixations before and after it (seconds)

    Returns
    -------
    (n_words, n_words) float64; NaN if the reader did not fixate the sentence

    Raises
    ------
    StoryError : a fixation is on a word that the sentence does not have, or the rows are of several sentences
    """
    if len(fixations[["run_file", "article", "sentence"]].drop_duplicates()) > 1:
        raise StoryError(
            "Saccades are counted within one sentence of one reader, but these rows are of several. Select one."
        )
    return _count_saccades(fixations, slice(None), n_words, weight)


def _count_saccades(fixations: pd.DataFrame, rows: slice, n_words: int, weight: str) -> np.ndarray:
    if weight not in WEIGHTS:
        raise StoryError(f"The weight of a saccade is one of {', '.join(WEIGHTS)}; not '{weight}'.")
    word = fixations["word"].to_numpy()[rows] - 1
    if len(word) == 0:
        return np.full((n_words, n_words), np.nan)
    if word.max() >= n_words:
        first = fixations.iloc[rows].iloc[int(word.argmax())]
        raise StoryError(
            f"{first.run_file}: word {first.word} of sentence t.{first.article:02d}.{first.sentence:02d} was "
            f"fixated, but the sentence has {n_words} words."
        )
    duration = fixations["duration"].to_numpy(np.float64)[rows]
    weights = {
        "count": np.ones(len(word) - 1),
        "arriving": duration[1:],
        "both": duration[:-1] + duration[1:],
    }
    counts = np.zeros((n_words, n_words))
    np.add.at(counts, (word[:-1], word[1:]), weights[weight])
    return counts


def mean_saccades(
    readers: Iterable[pd.DataFrame], n_words: Mapping[tuple[int, int], int], weight: str = "count"
) -> dict[tuple[int, int], np.ndarray]:
    """Average the saccades within each sentence over the readers who fixated it.

    Parameters
    ----------
    readers : the fixations of each reader, see `read_fixations`
    n_words : (article, sentence) → the number of its words
    weight : see `saccades`

    Returns
    -------
    (article, sentence) → (n_words, n_words) float64; NaN for a sentence that no reader fixated
    """
    total = {key: np.zeros((n, n)) for key, n in n_words.items()}
    count = dict.fromkeys(n_words, 0)
    for fixations in readers:
        fixations = fixations.sort_values(["article", "sentence"], kind="stable")
        article, sentence = fixations["article"].to_numpy(), fixations["sentence"].to_numpy()
        is_new = (article[1:] != article[:-1]) | (sentence[1:] != sentence[:-1])
        starts = [0, *(np.flatnonzero(is_new) + 1).tolist()] if len(fixations) else []
        for first, stop in zip(starts, [*starts[1:], len(fixations)], strict=False):
            key = int(article[first]), int(sentence[first])
            if key in total:
                total[key] += _count_saccades(fixations, slice(first, stop), n_words[key], weight)
                count[key] += 1
    return {key: total[key] / count[key] if count[key] else np.full_like(total[key], np.nan) for key in total}


def word_times(
    fixations: pd.DataFrame, n_words: int, start: float, stop: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the onset and duration of each word of a sentence for one reader.

    A word begins with its first fixation while the sentence is on the screen. Eyes jump ahead and come back, so
    these times are used for the largest set of words that were first fixated in reading order; the other words
    are spaced evenly between their neighbours. The first word begins with the sentence, the last one ends with
    it, and each of the others ends where the next one begins.

    Parameters
    ----------
    fixations : rows of `read_fixations`, of one sentence
    n_words : the number of words of the sentence
    start, stop : when the sentence was on the screen, in seconds

    Returns
    -------
    onset, duration : (n_words,) seconds
    """
    word, time = fixations.word.to_numpy(), fixations.onset.to_numpy(np.float64)
    valid = (time > start) & (time < stop) & (word > 1) & (word <= n_words)
    word, time = word[valid], time[valid]
    order = np.argsort(time, kind="stable")
    fixated, first_index = np.unique(word[order], return_index=True)
    first_time = time[order][first_index]
    in_order = _longest_increasing(first_time)
    timed = [0, *(fixated[in_order] - 1), n_words]
    onset = np.interp(np.arange(n_words + 1), timed, [start, *first_time[in_order], stop])
    return onset[:-1], np.diff(onset)


def _longest_increasing(time: np.ndarray) -> list[int]:
    """Return the positions of a longest increasing subsequence."""
    ends: list[float] = []  # the smallest last value of a subsequence of each length
    last: list[int] = []
    before = [-1] * len(time)
    for i, value in enumerate(time):
        length = bisect.bisect_left(ends, value)
        before[i] = last[length - 1] if length else -1
        ends[length : length + 1] = [value]
        last[length : length + 1] = [i]
    chain = [last[-1]] if last else []
    while chain and before[chain[-1]] >= 0:
        chain.append(before[chain[-1]])
    return chain[::-1]
