"""The clock of a study: a wrong one is found in a sample of recordings, and stops a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from langcortex.errors import AlignmentError
from langcortex.study.check import as_rows, check_study
from langcortex.study.clock import find_sampled_lag, sample_recordings
from langcortex.study.corpus import open_corpus, read_words
from langcortex.study.run import run_study
from langcortex.study.settings import Study

MakeStudy = Callable[..., Study]


def test_recordings_that_speak_for_a_clock_are_spread_over_subjects_and_runs(
    folder: Path, study: MakeStudy
) -> None:
    corpus = open_corpus(study(folder))
    assert sample_recordings(corpus, ["1", "2"], 3) == [("1", "a"), ("2", "b"), ("1", "c")]
    assert len(set(sample_recordings(corpus, ["1", "2"], 9))) == 6


def test_a_right_clock_runs_and_check_says_so(folder: Path, study: MakeStudy) -> None:
    settings = study(folder)
    found = check_study(settings)
    assert found.problems == []
    assert "is right" in found.facts["clock"]
    assert len(found.lags) == 6
    rows = as_rows(found)
    assert {row[-1] for row in rows} == {"+0 s"}
    scores = run_study(settings).scores
    assert scores[(scores.run == "all") & (scores.metric == "r")].value.mean() > 0.2


def test_a_wrong_clock_is_reported_and_refused_unless_overridden(folder: Path, study: MakeStudy) -> None:
    """Said to begin 4 s before it did: responses come 4 s later than word onsets predict."""
    wrong = {"stimulus_onset": -4.0}
    (problem,) = check_study(study(folder, recording=wrong)).problems
    assert "responses come 4 s (2 scans) later than word onsets predict" in problem
    assert "Change recording.stimulus_onset by +4 s" in problem
    with pytest.raises(AlignmentError, match=r"Change recording\.stimulus_onset by \+4 s"):
        run_study(study(folder, recording=wrong))
    reported = run_study(study(folder, recording={**wrong, "clock": "report"}))
    assert sum("is off: responses come 4 s" in w for w in reported.warnings) == 2
    assert run_study(study(folder, recording={**wrong, "clock": "trust"})).warnings == ()
    mended = study(folder, recording={"stimulus_onset": 0.0})
    lag = find_sampled_lag(
        mended, open_corpus(mended), read_words(mended, open_corpus(mended))[0], ["1", "2"]
    )
    assert lag is not None
    assert (lag.seconds, lag.is_off) == (0.0, False)


def test_two_swapped_runs_are_seen(folder: Path, study: MakeStudy) -> None:
    """Responses to b called a, and the other way: the rate of words no longer explains them."""
    for subject in ("1", "2"):
        a, b = folder / f"s{subject}_a.bold.tsv", folder / f"s{subject}_b.bold.tsv"
        kept = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(kept)
    lags = check_study(study(folder)).lags
    assert all(lags[s, "c"].is_detected for s in ("1", "2"))
    assert not any(
        lags[s, run].is_detected and not lags[s, run].is_off for s in ("1", "2") for run in ("a", "b")
    )
