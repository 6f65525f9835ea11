"""The fitting engine for few axes, compiled: some targets' numbers stay in the cache from responses to scores.

With few axes the engine's matrix products are so small that reading and writing what lies between them takes longer than
the products themselves. Here one pass does it all for a few dozen targets at a time. numba compiles it when it is first
used and keeps the result on disk; without numba (``pip install "langcortex[fast]"``) the engine does the same in numpy.
This module loads numba: import it when it is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from langcortex.ridge.compiled.tiles import FLOATS, LANES, compile_function, multiply, pack_rows, project


class PackedPlan(NamedTuple):
    """A plan of few axes as a few arrays, for compiled code: held-out sets one after the other, inner ones first.

    Axes and penalties are padded with zeros: axes to the most that any ridge has, p, and what is a row of a product (axes,
    p2; penalties, a2) as `langcortex.ridge.compiled.tiles.padded` has it.

    Attributes
    ----------
    inner_from, outer_from : (n_folds + 1,) where the held-out sets of each outer fold begin
    order, edges : (n_rows_used,) row numbers, segment after segment; (n_segments + 1,) where each begins
    panels : the bases over these rows, see `langcortex.ridge.compiled.tiles.panels_of`
    train, held : (n_sets,) positions in `langcortex.ridge.moments.ResponseMoments`
    first, width : (n_sets,) the basis: its first column and number of columns
    turned, alike : (n_sets,) bool: axes are turned; what a training set lacks of the whole is the held-out set
    whole : (n_sets,) number of the larger set from which training rows are taken away, −1 where they are added up
    segments : segment numbers, cut by the next three
    trained_from, held_from, whole_from : (n + 1,)
    turn : (n_sets, p2, most columns + 1 + c + 2 + c) float32, from a basis's products, [1, C]ᵀy, and what cleaning takes off
        (held-out rows only) to the ridge's own axes
    mean : (n_sets, p) float32
    shrink, square : (n_sets, a2, p) float32, d, and d² times the held-out power of each axis
    across, apart : (n_sets, p2, p) and (n_sets, a2, p) float64, see `langcortex.ridge.powers.PairSums`
    power : (n_sets, p2, p) float32, products of held-out coordinates
    learnt, gram : (n_sets, 1 + c, 1 + c) float64
    """

    inner_from: np.ndarray
    outer_from: np.ndarray
    order: np.ndarray
    edges: np.ndarray
    panels: np.ndarray
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
    mean: np.ndarray
    shrink: np.ndarray
    square: np.ndarray
    across: np.ndarray
    apart: np.ndarray
    power: np.ndarray
    learnt: np.ndarray
    gram: np.ndarray


class PackedMoments(NamedTuple):
    """What the responses say over every set of rows, see `langcortex.ridge.moments.ResponseMoments`, and how it is scored.

    Attributes
    ----------
    on, power, flat : (n_sets, 1 + c, n) float64, (n_sets, n) float64, (n_sets, n) bool
    centred : whether inner scores are correlations
    least : share of the power of responses below which what is left of them is rounding error
    tiny : float32, the least power of predictions that a correlation is defined for
    """

    on: np.ndarray
    power: np.ndarray
    flat: np.ndarray
    centred: bool
    least: float
    tiny: np.float32


class FitOutput(NamedTuple):
    """What is written.

    Attributes
    ----------
    best : (n_folds, n) int64, the position of the penalty
    inner : (n_folds, n) float32, its mean inner score, −inf without one
    scored : (n_pieces, 3, n) float64, r, SSE and SST; pieces of all folds, one after the other
    """

    best: np.ndarray
    inner: np.ndarray
    scored: np.ndarray


class Workspace(NamedTuple):
    """Arrays of LANES columns that are written over and over.

    Attributes
    ----------
    product : (n_segments, n_bases padded, LANES) the products of all bases with responses
    lines : (2, most columns + 1 + c + 2 + c, LANES) what is turned: of training rows, of held-out rows
    total : (most columns, LANES) products over a whole set
    """

    product: np.ndarray
    lines: np.ndarray
    total: np.ndarray
    on_p: np.ndarray
    on_q: np.ndarray
    wide: np.ndarray
    others: np.ndarray
    cov: np.ndarray
    var: np.ndarray
    rest: np.ndarray
    curve: np.ndarray
    coef: np.ndarray
    left: np.ndarray
    moments: np.ndarray
    unit: np.ndarray
    n_known: np.ndarray
    none: np.ndarray


def new_output(packed: PackedPlan, n: int) -> FitOutput:
    """Make room for what is found of n targets."""
    n_folds, n_pieces = len(packed.inner_from) - 1, int(packed.outer_from[-1] - packed.outer_from[0])
    return FitOutput(
        np.zeros((n_folds, n), np.int64), np.empty((n_folds, n), np.float32), np.empty((n_pieces, 3, n))
    )


def new_workspace(packed: PackedPlan, n_alphas: int) -> Workspace:
    """Make room to work in."""
    (p2, n_lines), a2, c = packed.turn.shape[1:], packed.shrink.shape[1], packed.learnt.shape[1]
    columns, n_bases = n_lines - 2 * c - 1, packed.panels.shape[0] * packed.panels.shape[2]

    def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
        return np.zeros((*shape, LANES), dtype)

    wide = np.float64
    return Workspace(
        zeros(len(packed.edges) - 1, n_bases), zeros(2, n_lines), zeros(columns), zeros(p2), zeros(p2),
        zeros(p2, dtype=wide), zeros(p2, dtype=wide), zeros(a2), zeros(a2), zeros(a2, dtype=wide), zeros(n_alphas),
        zeros(c, dtype=wide), zeros(c, dtype=wide), zeros(3), zeros(), zeros(), zeros(),
    )  # fmt: skip


@compile_function()
def fit_responses(
    found: FitOutput, y: np.ndarray, said: PackedMoments, packed: PackedPlan, room: Workspace
) -> None:
    """Choose the penalty of every outer fold by its inner folds, and score it on the fold's pieces.

    Parameters
    ----------
    found : written
    y : (n_rows, at least n) float32, from `langcortex.ridge.compiled.tiles.rows_of`
    """
    n, edges = found.best.shape[1], packed.edges
    longest = 0
    for s in range(len(edges) - 1):
        longest = max(longest, edges[s + 1] - edges[s])
    rows = np.zeros((LANES // FLOATS, longest, FLOATS), np.float32)
    for v0 in range(0, n, LANES):
        size = min(LANES, n - v0)
        for s in range(len(edges) - 1):
            begin, end = edges[s], edges[s + 1]
            pack_rows(rows, y, packed.order[begin:end], v0, size)
            project(room.product[s], packed.panels, begin, end, rows, 0)
        fit_lane_group(found, said, packed, room, v0, size)


@compile_function()
def fit_products(
    found: FitOutput, product: np.ndarray, said: PackedMoments, packed: PackedPlan, room: Workspace
) -> None:
    """Do what `fit_responses` does from products that were made beforehand: (n_segments, n_bases, n) float32."""
    n = found.best.shape[1]
    for v0 in range(0, n, LANES):
        size = min(LANES, n - v0)
        for s in range(product.shape[0]):
            for i in range(product.shape[1]):
                row, part = room.product[s, i], product[s, i, v0 : v0 + size]
                for v in range(size):
                    row[v] = part[v]
        fit_lane_group(found, said, packed, room, v0, size)


@compile_function()
def fit_lane_group(
    found: FitOutput, said: PackedMoments, packed: PackedPlan, room: Workspace, v0: int, size: int
) -> None:
    """Do it for the targets whose products are in the room: `size` from `v0` on."""
    last = -1
    for k in range(len(packed.inner_from) - 1):
        room.curve[:] = np.float32(0.0)
        room.n_known[:] = np.float32(0.0)
        for i in range(packed.inner_from[k], packed.inner_from[k + 1]):
            _clean(room, said, packed, i, v0, size)
            last = _on_axes(room, said, packed, i, v0, size, last)
            _powers(room, packed.shrink[i], packed.square[i], packed.across[i], packed.apart[i])
            _add_scores(room, said.centred, said.tiny)
        _choose(found.best[k], found.inner[k], room, v0, size)
        for i in range(packed.outer_from[k], packed.outer_from[k + 1]):
            _clean(room, said, packed, i, v0, size)
            last = _on_axes(room, said, packed, i, v0, size, last)
            piece = found.scored[i - packed.outer_from[0]]
            _test(piece, found.best[k], room, packed, i, v0, size, said.tiny)


@compile_function()
def _clean(room: Workspace, said: PackedMoments, packed: PackedPlan, one: int, v0: int, size: int) -> None:
    """Take off held-out sums what training rows say of mean and confounds; see `langcortex.ridge.solve.AdjustedResponses`."""
    learnt, gram = packed.learnt[one], packed.gram[one]
    train, held, end = packed.train[one], packed.held[one], v0 + size
    whole, flat = said.power[held, v0:end], said.flat[held, v0:end]
    width, n_rows = gram.shape[0], gram[0, 0]
    away, coef, left = room.lines[1, len(room.total) + width :], room.coef, room.left
    for i in range(width):
        own, k, first = coef[i], learnt[i, 0], said.on[train, 0, v0:end]
        for v in range(size):
            own[v] = k * first[v]
        for j in range(1, width):
            k, other = learnt[i, j], said.on[train, j, v0:end]
            for v in range(size):
                own[v] += k * other[v]
        line = away[i]
        for v in range(size):
            line[v] = own[v]
    for i in range(width):
        remain, k, first, on = left[i], gram[i, 0], coef[0], said.on[held, i, v0:end]
        for v in range(size):
            remain[v] = on[v] - k * first[v]
        for j in range(1, width):
            k, other = gram[i, j], coef[j]
            for v in range(size):
                remain[v] -= k * other[v]
    # what is left of power, (n,) float64, in the place of the first coefficient
    rest, first, on, remain = coef[0], coef[0], said.on[held, 0, v0:end], left[0]
    for v in range(size):
        rest[v] = whole[v] - first[v] * (on[v] + remain[v])
    for i in range(1, width):
        other, on, remain = coef[i], said.on[held, i, v0:end], left[i]
        for v in range(size):
            rest[v] -= other[v] * (on[v] + remain[v])
    line, mean, around, power = away[width], room.moments[0], room.moments[1], room.moments[2]
    remain, none, least, share = left[0], room.none, said.least, 1.0 / n_rows
    for v in range(size):
        none[v] = np.float32(1.0) if flat[v] or rest[v] <= least * whole[v] else np.float32(0.0)
    for v in range(size):
        line[v] = remain[v]
        mean[v] = remain[v] * share
        power[v] = max(rest[v], 0.0)
        around[v] = max(rest[v] - remain[v] * remain[v] * share, 0.0)
    zero, unity = np.float32(0.0), np.float32(1.0)
    if said.centred:
        for v in range(size):
            unknown = none[v] > zero or around[v] <= zero
            room.unit[v] = zero if unknown else unity / np.sqrt(unity if unknown else around[v])
    else:
        for v in range(size):
            unknown = none[v] > zero or power[v] <= zero
            room.unit[v] = zero if unknown else unity / (unity if unknown else power[v])


@compile_function()
def _add_up(total: np.ndarray, product: np.ndarray, segments: np.ndarray, first: int) -> None:
    """Sum the products of a basis over segments: (width, LANES)."""
    for i in range(total.shape[0]):
        row, part = total[i], product[segments[0], first + i]
        for v in range(LANES):
            row[v] = part[v]
        for s in segments[1:]:
            part = product[s, first + i]
            for v in range(LANES):
                row[v] += part[v]


@compile_function()
def _less(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Write a − b."""
    for i in range(out.shape[0]):
        row, one, other = out[i], a[i], b[i]
        for v in range(LANES):
            row[v] = one[v] - other[v]


