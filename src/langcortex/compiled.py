"""The elementwise part of the fitting engine for few axes, compiled: a target's numbers stay in the cache from sums to scores.

With few axes the engine's matrix products are so small that reading and writing what lies between them takes longer than
the products themselves. Here one pass does it all for a few dozen targets at a time. numba compiles it when it is first
used and keeps the result on disk; without numba (``pip install "langcortex[fast]"``) the engine does the same in numpy.
This module loads numba: import it when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np

LANES = 128  # targets that go through together: a few vectors of the processor

F = TypeVar("F", bound=Callable[..., Any])


def _jit(function: F) -> F:
    """Compile a function when it is first called, and keep the result on disk."""
    made: F = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")(
        function
    )
    return made


class Packed(NamedTuple):
    """A plan of few axes as a few arrays, for compiled code: held-out sets one after the other, inner ones first.

    Axes are padded with zeros to the most that any ridge has, p.

    Attributes
    ----------
    inner_from, outer_from : (n_folds + 1,) where the held-out sets of each outer fold begin
    train, held : (n_sets,) positions in `langcortex.sums.Sums`
    first, width : (n_sets,) the basis: its first column and number of columns
    turned, alike : (n_sets,) bool: axes are turned; what a training set lacks of the whole is the held-out set
    whole : (n_sets,) number of the larger set from which training rows are taken away, −1 where they are added up
    segments : segment numbers, cut by the next three
    trained_from, held_from, whole_from : (n + 1,)
    turn, start : (n_sets, most columns, p) and (n_sets, 1 + c, p) float32
    off, mean : (n_sets, p, 2 + c) and (n_sets, p) float32
    shrink, pairs, bare : (n_sets, n_alphas, p), (n_sets, n_alphas, p (p + 1) / 2), (n_sets, p (p + 1) / 2) float32
    learnt, gram : (n_sets, 1 + c, 1 + c) float64
    """

    inner_from: np.ndarray
    outer_from: np.ndarray
    train: np.ndarray
    held: np.ndarray
    first: np.ndarray
    width: np.ndarray
    turned: np.ndarray
    alike: np.ndarray
    whole: np.ndarray
    segments: np.ndarray
    trained_from: np.ndarray
    held_from: np.ndarray
    whole_from: np.ndarray
    turn: np.ndarray
    start: np.ndarray
    off: np.ndarray
    mean: np.ndarray
    shrink: np.ndarray
    pairs: np.ndarray
    bare: np.ndarray
    learnt: np.ndarray
    gram: np.ndarray


@_jit
def fit_pairs(
    best: np.ndarray,
    inner: np.ndarray,
    scored: np.ndarray,
    product: np.ndarray,
    on: np.ndarray,
    power: np.ndarray,
    flat: np.ndarray,
    packed: Packed,
    centred: bool,
    least: float,
    tiny: float,
) -> None:
    """Choose the penalty of every outer fold by its inner folds, and score it on the fold's pieces.

    Parameters
    ----------
    best : (n_folds, n) int64, written: the position of the penalty
    inner : (n_folds, n) float32, written: its mean inner score, −inf without one
    scored : (n_pieces, 3, n) float64, written: r, SSE and SST; pieces of all folds, one after the other
    product : (n_segments, n_bases, n) float32
    on, power, flat : (n_sets, 1 + c, n) float64, (n_sets, n) float64, (n_sets, n) bool; see `langcortex.sums.Sums`
    packed : from `langcortex.packed.pack`
    centred : whether inner scores are correlations
    least : share of the power of responses below which what is left of them is rounding error
    tiny : float32, the least power of predictions that a correlation is defined for
    """
    p, n_alphas = packed.shrink.shape[2], packed.shrink.shape[1]
    n, n_folds, width = product.shape[2], len(packed.inner_from) - 1, packed.turn.shape[1]
    on_p, on_q = np.empty((p, LANES), np.float32), np.empty((p, LANES), np.float32)
    sums = np.empty((3, width, LANES), np.float32)
    both = np.empty((packed.pairs.shape[2], LANES), np.float32)
    curve, count = np.empty((n_alphas, LANES), np.float32), np.empty(LANES, np.float32)
    away, moments = np.zeros((on.shape[1] + 1, LANES), np.float32), np.empty((3, LANES))
    scale, none = np.zeros((2, LANES), np.float32), np.empty(LANES, np.bool_)
    for v0 in range(0, n, LANES):
        size = min(LANES, n - v0)
        last = -1
        for k in range(n_folds):
            curve[:] = np.float32(0.0)
            count[:] = np.float32(0.0)
            for i in range(packed.inner_from[k], packed.inner_from[k + 1]):
                _clean(away, moments, scale, none, on, power, flat, packed, i, v0, size, least)
                last = _on_axes(on_p, on_q, sums, product, on, away, packed, i, v0, size, last)
                _pairs_of(both, on_p)
                _add_scores(
                    curve, count, on_p, on_q, both, scale, packed.shrink[i], packed.pairs[i], centred, tiny
                )
            _choose(best[k], inner[k], curve, count, v0, size)
            for i in range(packed.outer_from[k], packed.outer_from[k + 1]):
                _clean(away, moments, scale, none, on, power, flat, packed, i, v0, size, least)
                last = _on_axes(on_p, on_q, sums, product, on, away, packed, i, v0, size, last)
                piece = scored[i - packed.outer_from[0]]
                _test(piece, best[k], on_p, on_q, both, moments, none, packed, i, v0, size, tiny)


@_jit
def _clean(
    away: np.ndarray,
    moments: np.ndarray,
    scale: np.ndarray,
    none: np.ndarray,
    on: np.ndarray,
    power: np.ndarray,
    flat: np.ndarray,
    packed: Packed,
    one: int,
    v0: int,
    size: int,
    least: float,
) -> None:
    """Take off held-out sums what training rows say of mean and confounds; see `langcortex.scoring.Cleaned`."""
    learnt, gram = packed.learnt[one], packed.gram[one]
    train, held = packed.train[one], packed.held[one]
    width, n_rows = gram.shape[0], gram[0, 0]
    coef, left = np.empty(width), np.empty(width)
    for v in range(size):
        rest = power[held, v0 + v]
        for i in range(width):
            coef[i] = 0.0
            for j in range(width):
                coef[i] += learnt[i, j] * on[train, j, v0 + v]
            away[i, v] = coef[i]
        for i in range(width):
            left[i] = on[held, i, v0 + v]
            for j in range(width):
                left[i] -= gram[i, j] * coef[j]
            rest -= coef[i] * (on[held, i, v0 + v] + left[i])
        away[width, v] = left[0]
        none[v] = flat[held, v0 + v] or rest <= least * power[held, v0 + v]
        rest = max(rest, 0.0)
        mean = left[0] / n_rows
        around = max(rest - n_rows * mean * mean, 0.0)
        moments[0, v], moments[1, v], moments[2, v] = mean, around, rest
        scale[0, v] = 0.0 if none[v] or around <= 0.0 else 1.0 / np.sqrt(around)
        scale[1, v] = 0.0 if none[v] or rest <= 0.0 else 1.0 / rest


@_jit
def _add_up(
    total: np.ndarray, product: np.ndarray, segments: np.ndarray, first: int, v0: int, size: int
) -> None:
    """Sum the products of a basis over segments: (width, LANES)."""
    for i in range(total.shape[0]):
        row = total[i]
        row[:] = np.float32(0.0)
        for s in segments:
            part = product[s, first + i, v0 : v0 + size]
            for v in range(size):
                row[v] += part[v]


@_jit
def _turned(
    out: np.ndarray, sums: np.ndarray, turn: np.ndarray, start: np.ndarray, on: np.ndarray, v0: int, size: int
) -> None:
    """Turn sums onto a ridge's own axes: turnᵀ sums + startᵀ on."""
    width, p = turn.shape
    full = width - width % 4
    for j in range(p):
        total = out[j]
        total[:] = np.float32(0.0)
        for c in range(start.shape[0]):
            k, part = start[c, j], on[c, v0 : v0 + size]
            for v in range(size):
                total[v] += k * np.float32(part[v])
        for i in range(0, full, 4):
            k0, k1, k2, k3 = turn[i, j], turn[i + 1, j], turn[i + 2, j], turn[i + 3, j]
            for v in range(LANES):
                total[v] += k0 * sums[i, v] + k1 * sums[i + 1, v] + k2 * sums[i + 2, v] + k3 * sums[i + 3, v]
        for i in range(full, width):
            k = turn[i, j]
            for v in range(LANES):
                total[v] += k * sums[i, v]


