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
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 128  # targets that go through together: a few vectors of the processor
ROWS, BYTES = 4, 64  # rows of a product, and bytes of each, that stay in registers

F = TypeVar("F", bound=Callable[..., Any])


def jit(*more: str) -> Callable[[F], F]:
    """Compile a function when it is first called, and keep the result on disk; `more` that is known of its numbers."""
    made: Callable[[F], F] = numba.njit(
        nogil=True, cache=True, fastmath={"reassoc", "contract", *more}, error_model="numpy"
    )
    return made


class Packed(NamedTuple):
    """A plan of few axes as a few arrays, for compiled code: held-out sets one after the other, inner ones first.

    Axes and penalties are padded with zeros: axes to the most that any ridge has, p, and what is a row of a product (axes,
    p4; penalties, a4) to a multiple of four.

    Attributes
    ----------
    inner_from, outer_from : (n_folds + 1,) where the held-out sets of each outer fold begin
    train, held : (n_sets,) positions in `langcortex.sums.Sums`
    first, width : (n_sets,) the basis: its first column and number of columns
    turned, alike : (n_sets,) bool: axes are turned; what a training set lacks of the whole is the held-out set
    whole : (n_sets,) number of the larger set from which training rows are taken away, −1 where they are added up
    segments : segment numbers, cut by the next three
    trained_from, held_from, whole_from : (n + 1,)
    turn : (n_sets, p4, most columns + 1 + c) float32, from a basis's products and [1, C]ᵀy to the ridge's own axes
    off : (n_sets, p4, 2 + c) float32, what cleaning adds to Q
    mean : (n_sets, p) float32
    shrink, square : (n_sets, a4, p) float32, d, and d² times the held-out power of each axis
    across, apart : (n_sets, p4, p) and (n_sets, a4, p) float64, see `langcortex.divided.Pairs`
    power : (n_sets, p4, p) float32, products of held-out coordinates
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
    off: np.ndarray
    mean: np.ndarray
    shrink: np.ndarray
    square: np.ndarray
    across: np.ndarray
    apart: np.ndarray
    power: np.ndarray
    learnt: np.ndarray
    gram: np.ndarray


@jit()
def fit_pairs(
    best: np.ndarray,
    inner: np.ndarray,
    scored: np.ndarray,
    product: np.ndarray,
    on: np.ndarray,
    power: np.ndarray,
    flat: np.ndarray,
    packed: Packed,
    n_alphas: int,
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
    n_alphas : how many penalties there are
    centred : whether inner scores are correlations
    least : share of the power of responses below which what is left of them is rounding error
    tiny : float32, the least power of predictions that a correlation is defined for
    """
    n, n_folds, c = product.shape[2], len(packed.inner_from) - 1, on.shape[1]
    p4, columns, a4 = packed.turn.shape[1], packed.turn.shape[2] - c, packed.shrink.shape[1]
    on_p, on_q = np.zeros((p4, LANES), np.float32), np.zeros((p4, LANES), np.float32)
    sums = np.zeros((3, columns + c, LANES), np.float32)
    wide, others = np.zeros((p4, LANES)), np.empty((p4, LANES))
    cov, var = np.empty((a4, LANES), np.float32), np.empty((a4, LANES), np.float32)
    rest = np.empty((a4, LANES))
    curve, count = np.empty((n_alphas, LANES), np.float32), np.empty(LANES, np.float32)
    away, moments = np.zeros((c + 1, LANES), np.float32), np.zeros((3, LANES))
    coef, left = np.zeros((c, LANES)), np.zeros((c, LANES))
    scale, none = np.zeros((2, LANES), np.float32), np.zeros(LANES, np.bool_)
    for v0 in range(0, n, LANES):
        size = min(LANES, n - v0)
        last = -1
        for k in range(n_folds):
            curve[:] = np.float32(0.0)
            count[:] = np.float32(0.0)
            for i in range(packed.inner_from[k], packed.inner_from[k + 1]):
                _clean(away, moments, scale, none, coef, left, on, power, flat, packed, i, v0, size, least)
                last = _on_axes(on_p, on_q, sums, product, on, away, packed, i, v0, size, last)
                _powers(
                    cov, var, rest, on_p, on_q, wide, others, packed.shrink[i], packed.square[i], packed.across[i], packed.apart[i]
                )  # fmt: skip
                _add_scores(curve, count, cov, var, rest, scale, centred, tiny)
            _choose(best[k], inner[k], curve, count, v0, size)
            for i in range(packed.outer_from[k], packed.outer_from[k + 1]):
                _clean(away, moments, scale, none, coef, left, on, power, flat, packed, i, v0, size, least)
                last = _on_axes(on_p, on_q, sums, product, on, away, packed, i, v0, size, last)
                piece = scored[i - packed.outer_from[0]]
                _test(piece, best[k], on_p, on_q, moments, none, packed, i, v0, size, tiny)


