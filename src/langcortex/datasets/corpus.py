"""The protocol of a corpus, and the base class of corpora whose recordings are files."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from langcortex.brain.cleaning import nuisance_model
from langcortex.brain.clocks import check_tr, read_clock
from langcortex.brain.formats import count_scans, read_confounds
from langcortex.brain.recording import Cleaning, Recording, Responses, average_over_parcels, read_recording
from langcortex.brain.regions import Atlas, add_atlas_regions, average_parcels
from langcortex.brain.space import Space, common_mask, volume_space
from langcortex.cache import digest
from langcortex.errors import RecordingError, SettingsError
from langcortex.stimulus.labels import PAUSES
from langcortex.stimulus.story import Story


@runtime_checkable
class Corpus(Protocol):
    """The methods that a corpus must have.

    It may also have ``citation()`` and ``licence()`` (one sentence each, for reports), ``remarks()`` (sentences
    about what was left out or is uncertain, shown by ``check`` and in reports), ``test_runs`` (runs for testing,
    never for training), ``inventory(subject)`` (run → scans, TR, stimulus onset; so that ``check`` reads headers
    only), ``measures()`` and ``measure(name)`` (controls that the corpus provides, `langcortex.datasets.measures`),
    ``wav(run)`` (its sound files), and ``story_of(subject)`` where each reader has a clock of their own: the same
    words, with this reader's times.
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
    """How a study reads the recordings of any corpus; None leaves the choice to the corpus.

    Attributes
    ----------
    subjects : names, or all
    sentences : where sentences end, see `langcortex.stimulus.story.read_story`; "auto" is the default of the corpus
    pauses, language : see `langcortex.stimulus.story.read_story`
    tr : repetition time in seconds
    stimulus_onset : seconds from the first stored scan to the beginning of the story; one number, or run → number
    reference : the time of a scan, as a fraction of the TR
    columns : names of the columns of a table
    mask : a mask image; "compute" computes one over the images; "all" uses all voxels
    mask_threshold : least value inside a mask of more than two values
    region_threshold : the same of mask images of regions
    cleaning : the settings of `Cleaning` that the study names; the others are those of the corpus
    regions : name → mask image or column names
    atlas : an atlas whose parcels become regions too
    parcels : replace targets by the means over regions
    """

    subjects: Sequence[str] | None = None
    sentences: str = "auto"
    pauses: Sequence[str] = PAUSES
    language: str | None = None
    tr: float | None = None
    stimulus_onset: float | Mapping[str, float] | None = None
    reference: float | None = None
    columns: Sequence[str] | None = None
    mask: Path | str | None = None
    mask_threshold: float | None = None
    region_threshold: float | None = None
    cleaning: Mapping[str, Any] = field(default_factory=dict)
    regions: Mapping[str, Path | Sequence[str]] = field(default_factory=dict)
    atlas: Atlas | None = None
    parcels: bool = False
    _named_spaces: dict[str, Space] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tr is not None:
            check_tr(self.tr, "recording.tr")

    def name_regions(self, space: Space) -> Space:
        """Add the regions and parcels that the study names to a space; computed once per space."""
        if not self.regions and self.atlas is None:
            return space
        grid = [a for a in (space.mask, space.affine) if a is not None]
        key = digest(space.kind, space.names, list(space.hemispheres or ()), *grid)
        if key not in self._named_spaces:
            named = space.with_regions(self.regions, self.region_threshold)
            named = replace(named, regions={**space.regions, **named.regions})
            self._named_spaces[key] = named if self.atlas is None else add_atlas_regions(named, self.atlas)
        return self._named_spaces[key]


