"""Assemblies of Brain-Score: netCDF files of presentations × neuroids, read and written as plain tables."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.brain.recording import Responses
from langcortex.cache import atomic_write
from langcortex.datasets.corpus import Reading
from langcortex.datasets.sentence_tables import Answers, SentenceTable, only_file, several_names
from langcortex.errors import RecordingError, SettingsError
from langcortex.paths import require_file
from langcortex.stimulus.story import Story

DIMS = ("presentation", "neuroid")


def corpus(
    path: Path,
    reading: Reading,
    file: str = "",
    experiment: str | list[str] = "",
    run: str = "",
    text: str = "",
    subject: str = "",
    region: str = "",
) -> BrainScore:
    """Open an assembly.

    Parameters
    ----------
    path : the .nc file, or its folder
    file : which .nc of the folder
    experiment : keep only presentations with these values of the coordinate ``experiment``; all when empty
    run : the coordinate whose values are runs, which folds do not split; ``story`` if there is one, else every
        sentence is in one run called "sentences"
    text : the coordinate with the sentences; ``stimulus`` or ``sentence``
    subject : the coordinate with the subjects; ``subject`` or ``subject_UID``, else all targets are one subject's
    region : the coordinate whose values become regions; ``roi``, if there is one
    """
    names = {"run": run, "text": text, "subject": subject, "region": region}
    source = only_file(Path(path), file, "*.nc")
    return BrainScore(
        source, several_names(experiment, "experiment"), {k: v for k, v in names.items() if v}, reading
    )


@dataclass(frozen=True, eq=False)
class Assembly:
    """What an assembly holds.

    Attributes
    ----------
    path : the file
    values : (n_presentations, n_neuroids) float32
    presentation : a row a presentation, a column a coordinate
    neuroid : a row a neuroid, a column a coordinate
    """

    path: Path
    values: np.ndarray
    presentation: pd.DataFrame
    neuroid: pd.DataFrame


@dataclass(frozen=True, eq=False)
class BrainScore(SentenceTable):
    """Sentences and responses of one assembly.

    The layout is that of Brain-Score's own writer (brainscore_core, brainio): a variable ``data`` with the
    dimensions presentation and neuroid, and coordinates on one of them each. It was checked on files written here
    in that layout; the published assemblies were not at hand.

    Attributes
    ----------
    path : the .nc file
    experiment : the experiments to keep; all when empty
    names : what the coordinates for run, text, subject and region are called, where it is not the usual
    reading : which subjects
    """

    path: Path
    experiment: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)

    def sentences(self) -> pd.DataFrame:
        """List the presentations."""
        table = self.assembly.presentation[self._rows]
        run = self._column("presentation", "run", ("story",))
        text = self._column("presentation", "text", ("stimulus", "sentence"))
        if text is None:
            raise self._absent("presentation", "stimulus", "text")
        return pd.DataFrame(
            {
                "stimulus": table["stimulus_id"].to_numpy(dtype=str),
                "text": text[self._rows],
                "run": "sentences" if run is None else run[self._rows],
            }
        )

    def found(self) -> list[str]:
        """List every subject of the assembly."""
        return list(dict.fromkeys(self._subject.tolist()))

    def answers(self, subject: str) -> Answers:
        """Give the responses of one subject's neuroids."""
        mine = self._subject == subject
        names = self.assembly.neuroid["neuroid_id"].to_numpy(dtype=str)[mine]
        region = self._column("neuroid", "region", ("roi",))
        inside = (
            {} if region is None else {name: region[mine] == name for name in dict.fromkeys(region[mine])}
        )
        stimuli = self.assembly.presentation["stimulus_id"].to_numpy(dtype=str)[self._rows]
        values = self.assembly.values[np.ix_(self._rows, mine)]
        return Answers(stimuli, values, names, {k: v for k, v in inside.items() if k not in ("", "nan")})

    def citation(self) -> str:
        """Say what to cite."""
        return (
            "Brain-Score: Schrimpf et al. (2020), Neuron 108, 413–423, doi:10.1016/j.neuron.2020.07.040; "
            f"and the publication whose data {self.path.name} holds."
        )

    def licence(self) -> str:
        """Say under which terms the data may be used."""
        return f"{self.path.name} states no licence; ask those who published it."

    @cached_property
    def assembly(self) -> Assembly:
        """Read the file, once."""
        return read_assembly(self.path)

    @cached_property
    def _rows(self) -> np.ndarray:
        table = self.assembly.presentation
        if "stimulus_id" not in table:
            raise self._absent("presentation", "stimulus_id", "")
        if not self.experiment:
            return np.ones(len(table), dtype=bool)
        if "experiment" not in table:
            raise self._absent("presentation", "experiment", "")
        have = table["experiment"].to_numpy(dtype=str)
        unknown = [name for name in self.experiment if name not in have]
        if unknown:
            raise SettingsError(
                f"{self.path} has no experiment '{unknown[0]}'. It has: {', '.join(dict.fromkeys(have.tolist()))}."
            )
        return np.isin(have, list(self.experiment))

    @cached_property
    def _subject(self) -> np.ndarray:
        if "neuroid_id" not in self.assembly.neuroid:
            raise self._absent("neuroid", "neuroid_id", "")
        found = self._column("neuroid", "subject", ("subject", "subject_UID"))
        return np.full(len(self.assembly.neuroid), "all") if found is None else found

    def _column(self, dim: str, what: str, usual: Sequence[str]) -> np.ndarray | None:
        table = self.assembly.presentation if dim == "presentation" else self.assembly.neuroid
        asked = self.names.get(what)
        if asked is not None and asked not in table:
            raise self._absent(dim, asked, what)
        name = asked or next((n for n in usual if n in table), None)
        return None if name is None else np.array([str(v) for v in table[name]])

    def _absent(self, dim: str, name: str, option: str) -> RecordingError:
        table = self.assembly.presentation if dim == "presentation" else self.assembly.neuroid
        mend = f" Name the right one with data.options.{option}." if option else ""
        return RecordingError(
            f"{self.path} has no coordinate '{name}' on {dim}. It has: {', '.join(map(str, table.columns)) or 'none'}.{mend}"
        )


