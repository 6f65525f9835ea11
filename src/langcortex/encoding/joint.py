"""A design under a protocol: what is the same for every set of feature spaces, and results that are being filled in.

Used where several feature spaces meet in one prediction (`langcortex.encoding.banded`, `langcortex.encoding.stacking`); feature spaces
one by one go through `langcortex.encoding.nested_cv.fit_layers`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from langcortex.arrays import pearson
from langcortex.cache import digest
from langcortex.design.design import Design
from langcortex.encoding.folded_design import (
    check_delays,
    confound_columns,
    group_folds_by_delay,
    label_segments,
    response_chunks,
    segments_of_fold,
)
from langcortex.encoding.prepare import make_preparer
from langcortex.encoding.protocol import Fold, Protocol, inner_folds, outer_folds
from langcortex.encoding.scores import Encoding
from langcortex.errors import FitError
from langcortex.ridge.multikernel import Band, TrainingMoments, make_band, product_measure, undefined_targets

MEMORY = 2**29  # bytes that responses, products and scores of one slab of targets may take, roughly

Pca = int | None | Mapping[str, int | None]
"""How many principal components to keep, of every space or of each by name; None keeps all."""


class Memo:
    """Feature spaces that were prepared from some training rows, found again for another set of bands.

    Parameters
    ----------
    max_bytes : the oldest are given up when all take more
    """

    def __init__(self, max_bytes: float = 2e9) -> None:
        self.max_bytes = max_bytes
        self.kept: dict[str, Band] = {}
        self.lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Band]) -> Band:
        """Find what was prepared, or prepare and keep it."""
        with self.lock:
            found = self.kept.get(key)
        if found is not None:
            return found
        made = make()
        with self.lock:
            self.kept[key] = made
            while sum(band.u.nbytes for band in self.kept.values()) > self.max_bytes:
                del self.kept[next(iter(self.kept))]
        return made


class Nested:
    """Folds, pieces, delays and confounds of a design.

    Parameters
    ----------
    spaces : the feature spaces that will be fitted, none twice; none of them serves as a confound
    delays : (n_folds, n_targets) or (n_folds, 1) from `langcortex.encoding.selection.choose_delays`; None uses the only delay
    pca : in place of ``protocol.pca``: by space; spaces it does not name follow the protocol
    memo : where prepared spaces are found again
    """

    def __init__(
        self,
        design: Design,
        spaces: Sequence[str],
        protocol: Protocol,
        delays: np.ndarray | None = None,
        pca: Mapping[str, int | None] | None = None,
        memo: Memo | None = None,
    ) -> None:
        _check(design, spaces, protocol, pca or {})
        self.memo = memo
        self.design, self.protocol, self.pca = design, protocol, dict(pca or {})
        self.folds = outer_folds(design.run, design.scans, protocol)
        self.delays = check_delays(design, delays, len(self.folds))
        self.confounds = confound_columns(design, spaces, protocol)
        self.grid = np.sort(np.asarray(protocol.penalties, dtype=np.float64))[::-1]
        self.labels, self.pieces = label_segments(design.run, self.folds)

    def inner(self, k: int) -> list[Fold]:
        """Split the training rows of outer fold k again."""
        return inner_folds(self.folds[k].train, self.design.run, self.design.scans, self.protocol)

    def pieces_of(self, k: int) -> dict[str, np.ndarray]:
        """Give the held-out pieces of fold k: label → positions among its held-out rows."""
        return segments_of_fold(self.labels, self.folds[k])

    def of_one_delay(self) -> list[list[int]]:
        """Group outer folds whose responses are the same: those with the same delay for every target."""
        return group_folds_by_delay(self.delays)

    def slabs(self, k: int, each: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give the responses of outer fold k in slabs of defined targets, centred: (target numbers, (n_rows, n)).

        Parameters
        ----------
        each : bytes that one target takes in what is done with the slab
        """
        return response_chunks(self.design, self.delays[k], size=max(256, MEMORY // each))

    def preparer(self, space: str) -> Callable[[np.ndarray], Band]:
        """Make the function that prepares a feature space from training rows: scale, take confounds off, find axes."""
        protocol, n = self.protocol, self.pca.get(space, self.protocol.pca)
        x = np.asarray(self.design.X[space])
        prepare = make_preparer(x, space, self.design.run, protocol, self.confounds, n)
        memo = self.memo
        if memo is None:
            return lambda train: make_band(*prepare(train), protocol.relative)
        same = digest(x, self.confounds, self.design.run, protocol.standardise, n, protocol.relative)
        return lambda train: memo.get(
            digest(same, train), lambda: make_band(*prepare(train), protocol.relative)
        )


class Draft:
    """The encoding of a prediction that is a sum of parts, while it is being filled in."""

    def __init__(self, nested: Nested, parts: Sequence[str], keep: bool) -> None:
        n_targets = nested.design.space.n_targets
        self.nested, self.name = nested, " + ".join(parts)
        by_piece, by_fold = (len(nested.pieces), n_targets), (len(nested.folds), n_targets)
        self.r, self.sse, self.sst = (np.full(by_piece, np.nan) for _ in range(3))
        self.penalty, self.best = (np.full(by_fold, np.nan) for _ in range(2))
        self.split = np.full((len(parts), *by_piece), np.nan)
        self.of_part = np.full((len(parts), *by_fold), np.nan)
        rows = (len(nested.labels), n_targets)
        self.kept = [np.full(rows, np.nan, dtype=np.float32) for _ in range(2)] if keep else []

    def enter(
        self, k: int, targets: np.ndarray, y: np.ndarray, learnt: TrainingMoments, predicted: np.ndarray
    ) -> None:
        """Score the held-out rows of fold k.

        Parameters
        ----------
        y : (n_rows, n) raw responses of these targets, of all rows
        learnt : their mean and confounds, learnt on the training rows
        predicted : (n_parts, n_held, n)
        """
        rows = self.nested.folds[k].test
        clean, whole = learnt.residualise(y, rows), predicted.sum(axis=0)
        for piece, here in self.nested.pieces_of(k).items():
            i = self.nested.pieces.index(piece)
            held, error = clean[here], clean[here] - whole[here]
            sst = np.einsum("ij,ij->j", held, held)
            flat = undefined_targets(y[rows[here]], sst)
            sse = np.einsum("ij,ij->j", error, error)
            for out, value in ((self.r, pearson(held, whole[here])), (self.sse, sse), (self.sst, sst)):
                out[i, targets] = np.where(flat, np.nan, value)
            self.split[:, i, targets] = np.where(flat, np.nan, product_measure(held, predicted[:, here]))
        for out, value in zip(self.kept, (clean, whole), strict=bool(self.kept)):
            out[np.ix_(rows, targets)] = value

    def encoding(self) -> Encoding:
        """Give what was entered."""
        nested = self.nested
        piece_run = np.array([str(nested.design.run[nested.labels == name][0]) for name in nested.pieces])
        return Encoding(
            self.name, nested.design.subject, np.array(nested.pieces), piece_run, self.r, self.sse, self.sst,
            self.penalty, nested.delays, self.best, nested.labels, *(self.kept or (None, None)),
        )  # fmt: skip


def without_spaces(protocol: Protocol, spaces: Sequence[str]) -> Protocol:
    """Give the same protocol without these spaces among its confounds."""
    return replace(protocol, confounds=tuple(c for c in protocol.confounds if c not in spaces))


def _check(design: Design, spaces: Sequence[str], protocol: Protocol, pca: Mapping[str, int | None]) -> None:
    known = ", ".join(map(str, design.X))
    if not spaces:
        raise FitError("No feature space is named; give at least one.")
    twice = [s for s in spaces if list(spaces).count(s) > 1]
    if twice:
        raise FitError(f"The feature space '{twice[0]}' is named twice; name it once.")
    for what, names in (("feature space", spaces), ("confound", protocol.confounds)):
        missing = [s for s in names if s not in design.X]
        if missing:
            raise FitError(f"The {what} '{missing[0]}' is not among the feature spaces: {known}.")
    for name, n in pca.items():
        if name not in spaces:
            raise FitError(
                f"pca names '{name}', which is not among the spaces to be fitted: {', '.join(spaces)}."
            )
        if n is not None and n < 1:
            raise FitError(f"pca keeps {n} components of '{name}'; keep at least 1, or None for all.")
