"""Answers as bytes of one length, so that a memory of many has a fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import ModelTensor
from fallbacks.roles import PROBABILITIES
from gateway.core.decision import Degraded, Reason, Served, Tensors
from gateway.core.recall import Answer

REASONS = tuple(Reason)
HEAD = 2
"""Bytes: the rung; 0 for a served row, else one more than the place of the reason."""


class Encoded(NamedTuple):
    """Of n answers. fits: bool[n], whether an answer has the form; where it does, data: uint8[n, length], and
    margins: float32[n], the difference of the two largest probabilities, NaN without.
    """

    fits: NDArray[np.bool_]
    data: NDArray[np.uint8]
    margins: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """outputs: of fixed size, those that may leave; rungs: by name."""

    outputs: tuple[ModelTensor, ...]
    rungs: tuple[str, ...]

    @classmethod
    def of(cls, outputs: Sequence[ModelTensor], exposed: Sequence[str], rungs: Sequence[str]) -> AnswerForm:
        """Raises ValueError naming an output of text or of open size."""
        kept = [one for one in outputs if one.name in exposed]
        for one in kept:
            if one.dtype.kind == "O" or None in one.shape[1:]:
                raise ValueError(f"cannot remember output {one.name!r}: it is text or of open size")
        return cls(tuple(kept), tuple(rungs))

    @property
    def length(self) -> int:
        """Bytes of every answer."""
        return HEAD + sum(one.dtype.itemsize * math.prod(_sizes(one)) for one in self.outputs)

    def encode(self, answers: Sequence[Answer]) -> Encoded:
        """Answers as bytes. Cost: 15 us, and 1 us each."""
        fits = np.array([self._fits(answer) for answer in answers], np.bool_)
        data, margins = (
            np.zeros((len(answers), self.length), np.uint8),
            np.full(len(answers), np.nan, np.float32),
        )
        fitting = [answer for answer, one in zip(answers, fits.tolist(), strict=True) if one]
        if fitting:
            columns = [np.array([self._head(answer) for answer in fitting], np.uint8)]
            for one in self.outputs:
                rows = np.concatenate([answer.output[one.name] for answer in fitting])
                columns.append(rows.reshape(len(rows), math.prod(_sizes(one))).view(np.uint8))
            margins[fits] = _margins([answer.output.get(PROBABILITIES) for answer in fitting])
            data[fits] = np.concatenate(columns, axis=1)
        return Encoded(fits, data, margins)

    def decode(self, data: NDArray[np.uint8]) -> Answer:
        """The answer that `encode` was given, without outputs that may not leave. Cost: 3 us."""
        content, at = data.tobytes(), HEAD
        output: dict[str, NDArray[np.generic]] = {}
        for one in self.outputs:
            sizes = _sizes(one)
            count = math.prod(sizes)
            output[one.name] = np.frombuffer(content, one.dtype, count, at).reshape(1, *sizes)
            at += count * one.dtype.itemsize
        return _answer(output, self.rungs[content[0]], content[1])

    def _fits(self, answer: Answer) -> bool:
        """Whether an answer is of a known rung, with one row of each output in its form."""
        if answer.by not in self.rungs:
            return False
        for one in self.outputs:
            array = answer.output.get(one.name)
            if array is None or array.dtype != one.dtype or array.shape != (1, *one.shape[1:]):
                return False
        return True

    def _head(self, answer: Answer) -> tuple[int, int]:
        reason = 0 if isinstance(answer, Served) else 1 + REASONS.index(answer.reason)
        return self.rungs.index(answer.by), reason


def _margins(probabilities: Sequence[NDArray[Any] | None]) -> NDArray[np.float32] | float:
    """float32[n] of n single rows; NaN where there are none, or fewer than two classes."""
    known = [one for one in probabilities if one is not None and one.ndim == 2 and one.shape[1] >= 2]
    if len(known) < len(probabilities) or len({one.shape for one in known}) > 1:
        return math.nan
    two = np.partition(np.concatenate(known), -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0], np.float32)


def _answer(output: Tensors, rung: str, reason: int) -> Answer:
    return Degraded(output, rung, REASONS[reason - 1]) if reason else Served(output, rung)


def _sizes(spec: ModelTensor) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if size is not None)
