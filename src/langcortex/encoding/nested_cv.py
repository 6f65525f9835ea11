"""Cross-validated ridge encoding: everything learnt on training rows, everything scored on runs left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.design.design import Design
from langcortex.encoding.folded_design import (
    check_delays,
    confound_columns,
    group_folds_by_delay,
    label_segments,
    response_chunks,
    segments_of_fold,
)
from langcortex.encoding.prepare import Plans, make_nested_fold, make_plan_of_space
from langcortex.encoding.protocol import Fold, Protocol, outer_folds
from langcortex.encoding.scores import Encoding
from langcortex.ridge.backend import DEFAULT, Backend
from langcortex.ridge.plan import partition_rows
from langcortex.ridge.solve import ResponseChunk


def fit(
    design: Design,
    space: str,
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep: bool = False,
    plans: Plans | None = None,
    how: Backend = DEFAULT,
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
    how: Backend = DEFAULT,
) -> list[Encoding]:
    """Fit several feature spaces, each by itself, to the same responses: `fit` for each, with less work.

    What depends on responses alone (their means, confounds and held-out variances) is computed once for all.
    """
    if len(spaces) > 1 and set(spaces) & set(protocol.confounds):
        # a space is not cleaned of itself, so it shares nothing with the others
        return [fit(design, space, protocol, delays, keep, plans, how) for space in spaces]
    folds = outer_folds(design.run, design.scans, protocol)
    delays = check_delays(design, delays, len(folds))
    confounds = confound_columns(design, spaces, protocol)
    drafts = [_Draft(design, space, folds, delays, keep) for space in spaces]
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    for numbers in group_folds_by_delay(delays):
        nests = [
            make_nested_fold(design, folds[k], drafts[0].pieces_of(k).values(), protocol) for k in numbers
        ]
        sets = partition_rows(nests, confounds)
        prepared = [
            make_plan_of_space(design, s, nests, protocol, confounds, plans, how.solver) for s in spaces
        ]
        for draft, plan in zip(drafts, prepared, strict=True):
            draft.regimes.add(plan.solver)
        for targets, y in response_chunks(design, delays[numbers[0]], size=how.chunk_size(prepared)):
            folded = ResponseChunk.from_responses(how.to_device(y), sets)
            for draft, plan in zip(drafts, prepared, strict=True):
                reader = folded.read(plan)
                for i, (k, one) in enumerate(zip(numbers, reader.folds(), strict=True)):
                    draft.enter(k, targets, one.inner_score, grid[one.penalty_index], one.segment_scores)
                    if keep:
                        draft.keep(k, targets, *reader.predict(i, one.penalty_index, folds[k].test))
    return [draft.encoding() for draft in drafts]


class _Draft:
    """An encoding that is being filled in, fold by fold and chunk by chunk."""

    def __init__(
        self, design: Design, space: str, folds: Sequence[Fold], delays: np.ndarray, keep: bool
    ) -> None:
        n_targets = design.space.n_targets
        self.design, self.space, self.folds, self.delays = design, space, folds, delays
        self.labels, self.names = label_segments(design.run, folds)
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
        return segments_of_fold(self.labels, self.folds[k])

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
