"""Plans: from features prepared in training rows to what the fitting engine needs of them, by the cheapest regime.

A plan knows nothing of responses. Axes and lengths are float64 until they are put side by side in the precision of the
responses; see `langcortex.ridge.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from langcortex.errors import FitError
from langcortex.ridge.decomposition import PrincipalComponents, least_squares_operator, scaled_penalties
from langcortex.ridge.plan import FEW, NestedFold, Plan, Rows, TrainingSet, ValidationSet, row_set_key
from langcortex.ridge.powers import PairSums, divided_differences

MANY = 700  # axes from which on what is needed of all pairs takes megabytes a held-out set
REGIMES = ("auto", "pairs", "axes", "kernel")

Prepare = Callable[[Rows], tuple[np.ndarray, np.ndarray]]
"""From training rows to the lengths of their axes, (p,), and the coordinates of all rows on them, (n_rows, p)."""


def make_plan(
    name: str,
    nests: Sequence[NestedFold],
    prepare: Prepare,
    confounds: np.ndarray,
    grid: np.ndarray,
    relative: bool,
    metric: str,
    nested_axes: bool = True,
    dtype: type = np.float32,
    regime: str = "auto",
) -> Plan:
    """Prepare a feature space for some outer folds.

    Parameters
    ----------
    nests : the outer folds
    prepare : scales features, takes confounds off and finds axes, from training rows
    confounds : (n_rows, c)
    grid, relative : penalties, see `langcortex.ridge.decomposition.scaled_penalties`
    metric : "r2" or "r", which chooses penalties
    nested_axes : find the axes anew in every inner fold; otherwise inner folds use those of the outer training rows
    regime : one of `REGIMES`. All give the same scores; "auto" takes the cheapest for each held-out set: "pairs" with
        several penalties, "axes" with few penalties or few held-out rows, "kernel" where there are nearly as many axes
        as training rows and inner folds would have to turn them
    """
    if regime not in REGIMES:
        raise FitError(f"No regime is called '{regime}'. There are: {', '.join(REGIMES)}.")
    c1 = np.column_stack([np.ones(len(confounds)), confounds])
    maker = _Planner(c1, grid, relative, metric, dtype, regime)
    inner: list[tuple[ValidationSet, ...]] = []
    outer: list[tuple[ValidationSet, ...]] = []
    for nest in nests:
        # where nothing is scored outside, and inner folds have axes of their own, the whole is not needed
        whole = maker.own(nest.train, prepare) if nest.pieces or not nested_axes else -1
        leaving = [not nested_axes and maker.leaves_out(*pair, whole) for pair in nest.inner]
        left = maker.without(
            [p for p, yes in zip(nest.inner, leaving, strict=True) if yes], whole, metric == "r"
        )
        group = []
        for (train, held), yes in zip(nest.inner, leaving, strict=True):
            if yes:
                group.append(next(left))
                continue
            number = maker.own(train, prepare) if nested_axes else maker.within(train, whole)
            group.append(maker.against(number, held, metric == "r", True))
        inner.append(tuple(group))
        outer.append(tuple(maker.against(whole, piece, True, False) for piece in nest.pieces))
    return Plan(name, maker.stacked(), tuple(maker.tasks), tuple(inner), tuple(outer))


class _Planner:
    """Collects the bases and ridges of one feature space."""

    def __init__(
        self, c1: np.ndarray, grid: np.ndarray, relative: bool, metric: str, dtype: type, regime: str
    ) -> None:
        self.c1, self.grid, self.relative, self.metric, self.dtype = c1, grid, relative, metric, dtype
        self.regime = regime
        self.units: list[np.ndarray] = []  # unit axes of all rows, float64, a basis
        self.width = 0
        self.tasks: list[TrainingSet] = []
        self.coordinates: list[np.ndarray] = []  # of a task: (n_rows, p) unit axes, float64
        self.number: dict[bytes, int] = {}
        self.lengths: list[np.ndarray] = []
        self.alphas: list[np.ndarray] = []

    def _rows(self, number: int) -> Rows:
        """Give the training rows of a ridge."""
        return np.frombuffer(self.tasks[number].train, dtype=np.int64)

    def _alphas(self, s: np.ndarray) -> np.ndarray:
        """Give the penalties for axes of some lengths."""
        none = np.zeros((0, len(s)))
        return scaled_penalties(PrincipalComponents(none, s, none), self.grid, self.relative)

    def own(self, train: Rows, prepare: Prepare) -> int:
        """Add a ridge on the axes of its own training rows."""
        key = row_set_key(train)
        if key in self.number:
            return self.number[key]
        s, projected = prepare(train)
        unit = projected / s if len(s) else np.zeros((len(self.c1), 0))
        basis = slice(self.width, self.width + unit.shape[1])
        self.units.append(unit)
        self.width += unit.shape[1]
        self.number[key] = self._enter(key, basis, None, s, unit)
        return self.number[key]

    def within(self, train: Rows, whole: int) -> int:
        """Add a ridge that uses the axes of a larger training set, with mean and confounds learnt anew."""
        unit, s = self.coordinates[whole], self.lengths[whole]
        both = np.hstack([self.c1, unit])[train]
        gram = both.T @ both
        c = self.c1.shape[1]
        gamma = linalg.pinvh(gram[:c, :c]) @ gram[:c, c:]
        inside = (gram[c:, c:] - gram[c:, :c] @ gamma) * np.outer(s, s)
        value, vector = linalg.eigh(inside) if len(s) else (np.zeros(0), np.zeros((0, 0)))
        keep = value > 1e-12 * max(value.max(initial=0.0), np.finfo(float).tiny)
        mu, om = value[keep][::-1], vector[:, keep][:, ::-1]
        turn = np.vstack([-gamma, np.eye(len(s))]) @ (s[:, None] * om / np.sqrt(mu))
        task, coordinates = self.tasks[whole], np.hstack([self.c1, unit]) @ turn
        return self._enter(row_set_key(train), task.basis, turn, np.sqrt(mu), coordinates, task.train)

    def _enter(
        self,
        train: bytes,
        basis: slice,
        turn: np.ndarray | None,
        s: np.ndarray,
        coordinates: np.ndarray,
        whole: bytes | None = None,
    ) -> int:
        alphas = self._alphas(s)
        self.tasks.append(TrainingSet(train, basis, turn, s**2 / (s**2 + alphas[:, None]), whole))
        self.coordinates.append(coordinates)
        self.lengths.append(s)
        self.alphas.append(alphas)
        return len(self.tasks) - 1

    def against(self, number: int, held: Rows, centred: bool, every: bool) -> ValidationSet:
        """Hold a ridge against some rows, of which every penalty's score is wanted or one's alone."""
        h = self.coordinates[number][held]
        mean = h.mean(axis=0)
        turned = h - mean if centred else h
        p = h.shape[1]
        triangle = linalg.qr(turned, mode="r", check_finite=False)[0][: min(h.shape)] if p else turned[:0]
        pairs, direct = self._by_cost(number, h, turned, triangle) if every and p else (None, None)
        off = np.column_stack([h.T @ self.c1[held], mean])
        return ValidationSet(
            number,
            row_set_key(held),
            mean,
            off.astype(self.dtype),
            triangle.astype(self.dtype),
            centred,
            pairs,
            direct,
        )

    def _by_cost(
        self, number: int, h: np.ndarray, turned: np.ndarray, triangle: np.ndarray
    ) -> tuple[PairSums | None, np.ndarray | None]:
        """Prepare the cheapest way to the scores of every penalty, or the one that is asked for."""
        task, (n, p) = self.tasks[number], h.shape
        regime = self._cheapest(n, p, len(self._rows(number)), task.turn is not None)
        if regime == "kernel":
            return None, self._direct(number, h)
        if regime == "axes":
            return None, None
        made = divided_differences(self.lengths[number], self.alphas[number], turned.T @ turned)
        return made if self.regime == "pairs" or p <= FEW or made.worthwhile else None, None

    def _cheapest(self, n: int, p: int, n_train: int, turned: bool) -> str:
        """Name the regime with the fewest operations a target; those in float64 count twice."""
        if self.regime != "auto":
            return self.regime
        n_alphas, rank = len(self.grid), min(n, p)
        axes, pairs = n_alphas * rank * (2 * p - rank), 4 * p * p + 8 * n_alphas * p
        if turned and 2 * n_alphas * n * n_train < min(axes, pairs) + 4 * p * p:
            return "kernel"
        return "pairs" if p <= FEW or (pairs < axes and p <= MANY) else "axes"

    def leaves_out(self, train: Rows, held: Rows, whole: int) -> bool:
        """Whether axes that hold all of a larger training set give predictions of the rows that are left out of it."""
        rows = self._rows(whole)
        p, c = len(self.lengths[whole]), self.c1.shape[1]
        complete = 0 < p == len(rows) - c and np.linalg.matrix_rank(self.c1[train]) == c < len(train)
        inside = bool(np.isin(held, rows).all() and not np.isin(held, train).any())
        return complete and inside and self._cheapest(len(held), len(train) - c, len(train), True) == "kernel"

    def without(
        self, pairs: Sequence[tuple[Rows, Rows]], whole: int, centred: bool
    ) -> Iterator[ValidationSet]:
        """Add ridges on some of the rows of a larger set whose axes hold all of it, from these axes alone.

        With E = diag(1 / (s² + α)) and U the axes, rows L that are left out are predicted by the others with
        −(U_L E U_Lᵀ)⁻¹ U_L E Uᵀ, mean and confounds included: what a block left out of a linear fit is, exactly.
        One U E Uᵀ serves all the folds that share a penalty.
        """
        if not pairs:
            return
        rows = self._rows(whole)
        unit, power = self.coordinates[whole][rows], self.lengths[whole] ** 2
        folds = [_ClosedForm.of(self.c1, rows, *pair) for pair in pairs]
        alphas = [self._alphas(np.array([np.sqrt(fold.size(unit, power))])) for fold in folds]
        parts: list[list[np.ndarray]] = [[] for _ in folds]
        for level in zip(*alphas, strict=True):
            shared = None
            if len(set(level)) == 1 < len(level):
                root = unit / np.sqrt(power + level[0])
                shared = root @ root.T
            for fold, alpha, part in zip(folds, level, parts, strict=True):
                out = unit[fold.out]
                block = shared[fold.out] if shared is not None else out / (power + alpha) @ unit.T
                part.append(fold.predicts(block).astype(self.dtype))
        larger = self.tasks[whole]
        none: np.ndarray = np.zeros((0, 0), self.dtype)
        for (train, held), own, part in zip(pairs, alphas, parts, strict=True):
            self.tasks.append(
                TrainingSet(row_set_key(train), larger.basis, None, np.ones((len(own), 1)), larger.train)
            )
            self.coordinates.append(np.zeros((0, 0)))
            self.lengths.append(np.zeros(0))
            self.alphas.append(own)
            yield ValidationSet(
                len(self.tasks) - 1,
                row_set_key(held),
                np.zeros(0),
                none,
                none,
                centred,
                None,
                np.concatenate(part),
            )

    def _direct(self, number: int, h: np.ndarray) -> np.ndarray:
        """Map training responses to the predictions of every penalty."""
        read: np.ndarray = self.coordinates[number][self._rows(number)].T.astype(self.dtype)
        return np.concatenate([(h * d).astype(self.dtype) @ read for d in self.tasks[number].shrink])

    def stacked(self) -> np.ndarray:
        """Put the bases side by side."""
        out: np.ndarray = np.empty((len(self.c1), self.width), self.dtype)
        np.concatenate([*self.units, np.empty((len(out), 0))], axis=1, out=out, casting="same_kind")
        return out


@dataclass(frozen=True)
class _ClosedForm:
    """Some rows left out of a larger training set.

    Attributes
    ----------
    out, train : positions in the larger set, of the rows left out and of the others
    held : positions among the rows left out, of those to predict
    own : (n_train, 1 + c) a column of ones, and the confounds
    taken : (n_held, n_train) from training responses to what mean and confounds predict of the held-out rows
    """

    out: Rows
    train: Rows
    held: Rows
    own: np.ndarray
    taken: np.ndarray

    @classmethod
    def of(cls, c1: np.ndarray, whole: Rows, train: Rows, held: Rows) -> _ClosedForm:
        out, own = np.setdiff1d(whole, train), c1[train]
        return cls(
            np.searchsorted(whole, out),
            np.searchsorted(whole, train),
            np.searchsorted(out, held),
            own,
            c1[held] @ least_squares_operator(own[:, 1:]),
        )

    def size(self, unit: np.ndarray, power: np.ndarray) -> float:
        """Give the mean power of an axis on the training rows, mean and confounds taken off."""
        basis, _ = np.linalg.qr(self.own)
        inside = unit[self.train]
        own: np.ndarray = np.square(inside).sum(axis=0) - np.square(basis.T @ inside).sum(axis=0)
        total = float((own * power).sum())
        return total / (len(self.train) - int(self.own.shape[1]))

    def predicts(self, block: np.ndarray) -> np.ndarray:
        """Map training responses to cleaned predictions, from U_L E Uᵀ: (n_held, n_train)."""
        root = linalg.cholesky(block[:, self.out], lower=True, overwrite_a=True, check_finite=False)
        inverse, _ = linalg.lapack.dpotri(root, lower=1, overwrite_c=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        out: np.ndarray = -(inverse[self.held] @ block[:, self.train])
        out -= self.taken
        return out
