"""A ledger in an actor of the Ray cluster. Only processes of a cluster that runs may import this module.

The actor is detached: it outlives the replica that made it, and ends with the cluster, or by `ray.kill`. Ray
restarts it whenever it ends otherwise. With a folder for state its buckets are in a file there, as of
`LocalLedger`; where that is missing, after a move to another node, every bucket begins empty. Only
clients with the cluster's token can reach it, as everything in the cluster (`gateway/app.py`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import ray

from gateway.ledger.ledger import Batch, Grant
from gateway.ledger.local import LocalLedger

NAME: Final = "failsafe-ledger"


class LedgerActor:
    """What runs in the actor."""

    def __init__(self, path: str) -> None:
        self._ledger = LocalLedger(Path(path))

    async def lease(self, batch: Batch) -> list[Grant]:
        return await self._ledger.lease(batch)


class RayLedger:
    """The one actor of a namespace; made by the replica that asks first."""

    def __init__(self, path: Path, namespace: str | None = None) -> None:
        """path: of the actor's file; where all ask for the same actor, the first one's is taken.

        Raises:  ConnectionError outside a cluster: ray would start one.
        """
        if not ray.is_initialized():
            raise ConnectionError("`ledger: ray` needs a cluster, and this process is in none")
        self._path, self._namespace = path, namespace
        self._actor: Any = None

    async def lease(self, batch: Batch) -> list[Grant]:
        """As `Ledger`. Raises RayError, and what the actor raises."""
        if self._actor is None:
            self._actor = await asyncio.to_thread(self._find)
        try:
            grants: list[Grant] = await self._actor.lease.remote(batch)
        except ray.exceptions.ActorDiedError:
            self._actor = None  # for good: the next call makes another
            raise
        return grants

    async def close(self) -> None:
        """Does nothing: the actor belongs to the cluster."""

    def _find(self) -> Any:
        options = {"name": NAME, "namespace": self._namespace, "get_if_exists": True, "lifetime": "detached"}
        actor = ray.remote(num_cpus=0, max_restarts=-1)(LedgerActor)
        return actor.options(**options).remote(str(self._path))
