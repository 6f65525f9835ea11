"""The rows a study would fit and how folds cut them, as an audit sees them: no responses, no features."""

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

LEAST_WORDS = 4  # shorter sentences are said again without anyone's learning them by heart
FEWEST = 20  # units the recipe needs in a run


@dataclass(frozen=True, eq=False)
class StudyRows:
    """Rows of one subject and the folds over them.

    Attributes
    ----------
    ids, run : (n_rows,)
    scans : (n_rows, 2) the first and last scan of its run that a row rests on
    when : (n_rows,) seconds on the story's clock; NaN where rows have none
    folds : training and test row numbers
    tr : seconds
    kind : "text" (rows are pieces of text), "scans", or "answers" (responses without a clock)
    sentences : of the story, to look for repeated text
    spread : confound → its 10th and 90th percentile over the rows
    left_out : id → why a piece has no row
    n_targets : how many, where recordings were read; None otherwise
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
        """Name the runs of which some rows are learnt from while others are tested on."""
        cut: set[str] = set()
        for fold in self.folds:
            cut |= set(self.run[fold.train].tolist()) & set(self.run[fold.test].tolist())
        return [run for run in dict.fromkeys(self.run.tolist()) if run in cut]

    def overlaps(self) -> tuple[list[float], np.ndarray]:
        """Find test rows that share a scan with a training row.

        Returns
        -------
        the share of test rows in each fold; (n_rows,) bool, whether a row does so when it is tested
        """
        hit = np.zeros(len(self.ids), dtype=bool)
        shares = []
        for distance, fold in zip(self._distances, self.folds, strict=True):
            hit[fold.test] |= distance <= 0
            shares.append(float((distance <= 0).mean()))
        return shares, hit

    def seconds_apart(self) -> float:
        """Give the least time between the scans of a test row and of a training row of its run; NaN without a clock."""
        least = min(float(distance.min()) for distance in self._distances)
        return float("nan") if self.kind == "answers" else (least - 1) * self.tr

    def neighbours(self) -> float:
        """Give the share of neighbouring rows of a run that share a scan."""
        together = self.run[1:] == self.run[:-1]
        share = (self.scans[1:, 0] <= self.scans[:-1, 1])[together]
        return float(share.mean()) if len(share) else float("nan")

    def piece_sizes(self) -> dict[str, int]:
        """Count the rows of every held-out piece, run by run within each fold."""
        out: dict[str, int] = {}
        for k, fold in enumerate(self.folds):
            runs, counts = np.unique(self.run[fold.test], return_counts=True)
            cut = set(self.run[fold.train].tolist())
            for run, n in zip(runs.tolist(), counts.tolist(), strict=True):
                out[f"{run}, fold {k + 1}" if run in cut else run] = n
        return out

    def repeated_text(self) -> tuple[float, tuple[str, ...]]:
        """Find sentences that stand word by word in training and test rows.

        Returns
        -------
        the share of test sentences of four words and more that do, over all folds; the ids of the first few
        """
        text = [_plain(t) for t in self.sentences.text.tolist()]
        counted = np.array([len(t.split()) >= LEAST_WORDS for t in text]) & (self._row_of_sentence >= 0)
        number = {t: i for i, t in enumerate(dict.fromkeys(text))}
        which = np.array([number[t] for t in text])
        tested, repeated, first = 0, 0, list[str]()
        for fold in self.folds:
            place = np.zeros(len(self.ids), dtype=int)
            place[fold.train], place[fold.test] = 1, 2
            of = np.where(counted, place[self._row_of_sentence], 0)
            again = (of == 2) & np.isin(which, which[of == 1])
            tested, repeated = tested + int((of == 2).sum()), repeated + int(again.sum())
            first += self.sentences.ids[again].tolist()
        return (repeated / tested if tested else 0.0), tuple(first[:3])

    @cached_property
    def _distances(self) -> list[np.ndarray]:
        """Give, for each fold, how many scans each test row is away from the nearest training row of its run; ≤ 0 shares some."""
        return [self._distance(fold) for fold in self.folds]

    def _distance(self, fold: Fold) -> np.ndarray:
        out = np.full(len(fold.test), np.inf)
        for run in set(self.run[fold.test].tolist()) & set(self.run[fold.train].tolist()):
            here = self.run[fold.test] == run
            train = self.scans[fold.train[self.run[fold.train] == run]]
            train = train[np.argsort(train[:, 0], kind="stable")]
            ends = np.maximum.accumulate(train[:, 1]).astype(float)
            first, last = self.scans[fold.test[here]].astype(float).T
            before = np.searchsorted(train[:, 0], last, side="right")
            behind = np.where(before > 0, first - ends[np.maximum(before - 1, 0)], np.inf)
            ahead = np.where(before < len(train), train[np.minimum(before, len(train) - 1), 0] - last, np.inf)
            out[here] = np.minimum(behind, ahead)
        return out

    @cached_property
    def _row_of_sentence(self) -> np.ndarray:
        """Give the row of each sentence, or the row nearest to its middle; −1 where its run has none."""
        by_id = {name: i for i, name in enumerate(self.ids.tolist())}
        out = np.array([by_id.get(name, -1) for name in self.sentences.ids.tolist()])
        if (out >= 0).any():
            return out
        middle = self.sentences.onset + self.sentences.duration / 2
        for run in set(self.run.tolist()):
            rows, mine = np.flatnonzero(self.run == run), np.flatnonzero(self.sentences.run == run)
            at = np.searchsorted(self.when[rows], middle[mine], side="right") - 1
            out[mine] = rows[np.maximum(at, 0)]
        return out


def study_rows(
    study: Study, protocol: Protocol, corpus: Corpus, story: Story, pieces: Story, subject: str
) -> StudyRows:
    """Make the rows of one subject as the study does, from headers alone where the corpus can give them.

    Parameters
    ----------
    story : as models read it
    pieces : the same with this subject's times, grouped into the study's rows
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
    """Give a subject's runs with their clocks and no targets, or whole where a corpus has no headers."""
    found = corpus.inventory(subject) if hasattr(corpus, "inventory") else {}
    if not found or any(not tr or not np.isfinite(began) for _, tr, began in found.values()):
        return read_subject(corpus, subject)
    nowhere = Space("columns", np.empty(0, dtype=str))
    return [
        Recording(np.empty((n, 0), np.float32), np.arange(n) * tr - began, tr, run, subject, nowhere)
        for run, (n, tr, began) in found.items()
    ]


