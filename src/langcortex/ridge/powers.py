"""Sums of squares of a ridge's predictions for every penalty, from one product: divided differences over pairs.

The predictions of a penalty α have the sum of squares Σᵢⱼ Mᵢⱼ dᵢ dⱼ Pᵢ Pⱼ, with M the products of the held-out rows'
component scores and d = t / (t + α), t = s². The shrinkage of a pair of components is a difference of their own,

    dᵢ dⱼ = tᵢ tⱼ (xᵢ − xⱼ) / (tⱼ − tᵢ),   x = 1 / (t + α),

so that the sum over pairs needs the penalty only in the end: Σᵢ xᵢ Pᵢ Gᵢ + Σᵢ Mᵢᵢ dᵢ² Pᵢ², G = L P, Lᵢⱼ = 2 Mᵢⱼ tᵢ tⱼ / (tⱼ − tᵢ).
That is one p × p product for all penalties, where rotating the predictions of each penalty takes as many as there are
penalties.

What is divided by a small number is a difference of nearly equal numbers, hence float64 throughout, and pairs of components
whose t agree to `CLOSE` are not divided. A number subtracted from every x cancels in the sum: that of the first component
is subtracted, so that large penalties, with x nearly equal everywhere, lose no digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLOSE = 1e-4  # share of t within which a pair of components is not divided
MAX_CLOSE = 2  # close pairs per component above which dividing does not pay


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums of squares of predictions as weights @ [P · (products P); P²; products of close pairs].

    Attributes
    ----------
    products : (p, p) float64, L
    weights : (n_alphas, 2 p + n_close) float64
    close_pairs : (n_close, 2) components that are not divided
    """

    products: np.ndarray
    weights: np.ndarray
    close_pairs: np.ndarray

    @property
    def n_bytes(self) -> int:
        """Memory taken."""
        return self.products.nbytes + self.weights.nbytes + self.close_pairs.nbytes

    @property
    def is_worthwhile(self) -> bool:
        """Whether few enough pairs are close."""
        return len(self.close_pairs) <= MAX_CLOSE * len(self.products)


def divided_differences(s: np.ndarray, alphas: np.ndarray, score_products: np.ndarray) -> PairSums:
    """Return what the sums of squares of all penalties' predictions are computed from.

    Parameters
    ----------
    s : (p,) singular values, largest first, above 0
    alphas : (n_alphas,)
    score_products : (p, p) float64 M, products of the held-out rows' component scores, which are scaled to unit length
        over the training rows
    """
    t = (s / s[0]) ** 2
    beta = alphas[:, None] / s[0] ** 2
    distance = t - t[:, None]
    is_close = np.abs(distance) <= CLOSE * np.maximum(t, t[:, None])
    products = np.where(
        is_close, 0.0, 2.0 * score_products * np.outer(t, t) / np.where(is_close, 1.0, distance)
    )
    d = t / (t + beta)
    x = (1.0 - t) / ((t + beta) * (1.0 + beta))
    i, j = np.nonzero(np.triu(is_close, 1))
    weights = [x, d**2 * np.diag(score_products), 2.0 * score_products[i, j] * d[:, i] * d[:, j]]
    return PairSums(products, np.concatenate(weights, axis=1), np.column_stack([i, j]))
