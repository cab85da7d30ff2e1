"""The listener in a crowd: how many connections there may be at once, in all and of one caller."""

from __future__ import annotations

import asyncio
import logging
import resource
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from gateway.access.proxies import Proxies
from gateway.listener.limits import OTHER_FILES, SPARE_CONNECTIONS, connection_capacity
from tests.support.raw_http import QUICK, Door, Run, Told, Wire, get, post, runner

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PATIENT = replace(QUICK, head_s=30, body_s=30, idle_s=30, stuck_s=30)
A_TICK_S = 0.003
"""Longer than the clock of uvloop takes to move on."""
FEW = replace(PATIENT, connections=5, connections_per_caller=2)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(LOOPS[request.param])


def seats(door: Door) -> dict[str, int]:
    return door.server._connections_by_principal


async def settled(door: Door, n: int) -> bool:
    """Whether so many connections are left, after a moment."""
    for _ in range(200):
        if len(door.server.connections) == n:
            return True
        await asyncio.sleep(0.01)
    return False


# ---------------------------------------------------------------- in all


def test_a_new_connection_takes_the_place_of_the_one_that_has_been_idle_longest(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wires = [await door.connect() for _ in range(5)]
        for i in (3, 0, 1, 4, 2):
            assert (await wires[i].ask(get("/now"))).status == 200
            await asyncio.sleep(A_TICK_S)
        for gone in (3, 0, 1):
            newcomer = await door.connect()
            assert (await newcomer.ask(get("/now"))).status == 200
            assert await wires[gone].ended()
            assert await settled(door, 5)
        assert [(await wires[i].ask(get("/now"))).status for i in (2, 4)] == [200, 200]

    run(main, FEW)


def test_who_has_asked_meanwhile_is_not_taken_for_idle(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wires = [await door.connect() for _ in range(5)]
        for wire in wires:
            await wire.ask(get("/now"))
            await asyncio.sleep(A_TICK_S)
        newcomer = await door.connect()  # now it is known who has been idle longest
        await newcomer.ask(get("/now"))
        assert await wires[0].ended()
        await wires[1].send(get("/slow"))
        await wires[2].ask(get("/now"))
        await told.busy.wait()
        await (await door.connect()).ask(get("/now"))
        assert await wires[3].ended(), "1 is at work and 2 has just been"
        told.release.set()
        assert (await wires[1].reply()).status == 200
        assert (await wires[2].ask(get("/now"))).status == 200

    run(main, FEW)


def test_who_is_at_work_gives_way_to_nobody_and_the_newcomer_is_told_to_come_back(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        working = [await door.connect() for _ in range(5)]
        half = post("/echo", b"body")[:-2].decode()
        for wire, sent in zip(
            working, [get("/slow"), get("/slow"), get("/slow"), half, get("/slow")], strict=True
        ):
            await wire.send(sent)
        await asyncio.sleep(0.05)
        for _ in range(3):
            late = await door.connect()
            await late.send(post("/echo", b"x" * 1000))
            got = await late.reply()
            assert (got.status, got.closes, got.headers["retry-after"]) == (503, True, "1")
            assert got.headers["x-failsafe-reason"] == "unavailable"
            assert await late.ended()
            await late.close()
        assert "echo" not in told.begun
        told.release.set()
        assert (await working[3].ask("dy")).json["body"] == "body"
        assert [(await working[i].reply()).status for i in (0, 1, 2, 4)] == [200] * 4
        assert await door.well(), "there are idle ones again"

    run(main, FEW)


def test_half_a_head_keeps_no_place_however_many_have_sent_one(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        halves = [await door.connect() for _ in range(20)]
        for wire in halves:
            await wire.send("GET /now HT")
        assert await door.well()
        assert await halves[0].ended()

    run(main, FEW)


def test_however_many_come_too_many_are_not_kept(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        working = [await door.connect() for _ in range(5)]
        for wire in working:
            await wire.send(get("/slow"))
        await asyncio.sleep(0.05)
        most = 0
        crowd = []
        for _ in range(SPARE_CONNECTIONS + 100):
            crowd.append(await door.connect())
            most = max(most, len(door.server.connections))
        assert most <= 5 + SPARE_CONNECTIONS + 2
        told_why = [(await wire.reply()).status for wire in crowd[:SPARE_CONNECTIONS]]
        assert told_why == [503] * SPARE_CONNECTIONS
        assert all([await wire.reader.read() or True for wire in crowd[SPARE_CONNECTIONS:]])
        told.release.set()
        assert [(await wire.reply()).status for wire in working] == [200] * 5
        for wire in crowd:
            await wire.close()
        assert await door.well()

    run(main, replace(FEW, linger_s=5))


def test_a_flood_of_idle_connections_keeps_no_good_caller_out(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        for _ in range(10):
            for _ in range(20):
                await door.connect()
            assert await door.well()
            assert len(door.server.connections) <= 2 * 5

    run(main, FEW)


# ---------------------------------------------------------------- of one caller


async def calls(door: Door, caller: str, path: str = "/now", wire: Wire | None = None) -> tuple[Wire, Any]:
    wire = wire or await door.connect()
    return wire, await wire.ask(get(path, f"X-Caller: {caller}"))


def test_one_caller_has_only_so_many_connections_and_others_are_not_counted_with_it(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        (first, got), (second, _) = await calls(door, "ada"), await calls(door, "ada")
        assert got.status == 200
        third, got = await calls(door, "ada")
        assert (got.status, got.closes) == (429, True)
        assert got.headers["x-failsafe-reason"] == "rate_limited"
        assert await third.ended()
        assert (await calls(door, "bob"))[1].status == 200
        for wire in (first, second):
            assert (await calls(door, "ada", wire=wire))[1].status == 200, "who is counted stays"
        await second.close()
        assert await settled(door, 2)
        assert (await calls(door, "ada"))[1].status == 200

    run(main, FEW)


def test_a_connection_of_several_callers_counts_for_each_and_for_none_when_it_is_gone(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        both, _ = await calls(door, "ada")
        for caller in ("bob", "ada", "bob", "eve"):
            assert (await calls(door, caller, wire=both))[1].status == 200
        assert seats(door) == {"ada": 1, "bob": 1, "eve": 1}
        other, _ = await calls(door, "bob")
        assert seats(door) == {"ada": 1, "bob": 2, "eve": 1}
        assert (await calls(door, "bob"))[1].status == 429
        await both.close()
        assert await settled(door, 1)
        assert seats(door) == {"bob": 1}
        other.reset()
        assert await door.forgotten()
        assert seats(door) == {}

    run(main, FEW)


@pytest.mark.parametrize("end", ["noise\r\n\r\n", "GET /slow HTTP/1.1\r\n\r\n", "half a hea", ""])
@pytest.mark.parametrize("how", ["close", "reset", "half", "wait"])
def test_a_connection_counts_no_longer_however_it_ends(run: Run, end: str, how: str) -> None:
    async def main(door: Door, told: Told) -> None:
        wire, _ = await calls(door, "ada")
        assert seats(door) == {"ada": 1}
        await wire.send(end)
        await asyncio.sleep(0.02)
        match how:
            case "close":
                await wire.close()
            case "reset":
                wire.reset()
            case "half":
                wire.writer.write_eof()
        told.release.set()
        assert await door.forgotten()
        assert seats(door) == {}

    run(main, replace(QUICK, idle_s=0.2))


def test_what_follows_the_request_of_one_too_many_is_not_looked_at(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        await calls(door, "ada")
        await calls(door, "ada")
        wire = await door.connect()
        await wire.send(get("/now"), get("/now", "X-Caller: ada"), get("/echo"), post("/echo", b"body"))
        assert [(await wire.reply()).status for _ in range(2)] == [200, 429]
        assert await wire.ended()
        half = await door.connect()
        got = await half.ask(post("/echo", b"x" * 1000, "X-Caller: ada")[:-500])
        assert (got.status, got.closes) == (429, True)
        await half.send(b"x" * 100)
        assert await half.ended()
        assert told.begun == []

    run(main, FEW)


def test_behind_proxies_connections_are_the_proxys_and_not_the_callers(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        assert [(await calls(door, "ada"))[1].status for _ in range(5)] == [200] * 5

    run(main, FEW, Proxies(["127.0.0.1"]))


# ---------------------------------------------------------------- open files


def limited(hard: int, soft: int, wanted: int) -> tuple[int, int, str]:
    """What a process with these limits makes of them: its room, its soft limit after that, and its log."""
    code = (
        "import logging, resource; from gateway.listener.limits import connection_capacity as capacity;"
        "logging.basicConfig();"
        f"print(capacity({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    command = [sys.executable, "-c", code]
    got = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=True)
    room, now = got.stdout.split()
    return int(room), int(now), got.stderr


def test_the_soft_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    needed = 2 * 500 + SPARE_CONNECTIONS + OTHER_FILES
    assert limited(4000, 300, 500) == (500, needed, "")
    assert limited(4000, 3000, 500) == (500, 3000, ""), "enough is enough"
    assert limited(needed, 300, 500) == (500, needed, "")


def test_what_the_hard_limit_does_not_allow_is_not_promised() -> None:
    room, now, log = limited(600, 300, 500)
    assert (room, now) == ((600 - SPARE_CONNECTIONS - OTHER_FILES) // 2, 600)
    assert f"at most {room} connections" in log
    assert limited(100, 100, 500)[0] == 1


def test_the_listener_holds_itself_to_what_is_possible(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    possible = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(
        "gateway.listener.limits._open_files", lambda: (SPARE_CONNECTIONS + OTHER_FILES + 6,) * 2
    )
    monkeypatch.setattr("gateway.listener.limits.resource.setrlimit", lambda *_: None)

    async def main(door: Door, told: Told) -> None:
        wires = []
        for _ in range(4):
            wires.append(await door.connect())
            await asyncio.sleep(A_TICK_S)
        assert await wires[0].ended()
        assert (await wires[3].ask(get("/now"))).status == 200

    with caplog.at_level(logging.WARNING):
        run(main, FEW)
    assert "at most 3 connections" in caplog.text
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == possible
    assert connection_capacity(1) == 1
