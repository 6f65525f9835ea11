"""What the names of BIDS files say, and what their tables of events say."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.errors import RecordingError, StoryError
from langcortex.paths import require_file

ENTITIES = (
    "sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part",
    "hemi", "space", "cohort", "res", "den", "desc",
)  # fmt: skip
"""The entities of functional images, in the order in which names give them."""

WORD_COLUMNS = ("word", "text", "token", "value", "trial_type")
MISSING = ("", "n/a")


@dataclass(frozen=True, eq=False)
class BidsFile:
    """A file, and what its name says.

    Attributes
    ----------
    path : where it is, as listed: never what a link points to, whose name says nothing
    entities : e.g. ``{"sub": "01", "task": "story", "desc": "preproc"}``
    suffix : e.g. "bold"; empty where the name ends in an entity, as in ``…_hemi-L.func.gii``
    extension : everything from the first dot, e.g. ".nii.gz"
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str

    def of(self, entity: str) -> str:
        """Give the value of an entity; empty where the name has none."""
        return self.entities.get(entity, "")


def parse(path: Path) -> BidsFile | None:
    """Read a name, whatever the order of its entities; None if it is no BIDS name.

    >>> named = parse(Path("sub-01_task-story_space-fsaverage6_hemi-L.func.gii"))
    >>> named.of("hemi"), named.suffix, named.extension
    ('L', '', '.func.gii')
    """
    stem, dot, rest = path.name.partition(".")
    *pairs, last = stem.split("_")
    suffix = "" if "-" in last else last
    pairs = pairs if suffix else [*pairs, last]
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    if not stem or len(entities) != len(pairs) or not all(entities.values()):
        return None
    return BidsFile(path, entities, suffix, dot + rest)


def list_entities(root: Path) -> list[BidsFile]:
    """List ``sub-*/[ses-*/]func/*`` and the files beside the subjects' folders, in the order of their names."""
    out = [parse(Path(entry.path)) for entry in _entries(root) if not entry.is_dir()]
    for subject in _folders(root, "sub-"):
        for holder in (subject, *_folders(subject, "ses-")):
            out += [parse(Path(entry.path)) for entry in _entries(holder / "func")]
    return [named for named in out if named is not None and not named.path.name.startswith(".")]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RecordingError(f"The folder {folder} cannot be listed ({error.strerror}).") from error


def _folders(root: Path, prefix: str) -> Iterator[Path]:
    return (Path(e.path) for e in _entries(root) if e.name.startswith(prefix) and e.is_dir())


def companion(image: BidsFile, among: Iterable[BidsFile], agree: Collection[str]) -> BidsFile | None:
    """Find the file that goes with an image: the one that shares the most entities and has no others.

    Parameters
    ----------
    among : the candidates; their ``desc`` is not compared
    agree : entities that must be the same in both, or absent from both

    Raises
    ------
    RecordingError : two files go with it equally well
    """
    best: list[tuple[int, BidsFile]] = []
    for other in among:
        said = {key: value for key, value in other.entities.items() if key != "desc"}
        if any(plain_name(value) != plain_name(image.of(key)) for key, value in said.items()):
            continue
        if all(plain_name(other.of(key)) == plain_name(image.of(key)) for key in agree):
            best.append((len(said), other))
    most = max((n for n, _ in best), default=0)
    found = [other for n, other in best if n == most]
    if len(found) > 1:
        raise RecordingError(
            f"Both {found[0].path} and {found[1].path} go with {image.path.name}. Remove one."
        )
    return found[0] if found else None


def plain_name(value: str) -> str:
    """Take the zeros off a number: fMRIPrep has written run-1 for run-01."""
    return str(int(value)) if value.isdecimal() else value


