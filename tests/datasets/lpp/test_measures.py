"""Le Petit Prince: measures of words, counted by hand on small files and checked on the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from langcortex.datasets.corpus import Reading
from langcortex.datasets.lpp.annotation import Annotation
from langcortex.datasets.lpp.dataset import corpus
from langcortex.datasets.lpp.measures import MEASURES, depths, measure
from langcortex.datasets.lpp.words import SECTIONS
from langcortex.errors import SettingsError, StoryError
from langcortex.features.controls.registry import control

# word, leaf, onset, offset, logfreq, opened, closed, left-corner
ROWS = [
    ("the", "the", 0.0, 0.2, 8.0, 3, 1, 2),
    ("fox", "fox", 0.2, 0.5, 4.0, 1, 2, 1),
    ("can't", "can", 0.5, 0.6, 7.0, 2, 1, 2),
    ("", "not", 0.6, 0.7, 9.0, 1, 1, 2),
    ("see", "see", 0.7, 1.0, 5.0, 2, 4, 3),
]
TREE = "(S (NP (DT the) (NN fox)) (VP (MD can) (RB not) (VP (VB see))))"
DEPTH = [3, 3, 3, 3, 4]
PITCH = {
    0.05: 100.0,
    0.15: 300.0,
    0.25: 0.0,
    0.35: 0.0,
    0.45: 0.0,
    0.55: 200.0,
    0.65: 220.0,
    0.75: 0.0,
    0.95: 90.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "annotation" / "EN"
    folder.mkdir(parents=True)
    header = ",word,lemma,onset,offset,logfreq,pos,section,top_down,bottom_up,left_corner"
    rows = [
        f"{len(ROWS) * k + i},{w},{leaf},{a},{b},{f},X,{k + 1},{td},{bu},{lc}"
        for k in range(9)
        for i, (w, leaf, a, b, f, td, bu, lc) in enumerate(ROWS)
    ]
    write(folder, "word_information.csv", "\r\n".join([header, *rows]) + "\r\n")
    write(folder, "tree.csv", (TREE + "\n") * 9)
    prosody = [f"{t},{f0},{t * 10:g},{k}" for k in range(1, 10) for t, f0 in PITCH.items()]
    write(folder, "prosody.csv", "\n".join(["time,f0,intensity,section", *prosody]) + "\n")
    grid = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 1\ntiers? <exists>\nsize = 1\nitem []:\n'
        '    item [1]:\n        class = "IntervalTier"\n        name = "TokensAlign"\n        xmin = 0\n        xmax = 1\n'
        "        intervals: size = 2\n        intervals [1]:\n            xmin = 0\n            xmax = 0.9\n"
        '            text = "word"\n        intervals [2]:\n            xmin = 0.9\n            xmax = 1\n            text = "#"\n'
    )
    for run in SECTIONS:
        write(folder, f"{run}.TextGrid", grid)
    return folder


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"lppEN_{name}").write_bytes(text.encode())


def of_section(folder: Path, name: str) -> list[list[float]]:
    result = measure(Annotation(folder, "EN"), name)
    return result.values[[str(i).startswith("section4/") for i in result.ids]].tolist()


def test_steps_of_the_parsers_add_up_over_the_leaves_of_a_word(folder: Path) -> None:
    assert of_section(folder, "syntax") == [[3, 1, 2], [1, 2, 1], [3, 2, 4], [2, 4, 3]]


def test_frequency_and_depth_are_averaged_over_the_leaves_of_a_word(folder: Path) -> None:
    assert of_section(folder, "logfreq") == [[8.0], [4.0], [8.0], [5.0]]
    assert of_section(folder, "tree_depth") == [[3.0], [3.0], [3.0], [4.0]]


def test_pitch_is_that_of_the_voiced_part_and_undefined_without_one(folder: Path) -> None:
    np.testing.assert_allclose(
        of_section(folder, "prosody"), [[200.0, 1.0], [np.nan, 3.5], [210.0, 6.0], [90.0, 8.5]]
    )


def test_depth_counts_the_brackets_around_each_leaf() -> None:
    assert depths(TREE) == DEPTH
    assert depths("(ROOT (S (. .)))") == [3]


def test_measures_can_be_controls_of_a_study(folder: Path) -> None:
    book = corpus(folder.parents[1], Reading(), words="table")
    story = book.story()
    assert book.measures() == list(MEASURES) == ["logfreq", "syntax", "tree_depth", "prosody"]
    table = control("syntax", story, corpus=book)
    assert (table.name, table.combine, table.values.shape) == ("syntax", "sum", (36, 3))
    np.testing.assert_array_equal(table.to_sentences(story).values[0], [9, 9, 10])
    pitch = control("prosody", story, corpus=book).values[:4, 0]
    np.testing.assert_allclose(pitch, [200, 500 / 3, 210, 90])  # the unvoiced word has the run's mean


def test_trees_need_the_words_of_the_table_and_prosody_does_not(folder: Path) -> None:
    raw = Annotation(folder, "EN", "textgrid-raw")
    with pytest.raises(SettingsError, match=r'Set data\.options\.words = "table"'):
        measure(raw, "syntax")
    np.testing.assert_allclose(
        measure(raw, "prosody").values[0], [205, 4.0]
    )  # eight samples, four of them voiced
    with pytest.raises(
        SettingsError, match=r"has no measure 'pitch'\. It has: logfreq, syntax, tree_depth, prosody\."
    ):
        measure(raw, "pitch")


def test_a_table_without_the_column_is_an_error(folder: Path) -> None:
    path = folder / "lppEN_word_information.csv"
    path.write_bytes(path.read_bytes().replace(b"left_corner", b"right_corner"))
    with pytest.raises(StoryError, match=r"lppEN_word_information\.csv has no column 'left_corner'"):
        measure(Annotation(folder, "EN"), "syntax")


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.95,90.0,9.5,4\n", ""), ("0.75,0.0,7.5,4\n", "0.05,0.0,7.5,4\n")],
    ids=["short", "back"],
)
def test_prosody_that_does_not_reach_the_words_is_an_error(folder: Path, old: str, new: str) -> None:
    path = folder / "lppEN_prosody.csv"
    text = path.read_text()
    assert old in text
    if not new:
        text = "".join(
            line for line in text.splitlines(keepends=True) if not (line.endswith(",4\n") and line > "0.6")
        )
    path.write_text(text.replace(old, new))
    with pytest.raises(
        StoryError, match=r"lppEN_prosody\.csv has \d rows of section4 that do not run in order"
    ):
        measure(Annotation(folder, "EN"), "prosody")


def test_the_published_steps_are_the_brackets_of_the_published_trees(shared_data: Path) -> None:
    """15,376 leaves: top_down opens, bottom_up closes; both follow the trees where lemmas are shifted by a row."""
    annotation = Annotation(shared_data / "lpp" / "annotation" / "EN", "EN")
    leaves = annotation.leaves()
    opened, closed = [], []
    for tree in annotation.parsed():
        before = 0
        parts = tree.text.replace("(", " ( ").replace(")", " ) ").split()
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            if part == "(":
                before += 1
            elif part == ")":
                closed[-1] += 1
            elif following == ")":
                opened.append(before)
                closed.append(0)
                before = 0
    np.testing.assert_array_equal(leaves["top_down"], opened)
    np.testing.assert_array_equal(leaves["bottom_up"], closed)


def test_every_word_of_the_published_book_but_one_has_its_leaves(shared_data: Path) -> None:
    annotation = Annotation(shared_data / "lpp" / "annotation" / "EN", "EN")
    for name in ("syntax", "logfreq", "tree_depth"):
        result = measure(annotation, name)
        without = np.isnan(result.values).any(axis=1)
        assert result.ids.tolist() == annotation.story.ids.tolist()
        assert annotation.story.text[without].tolist() == [
            "and"
        ]  # the trees lack it, where lemmas are shifted
    frequency = measure(annotation, "logfreq").values[:, 0]
    text = annotation.story.text
    assert np.nanmean(frequency[text == "the"]) > np.nanmean(frequency[text == "prince"]) + 3
