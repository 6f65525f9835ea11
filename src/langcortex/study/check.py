"""A study is checked before it is run: what it reads, how words and scans pair, what it will cost, and every problem."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from langcortex.brain.clocks import describe_clocks
from langcortex.brain.recording import Recording
from langcortex.brain.regions import average_parcels, parcel_names
from langcortex.brain.space import Space
from langcortex.brain.timing import candidate_delays, delay_in_scans
from langcortex.datasets import Corpus, CorpusOnDisk
from langcortex.design.lag import Lag, find_lag
from langcortex.encoding.protocol import PUBLISHED, Protocol, check_folds, describe_components, outer_folds
from langcortex.errors import AlignmentError, LangcortexError, SettingsError
from langcortex.features.models.inspection import check_blocks, check_place
from langcortex.features.models.loading import check_model_files, read_model_shape
from langcortex.features.models.memory import ModelShape
from langcortex.features.models.tokens import FrameText, check_texts, describe_frame
from langcortex.progress import Progress
from langcortex.ridge.backend import Backend
from langcortex.stimulus.story import Story
from langcortex.study.clock import sample_recordings
from langcortex.study.controls import band_controls, check_names, make_control, needs_tables
from langcortex.study.corpus import (
    corpus_remarks,
    make_atlas,
    make_protocol,
    open_corpus,
    read_words,
    region_files,
)
from langcortex.study.costs import describe_card, estimate
from langcortex.study.frames import check_frames, make_model_frame, read_tokenizer
from langcortex.study.settings import ModelSettings, Study
from langcortex.study.subject import align_subject, subject_story
from langcortex.study.user_code import require_permission

CLOCK = ("sample", "all", "none")
ENOUGH = 16  # recordings in memory together; a clock needs no more
_T = TypeVar("_T")


@dataclass(frozen=True)
class RunFacts:
    """One run of one subject and its words; times are in seconds on the story's clock.

    Attributes
    ----------
    scans, seconds : number of scans, and how long they last
    words, sentences : number of words and of rows (sentences, phrases or words, as the study says) in the story's run
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
    """What was read of a study, what it will cost, and every problem.

    Attributes
    ----------
    problems : one sentence each; a study without any can be run
    facts : what was read, by name
    runs : every run that has both words and scans
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
    _problems_of_subjects: set[str] = field(default_factory=set, repr=False)

    def attempt(self, step: Callable[[], _T], subject: str = "") -> _T | None:
        """Run one step; a mistake that the user can fix becomes a problem, and the check goes on.

        A problem of one subject that other subjects have too is listed once.
        """
        try:
            return step()
        except LangcortexError as error:
            for line in str(error).splitlines():
                problem = line.replace(f"'{subject}'", "'…'") if subject else line
                if line not in self.problems and problem not in self._problems_of_subjects:
                    self.problems.append(line)
                    self._problems_of_subjects.add(problem)
            return None


Runs = Mapping[str, tuple[int, float | None, float]]


def check_study(
    study: Study, clock: str = "sample", progress: Progress | None = None, gpu: float | None = None
) -> Check:
    """Read a study's story, headers and model configurations, and estimate what it will cost.

    Parameters
    ----------
    study : from `langcortex.study.settings_file.read_study`
    clock : which recordings are read to check that responses follow the words: "sample" (eight recordings, spread over
        subjects and runs), "all", or "none", which reads headers only
    progress : called as recordings are read
    gpu : gigabytes of the GPU that the study is planned for: does each model fit it? This machine's own devices and memory are
        not asked then
    """
    if clock not in CLOCK:
        raise SettingsError(f"The clock can be checked on: {', '.join(CLOCK)}; not '{clock}'.")
    require_permission(study)
    check = Check()
    corpus = check.attempt(lambda: open_corpus(study))
    protocol = check.attempt(lambda: make_protocol(study, corpus) if corpus else study.to_protocol())
    story = _read_story(check, study, corpus) if corpus else None
    inventories = _read_recordings(check, study, corpus) if corpus else {}
    targets, n_problems = None, len(check.problems)
    if clock == "none" and isinstance(corpus, CorpusOnDisk) and inventories:
        targets = check.attempt(functools.partial(_count_targets, check, corpus, next(iter(inventories))))
    if corpus and story:
        for subject, runs in inventories.items():
            rows = check.attempt(functools.partial(subject_story, study, corpus, story, subject))
            if rows:
                n_before = len(check.problems)
                _compare_runs(check, study, rows, subject, runs)
                if protocol and len(check.problems) == n_before:
                    step = functools.partial(_align_blank, check, study, rows, subject, runs, protocol)
                    check.attempt(step, subject)
                if subject == next(iter(inventories)):
                    check.attempt(functools.partial(_show_pairing, check, study, rows, subject, runs))
        if inventories and clock != "none" and len(check.problems) == n_problems:
            space = check.attempt(functools.partial(_read_space, corpus, inventories))
            targets = space.n_targets if space else None
            _check_region(check, study, space)
        if inventories and not check.problems and study.recording.clock != "trust":
            check.attempt(
                lambda: _check_clock(check, study, corpus, story, list(inventories), clock, progress)
            )
    if targets:
        check.facts["targets"] = f"{targets:,}"
    if corpus and not check.problems:
        for i, remark in enumerate(check.attempt(lambda: corpus_remarks(corpus)) or []):
            check.facts[f"note {i + 1}"] = remark
    if protocol and protocol.test_runs:
        check.facts["tested on"] = ", ".join(protocol.test_runs)
    shapes = _read_models(check, study, gpu is None)
    _read_texts(check, study, story, shapes)
    check.attempt(Backend(study.fit.on, study.fit.regime).check_device)
    check.attempt(lambda: _require_writable(study.output_folder))
    if story and inventories and protocol:
        run = np.array(list(next(iter(inventories.values()))))
        if protocol.test_runs or len(run) > 1:
            check.attempt(lambda: outer_folds(run, np.zeros((len(run), 2), dtype=int), protocol))
        for model in study.models if gpu else ():
            if model.label in shapes:
                check.costs[f"model {model.label}"] = describe_card(
                    model, shapes[model.label], float(gpu or 0), story, study
                )
        check.costs.update(estimate(study, story, shapes, targets or 0, len(inventories), len(run)))
    return check


def _read_space(corpus: Corpus, inventories: Mapping[str, Runs]) -> Space:
    """Read the first recording, and return its space."""
    subject = next(iter(inventories))
    return corpus.recording(subject, next(iter(inventories[subject]))).space


def _check_region(check: Check, study: Study, space: Space | None) -> None:
    """Check the regions that the settings name against those of a recording."""
    if space is None:
        return
    names = ["brain", *space.regions]
    for setting, region in _named_regions(study).items():
        if region not in names:
            problem = f"{setting} is '{region}', but the regions are: {_shorten_list(sorted(names))}."
            if not any(line.startswith(f"{setting} is ") for line in check.problems):
                check.problems.append(problem)


def _named_regions(study: Study) -> dict[str, str]:
    named = {"compare.region": study.compare.region}
    return named | ({"partition.region": study.partition.region} if study.partition.on else {})


def _align_blank(
    check: Check, study: Study, story: Story, subject: str, runs: Runs, protocol: Protocol
) -> None:
    """Align a subject's scans, without their values, as the study says, and split its rows into folds."""
    blank = Space("columns", np.array(["blank"]))
    recordings = [
        Recording(
            np.zeros((scans, 1), dtype=np.float32), np.arange(scans) * tr - began, tr, run, subject, blank
        )
        for run, (scans, tr, began) in runs.items()
        if tr and not np.isnan(began)
    ]
    if not recordings or protocol.is_published:
        return
    design = align_subject(study, story, {}, recordings)
    few = describe_components(protocol, check_folds(design.run, design.scans, protocol))
    if few:
        check.facts.setdefault("note, components", f"subject {subject}: {few}")


