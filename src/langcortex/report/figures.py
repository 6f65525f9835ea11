"""Figures: each function draws numbers on the axes it is given, and returns them.

An undefined value (NaN) is left out, drawn grey or labelled "undefined"; it is never drawn as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from langcortex.brain.space import Space
from langcortex.stats.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
GREYS, DASHES = ("0.45", "0.2", "0.6"), (":", (0, (6.0, 2.0)), (0, (6.0, 2.0, 1.0, 2.0)), (0, (3.0, 3.0)))
DIVERGING, SEQUENTIAL, UNDEFINED = "RdBu_r", "viridis", "0.82"
LAYER_LABEL = "Layer (0 = embeddings)"
MAX_BARS = 40
TRANSPARENT = 1e-6  # values below this fraction of the colour limit are not painted on a glass brain
FSAVERAGE5 = (10242, 10242)


def layer_summary(curve: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average a curve over units: mean = Σx/n and SEM = s/√n with s over n − 1, from defined values alone.

    Parameters
    ----------
    curve : rows are subjects or runs, columns layers

    Returns
    -------
    layers : (n_layers,) in rising order
    mean : (n_layers,); NaN where no unit is defined
    sem : (n_layers,); NaN where fewer than two units are

    >>> layers, mean, sem = layer_summary(pd.DataFrame({1: [2.0, 4.0], 0: [1.0, np.nan]}))
    >>> layers.tolist(), mean.tolist(), sem.tolist()
    ([0.0, 1.0], [1.0, 3.0], [nan, 1.0])
    """
    ordered = curve.sort_index(axis=1)
    values = ordered.to_numpy(np.float64)
    n = np.isfinite(values).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, np.nansum(values, axis=0) / n, np.nan)
        spread = np.nansum(np.square(values - mean), axis=0) / (n - 1)
        sem = np.where(n > 1, np.sqrt(spread / n), np.nan)
    return np.asarray(ordered.columns, dtype=np.float64), mean, sem


def plot_layers(
    curves: Mapping[str, pd.DataFrame],
    metric_label: str,
    unit: str,
    ax: Axes | None = None,
    *,
    levels: Mapping[str, float] | None = None,
    peaks: Mapping[str, tuple[float, float, float]] | None = None,
) -> Axes:
    """Draw each model's mean over units by layer, with a band of ± one standard error.

    Parameters
    ----------
    curves : model → rows are subjects or runs, columns layers
    metric_label : what the values are, e.g. "Pearson r"
    unit : what the rows are, "subjects" or "runs"
    levels : name → value of a feature space without layers, drawn as a horizontal line
    peaks : name → layer, low and high, drawn as a bar below the curves
    """
    ax = _axes(ax)
    scored = {name: curve for name, curve in curves.items() if _has_values(curve)}
    if not scored:
        return _mark_empty(ax)
    counts = {name: _n_units(curve) for name, curve in scored.items()}
    for i, name in enumerate(curves):
        if name in scored:
            label = name if len(set(counts.values())) == 1 else f"{name} (n = {counts[name]})"
            _line(ax, scored[name], i, label)
    for i, (name, value) in enumerate((levels or {}).items()):
        if np.isfinite(value):
            style: dict[str, Any] = {"color": GREYS[i % len(GREYS)], "ls": DASHES[i % len(DASHES)]}
            ax.axhline(value, lw=1.3, label=_plain(name), zorder=1, **style)
    _zero(ax)
    peaks = peaks or {}
    _peaks(ax, {i: peaks[name] for i, name in enumerate(curves) if name in scored and name in peaks})
    ax.set_ylabel(f"{_plain(metric_label)}\n({_spread(set(counts.values()), unit)})")
    _layer_axis(ax, sum(_n_undefined(curve) for curve in curves.values()))
    _legend_above(ax)
    return ax


