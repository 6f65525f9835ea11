"""The shape of a curve of scores over layers: its peak, its two slopes, and tests against flat curves and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from langcortex.errors import FitError
from langcortex.stats.equivalence import widening
from langcortex.stats.resampling import Resampling, describe_seed
from langcortex.stats.sign_flips import EXACT, sign_patterns

FEWEST = 6  # layers: two lines need three points each


@dataclass(frozen=True, eq=False)
class Peak:
    """Where the mean curve is highest.

    Attributes
    ----------
    layer : the layer with the highest mean score
    low, high : 95 % bootstrap interval of that layer, over units
    share : (n_layers,) in which share of bootstrap draws each layer is the highest
    resampling : unit, number, seed
    """

    layer: float
    low: float
    high: float
    share: np.ndarray
    resampling: Resampling


@dataclass(frozen=True, eq=False)
class TwoLines:
    """A line up to a layer and a second line from that layer on.

    Attributes
    ----------
    split : the layer that ends the first line and begins the second
    slope : (2,) change of score per layer, mean over units, before and after the split
    p : (2,) two-sided, t over units
    df : degrees of freedom, units − 1
    """

    split: float
    slope: np.ndarray
    p: np.ndarray
    df: int

    @property
    def inverted_u(self) -> bool:
        """Whether the curve rises and then falls, both significant at .05."""
        return bool((self.p <= 0.05).all() and self.slope[0] > 0 > self.slope[1])


@dataclass(frozen=True, eq=False)
class LayerShape:
    """A test of the shape of a curve.

    Attributes
    ----------
    value : the statistic: "range" (highest minus lowest mean score) or "quadratic" (how much the curve bends down)
    p : share of nulls at least as large, the observed curve among them
    statistic : its name
    resampling : unit, number, seed
    """

    value: float
    p: float
    statistic: str
    resampling: Resampling


@dataclass(frozen=True, eq=False)
class LayerCurve:
    """Peak, slopes and tests of one model's curve of scores over layers.

    Attributes
    ----------
    name : of the model
    unit : "subjects" or "runs"
    n_units : how many
    peak : see `Peak`
    lines : see `TwoLines`
    flat : test against a flat curve
    against_noise : test against curves of noise from the same protocol; None where there are none
    edges : the first and the last layer
    """

    name: str
    unit: str
    n_units: int
    peak: Peak
    lines: TwoLines
    flat: LayerShape
    against_noise: LayerShape | None
    edges: tuple[float, float]

    @property
    def verdict(self) -> str:
        """One sentence: an inverted U, none, or undecided."""
        peak, n = self.peak, f"{self.n_units} {self.unit}"
        where = f"peak at layer {peak.layer:g}, 95 % interval {peak.low:g} to {peak.high:g}; {n}"
        smallest = 2.0 / 2**self.n_units  # a curve and its mirror image have the same range
        if smallest > 0.05:
            return f"Undecided: {self.n_units} {self.unit} are too few to show that the curve of {self.name} is not flat: sign flips of whole curves give no p below {smallest:.2g} ({where})."
        if self.flat.p > 0.05:
            return (
                f"Undecided: the curve of {self.name} is not shown to differ from a flat one (p = {self.flat.p:.3g}); its peak is "
                f"not to be read ({where})."
            )
        if self.against_noise is not None and self.against_noise.p > 0.05:
            return (
                f"No inverted U is shown: the curve of {self.name} is not flat, but noise gives such a curve in this protocol "
                f"(p = {self.against_noise.p:.3g}; {where})."
            )
        up, down = self.lines.slope
        lines = (
            f"{up:+.2g} a layer up to layer {self.lines.split:g} (p = {self.lines.p[0]:.2g}), {down:+.2g} from it on "
            f"(p = {self.lines.p[1]:.2g}); {where}"
        )
        if not self.lines.inverted_u:
            return f"No inverted U is shown: the curve of {self.name} is not flat, but not both rising and falling ({lines})."
        if self.edges[0] in (peak.low, peak.high) or self.edges[1] in (peak.low, peak.high):
            return f"Undecided: {self.name} rises and falls, but the peak may lie at the first or last layer ({lines})."
        return f"Inverted U: {self.name} rises and falls ({lines})."


def analyse_layer_curve(
    curves: np.ndarray,
    layers: np.ndarray,
    name: str,
    unit: str,
    rng: np.random.Generator,
    null: np.ndarray | None = None,
    n_resamples: int = 10_000,
) -> LayerCurve:
    """Locate the peak of a curve, fit two lines, and test its shape.

    Parameters
    ----------
    curves : (n_units, n_layers) scores; units with an undefined score are left out
    layers : (n_layers,) their numbers, in rising order
    name : of the model
    unit : "subjects" or "runs"
    rng : the source of randomness
    null : (n_nulls, n_layers) mean curves of noise through the same protocol, where there are any
    n_resamples : bootstrap samples and nulls

    Raises
    ------
    FitError : fewer than 6 layers or 3 units
    """
    curves, layers = _check_curves(curves, layers)
    return LayerCurve(
        name, unit, len(curves),
        locate_peak(curves, layers, unit, rng, n_resamples),
        fit_two_lines(curves, layers, unit),
        flat_test(curves, layers, unit, rng, n_resamples),
        None if null is None else profile_test(curves.mean(axis=0), null),
        (float(layers[0]), float(layers[-1])),
    )  # fmt: skip


def locate_peak(
    curves: np.ndarray, layers: np.ndarray, unit: str, rng: np.random.Generator, n_resamples: int = 10_000
) -> Peak:
    """Find the layer with the highest mean score, and its bootstrap interval over units.

    For "runs", which share training data, bootstrap curves are moved away from the mean curve by the factor of
    `langcortex.stats.equivalence.widening`.
    """
    curves, layers = _check_curves(curves, layers)
    n, mean, seed = len(curves), curves.mean(axis=0), describe_seed(rng)
    units = rng.integers(0, n, (n_resamples, n)) + n * np.arange(n_resamples)[:, None]
    draws = np.bincount(units.ravel(), minlength=n * n_resamples).reshape(n_resamples, n) @ curves / n
    best = np.argmax(mean + widening(unit, n) * (draws - mean), axis=1)
    share = np.bincount(best, minlength=len(layers)) / n_resamples
    low, high = np.percentile(layers[best], [2.5, 97.5], method="inverted_cdf")
    record = Resampling(unit, "bootstrap (percentile)", n_resamples, seed)
    return Peak(float(layers[np.argmax(mean)]), float(low), float(high), share, record)


def fit_two_lines(curves: np.ndarray, layers: np.ndarray, unit: str) -> TwoLines:
    """Fit a line up to a split and a second line from it on, and test both slopes.

    The split is Simonsohn's "Robin Hood": among layers whose smoothed mean score is within a standard error of the highest, it
    is moved towards the line with stronger evidence, so that the weaker line has more layers. Slopes are fitted within each
    unit and tested by t over units, as a regression with units as clusters does when every unit has every layer. A jump
    between the lines is allowed.

    Parameters
    ----------
    curves : (n_units, n_layers)
    layers : (n_layers,)
    unit : "subjects", or "runs", whose spread is widened

    Notes
    -----
    The article smooths with a spline of R's mgcv; here squared second differences are penalised, with a penalty from
    generalised cross-validation, and the standard error is that of the smoothed scores over units. The split leaves two
    layers on either side.

    References
    ----------
    Simonsohn 2018, doi:10.1177/2515245918805755
    """
    curves, layers = _check_curves(curves, layers)
    near = _layers_near_top(curves, layers)
    first = _lines(curves, layers, float(np.median(near)), unit)
    strength = np.abs(stats.t.ppf(np.maximum(first.p, 1e-12) / 2, first.df))
    # a strong second line moves the split later, so that the weaker first line has more layers
    share = strength[1] / strength.sum() if strength.sum() > 0 else 0.5
    return _lines(curves, layers, float(np.quantile(near, share)), unit)


def _layers_near_top(curves: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Return the inner layers whose smoothed mean is within a standard error of the highest."""
    smoother = _smoother(curves.mean(axis=0), layers)
    mean, smoothed = smoother @ curves.mean(axis=0), curves @ smoother.T
    error = smoothed.std(axis=0, ddof=1) / np.sqrt(len(curves))
    inner = np.zeros(len(layers), dtype=bool)
    inner[2:-2] = True
    near: np.ndarray = layers[inner & (mean + error >= mean[inner].max())]
    return near


