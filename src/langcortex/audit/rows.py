"""The rows of a study and the folds over them, for its audit: no responses, no features."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from langcortex.brain.recording import Cleaning, Recording
from langcortex.brain.space import Space
from langcortex.datasets import Corpus
from langcortex.design.design import Design
from langcortex.encoding.protocol import PUBLISHED, Fold, Protocol, outer_folds
from langcortex.encoding.replication.recipe import DELAYS, select_units
from langcortex.errors import FitError
from langcortex.stimulus.story import Story, Units
from langcortex.study.settings import Study
from langcortex.study.subject import Runs, align_subject, read_subject

LEAST_WORDS = 4  # shorter sentences are repeated in any story
FEWEST = 20  # units that the recipe needs in a run


@dataclass(frozen=True, eq=False)
class StudyRows:
    """Rows of one subject and the folds over them.

    Attributes
    ----------
    ids, run : (n_rows,)
    scans : (n_rows, 2) the first and last scan of its run that a row depends on
    when : (n_rows,) seconds on the story's clock; NaN where rows have none
    folds : training and test row numbers
    tr : seconds
    kind : "text" (rows are units of text), "scans", or "answers" (responses without a clock)
    sentences : of the story, to look for repeated text
    spread : confound → its 10th and 90th percentile over the rows
    left_out : id → why a unit of text has no row
    n_targets : number of targets, where recordings were read; None otherwise
    """

    ids: np.ndarray
    run: np.ndarray
    scans: np.ndarray
    when: np.ndarray
    folds: tuple[Fold, ...]
    tr: float
    kind: str
    sentences: Units
    spread: Mapping[str, tuple[float, float]]
    left_out: Mapping[str, str]
    n_targets: int | None = None

    def cut_runs(self) -> list[str]:
        """Return the runs that have training rows and test rows in the same fold."""
        cut: set[str] = set()
        for fold in self.folds:
            cut |= set(self.run[fold.train].tolist()) & set(self.run[fold.test].tolist())
        return [run for run in dict.fromkeys(self.run.tolist()) if run in cut]

    def overlaps(self) -> tuple[list[float], np.ndarray]:
        """Find test rows that share a scan with a training row.

        Returns
        -------
        the share of such test rows in each fold; (n_rows,) bool, which rows they are
        """
        hit = np.zeros(len(self.ids), dtype=bool)
        shares = []
        for distance, fold in zip(self._distances, self.folds, strict=True):
            hit[fold.test] |= distance <= 0
            shares.append(float((distance <= 0).mean()))
        return shares, hit

    def seconds_apart(self) -> float:
        """Return the least time between the scans of a test row and of a training row of its run; NaN without a clock."""
        least = min(float(distance.min()) for distance in self._distances)
        return float("nan") if self.kind == "answers" else (least - 1) * self.tr

    def neighbours(self) -> float:
        """Return the share of neighbouring rows of a run that share a scan."""
        same_run = self.run[1:] == self.run[:-1]
        share = (self.scans[1:, 0] <= self.scans[:-1, 1])[same_run]
        return float(share.mean()) if len(share) else float("nan")

    def segment_sizes(self) -> dict[str, int]:
        """Count the rows of every test segment: of each run within each fold."""
        sizes: dict[str, int] = {}
        for k, fold in enumerate(self.folds):
            runs, counts = np.unique(self.run[fold.test], return_counts=True)
            cut = set(self.run[fold.train].tolist())
            for run, n in zip(runs.tolist(), counts.tolist(), strict=True):
                sizes[f"{run}, fold {k + 1}" if run in cut else run] = n
        return sizes

    def repeated_text(self) -> tuple[float, tuple[str, ...]]:
        """Find sentences that are in training rows and in test rows, word by word.

        Returns
        -------
        the share of such test sentences of four words and more, over all folds; the ids of the first few
        """
        text = [_plain_words(t) for t in self.sentences.text.tolist()]
        counted = np.array([len(t.split()) >= LEAST_WORDS for t in text]) & (self._row_of_sentence >= 0)
        number = {t: i for i, t in enumerate(dict.fromkeys(text))}
        numbers = np.array([number[t] for t in text])
        n_tested, n_repeated, first = 0, 0, list[str]()
        for fold in self.folds:
            role = np.zeros(len(self.ids), dtype=int)
            role[fold.train], role[fold.test] = 1, 2
            role_of_sentence = np.where(counted, role[self._row_of_sentence], 0)
            in_test = role_of_sentence == 2
            repeated = in_test & np.isin(numbers, numbers[role_of_sentence == 1])
            n_tested, n_repeated = n_tested + int(in_test.sum()), n_repeated + int(repeated.sum())
            first += self.sentences.ids[repeated].tolist()
        return (n_repeated / n_tested if n_tested else 0.0), tuple(first[:3])

    @cached_property
    def _distances(self) -> list[np.ndarray]:
        """The distance in scans of each test row from the nearest training row of its run, by fold; at most 0 where they overlap."""
        return [self._distance(fold) for fold in self.folds]

    def _distance(self, fold: Fold) -> np.ndarray:
        out = np.full(len(fold.test), np.inf)
        for run in set(self.run[fold.test].tolist()) & set(self.run[fold.train].tolist()):
            in_run = self.run[fold.test] == run
            train = self.scans[fold.train[self.run[fold.train] == run]]
            train = train[np.argsort(train[:, 0], kind="stable")]
            ends = np.maximum.accumulate(train[:, 1]).astype(float)
            first, last = self.scans[fold.test[in_run]].astype(float).T
            before = np.searchsorted(train[:, 0], last, side="right")
            behind = np.where(before > 0, first - ends[np.maximum(before - 1, 0)], np.inf)
            ahead = np.where(before < len(train), train[np.minimum(before, len(train) - 1), 0] - last, np.inf)
            out[in_run] = np.minimum(behind, ahead)
        return out

    @cached_property
    def _row_of_sentence(self) -> np.ndarray:
        """The row of each sentence, or the row nearest to its middle; −1 where its run has none."""
        by_id = {name: i for i, name in enumerate(self.ids.tolist())}
        out = np.array([by_id.get(name, -1) for name in self.sentences.ids.tolist()])
        if (out >= 0).any():
            return out
        middle = self.sentences.onset + self.sentences.duration / 2
        for run in set(self.run.tolist()):
            rows, sentences = np.flatnonzero(self.run == run), np.flatnonzero(self.sentences.run == run)
            positions = np.searchsorted(self.when[rows], middle[sentences], side="right") - 1
            out[sentences] = rows[np.maximum(positions, 0)]
        return out


def study_rows(
    study: Study, protocol: Protocol, corpus: Corpus, story: Story, pieces: Story, subject: str
) -> StudyRows:
    """Make the rows of one subject as the study does, from headers alone where the corpus has them.

    Parameters
    ----------
    story : as models read it
    pieces : the same in the study's rows, with this subject's times
    """
    if protocol.is_published:
        return _recipe_rows(story, read_subject(corpus, subject), study.protocol.row_shift)
    recordings = read_headers(corpus, subject)
    design = align_subject(study, pieces, {}, recordings)
    kind = (
        "answers"
        if not isinstance(recordings[0], Recording)
        else "scans"
        if study.design.rows == "scans"
        else "text"
    )
    folds = outer_folds(design.run, design.scans, protocol)
    when, spread = _times(design, pieces, recordings, kind)
    tr = recordings[0].tr if isinstance(recordings[0], Recording) else float("nan")
    return StudyRows(
        design.ids, design.run, design.scans, when, tuple(folds), tr, kind, story.sentences, spread, design.left_out
    )  # fmt: skip


def read_headers(corpus: Corpus, subject: str) -> Runs:
    """Return a subject's runs with their clocks and no targets, or complete where a corpus has no headers."""
    headers = corpus.inventory(subject) if hasattr(corpus, "inventory") else {}
    if not headers or any(not tr or not np.isfinite(began) for _, tr, began in headers.values()):
        return read_subject(corpus, subject)
    no_targets = Space("columns", np.empty(0, dtype=str))
    return [
        Recording(np.empty((n, 0), np.float32), np.arange(n) * tr - began, tr, run, subject, no_targets)
        for run, (n, tr, began) in headers.items()
    ]


