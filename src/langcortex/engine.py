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

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import linalg

from langcortex.divided import Pairs, divide
from langcortex.errors import FitError
from langcortex.ridge import Axes, penalties

FEW = 32  # axes up to which everything is done at once, by compiled code where there is some
MANY = 700  # axes from which on what is needed of all pairs takes megabytes a held-out set
CHUNKS = ((FEW, 1920), (128, 2048), (512, 512))  # targets at once by axes: temporaries stay in the cache
CHUNK = 256
STRETCHES = 12  # stretches of neighbouring rows from which on rows are copied together
REGIMES = ("auto", "pairs", "axes", "kernel")

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
    member : (n_sets, n_segments) float64, 1 where a set has a segment
    """

    c1: np.ndarray
    segments: tuple[Rows, ...]
    rows: Mapping[bytes, Rows]
    parts: Mapping[bytes, tuple[int, ...]]
    member: np.ndarray
    _learnt: dict[bytes, np.ndarray] = field(default_factory=dict)
    _stretches: dict[tuple[int, ...], list[Rows]] = field(default_factory=dict)
    _gram: dict[bytes, np.ndarray] = field(default_factory=dict)

    @functools.cached_property
    def named(self) -> Mapping[tuple[int, ...], bytes]:
        """Which set is made of which segments."""
        return {parts: key for key, parts in self.parts.items()}

    def stretches(self, segments: tuple[int, ...]) -> list[Rows]:
        """Cut the rows of some segments into the fewest stretches of neighbours; many short ones stay together."""
        if segments not in self._stretches:
            rows = np.sort(np.concatenate([self.segments[s] for s in segments]))
            cuts = np.flatnonzero(np.diff(rows) != 1) + 1
            self._stretches[segments] = [rows] if len(cuts) > STRETCHES else np.split(rows, cuts)
        return self._stretches[segments]

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
    one_of = np.array([member[rows[0]] for rows in segments], dtype=np.float64).reshape(-1, len(found)).T
    return Sets(np.column_stack([np.ones(n_rows), confounds]), segments, found, parts, one_of)


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
    pairs : what gives the powers of all penalties at once; None where rotating the predictions of each is less work
    direct : (n_alphas · n_new, n_train) from training responses to every penalty's predictions, where there are
        about as many axes as training rows, so that going by the axes saves nothing
    """

    task: int
    held: bytes
    mean: np.ndarray
    taken: np.ndarray
    triangle: np.ndarray
    centred: bool
    pairs: Pairs | None
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
    _placed: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)

    def placed(self, y: Any, name: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """Keep an array where some responses are, in their library, dtype and device; made when first asked for."""
        key = (type(y), y.dtype, getattr(y, "device", None), *name)
        if key not in self._placed:
            self._placed[key] = make()
        return self._placed[key]

    def packed_for(self, sets: Sets, make: Callable[[], Any]) -> Any:
        """Keep the plan as compiled code reads it, for the segments it was last read over: every chunk has the same."""
        last, made = self._placed.get(("packed",), (None, None))
        if last is not sets:
            made = make()
            self._placed["packed",] = (sets, made)
        return made

    @property
    def n_axes(self) -> int:
        """The most axes that any ridge has."""
        return max((t.shrink.shape[1] for t in self.tasks), default=0)

    @functools.cached_property
    def shared(self) -> frozenset[int]:
        """The ridges that inner folds of several outer folds use."""
        users: dict[int, set[int]] = {}
        for k, group in enumerate(self.inner):
            for one in group:
                users.setdefault(one.task, set()).add(k)
        return frozenset(task for task, folds in users.items() if len(folds) > 1)

    def partition(self, whole: bytes, sets: Sets) -> tuple[bytes, ...]:
        """Name the held-out sets of inner folds that make up a training set between them; none where they do not."""
        name = ("parts", whole)
        if name not in self._placed:
            found = {
                one.held: None for group in self.inner for one in group if self.tasks[one.task].whole == whole
            }
            rows = np.concatenate([sets.rows[key] for key in found]) if len(found) > 1 else np.zeros(0)
            same = np.array_equal(np.sort(rows), sets.rows[whole])
            self._placed[name] = tuple(found) if same else ()
        parts: tuple[bytes, ...] = self._placed[name]
        return parts

    @functools.cached_property
    def packable(self) -> bool:
        """Whether every ridge has axes, no two of them alike, and every outer fold inner ones."""
        divided = all(one.pairs and not len(one.pairs.close) for group in self.inner for one in group)
        return divided and all(t.shrink.shape[1] for t in self.tasks) and all(self.inner)

    @property
    def n_bytes(self) -> int:
        """How much memory it takes, about."""
        held = [one for group in (*self.inner, *self.outer) for one in group]
        arrays = [self.bases, *(one.triangle for one in held)]
        arrays += [one.direct for one in held if one.direct is not None]
        arrays += [task.turn for task in self.tasks if task.turn is not None]
        return sum(a.nbytes for a in arrays) + sum(one.pairs.n_bytes for one in held if one.pairs)

    @property
    def regime(self) -> str:
        """How predictions are scored: by sums over "pairs" of axes, by "axes", or by "kernel"s of rows."""
        inner = [one for group in self.inner for one in group]
        if any(one.direct is not None for one in inner):
            return "kernel"
        return "pairs" if all(one.pairs is not None for one in inner) else "axes"


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
    regime: str = "auto",
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
    regime : one of `REGIMES`. All give the same scores; "auto" takes the cheapest for each held-out set: "pairs" with
        several penalties, "axes" with few penalties or few held-out rows, "kernel" where there are nearly as many axes
        as training rows and inner folds would have to turn them
    """
    if regime not in REGIMES:
        raise FitError(f"No regime is called '{regime}'. There are: {', '.join(REGIMES)}.")
    c1 = np.column_stack([np.ones(len(confounds)), confounds])
    maker = _Maker(c1, grid, relative, metric, dtype, regime)
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
        inner.append(tuple(maker.against(number, rows, metric == "r", True) for number, (_, rows) in held))
        outer.append(tuple(maker.against(whole, piece, True, False) for piece in nest.pieces))
    return Plan(name, maker.stacked(), tuple(maker.tasks), tuple(inner), tuple(outer))


class _Maker:
    """Collects the bases and ridges of one feature space."""

    def __init__(
        self, c1: np.ndarray, grid: np.ndarray, relative: bool, metric: str, dtype: type, regime: str
    ) -> None:
        self.c1, self.grid, self.relative, self.metric, self.dtype = c1, grid, relative, metric, dtype
        self.regime = regime
        self.units: list[np.ndarray] = []  # unit axes of all rows, float64, a basis
        self.width = 0
        self.tasks: list[Task] = []
        self.coordinates: list[np.ndarray] = []  # of a task: (n_rows, p) unit axes, float64
        self.number: dict[bytes, int] = {}
        self.lengths: list[np.ndarray] = []
        self.alphas: list[np.ndarray] = []

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
        self.alphas.append(alphas)
        return len(self.tasks) - 1

    def against(self, number: int, held: Rows, centred: bool, every: bool) -> Against:
        """Hold a ridge against some rows, of which every penalty's score is wanted or one's alone."""
        h = self.coordinates[number][held]
        mean = h.mean(axis=0)
        turned = h - mean if centred else h
        p = h.shape[1]
        triangle = linalg.qr(turned, mode="r", check_finite=False)[0][: min(h.shape)] if p else turned[:0]
        pairs, direct = self._by_cost(number, h, turned, triangle) if every and p else (None, None)
        off = np.column_stack([h.T @ self.c1[held], mean])
        return Against(
            number,
            key_of(held),
            mean,
            off.astype(self.dtype),
            triangle.astype(self.dtype),
            centred,
            pairs,
            direct,
        )

    def _by_cost(
        self, number: int, h: np.ndarray, turned: np.ndarray, triangle: np.ndarray
    ) -> tuple[Pairs | None, np.ndarray | None]:
        """Prepare the cheapest way to the scores of every penalty, or the one that is asked for."""
        task, (n, p), n_alphas = self.tasks[number], h.shape, len(self.grid)
        n_train = len(task.train) // np.dtype(np.int64).itemsize
        # operations a target; those in float64 count twice
        axes, pairs = n_alphas * len(triangle) * (2 * p - len(triangle)), 4 * p * p + 8 * n_alphas * p
        rows = 2 * n_alphas * n * n_train if task.turn is not None else np.inf
        if self.regime == "kernel" or (self.regime == "auto" and rows < min(axes, pairs) + 4 * p * p):
            return None, self._direct(number, h)
        if self.regime == "axes" or (self.regime == "auto" and p > FEW and (axes <= pairs or p > MANY)):
            return None, None
        made = divide(self.lengths[number], self.alphas[number], turned.T @ turned)
        return made if self.regime == "pairs" or p <= FEW or made.worthwhile else None, None

    def _direct(self, number: int, h: np.ndarray) -> np.ndarray:
        """Map training responses to the predictions of every penalty."""
        train = np.frombuffer(self.tasks[number].train, dtype=np.int64)
        read: np.ndarray = self.coordinates[number][train].T.astype(self.dtype)
        return np.concatenate([(h * d).astype(self.dtype) @ read for d in self.tasks[number].shrink])

    def stacked(self) -> np.ndarray:
        """Put the bases side by side."""
        return (
            np.hstack(self.units).astype(self.dtype)
            if self.units
            else np.zeros((len(self.c1), 0), self.dtype)
        )


def lacking(sets: Sets, task: Task) -> list[int] | None:
    """List the segments that a training set lacks of the one whose axes it uses, where they are the fewer."""
    if task.whole is None or task.train == task.whole:
        return None
    parts = sets.parts[task.train]
    rest = [s for s in sets.parts[task.whole] if s not in parts]
    return rest if 0 < len(rest) < len(parts) else None


def chunk_size(plans: Iterable[Plan]) -> int:
    """How many targets to handle at once."""
    most = max((plan.n_axes for plan in plans), default=0)
    return next((size for axes, size in CHUNKS if most <= axes), CHUNK)
