"""Le Petit Prince: the annotation on small files in the published formats, and on the published ones."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.datasets.lpp.annotation import Annotation
from langcortex.datasets.lpp.words import SECTIONS, read_dependencies, read_words
from langcortex.errors import SettingsError, StoryError
from langcortex.stimulus.story import Story, assemble_story
from langcortex.stimulus.textgrid import read_textgrid

ENGLISH = (191, 212, 219, 233, 207, 270, 297, 231, 299)  # pauses and empty labels
GROUPS = (185, 206, 213, 227, 203, 260, 291, 223, 295)
# word, lemma, leaf, onset, offset of every section: two sentences
ROWS = [
    ("the", "the", "the", 0.1, 0.3),
    ("fox", "fox", "fox", 0.3, 0.6),
    ("can't", "can", "can", 0.6, 0.8),
    ("", "not", "not", 0.8, 1.0),
    ("see", "see", "see", 1.0, 1.4),
    ("it", "it", "it", 2.0, 2.2),
    ("s", "is", "is", 2.2, 2.3),
    ("TRUE", "true", "true", 2.3, 2.6),
]
LABELS = [("#", 0, 0.1), ("the", 0.1, 0.3), ("fox", 0.3, 0.6), ("cant", 0.6, 1.0), ("see", 1.0, 1.4), ("#", 1.4, 1.7),
          ("", 1.7, 1.8), ("#", 1.8, 2.0), ("it", 2.0, 2.2), ("s", 2.2, 2.3), (",", 2.3, 2.32), ("true", 2.32, 2.6),
          ("#", 2.6, 3.0), ("", 3.0, 4.0)]  # fmt: skip
RELATIONS = """det(fox-2, the-1)
nsubj(see-5, fox-2)
aux(see-5, can-3)
neg(see-5, not-4)
root(ROOT-0, see-5)

nsubj(true-3, it-1)
cop(true-3, is-2)
root(ROOT-0, true-3)
"""


def textgrid(labels: list[tuple[str, float, float]], end: float) -> str:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", f"xmax = {end} ",
             "tiers? <exists> ", "size = 1 ", "item []: ", "    item [1]:", '        class = "IntervalTier" ',
             '        name = "TokensAlign" ', "        xmin = 0 ", f"        xmax = {end} ",
             f"        intervals: size = {len(labels)} "]  # fmt: skip
    for i, (label, a, b) in enumerate(labels, start=1):
        lines += [f"        intervals [{i}]:", f"            xmin = {a} ", f"            xmax = {b} ",
                  f'            text = "{label}" ']  # fmt: skip
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write nine equal sections, four of whose TextGrids are UTF-16, as published."""
    header = ",word,lemma,onset,offset,logfreq,pos,section,top_down,bottom_up,left_corner"
    rows = [
        f"{len(ROWS) * k + i},{w},{lemma},{a},{b},5.5,X,{k + 1},1,1,1"
        for k in range(9)
        for i, (w, lemma, _, a, b) in enumerate(ROWS)
    ]
    write(tmp_path, "word_information.csv", "\r\n".join([header, *rows]) + "\r\n")
    leaves = [f"(X {row[2]})" for row in ROWS]
    write(tmp_path, "tree.csv", f"(S {' '.join(leaves[:5])})\n(S {' '.join(leaves[5:])})\n" * 9)
    write(tmp_path, "dependency.csv", "\n".join([RELATIONS] * 9) + "\n")
    write(
        tmp_path,
        "coreference.csv",
        "T1\tMention 0 7\tthe fox\nT2\tMention 8 15\tcan not\nT3\tMention 20 22\tit\n*\tCoreference T1 T3\n",
    )
    for k, run in enumerate(SECTIONS):
        encoding = "utf-16" if k in (2, 3, 4, 5) else "utf-8"
        (tmp_path / f"lppEN_{run}.TextGrid").write_text(textgrid(LABELS, 4.0), encoding=encoding)
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"lppEN_{name}").write_bytes(text.encode())


def story_of(folder: Path, words: str = "table", sentences: str = "auto") -> Story:
    return Annotation(folder, "EN", words, sentences).story


def test_words_of_the_table_have_the_sentences_of_the_trees_and_the_pause_groups_of_the_textgrids(
    folder: Path,
) -> None:
    story = story_of(folder)
    section = story.take(["section4"])
    assert story.runs == SECTIONS
    assert section.text.tolist() == ["the", "fox", "can't", "see", "it", "'s", "true"]
    assert section.sentences.text.tolist() == ["the fox can't see", "it's true"]
    assert section.sentence.tolist() == ["section4/sentence-000"] * 4 + ["section4/sentence-001"] * 3
    assert section.phrase is not None
    assert section.phrase.tolist() == ["section4/phrase-000"] * 4 + ["section4/phrase-001"] * 3
    assert section.onset.tolist() == [0.1, 0.3, 0.6, 1.0, 2.0, 2.2, 2.3]
    assert section.duration[2] == pytest.approx(0.4)


