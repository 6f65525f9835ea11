"""Events and derivatives of Reading Brain, written as in the published datasets, for the tests that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

from langcortex.datasets.reading_brain.text import LENGTHS

HEADER = (
    "onset\tduration\tLemmas\tWords\tRECORDING_SESSION_LABEL\tCURRENT_FIX_ADJUSTED\tCURRENT_FIX_DURATION\t"
    "CURRENT_FIX_INTEREST_AREA_ID\tCURRENT_FIX_START\tSentenceID\tSentenceRT\tTRUEOffset\tTRUEOnset"
)
BETWEEN = "n/a\t32\tn/a\tn/a\tS201_1\tFalse\t32\t.\t7\t.\t.\t.\tn/a"
SENTENCES = [(a, s) for a, lengths in enumerate(LENGTHS, 1) for s in range(1, len(lengths) + 1)]
Looks = Mapping[tuple[int, int], Sequence[int]]
ALL_WORDS: Looks = {(a, s): range(1, LENGTHS[a - 1][s - 1] + 1) for a, s in SENTENCES}


def word(article: int, sentence: int, number: int) -> str:
    return f"w{article}{sentence}x{number}"


def write_run(
    base: Path, subject: str, run: int, article: int, looks: Looks, pace: int = 200, first: int = 9537
) -> Path:
    """Write one events file as in ds003974: one row per fixation, milliseconds, other rows between sentences."""
    rows, clock = [HEADER, BETWEEN], first
    for s in range(1, len(LENGTHS[article - 1]) + 1):
        seen = looks.get((article, s), ())
        ended = clock + pace * max(len(seen), 1)
        for k, area in enumerate(seen or (0,)):
            text, number = (word(article, s, area), str(area)) if area else ("n/a", ".")
            start = 10 + pace * k
            rows.append(
                f"{clock + start}.0\t{pace - 20}\t{text}\t{text}\tS201_1\tFalse\t{pace - 20}\t{number}\t{start}\t"
                f"t.{article:02d}.{s:02d}\t{ended - clock}\t{ended}\t{clock}.0"
            )
        rows += [BETWEEN]
        clock = ended + 1500
    path = base / f"sub-{subject}" / "func" / f"sub-{subject}_task-read_run-{run}_events.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_reader(
    base: Path, subject: str, order: Sequence[int] = (3, 1, 5, 2, 4), looks: Looks = ALL_WORDS, **options: int
) -> None:
    for run, article in enumerate(order, start=1):
        write_run(base, subject, run, article, looks, **options)


def derivative(base: Path, subject: str, run: int, ending: str) -> Path:
    path = (
        base
        / "derivatives"
        / "fmriprep"
        / f"sub-{subject}"
        / "func"
        / f"sub-{subject}_task-read_run-{run}_{ending}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def surfaces(
    base: Path, subject: str, runs: Sequence[int], rng: np.random.Generator, scans: int = 12
) -> None:
    for run in runs:
        for hemi in "LR":
            path = derivative(base, subject, run, f"hemi-{hemi}_space-fsaverage5_bold.func.gii")
            arrays = [
                nibabel.gifti.GiftiDataArray(rng.standard_normal(4).astype(np.float32)) for _ in range(scans)
            ]
            nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
