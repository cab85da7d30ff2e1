"""Answers in place of a row's own: that of an earlier query, or one that tells less.

An attacker that asks nearly the same again and again reads the model's boundary from how the answers differ.
So a memory of answers may give such a row the answer that an earlier one got. It is asked when the row has
its own answer: so no time tells which answer left, and only rows that were to be answered are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from gateway.core.assessment import Assessment, allowed
from gateway.core.batch import Batch
from gateway.core.decision import Degraded, Served
from gateway.core.rows import RowIndices

Answer: TypeAlias = Served | Degraded


class Given(NamedTuple):
    """What a row is answered in place of its own answer. row: of the batch; how: one word for the audit log;
    score: what the memory's guard found for the row."""

    row: int
    answer: Answer
    how: str
    score: float


class Recalled(NamedTuple):
    """given: what rows are answered instead; a later entry of a row takes the place of an earlier one.
    repeats: the rows that their callers had asked before.
    """

    given: Sequence[Given] = ()
    repeats: Sequence[int] = ()


class AnswerMemory(Protocol):
    """Remembers answers. It is also a guard, which has seen the rows before they were answered."""

    def recall(self, batch: Batch, answers: Mapping[int, Answer], /) -> Recalled:
        """What some of these rows are answered instead; remembers what all of them are. Must not wait.

        Args:    answers: by row of the batch, ascending.
        """
        ...


@dataclass(frozen=True, slots=True)
class Recall:
    """A memory of answers and the guard that says whether it acts. guard: its name."""

    guard: str
    memory: AnswerMemory

    def trail(
        self, given: Sequence[Given], rows: RowIndices, *, enforced: bool
    ) -> list[tuple[RowIndices, Assessment]]:
        """What was done, as entries of a trail, one for each `how`. rows: the batch's places in the trail."""
        entries = []
        for how in dict.fromkeys(one.how for one in given):
            done = [one for one in given if one.how == how]
            at = np.array([one.row for one in done], np.intp)
            scores = np.array([one.score for one in done])
            n = len(done)
            found = Assessment(f"{self.guard}.{how}", scores, allowed(n), True, enforced, 0.0)
            entries.append((rows[at], found))
        return entries
