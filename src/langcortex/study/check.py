"""A study read cheaply before it is run: what is there, how it pairs, what it will cost, and every problem at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from langcortex.brain.recording import Recording
from langcortex.brain.regions import average_parcels, parcel_names
from langcortex.brain.timing import candidate_delays, delay_in_scans
from langcortex.datasets import Corpus, CorpusOnDisk
from langcortex.design.lag import Lag, find_lag
from langcortex.encoding.protocol import outer_folds
from langcortex.errors import AlignmentError, LangcortexError, SettingsError
from langcortex.features.models.loading import read_model_shape
from langcortex.features.models.memory import ModelShape
from langcortex.progress import Progress
from langcortex.stimulus.story import Story
from langcortex.study.clock import sample_recordings
from langcortex.study.controls import band_controls, make_control
from langcortex.study.corpus import (
    corpus_remarks,
    make_atlas,
    make_protocol,
    open_corpus,
    read_words,
    region_files,
)
from langcortex.study.costs import estimate
from langcortex.study.settings import Study
from langcortex.study.subject import subject_story

CLOCK = ("sample", "all", "none")
ENOUGH = 16  # recordings in memory together: more would not say more about a clock
_T = TypeVar("_T")


@dataclass(frozen=True)
class RunFacts:
    """One run of one subject beside its words, times in seconds on the story's clock.

    Attributes
    ----------
    scans : how many; seconds : how long they last
    words, sentences : of the story's run (a row a sentence, phrase or word, as the study says)
    first_word, last_word : when the first begins and the last ends
    first_scan, last_scan : when the first begins and the last ends
    """

    subject: str
    run: str
    scans: int
    seconds: float
    words: int
    sentences: int
    first_word: float
    last_word: float
    first_scan: float
    last_scan: float


@dataclass
class Check:
    """What a look at a study found.

    Attributes
    ----------
    problems : one sentence each; a study without any can be run
    facts : what was read, by name
    runs : every run that was both heard and recorded
    lags : (subject, run) → whether its responses come when its words say they should
    pairing : how the first and last rows of a run meet the scans
    costs : estimates of disk and time
    """

    problems: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    runs: list[RunFacts] = field(default_factory=list)
    lags: dict[tuple[str, str], Lag] = field(default_factory=dict)
    pairing: list[str] = field(default_factory=list)
    costs: dict[str, str] = field(default_factory=dict)

    def attempt(self, step: Callable[[], _T]) -> _T | None:
        """Do one step; a mistake the user can mend becomes a problem and the rest goes on."""
        try:
            return step()
        except LangcortexError as error:
            self.problems += [line for line in str(error).splitlines() if line not in self.problems]
            return None


Runs = Mapping[str, tuple[int, float | None, float]]


def check_study(study: Study, clock: str = "sample", progress: Progress | None = None) -> Check:
    """Read a study's story, headers and model configurations, and estimate what it will cost.

    Parameters
    ----------
    study : from `langcortex.study.settings_file.read_study`
    clock : whose recordings are read to see whether responses come when the words say: "sample" (eight
        recordings, spread over subjects and runs), "all", or "none", which reads headers only
    progress : called as recordings are read: what, how many, of how many
    """
    if clock not in CLOCK:
        raise SettingsError(f"The clock can be checked on: {', '.join(CLOCK)}; not '{clock}'.")
    found = Check()
    corpus = found.attempt(lambda: open_corpus(study))
    protocol = found.attempt(lambda: make_protocol(study, corpus) if corpus else study.to_protocol())
    story = _story(found, study, corpus) if corpus else None
    inventories = _recordings(found, study, corpus) if corpus else {}
    targets = None
    if isinstance(corpus, CorpusOnDisk) and inventories:
        targets = found.attempt(functools.partial(_targets, found, corpus, next(iter(inventories))))
    if targets:
        found.facts["targets"] = f"{targets:,}"
    if corpus and story:
        for subject, runs in inventories.items():
            own = found.attempt(functools.partial(subject_story, study, corpus, story, subject))
            if own:
                _meet(found, study, own, subject, runs)
                if subject == next(iter(inventories)):
                    found.attempt(functools.partial(_pair, found, study, own, subject, runs))
        if inventories and not found.problems and study.recording.clock != "trust":
            found.attempt(lambda: _clock(found, study, corpus, story, list(inventories), clock, progress))
    if corpus and not found.problems:
        for i, remark in enumerate(found.attempt(lambda: corpus_remarks(corpus)) or []):
            found.facts[f"note {i + 1}"] = remark
    if protocol and protocol.test_runs:
        found.facts["tested on"] = ", ".join(protocol.test_runs)
    shapes = _models(found, study)
    if story and inventories and protocol:
        run = np.array(list(next(iter(inventories.values()))))
        if protocol.test_runs or len(run) > 1:
            found.attempt(lambda: outer_folds(run, np.zeros((len(run), 2), dtype=int), protocol))
        found.costs.update(estimate(study, story, shapes, targets or 0, len(inventories), len(run)))
    return found


def _story(found: Check, study: Study, corpus: Corpus) -> Story | None:
    read = found.attempt(lambda: read_words(study, corpus))
    if read is None:
        return None
    story, unmatched = read
    found.facts["story"] = (
        f"{len(story):,} words in {len(story.sentences):,} sentences and {len(story.runs)} runs "
        f"({sum(story.left_out.values()):,} pauses and empty labels left out)"
    )
    if unmatched is not None:
        counts = ", ".join(f"{n:,} × {what}" for what, n in unmatched.what.value_counts().items())
        found.facts["text"] = f"aligned to the timed words; {counts or 'everything matched'}"
    pieces = found.attempt(lambda: story.group_by(study.design.rows))
    if pieces and study.design.rows in ("phrases", "words"):
        found.facts["rows"] = f"{len(pieces.sentences):,} {study.design.rows}"
    named = (*study.features.controls, *(study.protocol.confounds or ()), *band_controls(study))
    for name in dict.fromkeys(named) if pieces else ():
        found.attempt(functools.partial(make_control, study, pieces or story, name))
    return story if pieces else None


def _recordings(found: Check, study: Study, corpus: Corpus) -> dict[str, Runs]:
    """Read the headers of every run of every subject."""
    inventories: dict[str, Runs] = {}
    for subject in found.attempt(lambda: list(corpus.subjects())) or []:
        runs = found.attempt(functools.partial(_inventory, corpus, subject))
        if runs:
            inventories[subject] = runs
    if inventories:
        scans = [n for runs in inventories.values() for n, _, _ in runs.values()]
        trs = sorted({tr for runs in inventories.values() for _, tr, _ in runs.values() if tr})
        found.facts["recordings"] = (
            f"{_count(len(inventories), 'subject')}, {_count(len(scans), 'run')}, {sum(scans):,} scans, "
            f"TR {', '.join(f'{t:g}' for t in trs) or 'unknown'} s"
        )
    _regions(found, study)
    return inventories


def _regions(found: Check, study: Study) -> None:
    """Name the regions and parcels, and hold the region that comparisons are about against them."""
    named = found.attempt(lambda: list(region_files(study)))
    atlas = found.attempt(lambda: make_atlas(study))
    parcels = found.attempt(lambda: parcel_names(atlas)) if atlas else []
    if named is None or parcels is None:
        return
    twice = next((name for name in parcels if name in named), None)
    if twice is not None:
        found.problems.append(f"'{twice}' is the name of a parcel and of a region. Rename one.")
    if named or parcels:
        found.facts["regions"] = _listed([*named, *parcels])
    names = ["brain", *named, *parcels]
    asked = {"compare.region": study.compare.region, "partition.region": study.partition.region}
    for setting, region in asked.items() if study.data.corpus == "files" else ():
        if region not in names:
            found.problems.append(f"{setting} is '{region}', but the regions are: {_listed(sorted(names))}.")


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _inventory(corpus: Corpus, subject: str) -> Runs:
    if hasattr(corpus, "inventory"):
        cheap: Runs = corpus.inventory(subject)
        return cheap
    out: dict[str, tuple[int, float | None, float]] = {}
    for run in corpus.runs(subject):
        recording = corpus.recording(subject, run)
        if isinstance(recording, Recording):
            out[run] = (len(recording.onset), recording.tr, -float(recording.onset[0]))
        else:
            out[run] = (len(recording.ids), None, np.nan)
    return out


def _targets(found: Check, corpus: CorpusOnDisk, subject: str) -> int | None:
    """Count the voxels of a subject where a mask is given; to compute one would read every image."""
    images = [f for f in corpus.files(subject).values() if f.is_volume]
    given = corpus.reading.mask not in (None, "compute") or all(f.mask for f in images)
    if not images or not given:
        return None
    space = corpus.space_of(subject)
    found.facts |= {f"regions, note {i + 1}": remark for i, remark in enumerate(space.remarks)}
    return (average_parcels(space) if corpus.reading.parcels else space).n_targets


def _models(found: Check, study: Study) -> dict[str, ModelShape]:
    """Read the models' configurations."""
    if not study.models and not study.features.controls:
        found.problems.append("The study names neither a model nor a control: there is nothing to fit.")
    shapes: dict[str, ModelShape] = {}
    for model in study.models:
        shape = found.attempt(functools.partial(read_model_shape, model.source, model.revision))
        if shape:
            shapes[model.label] = shape
    for name, shape in shapes.items():
        found.facts[f"model {name}"] = (
            f"{shape.n_layers} layers of width {shape.width:,}, {shape.parameters / 1e6:,.0f} million parameters"
        )
        wrong = [k for k in study.features.layers or () if not 0 <= k <= shape.n_layers]
        if wrong:
            found.problems.append(
                f"features.layers: '{name}' has layers 0 to {shape.n_layers}; there is no layer {wrong[0]}."
            )
    return shapes


