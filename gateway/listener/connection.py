"""One HTTP/1.1 connection: its `Reader` queues requests, this answers them in order, one write each.

All that it does follows from the tables of `states`: it reports what happens as an event, and asks what to
wait for. A request costs neither a message nor a timer: a connection has one deadline, which the server
compares with the clock now and then.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from gateway.addresses import peer_address
from gateway.listener.limits import RemoteProtocolError
from gateway.listener.managed import ConnectionServer
from gateway.listener.messages import Fault, Reply
from gateway.listener.pace import Pace
from gateway.listener.parser import PendingRequest, Reader
from gateway.listener.states import (
    AFTER_WRITE,
    ANSWER,
    ANSWER_PAUSED,
    CLOSE,
    CLOSED,
    CLOSING,
    DONE,
    EOF,
    FIRST_BYTE,
    IDLE,
    LAST_REPLIES,
    LINGERING,
    READY,
    REPLIES,
    SPOILED,
    WAITS,
    WAITS_QUEUED,
    ReadEvent,
    Wait,
    WaitTarget,
    WriteEvent,
)

CONTINUE_HEAD = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_CONTENT = HTTPStatus.NO_CONTENT.value
"""The one status of our replies that has no Content-Length."""
DROPPED_BYTES = 16 * 2**20
"""So much is read and dropped after the last request, so that its client can read the reply."""
CLOSE_HEADER = b"connection: close\r\n"
STATUS_LINES = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}
AT_ONCE_S = 0.1
"""What is read so soon after a hold may have waited for its end."""
TOO_SLOW = {
    WaitTarget.HEAD: "the headers did not arrive in time",
    WaitTarget.BODY: "the body did not arrive in time",
}
# What every request needs of the tables, looked up once.
AFTER_ANSWER_BEGUN = AFTER_WRITE[WriteEvent.ANSWER_BEGUN]
REPLY_KEEPS = WriteEvent.REPLY_KEEPS
AFTER_REPLY_KEEPS = AFTER_WRITE[REPLY_KEEPS]
log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """A connection of a server, a `ManagedConnection`. Its transport is of TCP, or of TLS (`tls_transport`).

    write_state: what has become of the reply under way. The read state is the reader's.
    """

    __slots__ = (
        "_disconnection",
        "_dropped_bytes",
        "_held_s",
        "_holding",
        "_kept",
        "_kept_s",
        "_loop",
        "_pace",
        "_paced",
        "_principals",
        "_read_on_s",
        "_reader",
        "_server",
        "_task",
        "_transport",
        "_unsent_bytes",
        "_wait",
        "address",
        "deadline_s",
        "write_state",
    )

    def __init__(self, server: ConnectionServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._disconnection: asyncio.Future[None] | None = None
        self.write_state = READY
        self._wait = ANSWER  # until there is a transport
        self._unsent_bytes = self._dropped_bytes = 0
        self._pace = Pace()
        self._paced: asyncio.TimerHandle | None = None  # writes a reply later
        self._holding = False
        self._held_s = self._read_on_s = -math.inf  # when it was held, and read on, the last time
        self._kept, self._kept_s = b"", math.inf  # what has arrived and waits to be parsed, and since when
        self._principals: frozenset[str] = frozenset()
        self.address = ""
        self.deadline_s = math.inf

    # ---------------------------------------------------------------- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server, self._transport = self._server, transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self.address = peer_address(str(peer[0])) if isinstance(peer, tuple) else ""
        self._reader = Reader(
            server.handler.admit,
            server.limits,
            self.address,
            server.proxies,
            self.disconnected,
            self.count_connection,
            self._first_byte_s,
        )
        if not server.add_connection(self) and self.write_state is READY:
            # With too many to turn away, none gets the time to read why.
            self._reader.move(ReadEvent.ENDED if server.saturated else ReadEvent.TURNED_AWAY)
            self._refuse(Fault.UNAVAILABLE)
        self._proceed()

    def data_received(self, data: bytes) -> None:
        queue = self._server.read_queue
        if not self._kept and queue.may_read(self._loop):
            self._read(data)
        elif self._kept:
            self._kept += data
        else:
            assert self._transport is not None
            self._kept, self._kept_s = data, self._loop.time()
            if self._wait.reads and not self._holding:
                self._transport.pause_reading()
            queue.add(self, self._caller(), data)

    def read_kept(self) -> None:
        """Parses what has arrived, now that it is this connection's turn."""
        data = self._kept
        self._stop_keeping()
        self._read(data)
        self._kept_s = math.inf

    def _stop_keeping(self) -> None:
        self._kept = b""
        if self._wait.reads and not self._holding and self._transport is not None:
            self._transport.resume_reading()

    def _drop_kept(self) -> None:
        if self._kept:
            self._server.read_queue.discard(self)
            self._stop_keeping()

    def _read_kept_now(self) -> None:
        """Parses what has arrived before the connection's turn: it is about to end."""
        if self._kept:
            self._server.read_queue.discard(self)
            self.read_kept()

    def _caller(self) -> str:
        """Whose turn it is when this connection is read."""
        return next(iter(self._principals)) if len(self._principals) == 1 else self.address

    def _read(self, data: bytes) -> None:
        reader = self._reader
        if reader.state is not IDLE and reader.state >= DONE:  # what follows is dropped
            self._drop(len(data))
            return
        try:
            reader.feed(data)
        except RemoteProtocolError as error:
            self._refuse(error.fault, error.what)
        except Exception:
            log.exception("a request could not be read: this is a defect of the gateway")
            self._refuse(Fault.UNAVAILABLE)
        self._proceed()

    def _drop(self, count: int) -> None:
        """Counts what is dropped after the last request; a client that goes on sending is cut off."""
        self._dropped_bytes += count
        if self._dropped_bytes > DROPPED_BYTES and self._transport is not None:
            self._abort(WriteEvent.ABORTED)

    def eof_received(self) -> bool:
        """The client sends no more. Returns whether it still gets a reply; else the transport closes."""
        self._read_kept_now()
        self._reader.move(ReadEvent.EOF)
        self._move(WriteEvent.EOF)
        self._report_disconnection()
        if self.write_state is CLOSING:
            self._wait = CLOSE  # with the deadline of what it waited for
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._drop_kept()
        self._move(WriteEvent.LOST)
        self._reader.close()
        self._server.uncount_connection(self._principals)
        self._report_disconnection()
        if self._holding:
            self._server.held.discard(self)
        if self._paced is not None:
            self._paced.cancel()
            self._move(WriteEvent.NO_REPLY)
        if self.write_state is CLOSED:
            self._server.remove_connection(self)

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._move(WriteEvent.BLOCKED)
        self._unsent_bytes = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._move(WriteEvent.RESUMED)
        self._proceed()

    # ---------------------------------------------------------------- called by the handler

    async def disconnected(self) -> None:
        """Returns when the client has closed the connection, or its sending half.

        That cannot be noticed while further requests wait: nothing is read then.
        """
        if self._transport is not None and self._reader.state is not EOF:
            self._disconnection = self._loop.create_future()
            await self._disconnection

    def count_connection(self, principal: str) -> bool:
        """Counts this connection as one of the principal's, once. False if it has too many: then it ends."""
        if principal in self._principals:
            return True
        if self._server.count_connection(principal):
            if not self._principals:
                self._server.mark_known(self)
            self._principals |= {principal}
            return True
        self._reader.keep_alive = False
        return False

    # ---------------------------------------------------------------- requests and replies

    def _move(self, event: WriteEvent) -> None:
        self.write_state = AFTER_WRITE[event][self.write_state]

    def _report_disconnection(self) -> None:
        if self._disconnection is not None and not self._disconnection.done():
            self._disconnection.set_result(None)

    def _refuse(self, fault: Fault, what: str = "") -> None:
        """Queues the last reply, unless the one to a request whose body is spoiled will be the last."""
        if self._reader.state is not SPOILED:
            self._reader.queue.append(PendingRequest(self._server.handler.refuse(fault, what)))

    def _next_wait(self) -> Wait:
        reader = self._reader
        return WAITS_QUEUED[self.write_state] if reader.queue else WAITS[self.write_state][reader.state]

    def _proceed(self) -> None:
        """Begins the next request unless one is under way, and waits for what the tables say."""
        reader = self._reader
        while reader.queue and self.write_state is READY:
            self._begin(reader.queue.popleft())
        write_state = self.write_state  # as in `_next_wait`, without a call
        wait = WAITS_QUEUED[write_state] if reader.queue else WAITS[write_state][reader.state]
        if wait is not self._wait:
            self._change_wait(wait)

    def _change_wait(self, wait: Wait) -> None:
        transport, before = self._transport, self._wait
        assert transport is not None
        self._wait = wait
        if wait.awaits is not before.awaits:
            self.deadline_s = self._loop.time() + self._server.timeouts_s[wait.awaits]
        if wait.reads is not before.reads and not self._holding and not self._kept:
            if wait.reads:
                transport.resume_reading()
            else:
                transport.pause_reading()
        if wait.continues:
            self._reader.move(ReadEvent.CONTINUED)
            transport.write(CONTINUE_HEAD)

    def _begin(self, request: PendingRequest) -> None:
        self._wait, self.deadline_s = ANSWER if self._wait.reads else ANSWER_PAUSED, math.inf
        step = request.step
        try:
            answer = step if isinstance(step, Reply) else step.answer(request.body)
        except Exception:
            log.exception("a request could not be answered: this is a defect of the gateway")
            answer = self._server.handler.refuse(Fault.UNAVAILABLE)
        if not isinstance(answer, Reply):
            self.write_state = AFTER_ANSWER_BEGUN[self.write_state]
            self._task = self._loop.create_task(self._answer(request, answer))
        elif answer.pace_s and (wait_s := self._pace.wait_s(answer.pace_s, self._loop.time())):
            self.write_state = AFTER_ANSWER_BEGUN[self.write_state]
            self._paced = self._loop.call_later(wait_s, self._write_paced, request, answer)
        else:
            self._write(request, answer)

    def _write_paced(self, request: PendingRequest, reply: Reply) -> None:
        self._paced = None
        self._write(request, reply)
        self._proceed()

    async def _answer(self, request: PendingRequest, answer: Coroutine[Any, Any, Reply | None]) -> None:
        try:
            reply = await answer
            if reply is not None and reply.pace_s:
                await asyncio.sleep(self._pace.wait_s(reply.pace_s, self._loop.time()))
        except asyncio.CancelledError:
            self._end_without_reply(WriteEvent.CANCELLED)
            raise
        except Exception:
            log.exception("a request could not be answered: this is a defect of the gateway")
            reply = self._server.handler.refuse(Fault.UNAVAILABLE)
        finally:
            self._task = None
        gone = self._transport is None or (self._reader.state is EOF and not self._reader.queue)
        if reply is not None and reply.on_unsent is not None and gone:
            reply.on_unsent()
            reply = None
        if reply is None or self._transport is None:
            self._end_without_reply(WriteEvent.NO_REPLY)
        else:
            self._write(request, reply)
            self._proceed()

    def _end_without_reply(self, event: WriteEvent) -> None:
        """After the handler's work, where the client gets no reply or there is no connection any more."""
        if self._transport is None:
            self._move(event)
            self._server.remove_connection(self)
        elif event is WriteEvent.CANCELLED:
            self._abort(event)
        else:
            self._end(event)

    def _write(self, request: PendingRequest, reply: Reply) -> None:
        """Writes a reply, and ends the connection if the tables say that it is the last."""
        transport, reader = self._transport, self._reader
        assert transport is not None
        if self._server.draining:
            more = reader.queue or self._kept
            event = WriteEvent.REPLY_LINGERS if more else LAST_REPLIES[reader.state]
        else:
            event = REPLY_KEEPS if reader.queue else REPLIES[reader.state]
        if kept := event is REPLY_KEEPS:
            self.write_state = AFTER_REPLY_KEEPS[self.write_state]
        else:
            self._move(event)
        transport.write(
            b"%b%b%b%b\r\n%b"
            % (
                STATUS_LINES[reply.status],
                reply.headers,
                b"content-length: %d\r\n" % len(reply.body) if reply.status != NO_CONTENT else b"",
                b"" if kept else CLOSE_HEADER,
                b"" if request.head_only else reply.body,
            )
        )
        if not kept:
            self._close()
        elif reply.room is not None:
            self._server.held.add(self, reply.room, self._loop)

    def _end(self, event: WriteEvent) -> None:
        self._move(event)
        self._close()

    def _abort(self, event: WriteEvent) -> None:
        assert self._transport is not None
        self._move(event)
        self._drop_kept()
        self._reader.end()
        self._transport.abort()

    def _close(self) -> None:
        """Closes the transport; in LINGERING only its sending half, until the client closes the other."""
        transport = self._transport
        assert transport is not None
        if self._holding:
            self._server.held.discard(self)
            self.read_on(-math.inf)
        self._drop_kept()
        self._reader.end()
        self._unsent_bytes = transport.get_write_buffer_size()
        self._change_wait(CLOSE)
        if self._unsent_bytes:
            self._extend(self._loop.time())
        if self.write_state is LINGERING:
            self._server.mark_lingering(self)
            transport.write_eof()
        else:
            transport.close()

    # ---------------------------------------------------------------- called by the server

    @property
    def waits_since_s(self) -> float | None:
        """Since when it waits for a request, or part of one: of a known caller, no part of a body."""
        awaits = self._wait.awaits
        if self._kept or awaits > WaitTarget.BODY or (awaits is WaitTarget.BODY and self._principals):
            return None
        return self.deadline_s - self._server.timeouts_s[awaits]

    def hold(self, now_s: float) -> None:
        """Reads no more until `read_on`."""
        self._holding, self._held_s = True, now_s
        if self._wait.reads and not self._kept and self._transport is not None:
            self._transport.pause_reading()

    def read_on(self, now_s: float) -> None:
        """Reads again. What comes at once has waited, since the hold began at the earliest."""
        self._holding, self._read_on_s = False, now_s
        if self._wait.reads and not self._kept and self._transport is not None:
            self._transport.resume_reading()

    def _first_byte_s(self) -> float:
        """When the byte that is read now came, in loop seconds, at the earliest."""
        now_s = min(self._kept_s, self._loop.time())
        return self._held_s if now_s <= self._read_on_s + AT_ONCE_S else now_s

    def give_way(self) -> None:
        """Closes at once; with part of a body, or what the client has not read, by a reset."""
        if self._transport is None:
            return
        if self.write_state is LINGERING or self._wait.awaits is WaitTarget.BODY:
            self._abort(WriteEvent.ABORTED)
        else:
            self._end(WriteEvent.HUNG_UP)

    def expire(self, now_s: float) -> None:
        """Replies 408 to part of a request; closes or aborts else, unless bytes were taken meanwhile."""
        transport = self._transport
        if transport is None or self._kept:  # what it waits for may be among what it has kept
            return
        if self._wait.awaits in TOO_SLOW:
            self._reader.move(ReadEvent.RULE_BROKEN)
            self._refuse(Fault.TOO_SLOW, TOO_SLOW[self._wait.awaits])
            self._proceed()
            return
        unsent_bytes = transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes != self._unsent_bytes:  # they are taken, slowly
            self._unsent_bytes = unsent_bytes
            self._extend(now_s)
        elif unsent_bytes or self._wait is not FIRST_BYTE:
            self._abort(WriteEvent.ABORTED)
        else:
            self._end(WriteEvent.HUNG_UP)

    def _extend(self, now_s: float) -> None:
        """Gives the client time to take what is unsent."""
        self.deadline_s = now_s + self._server.timeouts_s[WaitTarget.FLUSH]

    def drain(self) -> None:
        """Closes unless a request is under way, whose reply then ends the connection."""
        self._read_kept_now()
        if self._transport is not None and not self._next_wait().under_way:
            self._end(WriteEvent.HUNG_UP)

    def terminate(self) -> None:
        """Closes, and cancels what is under way."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._abort(WriteEvent.ABORTED)
