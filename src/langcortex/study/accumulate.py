"""What subjects add to a study: scores, maps averaged over subjects, and the nulls of the layer chosen in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from langcortex.brain.cleaning import CleaningReport
from langcortex.brain.recording import Recording, Responses
from langcortex.brain.space import Space
from langcortex.design.design import Design
from langcortex.encoding.null_test import Tested, describe_null, null_chunks
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding, region_means, score
from langcortex.results.results import COLUMNS
from langcortex.results.variance_partition import MANY_REGIONS
from langcortex.stats.null_counts import MeanNulls, Significance
from langcortex.stats.repeat_ceiling import RepeatCeiling
from langcortex.study.feature_spaces import Spaces
from langcortex.study.noise_ceiling import SharedResponses


class StudyScores:
    """The scores, maps and nulls of a study, added up subject by subject; never more than one map per layer.

    Parameters
    ----------
    spaces : of the study
    n_subjects : how many subjects will be added; of several with many regions, scores of single runs are recorded for
        `region` and "brain" alone
    region : the region that the study is about
    """

    def __init__(self, spaces: Spaces, n_subjects: int = 1, region: str = "brain") -> None:
        self.n_subjects, self.region = n_subjects, region
        self.chosen_maps: dict[str, list[np.ndarray]] = {m: [] for m in spaces.of_model}
        self.delays: dict[str, list[float]] = {}
        self.chosen_layers: dict[str, dict[str, list[int]]] = {m: {} for m in spaces.of_model}
        self.spaces: dict[str, Space] = {}
        self.subjects: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.cleaning: dict[str, dict[str, CleaningReport]] = {}
        self.clock_remarks: list[str] = []
        self.solvers: dict[str, set[str]] = {m: set() for m in spaces.of_model}
        self.shared_responses = SharedResponses()
        self.no_ceiling = "There is no noise ceiling between subjects: no responses were gathered for one."
        self.repeat_ceilings: list[RepeatCeiling] = []
        self.no_repeats = ""
        self._rows: list[tuple[str, str, str, int | None, str, str, float]] = []
        self._map_sums: dict[str, np.ndarray] = {}
        self._map_counts: dict[str, np.ndarray] = {}
        self._nulls: dict[tuple[str, str], MeanNulls] = {}
        self._edges: dict[str, list[np.ndarray]] = {m: [] for m in spaces.of_model}

    def add_recordings(self, subject: str, recordings: Sequence[Recording | Responses]) -> None:
        """Add what cleaning removed from each run of a subject, and remarks on its files."""
        for recording in recordings:
            if isinstance(recording, Recording):
                self.clock_remarks += recording.remarks
                if recording.cleaning is not None:
                    self.cleaning.setdefault(subject, {})[recording.run] = recording.cleaning

    def add_score(
        self, *, subject: str, run: str, model: str, layer: int | None, region: str, metric: str, value: float
    ) -> None:
        """Add one row to the table of scores; the columns are those of `langcortex.results.results.Results`."""
        self._rows.append((subject, run, model, layer, region, metric, value))

    def add_encoding(
        self, encoding: Encoding, model: str, layer: int | None, space: Space, metrics: tuple[str, str]
    ) -> np.ndarray:
        """Add the scores of one encoding, per run and pooled, per region; return the pooled r of each target."""
        scores, regions_of_runs = score(encoding), self._regions_of_runs(space.regions)
        tables = zip(metrics, (scores.r, scores.r2), (scores.r_by_run, scores.r2_by_run), strict=True)
        for metric, pooled, by_run in tables:
            for run, values in (("all", pooled), *zip(scores.runs.tolist(), by_run, strict=True)):
                regions = space.regions if run == "all" else regions_of_runs
                for region, value in region_means(values, regions).items():
                    self.add_score(
                        subject=encoding.subject,
                        run=run,
                        model=model,
                        layer=layer,
                        region=region,
                        metric=metric,
                        value=value,
                    )
        return scores.r

    def _regions_of_runs(self, regions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Choose the regions whose runs are recorded: hundreds, times runs, layers and subjects, would fill the memory."""
        if self.n_subjects == 1 or len(regions) <= MANY_REGIONS:
            return regions
        return {name: inside for name, inside in regions.items() if name == self.region}

    def table(self) -> pd.DataFrame:
        """Return all scores as a tidy table, one row per number."""
        return pd.DataFrame(self._rows, columns=COLUMNS)

    def add_map(self, key: str, layer: int, n_layers: int, values: np.ndarray) -> None:
        """Add one subject's map of one layer to the mean over subjects."""
        if key not in self._map_sums:
            self._map_sums[key] = np.zeros((n_layers, len(values)))
            self._map_counts[key] = np.zeros((n_layers, len(values)))
        if self._map_sums[key].shape[1] != len(values):
            return
        defined = np.isfinite(values)
        self._map_sums[key][layer, defined] += values[defined]
        self._map_counts[key][layer] += defined

    def maps(self) -> dict[str, np.ndarray]:
        """Return the maps averaged over subjects; NaN where no subject has a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                key: np.where(self._map_counts[key] > 0, sums / self._map_counts[key], np.nan)
                for key, sums in self._map_sums.items()
            }

    def add_penalties(self, model: str, penalty: np.ndarray, grid: Sequence[float]) -> None:
        """Count the chosen penalties that are the smallest of the grid, the largest, and all of them."""
        chosen = penalty[np.isfinite(penalty)]
        at_edges = [int(np.isclose(chosen, edge, rtol=1e-5).sum()) for edge in (min(grid), max(grid))]
        self._edges[model].append(np.array([*at_edges, len(chosen)]))

    def edge_shares(self) -> dict[str, tuple[float, float]]:
        """Return the shares of chosen penalties at both edges of the grid, over subjects, folds and targets."""
        shares = {}
        for model, counts in self._edges.items():
            low, high, n = np.sum(counts, axis=0) if counts else (0, 0, 0)
            if n:
                shares[model] = (float(low / n), float(high / n))
        return shares

    def add_nulls(
        self,
        model: str,
        design: Design,
        protocol: Protocol,
        tested: Sequence[Tested],
        seed: int,
        engine: Engine = DEFAULT_ENGINE,
    ) -> None:
        """Add one subject to the test of the layer chosen in training, and of all layers where the protocol says so.

        Runs are permuted alike in every subject and model.

        Parameters
        ----------
        model : the name of the curve
        design, protocol : of the subject's fits
        tested : the layer chosen in training first, then every layer
        seed : of the permutations
        """
        if not protocol.n_nulls:
            return
        tested = tested if protocol.null_layers == "all" else tested[:1]
        scores = np.stack([score(encoding).r for _, encoding in tested])
        families = {(model, "chosen"): slice(0, 1)}
        if len(tested) > 1:
            families[model, "all"] = slice(1, None)
        for family, rows in families.items():
            shape = scores[rows].shape
            means = self._nulls.setdefault(family, MeanNulls(protocol.n_nulls, self.n_subjects, shape))
            if means.shape != shape:
                return
            means.begin_subject(scores[rows])
        for chunk, null in null_chunks(design, tested, protocol, seed, engine):
            for family, rows in families.items():
                self._nulls[family].add_nulls(chunk, null[:, rows])

    def test_models(self, protocol: Protocol, seed: int, layers: str = "chosen") -> dict[str, Significance]:
        """Test every model against its nulls, averaged over subjects: (1, n_targets), or (n_layers, n_targets) for "all"."""
        return {
            model: means.significance(
                "responses within runs", describe_null(protocol), f"{seed}, and the run's name"
            )
            for (model, family), means in self._nulls.items()
            if family == layers
        }

    @property
    def space(self) -> Space | None:
        """The space that all subjects share; None where they do not."""
        spaces = list(self.spaces.values())
        return spaces[0] if all(space.same_as(spaces[0]) for space in spaces) else None
