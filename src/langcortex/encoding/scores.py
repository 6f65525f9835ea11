"""Encodings (scores of each held-out segment) and the scores that they pool to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


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
