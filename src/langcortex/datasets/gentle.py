"""Transcripts whose words were timed by the forced aligner Gentle (https://github.com/lowerquality/gentle)."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import require_file
from langcortex.stimulus.story import ENDS_SENTENCE, Story, unit_ids

PAUSE = 0.25  # seconds of silence that make a pause (Goldman-Eisler, 1968)
COLUMNS = ["run", "word", "why"]
_GAP = re.compile(r"(\S*)(?:(\s(?:.*\s)?)(\S*))?", re.DOTALL)

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class AlignedWord:
    """The words of one transcript in order, each with its time if the aligner heard it.

    Attributes
    ----------
    text : (n_words,) as written, with the punctuation that touches it
    before : (n_words,) what stands between the previous word and this one, usually one space
    onset, end : (n_words,) seconds since the sound file began, float64; NaN where the word was not heard
    punctuated : whether the transcript's punctuation is known
    """

    text: np.ndarray
    before: np.ndarray
    onset: np.ndarray
    end: np.ndarray
    punctuated: bool


def read_gentle_story(
    folders: Mapping[str, Path],
    music: Mapping[str, Spans],
    name: str,
    sentences: str = "auto",
) -> tuple[Story, pd.DataFrame]:
    """Read a story from Gentle's output, one folder a run.

    Words that were not heard, and words that were put into music, have no time: their text stands in
    `Story.before` of the next timed word, so that a model reads it and no response is asked of it.

    Parameters
    ----------
    folders : run → a folder as `read_alignment` reads it
    music : run → (begin, end) in seconds since the sound file began, when no word can be heard
    name : what to call the story
    sentences : "punctuation" needs a transcript; "pauses" ends a sentence at every silence of 0.25 s or more;
        "auto" is the first where there is a transcript, else the second

    Returns
    -------
    story : the timed words; phrases go from pause to pause
    untimed : a row for every word without a time: run, word, why

    Raises
    ------
    StoryError : a file cannot be read, or a run has no timed word
    """
    if not folders:
        raise StoryError(f"Story '{name}' has no runs.")
    columns: dict[str, list[np.ndarray]] = {}
    untimed: list[pd.DataFrame] = []
    for run, folder in folders.items():
        aligned = read_alignment(folder)
        sung = _within(aligned.onset, music.get(run, ()))
        keep = np.flatnonzero(np.isfinite(aligned.onset) & ~sung)
        if len(keep) == 0:
            raise StoryError(f"{folder}: none of the {len(aligned.text)} words has a time. Fetch it again.")
        for key, column in _run_columns(run, aligned, keep, sentences, folder).items():
            columns.setdefault(key, []).append(column)
        why = np.where(sung, "put into music", "not heard")
        lost = np.setdiff1d(np.arange(len(aligned.text)), keep)
        untimed.append(
            pd.DataFrame({"run": run, "word": aligned.text[lost], "why": why[lost]}, columns=COLUMNS)
        )
    joined = {key: np.concatenate(parts) for key, parts in columns.items()}
    return Story(name=name, left_out={}, **joined), pd.concat(untimed, ignore_index=True)


def _run_columns(
    run: str, aligned: AlignedWord, keep: np.ndarray, sentences: str, folder: Path
) -> dict[str, np.ndarray]:
    """Make the columns of one run's story from the words that have a time."""
    pause = np.concatenate([[False], aligned.onset[keep[1:]] - aligned.end[keep[:-1]] >= PAUSE - 1e-9])
    pause[1:] &= np.diff(keep) == 1  # an unheard word fills the silence
    phrase = np.cumsum(pause)
    how = sentences if sentences != "auto" else "punctuation" if aligned.punctuated else "pauses"
    if how == "punctuation" and aligned.punctuated:
        closes = np.array([bool(ENDS_SENTENCE.search(word)) for word in aligned.text.tolist()])
        sentence = np.unique(np.concatenate([[0], np.cumsum(closes)[:-1]])[keep], return_inverse=True)[1]
    elif how == "pauses":
        sentence = phrase
    else:
        raise StoryError(
            f"{folder} has no {'transcript with punctuation' if how == 'punctuation' else 'sentence column'}, so sentences cannot "
            "be found by it. Set story.sentences to auto or pauses, or fetch align.json."
        )
    return {
        "ids": np.array([f"{run}/word-{i:04d}" for i in range(len(keep))]),
        "text": aligned.text[keep].astype(str),
        "onset": aligned.onset[keep],
        "duration": aligned.end[keep] - aligned.onset[keep],
        "run": np.full(len(keep), run),
        "sentence": unit_ids(run, "sentence", sentence),
        "phrase": unit_ids(run, "phrase", phrase),
        "before": np.array(_between(aligned, keep)),
    }


def _between(aligned: AlignedWord, keep: np.ndarray) -> list[str]:
    """Write what stands before each kept word: spaces, and the words in between that have no time."""
    out, stop = [], 0
    for i in keep.tolist():
        lost = "".join(f"{aligned.before[k]}{aligned.text[k]}" for k in range(stop, i))
        out.append(lost + str(aligned.before[i]))
        stop = i + 1
    return out


def _within(onset: np.ndarray, spans: Spans) -> np.ndarray:
    inside = np.zeros(len(onset), dtype=bool)
    for begin, end in spans:
        inside |= (onset >= begin) & (onset < end)
    return inside


