"""Corpora preprocessed by fMRIPrep, or by another pipeline whose outputs have BIDS names.

Names are parsed into entities, so files of older versions of fMRIPrep are found too: ``…_hemi-L_space-S_bold.func.gii``
and the older ``…_space-S_hemi-L.func.gii``, ``…_desc-confounds_timeseries.tsv`` and the older ``…_regressors.tsv``.
Sources: fMRIPrep's documentation ("Outputs"), the BIDS specification, and the file names of Narratives (ds002345).
CIFTI (``.dtseries.nii``) is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.brain.space import Space
from langcortex.datasets import bids
from langcortex.datasets.bids import BidsFile
from langcortex.datasets.bids_citation import cite_pipeline, is_derivative, source_datasets
from langcortex.datasets.bids_images import (
    KINDS,
    explain_no_images,
    find_derivatives,
    is_image,
    leave_out_concatenations,
    name_run,
    select_description,
    select_images,
    varying_entities,
)
from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_subjects
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import expand_pattern, natural_key
from langcortex.stimulus.story import Story, assemble_story, check_words, read_story

NATIVE_SPACES = ("T1w", "func", "fsnative")  # a space per subject: "func" is a name without a space
TOLERANCE = 0.05  # seconds within which the word onsets of two subjects count as equal


def corpus(
    path: Path,
    reading: Reading,
    task: str | Sequence[str] = "",
    space: str = "",
    res: str = "",
    desc: str = "preproc",
    derivatives: str = "",
    kind: str = "volume",
    words: str = "events",
    session: str | Sequence[str] = "",
    tier: int | str | None = None,
) -> FmriprepCorpus:
    """Open a folder of preprocessed images.

    Parameters
    ----------
    path : the BIDS dataset, or the folder of derivatives itself
    reading : how the study reads recordings; confounds are regressed out only if the study names their columns
    task : one or several; required if there are several
    space : e.g. "MNI152NLin2009cAsym", "T1w", or "func" for images whose name has no space; required if there are several
    res : the resolution (of a surface, the density); required if there are several
    desc : the description, e.g. "preproc"; surfaces may have none
    derivatives : the folder of derivatives, relative to `path`; found when empty
    kind : "volume" (.nii, .nii.gz) or "surface" (.func.gii of both hemispheres)
    words : "events" if the events.tsv of the dataset have the words, or a pattern of story files (see
        `langcortex.stimulus.story.read_story`) with ``{run}`` for the run's name or its task, and perhaps ``{subject}``
    session : one or several; all when empty
    tier : the tier of a TextGrid, by position or name; the one called words when left out

    Raises
    ------
    SettingsError : an option is required or matches no image
    RecordingError : there are no such images
    """
    if kind not in KINDS:
        raise SettingsError(
            f"data.options.kind is {' or '.join(KINDS)}, not '{kind}'. CIFTI (.dtseries.nii) is not read."
        )
    folder, files = find_derivatives(path, derivatives)
    images = [file for file in files if is_image(file, kind)]
    if not images:
        raise RecordingError(explain_no_images(folder, files, kind))
    images = select_images(images, "task", task, "task")
    images = select_description(images, desc, kind)
    images = select_images(images, "space", space, "space")
    images = select_images(images, "res" if kind == "volume" else "den", res, "res")
    if session:
        images = select_images(images, "ses", session, "session")
    images, remarks = leave_out_concatenations(images)
    return FmriprepCorpus(path, reading, folder, tuple(images), tuple(files), words, tier, tuple(remarks))


@dataclass(frozen=True, eq=False)
class FmriprepCorpus(CorpusOnDisk):
    """The preprocessed images that a study has chosen.

    Runs are called "task-X", with the session, the run number and other entities that vary within a subject:
    "ses-2_task-X_run-1".

    Attributes
    ----------
    path : the dataset
    reading : how the study reads recordings
    derivatives : the folder of the images
    images : the images, one per run (two per run for surfaces)
    listing : all files of the derivatives
    words, tier : see `corpus`
    left_out : a sentence per image that was left out
    """

    path: Path
    reading: Reading
    derivatives: Path
    images: tuple[BidsFile, ...] = field(repr=False)
    listing: tuple[BidsFile, ...] = field(repr=False)
    words: str = "events"
    tier: int | str | None = None
    left_out: tuple[str, ...] = ()

    def remarks(self) -> list[str]:
        """List the images that were left out."""
        return list(self.left_out)

    def subjects(self) -> list[str]:
        """List the subjects that have images, e.g. "01"; a study may also write "sub-01"."""
        names = self.reading.subjects
        labels = None if names is None else [name.removeprefix("sub-") for name in names]
        return select_subjects(labels, sorted(self._runs, key=natural_key), self.derivatives)

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the runs of one subject, with their brain masks, and confounds if the study names columns."""
        if subject not in self._runs:
            raise RecordingError(
                f"Subject '{subject}' was not found in {self.derivatives}. Found: {', '.join(self._runs)}."
            )
        return {run: self._run_file(subject, run, images) for run, images in self._runs[subject].items()}

    def story(self) -> Story:
        """Read the words from the events or from the story files.

        Raises
        ------
        StoryError : there are no words, or two subjects heard different words in one run
        """
        return self._story

    def space_of(self, subject: str) -> Space:
        """Return the voxels of a subject's runs: those of all subjects, or the subject's own in a native space."""
        if (self.images[0].get("space") or "func") not in NATIVE_SPACES:
            return super().space_of(subject)
        if subject not in self._native_spaces:
            self._native_spaces[subject] = self.space_over(list(self.files(subject).values()))
        return self._native_spaces[subject]

    def citation(self) -> str:
        """Return what to cite: first the data, then the pipeline that preprocessed them."""
        sentences = [f"Data: {self._data_citation()}"]
        derivative = bids.find_description(self.derivatives)
        if is_derivative(derivative) or "fmriprep" in str(self.derivatives).lower():
            sentences.append(f"Preprocessing: {cite_pipeline(derivative, self.derivatives)}")
        return " ".join(sentences)

    def _data_citation(self) -> str:
        """Return how the raw dataset asks to be cited, or which dataset the derivatives name as their source."""
        raw = self._raw_description
        for key in ("HowToAcknowledge", "DatasetDOI"):
            if raw.get(key):
                return _as_sentence(str(raw[key]))
        sources = source_datasets(bids.find_description(self.derivatives))
        if sources:
            return f"{', '.join(sources)} (SourceDatasets of the derivatives)."
        return f"{self.path.name} has no dataset_description.json that says how to cite the data."

    def licence(self) -> str:
        """Return the licences that the dataset_description.json of the data and of the derivatives name."""
        data = self._raw_description.get("License")
        derivatives = bids.find_description(self.derivatives)
        sentence = (
            f"{data}, says dataset_description.json."
            if data
            else "No dataset_description.json names a licence of the data."
        )
        terms = derivatives.get("License") if is_derivative(derivatives) else None
        return f"{sentence} The derivatives: {terms}." if terms else sentence

    @cached_property
    def _raw_description(self) -> Mapping[str, Any]:
        """The description of the raw dataset; empty where only derivatives are here."""
        folder = self._raw_dataset[0]
        folders = [folder, *([self.path] if folder != self.path else [])]
        descriptions = (
            bids.find_description(f) for f in (*folders, *self.derivatives.absolute().parents[:2])
        )
        return next((d for d in descriptions if d and not is_derivative(d)), {})

    # runs

    @cached_property
    def _runs(self) -> dict[str, dict[str, list[BidsFile]]]:
        """Group the images: subject → run → one volume, or the left and the right hemisphere."""
        varying = varying_entities(self.images)
        by_subject: dict[str, dict[str, list[BidsFile]]] = {}
        for image in self.images:
            runs = by_subject.setdefault(image.get("sub"), {})
            runs.setdefault(name_run(image, varying), []).append(image)
        return {
            subject: {
                run: sorted(runs[run], key=lambda i: i.get("hemi")) for run in sorted(runs, key=natural_key)
            }
            for subject, runs in by_subject.items()
        }

    def _run_file(self, subject: str, run: str, images: list[BidsFile]) -> RunFile:
        first, files = images[0], self._by_subject.get(subject, [])
        n_images = 1 if is_image(first, "volume") else 2
        if len({i.get("hemi") for i in images}) < n_images:
            raise RecordingError(f"Run '{run}' of subject '{subject}' has one hemisphere only: {first.path}.")
        if len(images) > n_images:
            raise RecordingError(
                f"Two images are run '{run}' of subject '{subject}': {first.path.name} and {images[1].path.name}. "
                "Choose with data.options (desc, res or session), or remove one."
            )
        masks = [
            f
            for f in files
            if f.suffix == "mask" and bids.is_volume(f) and f.get("desc") == "brain" and f.get("task")
        ]
        required = ("task", "space", "ses", "run")
        mask = bids.find_companion(first, masks, required) if n_images == 1 else None
        needs_confounds = self.reading.cleaning.get("confounds")
        return RunFile(
            first.path if n_images == 1 else (first.path, images[1].path),
            stimulus_onset=self._events_onset(subject, run, first),
            confounds=self._confounds(subject, run, first) if needs_confounds else None,
            mask=mask.path if mask else None,
        )

    @cached_property
    def _by_subject(self) -> dict[str, list[BidsFile]]:
        return _group_by_subject(self.listing)

    def _confounds(self, subject: str, run: str, image: BidsFile) -> Path:
        tables = [
            file
            for file in self._by_subject[subject]
            if file.get("desc") == "confounds"
            and file.suffix in ("timeseries", "regressors")
            and file.extension == ".tsv"
        ]
        table = bids.find_companion(image, tables, ("task", "ses", "run"))
        if table is None:
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' has no desc-confounds table beside {image.path}. "
                "Fetch it, or leave the confounds out of the study."
            )
        return table.path

    # onsets

    def _events_onset(self, subject: str, run: str, image: BidsFile) -> float:
        """Return when the story began, in seconds after the first scan."""
        shift = self._shifts.get((subject, run), 0.0)
        if self.reading.stimulus_onset is not None:
            if shift:
                raise SettingsError(
                    f"The words of run '{run}' come {shift:.2f} s later for subject '{subject}' than for others, so "
                    "recording.stimulus_onset cannot be true for all. Leave it out, or run the subjects apart."
                )
            return 0.0  # the number of the study is used instead
        if self.words == "events":
            return shift
        events = self._events_of(image)
        onset = None if events is None else bids.find_stimulus_onset(bids.read_events(events), events)
        if onset is None or np.isnan(onset):
            raise RecordingError(
                f"The onset of the story in run '{run}' of subject '{subject}' is not known: "
                f"{f'{events} has no event with a stim_file' if events else 'it has no events.tsv'}. "
                "Set recording.stimulus_onset (0 if the words are on the scanner's clock)."
            )
        return onset + shift

    def _events_of(self, image: BidsFile) -> Path | None:
        candidates = self._events.get(image.get("sub"), []) + self._events.get("", [])
        events = bids.find_companion(image, candidates, ("task",))
        return events.path if events else None

    @cached_property
    def _events(self) -> dict[str, list[BidsFile]]:
        return _group_by_subject(self._raw_dataset[1])

    @cached_property
    def _raw_dataset(self) -> tuple[Path, list[BidsFile]]:
        """Find the raw dataset's folder and its tables of events: `path`, or up to two folders above it."""
        top = self.path.absolute()
        for folder in (top, *top.parents[:2]):
            files = self.listing if folder == self.derivatives.absolute() else bids.list_files(folder)
            events = [file for file in files if file.suffix == "events" and file.extension == ".tsv"]
            if events:
                return folder, events
        return self.path, []

    # words

    @cached_property
    def _story(self) -> Story:
        first: dict[str, tuple[str, BidsFile]] = {}
        for subject in self.subjects():
            for run, images in self._runs[subject].items():
                first.setdefault(run, (subject, images[0]))
        runs = sorted(first, key=natural_key)
        name = self.path.name
        if self.words == "events":
            tables = {run: self._event_words(run, *first[run]) for run in runs}
            return _read_event_story(tables, name, self.reading)
        files = {run: self._word_file(run, *first[run]) for run in runs}
        if len(set(files.values())) == 1 < len(runs) and "{run}" not in self.words:
            files = {"words": files[runs[0]]}  # one table with a column of runs
        story = read_story(
            files,
            name,
            self.reading.sentences,
            self.tier,
            pauses=self.reading.pauses,
            language=self.reading.language,
        )
        missing = next((run for run in runs if run not in story.runs), None)
        if missing is not None:
            raise StoryError(
                f"{files[next(iter(files))]} has no words of run '{missing}'. Its runs are: {', '.join(story.runs)}."
            )
        return story

    @cached_property
    def _shifts(self) -> Mapping[tuple[str, str], float]:
        """Seconds by which a subject heard the words later than the first subject, whose times are the story's."""
        if self.words != "events" and "{subject}" not in self.words:
            return {}
        first: dict[str, _HeardWords] = {}
        shifts: dict[tuple[str, str], float] = {}
        for subject in self.subjects():
            for run, images in self._runs[subject].items():
                heard_words = (subject, *self._text_and_onsets(run, subject, images[0]))
                shifts[subject, run] = _shift(run, first.setdefault(run, heard_words), heard_words)
        return shifts

    def _text_and_onsets(self, run: str, subject: str, image: BidsFile) -> tuple[np.ndarray, np.ndarray]:
        if self.words == "events":
            table = self._event_words(run, subject, image)
            return table["word"].to_numpy(), table["onset"].to_numpy()
        story = read_story(
            {run: self._word_file(run, subject, image)},
            sentences="pauses",
            tier=self.tier,
            pauses=self.reading.pauses,
        )
        return story.text, story.onset

    def _event_words(self, run: str, subject: str, image: BidsFile) -> pd.DataFrame:
        path = self._events_of(image)
        if path is None:
            raise StoryError(
                f"Run '{run}' of subject '{subject}' has no events.tsv in {self._raw_dataset[0]}. "
                "Fetch the raw dataset's, or name story files with data.options.words."
            )
        events = bids.read_events(path)
        words = bids.select_words(events)
        if words is None:
            raise StoryError(
                f"{path} has no words (its columns are: {', '.join(events.columns)}). "
                'Name story files with data.options.words, e.g. words = "stimuli/{run}.TextGrid".'
            )
        return words

    def _word_file(self, run: str, subject: str, image: BidsFile) -> Path:
        pattern = self.words.replace("{subject}", subject)
        if "{run}" not in pattern and "*" not in pattern:
            return self.path / Path(pattern).expanduser()
        matches = expand_pattern(pattern, self.path, StoryError)
        task = image.get("task")
        for label in (run, run.removeprefix("task-"), f"task-{task}", task):
            if label in matches:
                return matches[label]
        raise StoryError(
            f"No story file '{self.words}' in {self.path} is for run '{run}': {{run}} must be '{run}' or '{task}'. "
            f"Found: {', '.join(list(matches)[:12]) or 'none'}."
        )

    @cached_property
    def _native_spaces(self) -> dict[str, Space]:
        return {}


