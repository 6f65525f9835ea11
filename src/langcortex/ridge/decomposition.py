"""Ridge regression on principal components: scaling, nuisance regression, decomposition, units of penalties.

With training features X = U S Vᵀ (columns centred, confounds regressed out) and training responses Y, the ridge
prediction for new rows is

    ŷ(α) = X_new V · diag(s / (s² + α)) · Uᵀ Y,

so one decomposition serves every penalty and every target, and dropping the last components is PCA. Penalties are
scikit-learn's α, the one in ‖Y − XW‖² + α‖W‖² (the Huth lab's code squares its own).

Nuisance coefficients are least squares on [1, C], a column of ones and the confounds. Three forms stand side by side
below, because they start from different arrays and so round differently: `least_squares_operator` reads coefficients off
rows, `moment_operator` off [1, C]ᵀy where rows have been summed, and `coefficients_from_gram` off the products of columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

CONSTANT_SHARE = 1e-7  # a standard deviation below this share of the mean is rounding error
LANCZOS_RATIO = (
    10  # rows per component from which on Lanczos iterations are less work than a full decomposition
)
RESTARTS = 300  # of Lanczos iterations, after which a full decomposition is less work
RANK_SHARE = 1e-12  # eigenvalues below this share of the first are rounding error


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each column, learnt from training rows.

    Attributes
    ----------
    mean, std : (n_features,); a constant column has an infinite std, so that it becomes exactly 0
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
    is_constant = std <= CONSTANT_SHARE * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
    return Scale(mean, np.where(is_constant, np.inf, std))


def least_squares_operator(confounds: np.ndarray) -> np.ndarray:
    """Return the matrix B that maps responses to least-squares coefficients: coef = B y.

    Parameters
    ----------
    confounds : (n_samples, n_confounds); without columns, only the mean is estimated

    Returns
    -------
    (1 + n_confounds, n_samples): the row of the intercept, then one row per confound. Regress confounds out of any
    rows by ``y - [1, confounds] @ coef`` (`residualise`)
    """
    n = len(confounds)
    if confounds.shape[1] == 0:
        return np.full((1, n), 1.0 / n)
    centre = confounds.mean(axis=0, dtype=np.float64)
    slopes = linalg.pinv(confounds - centre)
    return np.vstack([1.0 / n - centre @ slopes, slopes])


def moment_operator(nuisance: np.ndarray) -> np.ndarray:
    """Return the matrix M that maps the products of nuisance and responses to coefficients: coef = M [1, C]ᵀy.

    The mean is handled apart from the slopes, as in `least_squares_operator`: confounds far from zero would make the
    products of [1, C] nearly singular.

    Parameters
    ----------
    nuisance : (n_samples, 1 + n_confounds) a column of ones, and the confounds

    Returns
    -------
    (1 + n_confounds, 1 + n_confounds)
    """
    centre = nuisance[:, 1:].mean(axis=0)
    centred = nuisance[:, 1:] - centre
    inverse = linalg.pinvh(centred.T @ centred) if len(centre) else np.zeros((0, 0))
    slopes = inverse @ np.column_stack([-centre, np.eye(len(centre))])
    intercept = np.concatenate([[1.0 / len(nuisance)], np.zeros(len(centre))]) - centre @ slopes
    return np.vstack([intercept, slopes])


def coefficients_from_gram(gram: np.ndarray, n_nuisance: int) -> np.ndarray:
    """Return the least-squares coefficients of columns on the nuisance columns that stand before them.

    Parameters
    ----------
    gram : (m, m) products of all columns, nuisance first
    n_nuisance : the number of nuisance columns

    Returns
    -------
    (n_nuisance, m − n_nuisance)
    """
    coef: np.ndarray = linalg.pinvh(gram[:n_nuisance, :n_nuisance]) @ gram[:n_nuisance, n_nuisance:]
    return coef


def residualise(confounds: np.ndarray, coef: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return y − [1, confounds] · coef, in the dtype of `y`, for training rows or any others.

    Parameters
    ----------
    confounds : (n_rows, n_confounds)
    coef : (1 + n_confounds, n_columns)
    y : (n_rows, n_columns)
    """
    residual: np.ndarray = y - coef[0].astype(y.dtype)
    if len(coef) > 1:
        residual -= confounds.astype(y.dtype) @ coef[1:].astype(y.dtype)
    return residual


@dataclass(frozen=True)
class PrincipalComponents:
    """The principal components of centred training features, X = U S Vᵀ.

    Attributes
    ----------
    u : (n_samples, n_components) left singular vectors, orthonormal
    s : (n_components,) singular values, largest first, all above rounding error
    v : (n_features, n_components), so that new rows have the component scores ``x_new @ v``
    """

    u: np.ndarray
    s: np.ndarray
    v: np.ndarray

    @property
    def mean_eigenvalue(self) -> float:
        """trace(XᵀX) / rank over these components: the unit of relative penalties."""
        return float(np.mean(self.s**2)) if len(self.s) else float("nan")


def principal_components(
    x: np.ndarray, n_components: int | None = None, sum_of_squares: float = 0.0
) -> PrincipalComponents:
    """Decompose centred training features exactly, through the smaller of XXᵀ and XᵀX in float64.

    Parameters
    ----------
    x : (n_samples, n_features), column means 0
    n_components : keep this many leading components; all of them when None
    sum_of_squares : of the features before confounds were regressed out. What remains of features that the confounds
        explain is rounding error of that size, and no component

    Notes
    -----
    float64 matters: language models have a few features thousands of times larger than the others, and a
    float32 Gram matrix moves single voxels by up to .2 in r. The result is exact PCA; scikit-learn's default
    solver is randomised at these shapes.
    """
    x = np.asarray(x, dtype=np.float64)
    is_wide = x.shape[1] > x.shape[0]
    value, vector = leading_eigenpairs(x @ x.T if is_wide else x.T @ x, n_components)
    keep = _above_rounding(value, sum_of_squares)
    s, vector = np.sqrt(value[keep]), vector[:, keep]
    if is_wide:
        return PrincipalComponents(vector, s, (x.T @ vector) / s)
    return PrincipalComponents((x @ vector) / s, s, vector)