def _clock(
    found: Check,
    study: Study,
    corpus: Corpus,
    story: Story,
    subjects: Sequence[str],
    which: str,
    progress: Progress | None,
) -> None:
    """Read recordings and hold them against the rate of words, one by one and together."""
    everything = [(s, r) for s in subjects for r in corpus.runs(s)] if which == "all" else []
    chosen = sample_recordings(corpus, subjects) if which == "sample" else everything
    together: list[tuple[Story, Recording]] = []
    for i, (subject, run) in enumerate(chosen):
        if progress:
            progress("reading recordings for the clock", i, len(chosen))
        recording = corpus.recording(subject, run)
        own = subject_story(study, corpus, story, subject)
        if not isinstance(recording, Recording) or run not in own.runs:
            continue
        lag = find_lag([(own, recording)])
        if lag:
            found.lags[subject, run] = lag
        if len(together) < ENOUGH:
            together.append((own, recording))
    if progress and chosen:
        progress("reading recordings for the clock", len(chosen), len(chosen))
    whole = find_lag(together)
    if whole is None:
        return
    if whole.is_off and study.recording.clock == "refuse":
        found.problems.append(
            f'{whole.summary} If the clock is right all the same, say so with recording.clock = "report".'
        )
    else:
        found.facts["clock"] = whole.summary
    for lag in found.lags.values():
        if lag.is_off and not whole.is_off:
            found.facts[f"clock of {lag.subjects[0]}, {lag.runs[0]}"] = lag.summary