def _require_writable(folder: Path) -> None:
    """Check that results can be written into a folder."""
    here = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not here.is_dir():
        raise SettingsError(
            f"output: {here} is a file, so nothing can be written into {folder}. Choose another folder."
        )
    if not os.access(here, os.W_OK | os.X_OK):
        raise SettingsError(
            f"output: nothing can be written into {here}: there is no permission. Choose another folder."
        )


def _read_story(check: Check, study: Study, corpus: Corpus) -> Story | None:
    read = check.attempt(lambda: read_words(study, corpus))
    if read is None:
        return None
    story, unmatched = read
    check.facts["story"] = (
        f"{len(story):,} words in {len(story.sentences):,} sentences and {len(story.runs)} runs "
        f"({sum(story.left_out.values()):,} pauses and empty labels left out)"
    )
    check.facts |= {f"story, note {i + 1}": remark for i, remark in enumerate(story.remarks)}
    if story.tiers:
        names = ", ".join(f"'{tier}'" for tier in dict.fromkeys(story.tiers.values()))
        check.facts["tier"] = f"{names} ({_count(len(story.tiers), 'TextGrid')}, {len(story):,} words)"
    if unmatched is not None:
        counts = ", ".join(f"{n:,} × {what}" for what, n in unmatched.what.value_counts().items())
        check.facts["text"] = f"aligned to the timed words; {counts or 'everything matched'}"
    rows = check.attempt(lambda: story.group_by(study.design.rows))
    if rows and study.design.rows in ("phrases", "words"):
        check.facts["rows"] = f"{len(rows.sentences):,} {study.design.rows}"
    controls = (*study.features.controls, *(study.protocol.confounds or ()), *band_controls(study))
    check.attempt(lambda: check_names(study, corpus))
    for name in dict.fromkeys(controls) if rows else ():
        if not needs_tables(study, name):
            check.attempt(functools.partial(make_control, study, rows or story, name, corpus))
    return story if rows else None


