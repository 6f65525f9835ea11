"""The sentences of Reading Brain: their number, words and reading times."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import require_file
from langcortex.stimulus.story import Story, unit_ids

Key = tuple[int, int]
"""A sentence: its article and its number in the article, both counted from 1, as in ``t.01.01``."""

LENGTHS: tuple[tuple[int, ...], ...] = (
    (7, 10, 11, 11, 13, 11, 10, 10, 10, 9, 9, 15, 12, 10, 11, 7, 7, 9, 10, 9, 10, 8, 10, 9, 11, 10, 10, 10, 8, 10, 13),
    (10, 10, 10, 10, 10, 10, 10, 11, 10, 9, 9, 12, 9, 12, 11, 8, 8, 9, 11, 10, 9, 9, 8, 10, 9, 11, 8, 10, 9, 10, 10),
    (8, 8, 13, 13, 10, 14, 7, 11, 16, 9, 9, 11, 12, 13, 9, 12, 9, 12, 12, 13, 13, 10, 12, 11, 11, 9, 13, 8),
    (11, 11, 10, 8, 10, 9, 9, 11, 12, 13, 14, 12, 13, 11, 9, 11, 14, 13, 9, 12, 12, 8, 10, 10, 13, 11, 11, 10),
    (9, 9, 12, 13, 13, 13, 12, 9, 8, 12, 12, 12, 9, 10, 9, 11, 15, 11, 7, 9, 9, 9, 10, 13, 8, 6, 10, 9, 9, 6),
)  # fmt: skip
"""Number of words of each sentence of each article: 148 sentences, 1531 words, from the fixated interest areas of L1 readers."""

Lengths = tuple[tuple[int, ...], ...]

LENGTHS_L2: Lengths = tuple(
    tuple(10 if (a, s) == (3, 16) else n for s, n in enumerate(article, 1))
    for a, article in enumerate(LENGTHS, 1)
)
"""The same for L2 readers (ds003988), to whom sentence t.03.16 was shown without its last two words."""

MOST_UNKNOWN = 0.01  # share of the words that may be unknown, since no reader fixated them


def sentence_keys(articles: Sequence[int]) -> list[Key]:
    """List the sentences of articles, in reading order."""
    return [(a, s) for a in articles for s in range(1, len(LENGTHS[a - 1]) + 1)]


def count_words(key: Key, lengths: Lengths = LENGTHS) -> int:
    """Return the number of words of a sentence."""
    return lengths[key[0] - 1][key[1] - 1]


def format_key(key: Key) -> str:
    """Return the id of a sentence in the events.

    >>> format_key((1, 7))
    't.01.07'
    """
    return f"t.{key[0]:02d}.{key[1]:02d}"


def median_durations(windows: pd.DataFrame, folder: Path) -> dict[Key, float]:
    """Return the median time of each sentence on the screen over readers, in seconds.

    Parameters
    ----------
    windows : see `langcortex.datasets.reading_brain.fixations.EyeTrackingRun`; of all readers together
    folder : the folder of the events, for messages

    Raises
    ------
    StoryError : a sentence of an article was not shown, or is not one of the 148
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
            f"The events in {folder} name sentence {format_key(unknown)}, which Reading Brain does not have. Fetch them again."
        )
    absent = next((key for key in keys if key not in median), None)
    if absent:
        raise StoryError(
            f"The events in {folder} never show sentence {format_key(absent)}. Fetch them again."
        )
    return {key: median[key] for key in keys}


def fixated_words(tables: Sequence[pd.DataFrame]) -> dict[tuple[int, int, int], str]:
    """Collect the fixated words of all readers: (article, sentence, word) → text.

    Raises
    ------
    StoryError : two files have different texts for a word
    """
    rows = pd.concat(tables).drop_duplicates(["article", "sentence", "word", "text"])
    words: dict[tuple[int, int, int], str] = {}
    source: dict[tuple[int, int, int], str] = {}
    for row in rows.itertuples():
        key = int(row.article), int(row.sentence), int(row.word)
        if key in words:
            raise StoryError(
                f"Word {key[2]} of sentence {format_key(key[:2])} is '{words[key]}' in {source[key]} but '{row.text}' in "
                f"{row.run_file}. Fetch both again."
            )
        words[key], source[key] = str(row.text), str(row.run_file)
    return words


def rebuild_sentences(
    fixated: Mapping[tuple[int, int, int], str],
    keys: Sequence[Key],
    folder: Path,
    lengths: Lengths = LENGTHS,
) -> dict[Key, list[str]]:
    """Rebuild sentences from fixated words.

    The 52 readers of L1 together fixated all words, but groups of fewer readers may skip one, such as a lone slash.

    Returns
    -------
    (article, sentence) → its words; a word that no reader fixated is ""

    Raises
    ------
    StoryError : no reader fixated two words of one sentence, or `MOST_UNKNOWN` of all words
    """
    sentences = {
        key: [fixated.get((*key, w), "") for w in range(1, count_words(key, lengths) + 1)] for key in keys
    }
    unknown = {key: words.count("") for key, words in sentences.items() if "" in words}
    total = sum(map(len, sentences.values()))
    if unknown and (max(unknown.values()) > 1 or sum(unknown.values()) > MOST_UNKNOWN * total):
        key = max(unknown, key=lambda k: unknown[k])
        raise StoryError(
            f"Sentence {format_key(key)} lacks {unknown[key]} of its {len(sentences[key])} words"
            f"{f', and {len(unknown) - 1} other sentences lack words' if len(unknown) > 1 else ''}: no reader whose events are in {folder} "
            "fixated them. Fetch the events of more subjects, or set data.options.text to a table of the sentences."
        )
    return sentences


