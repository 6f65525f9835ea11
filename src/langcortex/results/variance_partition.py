"""Unique and shared variance over subjects: tables by region with intervals and p values, and maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.arrays import chunks
from langcortex.brain.space import Space
from langcortex.cache import atomic_write
from langcortex.encoding.variance_partition import Partition, SubjectPartition, omega
from langcortex.paths import safe_cells, safe_name
from langcortex.stats.equivalence import widening
from langcortex.stats.resampling import Resampling, bootstrap, describe_seed
from langcortex.stats.sign_flips import EXACT, count_flips, describe_patterns, sign_patterns

SCORES = ["subject", "run", "model", "region", "band", "measure", "value"]
TABLE = ["model", "region", "band", "measure", "value", "low", "high", "p", "p_corrected", "unit", "n"]
ALL = "all"  # in the place of a band, for joint, shared and omega
TWIN = "untrained"  # the band of a model's untrained twins
ABOVE = f"above {TWIN}"  # R² of the model alone minus R² of its untrained twins alone
TESTED = ("joint", "alone", "unique", ABOVE)
MANY_REGIONS = 60  # beyond which single runs of several subjects would fill the memory


@dataclass(frozen=True, eq=False)
class PartitionResult:
    """Unique and shared variance of one model at the layer chosen in training, and of its controls.

    Attributes
    ----------
    model : name
    bands : (n_bands,) the model first
    unit, n_units : the units of intervals and tests: "subjects", or the "runs" of the only subject
    scores : one row per number: subject, run ("all" pooled), model, region, band, measure, value
    table : one row per region, band and measure: mean over units, 95 % interval, p, p corrected. Measures are R² out of sample:
        "joint", "alone", "unique", "shared", "above untrained" (the model alone minus its untrained twins alone); and
        "omega", the percentage of what the model explains that controls explain too
    maps : "unique BAND", "joint", "shared", "omega" → (n_targets,), of R² averaged over subjects; empty without a space
    tested, interval : how p and intervals were made; None with fewer than two units
    holds : band → its feature spaces

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728; Hadidi et al. 2026, doi:10.1038/s41467-026-72253-7 (Ω)
    """

    model: str
    bands: tuple[str, ...]
    unit: str
    n_units: int
    scores: pd.DataFrame
    table: pd.DataFrame
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    tested: Resampling | None = None
    interval: Resampling | None = None
    holds: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def get(self, region: str, band: str, measure: str) -> pd.Series:
        """Return one row of the table: value, low, high, p, p_corrected."""
        t = self.table
        rows = t[(t.region == region) & (t.band == band) & (t.measure == measure)]
        if rows.empty:
            raise KeyError((region, band, measure))
        row: pd.Series = rows.iloc[0]
        return row

    @property
    def smallest_p(self) -> float:
        """The smallest p that is possible with this number of units; NaN where nothing was tested."""
        if self.tested is None:
            return float("nan")
        return (2.0 if self.n_units <= EXACT else 1.0) / (1 + self.tested.n)

    @property
    def caution(self) -> str:
        """The limits of tests over runs; empty for subjects."""
        if self.unit != "runs":
            return ""
        return (
            "The units are runs of one subject, which share training data: their spread was widened (Nadeau & Bengio 2003), the "
            "tests are approximate, and nothing is said about other people."
        )

    def sentence(self, region: str) -> str:
        """Describe in one sentence what the model alone explains in a region, and what is unique to it."""
        unique, alone = self.get(region, self.model, "unique"), self.get(region, self.model, "alone")
        share = self.get(region, ALL, "omega").value
        controls = ", ".join(self.bands[1:])
        text = (
            f"In {region}, the layer of {self.model} chosen in training explains R² = {alone.value:.4f} by itself; "
            f"R² = {unique.value:.4f}{_range(unique)} is unique to it, explained by none of {controls}"
        )
        if np.isfinite(unique.p):
            text += f" ({_p(unique.p)}, {_p(unique.p_corrected)} corrected; {self.n_units} {self.unit})"
        return text + (f". Ω = {share:.0f} %." if np.isfinite(share) else ".")


def _range(row: pd.Series) -> str:
    return f" [{row.low:.4f}, {row.high:.4f}]" if np.isfinite(row.low) else ""


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < .001"


class PartitionScores:
    """The partitions of subjects, added one after the other: rows by region, and sums of maps.

    Parameters
    ----------
    model, features : see `PartitionResult`
    n_subjects : how many subjects will be added; of several with many regions, single runs are not recorded
    """

    def __init__(
        self, model: str, features: Mapping[str, Sequence[str]] | None = None, n_subjects: int = 1
    ) -> None:
        self.model, self.features, self.n_subjects = model, dict(features or {}), n_subjects
        self.bands: tuple[str, ...] = ()
        self.rows: list[tuple[str, str, str, str, str, str, float]] = []
        self.sums: np.ndarray | None = None
        self.count: np.ndarray | None = None

    def add(self, partition: SubjectPartition, regions: Mapping[str, np.ndarray]) -> None:
        """Add one subject, over all runs and run by run."""
        self.bands = partition.bands
        runs = partition.by_run if self.n_subjects == 1 or len(regions) <= MANY_REGIONS else {}
        for run, part in ((ALL, partition.pooled), *runs.items()):
            self.rows += _rows(partition.subject, run, self.model, part, regions)
        pooled = partition.pooled
        r2 = np.concatenate([pooled.joint[None], pooled.alone, pooled.without])
        defined = np.isfinite(r2).all(axis=0)
        if self.sums is None or self.count is None:
            self.sums, self.count = np.zeros(r2.shape), np.zeros(len(defined))
        if self.sums.shape == r2.shape:
            self.sums += np.where(defined, r2, 0.0)
            self.count += defined

    def maps(self) -> dict[str, np.ndarray]:
        """Return the maps of R², averaged over the subjects where it is defined."""
        if self.sums is None or self.count is None:
            return {}
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(self.count > 0, self.sums / self.count, np.nan)
        n = len(self.bands)
        average = Partition(self.bands, mean[0], mean[1 : 1 + n], mean[1 + n :])
        return {
            "joint": average.joint,
            "shared": average.shared,
            "omega": omega(average.joint, average.without[0], average.alone[0]),
            **{f"unique {band}": average.unique[i] for i, band in enumerate(self.bands)},
        }

    def result(
        self, rng: np.random.Generator, n_resamples: int = 10_000, mapped: bool = True
    ) -> PartitionResult:
        """Average over subjects, or over the runs of the only subject; intervals and p are over the same units.

        Parameters
        ----------
        rng : for the bootstrap and, with more than 12 units, for the random signs
        mapped : whether all subjects share a space, so that maps can be averaged
        """
        scores = pd.DataFrame(self.rows, columns=SCORES)
        unit = "subjects" if scores.subject.nunique() > 1 else "runs"
        wide = _by_unit(scores, unit)
        table, tested, interval = _summary(wide, unit, rng, n_resamples)
        table.insert(0, "model", self.model)
        table["unit"], table["n"] = unit, len(wide)
        return PartitionResult(
            self.model, self.bands, unit, len(wide), scores, table[TABLE], self.maps() if mapped else {},
            tested, interval, self.features,
        )  # fmt: skip


def _rows(
    subject: str, run: str, model: str, part: Partition, regions: Mapping[str, np.ndarray]
) -> list[tuple[str, str, str, str, str, str, float]]:
    out = []
    for region, means in part.by_region(regions).items():
        for what, value in means.items():
            measure, _, band = what.partition(" ")
            if measure != "without":
                out.append((subject, run, model, region, band or ALL, measure, value))
        if TWIN in part.sets:
            above = means[f"alone {model}"] - means[f"alone {TWIN}"]
            out.append((subject, run, model, region, model, ABOVE, above))
    return out


def _by_unit(scores: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return one row per subject or run, one column per (region, band, measure)."""
    pooled = scores.run == ALL
    rows = scores[pooled] if unit == "subjects" else scores[~pooled]
    index = unit.removesuffix("s")
    columns = ["region", "band", "measure"]
    order = list(dict.fromkeys(rows[columns].itertuples(index=False, name=None)))
    wide = rows.pivot(index=index, columns=columns, values="value")
    return wide.reindex(
        index=list(dict.fromkeys(rows[index])), columns=pd.MultiIndex.from_tuples(order, names=columns)
    )


