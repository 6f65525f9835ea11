"""Tables of numbers: .tsv, .csv, .txt and .npy files, checked before memory is taken for them."""

from __future__ import annotations

import csv
import io
import math
import re
import tokenize
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.errors import RecordingError
from langcortex.paths import require_file

MISSING = ("", "n/a", "N/A", "nan", "NaN", "NA")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
N_LISTED = 12  # names listed in a message


def read_text(path: Path) -> str:
    """Read a text file of UTF-8; control characters are refused.

    Raises
    ------
    RecordingError : the file has another encoding, or control characters
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path} is no text in UTF-8 ({error}). Save it as UTF-8.") from error
    control = CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise RecordingError(
            f"{path} has the control character U+{ord(control.group()):04X} in line {line}. It is damaged or no table."
        )
    return text


def read_table(path: Path, has_header: bool = True) -> pd.DataFrame:
    """Read a .tsv or .csv file; cells are numbers where a whole column is, and n/a is NaN.

    Parameters
    ----------
    has_header : whether the first row has the names of columns

    Raises
    ------
    RecordingError : no table: ragged rows, control characters, or a name that occurs twice
    """
    text = read_text(path)
    separator = "\t" if path.suffix == ".tsv" else ","
    try:
        rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
        header = next((row for row in rows if row), [])
        _check_rows(path, rows, len(header))
    except csv.Error as error:
        raise RecordingError(f"{path} cannot be read as a table ({error}).") from error
    names = [name.strip() for name in header]
    if has_header and names and all(map(_is_float, names)) and not all(name.isdigit() for name in names):
        raise RecordingError(
            f"{path} begins with numbers instead of column names. Add a row of names; for a recording, recording.columns may give them."
        )
    if has_header and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordingError(f"{path} has two columns called '{twice}'. Give each its own name.")
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=0 if has_header else None,
            na_values=list(MISSING),
            keep_default_na=False,
            index_col=False,
            low_memory=False,
        )
    except (ValueError, OverflowError) as error:
        raise RecordingError(f"{path} cannot be read as a table ({error}).") from error
    if has_header:
        table.columns = pd.Index(names)
    return table


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_rows(path: Path, rows: object, n_columns: int) -> None:
    for row in rows:  # type: ignore[attr-defined]  # csv has no public type of readers
        if row and len(row) != n_columns:
            raise RecordingError(
                f"{path}: line {rows.line_num} has {len(row)} cells but the first line {n_columns}. "  # type: ignore[attr-defined]
                "It is damaged or no table."
            )


def to_numbers(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Return the cells of a table as (n_rows, n_columns) float64; n/a is NaN.

    Raises
    ------
    RecordingError : a cell is text, or infinite
    """
    numbers = np.empty(table.shape, dtype=np.float64)
    for i, name in enumerate(table.columns):
        column = table.iloc[:, i]
        if column.dtype.kind not in "iuf":
            parsed = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64)
            is_text = np.isnan(parsed) & column.notna().to_numpy()
            is_text |= np.array([isinstance(cell, (bool, complex)) for cell in column], dtype=bool)
            if is_text.any():
                row = int(np.flatnonzero(is_text)[0])
                raise RecordingError(
                    f"{path} has text where numbers are needed: '{str(column.iloc[row])[:40]}' in row {row} of column '{name}'. "
                    "Name the columns to use."
                )
            numbers[:, i] = parsed
        else:
            numbers[:, i] = column.to_numpy(np.float64)
    infinite = np.argwhere(np.isinf(numbers))
    if len(infinite):
        row, i = infinite[0].tolist()
        raise RecordingError(
            f"{path} has an infinite number in row {row} of column '{table.columns[i]}'. Correct it, or name other columns."
        )
    return numbers


def read_plain(path: Path, what: str = "rows of numbers") -> np.ndarray:
    """Read numbers separated by blanks: (n_rows, n_columns) float64."""
    text = read_text(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # numpy warns of an empty file; it is an error below
            numbers = np.loadtxt(io.StringIO(text), dtype=np.float64, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise RecordingError(f"{path} cannot be read as {what} ({error}).") from error
    if not numbers.size:
        raise RecordingError(f"{path} has no numbers.")
    return numbers


def open_npy(path: Path) -> np.ndarray:
    """Open a .npy file of numbers without reading it, and hold its header against the file.

    Raises
    ------
    RecordingError : no .npy file, one of objects, or one that is smaller or larger than its header declares
    """
    require_file(path, RecordingError, "table")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            offset = file.tell()
    except (
        ValueError,
        TypeError,
        OSError,
        EOFError,
        SyntaxError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        raise RecordingError(f"{path} cannot be read as .npy ({error}). Write it again.") from error
    if dtype.kind not in "biuf" or dtype.hasobject:
        raise RecordingError(f"{path} has values of type {dtype}; numbers are needed.")
    if any(n < 0 for n in shape):
        raise RecordingError(f"{path} has shape {shape}. Its header is damaged; write it again.")
    declared, stored = math.prod(shape) * dtype.itemsize, path.stat().st_size - offset
    if declared != stored:
        raise RecordingError(
            f"{path} declares {declared:,} bytes of numbers, but holds {stored:,}. It is incomplete or damaged; write it again."
        )
    if not declared:
        raise RecordingError(f"{path} has shape {shape}: it holds no number.")
    try:
        values: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise RecordingError(f"{path} cannot be read as .npy ({error}). Write it again.") from error
    return values


def select_columns(columns: Sequence[str], names: Sequence[str], path: Path, where: str = "") -> list[str]:
    """Select columns by their names, or by patterns such as ``a_comp_cor_*``; all when there are none.

    Parameters
    ----------
    columns : of the table
    names : names and patterns
    path : of the table, for messages
    where : names the run, for messages

    Raises
    ------
    RecordingError : a name is no column, or a pattern matches none
    """
    listed = ", ".join(columns[:N_LISTED]) + (" …" if len(columns) > N_LISTED else "")
    prefix = f"{where}: " if where else ""
    selected: list[str] = []
    for name in names or columns:
        if name in columns:
            selected.append(name)
            continue
        matches = [column for column in columns if fnmatchcase(column, name)]
        if not matches:
            what = f"column that matches '{name}'" if re.search(r"[*?\[]", name) else f"column '{name}'"
            raise RecordingError(f"{prefix}{path} has no {what}. It has: {listed}.")
        selected += matches
    return list(dict.fromkeys(selected))
