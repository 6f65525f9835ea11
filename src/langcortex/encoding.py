"""Cross-validated ridge encoding: everything learnt on training rows, everything scored on runs left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from langcortex.design import Design
from langcortex.engine import cut
from langcortex.folding import (
    checked_delays,
    chunks_of_responses,
    confounds_of,
    folds_of_one_delay,
    label_pieces,
    pieces_of,
)
from langcortex.how import USUAL, How
from langcortex.plans import Plans, nest, plan_of
from langcortex.protocol import Fold, Protocol, outer_folds
from langcortex.scoring import Folded

PROBED = 4096  # targets that are enough to choose one delay for all


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
    regime : how the engine scored predictions: by "pairs" of axes, "axes" or "kernel"s of rows
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
    regime: str = ""


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
    how: How = USUAL,
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
    how : where and by which regime; no score depends on it but for rounding

    Returns
    -------
    Encoding; a target that is NaN or constant scores NaN and does not touch the others
    """
    return fit_layers(design, [space], protocol, delays, keep, plans, how)[0]


def fit_layers(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep: bool = False,
    plans: Plans | None = None,
    how: How = USUAL,
) -> list[Encoding]:
    """Fit several feature spaces, each by itself, to the same responses: `fit` for each, with less work.

    What depends on responses alone (their means, confounds and held-out variances) is computed once for all.
    """
    if len(spaces) > 1 and set(spaces) & set(protocol.confounds):
        # a space is not cleaned of itself, so it shares nothing with the others
        return [fit(design, space, protocol, delays, keep, plans, how) for space in spaces]
    folds = outer_folds(design.run, design.scans, protocol)
    delays = checked_delays(design, delays, len(folds))
    confounds = confounds_of(design, spaces, protocol)
    drafts = [_Draft(design, space, folds, delays, keep) for space in spaces]
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    for numbers in folds_of_one_delay(delays):
        nests = [nest(design, folds[k], drafts[0].pieces_of(k).values(), protocol) for k in numbers]
        sets = cut(nests, confounds)
        prepared = [plan_of(design, s, nests, protocol, confounds, plans, how.regime) for s in spaces]
        for draft, plan in zip(drafts, prepared, strict=True):
            draft.regimes.add(plan.regime)
        for targets, y in chunks_of_responses(design, delays[numbers[0]], size=how.chunk(prepared)):
            folded = Folded.of(how.place(y), sets)
            for draft, plan in zip(drafts, prepared, strict=True):
                reader = folded.read(plan)
                for i, (k, one) in enumerate(zip(numbers, reader.folds(), strict=True)):
                    draft.enter(k, targets, one.inner, grid[one.best], one.tested)
                    if keep:
                        draft.keep(k, targets, *reader.predict(i, one.best, folds[k].test))
    return [draft.encoding() for draft in drafts]


class _Draft:
    """An encoding that is being filled in, fold by fold and chunk by chunk."""

    def __init__(
        self, design: Design, space: str, folds: Sequence[Fold], delays: np.ndarray, keep: bool
    ) -> None:
        n_targets = design.space.n_targets
        self.design, self.space, self.folds, self.delays = design, space, folds, delays
        self.labels, self.names = label_pieces(design.run, folds)
        self.r, self.sse, self.sst = (np.full((len(self.names), n_targets), np.nan) for _ in range(3))
        self.penalty, self.inner = (np.full((len(folds), n_targets), np.nan) for _ in range(2))
        rows = (len(design.run), n_targets)
        self.regimes: set[str] = set()
        self.kept = [np.full(rows, np.nan, dtype=np.float32) for _ in range(2)] if keep else []

    def enter(
        self,
        k: int,
        targets: np.ndarray,
        inner: np.ndarray,
        penalty: np.ndarray,
        scored: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    ) -> None:
        """Enter one chunk of targets of fold k: inner scores, penalties, and r, SSE and SST of each held-out piece."""
        self.penalty[k, targets] = penalty
        self.inner[k, targets] = inner
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
        return pieces_of(self.labels, self.folds[k])

    def encoding(self) -> Encoding:
        """Give what was entered."""
        self.inner[np.isneginf(self.inner)] = np.nan
        observed, predicted = self.kept or (None, None)
        piece_run = np.array([str(self.design.run[self.labels == name][0]) for name in self.names])
        return Encoding(
            self.space, self.design.subject, np.array(self.names), piece_run, self.r, self.sse, self.sst,
            self.penalty, self.delays, self.inner, self.labels, observed, predicted,
            ", ".join(sorted(self.regimes)),
        )  # fmt: skip


def choose_delays(
    design: Design,
    probes: Sequence[str],
    protocol: Protocol,
    pool: Executor | None = None,
    plans: Plans | None = None,
    how: How = USUAL,
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
        confounds = confounds_of(design, [space], protocol)
        nests = [nest(design, fold, (), protocol) for fold in folds]
        sets = cut(nests, confounds)
        plan = plan_of(design, space, nests, protocol, confounds, plans, how.regime)
        for i, delay in enumerate(candidates):
            every = np.full(score.shape[2], delay)
            for targets, y in chunks_of_responses(design, every, subset, how.chunk([plan])):
                reader = Folded.of(how.place(y), sets).read(plan)
                for k, one in enumerate(reader.folds()):
                    score[i, k, targets] = one.inner
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
    labels, names = label_pieces(design.run, folds)
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


def _every_nth(n: int, most: int) -> np.ndarray | None:
    """Choose at most `most` of n targets at even distances; None for all."""
    return None if n <= most else np.unique(np.linspace(0, n - 1, most).round().astype(int))


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
