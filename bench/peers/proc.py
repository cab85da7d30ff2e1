"""What a server and all its descendants cost, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat. cpu_s: its own and that of children it has reaped. started: in ticks."""

    pid: int
    parent: int
    started: int
    cpu_s: float
    rss_bytes: int

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """None where there is no such process, or only a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold spaces and parentheses
        if fields[0] == "Z":
            return None
        cpu = sum(map(int, fields[11:15])) / TICKS_A_SECOND
        return cls(pid, int(fields[1]), int(fields[19]), cpu, int(fields[21]) * PAGE_BYTES)


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a whole tree. rss_bytes counts memory that processes share once for each of them."""

    cpu_s: float
    rss_bytes: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        processes = tree(pid)
        return cls(sum(one.cpu_s for one in processes), sum(one.rss_bytes for one in processes))


def tree(pid: int) -> list[Process]:
    """A process and its descendants, as far as they live; parents before children."""
    children: dict[int, list[Process]] = {}
    by_pid = {one.pid: one for one in _all()}
    for one in by_pid.values():
        children.setdefault(one.parent, []).append(one)
    found = [by_pid[pid]] if pid in by_pid else []
    for one in found:
        found.extend(children.get(one.pid, ()))
    return found


def _all() -> Iterator[Process]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (one := Process.read(int(path.name))) is not None:
            yield one
