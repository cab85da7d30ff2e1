"""Suspects: principals that seem to be one attacker with several keys, and the evidence against each.

Two principals become one suspect once rows of the one have nearly repeated rows of the other often enough.
In one range of addresses (/24 of IPv4, /48 of IPv6) two repetitions between any of its principals are enough;
a principal that comes from there later belongs to the suspect from its first row on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from guards.sequence import Bets, Evidence, pooled

K = TypeVar("K")
V = TypeVar("V")

OVERLAPS: Final = 8
OVERLAPS_IN_RANGE: Final = 2
MOST_PRINCIPALS: Final = 4096
MOST_MEMBERS: Final = 256
HALF_LIFE_ROWS: Final = 1024
WATCHED_FROM: Final = 10.0
"""The evidence from which a suspect is watched: of honest ones one in ten ever reaches it."""


@dataclass(slots=True, eq=False)
class Suspect:
    """evidence: against all its principals together; members: those that are still known; ranges: of
    addresses whose newcomers belong to it; standing: the largest e-value, halved with each 1,024 rows since;
    has_alarmed: whether the e-value has ever reached the alarm.
    """

    evidence: Evidence
    members: set[int]
    ranges: set[str] = field(default_factory=set)
    standing: float = 1.0
    has_alarmed: bool = False


@dataclass(slots=True, eq=False)
class Suspects:
    """The evidence against each principal, alone or with others.

    most: principals that are known at once, pairs and ranges that are counted; those seen least recently
    are forgotten. A suspect has at most 256 members. Memory: about 1 KiB a principal.

    Among honest principals, however their rows depend on each other and whichever are merged, at most a share
    of alpha is expected to be ever in a suspect that alarms and has honest members alone: docs/guards.md.
    """

    bets: Bets
    most: int = MOST_PRINCIPALS
    _of: OrderedDict[int, Suspect] = field(default_factory=OrderedDict, init=False, repr=False)
    _ranges: dict[int, str] = field(default_factory=dict, init=False, repr=False)
    _counts: OrderedDict[tuple[int, int] | str, int] = field(
        default_factory=OrderedDict, init=False, repr=False
    )
    _hosts: OrderedDict[str, Suspect] = field(default_factory=OrderedDict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.most < 2:
            raise ValueError(f"suspects: {self.most} principals; needs two or more")

    def observe(self, principal: int, address_range: str, hits: Sequence[bool]) -> Evidence:
        """Add a principal's rows, in order, to the evidence against its suspect, which is returned.

        Call it before `overlap` of the same rows: who is merged may depend on rows before a bet alone.

        Args:    principal: `QueryMemory.principal`; address_range: where the rows came from, "" if not known.
        Cost:    2 us, and 1 us a row.
        """
        suspect = self._of.get(principal)
        if suspect is None:
            suspect = self._of[principal] = Suspect(self.bets.new(), {principal})
            host = self._hosts.get(address_range)
            if host is not None and self._merge(host, suspect):
                suspect = self._of[principal]
        self._ranges[principal] = address_range
        self._of.move_to_end(principal)
        found = suspect.evidence = self.bets.after(suspect.evidence, hits)
        fallen = suspect.standing * 0.5 ** (len(hits) / HALF_LIFE_ROWS)
        suspect.standing = max(fallen, found.value)
        suspect.has_alarmed = suspect.has_alarmed or self.bets.alarms(found)
        while len(self._of) > self.most:
            self._forget(*self._of.popitem(last=False))
        return found

    def overlap(self, principal: int, other: int) -> bool:
        """Count that a row of one principal nearly repeated one of another; whether they are one suspect now.

        Principals that are not known, or no longer, are not merged. Cost: 2 us.
        """
        a, b = self._of.get(principal), self._of.get(other)
        if a is None or b is None or a is b:
            return a is not None and a is b
        where = self._ranges[principal]
        is_near = where != "" and where == self._ranges[other]
        counted = where if is_near else (min(principal, other), max(principal, other))
        count = self._counts.pop(counted, 0) + 1
        _keep(self._counts, counted, count, self.most)
        if count < (OVERLAPS_IN_RANGE if is_near else OVERLAPS) or not self._merge(a, b):
            return False
        if is_near:
            host = self._of[principal]
            host.ranges.add(where)
            _keep(self._hosts, where, host, self.most)
        return True

    def evidence(self, principal: int) -> Evidence:
        """The evidence against a principal's suspect; new for one that is not known."""
        suspect = self._of.get(principal)
        return self.bets.new() if suspect is None else suspect.evidence

    def standing(self, principal: int) -> float:
        """What a principal's suspect is judged by: the largest e-value, halved with each 1,024 rows since.

        It reaches no number that the e-value has not reached, so it is as rarely large. But rows that are no
        hits, sent between those that are, do not end an alarm at once. 1 for one that is not known.
        """
        suspect = self._of.get(principal)
        return 1.0 if suspect is None else suspect.standing

    def has_alarmed(self, principal: int) -> bool:
        """Whether the evidence against a principal's suspect has ever reached the alarm."""
        suspect = self._of.get(principal)
        return suspect is not None and suspect.has_alarmed

    def is_watched(self, principal: int) -> bool:
        """Whether the evidence against a principal's suspect is 10 or more, or has ever reached the alarm."""
        suspect = self._of.get(principal)
        return suspect is not None and (suspect.has_alarmed or suspect.standing >= WATCHED_FROM)

    def members(self, principal: int) -> frozenset[int]:
        """The principals that are one suspect with this one, itself included."""
        suspect = self._of.get(principal)
        return frozenset({principal}) if suspect is None else frozenset(suspect.members)

    def listed(self) -> list[Suspect]:
        """Each suspect once, the one with the largest standing first. Cost: 1 ms for 4,096 principals."""
        once = {id(suspect): suspect for suspect in self._of.values()}
        return sorted(once.values(), key=lambda suspect: -suspect.standing)

    def _merge(self, a: Suspect, b: Suspect) -> bool:
        """The smaller becomes part of the larger, so that a principal moves at most eight times."""
        if len(a.members) + len(b.members) > MOST_MEMBERS:
            return False
        large, small = (a, b) if len(a.members) >= len(b.members) else (b, a)
        large.evidence = pooled(large.evidence, small.evidence)
        large.standing, large.has_alarmed = large.evidence.value, large.has_alarmed or small.has_alarmed
        large.members |= small.members
        for member in small.members:
            self._of[member] = large
        for where in small.ranges & self._hosts.keys():
            self._hosts[where] = large
        large.ranges |= small.ranges
        return True

    def _forget(self, principal: int, suspect: Suspect) -> None:
        """Its deposit stays with the suspect, so that the mean is of all that was ever paid in."""
        suspect.members.discard(principal)
        del self._ranges[principal]
        for where in () if suspect.members else suspect.ranges:
            if self._hosts.get(where) is suspect:
                del self._hosts[where]


def _keep(kept: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Set an entry as the latest, and drop the oldest beyond `most`."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
