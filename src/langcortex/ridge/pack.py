"""A plan of few components as a few arrays, which compiled code reads. Loads numba: import it when it is used."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from langcortex.ridge.compiled.fit import PackedMoments, PackedPlan
from langcortex.ridge.compiled.tiles import padded, panels_of
from langcortex.ridge.moments import ResponseMoments
from langcortex.ridge.plan import Plan, RowSets, TrainingSet, ValidationSet, blocks_left_out


def pack_plan(plan: Plan, moments: ResponseMoments) -> PackedPlan:
    """Pack a plan of few components into arrays."""
    sets = moments.sets
    row_order = np.concatenate(sets.blocks)
    return PackedPlan(
        row_order=row_order,
        panels=panels_of(plan.bases[row_order]),
        **_offsets(plan, moments),
        **_row_blocks(plan, sets),
        **_matrices(plan, sets),
    )


def _offsets(plan: Plan, moments: ResponseMoments) -> dict[str, np.ndarray]:
    """Return where folds, blocks and bases begin, and where the moments of each validation set are."""
    validation_sets, training_sets = plan.validation_sets, _training_sets(plan)
    inner = np.cumsum([0, *map(len, plan.inner)])
    return {
        "inner_edges": inner,
        "outer_edges": inner[-1] + np.cumsum([0, *map(len, plan.outer)]),
        "block_edges": np.cumsum([0, *map(len, moments.sets.blocks)]),
        "train_position": np.array([moments.position[t.key] for t in training_sets]),
        "heldout_position": np.array([moments.position[v.key] for v in validation_sets]),
        "basis_start": np.array([t.basis.start for t in training_sets]),
        "basis_width": np.array([_width(t) for t in training_sets]),
    }


def _row_blocks(plan: Plan, sets: RowSets) -> dict[str, np.ndarray]:
    """Return the blocks over which products are added up or, of a larger training set, taken away."""
    train, heldout, is_complement, parent = [], [], [], []
    numbers_of_parent: dict[tuple[int, bytes], int] = {}
    for validation in plan.validation_sets:
        training_set = plan.training_sets[validation.training_set]
        lacking = blocks_left_out(sets, training_set)
        blocks = sets.block_numbers[validation.key]
        heldout.append(blocks)
        if lacking is None:
            train.append(sets.block_numbers[training_set.key])
            is_complement.append(False)
            parent.append(-1)
        else:
            name = (training_set.basis.start, training_set.parent or b"")
            train.append(tuple(lacking))
            is_complement.append(tuple(lacking) == tuple(blocks))
            parent.append(numbers_of_parent.setdefault(name, len(numbers_of_parent)))
    blocks_of_set = [*train, *heldout, *(sets.block_numbers[key] for _, key in numbers_of_parent)]
    edges, n = np.cumsum([0, *map(len, blocks_of_set)]), len(train)
    return {
        "block_numbers": np.array([*itertools.chain.from_iterable(blocks_of_set)], dtype=np.int64),
        "train_edges": edges[: n + 1],
        "heldout_edges": edges[n : 2 * n + 1],
        "parent_edges": edges[2 * n :],
        "parent": np.array(parent),
        "is_complement": np.array(is_complement),
    }


def _matrices(plan: Plan, sets: RowSets) -> dict[str, np.ndarray]:
    """Return what multiplies products and moments, padded with zeros to one shape."""
    training_sets, validation_sets = _training_sets(plan), plan.validation_sets
    out = _empty_matrices(plan, len(validation_sets), sets.nuisance.shape[1])
    for i, (training_set, validation) in enumerate(zip(training_sets, validation_sets, strict=True)):
        n_alphas, p = training_set.shrinkage.shape
        _fill_rotation(out["rotation"][i], training_set, validation, sets.nuisance.shape[1])
        out["mean"][i, :p] = validation.mean
        out["shrinkage"][i, :n_alphas, :p] = training_set.shrinkage
        out["score_products"][i, :p, :p] = validation.triangle.T.astype(np.float64) @ validation.triangle
        if validation.pair_sums is not None:
            weights = validation.pair_sums.weights
            out["pair_products"][i, :p, :p] = validation.pair_sums.products
            out["pair_weights"][i, :n_alphas, :p] = weights[:, :p]
            out["square_weights"][i, :n_alphas, :p] = weights[:, p:]
    out["is_rotated"] = np.array([t.rotation is not None for t in training_sets])
    out["moment_operator"] = np.stack([sets.moment_operator(t.key) for t in training_sets])
    out["nuisance_gram"] = np.stack([sets.nuisance_gram(v.key) for v in validation_sets])
    return out


def _empty_matrices(plan: Plan, n: int, n_nuisance: int) -> dict[str, np.ndarray]:
    """Return zeros for the matrices of n validation sets."""
    p, width = plan.n_components, max(map(_width, plan.training_sets))
    p2, a2 = padded(p), padded(plan.training_sets[0].shrinkage.shape[0])
    single, double = np.float32, np.float64
    return {
        "rotation": np.zeros((n, p2, width + 2 * n_nuisance + 1), single),
        "mean": np.zeros((n, p), single),
        "shrinkage": np.zeros((n, a2, p), single),
        "square_weights": np.zeros((n, a2, p), single),
        "pair_products": np.zeros((n, p2, p), double),
        "pair_weights": np.zeros((n, a2, p), double),
        "score_products": np.zeros((n, p2, p), single),
    }


def _fill_rotation(
    out: np.ndarray, training_set: TrainingSet, validation: ValidationSet, n_nuisance: int
) -> None:
    """Write the rotation and the adjustment of one validation set: of basis products, [1, C]ᵀy, and what is adjusted."""
    p, width = training_set.shrinkage.shape[1], out.shape[1] - 2 * n_nuisance - 1
    rotation = training_set.rotation
    if rotation is not None:
        out[:p, : len(rotation) - n_nuisance] = rotation[n_nuisance:].T
        out[:p, width : width + n_nuisance] = rotation[:n_nuisance].T
    adjustment = validation.adjustment[:, : n_nuisance + validation.centred]
    first = width + n_nuisance
    out[:p, first : first + adjustment.shape[1]] = -adjustment


def _training_sets(plan: Plan) -> Sequence[TrainingSet]:
    """Return the training set of every validation set."""
    return [plan.training_sets[validation.training_set] for validation in plan.validation_sets]


def _width(training_set: TrainingSet) -> int:
    """Return the number of columns of the basis."""
    width: int = training_set.basis.stop - training_set.basis.start
    return width


def pack_moments(moments: ResponseMoments, plan: Plan) -> PackedMoments:
    """Pack the moments of responses, and how a plan scores them."""
    centred = bool(plan.inner[0] and plan.inner[0][0].centred)
    return PackedMoments(
        moments.cross,
        moments.sum_of_squares,
        moments.is_constant,
        centred,
        moments.rounding_share,
        np.finfo(np.float32).smallest_normal,
    )
