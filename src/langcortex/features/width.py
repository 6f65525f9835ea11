"""Feature spaces of different widths, made equally wide: more columns fit more, whatever they mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.table import Features

HOW = ("projection", "pca")


def widths_differ(a: Features, b: Features) -> str:
    """Say that two feature spaces have different numbers of columns; empty where they do not."""
    one, other = a.values.shape[1], b.values.shape[1]
    if one == other:
        return ""
    return (
        f"'{a.name}' has {one} columns and '{b.name}' {other}, so a difference may come from their number alone. Compare them again "
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
    """Bring two feature spaces to the width of the narrower one.

    Parameters
    ----------
    a, b : any two tables; what is narrow enough is returned as it is
    seed : of the projection; layers of one model get one projection
    how : "projection", onto random Gaussian directions, which learns nothing from the rows (Johnson & Lindenstrauss); or "pca",
        onto the largest principal components, which keeps more variance
    learn_from : for "pca", the runs to learn from: those that no fold tests. For folds that take turns use protocol.pca, which
        learns anew in each
    width : another width, at most that of the narrower one

    Raises
    ------
    SettingsError : an unknown way, a width that cannot be had, or "pca" without runs to learn from

    References
    ----------
    Bingham & Mannila 2001, doi:10.1145/502512.502546
    """
    narrow = min(a.values.shape[1], b.values.shape[1])
    k = narrow if width is None else width
    if how not in HOW or not 1 <= k <= narrow:
        raise SettingsError(
            f"match_width goes by {' or '.join(HOW)} to a width from 1 to {narrow}; not by '{how}' to {k}."
        )
    if seed < 0:
        raise SettingsError(f"The seed of a projection is a whole number from 0, not {seed}.")
    return _narrowed(a, k, seed, how, learn_from), _narrowed(b, k, seed, how, learn_from)


def _narrowed(table: Features, k: int, seed: int, how: str, learn_from: Collection[str]) -> Features:
    d = table.values.shape[1]
    if d == k:
        return table
    values = np.asarray(table.values, dtype=np.float64)
    if how == "projection":
        directions = np.random.default_rng([seed, d, k]).standard_normal((d, k)) / np.sqrt(k)
        name = f"projection-{k}({table.name})"
    else:
        known = np.isin(table.run, list(learn_from))
        if known.sum() <= k:
            raise SettingsError(
                f"'{table.name}': {k} principal components need more than {k} rows to learn from, but learn_from names runs with "
                f"{int(known.sum())}. Name training runs, or use how = 'projection'."
            )
        values = values - values[known].mean(axis=0)
        directions = np.linalg.svd(values[known], full_matrices=False)[2][:k].T
        # a component's sign is arbitrary: its largest weight is made positive
        top = np.abs(directions).argmax(axis=0)
        directions = directions * np.sign(directions[top, np.arange(k)])
        name = f"pca-{k}({table.name})"
    return replace(table, name=name, values=(values @ directions).astype(table.values.dtype))
