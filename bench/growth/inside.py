"""A gateway in this process, asked as its HTTP door asks it, without HTTP.

The pipeline is that of `bench.opened`: every part has a minute, so that a busy machine changes no outcome.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.micro.requests import binary_body, json_body
from bench.opened import Opened
from gateway.cli.samples import Rows, load_samples
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.pipeline import Pipeline
from gateway.core.record import RequestRecord
from gateway.deployment.deployment import VAR
from gateway.http.replies import reply_infer
from gateway.listener.messages import Reply
from gateway.protocol.contract import Contract
from gateway.protocol.endings import Stamp
from gateway.protocol.infer_request import parse_http_infer
from gateway.serving.gateway import Gateway

PATIENCE_S = 3600.0
MOST_ROWS = 128


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as it comes in. head: the length of the JSON where binary data follows."""

    body: bytes
    head: int | None
    principal: str


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """served: float32[n, ...], the samples that the primary answers; contract: with room for 128 rows."""

    gateway: Gateway
    opened: Opened
    contract: Contract
    served: Rows

    def use(self, pipeline: Pipeline) -> None:
        """From now on this pipeline decides."""
        self.gateway.loaded = replace(self.gateway.loaded, pipeline=pipeline)

    def request(self, rows: Rows, principal: str, *, binary: bool = False) -> Sent:
        name = self.opened.source
        head, body = binary_body(name, rows) if binary else (None, json_body(name, rows))
        return Sent(body, head, principal)

    async def serve(self, sent: Sent) -> Reply:
        """From the body to the reply. Raises RuntimeError unless every row is answered."""
        received_s, start_s = time.time(), time.perf_counter()
        asked = parse_http_infer(sent.body, sent.head, self.contract)
        id_ = f"{time.perf_counter_ns():024x}"
        ids = (id_,) if asked.rows == 1 else tuple(f"{id_}.{i}" for i in range(asked.rows))
        until_s = (now_s() + PATIENCE_S,) * asked.rows
        decisions = await self.gateway.decide(
            Batch(ids, (sent.principal,) * asked.rows, asked.inputs, until_s)
        )
        stamp = Stamp(decisions[0].policy, "enforce", id_)
        elapsed_s = time.perf_counter() - start_s
        record = RequestRecord(
            id_, sent.principal, stamp.policy, stamp.mode, received_s, elapsed_s, tuple(decisions)
        )
        self.gateway.record(record)
        reply = reply_infer(self.contract, asked, decisions, stamp)
        if reply.status != 200:
            raise RuntimeError(f"a row that was served before ended with {reply.status}: {reply.body!r}")
        return reply

    def settle(self) -> None:
        """Writes down what was served since, as a task of the gateway does ten times a second."""
        self.gateway.audit.drain()


@asynccontextmanager
async def open_inside(folder: Path, scratch: Path) -> AsyncIterator[Inside]:
    """Over a copy of the deployment in `scratch`: nothing is written into the folder."""
    copy = scratch / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(VAR))
    opened, gateway = Opened.open(copy), Gateway.open(copy)
    try:
        samples = load_samples(copy, opened.source).clean
        ends = await opened.decide(samples)
        contract = replace(opened.artifacts.contract, max_rows=MOST_ROWS)
        inside = Inside(gateway, opened, contract, samples[ends.outcome == "served"])
        inside.use(opened.pipeline)
        yield inside
    finally:
        await gateway.close()
        opened.artifacts.close()
