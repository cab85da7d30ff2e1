"""Faults of the audit log, telemetry and the process, put in place from within it.

Each function puts one fault in place and returns how to take it out.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from bench.faults.parts import BLOCKS, BrokenOnPurpose, Switch
from bench.faults.patched import Undo, patched
from bench.faults.review_faults import break_review
from gateway.serving.gateway import Gateway

SLOW_FLUSH_S: Final = 0.2
HUNG_FLUSH_S: Final = 30.0

DISK_ERRORS: Final = {"disk full": errno.ENOSPC, "read-only": errno.EROFS, "raise": errno.EIO}


class SteppedClock:
    """The system's clock, which can be stepped. To be put in place before anything reads it."""

    def __init__(self) -> None:
        self.step_s = 0.0
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.step_s


CLOCK: Final = SteppedClock()


async def break_audit(gateway: Gateway, fault: str) -> Undo:
    """Breaks the file of the audit log, its sink or its queue."""
    sink, delivery = gateway._log, gateway.audit._deliveries[0]
    if fault == "queue full":
        return patched(delivery, "_capacity", 0)
    if fault == "block the loop":
        return patched(sink, "accept", _blocking(sink.accept))
    append, released = sink.file.append, threading.Event()

    def broken(lines: list[bytes]) -> None:
        if fault in DISK_ERRORS:
            raise OSError(DISK_ERRORS[fault], os.strerror(DISK_ERRORS[fault]))
        released.wait(SLOW_FLUSH_S if fault == "slow" else HUNG_FLUSH_S)
        append(lines)

    return patched(sink.file, "append", broken, released)


async def break_telemetry(gateway: Gateway, fault: str) -> Undo:
    """Breaks what counts finished requests."""
    telemetry = gateway.telemetry
    broken = _blocking(telemetry.accept) if fault == "block the loop" else _raising
    return patched(telemetry, "accept", broken)


async def break_process(gateway: Gateway, fault: str) -> Undo:
    """Steps the system's clock, or takes the file descriptors away."""
    if fault.startswith("clock"):
        step_s = 30 * 86_400.0
        return patched(CLOCK, "step_s", step_s if fault == "clock stepped forward" else -step_s)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = 1 + max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 (names alone)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened, hard))

    async def undo() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return undo


FAULTS: Final[Mapping[str, Callable[[Gateway, str], Awaitable[Undo]]]] = {
    "review": break_review,
    "audit": break_audit,
    "telemetry": break_telemetry,
    "process": break_process,
}


def _blocking(accept: Callable[[Any], None]) -> Callable[[Any], None]:
    switch = Switch("", BLOCKS)

    def blocking(records: Any, /) -> None:
        switch.block()
        accept(records)

    return blocking


def _raising(records: Any, /) -> None:
    raise BrokenOnPurpose
