"""Ledoit-Wolf shrinkage of a covariance towards a multiple of the identity."""

from __future__ import annotations

import numpy as np

from guards.rows import F8


def shrunk_covariance(centred: F8) -> F8:
    """The covariance of centred rows, shrunk to be well conditioned.

    Args:    centred: float64[n, d], mean removed (per class for a within-class covariance).
    Returns: float64[d, d], symmetric positive definite.
    Raises:  ValueError if nothing varies.
    Cost:    O(n d^2), at fit only.
    Source:  Ledoit and Wolf, J. Multivariate Analysis 88 (2004), section 3.2. Deviation: a ridge of 1e-6 of
             the mean variance, so that constant features leave it invertible however large n is.
    """
    n, d = centred.shape
    sample = centred.T @ centred / n
    spread = float(np.trace(sample)) / d
    if not spread > 0:
        raise ValueError("covariance: the rows to fit on are all alike; give data that varies")
    distance = float(np.square(sample - spread * np.eye(d)).sum())
    fourth = float(np.square(np.square(centred).sum(1)).sum())
    noise = (fourth / n - float(np.square(sample).sum())) / n
    weight = min(1.0, max(0.0, noise / distance)) if distance > 0 else 1.0
    return np.asarray((1 - weight) * sample + (weight + 1e-6) * spread * np.eye(d), np.float64)
