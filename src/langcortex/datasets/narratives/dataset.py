"""Narratives (Nastase et al. 2021, OpenNeuro ds002345): 345 people and 27 spoken stories, one or more stories each.

OpenNeuro has only raw images and sound; preprocessed images and word timings are in the DataLad dataset
``///labs/hasson/narratives``. Names of raw files, of events and of stories are as in ds002345 v1.1.4; those of derivatives
as in ``code/task_meta.json`` and ``code/run_regression.py`` of https://github.com/snastase/narratives.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pandas as pd

from langcortex.brain.recording import Cleaning
from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_subjects
from langcortex.datasets.gentle import read_gentle_story
from langcortex.datasets.narratives.scans import (
    PlayedSound,
    Scan,
    find_scans,
    read_events,
    read_excluded_scans,
    read_rows,
    read_tr,
)
from langcortex.errors import RecordingError, SettingsError
from langcortex.paths import natural_key, require_file
from langcortex.stimulus.story import Story

DERIVATIVES = ("fmriprep", "afni-smooth", "afni-nosmooth")
SPACES = {"volume": "MNI152NLin2009cAsym", "surface": "fsaverage6"}
_UNVERIFIED = {"bronx": "15.2", "piemanpni": "8.7"}


def corpus(
    path: Path,
    reading: Reading,
    tasks: str | Sequence[str] = "pieman",
    derivatives: str = "fmriprep",
    kind: str = "volume",
    space: str = "",
    clean: bool = True,
    exclude: bool = True,
    condition: str = "",
    repeats: bool = False,
) -> Narratives:
    """Open Narratives.

    Parameters
    ----------
    path : the folder of the dataset, with ``sub-001`` …, ``derivatives`` and ``stimuli/gentle``
    reading : how the study reads recordings
    tasks : one task or several, e.g. ``["pieman", "tunnel"]``; volumes of several tasks may have several grids
    derivatives : "fmriprep", "afni-smooth" (6 mm) or "afni-nosmooth"
    kind : "volume" or "surface"
    space : by default MNI152NLin2009cAsym for volumes and fsaverage6 for surfaces
    clean : for the afni derivatives, use those whose confounds the authors regressed out (``desc-clean``)
    exclude : leave out the scans that the authors excluded
    condition : use only subjects of this condition in participants.tsv, e.g. "original" (milkyway) or "affair"
    repeats : use a story that a subject heard twice (pieman) as two runs. By default only the first presentation is
        used: a model that is trained on one and tested on the other has seen the words

    Raises
    ------
    SettingsError : an option has no such value
    RecordingError : the folder has no such derivatives
    """
    if derivatives not in DERIVATIVES or kind not in SPACES:
        raise SettingsError(
            f"data.options: derivatives is one of {', '.join(DERIVATIVES)}, not '{derivatives}'; kind is volume or surface, not '{kind}'."
        )
    for name, value in (("clean", clean), ("exclude", exclude), ("repeats", repeats)):
        if not isinstance(value, bool):
            raise SettingsError(f"data.options.{name} is true or false, not '{value}'.")
    names = (tasks,) if isinstance(tasks, str) else tuple(map(str, tasks))
    if not names or len(set(names)) != len(names):
        raise SettingsError("data.options.tasks names no task, or one of them twice.")
    cleaned = clean and derivatives != "fmriprep"
    if derivatives == "afni-nosmooth" and not clean:
        raise SettingsError(
            'derivatives/afni-nosmooth has cleaned images only. Set data.options.clean = true, or derivatives = "fmriprep".'
        )
    if cleaned and reading.cleaning.get("confounds"):
        raise SettingsError(
            "The confounds of desc-clean images have been regressed out. Leave out recording.confound_columns, or set data.options.clean = false."
        )
    if not (path / "derivatives" / derivatives).is_dir():
        raise RecordingError(
            f"{path} has no folder derivatives/{derivatives}. OpenNeuro has raw images only; get the derivatives with: "
            "datalad install ///labs/hasson/narratives"
        )
    corpus_class = CleanedNarratives if cleaned else Narratives
    return corpus_class(
        path, reading, names, derivatives, kind, space or SPACES[kind], cleaned, exclude, condition, repeats
    )


@dataclass(frozen=True, eq=False)
class Narratives(CorpusOnDisk):
    """The corpus; a run is a story, named after its sound file.

    That is the name of the task, except for the three versions of milkyway (milkywayoriginal, milkywayvodka and
    milkywaysynonyms, one per subject). Words are timed from the beginning of the sound file, in which music
    precedes most stories; it began at the first event of the scan with this file. TRs are 1.5 s, but 1.52 s for 17
    scans of milkyway: volumes state their TR, and that of surfaces is read from the raw sidecar.

    Attributes
    ----------
    path, reading, tasks, derivatives, kind, space, clean, exclude, condition, repeats : see `corpus`
    """

    path: Path
    reading: Reading
    tasks: tuple[str, ...]
    derivatives: str
    kind: str
    space: str
    clean: bool = False
    exclude: bool = True
    condition: str = ""
    repeats: bool = False

    @staticmethod
    def citation() -> str:
        """Return what to cite."""
        return (
            'Nastase, S. A., Liu, Y.-F., Hillman, H., et al. (2021). The "Narratives" fMRI dataset for evaluating models of '
            "naturalistic language comprehension. Scientific Data, 8, 250. https://doi.org/10.1038/s41597-021-01033-3 "
            "(data: https://doi.org/10.18112/openneuro.ds002345.v1.1.4)"
        )

    @staticmethod
    def licence() -> str:
        """Return the licence of the data."""
        return "CC0, as dataset_description.json of ds002345 v1.1.4 says."

    @staticmethod
    def notes(task: str) -> str:
        """Return what is uncertain about a task; empty for most tasks."""
        if task not in _UNVERIFIED:
            return ""
        return (
            f"The only event of task '{task}' says that the story began at 12 s, but its sound file has a lead-in of {_UNVERIFIED[task]} s, "
            "and it has not been verified whether that was played: set recording.stimulus_onset if you know better."
        )

    def subjects(self) -> list[str]:
        """List the subjects with a scan of the tasks that is not left out."""
        subjects = [s for s, scans in self._scans.items() if self._included(scans) and self._has_condition(s)]
        for name in self.reading.subjects or ():
            if name in self._scans and name not in subjects:
                reason = (
                    f"are not of condition '{self.condition}'"
                    if self._included(self._scans[name])
                    else "were excluded by the authors"
                )
                raise RecordingError(
                    f"Subject '{name}' has scans of {', '.join(self.tasks)}, but they {reason}. Leave the subject out, or change data.options."
                )
        return select_subjects(self.reading.subjects, subjects, self.path / "derivatives" / self.derivatives)

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the runs of one subject: story → its file."""
        if subject not in self._files:
            self._files[subject] = self._find_files(subject)
        return self._files[subject]

    def story(self) -> Story:
        """Read the words of all stories that a subject of the study heard, in seconds since the sound file began."""
        return self._story_and_untimed[0]

    def remarks(self) -> list[str]:
        """List what is uncertain about the tasks, and the scans that are left out."""
        remarks = [note for note in map(self.notes, self.tasks) if note]
        for task in self.tasks:
            scans = self.excluded(task)
            if scans:
                remarks.append(f"Left out as the authors did: {', '.join(scans)}.")
        return remarks

    def untimed(self) -> pd.DataFrame:
        """List the words without times, with reasons: run, word, why. A model reads these words too."""
        return self._story_and_untimed[1]

    def excluded(self, task: str) -> list[str]:
        """List the scans of a task that are here but left out, e.g. ``"sub-021_task-pieman"``."""
        scans = [scan for scans in self._scans.values() for scan in scans if scan.task == task]
        return [scan.stem for scan in scans if scan.stem in self._excluded]

    def conditions(self, task: str) -> dict[str, str]:
        """Read the condition of each subject in a task from participants.tsv; "n/a" where there is none.

        Raises
        ------
        RecordingError : participants.tsv is absent or lacks a column
        """
        path = require_file(self.path / "participants.tsv", RecordingError, "table of participants")
        by_subject = {}
        for row in read_rows(path, ("participant_id", "task", "condition")):
            tasks, conditions = row["task"].split(","), row["condition"].split(",")
            if task in tasks and len(tasks) == len(conditions):
                by_subject[row["participant_id"].removeprefix("sub-")] = conditions[tasks.index(task)]
        return by_subject

    def _has_condition(self, subject: str) -> bool:
        return not self.condition or any(c.get(subject) == self.condition for c in self._conditions)

    @cached_property
    def _conditions(self) -> list[dict[str, str]]:
        by_task = [self.conditions(task) for task in self.tasks]
        available = sorted({c for by_subject in by_task for c in by_subject.values()} - {"n/a"})
        if self.condition not in available:
            raise SettingsError(
                f"data.options.condition is '{self.condition}', but those of {', '.join(self.tasks)} are: {', '.join(available) or 'none'}."
            )
        return by_task

    @cached_property
    def _scans(self) -> dict[str, list[Scan]]:
        """All scans of the tasks: subject → scans."""
        root = self.path / "derivatives" / self.derivatives
        desc = "clean" if self.clean else "sm6" if self.derivatives == "afni-smooth" else "preproc"
        if self.kind == "surface" and desc == "preproc":
            desc = ""
        return find_scans(root, self.tasks, self.kind, self.space, desc)

    @cached_property
    def _excluded(self) -> frozenset[str]:
        return read_excluded_scans(self.path / "code" / "scan_exclude.json") if self.exclude else frozenset()

    def _included(self, scans: Sequence[Scan]) -> list[Scan]:
        return [scan for scan in scans if scan.stem not in self._excluded]

    @cached_property
    def _files(self) -> dict[str, dict[str, RunFile]]:
        return {}

    def _find_files(self, subject: str) -> dict[str, RunFile]:
        if subject not in self._scans:
            raise RecordingError(
                f"Subject '{subject}' has no scan of {', '.join(self.tasks)} in {self.path / 'derivatives' / self.derivatives}."
            )
        files: dict[str, RunFile] = {}
        for run, (scan, sound) in self._scans_of(subject).items():
            self._check_lead(scan, sound)
            # AFNI wrote some surfaces with a TR of 1.5 s whatever it was, and others without one
            tr = read_tr(scan.raw(self.path, "bold.json")) if self.kind == "surface" else None
            files[run] = RunFile(
                scan.path,
                stimulus_onset=sound.onset,
                tr=tr,
                confounds=self._confounds(scan),
                mask=self._mask(scan),
            )
        return files

    def _scans_of(self, subject: str) -> dict[str, tuple[Scan, PlayedSound]]:
        """Name the included scans of a subject after their sounds: run → scan and sound."""
        runs: dict[str, tuple[Scan, PlayedSound]] = {}
        for scan in self._included(self._scans[subject]):
            sound = self._sound(scan)
            run = f"{sound.name}_run-{scan.number}" if self.repeats and scan.number else sound.name
            runs.setdefault(run, (scan, sound))
        return runs

    def _sound(self, scan: Scan) -> PlayedSound:
        path = scan.raw(self.path, "events.tsv")
        if self.reading.stimulus_onset is not None and not os.path.lexists(path):
            return PlayedSound(scan.task, 0.0, ())
        return read_events(path)

    @cached_property
    def _common_sounds(self) -> dict[str, PlayedSound]:
        """Each sound as most scans describe it: all subjects heard the same file."""
        counts: dict[str, Counter[PlayedSound]] = {}
        paths = [scan.raw(self.path, "events.tsv") for scans in self._scans.values() for scan in scans]
        for path in paths:
            if os.path.lexists(path):
                sound = read_events(path)
                counts.setdefault(sound.name, Counter())[sound] += 1
        return {name: counter.most_common(1)[0][0] for name, counter in counts.items()}

    def _check_lead(self, scan: Scan, sound: PlayedSound) -> None:
        """Refuse a scan whose events contradict the sound file that all subjects heard."""
        common = self._common_sounds.get(sound.name, sound)
        if sound.music != common.music and self.reading.stimulus_onset is None:
            raise RecordingError(
                f"{scan.stem}_events.tsv says that the story begins {sound.lead:g} s into {sound.name}_audio.wav, but most scans say {common.lead:g} s: "
                f"the onset of the sound is not known. Leave subject '{scan.subject}' out, or set recording.stimulus_onset."
            )

    def _confounds(self, scan: Scan) -> Path | None:
        if not self.reading.cleaning.get("confounds"):
            return None
        folder = self.path / "derivatives" / "fmriprep" / f"sub-{scan.subject}" / "func"
        names = [folder / f"{scan.stem}_desc-confounds_{word}.tsv" for word in ("regressors", "timeseries")]
        return next((p for p in names if os.path.lexists(p)), names[0])

    def _mask(self, scan: Scan) -> Path | None:
        if not isinstance(scan.path, Path):
            return None
        root = self.path / "derivatives"
        if self.derivatives == "fmriprep":
            name = scan.path.name.replace("_desc-preproc_bold", "_desc-brain_mask")
            candidates = [scan.path.with_name(name)]
        else:
            name = f"tpl-{self.space}_res-{scan.task}_desc-brain_mask.nii.gz"
            folders = (self.derivatives, *DERIVATIVES[1:])
            candidates = [root / folder / f"tpl-{self.space}" / name for folder in folders]
        return next((p for p in candidates if os.path.lexists(p)), None)

    @cached_property
    def _story_and_untimed(self) -> tuple[Story, pd.DataFrame]:
        sounds: dict[str, str] = {}
        for subject in self.subjects():
            sounds |= {run: sound.name for run, (_, sound) in self._scans_of(subject).items()}
        sounds = {run: sounds[run] for run in sorted(sounds, key=natural_key)}
        folders = {run: self.path / "stimuli" / "gentle" / name for run, name in sounds.items()}
        common = self._common_sounds
        music = {run: common[name].music for run, name in sounds.items() if name in common}
        return read_gentle_story(folders, music, "ds002345", self.reading.sentences)


@dataclass(frozen=True, eq=False)
class CleanedNarratives(Narratives):
    """The corpus with images from which the authors regressed out motion, drifts and aCompCor."""

    default_cleaning: ClassVar[Cleaning] = Cleaning(detrend=False, high_pass=None, standardise=True)
