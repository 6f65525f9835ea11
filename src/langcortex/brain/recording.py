"""Recordings: brain responses as scans × targets, read onto the story's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from langcortex.brain.cleaning import ROUNDING, CleaningReport, clean_targets, nuisance_model
from langcortex.brain.clocks import check_tr
from langcortex.brain.formats import (
    HDF5_EXTENSIONS,
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
from langcortex.paths import as_path, require_file


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of one subject.

    Attributes
    ----------
    values : (n_scans, n_targets) float32; a column of NaN is a target without data
    onset : (n_scans,) when each scan begins, in seconds since the run's stimulus began (negative: before it)
    tr : repetition time in seconds
    run, subject : names
    space : where in the brain the columns are
    reference : the time of a scan, as a fraction of the TR after its onset (.5: its middle)
    cleaning : what cleaning removed from the run; None where it is not known
    remarks : sentences for the reader, such as a header that contradicts its sidecar
    """

    values: np.ndarray
    onset: np.ndarray
    tr: float
    run: str
    subject: str
    space: Space
    reference: float = 0.5
    cleaning: CleaningReport | None = None
    remarks: tuple[str, ...] = ()

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
        check_tr(self.tr, f"Run '{self.run}' of subject '{self.subject}'")

    @property
    def time(self) -> np.ndarray:
        """(n_scans,) the time of each scan, in seconds on the story's clock."""
        time: np.ndarray = self.onset + self.reference * self.tr
        return time

    @property
    def end(self) -> float:
        """When the last scan ends, in seconds on the story's clock."""
        return float(self.onset[-1] + self.tr)


