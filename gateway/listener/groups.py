"""Connections that share a limit: all of a server, or those of one address. One of them gives way to another.

    1.  one that has its last reply, and waits only for its client to close
    2.  one without a request under way, of no caller that was identified on it
    3.  one without a request under way, of an identified caller

Of several the one that has waited longest gives way. One with a request under way never does.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest

from gateway.listener.managed import ManagedConnection

CANDIDATES = 64
"""How many of the longest waiting one search keeps: to search 2,048 takes 0.2 ms."""


class ConnectionGroup:
    """limit: of members. A member is added as one of no identified caller."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._lingering: dict[ManagedConnection, None] = {}
        self._unknown, self._known = _Waiting(), _Waiting()

    def __len__(self) -> int:
        return len(self._unknown.members) + len(self._known.members)

    def add(self, connection: ManagedConnection) -> None:
        self._unknown.members.add(connection)

    def mark_known(self, connection: ManagedConnection) -> None:
        """A caller was identified on a member."""
        if connection in self._unknown.members:
            self._unknown.members.discard(connection)
            self._known.members.add(connection)

    def mark_lingering(self, connection: ManagedConnection) -> None:
        """A member has written its last reply."""
        if connection in self._unknown.members or connection in self._known.members:
            self._lingering[connection] = None

    def discard(self, connection: ManagedConnection) -> None:
        """Removes a member, if it is one."""
        self._lingering.pop(connection, None)
        self._unknown.members.discard(connection)
        self._known.members.discard(connection)

    def next_to_go(self, newcomer: ManagedConnection) -> ManagedConnection | None:
        """The member other than the newcomer that is to give way; None if none can."""
        if self._lingering:
            return next(iter(self._lingering))
        return self._unknown.longest(newcomer) or self._known.longest(newcomer)


class _Waiting:
    """Members of a group, of which the one that has waited longest is found."""

    def __init__(self) -> None:
        self.members: set[ManagedConnection] = set()
        # Since when each candidate had waited at the search; the longest waiting is last.
        self._candidates: list[tuple[float, ManagedConnection]] = []

    def longest(self, newcomer: ManagedConnection) -> ManagedConnection | None:
        """The member other than the newcomer that has waited longest; None if none waits.

        While a candidate of the last search still waits since the same time, no other has waited longer.
        """
        while True:
            while self._candidates:
                since_s, connection = self._candidates.pop()
                if connection in self.members and connection.waits_since_s == since_s:
                    return connection
            waiting = _since(one for one in self.members if one is not newcomer)
            self._candidates = nsmallest(CANDIDATES, waiting, key=lambda pair: pair[0])[::-1]
            if not self._candidates:
                return None


def _since(connections: Iterable[ManagedConnection]) -> list[tuple[float, ManagedConnection]]:
    since = ((one.waits_since_s, one) for one in connections)
    return [(since_s, one) for since_s, one in since if since_s is not None]
