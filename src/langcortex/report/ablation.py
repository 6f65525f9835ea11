"""The report's picture of the published recipe taken apart: bars with intervals, down to zero."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langcortex.encoding.protocol import Protocol
from langcortex.encoding.replication.ablation import FILE, FLAWS, Ablation
from langcortex.errors import StoreError
from langcortex.report.panels import DPI, STYLE, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (7.5, 4.2)
KINDS = {
    "phase": "the study's own scans, phases randomised",
    "ar": "autoregressive noise as slow as the study's own scans",
    "shift": "the study's own runs, each turned on itself",
    "rest": "real rest",
}


def read_ablation(folder: Path) -> Ablation | None:
    """Read ``ablation.json`` of a study's output folder; None where there is none.

    Raises
    ------
    StoreError : the file cannot be read
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Ablation.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}). Delete it or run: langcortex audit STUDY.toml --ablate"
        ) from error


def plot_ablation(found: Ablation, ax: Axes | None = None) -> Axes:
    """Draw what noise gets as the recipe's causes are mended one after the other, and what each makes alone.

    Parameters
    ----------
    found : from `langcortex.audit.ablate`
    ax : a new figure's when None

    Returns
    -------
    the axes: a bar a step, with its 95 % interval over draws; circles are single draws, diamonds a cause alone
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(SIZE, layout="constrained").subplots()
    mean, low, high = found.interval(found.together)
    place = np.arange(len(mean))[::-1]
    colours = ["#b00020", *["#D55E00"] * (len(mean) - 2), "#009E73"]
    error = None if np.isnan(low).all() else np.stack([mean - low, high - mean])
    ax.barh(place, mean, height=0.55, color=colours, alpha=0.75, xerr=error, ecolor="0.15", capsize=3)
    spread = np.broadcast_to(place - 0.36, found.together.shape)
    ax.plot(found.together.ravel(), spread.ravel(), "o", color="0.35", markersize=2.5, label="one draw")
    (diamonds,) = ax.plot(found.alone.mean(axis=0), place[1:] + 0.16, "D", color="#0072B2", zorder=3)
    diamonds.set(markersize=6, markeredgecolor="white", label="the cause mended here, alone")
    ax.axvline(0, color="0.2", linewidth=0.9)
    ax.set_yticks(place, [step if i == 0 else f"then: {step}" for i, step in enumerate(found.steps)])
    ax.set_xlabel(f"Pearson r of noise, layer {found.layer}")
    ax.set_ylim(-0.75, len(mean) - 0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right", frameon=False, fontsize=8)
    return ax


def ablation_caption(found: Ablation) -> str:
    """Say what `plot_ablation` shows: units, draws, what was taken, and the numbers."""
    mean, low, high = found.interval(found.together)
    alone = found.alone.mean(axis=0)
    strong = found.causes[int(np.argmax(alone))]
    ends = f" (95 % interval {low[-1]:.3f} to {high[-1]:.3f})" if np.isfinite(low[-1]) else ""
    return (
        f"What the recipe gets from recordings without a story ({KINDS[found.kind]}; {len(found.together)} draws, seed {found.seed}): "
        f"Pearson r, mean over the chosen voxels, folds and run{'s' * (len(found.runs) > 1)} {', '.join(found.runs)} of {found.subject}, {found.n_targets:,} "
        f"voxels to choose from, layer {found.layer} of {found.model}. Bars: mean over draws as the causes are mended one after the other, "
        f"from above; lines: 95 % interval by Student's t over draws; diamonds: the cause that the bar mends left in, and all others mended. As published r is "
        f"{mean[0]:.3f}, with every cause mended {mean[-1]:.3f}{ends}. Alone, most comes from: {FLAWS[strong][0]} (r = {alone.max():.3f})."
    )


def ablation_pictures(protocol: Protocol, folder: Path) -> Iterator[Picture]:
    """Draw the ablation of a study's output folder for its report; nothing where none was made, or of another protocol."""
    found = read_ablation(folder) if protocol.is_published else None
    if found is None:
        return
    from matplotlib import style
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with style.context(["default", STYLE]):
        figure = Figure(SIZE, layout="constrained")
        plot_ablation(found, figure.subplots())
        figure.savefig(out, format="png", dpi=DPI)
    title = "What noise gets from the recipe, cause by cause"
    yield Picture("ablation.png", title, ablation_caption(found), out.getvalue(), SIZE[0])
