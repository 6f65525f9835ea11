"""What the annotation of Le Petit Prince says of each word: frequency, parsing steps, trees, pitch and loudness.

The parsers' steps and frequencies are columns of ``lpp{L}_word_information.csv`` (ds003643); what they count is told in the data
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
    """Give one of `MEASURES`.

    Raises
    ------
    SettingsError : there is no such measure, or the words are not those of the table, where it needs them
    StoryError : a file is missing or broken, or lacks the column
    """
    if name not in MEASURES:
        raise SettingsError(f"Le Petit Prince has no measure '{name}'. It has: {', '.join(MEASURES)}.")
    return MEASURES[name](annotation)


def logfreq(annotation: Annotation) -> Measure:
    """Give each word's log frequency, the mean over the leaves it was made of."""
    values = _over_leaves(annotation, ("logfreq",), "mean")
    source = "logfreq of the word table; unit as published"
    return Measure("logfreq", annotation.story.ids, ("logfreq",), values, "mean", source)


def syntax(annotation: Annotation) -> Measure:
    """Count the steps that three parsers take at each word, the sum over the leaves it was made of.

    Columns: nodes that open at the word (top-down), nodes that close after it (bottom-up), and left-corner steps.
    """
    values = _over_leaves(annotation, PARSERS, "sum")
    source = "top_down, bottom_up and left_corner of the word table: tree nodes"
    return Measure("syntax", annotation.story.ids, PARSERS, values, "sum", source)


def tree_depth(annotation: Annotation) -> Measure:
    """Count the constituents that each word stands in, its part of speech included; the mean over its leaves."""
    depth = [d for tree in annotation.parsed() for d in depths(tree.text)]
    values = _merged(annotation, annotation.leaves(), np.array(depth, dtype=np.float64)[:, None], "mean")
    return Measure(
        "tree_depth", annotation.story.ids, ("nodes",), values, "mean", "the tree file: nodes above a word"
    )


def prosody(annotation: Annotation) -> Measure:
    """Give pitch (Hz, over the voiced part; NaN in an unvoiced word) and loudness, averaged while each word lasts.

    The published file was never seen; its columns are those of the data descriptor.
    """
    table, story, path = annotation.prosody(), annotation.story, annotation.path("prosody.csv")
    values = np.full((len(story), 2), np.nan)
    for run in story.runs:
        rows, here = story.run == run, table[table["run"] == run]
        time, last = here["time"].to_numpy(np.float64), float(story.onset[rows].max())
        if len(time) == 0 or (np.diff(time) <= 0).any() or time[-1] < last:
            raise StoryError(
                f"{path} has {len(time)} rows of {run}, not one after the other up to its last word at {last:.2f} s. Fetch it again."
            )
        for k, column in enumerate(("f0", "intensity")):
            signal = here[column].to_numpy(np.float64)
            values[rows, k] = _mean_while(time, signal, story.onset[rows], story.duration[rows])
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
    out, depth, label = [], 0, False
    for part in tree.replace("(", " ( ").replace(")", " ) ").split():
        depth += (part == "(") - (part == ")")
        if part not in "()" and label is False:
            out.append(depth)
        label = part == "("
    return out


def _over_leaves(annotation: Annotation, columns: tuple[str, ...], how: str) -> np.ndarray:
    leaves = annotation.leaves()
    missing = [c for c in columns if c not in leaves]
    if missing:
        raise StoryError(
            f"{annotation.path('word_information.csv')} has no column '{missing[0]}'. Fetch it again."
        )
    return _merged(annotation, leaves, leaves[list(columns)].to_numpy(np.float64), how)


def _merged(annotation: Annotation, leaves: pd.DataFrame, values: np.ndarray, how: str) -> np.ndarray:
    """Merge the leaves' numbers into the story's words: (n_words, n_columns), NaN where no leaf has one."""
    place = {name: i for i, name in enumerate(annotation.story.ids.tolist())}
    word = np.array([place.get(name, -1) for name in leaves["word_id"]])
    out = np.full((len(place), values.shape[1]), np.nan)
    for k in range(values.shape[1]):
        good = (word >= 0) & np.isfinite(values[:, k])
        count = np.bincount(word[good], minlength=len(place))
        total = np.bincount(word[good], values[good, k], minlength=len(place))
        np.divide(total, count if how == "mean" else 1.0, out=out[:, k], where=count > 0)
    return out


def _mean_while(time: np.ndarray, signal: np.ndarray, onset: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Average the samples that fall into each window, at least the nearest later one; NaN where all are NaN."""
    first = np.searchsorted(time, onset - 1e-6)
    stop = np.minimum(np.maximum(np.searchsorted(time, onset + duration - 1e-6), first + 1), len(time))
    known = np.isfinite(signal)
    count = np.concatenate([[0], np.cumsum(known)])
    total = np.concatenate([[0.0], np.cumsum(np.where(known, signal, 0.0))])
    n = count[stop] - count[first]
    out = np.full(len(onset), np.nan)
    np.divide(total[stop] - total[first], n, out=out, where=n > 0)
    return out
