"""Words and sentences with ids and times, on the story's clock."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import as_path, require_file
from langcortex.stimulus.joining import guess_written_language, text_between
from langcortex.stimulus.labels import PAUSES, SILENCE, Word, attach_marks, is_mark, match_pauses
from langcortex.stimulus.sentences import number_sentences
from langcortex.stimulus.textgrid import read_tier
from langcortex.stimulus.word_table import check_labels, check_unit, read_word_table

SENTENCES = ("auto", "column", "punctuation", "pauses")
ENDS_SENTENCE = re.compile(r"""[.!?…。！？｡।॥؟۔።᙮។॰]["'”’»)\]」』）】]*$""")
LONG_SENTENCE = 25  # words from which on a run of one sentence is doubtful


@dataclass(frozen=True, eq=False)
class Units:
    """Units of a story with ids and times: its words, its sentences, or its pause groups.

    Attributes
    ----------
    ids : (n_units,) e.g. ``"section1/sentence-040"``
    onset, duration : (n_units,) seconds since the run's stimulus began
    run : (n_units,)
    text : (n_units,)
    n_words : (n_units,)
    """

    ids: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    run: np.ndarray
    text: np.ndarray
    n_words: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Story:
    """Words in order, each with an id, a time, a run and a sentence.

    Attributes
    ----------
    name : name of the story
    ids : (n_words,) e.g. ``"section1/word-0042"``, counted from 0 within the run
    text : (n_words,) as a model should read it, punctuation included
    onset, duration : (n_words,) seconds since the run's stimulus began, float64
    run : (n_words,) the run in which each word is heard; the words of a run are contiguous
    sentence : (n_words,) the id of the word's sentence; the words of a sentence are contiguous
    before : (n_words,) the text between the previous word and this one, usually one space; written words without
        a time are part of it, so that a model reads them but no response is predicted from them
    phrase : (n_words,) the id of the word's pause group; None where no pause is marked
    covers : (n_words,) ids of the timed labels that each word consists of, separated by spaces; None where every
        word is a label of its own
    left_out : run → number of labels that were pauses or empty
    remarks : what was mended or is doubtful in the words, one sentence each
    tiers : run → the tier of its TextGrid that was read
    """

    name: str
    ids: np.ndarray
    text: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    run: np.ndarray
    sentence: np.ndarray
    before: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)
    phrase: np.ndarray | None = None
    covers: np.ndarray | None = None
    remarks: tuple[str, ...] = ()
    tiers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self._columns:
            if getattr(self, name).shape != self.ids.shape:
                raise StoryError(
                    f"Story '{self.name}': {name} has {len(getattr(self, name))} rows, ids {len(self.ids)}."
                )
        if len(self.ids) == 0:
            raise StoryError(f"Story '{self.name}' has no words.")
        for run in self.runs:
            self._check_run(run)
        if len(set(self.ids.tolist())) != len(self.ids):
            raise StoryError(f"Story '{self.name}': two words have the same id.")
        for level in ("sentence", "phrase") if self.phrase is not None else ("sentence",):
            group = getattr(self, level)
            starts = np.flatnonzero(group[1:] != group[:-1]) + 1
            if len(starts) + 1 != len(set(group.tolist())):
                raise StoryError(f"Story '{self.name}': the words of a {level} are not contiguous.")

    def _check_run(self, run: str) -> None:
        """Check that the words of a run are contiguous, timed and in the order of their onsets."""
        rows = np.flatnonzero(self.run == run)
        if rows[-1] - rows[0] + 1 != len(rows):
            raise StoryError(
                f"Story '{self.name}': the words of run '{run}' are not contiguous. Sort them by run and onset."
            )
        onset, duration = self.onset[rows], self.duration[rows]
        untimed = ~np.isfinite(onset) | ~np.isfinite(duration)
        if untimed.any():
            raise StoryError(
                f"Run '{run}': {untimed.sum()} words have no time, first '{self.ids[rows[untimed][0]]}'."
            )
        if (duration < 0).any():
            first = self.ids[rows[duration < 0][0]]
            raise StoryError(
                f"Run '{run}': word '{first}' ends before it begins. Are the times in seconds, and duration not an end time?"
            )
        back = np.flatnonzero(np.diff(onset) < 0)
        if len(back):
            raise StoryError(
                f"Run '{run}': word '{self.ids[rows[back[0] + 1]]}' begins before the word in front of it. Sort the words by onset."
            )

    @property
    def _columns(self) -> tuple[str, ...]:
        optional = [name for name in ("phrase", "covers") if getattr(self, name) is not None]
        return ("ids", "text", "onset", "duration", "run", "sentence", "before", *optional)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def runs(self) -> tuple[str, ...]:
        """The runs, in order."""
        return tuple(dict.fromkeys(self.run.tolist()))

    @cached_property
    def words(self) -> Units:
        """The words as units, one per word."""
        return Units(
            self.ids, self.onset, self.duration, self.run, self.text, np.ones(len(self.ids), dtype=int)
        )

    @cached_property
    def sentences(self) -> Units:
        """The sentences as units, each from the onset of its first word to the end of its last."""
        first = np.concatenate([[0], np.flatnonzero(self.sentence[1:] != self.sentence[:-1]) + 1])
        last = np.append(first[1:], len(self.ids)) - 1
        text = [self.join_words(a, b + 1)[0] for a, b in zip(first, last, strict=True)]
        onset = self.onset[first]
        duration = self.onset[last] + self.duration[last] - onset
        return Units(self.sentence[first], onset, duration, self.run[first], np.array(text), last - first + 1)

    def join_words(self, first: int, stop: int) -> tuple[str, np.ndarray]:
        """Join the words `first` to `stop` (exclusive) to one text and locate each word in it.

        Returns
        -------
        text : the words with the text between them
        spans : (stop − first, 2) first character of each word and the one after its last
        """
        text = ""
        spans = np.empty((stop - first, 2), dtype=np.int64)
        for i in range(first, stop):
            if i > first:
                text += str(self.before[i])
            begin = len(text)
            text += str(self.text[i])
            spans[i - first] = begin, len(text)
        return text, spans

    def take(self, runs: Sequence[str]) -> Story:
        """Return the story of some of its runs, in the story's order."""
        keep = np.isin(self.run, list(runs))
        rows = {name: getattr(self, name)[keep] for name in self._columns}
        return replace(self, **rows, left_out={r: n for r, n in self.left_out.items() if r in set(runs)})

    def group_by(self, unit: str) -> Story:
        """Make words, pause groups or sentences the units that become rows of a design.

        Parameters
        ----------
        unit : "words", "phrases" (from pause to pause), "sentences" or "scans" (both leave sentences as they are)

        Returns
        -------
        Story, whose ``sentences`` are units of that kind
        """
        if unit == "words":
            return replace(self, sentence=self.ids)
        if unit == "phrases":
            if self.phrase is None:
                raise StoryError(
                    f"Story '{self.name}' marks no pauses, so it has no phrases. Use sentences, words or scans."
                )
            return replace(self, sentence=self.phrase)
        return self


