"""Tuckute 2024: a long table becomes one row per item and one column per region, by item_id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.datasets import Corpus
from langcortex.datasets.corpus import Reading
from langcortex.datasets.tuckute import corpus
from langcortex.errors import LangcortexError, RecordingError, SettingsError, StoryError

NAME = "brain-lang-data_participant_20230728.csv"
HEADER = "item_id,sentence,cond,cond_approach,target_UID,roi,response_target,response_target_non_norm,rating_gram_mean"
ITEMS = {
    "1": ("Taste that fowl and those fish.", "B"),
    "7": ('"None", she said, and left us.', "B"),
    "1003": ("I'm progressive and you fall right.", "D"),
}
ROIS = ("lang_LH_netw", "lang_LH_IFG")


def row(item_id: str, subject: str, roi: str, value: object, raw: object = 0.5) -> str:
    text, cond = ITEMS[item_id]
    quoted = '"' + text.replace('"', '""') + '"'
    return f"{item_id},{quoted},{cond},{cond},{subject},{roi},{value},{raw},6.1"


def rows() -> list[str]:
    """Return the rows of two participants; the second did not see item 7, and saw the items in another order."""
    out = [row(i, "848", roi, 10 * k + r, 100 + k) for k, i in enumerate(ITEMS) for r, roi in enumerate(ROIS)]
    return out + [
        row(i, "797", roi, -k - r / 2) for k, i in ((2, "1003"), (0, "1")) for r, roi in enumerate(ROIS)
    ]


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / NAME
    path.write_text("\r\n".join([header, *lines]) + "\r\n", encoding="utf-8")
    return path


def test_the_table_is_read_as_items_by_regions(tmp_path: Path) -> None:
    write(tmp_path, *rows())
    table = corpus(tmp_path, Reading())
    assert isinstance(table, Corpus)
    assert table.subjects() == ["848", "797"]
    assert table.story().sentences.text.tolist() == [text for text, _ in ITEMS.values()]
    responses = table.recording("848", "sentences")
    assert responses.values.tolist() == [[0, 1], [10, 11], [20, 21]]
    assert responses.space.names.tolist() == list(ROIS)
    assert responses.ids.tolist() == [f"sentences/sentence-{i:03d}" for i in range(3)]
    assert "10.1038/s41562-023-01783-7" in table.citation()


def test_rows_are_matched_by_item_and_unseen_items_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, *rows())
    responses = corpus(tmp_path, Reading()).recording("797", "sentences")
    assert responses.ids.tolist() == ["sentences/sentence-000", "sentences/sentence-002"]
    assert responses.values.tolist() == [[0.0, -0.5], [-2.0, -2.5]]


def test_a_sentence_lasts_two_seconds(tmp_path: Path) -> None:
    story = corpus(write(tmp_path, *rows()), Reading()).story()
    assert story.sentences.onset.tolist() == [0.0, 2.0, 4.0]
    assert story.onset[:2] == pytest.approx([0.0, 2 / 6])


def test_conditions_regions_and_raw_responses_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, *rows())
    assert len(corpus(path, Reading(), cond="B").story().sentences) == 2
    assert corpus(path, Reading(), cond=["D"]).recording("797", "sentences").values.shape == (1, 2)
    assert corpus(path, Reading(), roi="lang_LH_IFG").recording("848", "sentences").values.tolist() == [
        [1],
        [11],
        [21],
    ]
    assert corpus(path, Reading(), normalised=False).recording("848", "sentences").values[:, 0].tolist() == [
        100,
        101,
        102,
    ]
    assert corpus(path, Reading(), run="cond").story().runs == ("B", "D")
    with pytest.raises(SettingsError, match=r"has no cond 'X' \(data\.options\.cond\). It has: B, D"):
        corpus(path, Reading(), cond="X").story()
    with pytest.raises(SettingsError, match="has no roi 'V1'"):
        corpus(path, Reading(), roi=["V1"]).story()
    with pytest.raises(SettingsError, match=r"data\.options\.roi must be a name"):
        corpus(path, Reading(), roi=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["item_id", "sentence", "target_UID", "roi", "response_target"])
def test_only_some_columns_are_needed_and_a_missing_one_is_named(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, *rows(), header=HEADER.replace(f"{column},", "other,", 1))
    with pytest.raises(RecordingError, match=f"has no column '{column}'"):
        corpus(path, Reading()).story()
    header = "item_id,sentence,target_UID,roi,response_target"
    small = write(tmp_path, "1,One two.,848,lang,0.5", "2,Three four.,848,lang,", header=header)
    assert corpus(small, Reading()).recording("848", "sentences").values.tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (row("1", "848", "lang_LH_netw", 3), "two responses of lang_LH_netw to item 1"),
        (row("1", "848", "lang_RH_netw", 3), "has no response to sentence '7'"),
        (row("1", "865", "lang_LH_netw", "high"), "row 12: 'high' in column 'response_target'"),
        ("1,short,B", "is damaged: row 12 has 3 cells"),
        (row("1", "865", "lang_LH_netw", ""), "has no response to any of the sentences"),
    ],
)
def test_duplicate_missing_and_malformed_responses_are_errors(
    tmp_path: Path, extra: str, message: str
) -> None:
    table = corpus(write(tmp_path, *rows(), extra), Reading())
    with pytest.raises(RecordingError, match=message):
        [table.recording(subject, "sentences") for subject in table.all_subjects()]


def test_one_item_with_two_sentences_is_an_error(tmp_path: Path) -> None:
    changed = row("1", "865", "lang_LH_netw", 1).replace("fowl", "bird")
    with pytest.raises(StoryError, match="two sentences under item_id 1"):
        corpus(write(tmp_path, *rows(), changed), Reading()).story()


def test_a_folder_without_the_table_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="brain-lang-data_participant"):
        corpus(tmp_path, Reading())
    (tmp_path / NAME).touch()
    with pytest.raises(RecordingError, match="is empty"):
        corpus(tmp_path, Reading()).story()
    (tmp_path / NAME).write_text(HEADER + "\n")
    with pytest.raises(RecordingError, match="has a header and no rows"):
        corpus(tmp_path, Reading()).story()


@given(st.binary(max_size=200), st.integers(0, 500))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_tables_raise_only_errors_of_langcortex(tmp_path: Path, noise: bytes, cut: int) -> None:
    complete = "\n".join([HEADER, *rows()]).encode()
    for content in (noise, complete[:cut] + noise + complete[cut:]):
        (tmp_path / NAME).write_bytes(content)
        try:
            table = corpus(tmp_path / NAME, Reading())
            responses = [table.recording(s, r) for s in table.subjects() for r in table.runs(s)]
        except LangcortexError:
            continue
        assert all(np.isfinite(run_responses.values).any(axis=1).all() for run_responses in responses)
