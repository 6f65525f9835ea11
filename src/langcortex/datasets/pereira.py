"""Pereira 2018: passages of simple sentences, as Brain-Score's assembly, the authors' MATLAB files or a table of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from langcortex.datasets.brainscore import BrainScore
from langcortex.datasets.corpus import Reading
from langcortex.datasets.sentence_tables import (
    SentenceResponses,
    SentenceTable,
    as_names,
    find_table,
    parse_responses,
    read_csv,
)
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import natural_key, require_file

EXPERIMENTS = ("384sentences", "243sentences")
_CITATION = (
    "Pereira et al. (2018), Toward a universal decoder of linguistic meaning from brain activation, "
    "Nature Communications 9, 963, doi:10.1038/s41467-018-03068-4."
)
_LICENCE = "The files state no licence; the authors publish them at osf.io/crwz7."


def corpus(
    path: Path,
    reading: Reading,
    file: str = "",
    experiment: str | list[str] = "",
    atlas: str = "",
    run: str = "",
) -> SentenceTable:
    """Open Pereira 2018, in any of its forms.

    Parameters
    ----------
    path : a folder with ``assy_Pereira2018_language.nc`` (Brain-Score), with the authors' files
        (``P01/examples_243sentences.mat``, …), or with ``Pereira_FirstSession_TrialEffectSizes_*.csv``; or one of these files
    file : the .nc or .csv to read, if the folder has several
    experiment : "384sentences" or "243sentences"; both when empty (for a .csv, the names in the table)
    atlas : for an assembly, the part of its file name ("language", the default, or "auditory"); for MATLAB files, the
        name of an atlas in ``meta``, such as "languageLH", whose voxels are used: all voxels when empty
    run : the coordinate or column whose values are runs. By default the topic (``passage_category``) within its
        experiment, as in Brain-Score's benchmark; for a .csv, which names no passages, the experiment
    """
    base, experiments = Path(path), as_names(experiment, "experiment")
    kind = _kind(base, file)
    if kind == ".mat":
        if run:
            raise SettingsError("data.options.run is not for MATLAB files: their runs are topics.")
        return PereiraFolders(base, experiments, atlas, reading)
    if kind == ".csv":
        return PereiraTable(
            find_table(base, file, "Pereira*TrialEffectSizes*.csv"), experiments, run, reading
        )
    pattern = f"*Pereira2018*{atlas or 'language'}*.nc"
    source = find_table(base, file, pattern if base.is_dir() and any(base.glob(pattern)) else "*.nc")
    return PereiraAssembly(source, experiments, {"run": run} if run else {}, reading)


def _kind(path: Path, file: str) -> str:
    name = Path(file) if file else path
    if name.suffix in (".nc", ".csv"):
        return name.suffix
    if path.is_dir():
        for kind, pattern in (
            (".nc", "*.nc"),
            (".mat", "**/examples_*sentences.mat"),
            (".csv", "Pereira*.csv"),
        ):
            if any(path.glob(pattern)):
                return kind
    raise RecordingError(
        f"{path} holds none of the forms of Pereira 2018: assy_Pereira2018_language.nc, P01/examples_243sentences.mat, or "
        "Pereira_FirstSession_TrialEffectSizes_*.csv. Check data.path."
    )


@dataclass(frozen=True, eq=False)
class PereiraAssembly(BrainScore):
    """Pereira 2018 as published by Brain-Score: 627 sentences, ten subjects, 13,553 voxels of the language network.

    A subject who did not take part in an experiment has NaN there, and no runs of it.
    """

    name: ClassVar[str] = "pereira-2018"

    def sentences(self) -> pd.DataFrame:
        """List the presentations; a run is a topic within its experiment."""
        table = self.assembly.presentation
        if "run" not in self.names and "story" not in table:
            for name in ("experiment", "passage_category"):
                if name not in table:
                    raise self._absent("presentation", name, "run")
            topic = table["experiment"].astype(str) + "." + table["passage_category"].astype(str)
            return super().sentences().assign(run=topic.to_numpy(dtype=str)[self._rows])
        return super().sentences()

    def citation(self) -> str:
        """Return what to cite."""
        return _CITATION

    def licence(self) -> str:
        """Return the terms of use."""
        return _LICENCE


@dataclass(frozen=True, eq=False)
class PereiraFolders(SentenceTable):
    """Pereira 2018 as published by its authors: one folder per subject, one MATLAB v5 file per experiment, all voxels.

    The fields are those that public code reads (examples, keySentences, labelsSentences, labelsPassageForEachSentence,
    labelsPassageCategory, keyPassageCategory; meta.atlases, meta.rois and meta.roiColumns for an atlas); the files
    themselves were not at hand. Labels count from 1. A sentence is called ``384sentences.12``, counted from 0, as in
    Brain-Score.
    """

    name: ClassVar[str] = "pereira-2018"

    path: Path
    experiment: Sequence[str] = ()
    atlas: str = ""
    reading: Reading = field(default_factory=Reading)

    def sentences(self) -> pd.DataFrame:
        """List the sentences of all experiments; a run is a topic within its experiment."""
        return pd.concat(self._sentences.values(), ignore_index=True)

    def all_subjects(self) -> list[str]:
        """List the subjects who took part in any of the experiments."""
        return sorted({subject for files in self._files.values() for subject in files}, key=natural_key)

    def responses(self, subject: str) -> SentenceResponses:
        """Read the responses of one subject to the sentences of all experiments."""
        stimuli: list[str] = []
        parts: list[np.ndarray] = []
        names: list[int] | None = None
        for experiment, files in self._files.items():
            if subject not in files:
                continue
            path = files[subject]
            variables = _read_mat(path, ("examples", "meta", "labelsSentences"))
            columns, regions = self._voxels(variables, path)
            if names is not None and columns.tolist() != names:
                raise RecordingError(
                    f"{path}: subject '{subject}' has other voxels than in {self.experiment or EXPERIMENTS}. Choose one with data.options.experiment."
                )
            names = columns.tolist()
            self._check_sentences(experiment, path)
            number = _labels(variables, "labelsSentences", path, len(variables["examples"]))
            stimuli += [f"{experiment}.{k - 1}" for k in number.tolist()]
            parts.append(np.asarray(variables["examples"], dtype=np.float32)[:, columns])
        return SentenceResponses(stimuli, np.concatenate(parts), [f"voxel-{i}" for i in names or []], regions)

    def citation(self) -> str:
        """Return what to cite."""
        return _CITATION

    def licence(self) -> str:
        """Return the terms of use."""
        return _LICENCE

    @cached_property
    def _files(self) -> dict[str, dict[str, Path]]:
        """Experiment → subject → file."""
        by_experiment: dict[str, dict[str, Path]] = {}
        for path in sorted(self.path.glob("**/examples_*sentences.mat")):
            experiment = path.stem.removeprefix("examples_")
            if self.experiment and experiment not in self.experiment:
                continue
            files = by_experiment.setdefault(experiment, {})
            if path.parent.name in files:
                raise RecordingError(
                    f"Two files are {experiment} of subject '{path.parent.name}': {files[path.parent.name]} and {path}. Keep one."
                )
            files[path.parent.name] = path
        absent = [name for name in self.experiment if name not in by_experiment]
        if absent or not by_experiment:
            raise RecordingError(
                f"{self.path} has no examples_{absent[0] if absent else '*sentences'}.mat in the subjects' folders. Check data.path and data.options.experiment."
            )
        # 384sentences first, as the authors number their experiments
        return {name: by_experiment[name] for name in sorted(by_experiment, reverse=True)}

    @cached_property
    def _sentences(self) -> dict[str, pd.DataFrame]:
        """Experiment → its sentences, as listed by the file of the first subject."""
        return {
            name: _read_sentences(name, next(iter(files.values()))) for name, files in self._files.items()
        }

    def _check_sentences(self, experiment: str, path: Path) -> None:
        if _read_sentences(experiment, path).text.tolist() != self._sentences[experiment].text.tolist():
            first = next(iter(self._files[experiment].values()))
            raise StoryError(f"{path} lists other sentences than {first}. Fetch both again.")

    def _voxels(self, variables: dict[str, Any], path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the columns of the atlas, and which of them are in each of its regions."""
        n_voxels = variables["examples"].shape[1]
        if not self.atlas:
            return np.arange(n_voxels), {}
        try:
            meta = variables["meta"]
            atlases = [_text(a) for a in np.atleast_1d(meta["atlases"].item())]
            if self.atlas not in atlases:
                raise SettingsError(
                    f"{path} has no atlas '{self.atlas}' (data.options.atlas). It has: {', '.join(atlases)}."
                )
            index = atlases.index(self.atlas)
            rois = [_text(r) for r in np.atleast_1d(_cell(meta["rois"].item(), index, len(atlases)))]
            roi_columns = _cell(meta["roiColumns"].item(), index, len(atlases))
            columns = [
                np.atleast_1d(_cell(roi_columns, k, len(rois))).astype(np.intp).ravel() - 1
                for k in range(len(rois))
            ]
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise RecordingError(
                f"{path}: meta does not say which voxels are in '{self.atlas}' ({error}). Leave data.options.atlas out."
            ) from error
        voxels = np.unique(np.concatenate(columns)) if columns else np.array([], dtype=np.intp)
        if len(voxels) == 0 or voxels[0] < 0 or voxels[-1] >= n_voxels:
            raise RecordingError(f"{path}: meta names voxels of '{self.atlas}' that examples does not have.")
        return voxels, {roi: np.isin(voxels, part) for roi, part in zip(rois, columns, strict=True)}


