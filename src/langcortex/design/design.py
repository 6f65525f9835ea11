"""The one place where story and scanner meet. After it there are rows, columns and runs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from langcortex.brain.recording import Recording, Responses
from langcortex.brain.space import Space
from langcortex.brain.timing import (
    bin_weights,
    candidate_delays,
    delay_in_scans,
    hrf_weights,
    lag_rows,
    window_weights,
)
from langcortex.errors import AlignmentError
from langcortex.features.table import Features
from langcortex.stimulus.story import Story

APART = 10_000  # pieces that are answered one by one share no scans: no gap between folds reaches the next
HRF_REACH = 20.0  # seconds after which nearly all of a haemodynamic response is over


@dataclass(frozen=True)
class Delays:
    """Finite impulse response: each scan is explained by what was heard these many seconds before it.

    Attributes
    ----------
    seconds : whole multiples of the TR
    """

    seconds: tuple[float, ...]


@dataclass(frozen=True)
class HRF:
    """Convolution with a haemodynamic response: "glover", "spm", or a function like nilearn's kernels.

    Words are boxcars of their features' values, centred on the run's mean so that silence is average; counts are
    impulses at word onsets.
    """

    kernel: str | Callable[[float, int], np.ndarray] = "glover"


@dataclass(frozen=True)
class Lazy(Mapping[object, np.ndarray]):
    """Arrays by name, each made when asked for."""

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


@dataclass(frozen=True, eq=False)
class Design:
    """Rows for one subject: features and responses that met by name.

    Attributes
    ----------
    X : feature space → (n_rows, n_features); control spaces serve as confounds too
    Y : candidate delay (s) → (n_rows, n_targets) float32; one entry, 0.0, where delays live in X
    ids : (n_rows,) e.g. ``"section1/sentence-040"`` or ``"section1/scan-0042"``
    run : (n_rows,), the rows of a run together
    scans : (n_rows, 2) the first and last scan of its run that a row rests on
    subject : name
    space : where the targets lie
    left_out : id → why a piece of the story has no row
    """

    X: Mapping[str, np.ndarray]
    Y: Mapping[float, np.ndarray]
    ids: np.ndarray
    run: np.ndarray
    scans: np.ndarray
    subject: str
    space: Space
    left_out: Mapping[str, str]

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
    """Make a row of every sentence: its features, and the mean response over its window, moved by a delay.

    Parameters
    ----------
    story : whose sentences become rows; only the runs that were recorded
    features : word or sentence tables; words are merged into sentences
    recordings : the runs of one subject
    delays : candidates, in seconds, whole multiples of the TR; every one from 4 to 10 s when None
    short : what to do when a story outlasts its scans: "error", or "trim" to leave those sentences out

    Notes
    -----
    A sentence whose window, moved by the longest delay, is less than half covered by scans has no row at
    any delay, and is listed in `left_out`: all delays are compared on the same rows.
    """
    story, recordings = _same_runs(story, recordings, short)
    tr = recordings[0].tr
    candidates = candidate_delays(tr) if delays is None else tuple(float(d) for d in delays)
    if not candidates:
        raise AlignmentError(
            f"There is no whole multiple of the TR ({tr:g} s) from 4 to 10 s. Give design.delays."
        )
    sentences = story.sentences
    weights: dict[float, list[sparse.csr_array]] = {d: [] for d in candidates}
    kept, spans, left_out = [], [], {}
    for recording in recordings:
        rows = np.flatnonzero(sentences.run == recording.run)
        windows = {}
        for d in candidates:
            delay_in_scans(d, recording.tr, recording.run)
            windows[d] = window_weights(
                sentences.onset[rows] + d, sentences.duration[rows], recording.onset, recording.tr
            )
        covered = np.min([share for _, share in windows.values()], axis=0) >= 0.5
        for i in np.flatnonzero(~covered):
            left_out[str(sentences.ids[rows[i]])] = "its delayed window lies outside the scans"
        if not covered.any():
            raise AlignmentError(
                f"Run '{recording.run}' of subject '{recording.subject}': no sentence has scans at a delay of up to {max(candidates):g} s. "
                "Check recording.stimulus_onset and recording.tr."
            )
        for d in candidates:
            weights[d].append(windows[d][0][covered])
        kept.append(rows[covered])
        first = windows[candidates[0]][0][covered]
        spans.append(
            np.array([[scans.min(), scans.max()] for scans in np.split(first.indices, first.indptr[1:-1])])
        )
    chosen = np.concatenate(kept)
    ids = sentences.ids[chosen]

    def x(name: object) -> np.ndarray:
        table = features[str(name)].over_sentences(story)
        return np.asarray(table.values[table.rows_of(ids)])

    def y(delay: object) -> np.ndarray:
        parts = zip(weights[float(delay)], recordings, strict=True)  # type: ignore[arg-type]  # keys are floats
        return np.concatenate([(w.astype(np.float32) @ r.values) for w, r in parts])

    return Design(
        X=Lazy(tuple(features), x),  # type: ignore[arg-type]  # a Lazy of names is a mapping of names
        Y=Lazy(candidates, y),  # type: ignore[arg-type]  # a Lazy of delays is a mapping of delays
        ids=ids,
        run=sentences.run[chosen],
        scans=np.concatenate(spans),
        subject=recordings[0].subject,
        space=recordings[0].space,
        left_out=left_out,
    )


def align_responses(story: Story, features: Mapping[str, Features], responses: Sequence[Responses]) -> Design:
    """Make a row of every piece of text that was answered: there is no clock, and rows meet by id alone.

    Parameters
    ----------
    story : whose sentences are the pieces
    features : word or sentence tables; words are merged into sentences
    responses : of one subject

    Returns
    -------
    Design, whose rows lie in the story's order; no two of them rest on one scan
    """
    sentences = story.sentences
    where = {name: i for i, name in enumerate(sentences.ids.tolist())}
    subject, space = responses[0].subject, responses[0].space
    place, row = {}, 0
    for r in responses:
        if not r.space.same_as(space):
            raise AlignmentError(f"Run '{r.run}' has other targets than run '{responses[0].run}'.")
        for name in r.ids.tolist():
            if name not in where:
                raise AlignmentError(
                    f"Subject '{subject}' has a response to '{name}', but the story has no such piece."
                )
            if where[name] in place:
                raise AlignmentError(
                    f"Subject '{subject}' has two responses to '{name}'. Average them first."
                )
            place[where[name]] = row
            row += 1
    rows = np.array(sorted(place), dtype=np.intp)
    order = np.array([place[i] for i in rows.tolist()], dtype=np.intp)
    ids = sentences.ids[rows]

    def x(name: object) -> np.ndarray:
        table = features[str(name)].over_sentences(story)
        return np.asarray(table.values[table.rows_of(ids)])

    def y(_: object) -> np.ndarray:
        return np.asarray(np.concatenate([r.values for r in responses])[order])

    apart = np.arange(len(rows)) * APART
    return Design(
        X=Lazy(tuple(features), x),  # type: ignore[arg-type]  # a Lazy of names is a mapping of names
        Y=Lazy((0.0,), y),  # type: ignore[arg-type]  # a Lazy of delays is a mapping of delays
        ids=ids,
        run=sentences.run[rows],
        scans=np.stack([apart, apart], axis=1),
        subject=subject,
        space=space,
        left_out={str(i): "it has no response" for i in sentences.ids[~np.isin(sentences.ids, ids)]},
    )


def align_scans(
    story: Story,
    features: Mapping[str, Features],
    recordings: Sequence[Recording],
    response: Delays | HRF | None = None,
    short: str = "error",
    trim: tuple[float, float] = (0.0, 0.0),
) -> Design:
    """Make a row of every scan, from the story's first word to the end of its last word's response.

    Parameters
    ----------
    story, features, recordings : as in `align_sentences`
    response : `HRF()` when None
    short : what to do when a story outlasts its scans: "error", or "trim"
    trim : leave out this many seconds after the story's first word, and before its last row

    Notes
    -----
    With `Delays`, word features are first gathered into scans (by their `combine`: a mean is centred on the
    run's mean, so that a scan without words is average; a sum counts), then shifted. No delay crosses a run.
    """
    story, recordings = _same_runs(story, recordings, short)
    response = response or HRF()
    plans = [_scan_plan(story, recording, response, trim) for recording in recordings]

    def x(name: object) -> np.ndarray:
        table = _matched(features[str(name)], story, words=isinstance(response, Delays))
        return np.concatenate([plan(table) for plan, _ in plans])

    def y(_: object) -> np.ndarray:
        return np.concatenate([r.values[rows] for r, (_, rows) in zip(recordings, plans, strict=True)])

    if isinstance(response, Delays):
        reach = max(delay_in_scans(d, recordings[0].tr, recordings[0].run) for d in response.seconds)
    else:
        reach = int(np.ceil(HRF_REACH / recordings[0].tr))
    numbers = [rows for _, rows in plans]
    return Design(
        X=Lazy(tuple(features), x),  # type: ignore[arg-type]  # a Lazy of names is a mapping of names
        Y=Lazy((0.0,), y),  # type: ignore[arg-type]  # a Lazy of delays is a mapping of delays
        ids=np.concatenate(
            [[f"{r.run}/scan-{i:04d}" for i in rows] for r, rows in zip(recordings, numbers, strict=True)]
        ),
        run=np.concatenate([np.full(len(rows), r.run) for r, rows in zip(recordings, numbers, strict=True)]),
        scans=np.concatenate([np.stack([np.maximum(rows - reach, 0), rows], axis=1) for rows in numbers]),
        subject=recordings[0].subject,
        space=recordings[0].space,
        left_out={},
    )


def _scan_plan(
    story: Story, recording: Recording, response: Delays | HRF, trim: tuple[float, float]
) -> tuple[Callable[[Features], np.ndarray], np.ndarray]:
    """Prepare one run: a function from features to rows, and the scans those rows are."""
    words = story.run == recording.run
    begin = float(story.onset[words].min())
    finish = float((story.onset[words] + story.duration[words]).max())
    tail = max(response.seconds, default=0.0) if isinstance(response, Delays) else 10.0
    # a scan takes part if it overlaps the story, or the response that follows it
    inside = (recording.onset + recording.tr > begin + trim[0]) & (recording.onset < finish + tail - trim[1])
    rows = np.flatnonzero(inside)
    if len(rows) == 0:
        raise AlignmentError(
            f"Run '{recording.run}' of subject '{recording.subject}': no scan falls into the story ({begin:g} to {finish:g} s; "
            f"the scans last from {recording.onset[0]:g} to {recording.end:g} s). Check recording.stimulus_onset and design.trim."
        )

    def by_delay(table: Features, seconds: tuple[float, ...]) -> np.ndarray:
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

    def by_kernel(table: Features, kernel: str | Callable[[float, int], np.ndarray]) -> np.ndarray:
        here = table.run == recording.run
        values = np.asarray(table.values[here], dtype=np.float64)
        shape = "impulse" if table.combine == "sum" else "boxcar"
        if shape == "boxcar":
            # silence is average, not 0: otherwise a feature with a large mean is a copy of "somebody speaks"
            values = values - np.average(values, axis=0, weights=np.maximum(table.duration[here], 1e-9))
        weights = hrf_weights(table.onset[here], table.duration[here], recording.time[rows], kernel, shape)
        return np.asarray(weights @ values)

    if isinstance(response, Delays):
        return (lambda table: by_delay(table, response.seconds)), rows
    return (lambda table: by_kernel(table, response.kernel)), rows


def _same_runs(story: Story, recordings: Sequence[Recording], short: str) -> tuple[Story, list[Recording]]:
    """Keep the runs that were both heard and recorded, in the story's order, and check that they fit."""
    by_run = {r.run: r for r in recordings}
    if len(by_run) != len(recordings):
        raise AlignmentError(f"Subject '{recordings[0].subject}' has two recordings of one run.")
    silent = [run for run in by_run if run not in story.runs]
    if silent:
        raise AlignmentError(
            f"Run '{silent[0]}' of subject '{recordings[0].subject}' was recorded, but the story has no words for it. Its runs are: {', '.join(story.runs)}."
        )
    runs = [run for run in story.runs if run in by_run]
    if not runs:
        raise AlignmentError("No run was both heard and recorded.")
    first = by_run[runs[0]]
    for run in runs[1:]:
        if abs(by_run[run].tr - first.tr) > 1e-6:
            raise AlignmentError(
                f"Run '{run}' has a TR of {by_run[run].tr:g} s but run '{runs[0]}' {first.tr:g} s. Fit them apart."
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


def _matched(table: Features, story: Story, words: bool) -> Features:
    """Bring a table to the story's order by id; with `words`, give every word the value of its sentence."""
    of_sentences = bool(np.isin(story.sentences.ids, table.ids).any())
    pieces = story.words if words or not of_sentences else story.sentences
    ids = story.sentence if words and of_sentences else pieces.ids
    values = np.asarray(table.values)[table.rows_of(ids)]
    return Features(table.name, pieces.ids, pieces.onset, pieces.duration, pieces.run, values, table.combine)