def read_story(
    files: Mapping[str, Path | str],
    name: str = "story",
    sentences: str = "auto",
    tier: int | str | None = None,
    accept_truncated: bool = False,
    pauses: Sequence[str] = PAUSES,
    language: str | None = None,
) -> Story:
    """Read word timings from one file per run, or from one table with a run column.

    Parameters
    ----------
    files : run → a Praat TextGrid (UTF-8 or UTF-16), or a table (.csv; .tsv and events.tsv without quoting)
        with columns word (or text, label, trial_type), onset (or start) and duration (or offset, end), in
        seconds, and perhaps sentence and run (or section)
    name : name of the story
    sentences : where sentences end. "column": at a new value of the sentence column; "punctuation": where marks end them
        in the language (titles, initials and abbreviations do not); "pauses": at a pause mark such as ``#`` (at empty
        labels where a file has no other mark); "auto": the first of these that the files allow
    tier : the interval tier of a TextGrid, by position or by name; None takes the only one, or the one called words
    accept_truncated : read the complete intervals of a TextGrid that breaks off; otherwise that is an error
    pauses : labels that are no words, see `langcortex.stimulus.labels.PAUSES`
    language : a code such as "en" or "zh", which decides where sentences end and where blanks stand; guessed where None

    Returns
    -------
    Story, whose ids count words and sentences from 0 within each run

    Raises
    ------
    StoryError : a file cannot be read, a run has no words, or times are impossible
    """
    if not isinstance(files, Mapping):
        raise StoryError("Story files are given by run, such as {'run-1': 'run-1.TextGrid'}.")
    if sentences not in SENTENCES:
        raise StoryError(f"Sentences can be found by {', '.join(SENTENCES)}; not by '{sentences}'.")
    if not files:
        raise StoryError("No story files were given.")
    tables: dict[str, pd.DataFrame] = {}
    tiers: dict[str, str] = {}
    remarks: list[str] = []
    for run, path in ((run, as_path(path)) for run, path in files.items()):
        require_file(path, StoryError, "story file")
        if path.suffix.lower() == ".textgrid":
            word_tier = read_tier(path, tier, accept_truncated)
            table, tiers[run] = word_tier.intervals, word_tier.name
            remarks += word_tier.remarks
        else:
            table = read_word_table(path)
        for key, part in _split_runs(table, run, len(files)):
            tables[key] = part
            remarks += check_words(part, pauses, str(path) if key == run else f"{path}, run '{key}'")
    return assemble_story(tables, name, sentences, pauses, language, remarks, tiers)


