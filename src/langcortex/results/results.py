"""The results of a study in memory: everything that figures and the report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from langcortex.brain.cleaning import CleaningReport
from langcortex.brain.space import Space
from langcortex.encoding.protocol import Protocol
from langcortex.results.variance_partition import PartitionResult
from langcortex.stats.comparison import Comparison
from langcortex.stats.group import GroupTest, MixedModel
from langcortex.stats.layer_curve import LayerCurve
from langcortex.stats.noise_ceiling import InterSubjectCeiling
from langcortex.stats.repeat_ceiling import RepeatCeiling
from langcortex.stats.resampling import Resampling

COLUMNS = ["subject", "run", "model", "layer", "region", "metric", "value"]


@dataclass(frozen=True, eq=False)
class Results:
    """The outcome of one study.

    Attributes
    ----------
    name : of the study
    settings : the study file, as a value
    protocol : the choices of folds, fits and tests
    counts : what was read: words, sentences, rows, subjects, targets, and what was left out
    models : names of the language models, in the study's order
    controls : names of the control spaces
    scores : tidy table, one row per number: subject, run ("all" for the pooled score), model, layer (missing for
        controls and for the layer chosen in training), region, metric ("r", "r2", or "r_chosen", "r2_chosen"
        of the layer chosen in training), value
    maps : model → (n_layers, n_targets) r averaged over subjects; controls have one row
    layers : model → (n_layers,) layer numbers
    chosen : model → (n_targets,) r of the layer chosen in training, averaged over subjects
    p : model → (n_targets,) of `chosen`, against nulls of the responses, refitted (see `protocol.null`)
    p_corrected : the same, corrected over targets by the largest value of each null (family-wise)
    p_layers : model → (n_layers, n_targets) of every layer, corrected over targets and layers, where
        ``protocol.null_layers`` is "all"
    delays : subject → chosen delays, one per outer fold (s)
    chosen_layers : model → subject → chosen layers, one per outer fold
    comparisons : of pairs of models
    space : where targets lie; None where subjects' targets differ
    versions : of the software and of each model
    warnings : sentences that the reader should see
    audit : model → what its tokenizer did to the words
    region : the region that curves and comparisons are drawn for
    source : "citation" and "licence" of the corpus, where it has them
    findings : of an audit of the study: level, what, how_bad, where, mend; None without an audit
    comparisons_chosen : of the same pairs, each model at its layer chosen in training
    curves : of each model's curve over layers: its peak, and whether it is an inverted U
    people : tests over subjects of the layer chosen in training, of models and of differences
    mixed : the mixed model of those scores over subjects and runs, if one was fitted
    shared : noise ceilings between subjects, if there are enough
    repeats : noise ceilings from repeats, where the corpus has them
    edges : model → shares of targets whose chosen penalty is the smallest and the largest of the grid
    regimes : model → how the engine scored its predictions: "pairs", "axes" or "kernel" (docs/choose.md)
    null_of_p : how `p` and `p_corrected` were made
    partitions : unique and shared variance of models and controls, where the study has them
    no_ceiling : sentences: why there is no noise ceiling between subjects, or from repeats
    kept_results : names of the features and fits in stores that the results were made from
    inputs : what was read → digest of its contents
    files : paths in the output folder, relative to it, of what was written before the results
    cleaning : subject → run → what cleaning removed from the recording, where that is known
    frames : model → what stands around every text that it reads: first, before, after, last, date, and a summary
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
    p_layers: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] | None = None
    comparisons_chosen: tuple[Comparison, ...] = ()
    curves: tuple[LayerCurve, ...] = ()
    people: tuple[GroupTest, ...] = ()
    mixed: MixedModel | None = None
    shared: InterSubjectCeiling | None = None
    repeats: tuple[RepeatCeiling, ...] = ()
    edges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    regimes: Mapping[str, str] = field(default_factory=dict)
    null_of_p: Resampling | None = None
    no_ceiling: tuple[str, ...] = ()
    partitions: tuple[PartitionResult, ...] = ()
    kept_results: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    cleaning: Mapping[str, Mapping[str, CleaningReport]] = field(default_factory=dict)
    frames: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def curve(self, model: str, metric: str = "r", region: str | None = None) -> pd.DataFrame:
        """Return scores by unit and layer: one row per subject, or per run of the only subject; one column per layer."""
        table, region = self.scores, region or self.region
        rows = table[
            (table.model == model) & (table.metric == metric) & (table.region == region) & table.layer.notna()
        ]
        rows = rows[rows.subject != "average"]
        if self.unit == "subjects":
            return rows[rows.run == "all"].pivot(index="subject", columns="layer", values="value")
        return rows[rows.run != "all"].pivot(index="run", columns="layer", values="value")

    def by_run(self, model: str, metric: str = "r", region: str | None = None) -> pd.DataFrame:
        """Return scores by run and layer, averaged over subjects."""
        table, region = self.scores, region or self.region
        rows = table[
            (table.model == model) & (table.metric == metric) & (table.region == region) & table.layer.notna()
        ]
        rows = rows[(rows.run != "all") & (rows.subject != "average")]
        wide = rows.pivot_table(index="run", columns="layer", values="value", aggfunc="mean", sort=False)
        return wide.sort_index(axis=1)

    def of_chosen(self, model: str, region: str | None = None, by: str | None = None) -> pd.Series:
        """Return r of the layer chosen in training by unit: subjects, or the runs of the only subject.

        Parameters
        ----------
        by : "subjects" or "runs"; the unit of this study when None
        """
        table, region = self.scores, region or self.region
        rows = table[(table.model == model) & (table.metric == "r_chosen") & (table.region == region)]
        rows = rows[rows.subject != "average"]
        if (by or self.unit) == "subjects":
            return rows[rows.run == "all"].set_index("subject")["value"]
        return rows[rows.run != "all"].set_index("run")["value"]

    @property
    def unit(self) -> str:
        """The unit of intervals and tests: subjects where there are several, otherwise runs."""
        subjects = set(self.scores.subject) - {"average"}
        return "subjects" if len(subjects) > 1 else "runs"

    def best_layer(self, model: str) -> int | None:
        """Return the layer with the highest mean r, which describes the scores that it was picked on; None without scores."""
        mean = self.curve(model).mean(axis=0)
        return int(mean.idxmax()) if mean.notna().any() else None


def tidy(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with columns in order and layers as whole numbers."""
    out = scores[COLUMNS].copy()
    out["layer"] = out["layer"].astype("Int64")
    return out
