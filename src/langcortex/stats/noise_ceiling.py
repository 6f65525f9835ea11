"""Noise ceilings: how well could any model do? Between subjects, or between repeats, always with an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from langcortex.arrays import chunks, rounding_error
from langcortex.brain.recording import Recording
from langcortex.errors import FitError
from langcortex.stats.resampling import Resampling, describe_seed, stretch

UNITS = ("r", "r2")


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The score that a perfect model of what is shared would get, target by target.

    Attributes
    ----------
    value : (n_targets,) NaN where undefined
    low, high : (n_targets,) 95 % interval
    unit : "r" or "r2": a ceiling of r is compared with r, a ceiling of R² with R²
    of : what it is the ceiling of, in words
    by_subject : (n_subjects, n_targets) each subject's own value, where there are subjects
    resampled : unit, number, seed of the interval
    by_region : region → value, low, high over its defined targets, resampled together: their mean, but for a perfect model
        the root of their mean squared ceiling, which is as high or higher
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unit: str
    of: str
    resampled: Resampling
    by_subject: np.ndarray | None = None
    by_region: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    def squared(self) -> Ceiling:
        """Give the ceiling of R²: the square of that of r, NaN where r is below 0."""
        if self.unit == "r2":
            return self
        low, value, high = (np.maximum(a, 0.0) ** 2 for a in (self.low, self.value, self.high))
        value = np.where(self.value >= 0, value, np.nan)
        # an interval that reached 0 still does
        return Ceiling(value, low, high, "r2", self.of, self.resampled)


@dataclass(frozen=True, eq=False)
class NormalisedScore:
    """Scores as shares of their ceiling.

    Attributes
    ----------
    value : (n_targets,) score / ceiling; NaN where refused
    reason : (n_targets,) why it is NaN, "" where it is not
    """

    value: np.ndarray
    reason: np.ndarray

    @property
    def sentence(self) -> str:
        """Say how many targets were refused, and why."""
        refused = int((self.reason != "").sum())
        return f"{refused:,} of {len(self.value):,} targets were not normalised: {REACHES_ZERO if refused else 'none refused'}."


REACHES_ZERO = "the interval of the ceiling contains 0, or score or ceiling is undefined"


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


def together(by_subject: Mapping[str, Sequence[Recording]]) -> tuple[np.ndarray, np.ndarray]:
    """Put recordings of several subjects side by side: scans meet by run and time, each run standardised by itself.

    Parameters
    ----------
    by_subject : subject → its runs, all in one space

    Returns
    -------
    values : (n_subjects, n_scans, n_targets); scans that some subject lacks are left out
    run : (n_scans,)

    Raises
    ------
    FitError : fewer than 2 subjects, other targets, other runs, or no scan in common
    """
    if len(by_subject) < 2:
        raise FitError(f"A ceiling between subjects needs at least 2; there are {len(by_subject)}.")
    tables = {who: {r.run: r for r in runs} for who, runs in by_subject.items()}
    first = next(iter(tables.values()))
    parts, names = [], []
    for run in first:
        lacking = [who for who, table in tables.items() if run not in table]
        if lacking:
            raise FitError(
                f"Subject '{lacking[0]}' has no run '{run}'. Leave the run or the subject out of the ceiling."
            )
        values = _one_run([table[run] for table in tables.values()])
        parts.append(values)
        names += [run] * values.shape[1]
    return np.concatenate(parts, axis=1), np.array(names)


def _one_run(recordings: Sequence[Recording]) -> np.ndarray:
    first = recordings[0]
    for other in recordings[1:]:
        if not other.space.same_as(first.space):
            raise FitError(
                f"Run '{first.run}': '{other.subject}' has other targets than '{first.subject}'; a ceiling between subjects "
                "needs one space."
            )
    # scans meet by when they began, to the millisecond
    stamps = [np.round(1000 * r.onset).astype(np.int64) for r in recordings]
    common = stamps[0]
    for one in stamps[1:]:
        common = np.intersect1d(common, one)
    if len(common) < 3:
        raise FitError(
            f"Run '{first.run}': {len(common)} scans of all {len(recordings)} subjects began at the same time on the story's clock; "
            "a ceiling needs at least 3. Do all recordings have one TR and one stimulus onset?"
        )
    rows = [np.searchsorted(one, common) for one in stamps]
    return np.stack([_standard(r.values[at]) for r, at in zip(recordings, rows, strict=True)])


def _standard(values: np.ndarray) -> np.ndarray:
    """Centre and scale columns, in float64; a constant column is NaN."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    power = np.square(centred).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: np.ndarray = np.where(
            power * len(values) > rounding_error(values), centred / np.sqrt(power), np.nan
        )
    return out


