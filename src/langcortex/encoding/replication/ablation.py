"""Ablation of the published 2025 recipe: its flaws are fixed one by one, and r on noise is measured each time.

`langcortex.encoding.replication.recipe` is the recipe as published. Here every choice that lets test rows take part in
what is tested on them can be fixed by itself, for one run; with all of them fixed, noise gets an r of 0.
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
"""Flaw → the published choice, and its fix. They are fixed one after the other in this order."""

FILE = "ablation.json"  # in a study's output folder
GAP = 5  # scans between training and test rows where folds are fixed: 10 s at a TR of 2 s
FEWEST = 20  # rows per run, as published
FEWEST_TRAINING = 10  # training rows of a fold, without its gap
N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class RecipeRun:
    """Features and units of one run, all that the recipe needs besides its responses.

    Attributes
    ----------
    features : (n_units, n_layers, width)
    onset, duration : (n_units,) seconds since the first scan
    tr : seconds
    unit_mask : (n_units,) bool, from `langcortex.encoding.replication.recipe.select_units`
    """

    features: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    tr: float
    unit_mask: np.ndarray
    _pca: dict[tuple[int, int, bytes], Any] = field(default_factory=dict, repr=False)

    @property
    def middle(self) -> int:
        """The layer that chooses voxels and delay, as published."""
        return int(self.features.shape[1] // 2)

    def components(self, layer: int, train: np.ndarray, seed: int) -> Any:
        """Return the PCA of some units of a layer, fitted once."""
        from sklearn.decomposition import PCA

        key = (layer, seed, train.tobytes())
        if key not in self._pca:
            k = min(N_COMPONENTS, len(train) - 1)
            self._pca[key] = PCA(n_components=k, random_state=seed).fit(self.features[train, layer])
        return self._pca[key]


@dataclass(frozen=True, eq=False)
class Ablation:
    """Scores of the recipe on recordings without a story, as its flaws are fixed.

    Attributes
    ----------
    causes : names of `FLAWS`, in the order they are fixed
    together : (n_draws, n_causes + 1) r as published, then with the first flaw fixed, with the first two …
    alone : (n_draws, n_causes) r when this flaw is left and every other is fixed
    layer : of the scores, the one that chooses the voxels
    model, subject, runs : of the features and recordings
    n_targets : number of voxels to choose from
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
        """Return mean and 95 % interval of each column, by Student's t over draws; NaN ends where there is one draw."""
        from scipy import stats

        mean, n = values.mean(axis=0), len(values)
        if n < 2:
            return mean, np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
        half = stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
        return mean, mean - half, mean + half

    def as_json(self) -> dict[str, Any]:
        """Return every number as plain values, with its unit; `from_json` reads them."""
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
    def from_json(cls, values: Mapping[str, Any]) -> Ablation:
        """Make an ablation from the plain values of `as_json`.

        Raises
        ------
        KeyError, ValueError, TypeError : something is missing or no number
        """
        unknown = set(values["causes"]) - set(FLAWS)
        if unknown:
            raise ValueError(f"no cause is called '{min(unknown)}'")
        return cls(
            tuple(values["causes"]), np.array(values["r_of_draws"], dtype=np.float64),
            np.array(values["r_alone_of_draws"], dtype=np.float64), int(values["layer"]), str(values["model"]),
            str(values["subject"]), tuple(values["runs"]), int(values["n_targets"]), str(values["kind"]), int(values["seed"]),
        )  # fmt: skip

    def as_lines(self) -> list[str]:
        """Describe the ablation in sentences."""
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
    """List the flaws left at each step: all, all but the first, …, none; then each of them alone."""
    together = [frozenset(causes[i:]) for i in range(len(causes) + 1)]
    return [*together, *(frozenset([cause]) for cause in causes)]


def ablate_run(
    run: RecipeRun,
    values: np.ndarray,
    flaws: Sequence[Collection[str]],
    seed: int = 0,
    layers: Sequence[int] | None = None,
) -> np.ndarray:
    """Apply the recipe to one run, with some of its flaws left and the others fixed.

    Parameters
    ----------
    run : its features and its units
    values : (n_scans, n_voxels) as recorded; NaN and constant columns are never chosen
    flaws : sets of names of `FLAWS` that are left; with all of them, this is
        `langcortex.encoding.replication.recipe.replicate_run`
    seed : of the randomised PCA
    layers : which to score; the one that chooses voxels when None

    Returns
    -------
    (n_sets, n_layers) mean over folds of the mean correlation over the chosen voxels

    Raises
    ------
    FitError : a flaw is unknown, there are fewer than 20 units with scans, or too few training rows in a fixed fold
    """
    unknown = {name for names in flaws for name in names} - set(FLAWS)
    if unknown:
        raise FitError(f"A cause is one of {', '.join(FLAWS)}; not '{min(unknown)}'.")
    z = whole_run_z(values)
    windows = {shift: _RunWindows(run, z, shift, seed) for shift in {"row_shift" in names for names in flaws}}
    chosen = [run.middle] if layers is None else list(layers)
    return np.array([windows["row_shift" in names].scores(frozenset(names), chosen) for names in flaws])


