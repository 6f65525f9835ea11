"""Gentle: its output is read as a story, with the text of the transcript and no word lost."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.datasets.gentle import PAUSE, read_alignment, read_gentle_story
from langcortex.errors import StoryError

TRANSCRIPT = 'It was "odd." Twenty-one dogs\u2019 barks — and Flumph! said: why?\n'
# word, aligned, start, end; None where Gentle did not hear it
WORDS: list[tuple[str, str | None, float | None, float | None]] = [
    ("It", "it", 1.0, 1.2),
    ("was", "was", 1.2, 1.5),
    ("odd", "odd", 1.5, 1.9),
    ("Twenty", "twenty", 2.4, 2.7),
    ("one", "one", 2.7, 2.9),
    ("dogs", "dogs", 2.9, 3.2),
    ("barks", None, None, None),
    ("and", "and", 4.0, 4.2),
    ("Flumph", "<unk>", 4.2, 4.6),
    ("said", "said", 5.0, 5.2),
    ("why", "why", 5.2, 5.4),
]


def as_json(folder: Path, words: Any = WORDS, transcript: str = TRANSCRIPT) -> Path:
    """Write align.json as Gentle's transcription.py does."""
    rows: list[dict[str, Any]] = []
    stop = 0
    for word, aligned, start, end in words:
        begin = transcript.index(word, stop)
        stop = begin + len(word)
        row: dict[str, Any] = {
            "case": "not-found-in-audio",
            "startOffset": begin,
            "endOffset": stop,
            "word": word,
        }
        if start is not None:
            phones = [{"duration": 0.1, "phone": "oov_S"}]
            row |= {"case": "success", "alignedWord": aligned, "start": start, "end": end, "phones": phones}
        rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"transcript": transcript, "words": rows}, sort_keys=True, indent=4)
    (folder / "align.json").write_text(text, encoding="utf-8")
    return folder