def leave_one_out(
    values: np.ndarray, rng: np.random.Generator, corrected: bool = False, n_resamples: int = 1000
) -> Ceiling:
    """Correlate each subject with the mean of the others: inter-subject correlation, never with itself in the mean.

    Parameters
    ----------
    values : (n_subjects, n_scans, n_targets), e.g. from `together`
    rng : the source of randomness
    corrected : divide by what is lost because the mean of the others is itself noisy: the ceiling of a model that knows what
        is shared exactly. Without it, the ceiling of predicting a person from the other people
    n_resamples : bootstrap draws of subjects

    Notes
    -----
    With ρ the mean correlation of two subjects, the correlation with the mean of n − 1 others is ρ/√(ρ + (1 − ρ)/(n − 1)), and
    the corrected ceiling √ρ. The interval draws subjects and uses pairs of different people only (a subject drawn twice is
    never paired with itself); it is moved to the observed value, and stretched for few subjects (t instead of z). It is about
    other people who hear these scans, not about other stories.

    A mean that contains the subject itself is no ceiling: on noise it correlates with each by about 1/√n.

    References
    ----------
    Nastase et al. 2019, doi:10.1093/scan/nsz037 (leave-one-out); Chen et al. 2016, doi:10.1016/j.neuroimage.2016.05.023
    (drawing subjects)
    """
    _, n_scans, n_targets = values.shape
    kind = "perfect" if corrected else "others"
    return inter_subject_ceiling(
        _reader(values), len(values), n_targets, np.zeros(n_scans), rng, (kind,), n_resamples
    )[kind]


def split_group(
    values: np.ndarray, rng: np.random.Generator, n_splits: int = 100, n_resamples: int = 1000
) -> Ceiling:
    """Correlate the means of random halves of the subjects: the ceiling of predicting the average of all of them.

    The mean correlation r of two halves becomes the reliability of the whole average by Spearman and Brown, kr/(1 + (k − 1)r) with
    k = n/⌊n/2⌋; its root is the correlation of a perfect model with the average. With an odd number one subject, drawn anew, is
    left out of each split.

    Parameters
    ----------
    values : (n_subjects, n_scans, n_targets)
    rng : the source of randomness
    n_splits : how many random halves; their r are averaged
    n_resamples : bootstrap draws of subjects

    References
    ----------
    Spearman 1910, doi:10.1111/j.2044-8295.1910.tb00206.x; Brown 1910, doi:10.1111/j.2044-8295.1910.tb00207.x
    """
    _, n_scans, n_targets = values.shape
    found = inter_subject_ceiling(
        _reader(values), len(values), n_targets, np.zeros(n_scans), rng, ("average",), n_resamples, n_splits
    )
    return found["average"]


def _reader(values: np.ndarray) -> Callable[[slice], np.ndarray]:
    return lambda part: values[:, :, part]


KINDS = {"perfect": 3, "others": 3, "average": 4}  # how many subjects each needs


