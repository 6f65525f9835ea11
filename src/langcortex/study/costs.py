"""The disk space and time that a study will need, from counts of operations and the measured speed of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from langcortex.encoding.protocol import GRID
from langcortex.features.models.memory import BYTES, ModelShape, estimate_gigabytes
from langcortex.stimulus.story import Story
from langcortex.study.settings import ModelSettings, Study, n_jobs


def estimate(
    study: Study, story: Story, shapes: Mapping[str, ModelShape], targets: int, subjects: int, runs: int
) -> dict[str, str]:
    """Estimate the disk space and time of a study, from counts of operations and the measured speed of a matrix product."""
    speed, jobs = _measure_speed(), n_jobs(study)
    tokens = _n_tokens(study, story)
    layers = {name: len(study.features.layers or range(s.n_layers + 1)) for name, s in shapes.items()}
    read = sum(2.0 * s.parameters * tokens for s in shapes.values()) / speed / jobs
    stored = sum(4.0 * len(story) * s.width * layers[name] for name, s in shapes.items())
    out = {
        "features": f"{_size(stored)} in the cache",
        "reading the story": f"about {_span(read)} on this machine's processor",
    }
    if targets and study.protocol.preset == "rigorous":
        shared, separate = _fit_work(study, story, shapes, layers, targets, runs)
        work = shared + subjects * separate
        # per layer, subject and target: r, sse and sst of each held-out run, penalty and inner score of each fold
        n_fits = sum(layers.values()) + len(study.features.controls)
        n_bytes = subjects * n_fits * targets * 4.0 * (3 * runs + 2 * _n_folds(study, runs)[0])
        out["fits"] = f"{_size(n_bytes)} in {study.output_folder / 'kept'}"
        out["fitting"] = f"about {_span(work / speed / jobs)}"
        out["memory"] = f"about {_size(_peak_bytes(study, story, shapes, targets, runs))}"
    return out


def _n_folds(study: Study, runs: int) -> tuple[int, int]:
    """Return how many outer folds there are, and inner folds in each."""
    p = study.protocol
    outer = 1 if p.test_runs else (runs if runs > 1 else 5) if p.folds == "runs" else int(p.folds)
    training = runs - len(p.test_runs) if p.test_runs else runs - max(1, runs // outer)
    return outer, max(2, training) if p.inner == "runs" else int(p.inner)


def _n_rows(study: Study, story: Story) -> int:
    """Return the rows of a design; a scan is assumed to hold six words."""
    return (
        len(story) // 6 if study.design.rows == "scans" else len(story.group_by(study.design.rows).sentences)
    )


def _fit_work(
    study: Study,
    story: Story,
    shapes: Mapping[str, ModelShape],
    layers: Mapping[str, int],
    targets: int,
    runs: int,
) -> tuple[float, float]:
    """Count the floating-point operations of fits, choice of delays and nulls: what subjects share, and what each adds.

    Features are prepared once for all subjects: one product of the features with themselves, then one decomposition per fold.
    """
    p = study.protocol
    rows, (folds, inner) = _n_rows(study, story), _n_folds(study, runs)
    held_out, n_penalties = rows / max(folds, 1), len(p.penalties or GRID)
    n_delays = 1 if study.design.rows == "scans" else len(study.design.delays or (4.0, 6.0, 8.0, 10.0))
    shared = separate = 0.0
    for name, shape in shapes.items():
        copies = len(study.design.delays or (2.0, 4.0, 6.0, 8.0)) if study.design.response == "fir" else 1
        width = shape.width * copies
        side = min(rows, width)
        n = min(p.pca or side, side)
        n_prepared = folds * (inner + 1 if p.nested_axes else 1)
        decompose = 7000.0 * side**2 if p.pca else 20.0 * side**3  # measured; a few axes, or all
        prepare = 2.0 * side**2 * max(rows, width) + n_prepared * (decompose + 2.0 * rows * width * n)
        validate = folds * inner * n_penalties * n * min(n, held_out) * 2.0
        score = folds * (inner + 1) * n * rows * 2.0 + validate
        # a null needs products with components or with held-out rows, whichever are fewer, or a complete fit
        refit = folds * min(n, held_out) * 2.0 * (rows + held_out)
        null = p.n_nulls * (score if p.null_penalties == "chosen" else refit)
        null *= layers[name] + 1 if p.null_layers == "all" else 1
        probes = 0.0 if n_delays == 1 else 3.0 * n_delays * score * min(1.0, 4096 / targets)
        shared += layers[name] * prepare
        separate += targets * (layers[name] * score + null + probes)
    return shared, separate


def _peak_bytes(
    study: Study, story: Story, shapes: Mapping[str, ModelShape], targets: int, runs: int
) -> float:
    """Estimate the memory that a run needs: a model's weights, or one subject's responses with its largest plans."""
    scans = _n_rows(study, story)
    weights = [
        estimate_gigabytes(shape, m.dtype, m.quantization) * 1e9
        for m in study.models
        for shape in [shapes.get(m.label)]
        if shape
    ]
    widest = max((shape.width for shape in shapes.values()), default=1)
    responses = 3.0 * 4.0 * scans * targets
    plans = min(PLANS_BYTES, 8.0 * scans * min(scans, study.protocol.pca or widest) * (runs + 1) * runs)
    return BASE_BYTES + max([*weights, responses + plans])


BASE_BYTES = 0.6e9  # libraries
PLANS_BYTES = 1e9


def describe_card(
    settings: ModelSettings,
    shape: ModelShape,
    gigabytes: float,
    story: Story,
    study: Study,
    batch_tokens: int = 2048,
) -> str:
    """Describe whether a model fits a GPU's memory, by arithmetic of bytes, and estimate how long it reads the story.

    Parameters
    ----------
    settings : of the model
    shape : its size
    gigabytes : memory of the GPU, in 10⁹ bytes
    batch_tokens : tokens that are read at once
    """
    size = 4.0 if settings.dtype == "float32" else 2.0
    weights = estimate_gigabytes(shape, settings.dtype, settings.quantization)
    states = batch_tokens * (shape.n_layers + 1) * shape.width * size / 1e9
    batch = batch_tokens * 14 * shape.width * size / 1e9  # one block: queries, keys, values, MLP
    total = weights + states + batch + DRIVER
    fits = total <= gigabytes
    smaller = [
        f"{key} = '{value}'"
        for key, value in (("dtype", "bfloat16"), ("quantization", "8bit"), ("quantization", "4bit"))
        if BYTES[value] < BYTES[settings.quantization or settings.dtype]
        and estimate_gigabytes(shape, value) + states + batch + DRIVER <= gigabytes
    ]
    advice = "" if fits else f"; use {' or '.join([*smaller[:2], 'device = ' + repr('offload')])}"
    tokens = _n_tokens(study, story)
    hours = 2.0 * shape.parameters * tokens / (CARD_SPEED if size == 2.0 else CARD_SPEED / 4) / 3600
    return (
        f"{'fits' if fits else 'does not fit'} {gigabytes:g} GB: {total:.1f} GB ({weights:.1f} weights, {states:.1f} states, "
        f"{batch:.1f} batch, {DRIVER:.1f} driver){advice}; reading the story takes about {hours:.2g} h (an estimate, at "
        f"{CARD_SPEED / 1e12:.0f} TFLOP/s in 16 bits)"
    )


DRIVER = 0.7  # gigabytes that CUDA and its libraries keep
CARD_SPEED = 2e13  # operations per second that short texts get from a GPU


def _n_tokens(study: Study, story: Story) -> float:
    """Estimate how many tokens a model reads: 1.35 a word, and twice with a running context."""
    return 1.35 * len(story) * (1.0 if study.features.context == "sentence" else 2.0)


def _measure_speed() -> float:
    """Measure the speed of a matrix product on one core, in operations per second of its processor time."""
    a = np.ones((700, 700), dtype=np.float32)
    best = np.inf
    with threadpool_limits(limits=1):
        for _ in range(4):
            start = time.process_time()
            a @ a
            best = min(best, max(time.process_time() - start, 1e-4))
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