def read_events(path: Path) -> pd.DataFrame:
    """Read a table of events: its cells as text, but ``onset`` and ``duration`` as seconds (NaN where n/a).

    Onset 0 is the first stored volume (BIDS specification, "Task events").

    Raises
    ------
    StoryError : the file is missing, broken, or has no such columns
    """
    require_file(path, StoryError, "table of events")
    try:
        lines = io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")
        # a .tsv is not quoted: its words may be quotation marks
        header, *rows = [row for row in csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE) if row] or [[]]
    except (UnicodeError, csv.Error) as error:
        raise StoryError(f"{path} cannot be read as a table ({error}). Save it as UTF-8.") from error
    odd = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if odd is not None:
        raise StoryError(
            f"{path}: row {odd + 2} has {len(rows[odd])} cells but the header {len(header)}. Fetch the file again."
        )
    table = pd.DataFrame(rows, columns=pd.Index([name.strip() for name in header]), dtype=str)
    for name in ("onset", "duration"):
        if name not in table or table.columns.duplicated().any():
            raise StoryError(
                f"{path} needs one column '{name}', in seconds. Its columns are: {', '.join(table.columns)}."
            )
        table[name] = _seconds(table[name], path)
    return table


def _seconds(cells: pd.Series, path: Path) -> np.ndarray:
    numbers = pd.to_numeric(cells.replace(dict.fromkeys(MISSING, "nan")), errors="coerce").to_numpy(
        np.float64
    )
    wrong = np.flatnonzero(np.isnan(numbers) & ~cells.str.lower().isin([*MISSING, "nan"]).to_numpy())
    if len(wrong):
        raise StoryError(
            f"{path}, row {wrong[0] + 2}: '{cells.iloc[wrong[0]]}' in column '{cells.name}' is not a number of seconds."
        )
    seconds: np.ndarray = numbers
    return seconds


def words_among(events: pd.DataFrame) -> pd.DataFrame | None:
    """Pick the events that are words: a table with word, onset, duration and perhaps sentence; None if none are.

    The words stand in a column called word, text, token, value or trial_type. Values that are numbers, and
    the few conditions of an experiment, are no words; nor is the trial type of a table that names sound files.
    """
    names = {str(name).lower(): name for name in events.columns}
    for name in (c for c in WORD_COLUMNS if c in names):
        cells = events[names[name]].str.strip()
        said = ~cells.str.lower().isin(MISSING)
        if not said.any() or (
            name in ("value", "trial_type") and _are_codes(cells[said], "stim_file" in names)
        ):
            continue
        out = {"word": cells[said], "onset": events["onset"][said], "duration": events["duration"][said]}
        for column in ("sentence", "sentence_id"):
            if column in names:
                out["sentence"] = events[names[column]][said]
        return pd.DataFrame(out).sort_values("onset", kind="stable", ignore_index=True)
    return None


def _are_codes(cells: pd.Series, plays_files: bool) -> bool:
    numbers = bool(pd.to_numeric(cells, errors="coerce").notna().all())
    return plays_files or numbers or (cells.nunique() < 10 and len(cells) > 20)


def stimulus_onset_of(events: pd.DataFrame, path: Path) -> float | None:
    """Say when the first event that plays a file (``stim_file``) began, in seconds; None if no event plays one.

    Raises
    ------
    StoryError : the events play several files, so that a story has no one beginning
    """
    if "stim_file" not in events:
        return None
    plays = events[~events["stim_file"].str.strip().str.lower().isin(MISSING)]
    files = list(dict.fromkeys(plays["stim_file"].str.strip()))
    if len(files) > 1:
        raise StoryError(
            f"{path} plays {len(files)} files ({files[0]}, {files[1]}, …), so one story has no one beginning. "
            "Put the words on the scanner's clock and set recording.stimulus_onset = 0."
        )
    return float(plays["onset"].iloc[0]) if len(plays) else None


def description(folder: Path) -> Mapping[str, Any]:
    """Read a folder's dataset_description.json; empty where there is none."""
    path = folder / "dataset_description.json"
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        said = json.loads(require_file(path, RecordingError, "description").read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise RecordingError(f"{path} cannot be read as JSON ({error}). Fetch it again.") from error
    if not isinstance(said, dict):
        raise RecordingError(f"{path} is no JSON object. Fetch it again.")
    return said
