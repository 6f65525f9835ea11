"""Cross-validated ridge encoding: everything learnt on training rows, everything scored on runs left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from langcortex.design import Design
from langcortex.errors import FitError
from langcortex.metrics import pearson, squared_errors
from langcortex.protocol import Fold, Protocol, inner_folds, outer_folds
from langcortex.ridge import (
    Axes,
    chunks,
    confound_reader,
    learn_scale,
    penalties,
    predict,
    principal_axes,
    validate,
    without_confounds,
)
from langcortex.timing import run_slices


@dataclass(frozen=True, eq=False)
class Encoding:
    """What one feature space says about one subject, out of run.

    Attributes
    ----------
    name, subject : the feature space and the subject
    pieces : (n_pieces,) the held-out stretches that were scored: runs, or blocks of the only run
    piece_run : (n_pieces,) the run of each
    r : (n_pieces, n_targets) correlation of prediction and response in each piece
    sse, sst : (n_pieces, n_targets) squared errors of the prediction and of the training mean
    penalty : (n_folds, n_targets) the chosen penalty, in the units of the protocol's grid
    delay : (n_folds, n_targets) the chosen delay in seconds (0 where delays live in the features)
    inner : (n_folds, n_targets) the best inner score, from training rows alone
    observed, predicted : (n_rows, n_targets) float32, if kept; confounds removed, NaN where never held out
    row_piece : (n_rows,) the piece of each row, "" where never held out
    """

    name: str
    subject: str
    pieces: np.ndarray
    piece_run: np.ndarray
    r: np.ndarray
    sse: np.ndarray
    sst: np.ndarray
    penalty: np.ndarray
    delay: np.ndarray
    inner: np.ndarray
    row_piece: np.ndarray
    observed: np.ndarray | None = None
    predicted: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """A number per target. NaN is undefined.

    Attributes
    ----------
    r : (n_targets,) mean over pieces of the correlation in each
    r2 : (n_targets,) 1 − ΣSSE/ΣSST over pieces; below 0 is worse than the training mean
    runs : (n_runs,)
    r_by_run, r2_by_run : (n_runs, n_targets)
    """

    r: np.ndarray
    r2: np.ndarray
    runs: np.ndarray
    r_by_run: np.ndarray
    r2_by_run: np.ndarray


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the features of some training rows have taught, for every row.

    Attributes
    ----------
    axes : of the training rows
    projected : (n_rows, n_axes) all rows on those axes
    reader : (n_axes + 1 + n_confounds, n_rows), zero outside the training rows: times responses it gives their
        weights on the axes, then their confound coefficients. (The axes are orthogonal to mean and confounds, so
        responses need not be cleaned first.)
    """

    axes: Axes
    projected: np.ndarray
    reader: np.ndarray

    def read(self, y: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Give weights on the axes and confound coefficients of responses: (n_axes, V), (1 + n_confounds, V).

        With `rows`, those of responses of which row rows[i] stands where row i is: ``y[argsort(rows)]``.
        """
        reader = self.reader if rows is None else self.reader[:, rows]
        both = reader.astype(y.dtype) @ y
        return both[: len(self.axes.s)], both[len(self.axes.s) :]


def fit(
    design: Design,
    space: str,
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep: bool = False,
) -> Encoding:
    """Fit one feature space to every target, and predict every run from the others.

    In each outer fold, from its training rows alone: features are scaled, confounds regressed out of features
    and responses, principal components taken, and a penalty chosen per target by inner folds (in each of
    which all of that is learnt anew); then the held-out rows are predicted and scored.

    Parameters
    ----------
    design : rows of one subject
    space : a key of ``design.X``
    protocol : the choices
    delays : (n_folds, n_targets) or (n_folds, 1) from `choose_delays`; None uses the design's only delay
    keep : keep predictions and what they predict

    Returns
    -------
    Encoding; a target that is NaN or constant scores NaN and does not touch the others
    """
    folds = outer_folds(design.run, design.scans, protocol)
    n_targets = design.space.n_targets
    delays = _checked_delays(design, delays, len(folds))
    labels, names = _pieces(design.run, folds)
    planner = _Planner(design, space, protocol, folds)
    shape = (len(names), n_targets)
    r, sse, sst = (np.full(shape, np.nan) for _ in range(3))
    penalty, inner = (np.full((len(folds), n_targets), np.nan) for _ in range(2))
    observed = np.full((len(design.run), n_targets), np.nan, dtype=np.float32) if keep else None
    predicted = observed.copy() if observed is not None else None
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    for k, fold in enumerate(folds):
        inside, plan = planner.plans_of(fold)
        alphas = penalties(plan.axes, grid, protocol.relative)
        rows_of = {
            piece: np.flatnonzero(labels[fold.test] == piece)
            for piece in dict.fromkeys(labels[fold.test].tolist())
        }
        for targets, y in _chunks_of_responses(design, delays[k]):
            curve = planner.inner_scores(inside, y)
            best = _best(curve)
            penalty[k, targets] = grid[best]
            inner[k, targets] = np.take_along_axis(curve, best[None], axis=0)[0]
            weight, coef = plan.read(y)
            test = without_confounds(planner.confounds[fold.test], coef, y[fold.test])
            p = predict(plan.axes, weight, plan.projected[fold.test], alphas[best])
            for piece, rows in rows_of.items():
                i = names.index(piece)
                flat = np.isnan(pearson(y[fold.test][rows], y[fold.test][rows]))
                e, t = squared_errors(test[rows], p[rows], np.zeros(len(targets), dtype=test.dtype))
                for out, value in ((r, pearson(test[rows], p[rows])), (sse, e), (sst, t)):
                    out[i, targets] = np.where(flat, np.nan, value)
            if observed is not None and predicted is not None:
                observed[np.ix_(fold.test, targets)] = test
                predicted[np.ix_(fold.test, targets)] = p
    piece_run = np.array([str(design.run[labels == name][0]) for name in names])
    return Encoding(
        space,
        design.subject,
        np.array(names),
        piece_run,
        r,
        sse,
        sst,
        penalty,
        delays,
        inner,
        labels,
        observed,
        predicted,
    )


def null_scores(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    share: Mapping[str, np.ndarray],
    pool: Executor | None = None,
) -> np.ndarray:
    """Score what chance gives: every run's responses shifted circularly, training rows included, and refitted.

    Shifting held-out predictions alone is not enough when runs take turns: the weights that predict run k come
    from run j and the other way round, so the scores of two runs share a term, their mean varies more than that
    of independent runs (by √2 in standard deviation when nothing is there), and too many targets would be
    found. Refitting on the shifted responses carries that into the null.

    Parameters
    ----------
    spaces : (n_folds,) the feature space of each outer fold
    encoding : its penalties and delays are used again
    share : run → (n_nulls,) shift as a share of the run's rows
    pool : works on several folds at once

    Returns
    -------
    (n_nulls, n_targets) float32, mean r over pieces
    """
    folds = outer_folds(design.run, design.scans, protocol)
    labels, names = _pieces(design.run, folds)
    moved = _shifted_rows(design.run, share)
    grid = np.sort(np.asarray(protocol.penalties))[::-1]

    def one_fold(k: int) -> np.ndarray:
        fold = folds[k]
        planner = _Planner(design, spaces[k], protocol, [fold])
        plan = planner.plan(fold.train)
        # the largest penalty stands in for targets without one, which are not defined anyway
        position = np.searchsorted(-grid, -np.nan_to_num(encoding.penalty[k], nan=grid[0]))
        shrink = plan.axes.s / (plan.axes.s**2 + penalties(plan.axes, grid, protocol.relative)[:, None])
        pieces = [fold.test[labels[fold.test] == name] for name in dict.fromkeys(labels[fold.test].tolist())]
        total = np.zeros((len(moved), design.space.n_targets), dtype=np.float32)
        for targets, y in _chunks_of_responses(design, encoding.delay[k]):
            factor = shrink[position[targets]].T.astype(y.dtype)
            for b, rows in enumerate(moved):
                # turning the responses one way is turning everything that reads them the other way
                back = np.argsort(rows)
                weight, coef = plan.read(y, back)
                weight *= factor
                for test in pieces:
                    total[b, targets] += _turned_correlation(planner, plan, weight, coef, y, test, back[test])
        return total / np.float32(len(names))

    numbers = range(len(folds))
    parts = pool.map(one_fold, numbers) if pool else map(one_fold, numbers)
    return np.asarray(sum(parts), dtype=np.float32)


def _turned_correlation(
    planner: _Planner,
    plan: _Plan,
    weight: np.ndarray,
    coef: np.ndarray,
    y: np.ndarray,
    test: np.ndarray,
    back: np.ndarray,
) -> np.ndarray:
    """Correlate responses of a held-out piece with what the rows `back` predict for them."""
    h = plan.projected[back]
    p = (h - h.mean(axis=0)).astype(y.dtype) @ weight
    held = without_confounds(planner.confounds[back], coef, y[test])
    held -= held.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: np.ndarray = np.einsum("ij,ij->j", p, held) / np.sqrt(
            np.einsum("ij,ij->j", p, p) * np.einsum("ij,ij->j", held, held)
        )
    return r


def _shifted_rows(run: np.ndarray, share: Mapping[str, np.ndarray]) -> np.ndarray:
    """Turn shifts into row numbers: (n_nulls, n_rows), each run turned on itself."""
    n_nulls = len(next(iter(share.values())))
    rows = np.empty((n_nulls, len(run)), dtype=np.intp)
    for part in run_slices(run):
        n = part.stop - part.start
        shift = np.clip(np.round(share[str(run[part.start])] * n).astype(int), min(1, n - 1), n - 1)
        rows[:, part] = part.start + (np.arange(n) + shift[:, None]) % n
    return rows


def choose_delays(
    design: Design, probes: Sequence[str], protocol: Protocol, pool: Executor | None = None
) -> np.ndarray:
    """Choose a delay in each outer fold, from its training rows alone, by the inner scores of some probes.

    The choice is shared by all models and layers, so that it favours none: give probes from every model. With
    ``delay_by="fold"`` each delay is scored by the mean over the best tenth of targets (their best penalty).

    Parameters
    ----------
    probes : feature spaces; their scores are averaged
    pool : works on several probes at once

    Returns
    -------
    (n_folds, n_targets), or (n_folds, 1) when one delay serves all targets; seconds
    """
    folds = outer_folds(design.run, design.scans, protocol)
    candidates = np.array(design.delays)
    if len(candidates) == 1:
        return np.full((len(folds), 1), candidates[0])

    def one_probe(space: str) -> np.ndarray:
        score = np.full((len(candidates), len(folds), design.space.n_targets), np.nan)
        planner = _Planner(design, space, protocol, folds)
        for k, fold in enumerate(folds):
            inside, _ = planner.plans_of(fold)
            for i, delay in enumerate(candidates):
                for targets, y in _chunks_of_responses(design, np.full(score.shape[2], delay)):
                    curve = planner.inner_scores(inside, y)
                    score[i, k, targets] = np.take_along_axis(curve, _best(curve)[None], axis=0)[0]
        return score

    score = np.asarray(sum(pool.map(one_probe, probes) if pool else map(one_probe, probes)))
    if protocol.delay_by == "target":
        best = np.argmax(np.nan_to_num(score, nan=-np.inf), axis=0)
    else:
        best = np.argmax([[_top(one) for one in of_delay] for of_delay in score], axis=0)[:, None]
    chosen: np.ndarray = candidates[best]
    return chosen


def choose_layers(encodings: Sequence[Encoding]) -> np.ndarray:
    """Choose a layer in each outer fold from inner scores alone, so that its held-out score is no maximum.

    Layers are compared on the tenth of targets that all layers together predict best in the training rows.

    Returns
    -------
    (n_folds,) positions in `encodings`
    """
    inner = np.stack([e.inner for e in encodings])  # (n_layers, n_folds, n_targets)
    chosen = np.zeros(inner.shape[1], dtype=int)
    for k in range(inner.shape[1]):
        together = inner[:, k].mean(axis=0)
        top = np.argsort(-np.nan_to_num(together, nan=-np.inf), kind="stable")[: _tenth(together)]
        chosen[k] = np.argmax(np.nan_to_num(inner[:, k][:, top].mean(axis=1), nan=-np.inf))
    return chosen


def assemble_chosen(
    encodings: Sequence[Encoding], chosen: np.ndarray, design: Design, protocol: Protocol, name: str
) -> Encoding:
    """Put together the held-out pieces of the layer chosen in each fold.

    Parameters
    ----------
    encodings : one a layer; where they keep predictions, so does the result
    chosen : (n_folds,) from `choose_layers`
    """
    folds = outer_folds(design.run, design.scans, protocol)
    labels, names = _pieces(design.run, folds)
    fold_of = {piece: k for k, fold in enumerate(folds) for piece in labels[fold.test].tolist()}
    of_piece = [int(chosen[fold_of[piece]]) for piece in names]
    first = encodings[0]

    def by_piece(field: str) -> np.ndarray:
        return np.stack([getattr(encodings[k], field)[i] for i, k in enumerate(of_piece)])

    def by_fold(field: str) -> np.ndarray:
        return np.stack([getattr(encodings[int(k)], field)[i] for i, k in enumerate(chosen)])

    def by_row(field: str) -> np.ndarray | None:
        if any(getattr(encodings[k], field) is None for k in set(of_piece)):
            return None
        out = np.full((len(labels), first.r.shape[1]), np.nan, dtype=np.float32)
        for k, fold in zip(chosen, folds, strict=True):
            out[fold.test] = getattr(encodings[int(k)], field)[fold.test]
        return out

    return Encoding(
        name, first.subject, first.pieces, first.piece_run, by_piece("r"), by_piece("sse"), by_piece("sst"),
        by_fold("penalty"), by_fold("delay"), by_fold("inner"), labels, by_row("observed"), by_row("predicted"),
    )  # fmt: skip


def score(encoding: Encoding) -> Scores:
    """Turn an encoding into scores: r averaged over held-out pieces, R² pooled over them."""
    runs = np.array(list(dict.fromkeys(encoding.piece_run.tolist())))
    by_run = [_pooled(encoding, encoding.piece_run == run) for run in runs]
    r, r2 = _pooled(encoding, np.ones(len(encoding.pieces), dtype=bool))
    return Scores(r, r2, runs, np.stack([a for a, _ in by_run]), np.stack([b for _, b in by_run]))


def _pooled(e: Encoding, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average r over the pieces where it is defined, and pool R²; a target defined in none is NaN."""
    r = e.r[pieces]
    count = np.isfinite(r).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, np.nansum(r, axis=0) / count, np.nan)
        known = np.isfinite(e.sst[pieces]).any(axis=0)
        r2 = np.where(
            known, 1.0 - np.nansum(e.sse[pieces], axis=0) / np.nansum(e.sst[pieces], axis=0), np.nan
        )
    return mean, r2


