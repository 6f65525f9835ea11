"""Recordings: brain responses as scans × targets, with the scanner's clock moved to the story's once, when read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from langcortex.brain.formats import (
    HDF5,
    read_clock,
    read_columns,
    read_confounds,
    read_hdf5,
    read_surface,
    read_volume,
)
from langcortex.brain.regions import parcel_means
from langcortex.brain.space import Space
from langcortex.brain.timing import hrf_weights
from langcortex.errors import RecordingError
from langcortex.paths import require_file


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of one subject.

    Attributes
    ----------
    values : (n_scans, n_targets) float32; a column that is NaN throughout is a target without data
    onset : (n_scans,) when each scan begins, in seconds since the run's stimulus began (negative: before it)
    tr : seconds from scan to scan
    run, subject : names
    space : where the columns lie
    reference : the moment a scan stands for, as a share of the TR after its onset (.5: its middle)
    """

    values: np.ndarray
    onset: np.ndarray
    tr: float
    run: str
    subject: str
    space: Space
    reference: float = 0.5

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != (len(self.onset), self.space.n_targets):
            raise RecordingError(
                f"Run '{self.run}' of subject '{self.subject}': {self.values.shape} values, "
                f"but {len(self.onset)} scans and {self.space.n_targets} targets."
            )
        if not self.tr > 0:
            raise RecordingError(
                f"Run '{self.run}' of subject '{self.subject}': the TR is {self.tr} s. Set recording.tr."
            )

    @property
    def time(self) -> np.ndarray:
        """(n_scans,) the moment each scan stands for, in seconds on the story's clock."""
        moments: np.ndarray = self.onset + self.reference * self.tr
        return moments

    @property
    def end(self) -> float:
        """When the last scan ends, in seconds on the story's clock."""
        return float(self.onset[-1] + self.tr)


@dataclass(frozen=True, eq=False)
class Responses:
    """One subject's responses to pieces of text that were shown one at a time: no clock, a row a piece.

    Attributes
    ----------
    values : (n_pieces, n_targets) float32; a column that is NaN throughout is a target without data
    ids : (n_pieces,) which sentence of the story each row answers, e.g. ``"passage-3/sentence-004"``
    run : what folds must not split: the passage, the session, the experiment
    subject : name
    space : where the columns lie
    """

    values: np.ndarray
    ids: np.ndarray
    run: str
    subject: str
    space: Space

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != (len(self.ids), self.space.n_targets):
            raise RecordingError(
                f"Run '{self.run}' of subject '{self.subject}': {self.values.shape} values, "
                f"but {len(self.ids)} pieces and {self.space.n_targets} targets."
            )


