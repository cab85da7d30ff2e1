"""The ledgers of one process: one for each place that policies name, however many deployments share it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gateway.ledger.leased import Slices
from gateway.ledger.ledger import Batch, Grant, Ledger
from gateway.ledger.open_ledger import open_ledger

LIVES_EACH: Final = 10
"""How often each replica may begin anew within one burst, by the bound on overshoot in `leased.py`."""
CLOSE_WITHIN_S: Final = 2.0
log = logging.getLogger(__name__)


class SharedLedger:
    """A ledger that is opened when it is first asked, in a thread, and again until that succeeds."""

    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.users = place, 0
        self._folder = folder
        self._opening: asyncio.Task[Ledger] | None = None
        self._said = ""

    async def lease(self, batch: Batch) -> list[Grant]:
        """As `Ledger`. Raises what keeps it from being opened, too, and logs that once."""
        if self._opening is None:
            self._opening = asyncio.create_task(asyncio.to_thread(open_ledger, self.place, self._folder))
        opening = self._opening
        try:
            ledger = await asyncio.shield(opening)  # a caller that gives up leaves no file open and forgotten
        except Exception as error:
            if opening is self._opening:
                self._opening = None
            self._say(error)
            raise
        self._said = ""
        return await ledger.lease(batch)

    async def close(self) -> None:
        """Lets go of files and connections, unless it is still being opened after two seconds."""
        opening, self._opening = self._opening, None
        if opening is not None:
            with suppress(Exception):  # it was said, or never answered
                ledger = await asyncio.wait_for(asyncio.shield(opening), CLOSE_WITHIN_S)
                await ledger.close()

    def _say(self, error: Exception) -> None:
        what = str(error) or type(error).__name__
        if isinstance(error, BlockingIOError):
            what = f"the file in {self._folder} is open in another process"
        if what != self._said:
            log.error("the ledger of budgets cannot be opened: %s", what)
        self._said = what


class Ledgers:
    """Where this process may keep budgets.

    folder: for state, of the whole process. replicas: how many share each budget. on_ray: whether the process
    is a replica under Ray, or will be.
    """

    def __init__(self, folder: Path, replicas: int, *, on_ray: bool) -> None:
        self._folder, self._replicas, self._on_ray = folder, replicas, on_ray
        self._open: dict[str, SharedLedger] = {}

    @property
    def slices(self) -> Slices:
        """What a replica holds of each bucket: see the bound on overshoot in `leased.py`."""
        n = self._replicas
        return Slices(of_burst=1 / (2 * n), initial_of_burst=1 / (LIVES_EACH * n), share=1 / n)

    def problem(self, place: str) -> str:
        """Why budgets cannot be kept there; empty if they can. Opens nothing."""
        match place:
            case "local" if self._replicas > 1:
                what = f"`local` is a file for one replica, and there are {self._replicas}"
                return f"{what}: say `ray`, or the URL of a Redis"
            case "ray" if not self._on_ray:
                what = "`ray` is an actor of a Ray cluster, and there is none with --local"
                return f"{what}: say `local`, or the URL of a Redis"
            case "local" | "ray":
                return ""
        if find_spec("redis") is None:
            return "a Redis needs redis-py: pip install 'failsafe-gateway[redis]'"
        return _problem_of_url(place)

    def take(self, place: str) -> SharedLedger:
        """The ledger at a place, for one more user."""
        ledger = self._open.get(place)
        if ledger is None:
            ledger = self._open[place] = SharedLedger(place, self._folder)
        ledger.users += 1
        return ledger

    async def release(self, ledger: SharedLedger) -> None:
        """For one user less; closes it after the last."""
        ledger.users -= 1
        if not ledger.users:
            if self._open.get(ledger.place) is ledger:
                del self._open[ledger.place]
            await ledger.close()


def _problem_of_url(place: str) -> str:
    from redis.asyncio.connection import parse_url  # an extra

    try:
        parse_url(place)
    except ValueError as error:
        return f"is no URL of a Redis: {error}"
    return ""
