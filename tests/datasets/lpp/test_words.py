"""Le Petit Prince: annotation files, as published and damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.datasets.lpp.words import (
    leaves_of_tokens,
    read_coreference,
    read_dependencies,
    read_prosody,
    read_trees,
    read_words,
)
from langcortex.errors import StoryError

HEADER = ",word,lemma,onset,offset,logfreq,pos,section,top_down,bottom_up,left_corner"
READERS = [read_words, read_trees, read_dependencies, read_coreference, read_prosody]
EN = Path("lpp/annotation/EN")


def table(rows: list[str], ending: str = "\r\n") -> bytes:
    """Write a word table as published: an unnamed first column, CRLF."""
    return (ending.join([HEADER, *rows]) + ending).encode()


ROWS = [f"{i},null,null,0.5,0.9,5.8,NOUN,{i + 1},3,1,2" for i in range(9)]
TREES = "(S (NP (DT the) (NN fox)) (VP (VBD said)))\n(S (NP (CD 325)\u00a0(CD 326)))\n"
RELATIONS = (
    "det(fox-2, the-1)\nnsubj(said-3, fox-2)\nroot(ROOT-0, said-3)\n\nroot(ROOT-0, 325\u00a0326-1)\n\n"
)
MENTIONS = "T1\tMention 0 7\tthe fox\nT2\tMention 4 7\tfox\nT3\tMention 8 11\tsay\n*\tCoreference T1 T2\n"
PROSODY = "time,f0,intensity,section\n0.00,0,0.01,1\n0.01,106.11,0.02,1\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lppEN_file.csv"


def test_words_keep_null_as_a_word_and_numbers_as_numbers(file: Path) -> None:
    file.write_bytes(table(ROWS))
    words = read_words(file)
    assert words["word"].tolist() == ["null"] * 9
    assert words["run"].tolist() == [f"section{k}" for k in range(1, 10)]
    assert words["onset"].dtype == words["offset"].dtype == np.float64
    assert words["logfreq"].iloc[0] == 5.8
    assert "" not in words


def test_an_empty_number_is_nan_not_0(file: Path) -> None:
    file.write_bytes(table([ROWS[0].replace("5.8", ""), *ROWS[1:]]))
    assert np.isnan(read_words(file)["logfreq"].iloc[0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        (ROWS[:8], "has sections 1, 2, 3, 4, 5, 6, 7, 8; 1 to 9 are needed"),
        ([*ROWS, ROWS[0]], "each in one piece"),
        ([*ROWS[:8], "8,null"], "row 10 has 2 cells but the header 11"),
        ([ROWS[0].replace("0.5", "half"), *ROWS[1:]], "row 2: 'half' in column 'onset'"),
        ([ROWS[0].replace("0.9", ""), *ROWS[1:]], "row 2: '' in column 'offset'"),
        ([ROWS[0].replace("0.9", "0.1"), *ROWS[1:]], "row 2: time runs backwards at 'null'"),
        ([ROWS[0], ROWS[0].replace("0.5", "0.4"), *ROWS[1:]], "row 3: time runs backwards"),
    ],
)
def test_a_damaged_word_table_is_refused(file: Path, rows: list[str], message: str) -> None:
    file.write_bytes(table(rows))
    with pytest.raises(StoryError, match=message):
        read_words(file)


def test_a_missing_column_is_named(file: Path) -> None:
    file.write_bytes(table(ROWS).replace(b"onset", b"start"))
    with pytest.raises(StoryError, match="no column 'onset'; its columns are: , word"):
        read_words(file)


def test_a_duplicate_column_is_refused(file: Path) -> None:
    file.write_bytes(table(ROWS).replace(b"lemma", b"word"))
    with pytest.raises(StoryError, match="two columns called 'word'"):
        read_words(file)


def test_trees_have_their_leaves_and_brackets(file: Path) -> None:
    file.write_text(TREES, encoding="utf-8")
    first, second = read_trees(file)
    assert first.leaves == ("the", "fox", "said")
    assert first.text == "(S (NP (DT the) (NN fox)) (VP (VBD said)))"
    assert second.leaves == ("325", "326")


@pytest.mark.parametrize(
    "line",
    [
        "(S (NN fox)",
        "(S (NN fox)) (S",
        "(S (NN fox)) (S (NN ran))",
        "fox",
        "(S (NN fox)))",
        "(S )",
        "word,1,2",
    ],
)
def test_an_incomplete_tree_is_refused_with_its_line(file: Path, line: str) -> None:
    file.write_text(TREES + line + "\n", encoding="utf-8")
    with pytest.raises(StoryError, match="line 3 is not a complete tree"):
        read_trees(file)


def test_dependencies_count_from_1_and_0_is_the_root(file: Path) -> None:
    file.write_text(RELATIONS, encoding="utf-8")
    relations = read_dependencies(file)
    assert relations["sentence"].tolist() == [0, 0, 0, 1]
    assert relations.iloc[0].tolist() == [0, "det", 2, 1, "fox", "the"]
    assert relations["head"].tolist() == [2, 3, 0, 0]
    assert relations["head_word"].iloc[2] == "ROOT"


def test_consecutive_blank_lines_are_no_sentence(file: Path) -> None:
    file.write_text("\n\n" + RELATIONS.replace("\n\n", "\n\n\n"), encoding="utf-8")
    assert read_dependencies(file)["sentence"].tolist() == [0, 0, 0, 1]


def test_a_copied_token_has_the_position_of_its_original(file: Path) -> None:
    file.write_text("conj:and(made-2, made-2')\n", encoding="utf-8")
    assert read_dependencies(file)[["head", "dependent"]].iloc[0].tolist() == [2, 2]


@pytest.mark.parametrize("line", ["det(fox-2, the-1", "det fox the", "root(ROOT, fox-1)"])
def test_a_line_that_is_no_relation_is_refused(file: Path, line: str) -> None:
    file.write_text(RELATIONS + line, encoding="utf-8")
    with pytest.raises(StoryError, match="line 7 is not a relation"):
        read_dependencies(file)


def test_joined_numbers_are_one_token_and_several_leaves(file: Path) -> None:
    file.write_text(
        "case(325\u00a0326\u00a0327-2, of-1)\ncc(325\u00a0326\u00a0327-2, and-3)\n", encoding="utf-8"
    )
    assert leaves_of_tokens(read_dependencies(file)) == {1: range(1), 2: range(1, 4), 3: range(4, 5)}


def test_mentions_have_the_number_of_their_chain_or_none(file: Path) -> None:
    file.write_text(MENTIONS, encoding="utf-8")
    mentions = read_coreference(file)
    assert mentions["id"].tolist() == ["T1", "T2", "T3"]
    assert mentions[["start", "end"]].to_numpy().tolist() == [[0, 7], [4, 7], [8, 11]]
    assert mentions["text"].tolist() == ["the fox", "fox", "say"]
    assert mentions["chain"].tolist() == [0, 0, pd.NA]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("*\tCoreference T1 T9\n", "a chain names mention T9"),
        ("T4\tMention 12", "line 5 is neither a mention nor a chain"),
        ("*\tCoreference\n", "line 5 is neither"),
    ],
)
def test_damaged_coreference_is_refused(file: Path, more: str, message: str) -> None:
    file.write_text(MENTIONS + more, encoding="utf-8")
    with pytest.raises(StoryError, match=message):
        read_coreference(file)


def test_unvoiced_pitch_is_nan_not_0(file: Path) -> None:
    file.write_text(PROSODY, encoding="utf-8")
    prosody = read_prosody(file)
    assert list(prosody) == ["run", "time", "f0", "intensity"]
    assert np.isnan(prosody["f0"].iloc[0])
    assert prosody["f0"].iloc[1] == 106.11
    assert prosody["run"].tolist() == ["section1", "section1"]


def test_an_index_column_of_the_prosody_is_ignored(file: Path) -> None:
    lines = PROSODY.splitlines()
    file.write_text("\n".join([f",{lines[0]}", f"0,{lines[1]}", f"1,{lines[2]}"]), encoding="utf-8")
    assert read_prosody(file)["time"].tolist() == [0.0, 0.01]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,pitch\n0,1\n", "no column 'f0'"),
        ("time,f0,intensity,section\n0,high,0,1\n", "cannot be read as a table of numbers"),
        (PROSODY + "0.02,,0.1,10\n", "row 4 has no time, or no section"),
        (PROSODY + ",1,0.1,1\n", "row 4 has no time"),
        ("\n", "cannot be read"),
    ],
)
def test_damaged_prosody_is_refused(file: Path, text: str, message: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(StoryError, match=message):
        read_prosody(file)


def is_read_or_refused(read: Callable[[Path], object], path: Path) -> bool:
    """Whether a file is read, or refused with an error that names it."""
    try:
        read(path)
    except StoryError as error:
        return str(path) in str(error)
    return True


@pytest.mark.parametrize("read", READERS)
def test_missing_empty_and_annexed_files_are_errors(read: Callable[[Path], object], file: Path) -> None:
    with pytest.raises(StoryError, match="does not exist"):
        read(file)
    file.write_bytes(b"")
    with pytest.raises(StoryError, match="is empty"):
        read(file)
    file.write_text("../../.git/annex/objects/a1/b2/MD5E-s1--c.csv/MD5E-s1--c.csv", encoding="utf-8")
    with pytest.raises(StoryError, match="datalad get"):
        read(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoryError):
        read(file)


@pytest.mark.parametrize("read", READERS)
@given(
    content=st.one_of(
        st.binary(max_size=120), st.text("()-,'\t\n TS1a*\"\u00a0é", max_size=80).map(str.encode)
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_read_or_refused(
    read: Callable[[Path], object], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    assert is_read_or_refused(read, path)


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (read_words, table(ROWS)),
        (read_trees, TREES.encode()),
        (read_dependencies, RELATIONS.encode()),
        (read_coreference, MENTIONS.encode()),
        (read_prosody, PROSODY.encode()),
    ],
)
def test_a_truncated_file_is_read_or_refused(
    read: Callable[[Path], object], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "cut.csv"
    for size in range(1, len(content), 3):
        path.write_bytes(content[:size])
        assert is_read_or_refused(read, path)


def test_the_published_english_files_have_the_known_counts(shared_data: Path) -> None:
    words = read_words(shared_data / EN / "lppEN_word_information.csv")
    trees = read_trees(shared_data / EN / "lppEN_tree.csv")
    relations = read_dependencies(shared_data / EN / "lppEN_dependency.csv")
    mentions = read_coreference(shared_data / EN / "lppEN_coreference.csv")
    assert words.groupby("run").size().tolist() == [1517, 1690, 1852, 1624, 1534, 1815, 1786, 1583, 1975]
    assert (words["word"] == "").sum() == 31
    assert (words["offset"] > words["onset"]).all()
    assert len(trees) == 1499
    assert sum(len(t.leaves) for t in trees) == len(words) == 15376
    assert (len(relations), int(relations["sentence"].iloc[-1]) + 1) == (15865, 1499)
    assert (relations["relation"] == "root").sum() == 1499
    assert (len(mentions), mentions["chain"].nunique(), mentions["chain"].isna().sum()) == (4882, 478, 634)


def test_every_english_mention_is_at_its_characters_of_the_lemmas(shared_data: Path) -> None:
    text = " ".join(read_words(shared_data / EN / "lppEN_word_information.csv")["lemma"])
    mentions = read_coreference(shared_data / EN / "lppEN_coreference.csv")
    texts = [text[a:b] for a, b in zip(mentions["start"], mentions["end"], strict=True)]
    assert texts == mentions["text"].tolist()


def test_the_tokens_of_every_english_sentence_are_the_leaves_of_its_tree(shared_data: Path) -> None:
    trees = read_trees(shared_data / EN / "lppEN_tree.csv")
    relations = read_dependencies(shared_data / EN / "lppEN_dependency.csv")
    several = []
    for number, rows in relations.groupby("sentence"):
        leaves = leaves_of_tokens(rows)
        assert max(at.stop for at in leaves.values()) == len(trees[number].leaves), number
        several += [(number, len(at)) for at in leaves.values() if len(at) > 1]
    assert several == [(442, 4)]
