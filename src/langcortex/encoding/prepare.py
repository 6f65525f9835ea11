"""Features of a design prepared from training rows, and the engine that fits them: backend, cache and executor."""

from __future__ import annotations

import hashlib
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from langcortex.arrays import chunks, run_slices
from langcortex.design.design import Lazy
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.protocol import Protocol
from langcortex.errors import FitError
from langcortex.ridge.backend import DEFAULT, Backend
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

LARGE = 30  # times the median sum of squares of features that vary, from which on a feature is multiplied in float64
COLUMNS = 1024  # features whose products are summed in float32 before the sums are added in float64

AnyResult = TypeVar("AnyResult")


class Prepared(typing.Protocol):
    """Anything prepared from features whose size in memory is known: a plan, or a band."""

    @property
    def n_bytes(self) -> int:
        """Size in memory."""


AnyPrepared = TypeVar("AnyPrepared", bound=Prepared)


class PreparedCache:
    """Prepared features in memory, by everything that decides them; the least recently used are dropped first.

    Parameters
    ----------
    max_bytes : size beyond which entries are dropped; a single larger one is never stored
    """

    def __init__(self, max_bytes: float = 1e9) -> None:
        self.max_bytes = max_bytes
        self.entries: dict[str, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: str, prepare: Callable[[], AnyPrepared]) -> AnyPrepared:
        """Return the entry of a key, prepared and stored where there is none."""
        with self._lock:
            if key in self.entries:
                stored: AnyPrepared = self.entries.pop(key)
                self.entries[key] = stored  # now the last to be dropped
                return stored
        prepared = prepare()
        if prepared.n_bytes <= self.max_bytes:
            with self._lock:
                self.entries[key] = prepared
                while sum(entry.n_bytes for entry in self.entries.values()) > self.max_bytes:
                    del self.entries[next(iter(self.entries))]
        return prepared


@dataclass(frozen=True)
class Engine:
    """Where and how fits are computed. No score depends on it but for rounding.

    Attributes
    ----------
    backend : device that responses are fitted on, and solver
    plans : cache of prepared features, shared by subjects, delays and nulls; None prepares them every time
    executor : works on several probes, chunks of targets or sets of bands at once; None works on one after another
    """

    backend: Backend = DEFAULT
    plans: PreparedCache | None = None
    executor: Executor | None = None

    def map(self, function: Callable[..., AnyResult], *values: Iterable[Any]) -> Iterator[AnyResult]:
        """Apply a function to every element, on the executor where there is one; results come in order."""
        return self.executor.map(function, *values) if self.executor else map(function, *values)

    def plan(
        self, folded: FoldedDesign, space: str, nested_folds: Sequence[NestedFold], solver: str = "auto"
    ) -> Plan:
        """Prepare one feature space for some outer folds, or find the plan in the cache; no responses take part.

        Parameters
        ----------
        space : a key of ``design.X``
        nested_folds : from `FoldedDesign.nested_fold`
        solver : how predictions are scored, see `langcortex.ridge.planner.make_plan`
        """
        p, confounds = folded.protocol, folded.confounds([space])
        x, dtype = np.asarray(folded.design.X[space]), _response_type(folded)

        def prepare() -> Plan:
            preparer = make_preparer(x, space, folded.design.run, p, confounds, p.pca, dtype)
            return make_plan(
                space, nested_folds, preparer, confounds, np.asarray(p.penalties), p.relative, p.choose_by,
                p.nested_axes, dtype, solver,
            )  # fmt: skip

        if self.plans is None:
            return prepare()
        choices = (p.standardise, p.pca, p.penalties, p.relative, p.choose_by, p.nested_axes, solver)
        return self.plans.get(_key(x, confounds, nested_folds, (*choices, dtype.__name__)), prepare)


DEFAULT_ENGINE = Engine()


def make_preparer(
    x: np.ndarray,
    space: str,
    run: np.ndarray,
    protocol: Protocol,
    confounds: np.ndarray,
    n_components: int | None,
    dtype: type = np.float64,
) -> Prepare:
    """Return the function that prepares features from training rows: scale, regress out confounds, decompose.

    Parameters
    ----------
    x : (n_rows, n_features) of the feature space `space`
    confounds : (n_rows, n_confounds)
    n_components : how many principal components to keep; None keeps all
    dtype : of the responses. For float32, leading components of features that were scaled to unit variance come from
        float32 products, summed in float64 over every thousand features: no column is larger than the others, so scores
        move by 1e-8, at most 1e-5 (the hundredth component of a steep spectrum). So do up to 32 components of features
        of unequal size, except for the few that are much larger than the others, as in language models: these are
        multiplied in float64. Where all components are kept, everything is: the last are a millionth of the first
    """
    x = _scaled_by_run(x, space, run, protocol)
    if x.shape[1] >= len(x) // 2:
        return _wide_preparer(x, protocol, confounds, n_components, dtype)

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, power = _adjusted(x, protocol, confounds, train)
        components = principal_components(z[train], n_components, power)
        return components.s, z @ components.v

    return prepare


