"""Notices a model that answers different rows alike, from its answers to callers' rows.

A model that is stuck fails in no way that one answer shows. The rows whose answers are known tell it, but
they are asked only now and then. This test reads the answers that there are anyway, and says when to ask the
known rows at once. It never judges alone: a caller may send rows that any model answers alike.

A repeat is a row that differs from the row before it, and has the same answer to the last bit. The test is
Page's CUSUM of the likelihood ratio of 95 % repeats against 5 %: a repeat adds log 19, any other answer takes
log 19 off, never below 0. It alarms at five times log 19.

False alarms: if, whatever came before, the next row repeats with a probability of at most 5 %, then at least
19^5 = 2.5 million rows pass on average until the test alarms (Lorden 1971; for rows that depend on each other
Shin, Ramdas and Rinaldo 2023, e-detectors). Outputs of floating-point numbers hold to that, unless they
saturate; classes alone do not, so models without such outputs are not tested. A model that answers one class
with various probabilities repeats nothing either: only its known rows tell that.

Where honest rows do repeat, each alarm that the known rows refute makes the next wait twice as long, from
`FIRST_PAUSE_S` to `LAST_PAUSE_S`, which is as often as known rows are asked in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import eq
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import Tensors

REPEATS_TO_ALARM: Final = 5
"""More repeats than other answers."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 2.0
CALM_S: Final = 60.0
"""Without an alarm for so long, the next one need not wait."""


class StuckOutput:
    """Reads the answers of one model. outputs: the names of those compared, all of floating point.

    Keeps one row between batches, and only while answers repeat. clock: seconds, must not go back.
    """

    def __init__(self, outputs: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._outputs, self._clock = tuple(outputs), clock
        self._answer: bytes | None = None
        self._row: Tensors | None = None
        self._repeats = 0
        self._pause_s, self._alarm_again_at_s = FIRST_PAUSE_S, 0.0

    def alarms(self, inputs: Tensors, outputs: Tensors) -> bool:
        """Whether the known rows must be asked now. The answers are read in order, as those of one stream.

        Outputs that are not of the declared form are not read: they are no answer.

        Cost:   4 us at one row and 20 us at 128 while no answer repeats; else 0.1 ms and O(size of rows).
        """
        found, n = [outputs.get(name) for name in self._outputs], len(next(iter(inputs.values())))
        answers = [array for array in found if isinstance(array, np.ndarray) and array.shape[:1] == (n,)]
        if not n or not answers or len(answers) < len(found):
            return False
        last = _bytes_of(answers, -1)
        same = (last if n == 1 else _bytes_of(answers, 0)) == self._answer
        alike = _alike(answers, same) if same or _any_alike(answers[0]) else None
        self._answer, before, self._row = last, self._row, None
        if alike is None or not alike.any():
            self._repeats = max(0, self._repeats - n)
            return False
        if alike[-1]:
            self._row = {name: array[-1:].copy() for name, array in inputs.items()}
        return self._reaches_limit(alike, _differ(inputs, before)) and self._may_alarm()

    def _reaches_limit(self, alike: NDArray[np.bool_], differ: NDArray[np.bool_]) -> bool:
        """Whether the repeats of a batch reach the limit. bool[n]: answers alike, and rows that differ."""
        steps = np.where(alike, differ.astype(np.int64), -1)
        walk = np.cumsum(steps)
        above_lowest = walk - np.minimum.accumulate(np.minimum(walk, -self._repeats))
        self._repeats = min(int(above_lowest[-1]), REPEATS_TO_ALARM)
        return bool(above_lowest.max() >= REPEATS_TO_ALARM)

    def _may_alarm(self) -> bool:
        now_s = self._clock()
        if now_s < self._alarm_again_at_s:
            return False
        if now_s >= self._alarm_again_at_s + CALM_S:
            self._pause_s = FIRST_PAUSE_S
        self._alarm_again_at_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        self._repeats = 0
        return True


def _bytes_of(answers: Sequence[NDArray[Any]], row: int) -> bytes:
    return b"".join([array[row].tobytes() for array in answers])


def _any_alike(array: NDArray[Any]) -> bool:
    """Whether any row equals the one before, every bit. Cost: 1 us, and 50 ns a row."""
    content, n = array.tobytes(), len(array)
    row_bytes = len(content) // n
    if not row_bytes or array.dtype.kind == "O":  # then the bytes do not say
        return n > 1
    rows = [content[at : at + row_bytes] for at in range(0, len(content), row_bytes)]
    return any(map(eq, rows, rows[1:]))


def _alike(answers: Sequence[NDArray[Any]], same: bool) -> NDArray[np.bool_]:
    """bool[n]: which answers equal the one before, every bit; `same`: whether the first does."""
    alike = np.full(len(answers[0]), True)
    alike[0] = same
    for array in answers:
        alike[1:] &= _rows_alike(array)
    return alike


def _differ(inputs: Tensors, before: Tensors | None) -> NDArray[np.bool_]:
    """bool[n]: which rows differ from the one before. False for the first if that is not known."""
    n = len(next(iter(inputs.values())))
    alike = np.full(n, True)
    for array in inputs.values():
        alike[1:] &= _rows_alike(array)
    if before is not None:
        alike[0] = all(_equal(before[name], array[:1]) for name, array in inputs.items())
    return ~alike


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and bool(_rows_alike(np.concatenate([one, other]))[0])


def _rows_alike(array: NDArray[Any]) -> NDArray[np.bool_]:
    """bool[n - 1]: which rows equal the one before, every bit, so that NaN equals itself."""
    flat = array.reshape(len(array), -1)
    if flat.dtype.kind != "O" and flat.size:
        row_bytes = flat.shape[1] * flat.itemsize
        flat = np.ascontiguousarray(flat).view(f"V{row_bytes}")
    equal: NDArray[np.bool_] = (flat[1:] == flat[:-1]).all(axis=1)
    return equal
