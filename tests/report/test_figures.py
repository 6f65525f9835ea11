"""Figures draw the numbers they are given, and label what is undefined."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langcortex.brain.space import Space
from langcortex.report import figures
from langcortex.stats.comparison import Comparison


@pytest.fixture(autouse=True)
def no_open_figures() -> Iterator[None]:
    """Every function draws on the axes passed in and leaves no figure open."""
    before = pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == before


@pytest.fixture
def ax() -> Axes:
    return Figure(figsize=(7, 3)).subplots()


@pytest.fixture
def curves(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    people = ["sub-1", "sub-2", "sub-3"]
    return {m: pd.DataFrame(rng.normal(0.1, 0.02, (3, 5)), people, range(5)) for m in ("gpt", "llama")}


def difference(p_corrected: list[float], smallest_p: float = 0.01) -> Comparison:
    layers = np.arange(4)
    effect = np.array([0.01, -0.02, 0.03, 0.0])
    p = np.array(p_corrected)
    return Comparison(
        "a", "b", "subjects", 8, layers, effect, effect - 0.01, effect + 0.02, p, p, 0.015, p, smallest_p
    )


def columns(n: int) -> Space:
    return Space("columns", np.array([f"roi-{i}" for i in range(n)]))


def words(ax: Axes) -> str:
    """Everything that is written in and around the axes."""
    legend = ax.get_legend()
    parts = [ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left"), *(t.get_text() for t in ax.texts)]
    return "\n".join(parts + [t.get_text() for t in legend.get_texts()] if legend else parts)


def test_importing_figures_loads_no_drawing_library() -> None:
    code = "import sys, langcortex.report.figures; assert not {'matplotlib', 'nilearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_line_is_the_mean_and_the_band_one_standard_error(
    ax: Axes, curves: dict[str, pd.DataFrame]
) -> None:
    figures.plot_layers(curves, "Pearson r", "subjects", ax)
    for name, line, band in zip(curves, ax.lines, ax.collections, strict=False):
        mean, sem = curves[name].mean(), curves[name].std(ddof=1) / np.sqrt(3)
        np.testing.assert_allclose(line.get_ydata(), mean)
        edge = band.get_paths()[0].vertices
        for layer in curves[name]:
            low, high = np.ptp(edge[edge[:, 0] == layer, 1]), 2 * sem[layer]
            assert low == pytest.approx(high)


def test_models_differ_in_more_than_colour_and_are_named(ax: Axes, curves: dict[str, pd.DataFrame]) -> None:
    figures.plot_layers(curves, "Pearson r", "subjects", ax, levels={"rate": 0.05})
    a, b = ax.lines[:2]
    assert a.get_marker() != b.get_marker()
    assert a.get_linestyle() != b.get_linestyle()
    assert "Pearson r\n(mean ± SEM over 3 subjects)" in words(ax)
    assert "Layer (0 = embeddings)" in words(ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["gpt", "llama", "rate"]
    assert any(list(line.get_ydata()) == [0.05, 0.05] for line in ax.lines)
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines)


def test_one_unit_has_no_band_and_the_figure_says_so(ax: Axes, curves: dict[str, pd.DataFrame]) -> None:
    figures.plot_layers({"gpt": curves["gpt"].iloc[:1]}, "Pearson r", "subjects", ax)
    assert not ax.collections
    assert "1 subject: no spread" in words(ax)


def test_an_undefined_value_is_left_out_of_the_mean_and_counted(ax: Axes) -> None:
    curve = pd.DataFrame({0: [0.2, np.nan, 0.4], 1: [np.nan] * 3})
    figures.plot_layers({"gpt": curve}, "Pearson r", "runs", ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.3, np.nan])
    assert "4 undefined values left out" in words(ax)


def test_the_legend_lies_above_the_data(curves: dict[str, pd.DataFrame]) -> None:
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    figures.plot_layers(curves, "Pearson r", "subjects", ax)
    figure.canvas.draw()
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1
    assert ax.get_legend().get_window_extent().y1 <= figure.bbox.y1


def test_a_dollar_in_a_name_begins_no_formula(curves: dict[str, pd.DataFrame]) -> None:
    figure = Figure()
    ax = figures.plot_layers({"a$b_{": curves["gpt"]}, "Pearson r", "subjects", figure.subplots())
    figure.canvas.draw()  # a broken formula fails here
    assert ax.get_legend().get_texts()[0].get_text() == r"a\$b_{"


def test_the_difference_its_interval_and_its_margin_are_drawn(ax: Axes) -> None:
    c = difference([0.5, 0.04, 0.01, 1.0])
    figures.plot_difference(c, ax, metric_label="Pearson r")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), c.effect)
    edge = ax.collections[0].get_paths()[0].vertices
    assert {edge[:, 1].min(), edge[:, 1].max()} == {c.low.min(), c.high.max()}
    margin = ax.patches[0]
    assert (margin.get_y(), margin.get_height()) == pytest.approx((-0.015, 0.03))
    assert "Difference in Pearson r\na − b" in words(ax)


def test_stars_mark_the_layers_that_survive_correction(ax: Axes) -> None:
    figures.plot_difference(difference([0.5, 0.05, 0.01, 1.0]), ax)
    stars = next(line for line in ax.lines if line.get_marker() == "*")
    assert list(stars.get_xdata()) == [1, 2]


@pytest.mark.parametrize(
    ("smallest", "message"), [(0.25, "too few for any p"), (0.01, "no layer with p ≤ .05")]
)
def test_no_star_is_explained(ax: Axes, smallest: float, message: str) -> None:
    figures.plot_difference(difference([0.5] * 4, smallest), ax)
    assert not [line for line in ax.lines if line.get_marker() == "*"]
    assert message in words(ax)


def test_the_heat_map_holds_the_scores_and_masks_the_undefined(ax: Axes) -> None:
    frame = pd.DataFrame([[0.1, np.nan], [0.3, 0.2]], ["run-1", "a-run-with-a-very-long-name-that-goes-on"])
    figures.plot_heatmap(frame, "gpt", ax)
    image = ax.images[0]
    assert image.get_array().mask.tolist() == [[False, True], [False, False]]
    np.testing.assert_allclose(image.get_array().filled(np.nan), frame)
    assert image.get_cmap().get_bad().tolist() == [0.82, 0.82, 0.82, 1.0]
    assert "grey: undefined (1 of 4)" in words(ax)
    assert all(len(label.get_text()) <= 26 for label in ax.get_yticklabels())


@pytest.mark.parametrize(
    ("values", "name", "limits"),
    [
        ([-0.1, 0.3], "RdBu_r", (-0.3, 0.3)),
        ([0.1, 0.3], "viridis", (0.0, 0.3)),
        ([-0.3, -0.1], "viridis_r", (-0.3, 0.0)),
        ([0.0, np.nan], "viridis_r", (0.0, 1.0)),
    ],
)
def test_colours_diverge_only_around_a_zero_inside(
    values: list[float], name: str, limits: tuple[float, float]
) -> None:
    cmap, low, high = figures.colour_range(np.array(values))
    assert (cmap.name, low, high) == (name, *limits)


def test_many_layers_and_runs_get_few_ticks(ax: Axes) -> None:
    figures.plot_heatmap(pd.DataFrame(np.ones((90, 81)), [f"run-{i}" for i in range(90)]), "gpt", ax)
    assert len(ax.get_xticks()) <= 20
    assert len(ax.get_yticks()) <= 30
    assert ax.get_yticklabels()[1].get_text() == f"run-{int(ax.get_yticks()[1])}"


def test_the_scatter_pairs_units_and_layers_by_name(ax: Axes, curves: dict[str, pd.DataFrame]) -> None:
    a, b = curves["gpt"], curves["llama"].iloc[::-1, [3, 1, 0]].copy()
    b.loc["sub-1", 0] = np.nan
    b = b.drop(index="sub-2")
    figures.plot_scatter(a, b, ("gpt", "llama"), ax)
    points = {tuple(np.round(xy, 12)) for xy in ax.collections[0].get_offsets()}
    expected = {(a.loc[u, k], b.loc[u, k]) for u in b.index for k in (0, 1, 3) if np.isfinite(b.loc[u, k])}
    assert points == {tuple(np.round(xy, 12)) for xy in expected}
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_aspect() == 1.0
    assert "undefined pairs left out: 1" in words(ax)


def test_boxes_stand_side_by_side_with_a_dot_for_every_unit(
    ax: Axes, curves: dict[str, pd.DataFrame]
) -> None:
    curves["llama"].iloc[0, 0] = np.nan
    figures.plot_box(curves, ax, unit="subjects")
    dots = [line for line in ax.lines if line.get_marker() in figures.MARKERS]
    assert [len(line.get_xdata()) for line in dots] == [15, 14]
    assert dots[0].get_xdata()[0] < 0 < dots[1].get_xdata()[0]
    assert sorted(dots[0].get_ydata()) == sorted(curves["gpt"].to_numpy().ravel())
    assert "over 3 subjects" in words(ax)
    assert "1 undefined value left out" in words(ax)


def test_named_columns_become_bars_and_nan_is_no_bar_of_height_0(ax: Axes) -> None:
    figures.plot_map(np.array([0.2, np.nan, -0.1]), columns(3), "title", ax)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.2, np.nan, -0.1])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["roi-0", "roi-1", "roi-2"]
    assert [(t.get_text(), t.xy[1]) for t in ax.texts] == [("undefined", 1)]


def test_many_columns_become_a_histogram_of_the_defined(ax: Axes) -> None:
    values = np.linspace(-1, 1, 100)
    values[:7] = np.nan
    figures.plot_map(values, columns(100), "", ax)
    assert sum(bar.get_height() for bar in ax.patches) == 93
    assert "7 of 100 targets undefined" in words(ax)


def test_a_volume_becomes_four_glass_brains_with_symmetric_colours(rng: np.random.Generator) -> None:
    mask = np.zeros((20, 24, 20), dtype=bool)
    mask[4:16, 4:20, 4:16] = True
    affine = np.array([[9, 0, 0, -90], [0, 9, 0, -126], [0, 0, 9, -72], [0, 0, 0, 1.0]])
    n = int(mask.sum())
    space = Space("volume", np.arange(n).astype(str), mask=mask, affine=affine)
    values = rng.uniform(0.1, 0.2, n)
    values[:9] = np.nan
    figure = Figure((9, 3))
    ax = figures.plot_map(values, space, "title", figure.subplots())
    images = [image for axes in figure.axes for image in axes.images]
    assert len(images) == 4
    assert {image.get_clim() for image in images} == {(-np.nanmax(values), np.nanmax(values))}
    painted = np.concatenate([np.ma.compressed(image.get_array()) for image in images])
    assert painted.min() > 0  # outside the brain, and where nothing is defined, nothing is painted
    assert f"9 of {n:,} targets undefined" in words(ax)


def test_fsaverage5_becomes_four_views(rng: np.random.Generator) -> None:
    space = Space("surface", np.arange(20484).astype(str), hemispheres=(10242, 10242))
    values = rng.normal(size=20484)
    values[0] = np.nan
    ax = figures.plot_map(values, space, "title", Figure((9, 3)).subplots(), limit=5.0)
    views = [child.get_title() for child in ax.child_axes if child.name == "3d"]
    assert views == ["left, lateral", "left, medial", "right, medial", "right, lateral"]
    assert ax.child_axes[-1].get_ylim() == (-5.0, 5.0)


def test_another_surface_becomes_a_histogram(ax: Axes) -> None:
    space = Space("surface", np.arange(8).astype(str), hemispheres=(4, 4))
    figures.plot_map(np.arange(8.0), space, "", ax)
    assert sum(bar.get_height() for bar in ax.patches) == 8


@pytest.mark.parametrize("kind", ["layers", "difference", "heatmap", "scatter", "box", "map"])
def test_without_any_defined_value_the_panel_says_so(ax: Axes, kind: str) -> None:
    empty = pd.DataFrame(np.full((2, 3), np.nan))
    c = difference([0.5] * 4)
    nothing = Comparison("a", "b", "runs", 2, c.layers, *[np.full(4, np.nan)] * 5, 0.01, c.p * np.nan, 0.5)
    {
        "layers": lambda: figures.plot_layers({"m": empty}, "r", "runs", ax),
        "difference": lambda: figures.plot_difference(nothing, ax),
        "heatmap": lambda: figures.plot_heatmap(empty, "m", ax),
        "scatter": lambda: figures.plot_scatter(empty, empty, ("a", "b"), ax),
        "box": lambda: figures.plot_box({"m": empty}, ax),
        "map": lambda: figures.plot_map(np.full(5, np.nan), columns(5), "m", ax),
    }[kind]()
    assert "no defined values" in words(ax)
    assert not ax.lines
    assert not ax.images


def test_new_axes_are_created_where_none_are_passed(curves: dict[str, pd.DataFrame]) -> None:
    ax = figures.plot_box(curves)
    assert isinstance(ax, Axes)
    pyplot.close(ax.figure)