def _wide_preparer(
    x: np.ndarray, protocol: Protocol, confounds: np.ndarray, n_components: int | None, dtype: type
) -> Prepare:
    """Return the same function for features about as many as rows: a kernel of rows in place of passes over features."""
    nuisance = np.column_stack([np.ones(len(x)), confounds])
    mean = x.mean(axis=0)
    centred = x - mean
    precision = np.float64 if n_components is None else dtype
    if protocol.standardise != "training":
        # scaled alike in every training set: one matrix serves all
        gram = row_products(centred, n_components, dtype)
        return lambda train: kernel_components(gram, nuisance, train, n_components)
    square = np.square(centred)
    factors = centred.astype(precision)

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        std = column_spread(mean, centred, square, train)
        kernel = _scaled_products(factors, (1 / std).astype(precision))
        return kernel_components(kernel, nuisance, train, n_components)

    return prepare


def column_spread(mean: np.ndarray, centred: np.ndarray, square: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return each column's population standard deviation over some rows, from columns that are nearly centred.

    Parameters
    ----------
    mean : (n_features,) subtracted from the columns before
    centred, square : (n_rows, n_features) float64, the columns without it, and their squares
    train : the rows

    Returns
    -------
    (n_features,) infinite where a column is constant, as `langcortex.ridge.decomposition.learn_scale` has it
    """
    weight = np.zeros(len(centred))
    weight[train] = 1.0 / len(train)
    offset, power = weight @ centred, weight @ square
    std = np.sqrt(np.maximum(power - offset**2, 0.0))
    size = np.maximum(np.abs(mean + offset), np.sqrt(power))
    return np.where(std <= CONSTANT_SHARE * np.maximum(size, np.finfo(np.float64).tiny), np.inf, std)


def row_products(x: np.ndarray, n_components: int | None, dtype: type) -> np.ndarray:
    """Compute the products of rows with rows, (n_rows, n_rows) float64, in float32 where that is enough.

    Parameters
    ----------
    x : (n_rows, n_features) float64, nearly centred
    n_components : how many components will be kept; None keeps all
    dtype : of the responses. For float32 and few components, columns that are not much larger than most are
        multiplied in float32: their rounding is a small share of any leading component
    """
    if dtype is np.float64 or n_components is None or n_components > FEW_COMPONENTS:
        return np.asarray(x @ x.T)
    power = np.einsum("ij,ij->j", x, x)
    large = power > LARGE * np.median(power[power > 0]) if power.any() else power > 0
    exact = x[:, large]
    products = _scaled_products(x, (~large).astype(dtype))
    products += exact @ exact.T
    return products


def _scaled_products(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Compute the products of rows with rows, columns scaled: (n_rows, n_rows), summed over columns in float64.

    Parameters
    ----------
    scale : (n_features,) in the dtype that columns are multiplied in
    """
    total = np.zeros((len(x), len(x)))
    for columns in chunks(x.shape[1], COLUMNS):
        part = x[:, columns].astype(scale.dtype) * scale[columns]
        total += part @ part.T
    return total


def adjusted_features(
    x: np.ndarray, space: str, run: np.ndarray, protocol: Protocol, confounds: np.ndarray, train: np.ndarray
) -> np.ndarray:
    """Scale features and regress out confounds, as learnt on training rows: (n_rows, n_features) float64."""
    return _adjusted(_scaled_by_run(x, space, run, protocol), protocol, confounds, train)[0]


def _scaled_by_run(x: np.ndarray, space: str, run: np.ndarray, protocol: Protocol) -> np.ndarray:
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise FitError(f"'{space}' has values that are not finite.")
    if protocol.standardise == "run":
        x = np.concatenate([learn_scale(x[rows]).apply(x[rows]) for rows in run_slices(run)])
    return x


def _adjusted(
    x: np.ndarray, protocol: Protocol, confounds: np.ndarray, train: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return adjusted features, and the training rows' sum of squares before confounds were regressed out."""
    z = learn_scale(x[train]).apply(x) if protocol.standardise == "training" else x
    power = float(np.square(z[train]).sum())
    return residualise(confounds, least_squares_operator(confounds[train]) @ z[train], z), power


def _response_type(folded: FoldedDesign) -> type:
    """Return the dtype that responses are fitted in, without reading those that are computed when used."""
    if isinstance(folded.design.Y, Lazy):
        return np.float32
    dtype: type = next(iter(folded.design.Y.values())).dtype.type
    return dtype


def _key(x: np.ndarray, confounds: np.ndarray, nested_folds: Sequence[NestedFold], choices: object) -> str:
    """Name a plan by everything that decides it."""
    state = hashlib.blake2b(digest_size=16)
    for array in (x, confounds):
        state.update(f"{array.shape}{array.dtype}".encode())
        state.update(np.ascontiguousarray(array).data)
    for fold in nested_folds:
        for rows in fold.row_sets():
            state.update(len(rows).to_bytes(8, "little"))
            state.update(row_set_key(rows))
        state.update(b"|")
    state.update(repr(choices).encode())
    return state.hexdigest()
