"""`gateway check`: opens a deployment as a start does, decides one row, closes it, and says what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.access.tls import load_tls
from gateway.cli.observations import observations
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.deployment.index_ranges import range_warnings
from gateway.deployment.promises import in_force
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


def warnings_of(gateway: Gateway) -> list[str]:
    """What is no problem, and may be a mistake."""
    loaded = gateway.loaded
    observed = observations(loaded.policy, loaded.observed)
    warnings = list(range_warnings(loaded.policy, loaded.artifacts.models))
    return [*warnings, *(one.sentence for one in observed if not one.ended)]


def ready_data(gateway: Gateway) -> dict[str, Any]:
    """What is ready, promised and proven, as plain data."""
    loaded = gateway.loaded
    certificate, contract = loaded.artifacts.certificate, loaded.contract
    holds = in_force(loaded.policy, certificate, loaded.observed)
    return {
        "policy": loaded.tag,
        "inputs": [spec.name for spec in contract.inputs],
        "outputs": [spec.name for spec in contract.outputs],
        "unguarded": certificate.unguarded,
        "not_promised": holds.not_promised,
        "promises": [one.sentence() for one in holds.promises],
        "withdrawn": holds.withdrawn,
        "warnings": warnings_of(gateway),
        "observed": [one.fields for one in observations(loaded.policy, loaded.observed)],
        "proof": loaded.proof.as_data(),
    }


def ready_lines(folder: Path, gateway: Gateway) -> Iterator[str]:
    """The same for a terminal."""
    loaded = gateway.loaded
    holds = in_force(loaded.policy, loaded.artifacts.certificate, loaded.observed)
    yield f"{folder}: {loaded.tag} is ready to serve"
    ended = (one for one in observations(loaded.policy, loaded.observed) if one.ended)
    yield from (f"observed: {one.sentence}" for one in ended)
    yield from (f"promised: {one.sentence()}" for one in holds.promises)
    yield from (f"not promised: {sentence}" for sentence in holds.not_promised)
    yield f"proven: {gateway.loaded.proof.sentence()}"
    yield from (f"left open: {sentence}" for sentence in gateway.loaded.proof.left_open)


async def _decides(gateway: Gateway) -> bool:
    """Whether the row of the health check is decided in time, the second time if not the first."""
    try:
        return await gateway.healthy() or await gateway.healthy()
    finally:
        await gateway.close()
