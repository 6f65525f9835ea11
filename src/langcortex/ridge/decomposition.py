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


def least_squares_operator(confounds: np.ndarray) -> np.ndarray:
    """Make the matrix B that reads least-squares coefficients off responses: coef = B y.

    Parameters
    ----------
    confounds : (n_samples, n_confounds), perhaps with no columns: then only the mean is read

    Returns
    -------
    (1 + n_confounds, n_samples): the intercept's row, then one a confound. Remove confounds from any rows by
    ``y - [1, confounds] @ coef`` (`residualise`)
    """
    n = len(confounds)
    if confounds.shape[1] == 0:
        return np.full((1, n), 1.0 / n)
    centre = confounds.mean(axis=0, dtype=np.float64)
    slope = linalg.pinv(confounds - centre)
    return np.vstack([1.0 / n - centre @ slope, slope])


def residualise(confounds: np.ndarray, coef: np.ndarray, y: np.ndarray) -> np.ndarray:
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
class PrincipalComponents:
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


def principal_components(
    x: np.ndarray, n_components: int | None = None, power: float = 0.0
) -> PrincipalComponents:
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
    value, vector = leading_eigenpairs(x @ x.T if wide else x.T @ x, n_components)
    floor = max(RANK * max(value[0], power), np.finfo(np.float64).tiny) if len(value) else 0.0
    keep = value > floor
    s, vector = np.sqrt(value[keep]), vector[:, keep]
    if wide:
        return PrincipalComponents(vector, s, (x.T @ vector) / s)
    return PrincipalComponents((x @ vector) / s, s, vector)


def leading_eigenpairs(gram: np.ndarray, n: int | None) -> tuple[np.ndarray, np.ndarray]:
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


def kernel_components(
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
    reader, own = least_squares_operator(c1[train, 1:]), c1[train]
    inside = _square(gram, train)
    power = float(np.trace(inside))
    # M inside Mᵀ with M = 1 − own reader
    read = reader @ inside
    half = read - 0.5 * (read @ reader.T) @ own.T
    both = np.hstack([own, half.T])
    inside = linalg.blas.dgemm(
        -1.0, both, np.hstack([half.T, own]), 1.0, inside.T, trans_b=1, overwrite_c=1
    ).T
    value, vector = leading_eigenpairs(inside, n_components)
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


def scaled_penalties(axes: PrincipalComponents, grid: np.ndarray, relative: bool) -> np.ndarray:
    """Turn a grid into ridge penalties α, largest first.

    Relative penalties are α = g · trace(XᵀX)/rank, so the same g shrinks every layer alike, whatever the size of
    its hidden states, its width, and what confounds and PCA leave of it.

    Parameters
    ----------
    grid : (n_alphas,) g, or α itself when not `relative`
    """
    alphas = np.sort(np.asarray(grid, dtype=np.float64))[::-1]
    return alphas * axes.mean_eigenvalue if relative else alphas