@dataclass(frozen=True)
class RunFile:
    """One run on disk, with what the corpus states about it; None where the file itself states it.

    Attributes
    ----------
    path : the recording, or the files of the left and right hemisphere
    stimulus_onset : seconds from the first stored scan to the beginning of the story
    tr : repetition time in seconds
    reference : the time of a scan, as a fraction of the TR
    confounds : a table of nuisance signals
    mask : the brain mask of this run
    events : (onset, duration) in seconds on the story's clock, whose responses are regressed out
    scans : the published number of scans
    key : the dataset within an HDF5 file
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
        """Whether the run is a NIfTI image."""
        return isinstance(self.path, Path) and self.path.name.endswith((".nii", ".nii.gz"))


class CorpusOnDisk(ABC):
    """A corpus whose runs are files: a subclass maps runs to files, and reads the story.

    Attributes
    ----------
    reading : how the study reads recordings
    default_cleaning : the cleaning that suits the files as published
    """

    reading: Reading
    default_cleaning: ClassVar[Cleaning] = Cleaning()

    @abstractmethod
    def subjects(self) -> list[str]:
        """List the subjects."""

    @abstractmethod
    def story(self) -> Story:
        """Read the words that all subjects heard or read."""

    @abstractmethod
    def files(self, subject: str) -> Mapping[str, RunFile]:
        """Find the runs of one subject: run of the story → its file."""

    def runs(self, subject: str) -> list[str]:
        """List the runs of one subject."""
        return list(self.files(subject))

    def inventory(self, subject: str) -> dict[str, tuple[int, float | None, float]]:
        """Read headers only: run → (scans, TR in seconds, seconds from the first scan to the story)."""
        headers = {}
        for run, file in self.files(subject).items():
            tr_of_study = self.reading.tr or file.tr
            scans, tr = count_scans(file.path, self.reading.columns, file.key, tr_of_study)
            self._check_scans(subject, run, file, scans)
            if tr:
                self._check_confounds(subject, run, file, scans, tr)
            headers[run] = (scans, tr, self._stimulus_onset(run, file))
        return headers

    def recording(self, subject: str, run: str) -> Recording:
        """Read and clean one run of one subject."""
        file = self._file(subject, run)
        recording = read_recording(
            file.path,
            run,
            subject,
            space=self.space_of(subject) if file.is_volume else self._column_space(file),
            tr=self.reading.tr or file.tr,
            stimulus_onset=self._stimulus_onset(run, file),
            reference=file.reference if self.reading.reference is None else self.reading.reference,
            cleaning=replace(self.default_cleaning, **self.reading.cleaning),
            confounds=file.confounds,
            columns=self.reading.columns,
            events=file.events,
            key=file.key,
        )
        self._check_scans(subject, run, file, len(recording.onset))
        recording = replace(recording, space=self.reading.name_regions(recording.space))
        if not self.reading.parcels:
            return recording
        standardised = replace(self.default_cleaning, **self.reading.cleaning).standardise
        return average_over_parcels(recording, average_parcels(recording.space), standardised)

    def clock_remarks(self, subject: str) -> list[str]:
        """List where the sidecars and the headers of a subject's runs contradict each other."""
        files = self.files(subject).values()
        return [
            remark for file in files for remark in read_clock(file.path, self.reading.tr or file.tr).remarks
        ]

    def space_of(self, subject: str) -> Space:
        """Return the voxels of a subject's runs; by default, those inside the brain in all runs of all subjects."""
        return self._common_space

    def space_over(self, files: Sequence[RunFile]) -> Space:
        """Return the space of the voxels that are inside the brain in all of these runs."""
        images = [f.path for f in files if isinstance(f.path, Path)]
        mask, threshold = self.reading.mask, self.reading.mask_threshold
        if mask == "all":
            return self.reading.name_regions(volume_space(None, images, all_voxels=True))
        masks = [f.mask for f in files]
        if mask in (None, "compute") and masks and None not in masks:
            space = common_mask([m for m in masks if m is not None], images[0], threshold)
        else:
            path = None if mask in (None, "compute") else Path(str(mask))
            space = volume_space(path, images, threshold=threshold)
        return self.reading.name_regions(space)

    def volumes(self) -> list[RunFile]:
        """List the images that a mask is computed over: all runs of all subjects."""
        return [f for s in self.subjects() for f in self.files(s).values() if f.is_volume]

    @cached_property
    def _common_space(self) -> Space:
        return self.space_over(self.volumes())

    def _column_space(self, file: RunFile) -> Space | None:
        """Return the columns to read of a file that is no image; all when None."""
        return None

    def _file(self, subject: str, run: str) -> RunFile:
        files = self.files(subject)
        if run not in files:
            raise RecordingError(
                f"Subject '{subject}' has no run '{run}'. The runs are: {', '.join(files) or 'none'}."
            )
        return files[run]

    def _stimulus_onset(self, run: str, file: RunFile) -> float:
        onset = self.reading.stimulus_onset
        if isinstance(onset, Mapping):
            if run not in onset:
                raise SettingsError(f"recording.stimulus_onset has no number for run '{run}'.")
            return float(onset[run])
        return file.stimulus_onset if onset is None else float(onset)

    def _check_confounds(self, subject: str, run: str, file: RunFile, scans: int, tr: float) -> None:
        """Check the table of confounds of a run, and that regressors leave something of its scans."""
        cleaning = replace(self.default_cleaning, **self.reading.cleaning)
        where = f"Run '{run}' of subject '{subject}'"
        if file.confounds is None:
            return
        table, names = read_confounds(file.confounds, cleaning.confounds, scans, where)
        nuisance_model(
            scans,
            tr,
            where,
            detrend=cleaning.detrend,
            high_pass=cleaning.high_pass,
            confounds=table,
            names=names,
        )

    def _check_scans(self, subject: str, run: str, file: RunFile, scans: int) -> None:
        if file.scans is not None and scans != file.scans:
            path = file.path if isinstance(file.path, Path) else file.path[0]
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' has {scans} scans, but {file.scans} were published: {path} is another "
                'run, or was changed. Fetch it again, or read it with data.corpus = "files".'
            )


