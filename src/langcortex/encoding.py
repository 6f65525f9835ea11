"""Cross-validated ridge encoding: everything learnt on training rows, everything scored on runs left out."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from langcortex.design import Design, Lazy
from langcortex.engine import (
    Folded,
    Nest,
    Plan,
    Prepare,
    chunk_size,
    cut,
    key_of,
    make_plan,
    sum_up,
)
from langcortex.errors import FitError
from langcortex.metrics import centred
from langcortex.protocol import Fold, Protocol, inner_folds, outer_folds
from langcortex.ridge import (
    CHUNK,
    chunks,
    confound_reader,
    kernel_axes,
    learn_scale,
    principal_axes,
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


def fit(
    design: Design,
    space: str,
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep: bool = False,
    plans: Plans | None = None,
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
    plans : where preparations of features are found again, for the next subject who shares the rows

    Returns
    -------
    Encoding; a target that is NaN or constant scores NaN and does not touch the others
    """
    return fit_layers(design, [space], protocol, delays, keep, plans)[0]


def fit_layers(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep: bool = False,
    plans: Plans | None = None,
) -> list[Encoding]:
    """Fit several feature spaces, each by itself, to the same responses: `fit` for each, with less work.

    What depends on responses alone (their means, confounds and held-out variances) is computed once for all.
    """
    if len(spaces) > 1 and set(spaces) & set(protocol.confounds):
        # a space is not cleaned of itself, so it shares nothing with the others
        return [fit(design, space, protocol, delays, keep, plans) for space in spaces]
    folds = outer_folds(design.run, design.scans, protocol)
    delays = _checked_delays(design, delays, len(folds))
    confounds = confounds_of(design, spaces[0], protocol)
    drafts = [_Draft(design, space, folds, delays, keep) for space in spaces]
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    for numbers in _folds_of_one_delay(delays):
        nests = [nest(design, folds[k], drafts[0].pieces_of(k), protocol) for k in numbers]
        sets = cut(nests, confounds)
        prepared = [plan_of(design, space, nests, protocol, confounds, plans) for space in spaces]
        for targets, y in chunks_of_responses(design, delays[numbers[0]], size=chunk_size(prepared)):
            folded = Folded(sum_up(y, sets))
            for draft, plan in zip(drafts, prepared, strict=True):
                reader = folded.read(plan)
                for i, k in enumerate(numbers):
                    curve = reader.choose(i)
                    best = _best(curve)
                    draft.enter(k, targets, curve, grid[best], reader.test(i, best))
                    if keep:
                        draft.keep(k, targets, *reader.predict(i, best, folds[k].test))
    return [draft.encoding() for draft in drafts]


def nest(
    design: Design,
    fold: Fold,
    pieces: Mapping[str, np.ndarray],
    protocol: Protocol,
    inner: bool = True,
) -> Nest:
    """Describe an outer fold to the engine: its pieces and its inner folds, as rows."""
    inside = inner_folds(fold.train, design.run, design.scans, protocol) if inner else []
    return Nest(
        fold.train,
        tuple(fold.test[rows] for rows in pieces.values()),
        tuple((f.train, f.test) for f in inside),
    )


def pieces_of(design: Design, folds: Sequence[Fold], k: int) -> dict[str, np.ndarray]:
    """Give the held-out pieces of fold k: label → positions among its held-out rows."""
    labels = _pieces(design.run, folds)[0][folds[k].test]
    return {piece: np.flatnonzero(labels == piece) for piece in dict.fromkeys(labels.tolist())}


def plan_of(
    design: Design,
    space: str,
    nests: Sequence[Nest],
    protocol: Protocol,
    confounds: np.ndarray,
    plans: Plans | None = None,
) -> Plan:
    """Prepare one feature space for some outer folds; nothing of the responses takes part.

    Parameters
    ----------
    plans : where a plan that was made for another subject is found again
    """
    x = np.asarray(design.X[space])
    dtype = np.float32 if isinstance(design.Y, Lazy) else next(iter(design.Y.values())).dtype.type
    p = protocol
    choices = (p.standardise, p.pca, p.penalties, p.relative, p.choose_by, p.nested_axes)

    def make() -> Plan:
        prepare = _preparer(x, space, design.run, protocol, confounds)
        return make_plan(
            space, nests, prepare, confounds, np.asarray(p.penalties), p.relative, p.choose_by, p.nested_axes, dtype
        )  # fmt: skip

    return make() if plans is None else plans.get(_key(x, confounds, nests, (*choices, dtype.__name__)), make)