def plot_difference(comparison: Comparison, ax: Axes | None = None, *, metric_label: str = "score") -> Axes:
    """Draw the difference of two models by layer, with its bootstrap interval and the layers that survive correction.

    Parameters
    ----------
    comparison : of the two models
    metric_label : what the values are, e.g. "Pearson r"
    """
    ax = _axes(ax)
    c = comparison
    title = f"{c.a} − {c.b}"
    if not np.isfinite(c.effect).any():
        return _mark_empty(ax, title)
    margin = f"±{c.margin:g}: smallest difference of interest"
    ax.axhspan(-c.margin, c.margin, color="0.9", lw=0, zorder=0, label=margin)
    ax.fill_between(
        c.layers, c.low, c.high, color=COLOURS[0], alpha=0.25, lw=0, label="95 % bootstrap interval"
    )
    label = f"mean difference ({c.n_units} {_plural(c.unit, c.n_units)})"
    ax.plot(c.layers, c.effect, color=COLOURS[0], marker="o", ms=3.5, lw=1.3, label=label)
    significant = c.p_corrected <= 0.05
    _stars(ax, c.layers[significant])
    _zero(ax)
    ax.set_ylabel(f"Difference in {_plain(metric_label)}\n{_plain(title)}")
    _layer_axis(ax, int(np.isnan(c.effect).sum()), "" if significant.any() else _why_no_star(c))
    _legend_above(ax, pad=0.04)
    return ax


def plot_heatmap(
    by_run: pd.DataFrame,
    model: str,
    ax: Axes | None = None,
    *,
    metric_label: str = "Pearson r",
    scale_values: np.ndarray | None = None,
) -> Axes:
    """Draw a score by layer and run; colours diverge from 0 only where scores lie on both sides of it.

    Parameters
    ----------
    by_run : rows are runs, columns layers; undefined cells are grey
    model : the title
    metric_label : what the values are
    scale_values : all values that share the colour scale; those of this frame when None
    """
    ax = _axes(ax, (8, 3.6))
    values = by_run.to_numpy(np.float64)
    if not np.isfinite(values).any():
        return _mark_empty(ax, model)
    cmap, low, high = colour_range(values if scale_values is None else scale_values)
    image = ax.imshow(
        np.ma.masked_invalid(values),
        aspect="auto",
        interpolation="nearest",
        cmap=cmap,
        vmin=low,
        vmax=high,
    )
    _ticks(ax, "x", [f"{layer:g}" for layer in by_run.columns], 20)
    _ticks(ax, "y", [_short(str(run)) for run in by_run.index], 30)
    undefined = int(np.isnan(values).sum())
    ax.set_xlabel(LAYER_LABEL + (f"\ngrey: undefined ({undefined} of {values.size})" if undefined else ""))
    ax.set_ylabel("Run")
    ax.set_title(_plain(model), loc="left")
    ax.figure.colorbar(image, ax=ax, label=_plain(metric_label), pad=0.02)
    return ax


def plot_scatter(
    a: pd.DataFrame,
    b: pd.DataFrame,
    names: tuple[str, str],
    ax: Axes | None = None,
    *,
    metric_label: str = "Pearson r",
) -> Axes:
    """Draw one model against another, one point per unit and layer that both have.

    Parameters
    ----------
    a, b : rows are subjects or runs, columns layers
    names : of the two models; the first is on the x axis
    metric_label : what the values are
    """
    ax = _axes(ax, (5.6, 4.8))
    units, layers = a.index.intersection(b.index), a.columns.intersection(b.columns)
    x, y = (frame.loc[units, layers].to_numpy(np.float64).ravel() for frame in (a, b))
    layer = np.tile(np.asarray(layers, dtype=np.float64), len(units))
    defined = np.isfinite(x) & np.isfinite(y)
    if not defined.any():
        return _mark_empty(ax, f"{names[0]} and {names[1]}")
    low, high = _padded(min(x[defined].min(), y[defined].min()), max(x[defined].max(), y[defined].max()))
    ax.plot([low, high], [low, high], color="0.4", lw=1, ls="--", zorder=1, label="y = x: no difference")
    points = ax.scatter(
        x[defined], y[defined], c=layer[defined], cmap=SEQUENTIAL, s=18, lw=0.3, edgecolors="white"
    )
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    left_out = int((~defined).sum())
    note = f"\nundefined pairs left out: {left_out}" if left_out else ""
    ax.set_xlabel(f"{_plain(names[0])}, {_plain(metric_label)}{note}")
    ax.set_ylabel(f"{_plain(names[1])}, {_plain(metric_label)}")
    _open_frame(ax)
    _legend_above(ax)
    ax.figure.colorbar(points, ax=ax, label=LAYER_LABEL, pad=0.03)
    return ax


