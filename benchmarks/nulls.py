"""What do 1,000 nulls of a whole brain cost, and what would a loop of refits? Synthetic data; no model.

1,000 nulls × 33 layers × 20,000 targets, 1,500 rows in 6 runs that take turns (6 outer × 5 inner folds), 15 components, 12
penalties, one confound. A part is measured in one thread, in CPU seconds of this process, and multiplied up; the part is
printed. "nested" chooses penalties anew in every null, "kept" keeps those of the true responses, "test block" keeps
predictions and moves held-out blocks (a fixed split only, see langcortex.nulls.heldout_test.time_test).

    python benchmarks/nulls.py             some minutes
    python benchmarks/nulls.py --quick     about a minute
    python benchmarks/nulls.py --json      one object

A loop fits every null again: with this package's engine on moved responses, and with scikit-learn's Ridge over penalties and
folds (components and confounds given for nothing).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  # after the number of threads is set

from langcortex.brain.space import Space  # noqa: E402
from langcortex.design.design import Design  # noqa: E402
from langcortex.encoding.nested_cv import fit_layers  # noqa: E402
from langcortex.encoding.null_test import Tested, null_chunks  # noqa: E402
from langcortex.encoding.prepare import Engine, PreparedCache  # noqa: E402
from langcortex.encoding.protocol import Protocol  # noqa: E402
from langcortex.nulls.heldout_test import time_test  # noqa: E402
from langcortex.nulls.permutations import RowPermutations  # noqa: E402
from langcortex.stats.null_counts import NullCounts  # noqa: E402

N_NULLS, N_LAYERS, N_TARGETS = 1000, 33, 20_000
N_RUNS, N_ROWS, N_FEATURES, N_COMPONENTS = 6, 250, 400, 15
GRID = tuple(float(a) for a in np.logspace(0, 5, 12))
PROTOCOL = Protocol(
    pca=N_COMPONENTS, standardise="none", penalties=GRID, relative=False, choose_by="r", nested_axes=False, confounds=("length",)
)  # fmt: skip


def make_design(n_targets: int, n_layers: int) -> Design:
    """Draw layers with a power-law spectrum and responses half of which follow them."""
    rng = np.random.default_rng(0)
    n, spectrum = N_RUNS * N_ROWS, np.arange(1, N_FEATURES + 1) ** -0.5
    x = {f"layer-{i}": rng.standard_normal((n, N_FEATURES)) * spectrum for i in range(n_layers)}
    y = rng.standard_normal((n, n_targets))
    for i in range(1, n):
        y[i] += 0.5 * y[i - 1]
    y[:, : n_targets // 2] += x["layer-0"][:, :30] @ rng.standard_normal((30, n_targets // 2))
    run, place = np.repeat([f"run-{i}" for i in range(N_RUNS)], N_ROWS), np.tile(np.arange(N_ROWS), N_RUNS)
    return Design(
        X={**x, "length": rng.standard_normal((n, 1))},
        Y={0.0: y.astype(np.float32)},
        ids=np.array([f"{name}/{i}" for name, i in zip(run, place, strict=True)]),
        run=run,
        scans=np.stack([place, place], axis=1),
        subject="nobody",
        space=Space("columns", np.arange(n_targets).astype(str)),
        left_out={},
    )


def cpu(work: Callable[[], object]) -> float:
    """Time one call in CPU seconds of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def refitted(protocol: Protocol, n_targets: int, n_layers: int) -> float:
    """Time nulls through `null_chunks`, counted as they come; preparations of features are made before, as by a fit."""
    design, engine = make_design(n_targets, n_layers), Engine(plans=PreparedCache())
    names = [f"layer-{i}" for i in range(n_layers)]
    encodings = fit_layers(design, names, protocol, engine=engine)
    tested: list[Tested] = [([name] * N_RUNS, e) for name, e in zip(names, encodings, strict=True)]

    def work(p: Protocol) -> None:
        tally = NullCounts(np.stack([e.r.mean(axis=0) for e in encodings]), p.n_nulls)
        for chunk, null in null_chunks(design, tested, p, 0, engine=engine):
            tally.add(null, 0, chunk)

    work(dataclasses.replace(protocol, n_nulls=2))
    seconds = cpu(lambda: work(protocol))
    return whole(seconds, protocol.n_nulls, n_layers, n_targets)


def whole(seconds: float, n_nulls: int, n_layers: int, n_targets: int) -> float:
    """Multiply up to the whole job."""
    return seconds * (N_NULLS / n_nulls) * (N_LAYERS / n_layers) * (N_TARGETS / n_targets)


def held_out(kind: str, n_targets: int, n_layers: int) -> float:
    """Time nulls of held-out predictions."""
    design, rng = make_design(n_targets, 1), np.random.default_rng(1)
    predicted = rng.standard_normal((n_layers, N_RUNS * N_ROWS, n_targets)).astype(np.float32)
    seconds = cpu(lambda: time_test(design.Y[0.0], predicted, design.run, N_NULLS, rng, kind))
    return whole(seconds, N_NULLS, n_layers, n_targets)


