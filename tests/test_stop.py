"""The end of a running gateway: it drains, answers those that wait, loses no request, and says 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.deployments import be_patient
from tests.support.served import (
    STOP_WITHIN_S,
    clean_rows,
    copy_of,
    free_port,
    json_of,
    outlier_rows,
    wait_until,
)

pytestmark = pytest.mark.alone
LOAD_THREADS = 4


@dataclass
class Ends:
    """How requests ended, with the time, from several threads."""

    seen: list[tuple[float, str]] = field(default_factory=list)

    def add(self, end: str) -> None:
        self.seen.append((time.monotonic(), end))

    @property
    def all(self) -> list[str]:
        return [end for _, end in self.seen]


@dataclass
class Local:
    """`gateway serve --local` in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str

    def ask(self, client: httpx.Client, rows: Any, **headers: str) -> str:
        """The status and outcome of one request, or the name of the error of its connection."""
        try:
            reply = client.post(f"{self.url}/v2/models/letters/infer", json=json_of(rows), headers=headers)
        except httpx.TransportError as error:
            return type(error).__name__
        return f"{reply.status_code} {reply.headers['x-failsafe-outcome']}"

    def ready(self) -> str:
        try:
            return str(httpx.get(f"{self.url}/v2/health/ready", timeout=10).status_code)
        except httpx.TransportError as error:
            return type(error).__name__


@contextmanager
def served(tmp_path: Path, drain_s: float) -> Iterator[Local]:
    folder = copy_of("letters", tmp_path)
    be_patient(folder)
    policy = (folder / "gateway.yaml").read_text()
    changed = policy.replace("serving: {", f"serving: {{drain_s: {drain_s}, ").replace(
        "per_s: 200", "per_s: 1000000"
    )
    assert changed.count(f"drain_s: {drain_s}") == 1
    (folder / "gateway.yaml").write_text(changed.replace("burst: 400", "burst: 1000000"))
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", str(folder), "--local", "--port", str(port)]
    command += ["--grpc-port", str(free_port()), "--admin-port", str(free_port())]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    running = Local(process, f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: running.ready() == "200" or process.poll() is not None, "it is ready")
        assert process.poll() is None, (tmp_path / "serve.log").read_text()
        yield running
    finally:
        process.kill()
        process.wait()


@contextmanager
def in_threads(*work: Callable[[], None]) -> Iterator[None]:
    """Runs these beside the block, and waits for their end after it."""
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def test_it_is_not_ready_first_then_answers_those_that_wait_and_loses_no_request(tmp_path: Path) -> None:
    load, readiness, waiters, over = Ends(), Ends(), Ends(), threading.Event()
    rows, odd = clean_rows(64), outlier_rows(4)

    with served(tmp_path, drain_s=1.5) as running:

        def ask_again_and_again() -> None:
            with httpx.Client(timeout=10) as client:
                for i in range(100_000):
                    load.add(running.ask(client, rows[i % 64 : i % 64 + 1]))
                    if over.is_set() or load.all[-1] == "ConnectError":
                        return

        def ask_whether_it_is_ready() -> None:
            while not over.is_set():
                readiness.add(running.ready())
                time.sleep(0.02)

        def wait_for_a_person() -> None:
            with httpx.Client(timeout=60) as client:
                waiters.add(running.ask(client, odd[:1], prefer="wait=30"))

        work = [ask_again_and_again] * LOAD_THREADS + [wait_for_a_person] * 3
        with in_threads(ask_whether_it_is_ready, *work):
            time.sleep(0.5)
            running.process.send_signal(signal.SIGTERM)
            try:
                running.process.wait(STOP_WITHIN_S)
            finally:
                over.set()
        assert running.process.returncode == 0
    assert waiters.all == ["422 deferred"] * 3
    lost = {end for end in load.all if not end[0].isdigit()} - {"ConnectError"}  # once it does not accept
    assert lost == set(), "what was sent gets an answer"
    assert load.all.count("ConnectError") <= LOAD_THREADS
    first = [end for i, end in enumerate(readiness.all) if not i or end != readiness.all[i - 1]]
    assert first[:2] == ["200", "503"], "before it stops accepting"
    refused_s = [at_s for at_s, end in readiness.seen if end == "503"]
    assert any(at_s > refused_s[0] and end.startswith("200") for at_s, end in load.seen), "it still answers"


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, numbers: tuple[signal.Signals, ...]) -> None:
    with served(tmp_path, drain_s=600) as running:
        running.process.send_signal(numbers[0])
        wait_until(lambda: running.ready() == "503", "it drains")
        running.process.send_signal(numbers[1])
        assert running.process.wait(STOP_WITHIN_S) == -numbers[1]


def test_ctrl_c_does_not_drain(tmp_path: Path) -> None:
    with served(tmp_path, drain_s=600) as running:
        os.kill(running.process.pid, signal.SIGINT)
        assert running.process.wait(STOP_WITHIN_S) == 0