class Plans:
    """Plans in memory: what features, confounds and folds decide is found again for the next subject, delay or null.

    Parameters
    ----------
    max_bytes : the oldest plans are given up when all take more
    """

    def __init__(self, max_bytes: float = 1e9) -> None:
        self.max_bytes = max_bytes
        self.kept: dict[str, Plan] = {}
        self.lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Plan]) -> Plan:
        """Find a plan, or make it and keep it."""
        with self.lock:
            found = self.kept.pop(key, None)
            if found is not None:
                self.kept[key] = found  # the last to be given up
                return found
        made = make()
        if made.n_bytes <= self.max_bytes:
            with self.lock:
                self.kept[key] = made
                while sum(plan.n_bytes for plan in self.kept.values()) > self.max_bytes:
                    del self.kept[next(iter(self.kept))]
        return made


def _key(x: np.ndarray, confounds: np.ndarray, nests: Sequence[Nest], choices: object) -> str:
    """Name a plan by everything that decides it."""
    state = hashlib.blake2b(digest_size=16)
    for array in (x, confounds):
        state.update(f"{array.shape}{array.dtype}".encode())
        state.update(np.ascontiguousarray(array).data)
    for one in nests:
        for rows in (one.train, *one.pieces, *(r for pair in one.inner for r in pair)):
            state.update(len(rows).to_bytes(8, "little"))
            state.update(key_of(rows))
        state.update(b"|")
    state.update(repr(choices).encode())
    return state.hexdigest()


def _folds_of_one_delay(delays: np.ndarray) -> list[list[int]]:
    """Group outer folds whose responses are the same: those with the same delay for every target."""
    groups: dict[bytes, list[int]] = {}
    for k, row in enumerate(delays):
        groups.setdefault(np.ascontiguousarray(row).tobytes(), []).append(k)
    return list(groups.values())


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
        scored: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    ) -> None:
        """Enter one chunk of targets of fold k: inner scores, penalties, and r, SSE and SST of each held-out piece."""
        self.penalty[k, targets] = penalty
        self.inner[k, targets] = np.nan_to_num(curve, nan=-np.inf).max(axis=0)
        for piece, values in zip(self.pieces_of(k), scored, strict=True):
            i = self.names.index(piece)
            for out, value in zip((self.r, self.sse, self.sst), values, strict=True):
                out[i, targets] = value

    def keep(self, k: int, targets: np.ndarray, observed: np.ndarray, predicted: np.ndarray) -> None:
        """Keep the held-out responses of fold k and their predictions."""
        for out, value in zip(self.kept, (observed, predicted), strict=True):
            out[np.ix_(self.folds[k].test, targets)] = value

    def pieces_of(self, k: int) -> dict[str, np.ndarray]:
        """Give the held-out pieces of fold k: label → positions among its held-out rows."""
        return pieces_of(self.design, self.folds, k)

    def encoding(self) -> Encoding:
        """Give what was entered."""
        self.inner[np.isneginf(self.inner)] = np.nan
        piece_run = np.array([str(self.design.run[self.labels == name][0]) for name in self.names])
        return Encoding(
            self.space, self.design.subject, np.array(self.names), piece_run, self.r, self.sse, self.sst,
            self.penalty, self.delays, self.inner, self.labels, *(self.kept or (None, None)),
        )  # fmt: skip