def plot_box(
    curves: Mapping[str, pd.DataFrame],
    ax: Axes | None = None,
    *,
    metric_label: str = "Pearson r",
    unit: str = "units",
) -> Axes:
    """Draw quartiles and range over units by layer, models side by side, with one dot per unit.

    Parameters
    ----------
    curves : model → rows are subjects or runs, columns layers
    metric_label : what the values are
    unit : what the rows are, "subjects" or "runs"
    """
    ax = _axes(ax, (9, 4))
    scored = {name: curve for name, curve in curves.items() if _has_values(curve)}
    if not scored:
        return _mark_empty(ax)
    width = 0.84 * _step(scored) / len(scored)
    for i, (name, curve) in enumerate(scored.items()):
        _boxes(ax, curve, (i - (len(scored) - 1) / 2) * width, 0.8 * width, i, name)
    _zero(ax)
    counts = {_n_units(curve) for curve in scored.values()}
    ax.set_ylabel(f"{_plain(metric_label)}\n(quartiles and range over {_n_of(counts, unit)})")
    _layer_axis(ax, sum(_n_undefined(curve) for curve in curves.values()))
    _legend_above(ax, scale=2.0)
    return ax


def plot_map(
    values: np.ndarray,
    space: Space,
    title: str = "",
    ax: Axes | None = None,
    *,
    label: str = "Pearson r",
    limit: float | None = None,
) -> Axes:
    """Draw one number per target: on a glass brain or an inflated surface, or as bars or a histogram.

    Volumes are assumed to be in MNI space. Brain views are placed where the axes are at the moment of the call;
    colours are symmetric around 0.

    Parameters
    ----------
    values : (n_targets,)
    space : where the targets are
    title : written above
    label : what the values are
    limit : end of the colour scale of a brain, to share it between maps; the largest |value| when None
    """
    tall = space.kind in ("columns", "parcels") and len(values) <= MAX_BARS
    ax = _axes(ax, (7, 1.2 + 0.24 * len(values)) if tall else (9, 3.2), "none")
    values = np.asarray(values, dtype=np.float64)
    undefined = int(np.isnan(values).sum())
    note = f"{undefined:,} of {values.size:,} targets undefined, not drawn" if undefined else ""
    if undefined == values.size:
        return _mark_empty(ax, title)
    if shows_brain(space):
        space, values = space.expand_parcels(values)
        draw = _glass_brain if space.kind == "volume" else _inflated
        limit = limit or float(np.nanmax(np.abs(values))) or 1.0
        draw(ax, values, space, limit)
        _map_frame(ax, title, note)
        _map_colours(ax, limit, label)
        return ax
    if tall:
        return _bars(ax, values, space.names, title, label)
    return _histogram(ax, values, title, label, note)


def shows_brain(space: Space) -> bool:
    """Return whether `plot_map` draws a brain rather than bars or a histogram."""
    space = space.within or space  # parcels are painted back onto the brain
    return space.kind == "volume" or (space.kind == "surface" and space.hemispheres == FSAVERAGE5)


