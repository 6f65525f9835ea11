"""The variance partition of a study: the bands that its settings name, and each subject's partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langcortex.cache import Store
from langcortex.design.design import Design
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.variance_partition import partition_subject
from langcortex.errors import SettingsError
from langcortex.progress import Progress
from langcortex.results.variance_partition import TWIN, PartitionResult, PartitionScores
from langcortex.study.feature_spaces import Spaces
from langcortex.study.settings import ModelSettings, Study

MODEL_CONTROLS = ("surprisal", "entropy")  # controls that come with a model
SEED = 7  # beside the study's own


class StudyPartition:
    """The partition of subjects' variance among a model's chosen layer and controls, as ``[partition]`` says.

    Parameters
    ----------
    study, spaces : the settings and the feature spaces
    n_subjects : how many subjects will be added

    Raises
    ------
    SettingsError : a model, a band or a feature space in it is unknown
    """

    def __init__(self, study: Study, spaces: Spaces, n_subjects: int = 1) -> None:
        self.study, self.spaces = study, spaces
        self.scores: dict[str, PartitionScores] = {}
        for model in partitioned_models(study, spaces) if study.partition.on else ():
            twins = untrained_twins(study, spaces, model)
            if not partition_controls(study, spaces, model) and not twins:
                raise SettingsError(
                    "partition: there are no controls. Name some in features.controls or partition.bands, or set untrained for the model."
                )
            features = {model: ["the layer chosen in training"], **partition_controls(study, spaces, model)}
            if twins:
                features[TWIN] = [f"the same layer of {twin}" for twin in twins]
            self.scores[model] = PartitionScores(model, features, n_subjects)

    def includes(self, model: str) -> bool:
        """Return whether a model is partitioned."""
        return model in self.scores

    def add_subject(
        self,
        model: str,
        design: Design,
        best: Sequence[int] | np.ndarray,
        protocol: Protocol,
        delays: np.ndarray,
        store: Store,
        y_digest: str,
        progress: Progress,
        engine: Engine = DEFAULT_ENGINE,
    ) -> None:
        """Partition one subject.

        Parameters
        ----------
        best : (n_folds,) position of the layer chosen in each outer fold
        protocol, delays : as the model was fitted
        store, y_digest : where fits are kept, and the digest of the responses
        progress : called as fits are done
        """
        settings, regions = self.study.partition, design.space.regions
        if settings.region != "brain" and settings.region not in regions:
            raise SettingsError(
                f"partition.region is '{settings.region}', but the regions are: {', '.join(['brain', *regions][:12])}."
            )
        partition = partition_subject(
            design,
            model,
            make_bands(self.study, self.spaces, model, [int(k) for k in best]),
            protocol,
            full_bands=tuple(partition_controls(self.study, self.spaces, model)),
            delays=delays,
            n_band_weights=settings.n_gammas,
            seed=self.study.seed,
            targets=None if settings.region == "brain" else regions[settings.region],
            store=store,
            y_digest=y_digest,
            progress=lambda done, total: progress(
                f"partitioning {model}, subject {design.subject}", done, total
            ),
            engine=engine,
        )
        self.scores[model].add(partition, regions)

    def results(self, mapped: bool, n_resamples: int = 10_000) -> tuple[PartitionResult, ...]:
        """Return the partition of every model; `mapped` tells whether all subjects share a space."""
        rng = np.random.default_rng([self.study.seed, SEED])
        return tuple(s.result(rng, n_resamples, mapped) for s in self.scores.values() if s.rows)


def partitioned_models(study: Study, spaces: Spaces) -> list[str]:
    """List the models to partition: those that the study names, or all but untrained twins.

    Raises
    ------
    SettingsError : the study names an unknown model
    """
    chosen = study.partition.models
    if chosen is None:
        untrained = {m.label for m in study.models if m.untrained_seed is not None}
        return [name for name in spaces.of_model if _settings(study, name).label not in untrained]
    unknown = next((name for name in chosen if name not in spaces.of_model), None)
    if unknown is not None:
        raise SettingsError(
            f"partition.models names '{unknown}', but the models are: {', '.join(spaces.of_model) or 'none'}."
        )
    return list(chosen)


def _settings(study: Study, model: str) -> ModelSettings:
    """Return the settings of the model that a curve belongs to: "llama-heads" belongs to "llama"."""
    return next(m for m in study.models if model in study.features.curves(m.label).values())


def untrained_twins(study: Study, spaces: Spaces, model: str) -> list[str]:
    """List the untrained twins of a model: same source, random weights, the same kind of curve and number of layers."""
    settings = _settings(study, model)
    if not study.partition.twin or settings.untrained_seed is not None:
        return []
    kind = next(k for k, name in study.features.curves(settings.label).items() if name == model)
    twins = [
        study.features.curves(m.label)[kind]
        for m in study.models
        if m.untrained_seed is not None and (m.source, m.revision) == (settings.source, settings.revision)
    ]
    layers = len(spaces.of_model[model])
    return [name for name in twins if len(spaces.of_model.get(name, ())) == layers]


def partition_controls(study: Study, spaces: Spaces, model: str) -> dict[str, list[str]]:
    """Return the bands of controls: band → feature spaces.

    "surprisal" and "entropy" are the model's own; those of other models are no controls.

    Raises
    ------
    SettingsError : a band is empty, names something that is no control, or has the name of the model or its twins
    """
    label = _settings(study, model).label
    model_controls = {
        kind: f"{label}/{kind}" for kind in MODEL_CONTROLS if f"{label}/{kind}" in spaces.tables
    }
    if not study.partition.bands:
        plain = [name for name in spaces.controls if "/" not in name]
        return {name: [name] for name in plain} | {kind: [name] for kind, name in model_controls.items()}
    bands: dict[str, list[str]] = {}
    for band, names in study.partition.bands.items():
        if band in (model, label, TWIN):
            raise SettingsError(f"partition.bands: '{band}' is the name of another band. Rename it.")
        if not names:
            raise SettingsError(f"partition.bands: '{band}' is empty. Name its controls, or leave it out.")
        short = [model_controls.get(name, name.rsplit(":", 1)[-1]) for name in names]
        unknown = next((name for name in short if name not in spaces.tables), None)
        if unknown is not None:
            controls = [name for name in spaces.controls if "/" not in name] + list(model_controls)
            raise SettingsError(
                f"partition.bands: '{band}' names '{unknown}', but the controls are: {', '.join(controls) or 'none'}."
            )
        bands[band] = short
    return bands


def make_bands(
    study: Study, spaces: Spaces, model: str, best: Sequence[int]
) -> Mapping[str, list[tuple[str, ...]]]:
    """Return the feature spaces of each band in each outer fold, the model first.

    Parameters
    ----------
    best : (n_folds,) position of the layer chosen in each outer fold
    """
    layers = spaces.of_model[model]
    bands: dict[str, list[tuple[str, ...]]] = {model: [(layers[k],) for k in best]}
    for band, names in partition_controls(study, spaces, model).items():
        bands[band] = [tuple(names)] * len(best)
    twins = untrained_twins(study, spaces, model)
    if twins:
        bands[TWIN] = [tuple(spaces.of_model[twin][k] for twin in twins) for k in best]
    return bands
