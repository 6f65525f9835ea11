"""OASM: features that know nothing but which pieces were near each other in time.

The "orthogonal autocorrelated sequences model" of Hadidi et al. 2025 (doi:10.1101/2025.03.09.642245, code
github.com/ebrahimfeghhi/beyond-brainscore): with folds of shuffled rows it beats GPT-2 XL on corpora of this field,
because responses are autocorrelated; with whole passages left out it predicts nothing. Folds in which OASM
scores above 0 let test rows be guessed from training rows next to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.arrays import run_slices
from langcortex.errors import SettingsError
from langcortex.features.models.layers import Layers
from langcortex.features.pieces import sentence_pieces, word_pieces
from langcortex.features.table import Features
from langcortex.stimulus.story import Story

SIGMAS = tuple(np.round(np.linspace(0.1, 4.8, 48), 3).tolist())
"""The widths that the authors' code tries, in rows; the best is chosen on training rows."""

UNITS = ("sentences", "words")
MOST = 6000  # rows; a column each


def smoothed_identity(block: np.ndarray, sigma: float) -> np.ndarray:
    """Make OASM's rows: the identity, blurred along the columns inside each block, 0 across blocks.

    X[i, j] = Σ_k G(j − k) δ(i, k) for i and j of one block, G a Gaussian cut off at 4 σ whose tails are reflected
    at the block's edges (``scipy.ndimage.gaussian_filter1d(eye, sigma, axis=1)``, as in the authors' code).

    Parameters
    ----------
    block : (n_rows,) the run, story or passage of each row; the rows of a block stand together
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
    """Give each piece a column of its own, and its neighbours in the run a share of it.

    Parameters
    ----------
    sigma : how far it reaches, in pieces, see `smoothed_identity`
    unit : "sentences", or "words"
    blocks : (n_pieces,) the passage of each piece, where it is shorter than a run, as in Pereira's corpus; the
        pieces of a passage stand together

    Raises
    ------
    SettingsError : no such unit, sigma below 0, blocks of another length, or more than 6,000 pieces
    """
    pieces = story.words if unit == "words" else story.sentences
    if unit not in UNITS or not 0 <= sigma < np.inf:
        raise SettingsError(
            f"oasm takes a unit ({' or '.join(UNITS)}) and a sigma from 0, not '{unit}' and {sigma:g}."
        )
    if len(pieces) > MOST:
        raise SettingsError(
            f"oasm has a column a piece, and story '{story.name}' has {len(pieces)} {unit}; at most {MOST} are "
            'possible. Use unit = "sentences", or fewer runs.'
        )
    if blocks is not None and len(blocks) != len(pieces):
        raise SettingsError(
            f"oasm has blocks for {len(blocks)} pieces, but the story has {len(pieces)} {unit}."
        )
    block = pieces.run if blocks is None else _within_runs(pieces.run, blocks)
    make = word_pieces if unit == "words" else sentence_pieces
    return make("oasm", story, smoothed_identity(block, sigma))


def oasm_layers(
    story: Story,
    sigmas: Sequence[float] = SIGMAS,
    unit: str = "sentences",
    blocks: Sequence[str] | None = None,
) -> Layers:
    """Give OASM at every width as the layers of one model, so that training rows choose among them.

    Returns
    -------
    Layers, named "oasm/sigma-0.1" …
    """
    widths = {f"oasm/sigma-{s:g}": s for s in sigmas}

    def read(name: str) -> Features:
        table = oasm(story, sigma=widths[name], unit=unit, blocks=blocks)
        return Features(name, table.ids, table.onset, table.duration, table.run, table.values)

    return Layers(tuple(widths), read)


def _within_runs(run: np.ndarray, blocks: Sequence[str]) -> np.ndarray:
    named = np.array([f"{r}\n{b}" for r, b in zip(run, blocks, strict=True)])
    if np.count_nonzero(named[1:] != named[:-1]) + 1 != len(set(named.tolist())):
        raise SettingsError(
            "The pieces of a block of oasm do not stand together. Give each stretch a name of its own."
        )
    return named
