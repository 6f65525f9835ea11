"""What a corpus knows of its own words beyond their text and times: annotation, pitch, parses.

A corpus that knows something has ``measures()``, the names, and ``measure(name)``, which gives a `Measure`. A study
names them among its controls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COMBINE = ("mean", "last", "sum")


@dataclass(frozen=True, eq=False)
class Measure:
    """Numbers about the words, or the sentences, of a corpus's story.

    Attributes
    ----------
    name : e.g. "syntax"
    ids : (n_pieces,) the story's ids
    columns : what each column is, with its unit
    values : (n_pieces, n_columns) float64; NaN where a piece has no value
    combine : how pieces merge into longer ones: "mean", "last" or "sum" (counts)
    source : where the numbers come from, one sentence
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
