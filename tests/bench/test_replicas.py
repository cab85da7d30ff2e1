"""Two replicas beside one: what can be tested without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.replicas import app, busy_shares, pin, replica_pids
from bench.requests import WrongInput

IDLE = (
    "import threading, time; threading.Thread(target=time.sleep, args=(30,)).start(); print('up', flush=True)"
)


@pytest.fixture
def idle() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["ray::ServeReplica:x", "-c", IDLE], executable=sys.executable, stdout=-1)
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        yield child
        child.kill()


def test_replicas_are_found_by_the_title_that_ray_gives_them(idle: subprocess.Popen[bytes]) -> None:
    assert idle.pid in replica_pids(os.getpid(), 1)
    with pytest.raises(WrongInput, match="1 replicas run, not 2"):
        replica_pids(os.getpid(), 2)


def test_all_threads_of_a_process_are_pinned(idle: subprocess.Popen[bytes]) -> None:
    core = max(os.sched_getaffinity(0))
    pin([idle.pid], [core])
    threads = [int(path.name) for path in Path(f"/proc/{idle.pid}/task").iterdir()]
    assert len(threads) == 2 and all(os.sched_getaffinity(thread) == {core} for thread in threads)
    assert threading.get_native_id() not in threads


def test_busy_is_the_share_of_a_core_that_each_process_uses(idle: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        try:
            still, spins = busy_shares([idle.pid, spinning.pid], 0.5)
        finally:
            spinning.kill()
    assert still < 0.05 < spins < 1.1
    with pytest.raises(WrongInput, match="ended under load"):
        busy_shares([idle.pid, spinning.pid], 0.0)


def test_a_core_for_each_replica_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2 and "2 replicas need 2 cores" in result.stderr


def test_an_unknown_case_is_wrong_input() -> None:
    result = CliRunner().invoke(app, ["--case", "json9"])
    assert result.exit_code == 2 and "'json9'" in result.stderr
