"""Choices made in training rows alone: the delay and the layer of each outer fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign, response_chunks
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding
from langcortex.ridge.plan import partition_rows
from langcortex.ridge.solve import ResponseChunk

PROBED = 4096  # targets that are enough to choose one delay for all


def choose_delays(
    design: Design, probes: Sequence[str], protocol: Protocol, engine: Engine = DEFAULT_ENGINE
) -> np.ndarray:
    """Choose a delay in each outer fold, from its training rows alone, by the inner scores of some probes.

    The choice is shared by all models and layers, so that it favours none: name probes from every model. With
    ``delay_by="fold"`` each delay is scored by the mean over the best tenth of targets (their best penalty); where
    there are more than 4,096 targets, over evenly spaced ones.

    Parameters
    ----------
    probes : feature spaces; their scores are averaged
    engine : its executor works on several probes at once

    Returns
    -------
    (n_folds, n_targets), or (n_folds, 1) when one delay serves all targets; seconds
    """
    folded = FoldedDesign(design, protocol)
    candidates = np.array(design.delays)
    if len(candidates) == 1:
        return np.full((len(folded.folds), 1), candidates[0])
    subset = _evenly_spaced(design.space.n_targets, PROBED) if protocol.delay_by == "fold" else None
    scores = engine.map(lambda probe: _delay_scores(folded, probe, candidates, subset, engine), probes)
    total = np.asarray(sum(scores))
    if protocol.delay_by == "target":
        best = np.argmax(np.nan_to_num(total, nan=-np.inf), axis=0)
    else:
        by_fold = [[_best_tenth_mean(values) for values in by_delay] for by_delay in total]
        best = np.argmax(by_fold, axis=0)[:, None]
    delays: np.ndarray = candidates[best]
    return delays


def _delay_scores(
    folded: FoldedDesign, space: str, candidates: np.ndarray, subset: np.ndarray | None, engine: Engine
) -> np.ndarray:
    """Compute the best inner score of every target at each delay: (n_delays, n_folds, n_targets)."""
    n_folds, n_targets = len(folded.folds), folded.design.space.n_targets
    scores = np.full((len(candidates), n_folds, n_targets), np.nan)
    nested_folds = [folded.nested_fold(k, outer=False) for k in range(n_folds)]
    sets = partition_rows(nested_folds, folded.confounds([space]))
    plan = engine.plan(folded, space, nested_folds, engine.backend.solver)
    size = engine.backend.chunk_size([plan])
    for i, delay in enumerate(candidates):
        for targets, y in response_chunks(folded.design, np.full(n_targets, delay), subset, size):
            reader = ResponseChunk.from_responses(engine.backend.to_device(y), sets).read(plan)
            for k, fit_of_fold in enumerate(reader.folds()):
                scores[i, k, targets] = fit_of_fold.inner_score
    return scores


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
        mean = inner[:, k].mean(axis=0)
        top = np.argsort(-np.nan_to_num(mean, nan=-np.inf), kind="stable")[: _tenth(mean)]
        chosen[k] = np.argmax(np.nan_to_num(inner[:, k][:, top].mean(axis=1), nan=-np.inf))
    return chosen


def assemble_chosen(
    encodings: Sequence[Encoding], chosen: np.ndarray, design: Design, protocol: Protocol, name: str
) -> Encoding:
    """Assemble one encoding from the test segments of the layer chosen in each outer fold.

    Parameters
    ----------
    encodings : one per layer; where they keep predictions, so does the result
    chosen : (n_folds,) from `choose_layers`
    name : of the result
    """
    folded = FoldedDesign(design, protocol)
    layer_of_segment = {s: int(chosen[k]) for k in range(len(folded.folds)) for s in folded.segment_rows(k)}
    layers = [layer_of_segment[segment] for segment in folded.segments]
    first = encodings[0]

    def by_segment(field: str) -> np.ndarray:
        return np.stack([getattr(encodings[layer], field)[i] for i, layer in enumerate(layers)])

    def by_fold(field: str) -> np.ndarray:
        return np.stack([getattr(encodings[int(layer)], field)[k] for k, layer in enumerate(chosen)])

    def by_row(field: str) -> np.ndarray | None:
        if any(getattr(encodings[layer], field) is None for layer in set(layers)):
            return None
        values = np.full((len(design.run), first.r.shape[1]), np.nan, dtype=np.float32)
        for layer, fold in zip(chosen, folded.folds, strict=True):
            values[fold.test] = getattr(encodings[int(layer)], field)[fold.test]
        return values

    return Encoding(
        name, first.subject, first.segments, first.segment_run, by_segment("r"), by_segment("sse"), by_segment("sst"),
        by_fold("penalty"), by_fold("delay"), by_fold("inner"), folded.segment_of_row, by_row("observed"),
        by_row("predicted"),
    )  # fmt: skip


def _evenly_spaced(n: int, most: int) -> np.ndarray | None:
    """Return the positions of at most `most` of n targets at even distances; None for all."""
    return None if n <= most else np.unique(np.linspace(0, n - 1, most).round().astype(int))


def _tenth(values: np.ndarray) -> int:
    """Count a tenth of the defined targets, at least one."""
    return max(1, int(np.isfinite(values).sum()) // 10)


def _best_tenth_mean(values: np.ndarray) -> float:
    """Average the best tenth of the defined targets; −∞ where none is defined."""
    defined = values[np.isfinite(values)]
    return float(np.sort(defined)[-_tenth(values) :].mean()) if len(defined) else -np.inf