@dataclass(frozen=True, eq=False)
class Responses:
    """One subject's responses to sentences shown one at a time: no clock, one row per sentence.

    Attributes
    ----------
    values : (n_sentences, n_targets) float32; a column of NaN is a target without data
    ids : (n_sentences,) the sentence of the story that each row responds to, e.g. ``"passage-3/sentence-004"``
    run : what folds must not split: the passage, the session, the experiment
    subject : name
    space : where in the brain the columns are
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
                f"but {len(self.ids)} sentences and {self.space.n_targets} targets."
            )


@dataclass(frozen=True)
class Cleaning:
    """The preprocessing of every target within a run, before any model is fitted.

    Attributes
    ----------
    detrend : remove the linear trend
    high_pass : cut-off in Hz of the cosine drift model; None keeps slow drifts
    standardise : scale to mean 0 and standard deviation 1
    confounds : columns of the run's confound table to regress out, or patterns such as ``a_comp_cor_*``; with a table
        and no names, all
    """

    detrend: bool = True
    high_pass: float | None = 1 / 128
    standardise: bool = True
    confounds: tuple[str, ...] = ()

    def apply(
        self,
        values: np.ndarray,
        tr: float,
        confounds: np.ndarray | None,
        where: str,
        names: Sequence[str] = (),
    ) -> np.ndarray:
        """Clean (n_scans, n_targets); see `apply_with_report`."""
        return self.apply_with_report(values, tr, confounds, where, names)[0]

    def apply_with_report(
        self,
        values: np.ndarray,
        tr: float,
        confounds: np.ndarray | None,
        where: str,
        names: Sequence[str] = (),
    ) -> tuple[np.ndarray, CleaningReport]:
        """Clean one run, and count what was removed.

        Parameters
        ----------
        values : (n_scans, n_targets)
        tr : seconds
        confounds : (n_scans, n_confounds)
        where : names the run in errors
        names : of the confounds

        Returns
        -------
        cleaned : (n_scans, n_targets) float32; the mean stays where neither the trend is removed nor targets are scaled.
            Targets that are constant, NaN in every scan, or explained but for rounding are NaN
        report : what was removed

        Raises
        ------
        RecordingError : values are not finite, no target varies, or no degree of freedom is left
        """
        not_finite = ~np.isfinite(values)
        undefined = not_finite.all(axis=0)
        partial = not_finite[:, ~undefined].any(axis=1)
        if partial.any():
            raise RecordingError(
                f"{where}: scan {int(np.flatnonzero(partial)[0])} of {len(values)} has NaN or infinite values ({int(partial.sum())} "
                "scans have). Repair or censor the image; targets that are NaN in every scan are allowed."
            )
        constant = ~undefined & (np.ptp(values, axis=0) == 0)
        undefined |= constant
        if undefined.all():
            raise RecordingError(
                f"{where}: all {values.shape[1]} targets are constant or empty. Check the mask and the image."
            )
        cleaned = np.full(values.shape, np.nan, dtype=np.float32)
        if not (self.detrend or self.high_pass or self.standardise or confounds is not None):
            cleaned[:, ~undefined] = values[:, ~undefined]
            return cleaned, CleaningReport(
                len(values), n_rounding=int(constant.sum()), n_undefined=int(undefined.sum())
            )
        model = nuisance_model(
            len(values),
            tr,
            where,
            detrend=self.detrend,
            high_pass=self.high_pass,
            confounds=confounds,
            names=names,
        )
        varying = values[:, ~undefined]
        residuals, report = clean_targets(varying, model, self.standardise)
        if not (self.detrend or self.standardise):
            residuals += varying.mean(axis=0, dtype=np.float64)
        cleaned[:, ~undefined] = residuals
        n_rounding = report.n_rounding + int(constant.sum())
        n_undefined = report.n_rounding + int(undefined.sum())
        if n_undefined == values.shape[1]:
            raise RecordingError(
                f"{where}: all {values.shape[1]} targets are constant, empty, or explained but for rounding by "
                f"{report.n_confounds} confounds and {report.n_drifts} drift regressors. Check the image and the confounds."
            )
        return cleaned, replace(report, n_rounding=n_rounding, n_undefined=n_undefined)


def read_recording(
    path: Path | str | tuple[Path | str, Path | str],
    run: str,
    subject: str,
    *,
    space: Space | None = None,
    tr: float | None = None,
    stimulus_onset: float = 0.0,
    reference: float | None = None,
    cleaning: Cleaning | None = None,
    confounds: Path | str | None = None,
    columns: Sequence[str] | None = None,
    events: Sequence[tuple[float, float]] = (),
    key: str = "data",
) -> Recording:
    """Read one run.

    Parameters
    ----------
    path : a 4D NIfTI image; a table (.tsv, .csv, .txt, .npy, .hf5; scans × targets); or the GIFTI files of the
        left and right hemisphere
    run, subject : names
    space : the voxels to read (`volume_space`), and the grid of every run; needed for images. For a
        .hf5 file, the columns to read, named by their numbers
    tr : seconds; from the image's sidecar or header when None
    stimulus_onset : when the story began, in seconds after the first stored scan (8 if four 2-s scans came first)
    reference : the time of a scan, as a fraction of the TR; when None, the sidecar's ``StartTime``, to
        which slice timing was corrected, or the middle of the scan
    cleaning : `Cleaning()` when None
    confounds : a table of nuisance signals (fMRIPrep's confounds .tsv, or plain columns)
    columns : names of the targets of a table without a header
    events : (onset, duration) on the story's clock in seconds, such as pictures on a screen: their haemodynamic
        responses, to onsets and to blocks, are regressed out with the confounds
    key : the dataset within a .hf5 file

    Returns
    -------
    Recording, float32
    """
    path = (as_path(path[0]), as_path(path[1])) if isinstance(path, tuple) else as_path(path)
    confounds = None if confounds is None else as_path(confounds)
    cleaning = cleaning or Cleaning()
    if cleaning.confounds and confounds is None:
        raise RecordingError(
            f"Run '{run}' of subject '{subject}' has no table with the confounds to regress out ({', '.join(cleaning.confounds)}). Set recording.confounds."
        )
    where = f"Run '{run}' of subject '{subject}' ({path[0] if isinstance(path, tuple) else path})"
    values, file_space = _read_values(path, space, columns, key, where)
    if space is not None and not file_space.same_as(space):
        raise RecordingError(
            f"{where}: its {file_space.n_targets} targets are not those of the other runs ({space.n_targets})."
        )
    clock = read_clock(path, tr)
    tr = clock.tr
    if not tr:
        raise RecordingError(
            f"{where}: neither a sidecar nor the header states the TR. Set recording.tr, in seconds."
        )
    if reference is None:
        reference = 0.5 if clock.start is None else clock.start / tr
    onset = np.arange(len(values), dtype=np.float64) * tr - stimulus_onset
    nuisance: list[np.ndarray] = []
    names: list[str] = []
    if confounds:
        table, names = read_confounds(
            confounds, cleaning.confounds, len(values), f"Run '{run}' of subject '{subject}'"
        )
        nuisance.append(table)
    if len(events):
        nuisance.append(_event_responses(events, onset + reference * tr))
        names += ["onsets of events", "blocks of events"]
    cleaned, report = cleaning.apply_with_report(
        values, tr, np.hstack(nuisance) if nuisance else None, where, names
    )
    return Recording(
        cleaned, onset, float(tr), run, subject, space or file_space, reference, report, clock.remarks
    )


def _read_values(
    path: Path | tuple[Path, Path],
    space: Space | None,
    columns: Sequence[str] | None,
    key: str,
    where: str,
) -> tuple[np.ndarray, Space]:
    """Read (n_scans, n_targets) from a file of any format, and the space of its targets."""
    if isinstance(path, tuple):
        return read_surface(path)
    require_file(path, RecordingError, "recording")
    if path.name.endswith((".nii", ".nii.gz")):
        if space is None:
            raise RecordingError(f"{where}: an image needs a mask. Set recording.mask, or 'compute'.")
        return read_volume(path, space)
    if path.suffix in HDF5_EXTENSIONS:
        return read_hdf5(path, key, space)
    return read_columns(path, columns)


def _event_responses(events: Sequence[tuple[float, float]], time: np.ndarray) -> np.ndarray:
    """Return the haemodynamic responses to events: (n_scans, 2), to their onsets and to their blocks."""
    onset, duration = np.array(events, dtype=np.float64).T
    weights = [hrf_weights(onset, duration, time, "glover", shape) for shape in ("impulse", "boxcar")]
    return np.column_stack([np.asarray(w.sum(axis=1)).ravel() for w in weights])


Kind = TypeVar("Kind", Recording, Responses)


def average_over_parcels(recording: Kind, parcels: Space, standardise: bool = True) -> Kind:
    """Replace targets by their means over parcels.

    Parameters
    ----------
    parcels : from `langcortex.brain.regions.average_parcels`
    standardise : scale each parcel to mean 0 and standard deviation 1 over the run, as its targets were

    Returns
    -------
    the same type; a parcel whose targets have no data, or whose mean is constant but for rounding, is NaN
    """
    values = parcel_means(recording.values, parcels).astype(np.float64)
    n_empty = int(np.isnan(values).any(axis=0).sum())
    if standardise or isinstance(recording, Recording):
        spread = values.std(axis=0, ddof=min(1, len(values) - 1))
        values[:, spread <= ROUNDING * _largest_in_parcels(recording.values, parcels)] = np.nan
        if standardise:
            with np.errstate(invalid="ignore", divide="ignore"):
                values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    changes: dict[str, Any] = {}
    if isinstance(recording, Recording) and recording.cleaning is not None:
        n_undefined = int(np.isnan(values).any(axis=0).sum())
        changes["cleaning"] = replace(
            recording.cleaning, n_rounding=n_undefined - n_empty, n_undefined=n_undefined
        )
    return replace(recording, values=values.astype(np.float32), space=parcels, **changes)


def _largest_in_parcels(values: np.ndarray, parcels: Space) -> np.ndarray:
    """Return the largest absolute value of the targets of each parcel: (n_parcels,); NaN where there are none."""
    assert parcels.within is not None
    largest = np.abs(values).max(axis=0, initial=0.0)
    inside = (parcels.within.regions[str(name)] & np.isfinite(largest) for name in parcels.names)
    return np.array([largest[members].max() if members.any() else np.nan for members in inside])


def average_recordings(recordings: Sequence[Recording], subject: str = "average") -> Recording:
    """Average one run over subjects; each target over the subjects that have data for it."""
    first = recordings[0]
    for recording in recordings[1:]:
        if len(recording.onset) != len(first.onset) or not np.allclose(recording.onset, first.onset):
            raise RecordingError(
                f"Run '{first.run}' cannot be averaged: subject '{first.subject}' has {len(first.onset)} scans and "
                f"'{recording.subject}' {len(recording.onset)}, or they began at different times."
            )
        if not recording.space.same_as(first.space):
            raise RecordingError(
                f"Run '{first.run}' cannot be averaged: '{recording.subject}' has other targets than '{first.subject}'."
            )
    total = np.zeros(first.values.shape)
    count = np.zeros(first.values.shape[1])
    for recording in recordings:
        defined = ~np.isnan(recording.values).any(axis=0)
        total[:, defined] += recording.values[:, defined]
        count += defined
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / count, np.nan).astype(np.float32)
    return replace(first, values=mean, subject=subject, cleaning=None, remarks=())