def _summary(
    wide: pd.DataFrame, unit: str, rng: np.random.Generator, n_resamples: int
) -> tuple[pd.DataFrame, Resampling | None, Resampling | None]:
    """Average over units, and test each measure over bands and regions together."""
    values = wide.to_numpy(np.float64)
    n = len(values)
    n_defined = np.isfinite(values).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n_defined > 0, np.nansum(values, axis=0) / n_defined, np.nan)
    table = pd.DataFrame(wide.columns.to_list(), columns=["region", "band", "measure"])
    table["value"] = mean
    for name in ("low", "high", "p", "p_corrected"):
        table[name] = np.nan
    if n < 2:
        return table, None, None
    spread, seed = widening(unit, n), describe_seed(rng)
    draws = int(rng.integers(2**31))
    complete = n_defined == n
    for chunk in chunks(len(mean), 64):
        columns = np.flatnonzero(complete[chunk]) + chunk.start
        # the same units are drawn for every column
        low, high = bootstrap(values[:, columns], np.random.default_rng(draws), n_resamples, widen=spread)
        table.loc[columns, "low"], table.loc[columns, "high"] = low, high
    tested = None
    for measure in TESTED:
        columns = np.flatnonzero(complete & (table.measure == measure).to_numpy())
        if len(columns):
            p, corrected, tested = _sign_flip_test(values[:, columns], spread, unit, rng, n_resamples, seed)
            table.loc[columns, "p"], table.loc[columns, "p_corrected"] = p, corrected
    widened = "" if spread == 1 else f", spread widened by {spread:.2f}"
    return table, tested, Resampling(unit, f"bootstrap (stretched){widened}", n_resamples, seed)


