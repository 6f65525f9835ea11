"""The published recipe applied to a whole study: every subject, run and model by itself."""

from __future__ import annotations

from collections.abc import Sequence
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
    region = f"top {N_VOXELS} voxels"
    kept = Store(study.output_folder / "kept")
    gather = StudyScores(spaces)
    sentences = story.sentences
    total, done = len(subjects) * len(spaces.of_model) * len(story.runs), 0
    for subject in subjects:
        recordings = [
            r for r in read_subject(corpus, subject) if r.run in story.runs and isinstance(r, Recording)
        ]
        if not recordings:
            raise SettingsError(
                f"The preset '{PUBLISHED}' works on scans; subject '{subject}' has none for the story's runs."
            )
        gather.spaces[subject] = recordings[0].space
        gather.subjects[subject] = {
            "runs": len(recordings),
            "scans": int(sum(len(r.onset) for r in recordings)),
        }
        for model, names in spaces.of_model.items():
            tables = [spaces.tables[name].over_sentences(story).values for name in names]
            by_run = []
            for recording in recordings:
                rows = sentences.run == recording.run
                r, delay = _kept_replication(
                    kept,
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
                gather.delays.setdefault(f"{subject}, {model}", []).append(delay)
                for name, value in zip(names, r, strict=True):
                    gather.rows.append(
                        (
                            subject,
                            recording.run,
                            model,
                            layer_number(name),
                            region,
                            "r",
                            float(value),
                        )
                    )
                done += 1
                progress("replicating", done, total)
            for name, value in zip(names, np.mean(by_run, axis=0), strict=True):
                gather.rows.append((subject, "all", model, layer_number(name), region, "r", float(value)))
    return infer_results(study, story, spaces, protocol, gather, region)


def _kept_replication(kept: Store, *recipe: Any) -> tuple[np.ndarray, float]:
    """Replicate one run, or find the same result again."""
    key = "replication-" + digest(*recipe, REPLICATING)
    if key not in kept:
        one = replicate_run(*recipe)
        kept.save(key, {"r": one.r, "voxels": one.voxels}, {"delay": one.delay, "rows": one.n_rows})
    return np.asarray(kept.array(key, "r")), float(kept.meta(key)["delay"])
