"""LeBel 2023: the words of TextGrids, with marks replaced by pauses."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.datasets.lebel.words import read_word_tier, read_words
from langcortex.errors import StoryError
from reference.textgrids import OVERLAP, grid, long_grid, short_grid, tiers


def test_intervals_that_overlap_by_a_rounding_error_are_read(tmp_path: Path) -> None:
    table = read_words(grid(tmp_path, "a"))
    assert table["onset"].tolist()[:2] == [0.0, 1.0]
    assert table["duration"].tolist()[0] == 1.0


def test_intervals_that_overlap_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = grid(tmp_path, "a", long_grid(tiers([(0.0, 1.2, "one"), (1.0, 2.0, "two")])))
    with pytest.raises(StoryError, match="overlap") as caught:
        read_words(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("write", [long_grid, short_grid])
def test_both_formats_and_encodings_are_read_alike(tmp_path: Path, encoding: str, write: Any) -> None:
    words = [(0.0, OVERLAP, "café"), (1.0, 1.5, 'say ""no""'), (1.5, 5.0, "1.123456789")]
    table = read_words(grid(tmp_path, "a", write(tiers(words)), encoding))
    assert table["word"].tolist() == ["café", 'say "no"', "1.123456789"]
    assert table["onset"].tolist() == [0.0, 1.0, 1.5]


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = grid(tmp_path, "a")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_words(path)["word"].tolist()[:3] == ["sp", "i", "didn't"]


def test_the_tier_is_named_word_or_is_the_second(tmp_path: Path) -> None:
    reordered = [("Words of it", [(0.0, 5.0, "first")]), *tiers([(0.0, 5.0, "second")], "x")]
    assert read_words(grid(tmp_path, "a", long_grid(reordered)))["word"].tolist() == ["first"]
    unnamed = tiers([(0.0, 5.0, "second")], "TRS")
    assert read_words(grid(tmp_path, "b", long_grid(unnamed)))["word"].tolist() == ["second"]
    with pytest.raises(StoryError, match="has no tier of words: its interval tiers are phone"):
        read_words(grid(tmp_path, "c", long_grid(unnamed[:1])))


@pytest.mark.parametrize("mark", ["sentence_start", "sentence_end", "BR", "{lg}", "{ LS }", "ns"])
def test_marks_are_no_words_and_only_sp_ends_a_sentence(tmp_path: Path, mark: str) -> None:
    words = [(0.0, 1.0, "a"), (1.0, 2.0, mark), (2.0, 3.0, "b"), (3.0, 4.0, "sp"), (4.0, 5.0, "c")]
    assert read_words(grid(tmp_path, "a", long_grid(tiers(words))))["word"].tolist() == [
        "a",
        "",
        "b",
        "sp",
        "c",
    ]


@pytest.mark.parametrize("write", [long_grid, short_grid])
def test_a_truncated_textgrid_is_refused(tmp_path: Path, write: Any) -> None:
    path = grid(tmp_path, "a", write(tiers()))
    content = path.read_bytes().rstrip()
    for at in range(len(content)):
        path.write_bytes(content[:at])
        with pytest.raises(StoryError):
            read_words(path)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=6), st.sampled_from([long_grid, short_grid]))
def test_times_are_those_of_the_file_to_a_microsecond(
    tmp_path: Path, lengths: list[float], write: Any
) -> None:
    edges = np.cumsum([0.0, *lengths])
    words = [(float(a), float(b), f"w{i}") for i, (a, b) in enumerate(pairwise(edges))]
    table = read_words(grid(tmp_path, "a", write(tiers(words))))
    np.testing.assert_allclose(table["onset"], edges[:-1], atol=1e-6)
    np.testing.assert_allclose(table["onset"] + table["duration"], edges[1:], atol=2e-6)
    assert table["word"].tolist() == [w for _, _, w in words]


# the real forms: legacy and exorcism are chronological, other stories long or short


def test_the_chronological_form_is_read_as_the_long_one(tmp_path: Path) -> None:
    rows = sorted(
        ((b, e, n, t) for n, (_, items) in enumerate(tiers(), 1) for b, e, t in items),
        key=lambda row: row[:3],
    )
    head = ['"Praat chronological TextGrid text file"', "0 5   ! Time domain.", "3   ! Number of tiers."]
    head += [f'"IntervalTier" "{name}" 0 5' for name, _ in tiers()]
    body = [line for b, e, n, t in rows for line in (f"{n} {b!r} {e!r}", f'"{t}"')]
    chronological = read_words(grid(tmp_path, "a", "\n".join([*head, *body]) + "\n"))
    pd.testing.assert_frame_equal(chronological, read_words(grid(tmp_path, "b")))


def test_an_overlap_in_the_phone_tier_is_nobody_s_business(tmp_path: Path) -> None:
    phones = ("phone", [(0.0, 2.5001, "AH1"), (2.5, 2.0, "T"), (2.5, 5.0, "")])
    tier = read_word_tier(grid(tmp_path, "a", long_grid([phones, *tiers()[1:]])))
    assert tier.name == "word"
    assert tier.remarks == ()
    assert len(tier.intervals) == 10


def test_an_overlap_of_a_tenth_of_a_millisecond_in_the_words_is_mended_and_told(tmp_path: Path) -> None:
    words = [(0.0, 1.0001, "one"), (1.0, 2.0, "two"), (2.0, 5.0, "sp")]
    tier = read_word_tier(grid(tmp_path, "a", long_grid(tiers(words))))
    assert tier.intervals["duration"].tolist() == [1.0, 1.0, 3.0]
    assert "overlapped the next by up to 0.1 ms" in tier.remarks[0]


def test_the_real_form_of_the_chronological_stories_is_read(shared_data: Path) -> None:
    path = shared_data / "real2" / "textgrids_made" / "lebel_chronological_example.TextGrid"
    if not path.is_file():
        pytest.skip(f"the file {path} is absent")
    assert read_words(path)["word"].tolist() == ["sp", "I", "WAS", "sp"]
