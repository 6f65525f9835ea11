"""Figures of the report: which ones are drawn from results, and their captions."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from langcortex.report import figures
from langcortex.report.prose import format_leak_line
from langcortex.report.tables import (
    ScoreRow,
    format_n_subjects,
    list_score_rows,
    pooled_scores,
    region_masks,
    select_regions,
)
from langcortex.results.provenance import Records, record_of_comparison
from langcortex.results.results import Results
from langcortex.stats.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
MAX_REGIONS = 12
LEAK_COLOUR = "#b00020"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.edgecolor": "0.3",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Picture:
    """A finished figure.

    Attributes
    ----------
    file : name in the folder of figures
    title : a few words
    caption : what is drawn, its unit, what the spread is over, and what is left out
    png : the image
    width : in inches
    """

    file: str
    title: str
    caption: str
    png: bytes
    width: float


@dataclass(frozen=True, eq=False)
class _Plan:
    """A figure to draw: its file name, title, caption, size in inches, and the function that draws it."""

    name: str
    title: str
    caption: str
    size: tuple[float, float]
    draw: Callable[[Figure], object]
    brain: bool = False


def draw_pictures(results: Results) -> Iterator[Picture]:
    """Draw every figure of the report, one after the other."""
    from matplotlib import style

    files: set[str] = set()
    leak_line = format_leak_line(results.protocol)
    for plan in _plans(results):
        with style.context(["default", STYLE]):
            png = _render(plan, leak_line)
        yield Picture(_unique_file(plan.name, files), plan.title, plan.caption, png, plan.size[0])


def _render(plan: _Plan, leak_line: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(plan.size, layout=None if plan.brain else "constrained")
    foot = 0.24 / plan.size[1] if leak_line else 0.0
    engine: Any = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, foot, 1, 1 - foot))
    plan.draw(figure)
    if leak_line:
        figure.text(
            0.01, 0.03 / plan.size[1], leak_line, color=LEAK_COLOUR, fontsize=9, weight="bold", va="bottom"
        )
    return save_png(figure)


def save_png(figure: Figure) -> bytes:
    """Return a figure as a PNG, its long labels shortened."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        # a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing")
        # long names of regions or runs leave the axes little room
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        shorten_labels(figure)
        figure.savefig(image, format="png", dpi=DPI)
    return image.getvalue()


def shorten_labels(figure: Figure, most: int = 40) -> None:
    """Shorten labels that would leave no room for the axes: those of ticks and of legends."""

    def shorten(text: str) -> str:
        return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(len(label) > most for label in labels):
                axis.set_ticks(axis.get_ticklocs(), [shorten(label) for label in labels])
        axes.set_title(shorten(axes.get_title()))
        axes.set_title(shorten(axes.get_title("left")), loc="left")
        legend = axes.get_legend()
        for text in [] if legend is None else legend.get_texts():
            text.set_text(shorten(text.get_text()))


