"""What lies in a Narratives tree: its scans, what was heard in each, and which the authors excluded."""

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

# code/scan_exclude.json of the authors: task → subject, or subject/run
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
        """What the names of its files begin with."""
        run = f"_run-{self.number}" if self.number else ""
        return f"sub-{self.subject}_task-{self.task}{run}"

    def raw(self, root: Path, ending: str) -> Path:
        """Where the raw data set has a file of this scan, e.g. "events.tsv"."""
        return root / f"sub-{self.subject}" / "func" / f"{self.stem}_{ending}"


@dataclass(frozen=True)
class PlayedScans:
    """What was heard in one scan.

    Attributes
    ----------
    sound : the sound file, e.g. "pieman"; the task's name but for the three versions of milkyway
    began : when it began, in seconds after the first scan
    music : (begin, end) in seconds since the sound began, from music to the story that follows it
    """

    sound: str
    began: float
    music: tuple[tuple[float, float], ...]

    @property
    def lead(self) -> float:
        """How long music is heard before the story, in seconds."""
        return self.music[0][1] if self.music else 0.0


def find_scans(root: Path, tasks: Sequence[str], kind: str, space: str, desc: str) -> dict[str, list[Scan]]:
    """Find the scans of some tasks in one folder of derivatives.

    Parameters
    ----------
    root : e.g. ``derivatives/fmriprep``
    kind : "volume" (``…_space-S[_res-R]_desc-D_bold.nii.gz``) or "surface" (``…_space-S_hemi-L[_desc-D].func.gii``)
    space : a template
    desc : what ``desc-`` says; empty where surfaces have none

    Returns
    -------
    subject → scans, by task and run

    Raises
    ------
    RecordingError : there is none, two files stand for one scan, or a hemisphere is missing
    """
    pattern = _pattern(kind, space, desc)
    found: dict[tuple[str, str, str], dict[str, Path]] = {}
    for name in sorted(e.name for e in os.scandir(root) if re.fullmatch(r"sub-[A-Za-z0-9]+", e.name)):
        folder = root / name / "func"
        for file in sorted(e.name for e in os.scandir(folder)) if folder.is_dir() else []:
            match = pattern.fullmatch(file)
            if match and match["task"] in tasks:
                scan = match["subject"], match["task"], match["run"] or ""
                hemi = match.groupdict().get("hemi", "")
                other = found.setdefault(scan, {}).setdefault(hemi, folder / file)
                if other != folder / file:
                    raise RecordingError(
                        f"Two files stand for one scan: {other} and {folder / file}. Remove one."
                    )
    if not found:
        raise RecordingError(
            f"No scan of {', '.join(tasks)} in {root} is a {kind} in space {space}. Check data.options (tasks, kind, space, clean)."
        )
    scans: dict[str, list[Scan]] = {}
    order = {task: i for i, task in enumerate(tasks)}
    for subject, task, run in sorted(
        found, key=lambda s: (natural_key(s[0]), order[s[1]], natural_key(s[2]))
    ):
        scans.setdefault(subject, []).append(Scan(subject, task, run, _whole(found[subject, task, run])))
    return scans


def _pattern(kind: str, space: str, desc: str) -> re.Pattern[str]:
    start = r"sub-(?P<subject>[A-Za-z0-9]+)_task-(?P<task>[A-Za-z0-9]+)(?:_run-(?P<run>\d+))?"
    start += f"_space-{re.escape(space)}"
    if kind == "volume":
        return re.compile(rf"{start}(?:_res-[A-Za-z0-9]+)?_desc-{desc}_bold\.nii(?:\.gz)?")
    return re.compile(rf"{start}_hemi-(?P<hemi>[LR]){f'_desc-{desc}' if desc else ''}\.func\.gii")


