"""Unique and shared variance: what a model explains that controls do not, out of sample.

R² of sets of feature spaces fitted together (banded ridge) and R² without one of them, on the same rows, folds,
delays and confounds, say how much only that one explains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np

from langcortex.brain.space import Space
from langcortex.cache import Store, digest
from langcortex.design.design import Design, Lazy
from langcortex.encoding.banded import BandedEncoding, fit_bands
from langcortex.encoding.joint import Memo, without_spaces
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.encoding.scores import region_means, score
from langcortex.errors import FitError


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
    fits: Mapping[tuple[str, ...], BandedEncoding]

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
    rng, n_gammas, delays, pca : as in `langcortex.encoding.banded.fit_bands`; delays are shared by all fits

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
    fits: dict[tuple[str, ...], BandedEncoding] = {}
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


VERSION = 1  # raised whenever the same design, bands and protocol would give other numbers
AFTERWARDS = (
    "name",
    "n_nulls",
    "leaks",
    "null",
    "null_penalties",
    "null_block",
)  # nothing of these decides a fit
Folds = Sequence[Sequence[str]]
"""For every outer fold, the feature spaces that a band holds side by side."""
StepProgress = Callable[[int, int], None]
"""Called with how many fits are done, and of how many."""


@dataclass(frozen=True, eq=False)
class SubjectPartition:
    """One subject's partition of a model and of controls.

    Attributes
    ----------
    subject, model : names
    bands : (n_bands,) the model first
    whole : R² pooled over held-out runs
    by_run : run → R² of that run
    """

    subject: str
    model: str
    bands: tuple[str, ...]
    whole: Partition
    by_run: Mapping[str, Partition]


def band_subsets(bands: Sequence[str]) -> list[tuple[str, ...]]:
    """List the sets of bands that are fitted: all, each by itself, and all without each; the model comes first.

    >>> band_subsets(["model", "sound"])
    [('model', 'sound'), ('model',), ('sound',)]
    """
    whole = tuple(bands)
    without = [tuple(b for b in bands if b != left) for left in bands]
    return list(dict.fromkeys([whole, *((b,) for b in bands), *without]))


def partition_subject(
    design: Design,
    model: str,
    bands: Mapping[str, Folds],
    protocol: Protocol,
    *,
    delays: np.ndarray | None = None,
    n_gammas: int = 60,
    seed: int = 0,
    inside: np.ndarray | None = None,
    kept: Store | None = None,
    y_digest: str = "",
    progress: StepProgress | None = None,
    pool: Executor | None = None,
) -> SubjectPartition:
    """Fit all bands together, each alone, and all without each; every outer fold with the spaces named for it.

    Parameters
    ----------
    design : rows of one subject
    model : name, for the record
    bands : band → for each outer fold its feature spaces, whose columns share a penalty; the model's band first
    protocol : the choices. Whatever is in a band is not regressed out as a confound in any of the fits
    delays : as in `langcortex.encoding.banded.fit_bands`
    n_gammas, seed : how many weights of bands are tried, and the seed they are drawn with
    inside : (n_targets,) bool, the targets to fit; the others are NaN. All when None
    kept, y_digest : where finished fits are kept, and what names the responses; one file a set of bands and layer
    progress : called as fits are done
    pool : works on several sets at once, each in about half a gigabyte

    Returns
    -------
    Shares; a target that is undefined in one fit is NaN in all

    Raises
    ------
    FitError : there is no control, a band does not say what it holds in every fold, or carries a confound's name
    """
    ask = _Ask(
        _of_targets(design, inside), bands, protocol, _at(delays, inside), n_gammas, seed, kept, y_digest
    )
    sets = band_subsets(list(bands))
    parts = {}
    for names, found in zip(sets, pool.map(ask.fit, sets) if pool else map(ask.fit, sets), strict=True):
        parts[names] = found
        if progress:
            progress(len(parts), len(sets))
    pieces = ask.piece_run
    runs = list(dict.fromkeys(pieces.tolist()))
    every = np.ones(len(pieces), dtype=bool)
    by_run = {str(run): _partition(tuple(bands), parts, pieces == run, inside) for run in runs}
    every = np.ones(len(pieces), dtype=bool)
    return SubjectPartition(
        design.subject, model, tuple(bands), _partition(tuple(bands), parts, every, inside), by_run
    )


class _Ask:
    """What is asked of every set of bands: the same rows, folds, delays and seed."""

    def __init__(
        self,
        design: Design,
        bands: Mapping[str, Folds],
        protocol: Protocol,
        delays: np.ndarray | None,
        n_gammas: int,
        seed: int,
        kept: Store | None,
        y_digest: str,
    ) -> None:
        held = {space for folds in bands.values() for spaces in folds for space in spaces}
        self.design, self.bands, self.delays = design, bands, delays
        self.protocol = without_spaces(protocol, sorted(held))
        self.n_gammas, self.seed, self.kept = n_gammas, seed, kept
        self.memo = Memo()
        self.n_folds = len(outer_folds(design.run, design.scans, protocol))
        self.piece_run = np.empty(0)
        self._check()
        chosen = asdict(self.protocol)
        settings = {k: chosen[k] for k in chosen if k not in AFTERWARDS and not k.startswith("null")}
        rows = (design.ids, design.run, design.scans, design.space.names)
        lags = [] if delays is None else [np.asarray(delays)]
        self.decided = digest(y_digest, settings, *rows, *lags, n_gammas, seed, VERSION)

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
                    f"'{name}' is a confound and the name of a band that does not hold it. Rename the band."
                )

    def fit(self, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Give SSE and SST of one set of bands: (n_pieces, n_targets) each."""
        groups: dict[tuple[tuple[str, ...], ...], list[int]] = {}
        for k in range(self.n_folds):
            groups.setdefault(tuple(tuple(self.bands[name][k]) for name in names), []).append(k)
        found = [self._of_group(names, spaces, folds) for spaces, folds in groups.items()]
        sse, sst = found[0]
        for more, other in found[1:]:
            # every piece is held out in one fold, so one group has it
            sse, sst = np.where(np.isnan(sse), more, sse), np.where(np.isnan(sst), other, sst)
        return sse, sst

    def _of_group(
        self, names: tuple[str, ...], spaces: Sequence[Sequence[str]], folds: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit the folds in which the bands hold the same spaces, or find the same fit again."""
        X = {
            name: np.hstack([np.asarray(self.design.X[one]) for one in held])
            for name, held in zip(names, spaces, strict=True)
        }
        others = {name: np.asarray(self.design.X[name]) for name in self.protocol.confounds}
        key = "bands-" + digest(list(names), *X.values(), *others.values(), folds, self.decided)
        if self.kept is not None and key in self.kept:
            self.piece_run = np.array(self.kept.meta(key)["piece_run"])
            sse, sst = (np.asarray(self.kept.array(key, a), dtype=np.float64) for a in ("sse", "sst"))
            return sse, sst
        rng = np.random.default_rng([self.seed, len(names)])
        design = replace(self.design, X={**others, **X})
        e = fit_bands(
            design, names, self.protocol, rng, self.n_gammas, self.delays, only=folds, memo=self.memo
        ).encoding
        self.piece_run = e.piece_run
        if self.kept is not None:
            arrays = {"sse": e.sse.astype(np.float32), "sst": e.sst.astype(np.float32)}
            self.kept.save(key, arrays, {"piece_run": e.piece_run.tolist()})
        return e.sse, e.sst


def _of_targets(design: Design, inside: np.ndarray | None) -> Design:
    """Take some targets only."""
    if inside is None or bool(np.all(inside)):
        return design
    where = np.flatnonzero(inside)
    if not len(where):
        raise FitError("No target lies in the region that is to be partitioned.")
    space = Space("columns", design.space.names[where])
    Y = Lazy(tuple(design.Y), lambda delay: np.asarray(design.Y[cast(float, delay)])[:, where])
    return replace(design, Y=cast(Mapping[float, np.ndarray], Y), space=space)


def _at(delays: np.ndarray | None, inside: np.ndarray | None) -> np.ndarray | None:
    if delays is None or inside is None or delays.shape[1] == 1 or bool(np.all(inside)):
        return delays
    return delays[:, np.flatnonzero(inside)]


def _partition(
    bands: tuple[str, ...],
    parts: Mapping[tuple[str, ...], tuple[np.ndarray, np.ndarray]],
    rows: np.ndarray,
    inside: np.ndarray | None,
) -> Partition:
    """Turn SSE and SST of some held-out pieces into R² of every set."""
    r2 = {names: _r2(sse[rows], sst[rows]) for names, (sse, sst) in parts.items()}
    known = np.isfinite(np.stack(list(r2.values()))).all(axis=0)

    def full(names: tuple[str, ...]) -> np.ndarray:
        values = np.where(known, r2[names], np.nan)
        if inside is None or len(values) == len(inside):
            return values
        out = np.full(len(inside), np.nan)
        out[np.flatnonzero(inside)] = values
        return out

    others = [tuple(b for b in bands if b != left) for left in bands]
    return Partition(
        bands, full(bands), np.stack([full((b,)) for b in bands]), np.stack([full(o) for o in others]), {}
    )


def _r2(sse: np.ndarray, sst: np.ndarray) -> np.ndarray:
    known = np.isfinite(sst).any(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, 1.0 - np.nansum(sse, axis=0) / np.nansum(sst, axis=0), np.nan)
