"""Sums of responses over sets of rows, once for every feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from langcortex.arrays import Array, as_array_like, as_numpy, column_dots, has_numba, rounding, take_rows
from langcortex.ridge.plan import RowSets


@dataclass(frozen=True, eq=False)
class ResponseMoments:
    """What some responses say over sets of rows: all that depends on them and not on features.

    Attributes
    ----------
    y : (n_rows, n) the responses, centred
    on : (n_sets, 1 + c, n) float64, [1, C]ᵀy
    power : (n_sets, n) float64, Σ y²
    flat : (n_sets, n) bool, constant but for rounding
    number : key of a set → its position
    """

    sets: RowSets
    y: Array
    on: Array
    power: Array
    flat: Array
    number: dict[bytes, int]

    @property
    def least(self) -> float:
        """The share of the power of responses below which what is left of them is rounding error."""
        return 1e3 * float(array_namespace(self.y).finfo(self.y.dtype).eps) ** 2

    def within(self, key: bytes) -> tuple[Array, Array]:
        """Give [1, C]ᵀy and Σ y² over one set."""
        i = self.number[key]
        return self.on[i, ...], self.power[i, ...]


def response_moments(y: Array, sets: RowSets) -> ResponseMoments:
    """Sum responses over segments, and from them over sets, once for every feature space.

    Parameters
    ----------
    y : (n_rows, n) centred over all rows, finite
    """
    xp = array_namespace(y)
    on, power = _over_segments(y, sets)
    lengths = as_array_like(np.array([[len(rows)] for rows in sets.segments], dtype=np.float64), y, wide=True)
    flat = np.zeros(power.shape, dtype=bool)
    # a difference of large numbers says little: what is nearly constant is looked at again
    for s, t in np.argwhere(as_numpy(power - on[:, 0, :] ** 2 / lengths <= 1e-3 * power)).tolist():
        own = as_numpy(take_rows(y, sets.segments[s])[:, t])[:, None]
        column = own[:, 0].astype(np.float64)
        mean = column.mean()
        around = float(np.square(column - mean).sum())
        on[s, 0, t] = float(column.sum())
        power[s, t] = around + len(column) * mean**2
        flat[s, t] = around <= rounding(own)[0]
    member = as_array_like(sets.member, y, wide=True)
    summed = xp.reshape(member @ xp.reshape(on, (len(sets.segments), -1)), (len(sets.parts), *on.shape[1:]))
    number = {key: i for i, key in enumerate(sets.parts)}
    return ResponseMoments(sets, y, summed, member @ power, _flat_sets(flat, on[:, 0, :], sets, y), number)


def _over_segments(y: Array, sets: RowSets) -> tuple[Array, Array]:
    """Give [1, C]ᵀy and Σ y² of every segment: (n_segments, 1 + c, n) and (n_segments, n) float64."""
    if is_numpy_array(y) and y.dtype == np.float32 and has_numba():
        from langcortex.ridge.compiled.moments import sum_segments

        return sum_segments(y, sets.segments, sets.c1)
    xp = array_namespace(y)
    c1 = as_array_like(sets.c1, y)
    parts = [take_rows(y, rows) for rows in sets.segments]
    on = xp.stack([take_rows(c1, rows).T @ part for rows, part in zip(sets.segments, parts, strict=True)])
    power = xp.stack([column_dots(part, part) for part in parts])
    return xp.astype(on, xp.float64), xp.astype(power, xp.float64)


def _flat_sets(flat: np.ndarray, total: Array, sets: RowSets, y: Array) -> Array:
    """Say which responses are constant over each set, from segments: (n_sets, n)."""
    out = np.zeros((len(sets.parts), flat.shape[1]), dtype=bool)
    if flat.any():
        means = as_numpy(total) / np.array([[len(rows)] for rows in sets.segments])
        eps = 8 * float(array_namespace(y).finfo(y.dtype).eps)
        for i, parts in enumerate(sets.parts.values()):
            mean = means[list(parts)]
            # constant parts may lie apart
            out[i] = flat[list(parts)].all(axis=0) & (np.ptp(mean, axis=0) <= eps * np.abs(mean).max(axis=0))
    return as_array_like(out, y)
