"""Ridge regression on principal axes: what is learnt from training rows, as values, and what follows from it.

With training features X = U S Vᵀ (columns centred, confounds removed) and training responses Y, the ridge
prediction for new rows is

    ŷ(α) = X_new V · diag(s / (s² + α)) · Uᵀ Y,

so one decomposition serves every penalty and every target, and dropping trailing axes is PCA. Penalties are
scikit-learn's α, the one in ‖Y − XW‖² + α‖W‖² (the Huth lab's code squares its own).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, eigsh

from langcortex.metrics import centred

CHUNK = 2048  # targets handled at once: keeps every temporary in the cache and memory flat in n_targets
FLAT = 1e-7  # a standard deviation of this share of the mean is rounding error: the column is constant
LANCZOS = 10  # rows an axis, from which on Lanczos iterations are less work than a whole decomposition
RANK = 1e-12  # eigenvalues below this share of the first are rounding error


@dataclass(frozen=True)
class Scale:
    """A mean and a standard deviation per column, learnt from some rows.

    Attributes
    ----------
    mean, std : (n_features,); a constant column has an infinite std, so it becomes exactly 0
    """

    mean: np.ndarray
    std: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return (x − mean) / std in float64."""
        scaled: np.ndarray = (x - self.mean) / self.std
        return scaled


def learn_scale(x: np.ndarray) -> Scale:
    """Learn a `Scale` from the rows of `x` : (n_samples, n_features), with the population std."""
    mean = x.mean(axis=0, dtype=np.float64)
    std = x.std(axis=0, dtype=np.float64)
    flat = std <= FLAT * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
    return Scale(mean, np.where(flat, np.inf, std))


def confound_reader(confounds: np.ndarray) -> np.ndarray:
    """Make the matrix B that reads least-squares coefficients off responses: coef = B y.

    Parameters
    ----------
    confounds : (n_samples, n_confounds), perhaps with no columns: then only the mean is read

    Returns
    -------
    (1 + n_confounds, n_samples): the intercept's row, then one a confound. Remove confounds from any rows by
    ``y - [1, confounds] @ coef`` (`without_confounds`)
    """
    n = len(confounds)
    if confounds.shape[1] == 0:
        return np.full((1, n), 1.0 / n)
    centre = confounds.mean(axis=0, dtype=np.float64)
    slope = linalg.pinv(confounds - centre)
    return np.vstack([1.0 / n - centre @ slope, slope])


