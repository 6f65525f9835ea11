"""Repair of the word labels of Le Petit Prince, with a table of all repairs, and stories of the repaired words.

The labels of ds003643 are lower-case words without punctuation. The rules are for defects of the published
English word table and of the English and French TextGrids; nothing is guessed from a text.
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
_CONTRACTION = re.compile(r".*'.+")  # its second half may be an empty row
_FRENCH = {"Â": "à", "ll": "il", "3251": "325"}
# language (all when empty), pattern, replacement, reason
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


def repair_label(label: str, before: str, language: str) -> tuple[str, str]:
    """Return the text of a label as a model should read it, and the reason why it differs from the label.

    Parameters
    ----------
    label : as published
    before : the text that ends where this label begins; "" after silence
    language : "EN", "CN" or "FR"

    Returns
    -------
    text : "" if the label is no separate word
    reason : "" if nothing was repaired

    >>> repair_label("three_hundred_twenty-five", "asteroid", "EN")
    ('three hundred twenty-five', 'the words of a number joined')
    >>> repair_label("t", "didn", "EN")
    ("'t", 'the second half of a contraction')
    """
    text = label.strip()
    if not text:
        is_half = bool(before) and bool(_CONTRACTION.fullmatch(before))
        return "", "the second half of the contraction before it" if is_half else "no text"
    if language == "EN" and before and text in _CLITICS:
        return _CLITICS[text], "the second half of a contraction"
    if language == "FR" and text in _FRENCH:
        return _FRENCH[text], "a letter or digit mistaken"
    reasons = []
    for rule_language, pattern, replacement, reason in _RULES:
        if rule_language in ("", language) and re.fullmatch(pattern, text):
            text = re.sub(rf"^(?:{pattern})$", replacement, text)
            reasons.append(reason)
    return text, "; ".join(reasons)


def repair_labels(labels: pd.DataFrame, language: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Convert the timed labels of one run to words.

    Two labels of one contraction stay two words with no space between; a label without text that follows a
    contraction joins it, and the word lasts to its end; other labels without text are no words.

    Parameters
    ----------
    labels : in order of time; id, run, label, onset, end (seconds), and sentence and phrase, the numbers
        of its sentence and pause group in the run (−1 where there are none)

    Returns
    -------
    words : run, text, before, onset, end, covers (ids of the labels), sentence, phrase
    repairs : run, row (id of the label), label, text, why: one row per label whose text was changed
    """
    words: list[_Word] = []
    repairs: list[tuple[str, str, str, str, str]] = []
    for row in labels.itertuples(index=False):
        touches = bool(words) and float(row.onset) - words[-1].end <= TOUCHING
        text, reason = repair_label(row.label, words[-1].text if touches else "", language)
        if reason:
            repairs.append((row.run, row.id, row.label, text, reason))
        if text:
            space = _space(words[-1].text, text, language) if words else ""
            words.append(
                _Word(
                    row.run, text, space, float(row.onset), float(row.end), row.id, row.sentence, row.phrase
                )
            )
        elif reason.startswith("the second half"):
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
    """Return the space between two words."""
    if language == "CN":
        return ""
    if language == "EN":
        return "" if text in _CLITICS.values() else " "
    return "" if text.startswith("-") or last.endswith(("'", "’")) else " "


def make_story(
    name: str, runs: Mapping[str, pd.DataFrame], sentences: str, left_out: Mapping[str, int]
) -> Story:
    """Return the story of repaired words.

    Parameters
    ----------
    runs : run → words, from `repair_labels`
    sentences : the column with the numbers of sentences: "sentence" or "phrase"
    left_out : run → the number of labels that are no words
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
    joined = {k: np.concatenate(v) for k, v in parts.items()}
    return Story(name=name, left_out=left_out, remarks=(), tiers={}, **joined)


def phrase_numbers(groups: Story, run: str) -> np.ndarray:
    """Return the number of the pause group of each label in one run: (n_labels,); −1 where no pause is marked."""
    in_run = groups.run == run
    if groups.phrase is None:
        return np.full(int(in_run.sum()), -1)
    return np.array([int(p.rsplit("-", 1)[1]) for p in groups.phrase[in_run]], dtype=np.int64)


def find_phrases(groups: Story, run: str, moments: np.ndarray) -> np.ndarray:
    """Find the pause group of each moment; between two groups, the nearer one.

    Parameters
    ----------
    groups : the story of the labels in the TextGrids
    moments : (n_words,) seconds, in order

    Returns
    -------
    (n_words,) the number of the group
    """
    in_run = groups.run == run
    number, onset = phrase_numbers(groups, run), groups.onset[in_run]
    end = onset + groups.duration[in_run]
    first = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
    borders = (end[first[1:] - 1] + onset[first[1:]]) / 2
    phrases: np.ndarray = number[first][np.searchsorted(borders, moments, side="right")]
    return phrases
