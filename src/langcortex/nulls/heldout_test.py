"""Test held-out predictions against nulls over time, for responses that are autocorrelated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.arrays import centre_columns, chunks, has_numba, rounding_error, run_slices
from langcortex.errors import FitError
from langcortex.nulls.heldout import BlockNulls, HeldoutNulls, draw_blocks, heldout_nulls
from langcortex.nulls.surrogates import BLOCK
from langcortex.stats.null_counts import TIE, NullCounts, Significance
from langcortex.stats.resampling import describe_seed

CHUNK = 256  # targets at a time: the table of nulls of held-out blocks should fit a cache
COMPILED = (np.dtype(np.float32), np.dtype(np.float64))  # dtypes that compiled code counts


def time_test(
    observed: np.ndarray,
    predicted: np.ndarray,
    segment: np.ndarray,
    n_nulls: int,
    rng: np.random.Generator,
    kind: str = "phase",
    block: int = BLOCK,
) -> Significance:
    """Test mean correlations of held-out predictions, of one or more layers, against nulls over time.

    Predictions are kept, and held-out responses are permuted within their runs: nothing is fitted again, so 1,000 nulls cost
    less than the fit. This is valid for a fixed split only, where test runs train no model. Where runs take turns as test runs
    their scores depend on each other; this null lacks that dependence, and too many targets are significant
    (`docs/decisions/0001-a-null-that-refits.md`: 14 % at the level of 5 %); use `langcortex.encoding.null_test.null_test`.

    Several layers may be tested at once, corrected over targets and layers. Every null permutes the responses of all targets
    alike and is the same for all layers.

    Parameters
    ----------
    observed : (n_rows, n_targets)
    predicted : (n_rows, n_targets) or (n_layers, n_rows, n_targets)
    segment : (n_rows,) the held-out run of each row, "" where never held out
    n_nulls : how many
    rng : the source of randomness
    kind, block : see `langcortex.nulls.heldout.heldout_nulls`. With slow noise, "phase" keeps its level better than the other kinds

    Returns
    -------
    Significance, of shape (n_targets,) or (n_layers, n_targets)

    References
    ----------
    Phipson & Smyth 2010, doi:10.2202/1544-6115.1585 (the +1); Nichols & Holmes 2002, doi:10.1002/hbm.1058
    """
    heldout_rows = np.array([bool(name) for name in segment.tolist()])
    run = np.array([str(name) for name in segment[heldout_rows].tolist()])
    if not len(run):
        raise FitError("No row was held out, so there is nothing to test. Keep the predictions of the fit.")
    seed = describe_seed(rng)
    layers = predicted[None] if predicted.ndim == 2 else predicted
    if kind == "block" and has_numba() and observed.dtype == layers.dtype and observed.dtype in COMPILED:
        counts = _count_compiled(observed, layers, heldout_rows, draw_blocks(run, n_nulls, rng, block))
    else:
        nulls = heldout_nulls(kind, run, n_nulls, rng, block)
        counts = _count_nulls(observed, layers, heldout_rows, run, nulls, n_nulls)
    how = f"{kind} ({block} rows)" if kind == "block" else kind
    test = counts.significance("rows within runs", f"random {how}, of held-out predictions", seed)
    if predicted.ndim == 3:
        return test
    return Significance(test.value[0], test.p[0], test.p_corrected[0], test.q[0], test.resampling)


def _count_nulls(
    observed: np.ndarray,
    layers: np.ndarray,
    heldout_rows: np.ndarray,
    run: np.ndarray,
    nulls: HeldoutNulls,
    n_nulls: int,
) -> NullCounts:
    """Count nulls of any kind.

    Parameters
    ----------
    observed : (n_rows, n_targets)
    layers : (n_layers, n_rows, n_targets)
    heldout_rows : (n_rows,) bool
    run : (n_heldout_rows,)
    """
    parts = chunks(observed.shape[1], CHUNK)

    def normalise(targets: slice) -> tuple[np.ndarray, list[np.ndarray]]:
        y = _normalise(observed[:, targets][heldout_rows], run)
        return y, [_normalise(q[:, targets][heldout_rows], run) for q in layers]

    r = np.concatenate([_mean_correlations(*normalise(targets)) for targets in parts], axis=1)
    counts = NullCounts(r, n_nulls)
    for targets in parts:
        for first, null in nulls(*normalise(targets)):
            counts.add(null, first, targets)
    return counts


def _count_compiled(
    observed: np.ndarray, layers: np.ndarray, heldout_rows: np.ndarray, blocks: BlockNulls
) -> NullCounts:
    """Count nulls of blocks as `_count_nulls` does, where they are computed, target by target."""
    from langcortex.nulls.heldout_blocks import (
        LANES,
        count_layer,
        new_counts,
        new_workspace,
        normalise_columns,
    )

    n_nulls, shape = len(blocks.entries), (len(layers), observed.shape[1])
    compiled, work = new_counts(*shape, n_nulls), new_workspace(blocks, observed.dtype)
    eps = float(np.finfo(observed.dtype).eps)
    for part in chunks(shape[1], LANES):
        normalise_columns(work.y, work.y_defined, observed[:, part][heldout_rows], blocks.edges, eps)
        for layer, q in enumerate(layers):
            normalise_columns(work.q, work.q_defined, q[:, part][heldout_rows], blocks.edges, eps)
            count_layer(compiled, layer, part.start, part.stop, work, blocks, TIE)
    counts = NullCounts(compiled.observed, n_nulls)
    counts.add_counts(compiled.n_exceeding, compiled.largest.T, compiled.sums, compiled.sums_of_squares)
    return counts


def _mean_correlations(y: np.ndarray, layers: Sequence[np.ndarray]) -> np.ndarray:
    """Average correlations of columns from `_normalise` over runs: (n_layers, n_targets)."""
    return np.stack([np.einsum("ij,ij->j", y, q) for q in layers])


def _normalise(values: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Centre columns in each run, to length 1/√n_runs there, so that a sum of products is a mean of correlations."""
    out = np.empty(values.shape, dtype=values.dtype if values.dtype.kind == "f" else np.float64)
    runs = run_slices(run)
    for rows in runs:
        raw = values[rows]
        residual = centre_columns(raw) if raw.dtype.kind == "f" else raw - raw.mean(axis=0)
        squares = np.einsum("ij,ij->j", residual, residual).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(squares > rounding_error(raw), 1 / np.sqrt(squares * len(runs)), np.nan)
        np.multiply(residual, scale, out=out[rows], casting="same_kind")
    return out
