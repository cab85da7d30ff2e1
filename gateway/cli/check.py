"""Opens a deployment as a start does, decides one row, and closes it again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.access.tls import load_tls
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.serving.gateway import Gateway
from gateway.serving.host import Host


def checked(folder: Path, state_dir: Path | None = None) -> Gateway:
    """The gateway of a folder, closed. Makes what a start makes: the review queue's file, if it is missing.

    Raises:  PolicyError, ArtifactError for everything for which a start or its health check would fail.
    """
    deployment = Deployment.read(folder)
    load_tls(deployment)
    gateway = Gateway.of(deployment, Host.of(deployment, state_dir))
    if not asyncio.run(_decides(gateway)):
        what = f"the row of the health check is not decided within {deployment.policy.deadline_s:g} s"
        raise PolicyError([deployment.problem(("deadline_s",), what)])
    return gateway


async def _decides(gateway: Gateway) -> bool:
    """Whether the row of the health check is decided in time, the second time if not the first."""
    try:
        return await gateway.healthy() or await gateway.healthy()
    finally:
        await gateway.close()
