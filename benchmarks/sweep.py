"""How long does a whole-brain sweep of one model take? The shapes of Le Petit Prince, through the public functions.

33 layers of 4,096 features × 9 runs × 50,000 voxels: 1,499 sentences, or 2,816 scans; the rigorous protocol (runs left out
outside and inside, scaling and axes learnt anew in every inner fold, 12 penalties a voxel). A layer is fitted to two numbers
of voxels with two threads, and the straight line through both is read at 50,000 voxels and 33 layers.

    python benchmarks/sweep.py            minutes; --pca 15,100,0 and --rows sentences,scans choose cases (0: no PCA)
    python benchmarks/sweep.py --quick    fewer voxels
    python benchmarks/sweep.py --json     one object
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

THREADS = 2
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  # after the number of threads is set

from langcortex.brain.space import Space  # noqa: E402
from langcortex.design.design import Design  # noqa: E402
from langcortex.encoding.nested_cv import fit  # noqa: E402
from langcortex.encoding.protocol import Protocol  # noqa: E402

LAYERS, VOXELS, FEATURES, RUNS = 33, 50_000, 4096, 9
ROWS = {"sentences": 1499, "scans": 2816}


def design(n: int, v: int, seed: int) -> Design:
    """Draw features with a power-law spectrum, and noise with some signal."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, FEATURES)) * np.arange(1, FEATURES + 1) ** -0.5).astype(np.float32)
    y = rng.standard_normal((n, v)).astype(np.float32)
    y[:, : v // 2] += x[:, :30] @ rng.standard_normal((30, v // 2)).astype(np.float32)
    run = np.repeat([f"run-{k}" for k in range(RUNS)], np.diff(np.linspace(0, n, RUNS + 1).astype(int)))
    place = np.arange(n)
    return Design(
        X={"layer": x, "duration": rng.standard_normal((n, 1))},
        Y={0.0: y},
        ids=np.array([f"row-{i}" for i in place]),
        run=run,
        scans=np.stack([place, place], axis=1),
        subject="sub-01",
        space=Space("columns", np.array([f"voxel-{i}" for i in range(v)])),
        left_out={},
    )


def seconds(n: int, v: int, pca: int | None) -> float:
    """Time as many layers as there are threads, side by side, a thread each; wall seconds a layer."""
    studies = [design(n, v, seed) for seed in range(THREADS)]
    protocol = Protocol(pca=pca, confounds=("duration",), n_nulls=0)
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda one: fit(one, "layer", protocol), studies))
    return (time.perf_counter() - begin) / THREADS


def sweep(n: int, pca: int | None, voxels: tuple[int, int]) -> dict[str, float]:
    """Read minutes off the line through two numbers of voxels."""
    if pca is not None:
        seconds(n, 64, pca)  # whatever is compiled is compiled
    few, many = (seconds(n, v, pca) for v in voxels)
    slope = (many - few) / (voxels[1] - voxels[0])
    fixed = max(0.0, few - slope * voxels[0])
    return {
        "seconds_a_layer_of_features": fixed,
        "seconds_a_layer_of_voxels": slope * VOXELS,
        "minutes_first_subject": LAYERS * (fixed + slope * VOXELS) / 60,
        "minutes_next_subject": LAYERS * slope * VOXELS / 60,
    }


def main() -> None:
    """Print the table, or one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer voxels")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--pca", default="15,100,0", help="numbers of components, 0 for all")
    parser.add_argument("--rows", default="sentences,scans")
    given = parser.parse_args()
    out: dict[str, dict[str, float]] = {}
    for rows in given.rows.split(","):
        for pca in map(int, given.pca.split(",")):
            voxels = (500, 1500) if given.quick or not pca else (4000, 20_000)
            name = f"{rows}, {f'{pca} components' if pca else 'all components'}"
            out[name] = sweep(ROWS[rows], pca or None, voxels)
            if not given.json:
                sys.stdout.write(f"{name}: " + ", ".join(f"{k} {x:.3g}" for k, x in out[name].items()) + "\n")
                sys.stdout.flush()
    if given.json:
        sys.stdout.write(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
