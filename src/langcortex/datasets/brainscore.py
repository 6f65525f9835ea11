"""Assemblies of Brain-Score: netCDF files of presentations × neuroids, read as plain tables."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.datasets.corpus import Reading
from langcortex.datasets.sentence_tables import SentenceResponses, SentenceTable, as_names, find_table
from langcortex.errors import LangcortexError, RecordingError, SettingsError
from langcortex.paths import require_file

DIMS = ("presentation", "neuroid")
COMPRESSION = 1032  # the most that deflate, which netCDF 4 uses, makes of a byte


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
    file : the .nc to read, if the folder has several
    experiment : use only presentations with these values of the coordinate ``experiment``; all when empty
    run : the coordinate whose values are runs, which folds do not split; by default ``story``, and without it one
        run called "sentences"
    text : the coordinate of the sentences; by default ``stimulus`` or ``sentence``
    subject : the coordinate of the subjects; by default ``subject`` or ``subject_UID``, and without them one subject
    region : the coordinate whose values become regions; by default ``roi``
    """
    names = {"run": run, "text": text, "subject": subject, "region": region}
    source = find_table(Path(path), file, "*.nc")
    return BrainScore(
        source, as_names(experiment, "experiment"), {k: v for k, v in names.items() if v}, reading
    )


@dataclass(frozen=True, eq=False)
class Assembly:
    """The content of an assembly.

    Attributes
    ----------
    path : the file
    values : (n_presentations, n_neuroids) float32
    presentation : one row per presentation, one column per coordinate
    neuroid : one row per neuroid, one column per coordinate
    """

    path: Path
    values: np.ndarray
    presentation: pd.DataFrame
    neuroid: pd.DataFrame


@dataclass(frozen=True, eq=False)
class BrainScore(SentenceTable):
    """The sentences and responses of one assembly.

    The layout is that of Brain-Score's writer (brainscore_core, brainio): a variable ``data`` with the dimensions
    presentation and neuroid, and coordinates along one of them. It was tested on files in that layout; the
    published assemblies were not at hand.

    Attributes
    ----------
    path : the .nc file
    experiment : the experiments to use; all when empty
    names : run, text, subject or region → the name of its coordinate, where it is not the default
    reading : the subjects
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

    def all_subjects(self) -> list[str]:
        """List all subjects of the assembly."""
        return list(dict.fromkeys(self._subject.tolist()))

    def responses(self, subject: str) -> SentenceResponses:
        """Read the responses of the neuroids of one subject."""
        neuroids = self._subject == subject
        names = self.assembly.neuroid["neuroid_id"].to_numpy(dtype=str)[neuroids]
        region = self._column("neuroid", "region", ("roi",))
        regions = {}
        if region is not None:
            present = [name for name in dict.fromkeys(region[neuroids]) if name not in ("", "nan")]
            regions = {name: region[neuroids] == name for name in present}
        stimuli = self.assembly.presentation["stimulus_id"].to_numpy(dtype=str)[self._rows]
        values = self.assembly.values[np.ix_(self._rows, neuroids)]
        return SentenceResponses(stimuli, values, names, regions)

    def citation(self) -> str:
        """Return what to cite."""
        return (
            "Brain-Score: Schrimpf et al. (2020), Neuron 108, 413–423, doi:10.1016/j.neuron.2020.07.040; "
            f"and the publication of the data in {self.path.name}."
        )

    def licence(self) -> str:
        """Return the terms of use."""
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
        experiment = table["experiment"].to_numpy(dtype=str)
        unknown = [name for name in self.experiment if name not in experiment]
        if unknown:
            raise SettingsError(
                f"{self.path} has no experiment '{unknown[0]}'. It has: {', '.join(dict.fromkeys(experiment.tolist()))}."
            )
        return np.isin(experiment, list(self.experiment))

    @cached_property
    def _subject(self) -> np.ndarray:
        if "neuroid_id" not in self.assembly.neuroid:
            raise self._absent("neuroid", "neuroid_id", "")
        subject = self._column("neuroid", "subject", ("subject", "subject_UID"))
        return np.full(len(self.assembly.neuroid), "all") if subject is None else subject

    def _column(self, dim: str, role: str, defaults: Sequence[str]) -> np.ndarray | None:
        """Return the coordinate of a role such as "run", or None where there is none."""
        table = self.assembly.presentation if dim == "presentation" else self.assembly.neuroid
        chosen = self.names.get(role)
        if chosen is not None and chosen not in table:
            raise self._absent(dim, chosen, role)
        name = chosen or next((n for n in defaults if n in table), None)
        return None if name is None else np.array([str(v) for v in table[name]])

    def _absent(self, dim: str, name: str, option: str) -> RecordingError:
        table = self.assembly.presentation if dim == "presentation" else self.assembly.neuroid
        advice = f" Name the right one with data.options.{option}." if option else ""
        if dim == "presentation" and any(
            str(c).startswith(("image", "object_", "filename")) for c in table.columns
        ):
            advice = " Its stimuli look like images; responses to sentences are needed."
        return RecordingError(
            f"{self.path} has no coordinate '{name}' on {dim}. It has: {', '.join(map(str, table.columns)) or 'none'}.{advice}"
        )


def read_assembly(path: Path) -> Assembly:
    """Read an assembly from netCDF 4 (HDF5) or 3, without Brain-Score.

    Raises
    ------
    RecordingError : the file is absent or damaged, its reader is not installed, or it is no assembly
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
            raise RecordingError(f"{path} is netCDF. Install its reader with: pip install xarray h5netcdf")
    import xarray

    try:
        if engine == "h5netcdf":
            _check_storage(path)
        with xarray.open_dataset(path, engine=engine, decode_times=False) as dataset:
            _check_sizes(dataset, path, COMPRESSION if engine == "h5netcdf" else 1)
            return _to_assembly(dataset, path)
    except LangcortexError:
        raise
    except (
        Exception
    ) as error:  # a damaged file makes h5py, h5netcdf, scipy and xarray raise errors of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecordingError(f"{path} cannot be read as netCDF ({reason}). Fetch it again.") from error