def read_checked_sentences(
    path: Path,
    fixated: Mapping[tuple[int, int, int], str],
    keys: Sequence[Key],
    lengths: Lengths = LENGTHS,
) -> dict[Key, list[str]]:
    """Read sentences from a table, and check them against the fixated words.

    Words are compared by their letters and digits, so that a table may correct case and punctuation. A table of the
    sentences shown to L1 serves for L2 too: words that L2 readers were not shown are cut.

    Raises
    ------
    StoryError : a sentence is absent, has another number of words, or a word differs from that on the screen
    """
    sentences = read_sentences(path)
    for key in keys:
        if key not in sentences:
            raise StoryError(f"{path} has no sentence {format_key(key)}, which was read. Add it.")
        n_words = count_words(key, lengths)
        if len(sentences[key]) == count_words(key):
            sentences[key] = sentences[key][:n_words]
        if len(sentences[key]) != n_words:
            raise StoryError(
                f"{path}: sentence {format_key(key)} has {len(sentences[key])} words, but {n_words} were shown. Put a space "
                "between words as they were shown, and nowhere else."
            )
    for (a, s, w), word in fixated.items():
        text = sentences[a, s][w - 1] if w <= len(sentences[a, s]) else ""
        if _alphanumeric(text) != _alphanumeric(word):
            raise StoryError(
                f"{path}: word {w} of sentence {format_key((a, s))} is '{text}', but '{word}' was shown. Correct the table."
            )
    return {key: sentences[key] for key in keys}


def assemble_articles(
    sentences: Mapping[Key, Sequence[str]],
    onset: Sequence[np.ndarray],
    duration: Sequence[np.ndarray],
    lengths: Lengths,
) -> Story:
    """Return a story of timed sentences; words that are "" are left out.

    Parameters
    ----------
    sentences : (article, sentence) → its words, in reading order
    onset, duration : of each word of each sentence, in seconds
    lengths : number of words of each sentence, by which words are numbered: readers who were shown fewer words have the
        same ids for the others
    """
    first = {(a, s): sum(lengths[a - 1][: s - 1]) for a, s in sentences}
    position = np.concatenate([first[key] + np.arange(len(words)) for key, words in sentences.items()])
    text = np.array([word for words in sentences.values() for word in words])
    run = np.concatenate([np.full(len(words), f"article{a}") for (a, _), words in sentences.items()])
    sentence = [
        unit_ids(f"article{a}", "sentence", np.full(len(words), s - 1)) for (a, s), words in sentences.items()
    ]
    has_text = text != ""
    run = run[has_text]
    return Story(
        name="reading-brain",
        ids=np.array(
            [f"{r}/word-{i:04d}" for r, i in zip(run.tolist(), position[has_text].tolist(), strict=True)]
        ),
        text=text[has_text],
        onset=np.concatenate(onset)[has_text],
        duration=np.concatenate(duration)[has_text],
        run=run,
        sentence=np.concatenate(sentence)[has_text],
        before=np.where(np.append(True, run[1:] != run[:-1]), "", " "),
        left_out=dict.fromkeys(run.tolist(), 0),
    )


def nominal_times(
    durations: Mapping[Key, float], lengths: Lengths
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return onsets and durations of words whose sentences follow each other without a pause, each word equally long."""
    onset, duration = [], []
    clock, article = 0.0, 0
    for key, seconds in durations.items():
        clock, article = (clock, key[0]) if key[0] == article else (0.0, key[0])
        n = count_words(key, lengths)
        onset.append(clock + np.arange(n) * seconds / n)
        duration.append(np.full(n, seconds / n))
        clock += seconds
    return onset, duration


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
    sentences: dict[Key, list[str]] = {}
    for number, row in enumerate(rows, start=2):
        match = re.fullmatch(r"t\.(\d{2})\.(\d{2})", (row.get("id") or "").strip())
        words = (row.get("text") or "").split()
        if match is None or not words:
            raise StoryError(
                f"{path}, row {number}: an id such as 't.01.01' and a text are needed, in the columns id and text."
            )
        key = int(match[1]), int(match[2])
        if key in sentences:
            raise StoryError(f"{path} names sentence {match[0]} twice. Keep one.")
        sentences[key] = words
    if not sentences:
        raise StoryError(f"{path} has no sentences. Add rows with an id and a text.")
    return sentences


def _alphanumeric(word: str) -> str:
    """Return the letters and digits of a word."""
    return "".join(c for c in word.casefold() if c.isalnum())
