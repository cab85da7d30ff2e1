"""What is known of principals beside the evidence, to be shown: names, rows, and when they first alarmed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from guards.suspects import MOST_PRINCIPALS


@dataclass(slots=True)
class Sighting:
    """One principal. rows: looked up; alarm_row: the number of rows after which it first was in a suspect
    that had alarmed, None if it never was; order: of first alarms, over all principals.
    """

    name: str
    rows: int = 0
    alarm_row: int | None = None
    order: int = 0


@dataclass(slots=True, eq=False)
class SuspectRecord:
    """Of at most `most` principals: those seen least recently are forgotten, as by `Suspects`.

    It decides nothing. Memory: 300 bytes and the name a principal.
    """

    most: int = MOST_PRINCIPALS
    _seen: OrderedDict[int, Sighting] = field(default_factory=OrderedDict, init=False, repr=False)
    _alarms: count[int] = field(default_factory=count, init=False, repr=False)

    def add(self, principal: int, name: str, rows: int, *, has_alarmed: bool) -> None:
        """Counts rows of a principal. has_alarmed: whether its suspect has, these rows included.

        Cost:    0.5 us.
        """
        one = self._seen.get(principal)
        if one is None:
            one = self._seen[principal] = Sighting(name)
        self._seen.move_to_end(principal)
        one.rows += rows
        if has_alarmed and one.alarm_row is None:
            one.alarm_row, one.order = one.rows, next(self._alarms)
        if len(self._seen) > self.most:
            self._seen.popitem(last=False)

    def of(self, principals: Iterable[int]) -> list[Sighting]:
        """Those that are known, the first to alarm first, then by rows."""
        found = [one for who in principals if (one := self._seen.get(who)) is not None]
        return sorted(found, key=lambda one: (one.alarm_row is None, one.order, -one.rows))