@_jit
def _on_axes(
    on_p: np.ndarray,
    on_q: np.ndarray,
    sums: np.ndarray,
    product: np.ndarray,
    on: np.ndarray,
    away: np.ndarray,
    packed: Packed,
    one: int,
    v0: int,
    size: int,
    last: int,
) -> int:
    """Write P and Q of one held-out set for a few targets; give the number of the sum of a whole set that is kept."""
    first, width, whole = packed.first[one], packed.width[one], packed.whole[one]
    trained = packed.segments[packed.trained_from[one] : packed.trained_from[one + 1]]
    held = packed.segments[packed.held_from[one] : packed.held_from[one + 1]]
    train, test, total = sums[0, :width], sums[1, :width], sums[2, :width]
    _add_up(test, product, held, first, v0, size)
    if whole >= 0:
        if whole != last:
            parts = packed.segments[packed.whole_from[whole] : packed.whole_from[whole + 1]]
            _add_up(total, product, parts, first, v0, size)
        if packed.alike[one]:
            for i in range(width):
                for v in range(LANES):
                    train[i, v] = total[i, v] - test[i, v]
        else:
            _add_up(train, product, trained, first, v0, size)
            for i in range(width):
                for v in range(LANES):
                    train[i, v] = total[i, v] - train[i, v]
        last = whole
    else:
        _add_up(train, product, trained, first, v0, size)
    if packed.turned[one]:
        turn, start = packed.turn[one, :width], packed.start[one]
        _turned(on_p, train, turn, start, on[packed.train[one]], v0, size)
        _turned(on_q, test, turn, start, on[packed.held[one]], v0, size)
    else:
        on_p[:] = np.float32(0.0)
        on_q[:] = np.float32(0.0)
        on_p[:width] = train
        on_q[:width] = test
    off = packed.off[one]
    for j in range(off.shape[0]):
        row = on_q[j]
        for c in range(off.shape[1]):
            k, less = off[j, c], away[c]
            for v in range(LANES):
                row[v] -= k * less[v]
    return last


