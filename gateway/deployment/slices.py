"""Slices of the rows with a false-alarm cut of their own: by predicted class, or by an input's value.

A stage compares a score with one cut, so a guard's score is shifted instead: by the difference of its slice's
cut to the highest one. Certified by `certification/alarms.py`, with the same `slice_names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallbacks.roles import PROBABILITIES
from gateway.core.batch import Batch
from gateway.core.decision import Tensors
from gateway.core.rows import F8
from gateway.core.stage import Guard
from gateway.deployment.certificate import FalseAlarm
from gateway.policy.schema import InputSlices

MOST_BYTES = 64
"""Of a text, so many bytes name its slice: one long text may not cost every row of a batch as much memory."""
SlicedBy: TypeAlias = InputSlices | str


def slice_names(by: SlicedBy, inputs: Tensors, answer: Tensors) -> NDArray[np.str_]:
    """The slice of each row, as text. Raises KeyError for an output or input that is not there."""
    if isinstance(by, InputSlices):
        values = inputs[by.input]
        flat = values.reshape(len(values), -1)[:, 0]
        return np.array([_text(value) for value in flat.tolist()], np.str_)
    return np.asarray(answer[PROBABILITIES].argmax(axis=1).astype(np.str_))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value[:MOST_BYTES].decode("utf-8", "backslashreplace")
    return str(value)


def slice_shifts(alarm: FalseAlarm, names: NDArray[np.str_]) -> F8:
    """float64[n] nats <= 0: how far the cut of each row's slice lies below `alarm.cut`."""
    shift: Mapping[str, float] = {value: one.cut for one in alarm.slices for value in one.values}
    other = next((one.cut for one in alarm.slices if not one.values), alarm.cut)
    return np.array([shift.get(name, other) for name in names.tolist()], np.float64) - alarm.cut


@dataclass(frozen=True, slots=True)
class SlicedGuard:
    """A guard whose score is compared with the cut of the row's slice. model: whose prediction is read."""

    guard: Guard[Batch]
    alarm: FalseAlarm
    by: SlicedBy
    model: str

    async def score(self, batch: Batch) -> F8:
        """float64[n] nats, moved to the scale of `alarm.cut`. Raises as the guard and the model do."""
        answer = {} if isinstance(self.by, InputSlices) else await batch.forward(self.model)
        names = slice_names(self.by, batch.inputs, answer)
        found: F8 = await self.guard.score(batch) - slice_shifts(self.alarm, names)
        return found
