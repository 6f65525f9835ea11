"""Reading Brain (ds003974, ds003988): five articles read sentence by sentence with eye tracking in the scanner."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from langcortex.datasets.reading_brain.groups import Group, recognise_group
from langcortex.datasets.reading_brain.text import (
    LENGTHS,
    Key,
    Lengths,
    assemble_articles,
    count_words,
    fixated_words,
    format_key,
    median_durations,
    nominal_times,
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
) -> ReadingBrain | ReadingBrainGroups:
    """Open one group of Reading Brain, or both.

    Parameters
    ----------
    path : the folder of ds003974 (native speakers) or ds003988 (second language), whose events.tsv are used; their images
        are raw. A folder that holds both opens both groups
    preprocessed : the folder of your fMRIPrep derivatives; by default ``derivatives/fmriprep`` in the folder of the group. For
        both groups, ``{group}`` in it stands for L1 and L2
    space : the space of the derivatives: a surface such as "fsaverage5", or a volume such as "MNI152NLin2009cAsym" or
        "MNI152NLin2009cAsym_res-2"
    text : a .csv with the columns id (``t.01.01``) and text; when empty, the words are collected from the events
    """
    base = Path(path)
    folder = preprocessed or "derivatives/fmriprep"
    words = (base / Path(text).expanduser()) if text else None
    inside = [] if _has_events(base) else [p for p in sorted(base.glob("*/")) if _has_events(p)]
    if not inside:
        return ReadingBrain(base, base / Path(folder).expanduser(), space, words, reading)
    groups: dict[str, ReadingBrain] = {}
    for place in inside:
        images = place / Path(folder).expanduser()
        member = ReadingBrain(place, images, space, words, replace(reading, subjects=None), siblings=groups)
        name = member.group.name
        if name in groups:
            raise SettingsError(
                f"{groups[name].path} and {place} are both group {name} of Reading Brain. Set data.path to one, or move one."
            )
        if member.images_folder in [g.images_folder for g in groups.values()]:
            raise SettingsError(
                f"Both groups would be read from {images}, where subjects have the same names. Write {{group}} (L1 and L2) in "
                "data.options.preprocessed."
            )
        groups[name] = member
    return ReadingBrainGroups(base, dict(sorted(groups.items())), reading)


def _has_events(path: Path) -> bool:
    return any(path.glob("sub-*/func/sub-*_task-read_run-*_events.tsv"))


@dataclass(frozen=True, eq=False)
class ReadingBrain(CorpusOnDisk):
    """A group of readers of five articles on science and technology: 52 of L1 (ds003974) or 56 of L2 (ds003988).

    A run is one article, ``article1`` to ``article5``, whatever the number of the scanner's run: the order of
    articles was random for each reader. A sentence is the text on the screen at one time. Times of the events, and
    of `story_of`, count from the first scan of the raw run; a derivative must have all scans.

    The layout of the events was verified on all 260 files of L1 and on those of 28 readers of L2. That of the derivatives is as
    documented by fMRIPrep.

    Attributes
    ----------
    path : the folder of the dataset
    derivatives : the folder of the fMRIPrep derivatives, perhaps with ``{group}`` in its name
    space : the space of the derivatives, with ``_res-`` if there are several resolutions
    text : a table of the sentences
    reading : the subjects, and how recordings are read
    siblings : the groups of one study, this one among them, whose words are numbered alike; empty when studied alone
    """

    path: Path
    derivatives: Path
    space: str = "fsaverage5"
    text: Path | None = None
    reading: Reading = field(default_factory=Reading)
    siblings: Mapping[str, ReadingBrain] = field(default_factory=dict, repr=False)

    @cached_property
    def group(self) -> Group:
        """The published group that these readers are of."""
        furthest: dict[Key, int] = {}
        for run in self._all_tracking:
            for (a, s), word in run.fixations.groupby(["article", "sentence"]).word.max().items():
                furthest[int(a), int(s)] = max(furthest.get((int(a), int(s)), 0), int(word))
        return recognise_group(self.path, furthest, Counter(run.article or 0 for run in self._all_tracking))

    @property
    def images_folder(self) -> Path:
        """The folder of the derivatives, with the name of the group in it."""
        name = str(self.derivatives)
        return Path(name.replace("{group}", self.group.name)) if "{group}" in name else self.derivatives

    def readers_with_images(self) -> list[str]:
        """List the readers with fixations and preprocessed images."""
        return [s for s in self.readers() if s in self._images]

    def readers(self) -> list[str]:
        """List the readers with fixations, with or without preprocessed images."""
        return sorted(self._events, key=natural_key)

    def subjects(self) -> list[str]:
        """List the readers with preprocessed images, or those that the study names."""
        if not self.readers():
            raise RecordingError(
                f"{self.path} has no sub-*/func/sub-*_task-read_run-*_events.tsv. Set data.path to the folder of ds003974 or ds003988."
            )
        source = f"{self.images_folder} ({self.group.accession} has raw images only: run fMRIPrep on them, or set data.options.preprocessed)"
        return select_subjects(self.reading.subjects, self.readers_with_images(), source)

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
        lengths = {key: count_words(key, self.group.lengths) for key in self._durations}
        tables = (self.fixations(reader) for reader in (self.readers() if readers is None else readers))
        means = mean_saccades(tables, lengths, weight)
        for key, word in self.unknown_words():  # which the story does not have either
            means[key] = np.delete(np.delete(means[key], word - 1, axis=0), word - 1, axis=1)
        return {
            str(unit_ids(f"article{a}", "sentence", np.array([s - 1]))[0]): m for (a, s), m in means.items()
        }

    def unknown_words(self) -> list[tuple[Key, int]]:
        """List the words whose text is not known, since no reader here fixated them: sentence, and number of the word from 1."""
        return [
            (key, w) for key, words in self._sentences.items() for w, word in enumerate(words, 1) if not word
        ]

    def excluded_files(self) -> dict[str, str]:
        """List the events files that were left out: file name → reason."""
        return {
            tracking.path.name: "no fixation on a word was recorded"
            for runs in self._tracking.values()
            for _, tracking in runs
            if tracking.article is None
        }

    def remarks(self) -> list[str]:
        """List the events files and the words that were left out."""
        files = [f"{name} is left out: {reason}." for name, reason in self.excluded_files().items()]
        return files + [
            f"Word {word} of sentence {format_key(key)} is left out: none of the {len(self.readers())} readers of {self.group.name} here "
            "fixated it, so its text is not known. data.options.text can give it."
            for key, word in self.unknown_words()
        ]

    def story(self) -> Story:
        """Read the articles with nominal times.

        Each reader had their own pace: the nominal sentences follow each other without a pause, with their median
        times on the screen, and the words of a sentence are equally long. `story_of` has the times of one reader.

        Raises
        ------
        StoryError : words of a sentence are unknown, because `text` lacks it or no reader here fixated them
        """
        self.check_sentences()
        onset, duration = nominal_times(self._durations, self.group.lengths)
        return assemble_articles(self._sentences, onset, duration, self.lengths)

    @property
    def lengths(self) -> Lengths:
        """The number of words of each sentence by which words are numbered: the longest of all groups of the study."""
        lengths = [group.group.lengths for group in self.siblings.values()] or [self.group.lengths]
        return tuple(
            tuple(max(ns) for ns in zip(*articles, strict=True)) for articles in zip(*lengths, strict=True)
        )

    @cached_property
    def fixated(self) -> dict[tuple[int, int, int], str]:
        """The words that readers fixated: (article, sentence, word) → text."""
        return fixated_words([run.fixations for run in self._all_tracking])

    @property
    def sentences(self) -> dict[Key, list[str]]:
        """The words of each sentence that was read; a word whose text is not known is ""."""
        return self._sentences

    @property
    def windows(self) -> pd.DataFrame:
        """The times of sentences on the screen, of all readers."""
        return pd.concat([run.windows for run in self._all_tracking])

    def story_of(self, subject: str) -> Story:
        """Return the articles that one reader read, with this reader's times.

        A sentence lasts while it is on the screen (``TRUEOnset`` to ``TRUEOffset``), also if it timed out after
        8 s. Its words begin with their first fixation, see `langcortex.datasets.reading_brain.fixations.word_times`.

        Returns
        -------
        Story, with the words and ids of `story`; seconds since the run's first scan
        """
        self.check_sentences()
        keys, onset, duration = [], [], []
        for number, tracking in self._runs(subject).values():
            article = int(tracking.article or 0)
            windows = {int(w.sentence): w for w in tracking.windows.itertuples()}
            by_sentence = dict(list(tracking.fixations.groupby("sentence")))
            for s, n in enumerate(self.group.lengths[article - 1], start=1):
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
        return assemble_articles({key: self._sentences[key] for key in keys}, onset, duration, self.lengths)

    def citation(self) -> str:
        """Return what to cite."""
        return self.group.citation

    def licence(self) -> str:
        """Return the terms of use."""
        return f"{self.group.accession} is in the public domain (CC0)."

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
                f"{self.path} has no sub-*/func/sub-*_task-read_run-*_events.tsv. Set data.path to the folder of ds003974 or ds003988."
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
        return median_durations(self.windows, self.path)

    # words

    @cached_property
    def _sentences(self) -> dict[Key, list[str]]:
        """The words of each sentence that was read; what only another group of the study fixated is taken from there."""
        keys, lengths = list(self._durations), self.group.lengths
        if self.text is not None:
            return read_checked_sentences(self.text, self.fixated, keys, lengths)
        siblings = [group.fixated for group in self.siblings.values() if group.path != self.path]
        words = {place: word for fixated in (*siblings, self.fixated) for place, word in fixated.items()}
        return rebuild_sentences(words, keys, self.path, lengths)

    def check_sentences(self) -> None:
        """Refuse another rule for sentences than the screen's."""
        if self.reading.sentences == "punctuation":
            raise SettingsError(
                'The sentences of Reading Brain are those shown on the screen. Leave story.sentences on "auto".'
            )

    # images

    @cached_property
    def _images(self) -> dict[str, list[_Image]]:
        """The derivatives in the chosen space, and the confounds: subject → files."""
        by_subject: dict[str, list[_Image]] = {}
        for path in sorted(self.images_folder.glob("sub-*/func/sub-*_task-read_run-*")):
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
                f"{self.images_folder}. Run fMRIPrep on it, or leave the subject out with recording.subjects."
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


