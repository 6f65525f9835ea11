"""The recipe of a public 2025 LLaMA-3.1 / Le Petit Prince replication, exactly as published, leaks included.

It exists to reproduce published numbers and to show where they come from. Its scores say nothing about the
brain: noise gets r of .2 to .7 from it, with a peak at the layer that chose the voxels. Each run is analysed
separately. See `langcortex.encoding.protocol.REPLICATION_LEAKS` for what leaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.arrays import pearson
from langcortex.errors import FitError

DELAYS = (4.0, 6.0, 8.0, 10.0)
N_VOXELS = 300
N_PROBE_VOXELS = 100
SELECTION_PENALTY = 1000.0
PENALTIES = (100.0, 1000.0, 10000.0)
N_COMPONENTS = 15
N_SELECTION_COMPONENTS = 10


@dataclass(frozen=True, eq=False)
class RecipeScores:
    """Scores that the recipe reports for one run.

    Attributes
    ----------
    r : (n_layers,) mean over folds of the mean correlation over the chosen voxels
    delay : seconds, chosen on the rows that are scored
    voxels : (n_chosen,) column numbers, chosen on the rows that are scored
    n_rows : number of pairs of features and responses
    """

    r: np.ndarray
    delay: float
    voxels: np.ndarray
    n_rows: int


def select_units(texts: Sequence[str], tokens: Sequence[Sequence[str]]) -> np.ndarray:
    """Select the units that the published extraction keeps.

    It skips units of fewer than two words, and those whose tokens, joined and lower-cased one after the other,
    do not spell their words (any byte-level token that is no letter, such as an em dash, breaks the match).

    Parameters
    ----------
    texts : of the units
    tokens : of each unit, as strings, without beginning-of-text

    Returns
    -------
    (n_units,) bool
    """
    return np.array([_spells(text.lower().split(), parts) for text, parts in zip(texts, tokens, strict=True)])


def _spells(words: list[str], tokens: Sequence[str]) -> bool:
    if len(words) < 2:
        return False
    groups, spelt, word = 0, "", 0
    for token in tokens:
        text = token.replace("Ġ", "").replace("▁", "").lower().replace(" ", "")
        if spelt != words[word]:
            spelt += text
            continue
        groups += 1
        spelt = text
        word += 1
        if word == len(words):
            break
    return groups + 1 == len(words)  # the last group is closed by the end


def replicate_run(
    features: np.ndarray,
    values: np.ndarray,
    onset: np.ndarray,
    duration: np.ndarray,
    tr: float,
    unit_mask: np.ndarray,
    row_shift: bool,
    seed: int,
) -> RecipeScores:
    """Apply the recipe to one run.

    Parameters
    ----------
    features : (n_units, n_layers, width), one mean hidden state per pause group
    values : (n_scans, n_voxels) the run as recorded, without mask or cleaning; NaN columns have no signal
    onset, duration : (n_units,) seconds since the first scan
    tr : seconds
    unit_mask : (n_units,) bool, from `select_units`
    row_shift : pair the features of selected units with the first responses by position, as published; otherwise by unit
    seed : of the randomised PCA, which is unseeded in the original

    Returns
    -------
    RecipeScores

    Raises
    ------
    FitError : fewer than 20 units with scans and defined voxels
    """
    z = whole_run_z(values)
    x = features[unit_mask]
    if not row_shift:
        onset, duration = onset[unit_mask], duration[unit_mask]
    middle = x.shape[1] // 2
    best: tuple[float, float, np.ndarray] | None = None
    for delay in DELAYS:
        y = window_means(z, onset, duration, tr, delay)
        n = min(len(x), len(y))
        if n < 20:
            continue
        r = probe_delays(x[:n, middle], y[:n], seed)
        if np.isfinite(r) and (best is None or r > best[0]):
            best = (r, delay, y[:n])
    if best is None:
        raise FitError(
            "The recipe needs at least 20 units with scans and defined voxels in a run; this one has fewer."
        )
    _, delay, y = best
    n = len(y)
    length = duration[:n, None]
    voxels = select_voxels(x[:n, middle], y, length, seed)
    scores = np.array(
        [_cross_validate(x[:n, layer], y[:, voxels], length, seed) for layer in range(x.shape[1])]
    )
    return RecipeScores(scores, delay, voxels, n)


def whole_run_z(values: np.ndarray) -> np.ndarray:
    """Scale every voxel over the whole run (population standard deviation); a constant one becomes 0."""
    mean = values.mean(axis=0, dtype=np.float64)
    std = values.std(axis=0, dtype=np.float64)
    z = (values - mean) / np.where(std > 0, std, 1.0)
    scaled: np.ndarray = np.nan_to_num(z, nan=0.0)
    return scaled


def window_means(
    z: np.ndarray, onset: np.ndarray, duration: np.ndarray, tr: float, delay: float
) -> np.ndarray:
    """Average the scans from ⌊(begin + d)/TR⌋ to ⌊(end + d)/TR⌋; stop at the first unit past the last scan."""
    rows = []
    for begin, length in zip(onset, duration, strict=True):
        first, last = int((begin + delay) / tr), int((begin + length + delay) / tr)
        if first >= len(z):
            break
        rows.append(z[first : min(last + 1, len(z))].mean(axis=0))
    return np.array(rows)


def probe_delays(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Fit the first four fifths of some rows and return the mean of the 100 best correlations in the last; NaN without any."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge

    cut = int(len(x) * 0.8)
    pca = PCA(n_components=min(N_SELECTION_COMPONENTS, cut - 1), random_state=seed).fit(x[:cut])
    model = Ridge(alpha=SELECTION_PENALTY).fit(pca.transform(x[:cut]), y[:cut])
    r = _defined(y[cut:], model.predict(pca.transform(x[cut:])))
    return float(np.sort(r)[-N_PROBE_VOXELS:].mean()) if len(r) else float("nan")


def select_voxels(x: np.ndarray, y: np.ndarray, length: np.ndarray, seed: int) -> np.ndarray:
    """Choose the voxels that a fit to some rows predicts best in those rows: (n_chosen,) column numbers."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge

    z = PCA(n_components=min(N_SELECTION_COMPONENTS, len(x) - 1), random_state=seed).fit_transform(x)
    z, y = residuals(z, length), residuals(y, length)
    fitted = Ridge(alpha=SELECTION_PENALTY).fit(z, y).predict(z)
    r = correlations(y, fitted)
    order: np.ndarray = np.argsort(np.where(np.isnan(r), -1.0, r))[-N_VOXELS:]
    return order


