"""The clock of a recording: the TR that a sidecar or a header states, and the moment slice timing was corrected to.

Sidecars are inherited as in BIDS ("The Inheritance Principle"): a .json file of any folder above an image, up to the
dataset's root, applies to it if its suffix is the same and its entities are among the image's; the nearest one wins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.brain.space import load_image
from langcortex.brain.surfaces import load_gifti
from langcortex.errors import RecordingError

TR_RANGE = (0.1, 20.0)  # seconds; what a scanner takes for an image of a head
TR_AGREEMENT = 0.01  # share by which a sidecar and a header may differ
MAX_LEVELS = 6  # folders above an image in which sidecars are looked for
SIDECAR_BYTES = 2**24
TIME_UNITS = {"msec": 1e-3, "usec": 1e-6}
UNITS = (("milliseconds", 1e-3), ("microseconds", 1e-6), ("seconds divided by 1000", 1e3))
EXTENSIONS = (".nii.gz", ".nii", ".func.gii", ".shape.gii", ".gii", ".tsv", ".csv", ".npy", ".txt", ".mgz")


@dataclass(frozen=True)
class Clock:
    """The timing that a file states, in seconds; None where it states nothing.

    Attributes
    ----------
    tr : repetition time
    start : the moment within a scan that slice timing was corrected to (BIDS ``StartTime``)
    remarks : sentences for the reader, where sidecar and header contradict each other
    """

    tr: float | None = None
    start: float | None = None
    remarks: tuple[str, ...] = ()


def check_tr(tr: float, source: str) -> float:
    """Refuse a TR that no scanner has, with its likely reading.

    Parameters
    ----------
    tr : seconds
    source : where it stands, for the message

    >>> check_tr(2.0, "recording.tr")
    2.0
    """
    if TR_RANGE[0] <= tr <= TR_RANGE[1]:
        return float(tr)
    reading = next(
        (
            f"{tr:g} looks like {name} ({tr * scale:g} s). "
            for name, scale in UNITS
            if TR_RANGE[0] <= tr * scale <= TR_RANGE[1]
        ),
        "",
    )
    raise RecordingError(
        f"{source} gives a TR of {tr:g} s, but a TR is {TR_RANGE[0]:g} to {TR_RANGE[1]:g} s. {reading}"
        "Correct it, or set recording.tr, in seconds."
    )


def read_clock(path: Path | tuple[Path, Path], tr: float | None = None) -> Clock:
    """Read the TR and the moment slice timing was corrected to, from the sidecars first, then the header.

    Parameters
    ----------
    path : a recording, or the files of the left and right hemisphere
    tr : seconds, where it is known: what the file states is not judged then

    Raises
    ------
    RecordingError : a sidecar or a header is damaged, or states a TR or a StartTime that cannot be
    """
    first = path[0] if isinstance(path, tuple) else path
    sidecar, sources = read_sidecars(first)
    remarks: tuple[str, ...] = ()
    if tr is not None:
        tr = check_tr(tr, "recording.tr")
    else:
        stated, header = sidecar.get("RepetitionTime") or None, _header_tr(path)
        if stated is not None:
            tr = check_tr(float(stated), f"RepetitionTime of {sources['RepetitionTime']}")
            remarks = _compare_with_header(tr, header, sources["RepetitionTime"], first)
        elif header is not None:
            tr = check_tr(header, f"The header of {first}")
    start = sidecar.get("StartTime")
    if start is not None and not 0 <= start <= (tr or TR_RANGE[1]):
        reading = f" {start:g} looks like milliseconds." if 0 < start / 1000 <= (tr or TR_RANGE[1]) else ""
        raise RecordingError(
            f"StartTime of {sources['StartTime']} is {start:g} s, which is not within a scan"
            f"{f' of {tr:g} s' if tr else ''}.{reading} Correct it, in seconds."
        )
    return Clock(tr, start, remarks)


def _compare_with_header(tr: float, header: float | None, sidecar: Path, image: Path) -> tuple[str, ...]:
    if header is None or abs(header - tr) <= TR_AGREEMENT * tr:
        return ()
    return (
        f"{sidecar.name} gives {image.name} a TR of {tr:g} s, but the image's header says {header:g} s. The sidecar is used.",
    )


def _header_tr(path: Path | tuple[Path, Path]) -> float | None:
    """Return the TR of a header in seconds; None where it states none."""
    if isinstance(path, tuple):
        return _surface_tr(path[0])
    if not path.name.endswith((".nii", ".nii.gz")):
        return None
    header = load_image(path).header
    try:
        zooms = [float(zoom) for zoom in header.get_zooms()]
        unit = header.get_xyzt_units()[1]
    except Exception as error:  # nibabel raises errors of many kinds for units that it does not know
        raise RecordingError(f"The header of {path} cannot be read ({error}). Set recording.tr.") from error
    tr = zooms[3] * TIME_UNITS.get(unit, 1.0) if len(zooms) > 3 else 0.0
    if not math.isfinite(tr) or tr < 0:
        raise RecordingError(f"The header of {path} gives a TR of {tr:g} s. Set recording.tr, in seconds.")
    return tr or None


def _surface_tr(path: Path) -> float | None:
    """Return the TimeStep of a GIFTI file, in seconds."""
    image = load_gifti(path)
    steps = [array.meta.get("TimeStep") for array in image.darrays] + [image.meta.get("TimeStep")]
    step = str(next((step for step in steps if step), "0"))
    try:
        tr = float(step) / 1000.0
    except ValueError as error:
        raise RecordingError(f"The TimeStep of {path} is no number ('{step[:40]}').") from error
    return tr or None


def describe_clocks(remarks: Sequence[str]) -> list[str]:
    """Return one sentence for many recordings whose sidecar and header contradict each other; none where none does."""
    distinct = list(dict.fromkeys(remarks))
    further = f" {len(distinct) - 1} further recordings are like that." if len(distinct) > 1 else ""
    return [distinct[0] + further] if distinct else []


def read_sidecars(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Path]]:
    """Read the sidecars that apply to a recording, the nearest value of each key.

    Returns
    -------
    values : key → value; ``RepetitionTime`` and ``StartTime`` are finite numbers
    sources : key → the sidecar that states it
    """
    values: dict[str, Any] = {}
    sources: dict[str, Path] = {}
    for sidecar in _sidecars(path):
        for key, value in _read_sidecar(sidecar).items():
            if key not in values:
                values[key], sources[key] = value, sidecar
    return values, sources


def _sidecars(path: Path) -> Iterator[Path]:
    """Yield the sidecars of a recording, the nearest first."""
    stem = path.name
    for extension in EXTENSIONS:
        stem = stem.removesuffix(extension)
    beside = path.with_name(stem + ".json")
    if beside.is_file():
        yield beside
    entities, suffix = _entities(stem)
    if not entities:
        return
    for folder in _folders(path):
        yield from (file for file in _applicable(folder, entities, suffix) if file.name != beside.name)


def _entities(stem: str) -> tuple[dict[str, str], str]:
    """Return the entities and the suffix of a BIDS name; no entities where it is none.

    >>> _entities("sub-01_task-story_bold")
    ({'sub': '1', 'task': 'story'}, 'bold')
    """
    *pairs, last = stem.split("_")
    suffix = "" if "-" in last else last
    split = [pair.split("-", 1) for pair in (pairs if suffix else [*pairs, last])]
    if not all(len(pair) == 2 and all(pair) for pair in split):
        return {}, suffix
    # some pipelines write run-1 for run-01
    return {key: str(int(value)) if value.isdecimal() else value for key, value in split}, suffix


def _folders(path: Path) -> list[Path]:
    """List the folders from a recording up to the root of its dataset."""
    parents = list(path.absolute().parents)[:MAX_LEVELS]
    roots = [i for i, folder in enumerate(parents) if (folder / "dataset_description.json").is_file()]
    subjects = [i + 1 for i, folder in enumerate(parents) if folder.name.startswith("sub-")]
    return parents[: max([*roots, *subjects, 0]) + 1]


def _applicable(folder: Path, entities: Mapping[str, str], suffix: str) -> list[Path]:
    """List the sidecars of a folder that apply to a recording, the one with most entities first."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".json"))
    except OSError:
        return []
    ranked = []
    for name in names:
        theirs, theirs_suffix = _entities(name.removesuffix(".json"))
        # a sidecar of all images of a dataset, bold.json, has no entity
        is_named = bool(theirs) or name == f"{suffix}.json"
        if is_named and theirs_suffix == (suffix or "bold") and theirs.items() <= entities.items():
            ranked.append((-len(theirs), folder / name))
    ranked.sort()
    for (rank, file), (next_rank, next_file) in pairwise(ranked):
        if rank == next_rank:
            raise RecordingError(f"Both {file} and {next_file} are sidecars of one image. Remove one.")
    return [file for _, file in ranked]


def _read_sidecar(path: Path) -> Mapping[str, Any]:
    """Read one sidecar."""
    try:
        if path.stat().st_size > SIDECAR_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise TypeError("it is no JSON object")
        for name in ("RepetitionTime", "StartTime"):
            if content.get(name) is not None:
                content[name] = _number(name, content[name])
    except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
        raise RecordingError(f"{path} cannot be read as a sidecar ({error}).") from error
    return content


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{name} is {str(value)[:40]}")
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{name} is {number}")
    return number
