"""Moved responses fitted again, null by null or many at once: all that is tested reads the same moved responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from langcortex.arrays import chunks
from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.refit_fixed import Products
from langcortex.ridge.backend import Backend
from langcortex.ridge.plan import Plan, RowSets
from langcortex.ridge.solve import PlanReader, ResponseChunk, can_compile

TABLE_BYTES = 2**27  # memory for the products of all axes with turned responses
FEWEST = 8  # targets below which such tables do not pay


@dataclass(frozen=True, eq=False)
class NullGroup:
    """Outer folds that read the same responses: one delay a target, one set of confounds.

    Attributes
    ----------
    delay : (n_targets,)
    plans : of each space, with who is tested on it: (number of the tested, outer fold, its place in the plan)
    """

    delay: np.ndarray
    sets: RowSets
    plans: Sequence[tuple[Plan, Sequence[tuple[int, int, int]]]]


class Refitter(Protocol):
    """Fits responses under every null.

    Attributes
    ----------
    size : how many targets at once
    """

    size: int

    def fitted(
        self, y: np.ndarray, best: Sequence[np.ndarray] | None
    ) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Fit and score.

        Parameters
        ----------
        y : (n_rows, n) responses, centred
        best : of all that is tested, (n_folds, n) positions of the penalties; None chooses them in every null

        Yields
        ------
        number : of the tested
        nulls : which
        r : (n_nulls, n) of one piece
        """


def make_refitter(
    together: NullGroup, moves: RowPermutations, how: Backend, at_once: int, choose: bool, dtype: np.dtype
) -> Refitter:
    """Take the quickest way.

    Parameters
    ----------
    at_once : targets that may be fitted at once
    choose : penalties are chosen in every null
    dtype : of the responses
    """
    whole = moves.kind == "shift" and all(moves.whole(rows) for rows in together.sets.blocks)
    compiled = (
        how.device == "numpy" and dtype == np.float32 and all(can_compile(p) for p, _ in together.plans)
    )
    if whole and choose and compiled:
        return ShiftRefitter(together, moves)
    size = _table_size(together, moves) if whole and how.device == "numpy" else 0
    return GeneralRefitter(together, moves, how, at_once, size)


class ShiftRefitter:
    """Few axes, whole runs shifted, penalties chosen in every null: see `langcortex.nulls.refit_shifts`."""

    def __init__(self, together: NullGroup, moves: RowPermutations) -> None:
        from langcortex.nulls.refit_shifts import Shifted
        from langcortex.ridge.compiled.tiles import FLOATS

        self.size, self.users = FLOATS, [users for _, users in together.plans]
        self.plans = [plan for plan, _ in together.plans]
        self.shifted = Shifted(together.sets, moves, max(plan.bases.shape[1] for plan in self.plans))

    def fitted(
        self, y: np.ndarray, best: Sequence[np.ndarray] | None
    ) -> Iterator[tuple[int, slice, np.ndarray]]:
        """See `Refitter`."""
        assert best is None
        for number, nulls, r in self.shifted.scores(y, self.plans):
            begins = np.cumsum([0, *map(len, self.plans[number].outer)]).tolist()
            for i, _, place in self.users[number]:
                for piece in range(begins[place], begins[place + 1]):
                    yield i, nulls, r[piece]


class GeneralRefitter:
    """Moved responses as further targets of the plans.

    Parameters
    ----------
    size : how many targets at once, where products of axes with turned responses come from tables; 0 where they do not
    """

    def __init__(
        self, together: NullGroup, moves: RowPermutations, how: Backend, at_once: int, size: int
    ) -> None:
        self.together, self.moves, self.how = together, moves, how
        self.at_once, self.size, self.tables = at_once, size or at_once, size > 0

    def fitted(
        self, y: np.ndarray, best: Sequence[np.ndarray] | None
    ) -> Iterator[tuple[int, slice, np.ndarray]]:
        """See `Refitter`."""
        moved, n, sets = self.moves.of(y), y.shape[1], self.together.sets
        products = [
            [Products(plan.bases, rows, y, self.moves) for rows in sets.blocks] if self.tables else []
            for plan, _ in self.together.plans
        ]
        for nulls in chunks(self.moves.n_nulls, max(1, self.at_once // n)):
            numbers = range(nulls.start, nulls.stop)
            folded = ResponseChunk.from_responses(
                self.how.to_device(np.hstack([moved(b) for b in numbers])), sets
            )
            for (plan, users), own in zip(self.together.plans, products, strict=True):
                reader = PlanReader(folded, plan, _read(own, nulls)) if own else folded.read(plan)
                found = [] if best is not None else [one.segment_scores for one in reader.folds()]
                for i, k, place in users:
                    if best is None:
                        tested = found[place]
                    else:
                        tested = reader.score_segments(place, np.tile(best[i][k], len(numbers)))
                    for r, _, _ in tested:
                        yield i, nulls, r.reshape(len(numbers), n)


def _table_size(together: NullGroup, moves: RowPermutations) -> int:
    """How many targets at once a table serves; 0 where it does not pay."""
    shifts = sum(map(len, moves.used()))
    if 2 * shifts > moves.n_nulls * len(moves.parts):
        return 0
    width = sum(plan.bases.shape[1] for plan, _ in together.plans)
    size = min(128, TABLE_BYTES // (4 * shifts * width))
    return size if size >= FEWEST else 0


def _read(products: Sequence[Products], nulls: slice) -> np.ndarray:
    """Put products of some nulls side by side: (n_segments, m, n_nulls · n)."""
    first = products[0].at(nulls)
    out = np.empty((len(products), first.shape[1], len(first), first.shape[2]), dtype=first.dtype)
    out[0] = first.swapaxes(0, 1)
    for s, one in enumerate(products[1:], 1):
        out[s] = one.at(nulls).swapaxes(0, 1)
    return out.reshape(len(products), first.shape[1], -1)
