"""Simulate a brain with the file names of a real one: sub-EN057 of the Le Petit Prince corpus, nine runs.

    python make.py ANNOTATIONS OUT [--noise]

ANNOTATIONS is the folder of the corpus (OpenNeuro ds003643) that holds lppEN_section1.TextGrid to …9.TextGrid;
OUT receives copies of them and images with the names, the number of scans and the TR of the real derivatives, so
that a study that runs on OUT runs on the real data too. The images are simulated: five language regions respond to
the hidden states of SmolLM2's layer 15 six seconds later, two auditory regions respond to the length of each stretch of
speech, and all other voxels are autocorrelated noise. With --noise all voxels are.
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
    """Read the command line and write everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("annotations", type=Path, help="folder with lppEN_section1.TextGrid …")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--noise", action="store_true", help="plant nothing: every voxel is noise")
    arguments = parser.parse_args()
    story = copy_story(arguments.annotations, arguments.out)
    write_brain(
        story, None if arguments.noise else planted_layer(story), mni_space(RESOLUTION), arguments.out
    )
    print(f"Wrote {len(RUNS)} runs of sub-{SUBJECT} to {arguments.out}.")


def copy_story(annotations: Path, out: Path) -> Story:
    """Copy the TextGrids to where the corpus has them, and read them as the study does."""
    files = {}
    for run in RUNS:
        files[run] = out / "annotation" / "EN" / f"lppEN_{run}.TextGrid"
        with atomic_write(files[run]) as draft:
            shutil.copyfile(annotations / files[run].name, draft)
    return read_story(files, name="lpp", sentences="pauses")


def planted_layer(story: Story) -> Features:
    """Read the story with the study's first model; the study finds these states in the cache."""
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
    """Write images, masks and the truth.

    Parameters
    ----------
    story : the words
    layer : states that the language regions respond to; None for noise only
    space : the voxels
    out : folder
    scans : run → number of scans
    """
    settings = PLANT if layer is not None else dataclasses.replace(PLANT, signal=0.0)
    layer = layer or _unused_layer(story)
    language, auditory = (
        np.any([space.regions[name] for name in names], axis=0)
        for names in (LANGUAGE_REGIONS, AUDITORY_REGIONS)
    )
    brain = plant(story, layer, language, auditory, settings, np.random.default_rng(SEED), scans)
    folder = out / "derivatives" / f"sub-{SUBJECT}" / "func"
    for run, values in brain.items():
        name = f"sub-{SUBJECT}_task-lppEN_run-{RUNS[run]}_space-MNIColin27_desc-preproc_bold.nii.gz"
        write_bold(values, space, folder / name, settings.tr)
    for name, mask in space.regions.items():
        write_mask(mask, space, out / "regions" / f"{name}.nii.gz")
    write_mask(np.ones(space.n_targets, dtype=bool), space, out / "regions" / "grey_matter.nii.gz")
    with atomic_write(out / "truth.json") as draft:
        truth = {"layer": LAYER if settings.signal else None, "seed": SEED, **dataclasses.asdict(settings)}
        draft.write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def _unused_layer(story: Story) -> Features:
    """Return random states for a brain in which their weight is 0."""
    s = story.sentences
    values = np.random.default_rng(SEED).standard_normal((len(s), 2))
    return Features("unused", s.ids, s.onset, s.duration, s.run, values)


if __name__ == "__main__":
    main()
