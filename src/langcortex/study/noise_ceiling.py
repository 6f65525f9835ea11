"""What subjects share, gathered while a study runs: their responses as they were scored, and the ceilings of scores."""

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

IN_MEMORY = 5e8  # bytes of all subjects' responses beyond which they wait on disk
FEWEST = KINDS["perfect"]


class SharedResponses:
    """Collects the scored responses of subjects, on disk where they are large, and computes what they share.

    Only subjects with the same rows, held-out pieces and targets can be held against each other; the largest such group is.
    """

    def __init__(self) -> None:
        self.people: dict[str, list[tuple[str, np.ndarray]]] = {}
        self.pieces: dict[str, np.ndarray] = {}
        self.n_bytes = 0

    def add(self, subject: str, held: ScoredResponses, space: Space) -> None:
        """Enter one subject: `held` from `held_out`, `space` its targets."""
        where = () if space.mask is None else (space.mask, np.round(np.asarray(space.affine), 3))
        key = digest(held.ids, held.segment.astype(str), space.kind, space.names, space.hemispheres, *where)
        self.people.setdefault(key, []).append((subject, self._kept(held.values)))
        self.pieces[key] = held.segment

    def _kept(self, values: np.ndarray) -> np.ndarray:
        self.n_bytes += values.nbytes
        if self.n_bytes <= IN_MEMORY:
            return values
        with tempfile.TemporaryFile(prefix="langcortex-") as file:
            on_disk = np.memmap(file, dtype=np.float32, mode="w+", shape=values.shape)
        on_disk[:] = values
        return on_disk

    def shared(
        self,
        regions: Mapping[str, np.ndarray],
        rng: np.random.Generator,
        average: bool = False,
        n_resamples: int = 1000,
    ) -> tuple[InterSubjectCeiling | None, str]:
        """Compute the ceilings, a chunk of targets at a time.

        Parameters
        ----------
        regions : name → (n_targets,) bool
        rng : the source of randomness
        average : whether the average subject was scored too, and needs a ceiling of its own (4 subjects or more)
        n_resamples : bootstrap draws of subjects

        Returns
        -------
        shared, reason : one of them is empty
        """
        group = max(self.people.values(), key=len, default=[])
        if len(group) < FEWEST:
            return None, _why_none(sum(map(len, self.people.values())), len(group))
        key = next(key for key, people in self.people.items() if people is group)
        names, values = zip(*group, strict=True)
        n, n_targets = len(group), len(values[0])
        kinds = ("perfect", "others") + (("average",) if average and n >= KINDS["average"] else ())

        def read(part: slice) -> np.ndarray:
            return np.stack([np.asarray(one[part]).T for one in values])

        found = inter_subject_ceiling(
            read, n, n_targets, self.pieces[key], rng, kinds, n_resamples, regions=regions
        )
        return InterSubjectCeiling(found["perfect"], found["others"], found.get("average"), tuple(names)), ""


def repeat_ceiling(
    design: Design,
    held: ScoredResponses,
    run: str,
    repeats: np.ndarray,
    scores: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> tuple[RepeatCeiling | None, str]:
    """Compute the ceiling of the scores in a run that was heard several times, and scored as the mean of those times.

    Repeats are brought to what was scored: its rows, its scale, the same confounds removed.

    Parameters
    ----------
    design : of scans
    held : its scored responses
    run : the repeated run
    repeats : (n_repeats, n_scans, n_targets) as stored; their mean is the recording of that run
    scores : model → (n_targets,) r in that run

    Returns
    -------
    ceiling, reason : one of them is empty
    """
    rows = held.segment == run
    within = np.flatnonzero(design.run == run)
    at = held.scans[rows, 1]
    if not rows.any() or len(within) != int(rows.sum()) or at.max() >= repeats.shape[1]:
        return (
            None,
            f"The repeats of '{run}' are no ceiling of {design.subject}: that run was not scored whole.",
        )
    if len(at) < 5 * BLOCK:
        return (
            None,
            f"The repeats of '{run}' are no ceiling of {design.subject}: {len(at)} scans are too few.",
        )
    y = np.asarray(next(iter(design.Y.values())))[within]
    scored, stored = held.values[:, rows].T, np.asarray(repeats[:, at], dtype=np.float64)
    mean = stored.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = mean.std(axis=0) / y.std(axis=0)
        alike = ((mean - mean.mean(axis=0)) * (y - y.mean(axis=0))).mean(axis=0) / (
            mean.std(axis=0) * y.std(axis=0)
        )
        if np.nanmin(alike, initial=1.0) < 0.99:
            return None, (
                f"The repeats of '{run}' are no ceiling of {design.subject}: its recording was cleaned in another way than they were."
            )
        ready = (stored - mean) / scale + scored
    power = estimate_signal_power(ready, rng, n_resamples=n_resamples, regions=design.space.regions)
    return RepeatCeiling(design.subject, run, len(repeats), power.ceiling, dict(scores)), ""


def _why_none(n_people: int, n_alike: int) -> str:
    if n_people < FEWEST:
        return (
            f"There is no noise ceiling between subjects: {n_people} subject{'s' * (n_people != 1)} {'were' if n_people != 1 else 'was'} "
            f"scored, and it needs at least {FEWEST}."
        )
    return (
        f"There is no noise ceiling between subjects: only {n_alike} of {n_people} have the same rows, held-out runs and targets, and "
        f"it needs at least {FEWEST}."
    )
