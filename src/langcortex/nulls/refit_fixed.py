"""A fold's ridge on moved responses with the penalties it has: what it is multiplied with moves, the responses stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from langcortex.arrays import chunks, pearson
from langcortex.nulls.permutations import RowPermutations
from langcortex.ridge.plan import Plan, TrainingSet

TABLE_BYTES = (
    2**24
)  # memory for the products of columns with the responses at every shift: it should fit a cache
FEWEST = 32  # targets at once, even if their table is larger
CACHE_BYTES = 2**20  # memory for the products of the nulls that are handled together
MOST = 1024  # targets at once


@dataclass(frozen=True, eq=False)
class FixedPenaltyRefit:
    """One outer fold's ridge, its penalties chosen, ready for moved responses.

    Attributes
    ----------
    plan : of this fold alone, its first outer fold
    c1 : (n_rows, 1 + c) ones and confounds
    train, pieces : the fold's rows
    moves : the nulls; where they are "phase", the pieces are whole runs
    """

    plan: Plan
    c1: np.ndarray
    train: np.ndarray
    pieces: tuple[np.ndarray, ...]
    moves: RowPermutations
    _reader: list[np.ndarray] = field(default_factory=list)

    @property
    def task(self) -> TrainingSet:
        """The ridge."""
        return self.plan.training_sets[self.plan.outer[0][0].training_set]

    def scores(self, y: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Refit and score every null.

        Parameters
        ----------
        y : (n_rows, n) responses, centred
        best : (n,) position of each target's penalty, the largest first

        Returns
        -------
        total : (n_nulls, n) float32 sum of r over the pieces
        count : (n,) over how many
        """
        total = np.zeros((self.moves.n_nulls, y.shape[1]), dtype=np.float32)
        known = [~np.isnan(pearson(y[rows], y[rows])) for rows in self.pieces]
        p = self.task.shrinkage.shape[1]
        count = np.sum(known, axis=0).astype(np.float32)
        if p == 0:
            return total, 0 * count
        # many axes cost more than the rows they predict; then predictions are read off the training responses
        by_rows = p > sum(len(rows) for rows in self.pieces)
        for part in self._rows(y, best) if by_rows else self._axes(y, best):
            targets, group, piece, r = part
            r[~np.isfinite(r)] = 0.0
            total[group, targets] += np.where(known[piece][targets], r, 0.0)
        return total, count

    def _learnt(self, on: np.ndarray) -> np.ndarray:
        """Turn [1, C]ᵀy over the training rows into coefficients."""
        if not self._reader:
            c1 = self.c1[self.train]
            self._reader.append(np.linalg.pinv(c1.T @ c1))
        return np.asarray(self._reader[0].astype(on.dtype) @ on)

    def _axes(self, y: np.ndarray, best: np.ndarray) -> Iterator[Scored]:
        """Score by the axes: P and Q of every null, and from them cov and var."""
        columns = np.hstack([self.plan.bases[:, self.task.basis], self.c1.astype(y.dtype)])
        size, p = self._size(columns.shape[1], y), self.task.shrinkage.shape[1]
        for targets in chunks(y.shape[1], size):
            part = y[:, targets]
            fitted = Products(columns, self.train, part, self.moves)
            held = [Products(columns, rows, part, self.moves) for rows in self.pieces]
            power = [Powers(rows, part, self.moves) for rows in self.pieces]
            shrink = self.task.shrinkage.T.astype(y.dtype)[:, best[targets]]
            for group in chunks(self.moves.n_nulls, at_once(columns.shape[1], part)):
                products = fitted.at(group)
                weight, coef = products[:, :p] * shrink, self._learnt(products[:, p:])
                for j, rows in enumerate(self.pieces):
                    q = held[j].at(group)
                    yield targets, group, j, self._score(j, rows, q, power[j].at(group), weight, coef)

    def _score(
        self, j: int, rows: np.ndarray, q: np.ndarray, power: np.ndarray, weight: np.ndarray, coef: np.ndarray
    ) -> np.ndarray:
        """Correlate predictions with held-out responses: (n_group, n)."""
        one, p = self.plan.outer[0][j], weight.shape[1]
        left, spread = self._cleaned(rows, q[:, p:], power, coef)
        # what cleaning and centring take off Q is taken off its product with the weights
        off = np.concatenate([coef, left[:, :1]], axis=1)
        rotated = one.triangle @ weight
        cov = _dots(weight, q[:, :p]) - _dots(one.adjustment.T @ weight, off)
        return _ratio(cov, _dots(rotated, rotated), spread)

    def _cleaned(
        self, rows: np.ndarray, on: np.ndarray, power: np.ndarray, coef: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take mean and confounds off held-out responses: what is left of [1, C]ᵀy, and the sum of squares around its mean."""
        c1 = self.c1[rows]
        left = on - (c1.T @ c1).astype(on.dtype) @ coef
        mean = left[:, 0] / len(rows)
        return left, power - _dots(coef, on + left) - len(rows) * mean**2

    def _rows(self, y: np.ndarray, best: np.ndarray) -> Iterator[Scored]:
        """Score by the held-out rows: their predictions are a product with the moved training responses."""
        c1 = self.c1.astype(y.dtype)
        for a in np.unique(best):
            own = np.flatnonzero(best == a)
            maps = [self._map(rows, int(a)).astype(y.dtype) for rows in self.pieces]
            columns = np.hstack([*maps, c1])
            for chunk in chunks(len(own), self._size(columns.shape[1], y)):
                targets, part = own[chunk], y[:, own[chunk]]
                fitted = Products(columns, self.train, part, self.moves)
                held = [PermutedHeldOut(rows, c1, part, self.moves) for rows in self.pieces]
                for group in chunks(self.moves.n_nulls, at_once(columns.shape[1], part)):
                    products, first = fitted.at(group), 0
                    coef = self._learnt(products[:, columns.shape[1] - c1.shape[1] :])
                    for j, rows in enumerate(self.pieces):
                        predicted = products[:, first : first + maps[j].shape[1]]
                        first += maps[j].shape[1]
                        yield targets, group, j, self._score_rows(rows, held[j], predicted, group, coef)

    def _map(self, rows: np.ndarray, a: int) -> np.ndarray:
        """Map training responses to predictions of some rows around their mean, written as `Moves.basis` writes them."""
        unit = self.plan.bases[:, self.task.basis].astype(np.float64)
        held = np.zeros_like(unit)
        held[rows] = unit[rows] - unit[rows].mean(axis=0)
        moves, taken = self.moves.only(rows)
        # pieces of a run are scored on their own rows
        written = moves.basis(held[taken]) if len(taken) == len(rows) else held[rows]
        out = np.zeros((len(unit), len(written)))
        out[self.train] = unit[self.train] @ (written * self.task.shrinkage[a]).T
        return out

    def _score_rows(
        self, rows: np.ndarray, held: PermutedHeldOut, predicted: np.ndarray, group: slice, coef: np.ndarray
    ) -> np.ndarray:
        cov, var, on, power = held.against(predicted, group)
        _, spread = self._cleaned(rows, on, power, coef)
        return _ratio(cov - _dots(held.c1.T @ predicted, coef), var, spread)

    def _size(self, width: int, y: np.ndarray) -> int:
        """How many targets at once."""
        if self.moves.kind == "shift":
            return max(FEWEST, min(MOST, TABLE_BYTES // (y.itemsize * width * self.moves.n_rows)))
        return MOST


def at_once(width: int, y: np.ndarray) -> int:
    """How many nulls at once."""
    return int(np.clip(CACHE_BYTES // (y.itemsize * width * max(1, y.shape[1])), 1, 64))


Scored = tuple[slice | np.ndarray, slice, int, np.ndarray]
"""Targets, nulls, piece, and their r: (n_group, n)."""


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("gij,gij->gj", a, b))


def _ratio(cov: np.ndarray, var: np.ndarray, spread: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(cov / np.sqrt(var * np.maximum(spread, 0.0)))


class Products:
    """Columns times moved responses over some rows, for every null: of shifts, sums of a table of all shifts.

    Parameters
    ----------
    columns : (n_rows, m)
    rows : the rows that count
    y : (n_rows, n)
    """

    def __init__(self, columns: np.ndarray, rows: np.ndarray, y: np.ndarray, moves: RowPermutations) -> None:
        self.moves, taken = moves.only(rows)
        self.width = columns.shape[1]
        inside = np.zeros((len(y), 1), dtype=y.dtype)
        inside[rows] = 1
        masked, y = (columns * inside)[taken], y[taken]
        self.table: np.ndarray | None = None
        used = self.moves.used()
        if used and 2 * sum(map(len, used)) <= moves.n_nulls * len(used):
            self.table = self._every(masked, y, used)
        else:
            self.columns, self.y = self.moves.basis(masked), self.moves.basis(y)

    def _every(self, columns: np.ndarray, y: np.ndarray, used: Sequence[np.ndarray]) -> np.ndarray:
        """Multiply at the shifts that are used, run after run: (n_shifts, m · n)."""
        table = np.empty((sum(map(len, used)), self.width, y.shape[1]), dtype=y.dtype)
        line = 0
        for part, some in zip(self.moves.parts, used, strict=True):
            one, n = np.ascontiguousarray(columns[part].T), part.stop - part.start
            twice = np.concatenate([y[part], y[part]])
            for s in some.tolist():  # turned responses are a stretch of the same responses written twice
                np.matmul(one, twice[s : s + n], out=table[line])
                line += 1
        return table.reshape(len(table), -1)

    def at(self, group: slice) -> np.ndarray:
        """Give the products of some nulls: (n_group, m, n)."""
        if self.table is not None:
            total = self.moves.pick(group, self.table.dtype) @ self.table
            return np.asarray(total.reshape(len(total), self.width, -1))
        numbers = range(group.start, group.stop)
        if self.width > self.y.shape[1]:  # what is narrower is moved
            return np.stack([self.columns.T @ self.moves.responses(self.y, b) for b in numbers])
        moved = [self.moves.columns(self.columns, b) for b in numbers]
        product = np.hstack(moved).T @ self.y
        return np.asarray(product.reshape(len(moved), self.width, -1))


class Powers:
    """Σ y² of moved responses over some rows: what it was, where the rows are whole runs."""

    def __init__(self, rows: np.ndarray, y: np.ndarray, moves: RowPermutations) -> None:
        self.products: Products | None = None
        self.total = np.square(y[rows]).sum(axis=0)
        if not moves.whole(rows):
            self.products = Products(np.ones((len(y), 1), dtype=y.dtype), rows, np.square(y), moves)

    def at(self, group: slice) -> np.ndarray:
        """Give the sums of some nulls: (n_group, n)."""
        if self.products is not None:
            return self.products.at(group)[:, 0]
        return np.broadcast_to(self.total, (group.stop - group.start, len(self.total)))


class PermutedHeldOut:
    """Moved responses of some rows, to be held against predictions of these rows."""

    def __init__(self, rows: np.ndarray, c1: np.ndarray, y: np.ndarray, moves: RowPermutations) -> None:
        self.on, self.power = Products(c1, rows, y, moves), Powers(rows, y, moves)
        self.moves, taken = moves.only(rows)
        self.whole = len(taken) == len(rows)
        self.at = np.searchsorted(taken, rows)
        self.y = self.moves.basis(y[taken])
        self.c1 = self.moves.basis(c1[taken]) if self.whole else c1[rows]

    def against(
        self, predicted: np.ndarray, group: slice
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Give Σ of predictions times responses, Σ of squared predictions, [1, C]ᵀy and Σ y², one row a null."""
        cov, var = (np.empty((len(predicted), predicted.shape[2]), dtype=predicted.dtype) for _ in range(2))
        for i, b in enumerate(range(group.start, group.stop)):
            y = self.moves.responses(self.y, b)
            cov[i] = np.einsum("ij,ij->j", predicted[i], y if self.whole else y[self.at])
            var[i] = np.einsum("ij,ij->j", predicted[i], predicted[i])
        return cov, var, self.on.at(group), self.power.at(group)
