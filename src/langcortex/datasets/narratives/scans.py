"""The scans of Narratives: their files, the sound played in each, and those that the authors excluded."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langcortex.errors import RecordingError
from langcortex.paths import natural_key, require_file

LONGEST = 36000.0  # seconds; no scan lasts ten hours

# code/scan_exclude.json of the authors: task → subjects, or subject/run
_EXCLUDED = {
    "lucy": "053 065",
    "merlin": "158",
    "milkyway": "038 105 123",
    "notthefallintact": "317 335",
    "notthefalllongscram": "066 335",
    "notthefallshortscram": "333",
    "pieman": "001/1 001/2 013/2 014/2 021 022 038 056 068 069",
    "prettymouth": "038 105",
    "shapessocial": "238",
    "slumlordreach": "139",
    "tunnel": "004 013",
}


@dataclass(frozen=True)
class Scan:
    """One scan of one subject.

    Attributes
    ----------
    subject, task : labels, e.g. "001" and "pieman"
    number : of the run, empty where the task was scanned once
    path : the image, or the files of the left and right hemisphere
    """

    subject: str
    task: str
    number: str
    path: Path | tuple[Path, Path]

    @property
    def stem(self) -> str:
        """The beginning of the names of its files."""
        run = f"_run-{self.number}" if self.number else ""
        return f"sub-{self.subject}_task-{self.task}{run}"

    def raw(self, root: Path, ending: str) -> Path:
        """Return the path of a file of this scan in the raw dataset, e.g. "events.tsv"."""
        return root / f"sub-{self.subject}" / "func" / f"{self.stem}_{ending}"


@dataclass(frozen=True)
class PlayedSound:
    """The sound that was played in one scan.

    Attributes
    ----------
    name : the sound file, e.g. "pieman"; the name of the task except for the three versions of milkyway
    onset : when it began, in seconds after the first scan
    music : (begin, end) in seconds since the sound began, from music to the story that follows it
    """

    name: str
    onset: float
    music: tuple[tuple[float, float], ...]

    @property
    def lead(self) -> float:
        """The duration of the music before the story, in seconds."""
        return self.music[0][1] if self.music else 0.0


def find_scans(root: Path, tasks: Sequence[str], kind: str, space: str, desc: str) -> dict[str, list[Scan]]:
    """Find the scans of tasks in one folder of derivatives.

    Parameters
    ----------
    root : e.g. ``derivatives/fmriprep``
    kind : "volume" (``…_space-S[_res-R]_desc-D_bold.nii.gz``) or "surface" (``…_space-S_hemi-L[_desc-D].func.gii``)
    space : the template
    desc : the value of ``desc-``; empty for surfaces without one

    Returns
    -------
    subject → scans, by task and run

    Raises
    ------
    RecordingError : there is no scan, two files are one scan, or a hemisphere is missing
    """
    pattern = _name_pattern(kind, space, desc)
    files: dict[tuple[str, str, str], dict[str, Path]] = {}
    for name in sorted(e.name for e in os.scandir(root) if re.fullmatch(r"sub-[A-Za-z0-9]+", e.name)):
        folder = root / name / "func"
        for file in sorted(e.name for e in os.scandir(folder)) if folder.is_dir() else []:
            match = pattern.fullmatch(file)
            if match and match["task"] in tasks:
                scan = match["subject"], match["task"], match["run"] or ""
                hemi = match.groupdict().get("hemi", "")
                first = files.setdefault(scan, {}).setdefault(hemi, folder / file)
                if first != folder / file:
                    raise RecordingError(
                        f"Two files are the same scan: {first} and {folder / file}. Remove one."
                    )
    if not files:
        raise RecordingError(
            f"No scan of {', '.join(tasks)} in {root} is a {kind} in space {space}. Check data.options (tasks, kind, space, clean)."
        )
    scans: dict[str, list[Scan]] = {}
    order = {task: i for i, task in enumerate(tasks)}
    for subject, task, run in sorted(
        files, key=lambda s: (natural_key(s[0]), order[s[1]], natural_key(s[2]))
    ):
        path = _volume_or_surface(files[subject, task, run])
        scans.setdefault(subject, []).append(Scan(subject, task, run, path))
    return scans


def _name_pattern(kind: str, space: str, desc: str) -> re.Pattern[str]:
    start = r"sub-(?P<subject>[A-Za-z0-9]+)_task-(?P<task>[A-Za-z0-9]+)(?:_run-(?P<run>\d+))?"
    start += f"_space-{re.escape(space)}"
    if kind == "volume":
        return re.compile(rf"{start}(?:_res-[A-Za-z0-9]+)?_desc-{desc}_bold\.nii(?:\.gz)?")
    return re.compile(rf"{start}_hemi-(?P<hemi>[LR]){f'_desc-{desc}' if desc else ''}\.func\.gii")


def read_excluded_scans(path: Path) -> frozenset[str]:
    """Read code/scan_exclude.json (task → subject → scans); if it is absent, return its content of March 2025.

    Returns
    -------
    stems, e.g. ``"sub-013_task-pieman_run-2"``
    """
    if not os.path.lexists(path):
        return frozenset(stem for task, names in _EXCLUDED.items() for stem in _stems(task, names))
    require_file(path, RecordingError, "list of excluded scans")
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
        return frozenset(
            str(stem) for subjects in tasks.values() for stems in subjects.values() for stem in stems
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordingError(
            f"{path} cannot be read as task → subject → scans ({error}). Fetch it again."
        ) from error


def read_tr(path: Path) -> float | None:
    """Read the TR in seconds from a raw sidecar; None where there is no sidecar or it states none."""
    if not os.path.lexists(path):
        return None
    require_file(path, RecordingError, "sidecar")
    try:
        tr = json.loads(path.read_text(encoding="utf-8")).get("RepetitionTime")
        return None if tr is None else float(tr)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path} cannot be read as a sidecar ({error}). Fetch it again.") from error


def read_events(path: Path) -> PlayedSound:
    """Read the sound of one scan from its raw events.tsv (onset, duration, trial_type, stim_file; seconds).

    Raises
    ------
    RecordingError : the file is absent or malformed, or has not exactly one sound file with a story
    """
    require_file(path, RecordingError, "table of events")
    rows = read_rows(path, ("onset", "duration", "trial_type", "stim_file"))
    sounds = dict.fromkeys(row["stim_file"] for row in rows)
    stories = [row for row in rows if row["trial_type"] == "story"]
    if len(sounds) != 1 or "n/a" in sounds or not stories:
        events = ", ".join(f"{row['trial_type']} {row['stim_file']}" for row in rows) or "nothing"
        raise RecordingError(
            f"{path} presents {events}, but a run must be one story from one sound file. Leave this task out of data.options.tasks."
        )
    times = [_parse_seconds(row["onset"], path) for row in rows]
    first = min(times)
    story_onsets = sorted(t for t, row in zip(times, rows, strict=True) if row["trial_type"] == "story")
    music = []
    for onset, row in zip(times, rows, strict=True):
        if row["trial_type"] == "music":
            end = next((s for s in story_onsets if s > onset), onset + _parse_seconds(row["duration"], path))
            music.append((onset - first, end - first))
    name = next(iter(sounds)).split("/")[-1].removesuffix(".wav").removesuffix("_audio")
    return PlayedSound(name, first, tuple(sorted(music)))


def read_rows(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Read a table as text, with rows as long as the header."""
    try:
        header, *rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), "excel-tab")) or [
            []
        ]
    except (UnicodeError, csv.Error) as error:
        raise RecordingError(f"{path} cannot be read as a table ({error}). Fetch it again.") from error
    missing = [name for name in required if name not in header]
    if missing:
        raise RecordingError(f"{path} has no column '{missing[0]}'. Its columns are: {', '.join(header)}.")
    ragged = next((i for i, row in enumerate(rows) if row and len(row) != len(header)), None)
    if ragged is not None:
        raise RecordingError(
            f"{path}, row {ragged + 2}, has {len(rows[ragged])} cells but the header {len(header)}. Fetch it again."
        )
    return [dict(zip(header, row, strict=True)) for row in rows if row]


def _parse_seconds(cell: str, path: Path) -> float:
    try:
        seconds = float(cell)
    except ValueError as error:
        raise RecordingError(f"{path}: '{cell[:40]}' is no time in seconds. Fetch it again.") from error
    if not 0 <= seconds <= LONGEST:
        raise RecordingError(f"{path}: {seconds:g} s is no time within a scan. Fetch it again.")
    return seconds


def _volume_or_surface(files: Mapping[str, Path]) -> Path | tuple[Path, Path]:
    if "" in files:
        return files[""]
    if len(files) == 1:
        path = next(iter(files.values()))
        raise RecordingError(f"{path} has no other hemisphere beside it. Fetch both.")
    return files["L"], files["R"]


def _stems(task: str, names: str) -> list[str]:
    pairs = [name.partition("/") for name in names.split()]
    return [f"sub-{s}_task-{task}" + (f"_run-{run}" if run else "") for s, _, run in pairs]
