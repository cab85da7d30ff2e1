"""The query at which an attacker's key first raised the alarm, by the gateway's own record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.administration import Administration, Recorded
from gateway.redteam.answers import REFUSED, Answer, Model

BEFORE: Final = 0
"""Instead of a query's number: a key had raised the alarm before the attack began."""
ABSTAINED: Final = "abstained"


class Named(Model, Protocol):
    """A model that tells by which decision its last request ended."""

    @property
    def decision(self) -> str:
        """Its id; "" before the first request."""
        ...


class Alarms:
    """Counts what each key sends, to find which query of an attack is which row of the gateway's record."""

    def __init__(self, administration: Administration, names: Sequence[str], base: Sequence[int]) -> None:
        """names: of the keys' principals; base: rows that the gateway has of each. Use `of_keys`."""
        self._administration, self._names = administration, names
        self._before, self._sent = list(base), [list[int]() for _ in names]
        self._answered = [set[bytes]() for _ in names]
        self._queries = 0

    @classmethod
    def of_keys(cls, administration: Administration, keys: Sequence[Named], row: F8) -> Alarms | None:
        """Sends one row with each key, float64[d], to learn its principal.

        None where no guard keeps evidence. Raises NotRead, and what asking does.
        """
        if administration.recorded() is None:
            return None
        names = []
        for key in keys:
            key.ask(row[None])
            names.append(administration.principal_of(key.decision))
        found = administration.recorded() or {}
        return cls(administration, names, [max(1, found.get(name, Recorded(0, None)).rows) for name in names])

    def begin(self) -> None:
        """The next attack begins: queries are counted from 1 again."""
        self._before = [old + len(sent) for old, sent in zip(self._before, self._sent, strict=True)]
        self._sent, self._queries = [[] for _ in self._names], 0

    def note(self, key: int, rows: F8, answers: Sequence[Answer]) -> None:
        """What a key's rows, float64[n, d], were answered.

        Rows that a budget refused, and those that the key was answered before, are none of the record.
        """
        for row, answer in zip(rows.astype(np.float32), answers, strict=True):
            self._queries += 1
            content, answered = row.tobytes(), self._answered[key]
            if content not in answered and (answer.outcome != REFUSED or answer.reason == ABSTAINED):
                self._sent[key].append(self._queries)
            if answer.label is not None:
                answered.add(content)

    def first(self) -> int | None:
        """The number of this attack's query at which a key first raised the alarm; `BEFORE`; None if none.

        Raises:  NotRead.
        """
        found = self._administration.recorded() or {}
        queries = [
            self._query(key, one.alarm_row)
            for key, name in enumerate(self._names)
            if self._sent[key] and (one := found.get(name)) is not None and one.alarm_row is not None
        ]
        return min(queries, default=None)

    def _query(self, key: int, alarm_row: int) -> int:
        at, sent = alarm_row - self._before[key], self._sent[key]
        return BEFORE if at <= 0 else sent[min(at, len(sent)) - 1]


class Noted:
    """A model whose queries are told of: how many, and to the alarms how each ended."""

    def __init__(
        self, model: Model, told: Callable[[int], None], alarms: Alarms | None = None, key: int = 0
    ) -> None:
        self._model, self._told, self._alarms, self._key = model, told, alarms, key

    @property
    def rows_a_request(self) -> int:
        return self._model.rows_a_request

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        self._told(len(rows))
        answers = self._model.ask(rows)
        if self._alarms is not None:
            self._alarms.note(self._key, rows, answers)
        return answers
