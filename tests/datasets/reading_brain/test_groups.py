"""Reading Brain: two groups read the same articles, but for two words; each is told apart, cited and numbered alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from langcortex.datasets import Corpus
from langcortex.datasets.corpus import Reading
from langcortex.datasets.reading_brain import dataset as rb
from langcortex.datasets.reading_brain.groups import L1, L2, recognise_group
from langcortex.datasets.reading_brain.text import LENGTHS, LENGTHS_L2
from langcortex.errors import RecordingError, SettingsError, StoryError
from reference.reading_brain import ALL_WORDS, derivative, surfaces, word, write_reader

SHORTER = (3, 16)
L2_WORDS: Mapping[tuple[int, int], Sequence[int]] = {**ALL_WORDS, SHORTER: range(1, 11)}


def describe(base: Path, name: str) -> Path:
    base.mkdir(parents=True, exist_ok=True)
    (base / "dataset_description.json").write_text(json.dumps({"Name": name, "License": "CC0"}))
    return base


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with two readers of each group; the first of each has images."""
    base = tmp_path_factory.mktemp("both")
    rng = np.random.default_rng(3)
    for place, looks, pace in (("ds003974", ALL_WORDS, 200), ("ds003988", L2_WORDS, 300)):
        write_reader(base / place, "01", looks=looks, pace=pace)
        write_reader(base / place, "02", order=(5, 4, 3, 2, 1), looks=looks, pace=pace)
        surfaces(base / place, "01", range(1, 6), rng)
    return base


def single(path: Path, reading: Reading | None = None, **options: str) -> rb.ReadingBrain:
    corpus = rb.corpus(path, reading or Reading(), **options)
    assert isinstance(corpus, rb.ReadingBrain)
    return corpus


def groups(path: Path, reading: Reading | None = None, **options: str) -> rb.ReadingBrainGroups:
    corpus = rb.corpus(path, reading or Reading(), **options)
    assert isinstance(corpus, rb.ReadingBrainGroups)
    return corpus


# one group


def test_a_group_is_recognised_by_its_description_its_name_or_the_events(tmp_path: Path) -> None:
    few, many = {3: 4}, {3: 5}
    assert (
        recognise_group(describe(tmp_path / "a", "The Reading Brain Project L2 Adults"), {SHORTER: 12}, many)
        is L2
    )
    assert (
        recognise_group(describe(tmp_path / "b", "The Reading Brain Project L1 Adults"), {SHORTER: 9}, many)
        is L1
    )
    for place, group in (("ds003988", L2), ("ds003974-fetched", L1), ("readers_L2", L2)):
        assert recognise_group(tmp_path / place, {SHORTER: 9}, few) is group
    assert recognise_group(tmp_path / "c", {SHORTER: 11}, many) is L1
    assert recognise_group(tmp_path / "c", {SHORTER: 10}, many) is L2
    assert recognise_group(tmp_path / "c", {SHORTER: 10}, few) is L1
    assert recognise_group(tmp_path / "c", {}, {}) is L1


def test_the_shorter_sentence_of_l2_is_no_missing_words(both: Path) -> None:
    corpus = single(both / "ds003988")
    story = corpus.story()
    assert len(story) == 1529
    assert (story.sentence == "article3/sentence-015").sum() == 10
    assert story.ids[-1] == "article5/word-0303"
    assert corpus.remarks() == []
    assert corpus.story_of("02").ids.tolist() == story.ids.tolist()
    assert "ds003988" in corpus.citation()
    assert "ds003974" not in corpus.citation()
    assert "ds003988" in corpus.licence()
    assert corpus.mean_saccades()["article3/sentence-015"].shape == (10, 10)


def test_a_table_for_l1_serves_l2(both: Path, tmp_path: Path) -> None:
    rows = ["id,text"] + [
        f"t.{a:02d}.{s:02d},{' '.join(word(a, s, w) for w in words)}" for (a, s), words in ALL_WORDS.items()
    ]
    (tmp_path / "text.csv").write_text("\n".join(rows) + "\n")
    assert len(single(both / "ds003988", text=str(tmp_path / "text.csv")).story()) == 1529
    assert len(single(both / "ds003974", text=str(tmp_path / "text.csv")).story()) == 1531


def test_a_word_that_nobody_looked_at_is_left_out_by_name(tmp_path: Path) -> None:
    looks = {**L2_WORDS, (3, 27): [w for w in ALL_WORDS[3, 27] if w != 8]}
    base = tmp_path / "ds003988"
    write_reader(base, "01", looks=looks)
    corpus = single(base)
    story = corpus.story()
    assert len(story) == 1528
    assert corpus.remarks() == [
        "Word 8 of sentence t.03.27 is left out: none of the 1 readers of L2 here fixated it, so its text is not known. "
        "data.options.text can give it."
    ]
    there = story.text[story.sentence == "article3/sentence-026"].tolist()
    assert there == [word(3, 27, w) for w in ALL_WORDS[3, 27] if w != 8]
    assert corpus.story_of("01").ids.tolist() == story.ids.tolist()
    assert corpus.mean_saccades()["article3/sentence-026"].shape == (12, 12)


def test_many_words_that_nobody_looked_at_are_an_error(tmp_path: Path) -> None:
    looks = {key: [w for w in words if w != 2] for key, words in ALL_WORDS.items()}
    write_reader(tmp_path, "01", looks=looks)
    with pytest.raises(StoryError, match=r"lacks 1 of its .* words, and 147 other sentences lack words"):
        single(tmp_path).story()


# both groups


