"""Small corpora of files, for the tests that read them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from langcortex.brain.recording import Recording
from langcortex.datasets import FilesCorpus, Reading

RAW = {"detrend": False, "high_pass": None, "standardise": False}


def corpus(base: Path, recordings: str, story: object = "story/{run}.tsv", **options: object) -> FilesCorpus:
    """Return a corpus; options of `Reading` are passed to it, the others to the corpus."""
    reading = {k: v for k, v in options.items() if k in Reading.__dataclass_fields__}
    corpus_options = {k: v for k, v in options.items() if k not in reading}
    return FilesCorpus(base, story, recordings, reading=Reading(**reading), **corpus_options)  # type: ignore[arg-type]


def read(dataset: FilesCorpus, subject: str) -> list[Recording]:
    return [dataset.recording(subject, run) for run in dataset.runs(subject)]


def paths(dataset: FilesCorpus, subject: str) -> dict[str, object]:
    return {run: file.path for run, file in dataset.files(subject).items()}


def touch(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()


def words(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{word}\t{float(i)}\t0.5" for i, word in enumerate(texts)]
    path.write_text("\n".join(["word\tonset\tduration", *rows]) + "\n", encoding="utf-8")


def table(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"t{i}" for i in range(values.shape[1])]
    pd.DataFrame(values, columns=names).to_csv(path, sep="\t", index=False)


def volume(path: Path, rng: np.random.Generator, shape: tuple[int, int, int] = (5, 4, 3)) -> np.ndarray:
    """Write eight scans of noise, brighter inside than at the edges of the grid."""
    data = rng.standard_normal((*shape, 8)).astype(np.float32)
    data[2:-2, 2:-2, 2:-2] += 1000
    image = nibabel.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0]))
    image.header.set_zooms((4, 4, 4, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return data
