"""The fitting engine for few components, compiled: a few targets stay in the cache from responses to scores.

With few components the engine's matrix products are so small that reading and writing their results takes longer than the
products themselves. Here one pass does it all for a few dozen targets at a time. numba compiles it when it is first
used and keeps the result on disk; without numba (``pip install "langcortex[fast]"``) the engine does the same in numpy.
This module loads numba: import it when it is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from langcortex.ridge.compiled.tiles import FLOATS, LANES, compile_function, multiply, pack_rows, project


class PackedPlan(NamedTuple):
    """A plan of few components as a few arrays, for compiled code: validation sets in order, those of inner folds first.

    Components and penalties are padded with zeros: components to the most that any training set has, p, and what is a row
    of a product (components, p2; penalties, a2) as `langcortex.ridge.compiled.tiles.padded` does. c is 1 + n_confounds.

    Attributes
    ----------
    inner_edges, outer_edges : (n_folds + 1,) where the validation sets of each outer fold begin
    row_order, block_edges : (n_rows_used,) row numbers, block after block; (n_blocks + 1,) where each begins
    panels : the bases over these rows, see `langcortex.ridge.compiled.tiles.panels_of`
    train_position, heldout_position : (n_sets,) positions in `langcortex.ridge.moments.ResponseMoments`
    basis_start, basis_width : (n_sets,) first column and number of columns of the basis
    is_rotated : (n_sets,) bool: components are rotated
    is_complement : (n_sets,) bool: what the training set lacks of its parent is the validation set
    parent : (n_sets,) number of the larger set from which products are subtracted, −1 where they are added up
    block_numbers : of all sets, with the next three saying where each begins
    train_edges, heldout_edges, parent_edges : (n + 1,)
    rotation : (n_sets, p2, largest width + c + c + 1) float32, from the products of a basis, [1, C]ᵀy, and the adjustment
        (held-out rows only) to the components of the training set
    mean : (n_sets, p) float32
    shrinkage, square_weights : (n_sets, a2, p) float32, d, and d² times the held-out sum of squares of each component
    pair_products, pair_weights : (n_sets, p2, p) and (n_sets, a2, p) float64, see `langcortex.ridge.powers.PairSums`
    score_products : (n_sets, p2, p) float32, products of held-out component scores
    moment_operator, nuisance_gram : (n_sets, c, c) float64
    """

    inner_edges: np.ndarray
    outer_edges: np.ndarray
    row_order: np.ndarray
    block_edges: np.ndarray
    panels: np.ndarray
    train_position: np.ndarray
    heldout_position: np.ndarray
    basis_start: np.ndarray
    basis_width: np.ndarray
    is_rotated: np.ndarray
    is_complement: np.ndarray
    parent: np.ndarray
    block_numbers: np.ndarray
    train_edges: np.ndarray
    heldout_edges: np.ndarray
    parent_edges: np.ndarray
    rotation: np.ndarray
    mean: np.ndarray
    shrinkage: np.ndarray
    square_weights: np.ndarray
    pair_products: np.ndarray
    pair_weights: np.ndarray
    score_products: np.ndarray
    moment_operator: np.ndarray
    nuisance_gram: np.ndarray


class PackedMoments(NamedTuple):
    """Moments of responses over every set of rows, see `langcortex.ridge.moments.ResponseMoments`, and how to score them.

    Attributes
    ----------
    cross, sum_of_squares, is_constant : (n_sets, c, n) float64, (n_sets, n) float64, (n_sets, n) bool
    centred : whether inner scores are correlations
    rounding_share : share of the sum of squares of responses below which a residual is rounding error
    tiny : float32, the smallest sum of squares of predictions for which a correlation is defined
    """

    cross: np.ndarray
    sum_of_squares: np.ndarray
    is_constant: np.ndarray
    centred: bool
    rounding_share: float
    tiny: np.float32


class FitOutput(NamedTuple):
    """The result of a fit, written by compiled code.

    Attributes
    ----------
    penalty_index : (n_folds, n) int64, position of each target's penalty
    inner_score : (n_folds, n) float32, its mean inner score, −inf where none is defined
    segment_scores : (n_segments, 3, n) float64, r, SSE and SST of the test segments, fold after fold
    """

    penalty_index: np.ndarray
    inner_score: np.ndarray
    segment_scores: np.ndarray


class Workspace(NamedTuple):
    """Arrays of LANES columns that are written over and over.

    Attributes
    ----------
    products : (n_blocks, n_bases padded, LANES) products of all bases with responses
    lines : (2, largest width + c + c + 1, LANES) what is rotated: of training rows, of held-out rows
    parent_products : (largest width, LANES) products over a parent
    p, q : (p2, LANES) products of components with training and with adjusted held-out responses
    wide_p, pair_terms : (p2, LANES) float64
    cov, var, pair_var : (a2, LANES) of the predictions of every penalty; pair_var in float64
    score_sums : (n_alphas, LANES) inner scores, summed over inner folds
    coef, residual_cross : (c, LANES) float64
    adjusted : (3, LANES) mean of adjusted held-out responses, and their sums of squares around it and around 0
    scale : (LANES,) what a score is multiplied with, 0 where it is undefined
    n_defined : (LANES,) defined scores in a sum
    is_undefined : (LANES,) 1 where a response has no score
    """

    products: np.ndarray
    lines: np.ndarray
    parent_products: np.ndarray
    p: np.ndarray
    q: np.ndarray
    wide_p: np.ndarray
    pair_terms: np.ndarray
    cov: np.ndarray
    var: np.ndarray
    pair_var: np.ndarray
    score_sums: np.ndarray
    coef: np.ndarray
    residual_cross: np.ndarray
    adjusted: np.ndarray
    scale: np.ndarray
    n_defined: np.ndarray
    is_undefined: np.ndarray


def new_output(packed: PackedPlan, n: int) -> FitOutput:
    """Allocate the result of a fit of n targets."""
    n_folds, n_segments = len(packed.inner_edges) - 1, int(packed.outer_edges[-1] - packed.outer_edges[0])
    return FitOutput(
        np.zeros((n_folds, n), np.int64), np.empty((n_folds, n), np.float32), np.empty((n_segments, 3, n))
    )


def new_workspace(packed: PackedPlan, n_alphas: int) -> Workspace:
    """Allocate a workspace."""
    (p2, n_lines), a2 = packed.rotation.shape[1:], packed.shrinkage.shape[1]
    c = packed.moment_operator.shape[1]
    width, n_bases = n_lines - 2 * c - 1, packed.panels.shape[0] * packed.panels.shape[2]

    def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
        return np.zeros((*shape, LANES), dtype)

    return Workspace(
        products=zeros(len(packed.block_edges) - 1, n_bases),
        lines=zeros(2, n_lines),
        parent_products=zeros(width),
        p=zeros(p2),
        q=zeros(p2),
        wide_p=zeros(p2, dtype=np.float64),
        pair_terms=zeros(p2, dtype=np.float64),
        cov=zeros(a2),
        var=zeros(a2),
        pair_var=zeros(a2, dtype=np.float64),
        score_sums=zeros(n_alphas),
        coef=zeros(c, dtype=np.float64),
        residual_cross=zeros(c, dtype=np.float64),
        adjusted=zeros(3),
        scale=zeros(),
        n_defined=zeros(),
        is_undefined=zeros(),
    )


@compile_function()
def fit_responses(
    output: FitOutput, y: np.ndarray, moments: PackedMoments, packed: PackedPlan, workspace: Workspace
) -> None:
    """Choose the penalty of every outer fold by its inner folds, and score it on the fold's test segments.

    Parameters
    ----------
    output : written
    y : (n_rows, at least n) float32, from `langcortex.ridge.compiled.tiles.contiguous_rows`
    """
    n, edges = output.penalty_index.shape[1], packed.block_edges
    longest = 0
    for block in range(len(edges) - 1):
        longest = max(longest, edges[block + 1] - edges[block])
    rows = np.zeros((LANES // FLOATS, longest, FLOATS), np.float32)
    for v0 in range(0, n, LANES):
        size = min(LANES, n - v0)
        for block in range(len(edges) - 1):
            begin, end = edges[block], edges[block + 1]
            pack_rows(rows, y, packed.row_order[begin:end], v0, size)
            project(workspace.products[block], packed.panels, begin, end, rows, 0)
        fit_lane_group(output, moments, packed, workspace, v0, size)


@compile_function()
def fit_products(
    output: FitOutput, products: np.ndarray, moments: PackedMoments, packed: PackedPlan, workspace: Workspace
) -> None:
    """Do what `fit_responses` does from products that were computed beforehand: (n_blocks, n_bases, n) float32."""
    n = output.penalty_index.shape[1]
    for v0 in range(0, n, LANES):
        size = min(LANES, n - v0)
        for block in range(products.shape[0]):
            for i in range(products.shape[1]):
                row, values = workspace.products[block, i], products[block, i, v0 : v0 + size]
                for v in range(size):
                    row[v] = values[v]
        fit_lane_group(output, moments, packed, workspace, v0, size)


@compile_function()
def fit_lane_group(
    output: FitOutput, moments: PackedMoments, packed: PackedPlan, workspace: Workspace, v0: int, size: int
) -> None:
    """Fit the targets whose products are in the workspace: `size` from `v0` on."""
    parent = -1
    for k in range(len(packed.inner_edges) - 1):
        workspace.score_sums[:] = np.float32(0.0)
        workspace.n_defined[:] = np.float32(0.0)
        for i in range(packed.inner_edges[k], packed.inner_edges[k + 1]):
            _adjust(workspace, moments, packed, i, v0, size)
            parent = _project_responses(workspace, moments, packed, i, v0, size, parent)
            _score_penalties(
                workspace,
                packed.shrinkage[i],
                packed.square_weights[i],
                packed.pair_products[i],
                packed.pair_weights[i],
            )
            _add_scores(workspace, moments.centred, moments.tiny)
        _choose_penalty(output.penalty_index[k], output.inner_score[k], workspace, v0, size)
        for i in range(packed.outer_edges[k], packed.outer_edges[k + 1]):
            _adjust(workspace, moments, packed, i, v0, size)
            parent = _project_responses(workspace, moments, packed, i, v0, size, parent)
            scores = output.segment_scores[i - packed.outer_edges[0]]
            _score_segment(scores, output.penalty_index[k], workspace, packed, i, v0, size, moments.tiny)


@compile_function()
def _adjust(
    workspace: Workspace, moments: PackedMoments, packed: PackedPlan, number: int, v0: int, size: int
) -> None:
    """Regress mean and confounds out of held-out sums; see `langcortex.ridge.solve.AdjustedResponses`."""
    operator, gram = packed.moment_operator[number], packed.nuisance_gram[number]
    train, heldout, end = packed.train_position[number], packed.heldout_position[number], v0 + size
    raw_squares, is_constant = moments.sum_of_squares[heldout, v0:end], moments.is_constant[heldout, v0:end]
    width, n_rows = gram.shape[0], gram[0, 0]
    adjustment = workspace.lines[1, len(workspace.parent_products) + width :]
    coef, residual_cross = workspace.coef, workspace.residual_cross
    for i in range(width):
        row, k, first = coef[i], operator[i, 0], moments.cross[train, 0, v0:end]
        for v in range(size):
            row[v] = k * first[v]
        for j in range(1, width):
            k, column = operator[i, j], moments.cross[train, j, v0:end]
            for v in range(size):
                row[v] += k * column[v]
        line = adjustment[i]
        for v in range(size):
            line[v] = row[v]
    for i in range(width):
        residual, k, first, cross = residual_cross[i], gram[i, 0], coef[0], moments.cross[heldout, i, v0:end]
        for v in range(size):
            residual[v] = cross[v] - k * first[v]
        for j in range(1, width):
            k, column = gram[i, j], coef[j]
            for v in range(size):
                residual[v] -= k * column[v]
    # the residual sum of squares, (n,) float64, in the place of the first coefficient
    squares, first, cross, residual = coef[0], coef[0], moments.cross[heldout, 0, v0:end], residual_cross[0]
    for v in range(size):
        squares[v] = raw_squares[v] - first[v] * (cross[v] + residual[v])
    for i in range(1, width):
        column, cross, residual = coef[i], moments.cross[heldout, i, v0:end], residual_cross[i]
        for v in range(size):
            squares[v] -= column[v] * (cross[v] + residual[v])
    line, adjusted = adjustment[width], workspace.adjusted
    mean, centred, around_zero = adjusted[0], adjusted[1], adjusted[2]
    residual, is_undefined, share = residual_cross[0], workspace.is_undefined, 1.0 / n_rows
    rounding_share = moments.rounding_share
    for v in range(size):
        is_explained = squares[v] <= rounding_share * raw_squares[v]
        is_undefined[v] = np.float32(1.0) if is_constant[v] or is_explained else np.float32(0.0)
    for v in range(size):
        line[v] = residual[v]
        mean[v] = residual[v] * share
        around_zero[v] = max(squares[v], 0.0)
        centred[v] = max(squares[v] - residual[v] * residual[v] * share, 0.0)
    _write_scale(workspace, moments.centred, size)


@compile_function()
def _write_scale(workspace: Workspace, centred: bool, size: int) -> None:
    """Write what scores are multiplied with, 0 where they are undefined."""
    zero, unity = np.float32(0.0), np.float32(1.0)
    is_undefined, scale = workspace.is_undefined, workspace.scale
    if centred:
        squares = workspace.adjusted[1]
        for v in range(size):
            is_zero = is_undefined[v] > zero or squares[v] <= zero
            scale[v] = zero if is_zero else unity / np.sqrt(unity if is_zero else squares[v])
    else:
        squares = workspace.adjusted[2]
        for v in range(size):
            is_zero = is_undefined[v] > zero or squares[v] <= zero
            scale[v] = zero if is_zero else unity / (unity if is_zero else squares[v])


@compile_function()
def _sum_blocks(total: np.ndarray, products: np.ndarray, blocks: np.ndarray, first: int) -> None:
    """Sum the products of a basis over blocks: (width, LANES)."""
    for i in range(total.shape[0]):
        row, values = total[i], products[blocks[0], first + i]
        for v in range(LANES):
            row[v] = values[v]
        for block in blocks[1:]:
            values = products[block, first + i]
            for v in range(LANES):
                row[v] += values[v]


@compile_function()
def _subtract(out: np.ndarray, minuend: np.ndarray, subtrahend: np.ndarray) -> None:
    """Write the difference of two arrays."""
    for i in range(out.shape[0]):
        row, a, b = out[i], minuend[i], subtrahend[i]
        for v in range(LANES):
            row[v] = a[v] - b[v]


@compile_function()
def _project_responses(
    workspace: Workspace,
    moments: PackedMoments,
    packed: PackedPlan,
    number: int,
    v0: int,
    size: int,
    last_parent: int,
) -> int:
    """Write P and Q of one validation set; return the parent whose products are in the workspace."""
    first, width, parent = packed.basis_start[number], packed.basis_width[number], packed.parent[number]
    train_blocks = packed.block_numbers[packed.train_edges[number] : packed.train_edges[number + 1]]
    heldout_blocks = packed.block_numbers[packed.heldout_edges[number] : packed.heldout_edges[number + 1]]
    columns, c = len(workspace.parent_products), moments.cross.shape[1]
    train, heldout = workspace.lines[0, :width], workspace.lines[1, :width]
    parent_products = workspace.parent_products[:width]
    _sum_blocks(heldout, workspace.products, heldout_blocks, first)
    if parent >= 0:
        if parent != last_parent:
            blocks = packed.block_numbers[packed.parent_edges[parent] : packed.parent_edges[parent + 1]]
            _sum_blocks(parent_products, workspace.products, blocks, first)
        if packed.is_complement[number]:
            _subtract(train, parent_products, heldout)
        else:
            _sum_blocks(train, workspace.products, train_blocks, first)
            _subtract(train, parent_products, train)
        last_parent = parent
    else:
        _sum_blocks(train, workspace.products, train_blocks, first)
    rotation = packed.rotation[number]
    if packed.is_rotated[number]:
        for side in range(2):
            position = packed.train_position[number] if side == 0 else packed.heldout_position[number]
            workspace.lines[side, width:columns] = np.float32(0.0)
            for i in range(c):
                row, cross = workspace.lines[side, columns + i], moments.cross[position, i, v0 : v0 + size]
                for v in range(size):
                    row[v] = cross[v]
        multiply(workspace.p, None, rotation[:, : columns + c], workspace.lines[0, : columns + c], None)
        multiply(workspace.q, None, rotation, workspace.lines[1], None)
    else:
        workspace.p[width:], workspace.q[width:] = np.float32(0.0), np.float32(0.0)
        workspace.p[:width] = train
        workspace.q[:width] = heldout
        multiply(
            workspace.q, workspace.q, rotation[:, columns + c :], workspace.lines[1, columns + c :], None
        )
    return last_parent


@compile_function()
def _score_penalties(
    workspace: Workspace,
    shrinkage: np.ndarray,
    square_weights: np.ndarray,
    pair_products: np.ndarray,
    pair_weights: np.ndarray,
) -> None:
    """Write the products of every penalty's predictions with held-out responses, and their sums of squares: var + pair_var."""
    for j in range(workspace.wide_p.shape[0]):
        p, q, wide = workspace.p[j], workspace.q[j], workspace.wide_p[j]
        for v in range(LANES):
            wide[v] = p[v]
        for v in range(LANES):
            q[v] *= p[v]
        for v in range(LANES):
            p[v] *= p[v]
    multiply(workspace.cov, None, shrinkage, workspace.q, None)
    multiply(workspace.var, None, square_weights, workspace.p, None)
    multiply(workspace.pair_terms, None, pair_products, workspace.wide_p, workspace.wide_p)
    multiply(workspace.pair_var, None, pair_weights, workspace.pair_terms, None)


