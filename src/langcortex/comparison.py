"""Two models on the same rows, folds and targets: the difference, its interval, and whether it is nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from langcortex.errors import FitError

EXACT = 12  # up to this many units every pattern of signs is tried


@dataclass(frozen=True, eq=False)
class Comparison:
    """The difference a − b, layer by layer, over units that were resampled.

    Attributes
    ----------
    a, b : the two models
    unit : what was resampled, "subjects" or "runs"
    n_units : how many
    layers : (n_layers,)
    effect : (n_layers,) mean difference over units
    low, high : (n_layers,) 95 % bootstrap interval (percentile, over units)
    p : (n_layers,) two-sided, from random signs of the units
    p_corrected : (n_layers,) the same against the largest difference over layers (family-wise)
    margin : the smallest difference of interest
    p_equivalent : (n_layers,) two one-sided t tests: small means the difference is inside ±margin
    smallest_p : the smallest p that so many units can give
    """

    a: str
    b: str
    unit: str
    n_units: int
    layers: np.ndarray
    effect: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    p_corrected: np.ndarray
    margin: float
    p_equivalent: np.ndarray
    smallest_p: float

    @property
    def verdict(self) -> str:
        """One sentence that may say "no difference", and says so when the data cannot tell."""
        n = f"{self.n_units} {self.unit}"
        if self.smallest_p > 0.05:
            return f"{n} are too few for any p below .05 (the smallest possible is {self.smallest_p:.2g})."
        different = self.p_corrected <= 0.05
        equal = self.p_equivalent <= 0.05
        if different.any():
            best = int(np.nanargmax(np.where(different, np.abs(self.effect), -1.0)))
            sign = "above" if self.effect[best] > 0 else "below"
            return (
                f"{self.a} differs from {self.b} at {int(different.sum())} of {len(different)} layers "
                f"(largest at layer {self.layers[best]}: {abs(self.effect[best]):.3f} {sign}; {n}, corrected over layers)."
            )
        if equal.all():
            return f"No difference: within ±{self.margin:g} at every layer ({n})."
        return (
            f"Undecided: no layer differs (corrected over layers), and only {int(equal.sum())} of {len(equal)} "
            f"are shown to lie within ±{self.margin:g} ({n})."
        )


def compare(
    a: np.ndarray,
    b: np.ndarray,
    layers: np.ndarray,
    names: tuple[str, str],
    unit: str,
    rng: np.random.Generator,
    margin: float = 0.01,
    n_resamples: int = 10_000,
) -> Comparison:
    """Compare paired scores.

    Parameters
    ----------
    a, b : (n_units, n_layers) scores of the two models for the same units
    layers : (n_layers,)
    names : of the two models
    unit : "subjects" or "runs". Runs of one subject say nothing about other people
    rng : the source of randomness
    margin : the smallest difference of interest, in the unit of the scores
    n_resamples : bootstrap samples, and random sign patterns where all patterns are too many

    Notes
    -----
    Runs that take turns as test runs share their training data, so their scores are not independent and their plain
    spread is too small. For "runs" it is widened by √(1 + n · n_test/n_train), n_test/n_train being 1/(n − 1)
    (Nadeau & Bengio 2003), in the null, the interval and the equivalence test alike.

    References
    ----------
    Nadeau & Bengio 2003, doi:10.1023/A:1024068626366; Nichols & Holmes 2002, doi:10.1002/hbm.1058 (sign flips, maximum statistic); Schuirmann 1987,
    doi:10.1007/BF01068419 (two one-sided tests)
    """
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    whole = np.isfinite(d).all(axis=1)
    d = d[whole]
    n = len(d)
    if n < 2:
        raise FitError(
            f"{n} {unit} have scores for both {names[0]} and {names[1]}; a comparison needs at least 2."
        )
    effect = d.mean(axis=0)
    draws = d[rng.integers(0, n, (n_resamples, n))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    if n <= EXACT:
        signs = np.array(list(itertools.product([1.0, -1.0], repeat=n)))
        extra = 0
    else:
        signs = rng.choice([1.0, -1.0], (n_resamples, n))
        extra = 1
    inflation = np.sqrt(1.0 + n / (n - 1)) if unit == "runs" else 1.0
    null = inflation * np.abs(signs @ d / n)
    low, high = effect + inflation * (low - effect), effect + inflation * (high - effect)
    close = np.abs(effect) - 1e-12
    p = (extra + (null >= close).sum(axis=0)) / (extra + len(signs))
    p_corrected = (extra + (null.max(axis=1)[:, None] >= close).sum(axis=0)) / (extra + len(signs))
    spread = inflation * d.std(axis=0, ddof=1) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = stats.t.sf((effect + margin) / spread, n - 1)
        above = stats.t.cdf((effect - margin) / spread, n - 1)
    smallest = 2.0 / len(signs) if extra == 0 else 1.0 / (1 + len(signs))
    p_equivalent = np.where(spread > 0, np.maximum(below, above), np.where(np.abs(effect) < margin, 0.0, 1.0))
    return Comparison(
        names[0],
        names[1],
        unit,
        n,
        np.asarray(layers),
        effect,
        low,
        high,
        p,
        p_corrected,
        margin,
        p_equivalent,
        smallest,
    )