def describe_cleaning(corpus: Corpus) -> Cleaning:
    """Return the cleaning of a corpus's recordings, with the study's settings; none where the corpus does not tell it."""
    default = getattr(corpus, "default_cleaning", Cleaning(detrend=False, high_pass=None, standardise=False))
    reading = getattr(corpus, "reading", None)
    return replace(default, **reading.cleaning) if reading is not None else default


def recipe_units(story: Story) -> dict[str, np.ndarray]:
    """Return the units of each run that the published extraction keeps, by their words alone: run → (n_units,) bool."""
    sentences = story.sentences
    texts = sentences.text.tolist()
    units = select_units(texts, [text.lower().split() for text in texts])
    return {run: units[sentences.run == run] for run in story.runs}


def _times(
    design: Design, pieces: Story, recordings: Runs, kind: str
) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
    """Return the time of every row, and the spread of durations and word counts over rows."""
    s = pieces.sentences
    if kind == "scans":
        onset = {r.run: r.onset for r in recordings if isinstance(r, Recording)}
        when = np.array(
            [onset[run][i] for run, i in zip(design.run.tolist(), design.scans[:, 1].tolist(), strict=True)]
        )
        words = [
            np.histogram(pieces.onset[pieces.run == run], when[design.run == run])[0]
            for run in dict.fromkeys(design.run.tolist())
        ]
        return when, {"word_count": _tenths(np.concatenate(words))}
    position = {name: i for i, name in enumerate(s.ids.tolist())}
    rows = np.array([position[name] for name in design.ids.tolist()])
    spread = {"word_count": _tenths(s.n_words[rows]), "duration": _tenths(s.duration[rows])}
    return s.onset[rows], spread