def _meet(found: Check, study: Study, story: Story, subject: str, runs: Runs) -> None:
    """Hold one subject's runs against the story's."""
    silent = [r for r in runs if r not in story.runs]
    if silent:
        found.problems.append(
            f"Run '{silent[0]}' of subject '{subject}' was recorded, but the story has no words for it. Its runs are: {', '.join(story.runs)}."
        )
    absent = [r for r in story.runs if r not in runs]
    if absent:
        found.facts[f"subject {subject}"] = (
            f"{len(absent)} of {len(story.runs)} runs were not recorded: {', '.join(absent)}"
        )
    for run in (r for r in runs if r in story.runs):
        scans, tr, began = runs[run]
        if np.isnan(began):
            continue  # a row a sentence: no clock
        if not tr:
            found.problems.append(
                f"Run '{run}' of subject '{subject}': neither a sidecar nor the header says how far scans are apart. Set recording.tr, in seconds."
            )
            continue
        here = story.run == run
        last = float((story.onset + story.duration)[here].max())
        end = scans * tr - began
        pieces = story.sentences.run == run
        first = float(story.onset[here].min())
        found.runs.append(
            RunFacts(
                subject,
                run,
                scans,
                scans * tr,
                int(here.sum()),
                int(pieces.sum()),
                first,
                last,
                0.0 - began,
                end,
            )
        )
        if last > end + tr and study.design.short == "error":
            found.problems.append(
                f"The story of run '{run}' lasts until {last:.1f} s, but the recording of subject '{subject}' ends at {end:.1f} s. "
                'Check tr and stimulus_onset, or leave those words out with design.short = "trim".'
            )
        for delay in study.design.delays or ():
            found.attempt(functools.partial(delay_in_scans, delay, tr, run))


