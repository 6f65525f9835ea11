"""Predictions and weights of a fit, written to disk a chunk of targets at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.cache import atomic_write, make_folder
from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine, adjusted_features
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding
from langcortex.paths import as_path, safe_cells
from langcortex.ridge.plan import partition_rows
from langcortex.ridge.solve import PlanReader, ResponseChunk


def write_predictions(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    folder: Path | str,
    engine: Engine = DEFAULT_ENGINE,
) -> list[Path]:
    """Write the predictions of every held-out row, beside the observed responses.

    Parameters
    ----------
    spaces : (n_folds,) the feature space of each outer fold
    encoding : of these spaces; its penalties and delays are used again
    folder : created where it does not exist

    Returns
    -------
    predicted.npy, observed.npy : (n_rows, n_targets) float32, confounds and mean of the training rows regressed out; NaN
        where a row is never held out or a target has no data
    rows.tsv : id, run and test segment of each row
    """
    folder = as_path(folder)
    folded = FoldedDesign(design, protocol, encoding.delay)
    make_folder(folder)
    shape = (len(design.run), design.space.n_targets)
    paths = [folder / "predicted.npy", folder / "observed.npy", folder / "rows.tsv"]
    with array_on_disk(paths[0], shape) as predicted, array_on_disk(paths[1], shape) as observed:
        for k, targets, reader, best in _refit(folded, spaces, encoding, engine):
            cells = np.ix_(folded.folds[k].test, targets)
            observed[cells], predicted[cells] = reader.predict(0, best, folded.folds[k].test)
    with atomic_write(paths[2]) as draft:
        table = {"id": design.ids, "run": design.run, "piece": encoding.row_segment}
        safe_cells(pd.DataFrame(table)).to_csv(draft, sep="\t", index=False, na_rep="n/a")
    return paths


def write_weights(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    path: Path | str,
    engine: Engine = DEFAULT_ENGINE,
) -> Path:
    """Write the weights of a fit: how much a response grows with a feature, which is scaled as the protocol says.

    The prediction of a fold's rows is features · weights, for features that are scaled, and have confounds regressed
    out, as learnt on the fold's training rows.

    Parameters
    ----------
    spaces, encoding : see `write_predictions`; all spaces have as many features

    Returns
    -------
    path, of (n_folds, n_features, n_targets) float32, NaN where a target has no data
    """
    path = as_path(path)
    folded = FoldedDesign(design, protocol, encoding.delay)
    widths = {design.X[space].shape[1] for space in spaces}
    n_features = max(widths)
    make_folder(path.parent)
    with array_on_disk(path, (len(folded.folds), n_features, design.space.n_targets)) as out:
        fold, rotation = -1, np.empty((0, 0))
        for k, targets, reader, best in _refit(folded, spaces, encoding, engine):
            if k != fold:
                fold, rotation = k, _rotation_to_features(folded, spaces[k], k, reader)
            number = reader.plan.outer[0][0].training_set
            weights = rotation @ np.asarray(reader.component_weights(number, best), dtype=np.float64)
            out[k, : len(rotation), targets] = weights.T
    return path


def _rotation_to_features(folded: FoldedDesign, space: str, k: int, reader: PlanReader) -> np.ndarray:
    """Return the matrix from weights on left singular vectors to weights on features: (n_features, p).

    With Z = U S Vᵀ the training features, V S⁻¹ = Zᵀ U S⁻².
    """
    design, train, confounds = folded.design, folded.folds[k].train, folded.confounds([space])
    x = np.asarray(design.X[space])
    z = adjusted_features(x, space, design.run, folded.protocol, confounds, train)[train]
    basis = reader.plan.training_sets[reader.plan.outer[0][0].training_set].basis
    cross = z.T @ reader.plan.bases[train, basis].astype(np.float64)
    rotation: np.ndarray = cross / np.square(cross).sum(axis=0)
    return rotation


def _refit(
    folded: FoldedDesign, spaces: Sequence[str], encoding: Encoding, engine: Engine
) -> Iterator[tuple[int, np.ndarray, PlanReader, np.ndarray]]:
    """Fit again with the chosen penalties, a chunk of targets at a time.

    Yields
    ------
    k : outer fold
    targets : (n,) their numbers
    reader : the fit
    best : (n,) positions of their penalties
    """
    for k in range(len(folded.folds)):
        nested = folded.nested_fold(k, inner=False)
        plan = engine.plan(folded, spaces[k], [nested])
        sets = partition_rows([nested], folded.confounds([spaces[k]]))
        for targets, y in folded.responses(k, engine.backend.chunk_size([plan])):
            reader = ResponseChunk.from_responses(engine.backend.to_device(y), sets).read(plan)
            yield k, targets, reader, folded.penalty_index(encoding.penalty[k, targets])


@contextmanager
def array_on_disk(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Open a float32 array on disk, filled with NaN, that gets its name once it is complete.

    Its space is allocated at once, so that a full disk is an error before the work, not a crash in the middle of it.
    """
    with atomic_write(path) as draft:
        out = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with draft.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, draft.stat().st_size)
        out[...] = np.nan
        yield out
        out.flush()