def _split_runs(table: pd.DataFrame, run: str, n_files: int) -> list[tuple[str, pd.DataFrame]]:
    """Split the only table of a story by its column of runs, if it has one."""
    if "run" not in table or n_files > 1:
        return [(run, table)]
    return [(str(key), part) for key, part in table.groupby("run", sort=False, dropna=False)]


def check_words(table: pd.DataFrame, pauses: Sequence[str], where: str) -> list[str]:
    """Refuse times and labels that no story has.

    Parameters
    ----------
    table : one row per label: word, onset and duration in seconds
    pauses : see `read_story`
    where : the file or the run, to begin messages

    Returns
    -------
    remarks : what is doubtful
    """
    labels = table["word"].astype(str).tolist()
    pause = match_pauses(labels, pauses)
    is_word = np.array([not p and not is_mark(w) for p, w in zip(pause, labels, strict=True)], dtype=bool)
    words = table[is_word]
    check_unit(words["onset"].to_numpy(np.float64), words["duration"].to_numpy(np.float64), where)
    return check_labels(table, is_word, where)


def make_story(
    words: Mapping[str, Sequence[str]],
    onsets: Mapping[str, np.ndarray],
    durations: Mapping[str, np.ndarray],
    name: str = "story",
    sentence: Mapping[str, Sequence[object]] | None = None,
    language: str | None = None,
) -> Story:
    """Make a story of words and times in memory.

    Parameters
    ----------
    words, onsets, durations : per run; seconds
    sentence : per run, one value per word, which changes where a new sentence begins; sentences end by punctuation
        when absent
    language : a code such as "en" or "zh"; guessed where None

    Raises
    ------
    StoryError : a run has no words, or times are impossible
    """
    tables = {}
    for run, text in words.items():
        table = pd.DataFrame(
            {"word": [str(w) for w in text], "onset": onsets[run], "duration": durations[run]}
        )
        if sentence is not None:
            table["sentence"] = list(sentence[run])
        tables[run] = table
        onset, duration = (table[column].to_numpy(np.float64) for column in ("onset", "duration"))
        check_unit(onset, duration, f"Run '{run}'")
    rule = "column" if sentence is not None else "punctuation"
    return assemble_story(tables, name, rule, language=language)


def assemble_story(
    tables: Mapping[str, pd.DataFrame],
    name: str,
    sentences: str,
    pauses: Sequence[str] = PAUSES,
    language: str | None = None,
    remarks: Sequence[str] = (),
    tiers: Mapping[str, str] | None = None,
    keep_marks: bool = False,
) -> Story:
    """Make a story of tables of labels.

    Parameters
    ----------
    tables : run → one row per label, pauses included: word, onset and duration in seconds, and perhaps sentence
    name, sentences, pauses, language : see `read_story`
    remarks, tiers : what was remarked when the tables were read, and the tiers that were read, see `Story`
    """
    if sentences == "auto":
        sentences = _sentence_rule(tables)
    pause = {run: np.array(match_pauses(table["word"], pauses), bool) for run, table in tables.items()}
    words = {run: _find_words(table, pause[run], run, keep_marks) for run, table in tables.items()}
    language = language or guess_written_language([w.text for run in words.values() for w in run])
    runs = [
        _assemble_run(run, table, words[run], pause[run], sentences, language)
        for run, table in tables.items()
    ]
    joined = {key: np.concatenate([part[key] for part in runs]) for key in runs[0]}
    left_out = {str(run): int(is_pause.sum()) for run, is_pause in pause.items()}
    if not sum(left_out.values()):
        del joined["phrase"]
    story = Story(name=name, left_out=left_out, remarks=(), tiers=dict(tiers or {}), **joined)
    sentences_of_remarks = (*remarks, *_label_remarks(tables, words, pause), *_story_remarks(story))
    return replace(story, remarks=tuple(dict.fromkeys(sentences_of_remarks)))


def _find_words(table: pd.DataFrame, pause: np.ndarray, run: str, keep_marks: bool) -> list[Word]:
    """Find the words among the labels of a run."""
    labels, positions = table["word"].astype(str).tolist(), np.flatnonzero(~pause).tolist()
    words = [Word(i, labels[i]) for i in positions] if keep_marks else attach_marks(labels, positions)
    if not words:
        raise StoryError(
            f"Run '{run}' has no words: its {len(pause)} labels are all empty, pauses or marks. Check the file, and the tier if it is a TextGrid."
        )
    return words


