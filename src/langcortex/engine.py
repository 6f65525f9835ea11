"""The fitting engine: ridge for every penalty, fold and target from cross-products of rows that are computed once.

Rows are cut into segments that every training and held-out set is a union of. With U the principal axes of
some training rows, scaled to unit length there (and C the confounds), all that is ever needed of the responses is

    [C, U]ᵀ Y   and   Σ Y²   over each segment,

because the prediction of held-out rows is U_new · diag(d) · UᵀY with d = s² / (s² + α), and its product with the
responses and its own power are

    cov = Σ d P Q,   var = ‖R diag(d) P‖²,   P = UᵀY (training),   Q = U_newᵀ Y (held out),   R = qr(U_new).

So no prediction is formed until a penalty is chosen. Axes are scaled to unit length, and their lengths kept in float64,
which is what makes small penalties safe in float32; sums of squares and confound coefficients are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import linalg

from langcortex.metrics import rounding
from langcortex.ridge import Axes, penalties

KERNEL = 0.6  # axes a training row from which on predictions are made from rows
FEW = 32  # axes up to which powers are sums of products of pairs
CHUNKS = ((FEW, 2048), (128, 1024), (512, 512))  # targets at once by axes: temporaries stay in the cache
CHUNK = 256

Rows = np.ndarray
"""Row numbers, sorted."""


@dataclass(frozen=True)
class Nest:
    """An outer fold: rows to learn from, pieces to score, and how the training rows are split again."""

    train: Rows
    pieces: tuple[Rows, ...]
    inner: tuple[tuple[Rows, Rows], ...]


@dataclass(frozen=True, eq=False)
class Sets:
    """Every set of rows that some folds use, as unions of segments.

    Attributes
    ----------
    c1 : (n_rows, 1 + c) a column of ones, and the confounds
    segments : row numbers, no two share a row
    rows : key → the row numbers of a set
    parts : key → the segments it is made of
    """

    c1: np.ndarray
    segments: tuple[Rows, ...]
    rows: Mapping[bytes, Rows]
    parts: Mapping[bytes, tuple[int, ...]]
    _learnt: dict[bytes, np.ndarray] = field(default_factory=dict)
    _gram: dict[bytes, np.ndarray] = field(default_factory=dict)

    def learnt(self, train: bytes) -> np.ndarray:
        """Give the matrix that turns [1, C]ᵀy over training rows into coefficients: (1 + c, 1 + c)."""
        if train not in self._learnt:
            c1 = self.c1[self.rows[train]]
            centre = c1[:, 1:].mean(axis=0)
            around = c1[:, 1:] - centre
            inverse = linalg.pinvh(around.T @ around) if len(centre) else np.zeros((0, 0))
            slopes = inverse @ np.column_stack([-centre, np.eye(len(centre))])
            first = np.concatenate([[1.0 / len(c1)], np.zeros(len(centre))]) - centre @ slopes
            self._learnt[train] = np.vstack([first, slopes])
        return self._learnt[train]

    def gram(self, held: bytes) -> np.ndarray:
        """Give [1, C]ᵀ[1, C] over a set."""
        if held not in self._gram:
            c1 = self.c1[self.rows[held]]
            self._gram[held] = c1.T @ c1
        return self._gram[held]


def cut(nests: Sequence[Nest], confounds: np.ndarray) -> Sets:
    """Cut rows into the fewest segments that every set of the folds is a union of.

    Parameters
    ----------
    confounds : (n_rows, c)
    """
    n_rows = len(confounds)
    found: dict[bytes, Rows] = {}
    for nest in nests:
        for rows in (nest.train, *nest.pieces, *(r for pair in nest.inner for r in pair)):
            found.setdefault(key_of(rows), rows)
    member = np.zeros((n_rows, len(found)), dtype=bool)
    for i, rows in enumerate(found.values()):
        member[rows, i] = True
    _, which = np.unique(member, axis=0, return_inverse=True)
    which = np.where(member.any(axis=1), which.ravel(), -1)
    segments = tuple(np.flatnonzero(which == k) for k in np.unique(which[which >= 0]))
    segments = tuple(sorted(segments, key=lambda rows: int(rows[0])))
    parts = {
        key: tuple(s for s, rows in enumerate(segments) if member[rows[0], i]) for i, key in enumerate(found)
    }
    return Sets(np.column_stack([np.ones(n_rows), confounds]), segments, found, parts)


def key_of(rows: Rows) -> bytes:
    """Name a set of rows."""
    return np.ascontiguousarray(rows, dtype=np.int64).tobytes()


@dataclass(frozen=True, eq=False)
class Against:
    """What one ridge says about one held-out set, made ready for any responses.

    Attributes
    ----------
    task, held : the ridge's number and the held-out set's key
    mean : (p,) of the held-out rows' coordinates
    taken : (p, 2 + c) U_newᵀ [1, C], and the mean: what cleaning and centring take off Q
    triangle : (min(n_new, p), p) R of the coordinates; of the centred ones where `centred`
    centred : whether scores are correlations over the held-out rows
    pairs : (n_alphas, p (p + 1) / 2) coefficients of products of pairs; None with many axes
    direct : (n_alphas · n_new, n_train) from training responses to every penalty's predictions, where there are
        about as many axes as training rows, so that going by the axes saves nothing
    """

    task: int
    held: bytes
    mean: np.ndarray
    taken: np.ndarray
    triangle: np.ndarray
    centred: bool
    pairs: np.ndarray | None
    direct: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One ridge: training rows in the span of a basis.

    Attributes
    ----------
    train : key of the training set
    basis : which columns of the stacked bases it reads
    turn : (1 + c + p_basis, p) from [C, U] of the basis to axes of unit length on the training rows; None where
        they are the basis itself
    shrink : (n_alphas, p) d = s² / (s² + α), largest penalty first
    whole : the training set whose axes the basis holds, where it is a larger one
    """

    train: bytes
    basis: slice
    turn: np.ndarray | None
    shrink: np.ndarray
    whole: bytes | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """All that features, confounds and folds decide: shared by every subject, delay and null.

    Attributes
    ----------
    name : of the feature space
    bases : (n_rows, m) float32, the unit axes of every training set side by side
    tasks : the ridges
    inner : outer fold → (ridge, held-out set) of its inner folds
    outer : outer fold → one entry a held-out piece
    """

    name: str
    bases: np.ndarray
    tasks: tuple[Task, ...]
    inner: tuple[tuple[Against, ...], ...]
    outer: tuple[tuple[Against, ...], ...]

    @property
    def n_axes(self) -> int:
        """The most axes that any ridge has."""
        return max((t.shrink.shape[1] for t in self.tasks), default=0)

    @property
    def n_bytes(self) -> int:
        """How much memory it takes, about."""
        held = [one for group in (*self.inner, *self.outer) for one in group]
        arrays = [self.bases, *(one.triangle for one in held)]
        arrays += [a for one in held for a in (one.pairs, one.direct) if a is not None]
        arrays += [task.turn for task in self.tasks if task.turn is not None]
        return sum(a.nbytes for a in arrays)

    @property
    def regime(self) -> str:
        """How predictions are scored: by products of "pairs" of few axes, by "axes", or by "kernel"s of rows."""
        if any(one.direct is not None for group in self.inner for one in group):
            return "kernel"
        return "pairs" if self.n_axes <= FEW else "axes"


