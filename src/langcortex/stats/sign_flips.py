"""Sign-flip tests of scores over units (subjects or runs)."""

from __future__ import annotations

import itertools

import numpy as np

from langcortex.arrays import chunks
from langcortex.errors import FitError
from langcortex.stats.null_counts import NullCounts, Significance
from langcortex.stats.resampling import Resampling, describe_seed

EXACT = 12  # up to this many subjects every pattern of signs is tried
TAILS = ("greater", "two")


def sign_flip(
    scores: np.ndarray, rng: np.random.Generator, n_flips: int = 10_000, tail: str = "greater"
) -> Significance:
    """Test whether scores are above 0 over subjects, by random signs of whole subjects.

    The statistic is Student's t of each target, so that no noisy target decides the largest one. A subject's targets and
    layers change sign together, which keeps whatever they have in common. Up to 12 subjects every pattern is tried.

    Parameters
    ----------
    scores : (n_subjects, n_targets) or (n_subjects, n_layers, n_targets), e.g. differences of two models; a target that is
        not defined in every subject is undefined
    rng : the source of randomness
    n_flips : how many random patterns, where all are too many
    tail : "greater", or "two" (|t|)

    Returns
    -------
    Significance of t, of shape (n_targets,) or (n_layers, n_targets); corrected over targets and layers

    Raises
    ------
    FitError : fewer than 2 subjects

    References
    ----------
    Nichols & Holmes 2002, doi:10.1002/hbm.1058; Winkler et al. 2014, doi:10.1016/j.neuroimage.2014.01.060 (sign flips)
    """
    if tail not in TAILS:
        raise FitError(f"tail is 'greater' or 'two'; not '{tail}'.")
    n, shape = len(scores), scores.shape[1:]
    if n < 2:
        raise FitError(f"{n} subjects have scores; a test over subjects needs at least 2.")
    seed = describe_seed(rng) if n > EXACT else "none"
    flat = np.asarray(scores, dtype=np.float64).reshape(n, -1)
    signs = _signs(n, n_flips, rng)
    true = t_of_flips(np.ones((1, n)), flat, tail)[0]
    tally = NullCounts(true, len(signs))
    for targets in chunks(flat.shape[1], 4096):
        for some in chunks(len(signs), 256):
            tally.add(t_of_flips(signs[some], flat[:, targets], tail), some.start, targets)
    out = tally.significance(
        "subjects", "every pattern of signs" if n <= EXACT else "random signs", seed, False
    )
    value, p, corrected, q = (a.reshape(shape) for a in (out.value, out.p, out.p_corrected, out.q))
    record = Resampling("subjects", out.resampled.how, len(signs), seed, "largest t over all targets")
    return Significance(value, p, corrected, q, record)


def _signs(n: int, n_flips: int, rng: np.random.Generator) -> np.ndarray:
    """Give patterns of signs without the one that changes nothing: it is the +1 of the p."""
    if n <= EXACT:
        return np.array(list(itertools.product([1.0, -1.0], repeat=n)))[1:]
    return rng.choice([1.0, -1.0], (n_flips, n))


def t_of_flips(signs: np.ndarray, scores: np.ndarray, tail: str) -> np.ndarray:
    """Compute t for each pattern of signs: (n_patterns, n_targets)."""
    n = len(scores)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = signs @ scores / n
        # signs do not change the squares
        variance = np.maximum(np.square(scores).mean(axis=0) - mean**2, 0.0) / (n - 1)
        t = np.where(
            variance > 0, mean / np.sqrt(variance), np.where(mean == 0, np.nan, np.sign(mean) * 1e12)
        )
    return np.abs(t) if tail == "two" else t