@dataclass(frozen=True)
class Cleaning:
    """What is done to every target within a run, before any model sees it.

    Attributes
    ----------
    detrend : remove the linear trend
    high_pass : cut-off in Hz of the cosine drift model; None leaves slow drifts in
    standardise : scale to mean 0 and standard deviation 1
    confounds : columns of the run's confound table to regress out, e.g. motion; with a table and no names, all
    """

    detrend: bool = True
    high_pass: float | None = 1 / 128
    standardise: bool = True
    confounds: tuple[str, ...] = ()

    def apply(self, values: np.ndarray, tr: float, confounds: np.ndarray | None, where: str) -> np.ndarray:
        """Clean (n_scans, n_targets); targets that are NaN throughout, or constant, come back as NaN."""
        from nilearn import signal

        bad = ~np.isfinite(values)
        undefined = bad.all(axis=0)
        partial = bad[:, ~undefined].any(axis=1)
        if partial.any():
            raise RecordingError(
                f"{where}: scan {int(np.flatnonzero(partial)[0])} of {len(values)} holds NaN or infinite values ({int(partial.sum())} "
                "scans do). Repair or censor the image; targets that are NaN in every scan are allowed."
            )
        undefined |= np.ptp(values, axis=0) == 0
        if undefined.all():
            raise RecordingError(
                f"{where}: all {values.shape[1]} targets are constant or empty. Check the mask and the image."
            )
        cleaned = np.full(values.shape, np.nan, dtype=np.float32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*standard deviation.*", category=UserWarning)
            # a run shorter than the slowest drift to remove has no such drift
            warnings.filterwarnings("ignore", message="Cosine filter was not created", category=UserWarning)
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # nilearn announces what standardize=False will be called
            cleaned[:, ~undefined] = signal.clean(
                values[:, ~undefined],
                detrend=self.detrend,
                standardize="zscore_sample" if self.standardise else False,
                standardize_confounds=True,
                confounds=confounds,
                filter="cosine" if self.high_pass else False,
                high_pass=self.high_pass or None,
                t_r=tr,
                ensure_finite=False,
            )
        flat = ~undefined & ~np.isfinite(cleaned).all(axis=0)
        cleaned[:, flat] = np.nan
        return cleaned


def read_recording(
    path: Path | tuple[Path, Path],
    run: str,
    subject: str,
    *,
    space: Space | None = None,
    tr: float | None = None,
    stimulus_onset: float = 0.0,
    reference: float | None = None,
    cleaning: Cleaning | None = None,
    confounds: Path | None = None,
    columns: Sequence[str] | None = None,
    events: Sequence[tuple[float, float]] = (),
    key: str = "data",
) -> Recording:
    """Read one run.

    Parameters
    ----------
    path : a 4D NIfTI image, a table (.tsv, .csv, .txt, .npy, .hf5; scans × targets), or the GIFTI files of the
        left and right hemisphere
    run, subject : names
    space : the voxels to take (`volume_space`), and the grid every run must lie on; needed for images. For a
        .hf5 file, the columns to take, named by their numbers
    tr : seconds; from the image's sidecar or header when None
    stimulus_onset : when the story began, in seconds after the first stored scan (8 if four 2-s scans came first)
    reference : the moment a scan stands for, as a share of the TR; when None, the sidecar's ``StartTime``, which
        says what slice timing was corrected to, or the middle of the scan
    cleaning : `Cleaning()` when None
    confounds : a table of nuisance signals (fMRIPrep's confounds .tsv, or plain columns)
    columns : names of the targets of a table without a header
    events : (onset, duration) on the story's clock in seconds, such as pictures on a screen: their haemodynamic
        response, to the onsets and to the whole blocks, is regressed out with the confounds
    key : the dataset of a .hf5 file

    Returns
    -------
    Recording, float32
    """
    cleaning = cleaning or Cleaning()
    if cleaning.confounds and confounds is None:
        raise RecordingError(
            f"Run '{run}' of subject '{subject}': the confounds {', '.join(cleaning.confounds)} are to be regressed out, but no table is given. Set recording.confounds."
        )
    where = f"Run '{run}' of subject '{subject}' ({path[0] if isinstance(path, tuple) else path})"
    if isinstance(path, tuple):
        values, found = read_surface(path)
    else:
        require_file(path, RecordingError, "recording")
        if path.name.endswith((".nii", ".nii.gz")):
            if space is None:
                raise RecordingError(f"{where}: an image needs a mask; give recording.mask, or 'compute'.")
            values, found = read_volume(path, space)
        elif path.suffix in HDF5:
            values, found = read_hdf5(path, key, space)
        else:
            values, found = read_columns(path, columns)
    if space is not None and not found.same_as(space):
        raise RecordingError(
            f"{where}: its {found.n_targets} targets are not those of the other runs ({space.n_targets})."
        )
    clock = read_clock(path)
    tr = tr or clock.tr
    if not tr:
        raise RecordingError(
            f"{where}: neither a sidecar nor the header says how far scans are apart. Set recording.tr, in seconds."
        )
    if reference is None:
        reference = 0.5 if clock.start is None else clock.start / tr
    onset = np.arange(len(values), dtype=np.float64) * tr - stimulus_onset
    nuisance = [read_confounds(confounds, cleaning.confounds, len(values))] if confounds else []
    if len(events):
        nuisance.append(_responses_to(events, onset + reference * tr))
    cleaned = cleaning.apply(values, tr, np.hstack(nuisance) if nuisance else None, where)
    return Recording(cleaned, onset, float(tr), run, subject, space or found, reference)


def _responses_to(events: Sequence[tuple[float, float]], time: np.ndarray) -> np.ndarray:
    """Give the haemodynamic response to events: (n_scans, 2), to their onsets and to their whole blocks."""
    began, lasted = np.array(events, dtype=np.float64).T
    shapes = [hrf_weights(began, lasted, time, "glover", shape) for shape in ("impulse", "boxcar")]
    return np.column_stack([np.asarray(w.sum(axis=1)).ravel() for w in shapes])


Kind = TypeVar("Kind", Recording, Responses)


def over_parcels(recording: Kind, parcels: Space, standardise: bool = True) -> Kind:
    """Put the means over parcels in the place of targets.

    Parameters
    ----------
    parcels : from `langcortex.brain.regions.average_parcels`
    standardise : scale each mean to mean 0 and standard deviation 1 over the run, as targets were before

    Returns
    -------
    the same kind; a parcel without any target that has data, or whose mean never changes, is NaN
    """
    values = parcel_means(recording.values, parcels)
    if standardise:
        spread = values.std(axis=0, ddof=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(spread > 0, (values - values.mean(axis=0)) / spread, np.nan)
    return replace(recording, values=values.astype(np.float32), space=parcels)


def average_recordings(recordings: Sequence[Recording], subject: str = "average") -> Recording:
    """Average one run over subjects, target by target, leaving out those without data for it."""
    first = recordings[0]
    for other in recordings[1:]:
        if len(other.onset) != len(first.onset) or not np.allclose(other.onset, first.onset):
            raise RecordingError(
                f"Run '{first.run}' cannot be averaged: subject '{first.subject}' has {len(first.onset)} scans and "
                f"'{other.subject}' {len(other.onset)}, or they began at different times."
            )
        if not other.space.same_as(first.space):
            raise RecordingError(
                f"Run '{first.run}' cannot be averaged: '{other.subject}' has other targets than '{first.subject}'."
            )
    total = np.zeros(first.values.shape)
    count = np.zeros(first.values.shape[1])
    for one in recordings:
        defined = ~np.isnan(one.values).any(axis=0)
        total[:, defined] += one.values[:, defined]
        count += defined
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / count, np.nan).astype(np.float32)
    return replace(first, values=mean, subject=subject)
