"""Written text: every word has the times of its labels, and words that do not align are listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langcortex.errors import StoryError
from langcortex.stimulus.story import Story, make_story, read_story
from langcortex.stimulus.written_text import add_sentence_marks, align_written_text


def make_labels(*words: str, run: str = "a", sentence: list[int] | None = None) -> Story:
    """Make a story of one word per second."""
    n = len(words)
    return make_story(
        {run: words},
        {run: np.arange(n, dtype=float)},
        {run: np.full(n, 0.8)},
        sentence={run: sentence or [0] * n},
    )


def join_story(story: Story) -> str:
    return story.join_words(0, len(story))[0]


def test_sentences_get_a_capital_and_a_full_stop_and_i_becomes_a_capital() -> None:
    story = add_sentence_marks(make_labels("then", "i", "slept", "did", "you?", sentence=[0, 0, 0, 1, 1]))
    assert story.text.tolist() == ["Then", "I", "slept.", "Did", "you?"]
    assert story.ids.tolist() == [f"a/word-{i:04d}" for i in range(5)]


def test_a_chinese_sentence_ends_with_a_chinese_full_stop() -> None:
    assert add_sentence_marks(make_labels("我", "看")).text.tolist() == ["我", "看。"]


def test_full_stops_are_not_put_at_pauses(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("word\tonset\tduration\nhe\t0\t1\n#\t1\t1\nslept\t2\t1\n", encoding="utf-8")
    with pytest.raises(StoryError, match="would be put at pauses"):
        add_sentence_marks(read_story({"a": path}))


def test_a_text_gives_case_and_punctuation_and_the_labels_give_the_times() -> None:
    story, odd = align_written_text(
        make_labels("he", "slept", "she", "did", "not"), {"a": "He slept. “She did not!”"}
    )
    assert story.text.tolist() == ["He", "slept.", "“She", "did", "not!”"]
    assert story.onset.tolist() == [0, 1, 2, 3, 4]
    assert story.sentence.tolist() == ["a/sentence-000"] * 2 + ["a/sentence-001"] * 3
    assert join_story(story) == "He slept. “She did not!”"
    assert len(odd) == 0


def test_a_contraction_covers_both_of_its_labels() -> None:
    story, odd = align_written_text(make_labels("i", "didn", "t", "go"), {"a": "I didn’t go."})
    assert story.text.tolist() == ["I", "didn’t", "go."]
    assert story.covers is not None
    assert story.covers.tolist() == ["a/word-0000", "a/word-0001 a/word-0002", "a/word-0003"]
    assert (story.onset[1], story.duration[1]) == (1.0, pytest.approx(1.8))
    assert len(odd) == 0


def test_a_number_in_digits_covers_the_words_that_were_said() -> None:
    story, odd = align_written_text(
        make_labels("asteroid", "six_hundred_twelve", "it", "was"), {"a": "Asteroid 612, it was."}
    )
    assert story.text.tolist() == ["Asteroid", "612,", "it", "was."]
    assert odd.what.tolist() == ["spelt otherwise"]
    story, _ = align_written_text(
        make_labels("asteroid", "three", "two", "five", "it"), {"a": "Asteroid 325 it"}
    )
    assert story.covers is not None
    assert story.covers[1] == "a/word-0001 a/word-0002 a/word-0003"


def test_two_words_of_the_text_that_share_a_label_are_one_word() -> None:
    story, odd = align_written_text(make_labels("see", "someone", "there"), {"a": "See some one there."})
    assert story.text.tolist() == ["See", "some one", "there."]
    assert len(odd) == 0


def test_text_without_a_time_is_read_but_is_no_word_of_the_story() -> None:
    story, odd = align_written_text(make_labels("he", "slept", "well"), {"a": "He (they say) slept well."})
    assert story.text.tolist() == ["He", "slept", "well."]
    assert join_story(story) == "He (they say) slept well."
    assert odd[["what", "text"]].to_numpy().tolist() == [
        ["text without a time", "(they"],
        ["text without a time", "say)"],
    ]


def test_labels_without_text_stay_where_they_were_timed() -> None:
    story, odd = align_written_text(make_labels("he", "um", "slept", "well"), {"a": "He slept well."})
    assert story.text.tolist() == ["He", "um", "slept", "well."]
    assert odd[["what", "label", "onset", "label_id"]].to_numpy().tolist() == [
        ["label without a text", "um", 1.0, "a/word-0001"]
    ]


def test_another_spelling_is_the_same_word_and_is_listed() -> None:
    story, odd = align_written_text(make_labels("the", "coloured", "pencil"), {"a": "The colored pencil."})
    assert story.text.tolist() == ["The", "colored", "pencil."]
    assert odd.what.tolist() == ["spelt otherwise"]


def test_the_text_of_another_story_is_an_error() -> None:
    with pytest.raises(StoryError, match="Only 0 of the 3 timed words of run 'a' are in its text"):
        align_written_text(make_labels("he", "slept", "well"), {"a": "Once upon a time."})


def test_a_run_without_a_text_is_an_error() -> None:
    with pytest.raises(StoryError, match=r"Run 'a' has no text\. The texts are for: b"):
        align_written_text(make_labels("he"), {"b": "He."})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["the", "fox", "can", "t", "run", "six_two", "é"]), min_size=1, max_size=30),
    st.data(),
)
def test_every_label_is_covered_once_and_times_stay_in_order(words: list[str], data: st.DataObject) -> None:
    """Whatever the text adds, every label is covered by exactly one word."""
    extra = data.draw(st.lists(st.sampled_from(["(so)", "—", "Fox!", "A."]), max_size=5))
    text = " ".join([*words, *extra])
    story, _ = align_written_text(make_labels(*words), {"a": text})
    assert story.covers is not None
    owned = [label for cell in story.covers.tolist() for label in cell.split()]
    assert owned == [f"a/word-{i:04d}" for i in range(len(words))]
    assert (np.diff(story.onset) > 0).all()


def _timed(words):
    return make_story(
        {"r": words},
        {"r": np.arange(float(len(words)))},
        {"r": np.full(len(words), 0.5)},
        sentence={"r": words},
    )


@pytest.mark.parametrize(
    ("labels", "text", "sentences"),
    [
        (["描写", "原始", "森林", "的", "书", "他", "走", "了"], "《描写原始森林的书》。\n“他走了。”", ["《描写原始森林的书》。", "“他走了。”"]),
        (["325", "326", "号", "小行星"], "325、326号小行星。", ["325、326号小行星。"]),
        (["星星", "325", "326", "号"], "星星325326号。", ["星星325326号。"]),
        (["彼", "は", "カメラ", "を", "見た"], "彼はカメラを見た。", ["彼はカメラを見た。"]),
        (["ฉัน", "ไป", "ที่", "นี่"], "ฉันไปที่นี่", ["ฉันไปที่นี่"]),
    ],
)  # fmt: skip
def test_scripts_without_blanks_keep_the_words_of_the_labels(labels, text, sentences):
    aligned, unmatched = align_written_text(_timed(labels), {"r": text})
    assert len(aligned) == len(labels)
    assert len(unmatched) == 0
    assert aligned.covers.tolist() == [f"r/word-{i:04d}" for i in range(len(labels))]
    assert aligned.sentences.text.tolist() == sentences
    assert "".join(sentences) == text.replace("\n", "")


def test_abbreviations_in_a_text_do_not_end_sentences():
    text = "Mr. Hale met Dr. J. R. Voss at 9 a.m. in the U.S. embassy. He left."
    aligned, _ = align_written_text(_timed(text.lower().replace(".", "").split()), {"r": text})
    assert aligned.sentences.text.tolist() == [text[:-9], "He left."]


def test_the_chinese_little_prince_keeps_its_16009_words(shared_data):
    table = shared_data / "real2" / "lpp_cn" / "lppCN_word_information_sent_info.csv"
    if not table.is_file():
        pytest.skip(f"the Chinese words are absent: no file {table}")
    story = read_story({"all": table})
    assert (story.before != "").sum() == 5  # between the numbers of six asteroids
    rng = np.random.default_rng(3)
    texts = {}
    for run in story.runs:
        part = story.take([run])
        ends = np.append(part.sentence[1:] != part.sentence[:-1], True)
        marks = np.where(ends, rng.choice(["，", "。", "！”“", "\n"], len(part)), "")
        texts[run] = "".join(f"{word}{mark}" for word, mark in zip(part.text, marks, strict=True))
    aligned, unmatched = align_written_text(story, texts)
    assert len(aligned) == 16_009
    assert len(unmatched) == 0
    assert aligned.covers.tolist() == story.ids.tolist()
    np.testing.assert_array_equal(aligned.onset, story.onset)
    bare = ["".join(c for c in word if c.isalnum()) for word in aligned.text]
    assert bare == ["".join(c for c in word if c.isalnum()) for word in story.text]
