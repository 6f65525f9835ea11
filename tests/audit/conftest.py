"""Shared by the tests of audits: rows made by hand, and the words of Le Petit Prince."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langcortex.audit.rows import StudyRows
from langcortex.encoding.protocol import Fold
from langcortex.stimulus.story import Story, Units, read_story


@pytest.fixture(scope="session")
def rows() -> Callable[..., StudyRows]:
    """Make rows of one sentence each, with the scans and folds that are named."""

    def make(
        run: list[str],
        first: list[int],
        last: list[int],
        folds: list[tuple[list[int], list[int]]],
        **given: Any,
    ) -> StudyRows:
        n = len(run)
        ids = np.array([f"{r}/sentence-{i:03d}" for i, r in enumerate(run)])
        text = given.pop("text", [f"only {i} says just this" for i in range(n)])
        sentences = Units(
            ids, np.arange(n) * 3.0, np.full(n, 3.0), np.array(run), np.array(text), np.full(n, 4)
        )
        split = tuple(Fold(np.array(a), np.array(b)) for a, b in folds)
        return StudyRows(
            ids, np.array(run), np.stack([first, last], axis=1), np.arange(n) * 3.0, split, 2.0, "text",
            sentences, {}, {}, **given,
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def little_prince(shared_data: Path) -> Story:
    folder = shared_data / "lpp" / "annotation" / "EN"
    files = {f"section{i}": folder / f"lppEN_section{i}.TextGrid" for i in range(1, 10)}
    return read_story(files, sentences="pauses")
