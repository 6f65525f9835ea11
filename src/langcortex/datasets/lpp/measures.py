"""Measures of words in the annotation of Le Petit Prince: frequency, parsing steps, tree depth, pitch and loudness.

Parsing steps and frequencies are columns of ``lpp{L}_word_information.csv`` (ds003643), described in the data
descriptor (doi:10.1038/s41597-022-01625-7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from langcortex.datasets.lpp.annotation import Annotation
from langcortex.datasets.measures import Measure
from langcortex.errors import SettingsError, StoryError

PARSERS = ("top_down", "bottom_up", "left_corner")


def measure(annotation: Annotation, name: str) -> Measure:
    """Return one of `MEASURES`.

    Raises
    ------
    SettingsError : there is no such measure, or it needs the words of the table
    StoryError : a file is missing or damaged, or lacks the column
    """
    if name not in MEASURES:
        raise SettingsError(f"Le Petit Prince has no measure '{name}'. It has: {', '.join(MEASURES)}.")
    return MEASURES[name](annotation)


def logfreq(annotation: Annotation) -> Measure:
    """Return the log frequency of each word, the mean over its leaves."""
    values = _from_columns(annotation, ("logfreq",), "mean")
    source = "logfreq of the word table; unit as published"
    return Measure("logfreq", annotation.story.ids, ("logfreq",), values, "mean", source)


def syntax(annotation: Annotation) -> Measure:
    """Count the steps that three parsers take at each word, the sum over its leaves.

    Columns: nodes that open at the word (top-down), nodes that close after it (bottom-up), and left-corner steps.
    """
    values = _from_columns(annotation, PARSERS, "sum")
    source = "top_down, bottom_up and left_corner of the word table: tree nodes"
    return Measure("syntax", annotation.story.ids, PARSERS, values, "sum", source)


def tree_depth(annotation: Annotation) -> Measure:
    """Count the constituents around each word, its part of speech included; the mean over its leaves."""
    depth = [d for tree in annotation.parsed() for d in depths(tree.text)]
    values = _combine_leaves(
        annotation, annotation.leaves(), np.array(depth, dtype=np.float64)[:, None], "mean"
    )
    return Measure(
        "tree_depth", annotation.story.ids, ("nodes",), values, "mean", "the tree file: nodes above a word"
    )


def prosody(annotation: Annotation) -> Measure:
    """Return pitch (Hz, over the voiced part; NaN in an unvoiced word) and loudness, averaged over each word.

    The published file was not at hand; its columns are those of the data descriptor.
    """
    table, story, path = annotation.prosody(), annotation.story, annotation.path("prosody.csv")
    values = np.full((len(story), 2), np.nan)
    for run in story.runs:
        rows, samples = story.run == run, table[table["run"] == run]
        time, last = samples["time"].to_numpy(np.float64), float(story.onset[rows].max())
        if len(time) == 0 or (np.diff(time) <= 0).any() or time[-1] < last:
            raise StoryError(
                f"{path} has {len(time)} rows of {run} that do not run in order up to its last word at {last:.2f} s. Fetch it again."
            )
        for k, column in enumerate(("f0", "intensity")):
            signal = samples[column].to_numpy(np.float64)
            values[rows, k] = _window_means(time, signal, story.onset[rows], story.duration[rows])
    source = "the prosody table: f0 in Hz, intensity as root mean square"
    return Measure("prosody", story.ids, ("f0", "intensity"), values, "mean", source)


MEASURES: Mapping[str, Callable[[Annotation], Measure]] = {
    "logfreq": logfreq,
    "syntax": syntax,
    "tree_depth": tree_depth,
    "prosody": prosody,
}


def depths(tree: str) -> list[int]:
    """Count the brackets that are open at each leaf of a tree.

    >>> depths("(S (NP (D the) (N fox)) (V ran))")
    [3, 3, 2]
    """
    leaf_depths, depth, is_label = [], 0, False
    for token in tree.replace("(", " ( ").replace(")", " ) ").split():
        depth += (token == "(") - (token == ")")
        if token not in "()" and is_label is False:
            leaf_depths.append(depth)
        is_label = token == "("
    return leaf_depths


def _from_columns(annotation: Annotation, columns: tuple[str, ...], combine: str) -> np.ndarray:
    leaves = annotation.leaves()
    missing = [c for c in columns if c not in leaves]
    if missing:
        raise StoryError(
            f"{annotation.path('word_information.csv')} has no column '{missing[0]}'. Fetch it again."
        )
    return _combine_leaves(annotation, leaves, leaves[list(columns)].to_numpy(np.float64), combine)


def _combine_leaves(
    annotation: Annotation, leaves: pd.DataFrame, values: np.ndarray, combine: str
) -> np.ndarray:
    """Combine the values of leaves into those of words: (n_words, n_columns), NaN where no leaf has a value."""
    row_of = {name: i for i, name in enumerate(annotation.story.ids.tolist())}
    word = np.array([row_of.get(name, -1) for name in leaves["word_id"]])
    combined = np.full((len(row_of), values.shape[1]), np.nan)
    for k in range(values.shape[1]):
        valid = (word >= 0) & np.isfinite(values[:, k])
        count = np.bincount(word[valid], minlength=len(row_of))
        total = np.bincount(word[valid], values[valid, k], minlength=len(row_of))
        np.divide(total, count if combine == "mean" else 1.0, out=combined[:, k], where=count > 0)
    return combined


def _window_means(
    time: np.ndarray, signal: np.ndarray, onset: np.ndarray, duration: np.ndarray
) -> np.ndarray:
    """Average the samples in each window, at least the nearest later one; NaN where all are NaN."""
    first = np.searchsorted(time, onset - 1e-6)
    stop = np.minimum(np.maximum(np.searchsorted(time, onset + duration - 1e-6), first + 1), len(time))
    defined = np.isfinite(signal)
    count = np.concatenate([[0], np.cumsum(defined)])
    total = np.concatenate([[0.0], np.cumsum(np.where(defined, signal, 0.0))])
    n_samples = count[stop] - count[first]
    means = np.full(len(onset), np.nan)
    np.divide(total[stop] - total[first], n_samples, out=means, where=n_samples > 0)
    return means