@compile_function()
def _add_scores(workspace: Workspace, centred: bool, tiny: np.float32) -> None:
    """Add the scores of every penalty on one validation set, and whether that of the smallest is defined."""
    scale, count, zero, two = workspace.scale, workspace.n_defined, np.float32(0.0), np.float32(2.0)
    for a in range(workspace.score_sums.shape[0]):
        row, cov = workspace.score_sums[a], workspace.cov[a]
        var, pair_var = workspace.var[a], workspace.pair_var[a]
        for v in range(LANES):
            var[v] += np.float32(pair_var[v])
        if centred:
            for v in range(LANES):
                score = cov[v] / np.sqrt(max(var[v], tiny)) * scale[v]
                row[v] += score if var[v] > tiny else zero
        else:
            for v in range(LANES):
                row[v] += (two * cov[v] - var[v]) * scale[v]
    var = workspace.var[workspace.score_sums.shape[0] - 1]
    for v in range(LANES):
        is_defined = scale[v] > zero and (not centred or var[v] > tiny)
        count[v] += np.float32(1.0) if is_defined else zero


@compile_function()
def _choose_penalty(
    penalty_index: np.ndarray, inner_score: np.ndarray, workspace: Workspace, v0: int, size: int
) -> None:
    """Write the best penalty; the largest of equals, and of those without a score."""
    best, position, count = workspace.cov[0], workspace.var[0], workspace.n_defined
    best[:], position[:] = workspace.score_sums[0], np.float32(0.0)
    for a in range(1, workspace.score_sums.shape[0]):
        scores, number = workspace.score_sums[a], np.float32(a)
        for v in range(LANES):
            position[v] = number if scores[v] > best[v] else position[v]
            best[v] = max(scores[v], best[v])
    for v in range(size):
        penalty_index[v0 + v] = np.int64(position[v]) if count[v] > 0 else 0
        inner_score[v0 + v] = best[v] / count[v] if count[v] > 0 else -np.inf


