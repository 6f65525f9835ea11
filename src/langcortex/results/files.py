"""Results on disk: tables, maps and a summary; no file is ever half written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.cache import atomic_write, make_folder
from langcortex.paths import as_path, safe_cells, safe_name
from langcortex.results.provenance import MINUS, Records
from langcortex.results.results import Results, tidy
from langcortex.results.variance_partition import PARTITION_TABLES, write_partitions
from langcortex.stats.comparison import Comparison
from langcortex.stats.noise_ceiling import Ceiling, normalise


def write_tables(results: Results, folder: Path | str) -> list[Path]:
    """Write tables, ``summary.json``, and maps.

    Tables are ``scores.tsv``; ``comparisons.tsv``, ``layers.tsv``, ``group.tsv``, ``ceilings.tsv`` and ``cleaning.tsv`` where they
    have rows; and ``tests.tsv``, how every p and interval was made. A table of an earlier run that has no rows any more keeps its
    header. There are maps of every model's best layer and chosen layer, of tests over
    subjects, and of noise ceilings.

    Returns
    -------
    the paths
    """
    folder = as_path(folder)
    frames = {
        "scores": tidy(results.scores),
        "comparisons": comparison_table(results),
        "layers": curve_table(results),
        "group": group_table(results),
        "ceilings": ceiling_table(results),
        "tests": Records(results).frame(),
        "cleaning": cleaning_table(results),
    }
    paths = []
    for name, frame in frames.items():
        if name == "scores" or len(frame):
            paths.append(folder / f"{name}.tsv")
            with atomic_write(paths[-1]) as draft:
                safe_cells(frame).to_csv(draft, sep="\t", index=False, na_rep="n/a", float_format="%.6g")
        else:
            paths += _empty_table(folder / f"{name}.tsv")
    paths.append(write_summary(results, folder))
    if results.space is not None:
        make_folder(folder / "maps")
        for stem, values in _maps(results):
            paths += results.space.write(values, folder / "maps" / stem)
    if not results.partitions:
        paths += [path for name in PARTITION_TABLES for path in _empty_table(folder / f"{name}.tsv")]
    return [*paths, *write_partitions(results.partitions, results.space, folder)]


def write_summary(results: Results, folder: Path) -> Path:
    """Write ``summary.json`` and return its path."""
    with atomic_write(folder / "summary.json") as draft:
        draft.write_text(json.dumps(summarise(results), indent=2) + "\n")
    return folder / "summary.json"


def _empty_table(path: Path) -> list[Path]:
    """Remove the rows of a table of an earlier run, and return its path; nothing where there is none."""
    if not path.is_file():
        return []
    with path.open("rb") as table:
        header = table.readline(10_000)
    with atomic_write(path) as draft:
        draft.write_bytes(header)
    return [path]


def _maps(results: Results) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every map with the beginning of its file's name."""
    for model in results.maps:
        if model not in results.models:
            yield f"{safe_name(model)}_stat-r", results.maps[model][0]
            continue
        layer = results.best_layer(model)
        if layer is None:
            continue
        row = results.maps[model][list(results.layers[model]).index(layer)]
        yield f"{safe_name(model)}_layer-{layer:02d}_stat-r", row
        for kind, values in (("r", results.chosen), ("p", results.p), ("pfwe", results.p_corrected)):
            if model in values:
                yield f"{safe_name(model)}_layer-chosen_stat-{kind}", values[model]
    yield from _group_maps(results)
    yield from _ceiling_maps(results)


def _group_maps(results: Results) -> Iterator[tuple[str, np.ndarray]]:
    for test in results.people:
        pair = [test.name] if test.name in results.models else test.name.split(f" {MINUS} ")
        name = "-minus-".join(map(safe_name, pair))
        if test.targets is not None:
            targets = test.targets
            for kind, values in (
                ("t", targets.value),
                ("p", targets.p),
                ("pfwe", targets.p_corrected),
                ("q", targets.q),
            ):
                yield f"{name}_layer-chosen_group_stat-{kind}", values
        if test.clusters is not None:
            yield f"{name}_layer-chosen_group_stat-ptfce", test.clusters.p_corrected


