"""Fixations: milliseconds become seconds, rows off the text are dropped, and saccades are counted from row to column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.datasets.reading_brain.fixations import (
    mean_saccades,
    read_fixations,
    read_run,
    saccades,
    word_times,
)
from langcortex.errors import LangcortexError, StoryError

HEADER = (
    "onset\tduration\tLemmas\tWords\tRECORDING_SESSION_LABEL\tCURRENT_FIX_ADJUSTED\tCURRENT_FIX_DURATION\t"
    "CURRENT_FIX_INTEREST_AREA_ID\tCURRENT_FIX_START\tSentenceID\tSentenceRT\tTRUEOffset\tTRUEOnset"
)
NAME = "sub-01_task-read_run-2_events.tsv"
UNDEFINED = "n/a\t87\tn/a\tn/a\tS201_1\tFalse\t87\t.\t7\tUNDEFINEDnull\tUNDEFINEDnull\tUNDEFINEDnull\tn/a"
BETWEEN = "n/a\t32\tn/a\tn/a\tS201_1\tFalse\t32\t.\t7\t.\t.\t.\tn/a"


def fixation(
    start: int,
    duration: int,
    area: str,
    sentence: str = "t.03.01",
    began: int = 9537,
    ended: int = 14797,
    word: str = "",
) -> str:
    text = word or ("n/a" if area == "." else f"w{area}")
    return (
        f"{began + start}.0\t{duration}\t{text}\t{text}\tS201_1\tFalse\t{duration}\t{area}\t{start}\t{sentence}\t"
        f"{ended - began}\t{ended}\t{began}.0"
    )


def events(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / NAME
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def looks(*words: int, durations: list[float] | None = None) -> pd.DataFrame:
    """Return the fixations of one sentence, a second apart."""
    n = len(words)
    return pd.DataFrame(
        {
            "run_file": NAME, "article": 1, "sentence": 1, "word": list(words), "text": [f"w{w}" for w in words],
            "onset": np.arange(n, dtype=float), "duration": durations or [0.2] * n,
        }
    )  # fmt: skip


# reading


def test_times_are_converted_to_seconds_and_ids_to_numbers(tmp_path: Path) -> None:
    table = read_fixations(events(tmp_path, UNDEFINED, fixation(0, 70, "3"), BETWEEN, fixation(95, 165, "2")))
    assert table.onset.tolist() == [9.537, 9.632]
    assert table.duration.tolist() == [0.07, 0.165]
    assert table[["article", "sentence", "word"]].to_numpy().tolist() == [[3, 1, 3], [3, 1, 2]]
    assert table.text.tolist() == ["w3", "w2"]
    assert set(table.run_file) == {NAME}


@pytest.mark.parametrize("word", ["null", "none", "NaN", '"quoted', "nan"])
def test_words_such_as_null_and_nan_stay_words(tmp_path: Path, word: str) -> None:
    assert read_fixations(events(tmp_path, fixation(0, 70, "1", word=word))).text.tolist() == [word]


def test_fixations_off_the_text_or_on_an_area_without_a_word_are_dropped(tmp_path: Path) -> None:
    path = events(
        tmp_path,
        fixation(0, 70, "1"),
        fixation(90, 80, "."),
        fixation(200, 80, "14", word="n/a"),
        fixation(300, 90, "2"),
    )
    assert read_fixations(path).word.tolist() == [1, 2]


def test_windows_are_times_on_the_screen_also_after_a_time_out(tmp_path: Path) -> None:
    """Reading times are 0 after a time-out, and are not used; a sentence without fixations has a window too."""
    late = fixation(0, 70, "1", "t.03.02", 20000, 28000).replace("\t8000\t28000", "\t0\t28000")
    reader = read_run(
        events(tmp_path, fixation(0, 70, "1"), late, fixation(10, 70, ".", "t.03.03", 30000, 31000))
    )
    assert reader.windows.sentence.tolist() == [1, 2, 3]
    assert reader.windows.onset.tolist() == [9.537, 20.0, 30.0]
    assert reader.windows.duration.tolist() == pytest.approx([5.26, 8.0, 1.0])
    assert reader.article == 3


def test_a_run_without_a_fixation_on_a_word_has_no_article(tmp_path: Path) -> None:
    reader = read_run(events(tmp_path, UNDEFINED, fixation(0, 70, "."), BETWEEN))
    assert reader.article is None
    assert len(reader.fixations) == 0
    assert len(reader.windows) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([fixation(0, 70, "1"), fixation(0, 70, "1", "t.04.01", 20000, 21000)], "has articles 3 and 4"),
        ([fixation(0, 70, "1"), fixation(90, 70, "1", began=9538)], "shows sentence t.03.01 at two times"),
        ([fixation(0, 70, "1", began=9537, ended=9537)], "ends before it begins"),
        ([fixation(0, 70, "0")], "on a word numbered 0"),
        ([fixation(0, 1, "1"), fixation(9, 1, "1")], "its times look like seconds"),
        ([fixation(0, 70, "1"), "oops" + fixation(0, 70, "1")], "row 3: 'oops9537.0' in column 'onset'"),
        ([fixation(0, 70, "1"), fixation(95, 165, "2")[:30]], "is damaged: row 3 has 7 cells but the header 13"),
        ([fixation(0, 70, "1") + "\textra\tmore"], "is damaged: row 2 has 15 cells"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(StoryError, match=message) as error:
        read_fixations(events(tmp_path, *rows))
    assert NAME in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoryError, match="has no column 'SentenceID'"):
        read_fixations(events(tmp_path, header=HEADER.replace("SentenceID", "Sentence")))


def test_absent_empty_and_annexed_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StoryError, match="does not exist"):
        read_fixations(tmp_path / NAME)
    (tmp_path / NAME).touch()
    with pytest.raises(StoryError, match="is empty"):
        read_fixations(tmp_path / NAME)
    (tmp_path / NAME).write_text("../.git/annex/objects/ff/22/MD5E-s1--a.tsv/MD5E-s1--a.tsv\n")
    with pytest.raises(StoryError, match="datalad get"):
        read_fixations(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(b"\xff\xfe\x00onset")
    with pytest.raises(StoryError, match=r"cannot be read as a table"):
        read_fixations(tmp_path / NAME)


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, noise: bytes, cut: int) -> None:
    complete = "\n".join([HEADER, fixation(0, 70, "1"), fixation(95, 165, "2")]).encode()
    for content in (
        noise,
        HEADER.encode() + b"\n" + noise,
        complete[:cut],
        complete[:cut] + noise + complete[cut:],
    ):
        (tmp_path / NAME).write_bytes(content)
        try:
            table = read_fixations(tmp_path / NAME)
        except LangcortexError:
            continue
        assert np.isfinite(table.onset).all()


# saccades


def test_saccades_are_counted_from_row_to_column_and_refixations_on_the_diagonal() -> None:
    moves = saccades(looks(1, 2, 2, 1, 2), 3)
    assert moves.tolist() == [[0, 2, 0], [1, 1, 0], [0, 0, 0]]


def test_durations_are_those_of_the_next_fixation_or_of_both() -> None:
    seen = looks(1, 3, 1, durations=[0.1, 0.2, 0.4])
    assert saccades(seen, 3, "arriving")[[0, 2], [2, 0]].tolist() == [0.2, 0.4]
    assert saccades(seen, 3, "both")[[0, 2], [2, 0]] == pytest.approx([0.3, 0.6])


def test_one_fixation_is_no_saccade_and_no_fixation_is_nan() -> None:
    assert saccades(looks(2), 3).sum() == 0
    assert np.isnan(saccades(looks(), 3)).all()


def test_saccades_refuse_other_words_sentences_and_weights() -> None:
    with pytest.raises(StoryError, match=r"word 4 of sentence t\.01\.01 was fixated, but the sentence has 3"):
        saccades(looks(1, 4), 3)
    with pytest.raises(StoryError, match="within one sentence"):
        saccades(looks(1, 2).assign(sentence=[1, 2]), 3)
    with pytest.raises(StoryError, match="not 'time'"):
        saccades(looks(1), 3, "time")


def test_the_mean_is_over_readers_who_fixated_the_sentence() -> None:
    means = mean_saccades([looks(1, 2), looks(1, 2, 1), looks()], {(1, 1): 2, (1, 2): 2})
    assert means[1, 1].tolist() == [[0, 1], [0.5, 0]]
    assert np.isnan(means[1, 2]).all()


# times of words


def test_words_read_in_order_begin_with_their_first_fixation() -> None:
    seen = looks(1, 2, 3, 2).assign(onset=[10.2, 10.5, 11.0, 11.4])
    onset, duration = word_times(seen, 3, 10.0, 12.0)
    assert onset.tolist() == [10.0, 10.5, 11.0]
    assert (onset + duration).tolist() == [10.5, 11.0, 12.0]


def test_skipped_words_are_spaced_evenly_between_their_neighbours() -> None:
    seen = looks(1, 4).assign(onset=[0.1, 3.0])
    assert word_times(seen, 5, 0.0, 4.0)[0] == pytest.approx([0.0, 1.0, 2.0, 3.0, 3.5])


def test_a_glance_ahead_does_not_change_the_times_of_words_read_in_order() -> None:
    """Word 5 is seen first; its time is dropped, those of 2, 3 and 4 stay."""
    seen = looks(5, 2, 3, 4, 5).assign(onset=[0.1, 0.5, 1.0, 1.5, 2.0])
    assert word_times(seen, 5, 0.0, 3.0)[0] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.25])


def test_fixations_outside_the_window_of_the_sentence_are_ignored() -> None:
    seen = looks(2, 2).assign(onset=[5.0, 7.0])
    assert word_times(seen, 2, 0.0, 4.0)[0].tolist() == [0.0, 2.0]


@given(st.lists(st.tuples(st.integers(1, 12), st.floats(0.0, 5.0)), max_size=30), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_words_never_go_back_in_time_and_fill_the_sentence(
    seen: list[tuple[int, float]], n_words: int
) -> None:
    table = looks(*(w for w, _ in seen)).assign(onset=[t for _, t in seen])
    onset, duration = word_times(table, n_words, 1.0, 4.0)
    assert len(onset) == n_words
    assert (duration >= 0).all()
    assert onset[0] == 1.0
    assert onset[-1] + duration[-1] == pytest.approx(4.0)
    assert onset[1:] == pytest.approx((onset + duration)[:-1])