Prepare = Callable[[Rows], tuple[np.ndarray, np.ndarray]]
"""From training rows to the lengths of their axes, (p,), and the coordinates of all rows on them, (n_rows, p)."""


def make_plan(
    name: str,
    nests: Sequence[Nest],
    prepare: Prepare,
    confounds: np.ndarray,
    grid: np.ndarray,
    relative: bool,
    metric: str,
    nested_axes: bool = True,
    dtype: type = np.float32,
) -> Plan:
    """Prepare a feature space for some outer folds.

    Parameters
    ----------
    nests : the outer folds
    prepare : scales features, takes confounds off and finds axes, from training rows
    confounds : (n_rows, c)
    grid, relative : penalties, see `langcortex.ridge.penalties`
    metric : "r2" or "r", which chooses penalties
    nested_axes : find the axes anew in every inner fold; otherwise inner folds use those of the outer training rows
    """
    c1 = np.column_stack([np.ones(len(confounds)), confounds])
    maker = _Maker(c1, grid, relative, metric, dtype)
    inner: list[tuple[Against, ...]] = []
    outer: list[tuple[Against, ...]] = []
    for nest in nests:
        # where nothing is scored outside, and inner folds have axes of their own, the whole is not needed
        whole = maker.own(nest.train, prepare) if nest.pieces or not nested_axes else -1
        numbers = [
            maker.own(train, prepare) if nested_axes else maker.within(train, whole)
            for train, _ in nest.inner
        ]
        held = zip(numbers, nest.inner, strict=True)
        inner.append(tuple(maker.against(number, rows, metric == "r") for number, (_, rows) in held))
        outer.append(tuple(maker.against(whole, piece, True) for piece in nest.pieces))
    return Plan(name, maker.stacked(), tuple(maker.tasks), tuple(inner), tuple(outer))