def test_every_word_has_the_ids_of_its_rows(folder: Path) -> None:
    covers = story_of(folder).take(["section2"]).covers
    assert covers is not None
    assert covers[:3].tolist() == [
        "section2/row-00008",
        "section2/row-00009",
        "section2/row-00010 section2/row-00011",
    ]


def test_pause_groups_may_be_the_sentences(folder: Path) -> None:
    story = story_of(folder, sentences="pauses")
    assert story.phrase is not None
    assert [s.replace("sentence", "phrase") for s in story.sentence] == story.phrase.tolist()


def test_pause_groups_of_the_table_need_no_trees(folder: Path) -> None:
    (folder / "lppEN_tree.csv").unlink()
    assert len(story_of(folder, sentences="pauses").sentences) == 18


def test_the_repaired_textgrid_drops_lone_punctuation_and_counts_it(folder: Path) -> None:
    story = story_of(folder, "textgrid")
    section = story.take(["section1"])
    assert section.sentences.text.tolist() == ["the fox can't see", "it's true"]
    assert section.left_out == {"section1": 7}
    assert section.covers is not None
    assert section.covers[-1] == "section1/label-0007"


def test_raw_labels_are_those_of_the_textgrids(folder: Path) -> None:
    tables = {run: read_textgrid(folder / f"lppEN_{run}.TextGrid") for run in SECTIONS}
    expected = assemble_story(tables, "little", "pauses", language="en", keep_marks=True)
    same_story(story_of(folder, "textgrid-raw", "pauses"), expected)
    assert len(expected) == sum(int((~t.word.isin(["", "#", "sp"])).sum()) for t in tables.values())
    assert Annotation(folder, "EN", "textgrid-raw").repairs.empty


