"""What each cause of the published recipe makes of noise, on the words and the scans of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from langcortex.audit.null_corpus import cleaning_of_rest, read_spaces
from langcortex.audit.null_recordings import (
    SURROGATES,
    Rest,
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
from langcortex.progress import Progress
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
    rest: Path | None = None,
    progress: Progress | None = None,
    most_runs: int = MOST_RUNS,
    most_targets: int = MOST_TARGETS,
) -> Ablation:
    """Mend the causes of the published recipe one by one, on recordings that carry no story.

    Words, features and rows are the study's own: those of its first model and its first subject. Nothing is written.

    Parameters
    ----------
    study : with the preset of the published recipe
    n : draws of recordings
    kind, seed, rest, progress : see `langcortex.audit.calibrate`
    most_runs, most_targets : where there are more, as many are taken at even distances; fewer voxels to choose from
        make the published r smaller

    Returns
    -------
    Ablation

    Raises
    ------
    SettingsError : another preset, no model, no run of scans, an unknown kind
    """
    check_kind(kind, rest)
    if n < 1:
        raise SettingsError(f"An ablation needs 1 or more draws; not {n}.")
    if study.protocol.preset != PUBLISHED:
        raise SettingsError(
            f"An ablation takes the preset '{PUBLISHED}' apart, and this study's is '{study.protocol.preset}'. "
            f'Set protocol.preset = "{PUBLISHED}".'
        )
    if not study.models:
        raise SettingsError(f"The preset '{PUBLISHED}' needs a model.")
    corpus = open_corpus(study)
    story, _ = read_words(study, corpus)
    scenes = _null_runs(corpus, story.runs, rest, most_runs, most_targets)
    spaces = read_spaces(study.model_copy(update={"models": study.models[:1]}), corpus, progress)
    model = study.models[0].label
    name = spaces.of_model[model][len(spaces.of_model[model]) // 2]
    states = spaces.tables[name].to_sentences(story).values
    runs = [_run_of(states, spaces.kept_units[model], story.sentences, s.recording) for s in scenes]
    causes = tuple(c for c in FLAWS if c != "row_shift" or study.protocol.row_shift)
    sets, draws = ablation_steps(causes), []
    for draw in range(n):
        if progress:
            progress("mending the recipe", draw, n)
        pairs = zip(scenes, runs, strict=True)
        r = [ablate_run(run, s.drawn(kind, (seed, draw)), sets, study.seed)[:, 0] for s, run in pairs]
        draws.append(np.mean(r, axis=0))
    if progress:
        progress("mending the recipe", n, n)
    found, first = np.array(draws), scenes[0].recording
    return Ablation(
        causes, found[:, : len(causes) + 1], found[:, len(causes) + 1 :], layer_number(name), model,
        first.subject, tuple(s.recording.run for s in scenes), first.space.n_targets, kind, seed,
    )  # fmt: skip


def write_ablation(found: Ablation, folder: Path) -> Path:
    """Write ``ablation.json`` into a study's output folder, where its report looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / FILE) as draft:
        draft.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    return folder / FILE


@dataclass(frozen=True, eq=False)
class _NullRun:
    """A run's recording, and the rest that may stand in for it, on the same few targets."""

    recording: Recording
    rests: tuple[Rest, ...]
    corpus: Corpus

    def drawn(self, kind: str, seed: tuple[int, int]) -> np.ndarray:
        """Give a recording without a story: (n_scans, n_targets)."""
        true = self.recording
        rng = np.random.default_rng([*seed, int(digest([true.subject, true.run])[:8], 16)])
        if kind == "rest":
            return rest_recording(true, self.rests, rng, cleaning_of_rest(self.corpus)).values
        return SURROGATES[kind](true, rng).values


def _null_runs(
    corpus: Corpus, runs: Sequence[str], rest: Path | None, most_runs: int, most_targets: int
) -> list[_NullRun]:
    """Read some runs of the first subject, with some of their targets."""
    subjects = list(corpus.subjects())
    if not subjects:
        raise SettingsError("The study has no subjects.")
    names = [run for run in corpus.runs(subjects[0]) if run in runs]
    out, rests = [], None
    for name in _spread(np.array(names, dtype=object), most_runs):
        true = corpus.recording(subjects[0], name)
        if not isinstance(true, Recording):
            break
        if rest is not None and rests is None:
            rests = read_rest(rest, true.space)
        some = _spread(np.flatnonzero(usable_targets(true.values)), most_targets)
        few = replace(true, values=true.values[:, some], space=Space("columns", some.astype(str)))
        out.append(_NullRun(few, tuple(replace(r, values=r.values[:, some]) for r in rests or ()), corpus))
    if not out:
        raise SettingsError(
            f"The preset '{PUBLISHED}' works on scans; subject '{subjects[0]}' has none for the story's runs."
        )
    return out


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """Take at most so many values, at even distances."""
    where = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    taken: np.ndarray = values[np.unique(where)]
    return taken


def _run_of(states: np.ndarray, kept: np.ndarray, sentences: Units, recording: Recording) -> RecipeRun:
    """Gather what the recipe reads of one run besides its responses: of the layer that picks, which alone is scored."""
    rows = sentences.run == recording.run
    return RecipeRun(
        np.asarray(states)[rows][:, None],
        sentences.onset[rows] - recording.onset[0],
        sentences.duration[rows],
        recording.tr,
        kept[rows],
    )
