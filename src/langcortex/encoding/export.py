"""Predictions and weights of a fit, to disk, a block of targets at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.cache import atomic_write
from langcortex.design.design import Design
from langcortex.encoding.folded_design import (
    confound_columns,
    label_segments,
    response_chunks,
    segments_of_fold,
)
from langcortex.encoding.prepare import Plans, adjusted_features, make_nested_fold, make_plan_of_space
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.encoding.scores import Encoding
from langcortex.ridge.backend import DEFAULT, Backend
from langcortex.ridge.plan import partition_rows
from langcortex.ridge.solve import PlanReader, ResponseChunk


def write_predictions(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    folder: Path,
    plans: Plans | None = None,
    how: Backend = DEFAULT,
) -> list[Path]:
    """Write what a fit predicts of every held-out row, beside what was observed.

    Parameters
    ----------
    spaces : (n_folds,) the feature space of each outer fold
    encoding : of these spaces; its penalties and delays are used again
    folder : made where it is not there

    Returns
    -------
    predicted.npy, observed.npy : (n_rows, n_targets) float32, confounds and mean of the training rows taken off; NaN
        where a row is never held out or a target has no data
    rows.tsv : id, run and held-out piece of each row
    """
    folds = outer_folds(design.run, design.scans, protocol)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(design.run), design.space.n_targets)
    paths = [folder / "predicted.npy", folder / "observed.npy", folder / "rows.tsv"]
    with array_on_disk(paths[0], shape) as predicted, array_on_disk(paths[1], shape) as observed:
        for k, targets, reader, best in _fitted(design, spaces, protocol, encoding, plans, how):
            test = folds[k].test
            seen, told = reader.predict(0, best, test)
            observed[np.ix_(test, targets)], predicted[np.ix_(test, targets)] = seen, told
    with atomic_write(paths[2]) as draft:
        table = {"id": design.ids, "run": design.run, "piece": encoding.row_piece}
        pd.DataFrame(table).to_csv(draft, sep="\t", index=False, na_rep="n/a")
    return paths


def write_weights(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    path: Path,
    plans: Plans | None = None,
    how: Backend = DEFAULT,
) -> Path:
    """Write the weights of a fit: what a response gains when a feature, scaled as the protocol says, grows by one.

    The prediction of a fold's rows is features · weights, for features that are scaled and cleaned of confounds as the
    fold's training rows teach.

    Parameters
    ----------
    spaces, encoding : see `write_predictions`; all spaces have as many features

    Returns
    -------
    path, of (n_folds, n_features, n_targets) float32, NaN where a target has no data
    """
    folds = outer_folds(design.run, design.scans, protocol)
    widths = {design.X[space].shape[1] for space in spaces}
    n_features = max(widths)
    path.parent.mkdir(parents=True, exist_ok=True)
    with array_on_disk(path, (len(folds), n_features, design.space.n_targets)) as out:
        last, turn = -1, np.empty((0, 0))
        for k, targets, reader, best in _fitted(design, spaces, protocol, encoding, plans, how):
            if k != last:
                last, turn = k, _axes(design, spaces[k], protocol, folds[k].train, reader)
            number = reader.plan.outer[0][0].training_set
            weights = turn @ np.asarray(reader.component_weights(number, best), dtype=np.float64)
            out[k, : len(turn), targets] = weights.T
    return path


def _axes(
    design: Design, space: str, protocol: Protocol, train: np.ndarray, reader: PlanReader
) -> np.ndarray:
    """Give what turns weights on unit axes into weights on features: (n_features, p).

    With Z = U S Vᵀ the training features, V S⁻¹ = Zᵀ U S⁻².
    """
    confounds = confound_columns(design, [space], protocol)
    z = adjusted_features(np.asarray(design.X[space]), space, design.run, protocol, confounds, train)[train]
    training_set = reader.plan.training_sets[reader.plan.outer[0][0].training_set]
    u = reader.plan.bases[train, training_set.basis].astype(np.float64)
    on = z.T @ u
    turn: np.ndarray = on / np.square(on).sum(axis=0)
    return turn


def _fitted(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    plans: Plans | None,
    how: Backend,
) -> Iterator[tuple[int, np.ndarray, PlanReader, np.ndarray]]:
    """Fit again with the chosen penalties: outer fold, target numbers, their reader, and where their penalties stand."""
    folds = outer_folds(design.run, design.scans, protocol)
    labels, _ = label_segments(design.run, folds)
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    for k, fold in enumerate(folds):
        confounds = confound_columns(design, [spaces[k]], protocol)
        bare = make_nested_fold(design, fold, segments_of_fold(labels, fold).values(), protocol, inner=False)
        plan, sets = (
            make_plan_of_space(design, spaces[k], [bare], protocol, confounds, plans),
            partition_rows([bare], confounds),
        )
        for targets, y in response_chunks(design, encoding.delay[k], size=how.chunk_size([plan])):
            penalty = np.nan_to_num(encoding.penalty[k, targets], nan=grid[0])
            yield (
                k,
                targets,
                ResponseChunk.from_responses(how.to_device(y), sets).read(plan),
                np.searchsorted(-grid, -penalty),
            )


@contextmanager
def array_on_disk(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Open a float32 array on disk, full of NaN, that takes its name when it is whole.

    Its room is claimed at once, so that a full disk is an error before the work, not a crash in the middle of it.
    """
    with atomic_write(path) as draft:
        out = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with draft.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, draft.stat().st_size)
        out[...] = np.nan
        yield out
        out.flush()
