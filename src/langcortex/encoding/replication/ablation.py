"""The published 2025 recipe with its causes mended one by one: what each of them makes of noise.

`langcortex.encoding.replication.recipe` keeps the recipe whole. Here every choice that lets test rows take part in what is tested on
them can be taken out by itself, for one run; with all of them out, noise gets an r of 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langcortex.encoding.replication.recipe import (
    DELAYS,
    N_COMPONENTS,
    PENALTIES,
    correlations,
    probe_delays,
    residuals,
    select_voxels,
    whole_run_z,
    window_means,
)
from langcortex.errors import FitError

FLAWS: Mapping[str, tuple[str, str]] = {
    "voxels": ("voxels chosen by a fit to all rows", "voxels chosen in each fold's training rows"),
    "delay": ("one delay chosen on rows that are scored", "a delay chosen in each fold's training rows"),
    "folds": ("shuffled folds", "folds of neighbouring rows, with a gap"),
    "row_shift": ("rows paired by position after units were dropped", "rows paired by unit"),
    "confounds": (
        "test rows residualised on themselves",
        "the confound's slope learnt on training rows",
    ),
    "scaling": ("each run scaled as a whole", "responses scaled by training rows"),
}
"""Cause → the published choice, and its mend. In this order they are mended one after the other."""

FILE = "ablation.json"  # in a study's output folder
GAP = 5  # scans between training and test rows where folds are mended: 10 s at a TR of 2 s
FEWEST = 20  # rows a run, as published
FEWEST_TRAINING = 10  # rows beside a mended fold and its gap
N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class RecipeRun:
    """What the recipe reads of one run besides its responses.

    Attributes
    ----------
    features : (n_units, n_layers, width)
    onset, duration : (n_units,) seconds since the first scan
    tr : seconds
    kept : (n_units,) bool, from `langcortex.encoding.replication.recipe.units_kept`
    """

    features: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    tr: float
    kept: np.ndarray
    axes: dict[tuple[int, int, bytes], Any] = field(default_factory=dict, repr=False)

    @property
    def middle(self) -> int:
        """The layer that picks voxels and delay, as published."""
        return int(self.features.shape[1] // 2)

    def components(self, layer: int, train: np.ndarray, seed: int) -> Any:
        """Give the principal axes of some units of a layer, found once."""
        from sklearn.decomposition import PCA

        key = (layer, seed, train.tobytes())
        if key not in self.axes:
            k = min(N_COMPONENTS, len(train) - 1)
            self.axes[key] = PCA(n_components=k, random_state=seed).fit(self.features[train, layer])
        return self.axes[key]


@dataclass(frozen=True, eq=False)
class Ablation:
    """What the recipe gets from recordings without a story, as its causes are mended.

    Attributes
    ----------
    causes : in the order they are mended
    together : (n_draws, n_causes + 1) r as published, then with the first cause mended, with the first two …
    alone : (n_draws, n_causes) r when this cause is left in and every other is mended
    layer : whose r it is, the one that picks the voxels
    model, subject, runs : what was taken
    n_targets : how many voxels there were to choose from
    kind, seed : of the recordings
    """

    causes: tuple[str, ...]
    together: np.ndarray
    alone: np.ndarray
    layer: int
    model: str
    subject: str
    runs: tuple[str, ...]
    n_targets: int
    kind: str
    seed: int

    @property
    def steps(self) -> tuple[str, ...]:
        """Name the columns of `together`."""
        return ("as published", *(FLAWS[cause][1] for cause in self.causes))

    def interval(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give mean, low and high of each column: 95 % by Student's t over draws; NaN ends where there is one draw."""
        from scipy import stats

        mean, n = values.mean(axis=0), len(values)
        if n < 2:
            return mean, np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
        half = stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
        return mean, mean - half, mean + half

    def as_json(self) -> dict[str, Any]:
        """Give every number as plain values, with its unit; `from_json` reads them."""
        return {
            "unit": "Pearson r, mean over the chosen voxels, folds and runs",
            "interval": "95 %, Student's t over draws",
            "n": len(self.together),
            "seed": self.seed,
            "kind": self.kind,
            "model": self.model,
            "layer": self.layer,
            "subject": self.subject,
            "runs": list(self.runs),
            "n_targets": self.n_targets,
            "causes": list(self.causes),
            "steps": list(self.steps),
            "r": self.together.mean(axis=0).tolist(),
            "r_of_draws": self.together.tolist(),
            "r_alone": self.alone.mean(axis=0).tolist(),
            "r_alone_of_draws": self.alone.tolist(),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Ablation:
        """Read what `as_json` gave.

        Raises
        ------
        KeyError, ValueError, TypeError : something is missing or no number
        """
        unknown = set(told["causes"]) - set(FLAWS)
        if unknown:
            raise ValueError(f"no cause is called '{min(unknown)}'")
        return cls(
            tuple(told["causes"]), np.array(told["r_of_draws"], dtype=np.float64),
            np.array(told["r_alone_of_draws"], dtype=np.float64), int(told["layer"]), str(told["model"]),
            str(told["subject"]), tuple(told["runs"]), int(told["n_targets"]), str(told["kind"]), int(told["seed"]),
        )  # fmt: skip

    def as_lines(self) -> list[str]:
        """Say it in sentences."""
        mean, low, high = self.interval(self.together)
        alone = self.alone.mean(axis=0)
        lines = [
            f"The recipe on recordings without a story ({self.kind}, {len(self.together)} draws, seed {self.seed}), "
            f"layer {self.layer} of {self.model}: r = {mean[0]:.3f} as published."
        ]
        for i, cause in enumerate(self.causes, start=1):
            lines.append(
                f"Then {FLAWS[cause][1]}: r = {mean[i]:.3f} (95 % over draws {low[i]:.3f} to {high[i]:.3f}); "
                f"{FLAWS[cause][0]}, alone: {alone[i - 1]:.3f}."
            )
        return lines


def ablation_steps(causes: Sequence[str]) -> list[frozenset[str]]:
    """Give the causes left in at each step: all, all but the first, …, none; then each of them alone."""
    together = [frozenset(causes[i:]) for i in range(len(causes) + 1)]
    return [*together, *(frozenset([cause]) for cause in causes)]


def ablate_run(
    run: RecipeRun,
    values: np.ndarray,
    left_in: Sequence[Collection[str]],
    seed: int = 0,
    layers: Sequence[int] | None = None,
) -> np.ndarray:
    """Apply the recipe to one run, with some of its causes left in and the others mended.

    Parameters
    ----------
    run : its features and its units
    values : (n_scans, n_voxels) as recorded; NaN and constant columns are never chosen
    left_in : sets of names of `FLAWS`; all of them give what `langcortex.encoding.replication.recipe.replicate_run` gives
    seed : of the randomised PCA
    layers : which to score; the one that picks voxels when None

    Returns
    -------
    (n_sets, n_layers) mean over folds of the mean correlation over the chosen voxels

    Raises
    ------
    FitError : a cause that does not exist, fewer than 20 units with scans, or too few beside a mended fold
    """
    unknown = {cause for one in left_in for cause in one} - set(FLAWS)
    if unknown:
        raise FitError(f"A cause is one of {', '.join(FLAWS)}; not '{min(unknown)}'.")
    z = whole_run_z(values)
    drawn = {paired: _Drawn(run, z, paired, seed) for paired in {"row_shift" in one for one in left_in}}
    chosen = [run.middle] if layers is None else list(layers)
    return np.array([drawn["row_shift" in one].scores(frozenset(one), chosen) for one in left_in])


class _Drawn:
    """One recording's windows at every delay, and what was found in them."""

    def __init__(self, run: RecipeRun, z: np.ndarray, row_shift: bool, seed: int) -> None:
        self.run, self.seed = run, seed
        self.units = np.flatnonzero(run.kept)
        timed = np.arange(len(run.kept)) if row_shift else self.units
        self.onset, self.duration = run.onset[timed], run.duration[timed]
        self.y = {d: window_means(z, self.onset, self.duration, run.tr, d)[: len(self.units)] for d in DELAYS}
        self.x = run.features[self.units, run.middle]
        self.found: dict[tuple[Any, ...], Any] = {}
        if max(map(len, self.y.values())) < FEWEST:
            raise FitError(
                f"The recipe needs at least {FEWEST} units with scans in a run; this one has fewer."
            )

    def scores(self, left_in: frozenset[str], layers: Sequence[int]) -> list[float]:
        """Score layers: mean over folds and voxels."""
        everything = np.arange(min(map(len, self.y.values())))
        delay = None
        if "delay" in left_in:
            delay = self.delay_of(None)
            everything = np.arange(len(self.y[delay]))
        by_fold = []
        for train, test in self.folds(everything, "folds" in left_in):
            d = self.delay_of(train) if delay is None else delay
            voxels = self.voxels_of(everything if "voxels" in left_in else train, d)
            by_fold.append(
                [self._score(layer, train, test, self.y[d][:, voxels], left_in) for layer in layers]
            )
        return [float(r) for r in np.mean(by_fold, axis=0)]

    def folds(self, rows: np.ndarray, shuffled: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """Split rows as published, or into blocks whose scans, at every delay, stay clear of the training rows'."""
        from sklearn.model_selection import KFold

        if shuffled:
            return list(KFold(n_splits=N_FOLDS, shuffle=True, random_state=42).split(rows))
        first = ((self.onset + min(DELAYS)) / self.run.tr).astype(int)[rows] - GAP
        last = ((self.onset + self.duration + max(DELAYS)) / self.run.tr).astype(int)[rows]
        out = []
        for test in np.array_split(rows, N_FOLDS):
            # first holds the gap, so that a row's own scans begin at first + GAP
            clear = (last < first[test].min()) | (first > last[test].max())
            if clear.sum() < FEWEST_TRAINING:
                raise FitError(
                    f"With folds of neighbouring rows and a gap of {GAP} scans, {clear.sum()} of {len(rows)} rows of a run are left to learn "
                    f"from, and {FEWEST_TRAINING} are needed. The recipe can be taken apart on longer runs."
                )
            out.append((rows[clear], test))
        return out

    def delay_of(self, train: np.ndarray | None) -> float:
        """Choose the delay that predicts the last fifth of some rows from their first four fifths; of all when None."""
        key = ("delay", None if train is None else train.tobytes())
        if key not in self.found:
            found = {}
            for delay, y in self.y.items():
                rows = np.arange(len(y)) if train is None else train
                if train is not None or len(rows) >= FEWEST:
                    found[delay] = probe_delays(self.x[rows], y[rows], self.seed)
            known = {d: r for d, r in found.items() if np.isfinite(r)}
            if not known:
                raise FitError("The recipe finds no delay: too few units, or no voxel that varies.")
            self.found[key] = max(known, key=lambda d: known[d])
        return float(self.found[key])

    def voxels_of(self, rows: np.ndarray, delay: float) -> np.ndarray:
        """Choose the voxels that the middle layer fits best in some rows."""
        key = ("voxels", delay, rows.tobytes())
        if key not in self.found:
            length = self.duration[rows, None]
            self.found[key] = select_voxels(self.x[rows], self.y[delay][rows], length, self.seed)
        return np.asarray(self.found[key])

    def _score(
        self, layer: int, train: np.ndarray, test: np.ndarray, y: np.ndarray, left_in: frozenset[str]
    ) -> float:
        from sklearn.linear_model import RidgeCV

        pca = self.run.components(layer, self.units[train], self.seed)
        states = self.run.features[self.units, layer]
        a, b, length = pca.transform(states[train]), pca.transform(states[test]), self.duration[:, None]
        learnt, held = y[train], y[test]
        if "scaling" not in left_in:
            mean, spread = learnt.mean(axis=0), learnt.std(axis=0)
            spread[spread == 0] = 1.0
            learnt, held = (learnt - mean) / spread, (held - mean) / spread
        if "confounds" in left_in:
            held, b = residuals(held, length[test]), residuals(b, length[test])
        else:
            held, b = _cleaned(learnt, held, length, train, test), _cleaned(a, b, length, train, test)
        model = RidgeCV(alphas=PENALTIES).fit(residuals(a, length[train]), residuals(learnt, length[train]))
        r = correlations(held, model.predict(b))
        known = r[~np.isnan(r)]
        return float(known.mean()) if len(known) else 0.0  # the recipe's 0 for "undefined" is kept


def _cleaned(
    learnt: np.ndarray, held: np.ndarray, length: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Take off held-out rows what duration explains by the line that training rows give."""
    from sklearn.linear_model import LinearRegression

    if np.std(length[train]) < 1e-9:
        return held
    left: np.ndarray = held - LinearRegression().fit(length[train], learnt).predict(length[test])
    return left
