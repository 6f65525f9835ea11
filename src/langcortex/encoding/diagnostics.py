"""Warnings about the choices of a finished fit: its penalties, folds and confounds, and what to change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding
from langcortex.ridge.decomposition import learn_scale, least_squares_operator, residualise

EDGE = 0.5  # share of predicted targets at the edge of the grid from which on to warn (few features need no penalty)
FEW_ROWS = 10  # held-out rows below which the choice of a penalty is unreliable
COLLINEAR = 0.98  # share of the features' variance that confounds explain


def diagnose(design: Design, protocol: Protocol, encoding: Encoding, spaces: Sequence[str] = ()) -> list[str]:
    """List warnings about the penalties, folds and confounds of a fit.

    Parameters
    ----------
    design, protocol : of the fit
    encoding : the fit
    spaces : feature spaces to compare with the confounds

    Returns
    -------
    sentences; none where all is well
    """
    folded = FoldedDesign(design, protocol)
    return [*_edges(protocol, encoding), *_small_folds(folded), *_collinear(folded, spaces)]


def _edges(protocol: Protocol, encoding: Encoding) -> list[str]:
    """Warn where most of the targets that are predicted in training are at an edge of the grid of penalties."""
    predicted = encoding.inner > 0
    n = int(predicted.sum())
    warnings = []
    for side, edge in (("smallest", min(protocol.penalties)), ("largest", max(protocol.penalties))):
        share = float((encoding.penalty[predicted] == edge).mean()) if n else 0.0
        if share >= EDGE:
            word = "smaller" if side == "smallest" else "larger"
            warnings.append(
                f"{encoding.name}, subject {encoding.subject}: {share:.0%} of the fits that predict anything in training chose the {side} penalty "
                f"({edge:g}). Add {word} ones to protocol.penalties."
            )
    return warnings


def _small_folds(folded: FoldedDesign) -> list[str]:
    """Warn where inner folds hold out few rows."""
    sizes = [len(inner.test) for k in range(len(folded.folds)) for inner in folded.inner_folds(k)]
    if min(sizes) >= FEW_ROWS:
        return []
    return [
        f"Subject {folded.design.subject}: inner folds hold out as few as {min(sizes)} rows, too few to choose a penalty reliably. "
        "Use fewer inner folds (protocol.inner)."
    ]


def _collinear(folded: FoldedDesign, spaces: Sequence[str]) -> list[str]:
    """Warn about feature spaces that the confounds explain almost entirely."""
    warnings = []
    for space in spaces:
        confounds = folded.confounds([space])
        if confounds.shape[1] == 0:
            continue
        x = np.asarray(folded.design.X[space], dtype=np.float64)
        z = learn_scale(x).apply(x)
        residuals = residualise(confounds, least_squares_operator(confounds) @ z, z)
        share = 1.0 - float(np.square(residuals).sum() / max(np.square(z).sum(), 1e-30))
        if share >= COLLINEAR:
            warnings.append(
                f"{space}, subject {folded.design.subject}: the confounds explain {share:.0%} of its variance, so hardly anything is left to fit."
            )
    return warnings
