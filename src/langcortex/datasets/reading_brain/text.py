"""The sentences of Reading Brain: how many there are, what they say, and how long readers looked at them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import require_file

Key = tuple[int, int]
"""A sentence: its article and its number there, both counted from 1, as in ``t.01.01``."""

LENGTHS: tuple[tuple[int, ...], ...] = (
    (7, 10, 11, 11, 13, 11, 10, 10, 10, 9, 9, 15, 12, 10, 11, 7, 7, 9, 10, 9, 10, 8, 10, 9, 11, 10, 10, 10, 8, 10, 13),
    (10, 10, 10, 10, 10, 10, 10, 11, 10, 9, 9, 12, 9, 12, 11, 8, 8, 9, 11, 10, 9, 9, 8, 10, 9, 11, 8, 10, 9, 10, 10),
    (8, 8, 13, 13, 10, 14, 7, 11, 16, 9, 9, 11, 12, 13, 9, 12, 9, 12, 12, 13, 13, 10, 12, 11, 11, 9, 13, 8),
    (11, 11, 10, 8, 10, 9, 9, 11, 12, 13, 14, 12, 13, 11, 9, 11, 14, 13, 9, 12, 12, 8, 10, 10, 13, 11, 11, 10),
    (9, 9, 12, 13, 13, 13, 12, 9, 8, 12, 12, 12, 9, 10, 9, 11, 15, 11, 7, 9, 9, 9, 10, 13, 8, 6, 10, 9, 9, 6),
)  # fmt: skip
"""Words in each sentence of each article: 148 sentences, 1531 words, from the interest areas that all readers fixated."""


def sentence_keys(articles: Sequence[int]) -> list[Key]:
    """List the sentences of some articles, in reading order."""
    return [(a, s) for a in articles for s in range(1, len(LENGTHS[a - 1]) + 1)]


def n_words(key: Key) -> int:
    """Say how many words a sentence has."""
    return LENGTHS[key[0] - 1][key[1] - 1]


def as_displayed(key: Key) -> str:
    """Write a sentence as the events do.

    >>> as_displayed((1, 7))
    't.01.07'
    """
    return f"t.{key[0]:02d}.{key[1]:02d}"


def median_durations(windows: pd.DataFrame, where: Path) -> dict[Key, float]:
    """Say for how many seconds the median reader looked at each sentence.

    Parameters
    ----------
    windows : those of `langcortex.datasets.reading_brain.fixations.Reader`, of all readers together
    where : the folder they come from, for messages

    Raises
    ------
    StoryError : a sentence of an article was shown to nobody, or is not one of the 148
    """
    median = {
        (int(a), int(s)): float(v)
        for (a, s), v in windows.groupby(["article", "sentence"]).duration.median().items()
    }
    articles = sorted({a for a, _ in median})
    keys = sentence_keys([a for a in articles if a <= len(LENGTHS)])
    unknown = next((key for key in median if key not in keys), None)
    if unknown:
        raise StoryError(
            f"The events in {where} name sentence {as_displayed(unknown)}, which ds003974 does not have. Fetch them again."
        )
    absent = next((key for key in keys if key not in median), None)
    if absent:
        raise StoryError(
            f"The events in {where} never show sentence {as_displayed(absent)}. Fetch them again."
        )
    return {key: median[key] for key in keys}


def fixated_words(tables: Sequence[pd.DataFrame]) -> dict[tuple[int, int, int], str]:
    """Gather the words that anyone fixated: (article, sentence, word) → the word.

    Raises
    ------
    StoryError : two files name one word differently
    """
    named = pd.concat(tables).drop_duplicates(["article", "sentence", "word", "text"])
    out: dict[tuple[int, int, int], str] = {}
    source: dict[tuple[int, int, int], str] = {}
    for row in named.itertuples():
        key = int(row.article), int(row.sentence), int(row.word)
        if key in out:
            raise StoryError(
                f"Word {key[2]} of sentence {as_displayed(key[:2])} is '{out[key]}' in {source[key]} but '{row.text}' in "
                f"{row.run_file}. Fetch both again."
            )
        out[key], source[key] = str(row.text), str(row.run_file)
    return out


def gathered_sentences(
    fixated: Mapping[tuple[int, int, int], str], keys: Sequence[Key], where: Path
) -> dict[Key, list[str]]:
    """Rebuild sentences from the words that were fixated; all 52 readers together fixated every word.

    Raises
    ------
    StoryError : nobody fixated some word of a sentence
    """
    out: dict[Key, list[str]] = {}
    for key in keys:
        n = n_words(key)
        words = {w: fixated[*key, w] for w in range(1, n + 1) if (*key, w) in fixated}
        if len(words) < n:
            raise StoryError(
                f"Sentence {as_displayed(key)} lacks {n - len(words)} of its {n} words: no reader whose events are in {where} fixated "
                "them. Fetch the events of more subjects, or give the sentences with data.options.text."
            )
        out[key] = list(words.values())
    return out


def given_sentences(
    path: Path, fixated: Mapping[tuple[int, int, int], str], keys: Sequence[Key]
) -> dict[Key, list[str]]:
    """Read sentences from a table, and hold them against the words that were fixated.

    Words are compared by their letters and digits, so that a table may mend case and punctuation.

    Raises
    ------
    StoryError : a sentence is absent, has another number of words, or says another word than was shown
    """
    given = read_sentences(path)
    for key in keys:
        if key not in given:
            raise StoryError(f"{path} has no sentence {as_displayed(key)}, which was read. Add it.")
        if len(given[key]) != n_words(key):
            raise StoryError(
                f"{path}: sentence {as_displayed(key)} has {len(given[key])} words, but {n_words(key)} were shown. Put a space "
                "between words as they were shown, and nowhere else."
            )
    for (a, s, w), word in fixated.items():
        said = given[a, s][w - 1] if w <= len(given[a, s]) else ""
        if _bare(said) != _bare(word):
            raise StoryError(
                f"{path}: word {w} of sentence {as_displayed((a, s))} is '{said}', but '{word}' was shown. Mend the table."
            )
    return {key: given[key] for key in keys}


def read_sentences(path: Path) -> dict[Key, list[str]]:
    """Read the sentences of the articles from a .csv with the columns id (``t.01.01``) and text.

    Returns
    -------
    (article, sentence) → its words

    Raises
    ------
    StoryError : the file is no such table, or names a sentence twice
    """
    require_file(path, StoryError, "table of sentences")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (UnicodeError, csv.Error) as error:
        raise StoryError(f"{path} cannot be read as a table ({error}). Save it as UTF-8 .csv.") from error
    out: dict[Key, list[str]] = {}
    for number, row in enumerate(rows, start=2):
        match = re.fullmatch(r"t\.(\d{2})\.(\d{2})", (row.get("id") or "").strip())
        words = (row.get("text") or "").split()
        if match is None or not words:
            raise StoryError(
                f"{path}, row {number}: an id such as 't.01.01' and a text are needed, in the columns id and text."
            )
        key = int(match[1]), int(match[2])
        if key in out:
            raise StoryError(f"{path} names sentence {match[0]} twice. Keep one.")
        out[key] = words
    if not out:
        raise StoryError(f"{path} holds no sentences. It needs the columns id and text.")
    return out


def _bare(word: str) -> str:
    """Strip a word to its letters and digits."""
    return "".join(c for c in word.casefold() if c.isalnum())
