"""Settings of a study as a value: every setting, its default and what it means."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from langcortex.encoding.protocol import GRID, REPLICATION_LEAKS, Protocol
from langcortex.errors import SettingsError
from langcortex.stimulus.labels import PAUSES


class SettingsTable(BaseModel):
    """A table of the study file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(SettingsTable):
    """Where the data lie."""

    path: str = Field(
        "",
        description="folder that relative paths of story and recording start from; the study file's own when empty",
    )
    corpus: str = Field(
        "files",
        description='"files", one that docs/corpora.md lists, e.g. "lpp", or "my_module:corpus", a function of the path that returns a corpus',
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description='passed on to the corpus, e.g. { language = "FR" }'
    )


class StorySettings(SettingsTable):
    """Word timings and text."""

    files: str | dict[str, str] = Field(
        "", description="pattern with {run}, one file, or a table run = file (TextGrid, .csv, .tsv)"
    )
    sentences: Literal["auto", "column", "punctuation", "pauses"] = Field(
        "auto", description="where sentences end"
    )
    tier: int | str | None = Field(
        None,
        description="interval tier of a TextGrid, by position or name; the one called words when left out",
    )
    pauses: list[str] = Field(
        list(PAUSES), description="labels that are pauses or noise, not words; * stands for any characters"
    )
    language: str | None = Field(
        None,
        pattern=r"^[A-Za-z]{2,3}([-_].*)?$",
        description='language of the words, e.g. "en", for blanks between words and ends of sentences; guessed when left out',
    )
    accept_truncated: bool = Field(False, description="read a TextGrid that breaks off as far as it is whole")
    text: str = Field(
        "",
        description="the story as written, punctuation and all: a file, or a pattern with {run}; its words are aligned to the timed ones",
    )
    written: bool = Field(
        False,
        description="begin sentences with a capital and end them with a full stop, where labels have neither",
    )


class AtlasSettings(SettingsTable):
    """An atlas: each of its parcels becomes a region."""

    file: str = Field(
        "",
        description="an image of numbers, or of probabilities (4D); label files with {hemi} for surfaces; a table target, region for columns; or a .npy with a number a target",
    )
    labels: str = Field(
        "",
        description="names of the numbers: .tsv or .csv with index and name, .json, or .txt as FreeSurfer's",
    )
    keep: list[str] = Field(default_factory=list, description="which parcels; all when empty")
    threshold: float = Field(
        0.25, gt=0, lt=1, description="least probability that belongs to a parcel (4D atlases)"
    )


class RecordingSettings(SettingsTable):
    """Brain responses and what is done to each run."""

    files: str = Field(
        "",
        description="pattern with {subject} and {run}, and {hemi} for surfaces (.nii.gz, .func.gii, .tsv, .csv, .txt, .npy)",
    )
    subjects: list[str] | None = Field(None, description="which subjects; all that are found when left out")
    runs: dict[str, str] = Field(
        default_factory=dict, description="story run = run in the file names, where they differ"
    )
    tr: float | None = Field(
        None, gt=0, description="seconds from scan to scan; from sidecar or header when left out"
    )
    stimulus_onset: float | dict[str, float] | None = Field(
        None,
        description="seconds from the first stored scan to the story's beginning; the corpus's own, or 0, when left out",
    )
    reference: float | None = Field(
        None,
        ge=0,
        le=1,
        description="moment a scan stands for, as a share of the TR; the sidecar's StartTime, or the middle, when left out",
    )
    clock: Literal["refuse", "report", "trust"] = Field(
        "refuse",
        description="what to do when responses come a scan or more too late or too early for the words",
    )
    mask: str = Field("compute", description='a mask image, "compute" over all runs, or "all" voxels')
    mask_threshold: float | None = Field(
        None,
        gt=0,
        description="least value inside a mask image of more than two values, such as a probability",
    )
    columns: list[str] | None = Field(None, description="names of a table's columns, where it has no header")
    detrend: bool = Field(True, description="remove each run's linear trend")
    high_pass: float | None = Field(
        1 / 128, description="cut-off in Hz of the cosine drift model; 0 leaves drifts in"
    )
    standardise: bool = Field(
        True, description="scale each target to mean 0 and standard deviation 1 in each run"
    )
    confounds: str | None = Field(None, description="pattern of confound tables to regress out of each run")
    confound_columns: list[str] = Field(
        default_factory=list,
        description='which of their columns, or patterns such as "a_comp_cor_*"; all when empty',
    )
    regions: dict[str, str | list[str]] | str = Field(
        default_factory=dict,
        description="name = mask image, or a list of column names; or a folder of masks, or a pattern with {region}",
    )
    region_threshold: float | None = Field(
        None, gt=0, description="least value inside the mask image of a region with more than two values"
    )
    atlas: AtlasSettings = Field(
        AtlasSettings(), description="a table of its own: an atlas whose parcels become regions"
    )
    targets: Literal["all", "parcels"] = Field(
        "all", description='what is fitted: "all" targets, or "parcels": the means over regions'
    )
    average: bool = Field(False, description='add the mean over subjects as a further subject, "average"')


