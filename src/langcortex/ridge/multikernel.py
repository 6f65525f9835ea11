"""Ridge on a weighted sum of kernels: several bands of features, one penalty a band.

With K_b = X_b X_bᵀ of the training rows and weights γ_b ≥ 0, ridge on the features √γ_b X_b with the penalty α has
the kernel and the predictions

    K = Σ γ_b K_b = U diag(s²) Uᵀ,   ŷ_b = γ_b X_b,new X_bᵀ (K + α)⁻¹ Y,   ŷ = Σ ŷ_b,

which is ridge with the penalty α / γ_b on band b: one eigendecomposition a γ serves every α and every target.
A band with γ_b = 0 is left out. The search draws γ at random and takes every α of a grid.

References
----------
Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728 (banded ridge by random search over γ)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import linalg

from langcortex.arrays import centred, chunks, rounding
from langcortex.ridge.decomposition import RANK, least_squares_operator, residualise

CONCENTRATIONS = (0.1, 1.0)  # few bands carry nearly all of γ, or γ is uniform over the simplex


def draw_band_weights(
    n_bands: int, n_gammas: int, rng: np.random.Generator, concentration: Sequence[float] = CONCENTRATIONS
) -> np.ndarray:
    """Draw the weights of bands to be tried.

    Parameters
    ----------
    n_gammas : how many; equal weights and each band by itself come first, and are always there
    concentration : of the Dirichlet distributions that the others are drawn from, in turn

    Returns
    -------
    (n, n_bands), each row sums to 1; n is `n_gammas`, or 1 + n_bands where that is more (1 with one band)

    >>> draw_band_weights(2, 3, np.random.default_rng(0)).tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
    """
    if n_bands == 1:
        return np.ones((1, 1))
    known = np.vstack([np.full((1, n_bands), 1.0 / n_bands), np.eye(n_bands)])
    drawn = [
        rng.dirichlet([concentration[i % len(concentration)]] * n_bands) for i in range(n_gammas - len(known))
    ]
    return np.vstack([known, *drawn])


@dataclass(frozen=True, eq=False)
class Band:
    """One feature space as some training rows see it: centred, without confounds, on its principal axes.

    Attributes
    ----------
    unit : (n_rows, p) coordinates of all rows on axes that have unit length over the training rows
    s : (p,) the lengths of those axes
    """

    unit: np.ndarray
    s: np.ndarray

    @property
    def n_bytes(self) -> int:
        """Size in memory, about."""
        return int(self.unit.nbytes)


def make_band(s: np.ndarray, coordinates: np.ndarray, relative: bool) -> Band:
    """Make a band of the axes of training rows.

    Parameters
    ----------
    s : (p,) singular values of the training features
    coordinates : (n_rows, p) of all rows on their axes
    relative : measure the band in units of the root of its mean eigenvalue, so that its size does not matter and a
        penalty of g means what g means in a fit of the band by itself (`langcortex.ridge.decomposition.scaled_penalties`)
    """
    if not len(s):
        return Band(np.zeros((len(coordinates), 0)), s)
    return Band(coordinates / s, s / np.sqrt(np.mean(s**2)) if relative else s)


@dataclass(frozen=True, eq=False)
class WeightedKernel:
    """The principal axes of bands that are weighted by γ, of unit length over the training rows.

    Attributes
    ----------
    turn : (m, p) from products of responses (`Bands.product`) to the axes: UᵀY = turnᵀ product
    s2 : (p,) eigenvalues of K
    gamma : (n_bands,)
    """

    bands: BandSet
    turn: np.ndarray
    s2: np.ndarray
    gamma: np.ndarray

    def at(self, rows: np.ndarray, band: int | None = None) -> np.ndarray:
        """Give the coordinates of some rows, or the part of them that one band makes: (n, p)."""
        if self.bands.kernels:
            which = range(len(self.gamma)) if band is None else [band]
            kernel = sum(self.gamma[b] * self.bands.kernels[b][rows] for b in which if self.gamma[b])
            return np.asarray(kernel @ (self.turn / self.s2))
        part = slice(None) if band is None else self.bands.edges[band]
        out: np.ndarray = self.bands.basis[rows, part] @ self.turn[part]
        return out

    def shrink(self, alphas: np.ndarray) -> np.ndarray:
        """Give d = s² / (s² + α): (n_alphas, p)."""
        d: np.ndarray = self.s2 / (self.s2 + alphas[:, None])
        return d


class BandSet:
    """Several bands as some training rows see them, ready to be weighted by any γ.

    Where the bands have fewer axes together than there are training rows, they are put side by side; otherwise
    their kernels are added.
    """

    def __init__(self, bands: Sequence[Band], train: np.ndarray) -> None:
        widths = np.cumsum([0, *(len(b.s) for b in bands)])
        self.train = train
        self.edges = [slice(int(a), int(b)) for a, b in pairwise(widths)]
        self.kernels: list[np.ndarray] = []
        if widths[-1] > len(train):
            self.kernels = [(b.unit * b.s**2) @ b.unit[train].T for b in bands]
            return
        self.basis = np.hstack([b.unit for b in bands])
        self.s = np.concatenate([b.s for b in bands])
        self.gram = self.basis[train].T @ self.basis[train]

    def product(self, y: np.ndarray) -> np.ndarray:
        """Give what is needed of training responses: themselves, or their products with the axes of the bands.

        Parameters
        ----------
        y : (n_train, n_targets), without what mean and confounds explain

        Returns
        -------
        (m, n_targets)
        """
        return y if self.kernels else np.asarray(self.basis[self.train].T.astype(y.dtype) @ y)

    def held_product(self, y: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """Give the same of held-out responses; None where it would not be used."""
        return None if self.kernels else np.asarray(self.basis[rows].T.astype(y.dtype) @ y)

    def mix(self, gamma: np.ndarray) -> WeightedKernel:
        """Weight the bands by γ and find the axes."""
        if self.kernels:
            kernel = sum(g * k[self.train] for g, k in zip(gamma, self.kernels, strict=True) if g)
            value, vector = _eigen(np.asarray(kernel))
            return WeightedKernel(self, vector, value, gamma)
        size = np.concatenate(
            [np.full(e.stop - e.start, np.sqrt(g)) for e, g in zip(self.edges, gamma, strict=True)]
        )
        used = size > 0
        size = (size * self.s)[used]
        value, vector = _eigen(size[:, None] * self.gram[np.ix_(used, used)] * size)
        turn = np.zeros((len(used), len(value)))
        turn[used] = size[:, None] * vector / np.sqrt(value)
        return WeightedKernel(self, turn, value, gamma)


def _eigen(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decompose, largest first, without what is rounding error."""
    if not len(gram):
        return np.zeros(0), np.zeros((0, 0))
    value, vector = linalg.eigh(gram, check_finite=False, driver="evd", overwrite_a=True)
    keep = value > max(RANK * value[-1], np.finfo(np.float64).tiny)
    return value[keep][::-1], vector[:, keep][:, ::-1]