def same_story(a: Story, b: Story) -> None:
    for name in ("ids", "text", "onset", "duration", "run", "sentence", "before", "phrase"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.left_out == b.left_out
    assert a.covers is None


def test_repairs_list_every_label_that_was_changed(folder: Path) -> None:
    repairs = Annotation(folder, "EN").repairs
    assert list(repairs) == ["run", "row", "label", "text", "why"]
    assert repairs[repairs["run"] == "section9"]["row"].tolist() == [
        f"section9/row-{64 + i:05d}" for i in (3, 6, 7)
    ]


def test_dependencies_have_ids_of_words(folder: Path) -> None:
    relations = Annotation(folder, "EN").dependencies()
    here = relations[relations["sentence"].str.startswith("section3")]
    assert len(here) == 8
    assert here.iloc[0].tolist() == [
        "section3/sentence-000",
        "det",
        "section3/word-0001",
        "section3/word-0000",
    ]
    assert here["head"].iloc[4] == ""
    assert here["dependent"].iloc[2] == here["dependent"].iloc[3] == "section3/word-0002"
    assert here.iloc[6].tolist() == [
        "section3/sentence-001",
        "cop",
        "section3/word-0006",
        "section3/word-0005",
    ]


def test_mentions_have_ids_of_words(folder: Path) -> None:
    mentions = Annotation(folder, "EN").mentions()
    assert mentions["words"].tolist() == [
        "section1/word-0000 section1/word-0001",
        "section1/word-0002",
        "section1/word-0004",
    ]


def test_trees_have_ids_of_sentences(folder: Path) -> None:
    trees = Annotation(folder, "EN").trees()
    assert list(trees) == list(dict.fromkeys(story_of(folder).sentence))
    assert trees["section7/sentence-001"].leaves == ("it", "is", "true")


def test_rows_of_the_word_table_have_ids_of_words(folder: Path) -> None:
    rows = Annotation(folder, "EN").word_information()
    assert rows["word_id"].tolist()[:5] == [f"section1/word-{i:04d}" for i in (0, 1, 2, 2, 3)]
    assert rows["logfreq"].eq(5.5).all()


def test_trees_that_do_not_match_the_words_are_refused(folder: Path) -> None:
    write(folder, "tree.csv", "(S (X the))\n")
    with pytest.raises(StoryError, match=r"lppEN_tree\.csv has 1 words, lppEN_word_information\.csv 72 rows"):
        story_of(folder)


def test_dependencies_that_do_not_match_the_trees_are_refused(folder: Path) -> None:
    write(folder, "dependency.csv", RELATIONS)
    with pytest.raises(StoryError, match=r"has 2 sentences, lppEN_tree\.csv 18"):
        Annotation(folder, "EN").dependencies()
    write(folder, "dependency.csv", "\n".join([RELATIONS.replace("the-1", "the-900000000")] * 9))
    with pytest.raises(StoryError, match="sentence 1 has more words than the 5 of its tree"):
        Annotation(folder, "EN").dependencies()


def test_a_mention_at_other_characters_is_refused(folder: Path) -> None:
    write(folder, "coreference.csv", "T1\tMention 1 8\tthe fox\n")
    with pytest.raises(StoryError, match="mention T1 is not at characters 1 to 8"):
        Annotation(folder, "EN").mentions()


@pytest.mark.parametrize(
    ("words", "sentences"), [("table", "punctuation"), ("textgrid", "punctuation"), ("textgrid", "column")]
)
def test_sentences_that_no_file_has_are_refused(folder: Path, words: str, sentences: str) -> None:
    with pytest.raises(StoryError, match=r"Set story\.sentences to"):
        story_of(folder, words, sentences)


def test_trees_dependencies_and_mentions_need_the_words_of_the_table(folder: Path) -> None:
    for method in ("trees", "dependencies", "mentions", "word_information"):
        with pytest.raises(SettingsError, match=r'data\.options\.words = "table"'):
            getattr(Annotation(folder, "EN", "textgrid"), method)()
    with pytest.raises(SettingsError, match=r'story\.sentences to "auto"'):
        Annotation(folder, "EN", "table", "pauses").trees()


@pytest.mark.parametrize("name", ["word_information.csv", "tree.csv", "section5.TextGrid"])
def test_a_file_that_is_not_downloaded_is_to_be_fetched(folder: Path, name: str) -> None:
    path = folder / f"lppEN_{name}"
    path.unlink()
    path.symlink_to("../../.git/annex/objects/x")
    with pytest.raises(StoryError, match=f"datalad get .*{name}"):
        story_of(folder)


def test_a_truncated_textgrid_is_refused(folder: Path) -> None:
    path = folder / "lppEN_section3.TextGrid"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(StoryError, match="breaks off after interval"):
        story_of(folder)


def test_textgrids_without_pauses_have_no_phrases(folder: Path) -> None:
    labels = [row for row in LABELS if row[0] not in ("", "#")]
    for run in SECTIONS:
        (folder / f"lppEN_{run}.TextGrid").write_text(textgrid(labels, 4.0))
    assert story_of(folder).phrase is None
    with pytest.raises(StoryError, match="mark no pauses"):
        story_of(folder, sentences="pauses")


# ------------------------------------------------------------------------------------------ the published files


@pytest.fixture(scope="module")
def english(shared_data: Path) -> Annotation:
    return Annotation(shared_data / "lpp/annotation/EN", "EN")


def count(story: Story, unit: str = "words") -> list[int]:
    rows = getattr(story, unit)
    return [int((rows.run == run).sum()) for run in SECTIONS]


def test_english_words_and_sentences_have_the_known_counts(english: Annotation) -> None:
    story = english.story
    assert len(story) == 15376 - 31
    assert count(story, "sentences") == [130, 115, 197, 158, 171, 197, 186, 148, 197]
    assert sum(story.left_out.values()) == 0
    assert len(english.repairs) == 525
    sentences = story.sentences
    assert np.median(sentences.duration) == pytest.approx(2.39, abs=0.02)
    assert sentences.duration.max() == pytest.approx(15.7, abs=0.1)


@pytest.mark.parametrize("words", ["table", "textgrid"])
def test_english_words_are_repaired(english: Annotation, words: str) -> None:
    story = Annotation(english.folder, "EN", words).story
    assert not [t for t in story.text if "_" in t or "\\" in t or not t.strip() or t != t.strip()]
    assert not {"s", "t", "nt", "ll", "m", "re", "ve", "d", "TRUE", "FALSE"} & set(story.text)
    assert len(set(story.ids)) == len(story)
    for run in SECTIONS:
        assert (np.diff(story.onset[story.run == run]) >= 0).all()
    assert story.covers is not None
    covered = [i for ids in story.covers for i in ids.split()]
    assert len(set(covered)) == len(covered) == {"table": 15376, "textgrid": 15453 - 24}[words]


def test_english_table_and_textgrid_share_their_pause_groups(english: Annotation) -> None:
    table, grid = english.story, Annotation(english.folder, "EN", "textgrid").story
    assert grid.phrase is not None
    assert table.phrase is not None
    for run, n in zip(SECTIONS, GROUPS, strict=True):
        assert len(set(grid.phrase[grid.run == run])) == len(set(table.phrase[table.run == run])) == n
    first = pd.DataFrame({"phrase": table.phrase, "onset": table.onset}).groupby("phrase")["onset"].min()
    grid_first = pd.DataFrame({"phrase": grid.phrase, "onset": grid.onset}).groupby("phrase")["onset"].min()
    assert (first.index == grid_first.index).all()
    assert (np.abs(first - grid_first) < 0.05).mean() > 0.95


def test_raw_english_labels_have_the_pause_groups_of_the_replication(english: Annotation) -> None:
    raw = Annotation(english.folder, "EN", "textgrid-raw").story
    assert count(raw) == [1521, 1694, 1864, 1650, 1548, 1832, 1788, 1583, 1973]
    assert count(raw, "sentences") == list(GROUPS)
    assert tuple(raw.left_out.values()) == ENGLISH
    tables = {run: read_textgrid(english.path(f"{run}.TextGrid")) for run in SECTIONS}
    same_story(raw, assemble_story(tables, "little", "pauses", language="en", keep_marks=True))


def test_english_onsets_agree_to_a_millisecond_where_words_match(english: Annotation) -> None:
    table = read_words(english.path("word_information.csv"))
    raw, shares = english.groups, []
    for run in SECTIONS:
        here, there = table[table["run"] == run], raw.run == run
        blocks = difflib.SequenceMatcher(
            None, here["word"].tolist(), raw.text[there].tolist(), autojunk=False
        ).get_matching_blocks()
        gaps = np.concatenate(
            [
                here["onset"].to_numpy()[b.a : b.a + b.size] - raw.onset[there][b.b : b.b + b.size]
                for b in blocks
            ]
        )
        shares.append(float((np.abs(gaps) < 1e-3 + 1e-9).sum()) / len(here))
    expected = [0.978, 0.991, 0.991, 0.900, 0.920, 0.962, 0.996, 0.998, 0.996]
    np.testing.assert_allclose(shares, expected, atol=0.001)


def test_english_dependencies_are_complete(english: Annotation) -> None:
    relations = english.dependencies()
    assert len(relations) == 15865
    assert set(relations["sentence"]) == set(english.story.sentence)
    ids = set(english.story.ids)
    for side in ("head", "dependent"):
        assert {i for ids in relations[side] for i in ids.split()} <= ids
    assert (relations["head"] == "").sum() == 1499
    assert relations["dependent"].str.contains(" ").sum() == 1


def test_english_mentions_have_the_text_of_their_words(english: Annotation) -> None:
    mentions, story = english.mentions(), english.story
    text = dict(zip(story.ids.tolist(), story.text.tolist(), strict=True))
    assert len(mentions) == 4882
    assert (mentions["words"] != "").all()
    matches = [
        " ".join(text[i] for i in ids.split()) == mention
        for ids, mention in zip(mentions["words"], mentions["text"], strict=True)
    ]
    assert np.mean(matches) > 0.95


def test_shifted_lemmas_are_matched_to_their_rows(english: Annotation) -> None:
    """In the sentence that counts to 501,622,731, the words of dependencies are those of the file."""
    text = dict(zip(english.story.ids.tolist(), english.story.text.tolist(), strict=True))
    raw = read_dependencies(english.path("dependency.csv"))
    here = (raw["sentence"] == 612).to_numpy()
    words = [text[i] for i in english.dependencies()["dependent"][here]]
    assert words == raw["dependent_word"][here].tolist()
    assert words.count("hundred") == 4


def test_french_words_and_pauses_have_the_known_counts(shared_data: Path) -> None:
    folder = shared_data / "lpp/annotation/FR"
    raw = Annotation(folder, "FR", "textgrid-raw").story
    assert count(raw) == [1614, 1768, 1861, 1641, 1520, 1845, 1696, 1516, 1797]
    assert list(raw.left_out.values()) == [355, 373, 418, 361, 352, 444, 404, 349, 399]
    repaired = Annotation(folder, "FR", "textgrid")
    assert len(repaired.story) == 15256
    assert repaired.story.phrase is not None
    assert len(repaired.story.sentences) == len(set(repaired.story.phrase)) == 3414
    assert repaired.repairs["label"].tolist() == ["3251", "...", "Â", "ll", "..."]
    assert not [t for t in repaired.story.text if t.endswith((".", "?", "!"))]
