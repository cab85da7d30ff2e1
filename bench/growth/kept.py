"""Cost against how many records the audit keeps for `GET /decisions/{id}`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.growth.inside import MOST_ROWS, PATIENCE_S, Inside
from bench.growth.interleaved import Call, Effort, compare
from bench.growth.part import Curve, Fact, Part, collected, weighed
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision
from gateway.core.record import RequestRecord
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink

ALONE = 500
ENDLESS = 2**62  # nobody drains while `take` is measured


async def kept(inside: Inside, sizes: Sequence[int], scratch: Path, effort: Effort) -> Part:
    """To take a record where one has to go for it, to find one, and whole requests."""
    facts: list[Fact] = []
    few = replace(effort, calls=max(1, min(sizes) // effort.rounds))  # each takes the place of a real one
    audits: dict[int, Audit] = {}
    for size in sizes:
        with collected(size, facts), weighed(size, "record", facts):
            audits[size] = await _filled(inside, size, scratch / f"decisions-{size}.jsonl")
    with weighed(ALONE, "record that was decided alone", facts):
        alone = [await _decided(inside, 1, "alone", i) for i in range(ALONE)]
    del alone
    takes = {size: _taking(audit, await _new(inside, few)) for size, audit in audits.items()}
    finds = {size: _finding(audit) for size, audit in audits.items()}
    whole = {size: _serving(inside, audit) for size, audit in audits.items()}
    curves = [
        Curve("take", await compare(takes, few)),
        Curve("find", await compare(finds, effort)),
        Curve("request", await compare(whole, effort, after=inside.settle)),
    ]
    return Part("records that the audit keeps", "records", curves, facts)


async def _filled(inside: Inside, size: int, path: Path) -> Audit:
    audit = Audit([JsonLinesSink(path), inside.gateway.telemetry], keep=size, buffer=ENDLESS)
    for start in range(0, size, MOST_ROWS):
        for record in await _decided(inside, min(MOST_ROWS, size - start), "kept", start):
            audit.take(record)
        audit.drain()
    return audit


async def _decided(inside: Inside, n: int, name: str, start: int) -> list[RequestRecord]:
    """Records of n requests of one row each whose rows were decided together, as under load."""
    ids = tuple(f"{name}-{start + i}" for i in range(n))
    rows = inside.served[(start + np.arange(n)) % len(inside.served)]
    until_s = (now_s() + PATIENCE_S,) * n
    batch = Batch(ids, ("bench",) * n, {inside.opened.source: rows}, until_s)
    return [_record(one.id, one) for one in await inside.opened.pipeline.decide(batch)]


def _record(id_: str, decision: Decision) -> RequestRecord:
    return RequestRecord(id_, "bench", decision.policy, "enforce", 0.0, 0.001, (decision,))


async def _new(inside: Inside, effort: Effort) -> Iterator[RequestRecord]:
    """As many records with ids of their own as will be taken."""
    (record,) = await _decided(inside, 1, "new", 0)
    return iter([_record(f"new-{i}", *record.decisions) for i in range(effort.rounds * effort.calls + 1)])


def _taking(audit: Audit, new: Iterator[RequestRecord]) -> Call:
    async def take() -> None:
        audit.take(next(new))

    return take


def _finding(audit: Audit) -> Call:
    async def find() -> None:
        audit.find("kept-1")

    return find


def _serving(inside: Inside, audit: Audit) -> Call:
    sent = inside.request(inside.served[:1], "bench")

    async def serve() -> None:
        inside.use(inside.opened.pipeline)
        inside.gateway.audit = audit
        await inside.serve(sent)

    return serve