@dataclass(frozen=True, eq=False)
class ReadingBrainGroups(CorpusOnDisk):
    """Both groups of Reading Brain in one study; reader 01 of L1 is the subject "L1sub01".

    All read the same five articles, but one sentence was two words shorter for L2. Models read the longer one, and the rows
    of L2 readers end where theirs did.

    Attributes
    ----------
    path : the folder that holds both datasets
    groups : "L1" and "L2", each a corpus of its own
    reading : the subjects, and how recordings are read
    """

    path: Path
    groups: Mapping[str, ReadingBrain]
    reading: Reading = field(default_factory=Reading)

    def subjects(self) -> list[str]:
        """List the readers of both groups with preprocessed images, or those that the study names."""
        names = [f"{name}sub{s}" for name, group in self.groups.items() for s in group.readers_with_images()]
        folders = " and ".join(str(group.images_folder) for group in self.groups.values())
        source = f"{folders} (both datasets have raw images only: run fMRIPrep on them, or set data.options.preprocessed)"
        return select_subjects(self.reading.subjects, names, source)

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the preprocessed runs of one subject: article → its file."""
        group, reader = self._find(subject)
        return group.files(reader)

    def story(self) -> Story:
        """Read the articles with nominal times, see `ReadingBrain.story`."""
        groups = list(self.groups.values())
        durations = median_durations(pd.concat([group.windows for group in groups]), self.path)
        groups[0].check_sentences()
        sentences: dict[Key, list[str]] = {}
        for key in durations:
            texts = [group.sentences[key] for group in groups if key in group.sentences]
            sentences[key] = max(texts, key=len)
        lengths = groups[0].lengths
        onset, duration = nominal_times(durations, lengths)
        onset = [o[: len(words)] for o, words in zip(onset, sentences.values(), strict=True)]
        duration = [d[: len(words)] for d, words in zip(duration, sentences.values(), strict=True)]
        return assemble_articles(sentences, onset, duration, lengths)

    def story_of(self, subject: str) -> Story:
        """Return the articles that one reader read, with this reader's times, see `ReadingBrain.story_of`."""
        group, reader = self._find(subject)
        return group.story_of(reader)

    def remarks(self) -> list[str]:
        """List what was left out, and where the groups were shown different text."""
        texts = [group.sentences for group in self.groups.values()]
        differing = [k for k in texts[0] if len({len(text[k]) for text in texts if k in text}) > 1]
        sentences = [
            f"Sentence {format_key(key)} had "
            + " and ".join(f"{len(g.sentences[key])} words for {name}" for name, g in self.groups.items())
            + ". Models read the longer one; rows of words end where a reader's own did."
            for key in differing
        ]
        for name, group in self.groups.items():
            sentences += [f"{name}: {remark}" for remark in group.remarks()]
            if not group.readers_with_images():
                sentences.append(f"No reader of {name} has preprocessed images in {group.images_folder}.")
        return sentences

    def citation(self) -> str:
        """Return what to cite: both datasets."""
        return " ".join(group.citation() for group in self.groups.values())

    def licence(self) -> str:
        """Return the terms of use."""
        return " ".join(group.licence() for group in self.groups.values())

    def _find(self, subject: str) -> tuple[ReadingBrain, str]:
        """Return the group of a subject, and the reader's name in it."""
        name, _, reader = subject.partition("sub")
        if name not in self.groups:
            raise RecordingError(
                f"Subject '{subject}' is of no group in {self.path}. Names are like '{next(iter(self.groups))}sub01'."
            )
        return self.groups[name], reader
