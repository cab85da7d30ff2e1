"""A replica in one process without Ray, for development or one machine. Starts in under two seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from gateway.replica import ListenAddress, Replica
from gateway.serving.repository import Repository
from gateway.stop_signals import STOP_SIGNALS


def serve_locally(
    folders: Sequence[Path],
    state_dir: Path | None,
    address: ListenAddress,
    token: str,
    ready: Callable[[Repository], None],
) -> None:
    """Serves until Ctrl-C or SIGTERM; calls `ready` once it listens. Raises PolicyError or ArtifactError."""
    uvloop.run(_serve(folders, state_dir, address, token, ready))


async def _serve(
    folders: Sequence[Path],
    state_dir: Path | None,
    address: ListenAddress,
    token: str,
    ready: Callable[[Repository], None],
) -> None:
    replica = Replica(Repository.open(folders, state_dir), address, token)
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await replica.start()
    ready(replica.repository)
    await stop.wait()
    await replica.stop()
