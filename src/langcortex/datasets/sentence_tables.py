"""Corpora without a clock: sentences shown one at a time, and one response of every target to each of them."""

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
from langcortex.stimulus.story import Story, piece_ids

SENTENCES = ("stimulus", "text", "run")


@dataclass(frozen=True, eq=False)
class Answers:
    """All responses of one subject, as a table holds them.

    Attributes
    ----------
    stimuli : (n_rows,) which sentence each row answers: its name in the table
    values : (n_rows, n_targets) float32
    names : (n_targets,) names of the targets
    regions : name → (n_targets,) bool
    """

    stimuli: Sequence[str]
    values: np.ndarray
    names: Sequence[str]
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)


class SentenceTable(ABC):
    """A corpus that is a table: a subclass lists the sentences and gives each subject's responses.

    Sentences meet responses by the table's own names for them. A sentence that a subject did not see (every
    response to it is NaN) is left out of this subject's runs. Responses are taken as published: there are no scans
    to detrend or filter. Times of the story are nominal, sentence after sentence within a run, every word equally
    long: they order the words, and no response depends on them.

    Attributes
    ----------
    path : the file or folder
    reading : which subjects, and regions by the names of targets
    seconds : how long a sentence was shown
    name : what the story is called
    """

    path: Path
    reading: Reading
    seconds: ClassVar[float] = 4.0
    name: ClassVar[str] = "sentences"

    @abstractmethod
    def sentences(self) -> pd.DataFrame:
        """List the sentences: stimulus (its name in the table), text, run (what folds must not split)."""

    @abstractmethod
    def found(self) -> list[str]:
        """List every subject of the table."""

    @abstractmethod
    def answers(self, subject: str) -> Answers:
        """Read one subject's responses."""

    def subjects(self) -> list[str]:
        """List the subjects, or those that were asked for."""
        return select_subjects(self.reading.subjects, self.found(), self.path)

    def story(self) -> Story:
        """Give the sentences as a story; runs are what folds must not split.

        Raises
        ------
        StoryError : a sentence has no text, or two have the same name
        """
        if self.reading.sentences == "punctuation":
            raise SettingsError(
                f'The sentences of {self.path} are its rows. Leave story.sentences on "auto".'
            )
        table = self._pieces
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
        """Say which sentence of the story is which in the table: id, stimulus, text, run; in the story's order."""
        return self._pieces[["id", "stimulus", "text", "run"]].copy()

    def runs(self, subject: str) -> list[str]:
        """List the runs of which a subject saw at least one sentence."""
        seen = set(self._seen(subject)[0].tolist())
        return list(dict.fromkeys(self._pieces.run[self._pieces.stimulus.isin(seen)].tolist()))

    def recording(self, subject: str, run: str) -> Responses:
        """Give one subject's responses to the sentences of one run, without those that the subject did not see.

        Raises
        ------
        RecordingError : there is no such run, or a target answers only some of the sentences
        SettingsError : the study asks for what only scans have
        """
        self._check_settings()
        stimuli, values, space = self._seen(subject)
        table = self._pieces[(self._pieces.run == run) & self._pieces.stimulus.isin(set(stimuli.tolist()))]
        if len(table) == 0:
            raise RecordingError(
                f"Subject '{subject}' has no run '{run}'. The runs are: {', '.join(self.runs(subject)[:12]) or 'none'}."
            )
        where = {name: i for i, name in enumerate(stimuli.tolist())}
        rows = [where[name] for name in table.stimulus]
        responses = Responses(values[rows], table.id.to_numpy(dtype=str), run, subject, space)
        return (
            average_over_parcels(responses, average_parcels(space), False)
            if self.reading.parcels
            else responses
        )

    @cached_property
    def _pieces(self) -> pd.DataFrame:
        """Give the sentences in the story's order, with their ids, places in the run, and numbers of words."""
        table = self.sentences()[list(SENTENCES)].astype(str).reset_index(drop=True)
        if len(table) == 0:
            raise StoryError(f"{self.path} has no sentences that fit data.options.")
        if table.stimulus.duplicated().any():
            twice = table.stimulus[table.stimulus.duplicated()].iloc[0]
            raise StoryError(f"{self.path} has two sentences called '{twice}'. Give each a name of its own.")
        table["n_words"] = table.text.str.split().str.len()
        if (table.n_words == 0).any():
            raise StoryError(
                f"{self.path}: sentence '{table.stimulus[table.n_words == 0].iloc[0]}' has no text. Fetch the file again."
            )
        table["run"] = [plain_name(run) for run in table.run]
        first = {run: i for i, run in enumerate(dict.fromkeys(table.run))}
        table = table.iloc[np.argsort(table.run.map(first), kind="stable")].reset_index(drop=True)
        table["place"] = table.groupby("run", sort=False).cumcount()
        table["id"] = ""
        for run, rows in table.groupby("run", sort=False):
            table.loc[rows.index, "id"] = piece_ids(str(run), "sentence", rows.place.to_numpy())
        return table

    def _seen(self, subject: str) -> tuple[np.ndarray, np.ndarray, Space]:
        """Give the sentences a subject saw, the responses to them, and the space of the responses."""
        if subject not in self._kept:
            if subject not in self.found():
                raise RecordingError(
                    f"Subject '{subject}' was not found in {self.path}. Found: {', '.join(self.found()[:12])}."
                )
            self._kept.clear()  # one subject at a time is in memory
            self._kept[subject] = self._read(subject)
        return self._kept[subject]

    @cached_property
    def _kept(self) -> dict[str, tuple[np.ndarray, np.ndarray, Space]]:
        return {}

    def _read(self, subject: str) -> tuple[np.ndarray, np.ndarray, Space]:
        answers = self.answers(subject)
        stimuli = np.array([str(name) for name in answers.stimuli])
        known = np.isin(stimuli, self._pieces.stimulus.to_numpy(dtype=str))
        undefined = ~np.isfinite(answers.values)
        seen = known & ~undefined.all(axis=1)
        if not seen.any():
            raise RecordingError(
                f"Subject '{subject}' has no response to any of the sentences chosen from {self.path}. Leave the subject out with recording.subjects."
            )
        names, count = np.unique(stimuli[seen], return_counts=True)
        if count.max() > 1:
            raise RecordingError(
                f"{self.path}: subject '{subject}' has {count.max()} responses to sentence '{names[count.argmax()]}'. Average them first."
            )
        holes = undefined[seen]
        partly = holes.any(axis=0) & ~holes.all(axis=0)
        if partly.any():
            target = int(np.flatnonzero(partly)[0])
            first = stimuli[seen][holes[:, target]][0]
            raise RecordingError(
                f"{self.path}: target '{answers.names[target]}' of subject '{subject}' has no response to sentence '{first}', but to "
                f"others it has ({int(partly.sum())} targets are so). Choose sentences or targets that are whole in data.options."
            )
        values = np.where(undefined[seen], np.nan, answers.values[seen]).astype(np.float32)
        return stimuli[seen], values, self._space(answers)

    def _space(self, answers: Answers) -> Space:
        space = Space("columns", np.array([str(n) for n in answers.names]), regions=dict(answers.regions))
        return self.reading.name_regions(space)

    def _check_settings(self) -> None:
        asked = [n for n in ("tr", "stimulus_onset", "reference") if getattr(self.reading, n) is not None]
        asked += [name for name, value in self.reading.cleaning.items() if value]
        if isinstance(self.reading.mask, Path):
            asked.append("mask")
        if asked:
            raise SettingsError(
                f"{self.path} has a row a sentence and no scans, so recording.{asked[0]} means nothing. Leave it out."
            )


