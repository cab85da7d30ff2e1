"""Limits of the process that opens files of unknown origin: memory, computing, time, files.

Memory is counted in address space above what the process has when it begins, so that the libraries that it
has loaded do not count: a limit of resident memory does not exist on Linux, and one thread, which is all a
trial uses, reserves no space that it does not write to.
"""

from __future__ import annotations

import math
import resource
import signal
from pathlib import Path
from typing import Final

OPEN_FILES: Final = 64


def confine_process() -> None:
    """Takes from this process for good: core dumps, writing to files, many open files."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    for number in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)  # ends the process, also inside a library


def allow(memory_bytes: int, cpu_s: float, wall_s: float) -> None:
    """Sets what the process may take from now on; beyond the times it is ended."""
    _set_soft(resource.RLIMIT_AS, _address_space_bytes() + memory_bytes)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_soft(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + cpu_s))
    signal.setitimer(signal.ITIMER_REAL, wall_s)


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _set_soft(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
