"""Another caller's good rows, one request a row: how they end before and during an attack."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.core.errors import Problems
from gateway.core.rows import F8
from gateway.redteam.answers import SERVED, Answer, Model
from gateway.redteam.records import Harm

BETWEEN_S, MOST_BEFORE = 0.2, 200
"""Seconds between two rows while an attack runs; rows before."""


class Honest:
    """Sends its rows in turn with a key of its own; those of before and of during differ at first."""

    def __init__(self, model: Model, rows: F8) -> None:
        self._model, self._rows, self._next = model, rows, 0

    def before(self) -> Harm:
        """Half of the rows, `MOST_BEFORE` at most, one after the other. Raises Problems."""
        return harm_of([self._ask() for _ in range(min(len(self._rows) // 2, MOST_BEFORE))])

    @contextmanager
    def during(self) -> Iterator[list[Answer]]:
        """Sends rows in a thread until the end of the block; the list grows meanwhile.

        A request that fails ends the thread: the attack's own requests fail then too.
        """
        answers: list[Answer] = []
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(BETWEEN_S):
                try:
                    answers.append(self._ask())
                except Problems:
                    return

        thread = threading.Thread(target=send, name="honest rows", daemon=True)
        thread.start()
        try:
            yield answers
        finally:
            ended.set()
            thread.join()

    def _ask(self) -> Answer:
        row = self._rows[self._next % len(self._rows)]
        self._next += 1
        return self._model.ask(row[None])[0]


def harm_of(answers: list[Answer]) -> Harm:
    """How these rows ended."""
    ends = Counter(one.outcome for one in answers)
    return Harm(len(answers), len(answers) - ends[SERVED], dict(ends))
