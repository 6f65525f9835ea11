"""What subjects give to a study: scores, maps over subjects, and the null of the layer chosen in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from langcortex.brain.space import Space
from langcortex.design.design import Design
from langcortex.encoding.null_test import Tested, describe_null, null_chunks
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding, region_means, score
from langcortex.results.variance_partition import MANY_REGIONS
from langcortex.stats.null_counts import MeanNulls, Significance
from langcortex.stats.repeat_ceiling import RepeatCeiling
from langcortex.study.feature_spaces import Spaces
from langcortex.study.noise_ceiling import SharedResponses


class StudyScores:
    """Collects what subjects give, and never more than one map a layer.

    Parameters
    ----------
    spaces : of the study
    people : how many subjects will come; of several with many regions, runs are kept for `region` and "brain" alone
    region : the one that the study is about
    """

    def __init__(self, spaces: Spaces, people: int = 1, region: str = "brain") -> None:
        self.people, self.region = people, region
        self.rows: list[tuple[str, str, str, int | None, str, str, float]] = []
        self.sums: dict[str, np.ndarray] = {}
        self.counts: dict[str, np.ndarray] = {}
        self.chosen: dict[str, list[np.ndarray]] = {m: [] for m in spaces.of_model}
        self.nulls: dict[tuple[str, str], MeanNulls] = {}
        self.delays: dict[str, list[float]] = {}
        self.layers: dict[str, dict[str, list[int]]] = {m: {} for m in spaces.of_model}
        self.spaces: dict[str, Space] = {}
        self.subjects: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.regimes: dict[str, set[str]] = {m: set() for m in spaces.of_model}
        self.edges: dict[str, list[np.ndarray]] = {m: [] for m in spaces.of_model}
        self.listeners = SharedResponses()
        self.no_ceiling = "There is no noise ceiling between subjects: no responses were gathered for one."
        self.repeats: list[RepeatCeiling] = []
        self.no_repeats = ""

    def add(
        self, encoding: Encoding, model: str, layer: int | None, space: Space, metrics: tuple[str, str]
    ) -> np.ndarray:
        """Enter the scores of one encoding, per run and pooled, per region; give the pooled r."""
        s, few = score(encoding), self._few(space.regions)
        for metric, pooled, by_run in zip(metrics, (s.r, s.r2), (s.r_by_run, s.r2_by_run), strict=True):
            for run, values in (("all", pooled), *zip(s.runs.tolist(), by_run, strict=True)):
                for region, value in region_means(values, space.regions if run == "all" else few).items():
                    self.rows.append((encoding.subject, run, model, layer, region, metric, value))
        return s.r

    def _few(self, regions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Choose the regions whose runs are kept apart: hundreds, times runs, layers and people, would fill the memory."""
        if self.people == 1 or len(regions) <= MANY_REGIONS:
            return regions
        return {name: inside for name, inside in regions.items() if name == self.region}

    def add_map(self, key: str, layer: int, n_layers: int, values: np.ndarray) -> None:
        """Add one subject's map of one layer to the mean over subjects."""
        if key not in self.sums:
            self.sums[key] = np.zeros((n_layers, len(values)))
            self.counts[key] = np.zeros((n_layers, len(values)))
        if self.sums[key].shape[1] != len(values):
            return
        known = np.isfinite(values)
        self.sums[key][layer, known] += values[known]
        self.counts[key][layer] += known

    def add_edges(self, model: str, penalty: np.ndarray, grid: Sequence[float]) -> None:
        """Count the chosen penalties that are the smallest, the largest, and all of them."""
        known = penalty[np.isfinite(penalty)]
        at = [int(np.isclose(known, end, rtol=1e-5).sum()) for end in (min(grid), max(grid))]
        self.edges[model].append(np.array([*at, len(known)]))

    def edge_shares(self) -> dict[str, tuple[float, float]]:
        """Give the shares at either end of the grid, over subjects, folds and targets."""
        out = {}
        for model, counts in self.edges.items():
            low, high, n = np.sum(counts, axis=0) if counts else (0, 0, 0)
            if n:
                out[model] = (float(low / n), float(high / n))
        return out

    def tested(self, protocol: Protocol, seed: int, layers: str = "chosen") -> dict[str, Significance]:
        """Test every model against its nulls, averaged over subjects: (1, n_targets), or (n_layers, n_targets) for "all"."""
        return {
            model: means.significance(
                "responses within runs", describe_null(protocol), f"{seed}, and the run's name"
            )
            for (model, which), means in self.nulls.items()
            if which == layers
        }

    def maps(self) -> dict[str, np.ndarray]:
        """Give the mean over subjects; NaN where none has a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {k: np.where(self.counts[k] > 0, self.sums[k] / self.counts[k], np.nan) for k in self.sums}

    @property
    def space(self) -> Space | None:
        """The space all subjects share, if they do."""
        spaces = list(self.spaces.values())
        return spaces[0] if all(s.same_as(spaces[0]) for s in spaces) else None


def add_nulls(
    gather: StudyScores,
    design: Design,
    whole: Encoding,
    spaces: Sequence[str],
    layers: Sequence[tuple[str, Encoding]],
    model: str,
    protocol: Protocol,
    seed: int,
    n_subjects: int,
    engine: Engine = DEFAULT_ENGINE,
) -> None:
    """Add one subject to the test of the chosen layer, and of all layers where the protocol says so.

    The same runs are moved alike in every subject and model.
    """
    if not protocol.n_nulls:
        return
    every = layers if protocol.null_layers == "all" else ()
    n_folds = len(spaces)
    tested: list[Tested] = [(spaces, whole), *(([name] * n_folds, encoding) for name, encoding in every)]
    true = np.stack([score(encoding).r for _, encoding in tested])
    families = {(model, "chosen"): slice(0, 1)}
    if every:
        families[model, "all"] = slice(1, None)
    for family, rows in families.items():
        shape = true[rows].shape
        means = gather.nulls.setdefault(family, MeanNulls(protocol.n_nulls, n_subjects, shape))
        if means.shape != shape:
            return
        means.begin_subject(true[rows])
    for chunk, null in null_chunks(design, tested, protocol, seed, engine):
        for family, rows in families.items():
            gather.nulls[family].add_nulls(chunk, null[:, rows])