class _RunWindows:
    """Responses of one recording at every delay, with the delays and voxels that were chosen in them.

    Parameters
    ----------
    z : (n_scans, n_voxels) from `whole_run_z`
    row_shift : pair features and responses by position, as published
    """

    def __init__(self, run: RecipeRun, z: np.ndarray, row_shift: bool, seed: int) -> None:
        self.run, self.seed = run, seed
        self.units = np.flatnonzero(run.unit_mask)
        timed = np.arange(len(run.unit_mask)) if row_shift else self.units
        self.onset, self.duration = run.onset[timed], run.duration[timed]
        self.y = {d: window_means(z, self.onset, self.duration, run.tr, d)[: len(self.units)] for d in DELAYS}
        self.x = run.features[self.units, run.middle]
        self.choices: dict[tuple[Any, ...], Any] = {}
        if max(map(len, self.y.values())) < FEWEST:
            raise FitError(
                f"The recipe needs at least {FEWEST} units with scans in a run; this one has fewer."
            )

    def scores(self, flaws: frozenset[str], layers: Sequence[int]) -> list[float]:
        """Score layers with some flaws left: mean over folds and voxels."""
        rows = np.arange(min(map(len, self.y.values())))
        delay = None
        if "delay" in flaws:
            delay = self.choose_delay(None)
            rows = np.arange(len(self.y[delay]))
        by_fold = []
        for train, test in self.folds(rows, "folds" in flaws):
            d = self.choose_delay(train) if delay is None else delay
            voxels = self.choose_voxels(rows if "voxels" in flaws else train, d)
            y = self.y[d][:, voxels]
            by_fold.append([self._score(layer, train, test, y, flaws) for layer in layers])
        return [float(r) for r in np.mean(by_fold, axis=0)]

    def folds(self, rows: np.ndarray, shuffled: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """Split rows as published, or into blocks whose scans, at every delay, are apart from those of the training rows."""
        from sklearn.model_selection import KFold

        if shuffled:
            return list(KFold(n_splits=N_FOLDS, shuffle=True, random_state=42).split(rows))
        first = ((self.onset + min(DELAYS)) / self.run.tr).astype(int)[rows] - GAP
        last = ((self.onset + self.duration + max(DELAYS)) / self.run.tr).astype(int)[rows]
        folds = []
        for test in np.array_split(rows, N_FOLDS):
            # first includes the gap: a row's own scans begin at first + GAP
            clear = (last < first[test].min()) | (first > last[test].max())
            if clear.sum() < FEWEST_TRAINING:
                raise FitError(
                    f"With folds of neighbouring rows and a gap of {GAP} scans, {clear.sum()} of {len(rows)} rows of a run are left to learn "
                    f"from, and {FEWEST_TRAINING} are needed. Use longer runs for an ablation."
                )
            folds.append((rows[clear], test))
        return folds

    def choose_delay(self, train: np.ndarray | None) -> float:
        """Choose the delay that predicts the last fifth of some rows from their first four fifths; of all when None."""
        key = ("delay", None if train is None else train.tobytes())
        if key not in self.choices:
            probes = {}
            for delay, y in self.y.items():
                rows = np.arange(len(y)) if train is None else train
                if train is not None or len(rows) >= FEWEST:
                    probes[delay] = probe_delays(self.x[rows], y[rows], self.seed)
            defined = {d: r for d, r in probes.items() if np.isfinite(r)}
            if not defined:
                raise FitError("The recipe finds no delay: too few units, or no voxel that varies.")
            self.choices[key] = max(defined, key=lambda d: defined[d])
        return float(self.choices[key])

    def choose_voxels(self, rows: np.ndarray, delay: float) -> np.ndarray:
        """Choose the voxels that the middle layer fits best in some rows."""
        key = ("voxels", delay, rows.tobytes())
        if key not in self.choices:
            length = self.duration[rows, None]
            self.choices[key] = select_voxels(self.x[rows], self.y[delay][rows], length, self.seed)
        return np.asarray(self.choices[key])

    def _score(
        self, layer: int, train: np.ndarray, test: np.ndarray, y: np.ndarray, flaws: frozenset[str]
    ) -> float:
        from sklearn.linear_model import RidgeCV

        pca = self.run.components(layer, self.units[train], self.seed)
        states, length = self.run.features[self.units, layer], self.duration[:, None]
        x_train, x_test = pca.transform(states[train]), pca.transform(states[test])
        y_train, y_test = y[train], y[test]
        if "scaling" not in flaws:
            mean, spread = y_train.mean(axis=0), y_train.std(axis=0)
            spread[spread == 0] = 1.0
            y_train, y_test = (y_train - mean) / spread, (y_test - mean) / spread
        if "confounds" in flaws:
            y_test, x_test = residuals(y_test, length[test]), residuals(x_test, length[test])
        else:
            y_test = _residualise(y_train, y_test, length, train, test)
            x_test = _residualise(x_train, x_test, length, train, test)
        model = RidgeCV(alphas=PENALTIES)
        model.fit(residuals(x_train, length[train]), residuals(y_train, length[train]))
        r = correlations(y_test, model.predict(x_test))
        defined = r[~np.isnan(r)]
        return float(defined.mean()) if len(defined) else 0.0  # the recipe's 0 for "undefined" is kept


def _residualise(
    train_values: np.ndarray, test_values: np.ndarray, length: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Regress duration out of held-out rows with the coefficients of the training rows."""
    from sklearn.linear_model import LinearRegression

    if np.std(length[train]) < 1e-9:
        return test_values
    fitted = LinearRegression().fit(length[train], train_values).predict(length[test])
    residual: np.ndarray = test_values - fitted
    return residual
