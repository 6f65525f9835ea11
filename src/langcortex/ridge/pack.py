"""A plan of few axes as a few arrays, which compiled code reads. Loads numba: import it when it is used."""

from __future__ import annotations

import numpy as np

from langcortex.ridge.compiled.fit import PackedMoments, PackedPlan
from langcortex.ridge.compiled.tiles import padded, panels_of
from langcortex.ridge.moments import ResponseMoments
from langcortex.ridge.plan import Plan, segments_left_out


def pack_plan(plan: Plan, sums: ResponseMoments) -> PackedPlan:
    """Put a plan of few axes into arrays."""
    sets, tasks = sums.sets, plan.tasks
    every = [one for group in (*plan.inner, *plan.outer) for one in group]
    n, p, c = len(every), plan.n_axes, sets.c1.shape[1]
    n_alphas, columns = tasks[0].shrink.shape[0], max(t.basis.stop - t.basis.start for t in tasks)
    rest = [segments_left_out(sets, tasks[one.task]) for one in every]
    wholes: dict[tuple[int, bytes], int] = {}
    for one, lack in zip(every, rest, strict=True):
        if lack is not None:
            task = tasks[one.task]
            wholes.setdefault((task.basis.start, task.whole or b""), len(wholes))
    lists = [
        sets.parts[tasks[one.task].train] if lack is None else lack
        for one, lack in zip(every, rest, strict=True)
    ]
    lists += [sets.parts[one.held] for one in every] + [sets.parts[key] for _, key in wholes]
    begins = np.cumsum([0, *map(len, lists)])
    inner = np.cumsum([0, *map(len, plan.inner)])
    p2, a2 = padded(p), padded(n_alphas)
    f = {
        "turn": (p2, columns + 2 * c + 1), "mean": (p,), "shrink": (a2, p), "square": (a2, p),
        "across": (p2, p), "apart": (a2, p), "power": (p2, p),
    }  # fmt: skip
    made = {
        name: np.zeros((n, *shape), np.float64 if name in ("across", "apart") else np.float32)
        for name, shape in f.items()
    }
    for i, one in enumerate(every):
        task = tasks[one.task]
        own = task.shrink.shape[1]
        if task.turn is not None:
            made["turn"][i, :own, : len(task.turn) - c] = task.turn[c:].T
            made["turn"][i, :own, columns : columns + c] = task.turn[:c].T
        away = one.taken[:, : c + one.centred]
        made["turn"][i, :own, columns + c : columns + c + away.shape[1]] = -away
        made["mean"][i, :own], made["shrink"][i, :n_alphas, :own] = one.mean, task.shrink
        made["power"][i, :own, :own] = one.triangle.T.astype(np.float64) @ one.triangle
        if one.pairs is not None:
            made["across"][i, :own, :own] = one.pairs.across
            made["apart"][i, :n_alphas, :own] = one.pairs.weights[:, :own]
            made["square"][i, :n_alphas, :own] = one.pairs.weights[:, own:]
    order = np.concatenate(sets.segments)
    return PackedPlan(
        inner_from=inner,
        outer_from=inner[-1] + np.cumsum([0, *map(len, plan.outer)]),
        order=order,
        edges=np.cumsum([0, *map(len, sets.segments)]),
        panels=panels_of(plan.bases[order]),
        train=np.array([sums.number[tasks[one.task].train] for one in every]),
        held=np.array([sums.number[one.held] for one in every]),
        first=np.array([tasks[one.task].basis.start for one in every]),
        width=np.array([tasks[one.task].basis.stop - tasks[one.task].basis.start for one in every]),
        turned=np.array([tasks[one.task].turn is not None for one in every]),
        alike=np.array([lack is not None and tuple(lack) == tuple(sets.parts[one.held]) for one, lack in zip(every, rest, strict=True)]),
        whole=np.array([-1 if lack is None else wholes[tasks[one.task].basis.start, tasks[one.task].whole or b""] for one, lack in zip(every, rest, strict=True)]),
        segments=np.array([s for part in lists for s in part], dtype=np.int64),
        trained_from=begins[: n + 1],
        held_from=begins[n : 2 * n + 1],
        whole_from=begins[2 * n :],
        learnt=np.stack([sets.learnt(tasks[one.task].train) for one in every]),
        gram=np.stack([sets.gram(one.held) for one in every]),
        **made,
    )  # fmt: skip


def pack_moments(sums: ResponseMoments, plan: Plan) -> PackedMoments:
    """Say what compiled code needs of responses, and how a plan scores them."""
    centred = bool(plan.inner[0] and plan.inner[0][0].centred)
    return PackedMoments(
        sums.on, sums.power, sums.flat, centred, sums.least, np.finfo(np.float32).smallest_normal
    )