def as_csv(folder: Path, words: Any = WORDS, transcript: str | None = None) -> Path:
    """Write align.csv as Gentle's to_csv does: no header, empty cells where nothing was heard."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join("" if c is None else str(c) for c in row) for row in words]
    (folder / "align.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    if transcript is not None:
        (folder / "transcript.txt").write_text(transcript, encoding="utf-8")
    return folder


def read(folder: Path, sentences: str = "auto", music: Any = ()) -> Any:
    return read_gentle_story({"run": folder}, {"run": music}, "tale", sentences)


def test_words_are_as_in_the_transcript_with_adjacent_punctuation(
    tmp_path: Path,
) -> None:
    story, _ = read(as_json(tmp_path))
    assert story.text.tolist() == [
        "It", "was", '"odd."', "Twenty-", "one", "dogs\u2019", "and", "Flumph!", "said:", "why?",
    ]  # fmt: skip
    assert story.onset.tolist() == [1.0, 1.2, 1.5, 2.4, 2.7, 2.9, 4.0, 4.2, 5.0, 5.2]
    np.testing.assert_allclose(story.duration[:3], [0.2, 0.3, 0.4])
    assert story.ids[0] == "run/word-0000"
    assert story.onset.dtype == np.float64


def test_a_word_that_was_not_heard_is_text_without_a_row(tmp_path: Path) -> None:
    story, untimed = read(as_json(tmp_path))
    assert story.before[6] == " barks — "
    assert "dogs\u2019 barks — and Flumph!" in story.join_words(0, len(story))[0]
    assert untimed.to_dict("records") == [{"run": "run", "word": "barks", "why": "not heard"}]


def test_the_text_of_a_story_is_its_transcript(tmp_path: Path) -> None:
    story, _ = read(as_json(tmp_path))
    assert story.join_words(0, len(story))[0] == TRANSCRIPT.strip()


def test_a_word_unknown_to_the_aligner_is_kept_as_written(tmp_path: Path) -> None:
    for folder in (as_json(tmp_path / "json"), as_csv(tmp_path / "csv")):
        assert any("Flumph" in word for word in read(folder)[0].text)


def test_sentences_end_at_punctuation_and_phrases_at_silences(tmp_path: Path) -> None:
    story, _ = read(as_json(tmp_path))
    assert [s.rsplit("-", 1)[1] for s in story.sentence] == ["000"] * 3 + ["001"] * 5 + ["002"] * 2
    # silent from 1.9 to 2.4 and from 4.6 to 5.0 s; from 3.2 to 4.0 somebody speaks a word that was not heard
    assert [p.rsplit("-", 1)[1] for p in story.phrase] == ["000"] * 3 + ["001"] * 5 + ["002"] * 2
    words = [("a", "a", 0.0, 1.0), ("b", "b", 1.0 + PAUSE, 2.0), ("c", "c", 2.0 + PAUSE - 0.01, 3.0)]
    story, _ = read(as_json(tmp_path / "b", words, "a b c"), "pauses")
    assert story.sentence.tolist() == ["run/sentence-000", "run/sentence-001", "run/sentence-001"]


def test_a_sentence_ends_even_if_its_last_word_was_not_heard(tmp_path: Path) -> None:
    words = [("One", "one", 0.0, 0.5), ("two", None, None, None), ("Three", "three", 1.0, 1.5)]
    story, _ = read(as_json(tmp_path, words, "One two. Three."))
    assert story.sentence.tolist() == ["run/sentence-000", "run/sentence-001"]
    assert story.before.tolist() == ["", " two. "]


def test_words_aligned_to_music_are_text_without_a_row(tmp_path: Path) -> None:
    story, untimed = read(as_json(tmp_path), music=[(0.0, 1.2), (4.0, 4.2)])
    assert story.text[0] == "was"
    assert story.before[0] == "It "
    assert story.before[story.text.tolist().index("Flumph!")] == " barks — and "
    assert untimed["why"].tolist() == ["put into music", "not heard", "put into music"]


def test_a_title_before_the_first_word_is_kept(tmp_path: Path) -> None:
    words = [("Hi", "hi", 0.0, 0.5)]
    assert read(as_json(tmp_path / "a", words, ' [note] "Hi" '))[0].before.tolist() == [" [note] "]
    story = read(as_json(tmp_path / "b", words, '\n"Hi"'))[0]
    assert (story.before.tolist(), story.text.tolist()) == ([""], ['"Hi"'])
    assert read(as_json(tmp_path / "c", words, '"Hi'))[0].text.tolist() == ['"Hi']


def test_words_that_are_not_in_the_transcript_are_left_out(tmp_path: Path) -> None:
    folder = as_json(tmp_path)
    alignment = json.loads((folder / "align.json").read_text())
    alignment["words"].insert(
        1, {"case": "not-found-in-transcript", "start": 1.1, "end": 1.2, "word": "uh", "phones": []}
    )
    (folder / "align.json").write_text(json.dumps(alignment))
    assert len(read(folder)[0]) == 10


def test_a_table_with_its_transcript_gives_the_same_story(tmp_path: Path) -> None:
    a, _ = read(as_json(tmp_path / "json"))
    b, _ = read(as_csv(tmp_path / "csv", transcript=TRANSCRIPT))
    for name in ("ids", "text", "before", "onset", "duration", "sentence", "phrase"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()


def test_a_table_alone_has_words_and_pauses_but_no_punctuation(tmp_path: Path) -> None:
    story, untimed = read(as_csv(tmp_path))
    assert story.text.tolist()[:3] == ["It", "was", "odd"]
    assert story.before[6] == " barks "
    assert len(story.sentences) == 3
    assert untimed["word"].tolist() == ["barks"]
    with pytest.raises(StoryError, match=r"no transcript with punctuation.*fetch align\.json"):
        read(tmp_path, "punctuation")
    with pytest.raises(StoryError, match="no sentence column"):
        read(tmp_path, "column")


def test_align_json_is_preferred_to_align_csv(tmp_path: Path) -> None:
    as_csv(tmp_path, [("other", "other", 0.0, 1.0)])
    assert read(as_json(tmp_path))[0].text[0] == "It"


def test_words_such_as_null_and_nan_stay_words(tmp_path: Path) -> None:
    words = [(w, w, i * 1.0, i + 0.5) for i, w in enumerate(("null", "NA", "nan", "none"))]
    assert read(as_csv(tmp_path, words))[0].text.tolist() == ["null", "NA", "nan", "none"]


# damaged files


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("align.json", b'{"transcript": "a b", "words": [{"case"', "not what Gentle writes"),
        ("align.json", b"[]", "not what Gentle writes"),
        ("align.json", b'{"words": []}', "not what Gentle writes.*transcript"),
        ("align.json", b'{"transcript": "a", "words": []}', "has no words"),
        ("align.json", b'{"transcript": 3, "words": []}', "has no transcript"),
        ("align.json", b'{"transcript": "a", "words": [{"word": "a"}]}', "startOffset"),
        ("align.json", b"", r"empty \(0 bytes\)"),
        ("align.json", b"../../.git/annex/objects/aa/bb/MD5E-s9--c.json\n", "datalad get"),
        ("align.json", b"\xff\xfe\x00", "not UTF-8"),
        ("align.csv", b"a,a,0.1,0.2\nb,b,0.3\n", "row 2: 3 cells"),
        ("align.csv", b"a,a,soon,0.2\n", "row 1: 'soon' to '0.2' is no time"),
        ("align.csv", b"a,a,nan,0.2\n", "row 1: 'nan' to '0.2' is no time"),
        ("align.csv", b"a,,,\nb,,,\n", "none of the 2 words has a time"),
        ("align.csv", b"a,a,0.5,0.2\n", "ends before it begins"),
        ("align.csv", b"a,a,0.5,0.7\nb,b,0.1,0.2\n", "begins before the word in front"),
        ("align.csv", b"\n", "has no words"),
        ("other.csv", b"a,a,0.1,0.2\n", "neither align.json nor align.csv.*datalad get"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StoryError, match=sentence) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_offsets_that_do_not_fit_the_transcript_are_refused(tmp_path: Path) -> None:
    folder = as_json(tmp_path)
    alignment = json.loads((folder / "align.json").read_text())
    alignment["transcript"] = "X" + alignment["transcript"]
    (folder / "align.json").write_text(json.dumps(alignment))
    with pytest.raises(StoryError, match="'It' is not at position 0"):
        read(folder)


def test_a_transcript_of_another_story_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoryError, match=r"transcript\.txt: the word 'was' of align\.csv does not come next"):
        read(as_csv(tmp_path, transcript="It is odd."))


def test_a_story_without_runs_is_refused() -> None:
    with pytest.raises(StoryError, match="no runs"):
        read_gentle_story({}, {}, "tale")


_word = st.text(alphabet="abcé", min_size=1, max_size=4)
_gap = st.sampled_from([" ", "  ", ", ", '." ', " — ", "-", "\n\n", ' "', "... "])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_gap, _word, st.booleans()), min_size=1, max_size=8))
def test_no_character_between_the_first_and_last_timed_word_is_lost(
    tmp_path: Path, parts: list[tuple[str, str, bool]]
) -> None:
    words, transcript = [], ""
    for i, (gap, word, is_heard) in enumerate(parts):
        words.append((word, word, float(i), i + 0.5) if is_heard or i == 0 else (word, None, None, None))
        transcript += (gap if i else "") + word
    story, untimed = read(as_json(tmp_path, words, transcript))
    assert transcript.startswith(story.join_words(0, len(story))[0])
    assert len(story) + len(untimed) == len(words)
    aligned = read_alignment(tmp_path)
    assert "".join(b + t for b, t in zip(aligned.before, aligned.text, strict=True)) == transcript


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from(["align.json", "align.csv"]))
def test_any_bytes_give_a_story_or_an_error(tmp_path: Path, content: bytes, name: str) -> None:
    for old in ("align.json", "align.csv"):
        (tmp_path / old).unlink(missing_ok=True)
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(StoryError):
        assert len(read(tmp_path)[0])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2000))
def test_a_truncated_file_gives_an_error(tmp_path: Path, at: int) -> None:
    folder = as_json(tmp_path)
    complete = (folder / "align.json").read_bytes()
    (folder / "align.json").write_bytes(complete[: at % (len(complete) - 1)])
    with pytest.raises(StoryError):
        read(folder)


@pytest.mark.parametrize(("start", "end"), [(-1.0, 0.2), (1.0, 1e7)])
def test_times_that_no_word_has_are_an_error(tmp_path: Path, start: float, end: float) -> None:
    words = [{"word": "a", "startOffset": 0, "endOffset": 1, "start": start, "end": end}]
    (tmp_path / "align.json").write_text(json.dumps({"transcript": "a", "words": words}))
    with pytest.raises(StoryError, match=r"is not what Gentle writes .*no word lasts from"):
        read_alignment(tmp_path)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"transcript": "a", "words": [{"word": "a", "startOffset": 1e400}]}']
)
def test_what_json_can_hold_and_gentle_never_writes_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "align.json").write_text(content)
    with pytest.raises(StoryError, match="is not what Gentle writes"):
        read_alignment(tmp_path)