def colour_range(values: np.ndarray) -> tuple[Any, float, float]:
    """Choose a colour map and its limits: diverging and symmetric around 0 only if values lie on both sides of it.

    Parameters
    ----------
    values : of any shape, with at least one defined

    Returns
    -------
    cmap : with grey for undefined values
    low, high : its limits; one of them is 0 where all values are on one side
    """
    import matplotlib

    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0 < high:
        name, high = DIVERGING, max(-low, high)
        low = -high
    else:
        name = SEQUENTIAL if high > 0 else f"{SEQUENTIAL}_r"
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = low + 1.0
    return matplotlib.colormaps[name].with_extremes(bad=UNDEFINED), low, high


_SMALL: dict[str, Any] = {"fontsize": 8, "color": "0.35"}


def _axes(ax: Axes | None, size: tuple[float, float] = (7.5, 4), layout: Any = "constrained") -> Axes:
    """Return the axes passed in, or new ones."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    new_axes: Axes = pyplot.subplots(figsize=size, layout=layout)[1]
    return new_axes


def _mark_empty(ax: Axes, title: str = "") -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, "no defined values", transform=ax.transAxes, ha="center", va="center", color="0.3")
    ax.set_title(_plain(title), loc="left")
    return ax


def _has_values(curve: pd.DataFrame) -> bool:
    return bool(np.isfinite(curve.to_numpy(np.float64)).any())


def _n_undefined(curve: pd.DataFrame) -> int:
    return int(np.isnan(curve.to_numpy(np.float64)).sum())


def _n_units(curve: pd.DataFrame) -> int:
    return int(np.isfinite(curve.to_numpy(np.float64)).any(axis=1).sum())


def _plain(text: str) -> str:
    """Escape dollar signs, which would begin a formula."""
    return text.replace("$", r"\$")


def _short(text: str, limit: int = 26) -> str:
    """Shorten a long name in the middle: beginning and end are the most telling."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-(limit // 2 - 1) :]}"
    return _plain(text)


def _plural(unit: str, n: int) -> str:
    return unit.removesuffix("s") if n == 1 else unit


def _n_of(counts: set[int], unit: str) -> str:
    """Format the number of units, e.g. "3 subjects"."""
    low, high = min(counts), max(counts)
    return f"{high} {_plural(unit, high)}" if low == high else f"{low} to {high} {unit}"


def _spread(counts: set[int], unit: str) -> str:
    if max(counts) < 2:
        return f"1 {_plural(unit, 1)}: no spread"
    return f"mean ± SEM over {_n_of(counts, unit)}"


def _line(ax: Axes, curve: pd.DataFrame, i: int, label: str) -> None:
    layers, mean, sem = layer_summary(curve)
    colour = COLOURS[i % len(COLOURS)]
    if np.isfinite(sem).any():
        ax.fill_between(layers, mean - sem, mean + sem, color=colour, alpha=0.2, lw=0)
    style: dict[str, Any] = {
        "marker": MARKERS[i % len(MARKERS)],
        "ls": LINES[i % len(LINES)],
        "ms": 3.8,
        "lw": 1.4,
    }
    ax.plot(layers, mean, color=colour, label=_plain(label), **style)


def _peaks(ax: Axes, peaks: Mapping[int, tuple[float, float, float]]) -> None:
    """Draw the interval of each curve's peak in a shaded strip below all curves."""
    if not peaks:
        return
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    step = 0.06 * (high - low)
    foot = low - step * (len(peaks) + 1.3)
    ax.axhspan(foot, low, color="0.95", lw=0, zorder=0)
    for row, (i, (layer, first, last)) in enumerate(peaks.items()):
        y, colour = low - step * (row + 0.7), COLOURS[i % len(COLOURS)]
        ax.plot([first, last], [y, y], color=colour, lw=2.2, solid_capstyle="butt", zorder=3)
        for end in (first, last):
            ax.plot([end, end], [y - step / 3.5, y + step / 3.5], color=colour, lw=1.4, zorder=3)
        ax.plot(layer, y, color=colour, marker="|", ms=8, mew=2.2, zorder=3)
    ax.set_ylim(foot, high)
    ax.set_yticks(ticks)
    ax.text(
        1.0,
        foot,
        "layer of the peak and its 95 % interval ",
        transform=ax.get_yaxis_transform(),
        ha="right",
        va="bottom",
        **_SMALL,
    )


