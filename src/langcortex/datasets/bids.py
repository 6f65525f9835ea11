"""The names of BIDS files, and their tables of events."""

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
"""The entities of functional images, in the order of BIDS names."""

WORD_COLUMNS = ("word", "text", "token", "value", "trial_type")
MISSING = ("", "n/a")


@dataclass(frozen=True, eq=False)
class BidsFile:
    """A file, with the entities of its name.

    Attributes
    ----------
    path : the path as listed, never the target of a link, whose name has no entities
    entities : e.g. ``{"sub": "01", "task": "story", "desc": "preproc"}``
    suffix : e.g. "bold"; empty where the name ends in an entity, as in ``…_hemi-L.func.gii``
    extension : everything from the first dot, e.g. ".nii.gz"
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str

    def get(self, entity: str) -> str:
        """Return the value of an entity; empty where the name does not have it."""
        return self.entities.get(entity, "")


def parse_name(path: Path) -> BidsFile | None:
    """Parse a file name with its entities in any order; None if it is no BIDS name.

    >>> file = parse_name(Path("sub-01_task-story_space-fsaverage6_hemi-L.func.gii"))
    >>> file.get("hemi"), file.suffix, file.extension
    ('L', '', '.func.gii')
    """
    stem, dot, extension = path.name.partition(".")
    *pairs, last = stem.split("_")
    suffix = "" if "-" in last else last
    pairs = pairs if suffix else [*pairs, last]
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    if not stem or len(entities) != len(pairs) or not all(entities.values()):
        return None
    return BidsFile(path, entities, suffix, dot + extension)


def list_files(root: Path) -> list[BidsFile]:
    """List ``sub-*/[ses-*/]func/*`` and the files beside the subjects' folders, in the order of their names."""
    files = [parse_name(Path(entry.path)) for entry in list_entries(root) if not entry.is_dir()]
    for subject in _folders(root, "sub-"):
        for folder in (subject, *_folders(subject, "ses-")):
            files += [parse_name(Path(entry.path)) for entry in list_entries(folder / "func")]
    return [file for file in files if file is not None and not file.path.name.startswith(".")]


def list_entries(folder: Path) -> list[os.DirEntry[str]]:
    """List what a folder holds, in the order of names; nothing where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RecordingError(f"The folder {folder} cannot be listed ({error.strerror}).") from error


def _folders(root: Path, prefix: str) -> Iterator[Path]:
    return (Path(e.path) for e in list_entries(root) if e.name.startswith(prefix) and e.is_dir())


def is_volume(file: BidsFile) -> bool:
    """Whether a file is a NIfTI image, not the sidecar or the table beside it."""
    return file.extension in (".nii", ".nii.gz")


def find_companion(
    image: BidsFile, candidates: Iterable[BidsFile], required: Collection[str]
) -> BidsFile | None:
    """Find the file that belongs to an image: it shares the most entities with it and has no other ones.

    Parameters
    ----------
    candidates : files; their ``desc`` is not compared
    required : entities that must be equal in both names, or absent from both

    Raises
    ------
    RecordingError : two files belong to the image equally well
    """
    matches: list[tuple[int, BidsFile]] = []
    for file in candidates:
        entities = {key: value for key, value in file.entities.items() if key != "desc"}
        if any(strip_zeros(value) != strip_zeros(image.get(key)) for key, value in entities.items()):
            continue
        if all(strip_zeros(file.get(key)) == strip_zeros(image.get(key)) for key in required):
            matches.append((len(entities), file))
    most = max((n for n, _ in matches), default=0)
    companions = [file for n, file in matches if n == most]
    if len(companions) > 1:
        raise RecordingError(
            f"Both {companions[0].path} and {companions[1].path} go with {image.path.name}. Remove one."
        )
    return companions[0] if companions else None


def strip_zeros(value: str) -> str:
    """Strip the leading zeros of a number: some versions of fMRIPrep write run-1 for run-01."""
    return str(int(value)) if value.isdecimal() else value


def read_events(path: Path) -> pd.DataFrame:
    """Read a table of events as text, with ``onset`` and ``duration`` as seconds (NaN where n/a).

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
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if ragged is not None:
        raise StoryError(
            f"{path}: row {ragged + 2} has {len(rows[ragged])} cells but the header {len(header)}. Fetch the file again."
        )
    table = pd.DataFrame(rows, columns=pd.Index([name.strip() for name in header]), dtype=str)
    for name in ("onset", "duration"):
        if name not in table or table.columns.duplicated().any():
            raise StoryError(
                f"{path} needs one column '{name}', in seconds. Its columns are: {', '.join(table.columns)}."
            )
        table[name] = _parse_seconds(table[name], path)
    return table


def _parse_seconds(cells: pd.Series, path: Path) -> np.ndarray:
    numeric = pd.to_numeric(cells.replace(dict.fromkeys(MISSING, "nan")), errors="coerce")
    seconds: np.ndarray = numeric.to_numpy(np.float64)
    invalid = np.flatnonzero(np.isnan(seconds) & ~cells.str.lower().isin([*MISSING, "nan"]).to_numpy())
    if len(invalid):
        raise StoryError(
            f"{path}, row {invalid[0] + 2}: '{cells.iloc[invalid[0]]}' in column '{cells.name}' is not a number of seconds."
        )
    return seconds


def select_words(events: pd.DataFrame) -> pd.DataFrame | None:
    """Select the events that are words: a table of word, onset, duration and perhaps sentence; None if there are none.

    The words are in a column called word, text, token, value or trial_type. Values that are numbers, and
    the few conditions of an experiment, are no words; nor is the trial type of a table that names sound files.
    """
    names = {str(name).lower(): name for name in events.columns}
    for name in (c for c in WORD_COLUMNS if c in names):
        cells = events[names[name]].str.strip()
        filled = ~cells.str.lower().isin(MISSING)
        may_be_codes = name in ("value", "trial_type")
        if not filled.any() or (may_be_codes and _are_codes(cells[filled], "stim_file" in names)):
            continue
        words = {
            "word": cells[filled],
            "onset": events["onset"][filled],
            "duration": events["duration"][filled],
        }
        for column in ("sentence", "sentence_id"):
            if column in names:
                words["sentence"] = events[names[column]][filled]
        return pd.DataFrame(words).sort_values("onset", kind="stable", ignore_index=True)
    return None


def _are_codes(cells: pd.Series, plays_files: bool) -> bool:
    """Whether cells are codes of conditions, not words."""
    are_numbers = bool(pd.to_numeric(cells, errors="coerce").notna().all())
    return plays_files or are_numbers or (cells.nunique() < 10 and len(cells) > 20)


def find_stimulus_onset(events: pd.DataFrame, path: Path) -> float | None:
    """Return the onset of the first event that plays a file (``stim_file``), in seconds; None if no event does.

    Raises
    ------
    StoryError : the events play several files, so that the onset of the story is ambiguous
    """
    if "stim_file" not in events:
        return None
    plays = events[~events["stim_file"].str.strip().str.lower().isin(MISSING)]
    files = list(dict.fromkeys(plays["stim_file"].str.strip()))
    if len(files) > 1:
        raise StoryError(
            f"{path} plays {len(files)} files ({files[0]}, {files[1]}, …), so the onset of the story is ambiguous. "
            "Put the words on the scanner's clock and set recording.stimulus_onset = 0."
        )
    return float(plays["onset"].iloc[0]) if len(plays) else None


def find_description(folder: Path) -> Mapping[str, Any]:
    """Read the dataset_description.json of a folder for a citation; empty where it cannot be read."""
    try:
        return read_description(folder)
    except RecordingError:
        return {}


def read_description(folder: Path) -> Mapping[str, Any]:
    """Read the dataset_description.json of a folder; empty where there is none."""
    path = folder / "dataset_description.json"
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        content = require_file(path, RecordingError, "description").read_text(encoding="utf-8-sig")
        description = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path} cannot be read as JSON ({error}). Fetch it again.") from error
    if not isinstance(description, dict):
        raise RecordingError(f"{path} is no JSON object. Fetch it again.")
    return description