_HeardWords = tuple[str, np.ndarray, np.ndarray]
"""A subject, with the text and the onsets of the words of one run."""


def _as_sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _group_by_subject(files: Iterable[BidsFile]) -> dict[str, list[BidsFile]]:
    groups: dict[str, list[BidsFile]] = {}
    for file in files:
        groups.setdefault(file.get("sub"), []).append(file)
    return groups


def _shift(run: str, first: _HeardWords, second: _HeardWords) -> float:
    """Return how many seconds later the second subject heard the same words; 0 up to `TOLERANCE`."""
    (a, words_a, onset_a), (b, words_b, onset_b) = first, second
    if len(words_a) != len(words_b) or bool((words_a != words_b).any()):
        n = next(
            (i for i, (v, w) in enumerate(zip(words_a, words_b, strict=False)) if v != w),
            min(len(words_a), len(words_b)),
        )
        raise StoryError(
            f"Subjects '{a}' and '{b}' heard different words in run '{run}' ({len(words_a)} and {len(words_b)}; they differ from "
            f"word {n + 1} on). Study them separately with recording.subjects, or choose a task or session that all heard."
        )
    delay = onset_b - onset_a
    shift = float(np.median(delay))
    if not np.allclose(delay, shift, atol=TOLERANCE, rtol=0):
        raise StoryError(
            f"Subjects '{a}' and '{b}' heard the words of run '{run}' at different paces (up to {np.abs(delay - shift).max():.2f} s "
            "apart), so they share no clock. Study them separately with recording.subjects."
        )
    return shift if abs(shift) > TOLERANCE else 0.0


def _read_event_story(tables: Mapping[str, pd.DataFrame], name: str, reading: Reading) -> Story:
    """Make a story of events that are words, one table per run."""
    remarks = [
        remark
        for run, table in tables.items()
        for remark in check_words(table, reading.pauses, f"The events of run '{run}'")
    ]
    return assemble_story(tables, name, reading.sentences, reading.pauses, reading.language, remarks)
