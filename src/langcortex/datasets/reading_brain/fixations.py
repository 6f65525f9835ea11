"""Where eyes rested while a text was read, and how they moved: the fixation tables of Reading Brain."""

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
_NEEDED = (
    "onset", "duration", "Words", "CURRENT_FIX_INTEREST_AREA_ID", "SentenceID", "TRUEOffset", "TRUEOnset",
)  # fmt: skip
_SENTENCE = r"^t\.(\d{2})\.(\d{2})$"
_MISSING = ("n/a", "", ".", "UNDEFINEDnull")
_SHORTEST = 10.0  # a median fixation below this many milliseconds was written in seconds


@dataclass(frozen=True, eq=False)
class Reader:
    """What one reader's eyes did in one run.

    Attributes
    ----------
    path : the events.tsv
    fixations : a row a fixation on a word, see `read_fixations`
    windows : a row a sentence: article, sentence, onset and duration (s) of its time on the screen
    """

    path: Path
    fixations: pd.DataFrame
    windows: pd.DataFrame

    @property
    def article(self) -> int | None:
        """The article that was read (1 to 5); None when no fixation on a word was recorded."""
        return int(self.fixations.article.iloc[0]) if len(self.fixations) else None


def read_fixations(path: Path) -> pd.DataFrame:
    """Read the fixations on words from one events.tsv of Reading Brain (ds003974, doi:10.18112/openneuro.ds003974.v3.0.0).

    The file has a row a fixation and gives times in milliseconds, against BIDS. A row is kept when its
    ``SentenceID`` names a sentence, its onset is a number and its interest area holds a word.

    Returns
    -------
    a row a fixation, in order: run_file (the file's name), article (1 to 5), sentence and word (both counted from
    1 within the article and the sentence), text (the word), onset and duration in seconds since the first scan

    Raises
    ------
    StoryError : the file is absent, empty or damaged, or its times are not milliseconds
    """
    return read_reader(path).fixations


def read_reader(path: Path) -> Reader:
    """Read the fixations of one events.tsv, and when each sentence was on the screen.

    Raises
    ------
    StoryError : as `read_fixations`; also when the file holds two articles, or a sentence was shown twice
    """
    table = _events(path)
    named = table.SentenceID.str.extract(_SENTENCE).apply(pd.to_numeric)
    onset, duration = _milliseconds(table, "onset", path), _milliseconds(table, "duration", path)
    area = table.CURRENT_FIX_INTEREST_AREA_ID
    kept = named.notna().all(axis=1) & onset.notna() & area.str.fullmatch(r"\d+") & (table.Words != "n/a")
    fixations = pd.DataFrame(
        {
            "run_file": path.name,
            "article": named[0][kept].astype(int),
            "sentence": named[1][kept].astype(int),
            "word": area[kept].astype(int),
            "text": table.Words[kept],
            "onset": onset[kept] / 1000.0,
            "duration": duration[kept] / 1000.0,
        },
        columns=list(FIXATIONS),
    ).sort_values("onset", kind="stable", ignore_index=True)
    _check(fixations, path)
    return Reader(path, fixations, _windows(table, named, path))


def _events(path: Path) -> pd.DataFrame:
    require_file(path, StoryError, "events file")
    try:
        lines = io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")
        header, *rows = [row for row in csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE) if row] or [[]]
    except (UnicodeError, csv.Error) as error:
        raise StoryError(f"{path} cannot be read as a table ({error}). Fetch it again.") from error
    missing = [name for name in _NEEDED if header.count(name) != 1]
    if missing:
        raise StoryError(
            f"{path} has no column '{missing[0]}', so it is no fixation table of Reading Brain (ds003974). "
            f"Its columns are: {', '.join(header[:20]) or 'none'}."
        )
    odd = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if odd is not None:
        raise StoryError(
            f"{path} is damaged: row {odd + 2} has {len(rows[odd])} cells but the header {len(header)}. Fetch it again."
        )
    table = pd.DataFrame(rows, columns=pd.Index(header), dtype=str)
    return table[list(_NEEDED)]


def _milliseconds(table: pd.DataFrame, name: str, path: Path) -> pd.Series:
    numbers = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
    wrong = numbers.isna() & ~table[name].isin(_MISSING)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise StoryError(
            f"{path}, row {row + 2}: '{table[name].iloc[row]}' in column '{name}' is not a number of "
            "milliseconds. Fetch the file again."
        )
    return numbers


def _check(fixations: pd.DataFrame, path: Path) -> None:
    articles = sorted(set(fixations.article))
    if len(articles) > 1:
        raise StoryError(
            f"{path} holds articles {articles[0]} and {articles[1]}, but a run is one article. Fetch it again."
        )
    if len(fixations) and fixations.duration.median() < _SHORTEST / 1000.0:
        raise StoryError(
            f"{path} has fixations of {fixations.duration.median() * 1000:g} ms: its times look like seconds, but "
            "ds003974 gives milliseconds. Use the file as it was published."
        )
    if (fixations.word < 1).any() or (fixations.duration < 0).any() or fixations.duration.isna().any():
        raise StoryError(
            f"{path} has a fixation without a duration, or on a word numbered 0. Fetch it again."
        )


