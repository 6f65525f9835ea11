"""Controls: what could be said about a story without any language model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.table import Features
from langcortex.story import Story


def word_count(story: Story) -> Features:
    """Count words: 1 a word, summed into sentences; over scans, impulses at word onsets (the word rate)."""
    return _words("word_count", story, np.ones(len(story)), "sum")


def duration(story: Story) -> Features:
    """How long each sentence lasts, in seconds."""
    return _sentences("duration", story, story.sentences.duration)


def word_rate(story: Story) -> Features:
    """Words a second in each sentence."""
    s = story.sentences
    return _sentences("word_rate", story, s.n_words / np.maximum(s.duration, 1e-3))


def position(story: Story) -> Features:
    """Where in its run each sentence begins, 0 (the run's first word) to 1 (its last)."""
    s = story.sentences
    place = np.zeros(len(s))
    for run in story.runs:
        rows = s.run == run
        first = s.onset[rows].min()
        place[rows] = (s.onset[rows] - first) / max(1e-9, s.onset[rows].max() - first)
    return _sentences("position", story, place)


def letters(story: Story) -> Features:
    """Count letters, summed into sentences."""
    count = np.array([sum(c.isalnum() for c in str(w)) for w in story.text], dtype=np.float64)
    return _words("letters", story, count, "sum")


CONTROLS: dict[str, Callable[[Story], Features]] = {
    f.__name__: f for f in (word_count, duration, word_rate, position, letters)
}


def control(name: str, story: Story) -> Features:
    """Make a control by name.

    >>> sorted(CONTROLS)
    ['duration', 'letters', 'position', 'word_count', 'word_rate']
    """
    if name not in CONTROLS:
        raise SettingsError(f"No control is called '{name}'. There are: {', '.join(CONTROLS)}.")
    return CONTROLS[name](story)


def _words(name: str, story: Story, values: np.ndarray, combine: str) -> Features:
    return Features(name, story.ids, story.onset, story.duration, story.run, values[:, None], combine)


def _sentences(name: str, story: Story, values: np.ndarray) -> Features:
    s = story.sentences
    return Features(name, s.ids, s.onset, s.duration, s.run, np.asarray(values, dtype=np.float64)[:, None])
