"""How much a departure proves, and how that adds up over periods.

A departure of t standard deviations, which were estimated from as many past errors as there are
degrees of freedom, is as rare as a standard normal z is (Wallace, "Bounds on normal approximations
to Student's and the chi-square distributions", 1959). Three bettors stake on it:

- one on the improbable: a calibrator makes an e-value of the two-sided p-value (Vovk and Wang,
  "E-values: calibration, combination and applications", 2021), which proves much within a period;
- two on a lasting rise and a lasting fall by lambda standard deviations: they multiply their
  capital by exp(lambda z - lambda^2 / 2). Errors that hang together say less, so z is divided first
  such that its sum over many periods has the variance of a sum of independent ones.

Capital restarts at 1 whenever it falls below: an e-detector (Shin, Ramdas and Rinaldo,
"E-detectors", 2023). A weighted mean over detectors is one as well: it reaches N once in N periods
at most, however many figures are watched and however they depend on one another.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

BETTORS: Final = 3
EXPONENTS = np.array([0.1, 0.3, 0.5])
"""Small ones win much on the improbable, large ones something on the unusual."""
STAKES = np.array([0.25, 0.5, 1.0, 2.0])
"""Lasting rises that are bet on, in standard deviations."""


def log_e(z: Float64, periods: Float64, falls: npt.NDArray[np.bool_]) -> Float64:
    """Log of what one period multiplies each bettor's capital with.

    Args:
        z: departures as :func:`as_normal` makes them.
        periods: how many say what one independent one would, at least 1; shape as ``z``.
        falls: where a fall is a departure as well, broadcast to ``z``.

    Returns:
        float64 [*shape of z, :data:`BETTORS`].
    """
    rise = np.where(falls, np.abs(z), np.maximum(z, 0.0))
    lasting = z / np.sqrt(periods)
    both = (_log_lasting(lasting), np.where(falls, _log_lasting(-lasting), -np.inf))
    return np.stack([_log_improbable(rise), *both], axis=-1)


def as_normal(t: Float64, freedom: Float64) -> Float64:
    """Standard normal deviate as rare as a t of so many degrees of freedom; keeps the sign."""
    factor = (8 * freedom + 1) / (8 * freedom + 3)
    size = factor * np.sqrt(freedom * np.log1p(t**2 / freedom))
    return np.asarray(np.copysign(size, t), np.float64)


def log_weighted(values: Float64, weights: Float64) -> float:
    """Log of the weighted mean of capitals; weights sum to 1."""
    top = float(values.max())
    return float(np.log((weights * np.exp(values - top)).sum()) + top)


def _log_improbable(z: Float64) -> Float64:
    terms = np.log(EXPONENTS) + (EXPONENTS - 1) * _log_p(z)[..., None]
    return _log_mean_exp(terms)


def _log_lasting(z: Float64) -> Float64:
    return _log_mean_exp(STAKES * z[..., None] - STAKES**2 / 2)


def _log_p(z: Float64) -> Float64:
    """Log of the two-sided p-value, from above. Source: Pollak, 1956."""
    half = -(z**2) / 2 - math.log(math.sqrt(2 * math.pi))
    found = math.log(2) + half + np.log(2 / (z + np.sqrt(z**2 + 8 / math.pi)))
    return np.minimum(np.asarray(found, np.float64), 0.0)


def _log_mean_exp(values: Float64) -> Float64:
    """Over the last axis, without overflow."""
    top = values.max(axis=-1, keepdims=True)
    mean = np.log(np.exp(values - top).mean(axis=-1)) + np.squeeze(top, axis=-1)
    return np.asarray(mean, np.float64)
