"""Connections that are not read for a while, because a request on them was refused for want of room.

The refusal tells the client when to come again. One that sends its next request at once would cost another
refusal, and a thousand connections of that kind the whole event loop. So what comes next on such a connection
is left unread, which costs nothing, until one of these:

* there is room again: then those are read first that were held last, since what waits there is the newest
  (adaptive LIFO: under overload it is answered in time, and the oldest is late anyway). Those that were held
  for longer than `FRESH_S` have to wait until there is much room;
* the connection was held for `HOLD_S`: then it is read, and perhaps refused again. Of many whose time has
  come, only `EXPIRED_PER_S` are read each second.

Nothing tells how long bytes have waited unread, so they are taken to have come when the hold began: what may
have waited beyond its deadline is refused, and not answered late.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable
from itertools import islice
from math import ceil
from typing import Final, Protocol

HOLD_S: Final = 1.6
"""Shorter than any refusal's Retry-After, in seconds: a client that keeps to that is hardly ever held."""
EXPIRED_PER_S: Final = 250
"""As many refusals as take a thirtieth of a core."""
TICK_S: Final = 0.004
"""How often it is looked at whether there is room; less often where a turn of the event loop takes longer."""
FRESH_S: Final = 0.1
RELEASED_SHARE: Final = 0.2
"""Of the room, in each `TICK_S`: connections that are read fill it as well, and come back sooner."""


class Room(Hashable, Protocol):
    """What a request had no room in. free: how many would fit now; idle: whether half of it is free."""

    @property
    def free(self) -> int: ...

    @property
    def idle(self) -> bool: ...


class HeldConnection(Hashable, Protocol):
    """A connection that can be held: `hold` pauses its reading, `read_on` resumes it."""

    def hold(self, now_s: float) -> None: ...

    def read_on(self, now_s: float) -> None: ...


class HeldConnections:
    """The held connections of a server, for one event loop. Cost: 1 us each, a timer while there are any."""

    def __init__(self) -> None:
        self._held: dict[Room, dict[HeldConnection, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looked_s = 0.0

    def add(self, connection: HeldConnection, room: Room, loop: asyncio.AbstractEventLoop) -> None:
        """Holds a connection until the room has some, or for HOLD_S."""
        now_s = loop.time()
        self._held.setdefault(room, {})[connection] = now_s
        connection.hold(now_s)
        if self._timer is None:
            self._timer, self._looked_s = loop.call_later(TICK_S, self._tick, loop), now_s

    def discard(self, connection: HeldConnection) -> None:
        """Forgets a connection, if it is held."""
        for held in self._held.values():
            held.pop(connection, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        released_share = 1.0 - (1.0 - RELEASED_SHARE) ** (passed_s / TICK_S)
        for room in list(self._held):
            held = self._held[room]
            at_most = ceil(room.free * released_share)
            newest = list(islice(reversed(held.items()), max(0, at_most)))
            oldest = list(islice(held.items(), ceil(EXPIRED_PER_S * passed_s)))
            fresh_s = -math.inf if room.idle else now_s - FRESH_S
            due = [one for one, since_s in newest if since_s >= fresh_s]
            due += [one for one, since_s in oldest if since_s <= now_s - HOLD_S]
            for connection in dict.fromkeys(due):
                del held[connection]
                connection.read_on(now_s)
            if not held:
                del self._held[room]
        self._timer = loop.call_later(TICK_S, self._tick, loop) if self._held else None
