"""Compiled sums over segments are those of float64, and know views from matrices."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from langcortex.ridge.compiled.moments import COLUMNS, sum_segments


@pytest.mark.parametrize("n", [1, 37, COLUMNS + 5])
def test_sums_over_segments_are_those_of_float64(rng: np.random.Generator, n: int) -> None:
    """Segments of one row, of rows far apart and of more than are summed together; some columns of a larger matrix."""
    segments = [np.array([4]), np.r_[0:3, 90:97], np.arange(5, 90), np.arange(97, 300)]
    c1 = np.column_stack([np.ones(300), rng.standard_normal((300, 2))])
    whole = rng.standard_normal((300, n + 9)).astype(np.float32)
    for y in (whole[:, 4 : n + 4], np.ascontiguousarray(whole[:, :n]), np.asfortranarray(whole[:, :n])):
        on, power = sum_segments(y, segments, c1)
        wide = y.astype(np.float64)
        for s, rows in enumerate(segments):
            np.testing.assert_allclose(on[s], c1[rows].T @ wide[rows], atol=2e-5)
            np.testing.assert_allclose(power[s], np.square(wide[rows]).sum(axis=0), rtol=2e-6)