def _unique_file(name: str, files: set[str]) -> str:
    """Turn any text into a file name that no other figure has, and add it to `files`."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "figure"
    unique, i = stem[:100], 2
    while unique.lower() in files:
        unique, i = f"{stem[:100]}-{i}", i + 1
    files.add(unique.lower())
    return f"{unique}.png"


def _on_axes(draw: Callable[[Axes], object]) -> Callable[[Figure], object]:
    return lambda figure: draw(figure.subplots())


def _with_margins(draw: Callable[[Axes], object]) -> Callable[[Figure], object]:
    """Leave room for a title and a line of text around brain views, which place themselves."""
    return lambda figure: draw(figure.add_axes((0.01, 0.13, 0.97, 0.75)))


def _plans(results: Results) -> Iterator[_Plan]:
    records = Records(results)
    if results.models:
        yield from _layer_plans(results, records)
        yield from _region_plans(results)
    for c in results.comparisons:
        yield _difference_plan(results, c, records)
        yield _scatter_plan(results, c)
    if results.models:
        yield _box_plan(results)
    for model in results.models:
        yield _heat_plan(results, model)
    if results.space is not None:
        maps = [(row, row.values) for row in list_score_rows(results) if row.values is not None]
        limit = max((float(np.nanmax(np.abs(v))) for _, v in maps if np.isfinite(v).any()), default=1.0)
        for row, values in maps:
            yield _map_plan(results, row, values, limit)
        if results.shared is not None:
            yield _ceiling_plan(results, records)


def _region_text(results: Results) -> str:
    return "all targets" if results.region == "brain" else f"the region “{results.region}”"


def _average_text(results: Results) -> str:
    subjects = format_n_subjects(results)
    return f"of {subjects}" if subjects.startswith("1 ") else f"averaged over {subjects}"


def _unit_text(results: Results) -> str:
    """Describe the units that a mean and its spread are over."""
    n = max((len(results.curve(m)) for m in results.models), default=0)
    if results.unit == "subjects":
        return f"{n} subjects"
    return f"{n} run{'s' * (n != 1)} of one subject, which says nothing about other people"


def _undefined_text(results: Results) -> str:
    """Describe how many targets of the region in the figures have no value in each model."""
    if results.protocol.is_published:
        return "Undefined voxels are left out; the recipe does not count them."
    mask = region_masks(results).get(results.region)
    parts = []
    for model in results.models:
        if mask is None or model not in results.maps:
            return "Undefined targets are left out; the counts of each subject show how many."
        counts = np.isnan(results.maps[model][:, mask]).sum(axis=1)
        low, high = counts.min(), counts.max()
        span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        if high:
            parts.append(f"{span} of {int(mask.sum()):,} in {model}")
    if not parts:
        return "No target is undefined."
    return f"Targets without a value in any subject are undefined and left out: {'; '.join(parts)}."


def _layer_plans(results: Results, records: Records) -> Iterator[_Plan]:
    for metric, label in (("r", "Pearson r"), ("r2", "R²")):
        if metric not in set(results.scores.metric):
            continue
        curves = {m: results.curve(m, metric) for m in results.models}
        levels = {c: pooled_scores(results, c, metric).get(results.region, np.nan) for c in results.controls}
        controls = f" Horizontal lines: controls over all runs, {_average_text(results)}." if levels else ""
        band = (
            "band: ± 1 standard error of the mean"
            if max(map(len, curves.values()), default=0) > 1
            else "no band"
        )
        peaks = (
            {c.name: (c.peak.layer, c.peak.low, c.peak.high) for c in results.curves} if metric == "r" else {}
        )
        bars = (
            " Bars below the curves: the layer with the highest mean (mark) and its 95 % bootstrap interval"
            f"{records.cite(*(('peak', model) for model in peaks))}."
            if peaks
            else ""
        )
        yield _Plan(
            f"layers_{metric}",
            f"{label} by layer",
            f"{label} of held-out rows, averaged over {_region_text(results)}, by layer. Line: mean over {_unit_text(results)}; "
            f"{band}.{bars}{controls} {_undefined_text(results)}",
            (7.5, 4.0),
            _on_axes(
                lambda ax, curves=curves, label=label, levels=levels, peaks=peaks: figures.plot_layers(  # type: ignore[misc]
                    curves, label, results.unit, ax, levels=levels, peaks=peaks
                )
            ),
        )


def _region_plans(results: Results) -> Iterator[_Plan]:
    regions = [name for name in select_regions(results)[0] if name != results.region][:MAX_REGIONS]
    if not regions:
        return
    n_regions = len(region_masks(results)) - 1
    omission = (
        f" {len(regions)} of {n_regions} regions are drawn; scores.tsv lists all."
        if n_regions > len(regions)
        else ""
    )
    n_rows = -(-len(regions) // 3)
    yield _Plan(
        "layers_r_regions",
        "Pearson r by layer and region",
        "Pearson r of held-out rows, averaged over the defined targets of each region, by layer. Line: mean over "
        f"{_unit_text(results)}; band: ± 1 standard error of the mean. All panels share one scale. Undefined "
        f"targets are left out; the table of scores counts them.{omission}",
        (7.5 if len(regions) > 1 else 5.0, 0.7 + 2.3 * n_rows),
        lambda figure: _draw_regions(figure, results, regions, n_rows),
    )


def _draw_regions(figure: Figure, results: Results, names: list[str], n_rows: int) -> None:
    """Draw one small panel per region, with a shared legend."""
    columns = min(3, len(names))
    panels = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for i, (ax, name) in enumerate(zip(panels, names, strict=False)):
        figures.plot_layers(
            {m: results.curve(m, "r", name) for m in results.models}, "Pearson r", results.unit, ax
        )
        handles |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        legend = ax.get_legend()
        if legend is not None:
            legend.remove()
        ax.set_title(name.replace("$", r"\$"), loc="left")
        ax.set_ylabel("Pearson r" if i % columns == 0 else "")
        ax.set_xlabel("Layer" if i + columns >= len(names) else "")
        ax.tick_params(labelbottom=i + columns >= len(names))
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper left", ncols=3, frameon=False
        )  # fmt: skip


def _difference_plan(results: Results, c: Comparison, records: Records) -> _Plan:
    return _Plan(
        f"difference_{c.a}_{c.b}",
        f"{c.a} minus {c.b}",
        f"Difference in Pearson r, averaged over {_region_text(results)}, by layer; above 0, {c.a} is better. Line: mean over "
        f"{c.n_units} {c.unit}; band: 95 % bootstrap interval over {c.unit}; grey: the smallest difference of interest, "
        f"±{c.margin:g}; stars: p ≤ .05, corrected over layers. "
        f"{c.verdict}{records.cite(*((what, record_of_comparison(c)) for what in ('difference', 'interval')))} {_undefined_text(results)}",
        (7.5, 4.0),
        _on_axes(lambda ax: figures.plot_difference(c, ax, metric_label="Pearson r")),
    )


def _scatter_plan(results: Results, c: Comparison) -> _Plan:
    a, b = results.curve(c.a), results.curve(c.b)
    unit = results.unit.removesuffix("s")
    return _Plan(
        f"scatter_{c.a}_{c.b}",
        f"{c.b} against {c.a}",
        f"Pearson r, averaged over {_region_text(results)}: one point per {unit} and layer that both models have; above the dashed line, "
        f"{c.b} is better. Points of the same {unit} are not independent of each other. {_undefined_text(results)}",
        (6.2, 5.2),
        _on_axes(lambda ax: figures.plot_scatter(a, b, (c.a, c.b), ax)),
    )


def _box_plan(results: Results) -> _Plan:
    curves = {m: results.curve(m) for m in results.models}
    return _Plan(
        "box",
        f"Spread over {results.unit} by layer",
        f"Pearson r, averaged over {_region_text(results)}, by layer. Dots: {results.unit}; line: median; box: quartiles; whiskers: "
        f"range, over {_unit_text(results)}. {_undefined_text(results)}",
        (9.0, 4.0),
        _on_axes(lambda ax: figures.plot_box(curves, ax, unit=results.unit)),
    )


def _heat_plan(results: Results, model: str) -> _Plan:
    by_run = results.by_run(model)
    all_values = np.concatenate([results.by_run(m).to_numpy(np.float64).ravel() for m in results.models])
    return _Plan(
        f"heatmap_{model}",
        f"{model} by run and layer",
        f"Pearson r in each held-out run, {_average_text(results)} and over {_region_text(results)}, by layer. "
        f"Grey cells are undefined. All models share one scale, which diverges from 0 only if values lie on both sides of it. {_undefined_text(results)}",
        (8.0, 1.6 + 0.24 * min(max(len(by_run), 4), 30)),
        _on_axes(lambda ax: figures.plot_heatmap(by_run, model, ax, scale_values=all_values)),
    )


def _map_plan(results: Results, row: ScoreRow, values: np.ndarray, limit: float) -> _Plan:
    assert results.space is not None
    space, brain = results.space, figures.shows_brain(results.space)
    title = f"{row.name}, {'' if row.label == 'control' else 'layer '}{row.label}"
    tall = space.kind in ("columns", "parcels") and space.n_targets <= figures.MAX_BARS
    height = 2.9 if brain else 1.2 + 0.24 * space.n_targets if tall else 3.2
    draw: Callable[[Axes], object] = lambda ax: figures.plot_map(values, space, title, ax, limit=limit)  # noqa: E731
    return _Plan(
        f"map_{row.name}_{row.label if row.layer is None else f'layer-{row.layer:02d}'}",
        title,
        f"Pearson r of held-out rows at each target, {_average_text(results)}. {_map_text((space.within or space).kind, brain, tall, 'All maps share one scale.')} "
        f"{_count_undefined(values)}",
        (9.0 if brain else 7.0, height),
        _with_margins(draw) if brain else _on_axes(draw),
        brain,
    )


def _ceiling_plan(results: Results, records: Records) -> _Plan:
    assert results.space is not None
    assert results.shared is not None
    space, ceiling, n = results.space, results.shared.perfect_model, len(results.shared.subjects)
    values = np.where(ceiling.low > 0, ceiling.value, np.nan)
    brain = figures.shows_brain(space)
    tall = space.kind in ("columns", "parcels") and space.n_targets <= figures.MAX_BARS
    height = 2.9 if brain else 1.2 + 0.24 * space.n_targets if tall else 3.2
    draw: Callable[[Axes], object] = lambda ax: figures.plot_map(values, space, "Noise ceiling", ax)  # noqa: E731
    return _Plan(
        "map_ceiling",
        "Noise ceiling",
        f"The r that a perfect model of what {n} subjects share would have in one subject, at targets where its 95 % interval "
        f"is above 0{records.cite(('ceiling', ''))}; about 1 in 40 of the targets where nothing is shared is drawn by chance. {_map_text((space.within or space).kind, brain, tall, 'This map has its own scale.')} "
        f"The other {int(np.isnan(values).sum()):,} of {values.size:,} targets are not drawn.",
        (9.0 if brain else 7.0, height),
        _with_margins(draw) if brain else _on_axes(draw),
        brain,
    )


def _count_undefined(values: np.ndarray) -> str:
    n_undefined = int(np.isnan(values).sum())
    if not n_undefined:
        return "No target is undefined."
    return f"{n_undefined:,} of {values.size:,} targets are undefined and not drawn."


def _map_text(kind: str, brain: bool, tall: bool, scale: str) -> str:
    if brain and kind == "volume":
        return f"Glass brain, assumed to be in MNI space: the value furthest from 0 along each line of sight. {scale}"
    if brain:
        return f"Inflated fsaverage5 surface; undefined vertices show the folding in grey. {scale}"
    return "One bar per target." if tall else "Histogram over targets."
