"""Banded ridge: several feature spaces in one prediction, with one penalty per feature space and target.

A single penalty would shrink a small control space as hard as 4,096 hidden units, so that neither a joint R² nor
what a space adds to it would mean much. Here the penalty of every band is chosen per target by inner folds of whole
runs, among random weights of the bands times the protocol's grid (`langcortex.ridge.multikernel`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.arrays import chunks
from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.joint import JointDraft, band_preparers, check_spaces, response_slabs
from langcortex.encoding.prepare import PreparedCache
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding
from langcortex.errors import FitError
from langcortex.ridge.multikernel import (
    BandSet,
    PenaltyScorer,
    draw_band_weights,
    kernel_products,
    predict_bands,
    training_moments,
)

CHUNK = 512  # targets handled at once

Validation = tuple[int, np.ndarray]
"""Position of an outer fold, and rows that one of its inner folds holds out."""


@dataclass(frozen=True, eq=False)
class BandedEncoding:
    """How well several feature spaces together predict the responses of one subject, out of run.

    Attributes
    ----------
    bands : (n_bands,) names of the feature spaces
    encoding : of the joint prediction; its `penalty` is g, from the protocol's grid
    penalty : (n_bands, n_folds, n_targets) the penalty of each band, g / γ_b, in the units that the grid has in a
        fit of that band by itself; infinite where the band was left out
    product_measure : (n_bands, n_segments, n_targets) each band's share of SST − SSE; adds up over bands

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728
    """

    bands: tuple[str, ...]
    encoding: Encoding
    penalty: np.ndarray
    product_measure: np.ndarray


def fit_bands(
    design: Design,
    bands: Sequence[str],
    protocol: Protocol,
    rng: np.random.Generator,
    n_band_weights: int = 100,
    delays: np.ndarray | None = None,
    pca: Mapping[str, int | None] | None = None,
    band_weights: np.ndarray | None = None,
    keep_predictions: bool = False,
    folds: Sequence[int] | None = None,
    cache: PreparedCache | None = None,
) -> BandedEncoding:
    """Fit several feature spaces together to every target, and predict every run from the others.

    In each outer fold, from its training rows alone: every band is scaled, confounds are regressed out of it, it is
    reduced by PCA and (with relative penalties) measured by its mean eigenvalue; then weights γ of the bands and one
    penalty per target are chosen by inner folds, in each of which all of that is learnt anew. One band gives what
    `langcortex.encoding.nested_cv.fit` gives.

    Parameters
    ----------
    design : rows of one subject
    bands : keys of ``design.X``; a band that is also a confound of the protocol is not regressed out
    protocol : the choices
    rng : draws the weights; an equal generator gives an equal result
    n_band_weights : how many γ to try (`langcortex.ridge.multikernel.draw_band_weights`)
    delays : (n_folds, n_targets) or (n_folds, 1) from `choose_delays`; None uses the design's only delay
    pca : band → components to keep, where that is not what the protocol says
    band_weights : (n_band_weights, n_bands) γ to try instead of drawn ones
    keep_predictions : keep predictions and observed responses in the encoding
    folds : outer folds to fit; the others stay NaN. All when None
    cache : where bands that were prepared for another fit are found again

    Returns
    -------
    BandedEncoding; a target that is NaN or constant scores NaN and does not affect the others

    Raises
    ------
    FitError : a band is unknown, named twice, or not finite, or weights have the wrong shape
    """
    check_spaces(design, bands, protocol, pca or {})
    folded = FoldedDesign(design, protocol, delays)
    if band_weights is None:
        band_weights = draw_band_weights(len(bands), n_band_weights, rng)
    else:
        band_weights = _checked_weights(band_weights, len(bands))
    draft = JointDraft(folded, bands, keep_predictions)
    search = _BandedFit(folded, bands, band_weights, pca or {}, cache)
    for group in folded.folds_by_delay():
        numbers = [k for k in group if folds is None or k in folds]
        if not numbers:
            continue
        n_scores = len(numbers) * len(band_weights) * len(folded.penalties)
        for targets, y in response_slabs(folded, numbers[0], 4 * (n_scores + 4 * len(design.run))):
            choice, inner = search.choose(numbers, y)
            for i, k in enumerate(numbers):
                search.add_test(draft, k, targets, y, choice[i], inner[i])
    return BandedEncoding(tuple(bands), draft.encoding(), draft.penalty, draft.product_measure)


class _BandedFit:
    """Fits bands with every weighting to be tried, over the folds of a design."""

    def __init__(
        self,
        folded: FoldedDesign,
        bands: Sequence[str],
        band_weights: np.ndarray,
        pca: Mapping[str, int | None],
        cache: PreparedCache | None,
    ) -> None:
        self.folded, self.band_weights = folded, band_weights
        self.confounds, self.metric = folded.confounds(bands), folded.protocol.choose_by
        self.preparers = band_preparers(folded, bands, pca, cache)

    def band_set(self, train: np.ndarray) -> BandSet:
        """Prepare all bands from some training rows."""
        return BandSet([prepare(train) for prepare in self.preparers], train)

    def choose(self, numbers: Sequence[int], y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose band weights and penalty for every target in some outer folds.

        Returns
        -------
        choice : (n_folds, n) position γ · n_penalties + penalty
        inner : (n_folds, n) its inner score, NaN where there is none
        """
        shape = (len(numbers), len(self.band_weights), len(self.folded.penalties), y.shape[1])
        total = np.zeros(shape, dtype=y.dtype)
        count = np.zeros((*shape[:2], y.shape[1]), dtype=np.int32)
        for train, validations in self._validations(numbers):
            self._add_scores(train, validations, y, total, count)
        choice, inner = np.empty(shape[::3], dtype=np.intp), np.empty(shape[::3])
        for i in range(len(numbers)):
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = total[i] / count[i][:, None].astype(y.dtype)
            mean[np.isnan(mean)] = -np.inf
            mean = mean.reshape(-1, y.shape[1])
            # ties, and targets without a score, take the first weights and the largest penalty
            choice[i] = np.argmax(mean, axis=0)
            inner[i] = np.take_along_axis(mean, choice[i][None], axis=0)[0]
        inner[np.isneginf(inner)] = np.nan
        return choice, inner

    def _validations(self, numbers: Sequence[int]) -> Iterable[tuple[np.ndarray, list[Validation]]]:
        """List the inner training sets of some outer folds, each with the validation sets that it serves.

        Two outer folds may share one: the rows without runs j and k are the training rows of both.
        """
        sets: dict[bytes, tuple[np.ndarray, list[Validation]]] = {}
        for i, k in enumerate(numbers):
            for split in self.folded.inner_folds(k):
                sets.setdefault(split.train.tobytes(), (split.train, []))[1].append((i, split.test))
        return sets.values()

    def _add_scores(
        self,
        train: np.ndarray,
        validations: Sequence[Validation],
        y: np.ndarray,
        total: np.ndarray,
        count: np.ndarray,
    ) -> None:
        """Add the scores of every weighting and penalty in some validation sets of one training set."""
        bands, moments = self.band_set(train), training_moments(y, self.confounds, train)
        product = kernel_products(bands, moments, y)
        responses = [moments.hold_out(y, rows, self.metric) for _, rows in validations]
        crosses = [
            bands.heldout_product(held_out.y, rows)
            for held_out, (_, rows) in zip(responses, validations, strict=True)
        ]
        for g, weights in enumerate(self.band_weights):
            kernel = bands.weight(weights)
            for (i, rows), held_out, cross in zip(validations, responses, crosses, strict=True):
                scorer = PenaltyScorer(kernel, rows, self.folded.penalties, self.metric, y.dtype)
                for c in chunks(y.shape[1], CHUNK):
                    part = held_out.select(c)
                    scores = scorer.scores(product[:, c], None if cross is None else cross[:, c], part)
                    defined = np.isfinite(scores[-1])
                    if not defined.all():
                        scores[~np.isfinite(scores)] = 0.0
                    total[i, g, :, c] += scores
                    count[i, g, c] += defined

    def add_test(
        self,
        draft: JointDraft,
        k: int,
        targets: np.ndarray,
        y: np.ndarray,
        choice: np.ndarray,
        inner: np.ndarray,
    ) -> None:
        """Fit the training rows of outer fold k as chosen, and enter the scores of its held-out rows."""
        train, test = self.folded.folds[k]
        bands, moments = self.band_set(train), training_moments(y, self.confounds, train)
        product = kernel_products(bands, moments, y)
        weighting, position = np.divmod(choice, len(self.folded.penalties))
        penalty = self.folded.penalties[position]
        draft.scores.add_choices(k, targets, penalty, inner)
        with np.errstate(divide="ignore"):
            draft.penalty[:, k, targets] = penalty / self.band_weights[weighting].T
        for g in np.unique(weighting):
            kernel, members = bands.weight(self.band_weights[g]), np.flatnonzero(weighting == g)
            for c in chunks(len(members), CHUNK):
                part = members[c]
                predicted = predict_bands(kernel, product[:, part], test, penalty[part])
                draft.add_predictions(k, targets[part], y[:, part], moments.select(part), predicted)


def _checked_weights(band_weights: np.ndarray, n_bands: int) -> np.ndarray:
    """Return band weights as float64, or raise a FitError that says what is wrong with them."""
    band_weights = np.asarray(band_weights, dtype=np.float64)
    if band_weights.ndim != 2 or band_weights.shape[1] != n_bands or not len(band_weights):
        raise FitError(
            f"band_weights has the shape {band_weights.shape}; pass (n_band_weights, {n_bands}), one column per band."
        )
    if (
        not np.isfinite(band_weights).all()
        or (band_weights < 0).any()
        or (band_weights.sum(axis=1) <= 0).any()
    ):
        raise FitError("band_weights must be finite, none below 0, and not all 0 in a row.")
    return band_weights
