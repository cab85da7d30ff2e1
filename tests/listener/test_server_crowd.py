"""How many connections there may be at once, in all and of one caller."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from gateway.access.proxies import Proxies
from gateway.listener.limits import FILES_PER_GRPC_CONNECTION, SPARE_CONNECTIONS
from tests.support.raw_http import (
    QUICK,
    RawConnection,
    Run,
    RunningListener,
    ScriptedHandler,
    get,
    post,
    runner,
)

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PATIENT = replace(QUICK, head_s=30, body_s=30, idle_s=30, stuck_s=30)
A_TICK_S = 0.003
"""Longer than a step of the clock of uvloop."""
FEW = replace(PATIENT, connections=5, connections_per_caller=2)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(LOOPS[request.param])


def connection_counts(listener: RunningListener) -> dict[str, int]:
    return listener.server._connections_by_principal


async def has_connections(listener: RunningListener, n: int) -> bool:
    """Whether so many connections are left, after a moment."""
    for _ in range(200):
        if len(listener.server.connections) == n:
            return True
        await asyncio.sleep(0.01)
    return False


# ---------------------------------------------------------------- in all


def test_a_new_connection_replaces_the_one_that_has_been_idle_longest(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connections = [await listener.connect() for _ in range(5)]
        for i in (3, 0, 1, 4, 2):
            assert (await connections[i].request(get("/now"))).status == 200
            await asyncio.sleep(A_TICK_S)
        for gone in (3, 0, 1):
            newcomer = await listener.connect()
            assert (await newcomer.request(get("/now"))).status == 200
            assert await connections[gone].is_closed()
            assert await has_connections(listener, 5)
        assert [(await connections[i].request(get("/now"))).status for i in (2, 4)] == [200, 200]

    run(main, FEW)


def test_a_connection_that_was_used_meanwhile_is_not_taken_for_idle(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connections = [await listener.connect() for _ in range(5)]
        for connection in connections:
            await connection.request(get("/now"))
            await asyncio.sleep(A_TICK_S)
        newcomer = await listener.connect()  # after the search for the longest idle ones
        await newcomer.request(get("/now"))
        assert await connections[0].is_closed()
        await connections[1].send(get("/slow"))
        await connections[2].request(get("/now"))
        await handler.busy.wait()
        await (await listener.connect()).request(get("/now"))
        assert await connections[3].is_closed(), "1 is at work and 2 has just been"
        handler.release.set()
        assert (await connections[1].reply()).status == 200
        assert (await connections[2].request(get("/now"))).status == 200

    run(main, FEW)


def test_connections_under_way_are_not_replaced_and_a_new_one_gets_a_503(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        working = [await listener.connect() for _ in range(5)]
        half = post("/echo", b"body", "X-Caller: ada")[:-2].decode()
        for connection, sent in zip(
            working, [get("/slow"), get("/slow"), get("/slow"), half, get("/slow")], strict=True
        ):
            await connection.send(sent)
        await asyncio.sleep(0.05)
        for _ in range(3):
            late = await listener.connect()
            await late.send(post("/echo", b"x" * 1000))
            got = await late.reply()
            assert (got.status, got.closes, got.headers["retry-after"]) == (503, True, "1")
            assert got.headers["x-failsafe-reason"] == "unavailable"
            assert await late.is_closed()
            await late.close()
        assert "echo" not in handler.started
        handler.release.set()
        assert (await working[3].request("dy")).json["body"] == "body"
        assert [(await working[i].reply()).status for i in (0, 1, 2, 4)] == [200] * 4
        assert await listener.serves(), "there are idle ones again"

    run(main, FEW)


def test_a_connection_with_part_of_a_head_counts_as_idle(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        halves = [await listener.connect() for _ in range(20)]
        for connection in halves:
            await connection.send("GET /now HT")
        assert await listener.serves()
        assert await halves[0].is_closed()

    run(main, FEW)


def test_beyond_the_spare_connections_new_ones_are_closed_without_a_reply(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        working = [await listener.connect() for _ in range(5)]
        for connection in working:
            await connection.send(get("/slow"))
        await asyncio.sleep(0.05)
        most = 0
        crowd = []
        for _ in range(SPARE_CONNECTIONS + 100):
            crowd.append(await listener.connect())
            most = max(most, len(listener.server.connections))
        assert most <= 5 + SPARE_CONNECTIONS + 2
        told_why = [(await connection.reply()).status for connection in crowd[:SPARE_CONNECTIONS]]
        assert told_why == [503] * SPARE_CONNECTIONS
        assert all([await connection.reader.read() or True for connection in crowd[SPARE_CONNECTIONS:]])
        handler.release.set()
        assert [(await connection.reply()).status for connection in working] == [200] * 5
        for connection in crowd:
            await connection.close()
        assert await listener.serves()

    run(main, replace(FEW, linger_s=5))


def test_a_flood_of_idle_connections_does_not_keep_a_good_client_out(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for _ in range(10):
            for _ in range(20):
                await listener.connect()
            assert await listener.serves()
            assert len(listener.server.connections) <= 2 * 5

    run(main, FEW)


# ---------------------------------------------------------------- which gives way first


def test_one_that_only_waits_for_its_client_to_close_gives_way_before_an_idle_one(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        idle = [await listener.connect() for _ in range(4)]
        await asyncio.sleep(A_TICK_S)
        refused = await listener.connect()
        assert (await refused.request("noise\r\n\r\n")).status == 400
        await asyncio.sleep(A_TICK_S)
        assert len(listener.server.connections) == 5, "it lingers"
        assert await listener.serves()
        for connection in idle:
            assert (await connection.request(get("/now"))).status == 200
        assert len(listener.server.connections) <= 5

    run(main, replace(FEW, linger_s=30))


def test_one_whose_caller_is_known_gives_way_after_those_whose_is_not(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        known = await listener.connect()
        await known.request(get("/now", "X-Caller: ada"))
        await asyncio.sleep(A_TICK_S)
        for _ in range(20):
            stranger = await listener.connect()
            await stranger.request(get("/now"))
        assert (await known.request(get("/now"))).status == 200, "idle for longest, and known"
        others = [await listener.connect() for _ in range(4)]
        for i, other in enumerate(others):
            await other.request(get("/now", f"X-Caller: caller {i}"))
            await asyncio.sleep(A_TICK_S)
        await known.request(get("/now"))
        await asyncio.sleep(A_TICK_S)
        await listener.connect()
        assert await others[0].is_closed(), "all are known: it has been idle for longest"

    run(main, replace(FEW, idle_s=30))


def test_half_a_body_of_a_caller_that_is_not_known_gives_way(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for _ in range(20):
            half = await listener.connect()
            await half.send(post("/echo", b"body")[:-2])
        await asyncio.sleep(A_TICK_S)
        assert await listener.serves()
        assert await listener.connections[0].is_closed()

    run(main, FEW)


def test_those_that_are_refused_never_take_the_place_of_others(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for _ in range(5):
            await (await listener.connect()).send(get("/slow"))
        await asyncio.sleep(A_TICK_S)
        for _ in range(30):
            late = await listener.connect()
            assert (await late.reply()).status == 503
        assert len(listener.server._all) == 5
        handler.release.set()

    run(main, replace(FEW, linger_s=30))


# ---------------------------------------------------------------- of one address


THREE_EACH = replace(FEW, connections=20, connections_per_address=3)


def test_of_one_address_a_new_one_replaces_an_idle_one_of_the_same(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        elsewhere = RawConnection(
            *await asyncio.open_connection(*listener.address, local_addr=("127.0.0.9", 0))
        )
        listener.connections.append(elsewhere)
        await elsewhere.request(get("/now"))
        for _ in range(30):
            assert (await (await listener.connect()).request(get("/now"))).status == 200
        assert len(listener.server._by_address["127.0.0.1"]) == 3
        assert (await elsewhere.request(get("/now"))).status == 200
        for connection in listener.connections[1:]:
            await connection.close()
        await elsewhere.close()
        assert await listener.has_no_connections()
        assert listener.server._by_address == {}

    run(main, THREE_EACH)


def test_an_address_whose_connections_are_all_at_work_gets_a_503_and_others_are_served(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for _ in range(3):
            await (await listener.connect()).send(get("/slow"))
        await asyncio.sleep(A_TICK_S)
        for _ in range(3):
            got = await (await listener.connect()).reply()
            assert (got.status, got.closes) == (503, True)
        elsewhere = RawConnection(
            *await asyncio.open_connection(*listener.address, local_addr=("127.0.0.9", 0))
        )
        assert (await elsewhere.request(get("/now"))).status == 200
        await elsewhere.close()
        handler.release.set()

    run(main, THREE_EACH)


def test_behind_proxies_connections_are_not_counted_by_address(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connections = [await listener.connect() for _ in range(10)]
        for connection in connections:
            assert (await connection.request(get("/now"))).status == 200

    run(main, THREE_EACH, Proxies(["127.0.0.1"]))


# ---------------------------------------------------------------- of one caller


async def calls(
    listener: RunningListener, caller: str, path: str = "/now", connection: RawConnection | None = None
) -> tuple[RawConnection, Any]:
    connection = connection or await listener.connect()
    return connection, await connection.request(get(path, f"X-Caller: {caller}"))


def test_each_caller_has_its_own_limit_of_connections(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        (first, got), (second, _) = await calls(listener, "ada"), await calls(listener, "ada")
        assert got.status == 200
        third, got = await calls(listener, "ada")
        assert (got.status, got.closes) == (429, True)
        assert got.headers["x-failsafe-reason"] == "rate_limited"
        assert await third.is_closed()
        assert (await calls(listener, "bob"))[1].status == 200
        for connection in (first, second):
            assert (await calls(listener, "ada", connection=connection))[1].status == 200, (
                "who is counted stays"
            )
        await second.close()
        assert await has_connections(listener, 2)
        assert (await calls(listener, "ada"))[1].status == 200

    run(main, FEW)


def test_a_connection_of_several_callers_counts_for_each_until_it_closes(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        both, _ = await calls(listener, "ada")
        for caller in ("bob", "ada", "bob", "eve"):
            assert (await calls(listener, caller, connection=both))[1].status == 200
        assert connection_counts(listener) == {"ada": 1, "bob": 1, "eve": 1}
        other, _ = await calls(listener, "bob")
        assert connection_counts(listener) == {"ada": 1, "bob": 2, "eve": 1}
        assert (await calls(listener, "bob"))[1].status == 429
        await both.close()
        assert await has_connections(listener, 1)
        assert connection_counts(listener) == {"bob": 1}
        other.reset()
        assert await listener.has_no_connections()
        assert connection_counts(listener) == {}

    run(main, FEW)


@pytest.mark.parametrize("end", ["noise\r\n\r\n", "GET /slow HTTP/1.1\r\n\r\n", "half a hea", ""])
@pytest.mark.parametrize("how", ["close", "reset", "half", "wait"])
def test_a_closed_connection_no_longer_counts_however_it_ended(run: Run, end: str, how: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection, _ = await calls(listener, "ada")
        assert connection_counts(listener) == {"ada": 1}
        await connection.send(end)
        await asyncio.sleep(0.02)
        match how:
            case "close":
                await connection.close()
            case "reset":
                connection.reset()
            case "half":
                connection.writer.write_eof()
        handler.release.set()
        assert await listener.has_no_connections()
        assert connection_counts(listener) == {}

    run(main, replace(QUICK, idle_s=0.2))


def test_nothing_is_read_after_a_caller_exceeds_its_connections(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        await calls(listener, "ada")
        await calls(listener, "ada")
        connection = await listener.connect()
        await connection.send(get("/now"), get("/now", "X-Caller: ada"), get("/echo"), post("/echo", b"body"))
        assert [(await connection.reply()).status for _ in range(2)] == [200, 429]
        assert await connection.is_closed()
        half = await listener.connect()
        got = await half.request(post("/echo", b"x" * 1000, "X-Caller: ada")[:-500])
        assert (got.status, got.closes) == (429, True)
        await half.send(b"x" * 100)
        assert await half.is_closed()
        assert handler.started == []

    run(main, FEW)


def test_behind_proxies_connections_are_not_counted_by_caller(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        assert [(await calls(listener, "ada"))[1].status for _ in range(5)] == [200] * 5

    run(main, FEW, Proxies(["127.0.0.1"]))


# ---------------------------------------------------------------- open files


EACH = 1 + FILES_PER_GRPC_CONNECTION
"""Open files of one connection of HTTP and one of gRPC."""


def limited(hard: int, soft: int, wanted: int) -> tuple[int, int, str]:
    """The capacity of a process with these limits, its soft limit after that, and its log."""
    code = (
        "import logging, resource; from gateway.listener.limits import connection_capacity as capacity;"
        "logging.basicConfig();"
        f"print(capacity({wanted}, 100), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    command = [sys.executable, "-c", code]
    got = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=True)
    room, now = got.stdout.split()
    return int(room), int(now), got.stderr


def test_the_soft_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    needed = EACH * 500 + SPARE_CONNECTIONS + 100
    assert limited(4000, 300, 500) == (500, needed, "")
    assert limited(4000, 3000, 500) == (500, 3000, ""), "a sufficient limit stays"
    assert limited(needed, 300, 500) == (500, needed, "")


def test_the_capacity_is_lower_where_the_hard_limit_requires_it() -> None:
    room, now, log = limited(600, 300, 500)
    assert (room, now) == ((600 - SPARE_CONNECTIONS - 100) // EACH, 600)
    assert f"at most {room} connections" in log
    assert limited(100, 100, 500)[0] == 1
