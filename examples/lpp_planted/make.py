"""Plant a brain under the names of a real one: sub-EN057 of the Le Petit Prince corpus, nine runs.

    python make.py ANNOTATIONS OUT [--noise]

ANNOTATIONS is the folder of the corpus (OpenNeuro ds003643) that holds lppEN_section1.TextGrid to …9.TextGrid;
OUT receives copies of them and images with the names, the number of scans and the TR of the real derivatives, so
that a study that runs on OUT runs on the real data too. The images are made up: five language regions follow
the hidden states of SmolLM2's layer 15 six seconds later, two auditory regions follow the length of each stretch of
speech, and all other voxels are autocorrelated noise. With --noise every voxel is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from langcortex.brain.space import Space
from langcortex.cache import Store, atomic_write
from langcortex.features import extract, load_model
from langcortex.features.models.weights import cache_folder
from langcortex.features.table import Features
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
from langcortex.study.settings_file import read_study

SUBJECT = "EN057"
# section of the book → run in the file names, and the number of scans of the real recording
RUNS = {f"section{i}": str(14 + i) for i in range(1, 10)}
SCANS = dict(zip(RUNS, (282, 298, 340, 303, 265, 343, 325, 292, 368), strict=True))
LAYER = 15
PLANT = Plant(signal=0.3, delay=6.0, tr=2.0)
RESOLUTION = 8  # mm; the real images have voxels of 2 mm, sixty times as many
SEED = 57


def main() -> None:
    """Read the command line and make everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("annotations", type=Path, help="folder with lppEN_section1.TextGrid …")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--noise", action="store_true", help="plant nothing: every voxel is noise")
    given = parser.parse_args()
    story = copy_story(given.annotations, given.out)
    write_brain(story, None if given.noise else planted_layer(story), mni_space(RESOLUTION), given.out)
    print(f"Wrote {len(RUNS)} runs of sub-{SUBJECT} to {given.out}.")


def copy_story(annotations: Path, out: Path) -> Story:
    """Copy the TextGrids to where the corpus has them, and read them as the study does."""
    files = {}
    for run in RUNS:
        files[run] = out / "annotation" / "EN" / f"lppEN_{run}.TextGrid"
        with atomic_write(files[run]) as draft:
            shutil.copyfile(annotations / files[run].name, draft)
    return read_story(files, name="lpp", sentences="pauses")


def planted_layer(story: Story) -> Features:
    """Read the story with the study's first model. The study finds these states again in the cache."""
    study = read_study(Path(__file__).with_name("study.toml"))
    model = load_model(study.models[0].source, study.models[0].label)
    layers = extract(story, model, layers=study.features.layers, store=Store(cache_folder() / "features"))
    return layers[f"{model.name}/layer-{LAYER:02d}"]


def write_brain(
    story: Story,
    layer: Features | None,
    space: Space,
    out: Path,
    scans: Mapping[str, int] = SCANS,
) -> None:
    """Write images, masks and what was planted.

    Parameters
    ----------
    story : the words
    layer : what the language regions follow; None plants nothing
    space : the voxels
    out : folder
    scans : run → how many scans
    """
    what = PLANT if layer is not None else dataclasses.replace(PLANT, signal=0.0)
    layer = layer or _nothing(story)
    language, auditory = (
        np.any([space.regions[name] for name in names], axis=0)
        for names in (LANGUAGE_REGIONS, AUDITORY_REGIONS)
    )
    brain = plant(story, layer, language, auditory, what, np.random.default_rng(SEED), scans)
    folder = out / "derivatives" / f"sub-{SUBJECT}" / "func"
    for run, values in brain.items():
        name = f"sub-{SUBJECT}_task-lppEN_run-{RUNS[run]}_space-MNIColin27_desc-preproc_bold.nii.gz"
        write_bold(values, space, folder / name, what.tr)
    for name, inside in space.regions.items():
        write_mask(inside, space, out / "regions" / f"{name}.nii.gz")
    write_mask(np.ones(space.n_targets, dtype=bool), space, out / "regions" / "grey_matter.nii.gz")
    with atomic_write(out / "truth.json") as draft:
        truth = {"layer": LAYER if what.signal else None, "seed": SEED, **dataclasses.asdict(what)}
        draft.write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def _nothing(story: Story) -> Features:
    """Stand in for a layer where its weight in the brain is 0."""
    s = story.sentences
    values = np.random.default_rng(SEED).standard_normal((len(s), 2))
    return Features("nothing", s.ids, s.onset, s.duration, s.run, values)


if __name__ == "__main__":
    main()