def _smoother(curve: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Return the matrix (n_layers, n_layers) that smooths curves, with the best penalty for this curve."""
    n = len(layers)
    first_difference = np.diff(np.eye(n), axis=0) / np.diff(layers)[:, None]
    second_difference = np.diff(first_difference, axis=0)
    values, vectors = np.linalg.eigh(second_difference.T @ second_difference)
    coefficients = vectors.T @ curve
    shrinkage = 1.0 / (1.0 + np.logspace(-3, 6, 46)[:, None] * np.maximum(values, 0.0))
    # generalised cross-validation
    cost = np.square((1 - shrinkage) * coefficients).sum(axis=1) / np.square(n - shrinkage.sum(axis=1))
    smoother: np.ndarray = (vectors * shrinkage[np.argmin(cost)]) @ vectors.T
    return smoother


def _lines(curves: np.ndarray, layers: np.ndarray, split: float, unit: str) -> TwoLines:
    sides = [layers <= split, layers >= split]
    slopes = np.stack([_slopes(curves[:, side], layers[side]) for side in sides])  # (2, n_units)
    n = len(curves)
    error = widening(unit, n) * slopes.std(axis=1, ddof=1) / np.sqrt(n)
    mean = slopes.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * stats.t.sf(np.abs(mean / error), n - 1)
    return TwoLines(split, mean, np.where(error > 0, p, np.where(mean == 0, 1.0, 0.0)), n - 1)


def _slopes(curves: np.ndarray, layers: np.ndarray) -> np.ndarray:
    x = layers - layers.mean()
    slopes: np.ndarray = curves @ x / np.square(x).sum()
    return slopes


def flat_test(
    curves: np.ndarray,
    layers: np.ndarray,
    unit: str,
    rng: np.random.Generator,
    n_nulls: int = 10_000,
    statistic: str = "range",
    how: str = "signs",
) -> LayerShape:
    """Test a curve against a flat one.

    Parameters
    ----------
    curves : (n_units, n_layers)
    layers : (n_layers,)
    unit : "subjects", or "runs", whose nulls are widened
    rng : the source of randomness
    n_nulls : how many random ones; up to 12 units, every pattern of signs is tried
    statistic : "range", highest minus lowest of the mean curve; or "quadratic", how much it bends down (one-sided)
    how : "signs" flips each unit's centred curve or not, which keeps the correlation of neighbouring layers; "labels" shuffles
        layers within each unit. Neighbouring layers are correlated, so shuffling gives "quadratic" a null that is too
        small: a bend in noise is significant far too often
    """
    curves, layers = _check_curves(curves, layers)
    if statistic not in ("range", "quadratic") or how not in ("signs", "labels"):
        raise FitError(
            f"A curve is tested by 'range' or 'quadratic', with 'signs' or 'labels'; not '{statistic}' with '{how}'."
        )
    seed, n = describe_seed(rng), len(curves)
    centred = curves - curves.mean(axis=1, keepdims=True)
    observed = float(_shape_statistic(centred.mean(axis=0)[None], layers, statistic)[0])
    exact = how == "signs" and n <= EXACT
    if how == "signs":
        means = sign_patterns(n, n_nulls, rng, identity=True) @ centred / n
    else:
        means = np.stack([rng.permuted(centred, axis=1).mean(axis=0) for _ in range(n_nulls)])
    null = widening(unit, n) * _shape_statistic(means, layers, statistic)
    # of all patterns one changes nothing; random patterns lack it: it is the +1 of the p
    extra = 0 if exact else 1
    tie = observed - 1e-12 * (1 + abs(observed))
    if exact:  # the pattern that changes nothing comes first, and always counts
        null[0] = max(null[0], observed)
    p = (extra + int((null >= tie).sum())) / (extra + len(null))
    unit_of_nulls = f"signs of the curves of {unit}" if how == "signs" else f"layers within {unit}"
    patterns = "every pattern" if exact else "random"
    return LayerShape(
        observed, p, statistic, Resampling(unit_of_nulls, patterns, len(null), "none" if exact else seed)
    )


def profile_test(curve: np.ndarray, null: np.ndarray, statistic: str = "range") -> LayerShape:
    """Test a mean curve against mean curves of noise through the same protocol.

    Selection steps may give noise a peak of its own. Curves are centred, the mean curve of noise is subtracted, and the
    statistic is of the remainder; the observed curve counts as one draw of noise in that mean, as in p.

    Parameters
    ----------
    curve : (n_layers,) the observed mean curve
    null : (n_nulls, n_layers) mean curves of noise
    statistic : "range" or "quadratic"

    Raises
    ------
    FitError : the curves have other layers, or there are fewer than 19 nulls, too few for a p of .05
    """
    null = np.asarray(null, dtype=np.float64)
    if null.ndim != 2 or null.shape[1] != len(curve):
        raise FitError(f"The noise's curves are {null.shape}, but the curve has {len(curve)} layers.")
    if len(null) < 19:
        raise FitError(f"{len(null)} curves of noise cannot give p = .05; use at least 19.")
    curves = np.vstack([np.asarray(curve, dtype=np.float64)[None], null])
    curves = curves - curves.mean(axis=1, keepdims=True)
    sizes = _shape_statistic(curves - curves.mean(axis=0), np.arange(len(curve)), statistic)
    p = float(np.mean(sizes >= sizes[0] - 1e-12))
    record = Resampling(
        "recordings of noise through the same protocol", "given curves", len(null), "the caller's"
    )
    return LayerShape(float(sizes[0]), p, statistic, record)


def _shape_statistic(means: np.ndarray, layers: np.ndarray, statistic: str) -> np.ndarray:
    """Measure the shape of curves (n, n_layers): (n,)."""
    if statistic == "range":
        sizes: np.ndarray = np.ptp(means, axis=1)
        return sizes
    x = (layers - layers.mean()) / max(float(np.ptp(layers)), 1.0)
    quadratic = x**2 - np.polyval(np.polyfit(x, x**2, 1), x)
    bends: np.ndarray = -(means @ quadratic) / np.square(quadratic).sum()
    return bends


def _check_curves(curves: np.ndarray, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    curves, layers = np.asarray(curves, dtype=np.float64), np.asarray(layers, dtype=np.float64)
    if curves.ndim != 2 or curves.shape[1] != len(layers):
        raise FitError(f"Curves are {curves.shape}, but there are {len(layers)} layers.")
    if len(layers) < FEWEST or (np.diff(layers) <= 0).any():
        raise FitError(
            f"The shape of a curve needs at least {FEWEST} layers in rising order; there are {len(layers)}."
        )
    curves = curves[np.isfinite(curves).all(axis=1)]
    if len(curves) < 3:
        raise FitError(
            f"{len(curves)} units have a score at every layer; the shape of a curve needs at least 3."
        )
    return curves, layers