def _tenths(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [10, 90]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def _recipe_rows(story: Story, recordings: Runs, row_shift: bool) -> StudyRows:
    """Make the rows of the published recipe: every run by itself, in five shuffled folds."""
    from sklearn.model_selection import KFold

    sentences, units_of_run = story.sentences, recipe_units(story)
    rows, scans, folds, n = [], [], [], 0
    tr, n_targets = float("nan"), None
    for recording in recordings:
        if not isinstance(recording, Recording) or recording.run not in units_of_run:
            continue
        units, in_run = units_of_run[recording.run], np.flatnonzero(sentences.run == recording.run)
        paired = in_run if row_shift else in_run[units]
        window = _windows(sentences, paired, recording)[: int(units.sum())]
        if len(window) < FEWEST:
            continue
        tr, n_targets = recording.tr, recording.space.n_targets
        for train, test in KFold(n_splits=5, shuffle=True, random_state=42).split(window):
            folds.append(Fold(train + n, test + n))
        rows.append(paired[: len(window)])
        scans.append(window)
        n += len(window)
    if not rows:
        raise FitError(
            f"The preset '{PUBLISHED}' needs {FEWEST} units with scans in a run; no run has so many."
        )
    chosen = np.concatenate(rows)
    spread = {
        "word_count": _tenths(sentences.n_words[chosen]),
        "duration": _tenths(sentences.duration[chosen]),
    }
    return StudyRows(
        sentences.ids[chosen], sentences.run[chosen], np.concatenate(scans), sentences.onset[chosen],
        tuple(folds), tr, "text", sentences, spread, {}, n_targets,
    )  # fmt: skip


def _windows(sentences: Units, rows: np.ndarray, recording: Recording) -> np.ndarray:
    """Return the first and last scan of each unit at the recipe's first delay, up to the first unit without scans."""
    begin = sentences.onset[rows] - recording.onset[0] + DELAYS[0]
    first = (begin / recording.tr).astype(int)
    last = ((begin + sentences.duration[rows]) / recording.tr).astype(int)
    too_late = np.flatnonzero(first >= len(recording.onset))
    stop = int(too_late[0]) if len(too_late) else len(rows)
    return np.stack([first, np.minimum(last, len(recording.onset) - 1)], axis=1)[:stop]


def _plain_words(text: str) -> str:
    """Return a sentence in lower case and without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))
