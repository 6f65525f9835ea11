"""Atlases: every format of labels is read to the same names, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from langcortex.brain.atlases import is_background, read_labels
from langcortex.errors import RecordingError

EXPECTED = {1: "L IFG", 2: "R IFG", 7: "STG"}
FORMS = {
    "bids.tsv": "index\tname\tabbreviation\n1\tL IFG\ta\n2\tR IFG\tb\n7\tSTG\tc\n",
    "nilearn.csv": "name,index\nL IFG,1\nR IFG,2\nSTG,7\n",
    "other.tsv": "value\tregion\n1\tL IFG\n2\tR IFG\n7\tSTG\n",
    "numbers.json": '{"1": "L IFG", "2": "R IFG", "7": "STG"}',
    "ColorLUT.txt": "#No. Label Name: R G B A\n\n1  L IFG  70 130 180 0\n2 R IFG 245 245 245 0\n7\tSTG\t5 5 5 0\n",
    "plain.txt": "1 L IFG\n2\tR IFG\n7,STG\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FORMS[name], encoding="utf-8")
    assert read_labels(tmp_path / name) == EXPECTED


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", "L IFG\nR IFG\n"), ("a.json", '["L IFG", "R IFG"]')], ids=["txt", "json"]
)
def test_names_without_numbers_are_counted_from_one(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == {1: "L IFG", 2: "R IFG"}


def test_a_list_that_begins_with_the_background_is_counted_from_zero(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["Background", "L IFG"]', encoding="utf-8")
    assert read_labels(tmp_path / "a.json") == {0: "Background", 1: "L IFG"}


def test_labels_that_mean_no_parcel_are_known() -> None:
    assert all(map(is_background, ("???", "Unknown", "background", "Medial_wall", "ctx-lh-medial wall")))
    assert not any(map(is_background, ("IFG", "unknown area 3", "wall")))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "what\tname\n1\tIFG\n", "needs the columns 'index' and 'name'. It has: what, name"),
        ("a.tsv", "index\tname\n1\tIFG\n1\tSTG\n", "names number 1 twice"),
        ("a.tsv", "index\tname\none\tIFG\n", "cannot be read as a table of labels"),
        ("a.tsv", "index\tname\n1\t\n", "has no name for number 1"),
        ("a.txt", "1 IFG\nSTG\n", "numbers only some of its parcels"),
        ("a.txt", "# nothing\n", "names no parcel"),
        ("a.json", "{", "cannot be read as a table of labels"),
        ("a.json", "3", "cannot be read as a table of labels"),
    ],
)
def test_labels_that_cannot_be_read_are_an_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RecordingError, match=message):
        read_labels(tmp_path / name)


def test_absent_labels_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="does not exist"):
        read_labels(tmp_path / "gone.tsv")
