"""Names of an atlas's parcels, from the tables that atlases come with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from langcortex.errors import RecordingError
from langcortex.files import require_file

NUMBERS = ("index", "value", "id", "key", "number", "no")
NAMES = ("name", "region", "parcel", "label", "structure")
BACKGROUND = re.compile(r"\?+|unknown|background.*|medial[ _-]?wall|.*medial[ _-]wall", re.IGNORECASE)


def read_labels(path: Path) -> dict[int, str]:
    """Read which number in an atlas means which parcel.

    Parameters
    ----------
    path : .tsv or .csv with the columns ``index`` and ``name`` (BIDS ``dseg.tsv``, nilearn's tables; ``value``,
        ``region`` and the like are understood too); .json, a list of names or number → name; .txt, a line a parcel:
        ``number name``, with colours behind it as in FreeSurfer's ``ColorLUT.txt`` or not, or a name alone

    Returns
    -------
    number → name. Names without numbers are counted from 1, or from 0 where the first is the background

    Raises
    ------
    RecordingError : there is no such file, it cannot be understood, or one number or name stands twice

    References
    ----------
    BIDS 1.9, "Imaging data type derivatives", discrete segmentations
    """
    require_file(path, RecordingError, "table of labels")
    try:
        rows = _rows(path)
    except (ValueError, OSError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path} cannot be read as a table of labels ({error}).") from error
    if not rows:
        raise RecordingError(f"{path} names no parcel.")
    return _numbered(rows, path)


def _rows(path: Path) -> list[tuple[int | None, str]]:
    """Read (number, name) from any of the formats; the number is None where there is none."""
    if path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, Mapping):
            return [(int(number), str(name)) for number, name in found.items()]
        return [(None, str(name)) for name in found]
    if path.suffix in (".tsv", ".csv"):
        return _table_rows(path)
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [_line(line) for line in lines if line and not line.startswith("#")]


def _table_rows(path: Path) -> list[tuple[int | None, str]]:
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    columns = {str(c).strip().lower(): c for c in table.columns}
    number, name = (next((columns[w] for w in wanted if w in columns), None) for wanted in (NUMBERS, NAMES))
    if number is None or name is None:
        raise RecordingError(
            f"{path} needs the columns 'index' and 'name'. It has: {', '.join(map(str, table.columns[:12]))}."
        )
    return [(int(float(n)), str(label).strip()) for n, label in zip(table[number], table[name], strict=True)]


def _line(line: str) -> tuple[int | None, str]:
    """Read one line of text.

    >>> _line("17  Left-Hippocampus  220 216 20 0"), _line("3 Middle frontal gyrus"), _line("IFG orb")
    ((17, 'Left-Hippocampus'), (3, 'Middle frontal gyrus'), (None, 'IFG orb'))
    """
    words = line.replace(",", " ").split()
    if not words[0].lstrip("-").isdigit():
        return None, line
    rest = words[1:]
    for n_colours in (4, 3):
        if len(rest) > n_colours and all(w.isdigit() for w in rest[-n_colours:]):
            rest = rest[:-n_colours]
            break
    return int(words[0]), " ".join(rest)


def _numbered(rows: Sequence[tuple[int | None, str]], path: Path) -> dict[int, str]:
    numbers = [number for number, _ in rows]
    if None in numbers:
        if any(number is not None for number in numbers):
            raise RecordingError(f"{path} gives numbers to some of its parcels only. Give all of them one.")
        first = 0 if is_background(rows[0][1]) else 1
        rows = [(first + i, name) for i, (_, name) in enumerate(rows)]
    out: dict[int, str] = {}
    for number, name in rows:
        if number is None or number in out:
            raise RecordingError(f"{path} names number {number} twice. Each parcel has one number.")
        if not name:
            raise RecordingError(f"{path} has no name for number {number}.")
        out[number] = name
    return out


def is_background(name: str) -> bool:
    """Say whether a label means "no parcel".

    >>> is_background("???"), is_background("Background+FreeSurfer_Defined_Medial_Wall"), is_background("IFG")
    (True, True, False)
    """
    return BACKGROUND.fullmatch(name.strip()) is not None
