"""Reading Brain, native speakers (ds003974): five articles read sentence by sentence with eye tracking in the scanner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_subjects
from langcortex.datasets.reading_brain.fixations import (
    FIXATIONS,
    EyeTrackingRun,
    mean_saccades,
    read_run,
    word_times,
)
from langcortex.datasets.reading_brain.text import (
    LENGTHS,
    Key,
    fixated_words,
    median_durations,
    read_checked_sentences,
    rebuild_sentences,
)
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import natural_key
from langcortex.stimulus.story import Story, unit_ids

TR = 0.4
"""Repetition time in seconds, from task-read_bold.json; runs have no sidecars."""

_EVENTS = re.compile(r"sub-(\w+)_task-read_run-(\d+)_events\.tsv")
_ENTITIES = re.compile(r"sub-(\w+?)_task-read_run-(\d+)_(.+?)(\.func\.gii|\.nii\.gz|\.tsv)")


def corpus(
    path: Path, reading: Reading, preprocessed: str = "", space: str = "fsaverage5", text: str = ""
) -> ReadingBrain:
    """Open Reading Brain.

    Parameters
    ----------
    path : the folder of ds003974, whose events.tsv are used; its images are raw
    preprocessed : the folder of your fMRIPrep derivatives; by default ``derivatives/fmriprep`` in `path`
    space : the space of the derivatives: a surface such as "fsaverage5", or a volume such as "MNI152NLin2009cAsym" or
        "MNI152NLin2009cAsym_res-2"
    text : a .csv with the columns id (``t.01.01``) and text; when empty, the words are collected from the events
    """
    base = Path(path)
    folder = Path(preprocessed).expanduser() if preprocessed else Path("derivatives") / "fmriprep"
    words = (base / Path(text).expanduser()) if text else None
    return ReadingBrain(base, base / folder, space, words, reading)


@dataclass(frozen=True, eq=False)
class ReadingBrain(CorpusOnDisk):
    """52 native speakers of English who read five articles on science and technology (ds003974 v3.0.0).

    A run is one article, ``article1`` to ``article5``, whatever the number of the scanner's run: the order of
    articles was random for each reader. A sentence is the text on the screen at one time. Times of the events, and
    of `story_of`, count from the first scan of the raw run; a derivative must have all scans.

    The layout of the events was verified on all 260 files. That of the derivatives is as documented by fMRIPrep.

    Attributes
    ----------
    path : the folder of the dataset
    derivatives : the folder of the fMRIPrep derivatives
    space : the space of the derivatives, with ``_res-`` if there are several resolutions
    text : a table of the sentences
    reading : the subjects, and how recordings are read
    """

    path: Path
    derivatives: Path
    space: str = "fsaverage5"
    text: Path | None = None
    reading: Reading = field(default_factory=Reading)

    def readers(self) -> list[str]:
        """List the readers with fixations, with or without preprocessed images."""
        return sorted(self._events, key=natural_key)

    def subjects(self) -> list[str]:
        """List the readers with preprocessed images, or those that the study names."""
        if not self.readers():
            raise RecordingError(
                f"{self.path} has no sub-*/func/sub-*_task-read_run-*_events.tsv. Set data.path to the folder of ds003974."
            )
        subjects = [s for s in self.readers() if s in self._images]
        source = f"{self.derivatives} (ds003974 has raw images only: run fMRIPrep on them, or set data.options.preprocessed)"
        return select_subjects(self.reading.subjects, subjects, source)

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the preprocessed runs of one subject: article → its file; a run without fixations is left out."""
        files = {}
        for run, (number, _) in self._runs(subject).items():
            images = [image for image in self._images.get(subject, []) if image.number == number]
            mask = self._select(images, ".nii.gz", subject, run, suffix="mask", desc="brain")
            files[run] = RunFile(
                self._bold(images, subject, run, number),
                stimulus_onset=0.0,
                tr=TR,
                confounds=self._confounds(images, subject, run),
                mask=mask.path if mask else None,
            )
        return files

    def fixations(self, subject: str) -> pd.DataFrame:
        """Return the fixations of one reader, see `langcortex.datasets.reading_brain.fixations.read_fixations`."""
        tables = [tracking.fixations for _, tracking in self._runs(subject).values()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(FIXATIONS))

    def mean_saccades(
        self, readers: Sequence[str] | None = None, weight: str = "count"
    ) -> dict[str, np.ndarray]:
        """Average the saccades between the words of each sentence over readers.

        Parameters
        ----------
        readers : all when None. Those from 02 to 52 agree best with the means released with Gao et al. (2025): r = .991
            over all cells of the counts, and of the durations with `weight` "arriving"
        weight : see `langcortex.datasets.reading_brain.fixations.saccades`

        Returns
        -------
        sentence of the story → (n_words, n_words) float64, from word (row) to word (column)
        """
        lengths = {(a, s): LENGTHS[a - 1][s - 1] for a, s in self._durations}
        tables = (self.fixations(reader) for reader in (self.readers() if readers is None else readers))
        means = mean_saccades(tables, lengths, weight)
        return {
            str(unit_ids(f"article{a}", "sentence", np.array([s - 1]))[0]): m for (a, s), m in means.items()
        }

    def excluded_files(self) -> dict[str, str]:
        """List the events files that were left out: file name → reason."""
        return {
            tracking.path.name: "no fixation on a word was recorded"
            for runs in self._tracking.values()
            for _, tracking in runs
            if tracking.article is None
        }

    def remarks(self) -> list[str]:
        """List the events files that were left out."""
        return [f"{name} is left out: {reason}." for name, reason in self.excluded_files().items()]

    def story(self) -> Story:
        """Read the articles with nominal times.

        Each reader had their own pace: the nominal sentences follow each other without a pause, with their median
        times on the screen, and the words of a sentence are equally long. `story_of` has the times of one reader.

        Raises
        ------
        StoryError : words of a sentence are unknown, because `text` lacks it or no reader here fixated them
        """
        self._check_sentences()
        onset, duration = [], []
        clock, article = 0.0, 0
        for (a, s), seconds in self._durations.items():
            clock, article = (clock, a) if a == article else (0.0, a)
            n = LENGTHS[a - 1][s - 1]
            onset.append(clock + np.arange(n) * seconds / n)
            duration.append(np.full(n, seconds / n))
            clock += seconds
        return self._story(list(self._durations), onset, duration)

    def story_of(self, subject: str) -> Story:
        """Return the articles that one reader read, with this reader's times.

        A sentence lasts while it is on the screen (``TRUEOnset`` to ``TRUEOffset``), also if it timed out after
        8 s. Its words begin with their first fixation, see `langcortex.datasets.reading_brain.fixations.word_times`.

        Returns
        -------
        Story, with the words and ids of `story`; seconds since the run's first scan
        """
        self._check_sentences()
        keys, onset, duration = [], [], []
        for number, tracking in self._runs(subject).values():
            article = int(tracking.article or 0)
            windows = {int(w.sentence): w for w in tracking.windows.itertuples()}
            by_sentence = dict(list(tracking.fixations.groupby("sentence")))
            for s, n in enumerate(LENGTHS[article - 1], start=1):
                if s not in windows:
                    raise StoryError(
                        f"{tracking.path} (run {number}) never shows sentence t.{article:02d}.{s:02d}. Fetch it again."
                    )
                start = float(windows[s].onset)
                rows = by_sentence.get(s, tracking.fixations.iloc[:0])
                times = word_times(rows, n, start, start + float(windows[s].duration))
                keys.append((article, s))
                onset.append(times[0])
                duration.append(times[1])
        if not keys:
            raise StoryError(f"Subject '{subject}' has no run with fixations in {self.path}.")
        return self._story(keys, onset, duration)

    def citation(self) -> str:
        """Return what to cite."""
        return (
            "Reading Brain, L1 adults: OpenNeuro ds003974 v3.0.0, doi:10.18112/openneuro.ds003974.v3.0.0; Li & Clariana (2019), "
            "Journal of Neurolinguistics 50, 94–105, doi:10.1016/j.jneuroling.2018.03.005; Follmer et al. (2018), Reading and "
            "Writing 31, 185–214, doi:10.1007/s11145-017-9781-x."
        )

    def licence(self) -> str:
        """Return the terms of use."""
        return "ds003974 is in the public domain (CC0)."

    # fixations

    @cached_property
    def _events(self) -> dict[str, dict[int, Path]]:
        """The events files: subject → number of the scanner's run → file."""
        by_subject: dict[str, dict[int, Path]] = {}
        for path in sorted(self.path.glob("sub-*/func/sub-*_task-read_run-*_events.tsv")):
            if match := _EVENTS.fullmatch(path.name):
                runs = by_subject.setdefault(match[1], {})
                if int(match[2]) in runs:
                    raise StoryError(
                        f"Two files are run {match[2]} of subject '{match[1]}': {runs[int(match[2])]} and {path}. Keep one."
                    )
                runs[int(match[2])] = path
        return by_subject

    @cached_property
    def _tracking(self) -> dict[str, list[tuple[int, EyeTrackingRun]]]:
        """The eye tracking: subject → number of the scanner's run and its fixations."""
        if not self._events:
            raise StoryError(
                f"{self.path} has no sub-*/func/sub-*_task-read_run-*_events.tsv. Set data.path to the folder of ds003974."
            )
        return {
            subject: [(number, read_run(path)) for number, path in sorted(self._events[subject].items())]
            for subject in self.readers()
        }

    def _runs(self, subject: str) -> dict[str, tuple[int, EyeTrackingRun]]:
        """Return the runs of one subject that have fixations, in the order of articles."""
        if subject not in self._tracking:
            raise RecordingError(
                f"Subject '{subject}' has no events in {self.path}. The readers are: {', '.join(self.readers()[:12])}."
            )
        by_article: dict[int, tuple[int, EyeTrackingRun]] = {}
        for number, tracking in self._tracking[subject]:
            article = tracking.article
            if article is None:
                continue
            if article in by_article:
                raise StoryError(
                    f"Runs {by_article[article][0]} and {number} of subject '{subject}' both have article {article}. Fetch {tracking.path} again."
                )
            if article > len(LENGTHS):
                raise StoryError(
                    f"{tracking.path} has article {article}, but there are {len(LENGTHS)}. Fetch it again."
                )
            by_article[article] = number, tracking
        return {f"article{a}": by_article[a] for a in sorted(by_article)}

    @cached_property
    def _all_tracking(self) -> list[EyeTrackingRun]:
        """The runs of all readers that have fixations."""
        runs = [tracking for subject in self._tracking for _, tracking in self._runs(subject).values()]
        if not runs:
            raise StoryError(
                f"No events in {self.path} have a fixation on a word. Fetch those of more subjects."
            )
        return runs

    @cached_property
    def _durations(self) -> dict[Key, float]:
        """The median duration on the screen of each sentence of the articles that were read, in seconds."""
        return median_durations(pd.concat([run.windows for run in self._all_tracking]), self.path)

    # words

    @cached_property
    def _sentences(self) -> dict[Key, list[str]]:
        """The words of each sentence that was read."""
        fixated = fixated_words([run.fixations for run in self._all_tracking])
        if self.text is None:
            return rebuild_sentences(fixated, list(self._durations), self.path)
        return read_checked_sentences(self.text, fixated, list(self._durations))

    def _story(self, keys: Sequence[Key], onset: list[np.ndarray], duration: list[np.ndarray]) -> Story:
        words = {key: self._sentences[key] for key in keys}
        run = np.concatenate([np.full(len(w), f"article{a}") for (a, _), w in words.items()])
        starts = np.flatnonzero(np.append(True, run[1:] != run[:-1]))
        position = np.arange(len(run)) - np.repeat(starts, np.diff(np.append(starts, len(run))))
        return Story(
            name="reading-brain",
            ids=np.array([f"{r}/word-{i:04d}" for r, i in zip(run.tolist(), position.tolist(), strict=True)]),
            text=np.array([word for sentence in words.values() for word in sentence]),
            onset=np.concatenate(onset),
            duration=np.concatenate(duration),
            run=run,
            sentence=np.concatenate(
                [unit_ids(f"article{a}", "sentence", np.full(len(w), s - 1)) for (a, s), w in words.items()]
            ),
            before=np.where(position == 0, "", " "),
            left_out=dict.fromkeys(run.tolist(), 0),
        )

    def _check_sentences(self) -> None:
        if self.reading.sentences == "punctuation":
            raise SettingsError(
                'The sentences of Reading Brain are those shown on the screen. Leave story.sentences on "auto".'
            )

    # images

    @cached_property
    def _images(self) -> dict[str, list[_Image]]:
        """The derivatives in the chosen space, and the confounds: subject → files."""
        by_subject: dict[str, list[_Image]] = {}
        for path in sorted(self.derivatives.glob("sub-*/func/sub-*_task-read_run-*")):
            match = _ENTITIES.fullmatch(path.name)
            if match is None:
                continue
            parts = match[3].split("_")
            entities = dict(part.split("-", 1) for part in parts if "-" in part)
            suffix = "bold" if "-" in parts[-1] else parts[-1]
            image = _Image(path, int(match[2]), match[4], suffix, entities)
            if match[4] == ".tsv" or self._is_in_space(entities):
                by_subject.setdefault(match[1], []).append(image)
        return {s: images for s, images in by_subject.items() if any(i.kind != ".tsv" for i in images)}

    def _is_in_space(self, entities: dict[str, str]) -> bool:
        name, _, resolution = self.space.partition("_res-")
        return entities.get("space") == name and (not resolution or entities.get("res") == resolution)

    def _bold(self, images: list[_Image], subject: str, run: str, number: int) -> Path | tuple[Path, Path]:
        left, right = (
            self._select(images, ".func.gii", subject, run, hemi=hemi, suffix="bold") for hemi in ("L", "R")
        )
        if left and right:
            return left.path, right.path
        if left or right:
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' (run {number}) has one hemisphere only."
            )
        volume = self._select(images, ".nii.gz", subject, run, desc="preproc", suffix="bold")
        if volume is None:
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' (run {number}) has no preprocessed image in space {self.space} in "
                f"{self.derivatives}. Run fMRIPrep on it, or leave the subject out with recording.subjects."
            )
        return volume.path

    def _confounds(self, images: list[_Image], subject: str, run: str) -> Path | None:
        if not self.reading.cleaning.get("confounds"):
            return None
        tables = [
            self._select(images, ".tsv", subject, run, desc="confounds", suffix=suffix)
            for suffix in ("timeseries", "regressors")  # the name of fMRIPrep today, and before 20.1
        ]
        return next((table.path for table in tables if table), None)

    def _select(
        self,
        images: list[_Image],
        kind: str,
        subject: str,
        run: str,
        suffix: str,
        hemi: str = "",
        desc: str = "",
    ) -> _Image | None:
        """Return the only image with these entities, or None."""
        matches = [
            image
            for image in images
            if (image.kind, image.suffix, image.entities.get("hemi", "")) == (kind, suffix, hemi)
            and image.entities.get("desc", "") in ({desc} if desc else {"", "preproc"})
        ]
        if len(matches) > 1:
            raise RecordingError(
                f"Two files are run '{run}' of subject '{subject}': {matches[0].path} and {matches[1].path}. "
                'Name one with data.options.space, e.g. "MNI152NLin2009cAsym_res-2", or remove the other.'
            )
        return matches[0] if matches else None


@dataclass(frozen=True)
class _Image:
    """A derivative: its path, the number of the scanner's run, and its extension, suffix and BIDS entities."""

    path: Path
    number: int
    kind: str
    suffix: str
    entities: dict[str, str]
