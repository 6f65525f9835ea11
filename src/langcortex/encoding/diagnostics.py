"""Warnings that teach: what a finished fit says about the choices it was given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.design.design import Design
from langcortex.encoding.folded_design import confound_columns
from langcortex.encoding.protocol import Protocol, inner_folds, outer_folds
from langcortex.encoding.scores import Encoding
from langcortex.ridge.decomposition import learn_scale, least_squares_operator, residualise

EDGE = 0.5  # share of predicted targets at the edge from which on it is worth a word (few features need no penalty)
FEW_ROWS = 10  # held-out rows on which a penalty is hardly chosen
COLLINEAR = 0.98  # share of the features' variance that confounds explain


def diagnose(design: Design, protocol: Protocol, encoding: Encoding, spaces: Sequence[str] = ()) -> list[str]:
    """Say what a user should know about the penalties, folds and confounds of a fit.

    Parameters
    ----------
    design, protocol : of the fit
    encoding : the fit
    spaces : feature spaces to hold against the confounds

    Returns
    -------
    sentences, none where there is nothing to say
    """
    return [*_edges(protocol, encoding), *_small(design, protocol), *_collinear(design, protocol, spaces)]


def _edges(protocol: Protocol, encoding: Encoding) -> list[str]:
    """Count the targets that are predicted, inside, at the smallest or largest penalty of the grid."""
    predicted = encoding.inner > 0
    n = int(predicted.sum())
    out = []
    for side, edge in (("smallest", min(protocol.penalties)), ("largest", max(protocol.penalties))):
        share = float((encoding.penalty[predicted] == edge).mean()) if n else 0.0
        if share >= EDGE:
            word = "smaller" if side == "smallest" else "larger"
            out.append(
                f"{encoding.name}, subject {encoding.subject}: {share:.0%} of the fits that predict anything in training chose the {side} penalty "
                f"({edge:g}). Add {word} ones to protocol.penalties."
            )
    return out


def _small(design: Design, protocol: Protocol) -> list[str]:
    folds = outer_folds(design.run, design.scans, protocol)
    sizes = [
        len(inner.test)
        for fold in folds
        for inner in inner_folds(fold.train, design.run, design.scans, protocol)
    ]
    if min(sizes) >= FEW_ROWS:
        return []
    return [
        f"Subject {design.subject}: inner folds hold out as few as {min(sizes)} rows, on which a penalty is hardly chosen. "
        "Use fewer inner folds (protocol.inner)."
    ]


def _collinear(design: Design, protocol: Protocol, spaces: Sequence[str]) -> list[str]:
    """Name the feature spaces that the confounds explain almost wholly."""
    out = []
    for space in spaces:
        confounds = confound_columns(design, [space], protocol)
        if confounds.shape[1] == 0:
            continue
        x = np.asarray(design.X[space], dtype=np.float64)
        z = learn_scale(x).apply(x)
        left = residualise(confounds, least_squares_operator(confounds) @ z, z)
        share = 1.0 - float(np.square(left).sum() / max(np.square(z).sum(), 1e-30))
        if share >= COLLINEAR:
            out.append(
                f"{space}, subject {design.subject}: the confounds explain {share:.0%} of its variance, so hardly anything is left to fit."
            )
    return out
