"""What a killed process may have left out of its audit log is written down at the next start."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from gateway.telemetry import running_mark
from gateway.telemetry.running_mark import MOST_UNWRITTEN, RunningMark, change_in_thread, note_killed

WRITER = """
import sys, time
from pathlib import Path
from gateway.telemetry.running_mark import RunningMark
mark = RunningMark(Path(sys.argv[1]), clock=lambda: 1000.0)
mark.make()
print("made", flush=True)
time.sleep(600)
"""


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a log open; killed at the end of the block, if not before."""
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "made\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def killed(path: Path, content: bytes) -> None:
    """Leaves what a killed process leaves of a log."""
    with writer(path):
        path.write_bytes(content)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def gap(from_t: float | None) -> dict[str, object]:
    return {"gap": None, "at_most": MOST_UNWRITTEN, "from_t": from_t, "t": 2000.0}


@pytest.mark.parametrize(
    ("content", "kept", "from_t"),
    [
        (b"", [], 1000.0),
        (b'{"id":"a","t":1500.5}\n', [{"id": "a", "t": 1500.5}], 1500.5),
        (b'{"id":"a","t":1500.5}\n{"id":"b","t":16', [{"id": "a", "t": 1500.5}], 1500.5),
        (b'{"id":"b","t":16', [], 1000.0),
        (b'{"t":1500}\n{"other":true}\n', [{"t": 1500}, {"other": True}], 1500),
    ],
)
def test_a_killed_process_is_noted_once_in_its_own_log(
    tmp_path: Path, content: bytes, kept: list[dict[str, object]], from_t: float
) -> None:
    path = tmp_path / "decisions-7-aaaa.jsonl"
    killed(path, content)
    note_killed(tmp_path, clock=lambda: 2000.0)
    note_killed(tmp_path, clock=lambda: 3000.0)
    assert lines_of(path) == [*kept, gap(from_t)]
    assert files_in(tmp_path) == {path.name}


def test_a_process_that_was_killed_before_it_wrote_anything_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "decisions-7-aaaa.jsonl"
    with writer(path):
        pass
    note_killed(tmp_path, clock=lambda: 2000.0)
    assert lines_of(path) == [gap(1000.0)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_process_that_runs_or_has_ended_cleanly_has_no_gap(tmp_path: Path) -> None:
    running, ended = tmp_path / "decisions-7-aaaa.jsonl", tmp_path / "decisions-8-bbbb.jsonl"
    mark = RunningMark(ended)
    mark.make()
    ended.write_bytes(b'{"t":1}\n')
    mark.remove()
    mark.make()
    mark.remove()
    with writer(running):
        note_killed(tmp_path)
        assert files_in(tmp_path) == {ended.name, running.name + ".running"}
    assert ended.read_bytes() == b'{"t":1}\n'


def test_a_log_with_a_gap_is_as_old_as_its_last_record(tmp_path: Path) -> None:
    path = tmp_path / "decisions-7-aaaa.jsonl"
    killed(path, b'{"t":1}\n')
    os.utime(path, (500, 500))
    note_killed(tmp_path)
    assert path.stat().st_mtime == 500


def test_a_mark_that_is_no_file_of_ours_or_unreadable_stops_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "decisions-1.jsonl.running").mkdir()
    (tmp_path / "decisions-2.jsonl.running").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "decisions-3.jsonl.running").write_bytes(b"\xff\x00 no JSON")
    (tmp_path / "decisions-4.jsonl.running").write_bytes(b"")
    (tmp_path / "decisions-4.jsonl").mkdir()
    with caplog.at_level(logging.WARNING, running_mark.__name__):
        note_killed(tmp_path, clock=lambda: 2000.0)
    assert lines_of(tmp_path / "decisions-3.jsonl") == [gap(None)]
    assert caplog.text.count("cannot be noted") == 3
    assert not (tmp_path / "elsewhere").exists()


def test_a_mark_that_cannot_be_made_is_logged_and_stops_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = RunningMark(tmp_path / "missing" / "decisions-1.jsonl")
    with caplog.at_level(logging.WARNING, running_mark.__name__):
        mark.make()
    mark.remove()
    assert "cannot be made" in caplog.text


def test_a_disk_that_hangs_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(running_mark, "FLUSH_TIMEOUT_S", 0.1)

    def hang() -> None:
        over.wait(60)

    try:
        asyncio.run(change_in_thread(hang))
    finally:
        over.set()
