"""How each p value and interval of a study was made: the unit that was resampled, how often, the correction, the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from langcortex.results.results import Results
from langcortex.stats.comparison import Comparison
from langcortex.stats.group import GroupTest
from langcortex.stats.layer_curve import LayerCurve
from langcortex.stats.resampling import Resampling

MINUS = "\N{MINUS SIGN}"
PARAMETRIC = "none: a formula"


@dataclass(frozen=True)
class Record:
    """How some p values or intervals of a study were made.

    Attributes
    ----------
    name : with which the report cites it, e.g. "T3"
    of : the numbers, in words
    unit : what was resampled, or what the degrees of freedom count
    how : the method
    n : number of resamples
    correction : the family over which p was corrected, and how
    seed : of the generator
    """

    name: str
    of: str
    unit: str
    how: str
    n: str
    correction: str
    seed: str


class Records:
    """Every record of a study in order, by key.

    Keys are pairs of a word and a name: ``("p", "")``, ``("difference", "a − b")``, ``("peak", model)`` …
    """

    def __init__(self, results: Results) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        for key, of, record in _iterate_records(results):
            self._records[key] = Record(
                f"T{len(self._records) + 1}", of, record.unit, record.how, f"{record.n:,}" if record.n else PARAMETRIC,
                record.correction, record.seed,
            )  # fmt: skip

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def cite(self, *keys: tuple[str, str]) -> str:
        """Return a citation of the records of some numbers, e.g. " [T3, T4]"; empty where there are none.

        Parameters
        ----------
        keys : of the records, e.g. ``("peak", "gpt2")``
        """
        names = [self._records[key].name for key in keys if key in self._records]
        return f" [{', '.join(names)}]" if names else ""

    def frame(self) -> pd.DataFrame:
        """Return a table with one row per record."""
        columns = ["record", "of", "unit", "how", "resamples", "correction", "seed"]
        rows = [(r.name, r.of, r.unit, r.how, r.n, r.correction, r.seed) for r in self]
        return pd.DataFrame(rows, columns=columns)


Entry = tuple[tuple[str, str], str, Resampling]


def _iterate_records(results: Results) -> Iterator[Entry]:
    if results.p:
        yield (
            ("p", ""),
            "p of each target, layer chosen in training",
            results.null_of_p or _unrecorded_null(results),
        )
    for c in results.comparisons:
        yield from _records_of_comparison(c, "by layer", "")
    for c in results.comparisons_chosen:
        yield from _records_of_comparison(c, "at the layer chosen in training", "chosen ")
    for curve in results.curves:
        yield from _records_of_curve(curve)
    for test in results.people:
        yield from _records_of_group_test(test)
    if results.mixed is not None and np.isfinite(results.mixed.effect).any():
        formula = Resampling("subjects", f"Wald, t of {results.mixed.n_subjects - 1} degrees of freedom, restricted maximum likelihood", 0, "none")  # fmt: skip
        yield ("mixed", ""), "mixed model: p and 95 % intervals of differences", formula
    if results.shared is not None:
        yield (
            ("ceiling", ""),
            "noise ceilings between subjects: 95 % intervals",
            results.shared.perfect_model.resampling,
        )
    for partition in results.partitions:
        if partition.tested is not None and partition.interval is not None:
            of = f"{partition.model}, unique variance and R² of bands"
            yield ("unique", partition.model), f"{of}: p and corrected p", partition.tested
            yield ("unique interval", partition.model), f"{of}: 95 % intervals", partition.interval
    for repeats in results.repeats:
        yield (
            ("repeats", repeats.subject),
            f"noise ceiling from repeats, {repeats.subject}: 95 % interval",
            repeats.ceiling.resampling,
        )


def _unrecorded_null(results: Results) -> Resampling:
    """Describe a null of which no record was made."""
    seed = str(results.settings.get("seed", "not known"))
    how = f"nulls ({results.protocol.null}), refitted"
    correction = (
        "largest r of each null over targets (family-wise), and Benjamini-Hochberg (false discoveries)"
    )
    return Resampling("responses within runs", how, results.protocol.n_nulls, seed, correction)


def record_of_comparison(c: Comparison) -> str:
    """Return the name of a pair of models."""
    return f"{c.a} {MINUS} {c.b}"


def _records_of_comparison(c: Comparison, where: str, kind: str) -> Iterator[Entry]:
    name = record_of_comparison(c)
    tested = c.p_resampling or Resampling(c.unit, "signs", 0, "not known")
    interval = c.interval_resampling or Resampling(c.unit, "bootstrap", 0, "not known")
    yield (f"{kind}difference", name), f"{name} {where}: p and corrected p", tested
    yield (f"{kind}interval", name), f"{name} {where}: 95 % interval", interval
    formula = Resampling(
        c.unit, f"t of {c.n_units - 1} degrees of freedom: two one-sided tests, JZS Bayes factor, power", 0, "none"
    )  # fmt: skip
    yield (
        (f"{kind}equivalence", name),
        f"{name} {where}: equivalence, Bayes factor, smallest detectable difference",
        formula,
    )


def _records_of_curve(c: LayerCurve) -> Iterator[Entry]:
    yield ("peak", c.name), f"{c.name}: 95 % interval of the peak layer", c.peak.resampling
    yield ("flat", c.name), f"{c.name}: p of the curve against a flat one", c.flat.resampling
    lines = Resampling(c.unit, f"two lines, t of {c.lines.df} degrees of freedom", 0, "none")
    yield ("lines", c.name), f"{c.name}: p of the slopes before and after the split", lines
    if c.against_noise is not None:
        yield (
            ("noise", c.name),
            f"{c.name}: p of the curve against those that noise gives",
            c.against_noise.resampling,
        )


def _records_of_group_test(t: GroupTest) -> Iterator[Entry]:
    regions = f"largest t over {len(t.region_names)} regions (family-wise), and Benjamini-Hochberg (false discoveries)"
    r = t.regions.resampling
    yield (
        ("areas", t.name),
        f"{t.name}, over subjects: p of regions",
        Resampling(r.unit, r.how, r.n, r.seed, regions),
    )
    for key, what, significance in (
        ("targets", "targets", t.targets),
        ("clusters", "targets with their neighbours", t.clusters),
    ):
        if significance is not None:
            r = significance.resampling
            correction = f"{r.correction} (family-wise)" + (
                ", and Benjamini-Hochberg (false discoveries)" if key == "targets" else ""
            )
            record = Resampling(r.unit, r.how, r.n, r.seed, correction)
            yield (key, t.name), f"{t.name}, over subjects: p of {what}", record
