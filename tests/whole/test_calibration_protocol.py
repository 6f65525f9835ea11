"""The rigorous protocol on noise: r of 0, one target in twenty below .05, and a planted effect found.

Words, rows, fits and tests are those of the public functions: `align_sentences` or `align_scans`, `choose_delays`, `fit`,
`choose_layers`, `null_test`. Every rate is told with its 95 % binomial interval (Clopper & Pearson).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, signal, stats

from langcortex.audit.null_recordings import RestScans, read_rest
from langcortex.brain.recording import Cleaning, Recording
from langcortex.brain.space import Space
from langcortex.design.design import HRF, Delays, Design, align_scans, align_sentences
from langcortex.encoding.nested_cv import fit_layers
from langcortex.encoding.null_test import null_test
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.encoding.scores import score
from langcortex.encoding.selection import assemble_chosen, choose_delays, choose_layers
from langcortex.features import Features
from langcortex.stimulus.story import Story, make_story, read_story

TR, WIDTH = 2.0, 10
UNITS = (185, 206, 213, 227, 203, 260, 291, 223, 295)  # of the nine English sections, from pause to pause
PROTOCOL = Protocol(confounds=("duration",), n_nulls=199)

Noise = Callable[[np.random.Generator, int, int], np.ndarray]
Times = Mapping[str, tuple[np.ndarray, np.ndarray]]


# timings


def synthetic_times(runs: int, seed: int = 0) -> Times:
    """Draw onsets and durations like those of Le Petit Prince's pause groups: log-normal, 2.06 s and .59 s of pause."""
    rng = np.random.default_rng([9, seed])
    out = {}
    for k, n in enumerate(UNITS[:runs]):
        duration = np.minimum(np.exp(rng.normal(0.52, 0.64, n)), 8.0)
        pause = np.exp(rng.normal(-0.65, 0.5, n))
        onset = 0.3 + np.cumsum(np.concatenate([[0.0], duration[:-1] + pause[:-1]]))
        out[f"section{k + 1}"] = (onset, duration)
    return out


def real_times(shared_data: Path, runs: int) -> Times:
    folder = shared_data / "lpp" / "annotation" / "EN"
    files = {f"section{i}": folder / f"lppEN_section{i}.TextGrid" for i in range(1, runs + 1)}
    units = read_story(files, sentences="pauses").sentences
    return {run: (units.onset[units.run == run], units.duration[units.run == run]) for run in files}


def test_synthetic_timings_have_the_properties_of_the_real_ones(shared_data: Path) -> None:
    made, real = synthetic_times(9), real_times(shared_data, 9)
    assert [len(o) for o, _ in made.values()] == [len(o) for o, _ in real.values()]
    for what in (
        lambda onset, duration: duration,
        lambda onset, duration: onset[1:] - (onset + duration)[:-1],
    ):
        a, b = (np.concatenate([what(*t) for t in times.values()]) for times in (made, real))
        np.testing.assert_allclose(*(np.percentile(x, [25, 50, 75]) for x in (a, b)), rtol=0.12)
    a, b = (np.mean([t[0][-1] for t in times.values()]) for times in (made, real))
    assert a == pytest.approx(b, rel=0.06)


# noise


def ar1(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Draw first-order autoregressive noise whose neighbours correlate at .8."""
    white = rng.standard_normal((n + 100, k))
    return np.asarray(signal.lfilter([0.6], [1.0, -0.8], white, axis=0)[100:])


def pink(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Draw 1/f noise, cut from a series four times as long, so that its end does not meet its beginning."""
    spectrum = np.fft.rfft(rng.standard_normal((4 * n, k)), axis=0)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))[:, None]
    return np.asarray(np.fft.irfft(spectrum, 4 * n, axis=0)[n : 2 * n])


