"""Answers as bytes of one length, so that a memory of many has a fixed size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import ModelTensor
from fallbacks.roles import PROBABILITIES
from gateway.core.decision import Degraded, Reason, Served, Tensors
from gateway.core.recall import Answer
from gateway.core.rows import Row

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
        """Answers as bytes, all those together that come from the same arrays. Cost: 20 us, 0.5 us each."""
        n = len(answers)
        data, margins = np.zeros((n, self.length), np.uint8), np.full(n, np.nan, np.float32)
        fits = np.zeros(n, np.bool_)
        for places, rows, tensors in _by_source(answers):
            head, columns = self._head(answers[places[0]]), self._columns(tensors, rows)
            if head is None or columns is None:
                continue
            fits[places] = True
            data[places] = np.concatenate([np.full((len(rows), HEAD), head, np.uint8), *columns], axis=1)
            if PROBABILITIES in tensors:
                margins[places] = _margins(tensors[PROBABILITIES][rows])
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

    def _head(self, answer: Answer) -> tuple[int, int] | None:
        if answer.by not in self.rungs:
            return None
        reason = 0 if isinstance(answer, Served) else 1 + REASONS.index(answer.reason)
        return self.rungs.index(answer.by), reason

    def _columns(self, tensors: Tensors, rows: Sequence[int]) -> list[NDArray[np.uint8]] | None:
        """The bytes of each output of some rows: uint8[rows, bytes]; None if one has another form."""
        columns = []
        for one in self.outputs:
            array = tensors.get(one.name)
            if array is None or array.dtype != one.dtype or array.shape[1:] != _sizes(one):
                return None
            columns.append(
                np.ascontiguousarray(array[rows]).reshape(len(rows), math.prod(_sizes(one))).view(np.uint8)
            )
        return columns


def _by_source(answers: Sequence[Answer]) -> Iterable[tuple[list[int], list[int], Tensors]]:
    """The places of the answers of one rung and kind that are rows of the same arrays, and which rows."""
    groups: dict[tuple[Any, ...], tuple[list[int], list[int], Tensors]] = {}
    for place, answer in enumerate(answers):
        output = answer.output
        tensors, row = output.source if isinstance(output, Row) else (output, 0)
        key = (id(tensors), answer.by, None if isinstance(answer, Served) else answer.reason)
        places, rows, _ = groups.setdefault(key, ([], [], tensors))
        places.append(place)
        rows.append(row)
    return groups.values()


def _margins(probabilities: NDArray[Any]) -> NDArray[np.float32] | float:
    """float32[n] of [n, ...]; NaN where a row has fewer than two."""
    scores = probabilities.reshape(len(probabilities), -1)
    if scores.shape[1] < 2:
        return math.nan
    two = np.partition(scores, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0], np.float32)


def _answer(output: Tensors, rung: str, reason: int) -> Answer:
    return Degraded(output, rung, REASONS[reason - 1]) if reason else Served(output, rung)


def _sizes(spec: ModelTensor) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if size is not None)
