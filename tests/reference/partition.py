"""R² shared among feature spaces, one fit after another: the reference that a subject's partition is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.design.design import Design
from langcortex.encoding.banded import BandedEncoding, fit_bands
from langcortex.encoding.joint import BAND_BYTES, without_spaces
from langcortex.encoding.prepare import PreparedCache
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.encoding.variance_partition import Partition
from langcortex.errors import FitError


def split_scores(banded: BandedEncoding) -> np.ndarray:
    """Split R² among bands by the product measure, out of sample: (n_bands, n_targets).

    They add up to ``score(banded.encoding).r2``. Each is what the band's own prediction takes off the error of the
    joint one; it may be below 0, and where bands are correlated it says how the joint model shared the work, not
    what is in a band (`langcortex.encoding.variance_partition`).

    References
    ----------
    Dupré la Tour et al. 2022, doi:10.1016/j.neuroimage.2022.119728
    """
    total = np.nansum(banded.encoding.sst, axis=0)
    defined = np.isfinite(banded.encoding.sst).any(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, np.nansum(banded.product_measure, axis=1) / total, np.nan)


@dataclass(frozen=True, eq=False)
class FittedPartition(Partition):
    """A partition with its fits.

    Attributes
    ----------
    fits : the spaces of each fit, in the order of `sets` → the fit, with its scores by run
    """

    fits: Mapping[tuple[str, ...], BandedEncoding]


def partition(
    design: Design,
    model: str,
    controls: Sequence[str],
    protocol: Protocol,
    rng: np.random.Generator,
    n_band_weights: int = 100,
    delays: np.ndarray | None = None,
    pca: Mapping[str, int | None] | None = None,
) -> FittedPartition:
    """Fit a model and controls together, each alone, and all without each, on the same folds.

    Parameters
    ----------
    design : rows of one subject
    model : a key of ``design.X``
    controls : other keys, e.g. word rate, position, surprisal, the untrained twin; a band each
    protocol : the choices. Whatever is partitioned is not regressed out as a confound, in any of the fits
    rng, n_band_weights, delays, pca : as in `langcortex.encoding.banded.fit_bands`; delays are shared by all fits

    Returns
    -------
    FittedPartition; three fits with one control, 2 · n_sets + 1 with more

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
    subsets = [tuple(s for s in sets if s != name) for name in sets]
    fits: dict[tuple[str, ...], BandedEncoding] = {}
    cache = PreparedCache(BAND_BYTES)
    for names in (sets, *((name,) for name in sets), *subsets):
        if names not in fits:
            of_names = {name: n for name, n in (pca or {}).items() if name in names}
            fits[names] = fit_bands(
                design, names, protocol, rng, n_band_weights, delays, of_names, cache=cache
            )
    r2 = {names: score(fit.encoding).r2 for names, fit in fits.items()}
    defined = np.isfinite(np.stack(list(r2.values()))).all(axis=0)
    r2 = {names: np.where(defined, values, np.nan) for names, values in r2.items()}
    alone, without = np.stack([r2[(name,)] for name in sets]), np.stack([r2[subset] for subset in subsets])
    return FittedPartition(sets, r2[sets], alone, without, fits)
