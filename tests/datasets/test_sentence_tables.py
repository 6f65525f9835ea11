"""Tables of sentences: names, numbers and files are read as they are, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.datasets.sentence_tables import as_names, find_table, make_run_name, parse_responses, read_csv
from langcortex.errors import RecordingError, SettingsError


def test_run_names_have_no_spaces_or_slashes() -> None:
    assert make_run_name(" musical instrument/x\\y ") == "musical-instrument-x-y"


def test_responses_are_nan_only_where_a_cell_is_empty_or_not_available() -> None:
    values = parse_responses(pd.Series(["1.5", "", "NaN", "n/a", "-2e-1"], name="x"), Path("t.csv"))
    assert values.dtype == np.float32
    assert values[[0, 4]] == pytest.approx([1.5, -0.2])
    assert np.isnan(values[1:4]).all()
    with pytest.raises(RecordingError, match=r"t\.csv, row 3: 'two' in column 'x' is not a number"):
        parse_responses(pd.Series(["1", "two"], name="x"), Path("t.csv"))


def test_cells_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffa,b,c\r\nNone,007,\r\n"x, y",nan,1\r\n'.encode())
    assert read_csv(path, ["a", "b"]).to_numpy().tolist() == [["None", "007"], ["x, y", "nan"]]
    assert list(read_csv(path, ["a"], all_columns=True).columns) == ["a", "b", "c"]
    with pytest.raises(RecordingError, match=r"has no column 'd'\. It has: a, b, c"):
        read_csv(path, ["d"])
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(RecordingError, match="cannot be read as a table"):
        read_csv(path, ["a"])


def test_a_name_or_a_list_of_names_is_accepted() -> None:
    assert as_names("", "cond") == []
    assert as_names("B", "cond") == ["B"]
    assert as_names(["B", "D"], "cond") == ["B", "D"]
    with pytest.raises(SettingsError, match=r"data\.options\.cond"):
        as_names([["B"]], "cond")  # type: ignore[list-item]


def test_a_path_that_is_a_file_is_the_table(tmp_path: Path) -> None:
    assert find_table(tmp_path / "a.csv", "", "*.csv") == tmp_path / "a.csv"
    assert find_table(tmp_path, "b.csv", "*.csv") == tmp_path / "b.csv"
    (tmp_path / "c.csv").touch()
    assert find_table(tmp_path, "", "*.csv") == tmp_path / "c.csv"
