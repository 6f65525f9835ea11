"""Simulated recordings whose answer is known, to test software and protocols on.

In a planted brain, responses in language regions depend on the hidden states of one layer at one delay, those in
auditory regions depend on sentence duration, and all other voxels are autocorrelated noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.brain.space import Space
from langcortex.cache import atomic_write
from langcortex.features.table import Features
from langcortex.stimulus.story import Story

LANGUAGE_REGIONS: Mapping[str, tuple[float, float, float]] = {
    "IFG": (-50.0, 22.0, 12.0),
    "MFG": (-42.0, 2.0, 48.0),
    "AntTemp": (-54.0, 2.0, -18.0),
    "PostTemp": (-56.0, -42.0, 4.0),
    "AngularG": (-44.0, -64.0, 28.0),
}
"""Centres of left-hemisphere language regions in MNI152 coordinates (mm), rounded from the parcels of
Fedorenko et al. 2010, doi:10.1152/jn.00032.2010."""

AUDITORY_REGIONS: Mapping[str, tuple[float, float, float]] = {
    "AuditoryL": (-50.0, -20.0, 8.0),
    "AuditoryR": (52.0, -18.0, 8.0),
}
"""Centres of Heschl's gyri in MNI152 coordinates (mm)."""


@dataclass(frozen=True)
class Plant:
    """The signal and the noise of a planted brain.

    Attributes
    ----------
    signal : share of the variance of a planted target that is signal, 0 to 1, without the drift
    delay : seconds from a sentence to the response to it
    tr : seconds
    autocorrelation : of neighbouring scans of the noise (first-order autoregressive)
    drift : standard deviation of a slow drift, relative to that of the noise
    n_components : number of principal components of the layer that language targets mix
    tail : seconds of scans after the story's last word
    shared : share of the variance of a language target's signal that is the same in all subjects with `common` weights
    """

    signal: float = 0.3
    delay: float = 6.0
    tr: float = 2.0
    autocorrelation: float = 0.5
    drift: float = 0.5
    n_components: int = 20
    tail: float = 14.0
    shared: float = 0.5


def mni_space(resolution: int = 4, radius: float = 12.0) -> Space:
    """Return the grey matter of nilearn's MNI152 template, with language and auditory regions as spheres.

    Parameters
    ----------
    resolution : of the grid, in mm
    radius : of the spheres, in mm
    """
    from nilearn import datasets

    mask = datasets.load_mni152_gm_mask(resolution=resolution)
    grey_matter = np.asarray(mask.dataobj).astype(bool)
    affine = np.asarray(mask.affine, dtype=np.float64)
    positions = np.argwhere(grey_matter) @ affine[:3, :3].T + affine[:3, 3]
    regions = {
        name: np.linalg.norm(positions - np.array(centre), axis=1) <= radius
        for name, centre in {**LANGUAGE_REGIONS, **AUDITORY_REGIONS}.items()
    }
    names = np.array([str(i) for i in range(len(positions))])
    return Space("volume", names, mask=grey_matter, affine=affine, regions=regions)


