"""Measures of words that a corpus provides beyond text and times: annotation, pitch, parses.

Such a corpus has ``measures()``, which lists their names, and ``measure(name)``, which returns a `Measure`. A study
names them among its controls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COMBINE = ("mean", "last", "sum")


@dataclass(frozen=True, eq=False)
class Measure:
    """Numbers that describe the words, or the sentences, of a corpus's story.

    Attributes
    ----------
    name : e.g. "syntax"
    ids : (n_units,) ids of the story
    columns : the name of each column, with its unit
    values : (n_units, n_columns) float64; NaN where a unit has no value
    combine : how units are combined into longer ones: "mean", "last" or "sum" (counts)
    source : where the numbers come from, in one sentence
    """

    name: str
    ids: np.ndarray
    columns: tuple[str, ...]
    values: np.ndarray
    combine: str
    source: str

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.ids), len(self.columns)) or self.combine not in COMBINE:
            raise ValueError(
                f"measure '{self.name}': {len(self.ids)} ids, {len(self.columns)} columns, values {self.values.shape}, "
                f"combined by {self.combine!r}"
            )
