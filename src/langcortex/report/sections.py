"""Sections of the report about what was tested: comparisons, the curve over layers, subjects, ceilings, and how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from langcortex.report.tables import Table, number, p_text, shown_areas, table
from langcortex.report.variance_partition import partition_parts
from langcortex.results.files import ceiling_table
from langcortex.results.provenance import MINUS, Records, record_of_comparison
from langcortex.results.results import Results
from langcortex.stats.comparison import Comparison
from langcortex.stats.group import GroupTest
from langcortex.stats.noise_ceiling import normalise
from langcortex.stats.null_counts import Significance


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes
    ----------
    title : its heading
    paragraphs : sentences
    tables : drawn below them
    """

    title: str
    paragraphs: tuple[str, ...]
    tables: tuple[Table, ...] = ()


def sections(results: Results) -> list[Section]:
    """Make every section about tests that this study has something for, the table of records last."""
    records = Records(results)
    made = [
        _by_layer(results, records),
        _at_chosen(results, records),
        _curves(results, records),
        _people(results, records),
        _ceilings(results, records),
        Section(*partition_parts(results, records)),
        _how(records),
    ]
    return [section for section in made if section.paragraphs or section.tables]


def _by_layer(results: Results, records: Records) -> Section:
    head = (
        "Layer", "Difference in r", "95 % low", "95 % high", "p", "p corrected", "≤ .05", "p equivalent", "Bayes factor",
        "Detectable",
    )  # fmt: skip
    out, said = [], []
    for c in results.comparisons:
        rows = [
            (f"{layer:g}", *_numbers(c, i, p_text(c.p[i])))
            for i, layer in enumerate(np.asarray(c.layers, dtype=np.float64))
        ]
        note = (
            f"{c.verdict} Interval: bootstrap over {c.n_units} {c.unit}. p: signs of the {c.unit}, corrected over layers. p "
            f"equivalent: two one-sided tests of ±{c.margin:g}. {_legend(c)}{_cited(records, c, '')}"
        )
        out.append(table(f"{c.a} {MINUS} {c.b}", head, rows, 0, note))
        said += [c.evidence + records.cite(("equivalence", record_of_comparison(c)))] if c.evidence else []
        said += [c.caution]
    return Section("Comparison by layer", _once(said), tuple(out))


def _legend(c: Comparison) -> str:
    return "Bayes factor: above 3 for a difference, below 1/3 against one. Detectable: the true difference in r that one test finds with 80 % power."


def _numbers(c: Comparison, i: int, p: str) -> tuple[str, ...]:
    bayes = c.bayes_factor[i] if len(c.bayes_factor) else np.nan
    power = c.detectable_difference[i] if len(c.detectable_difference) else np.nan
    return (
        *(number(x[i], 4) for x in (c.effect, c.low, c.high)), p, p_text(c.p_corrected[i]),
        "★" if c.p_corrected[i] <= 0.05 else "", p_text(c.p_equivalent[i]), _factor(bayes), number(power, 4),
    )  # fmt: skip


def _factor(value: float) -> str:
    """Write a Bayes factor as a reader weighs it.

    >>> _factor(0.02), _factor(12.34), _factor(4.2e7)
    ('0.020', '12.3', '> 10,000')
    """
    if not np.isfinite(value):
        return "> 10,000" if value > 0 else "undefined"
    return "> 10,000" if value > 1e4 else f"{value:.3f}" if value < 1 else f"{value:.3g}"


def _cited(records: Records, c: Comparison, kind: str) -> str:
    name = record_of_comparison(c)
    return records.cite(*((f"{kind}{what}", name) for what in ("difference", "interval", "equivalence")))


def _at_chosen(results: Results, records: Records) -> Section:
    head = (
        "Pair", "Difference in r", "95 % low", "95 % high", "p", "p corrected", "≤ .05", "p equivalent", "Bayes factor",
        "Detectable",
    )  # fmt: skip
    found = results.comparisons_chosen
    if not found:
        return Section("", ())
    rows = [(record_of_comparison(c), *_numbers(c, 0, p_text(c.p[0]))) for c in found]
    several = (
        f"p corrected: over the {len(found)} pairs (Holm)."
        if len(found) > 1
        else "One test: there is nothing to correct for."
    )
    note = (
        "Each model at the layer chosen for it in training, without the rows it is scored on; the layers may differ from model to "
        f"model and fold to fold. {several} {_legend(found[0])}{''.join(_cited(records, c, 'chosen ') for c in found)}"
    )
    said = [f"{record_of_comparison(c)}: {c.verdict}{_cited(records, c, 'chosen ')}" for c in found]
    said += [c.caution for c in found]
    made = table("Each model at its layer chosen in training", head, rows, 1, note)
    return Section("Comparison at the layer chosen in training", _once(said), (made,))


