"""A gateway in this process, called as its HTTP plane calls it, without HTTP.

The pipeline is that of `bench.deployment_under_test`, in which every part has a minute: a busy machine
changes no outcome.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.deployment_under_test import DEADLINE_S, MAX_ROWS, DeploymentUnderTest
from bench.micro.requests import binary_infer_body, json_infer_body
from gateway.cli.samples import Rows, load_samples
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.pipeline import Pipeline
from gateway.core.record import RequestRecord, without_outputs
from gateway.deployment.deployment import VAR
from gateway.http.replies import reply_infer
from gateway.listener.messages import Reply
from gateway.protocol.contract import Contract
from gateway.protocol.endings import Stamp
from gateway.protocol.infer_request import parse_http_infer
from gateway.serving.gateway import Gateway


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """One request as it is received. head: the length of the JSON where binary data follows."""

    body: bytes
    head: int | None
    principal: str


@dataclass(frozen=True, slots=True, eq=False)
class InProcessGateway:
    """served: float32[n, ...], the samples that the primary answers; contract: with room for 128 rows."""

    gateway: Gateway
    deployment: DeploymentUnderTest
    contract: Contract
    served: Rows

    def use(self, pipeline: Pipeline) -> None:
        """From now on this pipeline decides."""
        self.gateway.loaded = replace(self.gateway.loaded, pipeline=pipeline)

    def request(self, rows: Rows, principal: str, *, binary: bool = False) -> EncodedRequest:
        name = self.deployment.source
        head, body = binary_infer_body(name, rows) if binary else (None, json_infer_body(name, rows))
        return EncodedRequest(body, head, principal)

    async def serve(self, sent: EncodedRequest) -> Reply:
        """From the body to the reply. Raises RuntimeError unless every row is answered."""
        received_s, start_s = time.time(), time.perf_counter()
        request = parse_http_infer(sent.body, sent.head, self.contract)
        id_ = f"{time.perf_counter_ns():024x}"
        ids = (id_,) if request.rows == 1 else tuple(f"{id_}.{i}" for i in range(request.rows))
        until_s = (now_s() + DEADLINE_S,) * request.rows
        decisions = await self.gateway.decide(
            Batch(ids, (sent.principal,) * request.rows, request.inputs, until_s)
        )
        stamp = Stamp(decisions[0].policy, "enforce", id_)
        elapsed_s = time.perf_counter() - start_s
        record = RequestRecord(
            id_, sent.principal, stamp.policy, stamp.mode, received_s, elapsed_s, without_outputs(decisions)
        )
        self.gateway.record(record)
        reply = reply_infer(self.contract, request, decisions, stamp)
        if reply.status != 200:
            raise RuntimeError(f"a row that was served before ended with {reply.status}: {reply.body!r}")
        return reply

    def drain_audit(self) -> None:
        """Writes the audit log of what was served since, as a task of the gateway does ten times a second."""
        self.gateway.audit.drain()


@asynccontextmanager
async def open_in_process(folder: Path, scratch: Path) -> AsyncIterator[InProcessGateway]:
    """Over a copy of the deployment in `scratch`: nothing is written into the folder."""
    copy = scratch / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(VAR))
    deployment, gateway = DeploymentUnderTest.open(copy), Gateway.open(copy)
    try:
        samples = load_samples(copy, deployment.artifacts.contract).clean[deployment.source]
        ends = await deployment.decide(samples)
        contract = replace(deployment.artifacts.contract, max_rows=MAX_ROWS)
        in_process = InProcessGateway(gateway, deployment, contract, samples[ends.outcome == "served"])
        in_process.use(deployment.pipeline)
        yield in_process
    finally:
        await gateway.close()
        deployment.artifacts.close()
