"""Starts a gateway that records which calls of files, databases and other servers its event loop makes.

    python loop_calls.py REPORT python -m gateway serve ...

While the gateway serves, every such call in the event loop's thread is a line of REPORT: what is called, and
the functions of ours that call it, the innermost first.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.replica import Replica

ROOT = str(Path(__file__).resolve().parents[2])
EVENTS = (
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "os.utime",
    "shutil.",
    "sqlite3.connect",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "subprocess.Popen",
    "time.sleep",
)
"""Audit events of Python, by name or the beginning of it."""
FUNCTIONS = ("stat", "lstat", "fsync", "fdatasync", "sendfile")
"""Functions of `os` without an event."""
OWN = tuple(f"{ROOT}/{package}/" for package in ("gateway", "fallbacks", "guards"))


class LoopCalls:
    """Writes each call of the thread that serves to a file, once for each place that makes it."""

    def __init__(self, report: Path) -> None:
        self._report = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._thread = 0
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Records the calls of this thread from now on; the first is one of its own, as a control."""
        self._thread = threading.get_ident()
        os.stat(ROOT)  # noqa: PTH116 - this is the function that is recorded

    def end(self) -> None:
        self._thread = 0

    def add(self, what: str) -> None:
        if threading.get_ident() != self._thread:
            return
        places = []
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(OWN):
                places.append(f"{frame.f_code.co_filename.removeprefix(ROOT)[1:]}:{frame.f_code.co_name}")
            frame = frame.f_back  # type: ignore[assignment]
        line = " ".join([what, *places[:6]])
        if line not in self._seen:
            self._seen.add(line)
            os.write(self._report, f"{line}\n".encode())


def record(calls: LoopCalls) -> None:
    """Has every call recorded from the moment at which a replica serves until it stops."""

    def on_event(event: str, _: tuple[Any, ...]) -> None:
        if event.startswith(EVENTS):
            calls.add(event)

    def recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.add(f"os.{name}")
            return function(*arguments, **options)

        return call

    sys.addaudithook(on_event)
    for name in FUNCTIONS:
        setattr(os, name, recorded(name, getattr(os, name)))
    start, stop = Replica.start, Replica.stop

    async def start_recorded(self: Replica) -> None:
        await start(self)
        calls.begin()

    async def stop_unrecorded(self: Replica, drain_s: float = 0.0) -> None:
        calls.end()
        await stop(self, drain_s)

    Replica.start, Replica.stop = start_recorded, stop_unrecorded  # type: ignore[method-assign]


if __name__ == "__main__":
    record(LoopCalls(Path(sys.argv[1])))
    sys.argv = sys.argv[4:]
    runpy.run_module("gateway", run_name="__main__")
