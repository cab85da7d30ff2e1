"""The servers under load, child processes on the same core: gateways of several trees, and bare uvicorn."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.client import Origin
from bench.overload.generator import write_requests
from bench.peers.launch import SERVERS_BY_NAME, ServerPlacement
from bench.peers.load_cases import BARE
from bench.peers.process import free_port, running
from bench.peers.verify import wait_until_ready
from bench.requests import RequestMix, Target, WrongInput, find_target, render_requests
from gateway.deployment.deployment import VAR

KEY_S = 60.0
MOST_BYTES = 8 * 2**20
CALLERS = 8
"""Callers among which the load is divided: one may have 256 connections and as many requests under way."""
NAMES = (*(f"caller-{i}" for i in range(CALLERS)), "highest", "greedy", "polite")
REVIEW_CAPACITY = (r"capacity: [0-9]+", "capacity: 1000000")
"""What is changed in a copy: a full review queue would end requests otherwise."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.

    work: a folder for what is sent to it. keys: of each caller of NAMES. healthy: it has a health endpoint.
    """

    name: str
    work: Path
    target: Target
    keys: dict[str, str]
    healthy: bool

    @property
    def port(self) -> int:
        return self.target.origin.port

    def requests(self, folder: Path, caller: str, mix: RequestMix) -> list[bytes]:
        """Requests of one caller on the rows of a deployment, at most 8 MiB of them."""
        found = render_requests(replace(self.target, key=self.keys.get(caller)), folder, mix)
        return found[: max(2, MOST_BYTES // len(found[0]))]

    def requests_file(self, folder: Path, caller: str, mix: RequestMix) -> Path:
        """The same as a file for the generator, written once for each caller, number of rows and priority."""
        path = self.work / f"{caller}-{mix.rows}-{mix.priority}"
        return path if path.exists() else write_requests(path, self.requests(folder, caller, mix))

    def probe_file(self) -> Path:
        """A health request as an orchestrator sends it, over a connection of its own."""
        request = health_request(self.target.origin, "connection: close\r\n")
        return write_requests(self.work / "probe", [request])


@contextmanager
def serve_tree(name: str, tree: Path, deployment: Path, work: Path, core: frozenset[int]) -> Iterator[Server]:
    """Serves a copy of a deployment with the code of a tree. Raises WrongInput if it does not start.

    deployment: the folder, which both this tree and the other one can read.
    """
    work.mkdir()
    folder, python = work / deployment.name, tree / ".venv" / "bin" / "python"
    copy_deployment(deployment, folder)
    keys = {caller: _key(python, folder, caller) for caller in NAMES}
    origin = Origin("127.0.0.1", free_port(), tls=False)
    ports = ["--port", origin.port, "--grpc-port", free_port(), "--admin-port", free_port()]
    command = [str(python), "-m", "gateway", "serve", str(folder), "--local", *map(str, ports)]
    log = work / "serve.log"
    with running(command, {}, core, log) as child:
        wait_until_ready(name, child, origin, health_request(origin), log)
        target = find_target(f"http://{origin.authority}", folder, keys[NAMES[0]])
        yield Server(name, work, target, keys, True)


@contextmanager
def serve_bare(like: Server, deployment: Path, work: Path, core: frozenset[int]) -> Iterator[Server]:
    """Serves the deployment's first model by bare uvicorn, for the same requests as another server."""
    work.mkdir()
    bare = SERVERS_BY_NAME[BARE]
    origin = Origin("127.0.0.1", free_port(), tls=False)
    placement = ServerPlacement(bare.python(), deployment, work, origin.port, True)
    server = Server(BARE, work, replace(like.target, origin=origin), {}, False)
    log = work / "bare.log"
    with running(bare.command(placement), bare.variables(placement), core, log) as child:
        first = server.requests(deployment, "", RequestMix(1, 0.0))[0]
        wait_until_ready(BARE, child, origin, first, log)
        yield server


def health_request(origin: Origin, more: str = "") -> bytes:
    """A request for readiness, with more header lines."""
    return f"GET /v2/health/ready HTTP/1.1\r\nhost: {origin.authority}\r\n{more}\r\n".encode()


def copy_deployment(source: Path, to: Path) -> None:
    """A copy without `var`, and with room for every case in its review queue."""
    shutil.copytree(source, to, ignore=shutil.ignore_patterns(VAR))
    policy = to / "gateway.yaml"
    policy.write_text(re.sub(*REVIEW_CAPACITY, policy.read_text(encoding="utf-8")), encoding="utf-8")


def _key(python: Path, folder: Path, caller: str) -> str:
    command = [str(python), "-m", "gateway", "key", str(folder), caller, "--tier=trusted", "--per-s=1000000"]
    made = subprocess.run(  # noqa: S603 (our own command)
        command, cwd=folder, capture_output=True, text=True, timeout=KEY_S, check=False
    )
    if made.returncode:
        raise WrongInput(f"no key can be made with {python}: {made.stderr}")
    return made.stdout.strip()
