"""The tables of a connection: total, reachable cell by cell, and what a listener over sockets really does.

`connection_model` interprets the tables without any I/O. Every cell that it can reach is reached by a real
connection too, with the same steps; every cell that it cannot reach is NEVER.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import pytest
import uvloop
from hypothesis import given, note, settings
from hypothesis import strategies as st

from gateway.listener import connection as connection_module
from gateway.listener import parser as parser_module
from gateway.listener import states
from gateway.listener.connection import Connection
from gateway.listener.limits import Limits
from gateway.listener.messages import Admitted, Fault, Reply, Request
from gateway.listener.server import Server
from gateway.listener.states import (
    AFTER_READ,
    AFTER_WRITE,
    CLOSED,
    CLOSING,
    LAST_REPLIES,
    NEVER,
    READ_TABLE,
    REPLIES,
    STALLED,
    WAITS_QUEUED_TABLE,
    WAITS_TABLE,
    WRITE_TABLE,
    ReadEvent,
    ReadState,
    Wait,
    WaitTarget,
    WriteEvent,
    WriteState,
)
from tests.listener.connection_model import STEPS, TURNED_AWAY, Cell, ModelPath, Tokens, shortest_paths

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
LONGEST = 6
"""Steps of the longest sequence that is explored: some 5,000 states, of which each cell needs at most 5."""
LIMITS = Limits(
    idle_s=700, head_s=600, body_s=500, stuck_s=400, linger_s=300, sweep_s=0.005, connections_per_caller=0
)
LARGE = b"x" * 2**24
SMALL = Reply(200, b"", b"{}")
SOON_S = 5.0
BYTES = {"begin": b"POST /", "end": b"0\r\n\r\n", "break": b"\0z"}
HEAD = b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
HEADERS = {
    "expect": b"Expect: 100-continue\r\n",
    "expect last": b"Expect: 100-continue\r\nConnection: close\r\n",
    "slow last": b"Connection: close\r\n",
    "bodiless last": b"Connection: close\r\n",
    "now last": b"X-Crowded: yes\r\n",
}

READ_CELLS = [(event, state) for event in ReadEvent for state in ReadState]
WRITE_CELLS = [(event, state) for event in WriteEvent for state in WriteState]
WAIT_CELLS = [(write, read.name) for write in WriteState for read in ReadState] + [
    (write, "QUEUED") for write in WriteState
]


def name_of(part: IntEnum | str) -> str:
    return part if isinstance(part, str) else part.name


@pytest.fixture(scope="module")
def paths() -> dict[Cell, ModelPath]:
    return shortest_paths(LONGEST)


# ---------------------------------------------------------------- the tables by themselves


def test_every_table_has_a_cell_for_every_event_and_state() -> None:
    assert set(READ_TABLE) == set(ReadEvent)
    assert {len(cells) for cells in READ_TABLE.values()} == {len(ReadState)}
    assert set(WRITE_TABLE) == set(WriteEvent)
    assert {len(cells) for cells in WRITE_TABLE.values()} == {len(WriteState)}
    assert set(WAITS_TABLE) == set(ReadState)
    assert {len(cells) for cells in (*WAITS_TABLE.values(), WAITS_QUEUED_TABLE)} == {len(WriteState)}
    assert set(REPLIES) == set(LAST_REPLIES) == set(ReadState)
    assert WriteEvent.REPLY_KEEPS not in LAST_REPLIES.values()
    assert set(states.timeouts_s(LIMITS)) == set(WaitTarget)


@pytest.mark.parametrize(("event", "state"), READ_CELLS, ids=name_of)
def test_a_read_event_is_possible_exactly_where_a_connection_can_meet_it(
    event: ReadEvent, state: ReadState, paths: dict[Cell, ModelPath]
) -> None:
    reachable = ("read", event.name, state.name) in paths
    assert reachable is (READ_TABLE[event][state] is not NEVER)
    if not reachable:
        with pytest.raises(KeyError):
            AFTER_READ[event][state]


@pytest.mark.parametrize(("event", "state"), WRITE_CELLS, ids=name_of)
def test_a_write_event_is_possible_exactly_where_a_connection_can_meet_it(
    event: WriteEvent, state: WriteState, paths: dict[Cell, ModelPath]
) -> None:
    reachable = ("write", event.name, state.name) in paths
    assert reachable is (WRITE_TABLE[event][state] is not NEVER)
    if not reachable:
        with pytest.raises(KeyError):
            AFTER_WRITE[event][state]


@pytest.mark.parametrize(("write", "read"), WAIT_CELLS, ids=name_of)
def test_something_is_waited_for_exactly_where_a_connection_can_rest(
    write: WriteState, read: str, paths: dict[Cell, ModelPath]
) -> None:
    row = WAITS_QUEUED_TABLE if read == "QUEUED" else WAITS_TABLE[ReadState[read]]
    assert (("wait", write.name, read) in paths) is (row[write] is not NEVER)


PARTLY_READ = ("HEAD", "EXPECT", "BODY", "SURPLUS", "SPOILED", "QUEUED")
REPLYING = (WriteState.ANSWERING, STALLED, WriteState.FLUSHING)


@pytest.mark.parametrize(("write", "read"), WAIT_CELLS, ids=name_of)
def test_every_wait_follows_the_rules_that_the_tables_state_in_prose(write: WriteState, read: str) -> None:
    row = WAITS_QUEUED_TABLE if read == "QUEUED" else WAITS_TABLE[ReadState[read]]
    wait = row[write]
    if not isinstance(wait, Wait):
        return
    heads = {"IDLE": WaitTarget.REQUEST, "HEAD": WaitTarget.HEAD}
    targets = {
        WriteState.READY: heads.get(read, WaitTarget.BODY),
        WriteState.ANSWERING: WaitTarget.ANSWER,
        STALLED: WaitTarget.FLUSH,
        WriteState.FLUSHING: WaitTarget.FLUSH,
    }
    assert wait.awaits is targets.get(write, WaitTarget.CLOSE)
    assert wait.reads is not (write in REPLYING and read in PARTLY_READ)
    handler_works = write in (WriteState.ANSWERING, STALLED)
    assert wait.under_way is (handler_works or read in ("QUEUED", "EXPECT", "BODY"))
    assert wait.continues is (write is WriteState.READY and read == "EXPECT")


def test_an_impossible_event_raises_and_leaves_a_reader_as_it_was() -> None:
    reader = parser_module.Reader(lambda _: SMALL, LIMITS, "", None, _never, lambda _: True, lambda: 0.0)
    with pytest.raises(KeyError):
        reader.move(ReadEvent.REQUEST_READ)
    assert reader.state is ReadState.IDLE


async def _never() -> None:
    raise AssertionError("not called")


# ---------------------------------------------------------------- a real connection


@dataclass
class Controlled:
    """A handler that answers when a test says so, in the order of the requests."""

    waiting: list[asyncio.Future[Reply | None]] = field(default_factory=list)

    def admit(self, request: Request, /) -> Admitted | Reply:
        kind = request.parts[0]
        if request.header(b"x-crowded"):
            assert not request.count_connection("crowded")
        if kind in ("now", "large"):
            return SMALL if kind == "now" else Reply(200, b"", LARGE)
        return Admitted(0 if kind == "bodiless" else 1000, self._answer)

    async def _answer(self, body: bytes) -> Reply | None:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]

    def refuse(self, fault: Fault, what: str = "", /) -> Reply:
        return Reply(503 if fault is Fault.UNAVAILABLE else 400, b"", b"{}")


class Recording(dict[Any, Any]):
    """A row or a table that notes which of its cells are looked up."""

    def __init__(self, cells: Any, note: Callable[[Any], None]) -> None:
        super().__init__(cells)
        self._note = note

    def __getitem__(self, key: Any) -> Any:
        cell = super().__getitem__(key)
        self._note(key)
        return cell


def record(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str, str]]:
    """Notes every cell that a reader or a connection looks up from now on."""
    visited: set[tuple[str, str, str]] = set()

    def rows(table: Any, name: str) -> dict[Any, Any]:
        def noted(event: Any) -> Recording:
            return Recording(table[event], lambda state: visited.add((name, event.name, state.name)))

        return {event: noted(event) for event in table}

    read, write = rows(AFTER_READ, "read"), rows(AFTER_WRITE, "write")
    waits = rows(states.WAITS, "wait")
    queued = Recording(states.WAITS_QUEUED, lambda state: visited.add(("wait", state.name, "QUEUED")))
    for name, value in {
        "AFTER_READ": read,
        "AFTER_HEAD_BEGUN": read[ReadEvent.HEAD_BEGUN],
        "AFTER_BODY_NEEDED": read[ReadEvent.BODY_NEEDED],
        "AFTER_BODY_UNNEEDED": read[ReadEvent.BODY_UNNEEDED],
        "AFTER_REQUEST": read[ReadEvent.REQUEST_READ],
    }.items():
        monkeypatch.setattr(parser_module, name, value)
    for name, value in {
        "AFTER_WRITE": write,
        "AFTER_ANSWER_BEGUN": write[WriteEvent.ANSWER_BEGUN],
        "AFTER_REPLY_KEEPS": write[WriteEvent.REPLY_KEEPS],
        "WAITS": waits,
        "WAITS_QUEUED": queued,
    }.items():
        monkeypatch.setattr(connection_module, name, value)
    return visited


@dataclass
class Live:
    """A connection to a listener, from both ends."""

    server: Server
    handler: Controlled
    connection: Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    statuses: list[int] = field(default_factory=list)

    async def step(self, step: Tokens | str, path: ModelPath, i: int) -> None:
        before, after = path.models[i], path.models[i + 1]
        if isinstance(step, tuple):
            self.writer.write(b"".join(BYTES.get(token) or _head(token) for token in step))
        else:
            await self._other(step, before.replies, lossy=before.sent != ())
        async with asyncio.timeout(SOON_S):
            while not self._is(after):
                if step == "expire":  # again where some bytes were taken meanwhile
                    self.connection.deadline_s = 0.0
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
        assert self._is(after), f"{path}: {self}"
        if after.wait is not None:
            assert self.connection._next_wait() is after.wait
            if after.write not in (STALLED, CLOSING):
                self._assert_waits(after.wait)

    async def _other(self, step: str, replies: int, lossy: bool) -> None:
        connection = self.connection
        match step:
            case "half-close":
                self.writer.write_eof()
            case "half-close again":
                assert connection.eof_received()
            case "reset":
                own = self.writer.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
            case "take":
                # A close with unread bytes resets the connection, and the client may miss the end.
                with suppress(ConnectionResetError) if lossy else nullcontext():
                    await self.take(replies)
            case "release" | "no reply" | "release large":
                reply = {"release": SMALL, "no reply": None, "release large": Reply(200, b"", LARGE)}
                self.handler.waiting[-1].set_result(reply[step])
            case "cancel":
                assert connection._task is not None
                connection._task.cancel()
            case "expire":
                connection.deadline_s = 0.0
            case "drain":
                self.server.draining = True
                connection.drain()
            case "terminate":
                connection.terminate()
            case "block":
                connection.pause_writing()
            case "unblock":
                connection.resume_writing()

    def _is(self, model: Any) -> bool:
        reader = self.connection._reader
        here = (reader.state, self.connection.write_state, len(reader.queue))
        return here == (model.read, model.write, len(model.queue))

    def _assert_waits(self, wait: Wait) -> None:
        connection = self.connection
        assert connection._wait.reads is wait.reads
        assert connection._wait.awaits is wait.awaits
        transport = connection._transport
        assert transport is not None
        if self.connection._reader.state is not ReadState.EOF:
            assert transport.is_reading() is wait.reads
        limits_s = {states.timeouts_s(LIMITS)[wait.awaits]}
        if wait.awaits is WaitTarget.CLOSE:
            limits_s.add(LIMITS.stuck_s)  # as long as bytes were unsent
        left_s = connection.deadline_s - connection._loop.time()
        assert any(left_s == limit_s or limit_s - 60 < left_s <= limit_s for limit_s in limits_s)

    async def take(self, replies: int) -> None:
        """Reads what is written, up to so many replies in all."""
        while len(self.statuses) < replies:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split()[1])
            if status == 100:
                continue
            self.statuses.append(status)
            length = next(line[16:] for line in head.split("\r\n") if line.startswith("content-length: "))
            await self.reader.readexactly(int(length))
            closes = "connection: close" in head
            assert not closes or len(self.statuses) == replies, "only the last reply closes"


def _head(token: str) -> bytes:
    return token.partition(" ")[0].encode() + HEAD + HEADERS.get(token, b"") + b"\r\n"


async def walk(path: ModelPath) -> None:
    """Takes a real connection along a path, and compares it with the model after every step."""
    own = socket.create_server(("127.0.0.1", 0))
    own.setblocking(False)
    server = Server(handler := Controlled(), LIMITS)
    await server.start(own)
    if path.steps[0] == TURNED_AWAY:
        server._all.limit = 0
    reader, writer = await asyncio.open_connection(*own.getsockname(), limit=2**16)
    (connection,) = await _accepted(server)
    assert isinstance(connection, Connection)
    live = Live(server, handler, connection, reader, writer)
    try:
        for i, step in enumerate(path.steps):
            await live.step(step, path, i)
        last = path.models[-1]
        if last.write not in (CLOSED, CLOSING, WriteState.DETACHED) and not last.sent:
            async with asyncio.timeout(SOON_S):
                await live.take(last.replies)
    finally:
        writer.transport.abort()
        for waiting in handler.waiting:
            if not waiting.done():
                waiting.set_result(None)
        await server.stop(0.5)
    assert connection.write_state is CLOSED
    assert server.connections == set()


async def _accepted(server: Server) -> set[Any]:
    for _ in range(5000):
        if server.connections:
            break
        await asyncio.sleep(0.001)
    return server.connections


Loop = Callable[[], asyncio.AbstractEventLoop]


def run(loop: Loop, main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await main()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


POSSIBLE = [
    *(("read", event.name, state.name) for event, row in AFTER_READ.items() for state in row),
    *(("write", event.name, state.name) for event, row in AFTER_WRITE.items() for state in row),
    *(("wait", write.name, read.name) for write, row in states.WAITS.items() for read in row),
    *(("wait", write.name, "QUEUED") for write in states.WAITS_QUEUED),
]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("cell", POSSIBLE, ids="-".join)
def test_a_real_connection_reaches_every_possible_cell(
    cell: Cell, loop: str, paths: dict[Cell, ModelPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    visited = record(monkeypatch)
    run(LOOPS[loop], lambda: walk(paths[cell]))
    assert cell in visited


@st.composite
def random_paths(draw: st.DrawFn) -> ModelPath:
    path = ModelPath()
    for _ in range(draw(st.integers(1, 12))):
        possible = [longer for step in STEPS if (longer := path.and_then(step)) is not None]
        if not possible:
            break
        ending = [one for one in possible if one.models[-1].write in (CLOSED, WriteState.DETACHED)]
        lasting = [one for one in possible if one not in ending]
        path = draw(st.sampled_from(lasting or ending))
    return path


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=60, deadline=None)
@given(path=random_paths())
def test_a_real_connection_agrees_with_the_tables_on_random_sequences(loop: str, path: ModelPath) -> None:
    note(str(path))
    run(LOOPS[loop], lambda: walk(path))
