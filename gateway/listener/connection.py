"""One connection of HTTP/1.1: its `Reader` queues requests, this answers them in order, one write each.

One request of a connection is answered at a time. What a client sends ahead waits its turn, and once
anything waits nothing more is read; nor is a further request begun while a reply is stuck on its way out.
A reply to a request that has not been read whole, or that breaks a rule, ends the connection: it is sent,
and what still comes in is dropped for a while, because a plain close could destroy the reply on its way.

There are neither messages nor timers per request: a connection has one deadline, which `Server` compares
with the clock now and then.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Protocol

from gateway.listener.limits import Limits, Violation
from gateway.listener.messages import Admitted, ClientAddresses, Fault, Handler, Reply
from gateway.listener.parser import ANSWER, BODY, END, HEAD, REQUEST, TAKING, Awaits, Reader, Turn

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n"
STATUS = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}
_LATE = {HEAD: "the headers did not arrive in time", BODY: "the body did not arrive in time"}
log = logging.getLogger(__name__)


class Owner(Protocol):
    """What a connection needs of its server. patience_s: by what it waits for."""

    @property
    def patience_s(self) -> Sequence[float]: ...

    @property
    def overrun(self) -> bool: ...

    handler: Handler
    limits: Limits
    proxies: ClientAddresses | None
    draining: bool

    def remember(self, one: Guest, /) -> bool: ...

    def forget(self, one: Guest, /) -> None: ...

    def seat(self, principal: str, /) -> bool: ...

    def unseat(self, principals: Iterable[str], /) -> None: ...


class Guest(Protocol):
    """What a server needs of whoever holds one of its connections.

    deadline_s: when, on the loop's clock, `expire` is to be called; idle_since_s: since when nothing is under
    way, None if something is (half a head is nothing: it costs a caller nothing to send); drain: to hang up
    unless something is under way, which then ends the connection; abandon: to hang up whatever is under way.
    """

    deadline_s: float

    @property
    def idle_since_s(self) -> float | None: ...

    def expire(self, now_s: float, /) -> None: ...

    def drain(self) -> None: ...

    def abandon(self) -> None: ...


class Connection(asyncio.Protocol):
    """One connection of a server, a `Guest`. Its transport may be of TLS (`secured.py`): it makes no odds."""

    __slots__ = (
        "_awaits",
        "_eof",
        "_gone",
        "_loop",
        "_paused",
        "_principals",
        "_reader",
        "_server",
        "_stuck",
        "_task",
        "_transport",
        "_unsent_bytes",
        "deadline_s",
    )

    def __init__(self, server: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._awaits = ANSWER
        self._eof = self._paused = self._stuck = False
        self._unsent_bytes = 0
        self._principals: frozenset[str] = frozenset()
        self.deadline_s = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server, self._transport = self._server, transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._reader = Reader(
            server.handler.admit, server.limits, address, server.proxies, self.gone, self.claim
        )
        if not server.remember(self):
            self._refuse(Fault.UNAVAILABLE)
            self._reader.turns[-1].whole = server.overrun  # then there is no time for it to read why
        self._proceed()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader.over:
            return
        try:
            reader.feed(data)
        except Violation as broken:
            self._refuse(broken.fault, broken.what)
        except Exception:
            log.exception("a request could not be read: this is a defect of the gateway")
            self._refuse(Fault.UNAVAILABLE)
        self._proceed()

    def eof_received(self) -> bool:
        """Half a hang-up, or a whole one: who waits for an answer still gets it."""
        self._eof = True
        self._wake()
        return self._task is not None or bool(self._reader.turns)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._reader.close()
        self._server.unseat(self._principals)
        self._wake()
        if self._task is None:
            self._server.forget(self)

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._stuck, self._unsent_bytes = True, self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._stuck = False
        self._proceed()

    async def gone(self) -> None:
        """Returns when the caller has hung up, or has said that it will send no more.

        Behind what it has sent ahead that cannot be seen: nothing is read while anything waits.
        """
        if not self._eof and self._transport is not None:
            self._gone = self._loop.create_future()
            await self._gone

    def claim(self, principal: str) -> bool:
        """Counts this connection as one of the principal's, once. False, and its end: there are too many."""
        if principal in self._principals:
            return True
        if self._server.seat(principal):
            self._principals |= {principal}
            return True
        self._reader.last = True
        return False

    def _wake(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _refuse(self, fault: Fault, what: str = "") -> None:
        """Ends the connection with a reply, after those to what was asked before."""
        self._reader.over, self._reader.stage = True, REQUEST
        self._reader.turns.append(Turn(self._server.handler.refuse(fault, what), keep=False))

    def _proceed(self) -> None:
        """Begins what is next in turn unless something is under way; says what is waited for, until when."""
        turns = self._reader.turns
        while turns and self._task is None and not self._stuck:
            self._begin(turns.popleft())
        if self._transport is None or self._awaits is END:
            return
        busy = self._task is not None or self._stuck
        self._pause(busy and (bool(turns) or self._reader.stage is not REQUEST))
        awaits = self._reader.stage if not busy else TAKING if self._stuck else ANSWER
        if awaits is not self._awaits:
            self._await(awaits)
        if awaits is BODY and self._reader.expects:
            self._reader.expects = False
            self._transport.write(CONTINUE)

    def _await(self, awaits: Awaits) -> None:
        self._awaits = awaits
        self.deadline_s = self._loop.time() + self._server.patience_s[awaits]

    def _pause(self, pause: bool) -> None:
        """Stops reading, or reads on; never after the end, where there is nothing to read."""
        if pause is self._paused or self._eof or self._transport is None:
            return
        self._paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _begin(self, turn: Turn) -> None:
        self._awaits, self.deadline_s = ANSWER, math.inf
        if isinstance(turn.step, Reply):
            self._write(turn, turn.step)
        else:
            self._task = self._loop.create_task(self._answer(turn, turn.step))

    async def _answer(self, turn: Turn, admitted: Admitted) -> None:
        try:
            reply = await admitted.answer(turn.body)
        except asyncio.CancelledError:  # who waits would wait for ever
            self.abandon()
            raise
        except Exception:
            log.exception("a request could not be answered: this is a defect of the gateway")
            reply = self._server.handler.refuse(Fault.UNAVAILABLE)
        finally:
            self._task = None
            if self._transport is None:
                self._server.forget(self)
        if reply is None:  # nobody is there any more
            self._end(whole=True)
        else:
            self._write(turn, reply)
            self._proceed()

    def _write(self, turn: Turn, reply: Reply) -> None:
        transport = self._transport
        if transport is None:
            return
        keep = turn.keep and turn.whole and not self._eof and not self._server.draining
        transport.write(
            b"%b%bcontent-length: %d\r\n%b\r\n%b"
            % (
                STATUS[reply.status],
                reply.headers,
                len(reply.body),
                b"" if keep else CLOSE,
                b"" if turn.bare else reply.body,
            )
        )
        if not keep:
            self._end(turn.whole)

    def _end(self, whole: bool) -> None:
        """Hangs up: at once, or when the caller has had time to read why, unless it hangs up itself."""
        transport = self._transport
        if transport is None:
            return
        self._reader.over = True
        self._reader.turns.clear()
        self._pause(False)
        self._unsent_bytes = transport.get_write_buffer_size()
        self._await(TAKING if self._unsent_bytes else END)
        self._awaits = END
        if whole or self._eof:
            transport.close()
        else:
            transport.write_eof()

    def expire(self, now_s: float) -> None:
        """What the deadline was for has not come: a 408 for half a request, the end for all else."""
        transport = self._transport
        if transport is None:
            return
        if self._awaits in _LATE:
            self._refuse(Fault.TOO_SLOW, _LATE[self._awaits])
            self._proceed()
            return
        unsent_bytes = transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes != self._unsent_bytes:  # it is taken, slowly
            self._unsent_bytes = unsent_bytes
            self.deadline_s = now_s + self._server.patience_s[TAKING]
        elif unsent_bytes or self._awaits is END:
            transport.abort()
        else:
            transport.close()

    @property
    def idle_since_s(self) -> float | None:
        """Since when it waits for a request or for the rest of its head, on the loop's clock."""
        awaits = self._awaits
        if awaits is REQUEST or awaits is HEAD:
            return self.deadline_s - self._server.patience_s[awaits]
        return None

    def drain(self) -> None:
        """Hangs up unless a request is under way, whose reply then ends the connection."""
        reader = self._reader
        under_way = self._task is not None or reader.turns or (reader.stage is BODY and not reader.over)
        if not under_way and self._transport is not None:
            self._end(whole=True)

    def abandon(self) -> None:
        """Hangs up on whatever is under way."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()
