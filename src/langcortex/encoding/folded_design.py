"""A design under a protocol: folds, test segments, penalties, delays, confounds, and responses in chunks of targets."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.arrays import CHUNK, centre_columns, chunks
from langcortex.design.design import Design
from langcortex.encoding.protocol import Fold, Protocol, inner_folds, outer_folds
from langcortex.errors import FitError
from langcortex.ridge.decomposition import learn_scale
from langcortex.ridge.plan import NestedFold


class FoldedDesign:
    """A design under a protocol, worked out once for everything that is fitted to it.

    Parameters
    ----------
    design : rows of one subject
    protocol : the choices
    delays : (n_folds, n_targets) or (n_folds, 1) from `langcortex.encoding.selection.choose_delays`; None uses the
        design's only delay

    Attributes
    ----------
    folds : the outer folds
    segments : names of the test segments: runs, or blocks of a run that is cut; in order of rows
    segment_of_row : (n_rows,) name of the test segment of each row, "" where a row is never held out
    penalties : (n_penalties,) the protocol's grid, largest first
    """

    def __init__(self, design: Design, protocol: Protocol, delays: np.ndarray | None = None) -> None:
        self.design, self.protocol = design, protocol
        self.folds = outer_folds(design.run, design.scans, protocol)
        self.segment_of_row, self.segments = label_segments(design.run, self.folds)
        self.penalties = np.sort(np.asarray(protocol.penalties, dtype=np.float64))[::-1]
        self._chosen_delays = delays
        self._confounds: dict[tuple[str, ...], np.ndarray] = {}

    @functools.cached_property
    def delays(self) -> np.ndarray:
        """Delay of every target's responses in each outer fold, in seconds: (n_folds, n_targets)."""
        return check_delays(self.design, self._chosen_delays, len(self.folds))

    @property
    def segment_run(self) -> np.ndarray:
        """Run of each test segment: (n_segments,)."""
        return np.array([str(self.design.run[self.segment_of_row == name][0]) for name in self.segments])

    def segment_rows(self, k: int) -> dict[str, np.ndarray]:
        """Return the test segments of outer fold k: name → positions among its held-out rows."""
        return self._segment_rows[k]

    @functools.cached_property
    def _segment_rows(self) -> list[dict[str, np.ndarray]]:
        return [segments_of_fold(self.segment_of_row, fold) for fold in self.folds]

    def inner_folds(self, k: int) -> list[Fold]:
        """Split the training rows of outer fold k again."""
        return inner_folds(self.folds[k].train, self.design.run, self.design.scans, self.protocol)

    def nested_fold(self, k: int, inner: bool = True, outer: bool = True) -> NestedFold:
        """Return outer fold k as rows.

        Parameters
        ----------
        inner : with its inner folds, which choose penalties
        outer : with its test segments, which are scored
        """
        fold = self.folds[k]
        segments = self.segment_rows(k).values() if outer else ()
        splits = self.inner_folds(k) if inner else ()
        return NestedFold(
            fold.train,
            tuple(fold.test[rows] for rows in segments),
            tuple((split.train, split.test) for split in splits),
        )

    def folds_by_delay(self) -> list[list[int]]:
        """Group outer folds whose responses are the same: those with the same delay for every target."""
        groups: dict[bytes, list[int]] = {}
        for k, delay in enumerate(self.delays):
            groups.setdefault(np.ascontiguousarray(delay).tobytes(), []).append(k)
        return list(groups.values())

    def confounds(self, spaces: Sequence[str]) -> np.ndarray:
        """Return the confounds that are regressed out of some feature spaces: (n_rows, n_confounds), scaled."""
        names = tuple(name for name in self.protocol.confounds if name not in spaces)
        if names not in self._confounds:
            self._confounds[names] = confound_columns(self.design, spaces, self.protocol)
        return self._confounds[names]

    def nuisance(self, spaces: Sequence[str]) -> np.ndarray:
        """Return the intercept and the confounds of some feature spaces: (n_rows, 1 + n_confounds)."""
        return np.column_stack([np.ones(len(self.design.run)), self.confounds(spaces)])

    def responses(self, k: int, size: int = CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the responses of outer fold k a chunk of targets at a time, see `response_chunks`."""
        return response_chunks(self.design, self.delays[k], size=size)

    def penalty_index(self, penalty: np.ndarray) -> np.ndarray:
        """Return the position of each chosen penalty in the grid, in the shape of `penalty`."""
        # the largest penalty stands in for targets without one, which are not defined anyway
        chosen = np.nan_to_num(penalty, nan=self.penalties[0])
        return np.asarray(np.searchsorted(-self.penalties, -chosen))


def label_segments(run: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, list[str]]:
    """Name the test segment of every row: its run, or a block of it where a run is cut.

    Returns
    -------
    labels : (n_rows,) "" where a row is never held out
    names : the segments, in order of rows
    """
    labels = np.full(len(run), "", dtype=object)
    n_folds_of_run = Counter(name for fold in folds for name in set(run[fold.test].tolist()))
    for k, fold in enumerate(folds):
        for row in fold.test.tolist():
            labels[row] = f"{run[row]}/block-{k}" if n_folds_of_run[run[row]] > 1 else str(run[row])
    return labels, [name for name in dict.fromkeys(labels.tolist()) if name]


def segments_of_fold(labels: np.ndarray, fold: Fold) -> dict[str, np.ndarray]:
    """Return the test segments of a fold: name → positions among its held-out rows."""
    names = labels[fold.test]
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}


def check_delays(design: Design, delays: np.ndarray | None, n_folds: int) -> np.ndarray:
    """Return delays as (n_folds, n_targets); the design's only one where there are None.

    Raises
    ------
    FitError : the design has several delays and none was chosen
    """
    if delays is None:
        if len(design.delays) > 1:
            raise FitError(
                f"The design has {len(design.delays)} candidate delays; choose among them with choose_delays."
            )
        delays = np.full((n_folds, 1), design.delays[0])
    return np.broadcast_to(delays, (n_folds, design.space.n_targets))


def confound_columns(design: Design, spaces: Sequence[str], protocol: Protocol) -> np.ndarray:
    """Return the scaled confounds, (n_rows, n_confounds); a space that is fitted is not a confound of itself.

    Raises
    ------
    FitError : a confound is not among the feature spaces
    """
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
    """Yield responses at their delays, a chunk of defined targets at a time.

    Parameters
    ----------
    delay : (n_targets,) seconds
    subset : target numbers; all when None
    size : targets in a chunk

    Yields
    ------
    targets : (n_chunk,) their numbers
    responses : (n_rows, n_chunk), centred
    """
    sources = {float(d): design.Y[float(d)] for d in np.unique(delay)}
    if subset is not None:
        sources = {d: y[:, subset] for d, y in sources.items()}
        delay = delay[subset]
    for chunk in chunks(len(delay), size):
        targets, y = responses_of_chunk(sources, delay, chunk)
        if len(targets):
            yield targets if subset is None else subset[targets], y


def responses_of_chunk(
    sources: Mapping[float, np.ndarray], delay: np.ndarray, chunk: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Return the defined targets of one chunk, and their responses at their delays, centred.

    Parameters
    ----------
    sources : delay → (n_rows, n_targets)
    delay : (n_targets,)
    """
    distinct = np.unique(delay[chunk])
    if len(distinct) == 1:
        y = np.array(sources[float(distinct[0])][:, chunk])
    else:
        first = next(iter(sources.values()))
        y = np.empty((len(first), chunk.stop - chunk.start), dtype=first.dtype)
        for d in distinct:
            columns = delay[chunk] == d
            y[:, columns] = sources[float(d)][:, chunk][:, columns]
    defined = np.isfinite(y).all(axis=0)
    # centring over all rows changes nothing (every training set has its own intercept) but saves digits
    return np.flatnonzero(defined) + chunk.start, centre_columns(y[:, defined])


@dataclass(frozen=True, eq=False)
class ScoredResponses:
    """The responses of one subject that fits are scored on.

    Attributes
    ----------
    values : (n_targets, n_rows) float32: at the delays of the fits, confounds regressed out as learnt on training rows;
        undefined targets are NaN
    segment : (n_rows,) the test segment of each row
    ids : (n_rows,) names of the rows
    scans : (n_rows, 2) as in the design
    """

    values: np.ndarray
    segment: np.ndarray
    ids: np.ndarray
    scans: np.ndarray


def scored_responses(design: Design, protocol: Protocol, delays: np.ndarray | None = None) -> ScoredResponses:
    """Return the responses that a fit of this design is scored on: the `observed` of its encodings, without fitting.

    Parameters
    ----------
    design : rows of one subject
    protocol : the choices
    delays : (n_folds, n_targets) or (n_folds, 1) as for `langcortex.encoding.nested_cv.fit`
    """
    folded = FoldedDesign(design, protocol, delays)
    nuisance = folded.nuisance(())
    values = np.full((design.space.n_targets, len(design.run)), np.nan, dtype=np.float32)
    for numbers in folded.folds_by_delay():
        operators = {k: np.linalg.pinv(nuisance[folded.folds[k].train]) for k in numbers}
        for targets, y in folded.responses(numbers[0]):
            for k, operator in operators.items():
                train, test = folded.folds[k]
                fitted = nuisance[test] @ (operator @ y[train])
                values[np.ix_(targets, test)] = (y[test] - fitted).T
    segment = folded.segment_of_row
    rows = np.flatnonzero(segment != "")
    return ScoredResponses(values[:, rows], segment[rows], design.ids[rows], design.scans[rows])
