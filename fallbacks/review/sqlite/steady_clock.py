"""The clock of a review store: seconds since 1970 that pass evenly, whatever is done to the system's time.

A case expires at a time, and its row is deleted then. If a dead battery or a wrong time server puts the
system's clock weeks ahead for a minute, no waiting case may be lost for it. So the store counts the seconds
that pass since the machine's start (CLOCK_BOOTTIME, which also counts sleep), from a time that is in the
store and is the same for every process that shares it.

After another start of the machine, what has passed is the difference of the system's clock, between nothing
and a day: what a step in between adds is bounded. And with each sweep the store's clock moves towards the
system's by up to a hundredth of what has passed: so it follows corrections in the end, and a step can never
shorten the time of a case by more than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, insert, select, update

from fallbacks.review.sqlite.tables import STORE_TIME

LONGEST_PAUSE_S: Final = 86_400.0
SLEW: Final = 0.01
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class StoredTime(NamedTuple):
    """The store's time when it was last kept, and all clocks then.

    boot: the machine's start; running_s: seconds since then; store_s, wall_s: seconds since 1970.
    """

    boot: str
    running_s: float
    store_s: float
    wall_s: float


class Clocks(NamedTuple):
    """This machine's clocks: `running` steps never, `wall` may. boot: names its start; empty if unknown."""

    boot: str
    running: Callable[[], float]
    wall: Callable[[], float]

    @classmethod
    def of_this_machine(cls) -> Clocks:
        boot = _BOOT_ID.read_text("ascii").strip() if _BOOT_ID.is_file() else ""
        return cls(boot, _running_s, time.time)


def _running_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def time_now(last: StoredTime | None, clocks: Clocks) -> StoredTime:
    """The store's time now, from when it was last kept; the system's time if it never was."""
    running_s, wall_s = clocks.running(), clocks.wall()
    if last is None:
        return StoredTime(clocks.boot, running_s, wall_s, wall_s)
    if clocks.boot and clocks.boot == last.boot:
        passed_s = max(running_s - last.running_s, 0.0)
        most_s = SLEW * passed_s
        slewed_s = min(max(wall_s - (last.store_s + passed_s), -most_s), most_s)
    else:
        passed_s, slewed_s = min(max(wall_s - last.wall_s, 0.0), LONGEST_PAUSE_S), 0.0
    return StoredTime(clocks.boot, running_s, last.store_s + passed_s + slewed_s, wall_s)


class SteadyClock:
    """The store's time as a function. `keep` it now and then: what passes in between is not slewed."""

    def __init__(self, engine: Engine) -> None:
        self._clocks = Clocks.of_this_machine()
        with engine.begin() as connection:
            self.keep(connection)

    def __call__(self) -> float:
        """Seconds since 1970, for this process the same as for every other that shares the store."""
        return self._start_s + self._clocks.running()

    def keep(self, connection: Connection) -> None:
        """Writes the store's time down, in a write transaction, and takes over what another process wrote."""
        row = connection.execute(select(*(STORE_TIME.c[name] for name in StoredTime._fields))).one_or_none()
        now = time_now(None if row is None else StoredTime(*row), self._clocks)
        change = insert(STORE_TIME) if row is None else update(STORE_TIME)
        connection.execute(change.values(now._asdict()))
        self._start_s = now.store_s - now.running_s