def _assemble_run(
    run: str, table: pd.DataFrame, words: Sequence[Word], pause: np.ndarray, sentences: str, language: str
) -> dict[str, np.ndarray]:
    """Return the columns of a story for one run."""
    rows, text = np.array([w.label for w in words]), [w.text for w in words]
    before = text_between(text, language)
    phrase = _find_groups(table, pause, rows)
    if sentences == "column":
        sentence = _number_column(table, rows, run)
    elif sentences == "punctuation":
        sentence = number_sentences(text, before, language)
    else:
        sentence = phrase
    return {
        "ids": np.array([f"{run}/word-{i:04d}" for i in range(len(words))]),
        "text": np.array(text),
        "onset": table["onset"].to_numpy(np.float64)[rows],
        "duration": table["duration"].to_numpy(np.float64)[rows],
        "run": np.full(len(words), str(run)),
        "sentence": unit_ids(run, "sentence", sentence),
        "before": np.array(before),
        "phrase": unit_ids(run, "phrase", phrase),
    }


def _label_remarks(
    tables: Mapping[str, pd.DataFrame], words: Mapping[str, Sequence[Word]], pause: Mapping[str, np.ndarray]
) -> list[str]:
    """Return remarks about labels that were no words."""
    marks = sum(int((~pause[run]).sum()) - len(words[run]) for run in tables)
    labels = Counter(str(w) for run, table in tables.items() for w in table["word"][pause[run]])
    noise = {label: n for label, n in labels.items() if label.lower() not in SILENCE}
    remarks = [f"{marks:,} marks of punctuation were attached to their words."] if marks else []
    if noise:
        counts = ", ".join(f"'{label[:20]}' {n:,} times" for label, n in Counter(noise).most_common(6))
        more = f" and {len(noise) - 6} others" if len(noise) > 6 else ""
        remarks.append(f"Labels read as pauses or noise, not as words (story.pauses): {counts}{more}.")
    return remarks


def _story_remarks(story: Story) -> list[str]:
    """Return remarks about runs of one sentence, and about words without durations."""
    counts = {run: story.run == run for run in story.runs}
    single = [
        run
        for run, here in counts.items()
        if here.sum() > LONG_SENTENCE and len(set(story.sentence[here])) == 1
    ]
    remarks = []
    if single:
        place = "every run" if len(single) == len(story.runs) else f"run '{single[0]}'"
        more = f" and {len(single) - 1} others" if 1 < len(single) < len(story.runs) else ""
        remarks.append(
            f"The {int(counts[single[0]].sum()):,} words of {place}{more} are one single sentence: no mark, pause or column ends "
            "one. Say where sentences end with story.sentences, story.pauses or story.text."
        )
    instants = int((story.duration == 0).sum())
    if instants:
        what = "All" if instants == len(story) else f"{instants:,} of {len(story):,}"
        remarks.append(
            f"{what} words last 0 s: they are impulses to a haemodynamic response, and weigh as much as a word of median length."
        )
    return remarks


def unit_ids(run: str, kind: str, number: np.ndarray) -> np.ndarray:
    """Return the id of the unit that each word belongs to, e.g. ``"section1/sentence-040"``.

    Parameters
    ----------
    kind : of the unit, e.g. "sentence"
    number : (n_words,) the unit of each word, counted from 0 within the run
    """
    digits = max(3, len(str(int(number[-1]))))
    return np.array([f"{run}/{kind}-{k:0{digits}d}" for k in number.tolist()])


def _sentence_rule(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return the first rule of `SENTENCES` that the tables allow."""
    if all("sentence" in table for table in tables.values()):
        return "column"
    ends = sum(bool(ENDS_SENTENCE.search(str(w))) for table in tables.values() for w in table["word"])
    words = sum(len(table) for table in tables.values())
    return "punctuation" if ends * 100 >= words else "pauses"


def _number_column(table: pd.DataFrame, rows: np.ndarray, run: str) -> np.ndarray:
    """Number sentences by the column of sentences: (n_words,), from 0."""
    if "sentence" not in table:
        raise StoryError(
            f"Run '{run}' has no sentence column. Add one, or find sentences by punctuation or pauses."
        )
    value = table["sentence"].to_numpy(dtype=object)[rows]
    return np.cumsum([False, *(a != b for a, b in zip(value[1:], value[:-1], strict=True))])


def _find_groups(table: pd.DataFrame, pause: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Number the groups of words between pauses: (n_words,), from 0."""
    labels = [str(label).lower() for label in table["word"]]
    marks = {label for label, is_pause in zip(labels, pause, strict=True) if is_pause}
    ending = marks - {""} or marks
    group = np.cumsum([label in ending for label in labels])[rows]
    return np.cumsum(np.concatenate([[False], group[1:] != group[:-1]]))
