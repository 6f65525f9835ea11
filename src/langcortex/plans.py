"""Plans of a design: what features, confounds and folds decide, made once for every subject who shares the rows."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from langcortex.design import Design, Lazy
from langcortex.engine import Nest, Plan, key_of
from langcortex.folding import preparer
from langcortex.making import make_plan
from langcortex.protocol import Fold, Protocol, inner_folds


def nest(
    design: Design,
    fold: Fold,
    pieces: Iterable[np.ndarray],
    protocol: Protocol,
    inner: bool = True,
) -> Nest:
    """Describe an outer fold to the engine: its pieces and its inner folds, as rows."""
    inside = inner_folds(fold.train, design.run, design.scans, protocol) if inner else []
    return Nest(
        fold.train,
        tuple(fold.test[rows] for rows in pieces),
        tuple((f.train, f.test) for f in inside),
    )


def plan_of(
    design: Design,
    space: str,
    nests: Sequence[Nest],
    protocol: Protocol,
    confounds: np.ndarray,
    plans: Plans | None = None,
    regime: str = "auto",
) -> Plan:
    """Prepare one feature space for some outer folds; nothing of the responses takes part.

    Parameters
    ----------
    plans : where a plan that was made for another subject is found again
    regime : how predictions are scored, see `langcortex.making.make_plan`
    """
    x = np.asarray(design.X[space])
    dtype = np.float32 if isinstance(design.Y, Lazy) else next(iter(design.Y.values())).dtype.type
    p = protocol
    choices = (p.standardise, p.pca, p.penalties, p.relative, p.choose_by, p.nested_axes, regime)

    def make() -> Plan:
        prepare = preparer(x, space, design.run, protocol, confounds, p.pca, dtype)
        return make_plan(
            space, nests, prepare, confounds, np.asarray(p.penalties), p.relative, p.choose_by, p.nested_axes, dtype, regime
        )  # fmt: skip

    return make() if plans is None else plans.get(_key(x, confounds, nests, (*choices, dtype.__name__)), make)


class Plans:
    """Plans in memory: what features, confounds and folds decide is found again for the next subject, delay or null.

    Parameters
    ----------
    max_bytes : the oldest plans are given up when all take more
    """

    def __init__(self, max_bytes: float = 1e9) -> None:
        self.max_bytes = max_bytes
        self.kept: dict[str, Plan] = {}
        self.lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Plan]) -> Plan:
        """Find a plan, or make it and keep it."""
        with self.lock:
            found = self.kept.pop(key, None)
            if found is not None:
                self.kept[key] = found  # the last to be given up
                return found
        made = make()
        if made.n_bytes <= self.max_bytes:
            with self.lock:
                self.kept[key] = made
                while sum(plan.n_bytes for plan in self.kept.values()) > self.max_bytes:
                    del self.kept[next(iter(self.kept))]
        return made


def _key(x: np.ndarray, confounds: np.ndarray, nests: Sequence[Nest], choices: object) -> str:
    """Name a plan by everything that decides it."""
    state = hashlib.blake2b(digest_size=16)
    for array in (x, confounds):
        state.update(f"{array.shape}{array.dtype}".encode())
        state.update(np.ascontiguousarray(array).data)
    for one in nests:
        for rows in (one.train, *one.pieces, *(r for pair in one.inner for r in pair)):
            state.update(len(rows).to_bytes(8, "little"))
            state.update(key_of(rows))
        state.update(b"|")
    state.update(repr(choices).encode())
    return state.hexdigest()
