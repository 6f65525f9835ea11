"""Several subjects of a finished study: which targets, regions and differences hold in people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from langcortex.contrasts import pairs_of
from langcortex.errors import FitError
from langcortex.group import Mixed, mixed_model, sign_flip, tfce
from langcortex.resampling import Significance
from langcortex.results import OverPeople, Results
from langcortex.settings import Study

MINUS = "\N{MINUS SIGN}"
FEWEST = 5  # subjects: with fewer no pattern of signs reaches .05
MIXED_ROWS = 1000  # scores beyond which a mixed model takes many minutes


def over_people(
    study: Study, results: Results, maps: Mapping[str, Sequence[np.ndarray]]
) -> tuple[tuple[OverPeople, ...], list[str]]:
    """Test over subjects, by their signs, the r of each model's chosen layer and the difference of each pair.

    Parameters
    ----------
    maps : model → (n_targets,) of each subject, in one order

    Returns
    -------
    tests, warnings
    """
    people = set(results.scores.subject) - {"average"}
    if not study.inference.group or len(people) < FEWEST or results.protocol.name != "rigorous":
        return (), []
    out: list[OverPeople] = []
    warnings: list[str] = []
    contrasts: list[tuple[str, str, str | None]] = [
        (model, model, None) for model in results.models if maps.get(model)
    ]
    contrasts += [
        (f"{a} {MINUS} {b}", a, b) for a, b in pairs_of(study, results) if maps.get(a) and maps.get(b)
    ]
    for i, (name, a, b) in enumerate(contrasts):
        areas = _areas(results, a) if b is None else _areas(results, a) - _areas(results, b)
        areas = areas.dropna(axis=0, how="all")
        if len(areas) < FEWEST:
            continue
        tail, n = "greater" if b is None else "two", study.inference.n_resamples
        rngs = [np.random.default_rng([study.seed, 4, i, k]) for k in range(3)]
        targets = clusters = None
        if results.space is not None:
            values = np.stack(maps[a]) if b is None else np.stack(maps[a]) - np.stack(maps[b])
            targets = sign_flip(values, rngs[0], n, tail)
            if study.inference.tfce:
                clusters, said = _clusters(results, values, rngs[1], n, tail, name)
                warnings += said
        of_areas = sign_flip(areas.to_numpy(np.float64), rngs[2], n, tail)
        out.append(OverPeople(name, tail, len(areas), tuple(areas.columns), of_areas, targets, clusters))
    return tuple(out), list(dict.fromkeys(warnings))


def _areas(results: Results, model: str) -> pd.DataFrame:
    """Give the chosen layer's mean r by subject and region, "brain" first."""
    table = results.scores
    rows = table[(table.model == model) & (table.metric == "r_chosen") & (table.run == "all")]
    rows = rows[rows.subject != "average"]
    names = [str(name) for name in dict.fromkeys(rows.region)]
    return rows.pivot(index="subject", columns="region", values="value")[names]


def _clusters(
    results: Results, values: np.ndarray, rng: np.random.Generator, n: int, tail: str, name: str
) -> tuple[Significance | None, list[str]]:
    assert results.space is not None
    try:
        return tfce(values, results.space, rng, n, tail), []
    except FitError as error:
        return None, [f"No clusters over subjects for {name}: {error}"]


def mixed(study: Study, results: Results) -> tuple[Mixed | None, list[str]]:
    """Fit the mixed model of the chosen layers' r over subjects and runs, where there are enough of both."""
    people = set(results.scores.subject) - {"average"}
    if not study.inference.mixed or len(results.models) < 2 or len(people) < FEWEST:
        return None, []
    table = results.scores
    table = table[
        (table.metric == "r_chosen") & (table.run != "all") & (table.region == results.region)
        & table.subject.isin(people) & table.model.isin(results.models)
    ].rename(columns={"value": "score"})  # fmt: skip
    if table.run.nunique() < 2 or table.model.nunique() < 2:
        return None, []
    if len(table) > MIXED_ROWS:
        return None, [
            f"The mixed model was left out: {len(table):,} scores of subjects, runs and models take it too long (at most {MIXED_ROWS:,})."
        ]
    try:
        found = mixed_model(table, [m for m in results.models if m in set(table.model)])
    except FitError as error:
        return None, [f"There is no mixed model: {error}"]
    return found, [f"Mixed model: {note}" for note in found.warnings]