def _above_rounding(eigenvalues: np.ndarray, sum_of_squares: float) -> np.ndarray:
    """Return which eigenvalues, largest first, are more than rounding error."""
    if not len(eigenvalues):
        return np.zeros(0, dtype=bool)
    floor = max(RANK_SHARE * max(eigenvalues[0], sum_of_squares), np.finfo(np.float64).tiny)
    above: np.ndarray = eigenvalues > floor
    return above


def leading_eigenpairs(gram: np.ndarray, n: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the n largest eigenvalues of a symmetric matrix, largest first, and their vectors; all when None.

    A few of many are found by Lanczos iterations from a fixed start, to machine precision; where equal eigenvalues keep
    them from converging, by a full decomposition.
    """
    size = len(gram)
    if n is None or n >= size:
        value, vector = linalg.eigh(gram, check_finite=False)
    else:
        pairs = _lanczos_eigenpairs(gram, n) if n <= size // LANCZOS_RATIO else None
        value, vector = pairs or linalg.eigh(gram, subset_by_index=[size - n, size - 1], check_finite=False)
    return value[::-1], vector[:, ::-1]


def _lanczos_eigenpairs(gram: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the n largest eigenvalues, smallest first, and their vectors; None where iterations do not converge."""
    size = len(gram)
    # a symmetric product reads one half of the matrix
    columns = np.asfortranarray(gram.T if gram.flags.c_contiguous else gram)
    product = LinearOperator(
        (size, size), matvec=lambda x: linalg.blas.dsymv(1.0, columns, x), dtype=np.float64
    )
    # a start without structure: a constant one is an eigenvector of every centred matrix, of eigenvalue 0
    start = np.random.default_rng(0).standard_normal(size)
    try:
        value, vector = eigsh(product, k=n, v0=start, tol=0, maxiter=RESTARTS)
    except ArpackNoConvergence:
        return None
    order = np.argsort(value)
    return value[order], vector[:, order]


def kernel_components(
    gram: np.ndarray, nuisance: np.ndarray, train: np.ndarray, n_components: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal components of training rows from products of rows alone, mean and confounds regressed out.

    One matrix of products serves every training set, where features are scaled alike in all of them.

    Parameters
    ----------
    gram : (n_rows, n_rows) float64, of features centred over all rows
    nuisance : (n_rows, 1 + n_confounds) a column of ones, and the confounds
    train : (n_train,) row numbers
    n_components : keep this many leading components; all of them when None

    Returns
    -------
    s : (n_components,) singular values of the training features
    scores : (n_rows, n_components) component scores of all rows
    """
    operator, nuisance_train = least_squares_operator(nuisance[train, 1:]), nuisance[train]
    kernel = _square_submatrix(gram, train)
    sum_of_squares = float(np.trace(kernel))
    coef = operator @ kernel
    kernel = _residual_kernel(kernel, nuisance_train, operator, coef)
    value, vector = leading_eigenpairs(kernel, n_components)
    keep = _above_rounding(value, sum_of_squares)
    s = np.sqrt(value[keep])
    scores = np.empty((len(gram), len(s)))
    scores[train] = vector[:, keep] * s
    heldout = np.setdiff1d(np.arange(len(gram)), train)
    weight = vector[:, keep] / s  # orthogonal to the confounds
    scores[heldout] = gram[np.ix_(heldout, train)] @ weight - nuisance[heldout] @ (coef @ weight)
    return s, scores


def _residual_kernel(
    kernel: np.ndarray, nuisance: np.ndarray, operator: np.ndarray, coef: np.ndarray
) -> np.ndarray:
    """Return R K Rᵀ with R = 1 − [1, C] B, in the memory of K: mean and confounds regressed out on both sides."""
    half = coef - 0.5 * (coef @ operator.T) @ nuisance.T
    left, right = np.hstack([nuisance, half.T]), np.hstack([half.T, nuisance])
    residual: np.ndarray = linalg.blas.dgemm(-1.0, left, right, 1.0, kernel.T, trans_b=1, overwrite_c=1).T
    return residual


def _square_submatrix(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copy some rows and the same columns of a matrix, slice by slice where few slices make them up."""
    neighbours = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    if len(neighbours) > 32:
        return np.asarray(matrix[np.ix_(rows, rows)])
    slices = [slice(int(part[0]), int(part[-1]) + 1) for part in neighbours if len(part)]
    return np.vstack([np.hstack([matrix[a, b] for b in slices]) for a in slices])


def scaled_penalties(components: PrincipalComponents, grid: np.ndarray, relative: bool) -> np.ndarray:
    """Return the ridge penalties α of a grid, largest first.

    Relative penalties are α = g · trace(XᵀX)/rank, so that the same g shrinks every layer alike, whatever the size of
    its hidden states, its width, and what confounds and PCA leave of it.

    Parameters
    ----------
    grid : (n_alphas,) g, or α itself when not `relative`
    """
    alphas = np.sort(np.asarray(grid, dtype=np.float64))[::-1]
    return alphas * components.mean_eigenvalue if relative else alphas