def _read_recordings(check: Check, study: Study, corpus: Corpus) -> dict[str, Runs]:
    """Read the headers of every run of every subject."""
    inventories: dict[str, Runs] = {}
    for subject in check.attempt(lambda: list(corpus.subjects())) or []:
        runs = check.attempt(functools.partial(_read_inventory, corpus, subject))
        if runs:
            inventories[subject] = runs
    if inventories:
        scans = [n for runs in inventories.values() for n, _, _ in runs.values()]
        trs = sorted({tr for runs in inventories.values() for _, tr, _ in runs.values() if tr})
        check.facts["recordings"] = (
            f"{_count(len(inventories), 'subject')}, {_count(len(scans), 'run')}, {sum(scans):,} scans, "
            f"TR {', '.join(f'{t:g}' for t in trs) or 'unknown'} s"
        )
        for remark in check.attempt(lambda: _clock_remarks(corpus, list(inventories))) or []:
            check.facts["clock, note"] = remark
    _check_regions(check, study)
    return inventories


def _clock_remarks(corpus: Corpus, subjects: Sequence[str]) -> list[str]:
    """Return a sentence where sidecars and headers contradict each other."""
    if not isinstance(corpus, CorpusOnDisk):
        return []
    return describe_clocks([remark for subject in subjects for remark in corpus.clock_remarks(subject)])


def _check_regions(check: Check, study: Study) -> None:
    """List the regions and parcels, and check the regions that the settings name."""
    regions = check.attempt(lambda: list(region_files(study)))
    atlas = check.attempt(lambda: make_atlas(study))
    parcels = check.attempt(lambda: parcel_names(atlas)) if atlas else []
    if regions is None or parcels is None:
        return
    twice = next((name for name in parcels if name in regions), None)
    if twice is not None:
        check.problems.append(f"'{twice}' is the name of a parcel and of a region. Rename one.")
    if regions or parcels:
        check.facts["regions"] = _shorten_list([*regions, *parcels])
    names = ["brain", *regions, *parcels]
    for setting, region in _named_regions(study).items() if study.data.corpus == "files" else ():
        if region not in names:
            check.problems.append(
                f"{setting} is '{region}', but the regions are: {_shorten_list(sorted(names))}."
            )


