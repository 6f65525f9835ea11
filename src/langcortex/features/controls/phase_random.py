"""Random features with the autocorrelation and cross-correlation of a model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.table import Features
from langcortex.stimulus.story import Story

FEWEST = 8  # rows per run: with fewer, hardly any phase is free and the copy equals the original


def random_like(features: Features, seed: int = 0) -> Features:
    """Randomise the phases of a table: the same spectrum, without a relation to the story.

    In each run, columns are Fourier-transformed, X(f), each frequency is multiplied by one random phase for all
    columns, X(f) exp(iφ(f)), and transformed back. So every column keeps its mean, variance and (circular)
    autocorrelation in the run, and every two columns keep their cross-correlation at every lag: what a model with
    these statistics predicts by chance. Rows count as evenly spaced, and the end of a run as next to its beginning.

    Parameters
    ----------
    features : rows of a run in the order of time
    seed : with a run's name it determines the run's phases, which are the same for all layers of a model and do
        not depend on other runs

    Raises
    ------
    SettingsError : a run has fewer than 8 rows, or the seed is below 0

    References
    ----------
    Prichard & Theiler 1994, doi:10.1103/PhysRevLett.73.951; Theiler et al. 1992, doi:10.1016/0167-2789(92)90102-S
    """
    if seed < 0:
        raise SettingsError(f"The seed of random features is a whole number from 0, not {seed}.")
    out = np.empty(features.values.shape, dtype=np.float64)
    for run in dict.fromkeys(features.run.tolist()):
        rows = np.flatnonzero(features.run == run)
        if len(rows) < FEWEST:
            raise SettingsError(
                f"Run '{run}' has {len(rows)} rows of '{features.name}'; random features like it need {FEWEST}. "
                "Use word features, or longer runs."
            )
        rng = np.random.default_rng([seed, *str(run).encode()])
        out[rows] = _randomise_phases(np.asarray(features.values[rows], dtype=np.float64), rng)
    return replace(features, name=f"random-{seed}({features.name})", values=out.astype(features.values.dtype))


def random_features(
    story: Story, *, like: str, seed: int = 0, tables: Mapping[str, Features] | None = None
) -> Features:
    """Make random features with the spectrum of a model's layer, see `random_like`.

    Parameters
    ----------
    story : as for every control; the rows are the layer's
    like : name of a feature space, e.g. "smollm2/layer-15"
    seed : of the phases
    tables : the feature spaces by name

    Raises
    ------
    SettingsError : there is no such feature space, or a run has fewer than 8 rows of it
    """
    if not tables or like not in tables:
        names = ", ".join(list(tables or ())[:12]) or "none"
        raise SettingsError(
            f"random features are to be like '{like}', but there is no such feature space. There are: {names}."
        )
    return random_like(tables[like], seed)


def _randomise_phases(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply each frequency by one random phase for all columns: (n_rows, n_columns)."""
    n = len(values)
    phases = np.exp(2j * np.pi * rng.random(n // 2 + 1))
    phases[0] = 1.0
    if n % 2 == 0:
        phases[-1] = rng.choice([-1.0, 1.0])  # the highest frequency of an even number of rows is real
    return np.fft.irfft(np.fft.rfft(values, axis=0) * phases[:, None], n, axis=0)
