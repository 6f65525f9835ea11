"""The published recipe applied to a whole study: every subject, run and model by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from langcortex.brain.recording import Recording
from langcortex.cache import Store, digest
from langcortex.datasets import Corpus
from langcortex.encoding.protocol import PUBLISHED, Protocol
from langcortex.encoding.replication.recipe import N_VOXELS, replicate_run
from langcortex.errors import SettingsError
from langcortex.progress import Progress
from langcortex.results.results import Results
from langcortex.stimulus.story import Story
from langcortex.study.accumulate import StudyScores
from langcortex.study.feature_spaces import Spaces, layer_number
from langcortex.study.inference import infer_results
from langcortex.study.settings import Study
from langcortex.study.subject import read_subject

REPLICATING = 1  # raised whenever the same recipe would give other numbers
REGION = f"top {N_VOXELS} voxels"


def replicate_study(
    study: Study,
    corpus: Corpus,
    story: Story,
    subjects: Sequence[str],
    spaces: Spaces,
    protocol: Protocol,
    progress: Progress,
) -> Results:
    """Apply the published recipe to every subject, run and model, each by itself."""
    store, scores = Store(study.output_folder / "kept"), StudyScores(spaces)
    sentences = story.sentences
    n_done, total = 0, len(subjects) * len(spaces.of_model) * len(story.runs)
    for subject in subjects:
        recordings = _read_scans(corpus, story, subject)
        scores.spaces[subject] = recordings[0].space
        scores.add_recordings(subject, recordings)
        scores.subjects[subject] = {
            "runs": len(recordings),
            "scans": int(sum(len(r.onset) for r in recordings)),
        }
        for model, names in spaces.of_model.items():
            tables = [spaces.tables[name].to_sentences(story).values for name in names]
            by_run = []
            for recording in recordings:
                rows = sentences.run == recording.run
                r, delay = _replicate_run(
                    store,
                    np.stack([table[rows] for table in tables], axis=1),
                    recording.values,
                    sentences.onset[rows] - recording.onset[0],
                    sentences.duration[rows],
                    recording.tr,
                    spaces.kept_units[model][rows],
                    study.protocol.row_shift,
                    study.seed,
                )
                by_run.append(r)
                scores.delays.setdefault(f"{subject}, {model}", []).append(delay)
                _add_layers(scores, subject, recording.run, model, names, r)
                n_done += 1
                progress("replicating", n_done, total)
            _add_layers(scores, subject, "all", model, names, np.mean(by_run, axis=0))
    results = infer_results(study, story, spaces, protocol, scores, REGION)
    return replace(results, kept_results=tuple(sorted(store.used)))


def _read_scans(corpus: Corpus, story: Story, subject: str) -> list[Recording]:
    """Read one subject's recordings of the story's runs."""
    recordings = [
        r for r in read_subject(corpus, subject) if r.run in story.runs and isinstance(r, Recording)
    ]
    if not recordings:
        raise SettingsError(
            f"The preset '{PUBLISHED}' works on scans; subject '{subject}' has none for the story's runs."
        )
    return recordings


def _add_layers(
    scores: StudyScores, subject: str, run: str, model: str, names: Sequence[str], r: np.ndarray
) -> None:
    for name, value in zip(names, r, strict=True):
        layer = layer_number(name)
        scores.add_score(
            subject=subject, run=run, model=model, layer=layer, region=REGION, metric="r", value=float(value)
        )


def _replicate_run(store: Store, *recipe: Any) -> tuple[np.ndarray, float]:
    """Replicate one run, or read the same result from the store."""
    key = "replication-" + digest(*recipe, REPLICATING)
    if not store.check(key, ("r",), ("delay",)):
        run = replicate_run(*recipe)
        store.save(key, {"r": run.r, "voxels": run.voxels}, {"delay": run.delay, "rows": run.n_rows})
    return np.asarray(store.array(key, "r")), float(store.meta(key)["delay"])