def read_alignment(folder: Path) -> AlignedWord:
    """Read the words of one sound file.

    ``align.json`` is read where there is one: it holds the transcript and where in it each word stands. Else
    ``align.csv`` (word, the aligner's word, start, end; no header), with the text of ``transcript.txt`` where it
    stands beside; without it there is no punctuation. A word the aligner does not know (``<unk>``) is kept as
    it is written.

    Raises
    ------
    StoryError : a file is absent, is not what Gentle writes, or does not fit its transcript
    """
    path = next((p for p in (folder / "align.json", folder / "align.csv") if os.path.lexists(p)), None)
    if path is None:
        raise StoryError(
            f"{folder} holds neither align.json nor align.csv. Fetch the word timings: datalad get {folder}"
        )
    require_file(path, StoryError, "word timing")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise StoryError(f"{path} is not UTF-8 ({error}). Fetch it again.") from error
    if path.suffix == ".csv":
        return _from_csv(path, content)
    try:
        said = json.loads(content)
        transcript, words = said["transcript"], said["words"]
        rows = [w for w in words if w.get("case") != "not-found-in-transcript"]
        spans = [(int(w["startOffset"]), int(w["endOffset"])) for w in rows]
        times = [_times(w.get("start"), w.get("end")) for w in rows]
        written = [str(w["word"]) for w in rows]
        held = isinstance(transcript, str)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoryError(f"{path} is not what Gentle writes ({error!r}). Fetch it again.") from error
    if not held:
        raise StoryError(f"{path} holds no transcript. Fetch it again.")
    stop = 0
    for (a, b), word in zip(spans, written, strict=True):
        if a < stop or transcript[a:b] != word:
            raise StoryError(
                f"{path}: the word '{word}' does not stand at {a} in its transcript. Fetch it again."
            )
        stop = b
    return _aligned(path, transcript, spans, times)


def _from_csv(path: Path, content: str) -> AlignedWord:
    try:
        rows = [row for row in csv.reader(content.splitlines()) if row]
    except csv.Error as error:
        raise StoryError(f"{path} cannot be read as a table ({error}).") from error
    times = []
    for i, row in enumerate(rows):
        if len(row) != 4 or not row[0]:
            raise StoryError(
                f"{path}, row {i + 1}: {len(row)} cells; word, aligned word, start and end are needed. Fetch it again."
            )
        try:
            times.append(_times(row[2], row[3]))
        except ValueError as error:
            raise StoryError(
                f"{path}, row {i + 1}: '{row[2]}' to '{row[3]}' is no time in seconds."
            ) from error
    words = [row[0] for row in rows]
    beside = path.with_name("transcript.txt")
    if os.path.lexists(beside):
        require_file(beside, StoryError, "transcript")
        try:
            transcript = beside.read_bytes().decode("utf-8-sig")
        except UnicodeError as error:
            raise StoryError(f"{beside} is not UTF-8 ({error}). Fetch it again.") from error
        return _aligned(path, transcript, _found(words, transcript, beside), times)
    plain = " ".join(words)
    ends = np.cumsum([len(w) + 1 for w in words]) - 1
    spans = [(int(e) - len(w), int(e)) for e, w in zip(ends, words, strict=True)]
    return _aligned(path, plain, spans, times, punctuated=False)


def _times(start: Any, end: Any) -> tuple[float, float]:
    """Read the times of a word; a word that was not heard has none."""
    if start in (None, "") or end in (None, ""):
        return np.nan, np.nan
    times = float(start), float(end)
    if not np.isfinite(times).all():
        raise ValueError("a time is not a number")
    return times


def _found(words: Sequence[str], transcript: str, path: Path) -> list[tuple[int, int]]:
    """Find words in a transcript in order, with nothing but punctuation and spaces between them."""
    spans, stop = [], 0
    for word in words:
        match = re.compile(rf"\W*?({re.escape(word)})").match(transcript, stop)
        if match is None:
            raise StoryError(
                f"{path}: the word '{word}' of align.csv does not come next, at character {stop}. Fetch align.json, which says where words stand."
            )
        spans.append(match.span(1))
        stop = match.end(1)
    return spans


def _aligned(
    path: Path,
    transcript: str,
    spans: Sequence[tuple[int, int]],
    times: Sequence[tuple[float, float]],
    punctuated: bool = True,
) -> AlignedWord:
    """Cut a transcript into words with their punctuation, and what stands between them."""
    if not spans:
        raise StoryError(f"{path} has no words. Fetch it again.")
    text, before = [], []
    closing, between, opening = _gap(transcript[: spans[0][0]])
    if not between:  # what touches the first word belongs to it
        closing, opening = "", closing
    space = (closing + between) if (closing + between).strip() else ""
    for (a, b), after in zip(spans, [*(s[0] for s in spans[1:]), len(transcript)], strict=True):
        closing, between, following = _gap(transcript[b:after])
        text.append(opening + transcript[a:b] + closing)
        before.append(space)
        space, opening = between, following
    onset, end = np.array(times, dtype=np.float64).T
    return AlignedWord(np.array(text, dtype=object), np.array(before, dtype=object), onset, end, punctuated)


def _gap(between: str) -> tuple[str, str, str]:
    """Share what stands between two words: what touches the first, what touches neither, what touches the second."""
    match = _GAP.fullmatch(between)
    return (match[1], match[2] or "", match[3] or "") if match else ("", between, "")