@jit()
def _clean(
    away: np.ndarray,
    moments: np.ndarray,
    scale: np.ndarray,
    none: np.ndarray,
    coef: np.ndarray,
    left: np.ndarray,
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
    trained, tested = on[packed.train[one], :, v0 : v0 + size], on[packed.held[one], :, v0 : v0 + size]
    whole, constant = power[packed.held[one], v0 : v0 + size], flat[packed.held[one], v0 : v0 + size]
    width, n_rows = gram.shape[0], gram[0, 0]
    mean, around, rest = moments[0], moments[1], moments[2]
    for v in range(size):
        rest[v] = whole[v]
    for i in range(width):
        own, remain = coef[i], left[i]
        own[:] = 0.0
        for j in range(width):
            k = learnt[i, j]
            for v in range(size):
                own[v] += k * trained[j, v]
        for v in range(size):
            remain[v] = tested[i, v]
    for i in range(width):
        remain = left[i]
        for j in range(width):
            k = gram[i, j]
            for v in range(size):
                remain[v] -= k * coef[j, v]
        for v in range(size):
            rest[v] -= coef[i, v] * (tested[i, v] + remain[v])
            away[i, v] = coef[i, v]
    for v in range(size):
        away[width, v] = left[0, v]
        none[v] = constant[v] or rest[v] <= least * whole[v]
        rest[v] = max(rest[v], 0.0)
        mean[v] = left[0, v] / n_rows
        around[v] = max(rest[v] - n_rows * mean[v] * mean[v], 0.0)
    for v in range(size):
        unknown = none[v] or around[v] <= 0.0
        length = 1.0 / np.sqrt(1.0 if unknown else around[v])
        scale[0, v] = 0.0 if unknown else length
        unknown = none[v] or rest[v] <= 0.0
        length = 1.0 / (1.0 if unknown else rest[v])
        scale[1, v] = 0.0 if unknown else length


@jit()
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


def _tile_types(of: Any, out: Any, start: Any, coefs: Any, rows: Any, by: Any, i: Any, v: Any) -> Any:
    """Say what a tile's arguments are, and write its instructions: numba's form of an intrinsic.

    A tile is ROWS rows by BYTES bytes of `_multiply`, from row i and column v on. Its sums stay in registers over all columns of
    `coefs`; loops over arrays store them each time, which takes half as long again. Vectors are LLVM's own, for any processor.
    """
    arrays = (out, start, coefs, rows, by)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def at(which: int, row: Any, column: Any) -> Any:
            array = context.make_array(arrays[which])(context, builder, args[which])
            return cgutils.get_item_pointer(context, builder, arrays[which], array, [row, column])

        number = context.get_value_type(out.dtype)
        size = context.get_abi_sizeof(number)
        vector = ir.VectorType(number, BYTES // size)
        whole, index, one = vector.as_pointer(), args[5].type, ir.IntType(32)

        def read(which: int, row: Any) -> Any:
            return builder.load(builder.bitcast(at(which, row, args[6]), whole), align=size)

        def spread(value: Any) -> Any:
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, one(0))
            return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(one, BYTES // size), None))

        lines = [builder.add(args[5], index(r)) for r in range(ROWS)]
        totals = [cgutils.alloca_once(builder, vector) for _ in lines]
        for line, total in zip(lines, totals, strict=True):
            builder.store(ir.Constant(vector, None) if start is types.none else read(1, line), total)
        shape = context.make_array(coefs)(context, builder, args[2]).shape
        n_columns = cgutils.unpack_tuple(builder, shape)[1]
        with cgutils.for_range(builder, n_columns) as loop:
            x = read(3, loop.index)
            for line, total in zip(lines, totals, strict=True):
                part = builder.fmul(spread(builder.load(at(2, line, loop.index))), x, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), part, flags=("contract",)), total)
        for line, total in zip(lines, totals, strict=True):
            value = builder.load(total)
            value = value if by is types.none else builder.fmul(value, read(4, line))
            builder.store(value, builder.bitcast(at(0, line, args[6]), whole), align=size)
        return context.get_dummy_value()

    return types.void(out, start, coefs, rows, by, i, v), codegen


