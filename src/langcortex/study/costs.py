"""The disk space and time that a study will need, from counts of operations and the measured speed of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from langcortex.encoding.protocol import GRID
from langcortex.features.models.memory import ModelShape
from langcortex.stimulus.story import Story
from langcortex.study.settings import Study, n_jobs


def estimate(
    study: Study, story: Story, shapes: Mapping[str, ModelShape], targets: int, subjects: int, runs: int
) -> dict[str, str]:
    """Estimate the disk space and time of a study, from counts of operations and the measured speed of a matrix product."""
    speed, jobs = _measure_speed(), n_jobs(study)
    tokens = 1.35 * len(story) * (1.0 if study.features.context == "sentence" else 2.0)
    layers = {name: len(study.features.layers or range(s.n_layers + 1)) for name, s in shapes.items()}
    read = sum(2.0 * s.parameters * tokens for s in shapes.values()) / speed / jobs
    stored = sum(4.0 * len(story) * s.width * layers[name] for name, s in shapes.items())
    out = {
        "features": f"{_size(stored)} in the cache",
        "reading the story": f"about {_span(read)} on this machine's processor",
    }
    if targets and study.protocol.preset == "rigorous":
        work = subjects * _fit_work(study, story, shapes, layers, targets, runs)
        out["fits"] = (
            f"{_size(subjects * sum(layers.values()) * targets * runs * 20.0)} in {study.output_folder / 'kept'}"
        )
        out["fitting"] = f"about {_span(OVERHEAD * work / speed / jobs)}"
    return out


OVERHEAD = 3.0  # measured: time of a fit over the time of its matrix products


def _fit_work(
    study: Study,
    story: Story,
    shapes: Mapping[str, ModelShape],
    layers: Mapping[str, int],
    targets: int,
    runs: int,
) -> float:
    """Count the floating-point operations of one subject's fits, choice of delays and nulls."""
    p = study.protocol
    # a scan is assumed to hold six words
    rows = len(story) // 6 if study.design.rows == "scans" else len(story.sentences)
    folds = 1 if p.test_runs else (runs if runs > 1 else 5) if p.folds == "runs" else p.folds
    inner = (
        max(2, folds - 1, runs - len(p.test_runs) - 1 if p.test_runs else 0) if p.inner == "runs" else p.inner
    )
    n_penalties = len(p.penalties or GRID)
    total = 0.0
    for name, shape in shapes.items():
        width = shape.width * (
            len(study.design.delays or (2.0, 4.0, 6.0, 8.0)) if study.design.response == "fir" else 1
        )
        n_components = min(p.pca or rows, rows, width)
        prepare = (
            folds
            * (inner + 1)
            * (2.0 * min(rows, width) ** 2 * max(rows, width) + 10.0 * min(rows, width) ** 3)
        )
        validate = folds * inner * n_penalties * min(n_components, rows / max(folds, 1)) * n_components * 2.0
        score = folds * (inner + 1) * n_components * rows * 2.0 + validate
        # a null needs products with components or with held-out rows, whichever are fewer, or a complete fit
        refit = folds * min(n_components, rows / max(folds, 1)) * 2.0 * (rows + rows / max(folds, 1))
        null = p.n_nulls * (score if p.null_penalties == "chosen" else refit)
        null *= layers[name] + 1 if p.null_layers == "all" else 1
        n_delays = 1 if study.design.rows == "scans" else len(study.design.delays or (4.0, 6.0, 8.0, 10.0))
        probes = 0.0 if n_delays == 1 else 3.0 * n_delays * score * min(1.0, 4096 / targets)
        total += layers[name] * prepare + targets * (layers[name] * score + null + probes)
    return total


def _measure_speed() -> float:
    """Measure the speed of a matrix product, in operations per second."""
    a = np.ones((700, 700), dtype=np.float32)
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return float(2.0 * 700**3 / best)


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
