"""The figure of the published recipe's ablation: what noise scores as its flaws are fixed one by one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langcortex.cache import NOTES
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.replication.ablation import FILE, FLAWS, Ablation
from langcortex.errors import StoreError
from langcortex.paths import as_path
from langcortex.report.panels import DPI, STYLE, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (7.5, 4.2)
KINDS = {
    "phase": "the study's own scans, phases randomised",
    "ar": "autoregressive noise as slow as the study's own scans",
    "shift": "the study's own runs, each shifted circularly",
    "rest": "real rest",
}


def read_ablation(folder: Path | str) -> Ablation | None:
    """Read ``ablation.json`` of a study's output folder; None where there is none.

    Raises
    ------
    StoreError : the file cannot be read
    """
    folder = as_path(folder)
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Ablation.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}). Delete it or run: langcortex audit STUDY.toml --ablate"
        ) from error


def plot_ablation(ablation: Ablation, ax: Axes | None = None) -> Axes:
    """Draw what noise scores as the recipe's flaws are fixed one after the other, and what each flaw does alone.

    Parameters
    ----------
    ablation : from `langcortex.audit.ablate`
    ax : those of a new figure when None

    Returns
    -------
    the axes: one bar per step, with its 95 % interval over draws; circles are single draws, diamonds a flaw alone
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(SIZE, layout="constrained").subplots()
    mean, low, high = ablation.interval(ablation.together)
    positions = np.arange(len(mean))[::-1]
    colours = ["#b00020", *["#D55E00"] * (len(mean) - 2), "#009E73"]
    error = None if np.isnan(low).all() else np.stack([mean - low, high - mean])
    ax.barh(positions, mean, height=0.55, color=colours, alpha=0.75, xerr=error, ecolor="0.15", capsize=3)
    offsets = np.broadcast_to(positions - 0.36, ablation.together.shape)
    ax.plot(ablation.together.ravel(), offsets.ravel(), "o", color="0.35", markersize=2.5, label="one draw")
    (diamonds,) = ax.plot(ablation.alone.mean(axis=0), positions[1:] + 0.16, "D", color="#0072B2", zorder=3)
    diamonds.set(markersize=6, markeredgecolor="white", label="only the flaw fixed at this step")
    ax.axvline(0, color="0.2", linewidth=0.9)
    ax.set_yticks(positions, [step if i == 0 else f"then: {step}" for i, step in enumerate(ablation.steps)])
    ax.set_xlabel(f"Pearson r in noise, layer {ablation.layer}")
    ax.set_ylim(-0.75, len(mean) - 0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right", frameon=False, fontsize=8)
    return ax


def write_ablation_caption(ablation: Ablation) -> str:
    """Describe `plot_ablation`: its recordings, draws and voxels, what is drawn, and the numbers."""
    mean, low, high = ablation.interval(ablation.together)
    alone = ablation.alone.mean(axis=0)
    strongest = ablation.causes[int(np.argmax(alone))]
    interval = f" (95 % interval {low[-1]:.3f} to {high[-1]:.3f})" if np.isfinite(low[-1]) else ""
    runs = f"run{'s' * (len(ablation.runs) > 1)} {', '.join(ablation.runs)}"
    return (
        f"What the recipe scores on recordings without a story ({KINDS[ablation.kind]}; {len(ablation.together)} draws, seed {ablation.seed}): "
        f"Pearson r, mean over the chosen voxels, folds and {runs} of {ablation.subject}, {ablation.n_targets:,} "
        f"voxels to choose from, layer {ablation.layer} of {ablation.model}. Bars: mean over draws as the flaws are fixed one after the other, "
        f"from top to bottom; lines: 95 % interval over draws by Student's t; circles: single draws; diamonds: only the flaw fixed at that step "
        f"is present. As published, r is {mean[0]:.3f}; with every flaw fixed it is {mean[-1]:.3f}{interval}. The flaw that does most by itself: "
        f"{FLAWS[strongest][0]} (r = {alone.max():.3f})."
    )


def draw_ablation_picture(protocol: Protocol, folder: Path) -> Iterator[Picture]:
    """Draw the ablation in a study's output folder; nothing where there is none or the protocol is another."""
    try:
        ablation = read_ablation(folder) if protocol.is_published else None
    except StoreError as error:  # the report can do without it
        NOTES.warning(f"{error} It is not drawn.")
        ablation = None
    if ablation is None:
        return
    from matplotlib import style
    from matplotlib.figure import Figure

    image = io.BytesIO()
    with style.context(["default", STYLE]):
        figure = Figure(SIZE, layout="constrained")
        plot_ablation(ablation, figure.subplots())
        figure.savefig(image, format="png", dpi=DPI)
    title = "What noise scores with the recipe, flaw by flaw"
    yield Picture("ablation.png", title, write_ablation_caption(ablation), image.getvalue(), SIZE[0])