def smooth(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Draw Gaussian-smoothed noise, σ = 3 s."""
    return np.asarray(ndimage.gaussian_filter1d(rng.standard_normal((n + 40, k)), 1.5, axis=0)[20:-20])


NOISES: dict[str, Noise] = {"AR(1) .8": ar1, "1/f": pink, "smooth": smooth}


@pytest.fixture(scope="session")
def rest(request: pytest.FixtureRequest) -> tuple[RestScans, ...]:
    """Read real resting-state scans, which are no part of the project (PyPI brainspace 0.3.0, datasets/preprocessing)."""
    named = os.environ.get("LANGCORTEX_REST")
    if not named:
        pytest.skip("real rest is absent: set LANGCORTEX_REST to the folder with brainspace's .mgz files")
    hemispheres = (10242, 10242)
    names = np.arange(sum(hemispheres)).astype(str)
    return read_rest(Path(named), Space("surface", names, hemispheres=hemispheres))


# the public pipeline


@dataclass(frozen=True, eq=False)
class Scene:
    """A story heard in scans, and features of it that are as slow as topics and know nothing of the brain."""

    story: Story
    times: Times
    rows: str = "sentences"
    n_layers: int = 1
    delays: tuple[float, ...] = (6.0,)

    @staticmethod
    def of(times: Times, **choices: object) -> Scene:
        words = {run: [f"unit{i}." for i in range(len(onset))] for run, (onset, _) in times.items()}
        story = make_story(
            words, {r: o for r, (o, _) in times.items()}, {r: d for r, (_, d) in times.items()}
        )
        return Scene(story, times, **choices)  # type: ignore[arg-type]  # its fields

    def features(self, rng: np.random.Generator) -> dict[str, Features]:
        """Draw layers that drift with the topic (σ = 2 sentences), neighbours alike, and sentence duration."""
        s = self.story.sentences
        values = np.empty((self.n_layers, len(s.ids), WIDTH))
        for run in self.story.runs:
            rows = s.run == run
            shape = (self.n_layers, int(rows.sum()), WIDTH)
            values[:, rows] = ndimage.gaussian_filter1d(rng.standard_normal(shape), 2.0, axis=1)
        layers = {f"layer-{i}": v for i, v in enumerate(np.cumsum(values, axis=0))}
        layers["duration"] = s.duration[:, None]
        return {
            name: Features(name, s.ids, s.onset, s.duration, s.run, v / v.std(), "mean") for name, v in layers.items()
        }  # fmt: skip

    def n_scans(self, run: str) -> int:
        onset, duration = self.times[run]
        return int((onset[-1] + duration[-1] + 14.0) / TR)

    def design(self, features: dict[str, Features], values: Mapping[str, np.ndarray]) -> Design:
        width = next(iter(values.values())).shape[1]
        space = Space("columns", np.arange(width).astype(str))
        recordings = [
            Recording(v.astype(np.float32), np.arange(len(v)) * TR, TR, run, "01", space)
            for run, v in values.items()
        ]
        if self.rows == "sentences":
            return align_sentences(self.story, features, recordings, self.delays)
        response = HRF() if self.rows == "hrf" else Delays(self.delays)
        return align_scans(self.story, features, recordings, response)


@dataclass(frozen=True, eq=False)
class Found:
    """What one draw gives: per target, r, p and p corrected over targets, and p of Pearson's test that ignores time."""

    r: np.ndarray
    p: np.ndarray
    p_corrected: np.ndarray
    naive: np.ndarray


def analyse(design: Design, protocol: Protocol, seed: int) -> Found:
    """Choose delays, fit, choose a layer in training, test it by refitted nulls."""
    spaces = [name for name in design.X if str(name).startswith("layer")]
    delays = choose_delays(design, spaces, protocol)
    encodings = fit_layers(design, spaces, protocol, delays, keep_predictions=True)
    best = choose_layers(encodings)
    whole = assemble_chosen(encodings, best, design, protocol, "chosen")
    out = null_test(design, [([spaces[int(k)] for k in best], whole)], protocol, seed)
    assert whole.observed is not None
    assert whole.predicted is not None
    held = np.concatenate([fold.test for fold in outer_folds(design.run, design.scans, protocol)])
    naive = stats.pearsonr(whole.observed[held], whole.predicted[held], axis=0, alternative="greater").pvalue
    return Found(score(whole).r, out.p[0], out.p_corrected[0], np.asarray(naive))


def on_noise(
    scene: Scene, noise: Noise, draws: int, targets: int, protocol: Protocol, seed: int
) -> list[Found]:
    out = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        values = {run: noise(rng, scene.n_scans(run), targets) for run in scene.story.runs}
        out.append(analyse(scene.design(scene.features(rng), values), protocol, draw))
    return out


def on_rest(scene: Scene, rests: tuple[RestScans, ...], draws: int, targets: int) -> list[Found]:
    """Put two stretches of real rest that share no scan in the place of two runs, cleaned as recordings are."""
    values, out = rests[0].values, []
    varying, n = np.flatnonzero(values.std(axis=0) > 0), [scene.n_scans(run) for run in scene.story.runs]
    for draw in range(draws):
        rng = np.random.default_rng([5, draw])
        some = rng.choice(varying, targets, replace=False)
        before, between = divmod(int(rng.integers(0, len(values) - sum(n) + 1)), 2)
        begin = [before, before + n[0] + before + between]
        parts = [values[b : b + k][:, some] for b, k in zip(begin, n, strict=True)]
        cleaned = [Cleaning().apply(part, TR, None, "rest") for part in parts]
        design = scene.design(scene.features(rng), dict(zip(scene.story.runs, cleaned, strict=True)))
        out.append(analyse(design, PROTOCOL, draw))
    return out


# what is asked of it


def told(hits: np.ndarray) -> tuple[float, float, float, str]:
    """Give a share, its 95 % binomial interval, and all of it as text."""
    k, n = int(np.sum(hits)), int(np.size(hits))
    low, high = stats.binomtest(k, n).proportion_ci()
    return k / n, float(low), float(high), f"{k / n:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {n:,})"


def check_noise(name: str, found: list[Found]) -> str:
    """Hold noise against what was promised; the message has every number."""
    r = float(np.mean([f.r.mean() for f in found]))
    rate, _, _, positives = told(np.concatenate([f.p <= 0.05 for f in found]))
    _, family_low, _, family = told(np.array([(f.p_corrected <= 0.05).any() for f in found]))
    _, naive_low, _, naive = told(np.concatenate([f.naive <= 0.05 for f in found]))
    by_draw = stats.ttest_1samp([(f.p <= 0.05).mean() for f in found], 0).confidence_interval()
    positives += (
        f", over draws {by_draw.low:.2%} to {by_draw.high:.2%}"  # targets of one draw are not independent
    )
    said = f"{name}: mean r {r:.4f}; p <= .05 in {positives}; family-wise {family}; a test that ignores time {naive}"
    assert abs(r) < 0.01, said
    assert 0.04 <= rate <= 0.06, said
    assert family_low <= 0.05, said
    assert naive_low > 0.06, said  # the same predictions, by a p that takes rows for independent
    return said


def planted(
    scene: Scene, share: float, targets: int, draws: int, noise: Noise = ar1
) -> tuple[float, float, str]:
    """Plant features in the scans 6 s late, as `share` of the variance: power at p <= .05, and mean r."""
    hits, r = [], []
    for draw in range(draws):
        rng = np.random.default_rng([17, draw])
        features = scene.features(rng)
        x, weights = features["layer-0"], rng.standard_normal((WIDTH, targets))
        values = {}
        for run in scene.story.runs:
            rows, n = x.run == run, scene.n_scans(run)
            scans = np.arange(n) * TR
            begin, end = x.onset[rows] + 6.0, x.onset[rows] + 6.0 + x.duration[rows]
            inside = np.clip(
                np.minimum(scans[:, None] + TR, end) - np.maximum(scans[:, None], begin), 0, None
            )
            heard, silent = inside / TR @ x.values[rows] @ weights, noise(rng, n, targets)
            values[run] = np.sqrt(share) * heard / heard.std(axis=0) + np.sqrt(
                1 - share
            ) * silent / silent.std(axis=0)
        one = analyse(scene.design(features, values), PROTOCOL, draw)
        hits.append(one.p <= 0.05)
        r.append(one.r.mean())
    power, _, _, said = told(np.concatenate(hits))
    return power, float(np.mean(r)), f"planted {share:.1%} of variance: power {said}, mean r {np.mean(r):.3f}"


# always


def test_noise_gets_nothing_from_the_rigorous_protocol() -> None:
    """Four synthetic runs, AR(1) noise: r of 0, 5 % below .05, and the test that ignores time is too liberal."""
    check_noise("AR(1) .8", on_noise(Scene.of(synthetic_times(4)), ar1, 16, 200, PROTOCOL, 1))


def test_a_planted_effect_is_found() -> None:
    """Four runs (865 units, 37 minutes), AR(1) noise of .8: an eighth of the scans' variance, power of .8 or more."""
    power, r, said = planted(Scene.of(synthetic_times(4)), 0.125, 100, 2)
    assert power >= 0.8, said
    assert r > 0.2, said


# slow: nine runs with the words of Le Petit Prince


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISES)
def test_noise_of_every_colour_gets_nothing_with_real_timings(shared_data: Path, name: str) -> None:
    scene = Scene.of(real_times(shared_data, 9))
    check_noise(name, on_noise(scene, NOISES[name], 30, 150, PROTOCOL, 2))


