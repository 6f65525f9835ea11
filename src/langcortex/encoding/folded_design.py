"""A design under a protocol: folds, test segments, delays, confounds, and responses in chunks of targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.arrays import CHUNK, centre_columns, chunks
from langcortex.design.design import Design
from langcortex.encoding.protocol import Fold, Protocol, outer_folds
from langcortex.errors import FitError
from langcortex.ridge.decomposition import learn_scale


def label_segments(run: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, list[str]]:
    """Name the held-out stretch of every row: its run, or a block of it where a run is cut.

    Returns
    -------
    labels : (n_rows,) "" where a row is never held out
    names : the pieces, in order of rows
    """
    labels = np.full(len(run), "", dtype=object)
    cut = Counter(name for fold in folds for name in set(run[fold.test].tolist()))
    for k, fold in enumerate(folds):
        for row in fold.test.tolist():
            labels[row] = f"{run[row]}/block-{k}" if cut[run[row]] > 1 else str(run[row])
    return labels, [name for name in dict.fromkeys(labels.tolist()) if name]


def segments_of_fold(labels: np.ndarray, fold: Fold) -> dict[str, np.ndarray]:
    """Give the held-out pieces of a fold: label → positions among its held-out rows."""
    held = labels[fold.test]
    return {piece: np.flatnonzero(held == piece) for piece in dict.fromkeys(held.tolist())}


def check_delays(design: Design, delays: np.ndarray | None, n_folds: int) -> np.ndarray:
    """Give delays as (n_folds, n_targets); the design's only one where None is given."""
    if delays is None:
        if len(design.delays) > 1:
            raise FitError(
                f"The design has {len(design.delays)} candidate delays; choose among them with choose_delays."
            )
        delays = np.full((n_folds, 1), design.delays[0])
    return np.broadcast_to(delays, (n_folds, design.space.n_targets))


def group_folds_by_delay(delays: np.ndarray) -> list[list[int]]:
    """Group outer folds whose responses are the same: those with the same delay for every target."""
    groups: dict[bytes, list[int]] = {}
    for k, row in enumerate(delays):
        groups.setdefault(np.ascontiguousarray(row).tobytes(), []).append(k)
    return list(groups.values())


def confound_columns(design: Design, spaces: Sequence[str], protocol: Protocol) -> np.ndarray:
    """Gather the confound columns, (n_rows, c), scaled; spaces that are fitted are not cleaned of themselves."""
    missing = [name for name in protocol.confounds if name not in design.X]
    if missing:
        raise FitError(
            f"The confound '{missing[0]}' is not among the feature spaces: {', '.join(map(str, design.X))}."
        )
    columns = [
        np.asarray(design.X[name], dtype=np.float64) for name in protocol.confounds if name not in spaces
    ]
    if not columns:
        return np.empty((len(design.run), 0))
    raw = np.hstack(columns)
    # their units change nothing, and in float32 much
    return learn_scale(raw).apply(raw)


def response_chunks(
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
        targets, y = responses_of_chunk(sources, delay, chunk)
        if len(targets):
            yield targets, y


def responses_of_chunk(
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
    return np.flatnonzero(defined) + chunk.start, centre_columns(y[:, defined])


@dataclass(frozen=True, eq=False)
class ScoredResponses:
    """The responses of one subject that were scored.

    Attributes
    ----------
    values : (n_targets, n_rows) float32: at the delays of the fits, confounds removed as learnt on training rows; undefined
        targets are NaN
    piece : (n_rows,) the held-out piece of each row
    ids : (n_rows,) names of the rows
    scans : (n_rows, 2) as in the design
    """

    values: np.ndarray
    piece: np.ndarray
    ids: np.ndarray
    scans: np.ndarray


def scored_responses(design: Design, protocol: Protocol, delays: np.ndarray | None = None) -> ScoredResponses:
    """Give the responses that a fit of this design is scored on: the `observed` of its encodings, without fitting.

    Parameters
    ----------
    design : rows of one subject
    protocol : the choices
    delays : (n_folds, n_targets) or (n_folds, 1) as for `langcortex.encoding.nested_cv.fit`
    """
    folds = outer_folds(design.run, design.scans, protocol)
    delays = check_delays(design, delays, len(folds))
    labels, _ = label_segments(design.run, folds)
    c1 = np.column_stack([np.ones(len(design.run)), confound_columns(design, (), protocol)])
    out = np.full((design.space.n_targets, len(design.run)), np.nan, dtype=np.float32)
    for numbers in group_folds_by_delay(delays):
        readers = {k: np.linalg.pinv(c1[folds[k].train]) for k in numbers}
        for targets, y in response_chunks(design, delays[numbers[0]]):
            for k, reader in readers.items():
                test, train = folds[k].test, folds[k].train
                out[np.ix_(targets, test)] = (y[test] - c1[test] @ (reader @ y[train])).T
    held = np.flatnonzero(labels != "")
    return ScoredResponses(out[:, held], labels[held], design.ids[held], design.scans[held])
