"""Sign-flip tests of scores over units (subjects or runs)."""

from __future__ import annotations

import itertools

import numpy as np

from langcortex.arrays import chunks
from langcortex.errors import FitError
from langcortex.stats.null_counts import NullCounts, Significance
from langcortex.stats.resampling import Resampling, describe_seed

EXACT = 12  # up to this many units every pattern of signs is tried
TAILS = ("greater", "two")
CERTAIN = 1e12  # the t of equal values that are not 0


def sign_flip(
    scores: np.ndarray, rng: np.random.Generator, n_flips: int = 10_000, tail: str = "greater"
) -> Significance:
    """Test whether scores are above 0 over subjects, by random signs of whole subjects.

    The statistic is Student's t of each target, so that no noisy target decides the largest one. All targets and layers of a
    subject change sign together, which keeps their dependence. Up to 12 subjects, every pattern of signs is tried.

    Parameters
    ----------
    scores : (n_subjects, n_targets) or (n_subjects, n_layers, n_targets), e.g. differences of two models; a target that is
        undefined in any subject is undefined
    rng : the source of randomness
    n_flips : how many random patterns, for more than 12 subjects
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
    n, shape = len(scores), scores.shape[1:]
    check_subjects(n, tail)
    seed = describe_seed(rng) if n > EXACT else "none"
    flat = np.asarray(scores, dtype=np.float64).reshape(n, -1)
    signs = sign_patterns(n, n_flips, rng)
    counts = count_flips(signs, flat, tail)
    test = counts.significance("subjects", describe_patterns(n), seed, studentise=False)
    value, p, p_corrected, q = (a.reshape(shape) for a in (test.value, test.p, test.p_corrected, test.q))
    record = Resampling("subjects", describe_patterns(n), len(signs), seed, "largest t over all targets")
    return Significance(value, p, p_corrected, q, record)


def check_subjects(n_subjects: int, tail: str) -> None:
    """Raise where a test over subjects has an unknown tail or fewer than 2 subjects."""
    if tail not in TAILS:
        raise FitError(f"tail is 'greater' or 'two'; not '{tail}'.")
    if n_subjects < 2:
        raise FitError(f"{n_subjects} subjects have scores; a test over subjects needs at least 2.")


def sign_patterns(n: int, n_random: int, rng: np.random.Generator, identity: bool = False) -> np.ndarray:
    """Return patterns of signs of `n` units: all of them up to 12 units, random ones for more.

    Parameters
    ----------
    n : how many units
    n_random : how many random patterns, for more than 12 units
    rng : the source of randomness
    identity : of all patterns, include the one that changes nothing. Leave it out where p adds it as its +1

    Returns
    -------
    (n_patterns, n) of 1.0 and −1.0
    """
    if n > EXACT:
        return rng.choice([1.0, -1.0], (n_random, n))
    patterns = np.array(list(itertools.product([1.0, -1.0], repeat=n)))
    return patterns if identity else patterns[1:]


def describe_patterns(n: int) -> str:
    """Describe the patterns of signs of `n` units, for the record.

    >>> describe_patterns(12), describe_patterns(13)
    ('every pattern of signs', 'random signs')
    """
    return "every pattern of signs" if n <= EXACT else "random signs"


def count_flips(
    signs: np.ndarray,
    scores: np.ndarray,
    tail: str,
    widen: float = 1.0,
    n_targets: int = 4096,
    n_patterns: int = 256,
) -> NullCounts:
    """Count how many sign-flipped t reach the observed t of each target.

    Parameters
    ----------
    signs : (n_patterns, n_units) from `sign_patterns`
    scores : (n_units, n_targets)
    tail : "greater" or "two"
    widen : by how much the spread of dependent units is too small: the observed t are divided by it
    n_targets, n_patterns : how many at a time
    """
    observed = t_of_flips(np.ones((1, len(scores))), scores, tail)[0] / widen
    counts = NullCounts(observed, len(signs))
    for targets in chunks(scores.shape[1], n_targets):
        for patterns in chunks(len(signs), n_patterns):
            counts.add(t_of_flips(signs[patterns], scores[:, targets], tail), patterns.start, targets)
    return counts


def t_of_flips(signs: np.ndarray, scores: np.ndarray, tail: str) -> np.ndarray:
    """Compute t for each pattern of signs: (n_patterns, n_targets); NaN where all scores are 0.

    Parameters
    ----------
    signs : (n_patterns, n_units)
    scores : (n_units, n_targets)
    tail : "greater", or "two" (|t|)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = signs @ scores / len(scores)
        variance = variance_of_means(mean, scores)
        constant = np.where(mean == 0, np.nan, np.sign(mean) * CERTAIN)
        t = np.where(variance > 0, mean / np.sqrt(variance), constant)
    return np.abs(t) if tail == "two" else t


def variance_of_means(mean: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the squared standard errors of means of sign-flipped scores; signs do not change the squares.

    Parameters
    ----------
    mean : (n_patterns, n_targets) or (n_targets,)
    scores : (n_units, n_targets)
    """
    variance: np.ndarray = np.maximum(np.square(scores).mean(axis=0) - mean**2, 0.0) / (len(scores) - 1)
    return variance
