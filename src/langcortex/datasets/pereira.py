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
    Answers,
    SentenceTable,
    numbers,
    only_file,
    read_csv,
    several_names,
)
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import natural_key, require_file

EXPERIMENTS = ("384sentences", "243sentences")
_CITATION = (
    "Pereira et al. (2018), Toward a universal decoder of linguistic meaning from brain activation, "
    "Nature Communications 9, 963, doi:10.1038/s41467-018-03068-4."
)
_LICENCE = "The files state no licence; the authors give them out at osf.io/crwz7."


def corpus(
    path: Path,
    reading: Reading,
    file: str = "",
    experiment: str | list[str] = "",
    atlas: str = "",
    run: str = "",
) -> SentenceTable:
    """Open Pereira 2018, in whichever form it lies in the folder.

    Parameters
    ----------
    path : a folder with ``assy_Pereira2018_language.nc`` (Brain-Score), with ``P01/examples_243sentences.mat`` and
        its like (the authors' files), or with ``Pereira_FirstSession_TrialEffectSizes_*.csv``; or one of these files
    file : the .nc or .csv to read, where the folder has several
    experiment : "384sentences" or "243sentences"; both when empty (a table's own names for a .csv)
    atlas : of an assembly, the part of its file's name ("language", the default, or "auditory"); of MATLAB files, the
        name of an atlas in ``meta``, such as "languageLH", whose voxels are taken: all voxels when empty
    run : the coordinate or column whose values are runs. By default the topic (``passage_category``) within its
        experiment, as in Brain-Score's benchmark; for a .csv, which names no passages, the experiment
    """
    base, keep = Path(path), several_names(experiment, "experiment")
    kind = _kind(base, file)
    if kind == ".mat":
        if run:
            raise SettingsError("data.options.run is not for MATLAB files: their runs are topics.")
        return PereiraFolders(base, keep, atlas, reading)
    if kind == ".csv":
        return PereiraTable(only_file(base, file, "Pereira*TrialEffectSizes*.csv"), keep, run, reading)
    pattern = f"*Pereira2018*{atlas or 'language'}*.nc"
    source = only_file(base, file, pattern if base.is_dir() and any(base.glob(pattern)) else "*.nc")
    return PereiraAssembly(source, keep, {"run": run} if run else {}, reading)


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
    """Pereira 2018 as Brain-Score gives it out: 627 sentences, ten subjects, 13,553 voxels of the language network.

    A subject without one of the experiments has NaN there, and no runs of it.
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
        """Say what to cite."""
        return _CITATION

    def licence(self) -> str:
        """Say under which terms the data may be used."""
        return _LICENCE


@dataclass(frozen=True, eq=False)
class PereiraFolders(SentenceTable):
    """Pereira 2018 as its authors give it out: a folder a subject, a MATLAB v5 file an experiment, all voxels.

    Fields are those that public code reads (examples, keySentences, labelsSentences, labelsPassageForEachSentence,
    labelsPassageCategory, keyPassageCategory; meta.atlases, meta.rois and meta.roiColumns for an atlas); the files
    themselves were not at hand. Labels count from 1. A sentence is called ``384sentences.12``, counted from 0, as in
    Brain-Score.

    Attributes
    ----------
    path : the folder of the subjects' folders
    experiment : the experiments to keep; all when empty
    atlas : the atlas whose voxels to take; all voxels when empty
    reading : which subjects
    """

    name: ClassVar[str] = "pereira-2018"

    path: Path
    experiment: Sequence[str] = ()
    atlas: str = ""
    reading: Reading = field(default_factory=Reading)

    def sentences(self) -> pd.DataFrame:
        """List the sentences of every experiment; a run is a topic within its experiment."""
        return pd.concat(self._described.values(), ignore_index=True)

    def found(self) -> list[str]:
        """List every subject who did one of the experiments."""
        return sorted({subject for files in self._files.values() for subject in files}, key=natural_key)

    def answers(self, subject: str) -> Answers:
        """Read one subject's responses to the sentences of every experiment."""
        stimuli: list[str] = []
        parts: list[np.ndarray] = []
        names: list[int] | None = None
        for experiment, files in self._files.items():
            if subject not in files:
                continue
            path = files[subject]
            held = _mat(path, ("examples", "meta", "labelsSentences"))
            columns, inside = self._voxels(held, path)
            if names is not None and columns.tolist() != names:
                raise RecordingError(
                    f"{path}: subject '{subject}' has other voxels than in {self.experiment or EXPERIMENTS}. Choose one with data.options.experiment."
                )
            names, regions = columns.tolist(), inside
            self._same_sentences(experiment, path)
            number = _labels(held, "labelsSentences", path, len(held["examples"]))
            stimuli += [f"{experiment}.{k - 1}" for k in number.tolist()]
            parts.append(np.asarray(held["examples"], dtype=np.float32)[:, columns])
        return Answers(stimuli, np.concatenate(parts), [f"voxel-{i}" for i in names or []], regions)

    def citation(self) -> str:
        """Say what to cite."""
        return _CITATION

    def licence(self) -> str:
        """Say under which terms the data may be used."""
        return _LICENCE

    @cached_property
    def _files(self) -> dict[str, dict[str, Path]]:
        """Experiment → subject → file."""
        found: dict[str, dict[str, Path]] = {}
        for path in sorted(self.path.glob("**/examples_*sentences.mat")):
            experiment = path.stem.removeprefix("examples_")
            if self.experiment and experiment not in self.experiment:
                continue
            files = found.setdefault(experiment, {})
            if path.parent.name in files:
                raise RecordingError(
                    f"Two files stand for {experiment} of subject '{path.parent.name}': {files[path.parent.name]} and {path}. Keep one."
                )
            files[path.parent.name] = path
        absent = [name for name in self.experiment if name not in found]
        if absent or not found:
            raise RecordingError(
                f"{self.path} has no examples_{absent[0] if absent else '*sentences'}.mat in the subjects' folders. Check data.path and data.options.experiment."
            )
        # 384sentences first, as the authors number their experiments
        return {name: found[name] for name in sorted(found, reverse=True)}

    @cached_property
    def _described(self) -> dict[str, pd.DataFrame]:
        """Experiment → its sentences, as the first subject's file lists them."""
        return {name: _sentences_of(name, next(iter(files.values()))) for name, files in self._files.items()}

    def _same_sentences(self, experiment: str, path: Path) -> None:
        if _sentences_of(experiment, path).text.tolist() != self._described[experiment].text.tolist():
            other = next(iter(self._files[experiment].values()))
            raise StoryError(f"{path} lists other sentences than {other}. Fetch both again.")

    def _voxels(self, held: dict[str, Any], path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Give the columns of an atlas, and which of them lie in each of its regions."""
        n = held["examples"].shape[1]
        if not self.atlas:
            return np.arange(n), {}
        try:
            meta = held["meta"]
            atlases = [_text(a) for a in np.atleast_1d(meta["atlases"].item())]
            if self.atlas not in atlases:
                raise SettingsError(
                    f"{path} has no atlas '{self.atlas}' (data.options.atlas). It has: {', '.join(atlases)}."
                )
            which = atlases.index(self.atlas)
            rois = [_text(r) for r in np.atleast_1d(_item(meta["rois"].item(), which, len(atlases)))]
            held_columns = _item(meta["roiColumns"].item(), which, len(atlases))
            columns = [
                np.atleast_1d(_item(held_columns, k, len(rois))).astype(np.intp).ravel() - 1
                for k in range(len(rois))
            ]
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise RecordingError(
                f"{path}: meta does not say which voxels are in '{self.atlas}' ({error}). Leave data.options.atlas out."
            ) from error
        taken = np.unique(np.concatenate(columns)) if columns else np.array([], dtype=np.intp)
        if len(taken) == 0 or taken[0] < 0 or taken[-1] >= n:
            raise RecordingError(f"{path}: meta names voxels of '{self.atlas}' that examples does not have.")
        return taken, {roi: np.isin(taken, part) for roi, part in zip(rois, columns, strict=True)}


def _mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read some variables of a MATLAB v5 file."""
    from scipy.io import loadmat

    require_file(path, RecordingError, "MATLAB file")
    try:
        held: dict[str, Any] = loadmat(path, squeeze_me=True, variable_names=[*names, "keySentences"])
    # scipy raises errors of many kinds for a damaged file; NotImplementedError is a v7.3 file
    except Exception as error:
        raise RecordingError(
            f"{path} cannot be read as a MATLAB v5 file ({error}). Fetch it again."
        ) from error
    absent = [n for n in names if n not in held and n not in ("meta", "labelsSentences")]
    if absent:
        raise RecordingError(f"{path} has no variable '{absent[0]}'. Fetch it again.")
    if "examples" in held:
        held["examples"] = np.atleast_2d(held["examples"])
    return held


def _labels(held: dict[str, Any], name: str, path: Path, n: int, most: int | None = None) -> np.ndarray:
    """Read labels, which count from 1; a file without them lists its rows in order."""
    labels = np.atleast_1d(held[name]).ravel().astype(np.intp) if name in held else np.arange(1, n + 1)
    if len(labels) != n or labels.min() < 1 or labels.max() > (most or n):
        raise RecordingError(f"{path}: {name} does not label {n} rows. Fetch it again.")
    return labels


def _sentences_of(experiment: str, path: Path) -> pd.DataFrame:
    fields = ("keySentences", "labelsPassageForEachSentence", "labelsPassageCategory", "keyPassageCategory")
    held = _mat(path, fields)
    text = [_text(s) for s in np.atleast_1d(held["keySentences"]).ravel()]
    topics = [_text(t) for t in np.atleast_1d(held["keyPassageCategory"]).ravel()]
    n_passages = np.atleast_1d(held["labelsPassageCategory"]).size
    passage = _labels(held, "labelsPassageForEachSentence", path, len(text), n_passages)
    topic = _labels(held, "labelsPassageCategory", path, n_passages, len(topics))
    return pd.DataFrame(
        {
            "stimulus": [f"{experiment}.{k}" for k in range(len(text))],
            "text": text,
            "run": [f"{experiment}.{topics[topic[p - 1] - 1]}" for p in passage.tolist()],
        }
    )


def _text(value: Any) -> str:
    """Take a text out of the cells it is wrapped in."""
    while isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return str(value)


def _item(cells: Any, which: int, count: int) -> Any:
    """Take one of several cells; a single cell is not wrapped."""
    return cells if count == 1 else cells[which]


@dataclass(frozen=True, eq=False)
class PereiraTable(SentenceTable):
    """Pereira 2018 as langbrainscore's table: mean responses of regions, a row a subject and sentence.

    Targets are the columns whose names hold "Lang" or "MD", as in langbrainscore. Only UID, Experiment, Stim and
    Sentence are needed beside them; the file itself was not at hand.

    Attributes
    ----------
    path : the .csv
    experiment : the experiments to keep, in the table's own names; all when empty
    run : the column whose values are runs; the experiment when empty
    reading : which subjects
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

    def found(self) -> list[str]:
        """List every subject."""
        return list(dict.fromkeys(self._table.UID.tolist()))

    def answers(self, subject: str) -> Answers:
        """Give one subject's responses."""
        mine = self._table[subject == self._table.UID]
        values = np.column_stack([numbers(mine[name], self.path) for name in self._targets])
        families = {"language": "Lang", "multiple-demand": "MD"}
        regions = {
            family: np.array([part in name for name in self._targets]) for family, part in families.items()
        }
        return Answers(
            mine.stimulus.tolist(), values, self._targets, {k: v for k, v in regions.items() if v.any()}
        )

    def citation(self) -> str:
        """Say what to cite."""
        return _CITATION

    def licence(self) -> str:
        """Say under which terms the data may be used."""
        return _LICENCE

    @property
    def _targets(self) -> list[str]:
        return [str(name) for name in self._table.columns if "Lang" in str(name) or "MD" in str(name)]

    @cached_property
    def _table(self) -> pd.DataFrame:
        needed = ["UID", "Experiment", "Stim", "Sentence", *([self.run] if self.run else [])]
        table = read_csv(self.path, needed, every=True)
        if not any("Lang" in name or "MD" in name for name in table.columns):
            raise RecordingError(f"{self.path} has no column of a region (Lang… or MD…). Fetch it again.")
        unknown = [name for name in self.experiment if name not in set(table.Experiment)]
        if unknown:
            raise SettingsError(
                f"{self.path} has no experiment '{unknown[0]}'. It has: {', '.join(sorted(set(table.Experiment)))}."
            )
        table["stimulus"] = table.Experiment + "." + table.Stim
        return table[table.Experiment.isin(self.experiment)] if self.experiment else table
