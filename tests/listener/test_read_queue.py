"""What has arrived is parsed a slice at a time, callers in turns; what waits is not lost, nor its time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvloop

from gateway.listener import read_queue
from gateway.listener.read_queue import SHARE, SLICE_S, ReadQueue
from tests.support.raw_http import (
    QUICK,
    SOON_S,
    RawConnection,
    Run,
    RunningListener,
    ScriptedHandler,
    chunked,
    get,
    post,
    runner,
)

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PARSE_S = SLICE_S / 3.9
"""So that four fill a slice."""


class Turns:
    """A queue with a clock and a loop of a test: each connection that is parsed takes PARSE_S."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.scheduled: deque[Callable[[], None]] = deque()
        self.parsed: list[str] = []
        self.queue = ReadQueue(lambda: self.now_s)

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self.scheduled.append(lambda: call(*arguments))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return cast(asyncio.AbstractEventLoop, self)

    def arrive(self, caller: str, name: str, data: bytes = b"POST /") -> Waiting:
        connection = Waiting(self, name)
        if self.queue.may_read(self.loop):
            connection.read_kept()
        else:
            self.queue.add(connection, caller, data)
        return connection

    def turn(self, took_s: float = 0.0) -> list[str]:
        """What one turn parses. took_s: what else the loop did before it."""
        self.now_s += took_s
        self.parsed.clear()
        for _ in range(len(self.scheduled)):
            self.scheduled.popleft()()
        return list(self.parsed)


class Waiting:
    def __init__(self, turns: Turns, name: str) -> None:
        self._turns, self._name = turns, name

    def read_kept(self) -> None:
        self._turns.parsed.append(self._name)
        self._turns.now_s += PARSE_S


def test_what_arrives_within_the_slice_is_parsed_at_once() -> None:
    turns = Turns()
    for name in "abcd":
        turns.arrive("one", name)
    assert turns.parsed == ["a", "b", "c", "d"]
    turns.arrive("one", "e")
    assert (turns.parsed, len(turns.queue)) == (["a", "b", "c", "d"], 1)
    assert turns.turn() == ["e"]
    assert (turns.turn(), turns.scheduled) == ([], deque())


def test_callers_take_turns_so_that_one_waits_behind_one_request_of_each_other() -> None:
    turns = Turns()
    for i in range(20):
        turns.arrive("greedy", f"greedy-{i}")
    turns.arrive("polite", "polite-0")
    turns.arrive("polite", "polite-1")
    assert turns.turn() == ["greedy-4", "polite-0", "greedy-5", "polite-1"]


def test_a_health_probe_does_not_wait_behind_inference_from_its_address() -> None:
    turns = Turns()
    for i in range(20):
        turns.arrive("127.0.0.1", f"infer-{i}")
    turns.arrive("127.0.0.1", "probe", b"GET /v2/health/ready HTTP/1.1\r\n")
    assert turns.turn()[:2] == ["infer-4", "probe"]


def test_a_caller_of_many_bodiless_requests_has_one_turn_like_others() -> None:
    turns = Turns()
    for i in range(20):
        turns.arrive("greedy", f"get-{i}", b"GET / HTTP/1.1\r\n")
    turns.arrive("polite", "polite")
    assert turns.turn()[:2] == ["get-4", "polite"]


def test_what_arrives_while_any_waits_is_not_parsed_before_it() -> None:
    turns = Turns()
    for i in range(20):
        turns.arrive("one", str(i))
    turns.turn()
    turns.arrive("one", "latest")
    assert turns.parsed[-1] == "7"


def test_a_turn_parses_longer_where_the_turn_before_took_long() -> None:
    turns = Turns()
    for i in range(200):
        turns.arrive("one", str(i))
    first = len(turns.turn())
    passed_s = 20 * SLICE_S
    assert len(turns.turn(took_s=passed_s)) == pytest.approx(
        SHARE * (passed_s + first * PARSE_S) / PARSE_S, abs=1
    )
    assert first == 4


def test_a_turn_parses_one_however_long_that_takes() -> None:
    turns = Turns()
    for i in range(6):
        turns.arrive("one", str(i))
    turns.now_s += 100 * SLICE_S
    assert turns.turn()
    assert len(turns.queue) < 2


def test_a_discarded_connection_is_not_parsed() -> None:
    turns = Turns()
    waiting = [turns.arrive("one", str(i)) for i in range(6)]
    turns.queue.discard(waiting[4])
    turns.queue.discard(waiting[0])  # which does not wait
    assert turns.turn() == ["5"]


# ---------------------------------------------------------------- over a connection, with no slice at all


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """With no time to parse anything at once: every delivery waits for its turn, one a turn of the loop."""
    monkeypatch.setattr(read_queue, "SLICE_S", 0.0)
    monkeypatch.setattr(read_queue, "SHARE", 0.0)
    return runner(LOOPS[request.param])


