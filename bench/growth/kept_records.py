"""Cost against how many records the audit keeps for `GET /decisions/{id}`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.deployment_under_test import DEADLINE_S, MAX_ROWS
from bench.growth.in_process import InProcessGateway
from bench.growth.interleaved import Repetitions, TimedCall, compare_sizes
from bench.growth.part import CostCurve, GrowthPart, SizeFigure, measure_bytes, measure_collection
from bench.micro.reply_and_audit import UNBOUNDED_BUFFER
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision
from gateway.core.record import RequestRecord, without_outputs
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.sink import AuditSink

SINGLE_RECORDS = 500


async def kept_records(
    in_process: InProcessGateway, sizes: Sequence[int], scratch: Path, repetitions: Repetitions
) -> GrowthPart:
    """To take a record in place of an old one, to find one, and whole requests."""
    facts: list[SizeFigure] = []
    # Each record that is taken drops an old one: no more calls than there are old ones.
    few_calls = replace(repetitions, calls=max(1, min(sizes) // repetitions.rounds))
    audits: dict[int, Audit] = {}
    for size in sizes:
        with measure_collection(size, facts), measure_bytes(size, "record", facts):
            audits[size] = await _filled(in_process, size, scratch / f"decisions-{size}.jsonl")
    with measure_bytes(SINGLE_RECORDS, "record that was decided alone", facts):
        alone = [await _decided(in_process, 1, "alone", i) for i in range(SINGLE_RECORDS)]
    del alone
    takes = {size: _taking(audit, await _new(in_process, few_calls)) for size, audit in audits.items()}
    finds = {size: _finding(audit) for size, audit in audits.items()}
    whole = {size: _serving(in_process, audit) for size, audit in audits.items()}
    curves = [
        CostCurve("take", await compare_sizes(takes, few_calls)),
        CostCurve("find", await compare_sizes(finds, repetitions)),
        CostCurve("request", await compare_sizes(whole, repetitions, after=in_process.drain_audit)),
    ]
    return GrowthPart("records that the audit keeps", "records", curves, facts)


async def _filled(in_process: InProcessGateway, size: int, path: Path) -> Audit:
    sinks: list[AuditSink] = [JsonLinesSink(path), in_process.gateway.telemetry]
    audit = Audit(sinks, keep=size, keep_bytes=UNBOUNDED_BUFFER, buffer=UNBOUNDED_BUFFER)
    for start in range(0, size, MAX_ROWS):
        for record in await _decided(in_process, min(MAX_ROWS, size - start), "kept", start):
            audit.take(record)
        audit.drain()
    return audit


async def _decided(in_process: InProcessGateway, n: int, name: str, start: int) -> list[RequestRecord]:
    """Records of n requests of one row each whose rows were decided together, as under load."""
    ids = tuple(f"{name}-{start + i}" for i in range(n))
    rows = in_process.served[(start + np.arange(n)) % len(in_process.served)]
    until_s = (now_s() + DEADLINE_S,) * n
    batch = Batch(ids, ("bench",) * n, {in_process.deployment.source: rows}, until_s)
    return [_record(one.id, one) for one in await in_process.deployment.pipeline.decide(batch)]


def _record(id_: str, decision: Decision) -> RequestRecord:
    return RequestRecord(id_, "bench", decision.policy, "enforce", 0.0, 0.001, without_outputs([decision]))


async def _new(in_process: InProcessGateway, repetitions: Repetitions) -> Iterator[RequestRecord]:
    """As many records with ids of their own as will be taken."""
    (record,) = await _decided(in_process, 1, "new", 0)
    return iter(
        [_record(f"new-{i}", *record.decisions) for i in range(repetitions.rounds * repetitions.calls + 1)]
    )


def _taking(audit: Audit, new: Iterator[RequestRecord]) -> TimedCall:
    async def take() -> None:
        audit.take(next(new))

    return take


def _finding(audit: Audit) -> TimedCall:
    async def find() -> None:
        audit.find("kept-1")

    return find


def _serving(in_process: InProcessGateway, audit: Audit) -> TimedCall:
    sent = in_process.request(in_process.served[:1], "bench")

    async def serve() -> None:
        in_process.use(in_process.deployment.pipeline)
        in_process.gateway.audit = audit
        await in_process.serve(sent)

    return serve
