"""The audit log: one line a row, bounded, never in the way, and honest about every hole."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given

from gateway.core.decision import (
    Decision,
    Deferred,
    Degraded,
    Finding,
    Outcome,
    Reason,
    Refused,
    Served,
    Verdict,
)
from gateway.core.pipeline import Pipeline
from gateway.core.record import RequestRecord
from gateway.telemetry import line_file
from gateway.telemetry.audit import DRAIN_EVERY_S, SLICE_ROWS, Audit, explain
from gateway.telemetry.line_file import LineFile
from tests.core.test_laws import decide, pipelines, xs
from tests.support.deployments import record_of, run

OUTPUT = {"probabilities": np.array([[0.25, 0.75]], np.float32)}
SERVED = Decision("d", Served(OUTPUT, "primary"))
FINDINGS = (
    Finding("rate", 0.25, Verdict.ALLOW, True, 0.000_012_4),
    Finding("ood", 5.5, Verdict.DEFER, True, 0.002, form="input_only"),
    Finding("watched", None, Verdict.REFUSE, False, 0.1, error="watched: no answer in 0.100 s"),
    Finding("infinite", float("inf"), Verdict.REFUSE, True, 0.0),
)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a log; each must be JSON."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def told(outcome: Outcome, *findings: Finding) -> dict[str, Any]:
    (line,) = explain(record_of(Decision("d", outcome, findings, "letters@1#0")))
    held: dict[str, Any] = orjson.loads(line)
    return held


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Served(OUTPUT, "primary"), {"outcome": "served", "by": "primary", "reason": "ok"}),
        (
            Degraded(OUTPUT, "small", Reason.UNAVAILABLE),
            {"outcome": "degraded", "by": "small", "reason": "unavailable"},
        ),
        (
            Deferred("d.0", Reason.ABSTAINED),
            {"outcome": "deferred", "ticket": "d.0", "reason": "abstained"},
        ),
        (
            Refused(Reason.RATE_LIMITED, 1.5),
            {"outcome": "refused", "reason": "rate_limited", "retry_after_s": 1.5},
        ),
        (
            Refused(Reason.DEADLINE),
            {"outcome": "refused", "reason": "deadline", "retry_after_s": None},
        ),
    ],
)
def test_a_line_says_how_its_row_ended_and_why(outcome: Outcome, expected: dict[str, Any]) -> None:
    assert told(outcome) == {
        "id": "d",
        "request": "d",
        "row": 0,
        "t": 1_700_000_000.0,
        "elapsed_ms": 12.5,
        "principal": "tester",
        "policy": "letters@1#0",
        "mode": "enforce",
        "findings": [],
        **expected,
    }


def test_a_line_has_what_every_stage_said() -> None:
    assert told(Deferred("d", Reason.ABSTAINED), *FINDINGS)["findings"] == [
        {"stage": "rate", "verdict": "allow", "us": 12, "score": 0.25},
        {"stage": "ood", "verdict": "defer", "us": 2000, "score": 5.5, "form": "input_only"},
        {
            "stage": "watched",
            "verdict": "refuse",
            "us": 100_000,
            "enforced": False,
            "error": "watched: no answer in 0.100 s",
        },
        {"stage": "infinite", "verdict": "refuse", "us": 0, "score": None},
    ]


@given(pipelines(), xs)
def test_a_pass_put_into_words_by_column_says_of_each_row_what_its_findings_say(
    pipeline: Pipeline, x: list[float]
) -> None:
    decisions = decide(pipeline, x)
    by_row = [decision._replace(findings=tuple(decision.findings)) for decision in decisions]
    assert list(explain(record_of(*decisions))) == list(explain(record_of(*by_row)))
    alone = [record_of(decision) for decision in reversed(decisions)]
    assert list(explain(*alone)) == [line for record in alone for line in explain(record)]


def test_no_answer_is_in_the_log() -> None:
    assert b"0.75" not in b"".join(explain(record_of(SERVED)))


def test_one_line_a_row_in_order(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "log.jsonl")
    rows = tuple(Decision(f"d.{i}", Refused(Reason.ABSTAINED)) for i in range(3))
    audit.take(record_of(*rows))
    audit.take(record_of(SERVED, name="e"))
    audit.drain()
    lines = lines_of(tmp_path / "log.jsonl")
    assert [(line["request"], line["row"], line["id"]) for line in lines] == [
        ("d", 0, "d.0"),
        ("d", 1, "d.1"),
        ("d", 2, "d.2"),
        ("e", 0, "d"),
    ]
    assert (tmp_path / "log.jsonl").read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("text", ["two\nlines", "\x00", "é", "\u2028", '"}'])
def test_a_line_stays_one_line_whatever_is_in_it(tmp_path: Path, text: str) -> None:
    audit = Audit(tmp_path / "log.jsonl")
    finding = Finding("ood", None, Verdict.DEFER, True, 0.0, error=text)
    audit.take(record_of(Decision("d", Refused(Reason.ABSTAINED), (finding,)), who=f"anonymous@{text}"))
    audit.drain()
    (line,) = (tmp_path / "log.jsonl").read_bytes().split(b"\n")[:-1]
    held = orjson.loads(line)
    assert (held["principal"], held["findings"][0]["error"]) == (f"anonymous@{text}", text)


def test_an_error_that_is_no_unicode_costs_neither_its_line_nor_the_next(tmp_path: Path) -> None:
    """Texts of other people's errors may hold anything, such as file names that are no UTF-8."""
    audit = Audit(tmp_path / "log.jsonl")
    finding = Finding("primary", None, Verdict.DEGRADE, True, 0.0, error="no such file: \udcff.onnx")
    audit.take(record_of(Decision("d", Refused(Reason.UNAVAILABLE), (finding,))))
    audit.take(record_of(SERVED, name="e"))
    audit.drain()
    assert [line["request"] for line in lines_of(tmp_path / "log.jsonl")] == ["d", "e"]