def engine_loop(n_targets: int, n_layers: int) -> float:
    """Time a loop that moves the responses and calls `fit_layers`, null by null."""
    design, engine = make_design(n_targets, n_layers), Engine(plans=PreparedCache())
    names = [f"layer-{i}" for i in range(n_layers)]
    moved = RowPermutations("shift", design.run, 2, 0).make_permuter(design.Y[0.0])
    fit_layers(design, names, PROTOCOL, engine=engine)

    def work() -> None:
        for b in range(2):
            fit_layers(dataclasses.replace(design, Y={0.0: moved(b)}), names, PROTOCOL, engine=engine)

    return whole(cpu(work), 2, n_layers, n_targets)


def sklearn_loop(n_targets: int) -> float:
    """Time one null, layer and outer fold of scikit-learn's Ridge, penalties chosen by the inner folds."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(2)
    x = rng.standard_normal((N_RUNS * N_ROWS, N_COMPONENTS)).astype(np.float32)
    y = rng.standard_normal((N_RUNS * N_ROWS, n_targets)).astype(np.float32)
    run = np.repeat(np.arange(N_RUNS), N_ROWS)

    def r(train: np.ndarray, test: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
        p, held = Ridge(alpha).fit(x[train], y[train]).predict(x[test]), y[test]
        p, held = p - p.mean(axis=0), held - held.mean(axis=0)
        return np.asarray((p * held).sum(axis=0) / np.sqrt((p**2).sum(axis=0) * (held**2).sum(axis=0)))

    def work() -> None:
        curve = np.zeros((len(GRID), n_targets))
        for j in range(1, N_RUNS):
            for a, alpha in enumerate(GRID):
                curve[a] += r((run != 0) & (run != j), run == j, alpha)
        r(run != 0, run == 0, np.asarray(GRID)[np.argmax(curve, axis=0)])

    return whole(cpu(work) * N_RUNS, 1, 1, n_targets)


def rate_of_products() -> float:
    """Measure one thread's matrix products, in 10⁹ operations a CPU second; a busy machine shows here."""
    a = np.ones((2048, 2048), np.float32)
    return max(2e-9 * 2048**3 / cpu(lambda: a @ a) for _ in range(3))


def measure(quick: bool = False) -> dict[str, float]:
    """Measure parts, multiplied up: seconds of one core for the whole job, and how many times less than a loop.

    Parameters
    ----------
    quick : smaller parts, about a minute
    """
    few = 1 if quick else 3
    nested = dataclasses.replace(PROTOCOL, null_penalties="chosen")
    block = {"null": "block", "n_nulls": 40}
    phase = {"null": "phase", "n_nulls": 40}
    wide = 1920 if quick else 3840
    out = {
        "nested_shift_s": refitted(nested, 256 * few, 2),
        "nested_block_s": refitted(dataclasses.replace(nested, **block), wide, 4),
        "nested_phase_s": refitted(dataclasses.replace(nested, **phase), wide, 4),
        "kept_shift_s": refitted(PROTOCOL, 256 * few, 1),
        "kept_block_s": refitted(dataclasses.replace(PROTOCOL, **block), wide, 1),
        "kept_phase_s": refitted(dataclasses.replace(PROTOCOL, **phase), wide, 1),
        "test_block_s": held_out("block", 512 * few, 4),
        "test_shift_s": held_out("shift", 512 * few, 4),
        "test_phase_s": held_out("phase", 512 * few, 4),
        "engine_loop_s": engine_loop(1920, 4),
        "sklearn_loop_s": sklearn_loop(2000),
    }
    out["nested_core_hours"] = out["nested_shift_s"] / 3600
    out["times_less_than_sklearn"] = out["sklearn_loop_s"] / out["nested_shift_s"]
    out["times_less_than_engine_loop"] = out["engine_loop_s"] / out["nested_shift_s"]
    out["gflops"] = rate_of_products()
    return out


def main() -> None:
    """Print the table, or one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller parts, about a minute")
    parser.add_argument("--json", action="store_true", help="print one object")
    given = parser.parse_args()
    out = measure(given.quick)
    if given.json:
        sys.stdout.write(json.dumps(out) + "\n")
        return
    sys.stdout.write(
        f"{N_NULLS:,} nulls x {N_LAYERS} layers x {N_TARGETS:,} targets, multiplied up from a part\n"
    )
    for key, value in out.items():
        said = (
            f"{value:,.0f} core-seconds ({value / 3600:.2f} core-hours)"
            if key.endswith("_s")
            else f"{value:,.2f}"
        )
        sys.stdout.write(f"{key:28} {said}\n")


if __name__ == "__main__":
    main()
