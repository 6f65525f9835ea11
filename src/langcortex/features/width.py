"""Feature spaces of different widths, projected to the same width: more columns fit more, whatever they mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.table import Features

METHODS = ("projection", "pca")


def widths_differ(a: Features, b: Features) -> str:
    """Describe a difference in the numbers of columns of two feature spaces; empty where they are equal."""
    width_a, width_b = a.values.shape[1], b.values.shape[1]
    if width_a == width_b:
        return ""
    return (
        f"'{a.name}' has {width_a} columns and '{b.name}' {width_b}, so a difference may come from their number alone. Compare them again "
        "after match_width, or with the same protocol.pca."
    )


def match_width(
    a: Features,
    b: Features,
    seed: int = 0,
    how: str = "projection",
    learn_from: Collection[str] = (),
    width: int | None = None,
) -> tuple[Features, Features]:
    """Project two feature spaces to the width of the narrower one.

    Parameters
    ----------
    a, b : two tables; one that has this width already is returned unchanged
    seed : of the projection; all layers of a model get the same projection
    how : "projection", onto random Gaussian directions, which do not depend on the rows (Johnson & Lindenstrauss); or "pca",
        onto the first principal components, which keep more variance
    learn_from : for "pca", the runs from which components are estimated: those that no fold tests. In cross-validation use
        protocol.pca, which estimates them in each training set
    width : another width, at most that of the narrower one

    Raises
    ------
    SettingsError : an unknown method or an impossible width, or "pca" without runs to learn from

    References
    ----------
    Bingham & Mannila 2001, doi:10.1145/502512.502546
    """
    narrow = min(a.values.shape[1], b.values.shape[1])
    k = narrow if width is None else width
    if how not in METHODS or not 1 <= k <= narrow:
        raise SettingsError(
            f"match_width works by {' or '.join(METHODS)}, to a width from 1 to {narrow}; not by '{how}' to {k}."
        )
    if seed < 0:
        raise SettingsError(f"The seed of a projection is a whole number from 0, not {seed}.")
    return _project(a, k, seed, how, learn_from), _project(b, k, seed, how, learn_from)


def _project(table: Features, k: int, seed: int, how: str, learn_from: Collection[str]) -> Features:
    d = table.values.shape[1]
    if d == k:
        return table
    values = np.asarray(table.values, dtype=np.float64)
    if how == "projection":
        directions = np.random.default_rng([seed, d, k]).standard_normal((d, k)) / np.sqrt(k)
        name = f"projection-{k}({table.name})"
    else:
        training = np.isin(table.run, list(learn_from))
        if training.sum() <= k:
            raise SettingsError(
                f"'{table.name}': {k} principal components need more than {k} rows to learn from, but learn_from names runs with "
                f"{int(training.sum())}. Name training runs, or use how = 'projection'."
            )
        values = values - values[training].mean(axis=0)
        directions = np.linalg.svd(values[training], full_matrices=False)[2][:k].T
        # a component's sign is arbitrary: its largest weight is made positive
        top = np.abs(directions).argmax(axis=0)
        directions = directions * np.sign(directions[top, np.arange(k)])
        name = f"pca-{k}({table.name})"
    return replace(table, name=name, values=(values @ directions).astype(table.values.dtype))
