"""Cross-validated ridge encoding: everything learnt on training rows, everything scored on runs left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from langcortex.design import Design
from langcortex.errors import FitError
from langcortex.metrics import centred, pearson, squared_errors
from langcortex.protocol import Fold, Protocol, inner_folds, outer_folds
from langcortex.ridge import (
    Axes,
    Held,
    chunks,
    confound_reader,
    hold_out,
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
    reader : (n_axes, n_rows), zero outside the training rows: times responses it gives their weights on the
        axes. (The axes are orthogonal to mean and confounds, so responses need not be cleaned first.)
    """

    axes: Axes
    projected: np.ndarray
    reader: np.ndarray


def _split(stacked: np.ndarray, plans: Sequence[_Plan]) -> list[np.ndarray]:
    """Cut weights that were read by one product into each plan's own."""
    return np.split(stacked, np.cumsum([len(plan.axes.s) for plan in plans])[:-1])


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
    return fit_layers(design, [space], protocol, delays, keep)[0]


def fit_layers(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep: bool = False,
) -> list[Encoding]:
    """Fit several feature spaces, each by itself, to the same responses: `fit` for each, with less work.

    What depends on responses alone (their means, confounds and held-out variances) is computed once for all.
    """
    if len(spaces) > 1 and set(spaces) & set(protocol.confounds):
        # a space is not cleaned of itself, so it shares nothing with the others
        return [fit(design, space, protocol, delays, keep) for space in spaces]
    folds = outer_folds(design.run, design.scans, protocol)
    delays = _checked_delays(design, delays, len(folds))
    cleaner = _Cleaner(design, protocol, spaces[0])
    planners = [_Planner(design, space, protocol, folds, cleaner) for space in spaces]
    drafts = [_Draft(design, space, folds, delays, keep) for space in spaces]
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    for k, fold in enumerate(folds):
        inner = inner_folds(fold.train, design.run, design.scans, protocol)
        plans = [planner.plans_of([*inner, fold]) for planner in planners]
        readers = [np.vstack([plan.reader for plan in of_layer]) for of_layer in plans]
        pieces = drafts[0].pieces_of(k)
        for targets, y in _chunks_of_responses(design, delays[k]):
            held = [hold_out(cleaner.clean(f, y), protocol.choose_by) for f in inner]
            test = cleaner.clean(fold, y)
            # what is constant as it was recorded is not made variable by the confounds taken off it
            flat = {
                piece: np.isnan(pearson(y[fold.test[rows]], y[fold.test[rows]]))
                for piece, rows in pieces.items()
            }
            for draft, (*inside, whole), reader in zip(drafts, plans, readers, strict=True):
                *weights, weight = _split(reader.astype(y.dtype) @ y, [*inside, whole])
                curve = _inner_scores(inner, inside, weights, held, protocol)
                best = _best(curve)
                alphas = penalties(whole.axes, grid, protocol.relative)
                p = predict(whole.axes, weight, whole.projected[fold.test], alphas[best])
                draft.enter(k, targets, curve, grid[best], test, p, pieces, flat)
    return [draft.encoding() for draft in drafts]