def _cross_validate(x: np.ndarray, y: np.ndarray, length: np.ndarray, seed: int) -> float:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold

    scores = []
    for train, test in KFold(n_splits=5, shuffle=True, random_state=42).split(x):
        pca = PCA(n_components=min(N_COMPONENTS, len(train) - 1), random_state=seed).fit(x[train])
        model = RidgeCV(alphas=PENALTIES)
        model.fit(residuals(pca.transform(x[train]), length[train]), residuals(y[train], length[train]))
        # the published leak: test rows are residualised on themselves
        predicted = model.predict(residuals(pca.transform(x[test]), length[test]))
        r = _defined(residuals(y[test], length[test]), predicted)
        scores.append(r.mean() if len(r) else 0.0)  # the recipe's 0 for "undefined" is kept
    return float(np.mean(scores))


def residuals(y: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Regress duration out of some rows, with the coefficients of those same rows."""
    from sklearn.linear_model import LinearRegression

    if np.std(length) < 1e-9:
        return y
    residual: np.ndarray = y - LinearRegression().fit(length, y).predict(length)
    return residual


def correlations(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Correlate columns; as published, undefined where a standard deviation is below 1e-9."""
    usable = (p.std(axis=0) > 1e-9) & (y.std(axis=0) > 1e-9)
    return np.where(usable, pearson(y, p), np.nan)


def _defined(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    r = correlations(y, p)
    defined: np.ndarray = r[~np.isnan(r)]
    return defined
