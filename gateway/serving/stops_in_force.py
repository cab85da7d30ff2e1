"""Has the running replicas of folders for state read their files of stops, for the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from gateway.access.persons_file import persons_secret, replica_token
from gateway.serving.replicas import PeerReplicas

TIMEOUT_S = 5.0


def read_by_replicas(states: Iterable[Path]) -> dict[str, bool]:
    """Whether each replica has read the files, by its name; empty where none runs. Blocks.

    When this returns, what those say is in force at the replicas that are true. A process that serves several
    deployments without `--state-dir` is found in the folder of the first one alone.

    Raises:  ArtifactError where the secret of the replicas cannot be read.
    """
    return asyncio.run(_ask({state for state in states if any((state / "run").glob("*.sock"))}))


async def _ask(states: Iterable[Path]) -> dict[str, bool]:
    read: dict[str, bool] = {}
    for state in states:
        peers = PeerReplicas(state / "run", "", replica_token(persons_secret(state)))
        read |= {reply.replica: reply.ok for reply in await peers.ask("GET", "/stops", TIMEOUT_S)}
    return read
