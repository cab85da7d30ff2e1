"""A replica in one process without Ray, for development or one machine. Starts in under two seconds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import uvloop

from gateway.replica import ListenAddress, Replica
from gateway.serving.gateway import Gateway


def serve_locally(folder: Path, address: ListenAddress, token: str, ready: Callable[[], None]) -> None:
    """Serves until Ctrl-C or SIGTERM; calls `ready` once it listens. Raises PolicyError or ArtifactError."""
    uvloop.run(_serve(folder, address, token, ready))


async def _serve(folder: Path, address: ListenAddress, token: str, ready: Callable[[], None]) -> None:
    replica = Replica(Gateway.open(folder), address, token)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await replica.start()
    ready()
    await stop.wait()
    await replica.stop()
