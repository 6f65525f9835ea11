"""Tests of finished scores: pairs of models layer by layer and at their chosen layers, subjects, and a mixed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from langcortex.errors import FitError
from langcortex.results.provenance import MINUS
from langcortex.results.results import Results
from langcortex.stats.comparison import Comparison, compare, compare_chosen, correct_over_pairs
from langcortex.stats.group import GroupTest, MixedModel, fit_mixed_model, tfce
from langcortex.stats.null_counts import Significance
from langcortex.stats.sign_flips import sign_flip
from langcortex.study.settings import Study

FEWEST = 5  # subjects; with fewer, no pattern of signs reaches .05
MIXED_ROWS = 1000  # scores; with more, a mixed model takes many minutes


def model_pairs(study: Study, results: Results) -> list[tuple[str, str]]:
    """Return the pairs of models that a study compares: those that it names, or its first two models."""
    if study.compare.pairs is not None:
        return list(study.compare.pairs)
    return [(results.models[0], results.models[1])] if len(results.models) > 1 else []


def compare_by_layer(
    study: Study, results: Results, columns: Mapping[str, int]
) -> tuple[tuple[Comparison, ...], list[str]]:
    """Compare every pair layer by layer, on the units and layers that both models have.

    Parameters
    ----------
    columns : model → number of columns that its layers are fitted with

    Returns
    -------
    comparisons, warnings
    """
    comparisons, warnings = [], []
    for a, b in model_pairs(study, results):
        comparison, notes = _compare_pair(study, results, a, b)
        comparisons += [comparison] if comparison is not None else []
        warnings += notes
        if columns[a] != columns[b]:
            warnings.append(
                f"{a} and {b} are fitted with {columns[a]:,} and {columns[b]:,} columns per layer, which alone may make a "
                "difference. With protocol.pca, all models have the same number."
            )
    if len(comparisons) > 1:
        warnings.append(
            f"{len(comparisons)} pairs of models are compared. p is corrected over the layers of a pair, not over pairs; at the layers "
            "chosen in training it is corrected over pairs too (Holm)."
        )
    if comparisons and results.unit == "runs":
        warnings.append(
            "There is one subject: the spread is over runs, which says nothing about other people."
        )
    return tuple(comparisons), warnings


def _compare_pair(study: Study, results: Results, a: str, b: str) -> tuple[Comparison | None, list[str]]:
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
    comparison = compare(
        left.loc[units, common].to_numpy(),
        right.loc[units, common].to_numpy(),
        np.array(common, dtype=int),
        (a, b),
        results.unit,
        np.random.default_rng([study.seed, 1]),
        study.compare.margin,
        study.inference.n_resamples,
    )
    return comparison, warnings


def compare_chosen_layers(study: Study, results: Results) -> tuple[Comparison, ...]:
    """Compare every pair, each model at its layer chosen in training; p is corrected over pairs."""
    comparisons = []
    for a, b in model_pairs(study, results):
        left, right = results.of_chosen(a), results.of_chosen(b)
        units = [u for u in left.index if u in right.index and np.isfinite(left[u]) and np.isfinite(right[u])]
        if len(units) < 2:
            continue
        comparison = compare_chosen(
            left[units].to_numpy(),
            right[units].to_numpy(),
            (a, b),
            results.unit,
            np.random.default_rng([study.seed, 2]),
            study.compare.margin,
            study.inference.n_resamples,
        )
        comparisons.append(comparison)
    return correct_over_pairs(comparisons)


def group_tests(
    study: Study, results: Results, maps: Mapping[str, Sequence[np.ndarray]]
) -> tuple[tuple[GroupTest, ...], list[str]]:
    """Test over subjects, by sign flips, the r of each model's chosen layer and the difference of each pair.

    Parameters
    ----------
    maps : model → (n_targets,) r of each subject, in the same order for all models

    Returns
    -------
    tests, warnings
    """
    subjects = set(results.scores.subject) - {"average"}
    if not study.inference.group or len(subjects) < FEWEST or results.protocol.name != "rigorous":
        return (), []
    tests: list[GroupTest] = []
    warnings: list[str] = []
    contrasts: list[tuple[str, str, str | None]] = [
        (model, model, None) for model in results.models if maps.get(model)
    ]
    contrasts += [
        (f"{a} {MINUS} {b}", a, b) for a, b in model_pairs(study, results) if maps.get(a) and maps.get(b)
    ]
    for i, (name, a, b) in enumerate(contrasts):
        table = _chosen_by_region(results, a)
        if b is not None:
            table = table - _chosen_by_region(results, b)
        table = table.dropna(axis=0, how="all")
        if len(table) < FEWEST:
            continue
        tail, n = "greater" if b is None else "two", study.inference.n_resamples
        rngs = [np.random.default_rng([study.seed, 4, i, k]) for k in range(3)]
        targets = clusters = None
        if results.space is not None:
            values = np.stack(maps[a]) if b is None else np.stack(maps[a]) - np.stack(maps[b])
            targets = sign_flip(values, rngs[0], n, tail)
            if study.inference.tfce:
                clusters, notes = _test_clusters(results, values, rngs[1], n, tail, name)
                warnings += notes
        regions = sign_flip(table.to_numpy(np.float64), rngs[2], n, tail)
        tests.append(GroupTest(name, tail, len(table), tuple(table.columns), regions, targets, clusters))
    return tuple(tests), list(dict.fromkeys(warnings))


def _chosen_by_region(results: Results, model: str) -> pd.DataFrame:
    """Return the chosen layer's mean r by subject and region, "brain" first."""
    table = results.scores
    rows = table[(table.model == model) & (table.metric == "r_chosen") & (table.run == "all")]
    rows = rows[rows.subject != "average"]
    names = [str(name) for name in dict.fromkeys(rows.region)]
    return rows.pivot(index="subject", columns="region", values="value")[names]


def _test_clusters(
    results: Results, values: np.ndarray, rng: np.random.Generator, n: int, tail: str, name: str
) -> tuple[Significance | None, list[str]]:
    assert results.space is not None
    try:
        return tfce(values, results.space, rng, n, tail), []
    except FitError as error:
        return None, [f"No clusters over subjects for {name}: {error}"]


def mixed_models(study: Study, results: Results) -> tuple[MixedModel | None, list[str]]:
    """Fit the mixed model of the chosen layers' r over subjects and runs, where there are enough of both."""
    subjects = set(results.scores.subject) - {"average"}
    if not study.inference.mixed or len(results.models) < 2 or len(subjects) < FEWEST:
        return None, []
    table = results.scores
    table = table[
        (table.metric == "r_chosen") & (table.run != "all") & (table.region == results.region)
        & table.subject.isin(subjects) & table.model.isin(results.models)
    ].rename(columns={"value": "score"})  # fmt: skip
    if table.run.nunique() < 2 or table.model.nunique() < 2:
        return None, []
    if len(table) > MIXED_ROWS:
        return None, [
            f"The mixed model was left out: it takes too long for {len(table):,} scores of subjects, runs and models (at most {MIXED_ROWS:,})."
        ]
    try:
        mixed = fit_mixed_model(table, [m for m in results.models if m in set(table.model)])
    except FitError as error:
        return None, [f"There is no mixed model: {error}"]
    return mixed, [f"Mixed model: {note}" for note in mixed.warnings]