def plain_name(name: str) -> str:
    """Make a run's name of any text.

    >>> plain_name("384sentences.musical instrument/a")
    '384sentences.musical-instrument-a'
    """
    return re.sub(r"[\s/\\]+", "-", name.strip())


def only_file(path: Path, named: str, pattern: str, option: str = "file") -> Path:
    """Find a table: the path itself, the file an option names in it, or the only one that fits a pattern.

    Raises
    ------
    RecordingError : no file or several files fit
    """
    if named:
        return path / Path(named).expanduser()
    if not path.is_dir():
        return path
    found = sorted(path.glob(pattern))
    if len(found) != 1:
        many = f"{len(found)} files fit {pattern}: {', '.join(f.name for f in found[:6])}"
        raise RecordingError(
            f"In {path}, {many if found else f'no file fits {pattern}'}. Name one with data.options.{option}."
        )
    return found[0]


def several_names(value: str | Sequence[str], option: str) -> list[str]:
    """Take one name or a list of names.

    Raises
    ------
    SettingsError : it is neither
    """
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [None]
    if not all(isinstance(name, str | int) for name in names):
        raise SettingsError(f"data.options.{option} must be a name or a list of names.")
    return [str(name) for name in names if name != ""]


def read_csv(path: Path, needed: Sequence[str], every: bool = False) -> pd.DataFrame:
    """Read columns of a .csv as text, so that a sentence such as "None" stays one.

    Parameters
    ----------
    needed : the columns that must be there
    every : read the other columns too

    Raises
    ------
    RecordingError : the file is absent, damaged or empty, or lacks a column
    """
    require_file(path, RecordingError, "table of responses")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = (row for row in csv.reader(lines) if row)
            header = next(reader, [])
            keep = [i for i, name in enumerate(header) if every or name in needed]
            missing = [name for name in needed if header.count(name) != 1]
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


def numbers(column: pd.Series, path: Path) -> np.ndarray:
    """Read a column of responses: (n_rows,) float32, NaN where the cell says that there is none.

    Raises
    ------
    RecordingError : a cell holds something else than a number
    """
    values = pd.to_numeric(column, errors="coerce")
    wrong = values.isna() & ~column.str.strip().str.lower().isin(["", "nan", "na", "n/a"])
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RecordingError(
            f"{path}, row {int(column.index[row]) + 2}: '{column.iloc[row]}' in column '{column.name}' is not a number."
        )
    return np.asarray(values, dtype=np.float32)
