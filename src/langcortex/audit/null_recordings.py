"""Recordings that carry no story: surrogates of one's own scans, and real rest; same space, same clock."""

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
SETTLE = 100  # scans thrown away while an autoregression forgets that it began at 0
CHUNK = 4096  # targets at a time
AS_STORED = Cleaning(detrend=False, high_pass=None, standardise=False)
HEMISPHERES = (("hemi-L", "hemi-R"), (".lh.", ".rh."), ("lh.", "rh."), ("_lh", "_rh"))
READABLE = (".nii", ".nii.gz", ".gii", ".mgz", ".npy", ".tsv", ".csv", ".txt", ".hf5", ".h5", ".hdf5")


def randomise_phases(recording: Recording, rng: np.random.Generator) -> Recording:
    """Give every frequency of a run a random phase, the same for all targets.

    Kept: every target's mean, spectrum and so autocorrelation (a run's end counts as next to its beginning), and
    every correlation between targets. Lost: when anything happened, and what was not Gaussian. Targets without data
    and constant ones stay as they are.

    References
    ----------
    Prichard & Theiler 1994, doi:10.1103/PhysRevLett.73.951
    """
    return _moved(recording, "phase", rng)


def shift_circularly(recording: Recording, rng: np.random.Generator) -> Recording:
    """Turn a run on itself by a tenth to nine tenths of its length, all targets alike.

    The response to the story is still in it, at another time: what is slow in both story and response may still
    agree.
    """
    return _moved(recording, "shift", rng)


def simulate_autoregressive(recording: Recording, rng: np.random.Generator, order: int = ORDER) -> Recording:
    """Make noise that is as slow as each target: x(t) = Σ a(k) x(t − k) + e(t), a(k) of each target by Yule–Walker.

    The e are whole rows of the residuals, drawn again with replacement, so that targets depend on one another as
    they did; each target gets back its mean and standard deviation in the run. Targets without data and constant ones
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
            f"Run '{recording.run}' of subject '{recording.subject}' has {n} scans, too few to match an autoregression. Leave it out."
        )
    drawn = rng.integers(0, n - order, n + SETTLE)
    out = values.copy()
    for part in _parts(usable):
        out[:, part] = _simulated(values[:, part].astype(np.float64), order, drawn)
    return replace(recording, values=out)


@dataclass(frozen=True, eq=False)
class Rest:
    """A stretch of rest.

    Attributes
    ----------
    name : of its file
    values : (n_scans, n_targets) float32, as stored
    tr : seconds from scan to scan, where the file says so; None otherwise
    """

    name: str
    values: np.ndarray
    tr: float | None


def read_rest(path: Path, space: Space) -> tuple[Rest, ...]:
    """Read recordings of rest, uncleaned.

    Parameters
    ----------
    path : a file (.nii.gz, .func.gii, .mgz, .npy, a table or HDF5; scans × targets), or a folder of such files; of
        surface files, the left hemisphere's, beside which the right one's lies (``hemi-L``/``hemi-R``, ``lh``/``rh``)
    space : of the recordings they stand in for: images must lie on its grid, surfaces must have its vertices; of a
        table with more columns than a space of columns has, as many are taken, at even distances

    Raises
    ------
    RecordingError : a file is missing, unreadable or of another shape

    Notes
    -----
    The TR of an .mgz header is not trusted, and a table has none: such scans are taken to be as far apart as the study's.
    """
    found = tuple(_read_rest(files, space) for files in _rest_files(path))
    if not found:
        raise RecordingError(f"No recording of rest was found in {path}. Give a file, or a folder with some.")
    return found


def rest_recording(
    recording: Recording, rests: tuple[Rest, ...], rng: np.random.Generator, cleaning: Cleaning = AS_STORED
) -> Recording:
    """Put a random stretch of rest in the place of a recording, cleaned as recordings are.

    Parameters
    ----------
    recording : whose clock, length and undefined targets are kept
    rests : from `read_rest`; those long enough take part
    cleaning : of the stretch, after it was cut

    Raises
    ------
    RecordingError : no rest is as long as the run, or its scans are as far apart
    """
    n = len(recording.onset)
    for rest in rests:
        if rest.tr is not None and abs(rest.tr - recording.tr) > 1e-3:
            raise RecordingError(
                f"{rest.name} has a TR of {rest.tr:g} s and run '{recording.run}' one of {recording.tr:g} s. Give rest that was scanned alike."
            )
    enough = [rest for rest in rests if len(rest.values) >= n]
    if not enough:
        longest = max(len(rest.values) for rest in rests)
        raise RecordingError(
            f"Run '{recording.run}' has {n} scans but the longest rest {longest}. Give a longer recording of rest."
        )
    rest = enough[int(rng.integers(len(enough)))]
    first = int(rng.integers(len(rest.values) - n + 1))
    cut = rest.values[first : first + n]
    cleaned = cleaning.apply(cut, recording.tr, None, f"{rest.name}, scans {first} to {first + n - 1}")
    usable = usable_targets(recording.values)
    return replace(recording, values=np.where(usable, cleaned, recording.values))


SURROGATES: dict[str, Callable[[Recording, np.random.Generator], Recording]] = {
    "phase": randomise_phases,
    "ar": simulate_autoregressive,
    "shift": shift_circularly,
}
"""The kinds that are made from the recording alone."""


def check_kind(kind: str, rest: Path | None) -> None:
    """Hold a kind of surrogate against those there are.

    Raises
    ------
    SettingsError : an unknown kind, or rest asked for and not given
    """
    if kind not in KINDS:
        raise SettingsError(f"Recordings without a story are of kind {', '.join(KINDS)}; not '{kind}'.")
    if (kind == "rest") != (rest is not None):
        raise SettingsError(
            "The kind 'rest' and a recording of rest (--rest FILE) belong together. Give both."
        )


def _moved(recording: Recording, kind: str, rng: np.random.Generator) -> Recording:
    draw = draw_null(kind, np.full(len(recording.onset), recording.run), rng)
    out = recording.values.copy()
    for part in _parts(usable_targets(recording.values)):
        out[:, part] = draw(recording.values[:, part])
    return replace(recording, values=out)


def usable_targets(values: np.ndarray) -> np.ndarray:
    """Say which targets have data that vary: (n_targets,) bool."""
    usable: np.ndarray = np.isfinite(values).all(axis=0) & (values.max(axis=0) > values.min(axis=0))
    return usable


def _parts(usable: np.ndarray) -> Iterator[np.ndarray]:
    where = np.flatnonzero(usable)
    return (where[part] for part in chunks(len(where), CHUNK))


def _simulated(x: np.ndarray, order: int, drawn: np.ndarray) -> np.ndarray:
    """Run each column's autoregression on rows of residuals: (n_scans, n_targets)."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / std
    a = yule_walker(z, order)
    e = z[order:] - sum(a[k] * z[order - 1 - k : len(z) - 1 - k] for k in range(order))
    e -= e.mean(axis=0)
    out = np.zeros((len(drawn) + order, z.shape[1]))
    for t, row in enumerate(drawn.tolist(), start=order):
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
    left = c[0].copy()
    for k in range(order):
        reflection = (c[k + 1] - (a[:k] * c[1 : k + 1][::-1]).sum(axis=0)) / left
        a[:k] = a[:k] - reflection * a[:k][::-1]
        a[k] = reflection
        left *= 1.0 - reflection**2
    return a


