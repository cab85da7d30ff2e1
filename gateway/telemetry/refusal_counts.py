"""Refused rows as counts, so that a caller cannot fill the disk with its own refusals.

A caller over its rate sends as many rows as the network carries, and each would be a line. So of each caller
and reason the first FULL_ROWS in a second are written in full, as evidence of what is refused and why. The
others are counted: one line a flush states how many, and when the first and the last of them came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from gateway.core.decision import Outcome, Refused
from gateway.core.record import RequestRecord

FULL_ROWS = 4
GROUPS = 1024
OTHERS = "*"
"""The principal of rows that are counted together because there are more than GROUPS in a second."""


class _Group(NamedTuple):
    """Rows that are counted together."""

    principal: str
    reason: str
    policy: str
    mode: str


@dataclass(slots=True)
class _Count:
    """rows: since the last flush; first_s, last_s: when their requests were received, in Unix seconds."""

    rows: int
    first_s: float
    last_s: float


class RefusalCounts:
    """The refused rows since the last flush that have no line of their own."""

    def __init__(self) -> None:
        self._second = 0
        self._in_full: dict[_Group, int] = {}
        self._counts: dict[_Group, _Count] = {}

    def rows_in_full(self, record: RequestRecord) -> Sequence[int]:
        """The rows of a request that are to be written in full; `add` counts the others."""
        rows = range(len(record.decisions))
        for decision in record.decisions:
            if isinstance(decision.outcome, Refused):
                break
        else:
            return rows
        if int(record.received_s) > self._second:
            self._second = int(record.received_s)
            self._in_full.clear()
        return [row for row in rows if self._is_full(record, record.decisions[row].outcome)]

    def _is_full(self, record: RequestRecord, outcome: Outcome) -> bool:
        if not isinstance(outcome, Refused):
            return True
        group = _known(self._in_full, _group_of(record, outcome))
        before = self._in_full.get(group, 0)
        self._in_full[group] = before + 1
        return before < FULL_ROWS

    def add(self, record: RequestRecord, in_full: Sequence[int]) -> None:
        """Counts the rows of a request that are not written in full."""
        for row in set(range(len(record.decisions))).difference(in_full):
            outcome = record.decisions[row].outcome
            assert isinstance(outcome, Refused)
            group = _known(self._counts, _group_of(record, outcome))
            count = self._counts.setdefault(group, _Count(0, record.received_s, record.received_s))
            count.rows += 1
            count.first_s = min(count.first_s, record.received_s)
            count.last_s = max(count.last_s, record.received_s)

    def take_lines(self) -> list[bytes]:
        """A line for each group of rows that was counted since the last call."""
        counts, self._counts = self._counts, {}
        return [_line(group, count) for group, count in counts.items()]


def _group_of(record: RequestRecord, refused: Refused) -> _Group:
    return _Group(record.principal, refused.reason, record.policy, record.mode)


def _known(groups: dict[_Group, int] | dict[_Group, _Count], group: _Group) -> _Group:
    """The group under which a row is counted: without its principal if there are too many groups."""
    if group in groups or len(groups) < GROUPS:
        return group
    return group._replace(principal=OTHERS)


def _line(group: _Group, count: _Count) -> bytes:
    principal = group.principal.encode(
        "utf-8", "replace"
    ).decode()  # a key's name is ASCII, an address is not
    times = {"t": count.first_s, "last_t": count.last_s}
    return orjson.dumps({"refused_rows": count.rows, **times, **group._asdict(), "principal": principal})