class _Maker:
    """Collects the bases and ridges of one feature space."""

    def __init__(self, c1: np.ndarray, grid: np.ndarray, relative: bool, metric: str, dtype: type) -> None:
        self.c1, self.grid, self.relative, self.metric, self.dtype = c1, grid, relative, metric, dtype
        self.units: list[np.ndarray] = []  # unit axes of all rows, float64, a basis
        self.width = 0
        self.tasks: list[Task] = []
        self.coordinates: list[np.ndarray] = []  # of a task: (n_rows, p) unit axes, float64
        self.number: dict[bytes, int] = {}
        self.lengths: list[np.ndarray] = []

    def own(self, train: Rows, prepare: Prepare) -> int:
        """Add a ridge on the axes of its own training rows."""
        key = key_of(train)
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
        return self._enter(key_of(train), task.basis, turn, np.sqrt(mu), coordinates, task.train)

    def _enter(
        self,
        train: bytes,
        basis: slice,
        turn: np.ndarray | None,
        s: np.ndarray,
        coordinates: np.ndarray,
        whole: bytes | None = None,
    ) -> int:
        alphas = penalties(Axes(np.zeros((0, len(s))), s, np.zeros((0, len(s)))), self.grid, self.relative)
        self.tasks.append(Task(train, basis, turn, s**2 / (s**2 + alphas[:, None]), whole))
        self.coordinates.append(coordinates)
        self.lengths.append(s)
        return len(self.tasks) - 1

    def against(self, number: int, held: Rows, centred: bool) -> Against:
        """Hold a ridge against some rows."""
        h = self.coordinates[number][held]
        mean = h.mean(axis=0)
        turned = h - mean if centred else h
        p = h.shape[1]
        triangle = linalg.qr(turned, mode="r", check_finite=False)[0][: min(h.shape)] if p else turned[:0]
        pairs = None
        if 0 < p <= FEW:
            power = triangle.T @ triangle
            i, j = np.triu_indices(p)
            d = self.tasks[number].shrink
            pairs = (d[:, i] * d[:, j] * (power[i, j] * np.where(i == j, 1.0, 2.0))).astype(self.dtype)
        off = np.column_stack([h.T @ self.c1[held], mean])
        return Against(
            number,
            key_of(held),
            mean,
            off.astype(self.dtype),
            triangle.astype(self.dtype),
            centred,
            pairs,
            self._direct(number, h),
        )

    def _direct(self, number: int, h: np.ndarray) -> np.ndarray | None:
        """Map training responses to predictions, where axes would have to be turned and are nearly as many as rows."""
        task, unit = self.tasks[number], self.coordinates[number]
        train = np.frombuffer(task.train, dtype=np.int64)
        if task.turn is None or h.shape[1] < KERNEL * len(train):
            return None
        read: np.ndarray = unit[train].T.astype(self.dtype)
        parts = [(h * d).astype(self.dtype) @ read for d in task.shrink]
        return np.concatenate(parts)

    def stacked(self) -> np.ndarray:
        """Put the bases side by side."""
        return (
            np.hstack(self.units).astype(self.dtype)
            if self.units
            else np.zeros((len(self.c1), 0), self.dtype)
        )


