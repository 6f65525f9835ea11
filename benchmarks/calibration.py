"""How often do the tests find what is not there, and do the intervals hold the truth? Planted noise; no model, no data.

Run it with: python benchmarks/calibration.py [part …], parts: time, protocol, rest, models, subjects, layers, intervals, ceilings.
All but "rest" run when none is named (some ten minutes on one core). "rest" needs real resting-state images: give the folder
that holds them with --rest FOLDER (the .mgz files of the PyPI package brainspace 0.3.0, datasets/preprocessing).
Every rate comes with its 95 % binomial interval (Clopper & Pearson).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage, signal, stats

from langcortex.arrays import pearson
from langcortex.audit.null_recordings import Rest, read_rest, rest_recording
from langcortex.brain.recording import Cleaning, Recording
from langcortex.brain.space import Space
from langcortex.design.design import HRF, Design, align_scans, align_sentences
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.null_test import null_test
from langcortex.encoding.protocol import Protocol
from langcortex.features import Features
from langcortex.nulls.heldout_test import time_test
from langcortex.stats.comparison import compare
from langcortex.stats.group import fit_mixed_model
from langcortex.stats.layer_curve import fit_two_lines, flat_test
from langcortex.stats.repeat_ceiling import estimate_signal_power
from langcortex.stats.resampling import INTERVALS, bootstrap
from langcortex.stats.sign_flips import sign_flip
from langcortex.stimulus.story import Story, make_story

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.noise_ceiling import leave_one_out_ceiling, split_group_ceiling  # tests/ is on the path now

SEED = 2026

Noise = Callable[[np.random.Generator, int, int], np.ndarray]


def rate(hits: np.ndarray | list[bool]) -> str:
    """Give a share with its binomial interval."""
    k, n = int(np.sum(hits)), int(np.size(hits))
    low, high = stats.binomtest(k, n).proportion_ci()
    return f"{k / n:6.1%} ({low:.1%} to {high:.1%}, n = {n})"


def ar1(rng: np.random.Generator, n: int, k: int, memory: float = 0.8) -> np.ndarray:
    """Draw first-order autoregressive noise: (n, k)."""
    white = rng.standard_normal((n + 100, k))
    return signal.lfilter([np.sqrt(1 - memory**2)], [1.0, -memory], white, axis=0)[100:]


def pink(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Draw 1/f noise, cut from a series four times as long, so that its end does not meet its beginning."""
    spectrum = np.fft.rfft(rng.standard_normal((4 * n, k)), axis=0)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))[:, None]
    return np.fft.irfft(spectrum, 4 * n, axis=0)[n : 2 * n]


