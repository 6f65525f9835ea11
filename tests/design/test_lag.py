"""The clock: a planted shift is found with its size and sign, a right clock is left alone, and noise says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from langcortex.brain.recording import Recording
from langcortex.brain.space import Space
from langcortex.brain.timing import hrf_weights
from langcortex.datasets import Reading, alice
from langcortex.design.lag import find_lag
from langcortex.stimulus.story import Story, make_story


@pytest.fixture
def story(rng: np.random.Generator) -> Story:
    """Speak in bursts of words with silences between them, 400 s a run."""
    onsets = {}
    for run in ("a", "b"):
        gaps = np.where(rng.random(900) < 0.06, rng.uniform(2, 9, 900), 0.3)
        times = np.cumsum(gaps)
        onsets[run] = times[times < 400]
    return make_story(
        {run: ["word"] * len(t) for run, t in onsets.items()},
        onsets,
        {run: np.full(len(t), 0.25) for run, t in onsets.items()},
    )


def record(
    story: Story,
    rng: np.random.Generator,
    run: str = "a",
    signal: float = 1.0,
    tr: float = 2.0,
    subject: str = "01",
) -> Recording:
    """Record 40 targets, five of which follow the word rate."""
    time = np.arange(int(400 / tr)) * tr
    here = story.run == run
    rate = np.asarray(
        hrf_weights(story.onset[here], story.duration[here], time + tr / 2, shape="impulse").sum(axis=1)
    )
    rate = (rate.ravel() - rate.mean()) / rate.std()
    values = rng.standard_normal((len(time), 40))
    values[:, :5] += signal * rate[:, None]
    space = Space("columns", np.array([f"t{i}" for i in range(40)]))
    return Recording(values.astype(np.float32), time, tr, run, subject, space)


def moved(recording: Recording, seconds: float) -> Recording:
    return replace(recording, onset=recording.onset + seconds)


@pytest.mark.parametrize("shift", [-6.0, -2.0, 2.0, 4.0, 8.0])
def test_the_lag_of_a_shifted_clock_has_its_size_and_sign(
    story: Story, rng: np.random.Generator, shift: float
) -> None:
    """Scans that are labelled 4 s too late carry responses 4 s later than word onsets predict."""
    lag = find_lag([(story, moved(record(story, rng), shift))])
    assert lag is not None
    assert (lag.is_off, lag.seconds) == (True, shift)
    assert f"Change recording.stimulus_onset by {shift:+g} s" in lag.summary
    assert lag.is_far_off == (abs(shift) >= 4)


@pytest.mark.parametrize("tr", [0.8, 2.0])
def test_a_correct_clock_is_recognised(story: Story, rng: np.random.Generator, tr: float) -> None:
    lag = find_lag([(story, record(story, rng, tr=tr))])
    assert lag is not None
    assert (lag.is_detected, lag.is_off, lag.is_far_off) == (True, False, False)
    assert "is right" in lag.summary


def test_shifting_by_the_lag_corrects_the_clock(story: Story, rng: np.random.Generator) -> None:
    wrong = moved(record(story, rng), 6.0)
    lag = find_lag([(story, wrong)])
    assert lag is not None
    corrected = find_lag([(story, moved(wrong, -lag.seconds))])
    assert corrected is not None
    assert (corrected.seconds, corrected.is_off) == (0.0, False)


def test_no_lag_is_detected_in_noise(story: Story, rng: np.random.Generator) -> None:
    """Thirty recordings without a response: none counts as off."""
    lags = [find_lag([(story, record(story, rng, signal=0.0))]) for _ in range(30)]
    assert sum(lag is not None and lag.is_off for lag in lags) <= 1
    assert sum(lag is not None and lag.is_detected for lag in lags) <= 1
    assert any(lag is not None and "cannot be checked" in lag.summary for lag in lags)


def test_a_lag_is_detected_in_several_weak_recordings_together(
    story: Story, rng: np.random.Generator
) -> None:
    pairs = [
        (story, moved(record(story, rng, run, signal=0.25, subject=s), 4.0))
        for s in ("1", "2", "3")
        for run in ("a", "b")
    ]
    lag = find_lag(pairs)
    assert lag is not None
    assert (lag.seconds, lag.is_off) == (4.0, True)
    assert lag.summary.startswith(
        "The clock of 3 subjects, 2 runs is off: responses come 4 s (2 scans) later"
    )


def test_subjects_with_different_targets_are_combined(story: Story, rng: np.random.Generator) -> None:
    recording = record(story, rng, subject="2")
    recording = replace(
        recording,
        values=recording.values[:, :9],
        space=Space("columns", np.array([f"v{i}" for i in range(9)])),
    )
    lag = find_lag([(story, moved(record(story, rng), 4.0)), (story, moved(recording, 4.0))])
    assert lag is not None
    assert lag.seconds == 4.0


def test_targets_without_data_change_nothing(story: Story, rng: np.random.Generator) -> None:
    recording = moved(record(story, rng), 4.0)
    recording.values[:, 30] = np.nan
    recording.values[:, 31] = 7.0
    lag = find_lag([(story, recording)])
    assert lag is not None
    assert (lag.seconds, lag.is_off) == (4.0, True)
    assert np.isfinite(lag.r)


def test_a_short_run_is_not_tested(story: Story, rng: np.random.Generator) -> None:
    recording = record(story, rng)
    short = replace(recording, values=recording.values[:35], onset=recording.onset[:35])
    lag = find_lag([(story, moved(short, 4.0))])
    assert lag is not None
    assert not lag.is_off
    assert lag.summary.endswith("cannot be checked: the runs are too short.")


def test_a_recording_without_words_has_no_lag(story: Story, rng: np.random.Generator) -> None:
    assert find_lag([(story, replace(record(story, rng), run="c"))]) is None


@pytest.mark.parametrize("shift", [-4.0, 0.0, 4.0])
def test_the_clock_of_alice_is_right_and_a_planted_shift_is_found(shared_data: Path, shift: float) -> None:
    """Real recordings of 27 people, and the same with shifted by two scans either way."""
    corpus = alice.corpus(shared_data / "alice", Reading())
    story = corpus.story()
    lag = find_lag([(story, moved(corpus.recording(s, "alice"), shift)) for s in corpus.subjects()])
    assert lag is not None
    assert lag.is_detected
    assert lag.seconds == shift
    assert lag.is_off == (shift != 0)
