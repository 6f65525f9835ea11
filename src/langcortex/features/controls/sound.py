"""Loudness of the sound of a story, from its wav files."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from langcortex.brain.timing import window_weights
from langcortex.errors import SettingsError, StoryError
from langcortex.features.pieces import tabulate_words
from langcortex.features.table import Features
from langcortex.paths import as_path, require_file
from langcortex.stimulus.story import Story

SCALES = ("db", "rms")
BLOCK = 1000  # windows at once


class Envelope(NamedTuple):
    """Loudness over time.

    Attributes
    ----------
    onset : (n_windows,) seconds since the file began
    rms : (n_windows,) root mean square of its samples over all channels; 1 is full scale
    step : the length of a window, in seconds
    """

    onset: np.ndarray
    rms: np.ndarray
    step: float


def read_envelope(path: Path | str, step: float = 0.01) -> Envelope:
    """Compute the loudness of a wav file (integer or float samples, any number of channels) in windows.

    The last window may be shorter.

    Raises
    ------
    StoryError : the file is missing, is not a wav file, breaks off, or has no samples
    """
    path = as_path(path)
    from scipy.io import wavfile

    require_file(path, StoryError, "sound file")
    try:
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            rate, samples = wavfile.read(path, mmap=False)
    except (ValueError, EOFError, OSError, ArithmeticError, struct.error) as error:
        raise StoryError(
            f"{path} cannot be read as a wav file ({error}). Convert it to 16-bit PCM."
        ) from error
    if any("prematurely" in str(w.message) for w in messages):
        raise StoryError(f"{path} breaks off: it has fewer samples than its header says. Fetch it again.")
    if len(samples) == 0 or rate <= 0:
        raise StoryError(f"{path} has no samples. Fetch it again.")
    if not 2 <= step * rate <= len(samples):
        raise StoryError(
            f"{path} has {rate} samples per second and lasts {len(samples) / rate:g} s: windows of {step:g} s do not fit. Change step."
        )
    edges = np.round(np.arange(0, len(samples) / rate, step) * rate).astype(np.intp)
    edges = edges[edges < len(samples)]
    mean = np.concatenate(
        [
            _mean_square(
                samples, edges[i : i + BLOCK], edges[i + BLOCK] if i + BLOCK < len(edges) else len(samples)
            )
            for i in range(0, len(edges), BLOCK)
        ]
    )
    return Envelope(edges / rate, np.sqrt(mean), step)


def sound_power(
    story: Story,
    *,
    files: str | dict[str, str] | None = None,
    scale: str = "db",
    step: float = 0.01,
    floor: float = -100.0,
    base: Path = Path(),
    corpus: object = None,
) -> Features:
    """Compute the loudness during each word: the mean over windows of 10 ms, merged by the mean.

    Parameters
    ----------
    files : a path with ``{run}``, or run → path, relative to the study file; those of the corpus when left out.
        The sound must begin at the story's zero
    scale : "db", decibels relative to full scale, or "rms", the root mean square itself (1 is full scale)
    step : length of a window, in seconds
    floor : the smallest number of decibels, so that digital silence has a value
    base : the folder to which paths are relative
    corpus : its ``wav(run)`` is called when there are no files

    Raises
    ------
    SettingsError : neither the study nor the corpus names a file for a run, or the scale is unknown
    StoryError : a file is missing or broken, or ends before its last word
    """
    if scale not in SCALES:
        raise SettingsError(f"sound_power is on the scale {' or '.join(SCALES)}, not '{scale}'.")
    values = np.empty(len(story))
    for run in story.runs:
        rows = np.flatnonzero(story.run == run)
        path = _find_file(run, files, base, corpus)
        sound = read_envelope(path, step)
        level = 20 * np.log10(np.maximum(sound.rms, 10 ** (floor / 20))) if scale == "db" else sound.rms
        onset, duration = story.onset[rows], story.duration[rows]
        weights, covered = window_weights(onset, duration, np.arange(len(level)) * step, step)
        if (covered < 0.5).any():
            word = rows[covered < 0.5][0]
            raise StoryError(
                f"{path} lasts {len(level) * step:.2f} s, but '{story.ids[word]}' is heard at {story.onset[word]:.2f} s. "
                f"Is it the sound of run '{run}', and does it begin at the story's zero?"
            )
        values[rows] = weights @ level
    return tabulate_words("sound_power", story, values)


def _find_file(run: str, files: str | Mapping[str, str] | None, base: Path, corpus: object) -> Path:
    if isinstance(files, str):
        return base / Path(files.replace("{run}", run)).expanduser()
    if files is not None:
        if run not in files:
            raise SettingsError(f"sound_power has no file for run '{run}'. It has: {', '.join(files)}.")
        return base / Path(files[run]).expanduser()
    wav = getattr(corpus, "wav", None)
    if wav is None:
        raise SettingsError(
            'sound_power needs the sound files: set features.options.sound_power.files, e.g. "stimuli/{run}.wav".'
        )
    return Path(wav(run))


def _mean_square(samples: np.ndarray, edges: np.ndarray, end: int) -> np.ndarray:
    """Compute the mean square of samples of any type between edges: (n_edges,)."""
    part = samples[edges[0] : end]
    if part.dtype.kind == "f":
        scaled = part.astype(np.float64)
    else:
        bits = 8 * part.dtype.itemsize
        middle = 128.0 if part.dtype == np.uint8 else 0.0
        scaled = (part.astype(np.float64) - middle) / 2.0 ** (bits - 1)
    square = scaled**2 if scaled.ndim == 1 else (scaled**2).mean(axis=1)
    starts = edges - edges[0]
    mean: np.ndarray = np.add.reduceat(square, starts) / np.diff(np.append(starts, len(square)))
    return mean