_tile = intrinsic(_tile_types)


@jit()
def _multiply(
    out: np.ndarray, start: np.ndarray | None, coefs: np.ndarray, rows: np.ndarray, by: np.ndarray | None
) -> None:
    """Write (start + coefs @ rows) * by, without start or by where they are None: (rows of coefs, LANES)."""
    for i in range(0, coefs.shape[0], ROWS):
        for v in range(0, LANES, BYTES // out.itemsize):
            _tile(out, start, coefs, rows, by, i, v)


@jit()
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
        columns = sums.shape[1] - on.shape[1]
        for side in range(2):
            of = packed.train[one] if side == 0 else packed.held[one]
            sums[side, width:columns] = np.float32(0.0)
            for c in range(on.shape[1]):
                row, part = sums[side, columns + c], on[of, c, v0 : v0 + size]
                for v in range(size):
                    row[v] = part[v]
        _multiply(on_p, None, packed.turn[one], sums[0], None)
        _multiply(on_q, None, packed.turn[one], sums[1], None)
    else:
        on_p[width:], on_q[width:] = np.float32(0.0), np.float32(0.0)
        on_p[:width] = train
        on_q[:width] = test
    _multiply(on_q, on_q, packed.off[one], away, None)
    return last


@jit()
def _powers(
    cov: np.ndarray,
    var: np.ndarray,
    rest: np.ndarray,
    on_p: np.ndarray,
    on_q: np.ndarray,
    wide: np.ndarray,
    others: np.ndarray,
    shrink: np.ndarray,
    square: np.ndarray,
    across: np.ndarray,
    apart: np.ndarray,
) -> None:
    """Write the products of every penalty's predictions with held-out responses, and their powers: var + rest."""
    for j in range(wide.shape[0]):
        for v in range(LANES):
            p = on_p[j, v]
            on_q[j, v] *= p
            on_p[j, v] = p * p
            wide[j, v] = p
    _multiply(cov, None, shrink, on_q, None)
    _multiply(var, None, square, on_p, None)
    _multiply(others, None, across, wide, wide)
    _multiply(rest, None, apart, others, None)


@jit()
def _add_scores(
    curve: np.ndarray,
    count: np.ndarray,
    cov: np.ndarray,
    var: np.ndarray,
    rest: np.ndarray,
    scale: np.ndarray,
    centred: bool,
    tiny: float,
) -> None:
    """Add the scores of every penalty on one held-out set, and whether that of the smallest is defined."""
    known = np.ones(LANES, np.float32)
    unit = scale[0] if centred else scale[1]
    for a in range(curve.shape[0]):
        row = curve[a]
        for v in range(LANES):
            var[a, v] += np.float32(rest[a, v])
        if centred:
            for v in range(LANES):
                known[v] = var[a, v] > tiny
                row[v] += cov[a, v] * known[v] / np.sqrt(max(var[a, v], tiny)) * unit[v]
        else:
            for v in range(LANES):
                row[v] += (np.float32(2.0) * cov[a, v] - var[a, v]) * unit[v]
    for v in range(LANES):
        count[v] += known[v] * np.float32(unit[v] > 0)


@jit()
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


@jit()
def _test(
    scored: np.ndarray,
    best: np.ndarray,
    on_p: np.ndarray,
    on_q: np.ndarray,
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
    cov, var, offset = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    turned = np.empty(on_p.shape, np.float32)
    for j in range(shrink.shape[1]):
        for v in range(size):
            on_p[j, v] *= shrink[best[v0 + v], j]
        for v in range(size):
            cov[v] += on_p[j, v] * on_q[j, v]
            offset[v] += mean[j] * on_p[j, v]
    _multiply(turned, None, packed.power[one], on_p, None)
    for j in range(shrink.shape[1]):
        for v in range(size):
            var[v] += on_p[j, v] * turned[j, v]
    for v in range(size):
        around, total = moments[1, v], moments[2, v]
        power, together = np.float64(max(var[v], np.float32(0.0))), np.float64(cov[v])
        known = not none[v] and power > tiny and n_rows >= 3 and around > 0
        r = together / np.sqrt(power * around) if known else np.nan
        error = around - 2.0 * together + power + n_rows * (moments[0, v] - offset[v]) ** 2
        scored[0, v0 + v] = min(max(r, -1.0), 1.0) if known else np.nan
        scored[1, v0 + v] = np.nan if none[v] else max(error, 0.0)
        scored[2, v0 + v] = np.nan if none[v] else total
