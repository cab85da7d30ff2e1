"""Cost against how many records the audit keeps for `GET /decisions/{id}`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.growth.in_process import MOST_ROWS, PATIENCE_S, InProcessGateway
from bench.growth.interleaved import Call, Effort, compare
from bench.growth.part import Curve, Fact, Part, measure_bytes, measure_collection
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision
from gateway.core.record import RequestRecord
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink

SINGLE_RECORDS = 500
UNBOUNDED = 2**62  # nothing drains while `take` is measured


async def kept_records(
    in_process: InProcessGateway, sizes: Sequence[int], scratch: Path, effort: Effort
) -> Part:
    """To take a record in place of an old one, to find one, and whole requests."""
    facts: list[Fact] = []
    few = replace(effort, calls=max(1, min(sizes) // effort.rounds))  # each takes the place of a real one
    audits: dict[int, Audit] = {}
    for size in sizes:
        with measure_collection(size, facts), measure_bytes(size, "record", facts):
            audits[size] = await _filled(in_process, size, scratch / f"decisions-{size}.jsonl")
    with measure_bytes(SINGLE_RECORDS, "record that was decided alone", facts):
        alone = [await _decided(in_process, 1, "alone", i) for i in range(SINGLE_RECORDS)]
    del alone
    takes = {size: _taking(audit, await _new(in_process, few)) for size, audit in audits.items()}
    finds = {size: _finding(audit) for size, audit in audits.items()}
    whole = {size: _serving(in_process, audit) for size, audit in audits.items()}
    curves = [
        Curve("take", await compare(takes, few)),
        Curve("find", await compare(finds, effort)),
        Curve("request", await compare(whole, effort, after=in_process.drain_audit)),
    ]
    return Part("records that the audit keeps", "records", curves, facts)


async def _filled(in_process: InProcessGateway, size: int, path: Path) -> Audit:
    audit = Audit([JsonLinesSink(path), in_process.gateway.telemetry], keep=size, buffer=UNBOUNDED)
    for start in range(0, size, MOST_ROWS):
        for record in await _decided(in_process, min(MOST_ROWS, size - start), "kept", start):
            audit.take(record)
        audit.drain()
    return audit


async def _decided(in_process: InProcessGateway, n: int, name: str, start: int) -> list[RequestRecord]:
    """Records of n requests of one row each whose rows were decided together, as under load."""
    ids = tuple(f"{name}-{start + i}" for i in range(n))
    rows = in_process.served[(start + np.arange(n)) % len(in_process.served)]
    until_s = (now_s() + PATIENCE_S,) * n
    batch = Batch(ids, ("bench",) * n, {in_process.deployment.source: rows}, until_s)
    return [_record(one.id, one) for one in await in_process.deployment.pipeline.decide(batch)]


def _record(id_: str, decision: Decision) -> RequestRecord:
    return RequestRecord(id_, "bench", decision.policy, "enforce", 0.0, 0.001, (decision,))


async def _new(in_process: InProcessGateway, effort: Effort) -> Iterator[RequestRecord]:
    """As many records with ids of their own as will be taken."""
    (record,) = await _decided(in_process, 1, "new", 0)
    return iter([_record(f"new-{i}", *record.decisions) for i in range(effort.rounds * effort.calls + 1)])


def _taking(audit: Audit, new: Iterator[RequestRecord]) -> Call:
    async def take() -> None:
        audit.take(next(new))

    return take


def _finding(audit: Audit) -> Call:
    async def find() -> None:
        audit.find("kept-1")

    return find


def _serving(in_process: InProcessGateway, audit: Audit) -> Call:
    sent = in_process.request(in_process.served[:1], "bench")

    async def serve() -> None:
        in_process.use(in_process.deployment.pipeline)
        in_process.gateway.audit = audit
        await in_process.serve(sent)

    return serve