@dataclass(frozen=True, eq=False)
class TrainingMoments:
    """What some training rows say of responses before any feature: their mean and confounds.

    Attributes
    ----------
    confounds : (n_rows, c) of all rows
    coef : (1 + c, n_targets)
    """

    confounds: np.ndarray
    coef: np.ndarray

    def of(self, targets: np.ndarray | slice) -> TrainingMoments:
        """Keep some targets."""
        return TrainingMoments(self.confounds, self.coef[:, targets])

    def clean(self, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Take it off the responses of some rows."""
        return residualise(self.confounds[rows], self.coef, y[rows])

    def hold_out(self, y: np.ndarray, rows: np.ndarray, metric: str) -> HeldOutResponses:
        """Clean held-out responses to be scored; constant ones, and what confounds explain to the last digit, are flat."""
        held = held_out_responses(self.clean(y, rows), metric)
        return HeldOutResponses(
            metric, held.y, held.total, held.flat | undefined_targets(y[rows], held.total)
        )


def training_moments(y: np.ndarray, confounds: np.ndarray, train: np.ndarray) -> TrainingMoments:
    """Learn the mean of responses and the coefficients of confounds, in float64.

    Parameters
    ----------
    y : (n_rows, n_targets)
    confounds : (n_rows, c)
    """
    reader = least_squares_operator(confounds[train])
    parts = [reader @ y[train, c].astype(np.float64) for c in chunks(y.shape[1])]
    return TrainingMoments(confounds, np.hstack(parts))


def kernel_products(bands: BandSet, learnt: TrainingMoments, y: np.ndarray) -> np.ndarray:
    """Clean the training responses and give their products with the bands: (m, n_targets), see `Bands.product`."""
    parts = [bands.product(learnt.of(c).clean(y[:, c], bands.train)) for c in chunks(y.shape[1])]
    return parts[0] if len(parts) == 1 else np.hstack(parts)


def undefined_targets(raw: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Tell which responses have nothing to be predicted.

    Parameters
    ----------
    raw : (n, n_targets) before mean and confounds were taken off
    left : (n_targets,) sum of squares of what is left of them
    """
    around, power = (np.einsum("ij,ij->j", v, v) for v in (centred(raw), raw))
    none: np.ndarray = (around <= rounding(raw)) | (left <= 1e3 * float(np.finfo(raw.dtype).eps) ** 2 * power)
    return none


class PenaltyScorer:
    """One mixture held against held-out rows: scores of every penalty.

    Two ways, and the one with fewer multiplications is taken: powers of predictions from a triangle of their axes
    (no prediction is formed), or the predictions of all penalties by one matrix.
    """

    def __init__(
        self, mixture: WeightedKernel, rows: np.ndarray, alphas: np.ndarray, metric: str, dtype: np.dtype
    ) -> None:
        h = mixture.at(rows)
        if metric == "r":
            h = h - h.mean(axis=0)
        self.d = mixture.shrink(alphas)
        m, p = mixture.turn.shape
        rank = min(h.shape)
        by_axes = 2 * m * p + len(alphas) * rank * (p - rank / 2)
        self.map: np.ndarray | None = None
        if mixture.bands.kernels or by_axes > len(alphas) * len(rows) * m:
            # shrunk in float64: what lies on tiny axes is large before
            turn = mixture.turn.T.astype(dtype)
            self.map = np.concatenate([(h * d).astype(dtype) @ turn for d in self.d])
            return
        self.turn = mixture.turn.astype(dtype)
        self.triangle = linalg.qr(h, mode="r", check_finite=False)[0][:rank]
        self.d32 = self.d.astype(dtype)

    def scores(self, product: np.ndarray, crossed: np.ndarray | None, held: HeldOutResponses) -> np.ndarray:
        """Score responses.

        Parameters
        ----------
        product, crossed : (m, n) of training and held-out responses
        held : the held-out responses

        Returns
        -------
        (n_alphas, n); NaN where the held-out response is constant (and for "r" where the prediction is)
        """
        if self.d.shape[1] == 0:
            return np.full((len(self.d), product.shape[1]), np.nan, dtype=product.dtype)
        cross, power = (
            self._by_map(product, held) if self.map is not None else self._by_axes(product, crossed)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            if held.metric == "r":
                none = power <= np.finfo(power.dtype).tiny
                out = cross / np.sqrt(power * held.total)
                out[none] = np.nan
            else:
                out = (2 * cross - power) / held.total
        out[:, held.flat] = np.nan
        return np.asarray(out)

    def _by_map(self, product: np.ndarray, held: HeldOutResponses) -> tuple[np.ndarray, np.ndarray]:
        predicted = (self.map @ product).reshape(len(self.d), *held.y.shape)
        return np.einsum("aij,ij->aj", predicted, held.y), np.einsum("aij,aij->aj", predicted, predicted)

    def _by_axes(self, product: np.ndarray, crossed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        assert crossed is not None
        weight = self.turn.T @ product
        cross = self.d32 @ (weight * (self.turn.T @ crossed))
        power = np.zeros_like(cross)
        step = max(16, -(-len(self.triangle) // 4))
        for first in range(0, len(self.triangle), step):
            # later rows of a triangle leave the first axes out
            rows = self.triangle[first : first + step, first:]
            turned = (rows * self.d[:, None, first:]).reshape(-1, rows.shape[1]).astype(weight.dtype)
            part = (turned @ weight[first:]).reshape(len(self.d), len(rows), -1)
            power += np.einsum("aij,aij->aj", part, part)
        return cross, power


def predict_bands(
    mixture: WeightedKernel, product: np.ndarray, rows: np.ndarray, alpha: np.ndarray, each: bool = True
) -> np.ndarray:
    """Predict some rows from every band of a mixture, with one penalty a target.

    Parameters
    ----------
    product : (m, n_targets) from `Bands.product`
    alpha : (n_targets,)
    each : every band by itself; otherwise their sum alone

    Returns
    -------
    (n_bands, n_rows, n_targets), whose sum over bands is the prediction; or (1, n_rows, n_targets)
    """
    d = mixture.s2[:, None] / (mixture.s2[:, None] + alpha)
    weight = (mixture.turn.T.astype(product.dtype) @ product) * d.astype(product.dtype)
    which = range(len(mixture.gamma)) if each and len(mixture.gamma) > 1 else [None]
    return np.stack(
        [
            np.zeros((len(rows), len(alpha)), product.dtype)
            if b is not None and mixture.gamma[b] == 0
            else mixture.at(rows, b).astype(product.dtype) @ weight
            for b in which
        ]
    )


def product_measure(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Share SST − SSE among bands by the product measure: ŷ_bᵀ (2 y − ŷ), which adds up over bands.

    Parameters
    ----------
    y : (n_rows, n_targets) without what the training mean and confounds say
    predicted : (n_bands, n_rows, n_targets)

    Returns
    -------
    (n_bands, n_targets) float64

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728 (R² split by the product measure)
    """
    left = 2 * y - predicted.sum(axis=0)
    out: np.ndarray = np.einsum("bij,ij->bj", predicted, left).astype(np.float64)
    return out


@dataclass(frozen=True, eq=False)
class HeldOutResponses:
    """Held-out responses, ready to be compared with any number of predictions.

    Attributes
    ----------
    metric : "r2" or "r"
    y : (n_new, n_targets), centred for "r"
    total : (n_targets,) their sum of squares
    flat : (n_targets,) bool, constant: their score is undefined
    """

    metric: str
    y: np.ndarray
    total: np.ndarray
    flat: np.ndarray


def held_out_responses(y: np.ndarray, metric: str) -> HeldOutResponses:
    """Prepare held-out responses, treated with what the training rows taught (confounds, mean).

    Parameters
    ----------
    y : (n_new, n_targets)
    metric : "r2", 1 − SSE/SST against the training mean, or "r", the correlation over the held-out rows
    """
    if metric not in ("r2", "r"):
        raise ValueError(f"metric must be 'r2' or 'r', not {metric!r}")
    c = centred(y)
    spread, total = np.einsum("ij,ij->j", c, c), np.einsum("ij,ij->j", y, y)
    flat = spread <= 16 * len(y) * float(np.finfo(y.dtype).eps) ** 2 * total
    return (
        HeldOutResponses(metric, c, spread, flat)
        if metric == "r"
        else HeldOutResponses(metric, y, total, flat)
    )