def _read_mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read variables of a MATLAB v5 file."""
    from scipy.io import loadmat

    require_file(path, RecordingError, "MATLAB file")
    try:
        variables: dict[str, Any] = loadmat(path, squeeze_me=True, variable_names=[*names, "keySentences"])
    # scipy raises errors of many kinds for a damaged file; NotImplementedError is a v7.3 file
    except Exception as error:
        raise RecordingError(
            f"{path} cannot be read as a MATLAB v5 file ({error}). Fetch it again."
        ) from error
    absent = [n for n in names if n not in variables and n not in ("meta", "labelsSentences")]
    if absent:
        raise RecordingError(f"{path} has no variable '{absent[0]}'. Fetch it again.")
    if "examples" in variables:
        variables["examples"] = np.atleast_2d(variables["examples"])
    return variables


def _labels(
    variables: dict[str, Any], name: str, path: Path, n_rows: int, largest: int | None = None
) -> np.ndarray:
    """Return labels, which count from 1; a file without labels lists its rows in order."""
    if name in variables:
        labels = np.atleast_1d(variables[name]).ravel().astype(np.intp)
    else:
        labels = np.arange(1, n_rows + 1)
    if len(labels) != n_rows or labels.min() < 1 or labels.max() > (largest or n_rows):
        raise RecordingError(f"{path}: {name} does not label {n_rows} rows. Fetch it again.")
    return labels


def _read_sentences(experiment: str, path: Path) -> pd.DataFrame:
    fields = ("keySentences", "labelsPassageForEachSentence", "labelsPassageCategory", "keyPassageCategory")
    variables = _read_mat(path, fields)
    text = [_text(s) for s in np.atleast_1d(variables["keySentences"]).ravel()]
    topics = [_text(t) for t in np.atleast_1d(variables["keyPassageCategory"]).ravel()]
    n_passages = np.atleast_1d(variables["labelsPassageCategory"]).size
    passage = _labels(variables, "labelsPassageForEachSentence", path, len(text), n_passages)
    topic = _labels(variables, "labelsPassageCategory", path, n_passages, len(topics))
    return pd.DataFrame(
        {
            "stimulus": [f"{experiment}.{k}" for k in range(len(text))],
            "text": text,
            "run": [f"{experiment}.{topics[topic[p - 1] - 1]}" for p in passage.tolist()],
        }
    )


def _text(value: Any) -> str:
    """Return the text inside nested cells."""
    while isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return str(value)


def _cell(cells: Any, index: int, count: int) -> Any:
    """Return one of several cells; a single cell is not wrapped."""
    return cells if count == 1 else cells[index]


@dataclass(frozen=True, eq=False)
class PereiraTable(SentenceTable):
    """Pereira 2018 as the table of langbrainscore: mean responses of regions, one row per subject and sentence.

    Targets are the columns whose names contain "Lang" or "MD", as in langbrainscore. Of the others only UID,
    Experiment, Stim and Sentence are needed; the file itself was not at hand.

    Attributes
    ----------
    path : the .csv
    experiment : the experiments to use, by their names in the table; all when empty
    run : the column whose values are runs; the experiment when empty
    reading : the subjects
    """

    name: ClassVar[str] = "pereira-2018"

    path: Path
    experiment: Sequence[str] = ()
    run: str = ""
    reading: Reading = field(default_factory=Reading)

    def sentences(self) -> pd.DataFrame:
        """List the sentences."""
        items = self._table.drop_duplicates(["stimulus", "Sentence"])
        run = items[self.run or "Experiment"]
        return pd.DataFrame({"stimulus": items.stimulus, "text": items.Sentence, "run": run})

    def all_subjects(self) -> list[str]:
        """List all subjects."""
        return list(dict.fromkeys(self._table.UID.tolist()))

    def responses(self, subject: str) -> SentenceResponses:
        """Read the responses of one subject."""
        rows = self._table[subject == self._table.UID]
        values = np.column_stack([parse_responses(rows[name], self.path) for name in self._targets])
        networks = {"language": "Lang", "multiple-demand": "MD"}
        regions = {
            network: np.array([part in name for name in self._targets]) for network, part in networks.items()
        }
        regions = {network: inside for network, inside in regions.items() if inside.any()}
        return SentenceResponses(rows.stimulus.tolist(), values, self._targets, regions)

    def citation(self) -> str:
        """Return what to cite."""
        return _CITATION

    def licence(self) -> str:
        """Return the terms of use."""
        return _LICENCE

    @property
    def _targets(self) -> list[str]:
        return [str(name) for name in self._table.columns if "Lang" in str(name) or "MD" in str(name)]

    @cached_property
    def _table(self) -> pd.DataFrame:
        required = ["UID", "Experiment", "Stim", "Sentence", *([self.run] if self.run else [])]
        table = read_csv(self.path, required, all_columns=True)
        if not any("Lang" in name or "MD" in name for name in table.columns):
            raise RecordingError(f"{self.path} has no column of a region (Lang… or MD…). Fetch it again.")
        unknown = [name for name in self.experiment if name not in set(table.Experiment)]
        if unknown:
            raise SettingsError(
                f"{self.path} has no experiment '{unknown[0]}'. It has: {', '.join(sorted(set(table.Experiment)))}."
            )
        table["stimulus"] = table.Experiment + "." + table.Stim
        return table[table.Experiment.isin(self.experiment)] if self.experiment else table
