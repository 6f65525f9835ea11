"""Assemblies of Brain-Score, written from responses: what the reader is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray

from langcortex.brain.recording import Responses
from langcortex.cache import atomic_write
from langcortex.datasets.brainscore import DIMS
from langcortex.errors import RecordingError
from langcortex.stimulus.story import Story


def write_assembly(path: Path, story: Story, responses: Sequence[Responses]) -> Path:
    """Write responses as an assembly, with plain coordinates.

    A presentation is a sentence of the story (``stimulus_id``, ``stimulus``, ``story``: its run); a neuroid is a target
    of a subject (``neuroid_id``, ``subject``). What a subject did not see is NaN.

    Raises
    ------
    RecordingError : a response is to no sentence of the story
    """
    sentences = story.sentences
    row_of = {name: i for i, name in enumerate(sentences.ids.tolist())}
    blocks: dict[str, np.ndarray] = {}
    names: dict[str, np.ndarray] = {}
    for r in responses:
        unknown = [name for name in r.ids.tolist() if name not in row_of]
        if unknown:
            raise RecordingError(
                f"Subject '{r.subject}' has a response to '{unknown[0]}', which the story lacks."
            )
        block = blocks.setdefault(
            r.subject, np.full((len(sentences), r.space.n_targets), np.nan, dtype=np.float32)
        )
        if not np.array_equal(names.setdefault(r.subject, r.space.names), r.space.names):
            raise RecordingError(f"Subject '{r.subject}' has other targets in run '{r.run}' than before.")
        block[[row_of[name] for name in r.ids.tolist()]] = r.values
    subject = np.concatenate([np.full(len(n), s) for s, n in names.items()]).astype(object)
    neuroid = [f"{s}.{n}" for s, ns in names.items() for n in ns.tolist()]
    table = xarray.DataArray(
        np.hstack(list(blocks.values())),
        dims=DIMS,
        coords={
            "stimulus_id": ("presentation", sentences.ids.astype(object)),
            "stimulus": ("presentation", sentences.text.astype(object)),
            "story": ("presentation", sentences.run.astype(object)),
            "neuroid_id": ("neuroid", np.array(neuroid, dtype=object)),
            "subject": ("neuroid", subject),
        },
        name="data",
    )
    with atomic_write(path) as draft:
        table.to_netcdf(draft, engine="h5netcdf")
    return path
