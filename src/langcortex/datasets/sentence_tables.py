"""Corpora without a clock: tables of sentences shown one at a time, and one response of each target to each sentence."""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from langcortex.brain.recording import Responses, average_over_parcels
from langcortex.brain.regions import average_parcels
from langcortex.brain.space import Space
from langcortex.datasets.corpus import Reading, select_subjects
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import require_file
from langcortex.stimulus.story import Story, unit_ids

SENTENCE_COLUMNS = ("stimulus", "text", "run")


@dataclass(frozen=True, eq=False)
class SentenceResponses:
    """All responses of one subject in a table.

    Attributes
    ----------
    stimuli : (n_rows,) the sentence that each row responds to, by its name in the table
    values : (n_rows, n_targets) float32
    names : (n_targets,) names of the targets
    regions : name → (n_targets,) bool
    """

    stimuli: Sequence[str]
    values: np.ndarray
    names: Sequence[str]
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)


class SentenceTable(ABC):
    """A corpus that is a table: a subclass lists the sentences and reads the responses of each subject.

    Sentences and responses are matched by the names of sentences in the table. A sentence that a subject did not
    see (all responses are NaN) is left out of the runs of this subject. Responses are used as published: there are
    no scans to detrend or filter. The times of the story are nominal: sentence after sentence within a run, with
    words of equal length. They order the words, and no response depends on them.

    Attributes
    ----------
    path : the file or folder
    reading : the subjects, and regions by the names of targets
    seconds : how long a sentence was shown
    name : the name of the story
    """

    path: Path
    reading: Reading
    seconds: ClassVar[float] = 4.0
    name: ClassVar[str] = "sentences"

    @abstractmethod
    def sentences(self) -> pd.DataFrame:
        """List the sentences: stimulus (the name in the table), text, run (what folds must not split)."""

    @abstractmethod
    def all_subjects(self) -> list[str]:
        """List all subjects of the table."""

    @abstractmethod
    def responses(self, subject: str) -> SentenceResponses:
        """Read the responses of one subject."""

    def subjects(self) -> list[str]:
        """List the subjects of the study: those that it names, or all."""
        return select_subjects(self.reading.subjects, self.all_subjects(), self.path)

    def story(self) -> Story:
        """Return the sentences as a story; runs are what folds must not split.

        Raises
        ------
        StoryError : a sentence has no text, or two have the same name
        """
        if self.reading.sentences == "punctuation":
            raise SettingsError(
                f'The sentences of {self.path} are its rows. Leave story.sentences on "auto".'
            )
        table = self._sentence_table
        words = [str(text).split() for text in table.text]
        counts = np.array([len(w) for w in words])
        run = np.repeat(table.run.to_numpy(dtype=str), counts)
        place = np.concatenate([np.arange(n) for n in table.groupby("run", sort=False).n_words.sum()])
        return Story(
            name=self.name,
            ids=np.array([f"{r}/word-{i:04d}" for r, i in zip(run.tolist(), place.tolist(), strict=True)]),
            text=np.array([word for sentence in words for word in sentence]),
            onset=np.concatenate(
                [self.seconds * (k + np.arange(n) / n) for k, n in zip(table.place, counts, strict=True)]
            ),
            duration=np.repeat(self.seconds / counts, counts),
            run=run,
            sentence=np.repeat(table.id.to_numpy(dtype=str), counts),
            before=np.where(place == 0, "", " "),
            left_out=dict.fromkeys(run.tolist(), 0),
        )

    def stimuli(self) -> pd.DataFrame:
        """List the ids of sentences with their names in the table: id, stimulus, text, run; in the story's order."""
        return self._sentence_table[["id", "stimulus", "text", "run"]].copy()

    def runs(self, subject: str) -> list[str]:
        """List the runs of which a subject saw at least one sentence."""
        table = self._sentence_table
        stimuli = set(self._valid_responses(subject)[0].tolist())
        return list(dict.fromkeys(table.run[table.stimulus.isin(stimuli)].tolist()))

    def recording(self, subject: str, run: str) -> Responses:
        """Read the responses of one subject to the sentences of one run, without sentences that the subject did not see.

        Raises
        ------
        RecordingError : there is no such run, or a target has responses to some of the sentences only
        SettingsError : the study sets something that only scans have
        """
        self._check_settings()
        stimuli, values, space = self._valid_responses(subject)
        table = self._sentence_table
        table = table[(table.run == run) & table.stimulus.isin(set(stimuli.tolist()))]
        if len(table) == 0:
            raise RecordingError(
                f"Subject '{subject}' has no run '{run}'. The runs are: {', '.join(self.runs(subject)[:12]) or 'none'}."
            )
        row_of = {name: i for i, name in enumerate(stimuli.tolist())}
        rows = [row_of[name] for name in table.stimulus]
        responses = Responses(values[rows], table.id.to_numpy(dtype=str), run, subject, space)
        return (
            average_over_parcels(responses, average_parcels(space), False)
            if self.reading.parcels
            else responses
        )

    @cached_property
    def _sentence_table(self) -> pd.DataFrame:
        """The sentences in the story's order, with their ids, places in the run, and numbers of words."""
        table = self.sentences()[list(SENTENCE_COLUMNS)].astype(str).reset_index(drop=True)
        if len(table) == 0:
            raise StoryError(f"{self.path} has no sentences that fit data.options.")
        if table.stimulus.duplicated().any():
            duplicate = table.stimulus[table.stimulus.duplicated()].iloc[0]
            raise StoryError(f"{self.path} has two sentences called '{duplicate}'. Give each its own name.")
        table["n_words"] = table.text.str.split().str.len()
        if (table.n_words == 0).any():
            raise StoryError(
                f"{self.path}: sentence '{table.stimulus[table.n_words == 0].iloc[0]}' has no text. Fetch the file again."
            )
        table["run"] = [make_run_name(run) for run in table.run]
        first = {run: i for i, run in enumerate(dict.fromkeys(table.run))}
        table = table.iloc[np.argsort(table.run.map(first), kind="stable")].reset_index(drop=True)
        table["place"] = table.groupby("run", sort=False).cumcount()
        table["id"] = ""
        for run, rows in table.groupby("run", sort=False):
            table.loc[rows.index, "id"] = unit_ids(str(run), "sentence", rows.place.to_numpy())
        return table

    def _valid_responses(self, subject: str) -> tuple[np.ndarray, np.ndarray, Space]:
        """Return the sentences that a subject saw, the responses to them, and the space of the responses."""
        if subject not in self._cached_responses:
            subjects = self.all_subjects()
            if subject not in subjects:
                raise RecordingError(
                    f"Subject '{subject}' was not found in {self.path}. Found: {', '.join(subjects[:12])}."
                )
            self._cached_responses.clear()  # one subject in memory at a time
            self._cached_responses[subject] = self._read_valid_responses(subject)
        return self._cached_responses[subject]

    @cached_property
    def _cached_responses(self) -> dict[str, tuple[np.ndarray, np.ndarray, Space]]:
        return {}

    def _read_valid_responses(self, subject: str) -> tuple[np.ndarray, np.ndarray, Space]:
        responses = self.responses(subject)
        stimuli = np.array([str(name) for name in responses.stimuli])
        in_study = np.isin(stimuli, self._sentence_table.stimulus.to_numpy(dtype=str))
        undefined = ~np.isfinite(responses.values)
        valid = in_study & ~undefined.all(axis=1)
        if not valid.any():
            raise RecordingError(
                f"Subject '{subject}' has no response to any of the sentences chosen from {self.path}. Leave the subject out with recording.subjects."
            )
        names, count = np.unique(stimuli[valid], return_counts=True)
        if count.max() > 1:
            raise RecordingError(
                f"{self.path}: subject '{subject}' has {count.max()} responses to sentence '{names[count.argmax()]}'. Average them first."
            )
        missing = undefined[valid]
        partial = missing.any(axis=0) & ~missing.all(axis=0)
        if partial.any():
            target = int(np.flatnonzero(partial)[0])
            sentence = stimuli[valid][missing[:, target]][0]
            raise RecordingError(
                f"{self.path}: target '{responses.names[target]}' of subject '{subject}' has no response to sentence '{sentence}', but "
                f"has some to others (as {int(partial.sum())} targets do). Choose complete sentences or targets in data.options."
            )
        values = np.where(missing, np.nan, responses.values[valid]).astype(np.float32)
        return stimuli[valid], values, self._space(responses)

    def _space(self, responses: SentenceResponses) -> Space:
        names = np.array([str(n) for n in responses.names])
        return self.reading.name_regions(Space("columns", names, regions=dict(responses.regions)))

    def _check_settings(self) -> None:
        unsuitable = [
            n for n in ("tr", "stimulus_onset", "reference") if getattr(self.reading, n) is not None
        ]
        unsuitable += [name for name, value in self.reading.cleaning.items() if value]
        if isinstance(self.reading.mask, Path):
            unsuitable.append("mask")
        if unsuitable:
            raise SettingsError(
                f"{self.path} has one row per sentence and no scans, so recording.{unsuitable[0]} means nothing. Leave it out."
            )


