"""Variance partitioning: what a model explains that controls do not, out of sample.

The R² of feature spaces fitted together (banded ridge), minus the R² without one of them on the same rows, folds,
delays and confounds, is what that one explains uniquely.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from langcortex.brain.space import Space
from langcortex.cache import Store, digest
from langcortex.design.design import Design, LazyMapping
from langcortex.encoding.banded import fit_bands
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.joint import BAND_BYTES, without_spaces
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine, PreparedCache
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import pooled_r2, region_means
from langcortex.errors import FitError


@dataclass(frozen=True, eq=False)
class Partition:
    """R² of a model and of controls, together, alone and without each other. NaN is undefined.

    All R² are out of sample against the training mean, pooled over test segments; they may be below 0, and so
    may `unique` and `shared`: a set without information costs the joint prediction a little.

    Attributes
    ----------
    sets : (n_sets,) names of feature spaces, the model first, then the controls
    joint : (n_targets,) R² of all
    alone : (n_sets, n_targets) R² of each by itself
    without : (n_sets, n_targets) R² of all the others together; of the controls in row 0

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728 (banded ridge and its variance decompositions);
    Hadidi et al. 2026, doi:10.1038/s41467-026-72253-7 (Ω)
    """

    sets: tuple[str, ...]
    joint: np.ndarray
    alone: np.ndarray
    without: np.ndarray

    @property
    def unique(self) -> np.ndarray:
        """Variance that each set explains and all the others do not: (n_sets, n_targets), joint − without."""
        difference: np.ndarray = self.joint - self.without
        return difference

    @property
    def shared(self) -> np.ndarray:
        """Variance that more than one set explains: (n_targets,), joint − Σ unique."""
        shared: np.ndarray = self.joint - self.unique.sum(axis=0)
        return shared

    @property
    def omega(self) -> np.ndarray:
        """Percentage Ω of what the model explains that the controls explain too: (n_targets,), see `omega`."""
        return omega(self.joint, self.without[0], self.alone[0])

    def by_region(self, regions: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """Average over regions; "brain" is all targets.

        Ω of a region is that of its mean R², each target's clipped at 0 before, as in the source: the mean of Ω over
        targets would average ratios of small numbers.

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
            joint, controls, model = (np.array([part[region]]) for part in clipped)
            table[region] = {what: part[region] for what, part in means.items()}
            table[region]["omega"] = float(omega(joint, controls, model)[0])
        return table


