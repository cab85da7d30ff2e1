"""Which rows a principal has been answered: a table of a fixed size, which forgets and never invents."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

ENTRIES: Final = 2**16
_SPREAD: Final = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: numbers that differ by little come to places far apart (Knuth, TAOCP 6.4)."""
_BELOW: Final = 2**64 - 1


@dataclass(slots=True, eq=False)
class AnsweredRows:
    """One 64-bit number for each pair of a principal and a content, in the place that it names; a later pair
    takes the place of an earlier one. 512 KiB.

    Two pairs are taken for one with a chance of 2^-64: both numbers are hashes under the secret of the
    deployment (`Contents`, `QueryMemory.principal`).
    """

    _entries: array[int] = field(default_factory=lambda: array("Q", bytes(8 * ENTRIES)), init=False)

    def add(self, rows: Iterable[tuple[int, int]]) -> list[bool]:
        """Adds pairs (principal, content), in order; whether each was there already. Cost: 0.5 us each."""
        entries, found = self._entries, list[bool]()
        for principal, content in rows:
            number = (principal * _SPREAD + content) & _BELOW
            place = number % ENTRIES
            found.append(entries[place] == number)
            entries[place] = number
        return found
