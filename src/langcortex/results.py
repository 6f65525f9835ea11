"""What a study found, on disk and in memory: everything the figures and the report are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.comparison import Comparison
from langcortex.protocol import Protocol
from langcortex.space import Space
from langcortex.store import written_whole

COLUMNS = ["subject", "run", "model", "layer", "region", "metric", "value"]


@dataclass(frozen=True, eq=False)
class Results:
    """The outcome of one study.

    Attributes
    ----------
    name : of the study
    settings : the study file, as a value
    protocol : the choices that were obeyed
    counts : what was read: words, sentences, rows, subjects, targets, and what was left out
    models : names of the language models, in the study's order
    controls : names of the control spaces
    scores : tidy table, a row a number: subject, run ("all" for the pooled score), model, layer (missing for
        controls and for the layer chosen in training), region, metric ("r", "r2", or "r_chosen", "r2_chosen"
        of the layer chosen in training), value
    maps : model → (n_layers, n_targets) r averaged over subjects; controls have one row
    layers : model → (n_layers,) layer numbers
    chosen : model → (n_targets,) r of the layer chosen in training, averaged over subjects
    p : model → (n_targets,) of `chosen`, against circular shifts of the responses, refitted
    p_corrected : the same, corrected over targets by the largest value of each shift (family-wise)
    delays : subject → delays chosen, one an outer fold (s)
    chosen_layers : model → subject → layers chosen, one an outer fold
    comparisons : of pairs of models
    space : where targets lie; None where subjects' targets differ
    versions : of the software and of each model
    warnings : sentences the reader should see
    audit : model → what its tokenizer did to the words
    region : the region that curves and comparisons are drawn for
    source : the corpus's own sentences: "citation" and "licence", where it has them
    findings : what an audit of the study found: level, what, how_bad, where, mend; None where none was made
    """

    name: str
    settings: Mapping[str, Any]
    protocol: Protocol
    counts: Mapping[str, Any]
    models: tuple[str, ...]
    controls: tuple[str, ...]
    scores: pd.DataFrame
    maps: Mapping[str, np.ndarray]
    layers: Mapping[str, np.ndarray]
    chosen: Mapping[str, np.ndarray]
    p: Mapping[str, np.ndarray]
    delays: Mapping[str, list[float]]
    chosen_layers: Mapping[str, Mapping[str, list[int]]]
    comparisons: tuple[Comparison, ...]
    space: Space | None
    versions: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    audit: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    region: str = "brain"
    p_corrected: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] | None = None

    def curve(self, model: str, metric: str = "r", region: str | None = None) -> pd.DataFrame:
        """Give scores by unit and layer: rows are subjects, or the runs of the only subject; columns layers."""
        table, region = self.scores, region or self.region
        rows = table[
            (table.model == model) & (table.metric == metric) & (table.region == region) & table.layer.notna()
        ]
        rows = rows[rows.subject != "average"]
        if self.unit == "subjects":
            return rows[rows.run == "all"].pivot(index="subject", columns="layer", values="value")
        return rows[rows.run != "all"].pivot(index="run", columns="layer", values="value")

    def by_run(self, model: str, metric: str = "r", region: str | None = None) -> pd.DataFrame:
        """Give scores by run and layer, averaged over subjects."""
        table, region = self.scores, region or self.region
        rows = table[
            (table.model == model) & (table.metric == metric) & (table.region == region) & table.layer.notna()
        ]
        rows = rows[(rows.run != "all") & (rows.subject != "average")]
        wide = rows.pivot_table(index="run", columns="layer", values="value", aggfunc="mean", sort=False)
        return wide.sort_index(axis=1)

    @property
    def unit(self) -> str:
        """What the spread is over: subjects where there are several, otherwise runs."""
        people = set(self.scores.subject) - {"average"}
        return "subjects" if len(people) > 1 else "runs"

    def best_layer(self, model: str) -> int | None:
        """Name the layer with the highest mean r: a description, picked on the scores it has. None without scores."""
        mean = self.curve(model).mean(axis=0)
        return int(mean.idxmax()) if mean.notna().any() else None


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write scores.tsv, comparisons.tsv, summary.json, and maps of every model's best layer and chosen layer."""
    paths = [folder / "scores.tsv"]
    with written_whole(paths[0]) as draft:
        tidy(results.scores).to_csv(draft, sep="\t", index=False, na_rep="n/a", float_format="%.6g")
    if results.comparisons:
        paths.append(folder / "comparisons.tsv")
        with written_whole(paths[-1]) as draft:
            comparison_table(results).to_csv(draft, sep="\t", index=False, na_rep="n/a", float_format="%.6g")
    paths.append(folder / "summary.json")
    with written_whole(paths[-1]) as draft:
        draft.write_text(json.dumps(summary(results), indent=2) + "\n")
    if results.space is not None:
        (folder / "maps").mkdir(exist_ok=True)
        for model in results.maps:
            if model not in results.models:
                paths += results.space.write(results.maps[model][0], folder / "maps" / f"{model}_stat-r")
                continue
            layer = results.best_layer(model)
            if layer is None:
                continue
            row = results.maps[model][list(results.layers[model]).index(layer)]
            paths += results.space.write(row, folder / "maps" / f"{model}_layer-{layer:02d}_stat-r")
            if model in results.chosen:
                paths += results.space.write(
                    results.chosen[model], folder / "maps" / f"{model}_layer-chosen_stat-r"
                )
            for kind, values in (("p", results.p), ("pfwe", results.p_corrected)):
                if model in values:
                    stem = folder / "maps" / f"{model}_layer-chosen_stat-{kind}"
                    paths += results.space.write(values[model], stem)
    return paths


def tidy(scores: pd.DataFrame) -> pd.DataFrame:
    """Put the columns in order and layers as whole numbers."""
    out = scores[COLUMNS].copy()
    out["layer"] = out["layer"].astype("Int64")
    return out


def comparison_table(results: Results) -> pd.DataFrame:
    """One row a pair and layer."""
    rows = [
        {
            "a": c.a, "b": c.b, "unit": c.unit, "n": c.n_units, "layer": int(layer), "difference": c.effect[i],
            "low": c.low[i], "high": c.high[i], "p": c.p[i], "p_corrected": c.p_corrected[i], "margin": c.margin,
            "p_equivalent": c.p_equivalent[i],
        }
        for c in results.comparisons
        for i, layer in enumerate(c.layers)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def summary(results: Results) -> dict[str, Any]:
    """The study in one JSON object."""
    return {
        "name": results.name,
        "protocol": results.protocol.name,
        "leaks": list(results.protocol.leaks),
        "counts": dict(results.counts),
        "delays": dict(results.delays),
        "best_layer": {m: results.best_layer(m) for m in results.models if m in results.maps},
        "chosen_layers": {m: dict(v) for m, v in results.chosen_layers.items()},
        "verdicts": [c.verdict for c in results.comparisons],
        "versions": dict(results.versions),
        "warnings": list(results.warnings),
        "settings": dict(results.settings),
    }
