"""What the audit log, telemetry and statistics are made from: finished requests, and administrators' acts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from gateway.core.decision import Decision, Degraded, Reason, Served


class RequestRecord(NamedTuple):
    """One request as it ended.

    id: what the caller got; received_s: wall time in Unix seconds; decisions: one a row, in order, made by
    `without_outputs`, so that a record that is kept or waits for a sink keeps no model's answer in memory;
    trace: the caller's place in a trace, as `traceparent` of W3C says it, or empty.
    """

    id: str
    principal: str
    policy: str
    mode: str
    received_s: float
    elapsed_s: float
    decisions: tuple[Decision, ...]
    trace: str = ""


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


def without_outputs(decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """The same decisions with empty outputs. Cost: 0.5 us a row."""
    return tuple([_without_output(one) for one in decisions])


def _without_output(decision: Decision) -> Decision:
    id_, outcome, findings, policy, _ = decision
    kind = type(outcome)
    if kind is Served:
        return Decision(id_, _served(outcome.by), findings, policy)  # type: ignore[union-attr]
    if kind is Degraded:
        return Decision(id_, _degraded(outcome.by, outcome.reason), findings, policy)  # type: ignore[union-attr]
    return decision


@lru_cache(maxsize=256)
def _served(by: str) -> Served:
    return Served({}, by)


@lru_cache(maxsize=256)
def _degraded(by: str, reason: Reason) -> Degraded:
    return Degraded({}, by, reason)
