"""Which rows of a model's outputs can be answers at all: probabilities that sum to one, classes that it has.

A model that begins to return logits, or zeros, still returns finite numbers of the right shape. Such a row
has no answer, and goes to the next rung.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import ModelTensor
from fallbacks.roles import LABEL, PROBABILITIES, SUM_TOLERANCE, VALUE_TOLERANCE, not_distributions
from gateway.core.decision import Tensors
from gateway.core.rows import Mask, all_true
from gateway.protocol.targets import Classes, Target


def possible_rows(outputs: Sequence[ModelTensor], target: Target) -> Callable[[Tensors], Mask] | None:
    """What tells the rows of a model with these outputs that can be answers; None if any can."""
    dtypes = {spec.name: spec.dtype for spec in outputs}
    classes = target.values if isinstance(target, Classes) and LABEL in dtypes else ()
    labels = np.array(classes, dtypes[LABEL]) if classes else None
    if PROBABILITIES not in dtypes and labels is None:
        return None
    return partial(_possible, PROBABILITIES in dtypes, labels)


def _possible(has_probabilities: bool, labels: NDArray[Any] | None, outputs: Tensors) -> Mask:
    n = len(next(iter(outputs.values())))
    ok = all_true(n)
    if has_probabilities and not _all_distributions(outputs[PROBABILITIES]):
        ok = ok & ~not_distributions(outputs[PROBABILITIES])
    if labels is not None:
        ok = ok & np.isin(outputs[LABEL].reshape(n), labels)
    return ok


def _all_distributions(p: NDArray[Any]) -> bool:
    """Whether every row surely is one: the usual case, in a third of the time of `not_distributions`."""
    if p.dtype.itemsize < 4:
        return False
    least, most = np.minimum.reduce(p, axis=None), np.maximum.reduce(p, axis=None)
    sums = np.add.reduce(p, axis=1)
    off = max(1 - np.minimum.reduce(sums), np.maximum.reduce(sums) - 1)
    return bool(least >= -VALUE_TOLERANCE and most <= 1 + VALUE_TOLERANCE and off <= SUM_TOLERANCE / 2)
