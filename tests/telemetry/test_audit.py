"""The audit log on disk: one line a row, bounded, off the event loop, and every gap stated."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.core.decision import Decision, Finding, Reason, Refused, Served, Verdict
from gateway.core.record import AuditRecord, RequestRecord
from gateway.telemetry import line_file
from gateway.telemetry.audit import Audit
from gateway.telemetry.delivery import DELIVER_EVERY_S
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.line_file import LineFile
from tests.support.deployments import record_of, run

OUTPUT = {"probabilities": np.array([[0.25, 0.75]], np.float32)}
SERVED = Decision("d", Served(OUTPUT, "primary"))


class MemorySink:
    """Keeps the identifiers of requests."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def accept(self, records: Sequence[AuditRecord], /) -> None:
        self.ids += [record.id for record in records if isinstance(record, RequestRecord)]

    def flush(self, missed: int, /) -> None:
        pass


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a log; each must be JSON."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_one_line_a_row_in_order(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
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
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
    finding = Finding("ood", None, Verdict.DEFER, True, 0.0, error=text)
    audit.take(record_of(Decision("d", Refused(Reason.ABSTAINED), (finding,)), who=f"anonymous@{text}"))
    audit.drain()
    (line,) = (tmp_path / "log.jsonl").read_bytes().split(b"\n")[:-1]
    held = orjson.loads(line)
    assert (held["principal"], held["findings"][0]["error"]) == (f"anonymous@{text}", text)


def test_an_error_text_that_is_no_unicode_loses_neither_its_line_nor_the_next(tmp_path: Path) -> None:
    """Error texts of libraries may hold anything, such as file names that are no UTF-8."""
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
    finding = Finding("primary", None, Verdict.DEGRADE, True, 0.0, error="no such file: \udcff.onnx")
    audit.take(record_of(Decision("d", Refused(Reason.UNAVAILABLE), (finding,))))
    audit.take(record_of(SERVED, name="e"))
    audit.drain()
    assert [line["request"] for line in lines_of(tmp_path / "log.jsonl")] == ["d", "e"]


def test_nothing_is_written_until_there_is_something(tmp_path: Path) -> None:
    Audit([JsonLinesSink(tmp_path / "log.jsonl")]).drain()
    assert not (tmp_path / "log.jsonl").exists()


def test_the_buffer_is_bounded_and_the_next_line_states_the_gap(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")], buffer=3)
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
    others = MemorySink()
    audit = Audit([JsonLinesSink(path), others])
    for name in "ab":
        audit.take(record_of(SERVED, name=name))
    audit.drain()
    audit.take(record_of(SERVED, name="c"))
    audit.drain()
    assert audit.lost == 3
    assert others.ids == ["a", "b", "c"], "another sink does not need the disk"
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
    audit = Audit([JsonLinesSink(path)])
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


def test_the_log_rotates_and_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "ROTATE_BYTES", 1000)
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
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


def test_a_disk_that_hangs_delays_the_log_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, hangs = tmp_path / "log.jsonl", threading.Event()
    append = LineFile.append

    def slow_append(self: LineFile, lines: list[bytes]) -> None:
        assert hangs.wait(10.0)
        append(self, lines)

    monkeypatch.setattr(LineFile, "append", slow_append)

    async def main() -> None:
        audit = Audit([JsonLinesSink(path)], buffer=3)
        task = asyncio.create_task(audit.run())
        audit.take(record_of(SERVED, name="first"))
        await asyncio.sleep(2 * DELIVER_EVERY_S)
        for i in range(5):
            audit.take(record_of(SERVED, name=str(i)))
            await asyncio.sleep(0)
        assert (audit.lost, path.exists()) == (2, False)
        hangs.set()
        await asyncio.sleep(2 * DELIVER_EVERY_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)
    lines = lines_of(path)
    assert [line.get("request") or line["gap"] for line in lines] == ["first", 2, "0", "1", "2"]


def test_a_log_that_is_moved_away_goes_on_in_a_new_file(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
    for name in "ab":
        audit.take(record_of(SERVED, name=name))
        audit.drain()
        (tmp_path / "log.jsonl").rename(tmp_path / name)
    assert [lines_of(tmp_path / name)[0]["request"] for name in "ab"] == ["a", "b"]


def test_records_are_written_soon_and_the_rest_at_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
        task = asyncio.create_task(audit.run())
        audit.take(record_of(SERVED, name="a"))
        await asyncio.sleep(2 * DELIVER_EVERY_S)
        assert len(lines_of(tmp_path / "log.jsonl")) == 1
        audit.take(record_of(SERVED, name="b"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)
    assert [line["request"] for line in lines_of(tmp_path / "log.jsonl")] == ["a", "b"]


def test_the_latest_records_can_be_found_and_only_so_many_are_kept(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")], keep=3, buffer=1)
    records = [record_of(SERVED, name=str(i)) for i in range(5)]
    for record in records:
        audit.take(record)
    assert [audit.find(str(i)) for i in range(5)] == [None, None, *records[2:]]
    assert audit.find("nothing") is None
    audit.drain()
    assert audit.find("4") is records[4], "what is written can still be found"


def test_taking_a_record_touches_no_disk(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "nowhere" / "log.jsonl")], buffer=10)
    for _ in range(100):
        audit.take(record_of(SERVED))
    assert not (tmp_path / "nowhere").exists()
