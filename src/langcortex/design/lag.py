"""Is the clock right? Where the rate of words would have to be moved to fit the responses best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from langcortex.brain.recording import Recording
from langcortex.brain.timing import hrf_weights
from langcortex.stimulus.story import Story

REACH = 10.0  # seconds before and after: where a lag is looked for
SHORT = 120.0  # seconds: shorter runs say too little
N_CHANCE = 999
N_TARGETS = 1024  # spread over the brain; more would only take longer
N_DRAWS = 100  # at once, for memory
SURE = 0.001  # the largest p at which a lag is believed: a study must not stop once in a hundred subjects
WORSE = 0.8  # a clock is off when no lag explains less than this share of what the best lag explains,
MUCH_WORSE = (
    0.5  # and off beyond what one person's haemodynamic response can be early or late when it is this
)


@dataclass(frozen=True)
class Lag:
    """How much later than the words say the responses come.

    Attributes
    ----------
    subjects, runs : whose
    seconds : the lag that fits best, a whole number of scans; 0 when the clock is right, positive when responses
        come later
    tr : seconds
    r : of the responses with the convolved word rate at the best lag, root mean square over targets that follow it
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
        """Whether the responses follow the word rate at all."""
        return self.p <= SURE

    @property
    def is_off(self) -> bool:
        """Whether the clock is off by a scan or more."""
        return self.is_detected and self.seconds != 0 and self.r_without_lag**2 < WORSE * self.r**2

    @property
    def is_far_off(self) -> bool:
        """Whether it is off by more than one person's haemodynamic response can be early or late (about 2 s)."""
        return self.is_off and self.r_without_lag**2 < MUCH_WORSE * self.r**2

    @property
    def summary(self) -> str:
        """What was found, and what to do."""
        who = f"{_listed('subject', self.subjects)}, {_listed('run', self.runs)}"
        if self.p != self.p:
            return f"The clock of {who} cannot be checked: the runs are too short."
        if not self.is_detected:
            return f"The clock of {who} cannot be checked: the responses do not follow the word rate (p = {self.p:.2g})."
        if not self.is_off:
            best = (
                "without a lag"
                if self.seconds == 0
                else f"at {self.seconds:+g} s, hardly better than without a lag"
            )
            return f"The clock of {who} is right: the responses follow the word rate best {best} (r {self.r:.2f}, p = {self.p:.2g})."
        how = "later" if self.seconds > 0 else "earlier"
        scans = abs(round(self.seconds / self.tr))
        return (
            f"The clock of {who} is off: responses come {abs(self.seconds):g} s ({scans} scan{'s' * (scans != 1)}) {how} than the words say "
            f"(r {self.r:.2f} there, {self.r_without_lag:.2f} now). Change recording.stimulus_onset by {self.seconds:+g} s."
        )


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what} '{names[0]}'" if len(names) == 1 else f"{len(names)} {what}s"