def read_assembly(path: Path) -> Assembly:
    """Read a netCDF assembly, of netCDF 4 (HDF5) or 3, without Brain-Score.

    Raises
    ------
    RecordingError : the file is absent or damaged, what reads it is not installed, or it is no assembly
    """
    require_file(path, RecordingError, "assembly")
    with path.open("rb") as file:
        head = file.read(4)
    if head[:3] == b"CDF":
        engine = "scipy"
    elif head == b"\x89HDF":
        engine = "h5netcdf"
    else:
        raise RecordingError(f"{path} is no netCDF file. Fetch it again.")
    for module in {"xarray", engine} - {"scipy"}:
        if importlib.util.find_spec(module) is None:
            raise RecordingError(f"{path} is netCDF. Install what reads it with: pip install xarray h5netcdf")
    import xarray

    try:
        with xarray.open_dataset(path, engine=engine, decode_times=False) as dataset:
            return _assembly(dataset.load(), path)
    # a damaged file makes h5py, h5netcdf, scipy and xarray raise errors of many kinds
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise RecordingError(f"{path} cannot be read as netCDF ({error}). Fetch it again.") from error


def _assembly(dataset: Any, path: Path) -> Assembly:
    fits = [name for name, variable in dataset.variables.items() if set(DIMS) <= set(variable.dims)]
    if not fits:
        dims = ", ".join(map(str, dataset.sizes)) or "none"
        raise RecordingError(
            f"{path} has no variable with the dimensions presentation and neuroid. It has: {dims}."
        )
    data = dataset.variables["data" if "data" in fits else fits[0]]
    others = [d for d in data.dims if d not in DIMS]
    long = [d for d in others if data.sizes[d] != 1]
    if long:
        raise RecordingError(
            f"{path} has {data.sizes[long[0]]} steps along {long[0]}; one response a sentence is needed. Average them first."
        )
    values = data.isel(dict.fromkeys(others, 0)).transpose(*DIMS).values.astype(np.float32)
    return Assembly(path, values, *(_coordinates(dataset, dim) for dim in DIMS))


def _coordinates(dataset: Any, dim: str) -> pd.DataFrame:
    columns = {
        str(name): [v.decode("utf-8") if isinstance(v, bytes) else v for v in variable.values.tolist()]
        for name, variable in dataset.variables.items()
        if variable.dims == (dim,) and name != dim
    }
    return pd.DataFrame(columns, index=range(dataset.sizes[dim]))


def write_assembly(path: Path, story: Story, responses: Sequence[Responses]) -> Path:
    """Write responses as an assembly, with plain coordinates.

    A presentation is a sentence of the story (``stimulus_id``, ``stimulus``, ``story``: its run); a neuroid is a target
    of a subject (``neuroid_id``, ``subject``). What a subject did not see is NaN.

    Raises
    ------
    RecordingError : a response is to no sentence of the story, or what writes netCDF is not installed
    """
    for module in ("xarray", "h5netcdf"):
        if importlib.util.find_spec(module) is None:
            raise RecordingError(
                f"{path} would be netCDF. Install what writes it with: pip install xarray h5netcdf"
            )
    import xarray

    pieces = story.sentences
    row = {name: i for i, name in enumerate(pieces.ids.tolist())}
    blocks: dict[str, np.ndarray] = {}
    names: dict[str, np.ndarray] = {}
    for r in responses:
        unknown = [name for name in r.ids.tolist() if name not in row]
        if unknown:
            raise RecordingError(
                f"Subject '{r.subject}' has a response to '{unknown[0]}', which the story lacks."
            )
        block = blocks.setdefault(
            r.subject, np.full((len(pieces), r.space.n_targets), np.nan, dtype=np.float32)
        )
        if not np.array_equal(names.setdefault(r.subject, r.space.names), r.space.names):
            raise RecordingError(f"Subject '{r.subject}' has other targets in run '{r.run}' than before.")
        block[[row[name] for name in r.ids.tolist()]] = r.values
    subject = np.concatenate([np.full(len(n), s) for s, n in names.items()]).astype(object)
    neuroid = [f"{s}.{n}" for s, ns in names.items() for n in ns.tolist()]
    table = xarray.DataArray(
        np.hstack(list(blocks.values())),
        dims=DIMS,
        coords={
            "stimulus_id": ("presentation", pieces.ids.astype(object)),
            "stimulus": ("presentation", pieces.text.astype(object)),
            "story": ("presentation", pieces.run.astype(object)),
            "neuroid_id": ("neuroid", np.array(neuroid, dtype=object)),
            "subject": ("neuroid", subject),
        },
        name="data",
    )
    with atomic_write(path) as draft:
        table.to_netcdf(draft, engine="h5netcdf")
    return path
