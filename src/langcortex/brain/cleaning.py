"""Cleaning a run: intercept, trend, slow cosines and confounds are regressed out of every target at once.

The nuisance regressors of a run span one space. With Q an orthonormal basis of it (n_scans, rank), a target y becomes

    r = y − Q Qᵀ y,

the residual of one least-squares regression on all of them together, in float64. Each regressor is centred and scaled
to length 1 before it enters; one that the regressors before it explain but for `RANK_TOLERANCE` of its length
is dropped, and counted. So the drift model holds in every run, whatever the confounds look like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from langcortex.arrays import chunks
from langcortex.errors import RecordingError

RANK_TOLERANCE = 1e-10  # share of a regressor's length below which what is new in it is rounding
ROUNDING = 4 * float(
    np.finfo(np.float32).eps
)  # of a target's largest value: a residual below is that of stored numbers
FEW_DEGREES = 20  # degrees of freedom, and the share of scans, below which a report says what cleaning left
FEW_SCANS = 0.1
N_LISTED = 8  # names listed in a message
TARGETS = 4096  # targets at once: their float64 copies stay small


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning removed from one run.

    Attributes
    ----------
    n_scans : scans of the run that took part
    n_drifts : regressors of the trend and of slow cosines, without the intercept
    n_confounds : confound regressors that were removed
    confounds : their names
    dropped : names of confounds that drifts and other confounds explain, constant ones among them
    n_rounding : targets that are constant, or that regressors explain but for rounding; they are undefined
    n_undefined : all targets that are undefined in the run: those, and those without data
    """

    n_scans: int
    n_drifts: int = 0
    n_confounds: int = 0
    confounds: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    n_rounding: int = 0
    n_undefined: int = 0

    @property
    def degrees_of_freedom(self) -> int:
        """How many degrees of freedom cleaning leaves: scans less the intercept and all regressors."""
        return self.n_scans - 1 - self.n_drifts - self.n_confounds

    @property
    def leaves_little(self) -> bool:
        """Whether regressors leave fewer than 20 degrees of freedom, or less than a tenth of the scans."""
        left = self.degrees_of_freedom
        return self.n_drifts + self.n_confounds > 0 and (
            left < FEW_DEGREES or left < FEW_SCANS * self.n_scans
        )


Reports = Mapping[str, Mapping[str, CleaningReport]]
"""Subject → run → what cleaning removed."""


def describe_cleaning(reports: Reports) -> list[str]:
    """List what a reader should know about the cleaning of a study: a sentence per kind, with the worst run."""
    runs = [
        (f"Run '{run}' of subject '{subject}'", report)
        for subject, by_run in reports.items()
        for run, report in by_run.items()
    ]
    remarks = []
    rounding = [(where, r) for where, r in runs if r.n_rounding]
    if rounding:
        where, r = max(rounding, key=lambda pair: pair[1].n_rounding)
        remarks.append(
            f"{where}: targets that are constant, or that a straight line, slow drifts and confounds explain but for rounding, are "
            f"undefined ({r.n_rounding:,}){_count_runs(len(rounding))}."
        )
    dropped = [(where, r) for where, r in runs if r.dropped]
    if dropped:
        where, r = max(dropped, key=lambda pair: len(pair[1].dropped))
        remarks.append(
            f"{where}: confounds that are constant, or explained by drifts and other confounds, were dropped "
            f"({len(r.dropped)}: {_shorten(r.dropped)}){_count_runs(len(dropped))}."
        )
    little = [(where, r) for where, r in runs if r.leaves_little]
    if little:
        where, r = min(little, key=lambda pair: pair[1].degrees_of_freedom)
        remarks.append(
            f"{where}: {r.n_confounds} confounds and {r.n_drifts} drift regressors leave {r.degrees_of_freedom} degrees of freedom of "
            f"{r.n_scans} scans{_count_runs(len(little))}."
        )
    return remarks


def _count_runs(n_runs: int) -> str:
    return f"; {n_runs} runs are like that (cleaning.tsv)" if n_runs > 1 else ""


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:N_LISTED]) + (
        f" and {len(names) - N_LISTED} more" if len(names) > N_LISTED else ""
    )


