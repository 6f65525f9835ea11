"""How fast is the fitting engine, beside what people use and beside the matrix products alone?

Synthetic responses (n rows, V targets, AR(1) noise, half of them with signal), features with a power-law spectrum, one
confound, 12 penalties, 5 outer × 5 inner contiguous folds, a penalty a target. Everyone gets the same principal
components of the outer training rows, and time for them is counted. Methods take turns in one process with one thread, ours
between any two others; times are CPU seconds of this process, medians, for one outer fold. Memory is the most that a method's
first call held above what there was before it.

    python benchmarks/fit.py             about ten minutes
    python benchmarks/fit.py --quick     under a minute, fewer targets
    python benchmarks/fit.py --json      one object

Columns: "all" counts Gram matrix, axes and fits of a first subject; "next" the fits alone, as for every further
subject, delay or null that shares the story. "delays" fits four delays of the responses with the plans of one; "nulls" is
`benchmarks/nulls.py`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  # after the number of threads is set

import nulls  # noqa: E402  # benchmarks/nulls.py
from langcortex.encoding.prepare import row_products  # noqa: E402
from langcortex.ridge.decomposition import kernel_components, leading_eigenpairs  # noqa: E402
from langcortex.ridge.plan import NestedFold, Plan, RowSets, chunk_size, partition_rows  # noqa: E402
from langcortex.ridge.planner import make_plan  # noqa: E402
from langcortex.ridge.solve import ResponseChunk  # noqa: E402

K, J, A = 5, 5, 12
GRID = np.logspace(0, 5, A)


class Data:
    """One study's numbers."""

    def __init__(self, n: int, d: int, v: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        spectrum = np.arange(1, d + 1) ** -0.5
        self.x = (rng.standard_normal((n, d)) * spectrum).astype(np.float32)
        noise = rng.standard_normal((n, v)).astype(np.float32)
        for i in range(1, n):
            noise[i] += 0.5 * noise[i - 1]
        self.y = noise
        signal = self.x[:, :30] @ rng.standard_normal((30, v // 2)).astype(np.float32)
        self.y[:, : v // 2] += signal / signal.std() * noise.std()
        self.y -= self.y.mean(axis=0)
        self.confound = rng.standard_normal((n, 1))
        rows = np.arange(n)
        self.nests = []
        for block in np.array_split(rows, K):
            train = np.setdiff1d(rows, block)
            inner = tuple((np.setdiff1d(train, part), part) for part in np.array_split(train, J))
            self.nests.append(NestedFold(train, (block,), inner))


def plan_of(data: Data, p: int | None) -> tuple[RowSets, Plan]:
    """Make what the features decide: Gram matrix, axes, ridges."""
    around = data.x.astype(np.float64)
    around -= around.mean(axis=0)
    gram = row_products(around, p, np.float32)
    c1 = np.column_stack([np.ones(len(gram)), data.confound])
    plan = make_plan(
        "x",
        data.nests,
        lambda train: kernel_components(gram, c1, train, p),
        data.confound,
        GRID,
        False,
        "r",
        False,
    )
    return partition_rows(data.nests, data.confound), plan


def fit_all(data: Data, sets: RowSets, plan: Plan) -> np.ndarray:
    """Fit every outer fold: (K, V) r on held-out rows."""
    r = np.full((K, data.y.shape[1]), np.nan)
    size = chunk_size([plan])
    for first in range(0, data.y.shape[1], size):
        reader = ResponseChunk.from_responses(data.y[:, first : first + size], sets).read(plan)
        for k, fold in enumerate(reader.folds()):
            r[k, first : first + size] = fold.segment_scores[0][0]
    return r


def components(data: Data, train: np.ndarray, p: int | None) -> np.ndarray:
    """Scores on the principal axes of training rows, confounds off, exact, through their Gram matrix; the features when None."""
    (x,) = cleaned(data.confound, train, data.x)
    if p is None:
        return x
    inside = x[train].astype(np.float64)
    value, vector = leading_eigenpairs(inside @ inside.T, p)
    return x @ (inside.T @ (vector / np.sqrt(value))).astype(np.float32)


def cleaned(confound: np.ndarray, train: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """Take mean and confound off, learnt on training rows."""
    c1 = np.column_stack([np.ones(len(confound)), confound])
    coef = np.linalg.pinv(c1[train])
    return [(a - c1 @ (coef @ a[train])).astype(np.float32) for a in arrays]


def r_of(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Correlate columns."""
    y, p = y - y.mean(axis=0), p - p.mean(axis=0)
    return (y * p).sum(axis=0) / np.sqrt((y**2).sum(axis=0) * (p**2).sum(axis=0))


def sklearn_nested(data: Data, z: np.ndarray, nest: NestedFold) -> np.ndarray:
    """Loop scikit-learn's Ridge over penalties and inner folds, with a vectorised r."""
    from sklearn.linear_model import Ridge

    curve = np.zeros((A, data.y.shape[1]))
    for train, held in nest.inner:
        x, y = cleaned(data.confound, train, z, data.y)
        for a, alpha in enumerate(GRID[::-1]):
            curve[a] += r_of(y[held], Ridge(alpha).fit(x[train], y[train]).predict(x[held]))
    best = np.argmax(curve, axis=0)
    x, y = cleaned(data.confound, nest.train, z, data.y)
    p = Ridge(GRID[::-1][best]).fit(x[nest.train], y[nest.train]).predict(x[nest.segments[0]])
    return r_of(y[nest.segments[0]], p)


def himalaya(
    data: Data, z: np.ndarray, nest: NestedFold, batch: int | None, backend: str = "numpy"
) -> np.ndarray:
    """Himalaya's RidgeCV (KernelRidgeCV where features outnumber rows) on inner folds, confounds off once."""
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import correlation_score

    back = set_backend(backend)
    x, y = cleaned(data.confound, nest.train, z, data.y)
    where = {int(row): i for i, row in enumerate(nest.train)}
    cv = [tuple(np.array([where[int(row)] for row in rows]) for rows in pair) for pair in nest.inner]
    params = {"score_func": correlation_score, "n_targets_batch": batch}
    kind = KernelRidgeCV if x.shape[1] > len(x) else RidgeCV
    more = {"kernel": "linear"} if kind is KernelRidgeCV else {}
    model = kind(alphas=GRID, cv=cv, solver_params=params, **more)
    model.fit(back.asarray(x[nest.train]), back.asarray(y[nest.train]))
    p = back.to_numpy(model.predict(back.asarray(x[nest.segments[0]])))
    set_backend("numpy")
    return r_of(y[nest.segments[0]], p)


def replication(data: Data, z: np.ndarray, nest: NestedFold) -> np.ndarray:
    """Do as the 2025 replication: one leave-one-out penalty for all targets, r in a Python loop."""
    from scipy.stats import pearsonr
    from sklearn.linear_model import RidgeCV

    x, y = cleaned(data.confound, nest.train, z, data.y)
    p = RidgeCV(alphas=(100, 1000, 10000)).fit(x[nest.train], y[nest.train]).predict(x[nest.segments[0]])
    held = y[nest.segments[0]]
    return np.array([pearsonr(held[:, v], p[:, v])[0] for v in range(p.shape[1])])


def cpu(work: Callable[[], object]) -> tuple[float, object]:
    """Time one call in CPU seconds of this process."""
    begin = time.process_time()
    out = work()
    return time.process_time() - begin, out


def watched(work: Callable[[], object]) -> tuple[float, float, object]:
    """Time one call, and watch the resident memory of this process: CPU seconds, most MB above what there was, result."""
    page, begin, most, done = resource.getpagesize(), resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], resident() - begin)

    watcher = threading.Thread(target=watch)
    watcher.start()
    taken, out = cpu(work)
    done.set()
    watcher.join()
    return taken, most[0] * page / 1e6, out


def resident() -> int:
    """Read how many pages of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def bound(n: int, v: int, p: int, rate: float) -> float:
    """Count the seconds an outer fold's matrix products alone would take, predictions of every penalty rotated or made.

    Powers by divided differences need fewer, so with many axes a fraction of this bound can be above 1.
    """
    c, train = 2, n * (K - 1) // K
    held = train // J
    if p > (train - held):  # by rows
        return (K * J * 2 * A * held * (train - held) + K * 2 * train * n) * v / rate / K
    inside = min(held, p)
    flops = 2 * n * (c + K * p) + 4 * p * (p + c) * K * (J + 1)
    flops += K * J * A * (p * (p + 1) if p <= 32 else inside * (2 * p - inside))
    return (flops + 2 * K * p * p) * v / rate / K


def rate_of_products() -> float:
    """Measure one thread's matrix products, in operations a CPU second."""
    a = np.ones((2048, 2048), np.float32)
    return 2 * 2048**3 / cpu(lambda: a @ a)[0]


def compare(n: int, d: int, v: int, p: int | None, rounds: int, loops: bool) -> dict[str, float]:
    """Let the methods take turns on one case; `loops` are those that take minutes with all features."""
    data = Data(n, d, v)
    nest = data.nests[0]
    methods: dict[str, Callable[[], np.ndarray]] = {}

    def with_components(fit: Callable[..., np.ndarray], *more: object) -> Callable[[], np.ndarray]:
        return lambda: fit(data, components(data, nest.train, p), nest, *more)

    methods["himalaya_batched"] = with_components(himalaya, 500)
    methods["himalaya_default"] = with_components(himalaya, None)
    if loops:
        methods["himalaya_torch"] = with_components(himalaya, 1000, "torch")
        methods["sklearn"] = with_components(sklearn_nested)
        methods["replication"] = with_components(replication)
    times: dict[str, list[float]] = {name: [] for name in (*methods, "all", "next")}
    rates = [rate_of_products()]
    r: dict[str, np.ndarray] = {}
    fit_all(data, *plan_of(data, p))  # whatever is compiled is compiled
    memory = {"ours": watched(lambda: fit_all(data, *plan_of(data, p)))[1]}
    for turn, (name, work) in enumerate(list(methods.items()) * rounds):
        if rounds > 1 or turn % 3 == 0:
            prepare, made = cpu(lambda: plan_of(data, p))
            again, r["ours"] = cpu(functools.partial(fit_all, data, *made))
            times["all"].append((prepare + again) / K)
            times["next"].append(again / K)
            rates.append(rate_of_products())
        taken, held, r[name] = watched(work)
        memory.setdefault(name, held)
        times[name].append(taken)
    best = {name: statistics.median(t) for name, t in times.items()}
    out = {name: best[name] / best["all"] for name in methods}
    out |= {f"{name}_next": best[name] / best["next"] for name in methods}
    out |= {f"{name}_mb": held for name, held in memory.items()}
    out["seconds_all"], out["seconds_next"] = best["all"], best["next"]
    rate = statistics.median(rates)
    out["bound_fraction"] = bound(n, v, p or min(d, n * (K - 1) // K - 2), rate) / best["next"]
    if "sklearn" in r:
        difference = np.abs(r["ours"][0] - r["sklearn"])
        out["median_abs_dr"], out["max_abs_dr"] = float(np.median(difference)), float(difference.max())
    return out


def delays(n: int, d: int, v: int, p: int, rounds: int) -> dict[str, float]:
    """Fit four delays of the responses: with plans that are shared, and each by itself from the beginning."""
    data = Data(n, d, v)
    late = [np.roll(data.y, shift, axis=0) for shift in range(4)]
    times: dict[str, list[float]] = {"shared": [], "anew": []}

    def fit_of(y: np.ndarray, made: tuple[RowSets, Plan]) -> np.ndarray:
        data.y = y
        return fit_all(data, *made)

    def shared() -> None:
        made = plan_of(data, p)
        for y in late:
            fit_of(y, made)

    def anew() -> None:
        for y in late:
            fit_of(y, plan_of(data, p))

    for _ in range(rounds):
        times["shared"].append(cpu(shared)[0])
        times["anew"].append(cpu(anew)[0])
    best = {name: min(t) for name, t in times.items()}
    return {"seconds": best["shared"] / K, "anew": best["anew"] / best["shared"]}


def main() -> None:
    """Print the table, or one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer targets and methods, under a minute")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--cases", default="", help="some of p15,p100,p500,full,one_run,delays,nulls")
    given = parser.parse_args()
    wanted = given.cases.split(",") if given.cases else None
    v = 1000 if given.quick else 20_000
    cases: dict[str, tuple[int, int | None]] = {"p15": (4096, 15), "p100": (4096, 100)}
    if not given.quick:
        cases |= {"p500": (4096, 500), "full": (4096, None)}
    out: dict[str, dict[str, float]] = {}
    for name, (d, p) in cases.items():
        if wanted is not None and name not in wanted:
            continue
        out[name] = compare(1500, d, v, p, 2 if p in (15, 100) and not given.quick else 1, p is not None)
        if not given.json:
            sys.stdout.write(f"{name}: " + ", ".join(f"{k} {x:.3g}" for k, x in out[name].items()) + "\n")
            sys.stdout.flush()
    if not given.quick and (wanted is None or "one_run" in wanted):
        out["one_run"] = compare(150, 4096, 200_000, 15, 2, False)
    if wanted is None or "delays" in wanted:
        out["delays"] = delays(1500, 4096, v, 15, 1 if given.quick else 2)
    if wanted is None or "nulls" in wanted:
        out["nulls"] = nulls.measure(given.quick)
    if given.json:
        sys.stdout.write(json.dumps(out) + "\n")
    else:
        for name in ("one_run", "delays", "nulls"):
            if name in out:
                sys.stdout.write(f"{name}: " + ", ".join(f"{k} {x:.3g}" for k, x in out[name].items()) + "\n")


if __name__ == "__main__":
    main()
