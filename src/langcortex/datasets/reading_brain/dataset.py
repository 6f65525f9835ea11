"""Reading Brain, native speakers (ds003974): five articles, read sentence by sentence with eye tracking in the scanner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_names
from langcortex.datasets.reading_brain.fixations import (
    FIXATIONS,
    Reader,
    mean_saccades,
    read_reader,
    word_times,
)
from langcortex.datasets.reading_brain.text import (
    LENGTHS,
    Key,
    fixated_words,
    gathered_sentences,
    given_sentences,
    median_durations,
)
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import natural_key
from langcortex.stimulus.story import Story, piece_ids

TR = 0.4
"""Seconds from scan to scan: RepetitionTime of task-read_bold.json; there is no sidecar a run."""

_EVENTS = re.compile(r"sub-(\w+)_task-read_run-(\d+)_events\.tsv")
_ENTITIES = re.compile(r"sub-(\w+?)_task-read_run-(\d+)_(.+?)(\.func\.gii|\.nii\.gz|\.tsv)")


def corpus(
    path: Path, reading: Reading, preprocessed: str = "", space: str = "fsaverage5", text: str = ""
) -> ReadingBrain:
    """Open Reading Brain.

    Parameters
    ----------
    path : the folder of ds003974, whose events.tsv are used; its images are raw
    preprocessed : the folder of the fMRIPrep derivatives that the user made; ``derivatives/fmriprep`` in `path`
        by default
    space : of the derivatives: a surface such as "fsaverage5", or a volume such as "MNI152NLin2009cAsym" or
        "MNI152NLin2009cAsym_res-2"
    text : a .csv with the columns id (``t.01.01``) and text; when empty, the words are gathered from the events
    """
    base = Path(path)
    folder = Path(preprocessed).expanduser() if preprocessed else Path("derivatives") / "fmriprep"
    words = (base / Path(text).expanduser()) if text else None
    return ReadingBrain(base, base / folder, space, words, reading)


@dataclass(frozen=True, eq=False)
class ReadingBrain(CorpusOnDisk):
    """52 native speakers of English reading five articles on science and technology (ds003974 v3.0.0).

    A run is one article, ``article1`` to ``article5``, whatever the number of the scanner's run: the order was
    drawn anew for every reader. A sentence is what was on the screen at one time. Times of the events, and so of
    `story_of`, count from the first scan of the raw run; a derivative must keep all scans.

    The layout of the events was verified on all 260 files. That of the derivatives is fMRIPrep's as documented.

    Attributes
    ----------
    path : the folder of the dataset
    derivatives : the folder of the fMRIPrep derivatives
    space : the derivatives to read, and its ``_res-`` if there are several
    text : a table of the sentences
    reading : which subjects, and how recordings are read
    """

    path: Path
    derivatives: Path
    space: str = "fsaverage5"
    text: Path | None = None
    reading: Reading = field(default_factory=Reading)

    def readers(self) -> list[str]:
        """List everyone whose fixations are there, with or without preprocessed images."""
        return sorted(self._events, key=natural_key)

    def subjects(self) -> list[str]:
        """List the readers whose preprocessed images are there, or those that were asked for."""
        if not self.readers():
            raise RecordingError(
                f"{self.path} holds no sub-*/func/sub-*_task-read_run-*_events.tsv. Set data.path to the folder of ds003974."
            )
        found = [s for s in self.readers() if s in self._images]
        where = f"{self.derivatives} (ds003974 has raw images only: run fMRIPrep on them, or set data.options.preprocessed)"
        return select_names(self.reading.subjects, found, where)

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the preprocessed runs of one subject: article → its file; a run without fixations is left out."""
        out = {}
        for run, (number, _) in self._runs(subject).items():
            found = [f for f in self._images.get(subject, []) if f.number == number]
            mask = self._one(found, ".nii.gz", subject, run, suffix="mask", desc="brain")
            out[run] = RunFile(
                self._bold(found, subject, run, number),
                stimulus_onset=0.0,
                tr=TR,
                confounds=self._confounds(found, subject, run),
                mask=mask.path if mask else None,
            )
        return out

    def fixations(self, subject: str) -> pd.DataFrame:
        """Give all fixations of one reader on words, see `langcortex.datasets.reading_brain.fixations.read_fixations`."""
        tables = [reader.fixations for _, reader in self._runs(subject).values()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(FIXATIONS))

    def mean_saccades(
        self, readers: Sequence[str] | None = None, weight: str = "count"
    ) -> dict[str, np.ndarray]:
        """Average the moves of eyes between the words of each sentence.

        Parameters
        ----------
        readers : all when None. Those of 02 to 52 come closest to the means released with Gao et al. (2025): r = .991
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
            str(piece_ids(f"article{a}", "sentence", np.array([s - 1]))[0]): m for (a, s), m in means.items()
        }

    def left_out(self) -> dict[str, str]:
        """Say which events files were left out: file name → why."""
        return {
            reader.path.name: "no fixation on a word was recorded"
            for runs in self._readers.values()
            for _, reader in runs
            if reader.article is None
        }

    def remarks(self) -> list[str]:
        """Say which events files were left out."""
        return [f"{name} is left out: {why}." for name, why in self.left_out().items()]

    def story(self) -> Story:
        """Read the articles, as a reader of median pace would have read them.

        Every reader had a pace of their own, so these times are nominal: sentences follow each other without a
        pause, each as long as the median reader looked at it, and its words share that time equally. They are
        used only where no reader's own times are; `story_of` has those.

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
        """Give the articles that one reader read, with this reader's times.

        A sentence lasts while it is on the screen (``TRUEOnset`` to ``TRUEOffset``), also when it timed out after
        8 s. Its words begin with their first fixation, see `langcortex.datasets.reading_brain.fixations.word_times`.

        Returns
        -------
        Story, with the words and ids of `story`; seconds since the run's first scan
        """
        self._check_sentences()
        keys, onset, duration = [], [], []
        for number, reader in self._runs(subject).values():
            article = int(reader.article or 0)
            shown = {int(w.sentence): w for w in reader.windows.itertuples()}
            by_sentence = dict(list(reader.fixations.groupby("sentence")))
            for s, n in enumerate(LENGTHS[article - 1], start=1):
                if s not in shown:
                    raise StoryError(
                        f"{reader.path} (run {number}) never shows sentence t.{article:02d}.{s:02d}. Fetch it again."
                    )
                began = float(shown[s].onset)
                rows = by_sentence.get(s, reader.fixations.iloc[:0])
                times = word_times(rows, n, began, began + float(shown[s].duration))
                keys.append((article, s))
                onset.append(times[0])
                duration.append(times[1])
        if not keys:
            raise StoryError(f"Subject '{subject}' has no run with fixations in {self.path}.")
        return self._story(keys, onset, duration)

    def citation(self) -> str:
        """Say what to cite."""
        return (
            "Reading Brain, L1 adults: OpenNeuro ds003974 v3.0.0, doi:10.18112/openneuro.ds003974.v3.0.0; Li & Clariana (2019), "
            "Journal of Neurolinguistics 50, 94–105, doi:10.1016/j.jneuroling.2018.03.005; Follmer et al. (2018), Reading and "
            "Writing 31, 185–214, doi:10.1007/s11145-017-9781-x."
        )

    def licence(self) -> str:
        """Say under which terms the data may be used."""
        return "ds003974 is in the public domain (CC0)."

    # fixations

    @cached_property
    def _events(self) -> dict[str, dict[int, Path]]:
        """Subject → number of the scanner's run → events."""
        found: dict[str, dict[int, Path]] = {}
        for path in sorted(self.path.glob("sub-*/func/sub-*_task-read_run-*_events.tsv")):
            if match := _EVENTS.fullmatch(path.name):
                runs = found.setdefault(match[1], {})
                if int(match[2]) in runs:
                    raise StoryError(
                        f"Two files stand for run {match[2]} of subject '{match[1]}': {runs[int(match[2])]} and {path}. Keep one."
                    )
                runs[int(match[2])] = path
        return found

    @cached_property
    def _readers(self) -> dict[str, list[tuple[int, Reader]]]:
        if not self._events:
            raise StoryError(
                f"{self.path} holds no sub-*/func/sub-*_task-read_run-*_events.tsv. Set data.path to the folder of ds003974."
            )
        return {
            subject: [(number, read_reader(path)) for number, path in sorted(self._events[subject].items())]
            for subject in self.readers()
        }

    def _runs(self, subject: str) -> dict[str, tuple[int, Reader]]:
        """Give one subject's runs with fixations, in the order of the articles."""
        if subject not in self._readers:
            raise RecordingError(
                f"Subject '{subject}' has no events in {self.path}. The readers are: {', '.join(self.readers()[:12])}."
            )
        found: dict[int, tuple[int, Reader]] = {}
        for number, reader in self._readers[subject]:
            article = reader.article
            if article is None:
                continue
            if article in found:
                raise StoryError(
                    f"Runs {found[article][0]} and {number} of subject '{subject}' both hold article {article}. Fetch {reader.path} again."
                )
            if article > len(LENGTHS):
                raise StoryError(f"{reader.path} holds article {article}, but there are {len(LENGTHS)}.")
            found[article] = number, reader
        return {f"article{a}": found[a] for a in sorted(found)}

    @cached_property
    def _everyone(self) -> list[Reader]:
        """Give every run of every reader that has fixations."""
        found = [reader for subject in self._readers for _, reader in self._runs(subject).values()]
        if not found:
            raise StoryError(
                f"No events in {self.path} hold a fixation on a word. Fetch those of more subjects."
            )
        return found

    @cached_property
    def _durations(self) -> dict[Key, float]:
        """(article, sentence) → for how many seconds the median reader looked at it; every article that was read."""
        return median_durations(pd.concat([reader.windows for reader in self._everyone]), self.path)

    # words

    @cached_property
    def _sentences(self) -> dict[Key, list[str]]:
        """Give the words of every sentence that was read."""
        fixated = fixated_words([reader.fixations for reader in self._everyone])
        if self.text is None:
            return gathered_sentences(fixated, list(self._durations), self.path)
        return given_sentences(self.text, fixated, list(self._durations))

    def _story(self, keys: Sequence[Key], onset: list[np.ndarray], duration: list[np.ndarray]) -> Story:
        words = {key: self._sentences[key] for key in keys}
        run = np.concatenate([np.full(len(w), f"article{a}") for (a, _), w in words.items()])
        starts = np.flatnonzero(np.append(True, run[1:] != run[:-1]))
        place = np.arange(len(run)) - np.repeat(starts, np.diff(np.append(starts, len(run))))
        return Story(
            name="reading-brain",
            ids=np.array([f"{r}/word-{i:04d}" for r, i in zip(run.tolist(), place.tolist(), strict=True)]),
            text=np.array([word for sentence in words.values() for word in sentence]),
            onset=np.concatenate(onset),
            duration=np.concatenate(duration),
            run=run,
            sentence=np.concatenate(
                [piece_ids(f"article{a}", "sentence", np.full(len(w), s - 1)) for (a, s), w in words.items()]
            ),
            before=np.where(place == 0, "", " "),
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
        """Subject → the derivatives in the space asked for, and the confounds."""
        found: dict[str, list[_Image]] = {}
        for path in sorted(self.derivatives.glob("sub-*/func/sub-*_task-read_run-*")):
            match = _ENTITIES.fullmatch(path.name)
            if match is None:
                continue
            parts = match[3].split("_")
            entities = dict(part.split("-", 1) for part in parts if "-" in part)
            suffix = "bold" if "-" in parts[-1] else parts[-1]
            image = _Image(path, int(match[2]), match[4], suffix, entities)
            if match[4] == ".tsv" or self._wanted(entities):
                found.setdefault(match[1], []).append(image)
        return {s: files for s, files in found.items() if any(f.kind != ".tsv" for f in files)}

    def _wanted(self, entities: dict[str, str]) -> bool:
        name, _, resolution = self.space.partition("_res-")
        return entities.get("space") == name and (not resolution or entities.get("res") == resolution)

    def _bold(self, found: list[_Image], subject: str, run: str, number: int) -> Path | tuple[Path, Path]:
        left, right = (
            self._one(found, ".func.gii", subject, run, hemi=hemi, suffix="bold") for hemi in ("L", "R")
        )
        if left and right:
            return left.path, right.path
        if left or right:
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' (run {number}) has one hemisphere only."
            )
        volume = self._one(found, ".nii.gz", subject, run, desc="preproc", suffix="bold")
        if volume is None:
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' (run {number}) has no preprocessed image in space {self.space} in "
                f"{self.derivatives}. Run fMRIPrep on it, or leave the subject out with recording.subjects."
            )
        return volume.path

    def _confounds(self, found: list[_Image], subject: str, run: str) -> Path | None:
        if not self.reading.cleaning.get("confounds"):
            return None
        tables = [
            self._one(found, ".tsv", subject, run, desc="confounds", suffix=suffix)
            for suffix in ("timeseries", "regressors")  # fMRIPrep's name today, and before 20.1
        ]
        return next((table.path for table in tables if table), None)

    def _one(
        self,
        found: list[_Image],
        kind: str,
        subject: str,
        run: str,
        suffix: str,
        hemi: str = "",
        desc: str = "",
    ) -> _Image | None:
        same = [
            f
            for f in found
            if (f.kind, f.suffix, f.entities.get("hemi", "")) == (kind, suffix, hemi)
            and f.entities.get("desc", "") in ({desc} if desc else {"", "preproc"})
        ]
        if len(same) > 1:
            raise RecordingError(
                f"Two files stand for run '{run}' of subject '{subject}': {same[0].path} and {same[1].path}. "
                'Name one with data.options.space, e.g. "MNI152NLin2009cAsym_res-2", or remove the other.'
            )
        return same[0] if same else None


@dataclass(frozen=True)
class _Image:
    """A derivative: its path, the scanner's run, its ending, suffix and BIDS entities."""

    path: Path
    number: int
    kind: str
    suffix: str
    entities: dict[str, str]
