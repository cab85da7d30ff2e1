"""A connection on which a request was refused for want of room is not read until there is some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, cast

import pytest
import uvloop

from gateway.listener import held
from gateway.listener.held import FRESH_S, HeldConnections
from tests.support.raw_http import (
    RawConnection,
    Run,
    RunningListener,
    ScriptedHandler,
    Space,
    get,
    runner,
)

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(LOOPS[request.param])


async def refused(listener: RunningListener) -> RawConnection:
    """A connection whose request was refused, and which sends the next one at once."""
    connection = await listener.connect()
    got = await connection.request(get("/full/1"))
    assert (got.status, got.headers["retry-after"], got.closes) == (503, "2", False)
    await connection.send(get("/full/2"))
    return connection


def test_what_comes_after_a_refusal_is_left_unread_until_there_is_room(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await refused(listener)
        assert await connection.silent(0.2)
        handler.space.free = 1
        handler.space.idle = True
        assert (await connection.reply()).status == 200
        assert (await connection.request(get("/full/3"))).status == 200

    run(main)


def test_other_connections_are_read_meanwhile(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        await refused(listener)
        other = await listener.connect()
        assert (await other.request(get("/now"))).status == 200

    run(main)


def test_the_latest_held_is_read_first(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        first, second = await refused(listener), await refused(listener)
        handler.space.free = 1
        assert (await second.reply()).status == 200
        handler.space.free = 0
        assert await first.silent(0.05)

    run(main)


def test_what_was_held_for_long_waits_until_there_is_much_room(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await refused(listener)
        await asyncio.sleep(1.5 * FRESH_S)
        handler.space.free = 5
        assert await connection.silent(0.1)
        handler.space.idle = True
        assert (await connection.reply()).status == 200

    run(main)


def test_a_held_connection_is_read_in_the_end_without_any_room(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "HOLD_S", 0.2)

    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await refused(listener)
        assert (await connection.reply()).status == 503

    run(main)


def test_what_waited_unread_counts_from_when_the_hold_began(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        held_s = asyncio.get_running_loop().time()
        connection = await refused(listener)
        await asyncio.sleep(0.3)
        handler.space.free, handler.space.idle = 1, True
        begun_s = (await connection.reply()).json["begun_s"]
        assert held_s <= begun_s < held_s + 0.25
        await asyncio.sleep(0.2)
        later_s = asyncio.get_running_loop().time()
        assert (await connection.request(get("/full/3"))).json["begun_s"] > later_s - 0.05

    run(main)


def test_a_client_that_hangs_up_while_it_is_held_leaves_nothing_behind(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        assert (await connection.request(get("/full/1"))).status == 503
        await connection.close()
        handler.space.free, handler.space.idle = 1, True
        assert await listener.has_no_connections()
        await asyncio.sleep(0.05)
        assert listener.server.held._timer is None

    run(main)


def test_a_server_that_stops_ends_held_connections(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        await refused(listener)
        async with asyncio.timeout(5):
            await listener.server.stop(0.5)
        assert not listener.server.connections

    run(main)


def test_no_room_and_no_connection_need_no_timer() -> None:
    assert HeldConnections()._timer is None


def test_a_late_look_releases_as_many_as_the_looks_it_stands_for() -> None:
    held_connections, released = HeldConnections(), list[int]()
    loop, room = Timers(), Space(free=9)
    for i in range(100):
        held_connections.add(Unread(i, released), room, loop.as_loop)
    loop.advance(held.TICK_S)
    assert released == [99, 98]
    loop.advance(5 * held.TICK_S)
    assert len(released) - 2 == ceil(9 * (1 - (1 - held.RELEASED_SHARE) ** 5)) == 7


@dataclass(eq=False)
class Unread:
    """A held connection that says when it is read on."""

    number: int
    released: list[int]

    def hold(self, now_s: float) -> None: ...

    def read_on(self, now_s: float) -> None:
        self.released.append(self.number)


class Timers:
    """A loop whose time passes as a test says, and whose one timer is never early."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._call: Callable[[], object] = lambda: None

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        return cast(asyncio.AbstractEventLoop, self)

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> object:
        self._call = partial(call, *arguments)
        return self  # a timer, of which nothing is asked

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self._call()
