"""Noise ceilings from repeats of one stimulus: signal power, explainable variance, and normalised correlation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from langcortex.errors import FitError
from langcortex.stats.noise_ceiling import Ceiling, signed_root
from langcortex.stats.resampling import Resampling, describe_seed, stretch

BLOCK = 10  # scans drawn together


@dataclass(frozen=True, eq=False)
class SignalPower:
    """How much of the responses to a repeated stimulus repeats.

    Attributes
    ----------
    signal : (n_targets,) variance of what repeats; estimated without bias, so noise may give less than 0
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


def estimate_signal_power(
    repeats: np.ndarray,
    rng: np.random.Generator,
    block: int = BLOCK,
    n_resamples: int = 1000,
    regions: Mapping[str, np.ndarray] | None = None,
) -> SignalPower:
    """Split the variance of repeated responses into what repeats and what does not.

    With ȳ the mean of N repeats, signal = (N var(ȳ) − mean var(y)) / (N − 1). Of standardised repeats, signal / total is the
    bias-corrected explainable variance of the Huth lab's code.

    Parameters
    ----------
    repeats : (n_repeats, n_scans, n_targets), each repeat centred here
    rng : the source of randomness
    block : scans in a block of the bootstrap; several times the memory of the responses
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
    centred = _centred(repeats, block)
    n = len(centred)
    seed = describe_seed(rng)
    mean = np.square(centred.mean(axis=0))  # (n_scans, n_targets)
    single = np.square(centred).mean(axis=0)
    true = _shares(n, mean.mean(axis=0), single.mean(axis=0))
    weights = _draws(len(mean), block, n_resamples, rng)
    drawn = _shares(n, *(weights @ _blocks(x, block) for x in (mean, single)))
    record = Resampling(f"blocks of {block} scans", "bootstrap (percentile)", n_resamples, seed)

    single_r2, mean_r2 = (
        _interval(one, value, block, len(mean)) for one, value in zip(drawn, true, strict=True)
    )
    of_mean = [signed_root(x) for x in (true[1], *mean_r2)]
    total = single.mean(axis=0)
    return SignalPower(
        true[0] * total, total, mean.mean(axis=0),
        Ceiling(true[0], *single_r2, "r2", "a single repeat", record),
        Ceiling(
            of_mean[0], of_mean[1], of_mean[2], "r", f"the mean of {n} repeats", record,
            by_region=_over_regions(true[1], drawn[1], regions or {}, block, len(mean)),
        ),
    )  # fmt: skip


def _over_regions(
    true: np.ndarray, drawn: np.ndarray, regions: Mapping[str, np.ndarray], block: int, n_scans: int
) -> dict[str, tuple[float, float, float]]:
    """Give the root of the mean squared ceiling of each region, with its interval: targets are drawn together."""
    out = {}
    for name, area in {"brain": np.ones(len(true), dtype=bool), **regions}.items():
        inside = area & np.isfinite(true)
        if not inside.any():
            out[name] = (float("nan"),) * 3
            continue
        value = true[inside].mean(keepdims=True)
        low, high = _interval(drawn[:, inside].mean(axis=1, keepdims=True), value, block, n_scans)
        roots = signed_root(np.concatenate([value, low, high]))
        out[name] = (float(roots[0]), float(roots[1]), float(roots[2]))
    return out


def normalised_correlation(
    repeats: np.ndarray,
    predicted: np.ndarray,
    rng: np.random.Generator,
    block: int = BLOCK,
    n_resamples: int = 1000,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Correlate a prediction with what repeats: CC_norm = cov(ȳ, p) / √(var(p) · signal).

    Parameters
    ----------
    repeats : (n_repeats, n_scans, n_targets)
    predicted : (n_scans, n_targets)
    rng, block, n_resamples : as for `estimate_signal_power`

    Returns
    -------
    value, low, high : (n_targets,) CC_norm with its interval, in which the ceiling's own uncertainty takes part; NaN where refused.
        Where few ceilings pass, those that do are too high by luck, and the mean over targets is too low
    reason : (n_targets,) why, "" where not: as `langcortex.stats.noise_ceiling.normalise`, the ceiling's interval contains 0

    References
    ----------
    Schoppe et al. 2016, doi:10.3389/fncom.2016.00010, eq. 5
    """
    centred = _centred(repeats, block)
    if predicted.shape != centred.shape[1:]:
        raise FitError(f"The prediction is {predicted.shape}, but a repeat is {centred.shape[1:]}.")
    p = predicted - predicted.mean(axis=0, dtype=np.float64)
    average = centred.mean(axis=0)
    parts = [average**2, np.square(centred).mean(axis=0), average * p, p**2]
    n = len(centred)
    means = [x.mean(axis=0) for x in parts]
    value = _normalised(n, *means)
    weights = _draws(len(p), block, n_resamples, rng)
    sums = [weights @ _blocks(x, block) for x in parts]
    low, high = _interval(_normalised(n, *sums), value, block, len(p))
    bottom, _ = _interval(_shares(n, sums[0], sums[1])[1], _shares(n, means[0], means[1])[1], block, len(p))
    reason = np.full(len(value), "", dtype=object)
    reason[~(bottom > 0)] = "the interval of the ceiling contains 0"
    reason[~np.isfinite(value) & (reason == "")] = "the score is undefined"
    value, low, high = (np.where(reason == "", x, np.nan) for x in (value, low, high))
    return value, low, high, reason


def _centred(repeats: np.ndarray, block: int) -> np.ndarray:
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


def _shares(n: int, mean: np.ndarray, single: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give signal / total and signal / var(mean)."""
    signal = (n * mean - single) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return signal / single, signal / mean


def _normalised(n: int, mean: np.ndarray, single: np.ndarray, both: np.ndarray, p: np.ndarray) -> np.ndarray:
    signal = (n * mean - single) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: np.ndarray = np.where(signal > 0, both / np.sqrt(p * np.maximum(signal, 0.0)), np.nan)
    return out


def _blocks(values: np.ndarray, block: int) -> np.ndarray:
    """Sum over all blocks of neighbouring scans, the end next to the beginning: (n_scans, n_targets)."""
    n = len(values)
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values, values[: block - 1]]), axis=0)
    out: np.ndarray = sums[block:] - sums[:n]
    return out


def _draws(n_scans: int, block: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw blocks: (n_resamples, n_scans) weights whose product with `_blocks` is a mean over scans."""
    k = round(n_scans / block)
    counts = rng.multinomial(k, np.full(n_scans, 1 / n_scans), n_resamples)
    weights: np.ndarray = counts / (k * block)
    return weights


def _interval(
    drawn: np.ndarray, value: np.ndarray, block: int, n_scans: int
) -> tuple[np.ndarray, np.ndarray]:
    """Give 2.5 and 97.5 percentiles, stretched around the value for few blocks; a draw without signal counts as the lowest."""
    filled = np.where(np.isnan(drawn), -np.inf, drawn)
    low, high = np.percentile(filled, [2.5, 97.5], axis=0, method="nearest")
    wide = stretch(max(n_scans // block, 2))
    return value + wide * (low - value), value + wide * (high - value)


@dataclass(frozen=True, eq=False)
class RepeatCeiling:
    """The ceiling of one subject's score in a run that was heard several times.

    Attributes
    ----------
    subject, run : whose, and which run
    n_repeats : how often it was heard
    ceiling : of r with the mean of the repeats
    scores : model → (n_targets,) r of the layer chosen in training in that run
    """

    subject: str
    run: str
    n_repeats: int
    ceiling: Ceiling
    scores: Mapping[str, np.ndarray]