class _Planner:
    """Prepares features for training sets, keeping each until its last use.

    With whole runs left out inside and outside, the rows without runs j and k are a training set of both
    outer folds, so half of the preparations are shared.
    """

    def __init__(self, design: Design, space: str, protocol: Protocol, folds: Sequence[Fold]) -> None:
        x = np.asarray(design.X[space], dtype=np.float64)
        if not np.isfinite(x).all():
            raise FitError(f"'{space}' has values that are not finite.")
        if protocol.standardise == "run":
            x = np.concatenate([learn_scale(x[rows]).apply(x[rows]) for rows in run_slices(design.run)])
        self.x, self.protocol = x, protocol
        self.confounds = _confounds(design, space, protocol)
        self.inner = {
            f.train.tobytes(): inner_folds(f.train, design.run, design.scans, protocol) for f in folds
        }
        self.left = Counter(
            f.train.tobytes() for fold in folds for f in (*self.inner[fold.train.tobytes()], fold)
        )
        self.kept: dict[bytes, _Plan] = {}

    def plans_of(self, fold: Fold) -> tuple[list[tuple[Fold, _Plan]], _Plan]:
        """Prepare one outer fold: its inner folds with a plan each, and the plan of all its training rows."""
        inside = [(f, self.plan(f.train)) for f in self.inner[fold.train.tobytes()]]
        return inside, self.plan(fold.train)

    def plan(self, train: np.ndarray) -> _Plan:
        """Prepare one training set, or find it prepared."""
        key = train.tobytes()
        self.left[key] -= 1
        plan = self.kept.get(key) or self._prepare(train)
        if self.left[key] > 0:
            self.kept[key] = plan
        else:
            self.kept.pop(key, None)
        return plan

    def _prepare(self, train: np.ndarray) -> _Plan:
        x = self.x
        if self.protocol.standardise == "training":
            x = learn_scale(x[train]).apply(x)
        confounds = confound_reader(self.confounds[train])
        x = without_confounds(self.confounds, confounds @ x[train], x)
        axes = principal_axes(x[train], self.protocol.pca)
        reader = np.zeros((len(axes.s) + len(confounds), len(x)))
        reader[:, train] = np.vstack([axes.u.T, confounds])
        return _Plan(axes, x @ axes.v, reader)

    def inner_scores(self, inside: Sequence[tuple[Fold, _Plan]], y: np.ndarray) -> np.ndarray:
        """Score every penalty inside the training rows: (n_penalties, n_targets), largest penalty first."""
        grid = np.asarray(self.protocol.penalties)
        total, count = np.zeros((len(grid), y.shape[1])), np.zeros((len(grid), y.shape[1]))
        for fold, plan in inside:
            if len(plan.axes.s) == 0:
                continue
            weight, coef = plan.read(y)
            held = without_confounds(self.confounds[fold.test], coef, y[fold.test])
            alphas = penalties(plan.axes, grid, self.protocol.relative)
            part = validate(
                plan.axes, weight, plan.projected[fold.test], held, alphas, self.protocol.choose_by
            )
            known = np.isfinite(part)
            total += np.where(known, part, 0.0)
            count += known
        with np.errstate(invalid="ignore", divide="ignore"):
            scores: np.ndarray = np.where(count > 0, total / count, np.nan)
        return scores


