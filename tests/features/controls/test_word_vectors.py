"""Static vectors: how words are looked up, and errors for broken files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langcortex.errors import SettingsError
from langcortex.features.controls.registry import control
from langcortex.features.controls.word_vectors import read_vectors, static_vectors
from langcortex.stimulus.story import Story, make_story

GLOVE = "the 1 0\nfox 0 1\ndo 4 0\nn't 0 2\n. . 9 9\nParis 5 5\nparis 6 6\nthe 8 8\n"


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    return wrote(tmp_path / "glove.txt", GLOVE)


def wrote(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def make_runs(*runs: str) -> Story:
    words = {f"r{i}": text.split() for i, text in enumerate(runs)}
    onsets = {run: np.arange(len(w), dtype=float) for run, w in words.items()}
    return make_story(words, onsets, {run: np.full(len(w), 0.5) for run, w in words.items()})


def test_words_are_looked_up_in_lower_case_without_punctuation_or_in_parts(glove: Path) -> None:
    table = static_vectors(make_runs("“The Fox, don’t the-fox paris! fox's"), file=glove)
    expected = [[1, 0], [0, 1], [2, 1], [0.5, 0.5], [6, 6], [0, 1]]
    assert table.values.tolist() == expected
    assert (table.name, table.combine) == ("static", "mean")


def test_a_clitic_of_its_own_has_a_vector(glove: Path) -> None:
    np.testing.assert_array_equal(
        static_vectors(make_runs("don ’t the"), file=glove, least=0.1).values[1], [0, 2]
    )


def test_case_can_be_kept(glove: Path) -> None:
    values = static_vectors(make_runs("Paris The paris"), file=glove, lower=False).values
    assert values.tolist() == [[5, 5], [1, 0], [6, 6]]


def test_a_word_without_a_vector_has_the_mean_of_its_runs_other_words(glove: Path) -> None:
    table = static_vectors(make_runs("the fox zorblax fox", "do zorblax"), file=glove)
    np.testing.assert_allclose(table.values[2], [1 / 3, 2 / 3])
    np.testing.assert_allclose(table.values[5], [4, 0])


def test_a_file_with_few_of_the_words_is_an_error_unless_accepted(glove: Path) -> None:
    story = make_runs("un deux trois the")
    with pytest.raises(
        SettingsError,
        match=r"glove\.txt has vectors for 25% of the words of story 'story'\. Is it for another language",
    ):
        static_vectors(story, file=glove)
    assert len(static_vectors(story, file=glove, least=0.2).values) == 4
    with pytest.raises(SettingsError, match="has vectors for 0%"):
        static_vectors(make_runs("un deux"), file=glove, least=0.0)


def test_sums_and_means_over_a_sentence_are_those_of_its_words(glove: Path) -> None:
    story = make_runs("the fox. do the fox.")
    assert static_vectors(story, file=glove, combine="sum").to_sentences(story).values.tolist() == [
        [1, 1],
        [5, 1],
    ]
    assert static_vectors(story, file=glove).to_sentences(story).values.tolist() == [
        [0.5, 0.5],
        [5 / 3, 1 / 3],
    ]


def test_an_unknown_combination_is_an_error(glove: Path) -> None:
    with pytest.raises(SettingsError, match=r"static combines words by mean, last, sum.*, not 'max'"):
        static_vectors(make_runs("the"), file=glove, combine="max")


@pytest.mark.parametrize("form", ["glove", "word2vec", "gzip", "npy", "tabs", "crlf"])
def test_every_form_of_a_file_gives_the_same_vectors(tmp_path: Path, form: str) -> None:
    words, values = ["the", "fox", "a b", "\u0085"], np.array([[1.0, -2.5], [0.25, 1e-3], [7, 7], [3, 4]])
    lines = [f"{w} {a} {b}" for w, (a, b) in zip(words, values, strict=True)]
    text = "\n".join(lines) + "\n"
    vocabulary = None
    path = tmp_path / "v.txt"
    if form == "word2vec":
        wrote(path, "4 2\n" + text.replace("\n", " \n"))
    elif form == "gzip":
        path = tmp_path / "v.txt.gz"
        path.write_bytes(gzip.compress(text.encode()))
    elif form == "npy":
        path, vocabulary = tmp_path / "v.npy", wrote(tmp_path / "words.txt", "\n".join(words) + "\n")
        np.save(path, values.astype(np.float32))
    elif form == "tabs":
        wrote(path, text.replace(" 1.0 ", "\t1.0\t"))
    else:
        wrote(path, text.replace("\n", "\r\n") if form == "crlf" else text)
    got = read_vectors(path, [*words, "absent"], vocabulary)
    assert set(got) == set(words)
    for word, vector in zip(words, values, strict=True):
        np.testing.assert_allclose(got[word], vector, rtol=1e-6)


def test_of_two_lines_for_a_word_the_first_counts(glove: Path) -> None:
    assert read_vectors(glove, ["the"])["the"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("the 1 2\nfox 3\n", "line 2 is not a word and 2 numbers. The file breaks off"),
        ("the 1 2\nfox 3 x\n", "line 2 is not a word and 2 numbers"),
        ("the 1 nan\nfox 3 4\n", "line 1 is not a word and 2 numbers"),
        ("3 2\nthe 1 2\nfox 3 4\n", "breaks off after 2 words of 3"),
        ("2 3\nthe 1 2\n", "line 2 is not a word and 3 numbers"),
        ("3 2\n", "breaks off after 0 words of 3"),
        ("the\nfox\n", "line 1 is not a word and 1 numbers"),
        ("/annex/objects/MD5E-s1--x.txt", "has not been downloaded"),
    ],
)
def test_a_broken_file_is_an_error_that_names_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = wrote(tmp_path / "v.txt", text)
    with pytest.raises(SettingsError, match=sentence):
        read_vectors(path, ["the", "fox"])


def test_files_that_are_not_text_are_errors(tmp_path: Path) -> None:
    binary = tmp_path / "v.bin"
    binary.write_bytes(b"3000000 300\nthe \xff\xfe\x00\x12")
    half = tmp_path / "v.txt.gz"
    half.write_bytes(gzip.compress(b"the 1 2\n" * 9999)[:-40])
    for path in (binary, half):
        with pytest.raises(SettingsError, match="cannot be read as a text of word vectors"):
            read_vectors(path, ["the"])
    with pytest.raises(SettingsError, match=r"The file of word vectors .*none\.txt does not exist"):
        read_vectors(tmp_path / "none.txt", ["the"])


def test_a_table_needs_its_words_and_as_many_of_them(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.ones((2, 3)))
    with pytest.raises(
        SettingsError, match=r"is a table without words\. Set vocabulary to a text with its words"
    ):
        read_vectors(path, ["a"])
    three = wrote(tmp_path / "three.txt", "a\nb\nc\n")
    with pytest.raises(SettingsError, match=r"shape \(2, 3\).* has 3 words"):
        read_vectors(path, ["a"], three)
    np.save(path, np.array([[1.0], [np.nan], [3.0]]))
    assert read_vectors(path, ["a"], three)["a"].tolist() == [1.0]
    with pytest.raises(SettingsError, match=r"row 1 \('b'\) has NaN"):
        read_vectors(path, ["b"], three)
    np.save(path, np.array([["x"]] * 3, dtype=object), allow_pickle=True)
    with pytest.raises(SettingsError, match=r"v\.npy has values of type object; numbers are needed"):
        read_vectors(path, ["a"], three)
    path.write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_vectors(path, ["a"], three)


def test_a_study_file_can_name_the_control(glove: Path) -> None:
    story = make_runs("the fox")
    table = control("glove", story, {"glove": {"control": "static", "file": "glove.txt"}}, base=glove.parent)
    assert table.name == "glove"
    assert table.values.tolist() == [[1, 0], [0, 1]]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_file_is_read_or_is_an_error_that_names_it(tmp_path_factory, text: str) -> None:
    path = wrote(tmp_path_factory.mktemp("fuzz") / "v.txt", text.encode(errors="replace").decode())
    try:
        vectors = read_vectors(path, text.split())
    except SettingsError as error:
        message = str(error)
    else:
        message = str(path)
        assert all(np.isfinite(v).all() for v in vectors.values())
    assert str(path) in message


@pytest.mark.parametrize("word", ["", "—", "'", "’’", "n't", "a_b-c", "l'heure", "\u200b", "..."])
def test_odd_words_never_break_the_lookup(glove: Path, word: str) -> None:
    story = make_runs("the fox fox")
    text = story.text.astype(object)
    text[1] = word
    odd = Story(
        story.name, story.ids, text, story.onset, story.duration, story.run, story.sentence, story.before
    )
    assert np.isfinite(static_vectors(odd, file=glove).values).all()
