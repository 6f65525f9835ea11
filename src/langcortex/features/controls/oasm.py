"""OASM: features that encode only which units of a story are near each other in time.

The "orthogonal autocorrelated sequences model" of Hadidi et al. 2025 (doi:10.1101/2025.03.09.642245, code
github.com/ebrahimfeghhi/beyond-brainscore): with folds of shuffled rows it outperforms GPT-2 XL on corpora of this
field, because responses are autocorrelated; with passages left out it predicts nothing. Where OASM scores above 0,
test rows can be predicted from the training rows next to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.arrays import run_slices
from langcortex.errors import SettingsError
from langcortex.features.pieces import tabulate_sentences, tabulate_words
from langcortex.features.table import Features
from langcortex.stimulus.story import Story

SIGMAS = tuple(np.round(np.linspace(0.1, 4.8, 48), 3).tolist())
"""The widths of the authors' code, in rows; the best is chosen on training rows."""

UNITS = ("sentences", "words")
MOST = 6000  # rows, each with a column of its own


def smoothed_identity(block: np.ndarray, sigma: float) -> np.ndarray:
    """Compute OASM's rows: the identity, smoothed along the columns within each block, 0 across blocks.

    X[i, j] = Σ_k G(j − k) δ(i, k) for i and j of one block, G a Gaussian cut off at 4 σ whose tails are reflected
    at the block's edges (``scipy.ndimage.gaussian_filter1d(eye, sigma, axis=1)``, as in the authors' code).

    Parameters
    ----------
    block : (n_rows,) the run, story or passage of each row; the rows of a block are contiguous
    sigma : standard deviation of G, in rows; 0 leaves the identity

    Returns
    -------
    (n_rows, n_rows)
    """
    from scipy.ndimage import gaussian_filter1d

    out = np.zeros((len(block), len(block)))
    for rows in run_slices(block):
        eye = np.eye(rows.stop - rows.start)
        out[rows, rows] = gaussian_filter1d(eye, sigma, axis=1) if sigma > 0 else eye
    return out


def oasm(
    story: Story, *, sigma: float = 1.0, unit: str = "sentences", blocks: Sequence[str] | None = None
) -> Features:
    """Make one column per unit, smoothed over its neighbours in the run.

    Parameters
    ----------
    sigma : standard deviation of the smoothing, in units, see `smoothed_identity`
    unit : "sentences", or "words"
    blocks : (n_units,) the passage of each unit, where passages are shorter than runs, as in Pereira's corpus; the
        units of a passage are contiguous

    Raises
    ------
    SettingsError : no such unit, sigma below 0, blocks of another length, or more than 6,000 units
    """
    units = story.words if unit == "words" else story.sentences
    if unit not in UNITS or not 0 <= sigma < np.inf:
        raise SettingsError(
            f"oasm takes a unit ({' or '.join(UNITS)}) and a sigma from 0, not '{unit}' and {sigma:g}."
        )
    if len(units) > MOST:
        raise SettingsError(
            f"oasm has one column per unit, and story '{story.name}' has {len(units)} {unit}; at most {MOST} are "
            'possible. Use unit = "sentences", or fewer runs.'
        )
    if blocks is not None and len(blocks) != len(units):
        raise SettingsError(
            f"oasm has blocks for {len(blocks)} units, but the story has {len(units)} {unit}."
        )
    block = units.run if blocks is None else _within_runs(units.run, blocks)
    make = tabulate_words if unit == "words" else tabulate_sentences
    return make("oasm", story, smoothed_identity(block, sigma))


def _within_runs(run: np.ndarray, blocks: Sequence[str]) -> np.ndarray:
    block = np.array([f"{r}\n{b}" for r, b in zip(run, blocks, strict=True)])
    if np.count_nonzero(block[1:] != block[:-1]) + 1 != len(set(block.tolist())):
        raise SettingsError(
            "The units of a block of oasm are not contiguous. Give every passage a name of its own."
        )
    return block
