"""A study read cheaply before it is run: what is there, how it pairs, what it will cost, and every problem at once."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from langcortex.datasets import Corpus, FilesCorpus
from langcortex.errors import AlignmentError, LangcortexError
from langcortex.features.llm import ModelShape, model_shape
from langcortex.protocol import GRID, outer_folds
from langcortex.recording import volume_space
from langcortex.settings import Study
from langcortex.story import Story
from langcortex.study import make_control, n_jobs, open_corpus
from langcortex.timing import candidate_delays, whole_scans

_T = TypeVar("_T")


@dataclass
class Check:
    """What a look at a study found.

    Attributes
    ----------
    problems : one sentence each; a study without any can be run
    facts : what was read, by name
    pairing : how the first and last rows of a run meet the scans
    costs : estimates of disk and time
    """

    problems: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
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


def check_study(study: Study) -> Check:
    """Read a study's story, headers and model configurations, and estimate what it will cost."""
    found = Check()
    protocol = found.attempt(study.to_protocol)
    corpus = found.attempt(lambda: open_corpus(study))
    story = found.attempt(corpus.story) if corpus else None
    if story:
        found.facts["story"] = (
            f"{len(story):,} words in {len(story.sentences):,} sentences and {len(story.runs)} runs "
            f"({sum(story.left_out.values()):,} pauses and empty labels left out)"
        )
        for name in dict.fromkeys((*study.features.controls, *(study.protocol.confounds or ()))):
            found.attempt(functools.partial(make_control, study, story, name))
    people = (found.attempt(lambda: list(corpus.subjects())) if corpus else None) or []
    inventories: dict[str, Runs] = {}
    for subject in people:
        runs = found.attempt(functools.partial(_inventory, corpus, subject)) if corpus else None
        if runs:
            inventories[subject] = runs
    if inventories:
        scans = [n for runs in inventories.values() for n, _, _ in runs.values()]
        trs = sorted({tr for runs in inventories.values() for _, tr, _ in runs.values() if tr})
        found.facts["recordings"] = (
            f"{len(inventories)} subjects, {len(scans)} runs, {sum(scans):,} scans, TR {', '.join(f'{t:g}' for t in trs) or 'unknown'} s"
        )
    targets = (
        found.attempt(lambda: _targets(corpus)) if isinstance(corpus, FilesCorpus) and inventories else None
    )
    if targets:
        found.facts["targets"] = f"{targets:,}"
    if story:
        for subject, runs in inventories.items():
            _meet(found, study, story, subject, runs)
        if inventories:
            found.attempt(lambda: _pair(found, study, story, *next(iter(inventories.items()))))
    if not study.models and not study.features.controls:
        found.problems.append("The study names neither a model nor a control: there is nothing to fit.")
    regions = {"brain", *study.recording.regions}
    if study.data.corpus == "files" and study.compare.region not in regions:
        found.problems.append(
            f"compare.region is '{study.compare.region}', but the regions are: {', '.join(sorted(regions))}."
        )
    shapes: dict[str, ModelShape] = {}
    for model in study.models:
        shape = found.attempt(functools.partial(model_shape, model.source, model.revision))
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
    if story and inventories and protocol:
        run = np.array(list(next(iter(inventories.values()))))
        if protocol.test_runs or len(run) > 1:
            found.attempt(lambda: outer_folds(run, np.zeros((len(run), 2), dtype=int), protocol))
        found.costs.update(_costs(study, story, shapes, targets or 0, len(inventories), len(run)))
    return found


def _inventory(corpus: Corpus, subject: str) -> Runs:
    if hasattr(corpus, "inventory"):
        cheap: Runs = corpus.inventory(subject)
        return cheap
    return {r.run: (len(r.onset), r.tr, -float(r.onset[0])) for r in corpus.recordings(subject)}


