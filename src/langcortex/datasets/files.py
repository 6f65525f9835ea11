"""A corpus that a study file describes by patterns of paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile
from langcortex.errors import RecordingError, StoryError
from langcortex.paths import expand_pattern
from langcortex.stimulus.story import Story, read_story
from langcortex.stimulus.textgrid import TruncatedTextGrid


@dataclass(frozen=True, eq=False)
class FilesCorpus(CorpusOnDisk):
    """A corpus of files found by patterns.

    Attributes
    ----------
    base : the folder that relative patterns start from
    story_files : a pattern with ``{run}``, one file, or run → file
    recording_files : a pattern with ``{subject}`` and ``{run}`` (and ``{hemi}`` for surfaces)
    run_labels : run of the story → ``{run}`` in the names of the recordings, where they differ
    tier, accept_truncated : see `langcortex.stimulus.story.read_story`
    confounds : a pattern like `recording_files`
    reading : the subjects, and how recordings are read
    """

    base: Path
    story_files: str | Mapping[str, str]
    recording_files: str
    run_labels: Mapping[str, str] = field(default_factory=dict)
    tier: int | str | None = None
    accept_truncated: bool = False
    confounds: str | None = None
    reading: Reading = field(default_factory=Reading)

    def subjects(self) -> list[str]:
        """List the subjects that the study names, or those whose recordings match the pattern."""
        if self.reading.subjects is not None:
            return list(self.reading.subjects)
        if "{subject}" not in self.recording_files:
            return ["01"]
        pattern = self.recording_files.replace("{hemi}", "L").replace("{run}", "*")
        matches = expand_pattern(pattern.replace("{subject}", "{run}"), self.base, allow_duplicates=True)
        if not matches:
            raise RecordingError(
                f"No recording matches {self._resolve(self.recording_files)}. Check recording.files and data.path."
            )
        return list(matches)

    def story(self) -> Story:
        """Read the story."""
        if isinstance(self.story_files, str):
            files = self._match_stories(self.story_files)
            if not files:
                raise StoryError(
                    f"No story file matches {self._resolve(self.story_files)}. Check story.files and data.path."
                )
        else:
            files = {run: self._resolve(name) for run, name in self.story_files.items()}
        try:
            return read_story(
                files,
                sentences=self.reading.sentences,
                tier=self.tier,
                accept_truncated=self.accept_truncated,
                pauses=self.reading.pauses,
                language=self.reading.language,
            )
        except TruncatedTextGrid as error:
            advice = "Or accept what there is with story.accept_truncated = true."
            raise StoryError(f"{error} {advice}") from error

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the recordings of one subject: run of the story → file, or the files of both hemispheres."""
        paths = self._match_recordings(subject)
        tables = self._match_runs(self.confounds, subject, "") if self.confounds else {}
        files = {}
        for run, path in paths.items():
            if self.confounds and run not in tables:
                raise RecordingError(
                    f"Run '{run}' of subject '{subject}' has no confound table that matches {self._resolve(self.confounds)}."
                )
            files[run] = RunFile(path, confounds=tables.get(run))
        return files

    def _match_recordings(self, subject: str) -> dict[str, Path | tuple[Path, Path]]:
        """Match the images of one subject: run → file, or the files of both hemispheres."""
        if "{hemi}" not in self.recording_files:
            volumes = self._match_runs(self.recording_files, subject, "")
            self._check_matches(volumes, subject)
            lone = next((path for path in volumes.values() if path.name.endswith(".gii")), None)
            if lone is not None:
                raise RecordingError(
                    f"{lone} is a surface of one hemisphere; both are read together. Write {{hemi}} in recording.files where the "
                    "names have L and R."
                )
            return dict(volumes)
        left, right = (self._match_runs(self.recording_files, subject, hemi) for hemi in "LR")
        self._check_matches(left, subject)
        if left.keys() != right.keys():
            run = sorted(left.keys() ^ right.keys())[0]
            raise RecordingError(f"Run '{run}' of subject '{subject}' has one hemisphere only.")
        return {run: (path, right[run]) for run, path in left.items()}

    def _check_matches(self, matches: Mapping[str, Path], subject: str) -> None:
        if not matches:
            pattern = self._resolve(self.recording_files.replace("{subject}", subject))
            raise RecordingError(
                f"Subject '{subject}' has no recording that matches {pattern}. Check recording.files, recording.runs and data.path."
            )

    def _match_runs(self, pattern: str, subject: str, hemi: str) -> dict[str, Path]:
        """Match the files of one subject: run of the story → file."""
        pattern = pattern.replace("{subject}", subject).replace("{hemi}", hemi)
        if "{run}" not in pattern and isinstance(self.story_files, str) and "{run}" not in self.story_files:
            # one story and one recording: the run has the name of the story file
            names = self._match_stories(self.story_files)
            path = self._resolve(pattern)
            return {next(iter(names), "run"): path} if path.exists() or path.is_symlink() else {}
        matches = expand_pattern(pattern, self.base, RecordingError)
        if not self.run_labels:
            return matches
        missing = [f"{run} ({label})" for run, label in self.run_labels.items() if label not in matches]
        if missing:
            raise RecordingError(
                f"Subject '{subject}': recording.runs names run {missing[0]}, but the runs found are: {', '.join(matches) or 'none'}."
            )
        return {run: matches[label] for run, label in self.run_labels.items()}

    def _match_stories(self, pattern: str) -> dict[str, Path]:
        if re.search(r"\{run\}|\*", pattern):
            return expand_pattern(pattern, self.base, StoryError)
        path = self._resolve(pattern)
        return {path.name.split(".")[0]: path}

    def _resolve(self, name: str) -> Path:
        path = Path(name).expanduser()
        return path if path.is_absolute() else self.base / path
