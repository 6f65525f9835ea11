"""Banded ridge: several feature spaces in one prediction, each with a penalty of its own for every target.

One penalty for all would shrink a small control space as hard as 4,096 hidden units, so that neither a joint R² nor
what a space adds to it means much. Here the penalty of every band is chosen per target by inner folds of whole
runs, among random weights of the bands times the protocol's grid (`langcortex.ridge.multikernel`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.arrays import chunks
from langcortex.design.design import Design
from langcortex.encoding.joint import Draft, Memo, Nested
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


@dataclass(frozen=True, eq=False)
class BandedEncoding:
    """What several feature spaces say together about one subject, out of run.

    Attributes
    ----------
    bands : (n_bands,) names of the feature spaces
    encoding : of the joint prediction; its `penalty` is g, from the protocol's grid
    penalty : (n_bands, n_folds, n_targets) the penalty of each band, g / γ_b, in the units that the grid has in a
        fit of that band by itself; infinite where the band was left out
    split : (n_bands, n_pieces, n_targets) each band's share of SST − SSE (product measure); adds up over bands

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728
    """

    bands: tuple[str, ...]
    encoding: Encoding
    penalty: np.ndarray
    split: np.ndarray


def fit_bands(
    design: Design,
    bands: Sequence[str],
    protocol: Protocol,
    rng: np.random.Generator,
    n_gammas: int = 100,
    delays: np.ndarray | None = None,
    pca: Mapping[str, int | None] | None = None,
    gammas: np.ndarray | None = None,
    keep: bool = False,
    only: Sequence[int] | None = None,
    memo: Memo | None = None,
) -> BandedEncoding:
    """Fit several feature spaces together to every target, and predict every run from the others.

    In each outer fold, from its training rows alone: every band is scaled, cleaned of confounds, reduced by PCA and
    (with relative penalties) measured by its mean eigenvalue; then weights of bands and a penalty are chosen per
    target by inner folds, in each of which all of that is learnt anew. One band gives what
    `langcortex.encoding.nested_cv.fit` gives.

    Parameters
    ----------
    design : rows of one subject
    bands : keys of ``design.X``; a band that is also a confound of the protocol is not taken off
    protocol : the choices
    rng : draws the weights; an equal generator gives an equal result
    n_gammas : how many weights to try (`langcortex.ridge.multikernel.draw_band_weights`)
    delays : (n_folds, n_targets) or (n_folds, 1) from `choose_delays`; None uses the design's only delay
    pca : components to keep, by band, where that is not what the protocol says
    gammas : (n_gammas, n_bands) to try instead of drawn ones
    keep : keep predictions and what they predict
    only : outer folds to fit; those left out stay NaN. All when None
    memo : where bands that were prepared for another fit are found again

    Returns
    -------
    Banded; a target that is NaN or constant scores NaN and does not touch the others

    Raises
    ------
    FitError : a band is unknown, named twice, or not finite, or weights have the wrong shape
    """
    nested = Nested(design, bands, protocol, delays, pca, memo)
    gammas = draw_band_weights(len(bands), n_gammas, rng) if gammas is None else _checked(gammas, len(bands))
    draft = Draft(nested, bands, keep)
    fit = _Fit(nested, bands, gammas)
    wanted = range(len(nested.folds)) if only is None else only
    groups = ([k for k in numbers if k in wanted] for numbers in nested.of_one_delay())
    for numbers in filter(None, groups):
        each = 4 * (len(numbers) * gammas.shape[0] * len(nested.grid) + 4 * len(design.run))
        for targets, y in nested.slabs(numbers[0], each):
            choice, best = fit.search(numbers, y)
            for i, k in enumerate(numbers):
                fit.test(k, targets, y, choice[i], draft)
                draft.best[k, targets] = best[i]
    return BandedEncoding(tuple(bands), draft.encoding(), draft.of_part, draft.split)


def split_scores(banded: BandedEncoding) -> np.ndarray:
    """Split R² among bands by the product measure, out of sample: (n_bands, n_targets).

    They add up to ``score(banded.encoding).r2``. Each is what the band's own prediction takes off the error of the
    joint one; it may be below 0, and where bands are correlated it says how the joint model shared the work, not
    what is in a band (`langcortex.encoding.variance_partition`).

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728
    """
    total = np.nansum(banded.encoding.sst, axis=0)
    known = np.isfinite(banded.encoding.sst).any(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, np.nansum(banded.split, axis=1) / total, np.nan)


class _Fit:
    """Bands and weights to be tried, over the folds of a design."""

    def __init__(self, nested: Nested, bands: Sequence[str], gammas: np.ndarray) -> None:
        self.nested, self.gammas = nested, gammas
        self.prepare = [nested.preparer(band) for band in bands]

    def bands(self, train: np.ndarray) -> BandSet:
        return BandSet([prepare(train) for prepare in self.prepare], train)

    def search(self, numbers: Sequence[int], y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose weights and penalty for every target in some outer folds.

        Returns
        -------
        choice : (n_folds, n) position γ · n_alphas + α
        best : (n_folds, n) its inner score, NaN where there is none
        """
        shape = (len(numbers), len(self.gammas), len(self.nested.grid), y.shape[1])
        total = np.zeros(shape, dtype=y.dtype)
        count = np.zeros((*shape[:2], y.shape[1]), dtype=np.int32)
        # two outer folds may share training rows: the rows without runs j and k serve both
        uses: dict[bytes, tuple[np.ndarray, list[tuple[int, np.ndarray]]]] = {}
        for i, k in enumerate(numbers):
            for fold in self.nested.inner(k):
                uses.setdefault(fold.train.tobytes(), (fold.train, []))[1].append((i, fold.test))
        for train, held in uses.values():
            self._add_scores(train, held, y, total, count)
        choice, best = np.empty(shape[::3], dtype=np.intp), np.empty(shape[::3])
        for i in range(len(numbers)):
            with np.errstate(invalid="ignore", divide="ignore"):
                curve = total[i] / count[i][:, None].astype(y.dtype)
            curve[np.isnan(curve)] = -np.inf
            curve = curve.reshape(-1, y.shape[1])
            # ties, and targets without a score, take the first weights and the largest penalty
            choice[i] = np.argmax(curve, axis=0)
            best[i] = np.take_along_axis(curve, choice[i][None], axis=0)[0]
        best[np.isneginf(best)] = np.nan
        return choice, best

    def _add_scores(
        self,
        train: np.ndarray,
        held: Sequence[tuple[int, np.ndarray]],
        y: np.ndarray,
        total: np.ndarray,
        count: np.ndarray,
    ) -> None:
        nested = self.nested
        bands, learnt = self.bands(train), training_moments(y, nested.confounds, train)
        product = kernel_products(bands, learnt, y)
        ready = [learnt.hold_out(y, rows, nested.protocol.choose_by) for _, rows in held]
        crossed = [bands.heldout_product(one.y, rows) for one, (_, rows) in zip(ready, held, strict=True)]
        for g, gamma in enumerate(self.gammas):
            mixture = bands.weight(gamma)
            for (i, rows), one, cross in zip(held, ready, crossed, strict=True):
                judge = PenaltyScorer(mixture, rows, nested.grid, nested.protocol.choose_by, y.dtype)
                for c in chunks(y.shape[1], CHUNK):
                    part = one.select(c)
                    scores = judge.scores(product[:, c], None if cross is None else cross[:, c], part)
                    known = np.isfinite(scores[-1])
                    if not known.all():
                        scores[~np.isfinite(scores)] = 0.0
                    total[i, g, :, c] += scores
                    count[i, g, c] += known

    def test(self, k: int, targets: np.ndarray, y: np.ndarray, choice: np.ndarray, draft: Draft) -> None:
        """Fit the training rows of outer fold k as chosen, and score its held-out rows."""
        nested = self.nested
        fold = nested.folds[k]
        bands, learnt = self.bands(fold.train), training_moments(y, nested.confounds, fold.train)
        product = kernel_products(bands, learnt, y)
        which, alpha = np.divmod(choice, len(nested.grid))
        penalty = nested.grid[alpha]
        draft.penalty[k, targets] = penalty
        with np.errstate(divide="ignore"):
            draft.of_part[:, k, targets] = penalty / self.gammas[which].T
        for g in np.unique(which):
            mixture, here = bands.weight(self.gammas[g]), np.flatnonzero(which == g)
            for c in chunks(len(here), CHUNK):
                part = here[c]
                predicted = predict_bands(mixture, product[:, part], fold.test, penalty[part])
                draft.enter(k, targets[part], y[:, part], learnt.select(part), predicted)


def _checked(gammas: np.ndarray, n_bands: int) -> np.ndarray:
    gammas = np.asarray(gammas, dtype=np.float64)
    if gammas.ndim != 2 or gammas.shape[1] != n_bands or not len(gammas):
        raise FitError(f"gammas has the shape {gammas.shape}; give (n_gammas, {n_bands}), one column a band.")
    if not np.isfinite(gammas).all() or (gammas < 0).any() or (gammas.sum(axis=1) <= 0).any():
        raise FitError("gammas are weights of bands: finite, none below 0, and not all 0 in a row.")
    return gammas
