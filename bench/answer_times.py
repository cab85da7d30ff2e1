"""A load of requests that notes when each answer of a model came, for `bench.stop_time`."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.client import ClientConnection, Origin, Response

RETRY_S = 0.05
"""Between a refusal and the next request of its connection."""
ANSWERS = ("served", "degraded")
ANSWERS_BEFORE = 200


@dataclass(slots=True)
class Load:
    """Sends on every connection as soon as it is free, and notes when answers of a model came.

    under_way: set once there are ANSWERS_BEFORE.
    """

    origin: Origin
    requests: Sequence[bytes]
    answered_s: list[float] = field(default_factory=list)
    under_way: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, connections: int) -> None:
        """Until cancelled."""
        requests = itertools.cycle(self.requests)
        await asyncio.gather(*(self._send(next(requests)) for _ in range(connections)))

    async def _send(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        connection = ClientConnection(self.origin)
        while True:
            if connection.closed:
                connection = ClientConnection(self.origin)
            done: asyncio.Future[str] = loop.create_future()
            now_s = time.time()
            connection.send(request, _Reply(done), now_s, now_s)
            if (outcome := await done) in ANSWERS:
                self.answered_s.append(time.time())
                if len(self.answered_s) == ANSWERS_BEFORE:
                    self.under_way.set()
            elif outcome != "deferred":
                await asyncio.sleep(RETRY_S)


@dataclass(frozen=True, slots=True)
class _Reply:
    """The handler of one request."""

    done: asyncio.Future[str]

    def answered(self, _: ClientConnection, answer: Response) -> None:
        if not self.done.done():
            self.done.set_result(answer.outcome)

    def failed(self, _: ClientConnection, kind: str) -> None:
        if not self.done.done():
            self.done.set_result(kind)