def test_nothing_is_written_until_there_is_something(tmp_path: Path) -> None:
    Audit(tmp_path / "log.jsonl").drain()
    assert not (tmp_path / "log.jsonl").exists()


def test_the_buffer_is_bounded_and_the_next_line_states_the_gap(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "log.jsonl", buffer=3)
    for i in range(8):
        audit.take(record_of(SERVED, name=str(i)))
    assert audit.lost == 5
    audit.drain()
    audit.take(record_of(SERVED, name="after"))
    audit.drain()
    lines = lines_of(tmp_path / "log.jsonl")
    assert lines[0]["gap"] == 5
    assert [line.get("request") for line in lines] == [None, "0", "1", "2", "after"]
    assert audit.lost == 5


def put_folder(path: Path) -> None:
    path.mkdir()


def put_file_for_parent(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize("obstruct", [put_folder, put_file_for_parent])
def test_a_disk_that_refuses_is_a_gap_and_no_exception(tmp_path: Path, obstruct: Any) -> None:
    path = tmp_path / "var" / "log.jsonl"
    path.parent.mkdir()
    obstruct(path)
    sunk: list[str] = []
    audit = Audit(path, [lambda records: sunk.extend(record.id for record in records)])
    for name in "ab":
        audit.take(record_of(SERVED, name=name))
    audit.drain()
    audit.take(record_of(SERVED, name="c"))
    audit.drain()
    assert audit.lost == 3
    assert sunk == ["a", "b", "c"], "telemetry does not need the disk"
    (path.rmdir if path.is_dir() else path.parent.unlink)()
    audit.take(record_of(SERVED, name="d"))
    audit.drain()
    gap, line = lines_of(path)
    assert gap["gap"] == 3
    assert gap["t"] > 1_700_000_000
    assert line["request"] == "d"
    assert audit.lost == 3


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_in_the_middle_of_a_line_spoils_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    audit = Audit(path)
    audit.take(record_of(SERVED, name="before"))
    audit.drain()
    with disk_of(path.stat().st_size + 40):
        audit.take(record_of(SERVED, name="torn"))
        audit.drain()
    assert audit.lost == 1
    audit.take(record_of(SERVED, name="after"))
    audit.drain()
    whole = []
    for line in path.read_bytes().splitlines():
        try:
            whole.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue  # the torn line itself
    assert [line.get("request", line.get("gap")) for line in whole] == ["before", 1, "after"]


def test_a_sink_that_raises_stops_neither_the_log_nor_the_other_sinks(tmp_path: Path) -> None:
    sunk: list[str] = []

    def broken(records: Sequence[RequestRecord]) -> None:
        raise RuntimeError("broken on purpose")

    def works(records: Sequence[RequestRecord]) -> None:
        sunk.extend(record.id for record in records)

    async def main() -> None:
        audit = Audit(tmp_path / "log.jsonl", [broken, works])
        task = asyncio.create_task(audit.run())
        for name in "ab":
            audit.take(record_of(SERVED, name=name))
            await asyncio.sleep(2 * DRAIN_EVERY_S)
        assert not task.done(), "the task that writes the log is gone"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)
    assert [line["request"] for line in lines_of(tmp_path / "log.jsonl")] == ["a", "b"]
    assert sunk == ["a", "b"]


