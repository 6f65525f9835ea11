"""Le Petit Prince: labels are repaired to words as a model should read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langcortex.datasets.lpp.text import find_phrases, make_story, phrase_numbers, repair_label, repair_labels
from langcortex.errors import StoryError
from langcortex.stimulus.story import Story, unit_ids
from langcortex.stimulus.story import make_story as story_of


def labels(*rows: tuple[str, float, float], sentence: int = 0, phrase: int = 0) -> pd.DataFrame:
    """Return the labels of one run: (label, onset, end)."""
    return pd.DataFrame(
        {
            "id": [f"section1/row-{i:05d}" for i in range(len(rows))],
            "run": "section1",
            "label": [r[0] for r in rows],
            "onset": [r[1] for r in rows],
            "end": [r[2] for r in rows],
            "sentence": sentence,
            "phrase": phrase,
        }
    )


def read_out(words: pd.DataFrame) -> str:
    return "".join(words["before"] + words["text"])


@pytest.mark.parametrize(
    ("label", "before", "text"),
    [
        ("fox", "the", "fox"),
        ("TRUE", "s", "true"),
        ("FALSE", "a", "false"),
        ("six_hundred_twelve", "b", "six hundred twelve"),
        ("three_hundred_twenty-five", "asteroid", "three hundred twenty-five"),
        ("\\` where", "this", "where"),
        ("i\\` d", "time", "i'd"),
        ("it\\` ll", "again", "it'll"),
        ("na\\ive", "so", "naïve"),
        ('na\\i"ve', "so", "naïve"),
        ("volcanoes;", "active", "volcanoes"),
        ("i.", "flower", "i"),
        ("hasnt", "it", "hasn't"),
        ("cant", "i", "can't"),
        ("elephant", "an", "elephant"),
        ("want", "i", "want"),
        ("time—well", "third", "time—well"),
        ("flowers—", "that", "flowers—"),
        (",", "them", ""),
        ("—", "mean", ""),
        ("t", "didn", "'t"),
        ("nt", "did", "n't"),
        ("s", "", "s"),
        (" of", "", "of"),
    ],
)
def test_each_defect_of_the_english_labels_is_repaired(label: str, before: str, text: str) -> None:
    assert repair_label(label, before, "EN")[0] == text


def test_a_reason_is_given_exactly_when_the_text_differs() -> None:
    for label in ("fox", "time—well", "can't", "325"):
        assert repair_label(label, "the", "EN") == (label, "")
    for label in ("TRUE", "i.", ",", "", "t", "didnt"):
        assert repair_label(label, "the", "EN")[1]


@pytest.mark.parametrize(
    ("label", "text"),
    [("Â", "à"), ("ll", "il"), ("3251", "325"), ("...", ""), ("j'", "j'"), ("«Tu", "«Tu"), ("s", "s")],
)
def test_french_labels_have_their_own_repairs(label: str, text: str) -> None:
    assert repair_label(label, "mot", "FR")[0] == text


def test_contractions_stay_two_words_that_read_as_one() -> None:
    words, repairs = repair_labels(
        labels(("it", 0, 0.1), ("s", 0.1, 0.2), ("not", 0.2, 0.4), ("didn", 0.4, 0.6), ("t", 0.6, 0.7)), "EN"
    )
    assert words["text"].tolist() == ["it", "'s", "not", "didn", "'t"]
    assert read_out(words) == "it's not didn't"
    assert repairs["row"].tolist() == ["section1/row-00001", "section1/row-00004"]


def test_a_letter_after_a_pause_is_no_contraction() -> None:
    words, _ = repair_labels(labels(("asteroid", 0, 0.5), ("d", 0.8, 1.0)), "EN")
    assert read_out(words) == "asteroid d"


def test_an_empty_second_half_joins_its_word_and_lengthens_it() -> None:
    words, repairs = repair_labels(
        labels(("i", 0, 0.1), ("can't", 0.1, 0.25), ("", 0.25, 0.4), ("see", 0.4, 0.6)), "EN"
    )
    assert read_out(words) == "i can't see"
    assert words[["onset", "end"]].iloc[1].tolist() == [0.1, 0.4]
    assert words["covers"].iloc[1] == "section1/row-00001 section1/row-00002"
    assert repairs["why"].tolist() == ["the second half of the contraction before it"]


def test_an_empty_half_of_a_contraction_without_an_apostrophe_is_joined_too() -> None:
    words, _ = repair_labels(labels(("dont", 0.1, 0.25), ("", 0.25, 0.4)), "EN")
    assert words["text"].tolist() == ["don't"]
    assert words["end"].tolist() == [0.4]


def test_an_empty_row_elsewhere_is_dropped_and_lengthens_nothing() -> None:
    words, repairs = repair_labels(
        labels(("mot", 0, 0.2), ("", 0.2, 0.4), ("can't", 0.4, 0.5), ("", 0.9, 1.0)), "EN"
    )
    assert words["end"].tolist() == [0.2, 0.5]
    assert repairs["why"].tolist() == ["no text", "no text"]


def test_french_elisions_and_hyphens_have_no_space() -> None:
    words, _ = repair_labels(
        labels(*((w, i, i + 1) for i, w in enumerate(["j'", "ai", "dit", "-il", "qu'", "un"]))), "FR"
    )
    assert read_out(words) == "j'ai dit-il qu'un"


def test_chinese_words_have_no_space() -> None:
    words, _ = repair_labels(labels(("小", 0, 1), ("王子", 1, 2)), "CN")
    assert read_out(words) == "小王子"


def test_a_section_without_a_word_is_refused() -> None:
    with pytest.raises(StoryError, match="None of the 2 labels"):
        repair_labels(labels(("", 0, 1), (",", 1, 2)), "EN")


def test_the_table_of_labels_is_not_changed() -> None:
    table = labels(("TRUE", 0, 1), ("can't", 1, 2), ("", 2, 3))
    before = table.copy()
    repair_labels(table, "EN")
    pd.testing.assert_frame_equal(table, before)


@given(st.lists(st.text(st.sampled_from("abist'_-\\`i. ,\"nT"), max_size=9), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_every_label_is_covered_once_or_dropped_with_a_reason(texts: list[str]) -> None:
    rows = labels(*((label, float(i), float(i + 1)) for i, label in enumerate(texts)))
    try:
        words, repairs = repair_labels(rows, "EN")
    except StoryError:
        return
    covered = [i for ids in words["covers"] for i in ids.split()]
    assert len(covered) == len(set(covered))
    assert set(rows["id"]) - set(covered) <= set(repairs["row"])
    assert (words["text"].str.strip() != "").all()


def test_a_story_numbers_words_and_keeps_the_numbers_of_sentences() -> None:
    words, _ = repair_labels(labels(("the", 0, 0.5), ("fox", 0.5, 1.0), sentence=3, phrase=7), "EN")
    story = make_story("little", {"section1": words}, "sentence", {"section1": 2})
    assert story.ids.tolist() == ["section1/word-0000", "section1/word-0001"]
    assert set(story.sentence) == {"section1/sentence-003"}
    assert story.phrase is not None
    assert set(story.phrase) == {"section1/phrase-007"}
    assert story.duration.tolist() == [0.5, 0.5]
    assert story.left_out == {"section1": 2}


def test_a_story_without_pauses_has_no_phrases() -> None:
    words, _ = repair_labels(labels(("the", 0, 0.5), phrase=-1), "EN")
    assert make_story("little", {"section1": words}, "sentence", {}).phrase is None


def grouped() -> Story:
    """Two pause groups: 0 to 1 s and 2 to 3 s."""
    plain = story_of(
        {"section1": ["a", "b", "c"]},
        {"section1": np.array([0.0, 0.5, 2.0])},
        {"section1": np.array([0.5, 0.5, 1.0])},
    )
    return replace(plain, phrase=unit_ids("section1", "phrase", np.array([0, 0, 1])))


def test_a_moment_belongs_to_the_pause_group_around_it_or_the_nearest_one() -> None:
    moments = np.array([-1.0, 0.2, 1.4, 1.6, 2.5, 9.0])
    assert find_phrases(grouped(), "section1", moments).tolist() == [0, 0, 0, 1, 1, 1]
    assert phrase_numbers(grouped(), "section1").tolist() == [0, 0, 1]
