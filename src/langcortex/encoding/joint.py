"""Several feature spaces in one prediction: their bands, prepared once, and results that are being filled in.

Used by `langcortex.encoding.banded` and `langcortex.encoding.stacking`; feature spaces fitted one by one go through
`langcortex.encoding.nested_cv.fit_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from langcortex.arrays import pearson
from langcortex.cache import digest
from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.prepare import PreparedCache, make_preparer
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding, EncodingDraft
from langcortex.errors import FitError
from langcortex.ridge.multikernel import Band, TrainingMoments, make_band, product_measure, undefined_targets

MEMORY = 2**29  # bytes that responses, products and scores of one chunk of targets may take, roughly
BAND_BYTES = 2e9  # size of the cache of bands that the fits of one partition share

BandPreparer = Callable[[np.ndarray], Band]
"""From training rows to a feature space as they see it."""


def band_preparers(
    folded: FoldedDesign,
    spaces: Sequence[str],
    pca: Mapping[str, int | None],
    cache: PreparedCache | None = None,
) -> list[BandPreparer]:
    """Return the functions that prepare feature spaces from training rows: scale, regress out confounds, decompose.

    Parameters
    ----------
    spaces : the feature spaces that are fitted together; none of them is a confound of the others
    pca : space → how many components to keep, where that is not what the protocol says; None keeps all
    cache : where bands that were prepared for another fit are found again
    """
    n_components = {space: pca.get(space, folded.protocol.pca) for space in spaces}
    confounds = folded.confounds(spaces)
    return [_band_preparer(folded, space, confounds, n_components[space], cache) for space in spaces]


def _band_preparer(
    folded: FoldedDesign, space: str, confounds: np.ndarray, n: int | None, cache: PreparedCache | None
) -> BandPreparer:
    protocol, run = folded.protocol, folded.design.run
    x = np.asarray(folded.design.X[space])
    prepare = make_preparer(x, space, run, protocol, confounds, n)

    def prepare_band(train: np.ndarray) -> Band:
        return make_band(*prepare(train), protocol.relative)

    if cache is None:
        return prepare_band
    name = digest(x, confounds, run, protocol.standardise, n, protocol.relative)
    return lambda train: cache.get(digest(name, train), lambda: prepare_band(train))


def response_slabs(folded: FoldedDesign, k: int, n_bytes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the responses of outer fold k, as many targets at once as memory allows.

    Parameters
    ----------
    n_bytes : that one target takes in what is done with it

    Yields
    ------
    targets, responses : see `langcortex.encoding.folded_design.response_chunks`
    """
    return folded.responses(k, size=max(256, MEMORY // n_bytes))


class JointDraft:
    """The encoding of a prediction that is a sum of parts, while it is being filled in.

    Parameters
    ----------
    parts : names of the feature spaces
    keep_predictions : keep predictions and observed responses

    Attributes
    ----------
    scores : the encoding of the sum
    penalty : (n_parts, n_folds, n_targets) of each part
    product_measure : (n_parts, n_segments, n_targets) each part's share of SST − SSE
    """

    def __init__(self, folded: FoldedDesign, parts: Sequence[str], keep_predictions: bool) -> None:
        n_targets = folded.design.space.n_targets
        self.folded = folded
        self.scores = EncodingDraft(folded, " + ".join(parts), keep_predictions)
        self.penalty = np.full((len(parts), len(folded.folds), n_targets), np.nan)
        self.product_measure = np.full((len(parts), len(folded.segments), n_targets), np.nan)

    def add_predictions(
        self, k: int, targets: np.ndarray, y: np.ndarray, moments: TrainingMoments, predicted: np.ndarray
    ) -> None:
        """Score the predictions of the held-out rows of fold k.

        Parameters
        ----------
        y : (n_rows, n) raw responses of these targets, of all rows
        moments : their mean and confounds, learnt on the training rows
        predicted : (n_parts, n_heldout, n)
        """
        rows = self.folded.folds[k].test
        observed, joint = moments.residualise(y, rows), predicted.sum(axis=0)
        scores = []
        for segment, positions in self.folded.segment_rows(k).items():
            i, response = self.folded.segments.index(segment), observed[positions]
            error = response - joint[positions]
            sst = np.einsum("ij,ij->j", response, response)
            flat = undefined_targets(y[rows[positions]], sst)
            r, sse = pearson(response, joint[positions]), np.einsum("ij,ij->j", error, error)
            scores.append((_defined(r, flat), _defined(sse, flat), _defined(sst, flat)))
            shares = product_measure(response, predicted[:, positions])
            self.product_measure[:, i, targets] = _defined(shares, flat)
        self.scores.add_scores(k, targets, scores)
        self.scores.add_predictions(k, targets, observed, joint)

    def encoding(self) -> Encoding:
        """Return the encoding as entered so far."""
        return self.scores.encoding()


def _defined(values: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Return values with NaN where a response is flat."""
    return np.where(flat, np.nan, values)


def without_spaces(protocol: Protocol, spaces: Sequence[str]) -> Protocol:
    """Return the same protocol without these spaces among its confounds."""
    return replace(protocol, confounds=tuple(c for c in protocol.confounds if c not in spaces))


def check_spaces(
    design: Design, spaces: Sequence[str], protocol: Protocol, pca: Mapping[str, int | None]
) -> None:
    """Check the names of feature spaces that are to be fitted together.

    Raises
    ------
    FitError : a space is unknown or named twice, or `pca` names another one
    """
    if not spaces:
        raise FitError("No feature space is named; name at least one.")
    twice = [s for s in spaces if list(spaces).count(s) > 1]
    if twice:
        raise FitError(f"The feature space '{twice[0]}' is named twice; name it once.")
    for what, names in (("feature space", spaces), ("confound", protocol.confounds)):
        missing = [s for s in names if s not in design.X]
        if missing:
            raise FitError(
                f"The {what} '{missing[0]}' is not among the feature spaces: {', '.join(map(str, design.X))}."
            )
    for name, n in pca.items():
        if name not in spaces:
            raise FitError(
                f"pca names '{name}', which is not among the spaces to be fitted: {', '.join(spaces)}."
            )
        if n is not None and n < 1:
            raise FitError(f"pca keeps {n} components of '{name}'; keep at least 1, or None for all.")
