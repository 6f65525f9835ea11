"""What chance gives when neighbouring rows resemble each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langcortex.arrays import has_numba
from langcortex.errors import FitError
from langcortex.held_nulls import Blocks, Nulls, draw_blocks, held_nulls
from langcortex.metrics import centred, rounding
from langcortex.resampling import TIE, Significance, Tally, seed_of
from langcortex.ridge import chunks
from langcortex.surrogates import BLOCK
from langcortex.timing import run_slices

CHUNK = 256  # targets at a time: the table of nulls of held-out blocks should fit a cache
COMPILED = (np.dtype(np.float32), np.dtype(np.float64))  # what compiled code counts


def shift_test(
    observed: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    piece: Sequence[np.ndarray],
    n_shifts: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Test a mean correlation against circular shifts of the predictions within each held-out piece.

    For pieces that took no part in one another's training, such as the test runs of a fixed split. Where runs
    take turns as test runs, their scores depend on each other and this null is too narrow: use
    `langcortex.nulls.null_scores`, which shifts the responses and refits.

    A shift keeps the autocorrelation of both series, but for the seam where end meets beginning (which makes the
    test liberal in pieces only a few times longer than the autocorrelation), and breaks only their alignment, so slow drifts that
    happen to agree are counted as chance. Every piece is shifted by its own random amount, at least a
    tenth of its length; subjects who heard the same pieces are shifted together.

    Parameters
    ----------
    observed, predicted : one (n_rows, n_targets) a subject
    piece : one (n_rows,) a subject: the label of the held-out run (or block) of each row, rows in order
    n_shifts : how many random shifts
    rng : the source of randomness

    Returns
    -------
    r : (n_targets,) mean over pieces of the correlation in each, then over subjects
    p : (n_targets,) (1 + number of shifts with a mean r at least as large) / (1 + n_shifts); NaN where r is

    References
    ----------
    Phipson & Smyth 2010, doi:10.2202/1544-6115.1585 (the +1)
    """
    share = draw_shifts([str(label) for one in piece for label in one], n_shifts, rng)
    true, null = np.zeros(observed[0].shape[1]), np.zeros((n_shifts, observed[0].shape[1]))
    for y, q, which in zip(observed, predicted, piece, strict=True):
        r, shifted = shifted_scores(y, q, which, share)
        true += r / len(observed)
        null += shifted / len(observed)
    return true, p_values(true, null)


