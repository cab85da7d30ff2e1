"""Large bodies, parsed one after another in a process of their own, those of light callers first.

A body that waits is taken by the rank of its caller (`access/metering.py`): a heavy caller waits behind a
light one, and for itself gets everything that is left. If more than WAITING_BYTES wait, the last body of the
caller that comes last is refused, which may be the one that has just come.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from fallbacks.worker import Worker
from gateway.access.metering import FAILURE_S, ParseMeter, Rank
from gateway.core.decision import Reason, Refused
from gateway.protocol.contract import Contract
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.parse_frames import contract_header, frame, read_reply
from gateway.protocol.rejected import RequestRejected
from gateway.serving.parser import ParserFailed, ParserProcess

WAITING_BYTES: Final = 256 * 2**20
RETRY_S: Final = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class LargeBody:
    """A body as it came. how: what `parser_process` needs to know to read it; principal: of the caller."""

    principal: str
    contract: Contract
    how: dict[str, Any]
    body: bytes


class _Waiting(NamedTuple):
    """A body that waits. turn: the parser's reply."""

    large: LargeBody
    turn: asyncio.Future[tuple[dict[str, Any], memoryview]]


class Parsing:
    """The bodies of one replica that wait for its parser process. For one event loop."""

    def __init__(self, meter: ParseMeter) -> None:
        self._meter = meter
        self._process = ParserProcess()
        self._worker: Worker | None = None
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None

    async def parse(self, large: LargeBody, wait_s: float) -> InferRequest:
        """The request in a body. wait_s: for its turn at most.

        Raises:  InvalidRequest and RequestRejected as the parser does; RequestRejected too if its turn did
                 not come, if other bodies go before it and memory is short, and if the process failed.
        """
        loop = asyncio.get_running_loop()
        one = _Waiting(large, loop.create_future())
        self._waiting.append(one)
        self._waiting_bytes += len(large.body)
        self._shed()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._parse_waiting())
        timer = loop.call_later(wait_s, self._refuse, one, Refused(Reason.DEADLINE))
        try:
            header, payload = await one.turn
        finally:
            timer.cancel()
            self._remove(one)
        return await read_reply(header, payload, large.contract)

    def close(self) -> None:
        """Ends the process and its thread. What waits is refused."""
        for one in list(self._waiting):
            self._refuse(one, Refused(Reason.UNAVAILABLE, RETRY_S))
        if self._worker is not None:
            self._worker.close(0.0)
        self._process.close()

    def _shed(self) -> None:
        """Refuses bodies of the callers that come last until the others fit."""
        while self._waiting_bytes > WAITING_BYTES:
            ranks = self._ranks()
            last = max(reversed(self._waiting), key=lambda one: ranks[one.large.principal])
            self._refuse(last, Refused(Reason.RATE_LIMITED, RETRY_S))

    def _ranks(self) -> dict[str, Rank]:
        """Of each caller with a body that waits. Cost: 1 us a caller."""
        return {name: self._meter.rank(name) for name in {one.large.principal for one in self._waiting}}

    def _refuse(self, one: _Waiting, refused: Refused) -> None:
        """Refuses a body unless its turn has come."""
        if self._remove(one) and not one.turn.done():
            one.turn.set_exception(RequestRejected(refused))

    def _remove(self, one: _Waiting) -> bool:
        if one not in self._waiting:
            return False
        self._waiting.remove(one)
        self._waiting_bytes -= len(one.large.body)
        return True

    def _next(self) -> _Waiting:
        """The body of the caller that comes first; of one caller's, the one that has waited longest."""
        ranks = self._ranks()
        return min(self._waiting, key=lambda one: ranks[one.large.principal])

    async def _parse_waiting(self) -> None:
        """Parses what waits, until nothing does."""
        while self._waiting:
            one = self._next()
            self._remove(one)
            try:
                header, payload = await self._exchange(one.large)
            except ParserFailed as failed:
                log.warning("a body of %s was not parsed: %s", one.large.principal, failed)
                self._meter.charge_invalid(one.large.principal, FAILURE_S)
                _fail(one)
            except Exception:
                log.exception("a body could not be parsed: this is a defect of the gateway")
                _fail(one)
            else:
                self._charge(one.large.principal, header)
                if not one.turn.done():
                    one.turn.set_result((header, payload))

    async def _exchange(self, large: LargeBody) -> tuple[dict[str, Any], memoryview]:
        if self._worker is None:
            self._worker = Worker("parser")
        header = large.how | {"contract": contract_header(large.contract), "body_bytes": len(large.body)}
        job = frame(header, [large.body])
        return await self._worker.call(partial(self._process.exchange, job), self._process.kill)

    def _charge(self, principal: str, header: dict[str, Any]) -> None:
        charge = self._meter.charge_valid if "request" in header else self._meter.charge_invalid
        charge(principal, header["cpu_s"])


def _fail(one: _Waiting) -> None:
    if not one.turn.done():
        one.turn.set_exception(RequestRejected(Refused(Reason.UNAVAILABLE, RETRY_S)))
