"""Recordings that carry no story: surrogates of a study's own scans, and real rest; same space, same clock."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from langcortex.arrays import chunks
from langcortex.brain.formats import read_clock
from langcortex.brain.recording import Cleaning, Recording, read_recording
from langcortex.brain.space import Space, load_image
from langcortex.errors import RecordingError, SettingsError
from langcortex.nulls.surrogates import draw_null
from langcortex.paths import require_file

KINDS = ("phase", "ar", "shift", "rest")
ORDER = 5  # of the autoregression: 10 s at a TR of 2 s
SETTLE = 100  # scans dropped while an autoregression forgets its start at 0
CHUNK = 4096  # targets at once
AS_STORED = Cleaning(detrend=False, high_pass=None, standardise=False)
HEMISPHERES = (("hemi-L", "hemi-R"), (".lh.", ".rh."), ("lh.", "rh."), ("_lh", "_rh"))
READABLE = (".nii", ".nii.gz", ".gii", ".mgz", ".npy", ".tsv", ".csv", ".txt", ".hf5", ".h5", ".hdf5")


def randomise_phases(recording: Recording, rng: np.random.Generator) -> Recording:
    """Randomise the phase of every frequency of a run, alike for all targets.

    Kept: every target's mean, spectrum and so autocorrelation (a run's end counts as next to its beginning), and
    every correlation between targets. Lost: the times of events, and what is not Gaussian. Targets without data
    and constant ones stay as they are.

    References
    ----------
    Prichard & Theiler 1994, doi:10.1103/PhysRevLett.73.951
    """
    return _draw_surrogate(recording, "phase", rng)


def shift_circularly(recording: Recording, rng: np.random.Generator) -> Recording:
    """Shift a run circularly by a tenth to nine tenths of its length, all targets alike.

    The response to the story is still there, at another time: slow features may still predict slow responses.
    """
    return _draw_surrogate(recording, "shift", rng)


def simulate_autoregressive(recording: Recording, rng: np.random.Generator, order: int = ORDER) -> Recording:
    """Simulate noise that is as slow as each target: x(t) = Σ a(k) x(t − k) + e(t), a(k) of each target by Yule–Walker.

    The e are rows of the residuals, resampled with replacement, so that targets depend on one another as
    before; each target gets back its mean and standard deviation in the run. Targets without data and constant ones
    stay as they are.

    Parameters
    ----------
    order : of the autoregression; at most a quarter of the run
    """
    values, usable = recording.values, usable_targets(recording.values)
    n = len(values)
    order = min(order, n // 4)
    if order < 1:
        raise RecordingError(
            f"Run '{recording.run}' of subject '{recording.subject}' has {n} scans, too few for an autoregression. Leave it out."
        )
    rows = rng.integers(0, n - order, n + SETTLE)
    out = values.copy()
    for part in _parts(usable):
        out[:, part] = _simulate(values[:, part].astype(np.float64), order, rows)
    return replace(recording, values=out)


@dataclass(frozen=True, eq=False)
class RestScans:
    """A recording of rest.

    Attributes
    ----------
    name : of its file
    values : (n_scans, n_targets) float32, as stored
    tr : seconds from scan to scan, where the file says so; None otherwise
    """

    name: str
    values: np.ndarray
    tr: float | None


def read_rest(path: Path, space: Space) -> tuple[RestScans, ...]:
    """Read recordings of rest, uncleaned.

    Parameters
    ----------
    path : a file (.nii.gz, .func.gii, .mgz, .npy, a table or HDF5; scans × targets), or a folder of such files; of
        surface files, the left hemisphere's, beside which the right one's lies (``hemi-L``/``hemi-R``, ``lh``/``rh``)
    space : of the study's recordings: images must be on its grid, surfaces must have its vertices; of a table with more
        columns than a space of columns has, so many are used, evenly spaced

    Raises
    ------
    RecordingError : a file is missing, unreadable or of another shape

    Notes
    -----
    The TR of an .mgz header is not trusted, and a table has none: the study's TR is assumed.
    """
    rests = tuple(_read_rest(files, space) for files in _rest_files(path))
    if not rests:
        raise RecordingError(f"No recording of rest was found in {path}. Give a file, or a folder with some.")
    return rests


def rest_recording(
    recording: Recording,
    rests: tuple[RestScans, ...],
    rng: np.random.Generator,
    cleaning: Cleaning = AS_STORED,
) -> Recording:
    """Return a random segment of rest in the place of a recording, cleaned as recordings are.

    Parameters
    ----------
    recording : its clock, length and undefined targets stay
    rests : from `read_rest`; those that are long enough are drawn from
    cleaning : of the segment

    Raises
    ------
    RecordingError : no rest is as long as the run, or one has another TR
    """
    n = len(recording.onset)
    for scans in rests:
        if scans.tr is not None and abs(scans.tr - recording.tr) > 1e-3:
            raise RecordingError(
                f"{scans.name} has a TR of {scans.tr:g} s and run '{recording.run}' one of {recording.tr:g} s. Give rest with the same TR."
            )
    long_enough = [scans for scans in rests if len(scans.values) >= n]
    if not long_enough:
        longest = max(len(scans.values) for scans in rests)
        raise RecordingError(
            f"Run '{recording.run}' has {n} scans but the longest rest {longest}. Give a longer recording of rest."
        )
    scans = long_enough[int(rng.integers(len(long_enough)))]
    first = int(rng.integers(len(scans.values) - n + 1))
    segment = scans.values[first : first + n]
    cleaned = cleaning.apply(segment, recording.tr, None, f"{scans.name}, scans {first} to {first + n - 1}")
    usable = usable_targets(recording.values)
    return replace(recording, values=np.where(usable, cleaned, recording.values))


SURROGATES: dict[str, Callable[[Recording, np.random.Generator], Recording]] = {
    "phase": randomise_phases,
    "ar": simulate_autoregressive,
    "shift": shift_circularly,
}
"""The kinds that need no other recording."""


def check_kind(kind: str, rest_path: Path | None) -> None:
    """Check the kind of null recordings.

    Raises
    ------
    SettingsError : an unknown kind, or the kind "rest" without a recording of rest
    """
    if kind not in KINDS:
        raise SettingsError(f"Recordings without a story are of kind {', '.join(KINDS)}; not '{kind}'.")
    if (kind == "rest") != (rest_path is not None):
        raise SettingsError(
            "The kind 'rest' and a recording of rest (--rest FILE) belong together. Give both."
        )


def _draw_surrogate(recording: Recording, kind: str, rng: np.random.Generator) -> Recording:
    draw = draw_null(kind, np.full(len(recording.onset), recording.run), rng)
    out = recording.values.copy()
    for part in _parts(usable_targets(recording.values)):
        out[:, part] = draw(recording.values[:, part])
    return replace(recording, values=out)


def usable_targets(values: np.ndarray) -> np.ndarray:
    """Return which targets have data that vary: (n_targets,) bool."""
    usable: np.ndarray = np.isfinite(values).all(axis=0) & (values.max(axis=0) > values.min(axis=0))
    return usable


def _parts(usable: np.ndarray) -> Iterator[np.ndarray]:
    where = np.flatnonzero(usable)
    return (where[part] for part in chunks(len(where), CHUNK))


def _simulate(x: np.ndarray, order: int, rows: np.ndarray) -> np.ndarray:
    """Simulate each column's autoregression from rows of its residuals: (n_scans, n_targets)."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / std
    a = yule_walker(z, order)
    e = z[order:] - sum(a[k] * z[order - 1 - k : len(z) - 1 - k] for k in range(order))
    e -= e.mean(axis=0)
    out = np.zeros((len(rows) + order, z.shape[1]))
    for t, row in enumerate(rows.tolist(), start=order):
        out[t] = e[row] + (a * out[t - order : t][::-1]).sum(axis=0)
    out = out[-len(x) :]
    spread = out.std(axis=0)
    scaled: np.ndarray = mean + std * (out - out.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return scaled


def yule_walker(x: np.ndarray, order: int) -> np.ndarray:
    """Fit x(t) = Σ a(k) x(t − k) + e(t) to each column by Levinson's recursion.

    Parameters
    ----------
    x : (n, n_targets), centred
    order : how many coefficients

    Returns
    -------
    (order, n_targets); a(1) first. Biased autocovariances are used, so that the process is stationary.
    """
    n = len(x)
    c = np.stack([np.einsum("ij,ij->j", x[k:], x[: n - k]) for k in range(order + 1)]) / n
    a = np.zeros((order, x.shape[1]))
    error = c[0].copy()
    for k in range(order):
        reflection = (c[k + 1] - (a[:k] * c[1 : k + 1][::-1]).sum(axis=0)) / error
        a[:k] = a[:k] - reflection * a[:k][::-1]
        a[k] = reflection
        error *= 1.0 - reflection**2
    return a


def _rest_files(path: Path) -> list[Path | tuple[Path, Path]]:
    """Find files of rest; the two hemispheres of a surface together."""
    if not path.is_dir():
        return [_with_both_hemispheres(require_file(path, RecordingError, "recording of rest"))]
    names = sorted(p for p in path.iterdir() if p.name.endswith(READABLE) and not p.name.startswith("."))
    return [_with_both_hemispheres(p) for p in names if not _is_right(p) and not _is_table_beside_image(p)]


def _is_table_beside_image(path: Path) -> bool:
    """Return whether a table describes a run (confounds, events) and is no recording."""
    return any(word in path.name for word in ("confound", "_events", "_regressors", "_timeseries"))


def _is_right(path: Path) -> bool:
    return any(
        right in path.name and path.with_name(path.name.replace(right, left)).is_file()
        for left, right in HEMISPHERES
    )


def _with_both_hemispheres(path: Path) -> Path | tuple[Path, Path]:
    if not path.name.endswith((".gii", ".mgz")):
        return path
    for left, right in HEMISPHERES:
        for name, opposite in ((left, right), (right, left)):
            partner = path.with_name(path.name.replace(name, opposite))
            if name in path.name and partner.is_file():
                return (path, partner) if name == left else (partner, path)
    raise RecordingError(
        f"{path} is one hemisphere, and the other is not beside it. Name the two hemi-L and hemi-R, or lh and rh."
    )


def _read_rest(files: Path | tuple[Path, Path], space: Space) -> RestScans:
    first = files[0] if isinstance(files, tuple) else files
    require_file(first, RecordingError, "recording of rest")
    if first.suffix == ".mgz" and isinstance(files, tuple):
        values, tr = np.hstack([_read_mgz(path) for path in files]), None
    else:
        clock = read_clock(files)
        volume = first.name.endswith((".nii", ".nii.gz"))
        read = read_recording(
            files, "rest", first.name, space=space if volume else None, tr=clock.tr or 1.0, cleaning=AS_STORED
        )
        values, tr = read.values, clock.tr
    return RestScans(first.name, _match_targets(values, space, first), tr)


def _read_mgz(path: Path) -> np.ndarray:
    """Read one hemisphere of FreeSurfer's format: (n_scans, n_vertices) float32."""
    image = load_image(require_file(path, RecordingError, "recording of rest"))
    try:
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecordingError(f"{path} is incomplete or damaged ({error}). Fetch it again.") from error
    if data.ndim != 4:
        raise RecordingError(f"{path} has shape {data.shape}; vertices × 1 × 1 × scans are needed.")
    return np.ascontiguousarray(data.reshape(-1, data.shape[3]).T)


def _match_targets(values: np.ndarray, space: Space, path: Path) -> np.ndarray:
    n = values.shape[1]
    if n == space.n_targets:
        return values
    if space.kind == "columns" and n > space.n_targets:
        # of the columns that vary, where there are enough: the medial wall has no data
        usable = np.flatnonzero(usable_targets(values))
        candidates = usable if len(usable) >= space.n_targets else np.arange(n)
        positions = np.linspace(0, len(candidates) - 1, space.n_targets).round().astype(int)
        return np.ascontiguousarray(values[:, candidates[positions]])
    raise RecordingError(
        f"{path} has {n} targets and the study's recordings {space.n_targets}. Give rest in the study's space."
    )