class _Draft:
    """An encoding that is being filled in, fold by fold and chunk by chunk."""

    def __init__(
        self, design: Design, space: str, folds: Sequence[Fold], delays: np.ndarray, keep: bool
    ) -> None:
        n_targets = design.space.n_targets
        self.design, self.space, self.folds, self.delays = design, space, folds, delays
        self.labels, self.names = _pieces(design.run, folds)
        self.r, self.sse, self.sst = (np.full((len(self.names), n_targets), np.nan) for _ in range(3))
        self.penalty, self.inner = (np.full((len(folds), n_targets), np.nan) for _ in range(2))
        rows = (len(design.run), n_targets)
        self.kept = [np.full(rows, np.nan, dtype=np.float32) for _ in range(2)] if keep else []

    def enter(
        self,
        k: int,
        targets: np.ndarray,
        curve: np.ndarray,
        penalty: np.ndarray,
        test: np.ndarray,
        p: np.ndarray,
        pieces: Mapping[str, np.ndarray],
        flat: Mapping[str, np.ndarray],
    ) -> None:
        """Enter one chunk of targets of fold k: inner scores, penalties, held-out responses and predictions.

        `flat` says of each held-out piece which targets are constant in it, as they were recorded.
        """
        self.penalty[k, targets] = penalty
        self.inner[k, targets] = np.nan_to_num(curve, nan=-np.inf).max(axis=0)
        rows = self.folds[k].test
        for piece, here in pieces.items():
            i = self.names.index(piece)
            e, t = squared_errors(test[here], p[here], np.zeros(len(targets), dtype=test.dtype))
            for out, value in ((self.r, pearson(test[here], p[here])), (self.sse, e), (self.sst, t)):
                out[i, targets] = np.where(flat[piece], np.nan, value)
        for out, value in zip(self.kept, (test, p), strict=False):
            out[np.ix_(rows, targets)] = value

    def pieces_of(self, k: int) -> dict[str, np.ndarray]:
        """Give the held-out pieces of fold k: label → positions among its held-out rows."""
        labels = self.labels[self.folds[k].test]
        return {piece: np.flatnonzero(labels == piece) for piece in dict.fromkeys(labels.tolist())}

    def encoding(self) -> Encoding:
        """Give what was entered."""
        self.inner[np.isneginf(self.inner)] = np.nan
        piece_run = np.array([str(self.design.run[self.labels == name][0]) for name in self.names])
        return Encoding(
            self.space, self.design.subject, np.array(self.names), piece_run, self.r, self.sse, self.sst,
            self.penalty, self.delays, self.inner, self.labels, *(self.kept or (None, None)),
        )  # fmt: skip


