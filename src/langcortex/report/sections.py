"""Sections of the report on its tests: comparisons, the curve over layers, subjects, ceilings, how each was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from langcortex.report.tables import (
    MAX_ROWS,
    Section,
    Table,
    format_number,
    format_p,
    make_table,
    select_regions,
)
from langcortex.report.variance_partition import make_partition_section
from langcortex.results.files import ceiling_table, cleaning_table
from langcortex.results.provenance import MINUS, Records, record_of_comparison
from langcortex.results.results import Results
from langcortex.stats.comparison import Comparison
from langcortex.stats.group import GroupTest
from langcortex.stats.layer_curve import LayerCurve
from langcortex.stats.noise_ceiling import normalise
from langcortex.stats.null_counts import Significance

CLEANING_COLUMNS = {
    "subject": "Subject", "run": "Run", "confounds_used": "Confounds used", "scans": "Scans", "drifts": "Drift regressors", "confounds": "Confound regressors",
    "dropped": "Dropped confounds", "degrees_of_freedom": "Degrees of freedom", "undefined_targets": "Undefined targets",
}  # fmt: skip
CURVE_RECORDS = ("peak", "flat", "lines", "noise")
COMPARED = (
    "Difference in r", "95 % low", "95 % high", "p", "p corrected", "≤ .05", "p equivalent", "Bayes factor", "Detectable",
)  # fmt: skip
COMPARISON_LEGEND = (
    "Bayes factor: above 3 is evidence for a difference, below 1/3 against one. Detectable: the true difference in r that one "
    "test finds with 80 % power."
)


def make_sections(results: Results) -> list[Section]:
    """Write every section that the study has results for, the table of records last."""
    records = Records(results)
    sections = [
        _layer_section(results, records),
        _chosen_section(results, records),
        _curve_section(results, records),
        _group_section(results, records),
        _ceiling_section(results, records),
        make_partition_section(results, records),
        _cleaning_section(results),
        _record_section(records),
    ]
    return [section for section in sections if section.paragraphs or section.tables]


def _layer_section(results: Results, records: Records) -> Section:
    tables, paragraphs = [], []
    for c in results.comparisons:
        rows = [
            (f"{layer:g}", *_numbers(c, i)) for i, layer in enumerate(np.asarray(c.layers, dtype=np.float64))
        ]
        note = (
            f"{c.verdict} Interval: bootstrap over {c.n_units} {c.unit}. p: sign flips of the {c.unit}, corrected over layers. p "
            f"equivalent: two one-sided tests of ±{c.margin:g}. {COMPARISON_LEGEND}{_cite_pair(records, c, '')}"
        )
        tables.append(make_table(f"{c.a} {MINUS} {c.b}", ("Layer", *COMPARED), rows, 0, note))
        if c.evidence:
            paragraphs.append(c.evidence + records.cite(("equivalence", record_of_comparison(c))))
        paragraphs.append(c.caution)
    return Section("Comparison by layer", _unique(paragraphs), tuple(tables))


def _numbers(c: Comparison, i: int) -> tuple[str, ...]:
    """Format the numbers of one layer in the order of `COMPARED`."""
    bayes = c.bayes_factor[i] if len(c.bayes_factor) else np.nan
    power = c.detectable_difference[i] if len(c.detectable_difference) else np.nan
    return (
        *(format_number(x[i], 4) for x in (c.effect, c.low, c.high)), format_p(c.p[i]), format_p(c.p_corrected[i]),
        "★" if c.p_corrected[i] <= 0.05 else "", format_p(c.p_equivalent[i]), _factor(bayes), format_number(power, 4),
    )  # fmt: skip


def _factor(value: float) -> str:
    """Format a Bayes factor with the digits that matter.

    >>> _factor(0.02), _factor(12.34), _factor(4.2e7)
    ('0.020', '12.3', '> 10,000')
    """
    if not np.isfinite(value):
        return "> 10,000" if value > 0 else "undefined"
    return "> 10,000" if value > 1e4 else f"{value:.3f}" if value < 1 else f"{value:.3g}"


def _cite_pair(records: Records, c: Comparison, kind: str) -> str:
    name = record_of_comparison(c)
    return records.cite(*((f"{kind}{what}", name) for what in ("difference", "interval", "equivalence")))


def _chosen_section(results: Results, records: Records) -> Section:
    comparisons = results.comparisons_chosen
    if not comparisons:
        return Section("", ())
    rows = [(record_of_comparison(c), *_numbers(c, 0)) for c in comparisons]
    correction = (
        f"p corrected: over the {len(comparisons)} pairs (Holm)."
        if len(comparisons) > 1
        else "There is one test, so p is not corrected."
    )
    note = (
        "Each model at the layer chosen for it in training, without the rows it is scored on; the layer may differ between models "
        f"and folds. {correction} {COMPARISON_LEGEND}{''.join(_cite_pair(records, c, 'chosen ') for c in comparisons)}"
    )
    paragraphs = [
        f"{record_of_comparison(c)}: {c.verdict}{_cite_pair(records, c, 'chosen ')}" for c in comparisons
    ]
    paragraphs += [c.caution for c in comparisons]
    table = make_table("Each model at its layer chosen in training", ("Pair", *COMPARED), rows, 1, note)
    return Section("Comparison at the layer chosen in training", _unique(paragraphs), (table,))


def _curve_section(results: Results, records: Records) -> Section:
    head = (
        "Model", "Peak layer", "95 % low", "95 % high", "p flat", "Split at", "Slope before", "p", "Slope after", "p", "p noise",
    )  # fmt: skip
    if not results.curves:
        return Section("", ())
    rows = [_curve_row(c) for c in results.curves]
    paragraphs = [
        f"{c.verdict}{records.cite(*((what, c.name) for what in CURVE_RECORDS))}" for c in results.curves
    ]
    first = results.curves[0]
    cites = records.cite(*((what, c.name) for c in results.curves for what in CURVE_RECORDS))
    note = (
        f"Mean curve over {first.n_units} {first.unit}. Interval of the peak: bootstrap. p flat: sign flips of centred curves, "
        "against a flat curve. Slopes: r per layer, two lines (Simonsohn 2018). p noise: against the curves of recordings without a "
        f"story under the same protocol (langcortex audit --null).{cites}"
    )
    table = make_table("The curve over layers", head, rows, 1, note)
    return Section("Is there an inverted U?", _unique(paragraphs), (table,))


def _curve_row(c: LayerCurve) -> tuple[str, ...]:
    slopes = [
        cell
        for slope, p in zip(c.lines.slope, c.lines.p, strict=True)
        for cell in (format_number(slope, 5), format_p(p))
    ]
    noise = "not calibrated" if c.against_noise is None else format_p(c.against_noise.p)
    peak = (f"{c.peak.layer:g}", f"{c.peak.low:g}", f"{c.peak.high:g}")
    return (c.name, *peak, format_p(c.flat.p), format_number(c.lines.split, 1), *slopes, noise)


def _group_section(results: Results, records: Records) -> Section:
    paragraphs = [_group_sentence(test, records) for test in results.people]
    tables = [_region_table(results, test, records) for test in results.people]
    if results.people:
        paragraphs.append(
            "These tests treat subjects as a sample: they are about other people who hear this story. The tests that shift responses "
            "in time are about these subjects only."
        )
    return Section("Over subjects", tuple(paragraphs), (*tables, *_mixed_table(results, records)))


def _group_sentence(test: GroupTest, records: Records) -> str:
    if test.targets is None:
        return f"{test.name}: subjects have different targets, so only regions are tested over the {test.n_subjects} subjects{records.cite(('areas', test.name))}."
    effect = "r differs" if test.tail == "two" else "r is above 0"
    t = test.targets
    sentence = (
        f"{test.name}: over {test.n_subjects} subjects, {effect} at {_count(t.p_corrected)} of {int(np.isfinite(t.p).sum()):,} targets with "
        f"p ≤ .05 corrected over targets (family-wise), and at {_count(t.q)} at a false-discovery rate of .05"
        f"{records.cite(('targets', test.name))}."
    )
    if test.clusters is not None:
        sentence += f" With threshold-free cluster enhancement it does so at {_count(test.clusters.p_corrected)}{records.cite(('clusters', test.name))}."
    smallest = 1 / 2**test.n_subjects if test.n_subjects <= 12 else 0.0
    if smallest * (2 if test.tail == "two" else 1) > 0.05:
        sentence += " No p of .05 is possible with so few subjects."
    return sentence


def _count(p: np.ndarray) -> str:
    return f"{int((p <= 0.05).sum()):,}"


def _region_table(results: Results, test: GroupTest, records: Records) -> Table:
    selection, omission = select_regions(results)
    a: Significance = test.regions
    rows = [
        (
            region,
            format_number(a.value[i], 2),
            format_p(a.p[i]),
            format_p(a.p_corrected[i]),
            format_p(a.q[i]),
        )
        for i, region in enumerate(test.region_names)
        if region in selection
    ]
    tail = "two-sided" if test.tail == "two" else "one-sided, above 0"
    note = (
        f"Mean r of each region at the layer chosen in training, {test.n_subjects} subjects; sign flips of whole subjects, {tail}. Corrected "
        f"over {len(test.region_names)} regions by the largest t; q controls the false-discovery rate.{omission}{records.cite(('areas', test.name))}"
    )
    return make_table(f"{test.name}, by region", ("Region", "t", "p", "p corrected", "q"), rows, 1, note)


def _mixed_table(results: Results, records: Records) -> list[Table]:
    m = results.mixed
    if m is None or not np.isfinite(m.effect).any():
        return []
    rows = [
        (f"{name} {MINUS} {m.models[0]}", *(format_number(x[i], 4) for x in (m.effect, m.error, m.low, m.high)), format_p(m.p[i]))
        for i, name in enumerate(m.models[1:])
    ]  # fmt: skip
    deviations = "; ".join(f"{name} {format_number(value, 4)}" for name, value in m.variances.items())
    note = (
        f"{m.formula}, {m.n_scores:,} scores of {m.n_subjects} subjects and {m.n_runs} runs, at the layers chosen in training. Standard "
        f"deviations: {deviations}.{records.cite(('mixed', ''))}"
    )
    head = ("Difference in r", "Effect", "Standard error", "95 % low", "95 % high", "p")
    return [make_table("Mixed model over subjects and runs", head, rows, 1, note)]


def _ceiling_section(results: Results, records: Records) -> Section:
    paragraphs = list(results.no_ceiling)
    if results.shared is not None:
        paragraphs = [*_shared_sentences(results, records), *paragraphs]
    if results.repeats:
        cites = records.cite(*(("repeats", ceiling.subject) for ceiling in results.repeats))
        paragraphs.append(
            "Where a run was presented several times and its mean response is scored, the score is compared with CC_max, the r of a "
            f"perfect model with that mean (Schoppe et al. 2016). Its interval resamples blocks of neighbouring scans, not people{cites}."
        )
    frame = ceiling_table(results)
    parts = frame.groupby("scored", sort=False) if len(frame) else ()
    tables = tuple(_ceiling_table(results, records, str(scored), part) for scored, part in parts)
    return Section("Noise ceilings", tuple(paragraphs), tables)


def _shared_sentences(results: Results, records: Records) -> Iterator[str]:
    assert results.shared is not None
    s, cite = results.shared, records.cite(("ceiling", ""))
    yield (
        f"How well could any model do? These ceilings are computed from what {len(s.subjects)} subjects share of the responses that were "
        "scored: the same rows, delays and held-out runs, with the same confounds regressed out. No subject is part of the mean it is "
        "compared with, so its own noise cannot inflate its ceiling."
    )
    yield (
        "“Other subjects” is the mean r of each subject with the mean of the other subjects. “Perfect model” is the r of a model that "
        "knows exactly what subjects share: the root of the mean correlation between two subjects, and over a region the root of the mean "
        "square, so that shares of it are too low rather than too high. No share is computed where the 95 % interval of a ceiling "
        f"contains 0{cite}."
    )
    for model, r in results.chosen.items():
        yield f"{model}, target by target relative to a perfect model: {normalise(r, s.perfect_model, 'r').sentence}"


def _ceiling_table(results: Results, records: Records, scored: str, part: pd.DataFrame) -> Table:
    """Show one row per model and region, with ceilings of several kinds side by side."""
    selection, omission = select_regions(results)
    kinds = list(dict.fromkeys(part.ceiling_of))
    rows = []
    for (model, region), cells in part.groupby(["model", "region"], sort=False):
        if region in selection:
            by_kind = cells.set_index("ceiling_of")
            r = format_number(float(cells.r.iloc[0]))
            rows.append((str(model), str(region), r, *_ceiling_cells(by_kind, kinds)))
    from_repeats = scored in {ceiling.subject for ceiling in results.repeats}
    keys = [("repeats", scored)] if from_repeats else [("ceiling", "")]
    note = (
        "r of the layer chosen in training, over the targets that have a ceiling, and each ceiling with its 95 % interval."
        f"{_above_note(part)}{omission}{records.cite(*keys)}"
    )
    head = ["Model", "Region", "r"]
    for kind in kinds:
        head += [f"Ceiling: {kind}", "95 % interval", "Share of it"]
    return make_table(f"Score and ceiling, {scored}", head, rows, 2, note)


def _ceiling_cells(by_kind: pd.DataFrame, kinds: Sequence[str]) -> Iterator[str]:
    for kind in kinds:
        c = by_kind.loc[kind]
        yield format_number(float(c.ceiling))
        yield (
            f"{format_number(float(c.low))} to {format_number(float(c.high))}"
            if np.isfinite(c.low)
            else "undefined"
        )
        yield str(c.refused).removeprefix("the interval of the ceiling ") or _percent(float(c.share))


def _above_note(part: pd.DataFrame) -> str:
    """Explain scores above their ceiling; empty where there are none."""
    if not (part.r > part.high).any():
        return ""
    return (
        " A score can be above a ceiling between subjects, because each subject was fitted separately: what a model predicts at a "
        "target may differ between people, and what they share there does not limit it."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-", MINUS) if np.isfinite(share) else "none"


def _cleaning_section(results: Results) -> Section:
    frame = cleaning_table(results)
    if frame.empty:
        return Section("", ())
    frame["confounds_used"] = [_shorten_list(used) for used in frame["confounds_used"]]
    rows = [[str(cell) for cell in row] for row in frame[list(CLEANING_COLUMNS)].itertuples(index=False)]
    note = (
        "Intercept, drifts (the trend and slow cosines) and confounds were regressed out of every target at once. Dropped confounds are "
        "constant, or explained by drifts and other confounds. Degrees of freedom: scans less the intercept and all regressors. "
        "Undefined targets have no data, are constant, or are explained but for rounding."
    )
    if len(rows) > MAX_ROWS:
        note += f" The first {MAX_ROWS:,} of {len(rows):,} runs are shown; cleaning.tsv has all of them."
    table = make_table("What was removed", tuple(CLEANING_COLUMNS.values()), rows[:MAX_ROWS], 3, note)
    return Section("Cleaning, run by run", (), (table,))


def _shorten_list(names: str, most: int = 8) -> str:
    parts = names.split(", ") if names else []
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")


def _record_section(records: Records) -> Section:
    if not len(records):
        return Section("", ())
    head = ("", "Numbers", "Unit", "How", "Resamples", "Correction", "Seed")
    rows = [(r.name, r.of, r.unit, r.how, r.n, r.correction, r.seed) for r in records]
    table = make_table("Tests and intervals", head, rows, len(head))
    paragraph = (
        "Every p value and interval in this report refers to a row of this table by its number in brackets."
    )
    return Section("How each number was tested", (paragraph,), (table,))


def _unique(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))