def without_confounds(confounds: np.ndarray, coef: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return y − [1, confounds] · coef, in the dtype of `y`; any rows, not only those learnt from.

    Parameters
    ----------
    confounds : (n_rows, n_confounds)
    coef : (1 + n_confounds, n_columns)
    y : (n_rows, n_columns)
    """
    removed: np.ndarray = y - coef[0].astype(y.dtype)
    if len(coef) > 1:
        removed -= confounds.astype(y.dtype) @ coef[1:].astype(y.dtype)
    return removed


@dataclass(frozen=True)
class Axes:
    """The principal axes of centred training features, X = U S Vᵀ.

    Attributes
    ----------
    u : (n_samples, n_axes) orthonormal columns
    s : (n_axes,) singular values, largest first, all above rounding error
    v : (n_features, n_axes), so that new rows have the coordinates ``x_new @ v``
    """

    u: np.ndarray
    s: np.ndarray
    v: np.ndarray

    @property
    def mean_eigenvalue(self) -> float:
        """trace(XᵀX) / rank over the axes kept: the unit of relative penalties."""
        return float(np.mean(self.s**2)) if len(self.s) else float("nan")


def principal_axes(x: np.ndarray, n_components: int | None = None, power: float = 0.0) -> Axes:
    """Decompose centred training features exactly, through the smaller of XXᵀ and XᵀX in float64.

    Parameters
    ----------
    x : (n_samples, n_features), column means 0
    n_components : keep this many leading axes (PCA); all of them when None
    power : sum of squares of the features before confounds were removed: what is left of features that the
        confounds explain is rounding error of that size, and no axis

    Notes
    -----
    float64 matters: language models have a few features thousands of times larger than the rest, and a
    float32 Gram matrix moves single voxels by up to .2 in r. The sum is exact PCA; scikit-learn's default
    solver is randomised at these shapes.
    """
    x = np.asarray(x, dtype=np.float64)
    wide = x.shape[1] > x.shape[0]
    value, vector = leading(x @ x.T if wide else x.T @ x, n_components)
    floor = max(RANK * max(value[0], power), np.finfo(np.float64).tiny) if len(value) else 0.0
    keep = value > floor
    s, vector = np.sqrt(value[keep]), vector[:, keep]
    if wide:
        return Axes(vector, s, (x.T @ vector) / s)
    return Axes((x @ vector) / s, s, vector)


def leading(gram: np.ndarray, n: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Find the n largest eigenvalues of a symmetric matrix, largest first, and their vectors; all when None.

    A few of many are found by Lanczos iterations from a fixed start, to machine precision.
    """
    size = len(gram)
    if n is None or n >= size:
        value, vector = linalg.eigh(gram, check_finite=False)
    elif n <= size // LANCZOS:
        half = np.asfortranarray(
            gram.T if gram.flags.c_contiguous else gram
        )  # a symmetric product reads one half
        product = LinearOperator(
            (size, size), matvec=lambda x: linalg.blas.dsymv(1.0, half, x), dtype=np.float64
        )
        value, vector = eigsh(product, k=n, v0=np.ones(size), tol=0)
        order = np.argsort(value)
        value, vector = value[order], vector[:, order]
    else:
        value, vector = linalg.eigh(gram, subset_by_index=[size - n, size - 1], check_finite=False)
    return value[::-1], vector[:, ::-1]


def kernel_axes(
    gram: np.ndarray, c1: np.ndarray, train: np.ndarray, n_components: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the principal axes of training rows from products of rows alone, mean and confounds taken off.

    One matrix of products serves every training set, where features are scaled alike in all.

    Parameters
    ----------
    gram : (n_rows, n_rows) float64, of features centred over all rows
    c1 : (n_rows, 1 + c) a column of ones, and the confounds
    train : (n_train,) row numbers
    n_components : keep this many leading axes; all of them when None

    Returns
    -------
    s : (n_axes,) singular values of the training features
    coordinates : (n_rows, n_axes) of all rows
    """
    reader, own = confound_reader(c1[train, 1:]), c1[train]
    inside = _square(gram, train)
    power = float(np.trace(inside))
    # M inside Mᵀ with M = 1 − own reader
    read = reader @ inside
    half = read - 0.5 * (read @ reader.T) @ own.T
    both = np.hstack([own, half.T])
    inside = linalg.blas.dgemm(
        -1.0, both, np.hstack([half.T, own]), 1.0, inside.T, trans_b=1, overwrite_c=1
    ).T
    value, vector = leading(inside, n_components)
    floor = max(RANK * max(value[0], power), np.finfo(np.float64).tiny) if len(value) else 0.0
    keep = value > floor
    s = np.sqrt(value[keep])
    coordinates = np.empty((len(gram), len(s)))
    coordinates[train] = vector[:, keep] * s
    rest = np.setdiff1d(np.arange(len(gram)), train)
    weight = vector[:, keep] / s  # has no part in the confounds
    coordinates[rest] = gram[np.ix_(rest, train)] @ weight - c1[rest] @ (read @ weight)
    return s, coordinates


def _square(gram: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copy some rows and the same columns of a matrix, by stretches of neighbours."""
    stretches = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    if len(stretches) > 32:
        return np.asarray(gram[np.ix_(rows, rows)])
    cuts = [slice(int(s[0]), int(s[-1]) + 1) for s in stretches if len(s)]
    return np.vstack([np.hstack([gram[a, b] for b in cuts]) for a in cuts])


def penalties(axes: Axes, grid: np.ndarray, relative: bool) -> np.ndarray:
    """Turn a grid into ridge penalties α, largest first.

    Relative penalties are α = g · trace(XᵀX)/rank, so the same g shrinks every layer alike, whatever the size of
    its hidden states, its width, and what confounds and PCA leave of it.

    Parameters
    ----------
    grid : (n_alphas,) g, or α itself when not `relative`
    """
    alphas = np.sort(np.asarray(grid, dtype=np.float64))[::-1]
    return alphas * axes.mean_eigenvalue if relative else alphas


@dataclass(frozen=True, eq=False)
class Held:
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


def hold_out(y: np.ndarray, metric: str) -> Held:
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
    return Held(metric, c, spread, flat) if metric == "r" else Held(metric, y, total, flat)


def validate(axes: Axes, weight: np.ndarray, h_new: np.ndarray, held: Held, alphas: np.ndarray) -> np.ndarray:
    """Score every penalty on held-out rows without forming a prediction.

    With D_a = diag(s / (s² + a)), the prediction is H D_a Uᵀ Y, so its product with the held-out responses and
    its own power are sums over axes, whatever the penalty.

    Parameters
    ----------
    axes : of the training features
    weight : (n_axes, n_targets) Uᵀ Y of the training responses
    h_new : (n_new, n_axes) coordinates of held-out rows on the axes
    held : from `hold_out`
    alphas : (n_alphas,)

    Returns
    -------
    (n_alphas, n_targets); NaN where a held-out target is constant (and for "r" where a prediction is)
    """
    dtype = weight.dtype
    h = h_new - h_new.mean(axis=0) if held.metric == "r" else h_new
    triangle = linalg.qr(h, mode="r", check_finite=False)[0][: min(h.shape)]
    shrink = axes.s / (axes.s**2 + alphas[:, None])  # (n_alphas, n_axes)
    cross = shrink.astype(dtype) @ (weight * (h.T.astype(dtype) @ held.y))
    # (n_alphas · min(n_new, n_axes), n_targets): every penalty's prediction, rotated into as few rows as it has rank
    rotated = (triangle * shrink[:, None, :]).reshape(-1, len(axes.s)).astype(dtype) @ weight
    rotated = rotated.reshape(len(alphas), -1, weight.shape[1])
    power = np.einsum("aij,aij->aj", rotated, rotated)
    with np.errstate(invalid="ignore", divide="ignore"):
        if held.metric == "r":
            scores = np.where(power > np.finfo(dtype).tiny, cross / np.sqrt(power * held.total), np.nan)
        else:
            scores = (2 * cross - power) / held.total
    scores[:, held.flat] = np.nan
    return scores


def predict(axes: Axes, weight: np.ndarray, h_new: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Predict new rows with one penalty per target.

    Parameters
    ----------
    axes, weight, h_new : as in `validate`
    alpha : (n_targets,)

    Returns
    -------
    (n_new, n_targets) in the dtype of `weight`
    """
    shrink = axes.s[:, None] / (axes.s[:, None] ** 2 + alpha)
    predicted: np.ndarray = h_new.astype(weight.dtype) @ (weight * shrink.astype(weight.dtype))
    return predicted


def chunks(n: int, size: int = CHUNK) -> list[slice]:
    """Cut `n` targets into slices of at most `size`.

    >>> chunks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(a, min(a + size, n)) for a in range(0, n, size)]
