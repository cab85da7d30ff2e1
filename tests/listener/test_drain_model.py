"""The end of a listener against a model: clients come, send, wait and leave while it drains and stops.

The listener is the real one, over unix sockets, which deliver what was sent at once; its clock is fake. The
model knows no sockets: from what was sent, and when, it says which replies leave, and when the stop returns.

A client that sends ahead loses what waits behind the reply that says `Connection: close`: it knows from that
reply that nothing after it was begun.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httptools
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.listener.limits import Limits
from gateway.listener.messages import Admitted, Fault, Reply, Request
from gateway.listener.pool import READ_S
from gateway.listener.server import Server
from tests.support.core_parts import FakeTimeLoop

PATIENT = Limits(head_s=1e6, body_s=1e6, idle_s=1e6)
TAKES_S = (0.0, 0.7, 1.9, 5.3)
STEPS_S = (0.007, 0.5, 1.0, 3.0)
GRACES_S = (0.3055, 2.2055, 30.0055)
"""No sum of the others comes out at the end of a grace, so that nothing is due at that very moment."""
TOLERANCE_S = 1e-6
"""Of the fake clock, which jumps to the time of each timer."""
TURNS = 30
"""Of the event loop: more than what has arrived needs to be read and answered."""
BODY = b"body"


@dataclass
class TimedHandler:
    """Echoes the name in the path `/NAME/SECONDS` after so many seconds; at once for none."""

    loop: asyncio.AbstractEventLoop
    under_way: set[str] = field(default_factory=set)

    def admit(self, request: Request, /) -> Admitted | Reply:
        name, takes_s = request.parts[0], float(request.parts[1])
        late = len(BODY), lambda body: self._answer(name, takes_s)
        at_once = len(BODY), lambda body: Reply(200, b"", name.encode())
        return Admitted(*(late if takes_s else at_once))

    async def _answer(self, name: str, takes_s: float) -> Reply:
        self.under_way.add(name)
        try:
            await asyncio.sleep(takes_s)
            return Reply(200, b"", name.encode())
        finally:
            self.under_way.remove(name)

    def refuse(self, fault: Fault, what: str = "", /) -> Reply:
        return Reply(503, b"", f"{fault.name} {what}".encode())


@dataclass
class Replies:
    """What one client has read: each whole reply, and whether it says that the connection ends."""

    all: list[tuple[str, bool]] = field(default_factory=list)
    ended: bool = False
    body: bytes = b""
    closes: bool = False

    def __post_init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)

    def read_all(self, wire: socket.socket) -> None:
        """Reads what has come so far."""
        while not self.ended:
            try:
                data = wire.recv(65_536)
            except BlockingIOError:
                return
            except ConnectionResetError:  # with bytes that the server has not read
                data = b""
            self.ended = not data
            self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body, self.closes = b"", False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.closes |= (name, value) == (b"connection", b"close")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.all.append((self.body.decode(), self.closes))


@dataclass
class Expected:
    """What one connection must do.

    waiting: name and time of each request wholly sent and not yet answered, the first of which is due at
    `due_s`; read: how many of them the listener has; unsent: the rest of one that was half sent; ended_s:
    when the server has ended the connection; gone: the client has closed.
    """

    waiting: deque[tuple[str, float]] = field(default_factory=deque)
    due_s: float = math.inf
    read: int = 0
    unsent: bytes = b""
    replies: list[tuple[str, bool]] = field(default_factory=list)
    ended_s: float = math.inf
    gone: bool = False

    @property
    def open(self) -> bool:
        return self.ended_s == math.inf

    @property
    def under_way(self) -> bool:
        """A head that is read whole is a request under way, with its body still to come."""
        return bool(self.waiting) or (self.unsent != b"" and len(self.unsent) <= len(BODY))

    @property
    def reads(self) -> bool:
        """Nothing is read behind a request that waits, or behind part of one."""
        return not self.waiting or (len(self.waiting) == 1 and not self.unsent)

    def arrive(self, now_s: float, *requests: tuple[str, float]) -> None:
        """Whole requests, at once."""
        if not self.waiting:
            self.due_s = now_s + requests[0][1]
        self.read += len(requests) if self.reads else 0
        self.waiting.extend(requests)
        self.unsent = b""

    def pass_time(self, now_s: float, draining: bool) -> None:
        """Gives the replies that are due by now."""
        while self.open and self.waiting and self.due_s <= now_s + TOLERANCE_S:
            name, _ = self.waiting.popleft()
            self.read = len(self.waiting) if self.read <= 2 else self.read - 1
            if not self.gone:
                self.replies.append((name, draining))
            if draining or (self.gone and not self.waiting):
                self.end(self.due_s)
            elif self.waiting:
                if self.gone:
                    self._find_out_that_it_is_gone()
                self.due_s += self.waiting[0][1] if self.waiting else 0.0

    def _find_out_that_it_is_gone(self) -> None:
        """By the write: the work that has begun by then is finished, the rest is not begun."""
        while self.waiting and not self.waiting[0][1]:
            self.waiting.popleft()
        while len(self.waiting) > 1:
            self.waiting.pop()
        if not self.waiting:
            self.end(self.due_s)

    def leave(self, now_s: float) -> None:
        self.gone = True
        while len(self.waiting) > self.read:
            self.waiting.pop()
        if not self.waiting:
            self.end(now_s)

    def end(self, now_s: float) -> None:
        self.ended_s = min(self.ended_s, now_s)
        self.waiting.clear()


@dataclass(eq=False)
class Client:
    wire: socket.socket
    expected: Expected = field(default_factory=Expected)
    read: Replies = field(default_factory=Replies)

    def can_send(self, *, half: bool) -> bool:
        """Whether the next bytes may be a request, or the rest of the one that was half sent."""
        return self.expected.open and not self.expected.gone and bool(self.expected.unsent) == half


def request(name: str, takes_s: float) -> bytes:
    return (
        f"POST /{name}/{takes_s} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY
    )


class DrainModel(RuleBasedStateMachine):
    """Rules let clients act, pass time, and end the listener. stop_s, grace_s: once it stops."""

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.loop = TemporaryDirectory(), FakeTimeLoop()
        self.path = str(Path(self.folder.name, "socket"))
        self.handler = TimedHandler(self.loop)
        self.server = Server(self.handler, PATIENT)
        self.clients: list[Client] = []
        self.half_sent: dict[Client, tuple[str, float]] = {}
        self.draining, self.names = False, 0
        self.stop_s = self.grace_s = self.returned_s = math.inf
        self.stopping: asyncio.Task[None] | None = None
        own = socket.socket(socket.AF_UNIX)
        own.bind(self.path)
        own.setblocking(False)
        self.run(self.server.start(own))

    def run(self, what: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(what)

    def settle(self) -> None:
        """Lets the listener do all that it does without time, and the clients read; so does the model.

        A client that finds the connection ended closes it: of one that has sent more, it lingers until then.
        """
        self.take_turns()
        for client in self.clients:
            if not client.expected.gone:
                client.read.read_all(client.wire)
            if client.read.ended:
                client.wire.close()
        self.take_turns()
        self.pass_time_in_the_model(self.loop.time())

    def take_turns(self) -> None:
        for _ in range(TURNS):
            self.run(asyncio.sleep(0))

    def pass_time_in_the_model(self, now_s: float) -> None:
        read_s = self.stop_s + READ_S
        self._answer_until(min(now_s, read_s))
        if now_s < read_s:
            return
        for one in self.expected:
            if one.open and not one.under_way:
                one.end(read_s)
        self._answer_until(min(now_s, read_s + self.grace_s))
        if now_s > read_s + self.grace_s:
            for one in self.expected:
                one.end(read_s + self.grace_s)

    def _answer_until(self, now_s: float) -> None:
        for one in self.expected:
            one.pass_time(now_s, self.draining)

    @property
    def expected(self) -> list[Expected]:
        return [client.expected for client in self.clients]

    @property
    def stopped(self) -> bool:
        return self.stopping is not None

    def client(self, data: st.DataObject, *, half: bool) -> Client | None:
        able = [one for one in self.clients if one.can_send(half=half)]
        return data.draw(st.sampled_from(able)) if able else None

    def connect_now(self) -> Client:
        wire = socket.socket(socket.AF_UNIX)
        wire.connect(self.path)
        wire.setblocking(False)
        self.clients.append(Client(wire))
        return self.clients[-1]

    def send_now(self, client: Client, *takes_s: float) -> None:
        """Whole requests, which the listener has not read yet."""
        requests = [(self.new_name(), one) for one in takes_s]
        client.wire.sendall(b"".join(request(*one) for one in requests))
        client.expected.arrive(self.loop.time(), *requests)

    def new_name(self) -> str:
        self.names += 1
        return f"r{self.names}"

    # ---------------------------------------------------------------- what clients do

    @precondition(lambda self: not self.stopped)
    @rule()
    def connect(self) -> None:
        self.connect_now()
        self.settle()

    @precondition(lambda self: self.stopped)
    @rule()
    def connect_in_vain(self) -> None:
        with socket.socket(socket.AF_UNIX) as wire, pytest.raises(ConnectionRefusedError):
            wire.connect(self.path)

    @rule(data=st.data(), takes_s=st.lists(st.sampled_from(TAKES_S), min_size=1, max_size=3))
    def send(self, data: st.DataObject, takes_s: list[float]) -> None:
        """Whole requests. Others may be under way."""
        if client := self.client(data, half=False):
            self.send_now(client, *takes_s)
            self.settle()

    @rule(data=st.data(), takes_s=st.sampled_from(TAKES_S), rest=st.sampled_from((len(BODY), 2, 20)))
    def send_half(self, data: st.DataObject, takes_s: float, rest: int) -> None:
        """All but so many bytes: of the body, or of it and the head."""
        if client := self.client(data, half=False):
            self.half_sent[client] = (self.new_name(), takes_s)
            whole = request(*self.half_sent[client])
            client.wire.sendall(whole[:-rest])
            client.expected.unsent = whole[-rest:]
            self.settle()

    @rule(data=st.data())
    def send_the_rest(self, data: st.DataObject) -> None:
        if client := self.client(data, half=True):
            client.wire.sendall(client.expected.unsent)
            client.expected.arrive(self.loop.time(), self.half_sent.pop(client))
            self.settle()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        here = [one for one in self.clients if not one.expected.gone]
        if here:
            client = data.draw(st.sampled_from(here))
            client.wire.close()
            client.expected.leave(self.loop.time())
            self.settle()

    # ---------------------------------------------------------------- time, and the end

    @rule(seconds=st.sampled_from(STEPS_S))
    def wait(self, seconds: float) -> None:
        """Clients take each reply when it is due."""
        until_s = self.loop.time() + seconds
        while self.loop.time() < until_s:
            due_s = [one.due_s for one in self.expected if one.open and one.waiting]
            next_s = min([until_s, *(one for one in due_s if one > self.loop.time() + TOLERANCE_S)])
            self.run(asyncio.sleep(next_s - self.loop.time()))
            self.settle()

    @rule()
    def drain(self) -> None:
        self.server.drain()
        self.draining = True

    @precondition(lambda self: not self.stopped)
    @rule(data=st.data(), grace_s=st.sampled_from(GRACES_S), takes_s=st.sampled_from(TAKES_S))
    def stop(self, data: st.DataObject, grace_s: float, takes_s: float) -> None:
        """While what came at the last moment has not been read, on a connection of before or a new one."""
        self.stop_s, self.grace_s, self.draining = self.loop.time(), grace_s, True
        sender = data.draw(st.sampled_from(("none", "open", "new")))
        client = self.connect_now() if sender == "new" else self.client(data, half=False)
        if client is not None and sender != "none":
            self.send_now(client, takes_s)
        self.stopping = self.loop.create_task(self._stop())
        self.settle()

    async def _stop(self) -> None:
        await self.server.stop(self.grace_s)
        self.returned_s = self.loop.time()

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def every_request_has_the_one_reply_that_is_due(self) -> None:
        for client in self.clients:
            assert client.read.all == client.expected.replies

    @invariant()
    def a_connection_ends_with_its_last_reply_and_not_before(self) -> None:
        for client in self.clients:
            if not client.expected.gone:
                assert client.read.ended == (not client.expected.open)
        assert len(self.server.connections) == sum(one.open for one in self.expected)

    @invariant()
    def the_stop_returns_with_the_last_connection_or_when_grace_is_over(self) -> None:
        if not self.stopped or any(one.open for one in self.expected):
            assert self.returned_s == math.inf
            return
        read_s = self.stop_s + READ_S
        last_s = max((one.ended_s for one in self.expected), default=0.0)
        if self.loop.time() > max(read_s, last_s) + TOLERANCE_S:
            assert self.returned_s == pytest.approx(max(read_s, last_s), abs=TOLERANCE_S)
            assert self.returned_s <= read_s + self.grace_s + TOLERANCE_S
            self.nothing_is_left()

    def nothing_is_left(self) -> None:
        assert self.server.connections == set() and self.handler.under_way == set()
        assert asyncio.all_tasks(self.loop) == set()

    def teardown(self) -> None:
        try:
            if not self.stopped:
                self.stop_s, self.grace_s, self.draining = self.loop.time(), GRACES_S[0], True
                self.stopping = self.loop.create_task(self._stop())
            self.wait(self.grace_s + 2 * READ_S)
            self.every_request_has_the_one_reply_that_is_due()
            self.a_connection_ends_with_its_last_reply_and_not_before()
            self.the_stop_returns_with_the_last_connection_or_when_grace_is_over()
        finally:
            for client in self.clients:
                client.wire.close()
            self.loop.close()
            self.folder.cleanup()


TestDrainModel = DrainModel.TestCase
TestDrainModel.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
