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

from langcortex.ridge.powers import PairSums

FEW = 32  # axes up to which everything is done at once, by compiled code where there is some
CHUNKS = ((FEW, 1920), (128, 2048), (512, 512))  # targets at once by axes: temporaries stay in the cache
CHUNK = 1024
STRETCHES = 12  # stretches of neighbouring rows from which on rows are copied together

Rows = np.ndarray
"""Row numbers, sorted."""


@dataclass(frozen=True)
class NestedFold:
    """An outer fold: rows to learn from, pieces to score, and how the training rows are split again."""

    train: Rows
    pieces: tuple[Rows, ...]
    inner: tuple[tuple[Rows, Rows], ...]


@dataclass(frozen=True, eq=False)
class RowSets:
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


def partition_rows(nests: Sequence[NestedFold], confounds: np.ndarray) -> RowSets:
    """Cut rows into the fewest segments that every set of the folds is a union of.

    Parameters
    ----------
    confounds : (n_rows, c)
    """
    n_rows = len(confounds)
    found: dict[bytes, Rows] = {}
    for nest in nests:
        for rows in (nest.train, *nest.pieces, *(r for pair in nest.inner for r in pair)):
            found.setdefault(row_set_key(rows), rows)
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
    return RowSets(np.column_stack([np.ones(n_rows), confounds]), segments, found, parts, one_of)


def row_set_key(rows: Rows) -> bytes:
    """Name a set of rows."""
    return np.ascontiguousarray(rows, dtype=np.int64).tobytes()


@dataclass(frozen=True, eq=False)
class ValidationSet:
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
    pairs: PairSums | None
    direct: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """One ridge: training rows in the span of a basis.

    Attributes
    ----------
    train : key of the training set
    basis : which columns of the stacked bases it reads
    turn : (1 + c + p_basis, p) from [C, U] of the basis to axes of unit length on the training rows; None where
        they are the basis itself
    shrink : (n_alphas, p) d = s² / (s² + α), largest penalty first; a column of ones where all its scores are `direct`
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
    tasks: tuple[TrainingSet, ...]
    inner: tuple[tuple[ValidationSet, ...], ...]
    outer: tuple[tuple[ValidationSet, ...], ...]
    _placed: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)

    def placed(self, y: Any, name: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """Keep an array where some responses are, in their library, dtype and device; made when first asked for."""
        key = (type(y), y.dtype, getattr(y, "device", None), *name)
        if key not in self._placed:
            self._placed[key] = make()
        return self._placed[key]

    def packed_for(self, sets: RowSets, make: Callable[[], Any]) -> Any:
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

    def partition(self, whole: bytes, sets: RowSets) -> tuple[bytes, ...]:
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


def segments_left_out(sets: RowSets, task: TrainingSet) -> list[int] | None:
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
