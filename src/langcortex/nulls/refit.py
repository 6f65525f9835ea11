"""Refits of permuted responses, in batches of nulls: all that is tested reads the same permuted responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from langcortex.arrays import chunks
from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.refit_fixed import PermutedProducts
from langcortex.ridge.backend import Backend
from langcortex.ridge.plan import Plan, RowSets
from langcortex.ridge.solve import PlanReader, ResponseChunk, can_compile

TABLE_BYTES = 2**27  # memory for the products of all bases with shifted responses
MIN_TARGETS = 8  # with fewer targets such tables do not pay

Scored = Iterator[tuple[int, slice, np.ndarray]]
"""Number of the test, nulls, and r of one test segment: (n_batch, n)."""


@dataclass(frozen=True, eq=False)
class NullGroup:
    """Outer folds that read the same responses: one delay per target, one set of confounds.

    Attributes
    ----------
    delay : (n_targets,)
    sets : row sets of the folds
    plans : of each space, with the tests that use it: (number of the test, outer fold, position of the fold in the plan)
    """

    delay: np.ndarray
    sets: RowSets
    plans: Sequence[tuple[Plan, Sequence[tuple[int, int, int]]]]


class Refitter(Protocol):
    """Fits and scores responses under every null.

    Attributes
    ----------
    size : how many targets to fit at a time
    """

    size: int

    def score_nulls(self, y: np.ndarray, penalty_index: Sequence[np.ndarray] | None) -> Scored:
        """Fit and score every null.

        Parameters
        ----------
        y : (n_rows, n) responses, centred
        penalty_index : for each test, (n_folds, n) positions of the penalties; None chooses them in every null

        Yields
        ------
        test : its number
        nulls : which
        r : (n_batch, n) of one test segment
        """


def make_refitter(
    group: NullGroup,
    permutations: RowPermutations,
    backend: Backend,
    n_columns: int,
    choose: bool,
    dtype: np.dtype,
) -> Refitter:
    """Return the fastest refitter of a group.

    Parameters
    ----------
    n_columns : how many responses may be fitted at a time
    choose : whether penalties are chosen in every null
    dtype : of the responses
    """
    whole_runs = permutations.kind == "shift" and all(
        permutations.has_whole_runs(rows) for rows in group.sets.blocks
    )
    on_numpy = backend.device == "numpy"
    compiled = on_numpy and dtype == np.float32 and all(can_compile(plan) for plan, _ in group.plans)
    if whole_runs and choose and compiled:
        return ShiftRefitter(group, permutations)
    size = _table_size(group, permutations) if whole_runs and on_numpy else 0
    return GeneralRefitter(group, permutations, backend, n_columns, size)


class ShiftRefitter:
    """Whole runs shifted, few components, penalties chosen in every null: see `langcortex.nulls.refit_shifts`."""

    def __init__(self, group: NullGroup, permutations: RowPermutations) -> None:
        from langcortex.nulls.refit_shifts import ShiftedRuns
        from langcortex.ridge.compiled.tiles import FLOATS

        self.size, self.users = FLOATS, [users for _, users in group.plans]
        self.plans = [plan for plan, _ in group.plans]
        n_bases = max(plan.bases.shape[1] for plan in self.plans)
        self.shifted_runs = ShiftedRuns(group.sets, permutations, n_bases)

    def score_nulls(self, y: np.ndarray, penalty_index: Sequence[np.ndarray] | None) -> Scored:
        """Fit and score every null, see `Refitter`."""
        assert penalty_index is None
        for number, nulls, r in self.shifted_runs.score_nulls(y, self.plans):
            edges = np.cumsum([0, *map(len, self.plans[number].outer)]).tolist()
            for test, _, position in self.users[number]:
                for segment in range(edges[position], edges[position + 1]):
                    yield test, nulls, r[segment]


class GeneralRefitter:
    """Permuted responses as further targets of the plans.

    Parameters
    ----------
    group, permutations, backend : see `make_refitter`
    n_columns : how many responses to fit at a time
    size : how many targets at a time, where products of bases with shifted responses come from tables; 0 where they do not
    """

    def __init__(
        self, group: NullGroup, permutations: RowPermutations, backend: Backend, n_columns: int, size: int
    ) -> None:
        self.group, self.permutations, self.backend = group, permutations, backend
        self.n_columns, self.size, self.tables = n_columns, size or n_columns, size > 0

    def score_nulls(self, y: np.ndarray, penalty_index: Sequence[np.ndarray] | None) -> Scored:
        """Fit and score every null, see `Refitter`."""
        permute, n, sets = self.permutations.make_permuter(y), y.shape[1], self.group.sets
        tables = [
            [PermutedProducts(plan.bases, rows, y, self.permutations) for rows in sets.blocks]
            if self.tables
            else []
            for plan, _ in self.group.plans
        ]
        for nulls in chunks(self.permutations.n_nulls, max(1, self.n_columns // n)):
            numbers = range(nulls.start, nulls.stop)
            permuted = np.hstack([permute(b) for b in numbers])
            chunk = ResponseChunk.from_responses(self.backend.to_device(permuted), sets)
            for (plan, users), products in zip(self.group.plans, tables, strict=True):
                reader = (
                    PlanReader(chunk, plan, _stack_products(products, nulls))
                    if products
                    else chunk.read(plan)
                )
                fits = list(reader.folds()) if penalty_index is None else []
                for test, fold, position in users:
                    if penalty_index is None:
                        segments = fits[position].segment_scores
                    else:
                        segments = reader.score_segments(
                            position, np.tile(penalty_index[test][fold], len(numbers))
                        )
                    for r, _, _ in segments:
                        yield test, nulls, r.reshape(len(numbers), n)


def _table_size(group: NullGroup, permutations: RowPermutations) -> int:
    """Return for how many targets at a time to make tables; 0 where they do not pay."""
    n_shifts = sum(map(len, permutations.unique_shifts()))
    if 2 * n_shifts > permutations.n_nulls * len(permutations.runs):
        return 0
    n_bases = sum(plan.bases.shape[1] for plan, _ in group.plans)
    size = min(128, TABLE_BYTES // (4 * n_shifts * n_bases))
    return size if size >= MIN_TARGETS else 0


def _stack_products(products: Sequence[PermutedProducts], nulls: slice) -> np.ndarray:
    """Put products of some nulls side by side: (n_blocks, m, n_batch · n)."""
    first = products[0].of_nulls(nulls)
    out = np.empty((len(products), first.shape[1], len(first), first.shape[2]), dtype=first.dtype)
    out[0] = first.swapaxes(0, 1)
    for i, product in enumerate(products[1:], 1):
        out[i] = product.of_nulls(nulls).swapaxes(0, 1)
    return out.reshape(len(products), first.shape[1], -1)
