"""Stacking: feature spaces fitted separately, their predictions averaged with convex weights per target.

Each space makes its own ridge prediction. Their residuals E for held-out training rows (n_rows, n_spaces) give the
weights of a target,

    w = argmin ‖E w‖² with w ≥ 0 and Σ w = 1,

and the prediction of new rows is Σ w_s ŷ_s. A weight measures how much a space is worth beside the others.

References
----------
Lin et al. 2024, doi:10.1016/j.neuroimage.2024.120772
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from langcortex.arrays import chunks
from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.joint import BandPreparer, JointDraft, band_preparers, check_spaces, response_slabs
from langcortex.encoding.protocol import Fold, Protocol
from langcortex.encoding.scores import Encoding
from langcortex.ridge.multikernel import (
    BandSet,
    PenaltyScorer,
    TrainingMoments,
    WeightedKernel,
    kernel_products,
    predict_bands,
    training_moments,
)

CHUNK = 512  # targets handled at once
UNIT_WEIGHT = np.ones(1)  # the weight of a single band
TIE = 1e-6  # added to the diagonal, as a share of its mean: spaces that differ by less get equal weights


@dataclass(frozen=True, eq=False)
class StackedEncoding:
    """How well a convex average of feature spaces' predictions predicts one subject, out of run.

    Attributes
    ----------
    spaces : (n_spaces,) names
    encoding : of the averaged prediction; its `inner` is the R² of averaged held-out training rows, its `penalty` NaN
    weight : (n_spaces, n_folds, n_targets) not negative, adding up to 1; NaN where a target is undefined
    penalty : (n_spaces, n_folds, n_targets) chosen for each space by itself, in the units of the protocol's grid
    product_measure : (n_spaces, n_segments, n_targets) each space's share of SST − SSE; adds up over spaces

    References
    ----------
    Lin et al. 2024, doi:10.1016/j.neuroimage.2024.120772
    """

    spaces: tuple[str, ...]
    encoding: Encoding
    weight: np.ndarray
    penalty: np.ndarray
    product_measure: np.ndarray


def stack(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    delays: np.ndarray | None = None,
    pca: Mapping[str, int | None] | None = None,
    keep_predictions: bool = False,
) -> StackedEncoding:
    """Fit feature spaces separately, average their predictions with weights learnt in training, predict every run.

    In each outer fold, from its training rows alone: one penalty per space and target is chosen by inner folds;
    the predictions of the rows those folds held out give the weights; then every space is fitted to all training
    rows, and the held-out rows are predicted by the weighted average.

    Parameters
    ----------
    design : rows of one subject
    spaces : keys of ``design.X``; one that is also a confound of the protocol is not regressed out
    protocol, delays, keep_predictions : as in `langcortex.encoding.nested_cv.fit`
    pca : space → components to keep, where that is not what the protocol says

    Returns
    -------
    StackedEncoding; a target that is NaN or constant scores NaN and does not affect the others

    Raises
    ------
    FitError : a space is unknown, named twice, or not finite

    Notes
    -----
    Weights are learnt on the rows that also chose the penalties, as in the source; held-out runs take no part in either.
    """
    check_spaces(design, spaces, protocol, pca or {})
    folded = FoldedDesign(design, protocol, delays)
    draft = JointDraft(folded, spaces, keep_predictions)
    weight = np.full(draft.penalty.shape, np.nan)
    preparers, confounds = band_preparers(folded, spaces, pca or {}), folded.confounds(spaces)
    for k in range(len(folded.folds)):
        n_inner = len(folded.inner_folds(k))
        for targets, y in response_slabs(folded, k, 4 * len(design.run) * (len(spaces) + n_inner + 4)):
            responses = _FoldResponses.of(folded, k, y, confounds)
            fits = [_fit_space(prepare, responses) for prepare in preparers]
            w, r2 = _learn_weights([space_fit.residuals for space_fit in fits], responses)
            weight[:, k, targets] = w.T
            draft.scores.inner[k, targets] = r2
            draft.penalty[:, k, targets] = [space_fit.penalty for space_fit in fits]
            predicted = np.stack([space_fit.predicted for space_fit in fits])
            # a target without weights is one that nothing predicts
            predicted *= np.nan_to_num(w.T[:, None]).astype(predicted.dtype)
            draft.add_predictions(k, targets, y, responses.moments, predicted)
    return StackedEncoding(tuple(spaces), draft.encoding(), weight, draft.penalty, draft.product_measure)


@dataclass(frozen=True, eq=False)
class _FoldResponses:
    """Responses of some targets in one outer fold, with what its training rows and those of its inner folds say of them.

    Attributes
    ----------
    fold, inner : the outer fold, and its inner folds
    y : (n_rows, n) raw responses
    moments, inner_moments : mean and confounds of the responses, learnt on the training rows of each fold
    penalties, metric : the grid, and the score that chooses among it
    """

    fold: Fold
    inner: Sequence[Fold]
    y: np.ndarray
    moments: TrainingMoments
    inner_moments: Sequence[TrainingMoments]
    penalties: np.ndarray
    metric: str

    @classmethod
    def of(cls, folded: FoldedDesign, k: int, y: np.ndarray, confounds: np.ndarray) -> _FoldResponses:
        """Learn mean and confounds of responses in outer fold k."""
        fold, inner = folded.folds[k], folded.inner_folds(k)
        moments = training_moments(y, confounds, fold.train)
        inner_moments = [training_moments(y, confounds, split.train) for split in inner]
        return cls(fold, inner, y, moments, inner_moments, folded.penalties, folded.protocol.choose_by)


@dataclass(frozen=True, eq=False)
class _SpaceFit:
    """One feature space in one outer fold.

    Attributes
    ----------
    residuals : of the rows that each inner fold held out
    penalty : (n,) chosen by inner folds
    predicted : (n_heldout, n) prediction of the outer fold's test rows
    """

    residuals: list[np.ndarray]
    penalty: np.ndarray
    predicted: np.ndarray


def _fit_space(prepare: BandPreparer, responses: _FoldResponses) -> _SpaceFit:
    """Choose the penalties of one feature space, and predict the rows that inner folds and the outer fold hold out."""
    y = responses.y
    kernels, products = [], []
    total = np.zeros((len(responses.penalties), y.shape[1]), dtype=y.dtype)
    count = np.zeros(y.shape[1], dtype=y.dtype)
    for split, moments in zip(responses.inner, responses.inner_moments, strict=True):
        kernel = _single_kernel(prepare, split.train)
        product = kernel_products(kernel.bands, moments, y)
        _add_inner_scores(kernel, product, split.test, moments, responses, total, count)
        kernels.append(kernel)
        products.append(product)
    with np.errstate(invalid="ignore", divide="ignore"):
        best = np.argmax(np.nan_to_num(total / count, nan=-np.inf), axis=0)
    penalty = responses.penalties[best]
    residuals = [
        moments.residualise(y, split.test) - predict_bands(kernel, product, split.test, penalty)[0]
        for split, moments, kernel, product in zip(
            responses.inner, responses.inner_moments, kernels, products, strict=True
        )
    ]
    train, test = responses.fold
    kernel = _single_kernel(prepare, train)
    product = kernel_products(kernel.bands, responses.moments, y)
    return _SpaceFit(residuals, penalty, predict_bands(kernel, product, test, penalty)[0])


def _single_kernel(prepare: BandPreparer, train: np.ndarray) -> WeightedKernel:
    """Prepare one feature space from training rows."""
    return BandSet([prepare(train)], train).weight(UNIT_WEIGHT)


def _add_inner_scores(
    kernel: WeightedKernel,
    product: np.ndarray,
    rows: np.ndarray,
    moments: TrainingMoments,
    responses: _FoldResponses,
    total: np.ndarray,
    count: np.ndarray,
) -> None:
    """Add the scores of every penalty on the rows that one inner fold holds out.

    Parameters
    ----------
    product : of the inner training responses with the kernel
    rows : the rows held out
    moments : of the inner training responses
    total, count : (n_penalties, n) and (n,) sums of scores and how many were defined
    """
    y, metric = responses.y, responses.metric
    held_out = moments.hold_out(y, rows, metric)
    cross = kernel.bands.heldout_product(held_out.y, rows)
    scorer = PenaltyScorer(kernel, rows, responses.penalties, metric, y.dtype)
    for c in chunks(y.shape[1], CHUNK):
        part = held_out.select(c)
        scores = scorer.scores(product[:, c], None if cross is None else cross[:, c], part)
        total[:, c] += np.where(np.isfinite(scores), scores, 0.0)
        count[c] += np.isfinite(scores[-1])


def _learn_weights(
    residuals: Sequence[Sequence[np.ndarray]], responses: _FoldResponses
) -> tuple[np.ndarray, np.ndarray]:
    """Learn weights (n, n_spaces) and their R² (n,) from the residuals of every space in every inner fold."""
    n_spaces, n = len(residuals), responses.y.shape[1]
    gram = np.zeros((n, n_spaces, n_spaces))
    for j in range(len(responses.inner)):
        for c in chunks(n, CHUNK):
            # weights rest on small differences of large sums: float64
            e = np.stack([space[j][:, c] for space in residuals], axis=-1, dtype=np.float64)
            gram[c] += np.einsum("iva,ivb->vab", e, e, optimize=True)
    total, flat = np.zeros(n), np.ones(n, dtype=bool)
    for split, moments in zip(responses.inner, responses.inner_moments, strict=True):
        held_out = moments.hold_out(responses.y, split.test, "r2")
        total += held_out.sum_of_squares
        flat &= held_out.is_constant
    w = simplex_weights(gram)
    w[flat] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1.0 - np.einsum("va,vab,vb->v", w, gram, w) / total
    return w, np.where(np.isfinite(r2), r2, np.nan)


def simplex_weights(gram: np.ndarray) -> np.ndarray:
    """Minimise wᵀ P w over convex weights, for every target.

    With P = L Lᵀ, the minimum over x ≥ 0 of ½ xᵀ P x − 1ᵀ x is a non-negative least squares problem, and
    w = x / Σ x meets the conditions of the minimum (its multiplier is 1 / Σ x).

    Parameters
    ----------
    gram : (n_targets, n_spaces, n_spaces) residual cross-products EᵀE, float64

    Returns
    -------
    (n_targets, n_spaces), not negative, rows adding up to 1; spaces that cannot be distinguished share equally

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
