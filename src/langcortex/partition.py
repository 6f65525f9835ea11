"""Unique and shared variance: what a model explains that controls do not, out of sample.

R² of sets of feature spaces fitted together (banded ridge) and R² without one of them, on the same rows, folds,
delays and confounds, say how much only that one explains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.banded import Banded, fit_bands
from langcortex.design import Design
from langcortex.encoding import region_means, score
from langcortex.errors import FitError
from langcortex.nested import Memo, without_spaces
from langcortex.protocol import Protocol


@dataclass(frozen=True, eq=False)
class Partition:
    """R² of a model and of controls, together, alone and without each other. NaN is undefined.

    All R² are out of sample against the training mean, pooled over held-out pieces; they may be below 0, and so
    may `unique` and `shared`: a set that carries nothing costs the joint prediction a little.

    Attributes
    ----------
    sets : (n_sets,) names of feature spaces, the model first, then the controls
    joint : (n_targets,) R² of all
    alone : (n_sets, n_targets) R² of each by itself
    without : (n_sets, n_targets) R² of all the others together; of the controls in row 0
    fits : the spaces of each fit, in the order of `sets` → the fit, with its scores by run

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728 (banded ridge and its variance decompositions);
    Hadidi et al. 2026, doi:10.1038/s41467-026-72253-7 (Ω)
    """

    sets: tuple[str, ...]
    joint: np.ndarray
    alone: np.ndarray
    without: np.ndarray
    fits: Mapping[tuple[str, ...], Banded]

    @property
    def unique(self) -> np.ndarray:
        """(n_sets, n_targets) what each explains that all the others do not: joint − without."""
        difference: np.ndarray = self.joint - self.without
        return difference

    @property
    def shared(self) -> np.ndarray:
        """(n_targets,) what more than one of them explains: joint − Σ unique."""
        rest: np.ndarray = self.joint - self.unique.sum(axis=0)
        return rest

    @property
    def omega(self) -> np.ndarray:
        """(n_targets,) Ω, the percentage of what the model explains that the controls explain too; see `omega`."""
        return omega(self.joint, self.without[0], self.alone[0])

    def by_region(self, regions: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """Average over regions; "brain" is all targets.

        Ω of a region is that of its mean R², each target's clipped at 0 before, as in the source: a mean of Ω over
        targets would be that of ratios of small numbers.

        Parameters
        ----------
        regions : name → (n_targets,) bool

        Returns
        -------
        region → {"joint", "shared", "omega", and for every set "alone SET", "without SET", "unique SET"} → mean over
        defined targets (those are the same for all); NaN where there is none
        """
        parts = {"joint": self.joint, "shared": self.shared}
        for i, name in enumerate(self.sets):
            parts[f"alone {name}"] = self.alone[i]
            parts[f"without {name}"] = self.without[i]
            parts[f"unique {name}"] = self.unique[i]
        means = {what: region_means(v, regions) for what, v in parts.items()}
        clipped = [
            region_means(np.maximum(v, 0.0), regions) for v in (self.joint, self.without[0], self.alone[0])
        ]
        table = {}
        for region in means["joint"]:
            both, controls, model = (np.array([part[region]]) for part in clipped)
            table[region] = {what: part[region] for what, part in means.items()}
            table[region]["omega"] = float(omega(both, controls, model)[0])
        return table


def omega(both: np.ndarray, controls: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Ω = 100 · (1 − clip((R²_both − R²_controls) / R²_model, 0, 1)), with R²_both at least R²_model.

    100 says that the controls explain all that the model explains, 0 that they explain none of it. (Clipping R² at 0
    first, as the source does, changes nothing for one target.)

    Parameters
    ----------
    both, controls, model : (n,) R²

    Returns
    -------
    (n,) percent; NaN where one is NaN, or where the model explains nothing (its R² is not above 0): there is
    nothing to be explained away. (The code published with the source says 100 there.)

    References
    ----------
    Hadidi et al. 2026, doi:10.1038/s41467-026-72253-7

    >>> omega(np.array([0.3, 0.2]), np.array([0.1, 0.2]), np.array([0.25, 0.0])).round(3).tolist()
    [20.0, nan]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.clip((np.maximum(both, model) - controls) / model, 0.0, 1.0)
    return np.where(model > 0, 100.0 * (1.0 - left), np.nan)


def partition(
    design: Design,
    model: str,
    controls: Sequence[str],
    protocol: Protocol,
    rng: np.random.Generator,
    n_gammas: int = 100,
    delays: np.ndarray | None = None,
    pca: Mapping[str, int | None] | None = None,
) -> Partition:
    """Fit a model and controls together, each alone, and all without each, on the same folds.

    Parameters
    ----------
    design : rows of one subject
    model : a key of ``design.X``
    controls : other keys, e.g. word rate, position, surprisal, the untrained twin; a band each
    protocol : the choices. Whatever is partitioned is not regressed out as a confound, in any of the fits
    rng, n_gammas, delays, pca : as in `langcortex.banded.fit_bands`; delays are shared by all fits

    Returns
    -------
    Partition; three fits with one control, 2 · n_sets + 1 with more

    Raises
    ------
    FitError : there is no control, a space is unknown, named twice or not finite
    """
    if isinstance(controls, str) or not controls:
        raise FitError(
            "partition needs a list of at least one control space; without controls, the model's R² is unique."
        )
    sets = (model, *controls)
    protocol = without_spaces(protocol, sets)
    others = [tuple(s for s in sets if s != name) for name in sets]
    fits: dict[tuple[str, ...], Banded] = {}
    memo = Memo()
    for names in (sets, *((name,) for name in sets), *others):
        if names not in fits:
            of_names = {name: n for name, n in (pca or {}).items() if name in names}
            fits[names] = fit_bands(design, names, protocol, rng, n_gammas, delays, of_names, memo=memo)
    r2 = {names: score(fit.encoding).r2 for names, fit in fits.items()}
    known = np.isfinite(np.stack(list(r2.values()))).all(axis=0)
    r2 = {names: np.where(known, values, np.nan) for names, values in r2.items()}
    return Partition(
        sets, r2[sets], np.stack([r2[(name,)] for name in sets]), np.stack([r2[o] for o in others]), fits
    )
