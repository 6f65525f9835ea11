"""Comparison of two models on the same rows, folds and targets: difference, interval, test and equivalence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from langcortex.errors import FitError
from langcortex.stats.equivalence import bayes_factor, equivalence, smallest_difference, widening
from langcortex.stats.resampling import Resampling, bootstrap, describe_seed
from langcortex.stats.sign_flips import EXACT, describe_patterns, sign_patterns, variance_of_means

CHOSEN = "chosen in training"
NOT_COMPUTED = np.empty(0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The difference a − b of two models, layer by layer, over units that were resampled.

    Attributes
    ----------
    a, b : names of the two models
    unit : what was resampled, "subjects" or "runs"
    n_units : how many
    layers : (n_layers,) numbers, or the single name "chosen in training"
    effect : (n_layers,) mean difference over units
    low, high : (n_layers,) 95 % bootstrap interval over units
    p : (n_layers,) two-sided, from random signs of the units
    p_corrected : (n_layers,) the same against the largest difference over layers (family-wise)
    margin : the smallest difference of interest
    p_equivalent : (n_layers,) two one-sided t tests: small means the difference is inside ±margin
    smallest_p : the smallest p that this many units can give
    bayes_factor : (n_layers,) for a difference against none (JZS, √2/2): above 3 for, below 1/3 against
    detectable_difference : (n_layers,) the true difference that a test at one layer would find with 80 % power at .05
    p_resampling, interval_resampling : unit, number, correction and seed behind p and behind the interval
    above_zero : (2, n_layers) bool, whether the 95 % t interval of each model's own mean score is above 0
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
    bayes_factor: np.ndarray = field(default_factory=lambda: NOT_COMPUTED)
    detectable_difference: np.ndarray = field(default_factory=lambda: NOT_COMPUTED)
    p_resampling: Resampling | None = None
    interval_resampling: Resampling | None = None
    above_zero: np.ndarray = field(default_factory=lambda: NOT_COMPUTED)

    @property
    def decision(self) -> str:
        """What the numbers show, in a word or two.

        "too few": no p of this many units can be .05. "different": corrected p ≤ .05 somewhere. "nothing": no model scores above 0
        anywhere. "equivalent": inside ±margin everywhere. "equivalent, smaller": so, though an interval excludes 0 or a Bayes
        factor is above 3. "undecided": none of these.
        """
        if self.smallest_p > 0.05:
            return "too few"
        if (self.p_corrected <= 0.05).any():
            return "different"
        if self.above_zero.size and not self.above_zero.any():
            return "nothing"
        if (self.p_equivalent <= 0.05).all():
            favour = self.excludes_zero.any() or (self.bayes_factor > 3).any()
            return "equivalent, smaller" if favour else "equivalent"
        return "undecided"

    @property
    def excludes_zero(self) -> np.ndarray:
        """(n_layers,) bool, whether the interval of the difference excludes 0."""
        excluded: np.ndarray = (self.low > 0) | (self.high < 0)
        return excluded

    @property
    def verdict(self) -> str:
        """One sentence for the decision, with the unit and the numbers it rests on."""
        n, single = f"{self.n_units} {self.unit}", len(self.layers) == 1 and self.layers[0] == CHOSEN
        where = f"at the layer {CHOSEN}" if single else "at every layer"
        within = f"within ±{self.margin:g} {where}"
        match self.decision:
            case "too few":
                return f"{n} are too few for sign flips to give a p below .05 (the smallest possible is {self.smallest_p:.2g}).{self._intervals()}"
            case "different":
                return self._difference(n, single)
            case "nothing":
                anywhere = f"at the layer {CHOSEN}" if single else "at any layer"
                return f"Nothing to compare: the score of neither {self.a} nor {self.b} is shown to be above 0 {anywhere} ({n})."
            case "equivalent":
                return (
                    f"No difference {where}: within ±{self.margin:g} ({n})."
                    if single
                    else f"No difference: {within} ({n})."
                )
            case "equivalent, smaller":
                return f"Equivalent {within} ({n}); a smaller difference is likely.{self._intervals()}"
        if single:
            return f"Undecided {where}: neither a difference nor its absence within ±{self.margin:g} is shown ({n}).{self._intervals()}"
        equivalent = self.p_equivalent <= 0.05
        return (
            f"Undecided: no layer differs (corrected over layers), and only {int(equivalent.sum())} of {len(equivalent)} "
            f"are shown to lie within ±{self.margin:g} ({n}).{self._intervals()}"
        )

    def _difference(self, n: str, single: bool) -> str:
        different, equivalent = self.p_corrected <= 0.05, (self.p_equivalent <= 0.05).all()
        largest = int(np.nanargmax(np.where(different, np.abs(self.effect), -1.0)))
        if single:
            small = f", which is within ±{self.margin:g}" if equivalent else ""
            return f"{self.a} differs from {self.b} at the layer {CHOSEN}: {self._size(0)}{small} ({n})."
        small = f"; all of it within ±{self.margin:g}" if equivalent else ""
        return (
            f"{self.a} differs from {self.b} at {int(different.sum())} of {len(different)} layers "
            f"(largest at layer {self.layers[largest]}: {self._size(largest)}; {n}, corrected over layers{small})."
        )

    def _size(self, layer: int) -> str:
        sign = "above" if self.effect[layer] > 0 else "below"
        return f"{abs(self.effect[layer]):.3f} {sign}"

    def _intervals(self) -> str:
        """One sentence on the intervals that exclude 0; empty where none does."""
        excluded = self.excludes_zero
        if not excluded.any():
            return ""
        largest = int(np.argmax(np.where(excluded, np.abs(self.effect), -1.0)))
        span = f"{self.effect[largest]:+.3f} [{self.low[largest]:+.3f}, {self.high[largest]:+.3f}]"
        if len(self.layers) == 1:
            return f" The 95 % interval of {self.a} − {self.b} excludes 0: {span}."
        return (
            f" The uncorrected 95 % interval of {self.a} − {self.b} excludes 0 at {int(excluded.sum())} of {len(excluded)} layers "
            f"(largest at layer {self.layers[largest]}: {span})."
        )

    @property
    def evidence(self) -> str:
        """One sentence: the strength of evidence by Bayes factors, and the difference that could have been detected."""
        if not len(self.bayes_factor) or not np.isfinite(self.bayes_factor).any():
            return ""
        against, favour = int((self.bayes_factor < 1 / 3).sum()), int((self.bayes_factor > 3).sum())
        return (
            f"Bayes factors speak for a difference (above 3) at {favour} of {len(self.bayes_factor)} layers, against one (below 1/3) at "
            f"{against}. With this spread, a test at one layer finds a difference of {np.nanmedian(self.detectable_difference):.3f} "
            "(median over layers) with 80 % power."
        )

    @property
    def caution(self) -> str:
        """One sentence on what units of this kind cannot show; empty for subjects."""
        if self.unit != "runs":
            return ""
        return (
            "The units are runs, which share training data, a story and mostly a person: their spread was widened (Nadeau & Bengio 2003), "
            "the tests are approximate, and nothing is said about other people or other stories."
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
    interval: str = "stretched",
    studentise: bool | None = None,
) -> Comparison:
    """Compare paired scores of two models, layer by layer.

    Parameters
    ----------
    a, b : (n_units, n_layers) scores of the two models for the same units
    layers : (n_layers,) their numbers
    names : of the two models
    unit : "subjects" or "runs". Runs of one subject are no evidence about other people
    rng : the source of randomness
    margin : the smallest difference of interest, in the unit of the scores
    n_resamples : bootstrap samples, and random patterns of signs for more than 12 units
    interval : "stretched", "percentile", "bca" or "t", see `langcortex.stats.resampling.bootstrap`
    studentise : compare t values with the largest t over layers, instead of differences with the largest difference, so that
        layers with a wide spread do not decide the threshold of other layers. None studentises for runs, whose widened differences
        would hardly ever be significant (0 of 400 times in 6 runs of noise; 14 times by t), and not for subjects

    Raises
    ------
    FitError : fewer than 2 units have scores for both models

    Notes
    -----
    Runs that take turns as test runs share their training data, so their scores are not independent and their plain
    spread is too small. For "runs" it is widened by √(1 + n · n_test/n_train), n_test/n_train being 1/(n − 1)
    (Nadeau & Bengio 2003), in the null, the interval, the equivalence test, the Bayes factor (whose number of units is
    divided by the square of the factor) and the smallest detectable difference alike.

    "No difference at every layer" needs no correction: it is claimed only where the equivalence test of every layer says so.

    References
    ----------
    Nadeau & Bengio 2003, doi:10.1023/A:1024068626366; Nichols & Holmes 2002, doi:10.1002/hbm.1058 (sign flips, maximum statistic); Schuirmann 1987,
    doi:10.1007/BF01068419 (two one-sided tests); Rouder et al. 2009, doi:10.3758/PBR.16.2.225 (Bayes factor)
    """
    scores = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)])
    scores = scores[:, np.isfinite(scores).all(axis=(0, 2))]
    d = scores[0] - scores[1]
    n = len(d)
    if n < 2:
        raise FitError(
            f"{n} {unit} have scores for both {names[0]} and {names[1]}; a comparison needs at least 2."
        )
    effect, widen, seed = d.mean(axis=0), widening(unit, n), describe_seed(rng)
    low, high = bootstrap(d, rng, n_resamples, interval, widen)
    studentise = unit == "runs" if studentise is None else studentise
    p, p_corrected, n_signs = _sign_test(d, widen, n_resamples, studentise, rng)
    error = widen * d.std(axis=0, ddof=1) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = effect / error
    widened = "" if widen == 1 else f", spread widened by {widen:.2f}"
    largest = f"largest {'t' if studentise else 'difference'} over {d.shape[1]} layers"
    return Comparison(
        names[0], names[1], unit, n, np.asarray(layers), effect, low, high, p, p_corrected, margin,
        equivalence(effect, error, n - 1, margin),
        2.0 / n_signs if n <= EXACT else 1.0 / (1 + n_signs),
        bayes_factor(t, n / widen**2, n - 1),
        smallest_difference(error, n - 1),
        Resampling(unit, describe_patterns(n) + widened, n_signs, "none" if n <= EXACT else seed, largest),
        Resampling(unit, f"bootstrap ({interval}){widened}", n_resamples, seed),
        _is_above_zero(scores, widen),
    )  # fmt: skip


def _is_above_zero(scores: np.ndarray, widen: float) -> np.ndarray:
    """Return whether the 95 % t interval of each mean is above 0: scores (2, n_units, n_layers) → (2, n_layers)."""
    n = scores.shape[1]
    error = widen * scores.std(axis=1, ddof=1) / np.sqrt(n)
    above: np.ndarray = scores.mean(axis=1) - stats.t.ppf(0.975, n - 1) * error > 0
    return above


def compare_chosen(
    a: np.ndarray,
    b: np.ndarray,
    names: tuple[str, str],
    unit: str,
    rng: np.random.Generator,
    margin: float = 0.01,
    n_resamples: int = 10_000,
    interval: str = "stretched",
) -> Comparison:
    """Compare two models, each at its layer chosen in training: one test, without a correction over layers.

    Parameters
    ----------
    a, b : (n_units,) scores of `langcortex.encoding.selection.assemble_chosen`; a layer that is best by these very scores was not chosen in training
    names, unit, rng, margin, n_resamples, interval : as for `compare`
    """
    a, b = (np.asarray(scores, dtype=np.float64).reshape(-1, 1) for scores in (a, b))
    return compare(a, b, np.array([CHOSEN]), names, unit, rng, margin, n_resamples, interval)


def correct_over_pairs(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Correct comparisons of one test each over pairs of models, by Holm's steps: the smallest p times n, the next times n − 1 …

    References
    ----------
    Holm 1979, https://www.jstor.org/stable/4615733
    """
    if len(comparisons) < 2:
        return tuple(comparisons)
    p = holm(np.array([c.p_corrected[0] for c in comparisons]))
    out = []
    for c, p_corrected in zip(comparisons, p, strict=True):
        record = c.p_resampling and replace(c.p_resampling, correction=f"Holm over {len(comparisons)} pairs")
        out.append(replace(c, p_corrected=np.array([p_corrected]), p_resampling=record))
    return tuple(out)


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values over tests by Holm's steps.

    >>> holm(np.array([0.04, 0.01, 0.03])).tolist()
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p)
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out = np.empty(len(p))
    out[order] = np.minimum(steps, 1.0)
    return out


def _sign_test(
    d: np.ndarray, widen: float, n_resamples: int, studentise: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Test means against random signs of the units: p, p corrected over columns, and how many patterns."""
    n = len(d)
    signs = sign_patterns(n, n_resamples, rng, identity=True)
    extra = 0 if n <= EXACT else 1  # random patterns lack the one that changes nothing: it is the +1 of the p
    null, observed = widen * np.abs(signs @ d / n), np.abs(d.mean(axis=0))
    if studentise:
        null, observed = widen * _studentise(null / widen, d), _studentise(observed, d)
    tie = observed - 1e-12 * (1 + observed)
    p = (extra + (null >= tie).sum(axis=0)) / (extra + len(signs))
    largest = null.max(axis=1)[:, None]
    return p, (extra + (largest >= tie).sum(axis=0)) / (extra + len(signs)), len(signs)


def _studentise(mean: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Turn means of sign-flipped differences into t; 0 where all differences are 0."""
    t: np.ndarray = mean / np.sqrt(np.maximum(variance_of_means(mean, d), 1e-24))
    return t
