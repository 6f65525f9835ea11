"""From the scores of subjects to results: maps, p values, comparisons, layer curves, tests over subjects and ceilings."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from langcortex.brain.cleaning import describe_cleaning
from langcortex.brain.clocks import describe_clocks
from langcortex.encoding.protocol import Protocol
from langcortex.errors import StoreError
from langcortex.results.null_curves import read_null_curves
from langcortex.results.results import Results
from langcortex.stats.layer_curve import FEWEST, LayerCurve, analyse_layer_curve
from langcortex.stats.noise_ceiling import InterSubjectCeiling
from langcortex.stats.null_counts import Significance
from langcortex.stats.resampling import Resampling
from langcortex.stimulus.story import Story
from langcortex.study.accumulate import StudyScores
from langcortex.study.feature_spaces import Spaces, layer_number
from langcortex.study.group_tests import compare_by_layer, compare_chosen_layers, group_tests, mixed_models
from langcortex.study.settings import Study


def infer_results(
    study: Study, story: Story, spaces: Spaces, protocol: Protocol, scores: StudyScores, region: str
) -> Results:
    """Make the results of a study from its scores: comparisons, layer curves, tests over subjects, noise ceilings."""
    results = _plain_results(study, story, spaces, protocol, scores, region)
    warnings: list[str] = [*scores.warnings, *describe_clocks(scores.clock_remarks)]
    warnings += describe_cleaning(scores.cleaning)
    columns = {m: _n_columns(spaces, names, protocol) for m, names in spaces.of_model.items()}
    comparisons, notes = compare_by_layer(study, results, columns)
    warnings += notes
    inferred: dict[str, Any] = {
        "comparisons": comparisons,
        "comparisons_chosen": compare_chosen_layers(study, results),
    }
    inferred["curves"], notes = _layer_curves(study, results)
    warnings += notes
    inferred["people"], notes = group_tests(study, results, scores.chosen_maps)
    warnings += notes
    inferred["mixed"], notes = mixed_models(study, results)
    warnings += notes
    if study.inference.ceilings and protocol.name == "rigorous" and results.models:
        inferred["shared"], reason = _inter_subject_ceiling(study, results, scores)
        inferred["no_ceiling"] = tuple(text for text in (reason, scores.no_repeats) if text)
    if results.space is None:
        warnings.append("Subjects have different targets, so there are no maps over subjects.")
    return dataclasses.replace(results, warnings=tuple(dict.fromkeys(warnings)), **inferred)


def _plain_results(
    study: Study, story: Story, spaces: Spaces, protocol: Protocol, scores: StudyScores, region: str
) -> Results:
    """Collect counts, scores, maps and p values, before anything is inferred from them."""
    space = scores.space
    layers = {m: np.array([layer_number(n) for n in names]) for m, names in spaces.of_model.items()}
    tests = scores.test_models(protocol, study.seed) if space is not None else {}
    layer_tests = scores.test_models(protocol, study.seed, "all") if space is not None else {}
    return Results(
        name=study.name,
        settings=study.model_dump(exclude={"jobs"}),  # which change no number
        protocol=protocol,
        counts={
            "words": len(story),
            study.design.rows.replace("scans", "sentences"): len(story.group_by(study.design.rows).sentences),
            "runs": len(story.runs),
            "labels left out (pauses)": int(sum(story.left_out.values())),
            "subjects": dict(scores.subjects),
        },
        models=tuple(spaces.of_model),
        controls=spaces.controls if protocol.name == "rigorous" else (),
        scores=scores.table(),
        maps=scores.maps() if space is not None else {},
        layers=layers,
        chosen={m: _mean(maps) for m, maps in scores.chosen_maps.items() if maps and space is not None},
        p={m: t.p[0] for m, t in tests.items()},
        p_corrected={m: t.p_corrected[0] for m, t in tests.items()},
        p_layers={m: t.p_corrected for m, t in layer_tests.items()},
        delays=scores.delays,
        chosen_layers=scores.chosen_layers,
        comparisons=(),
        space=space,
        versions=_versions(spaces),
        audit=spaces.audit,
        frames={n: {**dataclasses.asdict(f), "summary": f.summary} for n, f in spaces.frames.items()},
        region=region,
        repeats=tuple(scores.repeat_ceilings),
        edges=scores.edge_shares(),
        regimes={model: ", ".join(sorted(names)) for model, names in scores.solvers.items() if names},
        null_of_p=_null_of_p(list(tests.values())),
        cleaning=scores.cleaning,
    )


def _null_of_p(tests: Sequence[Significance]) -> Resampling | None:
    """Describe how the p values of the layer chosen in training were made."""
    corrected = (
        "largest r of each null over targets (family-wise), and Benjamini-Hochberg (false discoveries)"
    )
    return dataclasses.replace(tests[0].resampling, correction=corrected) if tests else None


def _n_columns(spaces: Spaces, names: Sequence[str], protocol: Protocol) -> int:
    """Count the columns that a layer of a model is fitted with."""
    width = int(spaces.tables[names[len(names) // 2]].values.shape[1])
    return min(width, protocol.pca or width)


def _layer_curves(study: Study, results: Results) -> tuple[tuple[LayerCurve, ...], list[str]]:
    """Test whether each model's layer curve is an inverted U, and beyond the curves of noise where a calibration wrote some."""
    try:
        nulls, reason = read_null_curves(study.output_folder, results.protocol, results.region)
    except StoreError as error:  # the curves were computed, and can do without it
        nulls, reason = {}, f"{error} It was not used."
    curves, warnings = [], [reason] if reason else []
    for model in results.models:
        table = results.curve(model)
        layers = table.columns.to_numpy(dtype=np.float64)
        values = table.to_numpy(dtype=np.float64)
        if len(layers) < FEWEST or np.isfinite(values).all(axis=1).sum() < 3:
            continue
        null = nulls.get(model)
        if null is not None and null.layers != layers.astype(int).tolist():
            warnings.append(f"The calibration on noise has other layers of {model}; run it again.")
            null = None
        rng = np.random.default_rng([study.seed, 3])
        n = study.inference.n_resamples
        null_values = None if null is None else null.curves
        curve = analyse_layer_curve(values, layers, model, results.unit, rng, null_values, n)
        if null is not None and curve.against_noise is not None:
            against_noise = dataclasses.replace(curve.against_noise, resampling=null.resampled)
            curve = dataclasses.replace(curve, against_noise=against_noise)
        curves.append(curve)
    return tuple(curves), warnings


def _inter_subject_ceiling(
    study: Study, results: Results, scores: StudyScores
) -> tuple[InterSubjectCeiling | None, str]:
    regions = results.space.regions if results.space is not None else {}
    rng, n = np.random.default_rng([study.seed, 6]), max(100, study.inference.n_resamples // 10)
    if not len(scores.shared_responses):
        return None, scores.no_ceiling
    return scores.shared_responses.ceiling(regions, rng, "average" in set(results.scores.subject), n)


def _mean(maps: Sequence[np.ndarray]) -> np.ndarray:
    stack = np.stack(maps)
    count = np.isfinite(stack).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = np.where(count > 0, np.nansum(stack, axis=0) / count, np.nan)
    return mean


def _versions(spaces: Spaces) -> dict[str, str]:
    """Return the versions of packages and of the models' weights."""
    versions = {"langcortex": "", "python": platform.python_version()}
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
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions | {f"model {name}": revision for name, revision in spaces.revisions.items()}
