"""A corpus described by a study file: patterns of paths, and what happened when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.files import expand, natural
from langcortex.recording import Cleaning, Recording, Space, n_scans, read_recording, volume_space
from langcortex.story import Story, read_story

RunFile = Path | tuple[Path, Path]


@dataclass(frozen=True, eq=False)
class FilesCorpus:
    """A corpus of files found by patterns.

    Attributes
    ----------
    base : the folder relative patterns start from
    story_files : a pattern with ``{run}``, one file, or run → file
    recording_files : a pattern with ``{subject}`` and ``{run}`` (and ``{hemi}`` for surfaces)
    subjects_wanted : names, or None for all that the pattern finds
    run_labels : story run → what ``{run}`` is in the recordings' file names, where they differ
    sentences, tier, accept_truncated : see `langcortex.story.read_story`
    tr, reference, columns, cleaning : see `langcortex.recording.read_recording`
    stimulus_onset : seconds from the first stored scan to the beginning of the story; one number, or run → number
    mask : a mask image; None computes one over all runs of all subjects; "all" takes every voxel
    confounds : a pattern like `recording_files`
    regions : name → mask image or column names
    """

    base: Path
    story_files: str | Mapping[str, str]
    recording_files: str
    subjects_wanted: Sequence[str] | None = None
    run_labels: Mapping[str, str] = field(default_factory=dict)
    sentences: str = "auto"
    tier: int | str = 0
    accept_truncated: bool = False
    tr: float | None = None
    stimulus_onset: float | Mapping[str, float] = 0.0
    reference: float = 0.5
    columns: Sequence[str] | None = None
    cleaning: Cleaning = field(default_factory=Cleaning)
    mask: Path | str | None = None
    confounds: str | None = None
    regions: Mapping[str, Path | Sequence[str]] = field(default_factory=dict)

    def subjects(self) -> list[str]:
        """List the subjects whose recordings the pattern finds, or those that were asked for."""
        if self.subjects_wanted is not None:
            return list(self.subjects_wanted)
        if "{subject}" not in self.recording_files:
            return ["01"]
        pattern = self.recording_files.replace("{hemi}", "L").replace("{run}", "*")
        found = expand(pattern.replace("{subject}", "{run}"), self.base, several=True)
        if not found:
            raise RecordingError(
                f"No recording matches {self._shown(self.recording_files)}. Check recording.files and data.path."
            )
        return list(found)

    def story(self) -> Story:
        """Read the story."""
        if isinstance(self.story_files, str):
            files = self._found(self.story_files)
            if not files:
                raise StoryError(
                    f"No story file matches {self._shown(self.story_files)}. Check story.files and data.path."
                )
        else:
            files = {run: self._path(name) for run, name in self.story_files.items()}
        return read_story(
            files, sentences=self.sentences, tier=self.tier, accept_truncated=self.accept_truncated
        )

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the recordings of one subject: story run → file, or the files of both hemispheres."""
        halves = [
            self._runs(subject, hemi) for hemi in (("L", "R") if "{hemi}" in self.recording_files else ("",))
        ]
        if not halves[0]:
            shown = self._shown(self.recording_files.replace("{subject}", subject))
            raise RecordingError(
                f"Subject '{subject}' has no recording that matches {shown}. Check recording.files, recording.runs and data.path."
            )
        if len(halves) == 1:
            return dict(halves[0])
        if halves[0].keys() != halves[1].keys():
            lone = sorted(halves[0].keys() ^ halves[1].keys(), key=natural)[0]
            raise RecordingError(f"Run '{lone}' of subject '{subject}' has one hemisphere only.")
        return {run: (path, halves[1][run]) for run, path in halves[0].items()}

    def inventory(self, subject: str) -> dict[str, tuple[int, float | None, float]]:
        """Read headers only: story run → (scans, TR in seconds, when the story began after the first scan)."""
        out = {}
        for run, path in self.files(subject).items():
            scans, tr = n_scans(path, self.columns)
            out[run] = (scans, self.tr or tr, self._began(run))
        return out

    def recordings(self, subject: str) -> list[Recording]:
        """Read and clean the runs of one subject, one after the other."""
        tables = self._runs_of(self.confounds, subject, "") if self.confounds else {}
        out = []
        for run, path in self.files(subject).items():
            if self.confounds and run not in tables:
                raise RecordingError(
                    f"Run '{run}' of subject '{subject}' has no confound table that matches {self._shown(self.confounds)}."
                )
            recording = read_recording(
                path,
                run,
                subject,
                space=self._space_of(path),
                tr=self.tr,
                stimulus_onset=self._began(run),
                reference=self.reference,
                cleaning=self.cleaning,
                confounds=tables.get(run),
                columns=self.columns,
            )
            out.append(recording)
        space = out[0].space if self.images else out[0].space.with_regions(self.regions)
        return [Recording(r.values, r.onset, r.tr, r.run, r.subject, space, r.reference) for r in out]

    def _space_of(self, path: RunFile) -> Space | None:
        return (
            self.volume if not isinstance(path, tuple) and path.name.endswith((".nii", ".nii.gz")) else None
        )

    @cached_property
    def images(self) -> list[Path]:
        """The NIfTI images of every run of every subject."""
        everything = [path for subject in self.subjects() for path in self.files(subject).values()]
        return [p for p in everything if isinstance(p, Path) and p.name.endswith((".nii", ".nii.gz"))]

    @cached_property
    def volume(self) -> Space:
        """The voxels of every run."""
        mask = self._path(str(self.mask)) if self.mask is not None and self.mask != "all" else None
        return volume_space(mask, self.images, every_voxel=self.mask == "all").with_regions(self.regions)

    def _began(self, run: str) -> float:
        if isinstance(self.stimulus_onset, Mapping):
            if run not in self.stimulus_onset:
                raise SettingsError(f"recording.stimulus_onset has no number for run '{run}'.")
            return float(self.stimulus_onset[run])
        return float(self.stimulus_onset)

    def _runs(self, subject: str, hemi: str) -> dict[str, Path]:
        return self._runs_of(self.recording_files, subject, hemi)

    def _runs_of(self, pattern: str, subject: str, hemi: str) -> dict[str, Path]:
        pattern = pattern.replace("{subject}", subject).replace("{hemi}", hemi)
        if "{run}" not in pattern and isinstance(self.story_files, str) and "{run}" not in self.story_files:
            # one story, one recording: they share the story file's name
            names = self._found(self.story_files)
            path = self._path(pattern)
            return {next(iter(names), "run"): path} if path.exists() or path.is_symlink() else {}
        found = expand(pattern, self.base, RecordingError)
        if not self.run_labels:
            return found
        missing = [f"{run} ({label})" for run, label in self.run_labels.items() if label not in found]
        if missing:
            raise RecordingError(
                f"Subject '{subject}': recording.runs names run {missing[0]}, but the runs found are: {', '.join(found) or 'none'}."
            )
        return {run: found[label] for run, label in self.run_labels.items()}

    def _found(self, pattern: str) -> dict[str, Path]:
        if re.search(r"\{run\}|\*", pattern):
            return expand(pattern, self.base, StoryError)
        path = self._path(pattern)
        return {path.name.split(".")[0]: path}

    def _path(self, name: str) -> Path:
        path = Path(name).expanduser()
        return path if path.is_absolute() else self.base / path

    def _shown(self, pattern: str) -> str:
        return str(self._path(pattern))
