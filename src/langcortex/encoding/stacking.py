"""Stacking: feature spaces that are fitted by themselves, and mixed by convex weights of each target.

Each space makes its own ridge prediction. Their residuals E for training rows that were held out (n_rows, n_spaces)
give the weights of a target,

    w = argmin ‖E w‖² with w ≥ 0 and Σ w = 1,

and the prediction of new rows is Σ w_s ŷ_s. A weight says how much a space is worth beside the others.

References
----------
Lin et al. 2024, doi:10.1016/j.neuroimage.2024.120772
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from langcortex.arrays import chunks
from langcortex.design.design import Design
from langcortex.encoding.joint import Draft, Nested
from langcortex.encoding.protocol import Fold, Protocol
from langcortex.encoding.scores import Encoding
from langcortex.ridge.multikernel import (
    Band,
    BandSet,
    PenaltyScorer,
    TrainingMoments,
    kernel_products,
    predict_bands,
    training_moments,
)

CHUNK = 512  # targets handled at once
ALONE = np.ones(1)  # the weight of a band that is by itself


@dataclass(frozen=True, eq=False)
class StackedEncoding:
    """What feature spaces say about one subject, mixed by convex weights, out of run.

    Attributes
    ----------
    spaces : (n_spaces,) names
    encoding : of the mixed prediction; its `inner` is R² of mixed held-out training rows, its `penalty` NaN
    weight : (n_spaces, n_folds, n_targets) not negative, adding up to 1; NaN where a target is undefined
    penalty : (n_spaces, n_folds, n_targets) that each space chose by itself, in the units of the protocol's grid
    split : (n_spaces, n_pieces, n_targets) each space's share of SST − SSE (product measure); adds up over spaces

    References
    ----------
    Lin et al. 2024, doi:10.1016/j.neuroimage.2024.120772
    """

    spaces: tuple[str, ...]
    encoding: Encoding
    weight: np.ndarray
    penalty: np.ndarray
    split: np.ndarray


def stack(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    delays: np.ndarray | None = None,
    pca: Mapping[str, int | None] | None = None,
    keep: bool = False,
) -> StackedEncoding:
    """Fit feature spaces by themselves, mix them by weights learnt in training, and predict every run.

    In each outer fold, from its training rows alone: every space chooses its penalty per target by inner folds;
    the predictions of the rows those folds held out give the weights; then every space is fitted to all training
    rows, and the held-out rows are predicted by the mixture.

    Parameters
    ----------
    design : rows of one subject
    spaces : keys of ``design.X``; one that is also a confound of the protocol is not taken off
    protocol, delays, keep : as in `langcortex.encoding.nested_cv.fit`
    pca : components to keep, by space, where that is not what the protocol says

    Returns
    -------
    Stacked; a target that is NaN or constant scores NaN and does not touch the others

    Raises
    ------
    FitError : a space is unknown, named twice, or not finite

    Notes
    -----
    Weights rest on the rows that also chose the penalties, as in the source; held-out runs take no part in either.
    """
    nested = Nested(design, spaces, protocol, delays, pca)
    draft = Draft(nested, spaces, keep)
    weight = np.full(draft.of_part.shape, np.nan)
    prepare = [nested.preparer(space) for space in spaces]
    for k, fold in enumerate(nested.folds):
        inner = nested.inner(k)
        each = 4 * len(design.run) * (len(spaces) + len(inner) + 4)
        for targets, y in nested.slabs(k, each):
            learnt = training_moments(y, nested.confounds, fold.train)
            parts = [_one_space(p, nested, fold, inner, y, learnt) for p in prepare]
            w, r2 = _mix([part.residuals for part in parts], nested, inner, y)
            weight[:, k, targets], draft.best[k, targets] = w.T, r2
            draft.of_part[:, k, targets] = [part.penalty for part in parts]
            predicted = np.stack([part.predicted for part in parts])
            # a target without weights is one that nothing predicts
            predicted *= np.nan_to_num(w.T[:, None]).astype(predicted.dtype)
            draft.enter(k, targets, y, learnt, predicted)
    return StackedEncoding(tuple(spaces), draft.encoding(), weight, draft.of_part, draft.split)


@dataclass(frozen=True, eq=False)
class _Part:
    """One space in one outer fold: residuals of held-out training rows (an inner fold each), and predictions."""

    residuals: list[np.ndarray]
    penalty: np.ndarray
    predicted: np.ndarray


def _one_space(
    prepare: Callable[[np.ndarray], Band],
    nested: Nested,
    fold: Fold,
    inner: Sequence[Fold],
    y: np.ndarray,
    learnt: TrainingMoments,
) -> _Part:
    fits = []
    total = np.zeros((len(nested.grid), y.shape[1]), dtype=y.dtype)
    count = np.zeros(y.shape[1], dtype=y.dtype)
    for one in inner:
        mixture = BandSet([prepare(one.train)], one.train).weight(ALONE)
        mean = training_moments(y, nested.confounds, one.train)
        product = kernel_products(mixture.bands, mean, y)
        held = mean.hold_out(y, one.test, nested.protocol.choose_by)
        crossed = mixture.bands.heldout_product(held.y, one.test)
        judge = PenaltyScorer(mixture, one.test, nested.grid, nested.protocol.choose_by, y.dtype)
        for c in chunks(y.shape[1], CHUNK):
            part = held.select(c)
            scores = judge.scores(product[:, c], None if crossed is None else crossed[:, c], part)
            known = np.isfinite(scores[-1])
            total[:, c] += np.where(np.isfinite(scores), scores, 0.0)
            count[c] += known
        fits.append((mixture, product, mean))
    with np.errstate(invalid="ignore", divide="ignore"):
        best = np.argmax(np.nan_to_num(total / count, nan=-np.inf), axis=0)
    penalty = nested.grid[best]
    residuals = [
        mean.residualise(y, one.test) - predict_bands(mixture, product, one.test, penalty)[0]
        for one, (mixture, product, mean) in zip(inner, fits, strict=True)
    ]
    mixture = BandSet([prepare(fold.train)], fold.train).weight(ALONE)
    product = kernel_products(mixture.bands, learnt, y)
    return _Part(residuals, penalty, predict_bands(mixture, product, fold.test, penalty)[0])


def _mix(
    residuals: Sequence[Sequence[np.ndarray]], nested: Nested, inner: Sequence[Fold], y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Learn weights (n, n_spaces) and their R² (n,) from the residuals of every space in every inner fold."""
    n_spaces, n = len(residuals), y.shape[1]
    crossed = np.zeros((n, n_spaces, n_spaces))
    for j in range(len(inner)):
        for c in chunks(n, CHUNK):
            # weights rest on small differences of large sums: float64
            e = np.stack([space[j][:, c] for space in residuals], axis=-1, dtype=np.float64)
            crossed[c] += np.einsum("iva,ivb->vab", e, e, optimize=True)
    total, flat = np.zeros(n), np.ones(n, dtype=bool)
    for fold in inner:
        held = training_moments(y, nested.confounds, fold.train).hold_out(y, fold.test, "r2")
        total += held.sum_of_squares
        flat &= held.is_constant
    w = simplex_weights(crossed)
    w[flat] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1.0 - np.einsum("va,vab,vb->v", w, crossed, w) / total
    return w, np.where(np.isfinite(r2), r2, np.nan)


