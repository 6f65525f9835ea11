"""Refits at fixed penalties: what responses are multiplied with is permuted, and the responses stay in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from langcortex.arrays import chunks, pearson
from langcortex.nulls.permutations import RowPermutations
from langcortex.ridge.plan import Plan, TrainingSet

# memory for the products of columns with the responses at every shift: it should fit a cache
TABLE_BYTES = 2**24
MIN_TARGETS = 32  # at a time, even if their table is larger
MAX_TARGETS = 1024  # at a time
CACHE_BYTES = 2**20  # memory for the products of one batch of nulls

Scored = tuple[slice | np.ndarray, slice, int, np.ndarray]
"""Targets, nulls, test segment, and their r: (n_batch, n)."""


@dataclass(frozen=True, eq=False)
class FixedPenaltyRefit:
    """The ridge of one outer fold at its chosen penalties, ready for permuted responses.

    Attributes
    ----------
    plan : of this fold alone, its first outer fold
    nuisance : (n_rows, 1 + n_confounds) a column of ones, and the confounds
    train : training rows of the fold
    segments : rows of each test segment; whole runs where the nulls are "phase"
    permutations : the nulls
    """

    plan: Plan
    nuisance: np.ndarray
    train: np.ndarray
    segments: tuple[np.ndarray, ...]
    permutations: RowPermutations
    _operator: list[np.ndarray] = field(default_factory=list)

    @property
    def training_set(self) -> TrainingSet:
        """The ridge of the training rows."""
        return self.plan.training_sets[self.plan.outer[0][0].training_set]

    def score_nulls(self, y: np.ndarray, penalty_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Refit and score every null.

        Parameters
        ----------
        y : (n_rows, n) responses, centred
        penalty_index : (n,) position of the penalty of each target, the largest penalty first

        Returns
        -------
        total : (n_nulls, n) float32 sum of r over test segments
        count : (n,) over how many
        """
        total = np.zeros((self.permutations.n_nulls, y.shape[1]), dtype=np.float32)
        defined = [~np.isnan(pearson(y[rows], y[rows])) for rows in self.segments]
        n_components = self.training_set.shrinkage.shape[1]
        count = np.sum(defined, axis=0).astype(np.float32)
        if n_components == 0:
            return total, 0 * count
        # many components cost more than the rows they predict; then predictions come from the training responses directly
        by_rows = n_components > sum(len(rows) for rows in self.segments)
        score = self._score_by_rows if by_rows else self._score_by_components
        for targets, nulls, segment, r in score(y, penalty_index):
            r[~np.isfinite(r)] = 0.0
            total[nulls, targets] += np.where(defined[segment][targets], r, 0.0)
        return total, count

    def _nuisance_coefficients(self, cross: np.ndarray) -> np.ndarray:
        """Return nuisance coefficients from [1, C]ᵀy over the training rows."""
        if not self._operator:
            nuisance = self.nuisance[self.train]
            self._operator.append(np.linalg.pinv(nuisance.T @ nuisance))
        return np.asarray(self._operator[0].astype(cross.dtype) @ cross)

    def _score_by_components(self, y: np.ndarray, penalty_index: np.ndarray) -> Iterator[Scored]:
        """Score by the products P and Q of components with training and held-out responses."""
        basis = self.plan.bases[:, self.training_set.basis]
        columns = np.hstack([basis, self.nuisance.astype(y.dtype)])
        n_components = self.training_set.shrinkage.shape[1]
        for targets in chunks(y.shape[1], self._n_targets(columns.shape[1], y)):
            part = y[:, targets]
            train = PermutedProducts(columns, self.train, part, self.permutations)
            heldout = [PermutedProducts(columns, rows, part, self.permutations) for rows in self.segments]
            squares = [PermutedSquares(rows, part, self.permutations) for rows in self.segments]
            shrinkage = self.training_set.shrinkage.T.astype(y.dtype)[:, penalty_index[targets]]
            for nulls in chunks(self.permutations.n_nulls, batch_size(columns.shape[1], part)):
                products = train.of_nulls(nulls)
                weights = products[:, :n_components] * shrinkage
                coef = self._nuisance_coefficients(products[:, n_components:])
                for segment in range(len(self.segments)):
                    q, power = heldout[segment].of_nulls(nulls), squares[segment].of_nulls(nulls)
                    yield targets, nulls, segment, self._correlate(segment, q, power, weights, coef)

    def _correlate(
        self, segment: int, q: np.ndarray, squares: np.ndarray, weights: np.ndarray, coef: np.ndarray
    ) -> np.ndarray:
        """Correlate predictions with held-out responses: (n_batch, n)."""
        validation, n_components = self.plan.outer[0][segment], weights.shape[1]
        rows = self.segments[segment]
        residual, spread = self._regress_out(rows, q[:, n_components:], squares, coef)
        # what regressing out and centring subtract from Q is subtracted from its product with the weights
        adjustment = np.concatenate([coef, residual[:, :1]], axis=1)
        rotated = validation.triangle @ weights
        cov = _dots(weights, q[:, :n_components]) - _dots(validation.adjustment.T @ weights, adjustment)
        return _correlation(cov, _dots(rotated, rotated), spread)

    def _regress_out(
        self, rows: np.ndarray, cross: np.ndarray, squares: np.ndarray, coef: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Regress mean and confounds out of held-out responses: [1, C]ᵀy of residuals, and their sum of squares around the mean."""
        nuisance = self.nuisance[rows]
        residual = cross - (nuisance.T @ nuisance).astype(cross.dtype) @ coef
        mean = residual[:, 0] / len(rows)
        return residual, squares - _dots(coef, cross + residual) - len(rows) * mean**2

    def _score_by_rows(self, y: np.ndarray, penalty_index: np.ndarray) -> Iterator[Scored]:
        """Score by the predictions of held-out rows, which are products of hat matrices with permuted training responses."""
        nuisance = self.nuisance.astype(y.dtype)
        for penalty in np.unique(penalty_index):
            members = np.flatnonzero(penalty_index == penalty)
            hats = [self._hat_matrix(rows, int(penalty)).astype(y.dtype) for rows in self.segments]
            columns = np.hstack([*hats, nuisance])
            edges = np.cumsum([0, *(hat.shape[1] for hat in hats)]).tolist()
            for chunk in chunks(len(members), self._n_targets(columns.shape[1], y)):
                targets, part = members[chunk], y[:, members[chunk]]
                train = PermutedProducts(columns, self.train, part, self.permutations)
                heldout = [PermutedHeldOut(rows, nuisance, part, self.permutations) for rows in self.segments]
                for nulls in chunks(self.permutations.n_nulls, batch_size(columns.shape[1], part)):
                    products = train.of_nulls(nulls)
                    coef = self._nuisance_coefficients(products[:, edges[-1] :])
                    for segment, responses in enumerate(heldout):
                        predicted = products[:, edges[segment] : edges[segment + 1]]
                        yield (
                            targets,
                            nulls,
                            segment,
                            self._correlate_rows(self.segments[segment], responses, predicted, nulls, coef),
                        )

    def _hat_matrix(self, rows: np.ndarray, penalty: int) -> np.ndarray:
        """Map training responses to predictions of some rows around their mean, in the basis of `RowPermutations.to_basis`."""
        basis = self.plan.bases[:, self.training_set.basis].astype(np.float64)
        centred = np.zeros_like(basis)
        centred[rows] = basis[rows] - basis[rows].mean(axis=0)
        permutations, run_rows = self.permutations.select_runs(rows)
        # parts of runs are scored on their own rows
        whole_runs = len(run_rows) == len(rows)
        heldout = permutations.to_basis(centred[run_rows]) if whole_runs else centred[rows]
        hat = np.zeros((len(basis), len(heldout)))
        hat[self.train] = basis[self.train] @ (heldout * self.training_set.shrinkage[penalty]).T
        return hat

    def _correlate_rows(
        self,
        rows: np.ndarray,
        responses: PermutedHeldOut,
        predicted: np.ndarray,
        nulls: slice,
        coef: np.ndarray,
    ) -> np.ndarray:
        cov, var, cross, squares = responses.moments(predicted, nulls)
        _, spread = self._regress_out(rows, cross, squares, coef)
        return _correlation(cov - _dots(responses.nuisance.T @ predicted, coef), var, spread)

    def _n_targets(self, n_columns: int, y: np.ndarray) -> int:
        """Return how many targets to handle at a time."""
        if self.permutations.kind == "shift":
            size = TABLE_BYTES // (y.itemsize * n_columns * self.permutations.n_rows)
            return max(MIN_TARGETS, min(MAX_TARGETS, size))
        return MAX_TARGETS


def batch_size(n_columns: int, y: np.ndarray) -> int:
    """Return how many nulls to handle at a time."""
    return int(np.clip(CACHE_BYTES // (y.itemsize * n_columns * max(1, y.shape[1])), 1, 64))


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("gij,gij->gj", a, b))


def _correlation(cov: np.ndarray, var: np.ndarray, spread: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(cov / np.sqrt(var * np.maximum(spread, 0.0)))


class PermutedProducts:
    """Products of columns with permuted responses over some rows, for every null; of shifts, sums of a table of all shifts.

    Parameters
    ----------
    columns : (n_rows, m)
    rows : the rows to sum over
    y : (n_rows, n)
    permutations : the nulls
    """

    def __init__(
        self, columns: np.ndarray, rows: np.ndarray, y: np.ndarray, permutations: RowPermutations
    ) -> None:
        self.permutations, run_rows = permutations.select_runs(rows)
        self.n_columns = columns.shape[1]
        inside = np.zeros((len(y), 1), dtype=y.dtype)
        inside[rows] = 1
        masked, y = (columns * inside)[run_rows], y[run_rows]
        self.table: np.ndarray | None = None
        shifts = self.permutations.unique_shifts()
        if shifts and 2 * sum(map(len, shifts)) <= permutations.n_nulls * len(shifts):
            self.table = self._tabulate(masked, y, shifts)
        else:
            self.columns, self.y = self.permutations.to_basis(masked), self.permutations.to_basis(y)

    def _tabulate(self, columns: np.ndarray, y: np.ndarray, shifts: Sequence[np.ndarray]) -> np.ndarray:
        """Multiply at the shifts that occur, run after run: (n_shifts, m · n)."""
        table = np.empty((sum(map(len, shifts)), self.n_columns, y.shape[1]), dtype=y.dtype)
        line = 0
        for run, run_shifts in zip(self.permutations.runs, shifts, strict=True):
            transposed, n = np.ascontiguousarray(columns[run].T), run.stop - run.start
            twice = np.concatenate([y[run], y[run]])
            for s in run_shifts.tolist():  # shifted responses are a slice of the responses written twice
                np.matmul(transposed, twice[s : s + n], out=table[line])
                line += 1
        return table.reshape(len(table), -1)

    def of_nulls(self, nulls: slice) -> np.ndarray:
        """Return the products of some nulls: (n_batch, m, n)."""
        if self.table is not None:
            total = self.permutations.selection(nulls, self.table.dtype) @ self.table
            return np.asarray(total.reshape(len(total), self.n_columns, -1))
        numbers = range(nulls.start, nulls.stop)
        if self.n_columns > self.y.shape[1]:  # the narrower side is permuted
            permuted = [self.permutations.permute_responses(self.y, b) for b in numbers]
            return np.stack([self.columns.T @ y for y in permuted])
        columns = [self.permutations.permute_columns(self.columns, b) for b in numbers]
        product = np.hstack(columns).T @ self.y
        return np.asarray(product.reshape(len(columns), self.n_columns, -1))


class PermutedSquares:
    """Σ y² of permuted responses over some rows: constant where the rows are whole runs."""

    def __init__(self, rows: np.ndarray, y: np.ndarray, permutations: RowPermutations) -> None:
        self.products: PermutedProducts | None = None
        self.total = np.square(y[rows]).sum(axis=0)
        if not permutations.has_whole_runs(rows):
            ones = np.ones((len(y), 1), dtype=y.dtype)
            self.products = PermutedProducts(ones, rows, np.square(y), permutations)

    def of_nulls(self, nulls: slice) -> np.ndarray:
        """Return the sums of some nulls: (n_batch, n)."""
        if self.products is not None:
            return self.products.of_nulls(nulls)[:, 0]
        return np.broadcast_to(self.total, (nulls.stop - nulls.start, len(self.total)))


class PermutedHeldOut:
    """Permuted responses of held-out rows, to be correlated with predictions of these rows."""

    def __init__(
        self, rows: np.ndarray, nuisance: np.ndarray, y: np.ndarray, permutations: RowPermutations
    ) -> None:
        self.cross = PermutedProducts(nuisance, rows, y, permutations)
        self.squares = PermutedSquares(rows, y, permutations)
        self.permutations, run_rows = permutations.select_runs(rows)
        self.whole_runs = len(run_rows) == len(rows)
        self.positions = np.searchsorted(run_rows, rows)
        self.y = self.permutations.to_basis(y[run_rows])
        self.nuisance = self.permutations.to_basis(nuisance[run_rows]) if self.whole_runs else nuisance[rows]

    def moments(
        self, predicted: np.ndarray, nulls: slice
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return, for each null, Σ of predictions times responses, Σ of squared predictions, [1, C]ᵀy and Σ y²."""
        cov, var = (np.empty((len(predicted), predicted.shape[2]), dtype=predicted.dtype) for _ in range(2))
        for i, b in enumerate(range(nulls.start, nulls.stop)):
            y = self.permutations.permute_responses(self.y, b)
            cov[i] = np.einsum("ij,ij->j", predicted[i], y if self.whole_runs else y[self.positions])
            var[i] = np.einsum("ij,ij->j", predicted[i], predicted[i])
        return cov, var, self.cross.of_nulls(nulls), self.squares.of_nulls(nulls)
