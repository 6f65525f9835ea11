"""The report's part about unique variance: a bar a region, cut into what each band explains alone of all."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from langcortex.report.figures import COLOURS
from langcortex.report.panels import DPI, STYLE, Picture
from langcortex.report.tables import Group, Table, number, p_text
from langcortex.results.provenance import MINUS, Records
from langcortex.results.results import Results
from langcortex.results.variance_partition import ABOVE, ALL, TWIN, PartitionResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.5
BAR = 0.42  # inches a region
SHARED = "0.8"
FEW = 5  # regions that are shown from either end where there are many


def shown_regions(found: PartitionResult, first: str, few: int = FEW) -> list[str]:
    """Choose regions to show: all targets, the study's region, and where there are many only those with most and least.

    Parameters
    ----------
    first : the region that the study is about
    few : how many from either end, by the model's unique variance
    """
    t = found.table
    own = t[(t.band == found.model) & (t.measure == "unique") & t.value.notna()]
    ranked = own.sort_values("value", ascending=False, kind="stable").region.tolist()
    fixed = [name for name in dict.fromkeys(("brain", first)) if name in ranked]
    rest = [name for name in ranked if name not in fixed]
    return fixed + (rest if len(rest) <= 2 * few else rest[:few] + rest[-few:])


def plot_partition(found: PartitionResult, regions: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw what is unique to each band and what is shared, stacked, a bar a region.

    Parameters
    ----------
    found : of one model
    regions : which, from above
    ax : a new figure's when None

    Returns
    -------
    the axes. Parts below 0, which cost the joint prediction, stand left of 0; black diamonds are the joint R², so that
    parts right of 0 less those left of 0 end there; whiskers on the model's part are its 95 % interval
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure((WIDTH, height_of(regions)), layout="constrained").subplots()
    place = np.arange(len(regions))[::-1]
    parts = [(f"unique: {b}", COLOURS[i % len(COLOURS)], b, "unique") for i, b in enumerate(found.bands)]
    parts.append(("shared by two or more", SHARED, ALL, "shared"))
    right, left = np.zeros(len(regions)), np.zeros(len(regions))
    for label, colour, band, measure in parts:
        values = np.array([found.get(r, band, measure).value for r in regions])
        wide = np.nan_to_num(values)
        start = np.where(wide >= 0, right, left)
        ax.barh(place, wide, left=start, height=0.62, color=colour, label=label, edgecolor="white", lw=0.5)
        right, left = right + np.maximum(wide, 0), left + np.minimum(wide, 0)
    _whiskers(ax, found, regions, place)
    joint = [found.get(r, ALL, "joint").value for r in regions]
    ax.plot(joint, place, "D", color="black", markersize=4.5, label="all together", zorder=4, ls="none")
    ax.axvline(0, color="0.2", lw=0.9)
    ax.set_yticks(place, [_short(r) for r in regions])
    ax.set_ylim(-0.6, len(regions) - 0.4)
    ax.set_xlabel("R² of held-out rows (share of the variance of the responses)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize="small", borderaxespad=0.2
    )
    return ax


def _whiskers(ax: Axes, found: PartitionResult, regions: Sequence[str], place: np.ndarray) -> None:
    """Draw the interval of the model's unique part, which begins at 0."""
    label: str | None = f"95 % interval of {found.model}"
    for region, y in zip(regions, place, strict=True):
        row = found.get(region, found.model, "unique")
        if np.isfinite(row.low):
            ends, at = [row.low, row.high], [y + 0.39, y + 0.39]
            ax.plot(ends, at, color=COLOURS[0], lw=1.8, solid_capstyle="butt", label=label)
            label = None


def height_of(regions: Sequence[str]) -> float:
    """Give a figure's height in inches."""
    return 1.7 + BAR * len(regions)


def _short(name: str, most: int = 26) -> str:
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= most else f"{plain[: most // 2 - 1]}…{plain[-(most // 2) :]}"