def describe_cleaning(corpus: Corpus) -> Cleaning:
    """Give the cleaning of a corpus's recordings: its usual one, with what the study asks; none where it does not say."""
    usual = getattr(corpus, "default_cleaning", Cleaning(detrend=False, high_pass=None, standardise=False))
    reading = getattr(corpus, "reading", None)
    return replace(usual, **reading.cleaning) if reading is not None else usual


def dropped_units(story: Story) -> dict[str, np.ndarray]:
    """Say which units the published extraction keeps of each run, by their words alone: run → (n_units,) bool."""
    sentences = story.sentences
    texts = sentences.text.tolist()
    kept = select_units(texts, [text.lower().split() for text in texts])
    return {run: kept[sentences.run == run] for run in story.runs}


def _times(
    design: Design, pieces: Story, recordings: Runs, kind: str
) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
    """Give the time of every row, and how far durations and word counts spread over rows."""
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
    place = {name: i for i, name in enumerate(s.ids.tolist())}
    rows = np.array([place[name] for name in design.ids.tolist()])
    spread = {"word_count": _tenths(s.n_words[rows]), "duration": _tenths(s.duration[rows])}
    return s.onset[rows], spread


def _tenths(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [10, 90]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def _recipe_rows(story: Story, recordings: Runs, row_shift: bool) -> StudyRows:
    """Make the rows of the published recipe: every run by itself, in five shuffled folds."""
    from sklearn.model_selection import KFold

    sentences, keeps = story.sentences, dropped_units(story)
    rows, scans, folds, n = [], [], [], 0
    tr, n_targets = float("nan"), None
    for recording in recordings:
        if not isinstance(recording, Recording) or recording.run not in keeps:
            continue
        kept, here = keeps[recording.run], np.flatnonzero(sentences.run == recording.run)
        paired = here if row_shift else here[kept]
        window = _windows(sentences, paired, recording)[: int(kept.sum())]
        if len(window) < FEWEST:
            continue
        tr, n_targets = recording.tr, recording.space.n_targets
        for train, test in KFold(n_splits=5, shuffle=True, random_state=42).split(window):
            folds.append(Fold(train + n, test + n))
        rows.append(paired[: len(window)])
        scans.append(window)
        n += len(window)
    if not rows:
        raise FitError(f"The preset '{PUBLISHED}' needs {FEWEST} units with scans in a run; no run has them.")
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
    """Give the first and last scan of each unit at the recipe's first delay, up to the first without scans."""
    begin = sentences.onset[rows] - recording.onset[0] + DELAYS[0]
    first = (begin / recording.tr).astype(int)
    last = ((begin + sentences.duration[rows]) / recording.tr).astype(int)
    late = np.flatnonzero(first >= len(recording.onset))
    stop = int(late[0]) if len(late) else len(rows)
    return np.stack([first, np.minimum(last, len(recording.onset) - 1)], axis=1)[:stop]


def _plain(text: str) -> str:
    """Write a sentence in small letters and without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))