@compile_function()
def _score_segment(
    scores: np.ndarray,
    penalty_index: np.ndarray,
    workspace: Workspace,
    packed: PackedPlan,
    number: int,
    v0: int,
    size: int,
    tiny: np.float32,
) -> None:
    """Write r, SSE and SST of the chosen penalty."""
    shrinkage, mean = packed.shrinkage[number], packed.mean[number]
    n_rows = packed.nuisance_gram[number, 0, 0]
    # rows that inner folds used are free
    cov, var, offset = workspace.cov[0], workspace.var[0], workspace.scale
    cov[:], var[:], offset[:] = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for j in range(shrinkage.shape[1]):
        p, q, k = workspace.p[j], workspace.q[j], mean[j]
        for v in range(size):
            p[v] *= shrinkage[penalty_index[v0 + v], j]
        for v in range(size):
            cov[v] += p[v] * q[v]
            offset[v] += k * p[v]
    multiply(workspace.q, None, packed.score_products[number], workspace.p, None)
    for j in range(shrinkage.shape[1]):
        p, q = workspace.p[j], workspace.q[j]
        for v in range(size):
            var[v] += p[v] * q[v]
    for v in range(size):
        centred, sst = workspace.adjusted[1, v], workspace.adjusted[2, v]
        is_undefined = workspace.is_undefined[v] > 0
        wide_var, wide_cov = np.float64(max(var[v], np.float32(0.0))), np.float64(cov[v])
        has_r = not is_undefined and wide_var > tiny and n_rows >= 3 and centred > 0
        r = wide_cov / np.sqrt(wide_var * centred) if has_r else np.nan
        error = centred - 2.0 * wide_cov + wide_var
        error += n_rows * (workspace.adjusted[0, v] - offset[v]) ** 2
        scores[0, v0 + v] = min(max(r, -1.0), 1.0) if has_r else np.nan
        scores[1, v0 + v] = np.nan if is_undefined else max(error, 0.0)
        scores[2, v0 + v] = np.nan if is_undefined else sst