async def kept(listener: RunningListener, connections: int) -> None:
    """Returns when so many wait, and the turn that would parse them has come."""
    for _ in range(int(SOON_S / 0.005)):
        if len(listener.server.read_queue) == connections:
            break
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.005)
    assert len(listener.server.read_queue) == connections


@pytest.fixture
def no_turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Nothing that waits has its turn, until it is called."""
    turn, waiting = ReadQueue._turn, []

    def keep(queue: ReadQueue, loop: asyncio.AbstractEventLoop) -> None:
        waiting.append((queue, loop))

    def go_on() -> None:
        monkeypatch.setattr(ReadQueue, "_turn", turn)
        for queue, loop in waiting:
            turn(queue, loop)

    monkeypatch.setattr(ReadQueue, "_turn", keep)
    return go_on


def test_requests_sent_in_one_piece_and_in_many_are_answered_in_order(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        whole = post("/echo/1", b"first") + chunked("/echo/2", b"sec", b"ond") + get("/now/3").encode()
        await connection.send(whole)
        for i in range(0, len(whole), 40):
            await connection.send(whole[i : i + 40])
            await asyncio.sleep(0.001)
        got = [await connection.reply() for _ in range(6)]
        assert [one.json["parts"][-1] for one in got] == ["1", "2", "3"] * 2
        assert [one.json.get("body") for one in got] == ["first", "second", None] * 2

    run(main)


def test_a_client_that_closes_its_sending_half_at_once_gets_its_reply(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(post("/echo", b"last"))
        connection.writer.write_eof()
        assert (await connection.reply()).json["body"] == "last"
        assert await connection.is_closed()

    run(main)


def test_a_client_that_hangs_up_before_its_turn_leaves_nothing_behind(
    run: Run, no_turn: Callable[[], None]
) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(post("/echo", b"x"))
        await kept(listener, 1)
        connection.reset()
        no_turn()
        assert await listener.has_no_connections()
        assert len(listener.server.read_queue) == 0
        assert await listener.serves()

    run(main)


def test_a_server_that_stops_answers_what_has_arrived_and_not_had_its_turn(
    run: Run, no_turn: Callable[[], None]
) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connections = [await listener.connect() for _ in range(3)]
        for i, connection in enumerate(connections):
            await connection.send(post("/echo", str(i).encode()))
        await kept(listener, 3)
        stopping = asyncio.create_task(listener.server.stop(SOON_S))
        got = [await connection.reply() for connection in connections]
        assert [(one.json["body"], one.closes) for one in got] == [("0", True), ("1", True), ("2", True)]
        await stopping

    run(main)


def test_a_request_that_waits_for_its_turn_is_not_too_slow(run: Run, no_turn: Callable[[], None]) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/now"))
        await kept(listener, 1)
        assert await connection.silent(QUICK.idle_s + QUICK.head_s)
        no_turn()
        assert (await connection.reply()).status == 200

    run(main)


def test_a_deadline_counts_from_when_the_bytes_arrived(run: Run, no_turn: Callable[[], None]) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        handler.space.free = 1
        connection = await listener.connect()
        await connection.send(get("/full"))
        await kept(listener, 1)
        arrived_s = asyncio.get_running_loop().time()
        await asyncio.sleep(0.2)
        no_turn()
        assert (await connection.reply()).json["begun_s"] <= arrived_s
        assert (await connection.request(get("/full"))).json["begun_s"] >= arrived_s + 0.2

    run(main)


def test_what_waits_when_its_connection_ends_is_dropped(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send("no HTTP\r\n\r\n")
        await asyncio.sleep(0)
        await connection.send(b"x" * 100_000)
        assert (await connection.reply()).status == 400
        connection.writer.write_eof()
        assert await connection.is_closed()

    run(main)


def test_one_callers_crowd_does_not_stand_before_another_caller(run: Run) -> None:
    async def identified(listener: RunningListener, caller: str) -> RawConnection:
        connection = await listener.connect()
        assert (await connection.request(get("/now", f"X-Caller: {caller}"))).status == 200
        return connection

    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        crowd = [await identified(listener, "greedy") for _ in range(40)]
        polite = await identified(listener, "polite")
        for connection in crowd:
            await connection.send(post("/echo/greedy", b"x", "X-Caller: greedy"))
        await polite.send(post("/echo/polite", b"x", "X-Caller: polite"))
        time.sleep(0.05)  # noqa: ASYNC251 - all of it has arrived before the loop looks
        await polite.reply()
        assert handler.started.index("echo/polite") <= 2
        for connection in crowd:
            assert (await connection.reply()).status == 200

    run(main)
