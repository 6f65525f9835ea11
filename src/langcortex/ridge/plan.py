"""The fitting engine: ridge for every penalty, fold and target from products of rows that are computed once.

Rows are partitioned into blocks, such that every training set and every validation set is a union of blocks. With U the
left singular vectors of some training features (and C the confounds), all that is ever needed of the responses is

    [C, U]ᵀ Y   and   Σ Y²   over each block,

because the prediction of held-out rows is U_new · diag(d) · UᵀY with d = s² / (s² + α), and its product with the
responses and its own sum of squares are

    cov = Σ d P Q,   var = ‖R diag(d) P‖²,   P = UᵀY (training),   Q = U_newᵀ Y (held out),   R = qr(U_new).

So no prediction is formed until a penalty is chosen. Component scores are scaled to unit length, and singular values kept
in float64, which is what makes small penalties safe in float32; sums of squares and nuisance coefficients are float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from langcortex.ridge.decomposition import moment_operator
from langcortex.ridge.powers import PairSums

FEW_COMPONENTS = 32  # up to which all is done in one pass, by compiled code where there is some
CHUNK_SIZES = (
    (FEW_COMPONENTS, 1920),
    (128, 2048),
    (512, 512),
)  # targets by components: temporaries fit the cache
MIN_CHUNK_SIZE = 1024
MAX_SLICES = 12  # slices of neighbouring rows above which rows are copied together

Rows = np.ndarray
"""Row numbers, sorted."""


@dataclass(frozen=True)
class NestedFold:
    """An outer fold: its training rows, the test segments to score, and its inner folds.

    Attributes
    ----------
    train : training rows
    segments : held-out rows of each test segment
    inner : training and validation rows of each inner fold
    """

    train: Rows
    segments: tuple[Rows, ...]
    inner: tuple[tuple[Rows, Rows], ...]

    def row_sets(self) -> Iterator[Rows]:
        """Iterate over all sets of rows: outer training rows, segments, and the two of each inner fold."""
        yield self.train
        yield from self.segments
        for train, validation in self.inner:
            yield train
            yield validation


@dataclass(frozen=True, eq=False)
class RowSets:
    """Every set of rows that some folds use, as unions of row blocks.

    Attributes
    ----------
    nuisance : (n_rows, 1 + n_confounds) a column of ones, and the confounds
    blocks : row numbers of each block; no two share a row
    rows : key → the row numbers of a set
    block_numbers : key → the blocks that the set is made of
    membership : (n_sets, n_blocks) float64, 1 where a block is part of a set
    """

    nuisance: np.ndarray
    blocks: tuple[Rows, ...]
    rows: Mapping[bytes, Rows]
    block_numbers: Mapping[bytes, tuple[int, ...]]
    membership: np.ndarray
    _operators: dict[bytes, np.ndarray] = field(default_factory=dict)
    _neighbours: dict[tuple[int, ...], list[Rows]] = field(default_factory=dict)
    _grams: dict[bytes, np.ndarray] = field(default_factory=dict)

    @functools.cached_property
    def key_of_blocks(self) -> Mapping[tuple[int, ...], bytes]:
        """The key of the set that some blocks make up."""
        return {numbers: key for key, numbers in self.block_numbers.items()}

    def neighbours(self, blocks: tuple[int, ...]) -> list[Rows]:
        """Split the rows of some blocks into slices of neighbouring rows, or not at all where there are many."""
        if blocks not in self._neighbours:
            rows = np.sort(np.concatenate([self.blocks[b] for b in blocks]))
            edges = np.flatnonzero(np.diff(rows) != 1) + 1
            self._neighbours[blocks] = [rows] if len(edges) > MAX_SLICES else np.split(rows, edges)
        return self._neighbours[blocks]

    def moment_operator(self, key: bytes) -> np.ndarray:
        """Return the matrix that maps [1, C]ᵀy over a set to nuisance coefficients: (1 + c, 1 + c)."""
        if key not in self._operators:
            self._operators[key] = moment_operator(self.nuisance[self.rows[key]])
        return self._operators[key]

    def nuisance_gram(self, key: bytes) -> np.ndarray:
        """Return [1, C]ᵀ[1, C] over a set."""
        if key not in self._grams:
            nuisance = self.nuisance[self.rows[key]]
            self._grams[key] = nuisance.T @ nuisance
        return self._grams[key]


def partition_rows(folds: Sequence[NestedFold], confounds: np.ndarray) -> RowSets:
    """Partition rows into the fewest blocks of which every set of the folds is a union.

    Parameters
    ----------
    confounds : (n_rows, n_confounds)
    """
    n_rows = len(confounds)
    sets: dict[bytes, Rows] = {}
    for fold in folds:
        for rows in fold.row_sets():
            sets.setdefault(row_set_key(rows), rows)
    is_member = np.zeros((n_rows, len(sets)), dtype=bool)
    for i, rows in enumerate(sets.values()):
        is_member[rows, i] = True
    _, block = np.unique(is_member, axis=0, return_inverse=True)
    block = np.where(is_member.any(axis=1), block.ravel(), -1)
    blocks = [np.flatnonzero(block == b) for b in np.unique(block[block >= 0])]
    blocks = sorted(blocks, key=lambda rows: int(rows[0]))
    # all rows of a block belong to the same sets, so the first speaks for the others
    membership = np.array([is_member[rows[0]] for rows in blocks], dtype=np.float64).reshape(-1, len(sets)).T
    numbers = {key: tuple(np.flatnonzero(row).tolist()) for key, row in zip(sets, membership, strict=True)}
    nuisance = np.column_stack([np.ones(n_rows), confounds])
    return RowSets(nuisance, tuple(blocks), sets, numbers, membership)


def row_set_key(rows: Rows) -> bytes:
    """Return the key of a set of rows."""
    return np.ascontiguousarray(rows, dtype=np.int64).tobytes()


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """The ridge of one training set on held-out rows, ready to score any responses.

    Attributes
    ----------
    training_set : number of the training set in the plan
    key : of the held-out rows
    mean : (p,) mean component scores of the held-out rows
    adjustment : (p, 2 + c) U_newᵀ [1, C], and the mean: what regressing out and centring subtract from Q
    triangle : (min(n_new, p), p) R of the component scores; of the centred ones where `centred`
    centred : whether scores are correlations over the held-out rows
    pair_sums : give the sums of squares for all penalties at once; None where rotating the predictions of each penalty
        is less work
    hat_matrix : (n_alphas · n_new, n_train) from training responses to the predictions of every penalty, where there
        are about as many components as training rows, so that going by components saves nothing
    """

    training_set: int
    key: bytes
    mean: np.ndarray
    adjustment: np.ndarray
    triangle: np.ndarray
    centred: bool
    pair_sums: PairSums | None
    hat_matrix: np.ndarray | None = None

    @property
    def n_bytes(self) -> int:
        """Memory taken, about."""
        n = self.triangle.nbytes
        n += self.hat_matrix.nbytes if self.hat_matrix is not None else 0
        return n + (self.pair_sums.n_bytes if self.pair_sums is not None else 0)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The ridge of one training set, in the span of a basis.

    Attributes
    ----------
    key : of the training rows
    basis : its columns of the bases of the plan, which stand side by side
    rotation : (1 + c + p_basis, p) from [C, U] of the basis to left singular vectors of these training rows; None
        where the basis has them already
    shrinkage : (n_alphas, p) d = s² / (s² + α), largest penalty first; a column of ones where the validation sets have
        hat matrices
    parent : key of the larger training set whose components the basis has; None where it has its own
    """

    key: bytes
    basis: slice
    rotation: np.ndarray | None
    shrinkage: np.ndarray
    parent: bytes | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """All that features, confounds and folds decide: shared by every subject, delay and null.

    Attributes
    ----------
    name : of the feature space
    bases : (n_rows, m) float32, the left singular vectors of every training set side by side
    training_sets : one ridge each
    inner : outer fold → one validation set per inner fold
    outer : outer fold → one validation set per test segment
    """

    name: str
    bases: np.ndarray
    training_sets: tuple[TrainingSet, ...]
    inner: tuple[tuple[ValidationSet, ...], ...]
    outer: tuple[tuple[ValidationSet, ...], ...]
    _cache: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)

    def cached_like(self, y: Any, name: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """Return an array in the library, dtype and device of some responses; made when first used."""
        key = (type(y), y.dtype, getattr(y, "device", None), *name)
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def compiled_form(self, sets: RowSets, make: Callable[[], Any]) -> Any:
        """Return the plan as compiled code reads it, kept for the row sets it was last used with: all chunks share them."""
        last, form = self._cache.get(("compiled form",), (None, None))
        if last is not sets:
            form = make()
            self._cache["compiled form",] = (sets, form)
        return form

    def without_cache(self) -> Plan:
        """Return the same plan with nothing kept, for other row sets."""
        return replace(self, _cache={})

    @property
    def validation_sets(self) -> list[ValidationSet]:
        """All validation sets, those of inner folds first."""
        return [validation for fold in (*self.inner, *self.outer) for validation in fold]

    @property
    def n_components(self) -> int:
        """The largest number of components that any training set has."""
        return max((t.shrinkage.shape[1] for t in self.training_sets), default=0)

    @functools.cached_property
    def shared_training_sets(self) -> frozenset[int]:
        """The training sets that inner folds of several outer folds use."""
        users: dict[int, set[int]] = {}
        for k, fold in enumerate(self.inner):
            for validation in fold:
                users.setdefault(validation.training_set, set()).add(k)
        return frozenset(number for number, folds in users.items() if len(folds) > 1)

    def validation_partition(self, parent: bytes, sets: RowSets) -> tuple[bytes, ...]:
        """Return the keys of the inner validation sets that partition a training set; none where they do not."""
        name = ("partition", parent)
        if name not in self._cache:
            keys = {v.key: None for fold in self.inner for v in fold if self._parent_of(v) == parent}
            rows = np.concatenate([sets.rows[key] for key in keys]) if len(keys) > 1 else np.zeros(0)
            is_partition = np.array_equal(np.sort(rows), sets.rows[parent])
            self._cache[name] = tuple(keys) if is_partition else ()
        partition: tuple[bytes, ...] = self._cache[name]
        return partition

    def _parent_of(self, validation: ValidationSet) -> bytes | None:
        return self.training_sets[validation.training_set].parent

    @functools.cached_property
    def is_packable(self) -> bool:
        """Whether all training sets have components, no two equally large, and all outer folds inner ones."""
        sums = [validation.pair_sums for fold in self.inner for validation in fold]
        all_divided = all(pairs and not len(pairs.close_pairs) for pairs in sums)
        return all_divided and all(t.shrinkage.shape[1] for t in self.training_sets) and all(self.inner)

    @property
    def n_bytes(self) -> int:
        """Memory taken, about."""
        rotations = sum(t.rotation.nbytes for t in self.training_sets if t.rotation is not None)
        return self.bases.nbytes + rotations + sum(v.n_bytes for v in self.validation_sets)

    @property
    def solver(self) -> str:
        """How predictions are scored: by sums over "pairs" of components, by "axes", or by a "kernel" of rows."""
        inner = [validation for fold in self.inner for validation in fold]
        if any(validation.hat_matrix is not None for validation in inner):
            return "kernel"
        return "pairs" if all(validation.pair_sums is not None for validation in inner) else "axes"


def blocks_left_out(sets: RowSets, training_set: TrainingSet) -> list[int] | None:
    """Return the blocks of its parent that a training set lacks, where they are the fewer; otherwise None."""
    if training_set.parent is None or training_set.key == training_set.parent:
        return None
    blocks = sets.block_numbers[training_set.key]
    lacking = [b for b in sets.block_numbers[training_set.parent] if b not in blocks]
    return lacking if 0 < len(lacking) < len(blocks) else None


def chunk_size(plans: Iterable[Plan]) -> int:
    """Return how many targets to handle at once."""
    n_components = max((plan.n_components for plan in plans), default=0)
    return next((size for limit, size in CHUNK_SIZES if n_components <= limit), MIN_CHUNK_SIZE)
