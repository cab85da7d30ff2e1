"""What `bench.drain` ends: a gateway over a quick and a slow deployment, and the collector of its traces."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.faults.processes import UpstreamProcess
from bench.growth.server_process import free_ports, unlimited_key, wait_until_served
from bench.peers.process import running
from bench.requests import Target, WrongInput
from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import VAR, Deployment
from gateway.policy.read import POLICY_FILE
from gateway.replica import LAST_REPLY_S

SLOW: Final = "slow"
CHANGES: Final = {
    "model: {kind: onnx, path: primary.onnx}": "model: {kind: oip, url: 'URL', model: it}",
    "budget_s: 0.1\n": "budget_s: 9.5\n",
    "deadline_s: 0.5": "deadline_s: 10",
}
"""Of the policy of the slow deployment, beside its name."""
COLLECTOR_S: Final = 2.0
"""What a collector that does not answer may take, as docs/operating.md says."""
ALLOWED_S: Final = 1.0
"""For the interpreter's end, and for a machine with other work."""
QUICK_EXPORT: Final = {"OTEL_METRIC_EXPORT_INTERVAL": "300", "OTEL_BSP_SCHEDULE_DELAY": "200"}


@dataclass(frozen=True, slots=True)
class Deployments:
    """The two folders with a key of each, and the server behind the slow one."""

    folders: tuple[Path, Path]
    keys: tuple[str, str]
    upstream: UpstreamProcess

    @property
    def bound_s(self) -> float:
        """How long the end may take after SIGTERM."""
        policies = [Deployment.read(one).policy for one in self.folders]
        drain_s = max(one.serving.drain_s for one in policies)
        return max(one.deadline_s for one in policies) + drain_s + LAST_REPLY_S + COLLECTOR_S + ALLOWED_S


@dataclass(frozen=True, slots=True)
class Served:
    """The process, and how its quick and its slow model are reached."""

    process: subprocess.Popen[bytes]
    quick: Target
    slow: Target

    @property
    def port(self) -> int:
        return self.quick.origin.port


@asynccontextmanager
async def prepared(folder: Path, work: Path) -> AsyncIterator[Deployments]:
    """Copies, of which the slow one is calibrated with its upstream, which is still quick then."""
    quick, slow = work / folder.name, work / SLOW
    for copy in (quick, slow):
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(VAR))
    model = work / "upstream.onnx"
    (slow / "primary.onnx").rename(model)
    upstream = UpstreamProcess(model, "it", work / "upstream.log")
    try:
        _make_slow(slow, f"http://127.0.0.1:{await upstream.start()}")
        await asyncio.to_thread(_calibrate, slow, work)
        yield Deployments((quick, slow), (unlimited_key(quick), unlimited_key(slow)), upstream)
    finally:
        await upstream.process.stop()


def _make_slow(folder: Path, url: str) -> None:
    path, name = folder / POLICY_FILE, Deployment.read(folder).policy.name
    text = path.read_text("utf-8")
    for old, new in {**CHANGES, f"name: {name}\n": f"name: {SLOW}\n"}.items():
        if text.count(old) != 1:
            raise WrongInput(f"{path}: {old!r} is not there once")
        text = text.replace(old, new.replace("URL", url))
    path.write_text(text, "utf-8")


def _calibrate(folder: Path, work: Path) -> None:
    command = [sys.executable, str(folder / "train.py"), "--data-only", "--out", str(work)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (our own command)
    calibrate(Deployment.read(folder), work / VAR / "calibration.npz")


@asynccontextmanager
async def served(of: Deployments, work: Path, collector: str) -> AsyncIterator[Served]:
    """A gateway that answers for both deployments, and is ended in the end."""
    port, grpc_port, admin_port = free_ports()
    ports = ["--port", str(port), "--grpc-port", str(grpc_port), "--admin-port", str(admin_port)]
    command = [sys.executable, "-m", "gateway", "serve", *map(str, of.folders), "--local", *ports]
    environment, log = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, **QUICK_EXPORT}, work / "serve.log"
    with running(command, environment, frozenset(os.sched_getaffinity(0)), log) as process:
        url = f"http://127.0.0.1:{port}"
        found = [
            await asyncio.to_thread(wait_until_served, process, url, folder, key, log)
            for folder, key in zip(of.folders, of.keys, strict=True)
        ]
        yield Served(process, *found)


@asynccontextmanager
async def silent_collector() -> AsyncIterator[str]:
    """Where one accepts all that it is sent, and never answers."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    listening = await asyncio.start_server(read, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


@asynccontextmanager
async def no_collector() -> AsyncIterator[str]:
    """Where nothing listens."""
    yield f"http://127.0.0.1:{free_ports()[0]}"
