"""Plain ridge on principal components, the reference that the engine is compared with."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from langcortex.arrays import centre_columns, rounding_error
from langcortex.ridge.decomposition import PrincipalComponents
from langcortex.ridge.multikernel import HeldOutResponses


def validate(
    components: PrincipalComponents,
    weight: np.ndarray,
    h_new: np.ndarray,
    responses: HeldOutResponses,
    alphas: np.ndarray,
) -> np.ndarray:
    """Score every penalty on held-out rows without forming a prediction.

    With D_a = diag(s / (s² + a)), the prediction is H D_a Uᵀ Y, so its product with the held-out responses and
    its own sum of squares are sums over components for every penalty.

    Parameters
    ----------
    components : of the training features
    weight : (n_components, n_targets) Uᵀ Y of the training responses
    h_new : (n_new, n_components) component scores of held-out rows
    responses : from `held_out_responses`
    alphas : (n_alphas,)

    Returns
    -------
    (n_alphas, n_targets); NaN where a held-out target is constant (and for "r" where a prediction is)
    """
    dtype = weight.dtype
    h = h_new - h_new.mean(axis=0) if responses.metric == "r" else h_new
    triangle = linalg.qr(h, mode="r", check_finite=False)[0][: min(h.shape)]
    shrink = components.s / (components.s**2 + alphas[:, None])  # (n_alphas, n_components)
    cross = shrink.astype(dtype) @ (weight * (h.T.astype(dtype) @ responses.y))
    # (n_alphas · min(n_new, n_components), n_targets): every penalty's prediction, rotated into as few rows as it has rank
    rotated = (triangle * shrink[:, None, :]).reshape(-1, len(components.s)).astype(dtype) @ weight
    rotated = rotated.reshape(len(alphas), -1, weight.shape[1])
    power = np.einsum("aij,aij->aj", rotated, rotated)
    with np.errstate(invalid="ignore", divide="ignore"):
        if responses.metric == "r":
            scores = np.where(
                power > np.finfo(dtype).tiny, cross / np.sqrt(power * responses.sum_of_squares), np.nan
            )
        else:
            scores = (2 * cross - power) / responses.sum_of_squares
    scores[:, responses.is_constant] = np.nan
    return scores


def predict(
    components: PrincipalComponents, weight: np.ndarray, h_new: np.ndarray, alpha: np.ndarray
) -> np.ndarray:
    """Predict new rows with one penalty per target.

    Parameters
    ----------
    components, weight, h_new : as in `validate`
    alpha : (n_targets,)

    Returns
    -------
    (n_new, n_targets) in the dtype of `weight`
    """
    shrink = components.s[:, None] / (components.s[:, None] ** 2 + alpha)
    predicted: np.ndarray = h_new.astype(weight.dtype) @ (weight * shrink.astype(weight.dtype))
    return predicted


def squared_errors(y: np.ndarray, p: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares for the out-of-sample R², which add up over folds.

    R² = 1 − Σ_f SSE_f / Σ_f SST_f, where SSE = ‖y − p‖² and SST = ‖y − baseline‖², and the baseline is
    what the training rows alone predict without features (their mean): a score below 0 is worse than that.

    Parameters
    ----------
    y, p : (n_samples, n_targets)
    baseline : (n_targets,) the training mean

    Returns
    -------
    sse, sst : (n_targets,) float64; both NaN where `y` is constant or not finite

    References
    ----------
    Hadidi et al. 2026, doi:10.1038/s41467-026-72253-7 (the out-of-sample R² against the training mean)
    """
    error, yc, base = y - p, centre_columns(y), y - baseline
    sse = np.einsum("ij,ij->j", error, error)
    sst = np.einsum("ij,ij->j", base, base)
    undefined = ~(np.einsum("ij,ij->j", yc, yc) > rounding_error(y)) | ~np.isfinite(sse)
    return np.where(undefined, np.nan, sse).astype(np.float64), np.where(undefined, np.nan, sst).astype(
        np.float64
    )
