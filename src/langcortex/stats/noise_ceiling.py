"""Noise ceilings between subjects: how well any model could do, given what subjects share, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from langcortex.arrays import chunks, rounding_error
from langcortex.errors import FitError
from langcortex.stats.resampling import Resampling, describe_seed, stretch

UNITS = ("r", "r2")
REACHES_ZERO = "the interval of the ceiling contains 0, or score or ceiling is undefined"
KINDS = {"perfect": 3, "others": 3, "average": 4}  # how many subjects each kind of ceiling needs


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The score that a perfect model of the shared signal would get, target by target.

    Attributes
    ----------
    value : (n_targets,) NaN where undefined
    low, high : (n_targets,) 95 % interval
    unit : "r" or "r2": a ceiling of r is compared with r, a ceiling of R² with R²
    description : whose score it is a ceiling of, in words
    resampling : unit, number and seed of the interval
    by_subject : (n_subjects, n_targets) the value of each subject, where there are subjects
    by_region : region → value, low, high over its defined targets, resampled together: their mean, but for a perfect model
        the root of their mean squared ceiling, which is as high or higher
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unit: str
    description: str
    resampling: Resampling
    by_subject: np.ndarray | None = None
    by_region: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    def squared(self) -> Ceiling:
        """Return the ceiling of R²: the square of the ceiling of r, NaN where r is below 0."""
        if self.unit == "r2":
            return self
        low, value, high = (np.maximum(a, 0.0) ** 2 for a in (self.low, self.value, self.high))
        value = np.where(self.value >= 0, value, np.nan)
        # an interval that contained 0 still does
        return Ceiling(value, low, high, "r2", self.description, self.resampling)


@dataclass(frozen=True, eq=False)
class NormalisedScore:
    """Scores divided by their ceiling.

    Attributes
    ----------
    value : (n_targets,) score / ceiling; NaN where the target was not normalised
    reason : (n_targets,) why it is NaN, "" where it is not
    """

    value: np.ndarray
    reason: np.ndarray

    @property
    def sentence(self) -> str:
        """One sentence: how many targets were not normalised, and why."""
        refused = int((self.reason != "").sum())
        return f"{refused:,} of {len(self.value):,} targets were not normalised: {REACHES_ZERO if refused else 'none refused'}."


def normalise(score: np.ndarray, ceiling: Ceiling, unit: str) -> NormalisedScore:
    """Divide scores by their ceiling, where the ceiling is shown to be above 0; negative scores stay negative.

    Parameters
    ----------
    score : (n_targets,)
    ceiling : in the same unit
    unit : of the scores, "r" or "r2"

    Raises
    ------
    FitError : the units or the numbers of targets differ
    """
    if unit not in UNITS or unit != ceiling.unit:
        raise FitError(
            f"The scores are {unit} and the ceiling is of {ceiling.unit}; a share needs one unit. Use ceiling.squared() for R²."
        )
    if np.shape(score) != ceiling.value.shape:
        raise FitError(f"There are {np.shape(score)} scores and {ceiling.value.shape} ceilings.")
    zero = ~(ceiling.low > 0)
    reason = np.full(len(score), "", dtype=object)
    reason[zero] = "the interval of the ceiling contains 0"
    reason[~np.isfinite(ceiling.value)] = "the ceiling is undefined"
    reason[~np.isfinite(score)] = "the score is undefined"
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(reason == "", score / ceiling.value, np.nan)
    return NormalisedScore(value, reason)


@dataclass(frozen=True, eq=False)
class InterSubjectCeiling:
    """Ceilings from what subjects share of the scored responses: the same rows, delays, confounds and test segments.

    Attributes
    ----------
    perfect_model : the r that a perfect model of the shared signal would get for one subject; scores are divided by it
    other_subjects : the r of one subject with the mean of the other subjects
    average_subject : the r that a perfect model would get for the average subject; None where no average was scored
    subjects : whose responses were used
    """

    perfect_model: Ceiling
    other_subjects: Ceiling
    average_subject: Ceiling | None
    subjects: tuple[str, ...]


def inter_subject_ceiling(
    read: Callable[[slice], np.ndarray],
    n_subjects: int,
    n_targets: int,
    segment: np.ndarray,
    rng: np.random.Generator,
    kinds: Sequence[str] = ("perfect", "others"),
    n_resamples: int = 1000,
    n_splits: int = 100,
    regions: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Ceiling]:
    """Compute ceilings between subjects, one chunk of targets at a time, so that responses may stay on disk.

    Parameters
    ----------
    read : a slice of targets → (n_subjects, n_rows, n_chunk) responses, rows in the same order for all subjects
    n_subjects, n_targets : how many
    segment : (n_rows,) the run (or held-out block) of each row: correlations are computed within each and averaged, like scores
    rng : the source of randomness
    kinds : "others", "perfect" and "average", see Notes
    n_resamples : bootstrap draws of subjects
    n_splits : random halves of the subjects, for "average"
    regions : name → (n_targets,) bool; the mean over each region's defined targets gets an interval of its own

    Returns
    -------
    kind → its ceiling

    Raises
    ------
    FitError : fewer than 3 subjects (4 for "average") or 3 rows

    Notes
    -----
    "others" correlates each subject with the mean of the other subjects: the ceiling of predicting one person from the
    other people. A mean that contains the subject itself is no ceiling: on noise it correlates with each subject by about 1/√n.

    "perfect" corrects for the noise in that mean: the ceiling of a model that knows exactly what subjects share. With ρ the mean
    correlation of two subjects, the correlation with the mean of n − 1 others is ρ/√(ρ + (1 − ρ)/(n − 1)), and the corrected
    ceiling is √ρ.

    "average" correlates the means of random halves of the subjects: the ceiling of predicting the average of all of them. The
    mean correlation r of two halves becomes the reliability of the whole average by the Spearman–Brown formula,
    kr/(1 + (k − 1)r) with k = n/⌊n/2⌋; its root is the correlation of a perfect model with the average. With an odd number of
    subjects, each split leaves out one subject, drawn anew.

    The interval draws subjects and uses pairs of different people only (a subject drawn twice is never paired with itself);
    it is centred on the observed value, and stretched for few subjects (t instead of z). It is about other people who are
    played the same stimulus, not about other stimuli.

    References
    ----------
    Nastase et al. 2019, doi:10.1093/scan/nsz037 (leave-one-out); Chen et al. 2016, doi:10.1016/j.neuroimage.2016.05.023
    (drawing subjects); Spearman 1910, doi:10.1111/j.2044-8295.1910.tb00206.x; Brown 1910,
    doi:10.1111/j.2044-8295.1910.tb00207.x
    """
    fewest = max(KINDS[kind] for kind in kinds)
    if n_subjects < fewest or len(segment) < 3:
        raise FitError(
            f"{n_subjects} subjects with {len(segment)} scans: this ceiling needs at least {fewest} subjects and 3 scans."
        )
    n, seed = n_subjects, describe_seed(rng)
    weights = rng.multinomial(n, np.full(n, 1 / n), n_resamples).astype(np.float64)
    halves = [rng.permutation(n)[: 2 * (n // 2)] for _ in range(n_splits)] if "average" in kinds else []
    regions = {"brain": np.ones(n_targets, dtype=bool), **(regions or {})}
    ceilings = {kind: _ChunkedCeiling(kind, n, n_targets, halves, regions) for kind in kinds}
    widen, rows = stretch(n), [np.flatnonzero(segment == name) for name in dict.fromkeys(segment.tolist())]
    for targets in chunks(n_targets, int(np.clip(2e6 / n**2, 16, 256))):
        pairs = _pairwise_correlations(np.asarray(read(targets)), rows)
        rho = _mean_over_pairs(pairs.mean(axis=0), np.ones((1, n)))
        draws = np.clip(rho + widen * (_mean_over_pairs(pairs.mean(axis=0), weights) - rho), -1.0, 1.0)
        for ceiling in ceilings.values():
            ceiling.add(targets, pairs, rho, draws)
    record = Resampling(
        "subjects", "bootstrap (percentile) of pairs of different subjects", n_resamples, seed
    )
    return {kind: ceiling.result(record) for kind, ceiling in ceilings.items()}


def _pairwise_correlations(values: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Correlate every two subjects in every segment: (n_segments, n_targets, n_subjects, n_subjects)."""
    out = []
    for segment_rows in rows:
        # (n_subjects, n_segment_rows, n_targets)
        z = np.stack([_standardise(responses[segment_rows]) for responses in values])
        z = np.ascontiguousarray(z.transpose(2, 0, 1))
        out.append(z @ z.transpose(0, 2, 1) / len(segment_rows))
    return np.stack(out)


