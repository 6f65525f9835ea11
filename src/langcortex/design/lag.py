"""The lag between two clocks: the shift at which the word rate fits the responses best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from langcortex.brain.recording import Recording
from langcortex.brain.timing import hrf_weights
from langcortex.stimulus.story import Story

REACH = 10.0  # seconds: the largest lag, both ways
SHORT = 120.0  # seconds: a lag is not tested in shorter runs
N_SURROGATES = 999
N_TARGETS = 1024  # evenly spaced over the brain; more would only take longer
N_DRAWS = 100  # surrogates at once, to limit memory
LARGEST_P = 0.001  # at which a lag counts as detected: a study must not stop for one in a hundred subjects
# the clock is off where no lag explains less than this share of the variance that the best lag explains
WORSE = 0.8
# and off by more than haemodynamic responses differ between people where it is less than this share
MUCH_WORSE = 0.5


@dataclass(frozen=True)
class Lag:
    """How much later the responses come than the onsets of words predict.

    Attributes
    ----------
    subjects, runs : of the recordings
    seconds : the lag that fits best, a whole number of scans; 0 when the clock is right, positive when responses
        come later
    tr : seconds
    r : correlation of the responses with the convolved word rate at the best lag, root mean square over targets,
        negative ones counted as 0
    r_without_lag : the same without a lag
    p : share of word rates with random phases that fit as well; NaN where the runs are too short
    """

    subjects: tuple[str, ...]
    runs: tuple[str, ...]
    seconds: float
    tr: float
    r: float
    r_without_lag: float
    p: float

    @property
    def is_detected(self) -> bool:
        """Whether the responses follow the word rate at any lag."""
        return self.p <= LARGEST_P

    @property
    def is_off(self) -> bool:
        """Whether the clock is off by a scan or more."""
        return self.is_detected and self.seconds != 0 and self.r_without_lag**2 < WORSE * self.r**2

    @property
    def is_far_off(self) -> bool:
        """Whether it is off by more than haemodynamic responses differ between people (about 2 s)."""
        return self.is_off and self.r_without_lag**2 < MUCH_WORSE * self.r**2

    @property
    def summary(self) -> str:
        """The result in one sentence, and what to do about it."""
        source = f"{_name_or_count('subject', self.subjects)}, {_name_or_count('run', self.runs)}"
        if self.p != self.p:
            return f"The clock of {source} cannot be checked: the runs are too short."
        if not self.is_detected:
            return f"The clock of {source} cannot be checked: the responses do not follow the word rate (p = {self.p:.2g})."
        if not self.is_off:
            best = (
                "without a lag"
                if self.seconds == 0
                else f"at {self.seconds:+g} s, hardly better than without a lag"
            )
            return f"The clock of {source} is right: the responses follow the word rate best {best} (r {self.r:.2f}, p = {self.p:.2g})."
        direction = "later" if self.seconds > 0 else "earlier"
        scans = abs(round(self.seconds / self.tr))
        return (
            f"The clock of {source} is off: responses come {abs(self.seconds):g} s ({scans} scan{'s' * (scans != 1)}) {direction} than word onsets predict "
            f"(r {self.r:.2f} there, {self.r_without_lag:.2f} now). Change recording.stimulus_onset by {self.seconds:+g} s."
        )


def _name_or_count(noun: str, names: Sequence[str]) -> str:
    return f"{noun} '{names[0]}'" if len(names) == 1 else f"{len(names)} {noun}s"


def find_lag(pairs: Sequence[tuple[Story, Recording]], seed: int = 0) -> Lag | None:
    """Cross-correlate the convolved word rate with the responses.

    The rate of words, convolved with a haemodynamic response (Glover), is shifted (circularly) by every whole number
    of scans up to 10 s both ways and correlated with each target. Correlations are averaged over the recordings
    that share their targets, and the squares of positive ones over targets. The null distribution comes from word
    rates with the same spectrum and random phases. No lag is detected in targets whose sign is arbitrary
    (components), or where pauses are too short to modulate the word rate.

    Parameters
    ----------
    pairs : recordings, each with a story on the clock to be tested; of one TR (others are left out)
    seed : of the random phases

    Returns
    -------
    Lag, or None where no recorded run has words
    """
    pairs = [(story, r) for story, r in pairs if (story.run == r.run).any()]
    if not pairs:
        return None
    tr = pairs[0][1].tr
    pairs = [(story, r) for story, r in pairs if abs(r.tr - tr) < 1e-6]
    lags = np.arange(-int(REACH / tr + 1e-9), int(REACH / tr + 1e-9) + 1)
    rng = np.random.default_rng(seed)
    groups: list[tuple[Recording, list[_Spectra]]] = []
    for story, recording in pairs:
        group = next((g for first, g in groups if first.space.same_as(recording.space)), None)
        if group is None:
            groups.append((recording, group := []))
        group.append(_compute_spectra(story, recording))
    powers = [_observed_and_null_power(spectra, lags, rng) for _, spectra in groups]
    power, null = (np.mean([p[i] for p in powers], axis=0) for i in (0, 1))
    best = int(np.argmax(power))
    is_short = any(len(r.onset) * tr < SHORT for _, r in pairs)
    p = float((1 + np.sum(null.max(axis=1) >= power[best])) / (1 + len(null)))
    return Lag(
        subjects=tuple(dict.fromkeys(r.subject for _, r in pairs)),
        runs=tuple(dict.fromkeys(r.run for _, r in pairs)),
        seconds=float(lags[best] * tr),
        tr=tr,
        r=float(np.sqrt(power[best])),
        r_without_lag=float(np.sqrt(power[lags == 0][0])),
        p=float("nan") if is_short else p,
    )


@dataclass(frozen=True, eq=False)
class _Spectra:
    """The Fourier transforms of one run's word rate (n_frequencies,) and responses (n_frequencies, n_targets)."""

    rate: np.ndarray
    responses: np.ndarray
    n_scans: int

    def correlate(self, lags: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """Correlate targets with the word rate, shifted by `lags` scans, its phases shifted by `phase`.

        Parameters
        ----------
        lags : (n_lags,)
        phase : (n_draws, n_frequencies)

        Returns
        -------
        (n_draws, n_lags, n_targets) float32
        """
        f = np.arange(len(self.rate)) / self.n_scans
        rotation = np.exp(1j * (phase[:, None, :] + 2 * np.pi * f * lags[:, None]))
        weights = np.conj(self.rate) * rotation * np.where((f == 0) | (f == 0.5), 1.0, 2.0) / self.n_scans
        flat = weights.reshape(-1, len(f)).astype(np.complex64)
        r = (flat @ self.responses.astype(np.complex64)).real
        return np.asarray(r.reshape(len(phase), len(lags), -1))


def _observed_and_null_power(
    spectra: Sequence[_Spectra], lags: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the power at each lag, (n_lags,), and that of word rates with random phases, (N_SURROGATES, n_lags)."""
    unchanged = [np.zeros((1, len(s.rate))) for s in spectra]
    out = []
    for first in range(0, N_SURROGATES, N_DRAWS):
        n = min(N_DRAWS, N_SURROGATES - first)
        phases = [rng.uniform(0, 2 * np.pi, (n, len(s.rate))) for s in spectra]
        out.append(_mean_power(spectra, lags, phases))
    return _mean_power(spectra, lags, unchanged)[0], np.concatenate(out)


def _mean_power(spectra: Sequence[_Spectra], lags: np.ndarray, phases: Sequence[np.ndarray]) -> np.ndarray:
    """Average correlations over recordings, then the squares of positive ones over targets: (n_draws, n_lags)."""
    r = sum(s.correlate(lags, phase) for s, phase in zip(spectra, phases, strict=True)) / len(spectra)
    power: np.ndarray = (np.maximum(r, 0.0) ** 2).mean(axis=-1, dtype=np.float64)
    return power


def _compute_spectra(story: Story, recording: Recording) -> _Spectra:
    """Fourier-transform the word rate and the responses of one run, detrended and scaled to unit length."""
    here = story.run == recording.run
    weights = hrf_weights(story.onset[here], story.duration[here], recording.time, "glover", "impulse")
    rate = _detrend_and_scale(np.asarray(weights.sum(axis=1)).reshape(-1, 1))
    n_targets = recording.values.shape[1]
    columns = np.unique(np.linspace(0, n_targets - 1, min(n_targets, N_TARGETS)).round().astype(int))
    y = _detrend_and_scale(np.asarray(recording.values[:, columns], dtype=np.float64))
    return _Spectra(fft.rfft(rate, axis=0)[:, 0], fft.rfft(y, axis=0), len(y))


def _detrend_and_scale(x: np.ndarray) -> np.ndarray:
    """Remove mean and linear trend and scale every column to unit length; a column without data becomes 0."""
    time = np.linspace(-1.0, 1.0, len(x))
    x = x - x.mean(axis=0)
    x = x - np.outer(time, time @ x) / (time @ time)
    length = np.sqrt((x**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: np.ndarray = np.where(length > 1e-9, x / length, 0.0)
    return scaled
