"""The rows of a subject: sentences, phrases, words, scans or answers, matched by id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from langcortex.errors import SettingsError, StoryError
from langcortex.study.check import check_study
from langcortex.study.corpus import open_corpus, read_words
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study
from langcortex.study.subject import subject_story

MakeStudy = Callable[..., Study]
RUNS = ("a", "b", "c")


def test_phrases_and_words_are_rows_too(folder: Path, study: MakeStudy) -> None:
    settings = study(
        folder, design={"rows": "phrases", "delays": [4.0, 6.0]}, protocol={"confounds": ["duration"]}
    )
    story, _ = read_words(settings, open_corpus(settings))
    phrases = subject_story(settings, open_corpus(settings), story, "1").sentences
    assert str(phrases.ids[0]) == "a/phrase-000"
    assert len(phrases) > len(RUNS) * 5
    results = run_study(settings)
    assert results.counts["phrases"] == len(phrases)
    words = subject_story(
        study(folder, design={"rows": "words"}), open_corpus(settings), story, "1"
    ).sentences
    assert words.ids.tolist() == story.ids.tolist()


def test_a_story_without_pauses_has_no_phrases(own_corpus: Path) -> None:
    settings = make_study(
        {"data": {"corpus": "mine:corpus"}, "design": {"rows": "phrases"}}, folder=own_corpus, allow_code=True
    )
    corpus = open_corpus(settings)
    with pytest.raises(StoryError, match="marks no pauses"):
        subject_story(settings, corpus, corpus.story(), "p1")


def test_sentences_that_were_answered_one_by_one_meet_by_id(own_corpus: Path) -> None:
    """The responses are given backwards: by position nothing would fit."""
    settings = make_study(
        {
            "data": {"corpus": "mine:corpus", "options": {"missing": 2}},
            "features": {"controls": ["word_count"]},
            "protocol": {"confounds": [], "n_nulls": 0, "penalties": [0.1, 10.0]},
        },
        folder=own_corpus,
        allow_code=True,
    )
    results = run_study(settings)
    r = results.maps["word_count"][0]
    assert r[0] > 0.8
    assert abs(r[1]) < 0.35
    assert results.counts["subjects"]["p1"]["pieces left out"] == 6
    found = check_study(settings)
    assert found.problems == []
    assert found.facts["recordings"].startswith("2 subjects, 6 runs")


def test_scans_cannot_be_rows_where_there_are_none(own_corpus: Path) -> None:
    settings = make_study(
        {"data": {"corpus": "mine:corpus"}, "design": {"rows": "scans"}, "protocol": {"confounds": []}},
        folder=own_corpus,
        allow_code=True,
    )
    with pytest.raises(SettingsError, match="this corpus has no scans"):
        run_study(settings)
