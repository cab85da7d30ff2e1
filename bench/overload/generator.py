"""The load generator as a child process: compiled from `generator.c`, given a plan, its result read.

It is in C because it has to send a hundred thousand requests a second from one core, many times what the
server answers; a generator that is late itself measures nothing.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.overload.load_result import LoadResult, read_result
from bench.peers.process import on_cores
from bench.requests import WrongInput

SOURCE = Path(__file__).with_name("generator.c")
CLOSED_LOOP = -1.0
"""As the rate of a class: every answer sends the next request."""
DRAIN_S, POLL_S, GRACE_S = 1.0, 0.1, 30.0
ReportProgress = Callable[[float], None]
"""Gets the seconds since the load began."""


@dataclass(frozen=True, slots=True)
class LoadClass:
    """Requests that are counted together, over connections of their own.

    requests: a file of `write_requests`, sent in turn. rates: requests a second in each phase, or
    CLOSED_LOOP. source: the address they come from. No text holds a space.
    """

    name: str
    requests: Path
    connections: int
    rates: tuple[float, ...]
    source: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class OverloadPlan:
    """One load on a port of loopback. phases: their lengths in seconds; deadline_s: of each request."""

    port: int
    deadline_s: float
    phases: tuple[float, ...]
    classes: tuple[LoadClass, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if any(len(one.rates) != len(self.phases) for one in self.classes):
            raise ValueError("every class needs a rate for each phase")


def write_requests(into: Path, requests: Sequence[bytes]) -> Path:
    """Writes whole HTTP requests into a file as the generator reads it; returns its path."""
    into.write_bytes(b"".join(struct.pack("=I", len(one)) + one for one in requests))
    return into


def compile_generator(work: Path) -> Path:
    """The program, compiled into a folder by the system's C compiler. Raises WrongInput if there is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise WrongInput(
            "no C compiler `cc` is installed, which the load generator needs: install gcc or clang"
        )
    program = work / "generator"
    command = [compiler, "-O2", "-o", str(program), str(SOURCE), "-lm"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 (our own command)
    if done.returncode:
        raise WrongInput(f"{SOURCE}: cannot be compiled here: {done.stderr}")
    return program


def run_load(
    program: Path, plan: OverloadPlan, work: Path, cores: frozenset[int], report: ReportProgress
) -> LoadResult:
    """Runs one load from these cores, with its files in `work`. Raises WrongInput if it cannot run."""
    file, found = work / "plan", work / "result.json"
    file.write_text(_text(plan), encoding="ascii")
    limit_s = sum(plan.phases) + DRAIN_S + GRACE_S
    with found.open("wb") as out, on_cores(cores):
        child = subprocess.Popen(  # noqa: S603 (our own program)
            [str(program), str(file)], stdout=out, stderr=subprocess.PIPE, text=True
        )
    begun_s = time.monotonic()
    try:
        while child.poll() is None and time.monotonic() < begun_s + limit_s:
            report(time.monotonic() - begun_s)
            time.sleep(POLL_S)
    finally:
        child.kill()
        _, error = child.communicate()
    if child.returncode:
        raise WrongInput(error.strip() or f"the load generator ended with {child.returncode}")
    return read_result(found.read_bytes(), plan.phases)


def _text(plan: OverloadPlan) -> str:
    """The plan as the generator reads it."""
    lines = [f"port {plan.port}", f"deadline {plan.deadline_s}", f"drain {DRAIN_S}", f"seed {plan.seed}"]
    lines.append(f"phases {len(plan.phases)} {' '.join(map(str, plan.phases))}")
    for one in plan.classes:
        rates = " ".join(map(str, one.rates))
        lines.append(f"class {one.name} {one.source} {one.connections} {one.requests} {rates}")
    return "\n".join(lines) + "\n"
