"""One finished request: what the audit log, telemetry and statistics are made from."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.decision import Decision


class RequestRecord(NamedTuple):
    """One request as it ended.

    id: what the caller got; received_s: wall time in Unix seconds; decisions: one a row, in order; trace: the
    caller's place in a trace, as `traceparent` of W3C says it, or empty.
    """

    id: str
    principal: str
    policy: str
    mode: str
    received_s: float
    elapsed_s: float
    decisions: tuple[Decision, ...]
    trace: str = ""
