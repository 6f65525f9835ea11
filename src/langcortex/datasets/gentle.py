"""Transcripts with word times from the forced aligner Gentle (https://github.com/lowerquality/gentle)."""

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
from langcortex.stimulus.sentences import number_sentences
from langcortex.stimulus.story import Story, unit_ids

PAUSE = 0.25  # seconds of silence that make a pause (Goldman-Eisler, 1968)
LONGEST = 36000.0  # seconds; no story lasts ten hours
UNTIMED_COLUMNS = ["run", "word", "why"]
_GAP = re.compile(r"(\S*)(?:(\s(?:.*\s)?)(\S*))?", re.DOTALL)

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Alignment:
    """The words of one transcript in order, with times where the aligner recognised them.

    Attributes
    ----------
    text : (n_words,) as written, with adjacent punctuation
    before : (n_words,) the text between the previous word and this one, usually one space
    onset, end : (n_words,) seconds since the sound file began, float64; NaN where the word was not heard
    punctuated : whether the transcript has punctuation
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
    """Read a story from the output of Gentle, one folder per run.

    Words that were not heard, and words that were aligned to music, have no time: their text is in
    `Story.before` of the next timed word, so that a model reads them, but they have no response.

    Parameters
    ----------
    folders : run → a folder as `read_alignment` reads it
    music : run → (begin, end) in seconds since the sound file began, where no word can be heard
    name : the name of the story
    sentences : "punctuation" needs a transcript; "pauses" ends a sentence at each silence of 0.25 s or more;
        "auto" is "punctuation" where there is a transcript, else "pauses"

    Returns
    -------
    story : the timed words; phrases go from pause to pause
    untimed : one row per word without a time: run, word, why

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
        in_music = _is_within(aligned.onset, music.get(run, ()))
        keep = np.flatnonzero(np.isfinite(aligned.onset) & ~in_music)
        if len(keep) == 0:
            raise StoryError(f"{folder}: none of the {len(aligned.text)} words has a time. Fetch it again.")
        for key, column in _run_columns(run, aligned, keep, sentences, folder).items():
            columns.setdefault(key, []).append(column)
        reason = np.where(in_music, "put into music", "not heard")
        left_out = np.setdiff1d(np.arange(len(aligned.text)), keep)
        rows = {"run": run, "word": aligned.text[left_out], "why": reason[left_out]}
        untimed.append(pd.DataFrame(rows, columns=UNTIMED_COLUMNS))
    joined = {key: np.concatenate(parts) for key, parts in columns.items()}
    return Story(name=name, left_out={}, remarks=(), tiers={}, **joined), pd.concat(
        untimed, ignore_index=True
    )


def _run_columns(
    run: str, aligned: Alignment, keep: np.ndarray, sentences: str, folder: Path
) -> dict[str, np.ndarray]:
    """Return the columns of a story for one run, from the words that have a time."""
    pause = np.concatenate([[False], aligned.onset[keep[1:]] - aligned.end[keep[:-1]] >= PAUSE - 1e-9])
    pause[1:] &= np.diff(keep) == 1  # an unheard word fills the silence
    phrase = np.cumsum(pause)
    if sentences == "auto":
        sentences = "punctuation" if aligned.punctuated else "pauses"
    if sentences == "punctuation" and aligned.punctuated:
        numbers = number_sentences(aligned.text.tolist(), aligned.before.tolist(), "en")
        sentence = np.unique(numbers[keep], return_inverse=True)[1]
    elif sentences == "pauses":
        sentence = phrase
    else:
        raise StoryError(
            f"{folder} has no {'transcript with punctuation' if sentences == 'punctuation' else 'sentence column'}. "
            "Set story.sentences to auto or pauses, or fetch align.json."
        )
    return {
        "ids": np.array([f"{run}/word-{i:04d}" for i in range(len(keep))]),
        "text": aligned.text[keep].astype(str),
        "onset": aligned.onset[keep],
        "duration": aligned.end[keep] - aligned.onset[keep],
        "run": np.full(len(keep), run),
        "sentence": unit_ids(run, "sentence", sentence),
        "phrase": unit_ids(run, "phrase", phrase),
        "before": np.array(_text_between(aligned, keep)),
    }


def _text_between(aligned: Alignment, keep: np.ndarray) -> list[str]:
    """Return the text before each timed word: spaces, and untimed words."""
    texts, stop = [], 0
    for i in keep.tolist():
        untimed = "".join(f"{aligned.before[k]}{aligned.text[k]}" for k in range(stop, i))
        texts.append(untimed + str(aligned.before[i]))
        stop = i + 1
    return texts


def _is_within(onset: np.ndarray, spans: Spans) -> np.ndarray:
    inside = np.zeros(len(onset), dtype=bool)
    for begin, end in spans:
        inside |= (onset >= begin) & (onset < end)
    return inside


