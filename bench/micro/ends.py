"""What comes after a decision: the reply, and what is told about it off the request path."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.micro.body import Body, Plain
from bench.micro.requests import binary_body, json_body
from bench.micro.world import PRINCIPAL, World
from gateway.core.decision import Decision
from gateway.core.record import RequestRecord
from gateway.http.replies import reply_infer
from gateway.protocol.endings import Stamp
from gateway.protocol.infer_request import parse_http_infer
from gateway.telemetry.audit import Audit, explain
from gateway.telemetry.metrics import Telemetry

KEPT = 10_000
DRAINED = 64
ENDLESS = 2**62


def ends() -> dict[str, Callable[[World, int], Body]]:
    """Bodies by name."""
    return {
        "reply JSON": _reply_json,
        "reply binary": _reply_binary,
        "audit: take": _take,
        "audit: explain": _explain,
        f"telemetry, {DRAINED} requests at once": _telemetry,
    }


def _reply_json(world: World, n: int) -> Body:
    return _reply(world, n, json_body(world.opened.source, world.served[:n]), None)


def _reply_binary(world: World, n: int) -> Body:
    head, body = binary_body(world.opened.source, world.served[:n])
    return _reply(world, n, body, head)


def _reply(world: World, n: int, body: bytes, head: int | None) -> Body:
    asked, record = parse_http_infer(body, head, world.contract), _record(world, n)
    stamp = Stamp(record.policy, record.mode, record.id)
    return Plain(lambda: reply_infer(world.contract, asked, record.decisions, stamp))


def _record(world: World, n: int) -> RequestRecord:
    batch = world.batch(world.served[:n])
    return _named("bench", world, world.loop.run_until_complete(world.opened.pipeline.decide(batch)))


def _named(id_: str, world: World, decisions: Sequence[Decision]) -> RequestRecord:
    policy = world.opened.pipeline.policy
    return RequestRecord(id_, PRINCIPAL, policy, "enforce", 0.0, 0.001, tuple(decisions))


def _take(world: World, n: int) -> Body:
    """Twice as many ids as are kept, so that each take drops an old record; nothing drains the buffer."""
    decisions = _record(world, n).decisions
    records = itertools.cycle([_named(f"{i:024x}", world, decisions) for i in range(2 * KEPT)])
    audit = Audit(Path(os.devnull), buffer=ENDLESS, keep=KEPT)
    for one in itertools.islice(records, KEPT):
        audit.take(one)

    def take() -> RequestRecord | None:
        audit.take(one := next(records))
        return audit.find(one.id)

    return Plain(take)


def _explain(world: World, n: int) -> Body:
    record = _record(world, n)
    return Plain(lambda: list(explain(record)))


def _telemetry(world: World, n: int) -> Body:
    records = [_record(world, n)] * DRAINED
    telemetry = Telemetry(world.opened.policy.name, "bench")

    def count() -> Telemetry:
        telemetry(records)
        return telemetry

    return Plain(count, requests=DRAINED)