def _confounds(design: Design, space: str, protocol: Protocol) -> np.ndarray:
    """Gather the confound columns; a space is not cleaned of itself."""
    missing = [name for name in protocol.confounds if name not in design.X]
    if missing:
        raise FitError(
            f"The confound '{missing[0]}' is not among the feature spaces: {', '.join(map(str, design.X))}."
        )
    columns = [np.asarray(design.X[name], dtype=np.float64) for name in protocol.confounds if name != space]
    return np.hstack(columns) if columns else np.empty((len(design.run), 0))


def _chunks_of_responses(design: Design, delay: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give defined targets a chunk at a time, centred: (target numbers, (n_rows, n_chunk) responses at their delays)."""
    sources = {float(d): design.Y[float(d)] for d in np.unique(delay)}
    first = next(iter(sources.values()))
    for chunk in chunks(len(delay)):
        if len(sources) == 1:
            y = np.array(first[:, chunk])
        else:
            y = np.empty((len(design.run), chunk.stop - chunk.start), dtype=first.dtype)
            for d, source in sources.items():
                here = delay[chunk] == d
                y[:, here] = source[:, chunk][:, here]
        defined = np.isfinite(y).all(axis=0)
        if not defined.any():
            continue
        y = y[:, defined]
        # centring over all rows changes nothing (every training set has its own intercept) but saves digits
        yield np.flatnonzero(defined) + chunk.start, y - y.mean(axis=0, dtype=np.float64).astype(y.dtype)


def _checked_delays(design: Design, delays: np.ndarray | None, n_folds: int) -> np.ndarray:
    if delays is None:
        if len(design.delays) > 1:
            raise FitError(
                f"The design has {len(design.delays)} candidate delays; choose among them with choose_delays."
            )
        delays = np.full((n_folds, 1), design.delays[0])
    return np.broadcast_to(delays, (n_folds, design.space.n_targets))


def _pieces(run: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, list[str]]:
    """Name the held-out stretch of every row: its run, or a block of it where a run is cut."""
    labels = np.full(len(run), "", dtype=object)
    cut = Counter(name for fold in folds for name in set(run[fold.test].tolist()))
    for k, fold in enumerate(folds):
        for row in fold.test.tolist():
            labels[row] = f"{run[row]}/block-{k}" if cut[run[row]] > 1 else str(run[row])
    return labels, [name for name in dict.fromkeys(labels.tolist()) if name]


def _best(curve: np.ndarray) -> np.ndarray:
    """Pick the best penalty of each target; ties, and targets without a score, take the largest."""
    best: np.ndarray = np.argmax(np.nan_to_num(curve, nan=-np.inf), axis=0)
    return best


def _tenth(values: np.ndarray) -> int:
    """Count a tenth of the defined targets, at least one."""
    return max(1, int(np.isfinite(values).sum()) // 10)


def _top(values: np.ndarray) -> float:
    """Average the best tenth of the defined targets."""
    defined = values[np.isfinite(values)]
    return float(np.sort(defined)[-_tenth(values) :].mean()) if len(defined) else -np.inf


def region_means(values: np.ndarray, regions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Average a map over each region's defined targets; "brain" is all of them.

    Parameters
    ----------
    values : (n_targets,)
    regions : name → (n_targets,) bool
    """
    out = {}
    for name, inside in {"brain": np.ones(len(values), dtype=bool), **regions}.items():
        part = values[inside]
        out[name] = float(np.nanmean(part)) if np.isfinite(part).any() else float("nan")
    return out