def _windows(table: pd.DataFrame, named: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Read when each sentence came and went; the reading time beside it is 0 for a time-out, so it is not used."""
    began, ended = _milliseconds(table, "TRUEOnset", path), _milliseconds(table, "TRUEOffset", path)
    rows = pd.DataFrame(
        {"article": named[0], "sentence": named[1], "onset": began / 1000.0, "end": ended / 1000.0}
    ).dropna()
    windows = rows.drop_duplicates().astype({"article": int, "sentence": int})
    twice = windows.duplicated(["article", "sentence"])
    if twice.any():
        article, sentence = windows[twice][["article", "sentence"]].iloc[0]
        raise StoryError(
            f"{path} shows sentence t.{article:02d}.{sentence:02d} at two times. Fetch it again."
        )
    if (windows.end <= windows.onset).any():
        article, sentence = windows[windows.end <= windows.onset][["article", "sentence"]].iloc[0]
        raise StoryError(
            f"{path}: sentence t.{article:02d}.{sentence:02d} goes before it comes. Fetch it again."
        )
    windows["duration"] = windows.end - windows.onset
    return windows[["article", "sentence", "onset", "duration"]].sort_values("onset", ignore_index=True)


def saccades(fixations: pd.DataFrame, n_words: int, weight: str = "count") -> np.ndarray:
    """Count the moves of one reader's eyes within one sentence.

    Row i, column j is the move from word i to the word j that is fixated next; the diagonal holds refixations.
    The matrices released with Gao et al. (2025, doi:10.1038/s43588-025-00863-0) are laid out so.

    Parameters
    ----------
    fixations : rows of `read_fixations`, of one reader and one sentence, in order
    n_words : how many words the sentence has
    weight : what a move adds: "count" 1; "arriving" the duration of the fixation it ends on, which the released
        matrices fit best; "both" the durations of both fixations (seconds)

    Returns
    -------
    (n_words, n_words) float64; NaN when the reader never fixated the sentence

    Raises
    ------
    StoryError : a fixation lies on a word the sentence does not have, or the rows are of several sentences
    """
    if len(fixations[["run_file", "article", "sentence"]].drop_duplicates()) > 1:
        raise StoryError("Saccades are counted within one sentence of one reader; these rows are of several.")
    return _moves(fixations, slice(None), n_words, weight)


def _moves(fixations: pd.DataFrame, rows: slice, n_words: int, weight: str) -> np.ndarray:
    if weight not in WEIGHTS:
        raise StoryError(f"A saccade can weigh: {', '.join(WEIGHTS)}; not '{weight}'.")
    word = fixations["word"].to_numpy()[rows] - 1
    if len(word) == 0:
        return np.full((n_words, n_words), np.nan)
    if word.max() >= n_words:
        first = fixations.iloc[rows].iloc[int(word.argmax())]
        raise StoryError(
            f"{first.run_file}: word {first.word} of sentence t.{first.article:02d}.{first.sentence:02d} was "
            f"fixated, but the sentence has {n_words} words."
        )
    lasted = fixations["duration"].to_numpy(np.float64)[rows]
    adds = {"count": np.ones(len(word) - 1), "arriving": lasted[1:], "both": lasted[:-1] + lasted[1:]}[weight]
    moves = np.zeros((n_words, n_words))
    np.add.at(moves, (word[:-1], word[1:]), adds)
    return moves


def mean_saccades(
    readers: Iterable[pd.DataFrame], n_words: Mapping[tuple[int, int], int], weight: str = "count"
) -> dict[tuple[int, int], np.ndarray]:
    """Average the moves within each sentence over the readers who fixated it.

    Parameters
    ----------
    readers : the fixations of each reader, see `read_fixations`
    n_words : (article, sentence) → how many words it has
    weight : see `saccades`

    Returns
    -------
    (article, sentence) → (n_words, n_words) float64; NaN for a sentence nobody fixated
    """
    total = {key: np.zeros((n, n)) for key, n in n_words.items()}
    count = dict.fromkeys(n_words, 0)
    for fixations in readers:
        fixations = fixations.sort_values(["article", "sentence"], kind="stable")
        article, sentence = fixations["article"].to_numpy(), fixations["sentence"].to_numpy()
        new = (article[1:] != article[:-1]) | (sentence[1:] != sentence[:-1])
        starts = [0, *(np.flatnonzero(new) + 1).tolist()] if len(fixations) else []
        for first, stop in zip(starts, [*starts[1:], len(fixations)], strict=False):
            key = int(article[first]), int(sentence[first])
            if key in total:
                total[key] += _moves(fixations, slice(first, stop), n_words[key], weight)
                count[key] += 1
    return {key: total[key] / count[key] if count[key] else np.full_like(total[key], np.nan) for key in total}


def word_times(
    fixations: pd.DataFrame, n_words: int, began: float, ended: float
) -> tuple[np.ndarray, np.ndarray]:
    """Say when one reader came to each word of a sentence.

    A word begins with its first fixation while the sentence is on the screen. Eyes jump ahead and come back, so
    the largest set of words that were first fixated in reading order keeps these times; the others, and words
    never fixated, are spread evenly between their neighbours. The first word begins with the sentence, the last
    one ends with it, and each of the others ends where the next begins.

    Parameters
    ----------
    fixations : rows of `read_fixations`, of one sentence
    n_words : how many words the sentence has
    began, ended : when the sentence came and went, in seconds

    Returns
    -------
    onset, duration : (n_words,) seconds
    """
    word, time = fixations.word.to_numpy(), fixations.onset.to_numpy(np.float64)
    counts = (time > began) & (time < ended) & (word > 1) & (word <= n_words)
    word, time = word[counts], time[counts]
    order = np.argsort(time, kind="stable")
    seen, place = np.unique(word[order], return_index=True)
    first = time[order][place]
    kept = _in_order(first)
    known = [0, *(seen[kept] - 1), n_words]
    onset = np.interp(np.arange(n_words + 1), known, [began, *first[kept], ended])
    return onset[:-1], np.diff(onset)


def _in_order(time: np.ndarray) -> list[int]:
    """Find the positions of a longest increasing subsequence."""
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