def make_run_name(text: str) -> str:
    """Return a text with hyphens for spaces and slashes.

    >>> make_run_name("384sentences.musical instrument/a")
    '384sentences.musical-instrument-a'
    """
    return re.sub(r"[\s/\\]+", "-", text.strip())


def find_table(path: Path, name: str, pattern: str, option: str = "file") -> Path:
    """Find a table: the path itself, the file in it that an option names, or the only one that matches a pattern.

    Raises
    ------
    RecordingError : no file matches, or several do
    """
    if name:
        return path / Path(name).expanduser()
    if not path.is_dir():
        return path
    matches = sorted(path.glob(pattern))
    if len(matches) != 1:
        several = f"{len(matches)} files match {pattern}: {', '.join(f.name for f in matches[:6])}"
        raise RecordingError(
            f"In {path}, {several if matches else f'no file matches {pattern}'}. Name one with data.options.{option}."
        )
    return matches[0]


def as_names(value: str | Sequence[str], option: str) -> list[str]:
    """Convert one name or several to a list of names.

    Raises
    ------
    SettingsError : the value is neither a name nor a list of names
    """
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [None]
    if not all(isinstance(name, str | int) for name in names):
        raise SettingsError(f"data.options.{option} must be a name or a list of names.")
    return [str(name) for name in names if name != ""]