class ModelSettings(SettingsTable):
    """One language model."""

    source: str = Field(description='folder, hub name, .gguf file, or "package:NAME/FILE.gguf"')
    name: str = Field("", description="what results call it; the last part of the source when left out")
    revision: str | None = Field(None, description="the hub's commit or tag")
    untrained_seed: int | None = Field(
        None, description="replace the weights by a random initialisation with this seed"
    )
    untrained: int = Field(
        0,
        ge=0,
        le=99,
        description='add so many untrained twins, models of their own called "NAME-untrained-0", with seeds from 0',
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = Field(
        "auto",
        description='"auto", "cpu", "cuda", "cuda:1", "spread" over all GPUs, or "offload": read from disk block by block',
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="pack the weights, where a model is larger than the GPU"
    )
    memory: float | None = Field(
        None, gt=0, description="gigabytes of main memory for spread and offload; what is free when left out"
    )
    trust_remote_code: bool = Field(
        False,
        description="run code that comes with the model; only if you have read it, and with --allow-code",
    )

    @property
    def label(self) -> str:
        """The name of the model in results."""
        return self.name or self.source.rstrip("/").split("/")[-1].removesuffix(".gguf")

    def with_twins(self) -> list[ModelSettings]:
        """Return this model and its untrained twins, each as a model of its own."""
        # twins are drawn in memory: nothing is packed or streamed
        place = "auto" if self.device in ("spread", "offload") else self.device
        twin = {"untrained": 0, "quantization": None, "device": place}
        twins = [
            self.model_copy(update={**twin, "name": f"{self.label}-untrained-{seed}", "untrained_seed": seed})
            for seed in range(self.untrained)
        ]
        return [self.model_copy(update={"untrained": 0}) if twins else self, *twins]


class FeatureSettings(SettingsTable):
    """What is taken from the models and from the text."""

    layers: list[int] | None = Field(
        None, description="which layers, 0 (embeddings) to the last; all when left out"
    )
    take: list[Literal["states", "heads", "mlp", "surprisal", "entropy"]] = Field(
        ["states"],
        min_length=1,
        description='hidden states of layers, outputs of attention heads ("heads"), of MLPs ("mlp"), and as controls "surprisal" and "entropy"',
    )
    context: Literal["sentence", "run"] | int = Field(
        "sentence", description='"sentence", a running context of so many tokens, or the whole "run"'
    )
    pool: Literal["mean", "last", "sum", "duration"] = Field(
        "mean",
        description='how words merge into sentences and scans; "duration" is a mean weighted by their durations',
    )
    bos: bool | Literal["tokenizer"] | None = Field(
        None,
        description='begin texts with the beginning-of-text token; "tokenizer" does what each model\'s does, as when left '
        "out, where models that do not agree are not compared",
    )
    prefix: str = Field("", description="text before every text the model reads, such as an instruction")
    suffix: str = Field("", description="text behind it; only encoders see it")
    chat: Literal["", "user", "assistant"] = Field(
        "", description="put every text into this turn of the model's chat template"
    )
    system: str = Field("", description="the system's turn of the chat")
    controls: list[str] = Field(
        default_factory=lambda: ["word_count", "duration", "word_rate"],
        description='names (docs/choose.md), measures of the corpus, or "my_module:function"',
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description='options of controls by name, e.g. { glove = { control = "static", file = "glove.txt" } }',
    )

    def curves(self, label: str) -> dict[str, str]:
        """Return what is fitted layer by layer for a model, kind → name; hidden states have the model's own name."""
        names = {"states": label, "heads": f"{label}-heads", "mlp": f"{label}-mlp"}
        return {kind: name for kind, name in names.items() if kind in self.take}


class DesignSettings(SettingsTable):
    """How words and scans are aligned."""

    rows: Literal["sentences", "phrases", "words", "scans"] = Field(
        "sentences",
        description="one row per sentence, phrase (from pause to pause) or word (mean response over it), or one row per scan",
    )
    delays: list[float] | None = Field(
        None,
        description="seconds; sentences: candidates (4 to 10 s when left out); scans: FIR delays (2 to 8 s)",
    )
    response: str = Field("glover", description='for scans: "fir", "glover", "spm", or "my_module:kernel"')
    short: Literal["error", "trim"] = Field("error", description="when a story outlasts its scans")
    trim: tuple[float, float] = Field(
        (0.0, 0.0), description="scans only: seconds left out at the beginning and end of each run"
    )


class ProtocolSettings(SettingsTable):
    """How models are fitted and scored; see docs/choose.md."""

    preset: Literal["rigorous", "replication-2025"] = "rigorous"
    folds: Literal["runs"] | int = "runs"
    test_runs: list[str] = Field(default_factory=list)
    inner: Literal["runs"] | int = "runs"
    gap: int = Field(5, ge=0)
    standardise: Literal["training", "run", "none"] = "training"
    pca: int | None = None
    penalties: list[float] | None = None
    relative: bool = True
    choose_by: Literal["r2", "r"] = "r2"
    delay_by: Literal["fold", "target"] = "fold"
    nested_axes: bool = Field(
        True,
        description="find scales and axes anew in inner folds; false uses those of the outer training rows",
    )
    confounds: list[str] | None = Field(
        None, description="controls to regress out; duration for sentences, word_count for scans"
    )
    n_nulls: int = Field(1000, ge=0)
    null: Literal["shift", "block", "phase"] = Field(
        "shift", description="what nulls do to the responses of each run before they are fitted again"
    )
    null_block: int = Field(
        30, ge=1, description='rows in a block, for null = "block": well above the memory of the responses'
    )
    null_penalties: Literal["kept", "chosen"] = Field(
        "kept", description='nulls keep the penalties of the true fit, or have theirs "chosen" anew'
    )
    null_layers: Literal["chosen", "all"] = Field(
        "chosen", description='"all" tests every layer too, corrected over layers; costs as many times more'
    )
    row_shift: bool = Field(
        False,
        description="replication-2025 only: pair rows by position after units were dropped, as published",
    )


class CompareSettings(SettingsTable):
    """Which models are compared, and what difference would matter."""

    pairs: list[tuple[str, str]] | None = Field(
        None, description="pairs of model names; the first two models when left out"
    )
    margin: float = Field(0.01, gt=0, description="smallest difference of interest, in r")
    region: str = Field("brain", description="the region that curves and comparisons are about")


class PartitionSettings(SettingsTable):
    """What a model's layer, chosen in training, explains that controls do not: unique and shared variance."""

    on: bool = Field(
        False, description="do it; partition = true in the place of this table does it with these defaults"
    )
    models: list[str] | None = Field(None, description="which models; all but untrained twins when left out")
    bands: dict[str, list[str]] = Field(
        default_factory=dict,
        description="name = controls that share a penalty; each control by itself when empty",
    )
    twin: bool = Field(
        True, description='the same layer of a model\'s untrained twins is a band too, "untrained"'
    )
    region: str = Field("brain", description="only the targets of this region are partitioned, to save time")
    n_gammas: int = Field(
        60, ge=1, description="how many weights of bands are tried; fewer leave the joint prediction short"
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_switch(cls, value: Any) -> Any:
        """Read ``partition = true``; a table with any setting switches the partition on."""
        if isinstance(value, bool):
            return {"on": value}
        return {"on": bool(value), **value} if isinstance(value, dict) else value


class FitSettings(SettingsTable):
    """Where models are fitted, and what is written beside scores. Scores depend on it by rounding only."""

    on: str = Field(
        "numpy",
        description='"numpy", "torch" (its CPU), or a device of torch: "cuda", "cuda:1"',
    )
    regime: Literal["auto", "pairs", "axes", "kernel"] = Field(
        "auto", description="how predictions are scored (docs/choose.md); the cheapest when auto"
    )
    predictions: bool = Field(
        False, description="write predictions of the layer chosen in training, per subject and model"
    )
    weights: bool = Field(False, description="write its weights on features too; large")


class InferenceSettings(SettingsTable):
    """What is computed from finished scores, beside the comparison of models."""

    n_resamples: int = Field(
        10_000, ge=100, description="bootstrap samples and random signs; ceilings take a tenth"
    )
    ceilings: bool = Field(
        True,
        description="noise ceilings: between 3 or more subjects, and from repeats where the corpus has them",
    )
    group: bool = Field(
        True, description="tests over subjects at every target and region, from 5 subjects on"
    )
    tfce: bool = Field(
        False, description="those tests with threshold-free cluster enhancement too; takes minutes"
    )
    mixed: bool = Field(True, description="a mixed model of 2 or more models over subjects and runs")


class Study(SettingsTable):
    """A whole study. Two equal studies give equal results."""

    name: str = "study"
    output: str = Field("results", description="folder for results, relative to the study file")
    seed: int = 0
    jobs: int = Field(0, ge=0, description="threads that fit, which change no number; 0 uses every core")
    data: Data = Data()
    story: StorySettings = StorySettings()
    recording: RecordingSettings = RecordingSettings()
    models: list[ModelSettings] = Field(default_factory=list)
    features: FeatureSettings = FeatureSettings()
    design: DesignSettings = DesignSettings()
    protocol: ProtocolSettings = ProtocolSettings()
    fit: FitSettings = FitSettings()
    compare: CompareSettings = CompareSettings()
    inference: InferenceSettings = InferenceSettings()
    partition: PartitionSettings = PartitionSettings()
    folder: str = Field("", exclude=True, description="where the study file lies; set when it is read")
    allow_code: bool = Field(
        False, exclude=True, description="whether code that the file names may run; set when it is read"
    )

    @property
    def base(self) -> Path:
        """The folder of relative data paths."""
        path = Path(self.data.path).expanduser()
        return path if path.is_absolute() else Path(self.folder) / path

    @property
    def output_folder(self) -> Path:
        """The folder of results."""
        path = Path(self.output).expanduser()
        return path if path.is_absolute() else Path(self.folder) / path

    def to_protocol(self) -> Protocol:
        """Turn the protocol's settings into the value that fits obey.

        Settings and fields of `Protocol` with the same name are the same choice; lists become tuples, and what is left out
        becomes the default.

        Raises
        ------
        SettingsError : a setting that the preset decides itself, or one that belongs to another preset
        """
        settings = self.protocol
        if settings.preset == "replication-2025":
            return self._published_protocol()
        if settings.row_shift:
            raise SettingsError(
                "protocol.row_shift belongs to the preset 'replication-2025'; rows always meet by id elsewhere."
            )
        names = [field.name for field in fields(Protocol) if field.name in ProtocolSettings.model_fields]
        choices: dict[str, Any] = {name: getattr(settings, name) for name in names}
        choices["test_runs"] = tuple(settings.test_runs)
        choices["penalties"] = GRID if settings.penalties is None else tuple(settings.penalties)
        if settings.confounds is None:
            choices["confounds"] = ("word_count",) if self.design.rows == "scans" else ("duration",)
        else:
            choices["confounds"] = tuple(name.rsplit(":", 1)[-1] for name in settings.confounds)
        return Protocol(**choices)

    def _published_protocol(self) -> Protocol:
        """Return the preset "replication-2025", which decides everything itself."""
        ignored = sorted(self.protocol.model_fields_set - {"preset", "row_shift"})
        if ignored or self.features.context != "sentence" or self.features.pool != "mean":
            what = f"protocol.{ignored[0]}" if ignored else "features.context and features.pool"
            raise SettingsError(
                f"The preset 'replication-2025' decides {what} itself, as published. Leave it out."
            )
        return Protocol(
            name="replication-2025",
            folds=5,
            standardise="none",
            pca=15,
            penalties=(100.0, 1000.0, 10000.0),
            relative=False,
            confounds=("duration",),
            n_nulls=0,
            leaks=REPLICATION_LEAKS + ((ROW_SHIFT_LEAK,) if self.protocol.row_shift else ()),
        )


ROW_SHIFT_LEAK = "Units that the model skipped are missing from the features only, so later rows are paired with another sentence's response."


def n_jobs(study: Study) -> int:
    """Return the number of threads that a study uses: its setting, or every core that this process may run on."""
    return study.jobs or _n_cores()


def n_reading_threads() -> int:
    """Return the number of threads that a model reads with: OMP_NUM_THREADS, or every core that this process may run on."""
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(named) if named.isdecimal() and int(named) else _n_cores()


def _n_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
