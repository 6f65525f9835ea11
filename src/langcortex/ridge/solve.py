"""The fitting engine, responses' side: scores of every penalty, fold and target from sums over blocks of rows.

All that features, confounds and folds decide is a `langcortex.ridge.plan.Plan`; here a chunk of responses meets any
number of plans. The functions follow the array they are given: numpy, torch (on a CPU or a GPU), or any other library of
the Python array API standard. Products of components with responses are computed in the precision of the responses; sums
of squares, means and nuisance coefficients, which are differences of large numbers, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from langcortex.arrays import Array, as_array_like, as_numpy, column_dots, has_numba, take_rows
from langcortex.ridge.moments import ResponseMoments, response_moments
from langcortex.ridge.plan import (
    FEW_COMPONENTS,
    Plan,
    Rows,
    RowSets,
    TrainingSet,
    ValidationSet,
    blocks_left_out,
)
from langcortex.ridge.powers import PairSums

MIN_COMPILED = 4  # components from which on compiled code pays

SegmentScores = tuple[np.ndarray, np.ndarray, np.ndarray]
"""r, SSE and SST of one test segment, (n,) float64 each."""


def can_compile(plan: Plan) -> bool:
    """Return whether compiled code serves a plan, for float32 responses in numpy."""
    return MIN_COMPILED <= plan.n_components <= FEW_COMPONENTS and plan.is_packable and has_numba()


@dataclass(frozen=True, eq=False)
class AdjustedResponses:
    """Sums of held-out responses, after mean and confounds of the training rows are regressed out.

    Attributes
    ----------
    adjustment : (2 + c, n) in the dtype of the responses: the coefficients regressed out, and the sum of the residuals
    mean : (n,) float64, of the residuals
    centred, sum_of_squares : (n,) float64, Σ of squares of the residuals around their own mean, and around 0
    is_constant : (n,) bool: without a score
    n_rows : the number of rows
    """

    adjustment: Array
    mean: Array
    centred: Array
    sum_of_squares: Array
    is_constant: Array
    n_rows: int


class ResponseChunk:
    """One chunk of responses, to be read through any number of plans."""

    def __init__(self, moments: ResponseMoments) -> None:
        self.moments, self.dtype = moments, moments.y.dtype
        self.xp = array_namespace(moments.y)
        self._coefs: dict[bytes, Array] = {}
        self._cross: dict[bytes, Array] = {}
        self._adjusted: dict[tuple[bytes, bytes], AdjustedResponses] = {}

    @classmethod
    def from_responses(cls, y: Array, sets: RowSets) -> ResponseChunk:
        """Sum responses, (n_rows, n) centred and finite, over the row sets of some plans."""
        return cls(response_moments(y, sets))

    def coef(self, train: bytes) -> Array:
        """Return the nuisance coefficients of some training rows: (1 + c, n) float64."""
        if train not in self._coefs:
            operator = as_array_like(self.moments.sets.moment_operator(train), self.moments.y, wide=True)
            self._coefs[train] = operator @ self.moments.over_set(train)[0]
        return self._coefs[train]

    def cross(self, key: bytes) -> Array:
        """Return [1, C]ᵀy over a set, in the dtype of the responses."""
        if key not in self._cross:
            self._cross[key] = self.xp.astype(self.moments.over_set(key)[0], self.dtype)
        return self._cross[key]

    def adjust(self, train: bytes, heldout: bytes) -> AdjustedResponses:
        """Regress mean and confounds of training rows out of held-out responses, as sums."""
        key = (train, heldout)
        if key not in self._adjusted:
            self._adjusted[key] = self._adjust(train, heldout)
        return self._adjusted[key]

    def _adjust(self, train: bytes, heldout: bytes) -> AdjustedResponses:
        xp, moments = self.xp, self.moments
        coef, gram = self.coef(train), moments.sets.nuisance_gram(heldout)
        cross, raw_squares = moments.over_set(heldout)
        residual_cross = cross - as_array_like(gram, moments.y, wide=True) @ coef
        squares = raw_squares - xp.sum(coef * (cross + residual_cross), axis=0)
        n_rows = int(gram[0, 0])
        # the residual of responses that the confounds explain is rounding error
        is_explained = squares <= moments.rounding_share * raw_squares
        squares = xp.where(squares > 0, squares, xp.zeros_like(squares))
        mean = residual_cross[0, :] / n_rows
        centred = squares - n_rows * mean**2
        centred = xp.where(centred > 0, centred, xp.zeros_like(centred))
        adjustment = xp.astype(xp.concat([coef, residual_cross[:1, :]], axis=0), self.dtype)
        is_constant = moments.is_constant[moments.position[heldout], :] | is_explained
        return AdjustedResponses(adjustment, mean, centred, squares, is_constant, n_rows)

    def read(self, plan: Plan) -> PlanReader:
        """Read the responses through the components of a plan."""
        return PlanReader(self, plan)


@dataclass(frozen=True, eq=False)
class FoldFit:
    """One outer fold of one chunk of targets.

    Attributes
    ----------
    penalty_index : (n,) position of each target's penalty
    inner_score : (n,) its mean inner score, −inf where none is defined
    segment_scores : r, SSE and SST of each test segment
    """

    penalty_index: np.ndarray
    inner_score: np.ndarray
    segment_scores: list[SegmentScores]


class PlanReader:
    """One chunk of responses on the components of a plan.

    Parameters
    ----------
    products : (n_blocks, n_bases, n) products of all bases with responses, where they were computed beforehand, as nulls
        do. Otherwise they are computed basis by basis
    """

    def __init__(self, chunk: ResponseChunk, plan: Plan, products: Array | None = None) -> None:
        self.chunk, self.plan, self.products = chunk, plan, products
        self.xp, self.n = chunk.xp, chunk.moments.y.shape[1]
        self._train_products: dict[int, Array] = {}
        self._basis_products: tuple[tuple[int, int], dict[bytes, Array]] = ((-1, -1), {})

    def _like_responses(
        self, name: str, number: int, make: Callable[[], np.ndarray], wide: bool = False
    ) -> Array:
        """Return numbers of the plan where the responses are, copied once."""
        y = self.chunk.moments.y
        return self.plan.cached_like(y, (name, number), lambda: as_array_like(make(), y, wide=wide))

    def _array_of(self, validation: ValidationSet, name: str) -> Array:
        """Return an array of a validation set where the responses are."""
        return self._like_responses(name, id(validation), lambda: getattr(validation, name))

    def _shrinkage(self, number: int) -> Array:
        return self._like_responses("shrinkage", number, lambda: self.plan.training_sets[number].shrinkage)

    def train_product(self, number: int) -> Array:
        """Return P, the products of a training set's components with its responses: (p, n)."""
        if number not in self._train_products:
            product = self._project(number, self.plan.training_sets[number].key)
            # what a single outer fold uses is not needed any more when the next training set is read
            shared = self.plan.shared_training_sets
            self._train_products = {k: p for k, p in self._train_products.items() if k in shared}
            self._train_products[number] = product
        return self._train_products[number]

    def heldout_product(self, validation: ValidationSet) -> Array:
        """Return Q, the products of components with adjusted held-out responses: (p, n); centred where scores are."""
        number = validation.training_set
        adjusted = self.chunk.adjust(self.plan.training_sets[number].key, validation.key)
        adjustment = adjusted.adjustment if validation.centred else adjusted.adjustment[:-1, :]
        return self._project(number, validation.key, validation, adjustment)

    def _project(
        self,
        number: int,
        key: bytes,
        validation: ValidationSet | None = None,
        adjustment: Array | None = None,
    ) -> Array:
        """Rotate [C, U]ᵀY over a set onto the components of a training set, less the adjustment: one product for all."""
        training_set, xp = self.plan.training_sets[number], self.xp
        product, rotation = self._basis_product(training_set, key), training_set.rotation
        if rotation is None:
            return product if validation is None else product - self._adjuster(validation) @ adjustment
        if validation is None:
            matrix = self._like_responses("rotation", number, lambda: rotation.T)
            return matrix @ xp.concat([self.chunk.cross(key), product], axis=0)
        make = lambda: np.hstack([rotation.T, -_adjustment_columns(validation)])  # noqa: E731
        matrix = self._like_responses("rotation and adjustment", id(validation), make)
        return matrix @ xp.concat([self.chunk.cross(key), product, adjustment], axis=0)

    def _adjuster(self, validation: ValidationSet) -> Array:
        make = lambda: _adjustment_columns(validation)  # noqa: E731
        return self._like_responses("adjustment columns", id(validation), make)

    def _basis_product(self, training_set: TrainingSet, key: bytes) -> Array:
        """Return the products of a basis with responses over a set: (width, n), not to be written to."""
        # a basis without columns starts where the next one does
        basis = (training_set.basis.start, training_set.basis.stop)
        of_basis, products = self._basis_products
        if of_basis != basis:
            products = {}
            self._basis_products = (basis, products)
        if key not in products:
            products[key] = self._sum_over_set(training_set, key)
        return products[key]

    def _sum_over_set(self, training_set: TrainingSet, key: bytes) -> Array:
        """Sum products over a set, from the fewest: of the parent less the blocks left out, or of a partition."""
        sets, parent = self.chunk.moments.sets, training_set.parent
        lacking = blocks_left_out(sets, training_set) if key == training_set.key else None
        if lacking is not None:
            assert parent is not None
            lacking_key = sets.key_of_blocks.get(tuple(lacking))
            if lacking_key:
                subtrahend = self._basis_product(training_set, lacking_key)
            else:
                subtrahend = self._sum_over_blocks(training_set, lacking)
            return self._basis_product(training_set, parent) - subtrahend
        parts = self.plan.validation_partition(key, sets) if key == parent else ()
        if parts:
            total = self._basis_product(training_set, parts[0]) + self._basis_product(training_set, parts[1])
            for part in parts[2:]:
                total += self._basis_product(training_set, part)
            return total
        return self._sum_over_blocks(training_set, sets.block_numbers[key])

    def _sum_over_blocks(self, training_set: TrainingSet, blocks: Sequence[int]) -> Array:
        """Multiply a basis with responses over blocks of rows."""
        if self.products is not None:
            total = self.xp.asarray(self.products[blocks[0], training_set.basis, :], copy=True)
            for block in blocks[1:]:
                total += self.products[block, training_set.basis, :]
            return total
        y = self.chunk.moments.y
        bases = self.plan.cached_like(y, ("bases",), lambda: as_array_like(self.plan.bases, y))
        slices = self.chunk.moments.sets.neighbours(tuple(blocks))
        total = take_rows(bases, slices[0])[:, training_set.basis].T @ take_rows(y, slices[0])
        for rows in slices[1:]:
            total += take_rows(bases, rows)[:, training_set.basis].T @ take_rows(y, rows)
        return total

    def scores(self, validation: ValidationSet) -> Array:
        """Score every penalty on one validation set: (n_alphas, n); NaN where responses are constant."""
        training_set = self.plan.training_sets[validation.training_set]
        adjusted = self.chunk.adjust(training_set.key, validation.key)
        if training_set.shrinkage.shape[1] == 0:
            undefined = np.full((len(training_set.shrinkage), self.n), np.nan)
            return as_array_like(undefined, self.chunk.moments.y)
        if validation.hat_matrix is not None:
            return self._scores_by_rows(validation, adjusted)
        p = self.train_product(validation.training_set)
        q = self.heldout_product(validation)
        q *= p
        cov = self._shrinkage(validation.training_set) @ q
        return self._to_scores(validation, adjusted, cov, self._prediction_squares(validation, p))

    def _scores_by_rows(self, validation: ValidationSet, adjusted: AdjustedResponses) -> Array:
        """Score the predictions of every penalty, row by row."""
        xp, moments = self.xp, self.chunk.moments
        rows = moments.sets.rows
        train, heldout = rows[self.plan.training_sets[validation.training_set].key], rows[validation.key]
        nuisance = as_array_like(moments.sets.nuisance[heldout], moments.y)
        residual = take_rows(moments.y, heldout) - nuisance @ adjusted.adjustment[:-1, :]
        if validation.centred:
            residual -= xp.mean(residual, axis=0)
        hat_matrix = self._array_of(validation, "hat_matrix")
        predicted = xp.reshape(hat_matrix @ take_rows(moments.y, train), (-1, len(heldout), self.n))
        cov = column_dots(predicted, residual[None, ...])
        var = column_dots(predicted, predicted)
        if validation.centred:
            var -= len(heldout) * xp.mean(predicted, axis=1) ** 2
        return self._to_scores(validation, adjusted, cov, var)

    def _to_scores(
        self, validation: ValidationSet, adjusted: AdjustedResponses, cov: Array, var: Array
    ) -> Array:
        """Turn products with the responses, and sums of squares of the predictions, into scores; written over `cov`."""
        xp, dtype, scores = self.xp, self.chunk.dtype, cov
        is_undefined = adjusted.is_constant[None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            if validation.centred:
                is_undefined = is_undefined | (var <= float(xp.finfo(dtype).smallest_normal))
                scores /= xp.sqrt(xp.where(is_undefined, xp.ones_like(var), var))
                scores /= xp.astype(xp.sqrt(adjusted.centred), dtype)
            else:
                scores *= 2
                scores -= var
                scores /= xp.astype(adjusted.sum_of_squares, dtype)
        if bool(xp.any(is_undefined)):
            scores = xp.where(is_undefined, xp.full_like(scores, float("nan")), scores)
        return scores

    def _prediction_squares(self, validation: ValidationSet, p: Array) -> Array:
        """Return Σ of squares of the predictions of every penalty: (n_alphas, n)."""
        if validation.pair_sums is not None:
            return self._squares_from_pairs(validation, validation.pair_sums, p)
        xp, shrinkage = self.xp, self._shrinkage(validation.training_set)
        triangle = self._array_of(validation, "triangle")
        out = xp.zeros((shrinkage.shape[0], self.n), dtype=p.dtype, device=device(p))
        step = max(16, -(-triangle.shape[0] // 4))
        for first in range(0, triangle.shape[0], step):
            # R is a triangle: its later rows are 0 on the first components
            rows = triangle[first : min(first + step, triangle.shape[0]), first:]
            shrunken = xp.reshape(rows[None, :, :] * shrinkage[:, None, first:], (-1, rows.shape[1]))
            rotated = xp.reshape(shrunken @ p[first:, :], (shrinkage.shape[0], rows.shape[0], self.n))
            out += column_dots(rotated, rotated)
        return out

    def _squares_from_pairs(self, validation: ValidationSet, pair_sums: PairSums, p: Array) -> Array:
        """Return the same from divided differences; see `langcortex.ridge.powers`."""
        xp, size = self.xp, p.shape[0]
        products = self._like_responses("products", id(validation), lambda: pair_sums.products, wide=True)
        weights = self._like_responses("weights", id(validation), lambda: pair_sums.weights, wide=True)
        wide = xp.astype(p, xp.float64)
        close = [wide[i, :] * wide[j, :] for i, j in pair_sums.close_pairs.tolist()]
        out = weights[:, 2 * size :] @ xp.stack(close) if close else 0.0
        crossed = products @ wide
        crossed *= wide
        wide *= wide
        out += weights[:, :size] @ crossed
        out += weights[:, size : 2 * size] @ wide
        return xp.astype(out, p.dtype)

    def folds(self) -> Iterator[FoldFit]:
        """Choose the penalty of each outer fold by its inner folds, and score it on the fold's test segments."""
        y = self.chunk.moments.y
        if is_numpy_array(y) and y.dtype == np.float32 and can_compile(self.plan):
            yield from self._compiled_folds()
            return
        for k in range(len(self.plan.outer)):
            penalty_index, inner_score = best_penalty(self.inner_scores(k))
            yield FoldFit(penalty_index, inner_score, self.score_segments(k, penalty_index))

    def _compiled_folds(self) -> Iterator[FoldFit]:
        from langcortex.ridge.compiled.fit import fit_products, fit_responses, new_output, new_workspace
        from langcortex.ridge.compiled.tiles import contiguous_rows
        from langcortex.ridge.pack import pack_moments, pack_plan

        moments, plan = self.chunk.moments, self.plan
        packed = plan.compiled_form(moments.sets, lambda: pack_plan(plan, moments))
        output = new_output(packed, self.n)
        workspace = new_workspace(packed, len(plan.training_sets[0].shrinkage))
        packed_moments = pack_moments(moments, plan)
        if self.products is None:
            fit_responses(output, contiguous_rows(moments.y), packed_moments, packed, workspace)
        else:
            fit_products(output, self.products, packed_moments, packed, workspace)
        penalty_index, inner_score, segment_scores = output
        edges = np.cumsum([0, *map(len, plan.outer)])
        for k, (begin, end) in enumerate(pairwise(edges.tolist())):
            scores = [(r, sse, sst) for r, sse, sst in segment_scores[begin:end]]
            yield FoldFit(penalty_index[k], inner_score[k], scores)

    def inner_scores(self, k: int) -> Array:
        """Average the scores of every penalty over the inner folds of outer fold k: (n_alphas, n)."""
        xp, inner = self.xp, self.plan.inner[k]
        y = self.chunk.moments.y
        if not inner:
            return as_array_like(np.zeros((1, self.n)), y)
        n_alphas = len(self.plan.training_sets[inner[0].training_set].shrinkage)
        total = xp.zeros((n_alphas, self.n), dtype=y.dtype, device=device(y))
        count = xp.zeros((self.n,), dtype=y.dtype, device=device(y))
        for validation in inner:
            scores = self.scores(validation)
            is_defined = xp.isfinite(scores)
            if not bool(xp.all(is_defined)):
                scores = xp.where(is_defined, scores, xp.zeros_like(scores))
            total += scores
            count += xp.astype(is_defined[-1, :], count.dtype)
        total /= xp.where(count > 0, count, xp.full_like(count, float("nan")))
        return total

    def score_segments(self, k: int, penalty_index: Array) -> list[SegmentScores]:
        """Score the chosen penalty on the test segments of outer fold k.

        Parameters
        ----------
        penalty_index : (n,) position of each target's penalty
        """
        return [self._score_segment(validation, penalty_index) for validation in self.plan.outer[k]]

    def _score_segment(self, validation: ValidationSet, penalty_index: Array) -> SegmentScores:
        xp, number = self.xp, validation.training_set
        adjusted = self.chunk.adjust(self.plan.training_sets[number].key, validation.key)
        weights, q = self.component_weights(number, penalty_index), self.heldout_product(validation)
        rotated = self._array_of(validation, "triangle") @ weights
        sums = (
            column_dots(weights, q),
            column_dots(rotated, rotated),
            self._array_of(validation, "mean") @ weights,
        )
        cov, var, offset = (as_numpy(values).astype(np.float64) for values in sums)
        centred, mean, sst = map(as_numpy, (adjusted.centred, adjusted.mean, adjusted.sum_of_squares))
        with np.errstate(invalid="ignore", divide="ignore"):
            has_r = (var > float(xp.finfo(self.chunk.dtype).smallest_normal)) & (adjusted.n_rows >= 3)
            r = np.where(has_r, cov / np.sqrt(var * centred), np.nan)
        sse = np.maximum(centred - 2 * cov + var + adjusted.n_rows * (mean - offset) ** 2, 0.0)
        scores = (np.clip(r, -1.0, 1.0), sse, sst)
        is_constant = as_numpy(adjusted.is_constant)
        r, sse, sst = (np.where(is_constant, np.nan, values) for values in scores)
        return r, sse, sst

    def predict(self, k: int, penalty_index: Array, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return held-out responses, mean and confounds of the training rows regressed out, and their predictions.

        Parameters
        ----------
        penalty_index : (n,) position of each target's penalty
        rows : the held-out rows of outer fold k

        Returns
        -------
        observed, predicted : (n_heldout, n) each
        """
        number = self.plan.outer[k][0].training_set
        training_set, y = self.plan.training_sets[number], self.chunk.moments.y
        nuisance = as_array_like(self.chunk.moments.sets.nuisance[rows], y, wide=True)
        explained = nuisance @ self.chunk.coef(training_set.key)
        observed = take_rows(y, rows) - self.xp.astype(explained, y.dtype)
        basis = as_array_like(self.plan.bases[rows, training_set.basis], y)
        return as_numpy(observed), as_numpy(basis @ self.component_weights(number, penalty_index))

    def component_weights(self, number: int, penalty_index: Array) -> Array:
        """Return P, shrunken by each target's penalty: (p, n)."""
        penalty_index = as_array_like(penalty_index, self.chunk.moments.y)
        return self.xp.take(self._shrinkage(number).T, penalty_index, axis=1) * self.train_product(number)


def _adjustment_columns(validation: ValidationSet) -> np.ndarray:
    """Return the matrix that multiplies an adjustment: the column of means only where scores are centred."""
    adjustment = validation.adjustment
    return np.ascontiguousarray(adjustment if validation.centred else adjustment[:, :-1])


def best_penalty(scores: Array) -> tuple[np.ndarray, np.ndarray]:
    """Choose the best penalty of each target; ties, and targets without a score, take the largest penalty.

    Parameters
    ----------
    scores : (n_alphas, n), largest penalty first

    Returns
    -------
    position : (n,) of the best penalty
    score : (n,) its score, −inf where none is defined
    """
    xp = array_namespace(scores)
    defined = xp.where(xp.isnan(scores), xp.full_like(scores, -float("inf")), scores)
    return as_numpy(xp.argmax(defined, axis=0)), as_numpy(xp.max(defined, axis=0))
