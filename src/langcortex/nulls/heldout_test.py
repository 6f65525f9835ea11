"""What chance gives when neighbouring rows resemble each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.arrays import centred, chunks, has_numba, rounding, run_slices
from langcortex.errors import FitError
from langcortex.nulls.heldout import BlockNulls, Nulls, draw_blocks, heldout_nulls
from langcortex.nulls.surrogates import BLOCK
from langcortex.stats.null_counts import TIE, NullCounts, Significance
from langcortex.stats.resampling import describe_seed

CHUNK = 256  # targets at a time: the table of nulls of held-out blocks should fit a cache
COMPILED = (np.dtype(np.float32), np.dtype(np.float64))  # what compiled code counts


def time_test(
    observed: np.ndarray,
    predicted: np.ndarray,
    piece: np.ndarray,
    n_nulls: int,
    rng: np.random.Generator,
    kind: str = "phase",
    block: int = BLOCK,
) -> Significance:
    """Test mean correlations of held-out predictions, of one or more layers, against nulls over time.

    Predictions are kept, and held-out responses moved within their runs: nothing is fitted again, so 1,000 nulls cost less
    than the fit. For the same case only as `shift_test`: a fixed split, where test runs trained nobody. Where runs take turns as
    test runs their scores depend on each other, this null does not carry that dependence, and too much is found
    (`docs/decisions/0001-a-null-that-refits.md`: 14 % at the level of 5 %); use `langcortex.encoding.null_test.null_test`.

    Several layers may be tested at once, corrected over targets and layers. Every null moves the responses of all targets
    alike and meets all layers.

    Parameters
    ----------
    observed : (n_rows, n_targets)
    predicted : (n_rows, n_targets) or (n_layers, n_rows, n_targets)
    piece : (n_rows,) the held-out run of each row, "" where never held out
    n_nulls : how many
    rng : the source of randomness
    kind, block : see `langcortex.nulls.heldout.heldout_nulls`. "phase" keeps its level in slower noise than the others

    Returns
    -------
    Significance, of shape (n_targets,) or (n_layers, n_targets)

    References
    ----------
    Phipson & Smyth 2010, doi:10.2202/1544-6115.1585 (the +1); Nichols & Holmes 2002, doi:10.1002/hbm.1058
    """
    held = np.array([bool(name) for name in piece.tolist()])
    run = np.array([str(name) for name in piece[held].tolist()])
    if not len(run):
        raise FitError("No row was held out, so there is nothing to test. Keep the predictions of the fit.")
    seed = describe_seed(rng)
    layers = predicted[None] if predicted.ndim == 2 else predicted
    if kind == "block" and has_numba() and observed.dtype == layers.dtype and observed.dtype in COMPILED:
        tally = _compiled(observed, layers, held, draw_blocks(run, n_nulls, rng, block))
    else:
        tally = _counted(observed, layers, held, run, heldout_nulls(kind, run, n_nulls, rng, block), n_nulls)
    how = f"{kind} ({block} rows)" if kind == "block" else kind
    out = tally.significance("rows within runs", f"random {how}, of held-out predictions", seed)
    if predicted.ndim == 3:
        return out
    return Significance(out.value[0], out.p[0], out.p_corrected[0], out.q[0], out.resampling)


def _counted(
    observed: np.ndarray, layers: np.ndarray, held: np.ndarray, run: np.ndarray, nulls: Nulls, n_nulls: int
) -> NullCounts:
    """Count nulls of any kind: observed (n_rows, n_targets), layers (n_layers, n_rows, n_targets), held (n_rows,) bool."""
    parts = chunks(observed.shape[1], CHUNK)

    def pair(part: slice) -> tuple[np.ndarray, list[np.ndarray]]:
        return _unit(observed[:, part][held], run), [_unit(q[:, part][held], run) for q in layers]

    tally = NullCounts(np.concatenate([_agreement(*pair(part)) for part in parts], axis=1), n_nulls)
    for part in parts:
        for first, null in nulls(*pair(part)):
            tally.add(null, first, part)
    return tally


def _compiled(observed: np.ndarray, layers: np.ndarray, held: np.ndarray, blocks: BlockNulls) -> NullCounts:
    """Count nulls of blocks as `_counted` does, each target's nulls where they are made."""
    from langcortex.nulls.heldout_blocks import LANES, count_layer, new_counts, new_work, unit

    n_nulls, shape = len(blocks.entries), (len(layers), observed.shape[1])
    counts, work = new_counts(*shape, n_nulls), new_work(blocks, observed.dtype)
    eps = float(np.finfo(observed.dtype).eps)
    for part in chunks(shape[1], LANES):
        unit(work.y, work.y_known, observed[:, part][held], blocks.edges, eps)
        for layer, q in enumerate(layers):
            unit(work.q, work.q_known, q[:, part][held], blocks.edges, eps)
            count_layer(counts, layer, part.start, part.stop, work, blocks, TIE)
    tally = NullCounts(counts.true, n_nulls)
    tally.add_counts(counts.beaten, counts.largest.T, counts.total, counts.squares)
    return tally


def _agreement(y: np.ndarray, q: Sequence[np.ndarray]) -> np.ndarray:
    """Average over pieces the correlation of columns from `_unit`: (n_layers, n_targets)."""
    return np.stack([np.einsum("ij,ij->j", y, one) for one in q])


def _unit(values: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Centre columns in each piece, to length 1/√n_pieces there, so that a sum of products is a mean of correlations."""
    out = np.empty(values.shape, dtype=values.dtype if values.dtype.kind == "f" else np.float64)
    parts = run_slices(run)
    for part in parts:
        one = values[part]
        around = centred(one) if one.dtype.kind == "f" else one - one.mean(axis=0)
        length = np.einsum("ij,ij->j", around, around).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(length > rounding(one), 1 / np.sqrt(length * len(parts)), np.nan)
        np.multiply(around, scale, out=out[part], casting="same_kind")
    return out