def read_alignment(folder: Path) -> Alignment:
    """Read the aligned words of one sound file.

    ``align.json`` is read if it exists: it has the transcript and the position of each word in it. Otherwise
    ``align.csv`` (word, the aligner's word, start, end; no header) is read, with the text of ``transcript.txt``
    beside it; without that file there is no punctuation. A word that the aligner does not know (``<unk>``) is
    used as written.

    Raises
    ------
    StoryError : a file is absent, was not written by Gentle, or does not match its transcript
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
        return _parse_csv(path, content)
    return _parse_json(path, content)


def _parse_json(path: Path, content: str) -> Alignment:
    try:
        output = json.loads(content)
        transcript, words = output["transcript"], output["words"]
        rows = [w for w in words if w.get("case") != "not-found-in-transcript"]
        spans = [(int(w["startOffset"]), int(w["endOffset"])) for w in rows]
        times = [_parse_times(w.get("start"), w.get("end")) for w in rows]
        text = [str(w["word"]) for w in rows]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise StoryError(
            f"{path} is not what Gentle writes ({repr(error)[:200]}). Fetch it again."
        ) from error
    if not isinstance(transcript, str):
        raise StoryError(f"{path} has no transcript. Fetch it again.")
    stop = 0
    for (a, b), word in zip(spans, text, strict=True):
        if a < stop or transcript[a:b] != word:
            raise StoryError(
                f"{path}: the word '{word}' is not at position {a} of its transcript. Fetch it again."
            )
        stop = b
    return _split_transcript(path, transcript, spans, times)


def _parse_csv(path: Path, content: str) -> Alignment:
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
            times.append(_parse_times(row[2], row[3]))
        except ValueError as error:
            raise StoryError(
                f"{path}, row {i + 1}: '{row[2]}' to '{row[3]}' is no time in seconds."
            ) from error
    words = [row[0] for row in rows]
    transcript_path = path.with_name("transcript.txt")
    if os.path.lexists(transcript_path):
        require_file(transcript_path, StoryError, "transcript")
        try:
            transcript = transcript_path.read_bytes().decode("utf-8-sig")
        except UnicodeError as error:
            raise StoryError(f"{transcript_path} is not UTF-8 ({error}). Fetch it again.") from error
        return _split_transcript(path, transcript, _locate(words, transcript, transcript_path), times)
    joined = " ".join(words)
    ends = np.cumsum([len(w) + 1 for w in words]) - 1
    spans = [(int(e) - len(w), int(e)) for e, w in zip(ends, words, strict=True)]
    return _split_transcript(path, joined, spans, times, punctuated=False)


def _parse_times(start: Any, end: Any) -> tuple[float, float]:
    """Return the times of a word; NaN for a word that was not heard."""
    if start in (None, "") or end in (None, ""):
        return np.nan, np.nan
    times = float(start), float(end)
    if not np.isfinite(times).all():
        raise ValueError("a time is not a number")
    if times[0] < 0 or times[1] > LONGEST:  # an end before its beginning is refused by Story
        raise ValueError(f"no word lasts from {times[0]:g} to {times[1]:g} s")
    return times


def _locate(words: Sequence[str], transcript: str, path: Path) -> list[tuple[int, int]]:
    """Return the positions of words in a transcript, in order, with only punctuation and spaces between them."""
    spans, stop = [], 0
    for word in words:
        match = re.compile(rf"\W*?({re.escape(word)})").match(transcript, stop)
        if match is None:
            raise StoryError(
                f"{path}: the word '{word}' of align.csv does not come next, at character {stop}. Fetch align.json, which has the positions of words."
            )
        spans.append(match.span(1))
        stop = match.end(1)
    return spans


def _split_transcript(
    path: Path,
    transcript: str,
    spans: Sequence[tuple[int, int]],
    times: Sequence[tuple[float, float]],
    punctuated: bool = True,
) -> Alignment:
    """Split a transcript into words with their punctuation, and the text between them."""
    if not spans:
        raise StoryError(f"{path} has no words. Fetch it again.")
    text, before = [], []
    closing, between, opening = _split_gap(transcript[: spans[0][0]])
    if not between:  # punctuation that touches the first word belongs to it
        closing, opening = "", closing
    space = (closing + between) if (closing + between).strip() else ""
    for (a, b), after in zip(spans, [*(s[0] for s in spans[1:]), len(transcript)], strict=True):
        closing, between, following = _split_gap(transcript[b:after])
        text.append(opening + transcript[a:b] + closing)
        before.append(space)
        space, opening = between, following
    onset, end = np.array(times, dtype=np.float64).T
    return Alignment(np.array(text, dtype=object), np.array(before, dtype=object), onset, end, punctuated)


def _split_gap(between: str) -> tuple[str, str, str]:
    """Split the text between two words into what touches the first, neither and the second."""
    match = _GAP.fullmatch(between)
    return (match[1], match[2] or "", match[3] or "") if match else ("", between, "")
