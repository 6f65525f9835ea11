"""Rows of a study as its audit sees them: those that are fitted, and what they share across folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langcortex.audit.rows import StudyRows, _recipe_rows, read_headers, study_rows
from langcortex.brain.recording import Recording
from langcortex.brain.space import Space
from langcortex.design.design import Design
from langcortex.encoding.protocol import outer_folds
from langcortex.errors import FitError
from langcortex.stimulus.story import Story, Units
from langcortex.study.corpus import open_corpus, read_words
from langcortex.study.settings_file import read_study
from langcortex.study.subject import align_subject, subject_story

Corpus = Callable[..., Path]
MakeRows = Callable[..., StudyRows]


@pytest.fixture(scope="module")
def study_file(planted_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_corpus(tmp_path_factory.mktemp("rows"), ("01",))


def test_rows_are_those_the_study_fits(study_file: Path) -> None:
    """Headers give the same rows, scans and folds as the recordings themselves."""
    study = read_study(study_file, ["recording.stimulus_onset=3.0"])
    corpus, protocol = open_corpus(study), study.to_protocol()
    story, _ = read_words(study, corpus)
    pieces = subject_story(study, corpus, story, "01")
    quick = study_rows(study, protocol, corpus, story, pieces, "01")
    whole = [corpus.recording("01", run) for run in corpus.runs("01")]
    design: Design = align_subject(study, pieces, {}, whole)  # type: ignore[arg-type]  # recordings all
    np.testing.assert_array_equal(quick.ids, design.ids)
    np.testing.assert_array_equal(quick.scans, design.scans)
    for fold, other in zip(quick.folds, outer_folds(design.run, design.scans, protocol), strict=True):
        np.testing.assert_array_equal(fold.test, other.test)
    for light, full in zip(read_headers(corpus, "01"), whole, strict=True):
        np.testing.assert_array_equal(light.onset, full.onset)  # type: ignore[union-attr]


def test_overlaps_agree_with_looking_at_every_pair(rng: np.random.Generator, rows: MakeRows) -> None:
    for _ in range(30):
        n = 25
        run = np.sort(rng.choice(["a", "b"], n))
        first = np.concatenate([np.sort(rng.integers(0, 60, int((run == r).sum()))) for r in ("a", "b")])
        last = first + rng.integers(0, 6, n)
        test = rng.random(n) < 0.3
        if test.all() or not test.any():
            continue
        r = rows(run.tolist(), first.tolist(), last.tolist(),
                 [(np.flatnonzero(~test).tolist(), np.flatnonzero(test).tolist())])  # fmt: skip
        truth = [
            any(run[i] == run[j] and first[i] <= last[j] and first[j] <= last[i] for j in np.flatnonzero(~test))
            for i in np.flatnonzero(test)
        ]  # fmt: skip
        assert r.overlaps()[1][test].tolist() == truth


def test_of_le_petit_princes_neighbours_seven_in_ten_share_a_scan(little_prince: Story) -> None:
    """1484 of 2094 pairs, as an audit of the published pipeline counted; at the recipe's windows, TR 2 s."""
    story = little_prince
    sentences = story.sentences
    empty = Space("columns", np.empty(0, dtype=str))
    recordings = [
        Recording(np.empty((400, 0), np.float32), np.arange(400) * 2.0, 2.0, run, "EN057", empty)
        for run in story.runs
    ]
    shifted = _recipe_rows(story, recordings, True)  # type: ignore[arg-type]  # recordings all
    share = shifted.overlaps()[1].mean()
    assert 0.7 < share < 1
    whole = rows_of_all(sentences)
    assert round(whole.neighbours(), 3) == 0.709


def rows_of_all(s: Units) -> StudyRows:
    first = ((s.onset + 4.0) / 2.0).astype(int)
    last = ((s.onset + s.duration + 4.0) / 2.0).astype(int)
    scans = np.stack([first, last], axis=1)
    return StudyRows(s.ids, s.run, scans, s.onset, (), 2.0, "text", s, {}, {})


def test_a_story_too_short_for_the_recipe_says_so(story: Story) -> None:
    empty = Space("columns", np.empty(0, dtype=str))
    short = Recording(np.empty((40, 0), np.float32), np.arange(40) * 2.0, 2.0, "run-1", "01", empty)
    with pytest.raises(FitError, match="needs 20 units"):
        _recipe_rows(story, [short], False)