@_jit
def _pairs_of(both: np.ndarray, on_p: np.ndarray) -> None:
    """Multiply every pair of axes."""
    t = 0
    for i in range(on_p.shape[0]):
        for j in range(i, on_p.shape[0]):
            row, a, b = both[t], on_p[i], on_p[j]
            for v in range(LANES):
                row[v] = a[v] * b[v]
            t += 1


@_jit
def _weigh(out: np.ndarray, coefs: np.ndarray, rows: np.ndarray) -> None:
    """Sum rows by coefficients, eight at a time."""
    n = rows.shape[0]
    full = n - n % 8
    out[:] = np.float32(0.0)
    for t in range(0, full, 8):
        for v in range(LANES):
            out[v] += (
                coefs[t] * rows[t, v]
                + coefs[t + 1] * rows[t + 1, v]
                + coefs[t + 2] * rows[t + 2, v]
                + coefs[t + 3] * rows[t + 3, v]
                + coefs[t + 4] * rows[t + 4, v]
                + coefs[t + 5] * rows[t + 5, v]
                + coefs[t + 6] * rows[t + 6, v]
                + coefs[t + 7] * rows[t + 7, v]
            )
    for t in range(full, n):
        for v in range(LANES):
            out[v] += coefs[t] * rows[t, v]


@_jit
def _add_scores(
    curve: np.ndarray,
    count: np.ndarray,
    on_p: np.ndarray,
    on_q: np.ndarray,
    both: np.ndarray,
    scale: np.ndarray,
    shrink: np.ndarray,
    pairs: np.ndarray,
    centred: bool,
    tiny: float,
) -> None:
    """Add the scores of every penalty on one held-out set, and whether that of the smallest is defined."""
    cov, var, known = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.ones(LANES, np.float32)
    unit = scale[0] if centred else scale[1]
    for j in range(on_p.shape[0]):
        for v in range(LANES):
            on_q[j, v] *= on_p[j, v]
    for a in range(curve.shape[0]):
        _weigh(cov, shrink[a], on_q)
        _weigh(var, pairs[a], both)
        row = curve[a]
        if centred:
            for v in range(LANES):
                known[v] = var[v] > tiny
                row[v] += cov[v] * known[v] / np.sqrt(max(var[v], tiny)) * unit[v]
        else:
            for v in range(LANES):
                row[v] += (np.float32(2.0) * cov[v] - var[v]) * unit[v]
    for v in range(LANES):
        count[v] += known[v] * np.float32(unit[v] > 0)


@_jit
def _choose(
    best: np.ndarray, inner: np.ndarray, curve: np.ndarray, count: np.ndarray, v0: int, size: int
) -> None:
    """Pick the best penalty; the largest of equals, and of those without a score."""
    for v in range(size):
        most, where = curve[0, v], 0
        for a in range(1, curve.shape[0]):
            if curve[a, v] > most:
                most, where = curve[a, v], a
        best[v0 + v] = where if count[v] > 0 else 0
        inner[v0 + v] = most / count[v] if count[v] > 0 else -np.inf


@_jit
def _test(
    scored: np.ndarray,
    best: np.ndarray,
    on_p: np.ndarray,
    on_q: np.ndarray,
    both: np.ndarray,
    moments: np.ndarray,
    none: np.ndarray,
    packed: Packed,
    one: int,
    v0: int,
    size: int,
    tiny: float,
) -> None:
    """Write r, SSE and SST of the chosen penalty."""
    shrink, mean, n_rows = packed.shrink[one], packed.mean[one], packed.gram[one, 0, 0]
    cov, var, offset = np.zeros(LANES, np.float32), np.empty(LANES, np.float32), np.zeros(LANES, np.float32)
    for j in range(on_p.shape[0]):
        for v in range(size):
            on_p[j, v] *= shrink[best[v0 + v], j]
            cov[v] += on_p[j, v] * on_q[j, v]
            offset[v] += mean[j] * on_p[j, v]
    _pairs_of(both, on_p)
    _weigh(var, packed.bare[one], both)
    for v in range(size):
        around, total = moments[1, v], moments[2, v]
        power, together = np.float64(max(var[v], np.float32(0.0))), np.float64(cov[v])
        known = not none[v] and power > tiny and n_rows >= 3 and around > 0
        r = together / np.sqrt(power * around) if known else np.nan
        error = around - 2.0 * together + power + n_rows * (moments[0, v] - offset[v]) ** 2
        scored[0, v0 + v] = min(max(r, -1.0), 1.0) if known else np.nan
        scored[1, v0 + v] = np.nan if none[v] else max(error, 0.0)
        scored[2, v0 + v] = np.nan if none[v] else total
