"""The report's section on unique variance: one bar per region, split into unique and shared parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from langcortex.paths import safe_name
from langcortex.report.figures import COLOURS
from langcortex.report.panels import STYLE, Picture, save_png
from langcortex.report.tables import Group, Section, Table, format_number, format_p
from langcortex.results.provenance import MINUS, Records
from langcortex.results.results import Results
from langcortex.results.variance_partition import ABOVE, ALL, TWIN, PartitionResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.5
BAR = 0.42  # inches per region
SHARED = "0.8"
N_EXTREMES = 5  # regions shown at either end where there are many


def select_partition_regions(
    partition: PartitionResult, first: str, n_extremes: int = N_EXTREMES
) -> list[str]:
    """Select the regions to show: all, or only those with the most and the least unique variance where there are many.

    All targets together and the study's region are always shown, and come first.

    Parameters
    ----------
    first : the region that the study is about
    n_extremes : number of regions at either end, by the model's unique variance
    """
    t = partition.table
    unique = t[(t.band == partition.model) & (t.measure == "unique") & t.value.notna()]
    ranked = unique.sort_values("value", ascending=False, kind="stable").region.tolist()
    fixed = [name for name in dict.fromkeys(("brain", first)) if name in ranked]
    ranked = [name for name in ranked if name not in fixed]
    return fixed + (ranked if len(ranked) <= 2 * n_extremes else ranked[:n_extremes] + ranked[-n_extremes:])


def plot_partition(partition: PartitionResult, regions: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the unique variance of each band and the shared variance, stacked, one bar per region.

    Parameters
    ----------
    partition : of one model
    regions : from top to bottom
    ax : those of a new figure when None

    Returns
    -------
    the axes. Negative parts, which make the joint prediction worse, are drawn left of 0; black diamonds are the joint
    R², the sum of all parts; whiskers are the 95 % interval of the model's unique part
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure((WIDTH, figure_height(regions)), layout="constrained").subplots()
    positions = np.arange(len(regions))[::-1]
    parts = [(f"unique: {b}", COLOURS[i % len(COLOURS)], b, "unique") for i, b in enumerate(partition.bands)]
    parts.append(("shared by two or more", SHARED, ALL, "shared"))
    right, left = np.zeros(len(regions)), np.zeros(len(regions))
    for label, colour, band, measure in parts:
        values = np.array([partition.get(r, band, measure).value for r in regions])
        wide = np.nan_to_num(values)
        start = np.where(wide >= 0, right, left)
        ax.barh(
            positions, wide, left=start, height=0.62, color=colour, label=label, edgecolor="white", lw=0.5
        )
        right, left = right + np.maximum(wide, 0), left + np.minimum(wide, 0)
    _whiskers(ax, partition, regions, positions)
    joint = [partition.get(r, ALL, "joint").value for r in regions]
    ax.plot(
        joint, positions, "D", color="black", markersize=4.5, label="all bands together", zorder=4, ls="none"
    )
    ax.axvline(0, color="0.2", lw=0.9)
    ax.set_yticks(positions, [_short(r) for r in regions])
    ax.set_ylim(-0.6, len(regions) - 0.4)
    ax.set_xlabel("R² of held-out rows (share of the variance of the responses)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize="small", borderaxespad=0.2
    )
    return ax


def _whiskers(ax: Axes, partition: PartitionResult, regions: Sequence[str], positions: np.ndarray) -> None:
    """Draw the interval of the model's unique part, which starts at 0."""
    label: str | None = f"95 % interval of {partition.model}"
    for region, y in zip(regions, positions, strict=True):
        row = partition.get(region, partition.model, "unique")
        if np.isfinite(row.low):
            ax.plot(
                [row.low, row.high],
                [y + 0.39, y + 0.39],
                color=COLOURS[0],
                lw=1.8,
                solid_capstyle="butt",
                label=label,
            )
            label = None


def figure_height(regions: Sequence[str]) -> float:
    """Return the height of the figure in inches."""
    return 1.7 + BAR * len(regions)


def _short(name: str, limit: int = 26) -> str:
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= limit else f"{plain[: limit // 2 - 1]}…{plain[-(limit // 2) :]}"