def _inner_scores(
    inner: Sequence[Fold],
    plans: Sequence[_Plan],
    weights: Sequence[np.ndarray],
    held: Sequence[Held],
    protocol: Protocol,
) -> np.ndarray:
    """Score every penalty inside the training rows: (n_penalties, n_targets), largest penalty first."""
    grid = np.asarray(protocol.penalties)
    n_targets, dtype = held[0].y.shape[1], held[0].y.dtype
    total, count = np.zeros((len(grid), n_targets), dtype=dtype), np.zeros(n_targets, dtype=dtype)
    partial = False
    for fold, plan, weight, out in zip(inner, plans, weights, held, strict=True):
        if len(plan.axes.s) == 0:
            continue
        alphas = penalties(plan.axes, grid, protocol.relative)
        part = validate(plan.axes, weight, plan.projected[fold.test], out, alphas)
        known = np.isfinite(part[-1])
        if known.all():
            total += part
            count += 1
        else:
            partial = True
            total += np.where(np.isfinite(part), part, 0.0)
            count += known
    if not partial:
        return total / max(1, count[0]) if len(count) and count[0] > 0 else np.full_like(total, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores: np.ndarray = np.where(count > 0, total / count, np.nan)
    return scores


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
    labels, _ = _pieces(design.run, folds)
    moved = _shifted_rows(design.run, share)
    grid = np.sort(np.asarray(protocol.penalties))[::-1]

    def one_fold(k: int) -> tuple[np.ndarray, np.ndarray]:
        fold = folds[k]
        cleaner = _Cleaner(design, protocol, spaces[k])
        plan = _Planner(design, spaces[k], protocol, [fold], cleaner).plans_of([fold])[0]
        n_axes = len(plan.axes.s)
        reader = np.vstack([plan.reader, np.zeros((1 + cleaner.confounds.shape[1], len(design.run)))])
        reader[n_axes:, fold.train] = cleaner.reader(fold.train)
        # the largest penalty stands in for targets without one, which are not defined anyway
        position = np.searchsorted(-grid, -np.nan_to_num(encoding.penalty[k], nan=grid[0]))
        shrink = plan.axes.s / (plan.axes.s**2 + penalties(plan.axes, grid, protocol.relative)[:, None])
        pieces = [fold.test[labels[fold.test] == name] for name in dict.fromkeys(labels[fold.test].tolist())]
        total = np.zeros((len(moved), design.space.n_targets), dtype=np.float32)
        count = np.zeros(design.space.n_targets, dtype=np.float32)
        for targets, y in _chunks_of_responses(design, encoding.delay[k]):
            factor = shrink[position[targets]].T.astype(y.dtype)
            defined = [~np.isnan(pearson(y[test], y[test])) for test in pieces]
            count[targets] += np.sum(defined, axis=0)
            for group in chunks(len(moved), NULLS_AT_ONCE):
                # turning the responses one way is turning everything that reads them the other way
                backs = [np.argsort(rows) for rows in moved[group]]
                read = np.vstack([reader[:, back] for back in backs]).astype(y.dtype) @ y
                read = read.reshape(len(backs), len(reader), len(targets))
                for b, back, (weight, coef) in zip(
                    range(group.start, group.stop),
                    backs,
                    (np.split(one, [n_axes]) for one in read),
                    strict=True,
                ):
                    weight *= factor
                    for test, known in zip(pieces, defined, strict=True):
                        held = without_confounds(cleaner.confounds[back[test]], coef, y[test])
                        r = _correlation_with(plan.projected[back[test]], weight, held)
                        total[b, targets] += np.where(known, r, 0.0)
        return total, count

    numbers = range(len(folds))
    parts = list(pool.map(one_fold, numbers) if pool else map(one_fold, numbers))
    with np.errstate(invalid="ignore", divide="ignore"):
        scores: np.ndarray = np.sum([total for total, _ in parts], axis=0) / np.sum(
            [n for _, n in parts], axis=0
        )
    return scores


def _correlation_with(h: np.ndarray, weight: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Correlate held-out responses with the predictions h @ weight, column by column."""
    p = (h - h.mean(axis=0)).astype(weight.dtype) @ weight
    held = held - held.mean(axis=0)
    power = np.einsum("ij,ij->j", p, p) * np.einsum("ij,ij->j", held, held)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: np.ndarray = np.einsum("ij,ij->j", p, held) / np.sqrt(power)
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
    ``delay_by="fold"`` each delay is scored by the mean over the best tenth of targets (their best penalty), of
    every n-th target where there are more than 4,096.

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

    subset = _every_nth(design.space.n_targets, PROBED) if protocol.delay_by == "fold" else None

    def one_probe(space: str) -> np.ndarray:
        score = np.full((len(candidates), len(folds), design.space.n_targets), np.nan)
        cleaner = _Cleaner(design, protocol, space)
        planner = _Planner(design, space, protocol, folds, cleaner)
        for k, fold in enumerate(folds):
            inner = inner_folds(fold.train, design.run, design.scans, protocol)
            *inside, _ = planner.plans_of([*inner, fold])
            reader = np.vstack([plan.reader for plan in inside])
            for i, delay in enumerate(candidates):
                for targets, y in _chunks_of_responses(design, np.full(score.shape[2], delay), subset):
                    held = [hold_out(cleaner.clean(f, y), protocol.choose_by) for f in inner]
                    curve = _inner_scores(
                        inner, inside, _split(reader.astype(y.dtype) @ y, inside), held, protocol
                    )
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


NULLS_AT_ONCE = 8  # shifts read off responses by one matrix product
PROBED = 4096  # targets that are enough to choose one delay for all


class _Cleaner:
    """Takes off responses what training rows say about their mean and confounds, the same for every layer."""

    def __init__(self, design: Design, protocol: Protocol, space: str) -> None:
        self.confounds = _confounds(design, space, protocol)
        self.readers: dict[bytes, np.ndarray] = {}

    def reader(self, train: np.ndarray) -> np.ndarray:
        """Give the matrix that reads coefficients off the training rows: (1 + n_confounds, n_train)."""
        key = train.tobytes()
        if key not in self.readers:
            self.readers[key] = confound_reader(self.confounds[train])
        return self.readers[key]

    def clean(self, fold: Fold, y: np.ndarray) -> np.ndarray:
        """Give the held-out rows of `y` without what the training rows say."""
        coef = self.reader(fold.train).astype(y.dtype) @ y[fold.train]
        return without_confounds(self.confounds[fold.test], coef, y[fold.test])


class _Planner:
    """Prepares features for training sets, keeping each until its last use.

    With whole runs left out inside and outside, the rows without runs j and k are a training set of both
    outer folds, so half of the preparations are shared.
    """

    def __init__(
        self, design: Design, space: str, protocol: Protocol, folds: Sequence[Fold], cleaner: _Cleaner
    ) -> None:
        x = np.asarray(design.X[space], dtype=np.float64)
        if not np.isfinite(x).all():
            raise FitError(f"'{space}' has values that are not finite.")
        if protocol.standardise == "run":
            x = np.concatenate([learn_scale(x[rows]).apply(x[rows]) for rows in run_slices(design.run)])
        self.x, self.protocol, self.cleaner = x, protocol, cleaner
        inner = [f for fold in folds for f in inner_folds(fold.train, design.run, design.scans, protocol)]
        self.left = Counter(fold.train.tobytes() for fold in (*inner, *folds))
        self.kept: dict[bytes, _Plan] = {}

    def plans_of(self, folds: Sequence[Fold]) -> list[_Plan]:
        """Prepare the training rows of some folds, or find them prepared."""
        return [self._plan(fold.train) for fold in folds]

    def _plan(self, train: np.ndarray) -> _Plan:
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
        power = float(np.square(x[train]).sum())
        x = without_confounds(self.cleaner.confounds, self.cleaner.reader(train) @ x[train], x)
        axes = principal_axes(x[train], self.protocol.pca, power)
        reader = np.zeros((len(axes.s), len(x)))
        reader[:, train] = axes.u.T
        return _Plan(axes, x @ axes.v, reader)


def _confounds(design: Design, space: str, protocol: Protocol) -> np.ndarray:
    """Gather the confound columns; a space is not cleaned of itself."""
    missing = [name for name in protocol.confounds if name not in design.X]
    if missing:
        raise FitError(
            f"The confound '{missing[0]}' is not among the feature spaces: {', '.join(map(str, design.X))}."
        )
    columns = [np.asarray(design.X[name], dtype=np.float64) for name in protocol.confounds if name != space]
    return np.hstack(columns) if columns else np.empty((len(design.run), 0))


def _every_nth(n: int, most: int) -> np.ndarray | None:
    """Choose at most `most` of n targets at even distances; None for all."""
    return None if n <= most else np.unique(np.linspace(0, n - 1, most).round().astype(int))


def _chunks_of_responses(
    design: Design, delay: np.ndarray, subset: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give defined targets a chunk at a time, centred: (target numbers, (n_rows, n_chunk) responses at their delays)."""
    sources = {float(d): design.Y[float(d)] for d in np.unique(delay)}
    if subset is not None:
        sources = {d: y[:, subset] for d, y in sources.items()}
        for targets, y in _chunks_of(sources, delay[subset]):
            yield subset[targets], y
        return
    yield from _chunks_of(sources, delay)


def _chunks_of(
    sources: Mapping[float, np.ndarray], delay: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    first = next(iter(sources.values()))
    for chunk in chunks(len(delay)):
        if len(sources) == 1:
            y = np.array(first[:, chunk])
        else:
            y = np.empty((len(first), chunk.stop - chunk.start), dtype=first.dtype)
            for d, source in sources.items():
                here = delay[chunk] == d
                y[:, here] = source[:, chunk][:, here]
        defined = np.isfinite(y).all(axis=0)
        if not defined.any():
            continue
        y = y[:, defined]
        # centring over all rows changes nothing (every training set has its own intercept) but saves digits
        yield np.flatnonzero(defined) + chunk.start, centred(y)


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
