"""Answers as bytes of one length, so that a memory of many has a fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import ModelTensor
from gateway.core.decision import Degraded, Reason, Served, Tensors
from gateway.core.recall import Answer

REASONS = tuple(Reason)
HEAD = 2
"""Bytes: the rung; 0 for a served row, else one more than the place of the reason."""


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

    def encode(self, answer: Answer) -> NDArray[np.uint8] | None:
        """The answer as bytes; None if it is of another form. Cost: 3 us."""
        if answer.by not in self.rungs:
            return None
        reason = 0 if isinstance(answer, Served) else 1 + REASONS.index(answer.reason)
        parts = [bytes((self.rungs.index(answer.by), reason))]
        for one in self.outputs:
            array = answer.output.get(one.name)
            if array is None or array.dtype != one.dtype or array.shape[1:] != _sizes(one):
                return None
            parts.append(array.tobytes())
        return np.frombuffer(b"".join(parts), np.uint8)

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


def _answer(output: Tensors, rung: str, reason: int) -> Answer:
    return Degraded(output, rung, REASONS[reason - 1]) if reason else Served(output, rung)


def _sizes(spec: ModelTensor) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if size is not None)
