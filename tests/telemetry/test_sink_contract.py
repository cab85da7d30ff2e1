"""The contract of `gateway/telemetry/sink.py`, held over every sink, and over the worked example of its text.

Faults are put in front of the real sink: `Faulty` raises or waits in place of a call, or passes it on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.decision import Decision, Served
from gateway.core.record import AdminAct, AuditRecord, RequestRecord
from gateway.telemetry import sink as contract
from gateway.telemetry.audit import Audit
from gateway.telemetry.delivery import DELIVER_EVERY_S, FLUSH_ROWS, FLUSH_TIMEOUT_S, SLICE_ROWS
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.metrics import Telemetry
from gateway.telemetry.sink import AuditSink
from tests.support.deployments import record_of, run

SOON_S = 3 * DELIVER_EVERY_S


@dataclass(frozen=True)
class Readable:
    """A sink with what its readers see: the requests, in order, and how many it states as missing."""

    sink: AuditSink
    requests: Callable[[], list[str]]
    missing: Callable[[], int]
    close: Callable[[], None] = lambda: None


def json_lines(folder: Path) -> Readable:
    path = folder / "log.jsonl"

    def lines() -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def requests() -> list[str]:
        return [line["request"] for line in lines() if line.get("row") == 0]

    return Readable(JsonLinesSink(path), requests, lambda: sum(line.get("gap", 0) for line in lines()))


def telemetry(folder: Path) -> Readable:
    """Requests are seen as spans, in the order in which they were written, and as a total of rows."""
    spans = InMemorySpanExporter()
    sink = Telemetry("letters", "replica-1", spans)

    def total(name: str) -> int:
        families = text_string_to_metric_families(sink.prometheus().decode())
        samples = [sample for family in families if family.name == name for sample in family.samples]
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    def requests() -> list[str]:
        assert sink._tracers is not None
        sink._tracers.force_flush()
        roots = [span for span in spans.get_finished_spans() if span.name == "infer"]
        attributes = [span.attributes or {} for span in roots]
        assert sum(int(str(one["gateway.rows"])) for one in attributes) == total("gateway_rows")
        return [str(one["gateway.decision_id"]) for one in attributes]

    return Readable(sink, requests, lambda: total("gateway_records_missed"), sink.close)


def worked_example(folder: Path) -> Readable:
    """The class in the text of the contract, as it stands there."""
    found = re.search(r"^    class (\w+):.*?(?=^\S)", str(contract.__doc__), re.MULTILINE | re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"Path": Path, "Sequence": Sequence, "AuditRecord": AuditRecord}
    names["RequestRecord"] = RequestRecord
    exec(textwrap.dedent(found[0]), names)
    path = folder / "identifiers.txt"

    def lines() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    return Readable(
        names[found[1]](path),
        lambda: [line for line in lines() if not line.startswith("missing: ")],
        lambda: sum(int(line[9:]) for line in lines() if line.startswith("missing: ")),
    )


SINKS = [json_lines, telemetry, worked_example]


@pytest.fixture(params=SINKS, ids=lambda factory: factory.__name__)
def readable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Readable]:
    made: Readable = request.param(tmp_path)
    yield made
    made.close()


@dataclass
class Faulty:
    """A real sink behind faults. calls: the sizes of slices in rows, and 0 for each flush."""

    sink: AuditSink
    refused: set[str] = field(default_factory=set)
    accepts: bool = True
    flushes: bool = True
    may_flush: threading.Event = field(default_factory=threading.Event)
    calls: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    threads: set[tuple[str, str]] = field(default_factory=set)
    working: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.may_flush.set()

    def accept(self, records: Sequence[AuditRecord], /) -> None:
        assert self.working.acquire(blocking=False), "two calls overlap"
        try:
            self.threads.add(("accept", threading.current_thread().name))
            requests = [record for record in records if isinstance(record, RequestRecord)]
            if not self.accepts or self.refused & {record.id for record in requests}:
                raise RuntimeError("refused on purpose")
            acts = len(records) - len(requests)
            self.calls.append(sum(len(record.decisions) for record in requests) + acts)
            self.sink.accept(records)
        finally:
            self.working.release()

    def flush(self, missed: int, /) -> None:
        assert self.working.acquire(blocking=False), "two calls overlap"
        try:
            self.threads.add(("flush", threading.current_thread().name))
            assert self.may_flush.wait(30.0)
            self.calls.append(0)
            self.missed.append(missed)
            if not self.flushes:
                self.sink.flush(0)  # what was accepted is gone in any case, as it must be where a flush fails
                raise OSError("no space left on purpose")
            self.sink.flush(missed)
        finally:
            self.working.release()


def request(name: str, rows: int = 1) -> RequestRecord:
    """A request whose every row gets a line of its own, as one that is answered does."""
    return record_of(*(Decision(f"{name}.{i}", Served({}, "primary")) for i in range(rows)), name=name)


def names(n: int, prefix: str = "r") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_acts_of_administrators_among_requests_cost_no_request(readable: Readable) -> None:
    async def main() -> None:
        audit = Audit([readable.sink])
        for i, name in enumerate(names(90)):
            audit.take(request(name))
            audit.take_act(AdminAct("reload", "ada", f"letters-{i}", "127.0.0.1", True, 1_700_000_000.0 + i))
        task = asyncio.create_task(audit.run())
        await asyncio.sleep(SOON_S)
        await ended(task)
        assert (readable.requests(), readable.missing(), audit.lost) == (names(90), 0, 0)

    run(main)


def test_the_audit_log_holds_acts_between_the_requests_around_them(tmp_path: Path) -> None:
    act = AdminAct("isolate", "ada", "letters/primary", "10.0.0.7", False, 1_700_000_000.5)
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
    audit.take(request("before"))
    audit.take_act(act)
    audit.take(request("after"))
    audit.drain()
    lines = [orjson.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    assert [line.get("request") for line in lines] == ["before", None, "after"]
    assert lines[1] == {
        "act": "isolate",
        "t": 1_700_000_000.5,
        "person": "ada",
        "on": "letters/primary",
        "address": "10.0.0.7",
        "done": False,
    }


def test_every_request_arrives_exactly_once_and_in_order(readable: Readable) -> None:
    async def main() -> None:
        audit = Audit([readable.sink])
        task = asyncio.create_task(audit.run())
        for i, name in enumerate(names(300)):
            audit.take(request(name, rows=1 + i % 3))
            if i % 50 == 0:
                await asyncio.sleep(DELIVER_EVERY_S)
        await asyncio.sleep(SOON_S)
        assert readable.requests() == names(300), "soon, and not only at shutdown"
        await ended(task)
        audit.drain()
        assert audit.lost == 0

    run(main)
    assert readable.requests() == names(300)
    assert readable.missing() == 0


def test_slices_and_flushes_are_as_small_as_promised_and_never_overlap(readable: Readable) -> None:
    faulty = Faulty(readable.sink)

    async def main() -> None:
        audit = Audit([faulty])
        for name in names(1500):
            audit.take(request(name, rows=3))
        task = asyncio.create_task(audit.run())
        await asyncio.sleep(2 * SOON_S)
        await ended(task)

    run(main)
    assert len(readable.requests()) == 1500
    assert 0 < max(faulty.calls) <= SLICE_ROWS + 2
    between, rows = [], 0
    for call in faulty.calls:
        rows = rows + call if call else 0
        between.append(rows)
    assert max(between) <= FLUSH_ROWS + SLICE_ROWS + 2
    assert {thread for kind, thread in faulty.threads if kind == "accept"} == {"MainThread"}
    assert {thread for kind, thread in faulty.threads if kind == "flush"} == {"audit-Faulty"}


def test_other_tasks_have_their_turn_after_every_slice(readable: Readable) -> None:
    async def main() -> None:
        faulty = Faulty(readable.sink)
        audit = Audit([faulty])
        task = asyncio.create_task(audit.run())
        for name in names(50 * SLICE_ROWS):
            audit.take(request(name))
        seen = [0]
        while sum(faulty.calls) < 50 * SLICE_ROWS:
            await asyncio.sleep(0)
            seen.append(sum(faulty.calls))
        assert max(after - before for before, after in pairwise(seen)) == SLICE_ROWS
        await ended(task)

    run(main)


def test_a_sink_that_refuses_to_accept_states_the_gap_once_it_works(readable: Readable) -> None:
    faulty = Faulty(readable.sink, accepts=False)
    audit = Audit([faulty])
    for name in names(7, "lost"):
        audit.take(request(name))
    audit.drain()
    faulty.accepts = True
    for name in names(5):
        audit.take(request(name))
    audit.drain()
    assert (readable.requests(), readable.missing(), audit.lost) == (names(5), 7, 7)


def test_a_request_that_cannot_be_accepted_loses_no_other(readable: Readable) -> None:
    audit = Audit([Faulty(readable.sink, refused={"r3"})])
    for name in names(10):
        audit.take(request(name))
    audit.drain()
    assert readable.requests() == [name for name in names(10) if name != "r3"]
    assert (readable.missing(), audit.lost) == (1, 1)


def test_a_flush_that_fails_is_a_gap_that_the_next_one_states(readable: Readable) -> None:
    faulty = Faulty(readable.sink)
    audit = Audit([faulty])
    for n, flushes in ((2, True), (3, False), (4, False), (1, True), (1, True)):
        faulty.flushes = flushes
        for name in names(n, f"n{len(faulty.missed)}-"):
            audit.take(request(name))
        audit.drain()
    assert faulty.missed == [0, 0, 3, 3, 7, 7, 0], "a gap that could not be stated is tried again"
    assert (readable.missing(), audit.lost) == (7, 7)


def test_a_full_buffer_is_a_gap(readable: Readable) -> None:
    audit = Audit([readable.sink], buffer=3)
    for name in names(8):
        audit.take(request(name))
    assert audit.lost == 5
    audit.drain()
    audit.take(request("after"))
    audit.drain()
    assert (readable.requests(), readable.missing(), audit.lost) == ([*names(3), "after"], 5, 5)


def test_what_is_buffered_at_shutdown_is_delivered(readable: Readable) -> None:
    async def main() -> None:
        audit = Audit([readable.sink])
        task = asyncio.create_task(audit.run())
        await asyncio.sleep(0)
        for name in names(FLUSH_ROWS + 100):
            audit.take(request(name))
        await ended(task)

    run(main)
    assert readable.requests() == names(FLUSH_ROWS + 100)


def test_a_gap_is_stated_at_shutdown_even_if_nothing_follows_it(readable: Readable) -> None:
    faulty = Faulty(readable.sink, accepts=False)

    async def main() -> None:
        audit = Audit([faulty])
        task = asyncio.create_task(audit.run())
        await asyncio.sleep(0)
        for name in names(4):
            audit.take(request(name))
        await ended(task)

    run(main)
    assert readable.missing() == 4


def test_a_flush_that_hangs_blocks_neither_the_event_loop_nor_another_sink(
    readable: Readable, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    faulty, other = Faulty(readable.sink), worked_example(tmp_path / "other")
    faulty.may_flush.clear()

    async def main() -> None:
        audit = Audit([faulty, other.sink], buffer=5)
        task = asyncio.create_task(audit.run())
        audit.take(request("first"))
        await asyncio.sleep(SOON_S)
        for name in names(12):
            audit.take(request(name))
            await asyncio.sleep(2 * DELIVER_EVERY_S)  # returns on time, so the event loop is free
        assert other.requests() == ["first", *names(12)]
        assert audit.lost == 12 - 5, "bounded while it hangs"
        faulty.may_flush.set()
        await asyncio.sleep(SOON_S)
        await ended(task)

    run(main)
    assert readable.requests() == ["first", *names(5)]
    assert readable.missing() == 7


def test_a_sink_that_hangs_at_shutdown_is_given_up_and_its_loss_is_logged(
    readable: Readable, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Faulty(readable.sink)
    faulty.may_flush.clear()

    async def main() -> None:
        audit = Audit([faulty])
        task = asyncio.create_task(audit.run())
        audit.take(request("first"))
        await asyncio.sleep(SOON_S)
        for name in names(4):
            audit.take(request(name))
        start_s = asyncio.get_running_loop().time()
        await ended(task)
        audit.drain()  # as the gateway does; must not wait for the sink either
        assert asyncio.get_running_loop().time() - start_s < FLUSH_TIMEOUT_S + 2.0
        assert audit.lost == 5

    run(main)
    assert "hangs at shutdown: 5 records are lost" in caplog.text
    faulty.may_flush.set()


def test_a_failure_is_logged_once_and_so_is_its_end(
    readable: Readable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    faulty = Faulty(readable.sink, flushes=False)
    audit = Audit([faulty])
    for flushes in (False, False, False, True, True, True):
        faulty.flushes = flushes
        audit.take(request("r"))
        audit.drain()
    assert [record.message for record in caplog.records] == [
        "Faulty fails; the records that it misses are counted",
        "Faulty works again; it misses 3 records",
    ]


@pytest.mark.parametrize("flushes", [True, False], ids=["flush works", "flush fails"])
def test_a_sink_keeps_no_record_after_a_flush(readable: Readable, flushes: bool) -> None:
    record = request("kept")
    before = sys.getrefcount(record)
    audit = Audit([Faulty(readable.sink, flushes=flushes)], keep=0)
    for _ in range(100):
        audit.take(record)
        audit.drain()
    gc.collect()
    assert sys.getrefcount(record) == before


def test_a_flush_of_nothing_states_nothing(readable: Readable) -> None:
    Audit([readable.sink]).drain()
    assert (readable.requests(), readable.missing()) == ([], 0)
