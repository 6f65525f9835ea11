"""Narratives (Nastase et al. 2021, OpenNeuro ds002345): 345 people, 27 spoken stories, one or more stories each.

OpenNeuro holds raw images and sound only; preprocessed images and word timings come with the DataLad data set
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
from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_names
from langcortex.datasets.gentle import read_gentle_story
from langcortex.datasets.narratives.scans import (
    PlayedScans,
    Scan,
    excluded_scans,
    find_scans,
    read_events,
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
    path : the data set's folder, with ``sub-001`` …, ``derivatives`` and ``stimuli/gentle``
    reading : what a study asks of recordings
    tasks : one task or several, e.g. ``["pieman", "tunnel"]``; volumes of several tasks may lie on several grids
    derivatives : "fmriprep", "afni-smooth" (6 mm) or "afni-nosmooth"
    kind : "volume" or "surface"
    space : MNI152NLin2009cAsym for volumes and fsaverage6 for surfaces when empty
    clean : of the afni derivatives, take those whose confounds the authors regressed out (``desc-clean``)
    exclude : leave out the scans that the authors excluded
    condition : only subjects of this condition in participants.tsv, e.g. "original" (milkyway) or "affair"
    repeats : take a story that a subject heard twice (pieman) as two runs; a model that learns from one hearing
        and is tested on the other has seen the words, so that only the first hearing is taken otherwise

    Raises
    ------
    SettingsError : an option has no such value
    RecordingError : the folder is another
    """
    if derivatives not in DERIVATIVES or kind not in SPACES:
        raise SettingsError(
            f"data.options: derivatives is one of {', '.join(DERIVATIVES)}, not '{derivatives}'; kind is volume or surface, not '{kind}'."
        )
    for name, value in (("clean", clean), ("exclude", exclude), ("repeats", repeats)):
        if not isinstance(value, bool):
            raise SettingsError(f"data.options.{name} is true or false, not '{value}'.")
    listed = (tasks,) if isinstance(tasks, str) else tuple(map(str, tasks))
    if not listed or len(set(listed)) != len(listed):
        raise SettingsError("data.options.tasks names no task, or one of them twice.")
    cleaned = clean and derivatives != "fmriprep"
    if derivatives == "afni-nosmooth" and not clean:
        raise SettingsError(
            'derivatives/afni-nosmooth holds cleaned images only. Set data.options.clean = true, or derivatives = "fmriprep".'
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
    make = CleanedNarratives if cleaned else Narratives
    return make(
        path, reading, listed, derivatives, kind, space or SPACES[kind], cleaned, exclude, condition, repeats
    )


@dataclass(frozen=True, eq=False)
class Narratives(CorpusOnDisk):
    """The corpus; a run is a story, named after its sound file: that is the task's name, but for the three versions
    of milkyway (milkywayoriginal, milkywayvodka and milkywaysynonyms, one a subject).

    Words are timed from the beginning of the sound file, which holds music before most stories, and a scan's
    first event with that file says when it began. TRs are 1.5 s, of 17 scans of milkyway 1.52 s: images say so
    themselves, and surfaces are given the raw sidecar's.

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
        """Say what to cite."""
        return (
            'Nastase, S. A., Liu, Y.-F., Hillman, H., et al. (2021). The "Narratives" fMRI dataset for evaluating models of '
            "naturalistic language comprehension. Scientific Data, 8, 250. https://doi.org/10.1038/s41597-021-01033-3 "
            "(data: https://doi.org/10.18112/openneuro.ds002345.v1.1.4)"
        )

    @staticmethod
    def licence() -> str:
        """Say under which terms the data are published."""
        return "CC0, as dataset_description.json of ds002345 v1.1.4 says."

    @staticmethod
    def notes(task: str) -> str:
        """Say what is not certain about a task; empty where nothing is known."""
        if task not in _UNVERIFIED:
            return ""
        return (
            f"The only event of task '{task}' says that the story began at 12 s, but its sound file has a lead-in of {_UNVERIFIED[task]} s, "
            "and nobody has verified whether it was played: set recording.stimulus_onset if you know better."
        )

    def subjects(self) -> list[str]:
        """List the subjects with a scan of the tasks that is not left out."""
        kept = [s for s, scans in self._scans.items() if self._kept(scans) and self._of_condition(s)]
        for name in self.reading.subjects or ():
            if name in self._scans and name not in kept:
                why = (
                    f"are not of condition '{self.condition}'"
                    if self._kept(self._scans[name])
                    else "were excluded by the authors"
                )
                raise RecordingError(
                    f"Subject '{name}' has scans of {', '.join(self.tasks)}, but they {why}. Leave the subject out, or change data.options."
                )
        return select_names(self.reading.subjects, kept, self.path / "derivatives" / self.derivatives)

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the runs of one subject: story → its file."""
        if subject not in self._files:
            self._files[subject] = self._find(subject)
        return self._files[subject]

    def story(self) -> Story:
        """Read the words of every story that a subject of the study heard, in seconds since its sound file began."""
        return self._told[0]

    def remarks(self) -> list[str]:
        """Say what is uncertain about the tasks, and which scans are left out."""
        out = [note for note in map(self.notes, self.tasks) if note]
        for task in self.tasks:
            left = self.excluded(task)
            if left:
                out.append(f"Left out as the authors did: {', '.join(left)}.")
        return out

    def untimed(self) -> pd.DataFrame:
        """List the words that have no time, and why: run, word, why. A model reads them all the same."""
        return self._told[1]

    def excluded(self, task: str) -> list[str]:
        """List the scans of a task that are there but left out, e.g. ``"sub-021_task-pieman"``."""
        every = [scan for scans in self._scans.values() for scan in scans if scan.task == task]
        return [scan.stem for scan in every if scan.stem in self._excluded]

    def conditions(self, task: str) -> dict[str, str]:
        """Read the condition of each subject in a task from participants.tsv; "n/a" where there is none.

        Raises
        ------
        RecordingError : participants.tsv is absent or lacks a column
        """
        path = require_file(self.path / "participants.tsv", RecordingError, "table of participants")
        out = {}
        for row in read_rows(path, ("participant_id", "task", "condition")):
            tasks, of_each = row["task"].split(","), row["condition"].split(",")
            if task in tasks and len(tasks) == len(of_each):
                out[row["participant_id"].removeprefix("sub-")] = of_each[tasks.index(task)]
        return out

    def _of_condition(self, subject: str) -> bool:
        return not self.condition or any(c.get(subject) == self.condition for c in self._conditions)

    @cached_property
    def _conditions(self) -> list[dict[str, str]]:
        of_each = [self.conditions(task) for task in self.tasks]
        known = sorted({c for one in of_each for c in one.values()} - {"n/a"})
        if self.condition not in known:
            raise SettingsError(
                f"data.options.condition is '{self.condition}', but those of {', '.join(self.tasks)} are: {', '.join(known) or 'none'}."
            )
        return of_each

    @cached_property
    def _scans(self) -> dict[str, list[Scan]]:
        """Every scan of the tasks, by subject."""
        root = self.path / "derivatives" / self.derivatives
        desc = "clean" if self.clean else "sm6" if self.derivatives == "afni-smooth" else "preproc"
        if self.kind == "surface" and desc == "preproc":
            desc = ""
        return find_scans(root, self.tasks, self.kind, self.space, desc)

    @cached_property
    def _excluded(self) -> frozenset[str]:
        return excluded_scans(self.path / "code" / "scan_exclude.json") if self.exclude else frozenset()

    def _kept(self, scans: Sequence[Scan]) -> list[Scan]:
        return [scan for scan in scans if scan.stem not in self._excluded]

    @cached_property
    def _files(self) -> dict[str, dict[str, RunFile]]:
        return {}

    def _find(self, subject: str) -> dict[str, RunFile]:
        if subject not in self._scans:
            raise RecordingError(
                f"Subject '{subject}' has no scan of {', '.join(self.tasks)} in {self.path / 'derivatives' / self.derivatives}."
            )
        out: dict[str, RunFile] = {}
        for run, (scan, heard) in self._runs_of(subject).items():
            self._hold_lead(scan, heard)
            # AFNI wrote some surfaces with a TR of 1.5 s whatever it was, and others without one
            tr = read_tr(scan.raw(self.path, "bold.json")) if self.kind == "surface" else None
            out[run] = RunFile(
                scan.path,
                stimulus_onset=heard.began,
                tr=tr,
                confounds=self._confounds(scan),
                mask=self._mask(scan),
            )
        return out

    def _runs_of(self, subject: str) -> dict[str, tuple[Scan, PlayedScans]]:
        """Name the kept scans of a subject after what was heard."""
        out: dict[str, tuple[Scan, PlayedScans]] = {}
        for scan in self._kept(self._scans[subject]):
            heard = self._heard(scan)
            run = f"{heard.sound}_run-{scan.number}" if self.repeats and scan.number else heard.sound
            out.setdefault(run, (scan, heard))
        return out

    def _heard(self, scan: Scan) -> PlayedScans:
        path = scan.raw(self.path, "events.tsv")
        if self.reading.stimulus_onset is not None and not os.path.lexists(path):
            return PlayedScans(scan.task, 0.0, ())
        return read_events(path)

    @cached_property
    def _usual(self) -> dict[str, PlayedScans]:
        """What most scans say of each sound: it was the same for everyone."""
        seen: dict[str, Counter[PlayedScans]] = {}
        paths = [scan.raw(self.path, "events.tsv") for scans in self._scans.values() for scan in scans]
        for path in paths:
            if os.path.lexists(path):
                heard = read_events(path)
                seen.setdefault(heard.sound, Counter())[heard] += 1
        return {sound: counts.most_common(1)[0][0] for sound, counts in seen.items()}

    def _hold_lead(self, scan: Scan, heard: PlayedScans) -> None:
        """Refuse a scan whose events contradict the sound file that everyone heard."""
        usual = self._usual.get(heard.sound, heard)
        if heard.music != usual.music and self.reading.stimulus_onset is None:
            raise RecordingError(
                f"{scan.stem}_events.tsv says that the story begins {heard.lead:g} s into {heard.sound}_audio.wav, but most scans say {usual.lead:g} s: "
                f"when the sound began is not known. Leave subject '{scan.subject}' out, or give recording.stimulus_onset."
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
            own = scan.path.name.replace("_desc-preproc_bold", "_desc-brain_mask")
            places = [scan.path.with_name(own)]
        else:
            name = f"tpl-{self.space}_res-{scan.task}_desc-brain_mask.nii.gz"
            places = [root / of / f"tpl-{self.space}" / name for of in (self.derivatives, *DERIVATIVES[1:])]
        return next((p for p in places if os.path.lexists(p)), None)

    @cached_property
    def _told(self) -> tuple[Story, pd.DataFrame]:
        runs: dict[str, str] = {}
        for subject in self.subjects():
            runs |= {run: heard.sound for run, (_, heard) in self._runs_of(subject).items()}
        runs = {run: runs[run] for run in sorted(runs, key=natural_key)}
        folders = {run: self.path / "stimuli" / "gentle" / sound for run, sound in runs.items()}
        music = {run: self._usual[sound].music for run, sound in runs.items() if sound in self._usual}
        return read_gentle_story(folders, music, "ds002345", self.reading.sentences)


@dataclass(frozen=True, eq=False)
class CleanedNarratives(Narratives):
    """The corpus with images from which the authors regressed motion, drifts and aCompCor: nothing is removed twice."""

    usual: ClassVar[Cleaning] = Cleaning(detrend=False, high_pass=None, standardise=True)