def find_lag(pairs: Sequence[tuple[Story, Recording]], seed: int = 0) -> Lag | None:
    """Cross-correlate the convolved word rate with the responses.

    The rate of words, convolved with a haemodynamic response (Glover), is moved by every whole number of scans up
    to 10 s both ways (circularly) and correlated with each target. Correlations are averaged over the recordings
    that share their targets, and the squares of those that are positive over targets. Word rates with the same
    spectrum and random phases say what chance gives. Targets whose sign is arbitrary (components) and silences that are too short to
    be seen in the word rate leave it in doubt.

    Parameters
    ----------
    pairs : recordings, each with the words on the clock that it is said to have; one TR (others are left out)
    seed : draws the shifts

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
        home = next((g for first, g in groups if first.space.same_as(recording.space)), None)
        if home is None:
            groups.append((recording, home := []))
        home.append(_spectra(story, recording))
    powers = [_powers(spectra, lags, rng) for _, spectra in groups]
    power, chance = (np.mean([p[i] for p in powers], axis=0) for i in (0, 1))
    best = int(np.argmax(power))
    short = any(len(r.onset) * tr < SHORT for _, r in pairs)
    return Lag(
        subjects=tuple(dict.fromkeys(r.subject for _, r in pairs)),
        runs=tuple(dict.fromkeys(r.run for _, r in pairs)),
        seconds=float(lags[best] * tr),
        tr=tr,
        r=float(np.sqrt(power[best])),
        r_without_lag=float(np.sqrt(power[lags == 0][0])),
        p=float("nan")
        if short
        else float((1 + np.sum(chance.max(axis=1) >= power[best])) / (1 + len(chance))),
    )


@dataclass(frozen=True, eq=False)
class _Spectra:
    """The Fourier transforms of one run's word rate (n_frequencies,) and responses (n_frequencies, n_targets)."""

    rate: np.ndarray
    responses: np.ndarray
    n_scans: int

    def correlate(self, lags: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """Correlate the word rate, moved by `lags` scans and turned by `phase` (n_draws, n_frequencies), with targets.

        Returns
        -------
        (n_draws, n_lags, n_targets) float32
        """
        f = np.arange(len(self.rate)) / self.n_scans
        turn = np.exp(1j * (phase[:, None, :] + 2 * np.pi * f * lags[:, None]))
        weights = np.conj(self.rate) * turn * np.where((f == 0) | (f == 0.5), 1.0, 2.0) / self.n_scans
        flat = weights.reshape(-1, len(f)).astype(np.complex64)
        r = (flat @ self.responses.astype(np.complex64)).real
        return np.asarray(r.reshape(len(phase), len(lags), -1))


def _powers(
    spectra: Sequence[_Spectra], lags: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Give the power at each lag, (n_lags,), and that of word rates with random phases, (N_CHANCE, n_lags)."""
    still = [np.zeros((1, len(s.rate))) for s in spectra]
    out = []
    for first in range(0, N_CHANCE, N_DRAWS):
        n = min(N_DRAWS, N_CHANCE - first)
        turned = [rng.uniform(0, 2 * np.pi, (n, len(s.rate))) for s in spectra]
        out.append(_power(spectra, lags, turned))
    return _power(spectra, lags, still)[0], np.concatenate(out)


def _power(spectra: Sequence[_Spectra], lags: np.ndarray, phases: Sequence[np.ndarray]) -> np.ndarray:
    """Average correlations over recordings, then the squares of those that are positive over targets."""
    r = sum(s.correlate(lags, phase) for s, phase in zip(spectra, phases, strict=True)) / len(spectra)
    power: np.ndarray = (np.maximum(r, 0.0) ** 2).mean(axis=-1, dtype=np.float64)
    return power


def _spectra(story: Story, recording: Recording) -> _Spectra:
    """Transform one run: word rate and responses, centred, without trend, of length 1."""
    here = story.run == recording.run
    weights = hrf_weights(story.onset[here], story.duration[here], recording.time, "glover", "impulse")
    rate = _unit(np.asarray(weights.sum(axis=1)).reshape(-1, 1))
    n_targets = recording.values.shape[1]
    some = np.unique(np.linspace(0, n_targets - 1, min(n_targets, N_TARGETS)).round().astype(int))
    y = _unit(np.asarray(recording.values[:, some], dtype=np.float64))
    return _Spectra(fft.rfft(rate, axis=0)[:, 0], fft.rfft(y, axis=0), len(y))


def _unit(x: np.ndarray) -> np.ndarray:
    """Take off mean and trend and scale every column to length 1; a column without data becomes 0."""
    time = np.linspace(-1.0, 1.0, len(x))
    x = x - x.mean(axis=0)
    x = x - np.outer(time, time @ x) / (time @ time)
    length = np.sqrt((x**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: np.ndarray = np.where(length > 1e-9, x / length, 0.0)
    return unit