def inter_subject_ceiling(
    read: Callable[[slice], np.ndarray],
    n: int,
    n_targets: int,
    piece: np.ndarray,
    rng: np.random.Generator,
    kinds: Sequence[str] = ("perfect", "others"),
    n_resamples: int = 1000,
    n_splits: int = 100,
    regions: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Ceiling]:
    """Compute ceilings between subjects a chunk of targets at a time, so that nobody's data need lie in memory whole.

    Parameters
    ----------
    read : a slice of targets → (n_subjects, n_rows, n_chunk) responses, rows in the same order for all
    n : how many subjects
    n_targets : how many targets
    piece : (n_rows,) the run (or held-out block) of each row: correlations are computed in each and averaged, like scores
    rng : the source of randomness
    kinds : "others" and "perfect" (`leave_one_out` without and with its correction), "average" (`split_group`)
    n_resamples, n_splits : see `leave_one_out` and `split_group`
    regions : name → (n_targets,) bool; the mean over each region's defined targets gets an interval of its own

    Raises
    ------
    FitError : fewer than 3 subjects (4 for "average") or 3 rows
    """
    fewest = max(KINDS[kind] for kind in kinds)
    if n < fewest or len(piece) < 3:
        raise FitError(
            f"{n} subjects with {len(piece)} scans: this ceiling needs at least {fewest} subjects and 3 scans."
        )
    seed = describe_seed(rng)
    weights = rng.multinomial(n, np.full(n, 1 / n), n_resamples).astype(np.float64)
    halves = [rng.permutation(n)[: 2 * (n // 2)] for _ in range(n_splits)] if "average" in kinds else []
    areas = {"brain": np.ones(n_targets, dtype=bool), **(regions or {})}
    drafts = {kind: _Draft(kind, n, n_targets, halves, areas) for kind in kinds}
    wide, rows = stretch(n), [np.flatnonzero(piece == name) for name in dict.fromkeys(piece.tolist())]
    for part in chunks(n_targets, int(np.clip(2e6 / n**2, 16, 256))):
        pairs = _pairs(np.asarray(read(part)), rows)
        rho = _mean_pair(pairs.mean(axis=0), np.ones((1, n)))
        drawn = np.clip(rho + wide * (_mean_pair(pairs.mean(axis=0), weights) - rho), -1.0, 1.0)
        for draft in drafts.values():
            draft.enter(part, pairs, rho, drawn)
    record = Resampling(
        "subjects", "bootstrap (percentile) of pairs of different subjects", n_resamples, seed
    )
    return {kind: draft.ceiling(record) for kind, draft in drafts.items()}


def _pairs(values: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Correlate every two subjects in every piece: (n_pieces, n_targets, n_subjects, n_subjects)."""
    out = []
    for held in rows:
        z = np.stack([_standard(one[held]) for one in values])  # (n_subjects, n_held, n_targets)
        z = np.ascontiguousarray(z.transpose(2, 0, 1))
        out.append(z @ z.transpose(0, 2, 1) / len(held))
    return np.stack(out)


class _Draft:
    """A ceiling that is being filled in, chunk by chunk."""

    def __init__(
        self, kind: str, n: int, n_targets: int, halves: Sequence[np.ndarray], areas: Mapping[str, np.ndarray]
    ) -> None:
        self.kind, self.n, self.halves, self.areas = kind, n, halves, areas
        self.formula = {"perfect": signed_root, "others": _of_one(n), "average": _of_average(n)}[kind]
        self.out = np.full((3, n_targets), np.nan)
        self.own = np.full((n, n_targets), np.nan)
        self.rho = np.full(n_targets, np.nan)
        self.drawn: list[np.ndarray] = []  # (n_draws, n_areas) sums over the targets of each area

    def enter(self, part: slice, pairs: np.ndarray, rho: np.ndarray, drawn: np.ndarray) -> None:
        """Enter a chunk of targets."""
        if self.kind == "others":
            # in each piece by itself, as scores are
            self.own[:, part] = np.mean([_with_others(one) for one in pairs], axis=0)
            value = self.own[:, part].mean(axis=0)
        elif self.kind == "average":
            value = _of_halves(pairs, self.halves)
        else:
            value = signed_root(rho[0])
        moved = self.formula(drawn) + (value - self.formula(rho)[0])
        self.out[:, part] = value, *np.percentile(moved, [2.5, 97.5], axis=0)
        inside = np.stack([area[part] for area in self.areas.values()]) & np.isfinite(value)
        each = drawn if self.kind == "perfect" else moved
        self.drawn.append(np.where(np.isfinite(value), each, 0.0) @ inside.T.astype(np.float64))
        self.rho[part] = rho[0]

    def ceiling(self, record: Resampling) -> Ceiling:
        """Give what was entered."""
        value, low, high = self.out
        known = np.array([(area & np.isfinite(value)).sum() for area in self.areas.values()])
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = np.sum(self.drawn, axis=0) / known
        each = value
        if (
            self.kind == "perfect"
        ):  # a mean of roots of noisy correlations is too low; the root of their mean is not
            each, drawn = self.rho, signed_root(drawn)
        ends = np.percentile(drawn, [2.5, 97.5], axis=0)
        by_region: dict[str, tuple[float, float, float]] = {
            name: (self._whole(_mean(each[area])), float(ends[0, i]), float(ends[1, i]))
            for i, (name, area) in enumerate(self.areas.items())
        }  # fmt: skip
        own = self.own if self.kind == "others" else None
        return Ceiling(value, low, high, "r", self._what(), record, own, by_region)

    def _whole(self, mean: float) -> float:
        return float(signed_root(np.array([mean]))[0]) if self.kind == "perfect" else mean

    def _what(self) -> str:
        if self.kind == "average":
            return f"the average of these {self.n} subjects, from {len(self.halves)} random halves, by Spearman and Brown"
        if self.kind == "perfect":
            return "one subject, by a perfect model of what subjects share"
        return f"one subject, by the mean of the other {self.n - 1}"


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _with_others(pairs: np.ndarray) -> np.ndarray:
    """Correlate each subject with the mean of the others: (n_subjects, n_targets)."""
    rows = pairs.sum(axis=2)
    own = np.einsum("vii->vi", pairs)
    # sums of covariances with, and of the variance of, the sum of the others
    alike, others = rows - own, rows.sum(axis=1, keepdims=True) - 2 * rows + own
    with np.errstate(invalid="ignore", divide="ignore"):
        r: np.ndarray = (alike / np.sqrt(own * others)).T
    return r


def _of_halves(pairs: np.ndarray, halves: Sequence[np.ndarray]) -> np.ndarray:
    """Turn the mean correlation of half means, over pieces, into that of a perfect model with the mean of all: (n_targets,)."""
    n, total = pairs.shape[-1], np.zeros(pairs.shape[1])
    for order in halves:
        a, b = np.array_split(order, 2)
        across = pairs[:, :, a][..., b].mean(axis=(2, 3))
        within = [pairs[:, :, h][..., h].mean(axis=(2, 3)) for h in (a, b)]
        with np.errstate(invalid="ignore", divide="ignore"):
            total += (across / np.sqrt(within[0] * within[1])).mean(axis=0)
    r, longer = total / len(halves), n / (n // 2)
    return signed_root(longer * r / (1 + (longer - 1) * np.abs(r)))


def _mean_pair(pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average correlations of different subjects, for each draw: (n_draws, n_targets)."""
    upper = np.triu_indices(pairs.shape[1], 1)
    both = weights[:, upper[0]] * weights[:, upper[1]]
    both = both[both.sum(axis=1) > 0]  # one subject drawn n times has no pair
    mean: np.ndarray = (both @ pairs[:, upper[0], upper[1]].T) / both.sum(axis=1, keepdims=True)
    return mean


def signed_root(x: np.ndarray) -> np.ndarray:
    """Take the root and keep the sign, so that noise averages to about 0.

    >>> signed_root(np.array([-4.0, 9.0]))
    array([-2.,  3.])
    """
    root: np.ndarray = np.sign(x) * np.sqrt(np.abs(x))
    return root


def _of_one(n: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rho: rho / np.sqrt(np.maximum(rho + (1 - rho) / (n - 1), 1e-12))


def _of_average(n: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rho: signed_root(n * rho / (1 + (n - 1) * np.abs(rho)))


@dataclass(frozen=True, eq=False)
class InterSubjectCeiling:
    """What subjects share of the responses that were scored: the same rows, delays, confounds and held-out pieces.

    Attributes
    ----------
    perfect : the r of one subject that a perfect model of what is shared would get; scores are shares of this one
    others : the r of one subject with the mean of the other subjects
    average : the r of the average subject that a perfect model would get; None where no average was scored
    subjects : whose responses were used
    """

    perfect: Ceiling
    others: Ceiling
    average: Ceiling | None
    subjects: tuple[str, ...]