@dataclass(frozen=True, eq=False)
class Sums:
    """What some responses say over the segments: all that depends on them and not on features.

    Attributes
    ----------
    y : (n_rows, n) the responses, centred
    on : (n_segments, 1 + c, n) float64, [1, C]ᵀy
    power : (n_segments, n) float64, Σ y²
    flat : (n_segments, n) bool, constant but for rounding
    """

    sets: Sets
    y: np.ndarray
    on: np.ndarray
    power: np.ndarray
    flat: np.ndarray

    def within(self, key: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Give [1, C]ᵀy and Σ y² over one set."""
        parts = self.sets.parts[key]
        on, power = self.on[parts[0]].copy(), self.power[parts[0]].copy()
        for s in parts[1:]:
            on += self.on[s]
            power += self.power[s]
        return on, power

    def constant(self, key: bytes) -> np.ndarray:
        """Say which responses are constant over one set: (n,) bool."""
        parts = list(self.sets.parts[key])
        flat = np.asarray(self.flat[parts].all(axis=0))
        if flat.any() and len(parts) > 1:  # constant parts may lie apart
            n = np.array([len(self.sets.segments[s]) for s in parts])[:, None]
            mean = self.on[parts, 0] / n
            flat = flat & (np.ptp(mean, axis=0) <= 8 * np.finfo(self.y.dtype).eps * np.abs(mean).max(axis=0))
        return flat


def sum_up(y: np.ndarray, sets: Sets) -> Sums:
    """Sum responses over segments, once for every feature space.

    Parameters
    ----------
    y : (n_rows, n) centred over all rows, finite
    """
    reader = sets.c1.astype(y.dtype)
    parts = [taken(y, rows) for rows in sets.segments]
    on = np.stack(
        [reader[rows].T @ part for rows, part in zip(sets.segments, parts, strict=True)], dtype=np.float64
    )
    n = np.array([len(rows) for rows in sets.segments], dtype=np.float64)[:, None]
    power = np.stack([np.einsum("ij,ij->j", part, part) for part in parts], dtype=np.float64)
    flat = np.zeros(power.shape, dtype=bool)
    # a difference of large numbers says little: what is nearly constant is looked at again
    for s, t in np.argwhere(power - on[:, 0] ** 2 / n <= 1e-3 * power):
        column = parts[s][:, t].astype(np.float64)
        on[s, 0, t], mean = column.sum(), column.mean()
        around = np.square(column - mean).sum()
        power[s, t] = around + len(column) * mean**2
        flat[s, t] = around <= rounding(parts[s][:, [t]])[0]
    return Sums(sets, y, on, power, flat)


def taken(y: np.ndarray, rows: Rows) -> np.ndarray:
    """Take rows, without a copy where they stand together."""
    together = len(rows) == 0 or int(rows[-1]) - int(rows[0]) + 1 == len(rows)
    return y[int(rows[0]) : int(rows[-1]) + 1] if together and len(rows) else y[rows]


@dataclass(frozen=True, eq=False)
class _Cleaned:
    """Held-out responses without what the training rows say of mean and confounds.

    Attributes
    ----------
    taken : (2 + c, n) in the dtype of the responses: the coefficients taken off, and the sum of what is left
    total : the same dtype, Σ of squares of what is left around its own mean, and around 0
    """

    taken: np.ndarray
    mean: np.ndarray
    centred: np.ndarray
    power: np.ndarray
    flat: np.ndarray
    n: int


class Folded:
    """One chunk of responses, read through any number of plans."""

    def __init__(self, sums: Sums) -> None:
        self.sums, self.dtype = sums, sums.y.dtype
        self.coefs: dict[bytes, np.ndarray] = {}
        self.sets_on: dict[bytes, np.ndarray] = {}
        self.cleaned: dict[tuple[bytes, bytes], _Cleaned] = {}

    def coef(self, train: bytes) -> np.ndarray:
        """Give the coefficients of mean and confounds that some training rows teach: (1 + c, n) float64."""
        if train not in self.coefs:
            self.coefs[train] = self.sums.sets.learnt(train) @ self.sums.within(train)[0]
        return self.coefs[train]

    def on(self, key: bytes) -> np.ndarray:
        """Give [1, C]ᵀy over a set, in the dtype of the responses."""
        if key not in self.sets_on:
            self.sets_on[key] = self.sums.within(key)[0].astype(self.dtype)
        return self.sets_on[key]

    def clean(self, train: bytes, held: bytes) -> _Cleaned:
        """Sum held-out responses after what the training rows say is taken off."""
        key = (train, held)
        if key not in self.cleaned:
            coef, gram = self.coef(train), self.sums.sets.gram(held)
            on, power = self.sums.within(held)
            left = on - gram @ coef
            rest = power - (coef * (on + left)).sum(axis=0)
            n = int(gram[0, 0])
            # what is left of responses that the confounds explain is rounding error
            none = rest <= 1e3 * np.finfo(self.dtype).eps ** 2 * power
            flat = self.sums.constant(held) | none
            rest = np.maximum(rest, 0.0)
            mean = left[0] / n
            centred = np.maximum(rest - n * mean**2, 0.0)
            taken_off = np.vstack([coef, left[:1]]).astype(self.dtype)
            self.cleaned[key] = _Cleaned(taken_off, mean, centred, rest, flat, n)
        return self.cleaned[key]

    def read(self, plan: Plan) -> Reader:
        """Read the responses through the axes of a plan."""
        sets = self.sums.sets
        product = [taken(plan.bases, rows).T @ taken(self.sums.y, rows) for rows in sets.segments]
        return Reader(self, plan, product)


class Reader:
    """The products of one plan's axes with one chunk of responses."""

    def __init__(self, folded: Folded, plan: Plan, product: Sequence[np.ndarray]) -> None:
        self.folded, self.plan, self.product = folded, plan, product
        self.n = folded.sums.y.shape[1]
        self._last: tuple[int, np.ndarray] | None = None
        self._pairs: tuple[int, np.ndarray] | None = None
        self._whole: tuple[tuple[int, bytes], np.ndarray] | None = None

    def weight(self, number: int) -> np.ndarray:
        """P, the training responses on the axes of a ridge: (p, n)."""
        if self._last is None or self._last[0] != number:
            task = self.plan.tasks[number]
            self._last = (number, self._on(task, task.train))
        return self._last[1]

    def held(self, one: Against) -> np.ndarray:
        """Q, the cleaned held-out responses on the axes: (p, n); centred where `one` is."""
        task = self.plan.tasks[one.task]
        clean = self.folded.clean(task.train, one.held)
        q = self._on(task, one.held)
        off = one.taken if one.centred else one.taken[:, :-1]
        q -= off @ (clean.taken if one.centred else clean.taken[:-1])
        return q

    def _on(self, task: Task, key: bytes) -> np.ndarray:
        total = self._raw(task, key)
        if task.turn is None:
            return total
        c = self.folded.sums.on.shape[1]
        turned = task.turn[c:].T.astype(total.dtype) @ total
        turned += task.turn[:c].T.astype(total.dtype) @ self.folded.on(key)
        return np.asarray(turned)

    def _raw(self, task: Task, key: bytes) -> np.ndarray:
        """Sum a basis's products over a set; what a larger set has, less the rest, where that is less work."""
        sets = self.folded.sums.sets
        parts, whole = sets.parts[key], task.whole
        if whole is not None and key == task.train and key != whole:
            rest = [s for s in sets.parts[whole] if s not in parts]
            if len(rest) < len(parts):
                name = (task.basis.start, whole)
                if self._whole is None or self._whole[0] != name:
                    self._whole = (name, self._sum(task, sets.parts[whole]))
                total = self._whole[1] - self.product[rest[0]][task.basis]
                for s in rest[1:]:
                    total -= self.product[s][task.basis]
                return np.asarray(total)
        return self._sum(task, parts)

    def _sum(self, task: Task, parts: Sequence[int]) -> np.ndarray:
        if len(parts) == 1:
            return self.product[parts[0]][task.basis].copy()
        total = self.product[parts[0]][task.basis] + self.product[parts[1]][task.basis]
        for s in parts[2:]:
            total += self.product[s][task.basis]
        return np.asarray(total)

    def scores(self, one: Against) -> np.ndarray:
        """Score every penalty on one held-out set: (n_alphas, n); NaN where the set is constant."""
        task = self.plan.tasks[one.task]
        clean = self.folded.clean(task.train, one.held)
        dtype = self.folded.dtype
        if task.shrink.shape[1] == 0:
            return np.full((len(task.shrink), self.n), np.nan, dtype=dtype)
        if one.direct is not None:
            return self._scores_of_rows(one, one.direct, clean)
        p = self.weight(one.task)
        q = self.held(one)
        q *= p
        out: np.ndarray = task.shrink.astype(dtype) @ q
        var = self._powers(one, p)
        return self._finish(one, clean, out, var)

    def _scores_of_rows(self, one: Against, direct: np.ndarray, clean: _Cleaned) -> np.ndarray:
        """Score the predictions of every penalty, row by row."""
        sums, rows = self.folded.sums, self.folded.sums.sets.rows
        train, held = rows[self.plan.tasks[one.task].train], rows[one.held]
        left = taken(sums.y, held) - sums.sets.c1[held].astype(self.folded.dtype) @ clean.taken[:-1]
        if one.centred:
            left -= left.mean(axis=0)
        predicted = (direct @ taken(sums.y, train)).reshape(-1, len(held), self.n)
        cov = np.einsum("aij,ij->aj", predicted, left)
        var = np.einsum("aij,aij->aj", predicted, predicted)
        if one.centred:
            var -= len(held) * predicted.mean(axis=1) ** 2
        return self._finish(one, clean, cov, var)

    def _finish(self, one: Against, clean: _Cleaned, out: np.ndarray, var: np.ndarray) -> np.ndarray:
        """Turn products with the responses, and powers, into scores, in place."""
        dtype = self.folded.dtype
        with np.errstate(invalid="ignore", divide="ignore"):
            if one.centred:
                var *= clean.centred.astype(dtype)
                np.sqrt(var, out=var)
                out /= var
                out[var <= np.finfo(dtype).tiny] = np.nan
            else:
                out *= 2
                out -= var
                out /= clean.power.astype(dtype)
        if clean.flat.any():
            out[:, clean.flat] = np.nan
        return out

    def _powers(self, one: Against, p: np.ndarray) -> np.ndarray:
        if one.pairs is not None:
            if self._pairs is None or self._pairs[0] != one.task:
                self._pairs = (one.task, _products(p))
            powers: np.ndarray = one.pairs @ self._pairs[1]
            return powers
        shrink = self.plan.tasks[one.task].shrink.astype(p.dtype)
        out = np.zeros((len(shrink), p.shape[1]), dtype=p.dtype)
        step = max(16, -(-len(one.triangle) // 4))
        for first in range(0, len(one.triangle), step):
            # R is a triangle: its later rows leave the first axes out
            rows = one.triangle[first : first + step, first:]
            rotated = (rows * shrink[:, None, first:]).reshape(-1, rows.shape[1]) @ p[first:]
            rotated = rotated.reshape(len(shrink), len(rows), -1)
            out += np.einsum("aij,aij->aj", rotated, rotated)
        return out

    def choose(self, k: int) -> np.ndarray:
        """Average the scores of every penalty over the inner folds of outer fold k: (n_alphas, n)."""
        total: np.ndarray | None = None
        count = np.zeros(self.n)
        for one in self.plan.inner[k]:
            part = self.scores(one)
            known = np.isfinite(part[-1])
            if not known.all():
                part[~np.isfinite(part)] = 0.0
            if total is None:
                total = part
            else:
                total += part
            count += known
        if total is None:
            return np.zeros((1, self.n), dtype=self.folded.dtype)
        total /= np.where(count > 0, count, np.nan).astype(total.dtype)
        return total

    def test(self, k: int, best: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Score the chosen penalty on the pieces of outer fold k.

        Parameters
        ----------
        best : (n,) position of each target's penalty

        Returns
        -------
        per piece: r, SSE and SST, (n,) float64
        """
        out = []
        for one in self.plan.outer[k]:
            task = self.plan.tasks[one.task]
            clean = self.folded.clean(task.train, one.held)
            w = self.weighted(one.task, best)
            q = self.held(one)
            cov = np.einsum("ij,ij->j", w, q).astype(np.float64)
            rotated = one.triangle @ w
            var = np.einsum("ij,ij->j", rotated, rotated).astype(np.float64)
            offset = one.mean @ w
            with np.errstate(invalid="ignore", divide="ignore"):
                r = np.where(
                    var > np.finfo(self.folded.dtype).tiny, cov / np.sqrt(var * clean.centred), np.nan
                )
            if clean.n < 3:
                r = np.full(len(r), np.nan)
            error = clean.centred - 2 * cov + var + clean.n * (clean.mean - offset) ** 2
            found = (np.clip(r, -1.0, 1.0), np.maximum(error, 0.0), clean.power)
            r, sse, sst = (np.where(clean.flat, np.nan, value) for value in found)
            out.append((r, sse, sst))
        return out

    def predict(self, k: int, best: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Give held-out responses, cleaned by what the training rows say, and their predictions: (n_held, n) each.

        Parameters
        ----------
        best : (n,) position of each target's penalty
        rows : the held-out rows of outer fold k
        """
        number = self.plan.outer[k][0].task
        task = self.plan.tasks[number]
        coef = self.folded.coef(task.train)
        observed = self.folded.sums.y[rows] - (self.folded.sums.sets.c1[rows] @ coef).astype(
            self.folded.dtype
        )
        predicted: np.ndarray = self.plan.bases[rows, task.basis] @ self.weighted(number, best)
        return observed, predicted

    def weighted(self, number: int, best: np.ndarray) -> np.ndarray:
        """P, shrunk by each target's penalty: (p, n)."""
        task = self.plan.tasks[number]
        w: np.ndarray = task.shrink.T.astype(self.folded.dtype)[:, best] * self.weight(number)
        return w


def _products(p: np.ndarray) -> np.ndarray:
    """Multiply every pair of rows: (p (p + 1) / 2, n), in the order of ``np.triu_indices``."""
    size = len(p)
    out = np.empty((size * (size + 1) // 2, p.shape[1]), dtype=p.dtype)
    first = 0
    for i in range(size):
        np.multiply(p[i], p[i:], out=out[first : first + size - i])
        first += size - i
    return out


def chunk_size(plans: Iterable[Plan]) -> int:
    """How many targets to handle at once."""
    most = max((plan.n_axes for plan in plans), default=0)
    return next((size for axes, size in CHUNKS if most <= axes), CHUNK)
