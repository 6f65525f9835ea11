"""The ablation of the published recipe: what noise gets from each of its flaws, on a study's words and scans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from langcortex.audit.null_corpus import read_spaces, rest_cleaning
from langcortex.audit.null_recordings import (
    SURROGATES,
    RestScans,
    check_kind,
    read_rest,
    rest_recording,
    usable_targets,
)
from langcortex.brain.recording import Recording
from langcortex.brain.space import Space
from langcortex.cache import atomic_write, digest
from langcortex.datasets import Corpus
from langcortex.encoding.protocol import PUBLISHED
from langcortex.encoding.replication.ablation import (
    FILE,
    FLAWS,
    Ablation,
    RecipeRun,
    ablate_run,
    ablation_steps,
)
from langcortex.errors import SettingsError
from langcortex.paths import as_path
from langcortex.progress import Progress
from langcortex.results.manifest import update_manifest
from langcortex.stimulus.story import Units
from langcortex.study.corpus import open_corpus, read_words
from langcortex.study.feature_spaces import layer_number
from langcortex.study.settings import Study

MOST_TARGETS = 10_000  # to choose the 300 voxels from
MOST_RUNS = 2
DRAWS = 5


def ablate(
    study: Study,
    n: int = DRAWS,
    kind: str = "phase",
    seed: int = 0,
    rest_path: Path | None = None,
    progress: Progress | None = None,
    most_runs: int = MOST_RUNS,
    most_targets: int = MOST_TARGETS,
) -> Ablation:
    """Fix the flaws of the published recipe one by one, on recordings that carry no story.

    Words, features and rows are the study's own: those of its first model and its first subject. Nothing is written.

    Parameters
    ----------
    study : with the preset of the published recipe
    n : draws of recordings
    kind, seed, rest_path, progress : see `langcortex.audit.calibrate`
    most_runs, most_targets : where there are more, so many are used, evenly spaced; the published r is smaller with fewer
        voxels to choose from

    Returns
    -------
    Ablation

    Raises
    ------
    SettingsError : another preset, no model, no run of scans, an unknown kind
    """
    check_kind(kind, rest_path)
    if n < 1:
        raise SettingsError(f"An ablation needs 1 or more draws; not {n}.")
    if study.protocol.preset != PUBLISHED:
        raise SettingsError(
            f"An ablation is of the preset '{PUBLISHED}', and this study's is '{study.protocol.preset}'. "
            f'Set protocol.preset = "{PUBLISHED}".'
        )
    if not study.models:
        raise SettingsError(f"The preset '{PUBLISHED}' needs a model.")
    corpus = open_corpus(study)
    story, _ = read_words(study, corpus)
    null_runs = _read_runs(corpus, story.runs, rest_path, most_runs, most_targets)
    spaces = read_spaces(study.model_copy(update={"models": study.models[:1]}), corpus, progress)
    model = study.models[0].label
    name = spaces.of_model[model][len(spaces.of_model[model]) // 2]
    states = spaces.tables[name].to_sentences(story).values
    units = spaces.kept_units[model]
    recipe_runs = [_recipe_run(states, units, story.sentences, run.recording) for run in null_runs]
    flaws = tuple(flaw for flaw in FLAWS if flaw != "row_shift" or study.protocol.row_shift)
    steps, draws = ablation_steps(flaws), []
    for draw in range(n):
        if progress:
            progress("fixing the recipe", draw, n)
        r = [
            ablate_run(recipe_run, run.draw(kind, (seed, draw)), steps, study.seed)[:, 0]
            for run, recipe_run in zip(null_runs, recipe_runs, strict=True)
        ]
        draws.append(np.mean(r, axis=0))
    if progress:
        progress("fixing the recipe", n, n)
    scores, first = np.array(draws), null_runs[0].recording
    return Ablation(
        flaws, scores[:, : len(flaws) + 1], scores[:, len(flaws) + 1 :], layer_number(name), model,
        first.subject, tuple(run.recording.run for run in null_runs), first.space.n_targets, kind, seed,
    )  # fmt: skip


def write_ablation(ablation: Ablation, folder: Path | str) -> Path:
    """Write ``ablation.json`` into a study's output folder, where its report reads it."""
    folder = as_path(folder)
    with atomic_write(folder / FILE) as draft:
        draft.write_text(json.dumps(ablation.as_json(), indent=2) + "\n", encoding="utf-8")
    update_manifest(folder, "audit", [folder / FILE], study="", only=[FILE])
    return folder / FILE


@dataclass(frozen=True, eq=False)
class _NullRun:
    """A run's recording, and recordings of rest for the same targets."""

    recording: Recording
    rests: tuple[RestScans, ...]
    corpus: Corpus

    def draw(self, kind: str, seed: tuple[int, int]) -> np.ndarray:
        """Draw the values of a recording without a story: (n_scans, n_targets)."""
        recording = self.recording
        rng = np.random.default_rng([*seed, int(digest([recording.subject, recording.run])[:8], 16)])
        if kind == "rest":
            return rest_recording(recording, self.rests, rng, rest_cleaning(self.corpus)).values
        return SURROGATES[kind](recording, rng).values


def _read_runs(
    corpus: Corpus, runs: Sequence[str], rest_path: Path | None, most_runs: int, most_targets: int
) -> list[_NullRun]:
    """Read runs of the first subject with some of their targets, both evenly spaced."""
    subjects = list(corpus.subjects())
    if not subjects:
        raise SettingsError("The study has no subjects.")
    names = [run for run in corpus.runs(subjects[0]) if run in runs]
    null_runs, rests = [], None
    for name in _evenly_spaced(np.array(names, dtype=object), most_runs):
        recording = corpus.recording(subjects[0], name)
        if not isinstance(recording, Recording):
            break
        if rest_path is not None and rests is None:
            rests = read_rest(rest_path, recording.space)
        targets = _evenly_spaced(np.flatnonzero(usable_targets(recording.values)), most_targets)
        space = Space("columns", targets.astype(str))
        recording = replace(recording, values=recording.values[:, targets], space=space)
        rests_of_targets = tuple(replace(r, values=r.values[:, targets]) for r in rests or ())
        null_runs.append(_NullRun(recording, rests_of_targets, corpus))
    if not null_runs:
        raise SettingsError(
            f"The preset '{PUBLISHED}' works on scans; subject '{subjects[0]}' has none for the story's runs."
        )
    return null_runs


def _evenly_spaced(values: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many values, evenly spaced."""
    positions = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    selection: np.ndarray = values[np.unique(positions)]
    return selection


def _recipe_run(states: np.ndarray, units: np.ndarray, sentences: Units, recording: Recording) -> RecipeRun:
    """Collect what the recipe reads of one run besides its responses, of the layer that picks voxels, which alone is scored."""
    rows = sentences.run == recording.run
    return RecipeRun(
        np.asarray(states)[rows][:, None],
        sentences.onset[rows] - recording.onset[0],
        sentences.duration[rows],
        recording.tr,
        units[rows],
    )
