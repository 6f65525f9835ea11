"""A design under a protocol: held-out pieces, delays, confounds, responses in chunks, features prepared from training rows.

Shared by fits of one feature space (`langcortex.encoding.nested_cv`) and of several together (`langcortex.encoding.joint`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from langcortex.arrays import chunks, run_slices
from langcortex.design.design import Design, Lazy
from langcortex.encoding.protocol import Fold, Protocol, inner_folds
from langcortex.errors import FitError
from langcortex.ridge.decomposition import (
    CONSTANT_SHARE,
    kernel_components,
    learn_scale,
    least_squares_operator,
    principal_components,
    residualise,
)
from langcortex.ridge.plan import FEW_COMPONENTS, NestedFold, Plan, row_set_key
from langcortex.ridge.planner import Prepare, make_plan

LARGE = 30  # times the median power of features that vary, from which on a feature is multiplied in float64
COLUMNS = 1024  # features whose products are added up before they are added in float64


def make_preparer(
    x: np.ndarray,
    space: str,
    run: np.ndarray,
    protocol: Protocol,
    confounds: np.ndarray,
    n_components: int | None,
    dtype: type = np.float64,
) -> Prepare:
    """Make the function that prepares features from training rows: scale, take confounds off, find axes.

    Parameters
    ----------
    dtype : of the responses. For float32, leading axes of features that were scaled to unit variance come from float32
        products, summed in float64 over every thousand features: no column is larger than the others, so scores move by
        1e-8, at most 1e-5 (the hundredth axis of a steep spectrum). So do up to 32 axes of features of unequal size, but
        for the few that are much larger than the others, as language models have: these are multiplied in float64, and
        so are all where every axis is wanted: the last are a millionth of the first
    """
    x = _scaled_by_run(x, space, run, protocol)

    if x.shape[1] >= len(x) // 2:
        return _wide_preparer(x, protocol, confounds, n_components, dtype)

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, power = _cleaned(x, protocol, confounds, train)
        axes = principal_components(z[train], n_components, power)
        return axes.s, z @ axes.v

    return prepare


def _wide_preparer(
    x: np.ndarray, protocol: Protocol, confounds: np.ndarray, n_components: int | None, dtype: type
) -> Prepare:
    """Find axes from products of rows, for features that are as many: no pass over features but one product."""
    c1 = np.column_stack([np.ones(len(x)), confounds])
    mean = x.mean(axis=0)
    around = x - mean
    exact = np.float64 if n_components is None else dtype
    if protocol.standardise != "training":
        # scaled alike in every training set: one matrix serves all
        gram = row_products(around, n_components, dtype)
        return lambda train: kernel_components(gram, c1, train, n_components)
    square = np.square(around)
    used = around.astype(exact)

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        std = column_spread(mean, around, square, train)
        return kernel_components(_scaled_products(used, (1 / std).astype(exact)), c1, train, n_components)

    return prepare


def column_spread(mean: np.ndarray, around: np.ndarray, square: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Give each column's population standard deviation over some rows, from columns that are nearly centred.

    Parameters
    ----------
    mean : (n_features,) what was taken off
    around, square : (n_rows, n_features) float64, what was left, and its squares

    Returns
    -------
    (n_features,) infinite where a column is constant, as `langcortex.ridge.decomposition.learn_scale` has it
    """
    inside = np.zeros(len(around))
    inside[train] = 1.0 / len(train)
    off, power = inside @ around, inside @ square
    std = np.sqrt(np.maximum(power - off**2, 0.0))
    size = np.maximum(np.abs(mean + off), np.sqrt(power))
    return np.where(std <= CONSTANT_SHARE * np.maximum(size, np.finfo(np.float64).tiny), np.inf, std)


