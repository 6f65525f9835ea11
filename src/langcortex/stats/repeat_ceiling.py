"""Noise ceilings from repeats of one stimulus: signal power and explainable variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from langcortex.errors import FitError
from langcortex.stats.noise_ceiling import Ceiling, signed_root
from langcortex.stats.resampling import Resampling, describe_seed, stretch

BLOCK = 10  # scans per block of the bootstrap


@dataclass(frozen=True, eq=False)
class SignalPower:
    """How much of the variance of responses to a repeated stimulus is signal.

    Attributes
    ----------
    signal : (n_targets,) variance that repeats; an unbiased estimate, so noise may give less than 0
    total : (n_targets,) mean variance of a single repeat
    mean : (n_targets,) variance of the mean of the repeats
    explainable : ceiling of R² of a single repeat, signal / total, with its interval
    ceiling : ceiling of r with the mean of the repeats, CC_max = √(signal / mean), with its interval
    """

    signal: np.ndarray
    total: np.ndarray
    mean: np.ndarray
    explainable: Ceiling
    ceiling: Ceiling


@dataclass(frozen=True, eq=False)
class RepeatCeiling:
    """The ceiling of one subject's score in a run that was played several times.

    Attributes
    ----------
    subject, run : whose score, and in which run
    n_repeats : how often the run was played
    ceiling : of r with the mean of the repeats
    scores : model → (n_targets,) r in that run, at the layer chosen in training
    """

    subject: str
    run: str
    n_repeats: int
    ceiling: Ceiling
    scores: Mapping[str, np.ndarray]


def estimate_signal_power(
    repeats: np.ndarray,
    rng: np.random.Generator,
    block: int = BLOCK,
    n_resamples: int = 1000,
    regions: Mapping[str, np.ndarray] | None = None,
) -> SignalPower:
    """Split the variance of repeated responses into signal, which repeats, and noise.

    With ȳ the mean of N repeats, signal = (N var(ȳ) − mean var(y)) / (N − 1). Of standardised repeats, signal / total is the
    bias-corrected explainable variance of the Huth lab's code.

    Parameters
    ----------
    repeats : (n_repeats, n_scans, n_targets); each repeat is centred
    rng : the source of randomness
    block : scans in a block of the bootstrap; several times as long as responses are autocorrelated
    n_resamples : bootstrap draws of blocks of neighbouring scans. Repeats are too few to be drawn
    regions : name → (n_targets,) bool; `ceiling` gets the root of the mean of its square over each, with an interval of its own

    Raises
    ------
    FitError : fewer than 2 repeats, or fewer than 5 blocks of scans

    References
    ----------
    Sahani & Linden 2003 (NIPS 15, "How linear are auditory cortical responses?"); Hsu, Borst & Theunissen 2004,
    doi:10.1088/0954-898X_15_2_002; Schoppe et al. 2016, doi:10.3389/fncom.2016.00010
    """
    centred = _centre_repeats(repeats, block)
    n, n_scans = len(centred), centred.shape[1]
    seed = describe_seed(rng)
    mean_power = np.square(centred.mean(axis=0))  # (n_scans, n_targets)
    single_power = np.square(centred).mean(axis=0)
    observed = _signal_ratios(n, mean_power.mean(axis=0), single_power.mean(axis=0))
    weights = _draw_weights(n_scans, block, n_resamples, rng)
    draws = _signal_ratios(n, *(weights @ _block_sums(x, block) for x in (mean_power, single_power)))
    record = Resampling(f"blocks of {block} scans", "bootstrap (percentile)", n_resamples, seed)

    single_interval, mean_interval = (
        _interval(ratio_draws, ratio, block, n_scans)
        for ratio_draws, ratio in zip(draws, observed, strict=True)
    )
    value, low, high = (signed_root(x) for x in (observed[1], *mean_interval))
    by_region = _ceilings_by_region(observed[1], draws[1], regions or {}, block, n_scans)
    total = single_power.mean(axis=0)
    return SignalPower(
        observed[0] * total, total, mean_power.mean(axis=0),
        Ceiling(observed[0], *single_interval, "r2", "a single repeat", record),
        Ceiling(value, low, high, "r", f"the mean of {n} repeats", record, by_region=by_region),
    )  # fmt: skip


def _ceilings_by_region(
    observed: np.ndarray, draws: np.ndarray, regions: Mapping[str, np.ndarray], block: int, n_scans: int
) -> dict[str, tuple[float, float, float]]:
    """Return the root of the mean squared ceiling of each region, with its interval: targets are drawn together."""
    out = {}
    for name, region in {"brain": np.ones(len(observed), dtype=bool), **regions}.items():
        inside = region & np.isfinite(observed)
        if not inside.any():
            out[name] = (float("nan"),) * 3
            continue
        value = observed[inside].mean(keepdims=True)
        low, high = _interval(draws[:, inside].mean(axis=1, keepdims=True), value, block, n_scans)
        roots = signed_root(np.concatenate([value, low, high]))
        out[name] = (float(roots[0]), float(roots[1]), float(roots[2]))
    return out


def _centre_repeats(repeats: np.ndarray, block: int) -> np.ndarray:
    if repeats.ndim != 3 or len(repeats) < 2:
        raise FitError(
            f"Repeats of one stimulus are (n_repeats, n_scans, n_targets) with at least 2 repeats; these are {repeats.shape}."
        )
    if repeats.shape[1] < 5 * block:
        raise FitError(
            f"{repeats.shape[1]} scans hold fewer than 5 blocks of {block}; the interval needs more scans or shorter blocks."
        )
    centred: np.ndarray = repeats - repeats.mean(axis=1, keepdims=True, dtype=np.float64)
    return centred


def _signal_ratios(n: int, mean_power: np.ndarray, single_power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the signal as a share of the variance of a single repeat, and of the mean of n repeats."""
    signal = (n * mean_power - single_power) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return signal / single_power, signal / mean_power


def _block_sums(values: np.ndarray, block: int) -> np.ndarray:
    """Sum over all blocks of neighbouring scans, the last scan next to the first: (n_scans, n_targets)."""
    n = len(values)
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values, values[: block - 1]]), axis=0)
    out: np.ndarray = sums[block:] - sums[:n]
    return out


def _draw_weights(n_scans: int, block: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw blocks: (n_resamples, n_scans) weights whose product with `_block_sums` is a mean over scans."""
    k = round(n_scans / block)
    counts = rng.multinomial(k, np.full(n_scans, 1 / n_scans), n_resamples)
    weights: np.ndarray = counts / (k * block)
    return weights


def _interval(
    draws: np.ndarray, value: np.ndarray, block: int, n_scans: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval, stretched around the value for few blocks; a draw without signal counts as the lowest."""
    filled = np.where(np.isnan(draws), -np.inf, draws)
    low, high = np.percentile(filled, [2.5, 97.5], axis=0, method="nearest")
    widen = stretch(max(n_scans // block, 2))
    return value + widen * (low - value), value + widen * (high - value)
