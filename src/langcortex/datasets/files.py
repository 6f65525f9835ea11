"""A corpus described by a study file: patterns of paths, and what happened when."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile
from langcortex.errors import RecordingError, StoryError
from langcortex.paths import expand_pattern
from langcortex.stimulus.story import Story, read_story


@dataclass(frozen=True, eq=False)
class FilesCorpus(CorpusOnDisk):
    """A corpus of files found by patterns.

    Attributes
    ----------
    base : the folder relative patterns start from
    story_files : a pattern with ``{run}``, one file, or run → file
    recording_files : a pattern with ``{subject}`` and ``{run}`` (and ``{hemi}`` for surfaces)
    run_labels : story run → what ``{run}`` is in the recordings' file names, where they differ
    tier, accept_truncated : see `langcortex.stimulus.story.read_story`
    confounds : a pattern like `recording_files`
    reading : which subjects, and how recordings are read
    """

    base: Path
    story_files: str | Mapping[str, str]
    recording_files: str
    run_labels: Mapping[str, str] = field(default_factory=dict)
    tier: int | str = 0
    accept_truncated: bool = False
    confounds: str | None = None
    reading: Reading = field(default_factory=Reading)

    def subjects(self) -> list[str]:
        """List the subjects whose recordings the pattern finds, or those that were asked for."""
        if self.reading.subjects is not None:
            return list(self.reading.subjects)
        if "{subject}" not in self.recording_files:
            return ["01"]
        pattern = self.recording_files.replace("{hemi}", "L").replace("{run}", "*")
        found = expand_pattern(pattern.replace("{subject}", "{run}"), self.base, allow_duplicates=True)
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
            files,
            sentences=self.reading.sentences,
            tier=self.tier,
            accept_truncated=self.accept_truncated,
        )

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the recordings of one subject: story run → file, or the files of both hemispheres."""
        halves = [
            self._runs_of(self.recording_files, subject, hemi)
            for hemi in (("L", "R") if "{hemi}" in self.recording_files else ("",))
        ]
        if not halves[0]:
            shown = self._shown(self.recording_files.replace("{subject}", subject))
            raise RecordingError(
                f"Subject '{subject}' has no recording that matches {shown}. Check recording.files, recording.runs and data.path."
            )
        if len(halves) == 2 and halves[0].keys() != halves[1].keys():
            lone = sorted(halves[0].keys() ^ halves[1].keys())[0]
            raise RecordingError(f"Run '{lone}' of subject '{subject}' has one hemisphere only.")
        tables = self._runs_of(self.confounds, subject, "") if self.confounds else {}
        out = {}
        for run, path in halves[0].items():
            if self.confounds and run not in tables:
                raise RecordingError(
                    f"Run '{run}' of subject '{subject}' has no confound table that matches {self._shown(self.confounds)}."
                )
            whole = path if len(halves) == 1 else (path, halves[1][run])
            out[run] = RunFile(whole, confounds=tables.get(run))
        return out

    def _runs_of(self, pattern: str, subject: str, hemi: str) -> dict[str, Path]:
        pattern = pattern.replace("{subject}", subject).replace("{hemi}", hemi)
        if "{run}" not in pattern and isinstance(self.story_files, str) and "{run}" not in self.story_files:
            # one story, one recording: they share the story file's name
            names = self._found(self.story_files)
            path = self._path(pattern)
            return {next(iter(names), "run"): path} if path.exists() or path.is_symlink() else {}
        found = expand_pattern(pattern, self.base, RecordingError)
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
            return expand_pattern(pattern, self.base, StoryError)
        path = self._path(pattern)
        return {path.name.split(".")[0]: path}

    def _path(self, name: str) -> Path:
        path = Path(name).expanduser()
        return path if path.is_absolute() else self.base / path

    def _shown(self, pattern: str) -> str:
        return str(self._path(pattern))