def plant(
    story: Story,
    layer: Features,
    language: np.ndarray,
    auditory: np.ndarray,
    settings: Plant,
    rng: np.random.Generator,
    n_scans: Mapping[str, int] | None = None,
    common: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Simulate the responses of one subject.

    Each language target is a random mixture of the leading principal components of the layer's sentence states (each
    scaled to variance 1); auditory targets depend on sentence duration. The signal of a sentence lasts as long as the
    sentence and comes `delay` seconds late. All other targets are noise.

    Parameters
    ----------
    story : the story that the subject hears
    layer : word or sentence states
    language, auditory : (n_targets,) bool
    settings : amounts of signal and noise
    rng : source of randomness
    n_scans : run → number of scans, e.g. those of a real recording; set by `tail` when None
    common : (n_components, n_language) standard normal weights that all subjects share in part

    Returns
    -------
    run → (n_scans, n_targets) float32; the first scan begins with the story
    """
    sentences = story.sentences
    states = layer.to_sentences(story).values.astype(np.float64)
    states = (states - states.mean(axis=0)) / np.maximum(states.std(axis=0), 1e-12)
    u = np.linalg.svd(states, full_matrices=False)[0][:, : settings.n_components] * np.sqrt(len(states))
    length = sentences.duration[:, None]
    length = (length - length.mean()) / length.std()
    mix = rng.standard_normal((u.shape[1], int(language.sum()))) / np.sqrt(u.shape[1])
    if common is not None:
        mix = np.sqrt(1 - settings.shared) * mix + np.sqrt(settings.shared / u.shape[1]) * common
    responses = {}
    for run in story.runs:
        rows = sentences.run == run
        end = float((sentences.onset[rows] + sentences.duration[rows]).max()) + settings.tail
        scans = np.arange(n_scans[run] if n_scans else int(np.ceil(end / settings.tr))) * settings.tr
        overlap = _overlap(
            scans, settings.tr, sentences.onset[rows] + settings.delay, sentences.duration[rows]
        )
        values = _noise(len(scans), len(language), settings, rng)
        for mask, drive in ((language, overlap @ (u[rows] @ mix)), (auditory, overlap @ length[rows])):
            scale = drive.std(axis=0)
            signal = drive / np.where(scale > 0, scale, 1.0)
            values[:, mask] = (
                np.sqrt(settings.signal) * signal + np.sqrt(1 - settings.signal) * values[:, mask]
            )
        responses[run] = values.astype(np.float32)
    return responses


def write_bold(
    values: np.ndarray, space: Space, path: Path, tr: float, level: float = 1000.0, size: float = 10.0
) -> None:
    """Write responses as a 4D image in scanner units (int16, mean `level`, standard deviation `size`)."""
    import nibabel

    volume = np.zeros((*_grid(space), len(values)), dtype=np.int16)
    volume[space.mask] = np.clip(np.round(level + size * values.T), -32000, 32000).astype(np.int16)
    image = nibabel.Nifti1Image(volume, space.affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    image.header.set_xyzt_units("mm", "sec")
    with atomic_write(path) as draft:
        nibabel.save(image, draft)


def write_mask(mask: np.ndarray, space: Space, path: Path) -> None:
    """Write a (n_targets,) boolean array as a mask image."""
    import nibabel

    volume = np.zeros(_grid(space), dtype=np.uint8)
    volume[space.mask] = mask
    with atomic_write(path) as draft:
        nibabel.save(nibabel.Nifti1Image(volume, space.affine), draft)


def _grid(space: Space) -> Any:
    if space.mask is None:
        raise ValueError("this space has no grid")
    return space.mask.shape


def _overlap(scans: np.ndarray, tr: float, onset: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Return the share of each scan that each window covers: (n_scans, n_windows)."""
    begin = np.maximum(scans[:, None], onset)
    end = np.minimum(scans[:, None] + tr, onset + duration)
    share: np.ndarray = np.maximum(end - begin, 0.0) / tr
    return share


def _noise(n: int, n_targets: int, settings: Plant, rng: np.random.Generator) -> np.ndarray:
    """Draw autocorrelated noise of variance 1 and a slow drift."""
    from scipy import signal

    white = rng.standard_normal((n + 50, n_targets), dtype=np.float32)
    rho = settings.autocorrelation
    noise = signal.lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], white, axis=0)[50:]
    time = np.arange(n)[:, None] / max(1, n - 1)
    phase, cycles = rng.uniform(0, 2 * np.pi, n_targets), rng.uniform(0.3, 1.5, n_targets)
    noise_and_drift: np.ndarray = noise + settings.drift * np.sqrt(2) * np.sin(
        2 * np.pi * cycles * time + phase
    )
    return noise_and_drift