def read_csv(path: Path, required: Sequence[str], all_columns: bool = False) -> pd.DataFrame:
    """Read columns of a .csv as text, so that "None" can be a sentence.

    Parameters
    ----------
    required : columns that the table must have
    all_columns : read the other columns too

    Raises
    ------
    RecordingError : the file is absent, damaged or empty, or lacks a column
    """
    require_file(path, RecordingError, "table of responses")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = (row for row in csv.reader(lines) if row)
            header = next(reader, [])
            keep = [i for i, name in enumerate(header) if all_columns or name in required]
            missing = [name for name in required if header.count(name) != 1]
            if missing:
                raise RecordingError(
                    f"{path} has no column '{missing[0]}'. It has: {', '.join(header[:20]) or 'none'}."
                )
            rows: list[list[str]] = []
            for row in reader:
                if len(row) != len(header):
                    raise RecordingError(
                        f"{path} is damaged: row {len(rows) + 2} has {len(row)} cells but the header {len(header)}. Fetch it again."
                    )
                rows.append([row[i] for i in keep])
    except (UnicodeError, csv.Error) as error:
        raise RecordingError(f"{path} cannot be read as a table ({error}). Fetch it again.") from error
    if not rows:
        raise RecordingError(f"{path} has a header and no rows. Fetch it again.")
    return pd.DataFrame(rows, columns=pd.Index([header[i] for i in keep]), dtype=str)


def parse_responses(column: pd.Series, path: Path) -> np.ndarray:
    """Convert a column of responses to numbers: (n_rows,) float32, NaN where a cell is empty, "nan" or "n/a".

    Raises
    ------
    RecordingError : a cell is not a number
    """
    values = pd.to_numeric(column, errors="coerce")
    invalid = values.isna() & ~column.str.strip().str.lower().isin(["", "nan", "na", "n/a"])
    if invalid.any():
        row = int(np.flatnonzero(invalid)[0])
        raise RecordingError(
            f"{path}, row {int(column.index[row]) + 2}: '{column.iloc[row]}' in column '{column.name}' is not a number."
        )
    return np.asarray(values, dtype=np.float32)
