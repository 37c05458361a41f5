"""How much a departure proves: p-values to e-values, and capital that grows with them.

A departure of t standard deviations, which were estimated from as many past errors as there are
degrees of freedom, has a p-value by Student's t; a calibrator makes an e-value of it (Vovk and
Wang, "E-values: calibration, combination and applications", 2021). Capital multiplies e-values
and restarts at 1 whenever it falls below: an e-detector (Shin, Ramdas and Rinaldo, "E-detectors",
2023). The mean over all detectors is one as well: its capital reaches N only once in N periods or
more, however many figures are watched and however they hang together.
"""

import math

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

EXPONENTS = np.array([0.1, 0.3, 0.5])
"""Small ones win much on the improbable, large ones something on the unusual."""


def log_e(t: Float64, freedom: Float64) -> Float64:
    """Log e-values of departures.

    Args:
        t: departures in estimated standard deviations, not negative.
        freedom: degrees of freedom of the estimates, at least 1; shape as ``t``.
    """
    log_p = _log_p(_as_normal(t, freedom))
    terms = np.log(EXPONENTS) + (EXPONENTS - 1) * log_p[..., None]
    return log_mean_exp(terms, axis=-1)


def log_mean_exp(values: Float64, axis: int = 0) -> Float64:
    """Without overflow."""
    top = values.max(axis=axis, keepdims=True)
    mean = np.log(np.exp(values - top).mean(axis=axis)) + np.squeeze(top, axis=axis)
    return np.asarray(mean, np.float64)


def _as_normal(t: Float64, freedom: Float64) -> Float64:
    """Standard normal deviate with the same tail. Source: Wallace, 1959."""
    factor = (8 * freedom + 1) / (8 * freedom + 3)
    return np.asarray(factor * np.sqrt(freedom * np.log1p(t**2 / freedom)), np.float64)


def _log_p(z: Float64) -> Float64:
    """Log of the two-sided p-value, from above. Source: Pollak, 1956."""
    half = -(z**2) / 2 - math.log(math.sqrt(2 * math.pi))
    found = math.log(2) + half + np.log(2 / (z + np.sqrt(z**2 + 8 / math.pi)))
    return np.minimum(np.asarray(found, np.float64), 0.0)
