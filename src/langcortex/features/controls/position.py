"""Where words and sentences stand: controls that know the order of a story and nothing of what it says.

Position and sentence length explain much of what language models explain in short passages (Feghhi et al. 2024,
arXiv:2406.01538; Hadidi et al. 2025, doi:10.1101/2025.03.09.642245, whose corpora each have one of the forms below).
"""

from __future__ import annotations

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.pieces import row_positions, sentence_pieces, word_pieces
from langcortex.features.table import Features
from langcortex.stimulus.story import Story

WITHIN = ("sentence", "run")


def position(story: Story) -> Features:
    """Where in its run each sentence begins, 0 (the run's first sentence) to 1 (its last), by time."""
    return sentence_pieces("position", story, _share_of_run(story))


def position_in_sentence(story: Story, *, relative: bool = False) -> Features:
    """Number words within their sentence: 0, 1, 2 …; merged into sentences by the mean.

    Parameters
    ----------
    relative : from 0 (first word) to 1 (last) instead; 0 for the word of a sentence of one word

    Raises
    ------
    SettingsError : every sentence is one word
    """
    place = _place_in_sentence(story).astype(np.float64)
    if relative:
        place /= np.maximum(np.repeat(story.sentences.n_words, story.sentences.n_words) - 1, 1)
    return word_pieces("position_in_sentence", story, place)


def position_in_run(story: Story, *, relative: bool = False) -> Features:
    """Number sentences within their run: 0, 1, 2 …

    Parameters
    ----------
    relative : from 0 (first sentence) to 1 (last) instead; 0 in a run of one sentence
    """
    run = story.sentences.run
    place = row_positions(run).astype(np.float64)
    if relative:
        last = {str(r): place[run == r].max() for r in story.runs}
        place /= np.maximum([last[str(r)] for r in run], 1.0)
    return sentence_pieces("position_in_run", story, place)


def position_onehot(
    story: Story, *, width: int = 8, within: str = "sentence", sigma: float = 0.0
) -> Features:
    """Mark each place by a column of its own: words within their sentence, or sentences within their run.

    Parameters
    ----------
    width : columns; the last one is for that place and all later ones
    within : "sentence" (rows are words) or "run" (rows are sentences)
    sigma : standard deviation, in places, of a Gaussian that spreads each mark over its neighbours, as
        ``scipy.ndimage.gaussian_filter1d`` does over the columns; 0 leaves marks sharp

    Raises
    ------
    SettingsError : no such `within`; `width` below 1 or `sigma` below 0; every sentence is one word
    """
    if within not in WITHIN:
        raise SettingsError(f"position_onehot is within {' or '.join(WITHIN)}, not '{within}'.")
    if width < 1 or sigma < 0:
        raise SettingsError(
            f"position_onehot needs a width from 1 and a sigma from 0, not {width} and {sigma:g}."
        )
    place = _place_in_sentence(story) if within == "sentence" else row_positions(story.sentences.run)
    marks = np.eye(width)[np.minimum(place, width - 1)]
    if sigma > 0:
        from scipy.ndimage import gaussian_filter1d

        marks = gaussian_filter1d(marks, sigma, axis=1)
    make = word_pieces if within == "sentence" else sentence_pieces
    return make("position_onehot", story, marks)


def position_ramps(story: Story, *, width: int = 10) -> Features:
    """Count sentences from the run's beginning, up to 1, 2, … `width`: column k is min(place, k).

    Any monotone or other smooth course over the first `width` sentences of a run is a sum of these columns.

    Raises
    ------
    SettingsError : `width` below 1
    """
    if width < 1:
        raise SettingsError(f"position_ramps needs a width from 1, not {width}.")
    place = row_positions(story.sentences.run)
    return sentence_pieces("position_ramps", story, np.minimum(place[:, None], np.arange(1, width + 1)))


def trend(story: Story, *, degree: int = 3) -> Features:
    """Follow each run from its first sentence (−1) to its last (1) by Legendre polynomials of degree 1 to `degree`.

    Raises
    ------
    SettingsError : `degree` below 1
    """
    if degree < 1:
        raise SettingsError(f"trend needs a degree from 1, not {degree}.")
    columns = np.polynomial.legendre.legvander(2 * _share_of_run(story) - 1, degree)[:, 1:]
    return sentence_pieces("trend", story, columns)


def _share_of_run(story: Story) -> np.ndarray:
    s = story.sentences
    share = np.zeros(len(s))
    for run in story.runs:
        rows = s.run == run
        first = s.onset[rows].min()
        share[rows] = (s.onset[rows] - first) / max(1e-9, s.onset[rows].max() - first)
    return share


def _place_in_sentence(story: Story) -> np.ndarray:
    if len(story) > 1 and len(story.sentences) == len(story):
        raise SettingsError(
            f"Story '{story.name}' has one word a sentence, so words have no place within one. "
            "Use sentences or scans as rows, or a position within the run."
        )
    return row_positions(story.sentence)
