"""Noise ceilings of a study: the scored responses of its subjects, and the ceilings between subjects and of repeats."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping

import numpy as np

from langcortex.brain.space import Space
from langcortex.cache import digest
from langcortex.design.design import Design
from langcortex.encoding.folded_design import ScoredResponses
from langcortex.stats.noise_ceiling import KINDS, InterSubjectCeiling, inter_subject_ceiling
from langcortex.stats.repeat_ceiling import BLOCK, RepeatCeiling, estimate_signal_power

IN_MEMORY = 5e8  # bytes of all subjects' responses beyond which they are stored on disk
FEWEST = KINDS["perfect"]


class SharedResponses:
    """The scored responses of subjects, on disk where they are large.

    Only subjects with the same rows, test segments and targets can be compared; the largest such group is.
    """

    def __init__(self) -> None:
        self.groups: dict[str, list[tuple[str, np.ndarray]]] = {}
        self.segments: dict[str, np.ndarray] = {}
        self.n_bytes = 0

    def add(self, subject: str, responses: ScoredResponses, space: Space) -> None:
        """Add one subject's responses, whose targets are in `space`."""
        grid = () if space.mask is None else (space.mask, np.round(np.asarray(space.affine), 3))
        segments = responses.segment.astype(str)
        key = digest(responses.ids, segments, space.kind, space.names, space.hemispheres, *grid)
        self.groups.setdefault(key, []).append((subject, self._store(responses.values)))
        self.segments[key] = responses.segment

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    def _store(self, values: np.ndarray) -> np.ndarray:
        """Return the values, in memory as long as there is room, otherwise on disk."""
        self.n_bytes += values.nbytes
        if self.n_bytes <= IN_MEMORY:
            return values
        with tempfile.TemporaryFile(prefix="langcortex-") as file:
            on_disk = np.memmap(file, dtype=np.float32, mode="w+", shape=values.shape)
        on_disk[:] = values
        return on_disk

    def ceiling(
        self,
        regions: Mapping[str, np.ndarray],
        rng: np.random.Generator,
        average: bool = False,
        n_resamples: int = 1000,
    ) -> tuple[InterSubjectCeiling | None, str]:
        """Compute the ceilings between subjects, in chunks of targets.

        Parameters
        ----------
        regions : name → (n_targets,) bool
        rng : the source of randomness
        average : whether the average of subjects was scored too, and needs its own ceiling (4 subjects or more)
        n_resamples : bootstrap draws of subjects

        Returns
        -------
        ceiling, reason : one of them is empty
        """
        group = max(self.groups.values(), key=len, default=[])
        if len(group) < FEWEST:
            return None, _reason(len(self), len(group))
        key = next(key for key, members in self.groups.items() if members is group)
        names, values = zip(*group, strict=True)
        n, n_targets = len(group), len(values[0])
        kinds = ("perfect", "others") + (("average",) if average and n >= KINDS["average"] else ())

        def read(part: slice) -> np.ndarray:
            return np.stack([np.asarray(y[part]).T for y in values])

        ceilings = inter_subject_ceiling(
            read, n, n_targets, self.segments[key], rng, kinds, n_resamples, regions=regions
        )
        return InterSubjectCeiling(
            ceilings["perfect"], ceilings["others"], ceilings.get("average"), tuple(names)
        ), ""


def repeat_ceiling(
    design: Design,
    responses: ScoredResponses,
    run: str,
    repeats: np.ndarray,
    scores: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> tuple[RepeatCeiling | None, str]:
    """Compute the ceiling of the scores in a run that was played several times, and scored as the mean of its repeats.

    Repeats are brought to the scored responses: the same rows and scale, the same confounds regressed out.

    Parameters
    ----------
    design : of scans
    responses : its scored responses
    run : the repeated run
    repeats : (n_repeats, n_scans, n_targets) as stored; their mean is the recording of the run
    scores : model → (n_targets,) r in the run

    Returns
    -------
    ceiling, reason : one of them is empty
    """
    rows = responses.segment == run
    within = np.flatnonzero(design.run == run)
    scans = responses.scans[rows, 1]
    if not rows.any() or len(within) != int(rows.sum()) or scans.max() >= repeats.shape[1]:
        return (
            None,
            f"The repeats of '{run}' are no ceiling of {design.subject}: the run was not scored as a whole.",
        )
    if len(scans) < 5 * BLOCK:
        return (
            None,
            f"The repeats of '{run}' are no ceiling of {design.subject}: {len(scans)} scans are too few.",
        )
    y = np.asarray(next(iter(design.Y.values())))[within]
    scored, stored = responses.values[:, rows].T, np.asarray(repeats[:, scans], dtype=np.float64)
    mean = stored.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = mean.std(axis=0) / y.std(axis=0)
        correlation = ((mean - mean.mean(axis=0)) * (y - y.mean(axis=0))).mean(axis=0) / (
            mean.std(axis=0) * y.std(axis=0)
        )
        if np.nanmin(correlation, initial=1.0) < 0.99:
            return None, (
                f"The repeats of '{run}' are no ceiling of {design.subject}: its recording was cleaned differently."
            )
        scaled = (stored - mean) / scale + scored
    power = estimate_signal_power(scaled, rng, n_resamples=n_resamples, regions=design.space.regions)
    return RepeatCeiling(design.subject, run, len(repeats), power.ceiling, dict(scores)), ""


def _reason(n_subjects: int, n_comparable: int) -> str:
    """Describe why there is no ceiling between subjects."""
    if n_subjects < FEWEST:
        return (
            f"There is no noise ceiling between subjects: {n_subjects} subject{'s' * (n_subjects != 1)} {'were' if n_subjects != 1 else 'was'} "
            f"scored, and it needs at least {FEWEST}."
        )
    return (
        f"There is no noise ceiling between subjects: only {n_comparable} of {n_subjects} have the same rows, held-out runs and targets, and "
        f"it needs at least {FEWEST}."
    )
