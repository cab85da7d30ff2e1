"""What the audit log, telemetry and statistics are made from: finished requests, and administrators' acts."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from gateway.core.decision import Decision


class RequestRecord(NamedTuple):
    """One request as it ended.

    id: what the caller got; received_s: wall time in Unix seconds; decisions: one a row, in order.
    """

    id: str
    principal: str
    policy: str
    mode: str
    received_s: float
    elapsed_s: float
    decisions: tuple[Decision, ...]


class AdminAct(NamedTuple):
    """One act of a person on the administration plane; never a row, a token or an answer.

    act: such as `reload`; on: what it was done to (a case, a rung, a deployment, a person), "" for none;
    address: of the client, "" on the command line; done: whether it succeeded; at_s: wall time in Unix
    seconds.
    """

    act: str
    person: str
    on: str
    address: str
    done: bool
    at_s: float


AuditRecord: TypeAlias = RequestRecord | AdminAct
