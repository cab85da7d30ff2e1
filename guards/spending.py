"""What each principal has spent of a budget since the process began, to be shown: it decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final, NamedTuple

MOST_PRINCIPALS: Final = 10_000


class Spent(NamedTuple):
    """units: at prices in the end; refused: rows over the budget."""

    principal: str
    units: float
    refused: int


@dataclass(slots=True, eq=False)
class Spending:
    """Of at most 10,000 principals: of more, those that have spent least are forgotten, half at a time.

    total: units of all principals, also of those.
    """

    total: float = 0.0
    _units: dict[str, float] = field(default_factory=dict)
    _refused: dict[str, int] = field(default_factory=dict)

    def add(self, principal: str, units: float) -> None:
        """Counts units, less where some are given back. Cost: 0.2 us."""
        self.total += units
        known = self._units
        known[principal] = known.get(principal, 0.0) + units
        if len(known) > MOST_PRINCIPALS:
            self._units = dict(nlargest(MOST_PRINCIPALS // 2, known.items(), key=lambda one: one[1]))

    def refuse(self, principal: str, rows: int) -> None:
        """Counts rows over the budget."""
        known = self._refused
        known[principal] = known.get(principal, 0) + rows
        if len(known) > MOST_PRINCIPALS:
            self._refused = dict(nlargest(MOST_PRINCIPALS // 2, known.items(), key=lambda one: one[1]))

    def top(self, most: int) -> Sequence[Spent]:
        """The principals that have spent most, in that order; of equals, those refused most."""
        names = self._units.keys() | self._refused.keys()
        found = (Spent(name, self._units.get(name, 0.0), self._refused.get(name, 0)) for name in names)
        return nlargest(most, found, key=lambda one: (one.units, one.refused))
