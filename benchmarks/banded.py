"""Banded ridge against himalaya's random search: the same answer, CPU time and peak memory.

One outer fold: runs 2–6 choose γ and α per target by leaving each of them out, then predict run 1. himalaya gets
the same γ, α and folds, precomputed kernels (`MultipleKernelRidgeCV`) or features (`GroupRidgeCV`) that are scaled on
the outer training rows, and targets in batches; langcortex scales anew in every inner fold, as `fit` does. For the
check of the answer neither scales. Every measurement is a process of its own with one thread; memory is above what
the process had after making the data.

Run it with: python benchmarks/banded.py [--quick] [--json] (about 10 minutes on a quiet machine, or 1).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

N_RUNS, BATCH = 6, 1000
SHAPES = {  # name: (rows, widths of bands, targets, weights of bands)
    "narrow": (1500, (15, 5, 3), 5000, 20),
    "middle": (1500, (100, 100, 10), 4000, 10),
    "wide": (1500, (4096, 10), 4000, 20),
}
QUICK = {
    "narrow": (600, (15, 5, 3), 4000, 20),
    "middle": (600, (60, 60, 10), 1000, 10),
    "wide": (600, (1500, 10), 1000, 5),
}
METHODS = ("langcortex", "himalaya-kernel", "himalaya-group")
TARGETS_CHECKED = 200


def data(shape, n_targets=None):
    """Make bands, responses that follow them a little, runs, weights and penalties."""
    import numpy as np

    n, widths, targets = shape[:3]
    rng = np.random.default_rng(0)
    bands = {}
    targets = n_targets or targets
    y = rng.standard_normal((n, targets), dtype=np.float32)
    for i, p in enumerate(widths):
        x = rng.standard_normal((n, p)) @ (rng.standard_normal((p, p)) * np.arange(1, p + 1) ** -0.5)
        x /= x.std(axis=0)
        bands[f"band-{i}"] = x.astype(np.float32)
        y += (0.5 * x @ rng.standard_normal((p, targets)) / np.sqrt(p)).astype(np.float32)
    run = np.repeat([f"run-{i}" for i in range(1, N_RUNS + 1)], n // N_RUNS)
    return bands, y, run


def weights(shape):
    """Draw the weights of bands that all methods try."""
    import numpy as np

    from langcortex.ridge.multikernel import draw_band_weights

    # the inside of the simplex: a weight of 0 makes himalaya's logarithms infinite
    gammas = draw_band_weights(len(shape[1]), shape[3] + 1 + len(shape[1]), np.random.default_rng(1), (1.0,))
    return gammas[1 + len(shape[1]) :]


def ours(bands, y, run, gammas, alphas, standardise):
    """Fit with langcortex: (chosen α, predictions of run 1, r)."""
    import numpy as np

    from langcortex.brain.space import Space
    from langcortex.design.design import Design
    from langcortex.encoding.banded import fit_bands
    from langcortex.encoding.protocol import Protocol

    place = np.arange(len(run))
    design = Design(
        bands, {0.0: y}, place.astype(str), run, np.stack([place, place], axis=1), "nobody",
        Space("columns", np.arange(y.shape[1]).astype(str)), {},
    )  # fmt: skip
    protocol = Protocol(
        test_runs=("run-1",), relative=False, penalties=tuple(alphas), standardise=standardise
    )
    keep = standardise == "none"
    found = fit_bands(
        design, list(bands), protocol, np.random.default_rng(0), band_weights=gammas, keep_predictions=keep
    )
    predicted = found.encoding.predicted[run == "run-1"] if keep else None
    return found.penalty[:, 0], predicted, found.encoding.r[0]


def r2_against_training_mean(y, p):
    """Score as langcortex does; himalaya hands in responses without the training mean."""
    return 1 - ((y - p) ** 2).sum(axis=-2) / (y**2).sum(axis=0)


def theirs(bands, y, run, gammas, alphas, standardise, kernel):
    """Fit with himalaya: (chosen penalty of each band, predictions of run 1, r)."""
    import numpy as np
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search as by_kernel
    from himalaya.ridge import solve_group_ridge_random_search as by_features
    from himalaya.scoring import r2_score
    from sklearn.model_selection import LeaveOneGroupOut

    from langcortex.arrays import pearson

    train, test = run != "run-1", run == "run-1"
    x = [v[train] - v[train].mean(axis=0) for v in bands.values()]
    x_new = [v[test] - v[train].mean(axis=0) for v in bands.values()]
    if standardise == "training":
        size = [v.std(axis=0) for v in x]
        x, x_new = ([v / s for v, s in zip(part, size, strict=True)] for part in (x, x_new))
    score_func = r2_score if standardise == "training" else r2_against_training_mean
    folds = list(LeaveOneGroupOut().split(np.zeros(train.sum()), groups=run[train]))
    options = {
        "n_iter": gammas.astype(y.dtype), "alphas": np.asarray(alphas, dtype=y.dtype), "score_func": score_func,
        "cv": _Folds(folds), "n_targets_batch": BATCH, "n_targets_batch_refit": BATCH, "progress_bar": False,
        "fit_intercept": True,
    }  # fmt: skip
    if kernel:
        kernels, across = (
            np.stack([v @ v.T for v in x]),
            np.stack([a @ b.T for a, b in zip(x_new, x, strict=True)]),
        )
        deltas, dual, _, intercept = by_kernel(kernels, y[train], return_weights="dual", **options)
        weighted = [np.exp(d) * (k @ dual) for d, k in zip(deltas, across, strict=True)]
        predicted = sum(weighted) + intercept
    else:
        deltas, coef, _, intercept = by_features(x, y[train], return_weights=True, warn=False, **options)
        predicted = np.hstack(x_new) @ coef + intercept
    return np.exp(-deltas), predicted, pearson(y[test], np.asarray(predicted, dtype=y.dtype))


class _Folds:
    def __init__(self, folds):
        self.folds = folds

    def split(self, X=None, y=None, groups=None):
        return iter(self.folds)

    def get_n_splits(self, X=None, y=None, groups=None):
        return len(self.folds)


def alphas_of(shape):
    """Give a grid around the size of the features."""
    import numpy as np

    return np.logspace(-1, 5, 12) * shape[0] / 10


def measure(method, shape):
    """Fit once in this process: CPU seconds and MB above the data."""
    bands, y, run = data(shape)
    gammas, alphas = weights(shape), alphas_of(shape)
    _warm(method)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (Linux)
    before = _status("VmRSS")
    begin, wall = time.process_time(), time.perf_counter()
    _call(method, bands, y, run, gammas, alphas, "training")
    seconds, wall = time.process_time() - begin, time.perf_counter() - wall
    mb = round((_status("VmHWM") - before) / 1024)
    return {"cpu_s": round(seconds, 2), "wall_s": round(wall, 2), "mb": mb}


def _status(field):
    """Read a size of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def _call(method, bands, y, run, gammas, alphas, standardise):
    if method == "langcortex":
        return ours(bands, y, run, gammas, alphas, standardise)
    return theirs(bands, y, run, gammas, alphas, standardise, method == "himalaya-kernel")