def smooth(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Draw Gaussian-smoothed noise, σ = 3 rows."""
    return ndimage.gaussian_filter1d(rng.standard_normal((n + 40, k)), 3, axis=0)[20:-20]


def over_time() -> None:
    """Tests over time on independent noise: 2 runs of 300 rows, 20 targets a draw, 199 nulls, blocks of 30."""
    print("\n# time: p <= .05 on noise, voxelwise, and family-wise over 2 layers x 20 targets")
    piece = np.repeat(["a", "b"], 300)
    for name, draw in (("AR(1) .8", ar1), ("1/f", pink), ("smooth", smooth)):
        rng = np.random.default_rng([SEED, 1])
        found: dict[str, list[np.ndarray]] = {}
        for _ in range(100):
            y, a, b = (np.concatenate([draw(rng, 300, 20) for _ in range(2)]) for _ in range(3))
            for kind in ("shift", "block", "phase"):
                out = time_test(y, np.stack([a, b]), piece, 199, rng, kind, block=30)
                found.setdefault(kind, []).append(out.p <= 0.05)
                found.setdefault(kind + " FWE", []).append(np.any(out.p_corrected <= 0.05))
            naive = stats.pearsonr(y, a, axis=0, alternative="greater").pvalue
            found.setdefault("t-test that ignores time", []).append(naive <= 0.05)
        for kind, hits in found.items():
            print(f"{name:10} {kind:26} {rate(np.concatenate([np.ravel(h) for h in hits]))}")


def over_rest(folder: Path) -> None:
    """Tests over time of smooth predictions against a real brain at rest: 2 halves of its scans as runs."""
    import nibabel

    print("\n# rest: p <= .05 of predictions that are noise, real resting-state vertices")
    files = sorted(folder.glob("*.mgz"))
    data = [np.asarray(nibabel.load(f).dataobj, dtype=np.float64) for f in files]
    y = np.concatenate([d.reshape(-1, d.shape[-1]) for d in data]).T
    y = signal.detrend(y[:, y.std(axis=0) > 0], axis=0)
    rng = np.random.default_rng([SEED, 2])
    y = y[:, rng.choice(y.shape[1], 400, replace=False)]
    half = len(y) // 2
    piece = np.repeat(["a", "b"], (half, len(y) - half))
    for kind in ("shift", "block", "phase"):
        hits, family = [], []
        for _ in range(40):
            # one prediction a vertex, each another: the vertices' own ties stay
            q = np.concatenate([smooth(rng, n, 400) for n in (half, len(y) - half)])
            out = time_test(y, q, piece, 199, rng, kind, block=30)
            hits.append(out.p <= 0.05)
            family.append(bool((out.p_corrected <= 0.05).any()))
        print(f"{'rest':10} {kind:26} {rate(np.concatenate(hits))}; FWE {rate(family)}")


UNITS = (
    185,
    206,
    213,
    227,
    203,
    260,
    291,
    223,
    295,
)  # pause groups of Le Petit Prince's nine English sections


def _heard(n_runs: int) -> Story:
    """Make a story timed as Le Petit Prince is: log-normal pause groups of 2.06 s and pauses of .59 s on average."""
    rng = np.random.default_rng([SEED, 10])
    words, onsets, durations = {}, {}, {}
    for k, n in enumerate(UNITS[:n_runs]):
        run = f"run-{k + 1}"
        durations[run] = np.minimum(np.exp(rng.normal(0.52, 0.64, n)), 8.0)
        pause = np.exp(rng.normal(-0.65, 0.5, n))
        onsets[run] = 0.3 + np.concatenate([[0.0], np.cumsum(durations[run] + pause)[:-1]])
        words[run] = [f"unit{i}." for i in range(n)]
    return make_story(words, onsets, durations)


def _met(story: Story, noise: Noise, rows: str, rng: np.random.Generator) -> Design:
    """Let slow features (σ = 2 sentences, 10 columns) meet 100 targets of noise in scans, TR 2 s."""
    s, recordings = story.sentences, []
    values, space = np.empty((len(s.ids), 10)), Space("columns", np.arange(100).astype(str))
    for run in story.runs:
        here = s.run == run
        values[here] = ndimage.gaussian_filter1d(rng.standard_normal((int(here.sum()), 10)), 2, axis=0)
        n = int(((s.onset + s.duration)[here].max() + 14) / 2)
        y = noise(rng, n, 100).astype(np.float32)
        recordings.append(Recording(y, np.arange(n) * 2.0, 2.0, run, "01", space))
    made = {"x": values / values.std(), "duration": s.duration[:, None]}
    tables = {name: Features(name, s.ids, s.onset, s.duration, s.run, v) for name, v in made.items()}
    if rows == "scans":
        return align_scans(story, tables, recordings, HRF())
    return align_sentences(story, tables, recordings, [6.0])


def over_protocol(rest: Path | None = None) -> None:
    """Run the whole protocol, from scans to refitted nulls of every kind, and beside it a test that ignores time."""
    print(
        "\n# protocol: p <= .05 on noise, fitted, chosen and tested as a study does; 199 nulls, 100 targets, 30 draws"
    )
    noises = {"AR(1) .8": ar1, "1/f": pink, "smooth": smooth} if rest is None else {"rest": _of_rest(rest)}
    for (name, noise), n_runs, rows in itertools.product(noises.items(), (2, 9), ("sentences", "scans")):
        found: dict[str, list[np.ndarray]] = {}
        story = _heard(n_runs)
        for draw in range(30):
            design = _met(story, noise, rows, np.random.default_rng([SEED, 11, draw]))
            base = Protocol(confounds=("duration",) if rows == "sentences" else (), n_nulls=199)
            encoding = fit(design, "x", base, keep_predictions=True)
            folds = ["x"] * n_runs
            for kind in ("shift", "phase", "block"):
                out = null_test(design, [(folds, encoding)], replace(base, null=kind), draw)
                found.setdefault(kind, []).append(out.p[0] <= 0.05)
                found.setdefault(kind + " FWE", []).append(np.any(out.p_corrected[0] <= 0.05))
            y, p = encoding.observed, encoding.predicted
            naive = stats.pearsonr(y, p, axis=0, alternative="greater").pvalue
            found.setdefault("Pearson's, ignores time", []).append(naive <= 0.05)
        for kind, hits in found.items():
            shown = rate(np.concatenate([np.ravel(h) for h in hits]))
            print(f"{name:10} {n_runs} runs, rows {rows:10} {kind:24} {shown}", flush=True)


def _of_rest(folder: Path) -> Noise:
    """Cut stretches of real rest, cleaned as recordings are; each run from other vertices, so that runs share no scans."""
    surface = Space("surface", np.arange(20484).astype(str), hemispheres=(10242, 10242))
    (first, *_) = read_rest(folder, surface)
    varying = np.flatnonzero(first.values.std(axis=0) > 0)

    def draw(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
        few = Rest(first.name, first.values[:, rng.choice(varying, k, replace=False)], None)
        blank = rng.standard_normal((n, k)).astype(np.float32)
        space = Space("columns", np.arange(k).astype(str))
        like = Recording(blank, np.arange(n) * 2.0, 2.0, "a", "01", space)
        return rest_recording(like, (few,), rng, Cleaning()).values

    return draw


def _scores(rng: np.random.Generator, n_runs: int, share: float) -> np.ndarray:
    """Score five layers of two models that know the same (or nothing): (2, n_runs, 5), r averaged over 10 targets.

    Plain ridge with one penalty, leaving one run of 30 rows out at a time: what is measured is the comparison.
    """

    def noise(k: int) -> np.ndarray:
        return ar1(rng, 30, k * n_runs, 0.4).reshape(30, n_runs, k).swapaxes(0, 1)

    def told(k: int) -> np.ndarray:
        return np.sqrt(share) * common @ rng.standard_normal((5, k)) / np.sqrt(5)

    common = noise(5)
    y = told(10) + noise(10)
    # both models are told the same by the same weights, so neither is better in truth; their noise is their own
    known = [told(8) for _ in range(5)]
    out = np.empty((2, n_runs, 5))
    for model in range(2):
        base = noise(8)
        for layer in range(5):
            x = 0.7 * base + 0.7 * noise(8) + known[layer]
            gram, cross = x.swapaxes(1, 2) @ x, x.swapaxes(1, 2) @ y
            train = gram.sum(axis=0) - gram
            penalty = np.trace(train, axis1=1, axis2=2)[:, None, None] / 8 * np.eye(8)
            p = x @ np.linalg.solve(train + penalty, cross.sum(axis=0) - cross)
            out[model, :, layer] = [pearson(a, b).mean() for a, b in zip(y, p, strict=True)]
    return out


def two_models() -> None:
    """Two models that are equally good, or equally bad, over runs of one subject: 5 layers, 10 targets."""
    print("\n# models: any layer differs at .05, family-wise, over runs of one subject; models drawn alike")
    for n_runs, share in itertools.product((6, 9, 12), (0.0, 0.5)):
        rng = np.random.default_rng([SEED, 3, n_runs, int(10 * share)])
        plain, wide, student, inside = [], [], [], []
        for _ in range(400):
            a, b = _scores(rng, n_runs, share)
            for unit, hits in (("subjects", plain), ("runs", wide)):
                out = compare(a, b, np.arange(5), ("a", "b"), unit, rng, n_resamples=1000, studentise=False)
                hits.append(bool((out.p_corrected <= 0.05).any()))
            inside.append(bool(out.low[0] <= 0 <= out.high[0]))
            out = compare(a, b, np.arange(5), ("a", "b"), "runs", rng, n_resamples=1000, studentise=True)
            student.append(bool((out.p_corrected <= 0.05).any()))
        what = f"{n_runs:2} runs, signal {share:.1f}"
        print(f"{what} runs as if independent     {rate(plain)}")
        print(f"{what} widened (Nadeau & Bengio)  {rate(wide)}")
        print(f"{what} widened, studentised       {rate(student)}")
        print(f"{what} 95 % interval holds 0      {rate(inside)}")


def over_subjects() -> None:
    """Sign flips over subjects, and mixed models with and without slopes, on differences that are noise."""
    print("\n# subjects: found at .05 where nothing is there")
    for n in (6, 8, 15, 30):
        rng = np.random.default_rng([SEED, 4, n])
        wide = np.array([1.0, 4.0])[:, None]
        flips = [sign_flip(wide * rng.standard_normal((n, 2, 50)), rng, 999) for _ in range(400)]
        print(f"{n:2} subjects sign flips, voxelwise   {rate([f.p <= 0.05 for f in flips])}")
        print(
            f"{n:2} subjects sign flips, family-wise {rate([bool((f.p_corrected <= 0.05).any()) for f in flips])}"
        )
    for slopes in (True, False):
        rng = np.random.default_rng([SEED, 5])
        hits = []
        for _ in range(150):
            own = 0.02 * rng.standard_normal((8, 2)) + 0.05 * rng.standard_normal((8, 1))
            grid = itertools.product(range(8), range(6), range(2))
            rows = [(f"s{i}", f"r{j}", "ab"[k], own[i, k] + 0.02 * rng.standard_normal()) for i, j, k in grid]
            table = pd.DataFrame(rows, columns=["subject", "run", "model", "score"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                hits.append(bool(fit_mixed_model(table, slopes=slopes).p[0] <= 0.05))
        print(f" 8 subjects, 6 runs, mixed model, slopes={slopes!s:5} {rate(hits)}")


def over_layers() -> None:
    """Curves of 25 layers whose neighbours resemble each other (σ = 3 layers), 10 subjects."""
    print("\n# layers: called an inverted U, or not flat, at .05")
    layers = np.arange(25)
    shapes = {
        "flat": 0.0 * layers,
        "rising": 0.004 * layers,
        "plateau from layer 12": 0.008 * np.minimum(layers, 12),
        "inverted U at 14": 0.1 - 0.08 * ((layers - 14) / 14) ** 2,
    }
    for name, true in shapes.items():
        rng = np.random.default_rng([SEED, 6])
        curves = []
        for _ in range(500):
            each = ndimage.gaussian_filter1d(rng.standard_normal((10, 25)), 3, axis=1)
            curves.append(true + 0.02 * each / each.std() + 0.02 * rng.standard_normal((10, 1)))
        print(
            f"{name:22} two lines             {rate([fit_two_lines(c, layers, 'subjects').inverted_u for c in curves])}"
        )
        for statistic, how in itertools.product(("range", "quadratic"), ("signs", "labels")):
            some = curves[:200] if how == "labels" else curves
            hits = [flat_test(c, layers, "subjects", rng, 99, statistic, how).p <= 0.05 for c in some]
            print(f"{name:22} {statistic:9} by {how:7}  {rate(hits)}")


def intervals() -> None:
    """95 % bootstrap intervals of a mean over units, normal and skewed."""
    print("\n# intervals: the true mean is inside")
    shapes: dict[str, Callable[..., np.ndarray]] = {
        "normal": lambda rng, size: rng.standard_normal(size),
        "skewed": lambda rng, size: rng.exponential(size=size) - 1,
    }
    for (name, draw), n, kind in itertools.product(shapes.items(), (6, 10, 30), INTERVALS):
        rng = np.random.default_rng([SEED, 7, n])
        low, high = bootstrap(draw(rng, (n, 2000)), rng, 999, kind)
        print(f"{name:7} {n:2} units {kind:11} {rate((low <= 0) & (high >= 0))}")


def ceilings() -> None:
    """Planted reliability: responses that share a part of their variance, between subjects and between repeats."""
    print("\n# ceilings: the true ceiling is inside the 95 % interval; noise is refused")

    def planted(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
        story = ar1(rng, 250, 500, 0.6)
        story = (story - story.mean(axis=0)) / story.std(axis=0)
        return np.stack(
            [np.sqrt(share) * story + np.sqrt(1 - share) * ar1(rng, 250, 500, 0.6) for _ in range(n)]
        )

    for n, share in itertools.product((5, 10, 30), (0.0, 0.1, 0.5)):
        rng = np.random.default_rng([SEED, 8, n, int(10 * share)])
        x = planted(rng, n, share)
        found = {
            "leave one out": (leave_one_out_ceiling(x, rng), share / np.sqrt(share + (1 - share) / (n - 1))),
            "perfect model": (leave_one_out_ceiling(x, rng, corrected=True), np.sqrt(share)),
            "split group": (split_group_ceiling(x, rng, 30), np.sqrt(n * share / (1 + (n - 1) * share))),
        }
        for name, (c, true) in found.items():
            said = f"mean {np.mean(c.value):.3f} (true {true:.3f})"
            inside = (c.low <= true) & (true <= c.high)
            print(
                f"{n:2} subjects, share {share:.1f} {name:14} {said} inside {rate(inside)}; above 0 {np.mean(c.low > 0):.1%}"
            )
    for n, share in itertools.product((2, 4, 10), (0.0, 0.1, 0.5)):
        rng = np.random.default_rng([SEED, 9, n, int(10 * share)])
        c = estimate_signal_power(planted(rng, n, share), rng).ceiling
        true = np.sqrt(share / (share + (1 - share) / n))
        inside = (c.low <= true) & (true <= c.high)
        print(
            f"{n:2} repeats,  share {share:.1f} CC_max         mean {np.mean(c.value):.3f} (true {true:.3f}) inside {rate(inside)}; above 0 {np.mean(c.low > 0):.1%}"
        )


PARTS = {
    "time": over_time,
    "protocol": over_protocol,
    "models": two_models,
    "subjects": over_subjects,
    "layers": over_layers,
    "intervals": intervals,
    "ceilings": ceilings,
}


def main() -> None:
    """Print the rates of the parts that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}, rest")
    parser.add_argument("--rest", type=Path, help="folder with resting-state .mgz files")
    given = parser.parse_args()
    for name in given.parts or PARTS:
        if name == "rest":
            over_rest(given.rest or Path())
            over_protocol(given.rest or Path())
        else:
            PARTS[name]()


if __name__ == "__main__":
    main()