def _curves(results: Results, records: Records) -> Section:
    head = (
        "Model", "Peak layer", "95 % low", "95 % high", "p flat", "Split at", "Slope before", "p", "Slope after", "p", "p noise",
    )  # fmt: skip
    if not results.curves:
        return Section("", ())
    rows, said = [], []
    for c in results.curves:
        slopes = [
            cell for s, p in zip(c.lines.slope, c.lines.p, strict=True) for cell in (number(s, 5), p_text(p))
        ]
        noise = "not calibrated" if c.against_noise is None else p_text(c.against_noise.p)
        peak = (f"{c.peak.layer:g}", f"{c.peak.low:g}", f"{c.peak.high:g}")
        rows.append((c.name, *peak, p_text(c.flat.p), number(c.lines.split, 1), *slopes, noise))
        cites = records.cite(*((what, c.name) for what in ("peak", "flat", "lines", "noise")))
        said.append(f"{c.verdict}{cites}")
    first = results.curves[0]
    note = (
        f"Of the mean curve over {first.n_units} {first.unit}. Interval of the peak: bootstrap. p flat: signs of centred curves, "
        "against a flat curve. Slopes: r a layer, two lines (Simonsohn 2018). p noise: against the curves that recordings without a "
        "story give through the same protocol (langcortex audit --null)."
        + records.cite(
            *((what, c.name) for c in results.curves for what in ("peak", "flat", "lines", "noise"))
        )
    )
    return Section(
        "Is there an inverted U?", _once(said), (table("The curve over layers", head, rows, 1, note),)
    )


def _people(results: Results, records: Records) -> Section:
    said, out = [], []
    for test in results.people:
        said.append(_found_in_people(test, records))
        out.append(_area_table(results, test, records))
    if results.people:
        said.append(
            "These tests draw subjects and speak of other people who hear this story; the shifts of the responses speak of these "
            "subjects only."
        )
    mixed = _mixed_table(results, records)
    return Section("Over subjects", tuple(said), (*out, *mixed))


def _found_in_people(test: GroupTest, records: Records) -> str:
    what = "r differs" if test.tail == "two" else "r is above 0"
    if test.targets is None:
        return f"{test.name}: subjects have different targets, so that only regions are tested over the {test.n_subjects} subjects{records.cite(('areas', test.name))}."
    t = test.targets
    said = (
        f"{test.name}: over {test.n_subjects} subjects, {what} at {_count(t.p_corrected)} of {int(np.isfinite(t.p).sum()):,} targets with "
        f"p ≤ .05 corrected over targets (family-wise), and at {_count(t.q)} at a false-discovery rate of .05"
        f"{records.cite(('targets', test.name))}."
    )
    if test.clusters is not None:
        said += f" With neighbours (TFCE) at {_count(test.clusters.p_corrected)}{records.cite(('clusters', test.name))}."
    smallest = 1 / 2**test.n_subjects if test.n_subjects <= 12 else 0.0
    if smallest * (2 if test.tail == "two" else 1) > 0.05:
        said += " So few subjects can give no p of .05."
    return said


def _count(p: np.ndarray) -> str:
    return f"{int((p <= 0.05).sum()):,}"


def _area_table(results: Results, test: GroupTest, records: Records) -> Table:
    areas, more = shown_areas(results)
    a: Significance = test.regions
    rows = [
        (region, number(a.value[i], 2), p_text(a.p[i]), p_text(a.p_corrected[i]), p_text(a.q[i]))
        for i, region in enumerate(test.region_names)
        if region in areas
    ]
    tail = "two-sided" if test.tail == "two" else "one-sided, above 0"
    note = (
        f"Mean r of each region at the layer chosen in training, {test.n_subjects} subjects; signs of whole subjects, {tail}. Corrected "
        f"over {len(test.region_names)} regions by the largest t; q is for the false-discovery rate.{more}{records.cite(('areas', test.name))}"
    )
    return table(f"{test.name}, by region", ("Region", "t", "p", "p corrected", "q"), rows, 1, note)


