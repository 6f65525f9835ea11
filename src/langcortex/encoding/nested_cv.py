"""Cross-validated ridge encoding: everything learnt on training rows, everything scored on runs left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding, EncodingDraft
from langcortex.ridge.backend import Backend
from langcortex.ridge.plan import Plan, RowSets, partition_rows
from langcortex.ridge.solve import ResponseChunk


def fit(
    design: Design,
    space: str,
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep_predictions: bool = False,
    engine: Engine = DEFAULT_ENGINE,
) -> Encoding:
    """Fit one feature space to every target, and predict every run from the others.

    In each outer fold, from its training rows alone: features are scaled, confounds regressed out of features
    and responses, principal components computed, and one penalty per target chosen by inner folds (in each of
    which all of that is learnt anew); then the held-out rows are predicted and scored.

    Parameters
    ----------
    design : rows of one subject
    space : a key of ``design.X``
    protocol : the choices
    delays : (n_folds, n_targets) or (n_folds, 1) from `choose_delays`; None uses the design's only delay
    keep_predictions : keep predictions and observed responses in the encoding
    engine : device, solver and cache of prepared features; no score depends on it but for rounding

    Returns
    -------
    Encoding; a target that is NaN or constant scores NaN and does not affect the others
    """
    return fit_layers(design, [space], protocol, delays, keep_predictions, engine)[0]


def fit_layers(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    delays: np.ndarray | None = None,
    keep_predictions: bool = False,
    engine: Engine = DEFAULT_ENGINE,
) -> list[Encoding]:
    """Fit several feature spaces, each by itself, to the same responses: `fit` for each, with less work.

    What depends on responses alone (their means, confounds and held-out variances) is computed once for all.
    """
    if len(spaces) > 1 and set(spaces) & set(protocol.confounds):
        # a space is no confound of itself, so it shares nothing with the others
        return [fit(design, space, protocol, delays, keep_predictions, engine) for space in spaces]
    folded = FoldedDesign(design, protocol, delays)
    groups = folded.folds_by_delay()
    drafts = [EncodingDraft(folded, space, keep_predictions) for space in spaces]
    for numbers in groups:
        _fit_folds(folded, numbers, drafts, engine)
    return [draft.encoding() for draft in drafts]


def _fit_folds(
    folded: FoldedDesign, numbers: Sequence[int], drafts: Sequence[EncodingDraft], engine: Engine
) -> None:
    """Fit the feature spaces of some encodings in outer folds that share a delay."""
    spaces, backend = [draft.name for draft in drafts], engine.backend
    nested_folds = [folded.nested_fold(k) for k in numbers]
    sets = partition_rows(nested_folds, folded.confounds(spaces))
    plans = [engine.plan(folded, space, nested_folds, backend.solver) for space in spaces]
    for draft, plan in zip(drafts, plans, strict=True):
        draft.regimes.add(plan.solver)
    # a space is fitted in chunks of its own size: products round by their width, which must not depend on other spaces
    sizes = [backend.chunk_size([plan]) for plan in plans]
    for size in sorted(set(sizes)):
        alike = [
            pair for pair, width in zip(zip(drafts, plans, strict=True), sizes, strict=True) if width == size
        ]
        _fit_chunks(folded, numbers, alike, sets, size, backend)


def _fit_chunks(
    folded: FoldedDesign,
    numbers: Sequence[int],
    pairs: Sequence[tuple[EncodingDraft, Plan]],
    sets: RowSets,
    size: int,
    backend: Backend,
) -> None:
    """Fit prepared feature spaces to one chunk of targets after another."""
    for targets, y in folded.responses(numbers[0], size):
        responses = ResponseChunk.from_responses(backend.to_device(y), sets)
        for draft, plan in pairs:
            reader = responses.read(plan)
            for i, (k, fit_of_fold) in enumerate(zip(numbers, reader.folds(), strict=True)):
                penalty = folded.penalties[fit_of_fold.penalty_index]
                draft.add_choices(k, targets, penalty, fit_of_fold.inner_score)
                draft.add_scores(k, targets, fit_of_fold.segment_scores)
                if draft.predictions:
                    predictions = reader.predict(i, fit_of_fold.penalty_index, folded.folds[k].test)
                    draft.add_predictions(k, targets, *predictions)
