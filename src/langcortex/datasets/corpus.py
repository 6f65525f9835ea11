"""What a corpus is, and how the recordings of one that lies on disk are read."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from langcortex.brain.formats import count_scans
from langcortex.brain.recording import Cleaning, Recording, Responses, average_over_parcels, read_recording
from langcortex.brain.regions import Atlas, add_atlas_regions, average_parcels
from langcortex.brain.space import Space, common_mask, volume_space
from langcortex.cache import digest
from langcortex.errors import RecordingError, SettingsError
from langcortex.stimulus.story import Story


@runtime_checkable
class Corpus(Protocol):
    """What langcortex asks of a corpus.

    It may also have ``citation()`` and ``licence()`` (one sentence each, for reports), ``remarks()`` (sentences
    about what was left out or is uncertain, shown by ``check`` and in reports), ``test_runs`` (runs to test on and
    never to learn from), ``inventory(subject)`` (run → scans, TR, stimulus onset; so that ``check`` reads headers
    only), ``measures()`` and ``measure(name)`` (controls of its own, `langcortex.datasets.measures`), ``wav(run)``
    (its sound files), and ``story_of(subject)`` where every reader has a clock of their own: the same words, with this
    reader's times.
    """

    def subjects(self) -> Sequence[str]:
        """List the subjects."""
        ...

    def story(self) -> Story:
        """Read the words that all subjects heard or read."""
        ...

    def runs(self, subject: str) -> Sequence[str]:
        """List the runs of one subject, named like the story's runs."""
        ...

    def recording(self, subject: str, run: str) -> Recording | Responses:
        """Read one run of one subject."""
        ...


@dataclass(frozen=True, eq=False)
class Reading:
    """What a study asks of every recording, whatever the corpus; None leaves the choice to the corpus.

    Attributes
    ----------
    subjects : names, or all
    sentences : where sentences end, see `langcortex.stimulus.story.read_story`; "auto" is the corpus's own
    tr : seconds from scan to scan
    stimulus_onset : seconds from the first stored scan to the beginning of the story; one number, or run → number
    reference : the moment a scan stands for, as a share of the TR
    columns : names of a table's columns
    mask : a mask image; "compute" makes one over the images; "all" takes every voxel
    cleaning : the settings of `Cleaning` that the study names; the others are the corpus's
    regions : name → mask image or column names
    atlas : whose parcels become regions too
    parcels : give the means over regions in the place of targets
    """

    subjects: Sequence[str] | None = None
    sentences: str = "auto"
    tr: float | None = None
    stimulus_onset: float | Mapping[str, float] | None = None
    reference: float | None = None
    columns: Sequence[str] | None = None
    mask: Path | str | None = None
    cleaning: Mapping[str, Any] = field(default_factory=dict)
    regions: Mapping[str, Path | Sequence[str]] = field(default_factory=dict)
    atlas: Atlas | None = None
    parcels: bool = False
    _named: dict[str, Space] = field(default_factory=dict, init=False, repr=False)

    def name_regions(self, space: Space) -> Space:
        """Add the regions and parcels that the study names to those a space has; worked out once a space."""
        if not self.regions and self.atlas is None:
            return space
        grid = [a for a in (space.mask, space.affine) if a is not None]
        key = digest(space.kind, space.names, list(space.hemispheres or ()), *grid)
        if key not in self._named:
            own = dict(space.regions)
            named = space.with_regions(self.regions)
            named = replace(named, regions={**own, **named.regions})
            self._named[key] = named if self.atlas is None else add_atlas_regions(named, self.atlas)
        return self._named[key]


@dataclass(frozen=True)
class RunFile:
    """One run on disk, and what its corpus knows about it; None where the file itself says.

    Attributes
    ----------
    path : the recording, or the files of the left and right hemisphere
    stimulus_onset : seconds from the first stored scan to the beginning of the story
    tr : seconds from scan to scan
    reference : the moment a scan stands for, as a share of the TR
    confounds : a table of nuisance signals
    mask : the run's own brain mask
    events : (onset, duration) in seconds on the story's clock, whose response is regressed out
    scans : how many scans the run is published to have
    key : the dataset of an HDF5 file
    """

    path: Path | tuple[Path, Path]
    stimulus_onset: float = 0.0
    tr: float | None = None
    reference: float | None = None
    confounds: Path | None = None
    mask: Path | None = None
    events: tuple[tuple[float, float], ...] = ()
    scans: int | None = None
    key: str = "data"

    @property
    def is_volume(self) -> bool:
        """Whether it is a NIfTI image."""
        return isinstance(self.path, Path) and self.path.name.endswith((".nii", ".nii.gz"))