def _sign_flip_test(
    d: np.ndarray, wide: float, unit: str, rng: np.random.Generator, n_resamples: int, seed: str
) -> tuple[np.ndarray, np.ndarray, Resampling]:
    """Test means against 0 by sign flips of units, two-sided, corrected by the largest t over columns."""
    n = len(d)
    signs = sign_patterns(n, n_resamples, rng)
    counts = count_flips(signs, d, "two", wide, n_targets=512, n_patterns=512)
    how = describe_patterns(n)
    test = counts.significance(unit, how, seed, studentise=False)
    widened = "" if wide == 1 else f", spread widened by {wide:.2f}"
    record = Resampling(
        unit,
        how + widened,
        len(signs),
        "none" if n <= EXACT else seed,
        "largest t over bands and regions of a measure",
    )
    return test.p, test.p_corrected, record


PARTITION_TABLES = ("partition", "partition_scores")


def write_partitions(partitions: Sequence[PartitionResult], space: Space | None, folder: Path) -> list[Path]:
    """Write partition.tsv, partition_scores.tsv, and maps of unique variance and Ω; nothing without a partition."""
    if not partitions:
        return []
    paths = []
    by_name = ([p.table for p in partitions], [p.scores for p in partitions])
    for name, tables in zip(PARTITION_TABLES, by_name, strict=True):
        paths.append(folder / f"{name}.tsv")
        with atomic_write(paths[-1]) as draft:
            safe_cells(pd.concat(tables)).to_csv(
                draft, sep="\t", index=False, na_rep="n/a", float_format="%.6g"
            )
    for partition in partitions if space is not None else ():
        for what, values in partition.maps.items():
            stem = f"{safe_name(partition.model)}_layer-chosen_stat-{safe_name(what.replace(' ', '-'))}"
            assert space is not None
            paths += space.write(values, folder / "maps" / stem)
    return paths