def choose_delays(
    design: Design,
    probes: Sequence[str],
    protocol: Protocol,
    pool: Executor | None = None,
    plans: Plans | None = None,
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
        confounds = confounds_of(design, space, protocol)
        nests = [nest(design, fold, {}, protocol) for fold in folds]
        sets = cut(nests, confounds)
        plan = plan_of(design, space, nests, protocol, confounds, plans)
        for i, delay in enumerate(candidates):
            every = np.full(score.shape[2], delay)
            for targets, y in chunks_of_responses(design, every, subset, chunk_size([plan])):
                reader = Folded(sum_up(y, sets)).read(plan)
                for k in range(len(folds)):
                    curve = reader.choose(k)
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


PROBED = 4096  # targets that are enough to choose one delay for all


def _preparer(
    x: np.ndarray, space: str, run: np.ndarray, protocol: Protocol, confounds: np.ndarray
) -> Prepare:
    """Make the function that prepares features from training rows: scale, take confounds off, find axes."""
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise FitError(f"'{space}' has values that are not finite.")
    if protocol.standardise == "run":
        x = np.concatenate([learn_scale(x[rows]).apply(x[rows]) for rows in run_slices(run)])

    if protocol.standardise != "training" and x.shape[1] >= len(x) // 2:
        # scaled alike in every training set: products of rows serve all
        around = x - x.mean(axis=0)
        gram, c1 = around @ around.T, np.column_stack([np.ones(len(x)), confounds])
        return lambda train: kernel_axes(gram, c1, train, protocol.pca)

    def prepare(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = learn_scale(x[train]).apply(x) if protocol.standardise == "training" else x
        power = float(np.square(z[train]).sum())
        z = without_confounds(confounds, confound_reader(confounds[train]) @ z[train], z)
        axes = principal_axes(z[train], protocol.pca, power)
        return axes.s, z @ axes.v

    return prepare


def confounds_of(design: Design, space: str, protocol: Protocol) -> np.ndarray:
    """Gather the confound columns; a space is not cleaned of itself."""
    missing = [name for name in protocol.confounds if name not in design.X]
    if missing:
        raise FitError(
            f"The confound '{missing[0]}' is not among the feature spaces: {', '.join(map(str, design.X))}."
        )
    columns = [np.asarray(design.X[name], dtype=np.float64) for name in protocol.confounds if name != space]
    if not columns:
        return np.empty((len(design.run), 0))
    raw = np.hstack(columns)
    # their units change nothing, and in float32 much
    return learn_scale(raw).apply(raw)


def _every_nth(n: int, most: int) -> np.ndarray | None:
    """Choose at most `most` of n targets at even distances; None for all."""
    return None if n <= most else np.unique(np.linspace(0, n - 1, most).round().astype(int))


def chunks_of_responses(
    design: Design, delay: np.ndarray, subset: np.ndarray | None = None, size: int = CHUNK
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give defined targets a chunk at a time, centred: (target numbers, (n_rows, n_chunk) responses at their delays)."""
    sources = {float(d): design.Y[float(d)] for d in np.unique(delay)}
    if subset is not None:
        sources = {d: y[:, subset] for d, y in sources.items()}
        for targets, y in _chunks_of(sources, delay[subset], size):
            yield subset[targets], y
        return
    yield from _chunks_of(sources, delay, size)


def _chunks_of(
    sources: Mapping[float, np.ndarray], delay: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for chunk in chunks(len(delay), size):
        targets, y = responses_in(sources, delay, chunk)
        if len(targets):
            yield targets, y


def responses_in(
    sources: Mapping[float, np.ndarray], delay: np.ndarray, chunk: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Give the defined targets of one chunk, and their responses at their delays, centred.

    Parameters
    ----------
    sources : delay → (n_rows, n_targets)
    delay : (n_targets,)
    """
    wanted = np.unique(delay[chunk])
    if len(wanted) == 1:
        y = np.array(sources[float(wanted[0])][:, chunk])
    else:
        first = next(iter(sources.values()))
        y = np.empty((len(first), chunk.stop - chunk.start), dtype=first.dtype)
        for d in wanted:
            here = delay[chunk] == d
            y[:, here] = sources[float(d)][:, chunk][:, here]
    defined = np.isfinite(y).all(axis=0)
    # centring over all rows changes nothing (every training set has its own intercept) but saves digits
    return np.flatnonzero(defined) + chunk.start, centred(y[:, defined])


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
