"""Asks the running replicas of a deployment over their sockets: to read their folder, about callers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.access.persons_file import persons_secret, replica_token
from gateway.serving.replicas import PeerReplicas, PeerReply

RELOAD_TIMEOUT_S = 60.0
CALLERS_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ReplicaReload:
    """tag: of the policy in force at the replica, "" if it is not known; problems: why it is the old one."""

    replica: str
    tag: str
    problems: tuple[str, ...]


def reload_running(state: Path, name: str) -> list[ReplicaReload]:
    """Asks every replica that runs with this folder for state to reload a deployment. Blocks.

    Empty where none runs: a gateway that has its state elsewhere is not found.
    """
    run = state / "run"
    if not any(run.glob("*.sock")):
        return []
    return [_read(one) for one in _ask(state, "POST", f"/models/{name}/policy/reload", RELOAD_TIMEOUT_S)]


def callers_at_replicas(state: Path, name: str) -> list[dict[str, dict[str, list[dict[str, Any]]]]] | None:
    """What each replica that runs with this folder for state says of callers: as of `/callers`. Blocks.

    None where no replica answers for the deployment.
    """
    if not any((state / "run").glob("*.sock")):
        return None
    answers = _ask(state, "GET", f"/models/{name}/callers", CALLERS_TIMEOUT_S)
    found = [reply for one in answers if one.ok and isinstance(reply := one.json(), dict)]
    return found or None


def _ask(state: Path, method: str, path: str, timeout_s: float) -> list[PeerReply]:
    peers = PeerReplicas(state / "run", "", replica_token(persons_secret(state)))
    return asyncio.run(peers.ask(method, path, timeout_s))


def _read(answer: PeerReply) -> ReplicaReload:
    """What one replica says of itself."""
    reply = answer.json()
    own = reply.get("replicas", {}).get(answer.replica) if isinstance(reply, dict) else None
    if not isinstance(own, dict):
        what = "does not answer" if not answer.status else f"answers {answer.status}"
        return ReplicaReload(answer.replica, "", (what,))
    return ReplicaReload(answer.replica, str(own.get("tag", "")), tuple(own.get("problems", ())))