@pytest.mark.slow
@pytest.mark.parametrize("null", ["shift", "phase"])
def test_of_two_hundred_brains_of_noise_one_in_twenty_has_a_corrected_voxel(null: str) -> None:
    """Family-wise: 1/f noise, four synthetic runs, 50 targets; the 95 % binomial interval holds .05, and the rate is below .1.

    Measured: 8.0 % by shifts, 6.5 % by phases. Long memory is what shifts keep least.
    """
    protocol = Protocol(confounds=("duration",), n_nulls=199, null=null)
    found = on_noise(Scene.of(synthetic_times(4)), pink, 200, 50, protocol, 6)
    rate, low, high, said = told(np.array([(f.p_corrected <= 0.05).any() for f in found]))
    assert low <= 0.05 <= high, f"{null}: {said}"
    assert rate < 0.1, f"{null}: {said}"


@pytest.mark.slow
def test_a_real_brain_at_rest_gets_nothing_with_real_timings(
    shared_data: Path, rest: tuple[RestScans, ...]
) -> None:
    """Sections 1 and 2 fit into 652 scans of rest without sharing any; nine runs do not."""
    scene = Scene.of(real_times(shared_data, 2))
    check_noise("real rest", on_rest(scene, rest, 100, 150))


@pytest.mark.slow
def test_choosing_delay_and_layer_in_training_adds_nothing(shared_data: Path) -> None:
    """Three layers and four delays: both choices are made in training, and noise gains nothing by them."""
    scene = Scene.of(real_times(shared_data, 6), n_layers=3, delays=(4.0, 6.0, 8.0, 10.0))
    check_noise("AR(1) .8, chosen", on_noise(scene, ar1, 24, 150, PROTOCOL, 4))


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["hrf", "fir"])
def test_rows_of_scans_are_no_looser(shared_data: Path, rows: str) -> None:
    delays = (4.0, 6.0, 8.0)
    scene = Scene.of(real_times(shared_data, 5), rows=rows, delays=delays if rows == "fir" else (6.0,))
    protocol = Protocol(confounds=(), n_nulls=199)
    check_noise(f"AR(1) .8, {rows}", on_noise(scene, ar1, 24, 150, protocol, 5))


@pytest.mark.slow
def test_a_small_planted_effect_is_found_with_real_timings(shared_data: Path) -> None:
    """Nine runs, AR(1) noise of .8: a twentieth of the scans' variance, power of .8 or more."""
    power, r, said = planted(Scene.of(real_times(shared_data, 9)), 0.05, 100, 2)
    assert power >= 0.8, said
    assert r > 0.1, said
