"""Every feature space of a study: layers of models, extracted one model at a time, and controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.cache import Store, atomic_write
from langcortex.datasets import Corpus
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.replication.recipe import select_units
from langcortex.features import Features, Layers, extract, load_model
from langcortex.features.models.extraction import Pace
from langcortex.features.models.packages import require_packages
from langcortex.features.models.tokens import FrameText
from langcortex.features.models.weights import cache_folder
from langcortex.paths import safe_cells
from langcortex.progress import Progress
from langcortex.stimulus.story import Story
from langcortex.study.controls import make_controls
from langcortex.study.frames import check_frames, read_frames
from langcortex.study.settings import ModelSettings, Study, n_reading_threads
from langcortex.study.user_code import require_permission


@dataclass(frozen=True, eq=False)
class Spaces:
    """The feature spaces of a study.

    Attributes
    ----------
    tables : every feature space by name
    of_model : curve of a model → its layers' names
    controls : names of the controls that are fitted
    revisions : model → the revision of its weights
    audit : model → what its tokenizer did to the words
    kept_units : model → (n_units,) bool, the units that the published recipe keeps
    kept_results : names of the stored features
    frames : model → what stands around every text that it reads
    """

    tables: Tables
    of_model: Mapping[str, tuple[str, ...]]
    controls: tuple[str, ...]
    revisions: Mapping[str, str]
    audit: Mapping[str, Mapping[str, int]]
    kept_units: Mapping[str, np.ndarray]
    kept_results: frozenset[str] = frozenset()
    frames: Mapping[str, FrameText] = field(default_factory=dict)


class Tables(Mapping[str, Features]):
    """Controls in memory and layers on disk, as one mapping."""

    def __init__(self, controls: Mapping[str, Features], models: Sequence[Layers]) -> None:
        self.controls, self.models = controls, models
        self.sources: list[Mapping[str, Features]] = [controls, *models]

    def __getitem__(self, name: str) -> Features:
        for source in self.sources:
            if name in source:
                return source[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for source in self.sources for name in source)

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)


def make_spaces(study: Study, corpus: Corpus, story: Story, protocol: Protocol, progress: Progress) -> Spaces:
    """Extract the features of every model, one model in memory at a time, and make the controls."""
    require_permission(study)
    frames = read_frames(study)
    check_frames(study, frames)
    models: dict[str, Layers] = {}
    revisions, kept_units = {}, {}
    store = Store(cache_folder() / "features")
    for settings in study.models:
        label = settings.label
        models[label], revisions[label], kept_units[label] = _extract(
            study, story, settings, protocol, store, progress
        )
    if models:
        _write_audit(models, study.output_folder)
    of_model = {
        study.features.curves(label)[kind]: layers.names_of_kind(kind)
        for kind in ("states", "heads", "mlp")
        for label, layers in models.items()
        if layers.names_of_kind(kind)
    }
    names = [name.rsplit(":", 1)[-1] for name in study.features.controls]
    names += [n for m in models.values() for kind in ("surprisal", "entropy") for n in m.names_of_kind(kind)]
    audit = {label: dict(layers.audit) for label, layers in models.items()}
    layers = Tables({}, list(models.values()))
    controls = make_controls(study, story.group_by(study.design.rows), corpus, layers)
    tables = Tables(controls, list(models.values()))
    return Spaces(tables, of_model, tuple(names), revisions, audit, kept_units, frozenset(store.used), frames)


def _write_audit(models: Mapping[str, Layers], folder: Path) -> None:
    """Write what each tokenizer did to the words of each run, and the odd words, into ``tokens.tsv``."""
    rows: list[dict[str, Any]] = []
    for label, layers in models.items():
        for run, counts in layers.by_run.items():
            odd = "; ".join(counts["odd words"])
            rows.append({"model": label, "run": run, **counts, "odd words": odd})
    with atomic_write(folder / "tokens.tsv") as draft:
        safe_cells(pd.DataFrame(rows)).to_csv(draft, sep="\t", index=False, na_rep="n/a")


def _extract(
    study: Study,
    story: Story,
    settings: ModelSettings,
    protocol: Protocol,
    store: Store,
    progress: Progress,
) -> tuple[Layers, str, np.ndarray]:
    require_packages()
    import torch

    torch.set_num_threads(n_reading_threads())  # features round by their number, which "jobs" must not change
    what = f"reading the story with {settings.label}"
    f = study.features
    replication = protocol.is_published
    progress(what, 0, len(story))
    model = load_model(
        settings.source,
        settings.label,
        revision=settings.revision,
        untrained_seed=settings.untrained_seed,
        dtype=settings.dtype,
        device=settings.device,
        quantization=settings.quantization,
        memory=settings.memory,
        head=not replication and bool({"surprisal", "entropy"} & set(f.take)),
        trust_remote_code=settings.trust_remote_code,
    )

    def pace(p: Pace) -> None:
        speed = f" · {p.tokens_per_second:,.0f} tokens/s" if p.tokens else ""
        progress(what + speed, p.words, p.total)

    layers = extract(
        story,
        model,
        layers=f.layers,
        take=("states",) if replication else f.take,
        context="sentence" if replication else f.context,
        pool="mean" if replication else f.pool,
        bos=f.bos,
        prefix=f.prefix,
        suffix=f.suffix,
        chat=f.chat,
        system=f.system,
        store=store,
        pace=pace,
    )
    units = np.ones(len(story.sentences), dtype=bool)
    if replication:
        texts = story.sentences.text.tolist()
        tokens = [
            model.tokenizer.convert_ids_to_tokens(model.tokenizer(t, add_special_tokens=False)["input_ids"])
            for t in texts
        ]
        units = select_units(texts, tokens)
    return layers, model.revision, units


def layer_number(name: str) -> int:
    """Return the number in a layer's name, such as 7 for "smollm2/layer-07"."""
    return int(name.rsplit("-", 1)[1])