def draw_partition_pictures(results: Results) -> Iterator[Picture]:
    """Draw one figure per model whose variance was partitioned."""
    from matplotlib import style
    from matplotlib.figure import Figure

    records = Records(results)
    for partition in results.partitions:
        regions = select_partition_regions(partition, results.region)
        size = (WIDTH, figure_height(regions))
        with style.context(["default", STYLE]):
            figure = Figure(size, layout="constrained")
            plot_partition(partition, regions, figure.subplots())
            png = save_png(figure)
        name = safe_name(partition.model)
        title = f"What {partition.model} explains that its controls do not"
        cites = records.cite(("unique interval", partition.model))
        yield Picture(f"partition_{name}.png", title, _caption(partition, regions, cites), png, WIDTH)


def _caption(partition: PartitionResult, regions: Sequence[str], cites: str) -> str:
    n_regions = partition.table.region.nunique()
    omission = (
        f" {len(regions)} of {n_regions} regions are shown, those with the most and the least unique variance of the model; partition.tsv lists all."
        if len(regions) < n_regions
        else ""
    )
    return (
        f"R² of held-out rows at the layer of {partition.model} chosen in training, mean over {partition.n_units} {partition.unit} and each region's targets. "
        "Colours: what only this band of features explains; grey: what two or more bands explain; diamonds: all bands together. Parts left "
        "of 0 make the joint prediction worse and count in its sum. Line above a bar: 95 % interval of the model's unique R²"
        f"{cites}.{omission}"
    )


def make_partition_section(results: Results, records: Records) -> Section:
    """Write the section on unique variance; empty where no variance was partitioned."""
    if not results.partitions:
        return Section("", ())
    paragraphs = [
        "Several bands of features were fitted together, each band with its own penalty (banded ridge), within the training rows of "
        "each outer fold and with the layer chosen there. The unique variance of a band is the R² of all bands minus the R² of all other "
        "bands; shared variance is explained by two or more bands. Ω is the percentage of the variance explained by the model that its "
        "controls explain too (Hadidi et al. 2026): at 0 % all of it is the model's own, at 100 % none."
    ]
    tables = []
    for partition in results.partitions:
        cites = records.cite(("unique", partition.model), ("unique interval", partition.model))
        paragraphs += [
            f"{partition.sentence(region)}{cites}"
            for region in dict.fromkeys(("brain", results.region))
            if region in set(partition.table.region)
        ]
        paragraphs += [partition.caution]
        regions = select_partition_regions(partition, results.region)
        tables.append(_make_table(partition, regions, cites))
    return Section(
        "Unique variance", tuple(dict.fromkeys(text for text in paragraphs if text)), tuple(tables)
    )


def _make_table(partition: PartitionResult, regions: Sequence[str], cites: str) -> Table:
    head = ("Band", "Measure", "R²", "95 % low", "95 % high", "p", "p corrected")
    t = partition.table
    groups = tuple(
        Group(
            str(region),
            tuple(_row(row) for row in t[t.region == region].itertuples() if row.measure != "omega"),
        )
        for region in regions
    )
    contents = "; ".join(f"{band}: {', '.join(names)}" for band, names in partition.holds.items())
    above = (
        f" “{ABOVE}”: the model alone {MINUS} its untrained twins alone." if TWIN in partition.bands else ""
    )
    smallest = (
        f" The smallest p that {partition.n_units} {partition.unit} can give is {partition.smallest_p:.2g}."
        if partition.smallest_p > 0.01
        else ""
    )
    note = (
        f"Mean over {partition.n_units} {partition.unit}. p: two-sided, by sign flips of whole {partition.unit}, corrected over the bands and regions of a measure by the "
        f"largest t; shared variance is not tested.{smallest} Feature spaces in each band: {contents}.{above}{cites}"
    )
    return Table(f"{partition.model} and its controls, by region", head, groups, 2, note)


def _row(row: Any) -> tuple[str, ...]:
    """Format one row of the table: band, measure, value, interval, p."""
    band = "all bands" if row.band == ALL else str(row.band)
    numbers = [format_number(x, 4) if np.isfinite(x) else "" for x in (row.value, row.low, row.high)]
    p_values = [format_p(x) if np.isfinite(x) else "" for x in (row.p, row.p_corrected)]
    return (band, str(row.measure), *numbers, *p_values)
