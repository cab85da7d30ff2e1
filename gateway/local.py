"""A replica in one process without Ray, for development or one machine. Starts in under two seconds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from gateway.replica import ListenAddress, Replica
from gateway.serving.repository import Repository
from gateway.stop_signals import STOP_SIGNALS, raise_if_stopped


def serve_locally(
    folders: Sequence[Path],
    state_dir: Path | None,
    address: ListenAddress,
    token: str,
    ready: Callable[[Repository], None],
) -> None:
    """Serves until Ctrl-C or SIGTERM, which drains first; calls `ready` once it listens.

    A second signal ends the process at once. Raises PolicyError or ArtifactError.
    """
    uvloop.run(_serve(folders, state_dir, address, token, ready))


async def _serve(
    folders: Sequence[Path],
    state_dir: Path | None,
    address: ListenAddress,
    token: str,
    ready: Callable[[Repository], None],
) -> None:
    replica = Replica(Repository.open(folders, state_dir), address, token)
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[signal.Signals] = loop.create_future()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _stop_at_first, stop, number)
    raise_if_stopped()
    await replica.start()
    ready(replica.repository)
    await replica.stop(replica.drain_s if await stop is signal.SIGTERM else 0.0)


def _stop_at_first(stop: asyncio.Future[signal.Signals], number: signal.Signals) -> None:
    """Asks the replica to end; the next signal ends the process at once."""
    stop.set_result(number)
    for one in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(one)
        signal.signal(one, signal.SIG_DFL)