def _shorten_list(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _read_inventory(corpus: Corpus, subject: str) -> Runs:
    if hasattr(corpus, "inventory"):
        inventory: Runs = corpus.inventory(subject)
        return inventory
    out: dict[str, tuple[int, float | None, float]] = {}
    for run in corpus.runs(subject):
        recording = corpus.recording(subject, run)
        if isinstance(recording, Recording):
            out[run] = (len(recording.onset), recording.tr, -float(recording.onset[0]))
        else:
            out[run] = (len(recording.ids), None, np.nan)
    return out


def _count_targets(check: Check, corpus: CorpusOnDisk, subject: str) -> int | None:
    """Count the voxels of a subject where the study names a mask; computing one would read every image."""
    images = [f for f in corpus.files(subject).values() if f.is_volume]
    has_mask = corpus.reading.mask not in (None, "compute") or all(f.mask for f in images)
    if not images or not has_mask:
        return None
    space = corpus.space_of(subject)
    check.facts |= {f"regions, note {i + 1}": remark for i, remark in enumerate(space.remarks)}
    return (average_parcels(space) if corpus.reading.parcels else space).n_targets


def _read_models(check: Check, study: Study, here: bool) -> dict[str, ModelShape]:
    """Read the models' configurations."""
    if not study.models and not study.features.controls:
        check.problems.append("The study names neither a model nor a control: there is nothing to fit.")
    shapes: dict[str, ModelShape] = {}
    for model in study.models:
        shape = check.attempt(
            functools.partial(
                read_model_shape, model.source, model.revision, trust_remote_code=model.trust_remote_code
            )
        )
        if shape:
            shapes[model.label] = shape
            has_weights = model.untrained_seed is None
            n_problems = len(check.problems)
            check.attempt(functools.partial(check_model_files, model.source, has_weights))
            if len(check.problems) > n_problems:
                del shapes[model.label]
                continue
            if here:
                check.attempt(functools.partial(_check_place, model, shape))
    for name, shape in shapes.items():
        check.facts[f"model {name}"] = (
            f"{shape.n_layers} layers of width {shape.width:,}, {shape.parameters / 1e6:,.0f} million parameters"
        )
        f = study.features
        wrong = [k for k in f.layers or () if not 0 <= k <= shape.n_layers]
        if wrong:
            check.problems.append(
                f"features.layers: '{name}' has layers 0 to {shape.n_layers}; there is no layer {wrong[0]}."
            )
        check.attempt(functools.partial(check_blocks, name, shape, f.layers, f.take))
    return shapes


def _check_place(model: ModelSettings, shape: ModelShape) -> None:
    check_place(model.label, shape, model.dtype, model.device, model.quantization, model.untrained_seed)


def _read_texts(check: Check, study: Study, story: Story | None, shapes: Mapping[str, ModelShape]) -> None:
    """Work out each model's frame, and cut the story into the texts that it reads, without its weights."""
    frames: dict[str, FrameText] = {}
    for model in study.models if shapes else ():
        if model.label not in shapes:
            continue
        tokenizer = check.attempt(functools.partial(read_tokenizer, model))
        frame = tokenizer and check.attempt(functools.partial(make_model_frame, study, model, tokenizer))
        if frame is None:
            continue
        frames[model.label] = describe_frame(frame, tokenizer)
        check.facts[f"frame of {model.label}"] = frames[model.label].summary
        if story:
            context = "sentence" if study.protocol.preset == PUBLISHED else study.features.context
            longest = shapes[model.label].max_tokens
            check.attempt(
                functools.partial(check_texts, story, tokenizer, model.label, frame, context, longest)
            )
    check.attempt(lambda: check_frames(study, frames))


def _check_clock(
    check: Check,
    study: Study,
    corpus: Corpus,
    story: Story,
    subjects: Sequence[str],
    which: str,
    progress: Progress | None,
) -> None:
    """Compare recordings with the rate of words, one by one and together."""
    all_recordings = [(s, r) for s in subjects for r in corpus.runs(s)] if which == "all" else []
    chosen = sample_recordings(corpus, subjects) if which == "sample" else all_recordings
    pairs: list[tuple[Story, Recording]] = []
    for i, (subject, run) in enumerate(chosen):
        if progress:
            progress("reading recordings for the clock", i, len(chosen))
        recording = corpus.recording(subject, run)
        rows = subject_story(study, corpus, story, subject)
        if not isinstance(recording, Recording) or run not in rows.runs:
            continue
        lag = find_lag([(rows, recording)])
        if lag:
            check.lags[subject, run] = lag
        if len(pairs) < ENOUGH:
            pairs.append((rows, recording))
    if progress and chosen:
        progress("reading recordings for the clock", len(chosen), len(chosen))
    overall = find_lag(pairs)
    if overall is None:
        return
    if overall.is_off and study.recording.clock == "refuse":
        check.problems.append(
            f'{overall.summary} If the clock is right all the same, say so with recording.clock = "report".'
        )
    else:
        check.facts["clock"] = overall.summary
    for lag in check.lags.values():
        if lag.is_off and not overall.is_off:
            check.facts[f"clock of {lag.subjects[0]}, {lag.runs[0]}"] = lag.summary


def _compare_runs(check: Check, study: Study, story: Story, subject: str, runs: Runs) -> None:
    """Compare one subject's runs with the story's, and check that its scans last as long as its words."""
    silent = [r for r in runs if r not in story.runs]
    if silent:
        check.problems.append(
            f"Run '{silent[0]}' of subject '{subject}' was recorded, but the story has no words for it. Its runs are: {', '.join(story.runs)}."
        )
    absent = [r for r in story.runs if r not in runs]
    if absent:
        check.facts[f"note, subject {subject}"] = (
            f"{len(absent)} of {len(story.runs)} runs were not recorded: {', '.join(absent)}"
        )
    for run in (r for r in runs if r in story.runs):
        scans, tr, began = runs[run]
        if np.isnan(began):
            continue  # one row per sentence: no clock
        if not tr:
            check.problems.append(
                f"Run '{run}' of subject '{subject}': neither a sidecar nor the header has the TR. Set recording.tr, in seconds."
            )
            continue
        here = story.run == run
        last = float((story.onset + story.duration)[here].max())
        end = scans * tr - began
        pieces = story.sentences.run == run
        first = float(story.onset[here].min())
        check.runs.append(
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
            check.problems.append(
                f"The story of run '{run}' lasts until {last:.1f} s, but the recording of subject '{subject}' ends at {end:.1f} s. "
                'Check tr and stimulus_onset, or leave those words out with design.short = "trim".'
            )
        for delay in study.design.delays or ():
            check.attempt(functools.partial(delay_in_scans, delay, tr, run))


def _show_pairing(check: Check, study: Study, story: Story, subject: str, runs: Runs) -> None:
    """Describe which scans the first and last rows of the first run depend on."""
    run = next((r for r in story.runs if r in runs), None)
    if run is None or not runs[run][1]:
        return
    scans, tr, began = runs[run]
    if tr is None:
        return
    if study.design.rows == "scans":
        check.pairing.append(
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
        check.pairing.append(
            f"{s.ids[i]} “{text}”, heard {s.onset[i]:.2f} to {s.onset[i] + s.duration[i]:.2f} s "
            f"→ scans {first} to {last} of {scans} at a delay of {delays[0]:g} s"
        )


def as_lines(check: Check) -> list[str]:
    """Return the facts, pairings and costs of a check, one line each."""
    lines = [f"{name}: {value}" for name, value in check.facts.items()]
    lines += [f"pairing: {line}" for line in check.pairing]
    lines += [f"estimate, {name}: {value}" for name, value in check.costs.items()]
    return lines


def as_rows(check: Check) -> list[tuple[str, ...]]:
    """Return the runs as rows of a table; subjects whose runs are the same share a row.

    Returns
    -------
    rows of: run, subjects, scans, seconds, words, sentences, first and last word, first and last scan, lag
    """
    shared: dict[tuple[str, ...], list[str]] = {}
    for r in check.runs:
        lag = check.lags.get((r.subject, r.run))
        lag_text = "" if lag is None else f"{lag.seconds:+g} s" if lag.is_detected else "unclear"
        key = (
            r.run,
            f"{r.scans:,}",
            f"{r.seconds:g}",
            f"{r.words:,}",
            f"{r.sentences:,}",
            f"{r.first_word:.2f}–{r.last_word:.2f}",
            f"{r.first_scan:g}–{r.last_scan:g}",
            lag_text,
        )
        shared.setdefault(key, []).append(r.subject)
    order = {run: i for i, run in enumerate(dict.fromkeys(r.run for r in check.runs))}
    rows = sorted(shared.items(), key=lambda row: order[row[0][0]])
    return [(key[0], _shorten(subjects), *key[1:]) for key, subjects in rows]


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