def omega(joint: np.ndarray, controls: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Compute Ω = 100 · (1 − clip((R²_joint − R²_controls) / R²_model, 0, 1)), with R²_joint at least R²_model.

    At 100 the controls explain all that the model explains, at 0 none of it. (Clipping R² at 0 first, as the source
    does, changes nothing for one target.)

    Parameters
    ----------
    joint, controls, model : (n,) R²

    Returns
    -------
    (n,) percent; NaN where one is NaN, or where the model explains nothing (its R² is not above 0): there is
    nothing to be explained away. (The code published with the source returns 100 there.)

    References
    ----------
    Hadidi et al. 2026, doi:10.1038/s41467-026-72253-7

    >>> omega(np.array([0.3, 0.2]), np.array([0.1, 0.2]), np.array([0.25, 0.0])).round(3).tolist()
    [20.0, nan]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        unexplained = np.clip((np.maximum(joint, model) - controls) / model, 0.0, 1.0)
    return np.where(model > 0, 100.0 * (1.0 - unexplained), np.nan)


VERSION = 2  # raised whenever the same design, bands and protocol would give other numbers
Folds = Sequence[Sequence[str]]
"""The feature spaces whose columns make up a band, for every outer fold."""
StepProgress = Callable[[int, int], None]
"""Called with the number of fits done, and of all."""


@dataclass(frozen=True, eq=False)
class SubjectPartition:
    """One subject's partition of a model and of controls.

    Attributes
    ----------
    subject, model : names
    bands : (n_bands,) the model first
    pooled : of R² pooled over held-out runs
    by_run : run → of the R² of that run
    """

    subject: str
    model: str
    bands: tuple[str, ...]
    pooled: Partition
    by_run: Mapping[str, Partition]


def band_subsets(bands: Sequence[str]) -> list[tuple[str, ...]]:
    """List the sets of bands that are fitted: all, each by itself, and all without each; the model comes first.

    >>> band_subsets(["model", "sound"])
    [('model', 'sound'), ('model',), ('sound',)]
    """
    return list(dict.fromkeys([tuple(bands), *((band,) for band in bands), *_subsets_without_one(bands)]))


def _subsets_without_one(bands: Sequence[str]) -> list[tuple[str, ...]]:
    """List the bands without the first, without the second, and so on."""
    return [tuple(band for band in bands if band != missing) for missing in bands]


def partition_subject(
    design: Design,
    model: str,
    bands: Mapping[str, Folds],
    protocol: Protocol,
    *,
    full_bands: Sequence[str] = (),
    delays: np.ndarray | None = None,
    n_band_weights: int = 60,
    seed: int = 0,
    targets: np.ndarray | None = None,
    store: Store | None = None,
    y_digest: str = "",
    progress: StepProgress | None = None,
    engine: Engine = DEFAULT_ENGINE,
) -> SubjectPartition:
    """Fit all bands together, each alone, and all without each; every outer fold with the spaces named for it.

    Parameters
    ----------
    design : rows of one subject
    model : its name
    bands : band → for each outer fold its feature spaces, whose columns share a penalty; the model's band first
    protocol : the choices. Whatever is in a band is not regressed out as a confound in any of the fits
    full_bands : the bands that keep their own columns where the protocol keeps principal components
    delays : as in `langcortex.encoding.banded.fit_bands`
    n_band_weights, seed : how many weights of bands are tried, and the seed they are drawn with
    targets : (n_targets,) bool, the targets to fit; the others are NaN. All when None
    store, y_digest : where finished fits are kept, and the name of the responses; one result per set of bands and layer
    progress : called as fits are done
    engine : its executor works on several sets at once, each in about half a gigabyte

    Returns
    -------
    SubjectPartition; a target that is undefined in one fit is NaN in all

    Raises
    ------
    FitError : there is no control, a band does not name its spaces for every fold, or has a confound's name
    """
    fits = _SubsetFits(
        _select_targets(design, targets), bands, protocol, _select_delays(delays, targets), n_band_weights, seed, store,
        y_digest, full_bands,
    )  # fmt: skip
    subsets = band_subsets(list(bands))
    errors = {}
    for names, sums in zip(subsets, engine.map(fits.fit, subsets), strict=True):
        errors[names] = sums
        if progress:
            progress(len(errors), len(subsets))
    segment_run = fits.segment_run
    by_run = {
        str(run): _partition(tuple(bands), errors, segment_run == run, targets)
        for run in dict.fromkeys(segment_run.tolist())
    }
    pooled = _partition(tuple(bands), errors, np.ones(len(segment_run), dtype=bool), targets)
    return SubjectPartition(design.subject, model, tuple(bands), pooled, by_run)


class _SubsetFits:
    """Fits sets of bands to one subject, and finds fits in a store again."""

    def __init__(
        self,
        design: Design,
        bands: Mapping[str, Folds],
        protocol: Protocol,
        delays: np.ndarray | None,
        n_band_weights: int,
        seed: int,
        store: Store | None,
        y_digest: str,
        full_bands: Sequence[str] = (),
    ) -> None:
        self.design, self.bands, self.delays = design, bands, delays
        spaces = {space for folds in bands.values() for names in folds for space in names}
        self.protocol = without_spaces(protocol, sorted(spaces))
        self.n_band_weights, self.seed, self.store = n_band_weights, seed, store
        self.full_bands = tuple(name for name in bands if name in full_bands)
        self.cache = PreparedCache(BAND_BYTES)
        self.n_folds = len(FoldedDesign(design, protocol).folds)
        self.segment_run = np.empty(0)
        self._check()
        rows = (design.ids, design.run, design.scans, design.space.names)
        lags = [] if delays is None else [np.asarray(delays)]
        choices = self.protocol.deciding()
        self.digest = digest(
            y_digest, choices, *rows, *lags, n_band_weights, seed, list(self.full_bands), VERSION
        )

    def _check(self) -> None:
        if len(self.bands) < 2:
            raise FitError("A partition needs a model and at least one band of controls.")
        for name, folds in self.bands.items():
            if len(folds) != self.n_folds or not all(folds):
                raise FitError(
                    f"The band '{name}' must name feature spaces for each of the {self.n_folds} outer folds."
                )
            if name in self.protocol.confounds:
                raise FitError(
                    f"'{name}' is a confound and the name of a band that does not contain it. Rename the band."
                )

    def fit(self, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return SSE and SST of one set of bands: (n_segments, n_targets) each."""
        groups: dict[tuple[tuple[str, ...], ...], list[int]] = {}
        for k in range(self.n_folds):
            groups.setdefault(tuple(tuple(self.bands[name][k]) for name in names), []).append(k)
        (sse, sst), *more = [self._fit_group(names, spaces, folds) for spaces, folds in groups.items()]
        for group_sse, group_sst in more:
            # every segment is held out in one fold, so only one group defines it
            sse, sst = np.where(np.isnan(sse), group_sse, sse), np.where(np.isnan(sst), group_sst, sst)
        return sse, sst

    def _fit_group(
        self, names: tuple[str, ...], spaces: Sequence[Sequence[str]], folds: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit the folds in which the bands consist of the same spaces, or find the fit in the store."""
        X = {
            name: np.hstack([np.asarray(self.design.X[space]) for space in group])
            for name, group in zip(names, spaces, strict=True)
        }
        confounds = {name: np.asarray(self.design.X[name]) for name in self.protocol.confounds}
        key = "bands-" + digest(list(names), *X.values(), *confounds.values(), folds, self.digest)
        if self.store is not None and self.store.check(key, ("sse", "sst"), ("piece_run",)):
            self.segment_run = np.array(self.store.meta(key)["piece_run"])
            sse, sst = (np.asarray(self.store.array(key, a), dtype=np.float64) for a in ("sse", "sst"))
            return sse, sst
        rng = np.random.default_rng([self.seed, len(names)])
        design = replace(self.design, X={**confounds, **X})
        encoding = fit_bands(
            design, names, self.protocol, rng, self.n_band_weights, self.delays,
            pca=dict.fromkeys(set(names) & set(self.full_bands)), folds=folds, cache=self.cache,
        ).encoding  # fmt: skip
        self.segment_run = encoding.segment_run
        if self.store is not None:
            arrays = {"sse": encoding.sse.astype(np.float32), "sst": encoding.sst.astype(np.float32)}
            self.store.save(key, arrays, {"piece_run": encoding.segment_run.tolist()})
            return arrays["sse"].astype(np.float64), arrays["sst"].astype(
                np.float64
            )  # as they are found again
        return encoding.sse, encoding.sst


def _select_targets(design: Design, targets: np.ndarray | None) -> Design:
    """Return the design with some targets only."""
    if targets is None or bool(np.all(targets)):
        return design
    numbers = np.flatnonzero(targets)
    if not len(numbers):
        raise FitError("No target is in the region that is to be partitioned.")
    space = Space("columns", design.space.names[numbers])
    Y = LazyMapping(tuple(design.Y), lambda delay: np.asarray(design.Y[cast(float, delay)])[:, numbers])
    return replace(design, Y=cast(Mapping[float, np.ndarray], Y), space=space)


def _select_delays(delays: np.ndarray | None, targets: np.ndarray | None) -> np.ndarray | None:
    if delays is None or targets is None or delays.shape[1] == 1 or bool(np.all(targets)):
        return delays
    return delays[:, np.flatnonzero(targets)]


def _partition(
    bands: tuple[str, ...],
    errors: Mapping[tuple[str, ...], tuple[np.ndarray, np.ndarray]],
    segments: np.ndarray,
    targets: np.ndarray | None,
) -> Partition:
    """Turn SSE and SST of every set, over some test segments, into a partition of R²."""
    r2 = {names: pooled_r2(sse[segments], sst[segments]) for names, (sse, sst) in errors.items()}
    defined = np.isfinite(np.stack(list(r2.values()))).all(axis=0)

    def on_all_targets(names: tuple[str, ...]) -> np.ndarray:
        values = np.where(defined, r2[names], np.nan)
        if targets is None or len(values) == len(targets):
            return values
        complete = np.full(len(targets), np.nan)
        complete[np.flatnonzero(targets)] = values
        return complete

    return Partition(
        bands,
        on_all_targets(bands),
        np.stack([on_all_targets((band,)) for band in bands]),
        np.stack([on_all_targets(subset) for subset in _subsets_without_one(bands)]),
    )
