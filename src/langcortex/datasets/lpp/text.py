"""Le Petit Prince's labels as words to read: every repair in one table, then stories.

The labels of ds003643 are lower-case words without punctuation. What is repaired here was found in the published
English word table and in the English and French TextGrids; nothing is guessed from a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.stimulus.story import Story, unit_ids

REPAIRS = ("run", "row", "label", "text", "why")
TOUCHING = 1e-3  # seconds: the published times have three decimals
_CLITICS = {c: f"'{c}" for c in ("s", "t", "d", "m", "ll", "re", "ve")} | {"nt": "n't"}
_NOT = "ca|do|did|does|has|have|had|is|are|was|were|would|could|should|must"
_HALVED = re.compile(r".*'.+")  # a contraction whose second half may be an empty row
_FRENCH = {"Â": "à", "ll": "il", "3251": "325"}
# language (all when empty), pattern, what replaces it, why
_RULES: tuple[tuple[str, str, str | Callable[[re.Match[str]], str], str], ...] = (
    ("", r"TRUE|FALSE", lambda m: m.group().lower(), "a spreadsheet wrote it in capitals"),
    ("", r"(\w+)\\` (\w+)", r"\1'\2", "a Praat sign stands for the apostrophe"),
    ("", r"\\` (\w+)", r"\1", "a stray Praat sign"),
    ("", r'(\w+)\\i"?(\w+)', r"\1ï\2", "a Praat sign stands for ï"),
    ("", r"\w*_\S*", lambda m: m.group().replace("_", " "), "the words of a number joined"),
    ("EN", r"(.*\w)[.,;:!?]+", r"\1", "a punctuation mark on the word"),
    ("EN", rf"({_NOT})nt", r"\1n't", "the apostrophe is missing"),
    ("", r"[\W_]+", "", "punctuation only"),
)


def mend_words(label: str, before: str, language: str) -> tuple[str, str]:
    """Give a label's text as a model should read it, and why it differs from the label.

    Parameters
    ----------
    label : as published
    before : the text that ends where this label begins; "" after silence
    language : "EN", "CN" or "FR"

    Returns
    -------
    text : "" when the label is no word of its own
    why : "" when nothing was repaired

    >>> mend_words("three_hundred_twenty-five", "asteroid", "EN")
    ('three hundred twenty-five', 'the words of a number joined')
    >>> mend_words("t", "didn", "EN")
    ("'t", 'the second half of a contraction')
    """
    text = label.strip()
    if not text:
        halved = bool(before) and bool(_HALVED.fullmatch(before))
        return "", "the second half of the contraction before it" if halved else "no text"
    if language == "EN" and before and text in _CLITICS:
        return _CLITICS[text], "the second half of a contraction"
    if language == "FR" and text in _FRENCH:
        return _FRENCH[text], "a letter or digit mistaken"
    why = []
    for only, pattern, to, reason in _RULES:
        if only in ("", language) and re.fullmatch(pattern, text):
            text = re.sub(rf"^(?:{pattern})$", to, text)
            why.append(reason)
    return text, "; ".join(why)


def mended_labels(labels: pd.DataFrame, language: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make words of the timed labels of one run; pure: the table given is not changed.

    Two labels of one contraction stay two words with no space between; a label without text that follows a
    contraction joins it, and the word lasts to its end; other labels without text are no words.

    Parameters
    ----------
    labels : in order of time; id, run, label, onset, end (seconds), and sentence and phrase, the numbers
        of its pieces in the run (−1 where there are none)

    Returns
    -------
    words : run, text, before, onset, end, covers (ids of the labels), sentence, phrase
    repairs : run, row (the label's id), label, text, why: a row for every label whose text differs from it
    """
    words: list[_Word] = []
    repairs: list[tuple[str, str, str, str, str]] = []
    for row in labels.itertuples(index=False):
        touches = bool(words) and float(row.onset) - words[-1].end <= TOUCHING
        text, why = mend_words(row.label, words[-1].text if touches else "", language)
        if why:
            repairs.append((row.run, row.id, row.label, text, why))
        if text:
            space = _space(words[-1].text, text, language) if words else ""
            words.append(
                _Word(
                    row.run, text, space, float(row.onset), float(row.end), row.id, row.sentence, row.phrase
                )
            )
        elif why.startswith("the second half"):
            words[-1].end = float(row.end)
            words[-1].covers += f" {row.id}"
    if not words:
        raise StoryError(
            f"None of the {len(labels)} labels of a section is a word. Fetch the annotation again."
        )
    return pd.DataFrame(words), pd.DataFrame(repairs, columns=pd.Index(REPAIRS))


@dataclass
class _Word:
    run: str
    text: str
    before: str
    onset: float
    end: float
    covers: str
    sentence: int
    phrase: int


def _space(last: str, text: str, language: str) -> str:
    """Give what stands between a word and the next."""
    if language == "CN":
        return ""
    if language == "EN":
        return "" if text in _CLITICS.values() else " "
    return "" if text.startswith("-") or last.endswith(("'", "’")) else " "


def make_story(
    name: str, runs: Mapping[str, pd.DataFrame], sentences: str, left_out: Mapping[str, int]
) -> Story:
    """Make a story of mended words.

    Parameters
    ----------
    runs : run → words, as `mended_labels` gives them
    sentences : which column numbers the sentences: "sentence" or "phrase"
    left_out : run → how many labels are no words
    """
    parts: dict[str, list[np.ndarray]] = {}
    for run, words in runs.items():
        columns = {
            "ids": np.array([f"{run}/word-{i:04d}" for i in range(len(words))]),
            "run": np.full(len(words), run),
            "onset": words["onset"].to_numpy(np.float64),
            "duration": (words["end"] - words["onset"]).to_numpy(np.float64),
            "sentence": unit_ids(run, "sentence", words[sentences].to_numpy()),
        }
        if (words["phrase"] >= 0).all():
            columns["phrase"] = unit_ids(run, "phrase", words["phrase"].to_numpy())
        columns |= {k: np.array([str(v) for v in words[k]]) for k in ("text", "before", "covers")}
        for key, value in columns.items():
            parts.setdefault(key, []).append(value)
    return Story(name=name, left_out=left_out, **{k: np.concatenate(v) for k, v in parts.items()})


def phrase_numbers(groups: Story, run: str) -> np.ndarray:
    """Give the number of every label's pause group in one run: (n_labels,); −1 where no pause is marked."""
    here = groups.run == run
    if groups.phrase is None:
        return np.full(int(here.sum()), -1)
    return np.array([int(p.rsplit("-", 1)[1]) for p in groups.phrase[here]], dtype=np.int64)


def phrase_at(groups: Story, run: str, moments: np.ndarray) -> np.ndarray:
    """Find the pause group each moment falls into; between two groups, the nearer one.

    Parameters
    ----------
    groups : the story of the TextGrids' labels
    moments : (n_words,) seconds, in order

    Returns
    -------
    (n_words,) the number of the group
    """
    here = groups.run == run
    number, onset = phrase_numbers(groups, run), groups.onset[here]
    end = onset + groups.duration[here]
    first = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
    borders = (end[first[1:] - 1] + onset[first[1:]]) / 2
    at: np.ndarray = number[first][np.searchsorted(borders, moments, side="right")]
    return at
