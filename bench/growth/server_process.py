"""A gateway in a process of its own, over a copy of a deployment: started, observed, stopped."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.requests import Target, WrongInput, find_target
from gateway.access.callers import add_key
from gateway.deployment.deployment import VAR

START_S, STOP_S, POLL_S = 60.0, 15.0, 0.1
UNLIMITED_PER_S = 1e6
UNDELAYED = frozenset({"infer", "explain"})
"""Scopes of a key whose answers no release grid delays: a grid costs time, not work."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A process that serves `folder`, and how its one model is reached.

    ports: of HTTP, gRPC and administration.
    """

    folder: Path
    target: Target
    pid: int
    ports: tuple[int, int, int]

    def resident_bytes(self) -> int:
        """Its resident memory now (VmRSS of Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return 1024 * int(line.split()[1])


@contextmanager
def serve_copy(folder: Path, scratch: Path, scopes: frozenset[str] = UNDELAYED) -> Iterator[ServerProcess]:
    """Serves a copy, with a caller that has no limit and these scopes, and always ends the process.

    Raises: WrongInput, with the log of the server, if it does not answer within a minute.
    """
    copy = scratch / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(VAR))
    with serve_folders([copy], unlimited_key(copy, scopes), scratch / "serve.log") as server:
        yield server


def unlimited_key(folder: Path, scopes: frozenset[str] = UNDELAYED) -> str:
    """A key of a deployment for a caller that has no limit."""
    return add_key(folder / VAR, "bench", tier="trusted", per_s=UNLIMITED_PER_S, scopes=scopes)


@contextmanager
def serve_folders(folders: Sequence[Path], key: str, log: Path) -> Iterator[ServerProcess]:
    """Serves deployments in one process, and always ends it. The target is the first one's model.

    Raises: WrongInput, with the log of the server, if it does not answer within a minute.
    """
    port, grpc_port, admin_port = used = free_ports()
    ports = ["--port", str(port), "--grpc-port", str(grpc_port), "--admin-port", str(admin_port)]
    with log.open("wb") as file:
        command = [sys.executable, "-m", "gateway", "serve", *map(str, folders), "--local", *ports]
        process = subprocess.Popen(command, stdout=file, stderr=file)  # noqa: S603 (our own command)
    try:
        target = wait_until_served(process, f"http://127.0.0.1:{port}", folders[0], key, log)
        yield ServerProcess(folders[0], target, process.pid, used)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_served(process: subprocess.Popen[bytes], url: str, copy: Path, key: str, log: Path) -> Target:
    """The model, once it is served. Raises WrongInput with the end of the log. Blocks."""
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        try:
            return find_target(url, copy, key)
        except WrongInput:
            time.sleep(POLL_S)
    raise WrongInput(f"the server did not answer: {log.read_text(errors='replace')[-2000:]}")


def free_ports() -> tuple[int, int, int]:
    """Three ports of loopback that were free a moment ago."""
    probes = [socket.socket() for _ in range(3)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    first, second, third = (int(probe.getsockname()[1]) for probe in probes)
    for probe in probes:
        probe.close()
    return first, second, third