def _pair(found: Check, study: Study, story: Story, subject: str, runs: Runs) -> None:
    """Show which scans the first and last rows of the first run rest on."""
    run = next((r for r in story.runs if r in runs), None)
    if run is None or not runs[run][1]:
        return
    scans, tr, began = runs[run]
    if tr is None:
        return
    if study.design.rows == "scans":
        found.pairing.append(
            f"{run}, subject {subject}: scan 0 lasts from {0.0 - began:g} to {tr - began:g} s of the story, scan {scans - 1} ends at {scans * tr - began:g} s; "
            f"the first word is heard at {story.onset[story.run == run].min():.2f} s, the last ends at {(story.onset + story.duration)[story.run == run].max():.2f} s"
        )
        return
    delays = study.design.delays or list(candidate_delays(tr))
    if not delays:
        raise AlignmentError(
            f"There is no whole multiple of the TR ({tr:g} s) from 4 to 10 s. Give design.delays."
        )
    s = story.sentences
    rows = np.flatnonzero(s.run == run)
    for i in (rows[0], rows[-1]):
        first = int(np.floor((s.onset[i] + delays[0] + began) / tr))
        last = int(np.ceil((s.onset[i] + s.duration[i] + delays[0] + began) / tr)) - 1
        text = str(s.text[i]) if len(str(s.text[i])) <= 60 else f"{str(s.text[i])[:57]}…"
        found.pairing.append(
            f"{s.ids[i]} “{text}”, heard {s.onset[i]:.2f} to {s.onset[i] + s.duration[i]:.2f} s "
            f"→ scans {first} to {last} of {scans} at a delay of {delays[0]:g} s"
        )


def as_lines(found: Check) -> list[str]:
    """Write a check out, one line a thing."""
    lines = [f"{name}: {value}" for name, value in found.facts.items()]
    lines += [f"pairing: {line}" for line in found.pairing]
    lines += [f"estimate, {name}: {value}" for name, value in found.costs.items()]
    return lines


def as_rows(found: Check) -> list[tuple[str, ...]]:
    """Write the runs out as rows of a table; subjects whose run says the same share a row.

    Returns
    -------
    rows of: run, subjects, scans, seconds, words, sentences, first and last word, first and last scan, lag
    """
    shared: dict[tuple[str, ...], list[str]] = {}
    for r in found.runs:
        lag = found.lags.get((r.subject, r.run))
        said = "" if lag is None else f"{lag.seconds:+g} s" if lag.is_detected else "unclear"
        key = (
            r.run,
            f"{r.scans:,}",
            f"{r.seconds:g}",
            f"{r.words:,}",
            f"{r.sentences:,}",
            f"{r.first_word:.2f}–{r.last_word:.2f}",
            f"{r.first_scan:g}–{r.last_scan:g}",
            said,
        )
        shared.setdefault(key, []).append(r.subject)
    order = {run: i for i, run in enumerate(dict.fromkeys(r.run for r in found.runs))}
    rows = sorted(shared.items(), key=lambda row: order[row[0][0]])
    return [(key[0], _shorten(subjects), *key[1:]) for key, subjects in rows]


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