@compile_function()
def _on_axes(
    room: Workspace, said: PackedMoments, packed: PackedPlan, one: int, v0: int, size: int, last: int
) -> int:
    """Write P and Q of one held-out set; give the number of the sum of a whole set that is kept."""
    first, width, whole = packed.first[one], packed.width[one], packed.whole[one]
    trained = packed.segments[packed.trained_from[one] : packed.trained_from[one + 1]]
    held = packed.segments[packed.held_from[one] : packed.held_from[one + 1]]
    columns, c = len(room.total), said.on.shape[1]
    train, test, total = room.lines[0, :width], room.lines[1, :width], room.total[:width]
    _add_up(test, room.product, held, first)
    if whole >= 0:
        if whole != last:
            parts = packed.segments[packed.whole_from[whole] : packed.whole_from[whole + 1]]
            _add_up(total, room.product, parts, first)
        if packed.alike[one]:
            _less(train, total, test)
        else:
            _add_up(train, room.product, trained, first)
            _less(train, total, train)
        last = whole
    else:
        _add_up(train, room.product, trained, first)
    turn = packed.turn[one]
    if packed.turned[one]:
        for side in range(2):
            of = packed.train[one] if side == 0 else packed.held[one]
            room.lines[side, width:columns] = np.float32(0.0)
            for i in range(c):
                row, part = room.lines[side, columns + i], said.on[of, i, v0 : v0 + size]
                for v in range(size):
                    row[v] = part[v]
        multiply(room.on_p, None, turn[:, : columns + c], room.lines[0, : columns + c], None)
        multiply(room.on_q, None, turn, room.lines[1], None)
    else:
        room.on_p[width:], room.on_q[width:] = np.float32(0.0), np.float32(0.0)
        room.on_p[:width] = train
        room.on_q[:width] = test
        multiply(room.on_q, room.on_q, turn[:, columns + c :], room.lines[1, columns + c :], None)
    return last


