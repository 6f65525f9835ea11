"""Ridge on a weighted sum of kernels: several bands of features, one penalty per band.

With K_b = X_b X_bᵀ of the training rows and weights γ_b ≥ 0, ridge on the features √γ_b X_b with the penalty α has
the kernel and the predictions

    K = Σ γ_b K_b = U diag(s²) Uᵀ,   ŷ_b = γ_b X_b,new X_bᵀ (K + α)⁻¹ Y,   ŷ = Σ ŷ_b,

which is ridge with the penalty α / γ_b on band b: one eigendecomposition per γ serves every α and every target.
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

from langcortex.arrays import centre_columns, chunks, rounding_error
from langcortex.ridge.decomposition import RANK_SHARE, least_squares_operator, residualise

CONCENTRATIONS = (0.1, 1.0)  # few bands carry nearly all of γ, or γ is uniform over the simplex


def draw_band_weights(
    n_bands: int, n_draws: int, rng: np.random.Generator, concentration: Sequence[float] = CONCENTRATIONS
) -> np.ndarray:
    """Draw the weights γ of bands to be tried.

    Parameters
    ----------
    n_draws : how many; equal weights and each band by itself come first, and are always there
    concentration : of the Dirichlet distributions that the others are drawn from, in turn

    Returns
    -------
    (n, n_bands), each row sums to 1; n is `n_draws`, or 1 + n_bands where that is more (1 with one band)

    >>> draw_band_weights(2, 3, np.random.default_rng(0)).tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
    """
    if n_bands == 1:
        return np.ones((1, 1))
    fixed = np.vstack([np.full((1, n_bands), 1.0 / n_bands), np.eye(n_bands)])
    draws = [
        rng.dirichlet([concentration[i % len(concentration)]] * n_bands) for i in range(n_draws - len(fixed))
    ]
    return np.vstack([fixed, *draws])


@dataclass(frozen=True, eq=False)
class Band:
    """The principal components of one feature space in training rows, confounds regressed out.

    Attributes
    ----------
    u : (n_rows, p) component scores of all rows, of unit length over the training rows
    s : (p,) singular values
    """

    u: np.ndarray
    s: np.ndarray

    @property
    def n_bytes(self) -> int:
        """Memory taken, about."""
        return int(self.u.nbytes)


def make_band(s: np.ndarray, scores: np.ndarray, relative: bool) -> Band:
    """Make a band of the principal components of training rows.

    Parameters
    ----------
    s : (p,) singular values of the training features
    scores : (n_rows, p) component scores of all rows
    relative : measure the band in units of the root of its mean eigenvalue, so that its size does not matter and a
        penalty of g means what g means in a fit of the band by itself (`langcortex.ridge.decomposition.scaled_penalties`)
    """
    if not len(s):
        return Band(np.zeros((len(scores), 0)), s)
    return Band(scores / s, s / np.sqrt(np.mean(s**2)) if relative else s)


@dataclass(frozen=True, eq=False)
class WeightedKernel:
    """The principal components of bands weighted by γ.

    Attributes
    ----------
    rotation : (m, p) from products of responses (`BandSet.train_product`) to components: UᵀY = rotationᵀ product
    eigenvalues : (p,) of K
    band_weights : (n_bands,) γ
    """

    bands: BandSet
    rotation: np.ndarray
    eigenvalues: np.ndarray
    band_weights: np.ndarray

    def component_scores(self, rows: np.ndarray, band: int | None = None) -> np.ndarray:
        """Return the component scores of some rows, or the part of them that one band contributes: (n, p)."""
        if self.bands.kernels:
            numbers = range(len(self.band_weights)) if band is None else [band]
            kernel = sum(
                self.band_weights[b] * self.bands.kernels[b][rows] for b in numbers if self.band_weights[b]
            )
            return np.asarray(kernel @ (self.rotation / self.eigenvalues))
        columns = slice(None) if band is None else self.bands.columns[band]
        out: np.ndarray = self.bands.basis[rows, columns] @ self.rotation[columns]
        return out

    def shrinkage(self, alphas: np.ndarray) -> np.ndarray:
        """Return d = s² / (s² + α): (n_alphas, p)."""
        d: np.ndarray = self.eigenvalues / (self.eigenvalues + alphas[:, None])
        return d


class BandSet:
    """Several bands in the same training rows, ready to be weighted by any γ.

    Where the bands have fewer components together than there are training rows, these are put side by side; otherwise
    the kernels are added.
    """

    def __init__(self, bands: Sequence[Band], train: np.ndarray) -> None:
        edges = np.cumsum([0, *(len(b.s) for b in bands)])
        self.train = train
        self.columns = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        self.kernels: list[np.ndarray] = []
        if edges[-1] > len(train):
            self.kernels = [(b.u * b.s**2) @ b.u[train].T for b in bands]
            return
        self.basis = np.hstack([b.u for b in bands])
        self.s = np.concatenate([b.s for b in bands])
        self.gram = self.basis[train].T @ self.basis[train]

    def train_product(self, y: np.ndarray) -> np.ndarray:
        """Return training responses as they are needed: themselves, or their products with the bands' components.

        Parameters
        ----------
        y : (n_train, n_targets), mean and confounds regressed out

        Returns
        -------
        (m, n_targets)
        """
        return y if self.kernels else np.asarray(self.basis[self.train].T.astype(y.dtype) @ y)

    def heldout_product(self, y: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """Return the products of held-out responses with the bands' components; None where kernels are added."""
        return None if self.kernels else np.asarray(self.basis[rows].T.astype(y.dtype) @ y)

    def weight(self, band_weights: np.ndarray) -> WeightedKernel:
        """Weight the bands by γ and compute the principal components."""
        if self.kernels:
            kernel = sum(g * k[self.train] for g, k in zip(band_weights, self.kernels, strict=True) if g)
            value, vector = _eigenpairs(np.asarray(kernel))
            return WeightedKernel(self, vector, value, band_weights)
        scale = np.concatenate(
            [np.full(c.stop - c.start, np.sqrt(g)) for c, g in zip(self.columns, band_weights, strict=True)]
        )
        is_used = scale > 0
        scale = (scale * self.s)[is_used]
        value, vector = _eigenpairs(scale[:, None] * self.gram[np.ix_(is_used, is_used)] * scale)
        rotation = np.zeros((len(is_used), len(value)))
        rotation[is_used] = scale[:, None] * vector / np.sqrt(value)
        return WeightedKernel(self, rotation, value, band_weights)


