"""Has the running replicas of a deployment read their folder again, and says what each has in force then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from gateway.access.persons_file import persons_secret, replica_token
from gateway.serving.replicas import PeerReplicas, PeerReply

RELOAD_TIMEOUT_S = 60.0


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
    peers = PeerReplicas(run, "", replica_token(persons_secret(state)))
    answers = asyncio.run(peers.ask("POST", f"/models/{name}/policy/reload", RELOAD_TIMEOUT_S))
    return [_read(answer) for answer in answers]


def _read(answer: PeerReply) -> ReplicaReload:
    """What one replica says of itself."""
    reply = answer.json()
    own = reply.get("replicas", {}).get(answer.replica) if isinstance(reply, dict) else None
    if not isinstance(own, dict):
        what = "does not answer" if not answer.status else f"answers {answer.status}"
        return ReplicaReload(answer.replica, "", (what,))
    return ReplicaReload(answer.replica, str(own.get("tag", "")), tuple(own.get("problems", ())))