@compile_function()
def _powers(
    room: Workspace, shrink: np.ndarray, square: np.ndarray, across: np.ndarray, apart: np.ndarray
) -> None:
    """Write the products of every penalty's predictions with held-out responses, and their powers: var + rest."""
    for j in range(room.wide.shape[0]):
        p, q, w = room.on_p[j], room.on_q[j], room.wide[j]
        for v in range(LANES):
            w[v] = p[v]
        for v in range(LANES):
            q[v] *= p[v]
        for v in range(LANES):
            p[v] *= p[v]
    multiply(room.cov, None, shrink, room.on_q, None)
    multiply(room.var, None, square, room.on_p, None)
    multiply(room.others, None, across, room.wide, room.wide)
    multiply(room.rest, None, apart, room.others, None)


@compile_function()
def _add_scores(room: Workspace, centred: bool, tiny: np.float32) -> None:
    """Add the scores of every penalty on one held-out set, and whether that of the smallest is defined."""
    unit, count, zero, two = room.unit, room.n_known, np.float32(0.0), np.float32(2.0)
    for a in range(room.curve.shape[0]):
        row, cov, var, rest = room.curve[a], room.cov[a], room.var[a], room.rest[a]
        for v in range(LANES):
            var[v] += np.float32(rest[v])
        if centred:
            for v in range(LANES):
                here = cov[v] / np.sqrt(max(var[v], tiny)) * unit[v]
                row[v] += here if var[v] > tiny else zero
        else:
            for v in range(LANES):
                row[v] += (two * cov[v] - var[v]) * unit[v]
    var = room.var[room.curve.shape[0] - 1]
    for v in range(LANES):
        known = unit[v] > zero and (not centred or var[v] > tiny)
        count[v] += np.float32(1.0) if known else zero


