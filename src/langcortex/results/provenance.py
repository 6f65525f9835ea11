"""How each number of a study was tested: the unit that was resampled, how often, the correction, the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    """What stands behind some p-values or intervals of a study.

    Attributes
    ----------
    name : by which the report cites it, e.g. "T3"
    of : the numbers, in words
    unit : what was resampled, or what the degrees of freedom count
    how : in which way
    n : how many resamples
    correction : over what p was corrected and how
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
    """Every record of a study in order, found by what it is of.

    Keys are made of a word and a name: ``("p", "")``, ``("difference", "a − b")``, ``("peak", model)`` …
    """

    def __init__(self, results: Results) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        for key, of, record in _every(results):
            self._records[key] = Record(
                f"T{len(self._records) + 1}", of, record.unit, record.how, f"{record.n:,}" if record.n else PARAMETRIC,
                record.correction, record.seed,
            )  # fmt: skip

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def cite(self, *keys: tuple[str, str]) -> str:
        """Name the records of some numbers, e.g. " [T3, T4]"; empty where there are none.

        Parameters
        ----------
        keys : of the records, e.g. ``("peak", "gpt2")``
        """
        names = [self._records[key].name for key in keys if key in self._records]
        return f" [{', '.join(names)}]" if names else ""

    def frame(self) -> pd.DataFrame:
        """Give a row a record."""
        columns = ["record", "of", "unit", "how", "resamples", "correction", "seed"]
        rows = [(r.name, r.of, r.unit, r.how, r.n, r.correction, r.seed) for r in self]
        return pd.DataFrame(rows, columns=columns)


Told = tuple[tuple[str, str], str, Resampling]


def _every(results: Results) -> Iterator[Told]:
    if results.p:
        yield ("p", ""), "p of each target, layer chosen in training", results.null_of_p or _old_null(results)
    for c in results.comparisons:
        yield from _of_pair(c, "by layer", "")
    for c in results.comparisons_chosen:
        yield from _of_pair(c, "at the layer chosen in training", "chosen ")
    for curve in results.curves:
        yield from _of_curve(curve)
    for test in results.people:
        yield from _of_people(test)
    if results.mixed is not None:
        formula = Resampling("subjects", f"Wald, t of {results.mixed.n_subjects - 1} degrees of freedom, restricted maximum likelihood", 0, "none")  # fmt: skip
        yield ("mixed", ""), "mixed model: p and 95 % intervals of differences", formula
    if results.shared is not None:
        yield (
            ("ceiling", ""),
            "noise ceilings between subjects: 95 % intervals",
            results.shared.perfect_model.resampling,
        )
    for found in results.partitions:
        if found.tested is not None and found.interval is not None:
            of = f"{found.model}, unique variance and R² of bands"
            yield ("unique", found.model), f"{of}: p and corrected p", found.tested
            yield ("unique interval", found.model), f"{of}: 95 % intervals", found.interval
    for one in results.repeats:
        yield (
            ("repeats", one.subject),
            f"noise ceiling from repeats, {one.subject}: 95 % interval",
            one.ceiling.resampling,
        )


def _old_null(results: Results) -> Resampling:
    """Say what is known of a null that nobody recorded."""
    seed = str(results.settings.get("seed", "not known"))
    how = f"nulls ({results.protocol.null}), refitted"
    both = "largest r of each null over targets (family-wise), and Benjamini-Hochberg (false discoveries)"
    return Resampling("responses within runs", how, results.protocol.n_nulls, seed, both)


def record_of_comparison(c: Comparison) -> str:
    """Name a pair of models."""
    return f"{c.a} {MINUS} {c.b}"


def _of_pair(c: Comparison, where: str, kind: str) -> Iterator[Told]:
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


def _of_curve(c: LayerCurve) -> Iterator[Told]:
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


def _of_people(t: GroupTest) -> Iterator[Told]:
    regions = f"largest t over {len(t.region_names)} regions (family-wise), and Benjamini-Hochberg (false discoveries)"
    r = t.regions.resampling
    yield (
        ("areas", t.name),
        f"{t.name}, over subjects: p of regions",
        Resampling(r.unit, r.how, r.n, r.seed, regions),
    )
    for key, what, found in (
        ("targets", "targets", t.targets),
        ("clusters", "targets with their neighbours", t.clusters),
    ):
        if found is not None:
            r = found.resampling
            both = f"{r.correction} (family-wise)" + (
                ", and Benjamini-Hochberg (false discoveries)" if key == "targets" else ""
            )
            record = Resampling(r.unit, r.how, r.n, r.seed, both)
            yield (key, t.name), f"{t.name}, over subjects: p of {what}", record
