"""Encodings (scores of each test segment) and the scores that they pool to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from langcortex.encoding.folded_design import FoldedDesign


@dataclass(frozen=True, eq=False)
class Encoding:
    """How well one feature space predicts the responses of one subject, out of run.

    Attributes
    ----------
    name, subject : the feature space and the subject
    segments : (n_segments,) names of the test segments: runs, or blocks of the only run
    segment_run : (n_segments,) the run of each
    r : (n_segments, n_targets) correlation of prediction and response in each segment
    sse, sst : (n_segments, n_targets) squared errors of the prediction and of the training mean
    penalty : (n_folds, n_targets) the chosen penalty, in the units of the protocol's grid
    delay : (n_folds, n_targets) the chosen delay in seconds (0 where delays are part of the features)
    inner : (n_folds, n_targets) the best inner score, from training rows alone
    row_segment : (n_rows,) the segment of each row, "" where never held out
    observed, predicted : (n_rows, n_targets) float32, on request; confounds regressed out, NaN where never held out
    regime : how predictions were scored: by "pairs" of components, "axes" or "kernel"s of rows
    """

    name: str
    subject: str
    segments: np.ndarray
    segment_run: np.ndarray
    r: np.ndarray
    sse: np.ndarray
    sst: np.ndarray
    penalty: np.ndarray
    delay: np.ndarray
    inner: np.ndarray
    row_segment: np.ndarray
    observed: np.ndarray | None = None
    predicted: np.ndarray | None = None
    regime: str = ""


class EncodingDraft:
    """An encoding that is being filled in, fold by fold and chunk by chunk; NaN where nothing was entered.

    Parameters
    ----------
    folded : the design under its protocol, with delays
    name : of the encoding
    keep_predictions : keep predictions and observed responses
    """

    def __init__(self, folded: FoldedDesign, name: str, keep_predictions: bool) -> None:
        n_targets = folded.design.space.n_targets
        self.folded, self.name = folded, name
        self.r, self.sse, self.sst = (np.full((len(folded.segments), n_targets), np.nan) for _ in range(3))
        self.penalty, self.inner = (np.full((len(folded.folds), n_targets), np.nan) for _ in range(2))
        rows = (len(folded.design.run), n_targets)
        self.predictions = [np.full(rows, np.nan, dtype=np.float32) for _ in range(2 * keep_predictions)]
        self.regimes: set[str] = set()

    def add_choices(self, k: int, targets: np.ndarray, penalty: np.ndarray, inner: np.ndarray) -> None:
        """Enter the chosen penalties and best inner scores of some targets of fold k; −∞ is no score."""
        self.penalty[k, targets] = penalty
        self.inner[k, targets] = np.where(np.isneginf(inner), np.nan, inner)

    def add_scores(
        self, k: int, targets: np.ndarray, scores: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> None:
        """Enter r, SSE and SST of some targets in each test segment of fold k."""
        for segment, values in zip(self.folded.segment_rows(k), scores, strict=True):
            i = self.folded.segments.index(segment)
            for array, value in zip((self.r, self.sse, self.sst), values, strict=True):
                array[i, targets] = value

    def add_predictions(
        self, k: int, targets: np.ndarray, observed: np.ndarray, predicted: np.ndarray
    ) -> None:
        """Enter the held-out responses of fold k and their predictions, where predictions are kept."""
        if self.predictions:
            for array, value in zip(self.predictions, (observed, predicted), strict=True):
                array[np.ix_(self.folded.folds[k].test, targets)] = value

    def encoding(self) -> Encoding:
        """Return the encoding as entered so far."""
        folded = self.folded
        observed, predicted = self.predictions or (None, None)
        return Encoding(
            self.name, folded.design.subject, np.array(folded.segments), folded.segment_run, self.r, self.sse, self.sst,
            self.penalty, folded.delays, self.inner, folded.segment_of_row, observed, predicted,
            ", ".join(sorted(self.regimes)),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scores:
    """One number per target; NaN is undefined.

    Attributes
    ----------
    r : (n_targets,) mean over test segments of the correlation in each
    r2 : (n_targets,) 1 − ΣSSE/ΣSST over segments; below 0 is worse than the training mean
    runs : (n_runs,)
    r_by_run, r2_by_run : (n_runs, n_targets)
    """

    r: np.ndarray
    r2: np.ndarray
    runs: np.ndarray
    r_by_run: np.ndarray
    r2_by_run: np.ndarray


def score(encoding: Encoding) -> Scores:
    """Compute the scores of an encoding: r averaged over test segments, R² pooled over them."""
    runs = np.array(list(dict.fromkeys(encoding.segment_run.tolist())))
    by_run = [_pooled(encoding, encoding.segment_run == run) for run in runs]
    r, r2 = _pooled(encoding, np.ones(len(encoding.segments), dtype=bool))
    return Scores(r, r2, runs, np.stack([a for a, _ in by_run]), np.stack([b for _, b in by_run]))


def _pooled(encoding: Encoding, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average r over the segments where it is defined, and pool R²; a target defined in none is NaN."""
    r = encoding.r[segments]
    count = np.isfinite(r).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, np.nansum(r, axis=0) / count, np.nan)
    return mean, pooled_r2(encoding.sse[segments], encoding.sst[segments])


def pooled_r2(sse: np.ndarray, sst: np.ndarray) -> np.ndarray:
    """Compute 1 − ΣSSE/ΣSST over segments, (n_segments, n_targets) each; NaN where a target is defined in none."""
    defined = np.isfinite(sst).any(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, 1.0 - np.nansum(sse, axis=0) / np.nansum(sst, axis=0), np.nan)


def region_means(values: np.ndarray, regions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Average a map over each region's defined targets; "brain" is all of them.

    Parameters
    ----------
    values : (n_targets,)
    regions : name → (n_targets,) bool
    """
    means = {}
    for name, inside in {"brain": np.ones(len(values), dtype=bool), **regions}.items():
        part = values[inside]
        means[name] = float(np.nanmean(part)) if np.isfinite(part).any() else float("nan")
    return means
