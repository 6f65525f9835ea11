"""Noise ceilings of recordings that lie in memory, computed in one call each: what studies compute chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langcortex.arrays import rounding_error
from langcortex.brain.recording import Recording
from langcortex.errors import FitError
from langcortex.stats.noise_ceiling import Ceiling, inter_subject_ceiling


def align_recordings(by_subject: Mapping[str, Sequence[Recording]]) -> tuple[np.ndarray, np.ndarray]:
    """Align recordings of several subjects by run and time, and standardise each run by itself.

    Parameters
    ----------
    by_subject : subject → its runs, all in one space

    Returns
    -------
    values : (n_subjects, n_scans, n_targets); scans that are missing in any subject are left out
    run : (n_scans,)

    Raises
    ------
    FitError : fewer than 2 subjects, other targets, other runs, or no scan in common
    """
    if len(by_subject) < 2:
        raise FitError(f"A ceiling between subjects needs at least 2; there are {len(by_subject)}.")
    tables = {subject: {r.run: r for r in runs} for subject, runs in by_subject.items()}
    parts, names = [], []
    for run in next(iter(tables.values())):
        lacking = [subject for subject, table in tables.items() if run not in table]
        if lacking:
            raise FitError(
                f"Subject '{lacking[0]}' has no run '{run}'. Leave the run or the subject out of the ceiling."
            )
        values = _align_run([table[run] for table in tables.values()])
        parts.append(values)
        names += [run] * values.shape[1]
    return np.concatenate(parts, axis=1), np.array(names)


def _align_run(recordings: Sequence[Recording]) -> np.ndarray:
    first = recordings[0]
    for recording in recordings[1:]:
        if not recording.space.same_as(first.space):
            raise FitError(
                f"Run '{first.run}': '{recording.subject}' has other targets than '{first.subject}'; a ceiling between "
                "subjects needs one space."
            )
    # scans are matched by onset, to the millisecond
    stamps = [np.round(1000 * r.onset).astype(np.int64) for r in recordings]
    common = stamps[0]
    for stamp in stamps[1:]:
        common = np.intersect1d(common, stamp)
    if len(common) < 3:
        raise FitError(
            f"Run '{first.run}': {len(common)} scans of all {len(recordings)} subjects began at the same time on the story's clock; "
            "a ceiling needs at least 3. Do all recordings have one TR and one stimulus onset?"
        )
    rows = [np.searchsorted(stamp, common) for stamp in stamps]
    return np.stack([_standardise(r.values[at]) for r, at in zip(recordings, rows, strict=True)])


def _standardise(values: np.ndarray) -> np.ndarray:
    """Centre and scale columns, in float64; a constant column is NaN."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    variance = np.square(centred).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance * len(values) > rounding_error(values), centred / np.sqrt(variance), np.nan)


def leave_one_out_ceiling(
    values: np.ndarray, rng: np.random.Generator, corrected: bool = False, n_resamples: int = 1000
) -> Ceiling:
    """Correlate each subject with the mean of the other subjects: inter-subject correlation.

    Parameters
    ----------
    values : (n_subjects, n_scans, n_targets), e.g. from `align_recordings`
    rng : the source of randomness
    corrected : correct for the noise in the mean of the other subjects: the ceiling of a model that knows exactly what subjects
        share. Without it, the ceiling of predicting one person from the other people
    n_resamples : bootstrap draws of subjects
    """
    _, n_scans, n_targets = values.shape
    kind = "perfect" if corrected else "others"
    return inter_subject_ceiling(
        lambda part: values[:, :, part],
        len(values),
        n_targets,
        np.zeros(n_scans),
        rng,
        (kind,),
        n_resamples,
    )[kind]


def split_group_ceiling(
    values: np.ndarray, rng: np.random.Generator, n_splits: int = 100, n_resamples: int = 1000
) -> Ceiling:
    """Correlate the means of random halves of the subjects: the ceiling of predicting the average of all of them.

    Parameters
    ----------
    values : (n_subjects, n_scans, n_targets)
    rng : the source of randomness
    n_splits : how many random halves; their r are averaged
    n_resamples : bootstrap draws of subjects
    """
    _, n_scans, n_targets = values.shape
    return inter_subject_ceiling(
        lambda part: values[:, :, part],
        len(values),
        n_targets,
        np.zeros(n_scans),
        rng,
        ("average",),
        n_resamples,
        n_splits,
    )["average"]
