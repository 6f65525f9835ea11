"""A design under a protocol: held-out pieces, delays, confounds, responses in chunks, features prepared from training rows.

Shared by fits of one feature space (`langcortex.encoding`) and of several together (`langcortex.nested`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from langcortex.design import Design
from langcortex.engine import FEW
from langcortex.errors import FitError
from langcortex.making import Prepare
from langcortex.metrics import centred
from langcortex.protocol import Fold, Protocol
from langcortex.ridge import (
    CHUNK,
    FLAT,
    chunks,
    confound_reader,
    kernel_axes,
    learn_scale,
    principal_axes,
    without_confounds,
)
from langcortex.timing import run_slices

LARGE = 30  # times the median power of features that vary, from which on a feature is multiplied in float64
COLUMNS = 1024  # features whose products are added up before they are added in float64


def label_pieces(run: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, list[str]]:
    """Name the held-out stretch of every row: its run, or a block of it where a run is cut.

    Returns
    -------
    labels : (n_rows,) "" where a row is never held out
    names : the pieces, in order of rows
    """
    labels = np.full(len(run), "", dtype=object)
    cut = Counter(name for fold in folds for name in set(run[fold.test].tolist()))
    for k, fold in enumerate(folds):
        for row in fold.test.tolist():
            labels[row] = f"{run[row]}/block-{k}" if cut[run[row]] > 1 else str(run[row])
    return labels, [name for name in dict.fromkeys(labels.tolist()) if name]


def pieces_of(labels: np.ndarray, fold: Fold) -> dict[str, np.ndarray]:
    """Give the held-out pieces of a fold: label → positions among its held-out rows."""
    held = labels[fold.test]
    return {piece: np.flatnonzero(held == piece) for piece in dict.fromkeys(held.tolist())}


def checked_delays(design: Design, delays: np.ndarray | None, n_folds: int) -> np.ndarray:
    """Give delays as (n_folds, n_targets); the design's only one where None is given."""
    if delays is None:
        if len(design.delays) > 1:
            raise FitError(
                f"The design has {len(design.delays)} candidate delays; choose among them with choose_delays."
            )
        delays = np.full((n_folds, 1), design.delays[0])
    return np.broadcast_to(delays, (n_folds, design.space.n_targets))


def folds_of_one_delay(delays: np.ndarray) -> list[list[int]]:
    """Group outer folds whose responses are the same: those with the same delay for every target."""
    groups: dict[bytes, list[int]] = {}
    for k, row in enumerate(delays):
        groups.setdefault(np.ascontiguousarray(row).tobytes(), []).append(k)
    return list(groups.values())


def confounds_of(design: Design, spaces: Sequence[str], protocol: Protocol) -> np.ndarray:
    """Gather the confound columns, (n_rows, c), scaled; spaces that are fitted are not cleaned of themselves."""
    missing = [name for name in protocol.confounds if name not in design.X]
    if missing:
        raise FitError(
            f"The confound '{missing[0]}' is not among the feature spaces: {', '.join(map(str, design.X))}."
        )
    columns = [
        np.asarray(design.X[name], dtype=np.float64) for name in protocol.confounds if name not in spaces
    ]
    if not columns:
        return np.empty((len(design.run), 0))
    raw = np.hstack(columns)
    # their units change nothing, and in float32 much
    return learn_scale(raw).apply(raw)


def preparer(
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
        axes = principal_axes(z[train], n_components, power)
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
        return lambda train: kernel_axes(gram, c1, train, n_components)
    square = np.square(around)
    used = around.astype(exact)

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        std = spread(mean, around, square, train)
        return kernel_axes(_scaled_products(used, (1 / std).astype(exact)), c1, train, n_components)

    return prepare


def spread(mean: np.ndarray, around: np.ndarray, square: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Give each column's population standard deviation over some rows, from columns that are nearly centred.

    Parameters
    ----------
    mean : (n_features,) what was taken off
    around, square : (n_rows, n_features) float64, what was left, and its squares

    Returns
    -------
    (n_features,) infinite where a column is constant, as `langcortex.ridge.learn_scale` has it
    """
    inside = np.zeros(len(around))
    inside[train] = 1.0 / len(train)
    off, power = inside @ around, inside @ square
    std = np.sqrt(np.maximum(power - off**2, 0.0))
    size = np.maximum(np.abs(mean + off), np.sqrt(power))
    return np.where(std <= FLAT * np.maximum(size, np.finfo(np.float64).tiny), np.inf, std)


def row_products(x: np.ndarray, n_components: int | None, dtype: type) -> np.ndarray:
    """Multiply rows with rows: (n_rows, n_rows) float64, in float32 where that is enough.

    Parameters
    ----------
    x : (n_rows, n_features) float64, nearly centred
    n_components : how many axes are wanted
    dtype : of the responses. For float32 and a few axes, columns that are not much larger than most are
        multiplied in float32: their rounding is a small share of any leading axis
    """
    if dtype is np.float64 or n_components is None or n_components > FEW:
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


def cleaned_features(
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
    return without_confounds(confounds, confound_reader(confounds[train]) @ z[train], z), power


def chunks_of_responses(
    design: Design, delay: np.ndarray, subset: np.ndarray | None = None, size: int = CHUNK
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give defined targets a chunk at a time, centred: (target numbers, (n_rows, n_chunk) responses at their delays)."""
    sources = {float(d): design.Y[float(d)] for d in np.unique(delay)}
    if subset is not None:
        sources = {d: y[:, subset] for d, y in sources.items()}
        for targets, y in _chunks_of(sources, delay[subset], size):
            yield subset[targets], y
        return
    yield from _chunks_of(sources, delay, size)


def _chunks_of(
    sources: Mapping[float, np.ndarray], delay: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for chunk in chunks(len(delay), size):
        targets, y = responses_in(sources, delay, chunk)
        if len(targets):
            yield targets, y


def responses_in(
    sources: Mapping[float, np.ndarray], delay: np.ndarray, chunk: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Give the defined targets of one chunk, and their responses at their delays, centred.

    Parameters
    ----------
    sources : delay → (n_rows, n_targets)
    delay : (n_targets,)
    """
    wanted = np.unique(delay[chunk])
    if len(wanted) == 1:
        y = np.array(sources[float(wanted[0])][:, chunk])
    else:
        first = next(iter(sources.values()))
        y = np.empty((len(first), chunk.stop - chunk.start), dtype=first.dtype)
        for d in wanted:
            here = delay[chunk] == d
            y[:, here] = sources[float(d)][:, chunk][:, here]
    defined = np.isfinite(y).all(axis=0)
    # centring over all rows changes nothing (every training set has its own intercept) but saves digits
    return np.flatnonzero(defined) + chunk.start, centred(y[:, defined])