def _standardise(values: np.ndarray) -> np.ndarray:
    """Centre and scale columns, in float64; a constant column is NaN."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    variance = np.square(centred).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: np.ndarray = np.where(
            variance * len(values) > rounding_error(values), centred / np.sqrt(variance), np.nan
        )
    return out


class _ChunkedCeiling:
    """A ceiling that is computed one chunk of targets at a time."""

    def __init__(
        self,
        kind: str,
        n_subjects: int,
        n_targets: int,
        halves: Sequence[np.ndarray],
        regions: Mapping[str, np.ndarray],
    ) -> None:
        self.kind, self.n_subjects, self.halves, self.regions = kind, n_subjects, halves, regions
        formulas = {
            "perfect": signed_root,
            "others": _one_subject(n_subjects),
            "average": _average_subject(n_subjects),
        }
        self.formula = formulas[kind]
        self.intervals = np.full((3, n_targets), np.nan)  # value, low, high
        self.by_subject = np.full((n_subjects, n_targets), np.nan)
        self.rho = np.full(n_targets, np.nan)
        self.region_sums: list[np.ndarray] = []  # (n_draws, n_regions) sums over the targets of each region

    def add(self, targets: slice, pairs: np.ndarray, rho: np.ndarray, draws: np.ndarray) -> None:
        """Add one chunk of targets: correlations of all pairs, their mean, and that mean in every bootstrap draw."""
        if self.kind == "others":
            # within each segment, as scores are
            self.by_subject[:, targets] = np.mean([_leave_one_out(r) for r in pairs], axis=0)
            value = self.by_subject[:, targets].mean(axis=0)
        elif self.kind == "average":
            value = _split_half(pairs, self.halves)
        else:
            value = signed_root(rho[0])
        shifted = self.formula(draws) + (value - self.formula(rho)[0])
        self.intervals[:, targets] = value, *np.percentile(shifted, [2.5, 97.5], axis=0)
        inside = np.stack([region[targets] for region in self.regions.values()]) & np.isfinite(value)
        terms = draws if self.kind == "perfect" else shifted
        self.region_sums.append(np.where(np.isfinite(value), terms, 0.0) @ inside.T.astype(np.float64))
        self.rho[targets] = rho[0]

    def result(self, record: Resampling) -> Ceiling:
        """Return the ceiling of all chunks that were added."""
        value, low, high = self.intervals
        by_subject = self.by_subject if self.kind == "others" else None
        return Ceiling(value, low, high, "r", self._description(), record, by_subject, self._by_region())

    def _by_region(self) -> dict[str, tuple[float, float, float]]:
        value = self.intervals[0]
        n_defined = np.array([(inside & np.isfinite(value)).sum() for inside in self.regions.values()])
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = np.sum(self.region_sums, axis=0) / n_defined
        if self.kind == "perfect":
            # a mean of roots of noisy correlations is too low; the root of their mean is not
            value, draws = self.rho, signed_root(draws)
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        return {
            name: (self._region_value(value[inside]), float(low[i]), float(high[i]))
            for i, (name, inside) in enumerate(self.regions.items())
        }

    def _region_value(self, values: np.ndarray) -> float:
        defined = values[np.isfinite(values)]
        mean = float(defined.mean()) if len(defined) else float("nan")
        return float(signed_root(np.array([mean]))[0]) if self.kind == "perfect" else mean

    def _description(self) -> str:
        if self.kind == "average":
            return f"the average of these {self.n_subjects} subjects, from {len(self.halves)} random halves, by Spearman and Brown"
        if self.kind == "perfect":
            return "one subject, by a perfect model of what subjects share"
        return f"one subject, by the mean of the other {self.n_subjects - 1}"


def _leave_one_out(pairs: np.ndarray) -> np.ndarray:
    """Correlate each subject with the mean of the other subjects: (n_subjects, n_targets)."""
    row_sums = pairs.sum(axis=2)
    variance = np.einsum("vii->vi", pairs)
    # covariance with the sum of the other subjects, and the variance of that sum
    covariance = row_sums - variance
    variance_of_sum = row_sums.sum(axis=1, keepdims=True) - 2 * row_sums + variance
    with np.errstate(invalid="ignore", divide="ignore"):
        r: np.ndarray = (covariance / np.sqrt(variance * variance_of_sum)).T
    return r


def _split_half(pairs: np.ndarray, halves: Sequence[np.ndarray]) -> np.ndarray:
    """Return the correlation of a perfect model with the mean of all subjects, from that of half means: (n_targets,)."""
    n, total = pairs.shape[-1], np.zeros(pairs.shape[1])
    for order in halves:
        a, b = np.array_split(order, 2)
        across = pairs[:, :, a][..., b].mean(axis=(2, 3))
        within = [pairs[:, :, h][..., h].mean(axis=(2, 3)) for h in (a, b)]
        with np.errstate(invalid="ignore", divide="ignore"):
            total += (across / np.sqrt(within[0] * within[1])).mean(axis=0)
    r, k = total / len(halves), n / (n // 2)
    return signed_root(k * r / (1 + (k - 1) * np.abs(r)))


def _mean_over_pairs(pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average the correlations of pairs of different subjects, for each draw of subjects: (n_draws, n_targets)."""
    upper = np.triu_indices(pairs.shape[1], 1)
    pair_weights = weights[:, upper[0]] * weights[:, upper[1]]
    pair_weights = pair_weights[pair_weights.sum(axis=1) > 0]  # one subject drawn n times has no pair
    mean: np.ndarray = (pair_weights @ pairs[:, upper[0], upper[1]].T) / pair_weights.sum(
        axis=1, keepdims=True
    )
    return mean


def signed_root(x: np.ndarray) -> np.ndarray:
    """Take the root of absolute values and keep the sign, so that noise averages to about 0.

    >>> signed_root(np.array([-4.0, 9.0]))
    array([-2.,  3.])
    """
    root: np.ndarray = np.sign(x) * np.sqrt(np.abs(x))
    return root


def _one_subject(n: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rho: rho / np.sqrt(np.maximum(rho + (1 - rho) / (n - 1), 1e-12))


def _average_subject(n: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rho: signed_root(n * rho / (1 + (n - 1) * np.abs(rho)))