def describe_missing_runs(runs: Mapping[str, Sequence[str]], most: int = 8) -> list[str]:
    """Return a sentence for each subject that lacks runs which other subjects have.

    Parameters
    ----------
    runs : subject → its runs
    most : the number of subjects that are named; the others are counted

    >>> describe_missing_runs({"01": ["run-1", "run-2"], "02": ["run-1"]})
    ["Subject '02' has 1 of 2 runs: 'run-2' is missing, and the subject's results rest on the others."]
    """
    all_runs = list(dict.fromkeys(run for names in runs.values() for run in names))
    sentences = []
    for subject, names in runs.items():
        missing = [run for run in all_runs if run not in names]
        if missing:
            listed = ", ".join(f"'{run}'" for run in missing[: 5 if len(missing) == 5 else 4])
            ending = f" and {len(missing) - 4} others are" if len(missing) > 5 else " are"
            sentences.append(
                f"Subject '{subject}' has {len(all_runs) - len(missing)} of {len(all_runs)} runs: {listed}"
                f"{' is' if len(missing) == 1 else ending} missing, and the subject's results rest on the others."
            )
    if len(sentences) > most:
        sentences[most:] = [f"{len(sentences) - most} further subjects lack runs too."]
    return sentences


def select_subjects(names: Sequence[str] | None, subjects: Sequence[str], source: object) -> list[str]:
    """Return the subjects that a study names, in its order; all when it names none.

    Parameters
    ----------
    names : the subjects of the study; all when None
    subjects : the subjects of the corpus
    source : where they were looked for, for messages

    Raises
    ------
    RecordingError : there is no subject, or one is absent or named twice
    """
    if names is None:
        if not subjects:
            raise RecordingError(f"No subject was found in {source}. Check data.path.")
        return list(subjects)
    for name in names:
        if name not in subjects:
            listed = ", ".join(subjects[:12]) + (" …" if len(subjects) > 12 else "")
            raise RecordingError(f"Subject '{name}' was not found in {source}. Found: {listed or 'none'}.")
        if list(names).count(name) > 1:
            raise RecordingError(f"Subject '{name}' is named twice in recording.subjects.")
    return list(names)


def check_options(name: str, make: Any, options: Mapping[str, Any]) -> None:
    """Check that a corpus has the options that a study sets.

    Raises
    ------
    SettingsError : there is no such option
    """
    available = [p.name for p in list(inspect.signature(make).parameters.values())[2:]]
    unknown = next((key for key in options if key not in available), None)
    if unknown is not None:
        raise SettingsError(
            f"The corpus '{name}' has no option '{unknown}' (data.options). It takes: {', '.join(available) or 'none'}."
        )
