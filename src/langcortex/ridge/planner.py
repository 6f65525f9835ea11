"""Plans: from features prepared in training rows to what the fitting engine needs of them, by the cheapest solver.

A plan knows nothing of responses. Component scores and singular values are float64 until the bases are put side by side
in the precision of the responses; see `langcortex.ridge.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from langcortex.errors import FitError
from langcortex.ridge.decomposition import (
    CONSTANT_SHARE,
    PrincipalComponents,
    coefficients_from_gram,
    least_squares_operator,
    scaled_penalties,
)
from langcortex.ridge.plan import (
    FEW_COMPONENTS,
    NestedFold,
    Plan,
    Rows,
    TrainingSet,
    ValidationSet,
    row_set_key,
)
from langcortex.ridge.powers import PairSums, divided_differences

MAX_PAIRED = 700  # components above which the sums over all pairs take megabytes per validation set
SOLVERS = ("auto", "pairs", "axes", "kernel")

Prepare = Callable[[Rows], tuple[np.ndarray, np.ndarray]]
"""From training rows to their singular values, (p,), and the component scores of all rows, (n_rows, p)."""

Split = tuple[Rows, Rows]
"""Training and validation rows of an inner fold."""


def make_plan(
    name: str,
    folds: Sequence[NestedFold],
    prepare: Prepare,
    confounds: np.ndarray,
    grid: np.ndarray,
    relative: bool,
    metric: str,
    nested_components: bool = True,
    dtype: type = np.float32,
    solver: str = "auto",
) -> Plan:
    """Prepare a feature space for some outer folds.

    Parameters
    ----------
    folds : the outer folds
    prepare : scales features, regresses confounds out and computes principal components, from training rows
    confounds : (n_rows, n_confounds)
    grid, relative : penalties, see `langcortex.ridge.decomposition.scaled_penalties`
    metric : "r2" or "r", which chooses penalties
    nested_components : compute components anew in every inner fold; otherwise inner folds use those of the outer
        training rows
    solver : one of `SOLVERS`. All give the same scores; "auto" takes the cheapest for each validation set: "pairs" with
        several penalties, "axes" with few penalties or few validation rows, "kernel" where there are nearly as many
        components as training rows and inner folds would have to rotate them
    """
    if solver not in SOLVERS:
        raise FitError(f"No solver is called '{solver}'. There are: {', '.join(SOLVERS)}.")
    nuisance = np.column_stack([np.ones(len(confounds)), confounds])
    planner = _Planner(nuisance, prepare, grid, relative, metric == "r", dtype, solver)
    inner: list[tuple[ValidationSet, ...]] = []
    outer: list[tuple[ValidationSet, ...]] = []
    for fold in folds:
        outer.append(tuple(planner.validate_segments(fold)))
        if nested_components:
            inner.append(tuple(planner.validate_inner_folds(fold)))
        else:
            inner.append(tuple(planner.validate_inner_folds_of_parent(fold)))
    return Plan(name, planner.stack_bases(), tuple(planner.training_sets), tuple(inner), tuple(outer))


class _Planner:
    """The bases and training sets of one feature space, while they are collected.

    Attributes
    ----------
    bases : (n_rows, p) float64 left singular vectors of some training rows, extended to all rows
    training_sets : of the plan
    scores : (n_rows, p) float64 component scores for each training set, of unit length over the training rows
    singular_values, penalties : (p,) and (n_alphas,) for each training set
    """

    def __init__(
        self,
        nuisance: np.ndarray,
        prepare: Prepare,
        grid: np.ndarray,
        relative: bool,
        centred: bool,
        dtype: type,
        solver: str,
    ) -> None:
        self.nuisance, self.prepare, self.grid, self.relative = nuisance, prepare, grid, relative
        self.centred, self.dtype, self.solver = centred, dtype, solver
        self.bases: list[np.ndarray] = []
        self.width = 0
        self.training_sets: list[TrainingSet] = []
        self.scores: list[np.ndarray] = []
        self.singular_values: list[np.ndarray] = []
        self.penalties: list[np.ndarray] = []
        self.number_of_key: dict[bytes, int] = {}

    def validate_segments(self, fold: NestedFold) -> Iterator[ValidationSet]:
        """Add the outer training set where there are test segments, and a validation set for each of them."""
        if not fold.segments:
            return
        number = self.add_training_set(fold.train)
        for rows in fold.segments:
            yield self.add_validation_set(number, rows, centred=True, all_penalties=False)

    def validate_inner_folds(self, fold: NestedFold) -> Iterator[ValidationSet]:
        """Add a training set with components of its own, and a validation set, for each inner fold."""
        for train, validation in fold.inner:
            number = self.add_training_set(train)
            yield self.add_validation_set(number, validation, self.centred, all_penalties=True)

    def validate_inner_folds_of_parent(self, fold: NestedFold) -> Iterator[ValidationSet]:
        """Add a training set with the components of the outer training set, and a validation set, for each inner fold."""
        parent = self.add_training_set(fold.train)
        closed_form = [self.has_closed_form(*split, parent) for split in fold.inner]
        left_out = [split for split, is_closed in zip(fold.inner, closed_form, strict=True) if is_closed]
        closed_sets = self.leave_out(left_out, parent)
        for (train, validation), is_closed in zip(fold.inner, closed_form, strict=True):
            if is_closed:
                yield next(closed_sets)
                continue
            number = self.add_rotated_training_set(train, parent)
            yield self.add_validation_set(number, validation, self.centred, all_penalties=True)

    def add_training_set(self, train: Rows) -> int:
        """Add training rows with components of their own, unless they are there; return their number."""
        key = row_set_key(train)
        if key not in self.number_of_key:
            s, scores = self.prepare(train)
            basis = scores / s if len(s) else np.zeros((len(self.nuisance), 0))
            columns = slice(self.width, self.width + basis.shape[1])
            self.bases.append(basis)
            self.width += basis.shape[1]
            self.number_of_key[key] = self._add(key, columns, None, s, basis)
        return self.number_of_key[key]

    def add_rotated_training_set(self, train: Rows, parent: int) -> int:
        """Add training rows that use the components of a larger training set, with mean and confounds estimated anew."""
        basis, s = self.scores[parent], self.singular_values[parent]
        columns = np.hstack([self.nuisance, basis])
        train_columns = columns[train]
        gram = train_columns.T @ train_columns
        n = self.nuisance.shape[1]
        coef = coefficients_from_gram(gram, n)
        residual_gram = (gram[n:, n:] - gram[n:, :n] @ coef) * np.outer(s, s)
        value, vector = linalg.eigh(residual_gram) if len(s) else (np.zeros(0), np.zeros((0, 0)))
        keep = value > 1e-12 * max(value.max(initial=0.0), np.finfo(float).tiny)
        value, vector = value[keep][::-1], vector[:, keep][:, ::-1]
        rotation = np.vstack([-coef, np.eye(len(s))]) @ (s[:, None] * vector / np.sqrt(value))
        larger = self.training_sets[parent]
        return self._add(
            row_set_key(train), larger.basis, rotation, np.sqrt(value), columns @ rotation, larger.key
        )

    def _add(
        self,
        key: bytes,
        basis: slice,
        rotation: np.ndarray | None,
        s: np.ndarray,
        scores: np.ndarray,
        parent: bytes | None = None,
    ) -> int:
        alphas = self._penalties_of(s)
        self.training_sets.append(TrainingSet(key, basis, rotation, s**2 / (s**2 + alphas[:, None]), parent))
        self.scores.append(scores)
        self.singular_values.append(s)
        self.penalties.append(alphas)
        return len(self.training_sets) - 1

    def add_validation_set(
        self, training_set: int, rows: Rows, centred: bool, all_penalties: bool
    ) -> ValidationSet:
        """Prepare the scoring of one training set's ridge on held-out rows, for all penalties or for a chosen one."""
        scores, mean = self._scores_without_rounding(training_set, rows)
        around = scores - mean if centred else scores
        p = scores.shape[1]
        triangle = around[:0]
        if p:
            triangle = linalg.qr(around, mode="r", check_finite=False)[0][: min(scores.shape)]
        pair_sums, hat_matrix = None, None
        if all_penalties and p:
            pair_sums, hat_matrix = self._scoring_of_all_penalties(training_set, scores, around)
        adjustment = np.column_stack([scores.T @ self.nuisance[rows], mean])
        return ValidationSet(
            training_set,
            row_set_key(rows),
            mean,
            adjustment.astype(self.dtype),
            triangle.astype(self.dtype),
            centred,
            pair_sums,
            hat_matrix,
        )

    def _scores_without_rounding(self, number: int, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return the component scores of held-out rows and their mean; where they differ by rounding only, they are the mean.

        Features that are constant over the held-out rows predict a constant there, which correlates with nothing; what
        rounding leaves of them would correlate at random, with an r of 1 or −1.
        """
        scores, s = self.scores[number][rows], self.singular_values[number]
        mean = scores.mean(axis=0)
        spread = float(np.square((scores - mean) * s).sum()) / len(rows)
        in_training = float(np.square(s).sum()) / len(self._rows_of(number))
        if spread <= CONSTANT_SHARE**2 * in_training:
            scores = np.broadcast_to(mean, scores.shape)
        return scores, mean

    def _scoring_of_all_penalties(
        self, number: int, scores: np.ndarray, around: np.ndarray
    ) -> tuple[PairSums | None, np.ndarray | None]:
        """Return the pair sums or the hat matrix that the solver needs; neither for "axes"."""
        training_set, (n, p) = self.training_sets[number], scores.shape
        is_rotated = training_set.rotation is not None
        solver = self._choose_solver(n, p, len(self._rows_of(number)), is_rotated)
        if solver == "kernel":
            return None, self._hat_matrix(number, scores)
        if solver == "axes":
            return None, None
        sums = divided_differences(self.singular_values[number], self.penalties[number], around.T @ around)
        is_used = self.solver == "pairs" or p <= FEW_COMPONENTS or sums.is_worthwhile
        return sums if is_used else None, None

    def _choose_solver(self, n: int, p: int, n_train: int, is_rotated: bool) -> str:
        """Return the solver with the fewest operations per target; those in float64 count twice."""
        if self.solver != "auto":
            return self.solver
        n_alphas, rank = len(self.grid), min(n, p)
        axes, pairs = n_alphas * rank * (2 * p - rank), 4 * p * p + 8 * n_alphas * p
        if is_rotated and 2 * n_alphas * n * n_train < min(axes, pairs) + 4 * p * p:
            return "kernel"
        return "pairs" if p <= FEW_COMPONENTS or (pairs < axes and p <= MAX_PAIRED) else "axes"

    def has_closed_form(self, train: Rows, validation: Rows, parent: int) -> bool:
        """Return whether components that span all of a larger training set predict the rows left out of it directly."""
        rows = self._rows_of(parent)
        p, n_nuisance = len(self.singular_values[parent]), self.nuisance.shape[1]
        if not 0 < p == len(rows) - n_nuisance:
            return False
        is_determined = np.linalg.matrix_rank(self.nuisance[train]) == n_nuisance < len(train)
        is_inside = bool(np.isin(validation, rows).all() and not np.isin(validation, train).any())
        if not (is_determined and is_inside):
            return False
        solver = self._choose_solver(len(validation), len(train) - n_nuisance, len(train), True)
        return solver == "kernel"

    def leave_out(self, splits: Sequence[Split], parent: int) -> Iterator[ValidationSet]:
        """Add training sets that are some rows of a larger set whose components span all of it, from these alone.

        With E = diag(1 / (s² + α)) and U the left singular vectors, rows L that are left out are predicted by the others
        with −(U_L E U_Lᵀ)⁻¹ U_L E Uᵀ, mean and confounds included: what a block left out of a linear fit is, exactly.
        One U E Uᵀ serves all folds that share a penalty.
        """
        if not splits:
            return
        rows = self._rows_of(parent)
        u, eigenvalues = self.scores[parent][rows], self.singular_values[parent] ** 2
        forms = [_closed_form(self.nuisance, rows, *split) for split in splits]
        means = [form.mean_eigenvalue(u, eigenvalues) for form in forms]
        penalties = [self._penalties_of(np.array([np.sqrt(mean)])) for mean in means]
        hat_matrices = self._leave_out_hat_matrices(forms, penalties, u, eigenvalues)
        larger = self.training_sets[parent]
        none: np.ndarray = np.zeros((0, 0), self.dtype)
        for (train, validation), alphas, hat_matrix in zip(splits, penalties, hat_matrices, strict=True):
            self.training_sets.append(
                TrainingSet(row_set_key(train), larger.basis, None, np.ones((len(alphas), 1)), larger.key)
            )
            self.scores.append(np.zeros((0, 0)))
            self.singular_values.append(np.zeros(0))
            self.penalties.append(alphas)
            number, key = len(self.training_sets) - 1, row_set_key(validation)
            yield ValidationSet(number, key, np.zeros(0), none, none, self.centred, None, hat_matrix)

    def _leave_out_hat_matrices(
        self,
        forms: Sequence[_ClosedForm],
        penalties: Sequence[np.ndarray],
        u: np.ndarray,
        eigenvalues: np.ndarray,
    ) -> list[np.ndarray]:
        """Return the map from training responses to the predictions of every penalty, for each fold."""
        parts: list[list[np.ndarray]] = [[] for _ in forms]
        for alphas in zip(*penalties, strict=True):
            kernel = None
            if len(set(alphas)) == 1 < len(alphas):
                root = u / np.sqrt(eigenvalues + alphas[0])
                kernel = root @ root.T
            for form, alpha, part in zip(forms, alphas, parts, strict=True):
                if kernel is not None:
                    kernel_rows = kernel[form.left_out]
                else:
                    kernel_rows = u[form.left_out] / (eigenvalues + alpha) @ u.T
                part.append(form.hat_matrix(kernel_rows).astype(self.dtype))
        return [np.concatenate(part) for part in parts]

    def _hat_matrix(self, number: int, scores: np.ndarray) -> np.ndarray:
        """Return the map from training responses to the predictions of every penalty."""
        u: np.ndarray = self.scores[number][self._rows_of(number)].T.astype(self.dtype)
        shrinkage = self.training_sets[number].shrinkage
        return np.concatenate([(scores * d).astype(self.dtype) @ u for d in shrinkage])

    def _rows_of(self, number: int) -> Rows:
        """Return the rows of a training set."""
        return np.frombuffer(self.training_sets[number].key, dtype=np.int64)

    def _penalties_of(self, s: np.ndarray) -> np.ndarray:
        """Return the penalties α for components with some singular values."""
        none = np.zeros((0, len(s)))
        return scaled_penalties(PrincipalComponents(none, s, none), self.grid, self.relative)

    def stack_bases(self) -> np.ndarray:
        """Put the bases side by side, in the dtype of the responses."""
        out: np.ndarray = np.empty((len(self.nuisance), self.width), self.dtype)
        np.concatenate([*self.bases, np.empty((len(out), 0))], axis=1, out=out, casting="same_kind")
        return out


@dataclass(frozen=True)
class _ClosedForm:
    """Some rows left out of a larger training set.

    Attributes
    ----------
    left_out, train : positions in the larger set, of the rows left out and of the others
    validation : positions among the rows left out, of those to predict
    nuisance : (n_train, 1 + c) a column of ones, and the confounds
    mean_map : (n_validation, n_train) from training responses to what mean and confounds predict of the validation rows
    """

    left_out: Rows
    train: Rows
    validation: Rows
    nuisance: np.ndarray
    mean_map: np.ndarray

    def mean_eigenvalue(self, u: np.ndarray, eigenvalues: np.ndarray) -> float:
        """Return the mean eigenvalue over the training rows, mean and confounds regressed out."""
        basis, _ = np.linalg.qr(self.nuisance)
        u = u[self.train]
        shares: np.ndarray = np.square(u).sum(axis=0) - np.square(basis.T @ u).sum(axis=0)
        total = float((shares * eigenvalues).sum())
        return total / (len(self.train) - int(self.nuisance.shape[1]))

    def hat_matrix(self, kernel_rows: np.ndarray) -> np.ndarray:
        """Return the map from training responses to adjusted predictions, from U_L E Uᵀ: (n_validation, n_train)."""
        block = kernel_rows[:, self.left_out]
        root = linalg.cholesky(block, lower=True, overwrite_a=True, check_finite=False)
        inverse, _ = linalg.lapack.dpotri(root, lower=1, overwrite_c=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        out: np.ndarray = -(inverse[self.validation] @ kernel_rows[:, self.train])
        out -= self.mean_map
        return out


def _closed_form(nuisance: np.ndarray, parent: Rows, train: Rows, validation: Rows) -> _ClosedForm:
    """Describe rows left out of a larger training set, by positions in it."""
    left_out = np.setdiff1d(parent, train)
    return _ClosedForm(
        np.searchsorted(parent, left_out),
        np.searchsorted(parent, train),
        np.searchsorted(left_out, validation),
        nuisance[train],
        nuisance[validation] @ least_squares_operator(nuisance[train][:, 1:]),
    )
