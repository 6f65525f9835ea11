"""The short part of the fuzz harness: a few damaged files of every kind are read, or refused in the project's own words."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from readers import READERS

from fuzz import read_damaged


@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    """`make fuzz` reads thousands, in bounded memory."""
    reader = READERS[kind]
    valid = tmp_path / f"valid{reader.ending}"
    valid.write_bytes(reader.make(np.random.default_rng(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.read(valid)
        failures = [failure for n in range(12) if (failure := read_damaged(kind, n, 1, tmp_path))]
    assert failures == []
