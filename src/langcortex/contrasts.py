"""Pairs of models in a finished study: compared layer by layer, and at the layers chosen for them in training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from langcortex.comparison import Comparison, compare, compare_chosen, corrected_over_pairs
from langcortex.results import Results
from langcortex.settings import Study


def pairs_of(study: Study, results: Results) -> list[tuple[str, str]]:
    """Give the pairs a study compares: those it names, or its first two models."""
    if study.compare.pairs is not None:
        return list(study.compare.pairs)
    return [(results.models[0], results.models[1])] if len(results.models) > 1 else []


def pairs_by_layer(
    study: Study, results: Results, columns: Mapping[str, int]
) -> tuple[tuple[Comparison, ...], list[str]]:
    """Compare every pair layer by layer, on the units and layers that both have.

    Parameters
    ----------
    columns : model → how many columns its layers are fitted with

    Returns
    -------
    comparisons, warnings
    """
    pairs = pairs_of(study, results)
    out, warnings = [], []
    for a, b in pairs:
        one, said = _by_layer(study, results, a, b)
        out += [one] if one is not None else []
        warnings += said
        if columns[a] != columns[b]:
            warnings.append(
                f"{a} and {b} are fitted with {columns[a]:,} and {columns[b]:,} columns a layer, and a difference may come from that "
                "alone. protocol.pca gives every model as many."
            )
    if len(out) > 1:
        warnings.append(
            f"{len(out)} pairs of models are compared. p is corrected over the layers of a pair, not over pairs; at the layers "
            "chosen in training it is corrected over pairs too (Holm)."
        )
    if out and results.unit == "runs":
        warnings.append(
            "There is one subject: the spread is over runs, which says nothing about other people."
        )
    return tuple(out), warnings


def _by_layer(study: Study, results: Results, a: str, b: str) -> tuple[Comparison | None, list[str]]:
    left, right = results.curve(a), results.curve(b)
    warnings = []
    common = [layer for layer in left.columns if layer in right.columns]
    if len(common) < max(left.shape[1], right.shape[1]):
        warnings.append(
            f"{a} and {b} have different layers; they are compared at the {len(common)} that both have."
        )
    units = [u for u in left.index if u in right.index]
    partial = [u for u in units if left.loc[u, common].isna().any() or right.loc[u, common].isna().any()]
    if partial:
        warnings.append(
            f"{a} against {b}: {len(partial)} of {len(units)} {results.unit} have a layer without a score and are left out, first '{partial[0]}'."
        )
        units = [u for u in units if u not in partial]
    if len(units) < 2 or not common:
        warnings.append(
            f"{a} and {b} cannot be compared: there are {len(units)} {results.unit} and {len(common)} common layers."
        )
        return None, warnings
    found = compare(
        left.loc[units, common].to_numpy(),
        right.loc[units, common].to_numpy(),
        np.array(common, dtype=int),
        (a, b),
        results.unit,
        np.random.default_rng([study.seed, 1]),
        study.compare.margin,
        study.inference.n_resamples,
    )
    return found, warnings


def chosen_pairs(study: Study, results: Results) -> tuple[Comparison, ...]:
    """Compare every pair, each model at its layer chosen in training; p is corrected over pairs."""
    out = []
    for a, b in pairs_of(study, results):
        left, right = results.of_chosen(a), results.of_chosen(b)
        units = [u for u in left.index if u in right.index and np.isfinite(left[u]) and np.isfinite(right[u])]
        if len(units) < 2:
            continue
        found = compare_chosen(
            left[units].to_numpy(),
            right[units].to_numpy(),
            (a, b),
            results.unit,
            np.random.default_rng([study.seed, 2]),
            study.compare.margin,
            study.inference.n_resamples,
        )
        out.append(found)
    return corrected_over_pairs(out)