def _eigenpairs(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues, largest first, and their vectors, without rounding error."""
    if not len(gram):
        return np.zeros(0), np.zeros((0, 0))
    value, vector = linalg.eigh(gram, check_finite=False, driver="evd", overwrite_a=True)
    keep = value > max(RANK_SHARE * value[-1], np.finfo(np.float64).tiny)
    return value[keep][::-1], vector[:, keep][:, ::-1]


@dataclass(frozen=True, eq=False)
class TrainingMoments:
    """Mean and nuisance coefficients of responses in training rows.

    Attributes
    ----------
    confounds : (n_rows, c) of all rows
    coef : (1 + c, n_targets)
    """

    confounds: np.ndarray
    coef: np.ndarray

    def select(self, targets: np.ndarray | slice) -> TrainingMoments:
        """Return the same of some targets."""
        return TrainingMoments(self.confounds, self.coef[:, targets])

    def residualise(self, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Regress mean and confounds out of the responses of some rows."""
        return residualise(self.confounds[rows], self.coef, y[rows])

    def hold_out(self, y: np.ndarray, rows: np.ndarray, metric: str) -> HeldOutResponses:
        """Residualise held-out responses to be scored; what confounds explain to the last digit counts as constant."""
        responses = held_out_responses(self.residualise(y, rows), metric)
        is_constant = responses.is_constant | undefined_targets(y[rows], responses.sum_of_squares)
        return HeldOutResponses(metric, responses.y, responses.sum_of_squares, is_constant)


def training_moments(y: np.ndarray, confounds: np.ndarray, train: np.ndarray) -> TrainingMoments:
    """Estimate the mean of responses and the coefficients of confounds, in float64.

    Parameters
    ----------
    y : (n_rows, n_targets)
    confounds : (n_rows, c)
    """
    operator = least_squares_operator(confounds[train])
    coef = [operator @ y[train, c].astype(np.float64) for c in chunks(y.shape[1])]
    return TrainingMoments(confounds, np.hstack(coef))


def kernel_products(bands: BandSet, moments: TrainingMoments, y: np.ndarray) -> np.ndarray:
    """Residualise training responses and multiply them with the bands: (m, n_targets), see `BandSet.train_product`."""
    products = [
        bands.train_product(moments.select(c).residualise(y[:, c], bands.train)) for c in chunks(y.shape[1])
    ]
    return products[0] if len(products) == 1 else np.hstack(products)


def undefined_targets(raw: np.ndarray, residual_squares: np.ndarray) -> np.ndarray:
    """Return which responses have nothing to be predicted: (n_targets,) bool.

    Parameters
    ----------
    raw : (n, n_targets) before mean and confounds are regressed out
    residual_squares : (n_targets,) sum of squares afterwards
    """
    around_mean, around_zero = (np.einsum("ij,ij->j", v, v) for v in (centre_columns(raw), raw))
    is_constant = around_mean <= rounding_error(raw)
    is_explained = residual_squares <= 1e3 * float(np.finfo(raw.dtype).eps) ** 2 * around_zero
    is_undefined: np.ndarray = is_constant | is_explained
    return is_undefined


class PenaltyScorer:
    """Scores of a weighted kernel's predictions of held-out rows, for every penalty.

    There are two ways, and the one with fewer multiplications is taken: sums of squares of predictions from a triangle of
    their component scores (no prediction is formed), or the predictions of all penalties by one matrix.
    """

    def __init__(
        self, kernel: WeightedKernel, rows: np.ndarray, alphas: np.ndarray, metric: str, dtype: np.dtype
    ) -> None:
        scores = kernel.component_scores(rows)
        if metric == "r":
            scores = scores - scores.mean(axis=0)
        self.d = kernel.shrinkage(alphas)
        m, p = kernel.rotation.shape
        rank = min(scores.shape)
        cost_by_components = 2 * m * p + len(alphas) * rank * (p - rank / 2)
        self.hat_matrix: np.ndarray | None = None
        if kernel.bands.kernels or cost_by_components > len(alphas) * len(rows) * m:
            # shrunken in float64: scores on components of tiny eigenvalues are large before
            rotation = kernel.rotation.T.astype(dtype)
            self.hat_matrix = np.concatenate([(scores * d).astype(dtype) @ rotation for d in self.d])
            return
        self.rotation = kernel.rotation.astype(dtype)
        self.triangle = linalg.qr(scores, mode="r", check_finite=False)[0][:rank]
        self.d_in_dtype = self.d.astype(dtype)

    def scores(
        self, train_product: np.ndarray, heldout_product: np.ndarray | None, responses: HeldOutResponses
    ) -> np.ndarray:
        """Score responses.

        Parameters
        ----------
        train_product, heldout_product : (m, n) of training and held-out responses
        responses : the held-out responses

        Returns
        -------
        (n_alphas, n); NaN where the held-out response is constant (and for "r" where the prediction is)
        """
        if self.d.shape[1] == 0:
            return np.full((len(self.d), train_product.shape[1]), np.nan, dtype=train_product.dtype)
        if self.hat_matrix is not None:
            cov, var = self._sums_by_rows(self.hat_matrix, train_product, responses)
        else:
            cov, var = self._sums_by_components(train_product, heldout_product)
        with np.errstate(invalid="ignore", divide="ignore"):
            if responses.metric == "r":
                is_constant = var <= np.finfo(var.dtype).tiny
                out = cov / np.sqrt(var * responses.sum_of_squares)
                out[is_constant] = np.nan
            else:
                out = (2 * cov - var) / responses.sum_of_squares
        out[:, responses.is_constant] = np.nan
        return np.asarray(out)

    def _sums_by_rows(
        self, hat_matrix: np.ndarray, train_product: np.ndarray, responses: HeldOutResponses
    ) -> tuple[np.ndarray, np.ndarray]:
        predicted = (hat_matrix @ train_product).reshape(len(self.d), *responses.y.shape)
        cov = np.einsum("aij,ij->aj", predicted, responses.y)
        return cov, np.einsum("aij,aij->aj", predicted, predicted)

    def _sums_by_components(
        self, train_product: np.ndarray, heldout_product: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert heldout_product is not None
        p = self.rotation.T @ train_product
        cov = self.d_in_dtype @ (p * (self.rotation.T @ heldout_product))
        var = np.zeros_like(cov)
        step = max(16, -(-len(self.triangle) // 4))
        for first in range(0, len(self.triangle), step):
            # later rows of a triangle are 0 on the first components
            rows = self.triangle[first : first + step, first:]
            shrunken = (rows * self.d[:, None, first:]).reshape(-1, rows.shape[1]).astype(p.dtype)
            rotated = (shrunken @ p[first:]).reshape(len(self.d), len(rows), -1)
            var += np.einsum("aij,aij->aj", rotated, rotated)
        return cov, var


def predict_bands(
    kernel: WeightedKernel,
    train_product: np.ndarray,
    rows: np.ndarray,
    alpha: np.ndarray,
    by_band: bool = True,
) -> np.ndarray:
    """Predict some rows from every band of a weighted kernel, with one penalty per target.

    Parameters
    ----------
    train_product : (m, n_targets) from `kernel_products`
    alpha : (n_targets,)
    by_band : predictions of each band; otherwise only their sum

    Returns
    -------
    (n_bands, n_rows, n_targets), whose sum over bands is the prediction; or (1, n_rows, n_targets)
    """
    d = kernel.eigenvalues[:, None] / (kernel.eigenvalues[:, None] + alpha)
    p = (kernel.rotation.T.astype(train_product.dtype) @ train_product) * d.astype(train_product.dtype)
    numbers = range(len(kernel.band_weights)) if by_band and len(kernel.band_weights) > 1 else [None]
    return np.stack([_predict_band(kernel, p, rows, band) for band in numbers])


def _predict_band(
    kernel: WeightedKernel, weights: np.ndarray, rows: np.ndarray, band: int | None
) -> np.ndarray:
    """Predict some rows from one band, or from all: (n_rows, n_targets)."""
    if band is not None and kernel.band_weights[band] == 0:
        return np.zeros((len(rows), weights.shape[1]), weights.dtype)
    predicted: np.ndarray = kernel.component_scores(rows, band).astype(weights.dtype) @ weights
    return predicted


def product_measure(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Split SST − SSE among bands by the product measure: ŷ_bᵀ (2 y − ŷ), which adds up over bands.

    Parameters
    ----------
    y : (n_rows, n_targets), training mean and confounds regressed out
    predicted : (n_bands, n_rows, n_targets)

    Returns
    -------
    (n_bands, n_targets) float64

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728 (R² split by the product measure)
    """
    difference = 2 * y - predicted.sum(axis=0)
    out: np.ndarray = np.einsum("bij,ij->bj", predicted, difference).astype(np.float64)
    return out


@dataclass(frozen=True, eq=False)
class HeldOutResponses:
    """Held-out responses, ready to be compared with any number of predictions.

    Attributes
    ----------
    metric : "r2" or "r"
    y : (n_new, n_targets), centred for "r"
    sum_of_squares : (n_targets,)
    is_constant : (n_targets,) bool: the score is undefined
    """

    metric: str
    y: np.ndarray
    sum_of_squares: np.ndarray
    is_constant: np.ndarray

    def select(self, targets: slice) -> HeldOutResponses:
        """Return some targets."""
        return HeldOutResponses(
            self.metric, self.y[:, targets], self.sum_of_squares[targets], self.is_constant[targets]
        )


def held_out_responses(y: np.ndarray, metric: str) -> HeldOutResponses:
    """Prepare held-out responses, from which mean and confounds of the training rows are regressed out.

    Parameters
    ----------
    y : (n_new, n_targets)
    metric : "r2", 1 − SSE/SST against the training mean, or "r", the correlation over the held-out rows
    """
    if metric not in ("r2", "r"):
        raise ValueError(f"metric must be 'r2' or 'r', not {metric!r}")
    around_mean = centre_columns(y)
    centred_squares = np.einsum("ij,ij->j", around_mean, around_mean)
    squares = np.einsum("ij,ij->j", y, y)
    is_constant = centred_squares <= 16 * len(y) * float(np.finfo(y.dtype).eps) ** 2 * squares
    if metric == "r":
        return HeldOutResponses(metric, around_mean, centred_squares, is_constant)
    return HeldOutResponses(metric, y, squares, is_constant)