def partition_pictures(results: Results) -> Iterator[Picture]:
    """Draw a figure for each model that was partitioned."""
    from matplotlib import style
    from matplotlib.figure import Figure

    records = Records(results)
    for found in results.partitions:
        regions = shown_regions(found, results.region)
        size = (WIDTH, height_of(regions))
        out = io.BytesIO()
        with style.context(["default", STYLE]):
            figure = Figure(size, layout="constrained")
            plot_partition(found, regions, figure.subplots())
            figure.savefig(out, format="png", dpi=DPI)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.model)
        title = f"What {found.model} explains that its controls do not"
        cites = records.cite(("unique interval", found.model))
        yield Picture(f"partition_{name}.png", title, _caption(found, regions, cites), out.getvalue(), WIDTH)


def _caption(found: PartitionResult, regions: Sequence[str], cites: str) -> str:
    total = found.table.region.nunique()
    some = (
        f" {len(regions)} of {total} regions: those where the model's unique variance is largest and smallest; partition.tsv has all."
        if len(regions) < total
        else ""
    )
    return (
        f"R² of held-out rows at the layer of {found.model} chosen in training, mean over {found.n_units} {found.unit} and each region's targets. "
        "Coloured: what a band explains that all others do not; grey: what more than one explains; diamonds: all bands together. Parts left of 0 "
        "cost the joint prediction more than they give, and are part of the sum. Line above a bar: 95 % interval of the model's unique R²"
        f"{cites}.{some}"
    )


def partition_parts(results: Results, records: Records) -> tuple[str, tuple[str, ...], tuple[Table, ...]]:
    """Give the title, sentences and tables of the report's section; empty where nothing was partitioned."""
    if not results.partitions:
        return "", (), ()
    said = [
        "Several feature spaces were fitted together, each with a penalty of its own (banded ridge), all of it inside the training rows of "
        "each outer fold, with the layer chosen there. Unique is the R² of all less the R² of all but one; shared is what more than one explains. "
        "Ω is the percentage of what the model explains that its controls explain too (Hadidi et al. 2026): 0 is best, 100 says that nothing is left."
    ]
    tables = []
    for found in results.partitions:
        cites = records.cite(("unique", found.model), ("unique interval", found.model))
        said += [
            f"{found.sentence(r)}{cites}" for r in dict.fromkeys(("brain", results.region)) if _has(found, r)
        ]
        said += [found.caution]
        tables.append(_table(found, shown_regions(found, results.region), cites))
    return "Unique variance", tuple(dict.fromkeys(s for s in said if s)), tuple(tables)


def _has(found: PartitionResult, region: str) -> bool:
    return region in set(found.table.region)


def _table(found: PartitionResult, regions: Sequence[str], cites: str) -> Table:
    head = ("Band", "Measure", "R²", "95 % low", "95 % high", "p", "p corrected")
    t = found.table
    groups = tuple(
        Group(
            str(region),
            tuple(_row(row) for row in t[t.region == region].itertuples() if row.measure != "omega"),
        )
        for region in regions
    )
    holds = "; ".join(f"{band}: {', '.join(names)}" for band, names in found.holds.items())
    above = f" “{ABOVE}”: the model alone {MINUS} its untrained twins alone." if TWIN in found.bands else ""
    few = (
        f" {found.n_units} {found.unit} can give no p below {found.smallest_p:.2g}."
        if found.smallest_p > 0.01
        else ""
    )
    note = (
        f"Mean over {found.n_units} {found.unit}. p: two-sided, random signs of whole {found.unit}, corrected over bands and regions of a measure by the "
        f"largest t; what is shared is not tested.{few} What the bands hold: {holds}.{above}{cites}"
    )
    return Table(f"{found.model} and its controls, by region", head, groups, 2, note)


def _row(row: Any) -> tuple[str, ...]:
    """Write one row of the table: band, measure, value, interval, p."""
    band = "all bands" if row.band == ALL else str(row.band)
    numbers = [number(x, 4) if np.isfinite(x) else "" for x in (row.value, row.low, row.high)]
    tested = [p_text(x) if np.isfinite(x) else "" for x in (row.p, row.p_corrected)]
    return (band, str(row.measure), *numbers, *tested)
