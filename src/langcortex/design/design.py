"""Designs: features and recordings matched row by row. After this there are rows, columns and runs, and no clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from langcortex.brain.recording import Recording, Responses
from langcortex.brain.space import Space
from langcortex.brain.timing import (
    bin_weights,
    candidate_delays,
    delay_in_scans,
    hrf_weights,
    impulse_durations,
    lag_rows,
    window_weights,
)
from langcortex.errors import AlignmentError
from langcortex.features.table import Features
from langcortex.stimulus.story import Story, Units

SCANS_APART = 10_000  # trials share no scans: no gap between folds reaches the next one
HRF_REACH = 20.0  # seconds after which nearly all of a haemodynamic response is over


@dataclass(frozen=True)
class Delays:
    """Finite impulse response: each scan is predicted from features that many seconds before it.

    Attributes
    ----------
    seconds : whole multiples of the TR
    """

    seconds: tuple[float, ...]


@dataclass(frozen=True)
class HRF:
    """Convolution with a haemodynamic response: "glover", "spm", or a function like nilearn's kernels.

    Words are boxcars with the height of their features, centred on the run's mean, which silence then has; counts
    are impulses at word onsets.
    """

    kernel: str | Callable[[float, int], np.ndarray] = "glover"


@dataclass(frozen=True)
class LazyMapping(Mapping[object, np.ndarray]):
    """Arrays by name or delay, each computed when it is looked up."""

    names: tuple[object, ...]
    make: Callable[[object], np.ndarray]

    def __getitem__(self, name: object) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        return self.make(name)

    def __iter__(self) -> Iterator[object]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _check_shape(values: Any, n_rows: int, n_targets: int | None, what: str) -> None:
    """Raise an error where an array has other rows than the design, or other columns than the space has targets."""
    shape = np.shape(values)
    if len(shape) != 2:
        raise AlignmentError(f"{what} needs rows and columns; its shape is {shape}.")
    if shape[0] != n_rows:
        raise AlignmentError(
            f"{what} has {shape[0]:,} rows, but the design has {n_rows:,} ids: each id needs one row."
        )
    if n_targets is not None and shape[1] != n_targets:
        raise AlignmentError(
            f"{what} has {shape[1]:,} targets, but the space has {n_targets:,} names: each target needs one name."
        )


@dataclass(frozen=True, eq=False)
class Design:
    """Rows of one subject: features and responses, matched by id.

    Attributes
    ----------
    X : feature space → (n_rows, n_features); spaces of controls can be nuisance regressors too
    Y : candidate delay (s) → (n_rows, n_targets) float32; one entry, 0.0, where delays live in X
    ids : (n_rows,) e.g. ``"section1/sentence-040"`` or ``"section1/scan-0042"``
    run : (n_rows,), the rows of a run are contiguous
    scans : (n_rows, 2) first and last scan of the run that a row depends on
    subject : name
    space : the targets in the brain
    left_out : id → why a unit of the story has no row
    """

    X: Mapping[str, np.ndarray]
    Y: Mapping[float, np.ndarray]
    ids: np.ndarray
    run: np.ndarray
    scans: np.ndarray
    subject: str
    space: Space
    left_out: Mapping[str, str]

    def __post_init__(self) -> None:
        n, whose = len(self.ids), f"The design of subject '{self.subject}'"
        for name, rows in (("run", self.run), ("scans", self.scans)):
            if len(rows) != n:
                raise AlignmentError(
                    f"{whose} has {n:,} ids, but {name} has {len(rows):,} rows: each id needs one row."
                )
        if np.shape(self.scans) != (n, 2):
            raise AlignmentError(
                f"{whose}: scans are (n_rows, 2), the first and the last of each row, not {np.shape(self.scans)}."
            )
        if len(set(np.asarray(self.ids).tolist())) != n:
            names, counts = np.unique(np.asarray(self.ids), return_counts=True)
            raise AlignmentError(
                f"{whose}: two rows are called '{names[counts > 1][0]}'; rows are matched by id."
            )
        # arrays that are computed when they are looked up are made with these rows
        for name, x in () if isinstance(self.X, LazyMapping) else self.X.items():
            _check_shape(x, n, None, f"{whose}: X of '{name}'")
        for delay, y in () if isinstance(self.Y, LazyMapping) else self.Y.items():
            _check_shape(y, n, self.space.n_targets, f"{whose}: Y at {delay:g} s")

    @property
    def delays(self) -> tuple[float, ...]:
        """The candidate delays, in seconds."""
        return tuple(self.Y)


def align_sentences(
    story: Story,
    features: Mapping[str, Features],
    recordings: Sequence[Recording],
    delays: Sequence[float] | None = None,
    short: str = "error",
) -> Design:
    """Make one row per sentence: its features, and the mean response over its window, shifted by a delay.

    Parameters
    ----------
    story : whose sentences become rows; only the runs that were recorded
    features : word or sentence tables; words are merged into sentences
    recordings : the runs of one subject
    delays : candidates, in seconds, whole multiples of the TR; all from 4 to 10 s when None
    short : what to do when a story outlasts its scans: "error", or "trim" to leave those sentences out

    Notes
    -----
    A sentence whose window, shifted by the longest delay, is less than half covered by scans has no row at
    any delay, and is listed in `left_out`: all delays are compared on the same rows.
    """
    story, recordings = _match_runs(story, recordings, short)
    tr = recordings[0].tr
    candidates = candidate_delays(tr) if delays is None else tuple(float(d) for d in delays)
    if not candidates:
        raise AlignmentError(
            f"There is no whole multiple of the TR ({tr:g} s) from 4 to 10 s. Set design.delays."
        )
    sentences = story.sentences
    runs = [_sentence_rows(sentences, recording, candidates) for recording in recordings]
    covered = np.concatenate([run.covered for run in runs])
    dropped = np.concatenate([run.dropped for run in runs])
    ids = sentences.ids[covered]

    def y(delay: object) -> np.ndarray:
        weights = [run.weights[float(delay)] for run in runs]  # type: ignore[arg-type]  # keys are floats
        parts = zip(weights, recordings, strict=True)
        return np.concatenate([(w.astype(np.float32) @ r.values) for w, r in parts])

    return Design(
        X=LazyMapping(tuple(features), _sentence_features(story, features, ids)),  # type: ignore[arg-type]  # its keys are names
        Y=LazyMapping(candidates, y),  # type: ignore[arg-type]  # its keys are delays
        ids=ids,
        run=sentences.run[covered],
        scans=np.concatenate([run.scans for run in runs]),
        subject=recordings[0].subject,
        space=recordings[0].space,
        left_out={str(i): "its delayed window lies outside the scans" for i in sentences.ids[dropped]},
    )


class _SentenceRows(NamedTuple):
    """The sentences of one recording.

    Attributes
    ----------
    covered, dropped : rows of the story's sentences that have scans at every delay, and that do not
    weights : delay (s) → (n_covered, n_scans), which average scans over each sentence's delayed window
    scans : (n_covered, 2) first and last scan of each window at the first delay
    """

    covered: np.ndarray
    dropped: np.ndarray
    weights: dict[float, sparse.csr_array]
    scans: np.ndarray


def _sentence_rows(sentences: Units, recording: Recording, delays: Sequence[float]) -> _SentenceRows:
    """Find the sentences of a recording that its scans cover at every delay."""
    rows = np.flatnonzero(sentences.run == recording.run)
    windows = {}
    for d in delays:
        delay_in_scans(d, recording.tr, recording.run)
        windows[d] = window_weights(
            sentences.onset[rows] + d, sentences.duration[rows], recording.onset, recording.tr
        )
    covered = np.min([share for _, share in windows.values()], axis=0) >= 0.5
    if not covered.any():
        raise AlignmentError(
            f"Run '{recording.run}' of subject '{recording.subject}': no sentence has scans at a delay of up to {max(delays):g} s. "
            "Check recording.stimulus_onset and recording.tr."
        )
    weights = {d: window[covered] for d, (window, _) in windows.items()}
    first = weights[delays[0]]
    scans = np.array([[s.min(), s.max()] for s in np.split(first.indices, first.indptr[1:-1])])
    return _SentenceRows(rows[covered], rows[~covered], weights, scans)


def _sentence_features(
    story: Story, features: Mapping[str, Features], ids: np.ndarray
) -> Callable[[object], np.ndarray]:
    """Return the function that reads the sentence rows `ids` of a feature space by name."""

    def x(name: object) -> np.ndarray:
        table = features[str(name)].to_sentences(story)
        return np.asarray(table.values[table.find_rows(ids)])

    return x


def align_responses(story: Story, features: Mapping[str, Features], responses: Sequence[Responses]) -> Design:
    """Make one row per sentence with a response of its own: there is no clock, and rows are matched by id alone.

    Parameters
    ----------
    story : whose sentences became trials
    features : word or sentence tables; words are merged into sentences
    responses : of one subject

    Returns
    -------
    Design, whose rows are in the story's order; no two of them share a scan
    """
    sentences = story.sentences
    subject, space = responses[0].subject, responses[0].space
    rows, order = _response_rows(sentences, responses)
    ids = sentences.ids[rows]

    def y(_: object) -> np.ndarray:
        return np.asarray(np.concatenate([r.values for r in responses])[order])

    scan = np.arange(len(rows)) * SCANS_APART
    return Design(
        X=LazyMapping(tuple(features), _sentence_features(story, features, ids)),  # type: ignore[arg-type]  # its keys are names
        Y=LazyMapping((0.0,), y),  # type: ignore[arg-type]  # its keys are delays
        ids=ids,
        run=sentences.run[rows],
        scans=np.stack([scan, scan], axis=1),
        subject=subject,
        space=space,
        left_out={str(i): "it has no response" for i in sentences.ids[~np.isin(sentences.ids, ids)]},
    )


def _response_rows(sentences: Units, responses: Sequence[Responses]) -> tuple[np.ndarray, np.ndarray]:
    """Match responses to sentences by id.

    Returns
    -------
    rows : (n_rows,) sentences with a response, in the story's order
    order : (n_rows,) the row of each of them among all responses
    """
    where = {name: i for i, name in enumerate(sentences.ids.tolist())}
    subject, space = responses[0].subject, responses[0].space
    place: dict[int, int] = {}
    for r in responses:
        if not r.space.same_as(space):
            raise AlignmentError(f"Run '{r.run}' has other targets than run '{responses[0].run}'.")
        for name in r.ids.tolist():
            if name not in where:
                raise AlignmentError(
                    f"Subject '{subject}' has a response to '{name}', but the story has no such unit."
                )
            if where[name] in place:
                raise AlignmentError(
                    f"Subject '{subject}' has two responses to '{name}'. Average them first."
                )
            place[where[name]] = len(place)
    rows = np.array(sorted(place), dtype=np.intp)
    return rows, np.array([place[i] for i in rows.tolist()], dtype=np.intp)


def align_scans(
    story: Story,
    features: Mapping[str, Features],
    recordings: Sequence[Recording],
    response: Delays | HRF | None = None,
    short: str = "error",
    trim: tuple[float, float] = (0.0, 0.0),
) -> Design:
    """Make one row per scan, from the story's first word to the end of the response to its last word.

    Parameters
    ----------
    story, features, recordings : as in `align_sentences`
    response : `HRF()` when None
    short : what to do when a story outlasts its scans: "error", or "trim"
    trim : seconds to leave out after the story's first word, and before its last row

    Notes
    -----
    With `Delays`, word features are first binned into scans by their `combine` (means are centred on the run's
    mean, which scans without words then have; sums count), then shifted. No delay crosses a run.
    """
    story, recordings = _match_runs(story, recordings, short)
    response = response or HRF()
    runs = [_scan_rows(story, recording, response, trim) for recording in recordings]

    def x(name: object) -> np.ndarray:
        table = _match_rows(features[str(name)], story, words=isinstance(response, Delays))
        return np.concatenate([regressors(table) for regressors, _ in runs])

    def y(_: object) -> np.ndarray:
        return np.concatenate([r.values[rows] for r, (_, rows) in zip(recordings, runs, strict=True)])

    if isinstance(response, Delays):
        reach = max(delay_in_scans(d, recordings[0].tr, recordings[0].run) for d in response.seconds)
    else:
        reach = int(np.ceil(HRF_REACH / recordings[0].tr))
    numbers = [rows for _, rows in runs]
    return Design(
        X=LazyMapping(tuple(features), x),  # type: ignore[arg-type]  # its keys are names
        Y=LazyMapping((0.0,), y),  # type: ignore[arg-type]  # its keys are delays
        ids=np.concatenate(
            [[f"{r.run}/scan-{i:04d}" for i in rows] for r, rows in zip(recordings, numbers, strict=True)]
        ),
        run=np.concatenate([np.full(len(rows), r.run) for r, rows in zip(recordings, numbers, strict=True)]),
        scans=np.concatenate([np.stack([np.maximum(rows - reach, 0), rows], axis=1) for rows in numbers]),
        subject=recordings[0].subject,
        space=recordings[0].space,
        left_out={},
    )


def _scan_rows(
    story: Story, recording: Recording, response: Delays | HRF, trim: tuple[float, float]
) -> tuple[Callable[[Features], np.ndarray], np.ndarray]:
    """Return the function that computes the regressors of one run from features, and the scans that are its rows."""
    words = story.run == recording.run
    begin = float(story.onset[words].min())
    finish = float((story.onset[words] + story.duration[words]).max())
    tail = max(response.seconds, default=0.0) if isinstance(response, Delays) else 10.0
    # scans that overlap the story, or the response to its last word
    inside = (recording.onset + recording.tr > begin + trim[0]) & (recording.onset < finish + tail - trim[1])
    rows = np.flatnonzero(inside)
    if len(rows) == 0:
        raise AlignmentError(
            f"Run '{recording.run}' of subject '{recording.subject}': no scan falls into the story ({begin:g} to {finish:g} s; "
            f"the scans last from {recording.onset[0]:g} to {recording.end:g} s). Check recording.stimulus_onset and design.trim."
        )

    def shift(table: Features, seconds: tuple[float, ...]) -> np.ndarray:
        here = table.run == recording.run
        lags = tuple(delay_in_scans(d, recording.tr, recording.run) for d in seconds)
        weights, filled = bin_weights(
            table.onset[here], table.duration[here], recording.onset, recording.tr, table.combine
        )
        binned = weights @ np.asarray(table.values[here], dtype=np.float64)
        if table.combine != "sum":
            binned[filled] -= binned[filled].mean(axis=0)
        delayed = lag_rows(binned, lags, np.full(len(binned), recording.run))
        return delayed[rows]

    def convolve(table: Features, kernel: str | Callable[[float, int], np.ndarray]) -> np.ndarray:
        here = table.run == recording.run
        values = np.asarray(table.values[here], dtype=np.float64)
        shape = "impulse" if table.combine == "sum" else "boxcar"
        if shape == "boxcar":
            # silence gets the mean, not 0: otherwise a feature with a large mean mostly says that somebody speaks
            values = values - np.average(values, axis=0, weights=impulse_durations(table.duration[here]))
        weights = hrf_weights(table.onset[here], table.duration[here], recording.time[rows], kernel, shape)
        return np.asarray(weights @ values)

    if isinstance(response, Delays):
        return (lambda table: shift(table, response.seconds)), rows
    return (lambda table: convolve(table, response.kernel)), rows


def _match_runs(story: Story, recordings: Sequence[Recording], short: str) -> tuple[Story, list[Recording]]:
    """Select the runs that are in story and recordings, in the story's order, and check that they belong together."""
    by_run = {r.run: r for r in recordings}
    if len(by_run) != len(recordings):
        raise AlignmentError(f"Subject '{recordings[0].subject}' has two recordings of one run.")
    wordless = [run for run in by_run if run not in story.runs]
    if wordless:
        raise AlignmentError(
            f"Run '{wordless[0]}' of subject '{recordings[0].subject}' was recorded, but the story has no words for it. Its runs are: {', '.join(story.runs)}."
        )
    runs = [run for run in story.runs if run in by_run]
    if not runs:
        raise AlignmentError("No run has both words and a recording.")
    first = by_run[runs[0]]
    for run in runs[1:]:
        if abs(by_run[run].tr - first.tr) > 1e-6:
            raise AlignmentError(
                f"Run '{run}' has a TR of {by_run[run].tr:g} s but run '{runs[0]}' {first.tr:g} s. Fit them separately."
            )
        if not by_run[run].space.same_as(first.space):
            raise AlignmentError(f"Run '{run}' has other targets than run '{runs[0]}'.")
    story = story.take(runs)
    end = np.array([by_run[run].end for run in story.run.tolist()])
    late = story.onset + story.duration > end + first.tr
    if late.any() and short == "error":
        run = str(story.run[late][0])
        late &= story.run == run
        last = float((story.onset + story.duration)[story.run == run].max())
        raise AlignmentError(
            f"The story of run '{run}' lasts until {last:.1f} s, but the recording of subject '{first.subject}' ends at {by_run[run].end:.1f} s: "
            f'{int(late.sum())} words have no scan. Check tr and stimulus_onset, or leave them out with design.short = "trim".'
        )
    return story, [by_run[run] for run in runs]


def _match_rows(table: Features, story: Story, words: bool) -> Features:
    """Sort a table into the story's order by id; with `words`, repeat a sentence's values for each of its words."""
    has_sentences = bool(np.isin(story.sentences.ids, table.ids).any())
    units = story.words if words or not has_sentences else story.sentences
    ids = story.sentence if words and has_sentences else units.ids
    values = np.asarray(table.values)[table.find_rows(ids)]
    return Features(table.name, units.ids, units.onset, units.duration, units.run, values, table.combine)