def _check_storage(path: Path) -> None:
    """Refuse an HDF5 file whose data are in other files."""
    import h5py

    with h5py.File(path, "r") as file:
        for name in file:
            link = file.get(name, getlink=True)
            member = None if isinstance(link, h5py.ExternalLink) else file.get(name)
            elsewhere = isinstance(member, h5py.Dataset) and (member.external or member.is_virtual)
            if isinstance(link, h5py.ExternalLink) or elsewhere:
                raise RecordingError(f"{path}: '{name}' is stored in another file, which is not read.")


def _check_sizes(dataset: Any, path: Path, most: int) -> None:
    """Refuse variables that declare more bytes than the file can hold, before any memory is taken."""
    size = path.stat().st_size
    for name, variable in dataset.variables.items():
        if variable.size * variable.dtype.itemsize > most * size + 4096:
            raise RecordingError(
                f"{path} is damaged: '{name}' declares {variable.size:,} values, more than {size:,} bytes hold. Fetch it again."
            )


def _to_assembly(dataset: Any, path: Path) -> Assembly:
    candidates = [name for name, variable in dataset.variables.items() if set(DIMS) <= set(variable.dims)]
    if not candidates:
        dims = ", ".join(map(str, dataset.sizes)) or "none"
        raise RecordingError(
            f"{path} has no variable with the dimensions presentation and neuroid. It has: {dims}."
        )
    data = dataset.variables["data" if "data" in candidates else candidates[0]]
    further_dims = [d for d in data.dims if d not in DIMS]
    long = [d for d in further_dims if data.sizes[d] != 1]
    if long:
        raise RecordingError(
            f"{path} has {data.sizes[long[0]]} steps along {long[0]}; one response per sentence is needed. Average them first."
        )
    values = data.isel(dict.fromkeys(further_dims, 0)).transpose(*DIMS).values.astype(np.float32)
    return Assembly(path, values, *(_coordinates(dataset, dim) for dim in DIMS))


def _coordinates(dataset: Any, dim: str) -> pd.DataFrame:
    columns = {
        str(name): [v.decode("utf-8") if isinstance(v, bytes) else v for v in variable.values.tolist()]
        for name, variable in dataset.variables.items()
        if variable.dims == (dim,) and name != dim
    }
    return pd.DataFrame(columns, index=range(dataset.sizes[dim]))
