"""Moments of responses over sets of rows, computed once for every feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from langcortex.arrays import (
    Array,
    as_array_like,
    as_numpy,
    column_dots,
    has_numba,
    rounding_error,
    take_rows,
)
from langcortex.ridge.plan import RowSets


@dataclass(frozen=True, eq=False)
class ResponseMoments:
    """Sums of responses over sets of rows: all that depends on them and not on features.

    Attributes
    ----------
    y : (n_rows, n) the responses, centred
    cross : (n_sets, 1 + c, n) float64, [1, C]ᵀy
    sum_of_squares : (n_sets, n) float64, Σ y²
    is_constant : (n_sets, n) bool, constant but for rounding
    position : key of a set → its position
    """

    sets: RowSets
    y: Array
    cross: Array
    sum_of_squares: Array
    is_constant: Array
    position: dict[bytes, int]

    @property
    def rounding_share(self) -> float:
        """The share of the sum of squares of responses below which a residual is rounding error."""
        return 1e3 * float(array_namespace(self.y).finfo(self.y.dtype).eps) ** 2

    def over_set(self, key: bytes) -> tuple[Array, Array]:
        """Return [1, C]ᵀy and Σ y² over one set."""
        i = self.position[key]
        return self.cross[i, ...], self.sum_of_squares[i, ...]


def response_moments(y: Array, sets: RowSets) -> ResponseMoments:
    """Sum responses over row blocks, and from these over sets, once for every feature space.

    Parameters
    ----------
    y : (n_rows, n) centred over all rows, finite
    """
    xp = array_namespace(y)
    cross, squares = _block_moments(y, sets)
    is_constant = _recompute_nearly_constant(cross, squares, y, sets)
    membership = as_array_like(sets.membership, y, wide=True)
    n_blocks, n_sets = len(sets.blocks), len(sets.rows)
    cross_of_sets = xp.reshape(membership @ xp.reshape(cross, (n_blocks, -1)), (n_sets, *cross.shape[1:]))
    constant_sets = _constant_sets(is_constant, cross[:, 0, :], sets, y)
    position = {key: i for i, key in enumerate(sets.rows)}
    return ResponseMoments(sets, y, cross_of_sets, membership @ squares, constant_sets, position)


def _recompute_nearly_constant(cross: Array, squares: Array, y: Array, sets: RowSets) -> np.ndarray:
    """Recompute moments of nearly constant responses, in place; return which are constant: (n_blocks, n) bool.

    The sum of squares around a mean is a difference of large numbers there, which has few digits.
    """
    n_rows = np.array([[len(rows)] for rows in sets.blocks], dtype=np.float64)
    around = squares - cross[:, 0, :] ** 2 / as_array_like(n_rows, y, wide=True)
    is_constant = np.zeros(squares.shape, dtype=bool)
    for block, target in np.argwhere(as_numpy(around <= 1e-3 * squares)).tolist():
        values = as_numpy(take_rows(y, sets.blocks[block])[:, target])[:, None]
        column = values[:, 0].astype(np.float64)
        mean = column.mean()
        variation = float(np.square(column - mean).sum())
        cross[block, 0, target] = float(column.sum())
        squares[block, target] = variation + len(column) * mean**2
        is_constant[block, target] = variation <= rounding_error(values)[0]
    return is_constant


def _block_moments(y: Array, sets: RowSets) -> tuple[Array, Array]:
    """Return [1, C]ᵀy and Σ y² of every block: (n_blocks, 1 + c, n) and (n_blocks, n) float64."""
    if is_numpy_array(y) and y.dtype == np.float32 and has_numba():
        from langcortex.ridge.compiled.moments import sum_blocks

        return sum_blocks(y, sets.blocks, sets.nuisance)
    xp = array_namespace(y)
    nuisance = as_array_like(sets.nuisance, y)
    responses = [take_rows(y, rows) for rows in sets.blocks]
    cross = [take_rows(nuisance, rows).T @ block for rows, block in zip(sets.blocks, responses, strict=True)]
    squares = [column_dots(block, block) for block in responses]
    return xp.astype(xp.stack(cross), xp.float64), xp.astype(xp.stack(squares), xp.float64)


def _constant_sets(is_constant: np.ndarray, total: Array, sets: RowSets, y: Array) -> Array:
    """Return which responses are constant over each set, from which are over each block: (n_sets, n)."""
    out = np.zeros((len(sets.rows), is_constant.shape[1]), dtype=bool)
    if is_constant.any():
        means = as_numpy(total) / np.array([[len(rows)] for rows in sets.blocks])
        eps = 8 * float(array_namespace(y).finfo(y.dtype).eps)
        for i, numbers in enumerate(sets.block_numbers.values()):
            blocks = list(numbers)
            mean = means[blocks]
            # blocks may be constant, each at another value
            is_level = np.ptp(mean, axis=0) <= eps * np.abs(mean).max(axis=0)
            out[i] = is_constant[blocks].all(axis=0) & is_level
    return as_array_like(out, y)
