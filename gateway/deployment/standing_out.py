"""Which values of a row are unlike the calibration rows, for a reviewer who looks at it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gateway.core.decision import Tensors
from gateway.deployment.fitted import Fitted
from gateway.policy.kinds.ood import FittedOod
from guards.raw_tabular import RawTabular

MOST_COLUMNS = 5
WIDEST_TABLE = 256
"""Columns up to which a row is looked at: the cost grows with their third power."""


def standing_out(fitted: Fitted, inputs: Tensors) -> dict[str, float]:
    """The columns of one row that differ most, the most unusual first, with their rarity in nats.

    Args:    inputs: by name, one row. Columns are named as in `guards.table.Table.columns`.
    Returns: at most MOST_COLUMNS, of those that are rarer than any calibration row is by chance; empty where
             no
             guard reads a table, or the row is not of its form.
    Cost:    milliseconds at most: for a page, not for requests.
    """
    detector, table = next(_detectors(fitted), None), fitted.view.table
    if detector is None or table is None or len(table.columns) > WIDEST_TABLE:
        return {}
    try:
        nats = detector.standing_out(table.read(inputs))[0]
    except (KeyError, ValueError):  # a row of an earlier policy, with other inputs
        return {}
    order = np.argsort(-nats, kind="stable")[:MOST_COLUMNS]
    unusual = [i for i in order.tolist() if math.isfinite(nats[i]) and nats[i] > detector.usual]
    return {table.columns[i]: round(float(nats[i]), 2) for i in unusual}


def _detectors(fitted: Fitted) -> Iterator[RawTabular]:
    for guard in fitted.guards.values():
        if isinstance(guard, FittedOod):
            yield from (one for one in guard.full.detectors if isinstance(one, RawTabular))