def _mixed_table(results: Results, records: Records) -> list[Table]:
    m = results.mixed
    if m is None:
        return []
    rows = [
        (f"{name} {MINUS} {m.models[0]}", *(number(x[i], 4) for x in (m.effect, m.error, m.low, m.high)), p_text(m.p[i]))
        for i, name in enumerate(m.models[1:])
    ]  # fmt: skip
    spread = "; ".join(f"{what} {number(value, 4)}" for what, value in m.variances.items())
    note = (
        f"{m.formula}, {m.n_scores:,} scores of {m.n_subjects} subjects and {m.n_runs} runs, at the layers chosen in training. Standard "
        f"deviations: {spread}.{records.cite(('mixed', ''))}"
    )
    head = ("Difference in r", "Effect", "Standard error", "95 % low", "95 % high", "p")
    return [table("Mixed model over subjects and runs", head, rows, 1, note)]


def _ceilings(results: Results, records: Records) -> Section:
    said = list(results.no_ceiling)
    frame = ceiling_table(results)
    tables = []
    if results.shared is not None:
        said = [*_about_sharing(results, records), *said]
    for who, part in frame.groupby("scored", sort=False) if len(frame) else ():
        tables.append(_ceiling_table(results, records, str(who), part))
    if results.repeats:
        said.append(
            "A score in a run that was heard several times, and whose mean response is scored, is held against CC_max, the r of a "
            "perfect model with that mean (Schoppe et al. 2016). Blocks of neighbouring scans were drawn, not people"
            + records.cite(*(("repeats", one.subject) for one in results.repeats))
            + "."
        )
    return Section("Noise ceilings", tuple(said), tuple(tables))


def _about_sharing(results: Results, records: Records) -> Iterator[str]:
    assert results.shared is not None
    s, cite = results.shared, records.cite(("ceiling", ""))
    yield (
        f"How well could any model do? The ceilings are from what {len(s.subjects)} subjects share of the responses that were scored: the "
        "same rows, delays and held-out runs, the same confounds removed. No subject is ever part of the mean it is held against, so "
        "that these ceilings are not inflated by its own noise."
    )
    yield (
        "“Other subjects” is the mean r of each subject with the mean of the others: what people predict of a person. “Perfect model” is "
        "what a model that knew exactly what is shared would get, the root of the mean correlation of two subjects; over a region it "
        "is the root of the mean square, and shares of it are low rather than high. Where the 95 % interval of a ceiling contains 0 no "
        f"share is given{cite}."
    )
    for model, r in results.chosen.items():
        yield f"{model}, target by target against a perfect model: {normalise(r, s.perfect_model, 'r').sentence}"


def _ceiling_table(results: Results, records: Records, who: str, part: pd.DataFrame) -> Table:
    """A row a model and region; ceilings of several kinds stand side by side."""
    areas, more = shown_areas(results)
    kinds = list(dict.fromkeys(part.ceiling_of))
    rows = []
    for (model, region), cells in part.groupby(["model", "region"], sort=False):
        if region in areas:
            by_kind = cells.set_index("ceiling_of")
            rows.append((str(model), str(region), number(float(cells.r.iloc[0])), *_kinds(by_kind, kinds)))
    keys = [("repeats", who)] if who in {one.subject for one in results.repeats} else [("ceiling", "")]
    note = (
        "r of the layer chosen in training, over the targets that have a ceiling, and each ceiling with its 95 % interval."
        f"{_above(part)}{more}{records.cite(*keys)}"
    )
    head = ["Model", "Region", "r"]
    for kind in kinds:
        head += [f"Ceiling: {kind}", "95 % interval", "Share of it"]
    return table(f"Score and ceiling, {who}", head, rows, 2, note)


def _kinds(by_kind: pd.DataFrame, kinds: Sequence[str]) -> Iterator[str]:
    for kind in kinds:
        c = by_kind.loc[kind]
        yield number(float(c.ceiling))
        yield f"{number(float(c.low))} to {number(float(c.high))}" if np.isfinite(c.low) else "undefined"
        yield str(c.refused).removeprefix("the interval of the ceiling ") or _percent(float(c.share))


def _above(part: pd.DataFrame) -> str:
    """Say what it means that a score is above its ceiling, where one is."""
    if not (part.r > part.high).any():
        return ""
    return (
        " Where a score is above a ceiling between subjects, what the model predicts at a target differs from person to person "
        "(each was fitted by itself), and what people share there does not bound it."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-", MINUS) if np.isfinite(share) else "none"


def _how(records: Records) -> Section:
    if not len(records):
        return Section("", ())
    head = ("", "Numbers", "Unit", "How", "Resamples", "Correction", "Seed")
    rows = [(r.name, r.of, r.unit, r.how, r.n, r.correction, r.seed) for r in records]
    said = "Every p and interval of this report names its line here, in brackets."
    return Section(
        "How each number was tested", (said,), (table("Tests and intervals", head, rows, len(head)),)
    )


def _once(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in parts if part))