def _open_frame(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def _zero(ax: Axes) -> None:
    ax.axhline(0, color="0.2", lw=0.8, zorder=0.5)
    _open_frame(ax)


def _layer_axis(ax: Axes, undefined: int, note: str = "") -> None:
    """Label the axis of layers, with what was left out on a second line."""
    from matplotlib.ticker import MaxNLocator

    left_out = (
        f"{undefined} undefined {'value' if undefined == 1 else 'values'} left out" if undefined else ""
    )
    second = "; ".join(part for part in (left_out, note) if part)
    ax.set_xlabel(LAYER_LABEL + (f"\n{second}" if second else ""))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True))


def _legend_above(ax: Axes, pad: float = 0.0, scale: float = 1.0) -> None:
    """Put the legend above the axes, where it covers no data."""
    handles, labels = ax.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 44 else 2 if max(map(len, labels)) > 24 else 3
    ax.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1 + pad), ncols=columns,
        frameon=False, borderaxespad=0.2, fontsize="small", handlelength=3.2, markerscale=scale,
    )  # fmt: skip


def _stars(ax: Axes, layers: np.ndarray) -> None:
    if len(layers):
        ax.plot(
            layers, np.full(len(layers), 1.025), transform=ax.get_xaxis_transform(), clip_on=False, ls="none",
            marker="*", ms=6, color="0.1", label="p ≤ .05, corrected over layers",
        )  # fmt: skip


def _why_no_star(c: Comparison) -> str:
    if c.smallest_p > 0.05:
        n = f"{c.n_units} {_plural(c.unit, c.n_units)}"
        return f"{n}: too few for any p ≤ .05 (smallest possible {c.smallest_p:.2g})"
    return "no layer with p ≤ .05 (corrected over layers)"


def _ticks(ax: Axes, direction: str, names: list[str], max_labels: int) -> None:
    """Label every k-th cell, so that there are at most `max_labels` labels."""
    step = int(np.ceil(len(names) / max_labels))
    cells = np.arange(0, len(names), step)
    axis = ax.xaxis if direction == "x" else ax.yaxis
    axis.set_ticks(cells, [names[i] for i in cells])


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 0.01
    return low - pad, high + pad


def _step(curves: Mapping[str, pd.DataFrame]) -> float:
    """Return the smallest distance between two layers."""
    layers = np.unique(np.concatenate([np.asarray(c.columns, dtype=np.float64) for c in curves.values()]))
    return float(np.diff(layers).min()) if len(layers) > 1 else 1.0


def _boxes(ax: Axes, curve: pd.DataFrame, shift: float, width: float, i: int, name: str) -> None:
    colour, ordered = COLOURS[i % len(COLOURS)], curve.sort_index(axis=1)
    columns = [ordered[layer].dropna().to_numpy(np.float64) for layer in ordered.columns]
    positions = np.asarray(ordered.columns, dtype=np.float64) + shift
    full = [k for k, column in enumerate(columns) if len(column)]
    line = {"color": colour, "lw": 0.9}
    ax.boxplot(
        [columns[k] for k in full], positions=positions[full], widths=width, whis=(0, 100), showfliers=False,
        manage_ticks=False, patch_artist=True, boxprops={"facecolor": colour, "alpha": 0.3, "lw": 0},
        medianprops={"color": colour, "lw": 1.8}, whiskerprops=line, showcaps=False,
    )  # fmt: skip
    x = np.concatenate([np.full(len(columns[k]), positions[k]) for k in full])
    ax.plot(
        x, np.concatenate([columns[k] for k in full]), ls="none", marker=MARKERS[i % len(MARKERS)], ms=2.6,
        color=colour, alpha=0.8, mew=0, label=_plain(name),
    )  # fmt: skip