@dataclass(frozen=True, eq=False)
class NuisanceModel:
    """The space of everything that is regressed out of one run.

    Attributes
    ----------
    basis : (n_scans, 1 + n_drifts + n_confounds) float64, orthonormal; the intercept comes first
    report : what it removes
    """

    basis: np.ndarray
    report: CleaningReport

    def residuals(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Regress the model out of targets.

        Parameters
        ----------
        values : (n_scans, n_targets), finite

        Returns
        -------
        residuals : (n_scans, n_targets) float64
        is_rounding : (n_targets,) bool, where the residual is no larger than the rounding of stored float32 values
        """
        y = values.astype(np.float64)
        largest = np.abs(y).max(axis=0, initial=0.0)
        y -= y.mean(axis=0)
        y -= self.basis @ (self.basis.T @ y)
        spread = np.sqrt(np.einsum("ij,ij->j", y, y) / len(y))
        return y, spread <= ROUNDING * largest


def cosine_drifts(n_scans: int, tr: float, high_pass: float) -> np.ndarray:
    """Compute the cosines slower than a cut-off: the discrete cosine basis of the run, as in SPM and nilearn.

    Parameters
    ----------
    n_scans : scans of the whole run
    tr : seconds from scan to scan
    high_pass : the cut-off in Hz

    Returns
    -------
    (n_scans, n_cosines); cosine k has k half periods in the run, up to 2 · n_scans · tr · high_pass of them

    >>> cosine_drifts(150, 2.0, 1 / 128).shape
    (150, 4)
    """
    # a cut-off that falls on a cosine takes it, whatever the rounding of tr and high_pass
    n_cosines = min(n_scans - 1, int(np.floor(2 * n_scans * tr * high_pass + 1e-9)))
    scan = np.arange(n_scans)[:, None] + 0.5
    cosines: np.ndarray = np.cos(np.pi / n_scans * scan * np.arange(1, n_cosines + 1))
    return cosines


def nuisance_model(
    n_scans: int,
    tr: float,
    where: str,
    *,
    detrend: bool = True,
    high_pass: float | None = None,
    confounds: np.ndarray | None = None,
    names: Sequence[str] = (),
    keep: np.ndarray | None = None,
) -> NuisanceModel:
    """Build the space of everything that is regressed out of one run.

    Parameters
    ----------
    n_scans : scans of the whole run
    tr : seconds from scan to scan
    where : names the run in errors
    detrend : remove the linear trend
    high_pass : cut-off of the cosine drifts in Hz; None leaves slow drifts in
    confounds : (n_scans, n_confounds)
    names : of the confounds
    keep : (n_scans,) bool, scans that take part; drifts are made for the whole run before the others leave

    Returns
    -------
    NuisanceModel, for the scans that take part

    Raises
    ------
    RecordingError : no degree of freedom is left
    """
    drifts = [np.linspace(-1.0, 1.0, n_scans)[:, None]] if detrend else []
    if high_pass:
        drifts.append(cosine_drifts(n_scans, tr, high_pass))
    drift = np.hstack(drifts) if drifts else np.empty((n_scans, 0))
    confounds = np.empty((n_scans, 0)) if confounds is None else np.asarray(confounds, dtype=np.float64)
    if keep is not None:
        drift, confounds = drift[keep], confounds[keep]
    n_scans = len(drift)
    names = list(names) or [f"column {i}" for i in range(confounds.shape[1])]
    basis = np.full((n_scans, 1), 1.0 / np.sqrt(n_scans))
    basis, _ = _extend(basis, drift)
    n_drifts = basis.shape[1] - 1
    basis, is_new = _extend(basis, confounds)
    report = CleaningReport(
        n_scans,
        n_drifts,
        int(is_new.sum()),
        tuple(name for name, new in zip(names, is_new, strict=True) if new),
        tuple(name for name, new in zip(names, is_new, strict=True) if not new),
    )
    if report.degrees_of_freedom < 1 and basis.shape[1] > 1:
        raise RecordingError(
            f"{where}: {report.n_confounds} confounds and {n_drifts} drift regressors leave nothing of {n_scans} scans "
            f"({len(names)} columns of confounds were given). "
            "Name fewer confounds with recording.confound_columns, or lower recording.high_pass."
        )
    return NuisanceModel(basis, report)


def _extend(basis: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add columns to an orthonormal basis, each where it is new.

    Returns
    -------
    basis : (n_rows, rank)
    is_new : (n_columns,) bool
    """
    n_rows, n_basis = basis.shape
    room = np.empty((n_rows, min(n_rows, n_basis + columns.shape[1])))
    room[:, :n_basis] = basis
    centred = columns - columns.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    # a column that is constant but for the rounding of its mean has no direction
    varies = length > 1e-12 * np.sqrt(n_rows) * np.abs(columns).max(axis=0, initial=0.0)
    is_new = np.zeros(columns.shape[1], dtype=bool)
    for j in np.flatnonzero(varies):
        if n_basis == n_rows:
            break
        column = centred[:, j] / length[j]
        for _ in range(
            2
        ):  # the second time takes off what rounding left (Giraud et al. 2005, "twice is enough")
            column = column - room[:, :n_basis] @ (room[:, :n_basis].T @ column)
        new_length = np.linalg.norm(column)
        if new_length > RANK_TOLERANCE:
            room[:, n_basis] = column / new_length
            n_basis += 1
            is_new[j] = True
    return room[:, :n_basis], is_new


def clean_targets(
    values: np.ndarray, model: NuisanceModel, standardise: bool
) -> tuple[np.ndarray, CleaningReport]:
    """Regress a run's nuisance model out of every target, and scale what is left.

    Parameters
    ----------
    values : (n_scans, n_targets), finite
    standardise : scale to standard deviation 1 (n − 1 in the denominator)

    Returns
    -------
    cleaned : (n_scans, n_targets) float32; a target that the model explains but for rounding is NaN
    report : with the number of those targets
    """
    cleaned = np.empty(values.shape, dtype=np.float32)
    n_rounding = 0
    for columns in chunks(values.shape[1], TARGETS):
        residuals, is_rounding = model.residuals(values[:, columns])
        if standardise:
            with np.errstate(invalid="ignore", divide="ignore"):
                residuals /= residuals.std(axis=0, ddof=1)
        residuals[:, is_rounding] = np.nan
        cleaned[:, columns] = residuals
        n_rounding += int(is_rounding.sum())
    return cleaned, replace(model.report, n_rounding=n_rounding)
