"""Shared by the tests of recordings, file formats and spaces."""

import numpy as np
import pytest

from reference.images import SHAPE


@pytest.fixture
def brain(rng):
    """40 scans of a small brain inside a block of zeros: data in [x, y, z, scan] and the block."""
    inside = np.zeros(SHAPE, dtype=bool)
    inside[1:4, 1:5, 1:3] = True
    data = np.zeros((*SHAPE, 40), dtype=np.float32)
    data[inside] = 500 + 40 * rng.standard_normal((inside.sum(), 40))
    return data, inside