class CorpusOnDisk(ABC):
    """A corpus whose runs are files: a subclass says which file is which run, and reads the story.

    Attributes
    ----------
    reading : what the study asks
    usual : the cleaning that suits the files as published
    """

    reading: Reading
    usual: ClassVar[Cleaning] = Cleaning()

    @abstractmethod
    def subjects(self) -> list[str]:
        """List the subjects."""

    @abstractmethod
    def story(self) -> Story:
        """Read the words that all subjects heard or read."""

    @abstractmethod
    def files(self, subject: str) -> Mapping[str, RunFile]:
        """Find the runs of one subject: the story's run → its file."""

    def runs(self, subject: str) -> list[str]:
        """List the runs of one subject."""
        return list(self.files(subject))

    def inventory(self, subject: str) -> dict[str, tuple[int, float | None, float]]:
        """Read headers only: run → (scans, TR in seconds, when the story began after the first scan)."""
        out = {}
        for run, file in self.files(subject).items():
            scans, tr = count_scans(file.path, self.reading.columns, file.key)
            self._expect(subject, run, file, scans)
            out[run] = (scans, self.reading.tr or file.tr or tr, self._began(run, file))
        return out

    def recording(self, subject: str, run: str) -> Recording:
        """Read and clean one run of one subject."""
        file = self._file(subject, run)
        recording = read_recording(
            file.path,
            run,
            subject,
            space=self.space_of(subject) if file.is_volume else self._columns(file),
            tr=self.reading.tr or file.tr,
            stimulus_onset=self._began(run, file),
            reference=file.reference if self.reading.reference is None else self.reading.reference,
            cleaning=replace(self.usual, **self.reading.cleaning),
            confounds=file.confounds,
            columns=self.reading.columns,
            events=file.events,
            key=file.key,
        )
        self._expect(subject, run, file, len(recording.onset))
        recording = replace(recording, space=self.reading.name_regions(recording.space))
        if not self.reading.parcels:
            return recording
        standardised = replace(self.usual, **self.reading.cleaning).standardise
        return average_over_parcels(recording, average_parcels(recording.space), standardised)

    def space_of(self, subject: str) -> Space:
        """Give the voxels of a subject's runs; here, those of every run of every subject."""
        return self._everyones_space

    def space_over(self, files: Sequence[RunFile]) -> Space:
        """Make the space of voxels that are brain in all of these runs."""
        images = [f.path for f in files if isinstance(f.path, Path)]
        mask = self.reading.mask
        if mask == "all":
            return self.reading.name_regions(volume_space(None, images, all_voxels=True))
        masks = [f.mask for f in files]
        if mask in (None, "compute") and masks and None not in masks:
            space = common_mask([m for m in masks if m is not None], images[0])
        else:
            space = volume_space(None if mask in (None, "compute") else Path(str(mask)), images)
        return self.reading.name_regions(space)

    def volumes(self) -> list[RunFile]:
        """List the images that a mask is computed over: every run of every subject."""
        return [f for s in self.subjects() for f in self.files(s).values() if f.is_volume]

    @cached_property
    def _everyones_space(self) -> Space:
        return self.space_over(self.volumes())

    def _columns(self, file: RunFile) -> Space | None:
        """Give the columns to take of a file that is no image; all when None."""
        return None

    def _file(self, subject: str, run: str) -> RunFile:
        files = self.files(subject)
        if run not in files:
            raise RecordingError(
                f"Subject '{subject}' has no run '{run}'. The runs are: {', '.join(files) or 'none'}."
            )
        return files[run]

    def _began(self, run: str, file: RunFile) -> float:
        said = self.reading.stimulus_onset
        if isinstance(said, Mapping):
            if run not in said:
                raise SettingsError(f"recording.stimulus_onset has no number for run '{run}'.")
            return float(said[run])
        return file.stimulus_onset if said is None else float(said)

    def _expect(self, subject: str, run: str, file: RunFile, scans: int) -> None:
        if file.scans is not None and scans != file.scans:
            path = file.path if isinstance(file.path, Path) else file.path[0]
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' has {scans} scans, but {file.scans} were published: {path} is another "
                'run, or was changed. Fetch it again, or read it with data.corpus = "files".'
            )


def select_names(wanted: Sequence[str] | None, found: Sequence[str], where: object) -> list[str]:
    """Keep the subjects that a study names, in its order; all when it names none.

    Raises
    ------
    RecordingError : a subject was not found, or is named twice
    """
    if wanted is None:
        if not found:
            raise RecordingError(f"No subject was found in {where}. Check data.path.")
        return list(found)
    for name in wanted:
        if name not in found:
            shown = ", ".join(found[:12]) + (" …" if len(found) > 12 else "")
            raise RecordingError(f"Subject '{name}' was not found in {where}. Found: {shown or 'none'}.")
        if list(wanted).count(name) > 1:
            raise RecordingError(f"Subject '{name}' is named twice in recording.subjects.")
    return list(wanted)


def check_options(name: str, make: Any, options: Mapping[str, Any]) -> None:
    """Hold the options a study gives against those a corpus takes.

    Raises
    ------
    SettingsError : there is no such option
    """
    takes = [p.name for p in list(inspect.signature(make).parameters.values())[2:]]
    unknown = next((key for key in options if key not in takes), None)
    if unknown is not None:
        raise SettingsError(
            f"The corpus '{name}' has no option '{unknown}' (data.options). It takes: {', '.join(takes) or 'none'}."
        )