def test_both_groups_are_one_study(both: Path) -> None:
    corpus = groups(both)
    assert isinstance(corpus, Corpus)
    assert corpus.subjects() == ["L1sub01", "L2sub01"]
    assert corpus.runs("L2sub01") == [f"article{a}" for a in range(1, 6)]
    assert corpus.recording("L2sub01", "article3").values.shape == (12, 8)
    assert groups(both, Reading(subjects=["L2sub01"])).subjects() == ["L2sub01"]
    with pytest.raises(
        RecordingError, match=r"Subject 'L1sub09' was not found in .*ds003974.* and .*ds003988"
    ):
        groups(both, Reading(subjects=["L1sub09"])).subjects()
    with pytest.raises(RecordingError, match="Subject '01' is of no group"):
        corpus.files("01")


def test_words_have_the_same_ids_in_both_groups(both: Path) -> None:
    """L2 readers were shown two words less: ids of later words must not move up."""
    corpus = groups(both)
    story = corpus.story()
    assert len(story) == 1531
    first, second = corpus.story_of("L1sub01"), corpus.story_of("L2sub01")
    assert first.ids.tolist() == story.ids.tolist()
    missing = [i for i in story.ids.tolist() if i not in set(second.ids.tolist())]
    texts = dict(zip(story.ids.tolist(), story.text.tolist(), strict=True))
    assert [texts[i] for i in missing] == [word(3, 16, 11), word(3, 16, 12)]
    assert all(texts[i] == t for i, t in zip(second.ids.tolist(), second.text.tolist(), strict=True))
    assert list(dict.fromkeys(second.sentence.tolist())) == list(dict.fromkeys(story.sentence.tolist()))


def test_what_differs_and_whom_to_cite_is_said(both: Path) -> None:
    corpus = groups(both)
    assert corpus.remarks() == [
        "Sentence t.03.16 had 12 words for L1 and 10 words for L2. Models read the longer one; rows of words end where a "
        "reader's own did."
    ]
    for accession in ("ds003974", "ds003988"):
        assert accession in corpus.citation()
        assert accession in corpus.licence()


def test_a_word_that_only_the_other_group_looked_at_is_taken_from_it(tmp_path: Path) -> None:
    write_reader(tmp_path / "ds003974", "01")
    looks = {**L2_WORDS, (3, 27): [w for w in ALL_WORDS[3, 27] if w != 8]}
    write_reader(tmp_path / "ds003988", "01", looks=looks)
    corpus = groups(tmp_path)
    assert len(corpus.story_of("L2sub01")) == 1529
    remarks = corpus.remarks()
    assert not [r for r in remarks if "fixated" in r]
    assert [r.split(" has ")[0] for r in remarks[1:]] == [f"No reader of {g}" for g in ("L1", "L2")]


def test_the_derivatives_of_the_groups_must_be_apart(tmp_path: Path) -> None:
    write_reader(tmp_path / "raw" / "ds003974", "01")
    write_reader(tmp_path / "raw" / "ds003988", "01", looks=L2_WORDS)
    with pytest.raises(SettingsError, match=r"Both groups would be read from .*Write \{group\}"):
        groups(tmp_path / "raw", preprocessed=str(tmp_path / "prep"))
    for name in ("L1", "L2"):
        for hemi in "LR":
            path = derivative(tmp_path / name, "01", 1, f"hemi-{hemi}_space-fsaverage5_bold.func.gii")
            (tmp_path / "prep" / name / "sub-01" / "func").mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / "prep" / name / "sub-01" / "func" / path.name)
    corpus = groups(tmp_path / "raw", preprocessed=str(tmp_path / "prep" / "{group}"))
    assert corpus.subjects() == ["L1sub01", "L2sub01"]


def test_two_folders_of_one_group_are_an_error(tmp_path: Path) -> None:
    for place in ("a_L2", "b_L2"):
        write_reader(tmp_path / place, "01", looks=L2_WORDS)
    with pytest.raises(SettingsError, match="are both group L2"):
        rb.corpus(tmp_path, Reading())


# the published events of L2


@pytest.fixture(scope="module")
def published(shared_data: Path) -> rb.ReadingBrain:
    path = shared_data / "real2" / "reading_brain_l2"
    if not path.is_dir():
        pytest.skip(f"the events {path} are absent")
    return single(path)


def test_the_published_events_of_l2_are_read(published: rb.ReadingBrain) -> None:
    """Whoever of the 56 is there: 148 sentences, and next to no word unknown."""
    assert published.group is L2
    assert len(published.readers()) >= 20
    story = published.story()
    unknown = published.unknown_words()
    assert len(unknown) <= 3
    assert len(story) == sum(map(sum, LENGTHS_L2)) - len(unknown)
    assert len(story.sentences) == 148
    assert sum(map(sum, LENGTHS)) - sum(map(sum, LENGTHS_L2)) == 2
    for reader in published.readers():
        own = published.story_of(reader)
        assert set(own.ids.tolist()) <= set(story.ids.tolist())
        assert (own.duration >= 0).all()
    assert all(remark.startswith(("Word ", "sub-")) for remark in published.remarks())


def test_the_published_events_never_go_beyond_the_words_shown(published: rb.ReadingBrain) -> None:
    furthest = max(w for a, s, w in published.fixated if (a, s) == SHORTER)
    assert furthest == 10
    assert all(w <= LENGTHS_L2[a - 1][s - 1] for a, s, w in published.fixated)


def test_the_published_text_of_l2_is_that_of_l1(published: rb.ReadingBrain, shared_data: Path) -> None:
    table = shared_data / "gao2025" / "reading_brain_sentences_from_events.csv"
    if not table.is_file():
        pytest.skip(f"the table {table} is absent")
    story = single(published.path, text=str(table)).story()
    assert len(story) == 1529
