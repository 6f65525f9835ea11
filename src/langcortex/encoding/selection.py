"""Choices made in training rows alone: the delay and the layer of each outer fold."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from langcortex.design.design import Design
from langcortex.encoding.folded_design import confound_columns, label_segments, response_chunks
from langcortex.encoding.prepare import Plans, make_nested_fold, make_plan_of_space
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.encoding.scores import Encoding
from langcortex.ridge.backend import DEFAULT, Backend
from langcortex.ridge.plan import partition_rows
from langcortex.ridge.solve import ResponseChunk

PROBED = 4096  # targets that are enough to choose one delay for all


def choose_delays(
    design: Design,
    probes: Sequence[str],
    protocol: Protocol,
    pool: Executor | None = None,
    plans: Plans | None = None,
    how: Backend = DEFAULT,
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
        confounds = confound_columns(design, [space], protocol)
        nests = [make_nested_fold(design, fold, (), protocol) for fold in folds]
        sets = partition_rows(nests, confounds)
        plan = make_plan_of_space(design, space, nests, protocol, confounds, plans, how.solver)
        for i, delay in enumerate(candidates):
            every = np.full(score.shape[2], delay)
            for targets, y in response_chunks(design, every, subset, how.chunk_size([plan])):
                reader = ResponseChunk.from_responses(how.to_device(y), sets).read(plan)
                for k, one in enumerate(reader.folds()):
                    score[i, k, targets] = one.inner_score
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
    labels, names = label_segments(design.run, folds)
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
