"""The load generator against a server whose replies the test chooses."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.overload.generator import (
    CLOSED_LOOP,
    LoadClass,
    OverloadPlan,
    compile_generator,
    run_load,
    write_requests,
)
from bench.overload.load_result import LoadResult
from bench.requests import WrongInput

CORES = frozenset(os.sched_getaffinity(0))
REQUEST = b"POST /infer HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
DEADLINE_S = 0.2
ENDS = {
    "answered": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    "served": b"HTTP/1.1 200 OK\r\nx-failsafe-outcome: served\r\ncontent-length: 4\r\n\r\nbody",
    "degraded": b"HTTP/1.1 200 OK\r\nx-failsafe-outcome: degraded\r\ncontent-length: 0\r\n\r\n",
    "deferred": b"HTTP/1.1 422 No\r\nx-failsafe-outcome: deferred\r\ncontent-length: 0\r\n\r\n",
    "abstained": b"HTTP/1.1 422 No\r\nx-failsafe-outcome: refused\r\ncontent-length: 0\r\n\r\n",
    "rate_limited": b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n",
    "unavailable": b"HTTP/1.1 503 No\r\ncontent-length: 70000\r\n\r\n" + 70000 * b"x",
    "deadline": b"HTTP/1.1 504 No\r\ncontent-length: 0\r\n\r\n",
    "other": b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
}
Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
"""Answers the request of this number, the first being 0, of the whole server."""


@dataclass
class ScriptedServer:
    """What it received. in_flight_most: requests at once. connections: how many were opened."""

    answer: Answer
    received: int = 0
    in_flight: int = 0
    in_flight_most: int = 0
    connections: int = 0
    sources: Counter[str] = field(default_factory=Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readexactly(len(REQUEST))
                self.sources[writer.get_extra_info("peername")[0]] += 1
                self.received += 1
                self.in_flight += 1
                self.in_flight_most = max(self.in_flight_most, self.in_flight)
                await self.answer(self.received - 1, writer)
                self.in_flight -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_generator(tmp_path_factory.mktemp("generator"))


def load(
    program: Path, work: Path, answer: Answer, phases: tuple[float, ...], *classes: LoadClass
) -> tuple[LoadResult, ScriptedServer]:
    """Runs a load on a server of its own."""
    server = ScriptedServer(answer)

    async def main() -> LoadResult:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512)
        async with listening:
            plan = OverloadPlan(listening.sockets[0].getsockname()[1], DEADLINE_S, phases, classes)
            return await asyncio.to_thread(run_load, program, plan, work, CORES, lambda done_s: None)

    return asyncio.run(main()), server


def one_class(work: Path, connections: int, *rates: float, source: str = "127.0.0.1") -> LoadClass:
    return LoadClass("one", write_requests(work / "requests", [REQUEST]), connections, rates, source)


def ends(result: LoadResult, name: str = "one") -> dict[str, int]:
    counts = result.classes[name].counts.sum(axis=(0, 2))
    return {end: int(count) for end, count in zip(result.ends, counts, strict=True) if count}


async def served(number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(ENDS["served"])


async def hang(number: int, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def test_every_reply_is_counted_by_its_status_and_outcome(program: Path, tmp_path: Path) -> None:
    replies = list(ENDS.values())

    async def in_turn(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(replies[number % len(replies)])

    result, server = load(program, tmp_path, in_turn, (0.5,), one_class(tmp_path, 1, CLOSED_LOOP))
    found = ends(result)
    assert set(found) == set(ENDS)
    assert sum(found.values()) == server.received
    assert max(found.values()) - min(found.values()) <= 1


def test_an_open_loop_goes_on_sending_where_the_server_does_not_answer(program: Path, tmp_path: Path) -> None:
    result, server = load(program, tmp_path, hang, (1.0,), one_class(tmp_path, 3, 200.0))
    found = ends(result)
    assert found["unanswered"] == server.received == 3
    assert 100 < found["unsent"] < 300
    assert set(found) == {"unanswered", "unsent"}


def test_latency_counts_from_the_scheduled_time_and_late_replies_are_told_apart(
    program: Path, tmp_path: Path
) -> None:
    async def late(number: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * DEADLINE_S)
        writer.write(ENDS["served"])

    result, _ = load(program, tmp_path, late, (1.0,), one_class(tmp_path, 100, 50.0))
    counts = result.counts(["one"], 0)
    served_at = result.ends.index("served")
    assert counts[:, served_at, 1].sum() == counts.sum() > 0
    assert result.classes["one"].answered[0].percentile_s(0.01) >= 2 * DEADLINE_S


def test_a_closed_loop_has_as_many_requests_under_way_as_connections(program: Path, tmp_path: Path) -> None:
    async def soon(number: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.005)
        writer.write(ENDS["served"])

    result, server = load(program, tmp_path, soon, (0.5,), one_class(tmp_path, 7, CLOSED_LOOP))
    assert server.in_flight_most == 7
    assert ends(result) == {"served": server.received}


def test_a_connection_that_the_server_ends_is_opened_again(program: Path, tmp_path: Path) -> None:
    async def then_close(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(ENDS["served"])
        writer.close()

    result, server = load(program, tmp_path, then_close, (0.5,), one_class(tmp_path, 20, 40.0))
    assert ends(result) == {"served": server.received}
    assert server.connections > 20 or server.received <= 20


def test_a_connection_that_ends_without_a_reply_is_counted_as_closed(program: Path, tmp_path: Path) -> None:
    async def close(number: int, writer: asyncio.StreamWriter) -> None:
        writer.close()

    result, server = load(program, tmp_path, close, (0.5,), one_class(tmp_path, 20, 40.0))
    assert ends(result) == {"closed": server.received}


def test_each_phase_has_its_rate_and_each_class_its_address(program: Path, tmp_path: Path) -> None:
    result, server = load(
        program,
        tmp_path,
        served,
        (0.5, 0.5, 0.5),
        one_class(tmp_path, 50, 100.0, 0.0, 400.0, source="127.0.0.2"),
    )
    first, none, last = (int(result.counts(["one"], phase).sum()) for phase in range(3))
    assert none == 0
    assert 20 < first < 100 < last < 300
    assert server.sources == {"127.0.0.2": first + last}
    assert [one.count for one in result.lateness] == [first, 0, last]


def test_what_the_generator_cannot_read_is_said(program: Path, tmp_path: Path) -> None:
    missing = LoadClass("one", tmp_path / "missing", 1, (1.0,))
    with pytest.raises(WrongInput, match="a file of requests cannot be read"):
        load(program, tmp_path, served, (0.5,), missing)


def test_a_plan_needs_a_rate_for_each_phase(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a rate for each phase"):
        OverloadPlan(1, DEADLINE_S, (1.0, 1.0), (one_class(tmp_path, 1, 5.0),))


def test_without_a_compiler_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrongInput, match="no C compiler"):
        compile_generator(tmp_path)
