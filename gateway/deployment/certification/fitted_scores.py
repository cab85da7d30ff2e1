"""What the fitted guards and intervals give to the rows that calibration kept, as a check of `guards.npz`.

The guards are run by their own formulas, without a graph or a model, since the kept rows have the primary's
answers. A guard whose state was replaced gives these rows other scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gateway.core.errors import ArtifactError, Problem
from gateway.core.rows import F8
from gateway.deployment.fitted import Fitted
from gateway.deployment.kept_rows import KeptRows
from gateway.deployment.measures import columns_on

TOLERANCE = 1e-3
"""In nats, or as a part of the number: a thousand times the noise of another processor."""


def fitted_scores(fitted: Fitted, kept: KeptRows) -> dict[str, F8]:
    """float64: the columns of all guards for the kept rows, in both forms, and each interval's factor.

    Raises:  ValueError as the guards' formulas do.
    Cost:    a few milliseconds for 64 rows.
    """
    found = columns_on(fitted.view, fitted.guards, kept.x, kept.answer)
    return found | {f"q/{rung}": np.array([one.interval.q]) for rung, one in fitted.intervals.items()}


def check_fitted(fitted: Fitted, kept: KeptRows, scores: Mapping[str, F8], path: str) -> None:
    """Raises ArtifactError if the loaded guards give the kept rows other scores. path: of the guards."""
    try:
        found = fitted_scores(fitted, kept)
    except ValueError as error:
        raise ArtifactError([Problem("", f"{error}; run `gateway calibrate`", path)]) from error
    for name in sorted(found.keys() | scores.keys()):
        if not _close(found.get(name), scores.get(name)):
            what = f"does not give the kept rows the scores that calibration saw ({name})"
            raise ArtifactError([Problem("", f"{what}; run `gateway calibrate`", path)])


def _close(one: F8 | None, other: F8 | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE))