def draw_shifts(pieces: Sequence[str], n_shifts: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw, for every held-out piece, `n_shifts` shifts as shares of its length, from a tenth to nine tenths."""
    return {name: rng.uniform(0.1, 0.9, n_shifts) for name in sorted(set(pieces))}


def shifted_scores(
    observed: np.ndarray, predicted: np.ndarray, piece: np.ndarray, share: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate predictions with responses, as they are and after every shift of `share`, averaged over pieces.

    Parameters
    ----------
    observed, predicted : (n_rows, n_targets); rows whose piece is "" were never held out and do not count
    piece : (n_rows,)
    share : from `draw_shifts`

    Returns
    -------
    r : (n_targets,)
    null : (n_shifts, n_targets) float32
    """
    names = [name for name in dict.fromkeys(str(label) for label in piece) if name]
    n_shifts = len(next(iter(share.values())))
    r = np.zeros(observed.shape[1])
    null = np.zeros((n_shifts, observed.shape[1]), dtype=np.float32)
    for name in names:
        rows = piece == name
        for chunk in chunks(observed.shape[1], 1024):
            table = _shifted_correlations(observed[rows][:, chunk], predicted[rows][:, chunk])
            n = len(table)
            shift = np.clip(np.round(share[name] * n).astype(int), min(1, n - 1), n - 1)
            r[chunk] += table[0] / len(names)
            null[:, chunk] += (table / len(names)).astype(np.float32)[shift]
    return r, null


def p_values(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Turn an observed value and its null into p with +1; NaN where r is.

    Parameters
    ----------
    r : (n_targets,)
    null : (n_shifts, n_targets)
    """
    beaten = (null >= r - TIE).sum(axis=0)
    known = np.isfinite(r) & np.isfinite(null).all(axis=0)
    return np.where(known, (1 + beaten) / (1 + len(null)), np.nan)


def p_corrected(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Turn an observed value and its null into p corrected over targets, by the largest value of each null.

    Parameters
    ----------
    r : (n_targets,)
    null : (n_shifts, n_targets)

    References
    ----------
    Nichols & Holmes 2002, doi:10.1002/hbm.1058
    """
    known = np.isfinite(r) & np.isfinite(null).all(axis=0)
    largest = np.sort(null[:, known].max(axis=1)) if known.any() else np.empty(0)
    beaten = len(largest) - np.searchsorted(largest, np.where(known, r, 0.0) - TIE, side="left")
    return np.where(known, (1 + beaten) / (1 + len(largest)), np.nan)


def _shifted_correlations(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Correlate `y` with every circular shift of `p`: row k is the correlation with p moved down by k rows."""
    n = len(y)
    y = y - y.mean(axis=0, dtype=np.float64)
    p = p - p.mean(axis=0, dtype=np.float64)
    table = np.fft.irfft(np.fft.rfft(y, axis=0) * np.conj(np.fft.rfft(p, axis=0)), n=n, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: np.ndarray = table / np.sqrt(np.square(y).sum(axis=0) * np.square(p).sum(axis=0))
    return scaled


def false_discovery(p: np.ndarray, q: float = 0.05) -> np.ndarray:
    """Mark the targets found at false-discovery rate `q`; NaN is never found and does not count.

    References
    ----------
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x

    >>> false_discovery(np.array([0.001, 0.9, np.nan]))
    array([ True, False, False])
    """
    from scipy import stats

    found = np.zeros(len(p), dtype=bool)
    defined = np.flatnonzero(~np.isnan(p))
    if len(defined):
        found[defined] = stats.false_discovery_control(p[defined]) <= q
    return found


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
    (`docs/decisions/0001-a-null-that-refits.md`: 14 % at the level of 5 %); use `langcortex.nulls.null_test`.

    Several layers may be tested at once, corrected over targets and layers. Every null moves the responses of all targets
    alike and meets all layers.

    Parameters
    ----------
    observed : (n_rows, n_targets)
    predicted : (n_rows, n_targets) or (n_layers, n_rows, n_targets)
    piece : (n_rows,) the held-out run of each row, "" where never held out
    n_nulls : how many
    rng : the source of randomness
    kind, block : see `langcortex.held_nulls.held_nulls`. "phase" keeps its level in slower noise than the others

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
    seed = seed_of(rng)
    layers = predicted[None] if predicted.ndim == 2 else predicted
    if kind == "block" and has_numba() and observed.dtype == layers.dtype and observed.dtype in COMPILED:
        tally = _compiled(observed, layers, held, draw_blocks(run, n_nulls, rng, block))
    else:
        tally = _counted(observed, layers, held, run, held_nulls(kind, run, n_nulls, rng, block), n_nulls)
    how = f"{kind} ({block} rows)" if kind == "block" else kind
    out = tally.significance("rows within runs", f"random {how}, of held-out predictions", seed)
    if predicted.ndim == 3:
        return out
    return Significance(out.value[0], out.p[0], out.p_corrected[0], out.q[0], out.resampled)


def _counted(
    observed: np.ndarray, layers: np.ndarray, held: np.ndarray, run: np.ndarray, nulls: Nulls, n_nulls: int
) -> Tally:
    """Count nulls of any kind: observed (n_rows, n_targets), layers (n_layers, n_rows, n_targets), held (n_rows,) bool."""
    parts = chunks(observed.shape[1], CHUNK)

    def pair(part: slice) -> tuple[np.ndarray, list[np.ndarray]]:
        return _unit(observed[:, part][held], run), [_unit(q[:, part][held], run) for q in layers]

    tally = Tally(np.concatenate([_agreement(*pair(part)) for part in parts], axis=1), n_nulls)
    for part in parts:
        for first, null in nulls(*pair(part)):
            tally.add(null, first, part)
    return tally


def _compiled(observed: np.ndarray, layers: np.ndarray, held: np.ndarray, blocks: Blocks) -> Tally:
    """Count nulls of blocks as `_counted` does, each target's nulls where they are made."""
    from langcortex.compiled_nulls import LANES, count_layer, new_counts, new_work, unit

    n_nulls, shape = len(blocks.entries), (len(layers), observed.shape[1])
    counts, work = new_counts(*shape, n_nulls), new_work(blocks, observed.dtype)
    eps = float(np.finfo(observed.dtype).eps)
    for part in chunks(shape[1], LANES):
        unit(work.y, work.y_known, observed[:, part][held], blocks.edges, eps)
        for layer, q in enumerate(layers):
            unit(work.q, work.q_known, q[:, part][held], blocks.edges, eps)
            count_layer(counts, layer, part.start, part.stop, work, blocks, TIE)
    tally = Tally(counts.true, n_nulls)
    tally.add_counted(counts.beaten, counts.largest.T, counts.total, counts.squares)
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
