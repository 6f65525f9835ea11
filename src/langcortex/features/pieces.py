"""Feature tables of a story's units, words or sentences, from arrays in the story's order."""

from __future__ import annotations

import numpy as np

from langcortex.errors import StoryError
from langcortex.features.table import Features
from langcortex.stimulus.story import Story


def tabulate_words(name: str, story: Story, values: np.ndarray, combine: str = "mean") -> Features:
    """Make a table with one row per word.

    Parameters
    ----------
    values : (n_words,) or (n_words, n_columns), in the story's order
    combine : how words merge into sentences and scans, see `Features`
    """
    return Features(name, story.ids, story.onset, story.duration, story.run, _as_columns(values), combine)


def tabulate_sentences(name: str, story: Story, values: np.ndarray, combine: str = "mean") -> Features:
    """Make a table with one row per sentence, or other unit of the story (see `Story.group_by`).

    Parameters
    ----------
    values : (n_sentences,) or (n_sentences, n_columns), in the story's order
    combine : how rows merge into longer units, see `Features`
    """
    s = story.sentences
    return Features(name, s.ids, s.onset, s.duration, s.run, _as_columns(values), combine)


def fill_with_run_mean(values: np.ndarray, story: Story, content: str) -> np.ndarray:
    """Replace undefined values of words by the mean of their run's other words.

    Parameters
    ----------
    values : (n_words, n_columns), NaN where undefined
    content : the values in words, for the error

    Returns
    -------
    (n_words, n_columns)

    Raises
    ------
    StoryError : a run has no value at all
    """
    out = np.array(values, dtype=np.float64)
    for run in story.runs:
        rows = story.run == run
        part = out[rows]
        undefined = np.isnan(part)
        if undefined.all(axis=0).any():
            raise StoryError(
                f"Run '{run}' has no word with {content}. Leave this control out, or check its file."
            )
        if undefined.any():
            out[rows] = np.where(undefined, np.nanmean(part, axis=0), part)
    return out


def count_within_groups(group: np.ndarray) -> np.ndarray:
    """Number the rows of each contiguous group from 0.

    >>> count_within_groups(np.array(["a", "a", "b", "a"])).tolist()
    [0, 1, 0, 0]
    """
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    sizes = np.diff(np.append(first, len(group)))
    return np.arange(len(group)) - np.repeat(first, sizes)


def _as_columns(values: np.ndarray) -> np.ndarray:
    out = np.asarray(values, dtype=np.float64)
    return out[:, None] if out.ndim == 1 else out