def test_the_log_rotates_and_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "ROTATE_BYTES", 1000)
    audit = Audit(tmp_path / "log.jsonl")
    names = [f"{i:02}" for i in range(40)]
    for name in names:
        audit.take(record_of(SERVED, name=name))
        audit.drain()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    assert (tmp_path / "log.jsonl").stat().st_size <= 1000 + 300
    kept = [line for path in files for line in lines_of(path)]
    gaps = sum(line.get("gap", 0) for line in kept)
    assert len({line["request"] for line in kept if "request" in line}) + gaps == len(names)


def test_whoever_waits_on_the_event_loop_has_a_turn_after_every_few_rows(tmp_path: Path) -> None:
    async def main() -> None:
        audit = Audit(tmp_path / "log.jsonl")
        left: list[int] = []
        task = asyncio.create_task(audit.run())
        await asyncio.sleep(DRAIN_EVERY_S / 2)
        for i in range(50 * SLICE_ROWS):
            audit.take(record_of(SERVED, name=str(i)))
        while not left or left[-1]:
            await asyncio.sleep(0)
            if not left or left[-1] != len(audit._buffer):
                left.append(len(audit._buffer))
        assert max(a - b for a, b in pairwise(left)) == SLICE_ROWS
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)
    assert [line["request"] for line in lines_of(tmp_path / "log.jsonl")] == [
        str(i) for i in range(50 * SLICE_ROWS)
    ]


def test_a_disk_that_hangs_holds_up_the_log_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hangs = tmp_path / "log.jsonl", threading.Event()
    append = LineFile.append

    def late(self: LineFile, lines: list[bytes]) -> None:
        assert hangs.wait(10.0)
        append(self, lines)

    monkeypatch.setattr(LineFile, "append", late)

    async def main() -> None:
        audit = Audit(path, buffer=3)
        task = asyncio.create_task(audit.run())
        audit.take(record_of(SERVED, name="first"))
        await asyncio.sleep(2 * DRAIN_EVERY_S)
        for i in range(5):
            audit.take(record_of(SERVED, name=str(i)))
            await asyncio.sleep(0)
        assert (audit.lost, path.exists()) == (2, False)
        hangs.set()
        await asyncio.sleep(2 * DRAIN_EVERY_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)
    lines = lines_of(path)
    assert [line.get("request") or line["gap"] for line in lines] == ["first", 2, "0", "1", "2"]


def test_a_log_that_is_moved_away_goes_on_in_a_new_file(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "log.jsonl")
    for name in "ab":
        audit.take(record_of(SERVED, name=name))
        audit.drain()
        (tmp_path / "log.jsonl").rename(tmp_path / name)
    assert [lines_of(tmp_path / name)[0]["request"] for name in "ab"] == ["a", "b"]


def test_it_writes_soon_by_itself_and_what_is_left_at_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        audit = Audit(tmp_path / "log.jsonl")
        task = asyncio.create_task(audit.run())
        audit.take(record_of(SERVED, name="a"))
        await asyncio.sleep(2 * DRAIN_EVERY_S)
        assert len(lines_of(tmp_path / "log.jsonl")) == 1
        audit.take(record_of(SERVED, name="b"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)
    assert [line["request"] for line in lines_of(tmp_path / "log.jsonl")] == ["a", "b"]


def test_the_latest_records_can_be_found_and_only_so_many_are_kept(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "log.jsonl", keep=3, buffer=1)
    records = [record_of(SERVED, name=str(i)) for i in range(5)]
    for record in records:
        audit.take(record)
    assert [audit.find(str(i)) for i in range(5)] == [None, None, *records[2:]]
    assert audit.find("nothing") is None
    audit.drain()
    assert audit.find("4") is records[4], "what is written can still be found"


def test_taking_a_record_touches_no_disk(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "nowhere" / "log.jsonl", buffer=10)
    for _ in range(100):
        audit.take(record_of(SERVED))
    assert not (tmp_path / "nowhere").exists()
