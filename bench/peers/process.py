"""A server as a child process: started on the cores it may have, and ended with everything it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.peers.proc import Process, tree

GRACE_S, POLL_S = 20.0, 0.05


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], cores: frozenset[int], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The server while the block runs, with its working directory beside its log."""
    with log.open("wb") as out, on_cores(cores):
        child = subprocess.Popen(  # noqa: S603 (our own commands)
            command,
            env={**os.environ, **environment},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Terminates the server, then its remaining children, then kills what is left."""
    processes = tree(child.pid)
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in _still_running(processes):
            with suppress(ProcessLookupError):
                os.kill(one.pid, number)
        until_s = time.monotonic() + GRACE_S / 4
        while _still_running(processes) and time.monotonic() < until_s:
            child.poll()
            time.sleep(POLL_S)


def _still_running(processes: Sequence[Process]) -> list[Process]:
    """Those that still run: the same process, not another that got its number since."""
    now = (Process.read(one.pid) for one in processes)
    return [one for one, then in zip(now, processes, strict=True) if one and one.started == then.started]


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Children of this block get these cores: a child inherits them from the thread that starts it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
