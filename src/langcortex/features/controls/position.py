"""Position of words and sentences: controls that encode the order of a story and not its content.

In short passages, position and sentence length explain much of the variance that language models explain (Feghhi et
al. 2024, arXiv:2406.01538; Hadidi et al. 2025, doi:10.1101/2025.03.09.642245; the forms below are those of their
corpora).
"""

from __future__ import annotations

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.pieces import count_within_groups, tabulate_sentences, tabulate_words
from langcortex.features.table import Features
from langcortex.stimulus.story import Story

WITHIN = ("sentence", "run")


def position(story: Story) -> Features:
    """Onset of each sentence in its run, from 0 (the run's first sentence) to 1 (its last)."""
    return tabulate_sentences("position", story, _relative_onset(story))


def position_in_sentence(story: Story, *, relative: bool = False) -> Features:
    """Position of words in their sentence: 0, 1, 2 …; merged into sentences by the mean.

    Parameters
    ----------
    relative : scaled from 0 (first word) to 1 (last); 0 in a sentence of one word

    Raises
    ------
    SettingsError : every sentence is one word
    """
    index = _positions_in_sentence(story).astype(np.float64)
    if relative:
        index /= np.maximum(np.repeat(story.sentences.n_words, story.sentences.n_words) - 1, 1)
    return tabulate_words("position_in_sentence", story, index)


def position_in_run(story: Story, *, relative: bool = False) -> Features:
    """Position of sentences in their run: 0, 1, 2 …

    Parameters
    ----------
    relative : scaled from 0 (first sentence) to 1 (last); 0 in a run of one sentence
    """
    run = story.sentences.run
    index = count_within_groups(run).astype(np.float64)
    if relative:
        last = {str(r): index[run == r].max() for r in story.runs}
        index /= np.maximum([last[str(r)] for r in run], 1.0)
    return tabulate_sentences("position_in_run", story, index)


def position_onehot(
    story: Story, *, width: int = 8, within: str = "sentence", sigma: float = 0.0
) -> Features:
    """Encode positions one-hot: of words in their sentence, or of sentences in their run.

    Parameters
    ----------
    width : number of columns; the last one is for that position and all later ones
    within : "sentence" (rows are words) or "run" (rows are sentences)
    sigma : standard deviation, in positions, of a Gaussian that smooths rows over the columns
        (``scipy.ndimage.gaussian_filter1d``); 0 leaves them one-hot

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
    in_sentence = within == "sentence"
    index = _positions_in_sentence(story) if in_sentence else count_within_groups(story.sentences.run)
    onehot = np.eye(width)[np.minimum(index, width - 1)]
    if sigma > 0:
        from scipy.ndimage import gaussian_filter1d

        onehot = gaussian_filter1d(onehot, sigma, axis=1)
    tabulate = tabulate_words if in_sentence else tabulate_sentences
    return tabulate("position_onehot", story, onehot)


def position_ramps(story: Story, *, width: int = 10) -> Features:
    """Ramps over the first sentences of a run: column k is min(position, k), k from 1 to `width`.

    Every function of position that is constant after `width` sentences is a linear combination of these columns, up
    to a constant.

    Raises
    ------
    SettingsError : `width` below 1
    """
    if width < 1:
        raise SettingsError(f"position_ramps needs a width from 1, not {width}.")
    index = count_within_groups(story.sentences.run)
    return tabulate_sentences("position_ramps", story, np.minimum(index[:, None], np.arange(1, width + 1)))


def trend(story: Story, *, degree: int = 3) -> Features:
    """Legendre polynomials of degree 1 to `degree` over each run, from its first sentence (−1) to its last (1).

    Raises
    ------
    SettingsError : `degree` below 1
    """
    if degree < 1:
        raise SettingsError(f"trend needs a degree from 1, not {degree}.")
    columns = np.polynomial.legendre.legvander(2 * _relative_onset(story) - 1, degree)[:, 1:]
    return tabulate_sentences("trend", story, columns)


def _relative_onset(story: Story) -> np.ndarray:
    s = story.sentences
    share = np.zeros(len(s))
    for run in story.runs:
        rows = s.run == run
        first = s.onset[rows].min()
        share[rows] = (s.onset[rows] - first) / max(1e-9, s.onset[rows].max() - first)
    return share


def _positions_in_sentence(story: Story) -> np.ndarray:
    if len(story) > 1 and len(story.sentences) == len(story):
        raise SettingsError(
            f"Story '{story.name}' has one word per sentence, so words have no position in it. "
            "Use sentences or scans as rows, or a position in the run."
        )
    return count_within_groups(story.sentence)