def _rest_files(path: Path) -> list[Path | tuple[Path, Path]]:
    """Find files of rest; the two hemispheres of a surface together."""
    if not path.is_dir():
        return [_with_other_half(require_file(path, RecordingError, "recording of rest"))]
    names = sorted(p for p in path.iterdir() if p.name.endswith(READABLE) and not p.name.startswith("."))
    return [_with_other_half(p) for p in names if not _is_right(p) and not _is_table_beside_image(p)]


def _is_table_beside_image(path: Path) -> bool:
    """Say whether a table is about a run (confounds, events) and no run itself."""
    return any(word in path.name for word in ("confound", "_events", "_regressors", "_timeseries"))


def _is_right(path: Path) -> bool:
    return any(
        right in path.name and path.with_name(path.name.replace(right, left)).is_file()
        for left, right in HEMISPHERES
    )


def _with_other_half(path: Path) -> Path | tuple[Path, Path]:
    if not path.name.endswith((".gii", ".mgz")):
        return path
    for left, right in HEMISPHERES:
        for here, there in ((left, right), (right, left)):
            other = path.with_name(path.name.replace(here, there))
            if here in path.name and other.is_file():
                return (path, other) if here == left else (other, path)
    raise RecordingError(
        f"{path} is one hemisphere, and beside it lies no other. Name the two hemi-L and hemi-R, or lh and rh."
    )


def _read_rest(files: Path | tuple[Path, Path], space: Space) -> Rest:
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
    return Rest(first.name, _of_targets(values, space, first), tr)


def _read_mgz(path: Path) -> np.ndarray:
    """Read one hemisphere of FreeSurfer's format: (n_scans, n_vertices) float32."""
    image = load_image(require_file(path, RecordingError, "recording of rest"))
    try:
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecordingError(f"{path} breaks off or is damaged ({error}). Fetch it again.") from error
    if data.ndim != 4:
        raise RecordingError(f"{path} has shape {data.shape}; vertices × 1 × 1 × scans are needed.")
    return np.ascontiguousarray(data.reshape(-1, data.shape[3]).T)


def _of_targets(values: np.ndarray, space: Space, path: Path) -> np.ndarray:
    n = values.shape[1]
    if n == space.n_targets:
        return values
    if space.kind == "columns" and n > space.n_targets:
        # where enough vary: the medial wall has no data
        usable = np.flatnonzero(usable_targets(values))
        among = usable if len(usable) >= space.n_targets else np.arange(n)
        even = np.linspace(0, len(among) - 1, space.n_targets).round().astype(int)
        return np.ascontiguousarray(values[:, among[even]])
    raise RecordingError(
        f"{path} has {n} targets and the study's recordings {space.n_targets}. Give rest in the study's space."
    )
