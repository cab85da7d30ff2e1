"""Finds a decision again: at the replica that made it, or at another one.

Only the latest decisions are kept in memory; older ones are in the audit log.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson

from gateway.serving.replicas import PeerReplicas
from gateway.telemetry.audit import Audit
from gateway.telemetry.serialize import serialize_record


def rows_here(audit: Audit, id_: str) -> list[dict[str, Any]]:
    """All findings of a request, or of one row of it (`REQUEST.ROW`), if this replica decided it."""
    record = audit.find(id_) or audit.find(id_.partition(".")[0])
    rows = [orjson.loads(line) for line in serialize_record(record)] if record else []
    return [row for row in rows if id_ in (row["request"], row["id"])]


async def rows_anywhere(audit: Audit, peers: PeerReplicas, id_: str) -> list[dict[str, Any]]:
    """The same, from any replica of the deployment."""
    if found := rows_here(audit, id_):
        return found
    for answer in await peers.ask("GET", f"/decisions/{quote(id_, safe='')}"):
        if answer.ok:
            rows: list[dict[str, Any]] = answer.json()["rows"]
            return rows
    return []