def _map_frame(ax: Axes, title: str, note: str) -> None:
    ax.set_axis_off()
    ax.set_title(_plain(title), loc="left")
    if note:
        ax.text(0, -0.02, note, transform=ax.transAxes, va="top", **_SMALL)


def _map_colours(ax: Axes, limit: float, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(-limit, limit), DIVERGING)
    ax.figure.colorbar(colours, cax=ax.inset_axes((0.925, 0.12, 0.014, 0.76)), label=_plain(label))


def _glass_brain(ax: Axes, values: np.ndarray, space: Space, limit: float) -> None:
    from matplotlib.figure import Figure
    from nilearn import plotting

    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    box = ax.get_window_extent().transformed(figure.transFigure.inverted())
    frame = figure.add_axes((box.x0, box.y0, 0.9 * box.width, box.height))
    # without a threshold nilearn paints 0 outside the brain
    plotting.plot_glass_brain(
        _image_without_nan(space, values), display_mode="lyrz", figure=figure, axes=frame, colorbar=False,
        threshold=TRANSPARENT * limit,
        plot_abs=False, symmetric_cbar=True, vmin=-limit, vmax=limit, cmap=DIVERGING,
    )  # fmt: skip


def _image_without_nan(space: Space, values: np.ndarray) -> Any:
    """Return the image with NaN replaced by 0, which the caller draws transparent."""
    from nilearn import image

    return image.math_img("np.nan_to_num(x)", x=space.image(values))


def _inflated(ax: Axes, values: np.ndarray, space: Space, limit: float) -> None:
    from nilearn import datasets, plotting

    meshes, (n_left, _) = datasets.fetch_surf_fsaverage("fsaverage5"), space.hemispheres or FSAVERAGE5
    views = [("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral")]
    for i, (hemi, view) in enumerate(views):
        panel: Any = ax.inset_axes((0.225 * i, 0.0, 0.225, 0.92), projection="3d")
        part = values[:n_left] if hemi == "left" else values[n_left:]
        plotting.plot_surf_stat_map(
            meshes[f"infl_{hemi}"], part, hemi=hemi, view=view, bg_map=meshes[f"sulc_{hemi}"], axes=panel,
            colorbar=False, threshold=None, cmap=DIVERGING, vmin=-limit, vmax=limit,
        )  # fmt: skip
        panel.set_box_aspect(None, zoom=1.45)
        panel.set_title(f"{hemi}, {view}", fontsize=8, y=0.98, fontweight="normal")


def _bars(ax: Axes, values: np.ndarray, names: np.ndarray, title: str, label: str) -> Axes:
    rows = np.arange(len(values))
    ax.barh(rows, values, color=COLOURS[0], height=0.7)
    ax.axvline(0, color="0.2", lw=0.8)
    for i in np.flatnonzero(np.isnan(values)):
        ax.annotate("undefined", (0, i), (3, 0), textcoords="offset points", va="center", **_SMALL)
    ax.set_yticks(rows, [_short(str(name)) for name in names])
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_xlabel(_plain(label))
    ax.set_title(_plain(title), loc="left")
    _open_frame(ax)
    return ax


def _histogram(ax: Axes, values: np.ndarray, title: str, label: str, note: str) -> Axes:
    ax.hist(values[np.isfinite(values)], bins=50, color=COLOURS[0])
    ax.axvline(0, color="0.2", lw=0.8)
    ax.set_xlabel(_plain(label) + (f"\n{note}" if note else ""))
    ax.set_ylabel("Targets")
    ax.set_title(_plain(title), loc="left")
    _open_frame(ax)
    return ax