def excluded_scans(path: Path) -> frozenset[str]:
    """Read code/scan_exclude.json (task → subject → scans); where it is absent, give what it said in March 2025.

    Returns
    -------
    stems, e.g. ``"sub-013_task-pieman_run-2"``
    """
    if not os.path.lexists(path):
        return frozenset(stem for task, names in _EXCLUDED.items() for stem in _stems(task, names))
    require_file(path, RecordingError, "list of excluded scans")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(
            str(stem) for of_task in said.values() for stems in of_task.values() for stem in stems
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordingError(
            f"{path} cannot be read as task → subject → scans ({error}). Fetch it again."
        ) from error


def read_tr(path: Path) -> float | None:
    """Read the TR in seconds from a raw sidecar; None where there is no sidecar or it does not say."""
    if not os.path.lexists(path):
        return None
    require_file(path, RecordingError, "sidecar")
    try:
        said = json.loads(path.read_text(encoding="utf-8")).get("RepetitionTime")
        return None if said is None else float(said)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path} cannot be read as a sidecar ({error}). Fetch it again.") from error


def read_events(path: Path) -> PlayedScans:
    """Read what was heard in one scan from its raw events.tsv (onset, duration, trial_type, stim_file; seconds).

    Raises
    ------
    RecordingError : the file is absent or malformed, or no single sound file tells one story
    """
    require_file(path, RecordingError, "table of events")
    rows = read_rows(path, ("onset", "duration", "trial_type", "stim_file"))
    sounds = dict.fromkeys(row["stim_file"] for row in rows)
    stories = [row for row in rows if row["trial_type"] == "story"]
    if len(sounds) != 1 or "n/a" in sounds or not stories:
        shown = ", ".join(f"{row['trial_type']} {row['stim_file']}" for row in rows) or "nothing"
        raise RecordingError(
            f"{path} presents {shown}: a run is one story from one sound file here. Leave this task out of data.options.tasks."
        )
    times = [_seconds(row["onset"], path) for row in rows]
    began = min(times)
    starts = sorted(t for t, row in zip(times, rows, strict=True) if row["trial_type"] == "story")
    music = []
    for onset, row in zip(times, rows, strict=True):
        if row["trial_type"] == "music":
            end = next((s for s in starts if s > onset), onset + _seconds(row["duration"], path))
            music.append((onset - began, end - began))
    sound = next(iter(sounds)).split("/")[-1].removesuffix(".wav").removesuffix("_audio")
    return PlayedScans(sound, began, tuple(sorted(music)))


def read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Read a table of text, every row as long as its header."""
    try:
        header, *rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), "excel-tab")) or [
            []
        ]
    except (UnicodeError, csv.Error) as error:
        raise RecordingError(f"{path} cannot be read as a table ({error}). Fetch it again.") from error
    missing = [name for name in needed if name not in header]
    if missing:
        raise RecordingError(f"{path} has no column '{missing[0]}'. Its columns are: {', '.join(header)}.")
    odd = next((i for i, row in enumerate(rows) if row and len(row) != len(header)), None)
    if odd is not None:
        raise RecordingError(
            f"{path}, row {odd + 2}, has {len(rows[odd])} cells but the header {len(header)}. Fetch it again."
        )
    return [dict(zip(header, row, strict=True)) for row in rows if row]


def _seconds(cell: str, path: Path) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise RecordingError(f"{path}: '{cell}' is no time in seconds. Fetch it again.") from error


def _whole(halves: Mapping[str, Path]) -> Path | tuple[Path, Path]:
    if "" in halves:
        return halves[""]
    if len(halves) == 1:
        lone = next(iter(halves.values()))
        raise RecordingError(f"{lone} has no other hemisphere beside it. Fetch both.")
    return halves["L"], halves["R"]


def _stems(task: str, names: str) -> list[str]:
    pairs = [name.partition("/") for name in names.split()]
    return [f"sub-{s}_task-{task}" + (f"_run-{run}" if run else "") for s, _, run in pairs]


def _task(stem: str) -> str:
    return stem.split("_task-")[1].split("_")[0]
