"""Opens a world: the gateway of a copy of a deployment, and what it needs around it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.faults.cell import World as WorldName
from bench.faults.processes import UpstreamProcess
from bench.faults.proxy import FaultProxy
from bench.faults.world import DEPLOYMENTS, World
from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import VAR, Deployment

CONFIGS: Final = Path(__file__).parents[2] / "configs"
LOCAL: Final = "model: {kind: onnx, path: primary.onnx}"
QUICK_EXPORT: Final = {"OTEL_METRIC_EXPORT_INTERVAL": "300", "OTEL_BSP_SCHEDULE_DELAY": "200"}


@asynccontextmanager
async def opened(name: WorldName, scratch: Path, requests: int) -> AsyncIterator[World]:
    """A world that serves cells of so many requests, and is ended in the end."""
    folder = scratch / name
    shutil.copytree(CONFIGS / DEPLOYMENTS[name][0], folder, ignore=shutil.ignore_patterns(VAR))
    match name:
        case "parts":
            world = World(name, folder, {})
            async with _serving(world, requests):
                yield world
        case "exporter":
            async with _collector() as proxy:
                endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{proxy.port}", **QUICK_EXPORT}
                world = World(name, folder, endpoint)
                world.exporter = proxy
                async with _serving(world, requests):
                    yield world
        case "upstream":
            async with _behind_upstream(folder, scratch) as world, _serving(world, requests):
                yield world


@asynccontextmanager
async def _serving(world: World, requests: int) -> AsyncIterator[None]:
    try:
        await world.start(requests)
        yield
    finally:
        await world.served.process.stop()


@asynccontextmanager
async def _collector() -> AsyncIterator[FaultProxy]:
    """A collector that takes everything, behind a proxy."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(take, "127.0.0.1", 0)
    proxy = FaultProxy("127.0.0.1", listening.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
        listening.close()


@asynccontextmanager
async def _behind_upstream(folder: Path, scratch: Path) -> AsyncIterator[World]:
    """A gateway, not yet started, whose primary is in another server behind a proxy: calibrated so."""
    model = scratch / "upstream.onnx"
    (folder / "primary.onnx").rename(model)
    upstream = UpstreamProcess(model, "letters", scratch / "upstream.log")
    proxy = FaultProxy("127.0.0.1", await upstream.start())
    await proxy.start()
    try:
        path = folder / "gateway.yaml"
        remote = f'model: {{kind: oip, url: "http://127.0.0.1:{proxy.port}", model: letters}}'
        text = path.read_text(encoding="utf-8")
        assert LOCAL in text
        path.write_text(text.replace(LOCAL, remote), encoding="utf-8")
        await asyncio.to_thread(_calibrate, folder, scratch)
        world = World("upstream", folder, {})
        world.upstream, world.upstream_proxy = upstream, proxy
        yield world
    finally:
        await proxy.close()
        await upstream.process.stop()


def _calibrate(folder: Path, scratch: Path) -> None:
    """Certifies the deployment with its remote primary, on its own calibration rows."""
    command = [sys.executable, str(folder / "train.py"), "--data-only", "--out", str(scratch)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (our own command)
    calibrate(Deployment.read(folder), scratch / "var" / "calibration.npz")
