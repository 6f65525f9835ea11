"""From what subjects gave to results: maps, p values, and everything that is asked of finished scores."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from langcortex.encoding.protocol import Protocol
from langcortex.results.null_curves import read_null_curves
from langcortex.results.results import Results
from langcortex.stats.layer_curve import FEWEST, LayerCurve, analyse_layer_curve
from langcortex.stats.null_counts import Significance
from langcortex.stats.resampling import Resampling
from langcortex.stimulus.story import Story
from langcortex.study.accumulate import StudyScores
from langcortex.study.feature_spaces import Spaces, layer_number
from langcortex.study.group_tests import compare_by_layer, compare_chosen_layers, group_tests, mixed_models
from langcortex.study.settings import Study


def infer_results(
    study: Study, story: Story, spaces: Spaces, protocol: Protocol, study_scores: StudyScores, region: str
) -> Results:
    """Put everything together, and ask everything of it: comparisons, curves, people, ceilings."""
    results = _plain_results(study, story, spaces, protocol, study_scores, region)
    warnings: list[str] = [*study_scores.warnings]
    columns = {m: _columns(spaces, names, protocol) for m, names in spaces.of_model.items()}
    comparisons, said = compare_by_layer(study, results, columns)
    warnings += said
    found: dict[str, Any] = {
        "comparisons": comparisons,
        "comparisons_chosen": compare_chosen_layers(study, results),
    }
    found["curves"], said = _curves(study, results)
    warnings += said
    found["people"], said = group_tests(study, results, study_scores.chosen_maps)
    warnings += said
    found["mixed"], said = mixed_models(study, results)
    warnings += said
    if study.inference.ceilings and protocol.name == "rigorous" and results.models:
        found["shared"], why = _shared(study, results, study_scores)
        found["no_ceiling"] = tuple(reason for reason in (why, study_scores.no_repeats) if reason)
    if results.space is None:
        warnings.append("Subjects have different targets, so there are no maps over subjects.")
    return dataclasses.replace(results, warnings=tuple(dict.fromkeys(warnings)), **found)


def _plain_results(
    study: Study, story: Story, spaces: Spaces, protocol: Protocol, study_scores: StudyScores, region: str
) -> Results:
    """Gather what was counted and scored."""
    shared = study_scores.space
    layers = {m: np.array([layer_number(n) for n in names]) for m, names in spaces.of_model.items()}
    tested = study_scores.test_models(protocol, study.seed) if shared is not None else {}
    of_layers = study_scores.test_models(protocol, study.seed, "all") if shared is not None else {}
    return Results(
        name=study.name,
        settings=study.model_dump(),
        protocol=protocol,
        counts={
            "words": len(story),
            study.design.rows.replace("scans", "sentences"): len(story.grouped(study.design.rows).sentences),
            "runs": len(story.runs),
            "labels left out (pauses)": int(sum(story.left_out.values())),
            "subjects": dict(study_scores.subjects),
        },
        models=tuple(spaces.of_model),
        controls=spaces.controls if protocol.name == "rigorous" else (),
        scores=study_scores.table(),
        maps=study_scores.maps() if shared is not None else {},
        layers=layers,
        chosen={m: _mean(v) for m, v in study_scores.chosen_maps.items() if v and shared is not None},
        p={m: t.p[0] for m, t in tested.items()},
        p_corrected={m: t.p_corrected[0] for m, t in tested.items()},
        p_layers={m: t.p_corrected for m, t in of_layers.items()},
        delays=study_scores.delays,
        chosen_layers=study_scores.chosen_layers,
        comparisons=(),
        space=shared,
        versions=_versions(spaces),
        audit=spaces.audit,
        region=region,
        repeats=tuple(study_scores.repeat_ceilings),
        edges=study_scores.edge_shares(),
        regimes={model: ", ".join(sorted(found)) for model, found in study_scores.solvers.items() if found},
        null_of_p=_null_of(list(tested.values())),
    )


def _null_of(tested: Sequence[Significance]) -> Resampling | None:
    """Say what stands behind the p of the layer chosen in training."""
    corrected = (
        "largest r of each null over targets (family-wise), and Benjamini-Hochberg (false discoveries)"
    )
    return dataclasses.replace(tested[0].resampled, correction=corrected) if tested else None


def _columns(spaces: Spaces, names: Sequence[str], protocol: Protocol) -> int:
    """Count the columns that a layer of a model is fitted with."""
    wide = int(spaces.tables[names[len(names) // 2]].values.shape[1])
    return min(wide, protocol.pca or wide)


def _curves(study: Study, results: Results) -> tuple[tuple[LayerCurve, ...], list[str]]:
    """Ask of each model's curve whether it is an inverted U, against noise's curve too where a calibration left one."""
    nulls, why = read_null_curves(study.output_folder, results.protocol, results.region)
    out, warnings = [], [why] if why else []
    for model in results.models:
        curve = results.curve(model)
        layers = curve.columns.to_numpy(dtype=np.float64)
        whole = curve.to_numpy(dtype=np.float64)
        if len(layers) < FEWEST or np.isfinite(whole).all(axis=1).sum() < 3:
            continue
        null = nulls.get(model)
        if null is not None and null.layers != layers.astype(int).tolist():
            warnings.append(f"The calibration on noise has other layers of {model}; run it again.")
            null = None
        rng = np.random.default_rng([study.seed, 3])
        n = study.inference.n_resamples
        found = analyse_layer_curve(
            whole, layers, model, results.unit, rng, None if null is None else null.curves, n
        )
        if null is not None and found.beyond is not None:
            found = dataclasses.replace(
                found, beyond=dataclasses.replace(found.beyond, resampled=null.resampled)
            )
        out.append(found)
    return tuple(out), warnings


def _shared(study: Study, results: Results, study_scores: StudyScores) -> tuple[Any, str]:
    regions = results.space.regions if results.space is not None else {}
    rng, n = np.random.default_rng([study.seed, 6]), max(100, study.inference.n_resamples // 10)
    if not study_scores.shared_responses.people:
        return None, study_scores.no_ceiling
    return study_scores.shared_responses.shared(regions, rng, "average" in set(results.scores.subject), n)


def _mean(maps: Sequence[np.ndarray]) -> np.ndarray:
    stack = np.stack(maps)
    count = np.isfinite(stack).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = np.where(count > 0, np.nansum(stack, axis=0) / count, np.nan)
    return mean


def _versions(spaces: Spaces) -> dict[str, str]:
    found = {"langcortex": "", "python": platform.python_version()}
    for package in (
        "langcortex",
        "numpy",
        "scipy",
        "nilearn",
        "nibabel",
        "scikit-learn",
        "torch",
        "transformers",
    ):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {f"model {name}": revision for name, revision in spaces.revisions.items()}