def _warm(method):
    """Import everything, on a tiny problem."""
    import numpy as np

    bands, y, run = data((36, (2, 2), 3, 2))
    _call(method, bands, y, run, np.array([[0.5, 0.5]]), [1.0], "training")


def compare(shape):
    """Say how far the answers are apart, in float64 and without scaling: at one γ and α, and when they are chosen."""
    import numpy as np

    bands, y, run = data(shape, TARGETS_CHECKED)
    bands, y = {k: v.astype(float) for k, v in bands.items()}, y.astype(float)
    gammas, alphas = weights(shape)[:4], alphas_of(shape)
    out = {}
    for method in METHODS[1:]:
        args = (bands, y, run, gammas[:1], alphas[5:6], "none")
        one, two = ours(*args), theirs(*args, method == "himalaya-kernel")
        mean = y[run != "run-1"].mean(axis=0)
        error = np.abs(one[1] - (two[1] - mean)).max()
        out[method] = {"max_abs_dr": float(np.abs(one[2] - two[2]).max()), "max_abs_dp": float(error)}
        args = (bands, y, run, gammas, alphas, "none")
        one, two = ours(*args), theirs(*args, method == "himalaya-kernel")
        agree = np.isclose(one[0], two[0], rtol=1e-5).all(axis=0)
        out[method] |= {
            "same_choice": float(agree.mean()),
            "max_abs_dr_chosen": float(np.abs(one[2] - two[2])[agree].max()),
        }
    return out


def main():
    """Measure every method in turn, in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SHAPE"), help="used by the script itself")
    args = parser.parse_args()
    shapes = QUICK if args.quick else SHAPES
    if args.one:
        method, name = args.one
        found = compare(shapes[name]) if method == "compare" else measure(method, shapes[name])
        print(json.dumps(found))
        return
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    table = {}
    for name in shapes:
        table[name] = {}
        for method in (*METHODS, "compare"):
            command = [sys.executable, __file__, "--one", method, name] + ["--quick"] * args.quick
            done = subprocess.run(
                command, env=os.environ | one_thread, capture_output=True, text=True, check=True
            )
            table[name][method] = json.loads(done.stdout)
            if not args.json:
                print(name, shapes[name], method, table[name][method], flush=True)
        ours_, best = table[name]["langcortex"], min(METHODS[1:], key=lambda m: table[name][m]["cpu_s"])
        table[name]["times_faster"] = round(table[name][best]["cpu_s"] / ours_["cpu_s"], 1)
        table[name]["memory_ratio"] = round(ours_["mb"] / max(1, table[name][best]["mb"]), 2)
    if args.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
