"""What follows a decision: the reply, and audit log and metrics off the request path."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.micro.fixture import PRINCIPAL, MicroFixture
from bench.micro.requests import binary_infer_body, json_infer_body
from bench.micro.workload import SyncWorkload, Workload
from gateway.core.decision import Decision
from gateway.core.record import RequestRecord, without_outputs
from gateway.http.replies import reply_infer
from gateway.protocol.endings import Stamp
from gateway.protocol.infer_request import parse_http_infer
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.metrics import Telemetry
from gateway.telemetry.serialize import serialize_record

KEPT = 10_000
DRAINED = 64
UNBOUNDED_BUFFER = 2**62  # nothing drains while `take` is measured


def reply_and_audit() -> dict[str, Callable[[MicroFixture, int], Workload]]:
    """Bodies by name."""
    return {
        "reply JSON": _reply_json,
        "reply binary": _reply_binary,
        "audit: take": _take,
        "audit: serialize": _serialize,
        f"telemetry, {DRAINED} requests at once": _telemetry,
    }


def _reply_json(fixture: MicroFixture, n: int) -> Workload:
    return _reply(fixture, n, json_infer_body(fixture.deployment.source, fixture.served[:n]), None)


def _reply_binary(fixture: MicroFixture, n: int) -> Workload:
    head, body = binary_infer_body(fixture.deployment.source, fixture.served[:n])
    return _reply(fixture, n, body, head)


def _reply(fixture: MicroFixture, n: int, body: bytes, head: int | None) -> Workload:
    request, decisions = parse_http_infer(body, head, fixture.contract), _decisions(fixture, n)
    stamp = Stamp(fixture.deployment.pipeline.policy, "enforce", "bench")
    return SyncWorkload(lambda: reply_infer(fixture.contract, request, decisions, stamp))


def _decisions(fixture: MicroFixture, n: int) -> Sequence[Decision]:
    batch = fixture.batch(fixture.served[:n])
    return fixture.loop.run_until_complete(fixture.deployment.pipeline.decide(batch))


def _record(fixture: MicroFixture, n: int) -> RequestRecord:
    return _named("bench", fixture, _decisions(fixture, n))


def _named(id_: str, fixture: MicroFixture, decisions: Sequence[Decision]) -> RequestRecord:
    policy = fixture.deployment.pipeline.policy
    return RequestRecord(id_, PRINCIPAL, policy, "enforce", 0.0, 0.001, without_outputs(decisions))


def _take(fixture: MicroFixture, n: int) -> Workload:
    """Twice as many ids as are kept, so that each take drops an old record; nothing drains the buffer."""
    decisions = _record(fixture, n).decisions
    records = itertools.cycle([_named(f"{i:024x}", fixture, decisions) for i in range(2 * KEPT)])
    audit = Audit([JsonLinesSink(Path(os.devnull))], buffer=UNBOUNDED_BUFFER, keep=KEPT)
    for one in itertools.islice(records, KEPT):
        audit.take(one)

    def take() -> RequestRecord | None:
        audit.take(one := next(records))
        return audit.find(one.id)

    return SyncWorkload(take)


def _serialize(fixture: MicroFixture, n: int) -> Workload:
    record = _record(fixture, n)
    return SyncWorkload(lambda: serialize_record(record))


def _telemetry(fixture: MicroFixture, n: int) -> Workload:
    records = [_record(fixture, n)] * DRAINED
    telemetry = Telemetry(fixture.deployment.policy.name, "bench")

    def count() -> Telemetry:
        telemetry.accept(records)
        return telemetry

    return SyncWorkload(count, requests=DRAINED)