def _targets(corpus: FilesCorpus) -> int | None:
    """Count targets without reading a recording: only a given mask says."""
    if corpus.mask is None or not corpus.images:
        return None
    if corpus.mask == "all":
        return volume_space(None, corpus.images, every_voxel=True).n_targets
    return corpus.volume.n_targets


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
        if not tr:
            found.problems.append(
                f"Run '{run}' of subject '{subject}': neither a sidecar nor the header says how far scans are apart. Set recording.tr, in seconds."
            )
            continue
        here = story.run == run
        last = float((story.onset + story.duration)[here].max())
        end = scans * tr - began
        if last > end + tr and study.design.short == "error":
            found.problems.append(
                f"The story of run '{run}' lasts until {last:.1f} s, but the recording of subject '{subject}' ends at {end:.1f} s. "
                'Check tr and stimulus_onset, or leave those words out with design.short = "trim".'
            )
        for delay in study.design.delays or ():
            found.attempt(functools.partial(whole_scans, delay, tr, run))


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
            f"{run}, subject {subject}: scan 0 lasts from {-began:g} to {tr - began:g} s of the story, scan {scans - 1} ends at {scans * tr - began:g} s; "
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


def _costs(
    study: Study, story: Story, shapes: Mapping[str, ModelShape], targets: int, subjects: int, runs: int
) -> dict[str, str]:
    """Estimate from counts of operations and the speed of one matrix product here."""
    speed, jobs = _speed(), n_jobs(study)
    tokens = 1.35 * len(story) * (1.0 if study.features.context == "sentence" else 2.0)
    layers = {name: len(study.features.layers or range(s.n_layers + 1)) for name, s in shapes.items()}
    read = sum(2.0 * s.parameters * tokens for s in shapes.values()) / speed / jobs
    stored = sum(4.0 * len(story) * s.width * layers[name] for name, s in shapes.items())
    out = {
        "features": f"{_size(stored)} in the cache",
        "reading the story": f"about {_span(read)} on this machine's processor",
    }
    if targets and study.protocol.preset == "rigorous":
        work = subjects * _fit_work(study, story, shapes, layers, targets, runs)
        out["fits"] = (
            f"{_size(subjects * sum(layers.values()) * targets * runs * 20.0)} in {study.output_folder / 'kept'}"
        )
        out["fitting"] = f"about {_span(OVERHEAD * work / speed / jobs)}"
    return out


OVERHEAD = 3.0  # measured: time of a fit over that of its matrix products alone


def _fit_work(
    study: Study,
    story: Story,
    shapes: Mapping[str, ModelShape],
    layers: Mapping[str, int],
    targets: int,
    runs: int,
) -> float:
    """Count the floating-point operations of one subject's fits, delays and nulls."""
    p = study.protocol
    # a scan is taken to hold six words
    rows = len(story.sentences) if study.design.rows == "sentences" else len(story) // 6
    folds = 1 if p.test_runs else (runs if runs > 1 else 5) if p.folds == "runs" else p.folds
    inner = (
        max(2, folds - 1, runs - len(p.test_runs) - 1 if p.test_runs else 0) if p.inner == "runs" else p.inner
    )
    n_penalties = len(p.penalties or GRID)
    total = 0.0
    for name, shape in shapes.items():
        width = shape.width * (
            len(study.design.delays or (2.0, 4.0, 6.0, 8.0)) if study.design.response == "fir" else 1
        )
        axes = min(p.pca or rows, rows, width)
        prepare = (
            folds
            * (inner + 1)
            * (2.0 * min(rows, width) ** 2 * max(rows, width) + 10.0 * min(rows, width) ** 3)
        )
        validate = folds * inner * n_penalties * min(axes, rows / max(folds, 1)) * axes * 2.0
        score = folds * (inner + 1) * axes * rows * 2.0 + validate
        null = folds * p.n_nulls * axes * 2.0 * (rows + rows / max(folds, 1))
        n_delays = (
            len(study.design.delays or (4.0, 6.0, 8.0, 10.0)) if study.design.rows == "sentences" else 1
        )
        probes = 0.0 if n_delays == 1 else 3.0 * n_delays * score * min(1.0, 4096 / targets)
        total += layers[name] * prepare + targets * (layers[name] * score + null + probes)
    return total


def _speed() -> float:
    """Measure one matrix product, in operations a second."""
    a = np.ones((700, 700), dtype=np.float32)
    best = np.inf
    for _ in range(3):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return float(2.0 * 700**3 / best)


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def as_lines(found: Check) -> list[str]:
    """Write a check out, one line a thing."""
    lines = [f"{name}: {value}" for name, value in found.facts.items()]
    lines += [f"pairing: {line}" for line in found.pairing]
    lines += [f"estimate, {name}: {value}" for name, value in found.costs.items()]
    return lines