def _ceiling_maps(results: Results) -> Iterator[tuple[str, np.ndarray]]:
    if results.shared is None:
        return
    for name, ceiling in (
        ("perfect", results.shared.perfect_model),
        ("others", results.shared.other_subjects),
    ):
        yield f"ceiling-{name}_stat-r", ceiling.value
        yield f"ceiling-{name}_stat-low", ceiling.low
    for model, r in results.chosen.items():
        yield (
            f"{safe_name(model)}_layer-chosen_stat-share",
            normalise(r, results.shared.perfect_model, "r").value,
        )


def cleaning_table(results: Results) -> pd.DataFrame:
    """Return one row per subject and run: what cleaning removed, and what it left."""
    rows = [
        {
            "subject": subject, "run": run, "scans": report.n_scans, "drifts": report.n_drifts,
            "confounds": report.n_confounds, "dropped": len(report.dropped), "degrees_of_freedom": report.degrees_of_freedom,
            "undefined_targets": report.n_undefined, "constant_or_explained": report.n_rounding,
            "confounds_used": ", ".join(report.confounds), "confounds_dropped": ", ".join(report.dropped),
        }
        for subject, runs in results.cleaning.items()
        for run, report in runs.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def comparison_table(results: Results) -> pd.DataFrame:
    """Return one row per pair and layer; "chosen" is the layer chosen in training."""
    pairs = [(c, [str(int(k)) for k in c.layers]) for c in results.comparisons]
    pairs += [(c, ["chosen"]) for c in results.comparisons_chosen]
    return pd.DataFrame([row for c, layers in pairs for row in _rows_of_pair(c, layers)])


def _rows_of_pair(c: Comparison, layers: list[str]) -> Iterator[dict[str, Any]]:
    missing = np.full(len(layers), np.nan)
    bayes, detectable = (x if len(x) else missing for x in (c.bayes_factor, c.detectable_difference))
    for i, layer in enumerate(layers):
        yield {
            "a": c.a, "b": c.b, "unit": c.unit, "n": c.n_units, "layer": layer, "difference": c.effect[i],
            "low": c.low[i], "high": c.high[i], "p": c.p[i], "p_corrected": c.p_corrected[i], "margin": c.margin,
            "p_equivalent": c.p_equivalent[i], "bayes_factor": bayes[i], "detectable": detectable[i],
        }  # fmt: skip


def curve_table(results: Results) -> pd.DataFrame:
    """Return one row per model: the peak of its curve and the tests of its shape."""
    rows = [
        {
            "model": c.name, "unit": c.unit, "n": c.n_units, "peak": c.peak.layer, "peak_low": c.peak.low,
            "peak_high": c.peak.high, "p_flat": c.flat.p, "split": c.lines.split, "slope_before": c.lines.slope[0],
            "p_before": c.lines.p[0], "slope_after": c.lines.slope[1], "p_after": c.lines.p[1],
            "p_noise": np.nan if c.against_noise is None else c.against_noise.p, "verdict": c.verdict,
        }
        for c in results.curves
    ]  # fmt: skip
    return pd.DataFrame(rows)


def group_table(results: Results) -> pd.DataFrame:
    """Return one row per test over subjects and region, and one per model of the mixed model."""
    rows = [
        {
            "what": t.name, "test": "signs of subjects", "n": t.n_subjects, "region": region, "t": t.regions.value[i],
            "p": t.regions.p[i], "p_corrected": t.regions.p_corrected[i], "q": t.regions.q[i],
        }
        for t in results.people
        for i, region in enumerate(t.region_names)
    ]  # fmt: skip
    m = results.mixed
    if m is not None:
        rows += [
            {
                "what": f"{name} {MINUS} {m.models[0]}", "test": f"mixed model: {m.formula}", "n": m.n_subjects,
                "region": results.region, "effect": m.effect[i], "low": m.low[i], "high": m.high[i], "p": m.p[i],
            }
            for i, name in enumerate(m.models[1:])
        ]  # fmt: skip
    return pd.DataFrame(rows)


def ceiling_table(results: Results) -> pd.DataFrame:
    """Return one row per ceiling, model and region: score, ceiling with its interval, and the share where it is defined."""
    return pd.DataFrame([*_inter_subject_shares(results), *_repeat_shares(results)])


def _inter_subject_shares(results: Results) -> Iterator[dict[str, Any]]:
    s = results.shared
    if s is None:
        return
    inside = {"brain": np.ones(len(s.perfect_model.value), dtype=bool)}
    inside |= dict(results.space.regions) if results.space is not None else {}
    for model in results.models:
        for region in s.perfect_model.by_region:
            for kind, ceiling in (("other subjects", s.other_subjects), ("perfect model", s.perfect_model)):
                r = _mean_where(results.chosen.get(model), inside[region] & np.isfinite(ceiling.value))
                yield _share(model, f"{len(s.subjects)} subjects", kind, region, r, ceiling)
    if s.average_subject is not None:
        for model in results.models:
            for region in s.average_subject.by_region:
                table = results.scores
                rows = table[(table.subject == "average") & (table.run == "all") & (table.region == region)]
                r = rows[(rows.model == model) & (rows.metric == "r_chosen")]["value"].mean()
                yield _share(model, "average", "perfect model", region, float(r), s.average_subject)


def _repeat_shares(results: Results) -> Iterator[dict[str, Any]]:
    table = results.scores[results.scores.metric == "r_chosen"]
    for repeats in results.repeats:
        subject, ceiling = repeats.subject, repeats.ceiling
        rows = table[(table.subject == subject) & (table.run == repeats.run)]
        for model in repeats.scores:
            r_by_region = rows[rows.model == model].groupby("region")["value"].mean()
            for region in ceiling.by_region:
                kind = f"{repeats.n_repeats} repeats of {repeats.run}"
                r = float(r_by_region.get(region, np.nan))
                yield _share(model, subject, kind, region, r, ceiling)


def _mean_where(values: np.ndarray | None, inside: np.ndarray) -> float:
    if values is None or len(values) != len(inside):
        return float("nan")
    part = values[inside & np.isfinite(values)]
    return float(part.mean()) if len(part) else float("nan")


def _share(model: str, scored: str, kind: str, region: str, r: float, ceiling: Ceiling) -> dict[str, Any]:
    value, low, high = ceiling.by_region[region]
    reason = (
        "the score is undefined" if not np.isfinite(r)
        else "the ceiling is undefined" if not np.isfinite(value)
        else "" if low > 0
        else "the interval of the ceiling contains 0"
    )  # fmt: skip
    return {
        "model": model, "scored": scored, "ceiling_of": kind, "region": region, "r": r, "ceiling": value, "low": low,
        "high": high, "share": r / value if not reason else np.nan, "refused": reason,
    }  # fmt: skip


def summarise(results: Results) -> dict[str, Any]:
    """Return the study as one JSON object."""
    return {
        "name": results.name,
        "protocol": results.protocol.name,
        "leaks": list(results.protocol.leaks),
        "counts": dict(results.counts),
        "delays": dict(results.delays),
        "best_layer": {m: results.best_layer(m) for m in results.models if m in results.maps},
        "chosen_layers": {m: dict(v) for m, v in results.chosen_layers.items()},
        "verdicts": [c.verdict for c in results.comparisons],
        "verdicts_chosen": [c.verdict for c in results.comparisons_chosen],
        "curves": {c.name: c.verdict for c in results.curves},
        "ceilings": _plain(ceiling_table(results)),
        "group": _plain(group_table(results)),
        "no_ceiling": list(results.no_ceiling),
        "regimes": dict(results.regimes),
        "penalties_at_edges": {m: list(edges) for m, edges in results.edges.items()},
        "tests": _plain(Records(results).frame()),
        "versions": dict(results.versions),
        "frames": {model: dict(frame) for model, frame in results.frames.items()},
        "warnings": list(results.warnings),
        "settings": dict(results.settings),
    }


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values; what is undefined is None."""
    return [
        {str(k): None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in frame.to_dict("records")
    ]