def row_products(x: np.ndarray, n_components: int | None, dtype: type) -> np.ndarray:
    """Multiply rows with rows: (n_rows, n_rows) float64, in float32 where that is enough.

    Parameters
    ----------
    x : (n_rows, n_features) float64, nearly centred
    n_components : how many axes are wanted
    dtype : of the responses. For float32 and a few axes, columns that are not much larger than most are
        multiplied in float32: their rounding is a small share of any leading axis
    """
    if dtype is np.float64 or n_components is None or n_components > FEW_COMPONENTS:
        return np.asarray(x @ x.T)
    power = np.einsum("ij,ij->j", x, x)
    large = power > LARGE * np.median(power[power > 0]) if power.any() else power > 0
    own = x[:, large]
    out = _scaled_products(x, (~large).astype(dtype))
    out += own @ own.T
    return out


def _scaled_products(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Multiply rows with rows, their columns scaled: (n_rows, n_rows) float64, summed over columns in float64.

    Parameters
    ----------
    scale : (n_features,) in the dtype in which columns are multiplied
    """
    total = np.zeros((len(x), len(x)))
    for columns in chunks(x.shape[1], COLUMNS):
        part = x[:, columns].astype(scale.dtype) * scale[columns]
        total += part @ part.T
    return total


def adjusted_features(
    x: np.ndarray, space: str, run: np.ndarray, protocol: Protocol, confounds: np.ndarray, train: np.ndarray
) -> np.ndarray:
    """Scale features and take confounds off, as some training rows teach: (n_rows, n_features) float64."""
    return _cleaned(_scaled_by_run(x, space, run, protocol), protocol, confounds, train)[0]


def _scaled_by_run(x: np.ndarray, space: str, run: np.ndarray, protocol: Protocol) -> np.ndarray:
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise FitError(f"'{space}' has values that are not finite.")
    if protocol.standardise == "run":
        x = np.concatenate([learn_scale(x[rows]).apply(x[rows]) for rows in run_slices(run)])
    return x


def _cleaned(
    x: np.ndarray, protocol: Protocol, confounds: np.ndarray, train: np.ndarray
) -> tuple[np.ndarray, float]:
    """Clean features, and give the power that the training rows had before confounds were taken off."""
    z = learn_scale(x[train]).apply(x) if protocol.standardise == "training" else x
    power = float(np.square(z[train]).sum())
    return residualise(confounds, least_squares_operator(confounds[train]) @ z[train], z), power


def make_nested_fold(
    design: Design,
    fold: Fold,
    pieces: Iterable[np.ndarray],
    protocol: Protocol,
    inner: bool = True,
) -> NestedFold:
    """Describe an outer fold to the engine: its pieces and its inner folds, as rows."""
    inside = inner_folds(fold.train, design.run, design.scans, protocol) if inner else []
    return NestedFold(
        fold.train,
        tuple(fold.test[rows] for rows in pieces),
        tuple((f.train, f.test) for f in inside),
    )


def make_plan_of_space(
    design: Design,
    space: str,
    nests: Sequence[NestedFold],
    protocol: Protocol,
    confounds: np.ndarray,
    plans: Plans | None = None,
    regime: str = "auto",
) -> Plan:
    """Prepare one feature space for some outer folds; nothing of the responses takes part.

    Parameters
    ----------
    plans : where a plan that was made for another subject is found again
    regime : how predictions are scored, see `langcortex.ridge.planner.make_plan`
    """
    x = np.asarray(design.X[space])
    dtype = np.float32 if isinstance(design.Y, Lazy) else next(iter(design.Y.values())).dtype.type
    p = protocol
    choices = (p.standardise, p.pca, p.penalties, p.relative, p.choose_by, p.nested_axes, regime)

    def make() -> Plan:
        prepare = make_preparer(x, space, design.run, protocol, confounds, p.pca, dtype)
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


def _key(x: np.ndarray, confounds: np.ndarray, nests: Sequence[NestedFold], choices: object) -> str:
    """Name a plan by everything that decides it."""
    state = hashlib.blake2b(digest_size=16)
    for array in (x, confounds):
        state.update(f"{array.shape}{array.dtype}".encode())
        state.update(np.ascontiguousarray(array).data)
    for one in nests:
        for rows in one.row_sets():
            state.update(len(rows).to_bytes(8, "little"))
            state.update(row_set_key(rows))
        state.update(b"|")
    state.update(repr(choices).encode())
    return state.hexdigest()
