"""Tables that cannot be words of a story are refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from langcortex.errors import StoryError
from langcortex.stimulus.story import make_story, read_story
from langcortex.stimulus.word_table import check_unit


def _rows(words, onset, duration):
    rows = [f"{w}\t{t:g}\t{d:g}" for w, t, d in zip(words, onset, duration, strict=True)]
    return "\n".join(["word\tonset\tduration", *rows]) + "\n"


def _read(tmp_path, content, name="w.tsv"):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return read_story({"r": path})


W = [f"w{i}" for i in range(12)]
T = np.arange(12) * 0.4
GARBAGE = {
    "overlapping words": (_rows(W, T, np.full(12, 0.6)), r"word 'w0' \(0 to 0.6 s\) lasts 0.2 s into the next, 'w1' \(11 words do\)"),
    "end times as durations": (_rows(W, T, T + 0.3), "lasts .* s into the next.*Are the durations end times"),
    "negative onset": (_rows(W, T - 1, np.full(12, 0.3)), "word 'w0' begins at -1 s, before the story"),
    "equal onsets": (_rows(W, np.repeat(T[:3], 4), np.zeros(12)), "9 of 12 words begin together with the word before, first 'w1' at 0 s"),
    "a word of two minutes": (_rows(W, T * 500, [*[0.3] * 11, 120]), "word 'w11' lasts 120 s. No word is longer than 60 s"),
    "control characters": (_rows(["a\x07b", *W[1:]], T, np.full(12, 0.3)), r"the word 'a\\x07b' has characters that cannot be read"),
    "replaced characters": (_rows(["caf\ufffd", *W[1:]], T, np.full(12, 0.3)), "has characters that cannot be read"),
    "two columns": ("word\tonset\tduration\tOnset\na\t0\t1\t2\n", "has 2 columns called 'onset'"),
    "two columns of words": ("Word\tonset\tduration\tword\na\t0\t1\tb\n", "has 2 columns called 'word'"),
    "infinite duration": ("word\tonset\tduration\na\t0\tinf\n", "row 2: 'inf' in column 'duration' is not a number of seconds"),
    "a number beyond all": ("word\tonset\tduration\na\t1e400\t1\n", "row 2: '1e400' in column 'onset' is not a number"),
    "negative duration": ("word\tonset\tduration\na\t1\t-1\n", "ends before it begins"),
}  # fmt: skip


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_refused_in_one_sentence(tmp_path, kind):
    content, message = GARBAGE[kind]
    with pytest.raises(StoryError, match=message) as caught:
        _read(tmp_path, content)
    assert "\n" not in str(caught.value)


UNITS = {
    "milliseconds": 1e3,
    "samples of a sound": 44_100.0,
    "units of 100 ns": 1e7,
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("onsets_only", [False, True])
def test_other_units_are_named_once(tmp_path, unit, onsets_only):
    duration = np.zeros(12) if onsets_only else np.full(12, 0.3)
    content = _rows(W, np.round(T * UNITS[unit]), np.round(duration * UNITS[unit]))
    with pytest.raises(StoryError, match=f"the times look like {unit}, not seconds") as caught:
        _read(tmp_path, content)
    assert str(caught.value).count("look like") == 1
    with pytest.raises(StoryError, match=f"look like {unit}"):
        make_story({"r": W}, {"r": np.round(T * UNITS[unit])}, {"r": np.round(duration * UNITS[unit])})


def test_a_textgrid_in_milliseconds_is_named(tmp_path):
    rows = "".join(f'{400 * i}\n{400 * i + 400}\n"{w}"\n' for i, w in enumerate(W))
    grid = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n4800\n<exists>\n1\n"IntervalTier"\n"words"\n0\n4800\n12\n{rows}'
    with pytest.raises(StoryError, match=r"words\.TextGrid: the times look like milliseconds"):
        _read(tmp_path, grid, "words.TextGrid")


def test_a_story_beyond_ten_hours_is_refused_and_slow_ones_are_not():
    with pytest.raises(StoryError, match="look like"):
        check_unit(np.array([0.5, 40_000.5]), np.array([0.3, 0.3]), "here")
    check_unit(np.arange(20.0) * 12, np.full(20, 10.0), "here")  # sentences of ten seconds
    check_unit(np.arange(20.0), np.ones(20), "here")


def test_an_overlap_of_some_milliseconds_is_a_remark(tmp_path):
    story = _read(tmp_path, _rows(W, T, [*[0.3] * 5, 0.41, *[0.3] * 6]))
    assert story.remarks == (f"{tmp_path / 'w.tsv'}: 1 words last up to 10 ms into the next.",)
    np.testing.assert_allclose(story.duration[5], 0.41)


def test_marks_need_no_times(tmp_path):
    story = _read(tmp_path, "word\tonset\tduration\nran\t0\t0.3\n,\tn/a\tn/a\nthen\t0.5\t0.3\n.\tn/a\tn/a\n")
    assert story.text.tolist() == ["ran,", "then."]
    assert story.onset.tolist() == [0.0, 0.5]