def simplex_weights(gram: np.ndarray) -> np.ndarray:
    """Minimise wᵀ P w over convex weights, for every target.

    With P = L Lᵀ, the minimum over x ≥ 0 of ½ xᵀ P x − 1ᵀ x is a non-negative least squares problem, and
    w = x / Σ x meets the conditions of the minimum sought (its multiplier is 1 / Σ x).

    Parameters
    ----------
    gram : (n_targets, n_spaces, n_spaces) residual cross-products EᵀE, float64

    Returns
    -------
    (n_targets, n_spaces), not negative, rows adding up to 1; spaces that cannot be told apart share equally

    >>> simplex_weights(np.array([[[1.0, 0.0], [0.0, 3.0]]])).round(6).tolist()
    [[0.75, 0.25]]
    """
    n, size, _ = gram.shape
    weights = np.full((n, size), 1.0 / size)
    if size == 1:
        return weights
    scale = np.trace(gram, axis1=1, axis2=2) / size
    for i in np.flatnonzero(scale > 0):
        low = linalg.cholesky(gram[i] / scale[i] + TIE * np.eye(size), lower=True, check_finite=False)
        x = optimize.nnls(low.T, linalg.solve_triangular(low, np.ones(size), lower=True))[0]
        weights[i] = x / x.sum()
    return weights


TIE = 1e-6  # added to the diagonal, as a share of its mean: spaces that differ by less get equal weights
