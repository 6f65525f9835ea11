"""Evidence in paired differences: equivalence tests, Bayes factors, and the smallest detectable difference."""

from __future__ import annotations

import numpy as np
from scipy import integrate, optimize, stats

SCALE = float(np.sqrt(0.5))  # of the Cauchy prior of the standardised effect


def widening(unit: str, n: int) -> float:
    """Return the factor by which the plain spread of `n` units is too small.

    Runs that take turns as test runs share training data: √(1 + n · n_test/n_train), with n_test/n_train =
    1/(n − 1). Subjects are independent: 1.

    References
    ----------
    Nadeau & Bengio 2003, doi:10.1023/A:1024068626366
    """
    return float(np.sqrt(1.0 + n / (n - 1))) if unit == "runs" and n > 1 else 1.0


def equivalence(effect: np.ndarray, error: np.ndarray, df: int, margin: float) -> np.ndarray:
    """Test by two one-sided t tests whether effects lie inside ±margin; a small p means that they do.

    Parameters
    ----------
    effect : (n_layers,) mean differences
    error : (n_layers,) their standard errors
    df : degrees of freedom
    margin : the smallest difference of interest

    Returns
    -------
    (n_layers,) the larger of the two p

    References
    ----------
    Schuirmann 1987, doi:10.1007/BF01068419
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        below = stats.t.sf((effect + margin) / error, df)
        above = stats.t.cdf((effect - margin) / error, df)
    exact = np.where(np.abs(effect) < margin, 0.0, 1.0)
    p: np.ndarray = np.where(
        error > 0, np.maximum(below, above), np.where(np.isfinite(effect), exact, np.nan)
    )
    return p


def bayes_factor(t: np.ndarray, n: float, df: float | None = None, scale: float = SCALE) -> np.ndarray:
    """Compute the JZS Bayes factor BF₁₀ of a one-sample t test: evidence for a difference against none.

    BF₁₀ = ∫₀^∞ (1 + n g)^(−1/2) (1 + t²/((1 + n g) ν))^(−(ν+1)/2) p(g) dg / (1 + t²/ν)^(−(ν+1)/2), where ν = df and g is
    inverse-gamma(1/2, scale²/2): a Cauchy prior of that scale on the standardised effect. Above 3 the data favour
    a difference, below 1/3 no difference; between, neither.

    Parameters
    ----------
    t : (n_layers,) t values; NaN gives NaN
    n : how many units; an effective number where they are not independent
    df : degrees of freedom; None takes n − 1
    scale : of the prior, √2/2 as in the R package BayesFactor; 1 in the article

    References
    ----------
    Rouder et al. 2009, doi:10.3758/PBR.16.2.225, eq. 1
    """
    nu = n - 1 if df is None else df
    factors = [_bayes_factor(float(value), n, nu, scale) for value in np.ravel(t)]
    return np.array(factors, dtype=np.float64).reshape(np.shape(t))


def _bayes_factor(t: float, n: float, nu: float, scale: float) -> float:
    if np.isnan(t):
        return float("nan")
    if np.isinf(t):
        return float("inf")

    def log_density(u: np.ndarray) -> np.ndarray:
        variance = 1.0 + n * np.exp(u)
        likelihood = -0.5 * np.log(variance) - (nu + 1) / 2 * np.log1p(t**2 / (variance * nu))
        prior = np.log(scale / np.sqrt(2 * np.pi)) - 0.5 * u - scale**2 / (2 * np.exp(u))
        total: np.ndarray = likelihood + prior
        return total

    # over u = log g the integrand has a single peak; it is scaled by its maximum, so nothing overflows
    grid = np.linspace(-12.0, 60.0, 2000)
    densities = log_density(grid)
    top = float(densities.max())
    inside = grid[densities > top - 50.0]
    area, _ = integrate.quad(lambda u: np.exp(log_density(u) - top), inside[0], inside[-1], limit=200)
    with np.errstate(over="ignore"):
        return float(np.exp(top + np.log(area) + (nu + 1) / 2 * np.log1p(t**2 / nu)))


def smallest_difference(error: np.ndarray, df: int, power: float = 0.8, alpha: float = 0.05) -> np.ndarray:
    """Return the true difference that a two-sided t test would detect with some power, given the observed spread.

    Parameters
    ----------
    error : (n_layers,) standard errors of the mean difference
    df : degrees of freedom
    power, alpha : of a single test; a correction over layers needs a larger difference

    Returns
    -------
    (n_layers,) in the unit of the errors
    """
    limit = stats.t.isf(alpha / 2, df)

    def excess_power(shift: float) -> float:
        # scipy returns NaN for next to nothing in the far tail
        rate = stats.nct.sf(limit, df, shift) + np.nan_to_num(stats.nct.cdf(-limit, df, shift))
        return float(rate) - power

    upper = limit + 1.0
    while excess_power(upper) < 0:
        upper *= 1.5
    shift = optimize.brentq(excess_power, 0.0, upper)
    difference: np.ndarray = shift * np.asarray(error, dtype=np.float64)
    return difference
