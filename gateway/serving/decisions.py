"""Looks up a recent decision, on this replica or on any other.

Only the latest decisions are kept in memory; older ones are in the audit log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from gateway.serving.replicas import PeerReplicas
from gateway.telemetry.audit import Audit
from gateway.telemetry.serialize import serialize_record


def rows_here(audits: Sequence[Audit], id_: str, principal: str | None = None) -> list[dict[str, Any]]:
    """All findings of a request, or of one row of it (`REQUEST.ROW`), if this replica decided it.

    principal: whose request it must be. Another's is looked up like an unknown one, and as fast.
    """
    for audit in audits:
        record = audit.find(id_) or audit.find(id_.partition(".")[0])
        if record is None or principal not in (None, record.principal):
            continue
        rows = [orjson.loads(line) for line in serialize_record(record)]
        if found := [row for row in rows if id_ in (row["request"], row["id"])]:
            return found
    return []


async def rows_anywhere(
    audits: Sequence[Audit], peers: PeerReplicas, id_: str, principal: str | None = None
) -> list[dict[str, Any]]:
    """The same, from any replica; another one looks among all its deployments."""
    if found := rows_here(audits, id_, principal):
        return found
    of = "" if principal is None else f"?principal={quote(principal, safe='')}"
    for answer in await peers.ask("GET", f"/decisions/{quote(id_, safe='')}{of}"):
        if answer.ok:
            rows: list[dict[str, Any]] = answer.json()["rows"]
            return rows
    return []


def model_of(row: dict[str, Any]) -> str:
    """The model that a row was sent to, from the tag of the policy that judged it."""
    return str(row["policy"]).partition("@")[0]
