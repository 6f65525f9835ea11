"""The power of a ridge's predictions for every penalty, from one product: divided differences over pairs of axes.

The predictions of a penalty α have the power Σᵢⱼ Mᵢⱼ dᵢ dⱼ Pᵢ Pⱼ, with M the products of the held-out rows' coordinates and
d = t / (t + α), t = s². A pair's shrinkage is a difference of its axes' own,

    dᵢ dⱼ = tᵢ tⱼ (xᵢ − xⱼ) / (tⱼ − tᵢ),   x = 1 / (t + α),

so that the sum over pairs needs the penalty only in the end: Σᵢ xᵢ Pᵢ Gᵢ + Σᵢ Mᵢᵢ dᵢ² Pᵢ², G = L P, Lᵢⱼ = 2 Mᵢⱼ tᵢ tⱼ / (tⱼ − tᵢ).
That is one p × p product for all penalties, where rotating the predictions of each takes as many as there are penalties.

What is divided by a small number is the difference of numbers that are nearly the same, hence float64 throughout, and pairs of
axes whose lengths agree to `CLOSE` are left as they are. A number taken off every x cancels in the sum: that of the longest
axis is, so that large penalties, with x nearly the same everywhere, lose no digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLOSE = 1e-4  # share of t within which a pair of axes is not divided
MOST = 2  # close pairs an axis, from which on dividing does not pay


@dataclass(frozen=True, eq=False)
class PairSums:
    """What gives the power of predictions: weights @ [P · (across P); P²; products of close pairs].

    Attributes
    ----------
    across : (p, p) float64, L
    weights : (n_alphas, 2 p + n_close) float64
    close : (n_close, 2) axes that are not divided
    """

    across: np.ndarray
    weights: np.ndarray
    close: np.ndarray

    @property
    def n_bytes(self) -> int:
        """How much memory it takes."""
        return self.across.nbytes + self.weights.nbytes + self.close.nbytes

    @property
    def worthwhile(self) -> bool:
        """Whether few enough pairs are close."""
        return len(self.close) <= MOST * len(self.across)


def divided_differences(s: np.ndarray, alphas: np.ndarray, power: np.ndarray) -> PairSums:
    """Prepare the powers of all penalties.

    Parameters
    ----------
    s : (p,) lengths of the axes, longest first, above 0
    alphas : (n_alphas,)
    power : (p, p) float64 M, products of the coordinates of held-out rows on axes of unit length
    """
    t = (s / s[0]) ** 2
    beta = alphas[:, None] / s[0] ** 2
    apart = t - t[:, None]
    near = np.abs(apart) <= CLOSE * np.maximum(t, t[:, None])
    across = np.where(near, 0.0, 2.0 * power * np.outer(t, t) / np.where(near, 1.0, apart))
    d = t / (t + beta)
    x = (1.0 - t) / ((t + beta) * (1.0 + beta))
    i, j = np.nonzero(np.triu(near, 1))
    weights = [x, d**2 * np.diag(power), 2.0 * power[i, j] * d[:, i] * d[:, j]]
    return PairSums(across, np.concatenate(weights, axis=1), np.column_stack([i, j]))