@compile_function()
def _choose(best: np.ndarray, inner: np.ndarray, room: Workspace, v0: int, size: int) -> None:
    """Pick the best penalty; the largest of equals, and of those without a score."""
    most, where, count = room.cov[0], room.var[0], room.n_known
    most[:], where[:] = room.curve[0], np.float32(0.0)
    for a in range(1, room.curve.shape[0]):
        here, number = room.curve[a], np.float32(a)
        for v in range(LANES):
            where[v] = number if here[v] > most[v] else where[v]
            most[v] = max(here[v], most[v])
    for v in range(size):
        best[v0 + v] = np.int64(where[v]) if count[v] > 0 else 0
        inner[v0 + v] = most[v] / count[v] if count[v] > 0 else -np.inf


@compile_function()
def _test(
    scored: np.ndarray,
    best: np.ndarray,
    room: Workspace,
    packed: PackedPlan,
    one: int,
    v0: int,
    size: int,
    tiny: np.float32,
) -> None:
    """Write r, SSE and SST of the chosen penalty."""
    shrink, mean, n_rows = packed.shrink[one], packed.mean[one], packed.gram[one, 0, 0]
    # rows that inner folds used are free
    cov, var, offset = room.cov[0], room.var[0], room.unit
    cov[:], var[:], offset[:] = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for j in range(shrink.shape[1]):
        p, q, k = room.on_p[j], room.on_q[j], mean[j]
        for v in range(size):
            p[v] *= shrink[best[v0 + v], j]
        for v in range(size):
            cov[v] += p[v] * q[v]
            offset[v] += k * p[v]
    multiply(room.on_q, None, packed.power[one], room.on_p, None)
    for j in range(shrink.shape[1]):
        p, q = room.on_p[j], room.on_q[j]
        for v in range(size):
            var[v] += p[v] * q[v]
    for v in range(size):
        around, total, none = room.moments[1, v], room.moments[2, v], room.none[v] > 0
        power, together = np.float64(max(var[v], np.float32(0.0))), np.float64(cov[v])
        known = not none and power > tiny and n_rows >= 3 and around > 0
        r = together / np.sqrt(power * around) if known else np.nan
        error = around - 2.0 * together + power + n_rows * (room.moments[0, v] - offset[v]) ** 2
        scored[0, v0 + v] = min(max(r, -1.0), 1.0) if known else np.nan
        scored[1, v0 + v] = np.nan if none else max(error, 0.0)
        scored[2, v0 + v] = np.nan if none else total
