"""configs/fashion loaded into this process, with real rows sorted by how the gateway treats them.

Replies need rows that are served, and the perturbation guard costs two more passes for a row that triggers
it: so each kind of row is measured by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
import uvloop

from bench.deployment_under_test import DEADLINE_S, MAX_ROWS, DeploymentUnderTest
from fallbacks.onnx_file import open_session, read_once
from gateway.cli.samples import Rows, load_samples
from gateway.core.batch import Batch
from gateway.core.decision import Tensors
from gateway.deployment.compile import measures_of
from gateway.deployment.measures import Measures
from gateway.policy.kinds.squeeze import FittedSqueeze
from gateway.policy.schema import OnnxPolicy
from gateway.protocol.contract import Contract

FASHION_FOLDER = Path(__file__).parents[2] / "configs" / "fashion"
PRINCIPAL = "bench"


@dataclass(frozen=True, slots=True, eq=False)
class MicroFixture:
    """served: float32[n, 1, 28, 28]; of these, the quiet ones trigger no second pass, the others repeated."""

    deployment: DeploymentUnderTest
    measures: Measures
    contract: Contract
    session: onnxruntime.InferenceSession
    served: Rows
    quiet: Rows
    to_squeeze: Rows
    loop: asyncio.AbstractEventLoop

    @classmethod
    def prepare(cls, deployment: DeploymentUnderTest, loop: asyncio.AbstractEventLoop) -> Self:
        """Decides every sample once, to sort the rows."""
        samples = load_samples(FASHION_FOLDER, deployment.artifacts.contract).clean[deployment.source]
        ends = loop.run_until_complete(deployment.decide(samples))
        served = samples[ends.outcome == "served"]
        (squeeze,) = (
            one.squeeze
            for one in deployment.artifacts.fitted.guards.values()
            if isinstance(one, FittedSqueeze)
        )
        features = deployment.artifacts.models[deployment.primary].run({deployment.source: served})[
            "features"
        ]
        triggers = squeeze.to_squeeze(features)
        named = deployment.policy.rungs[0].model
        assert isinstance(named, OnnxPolicy), "the deployment's own model is compared"
        path = FASHION_FOLDER / named.path
        session = open_session(path.name, read_once(path), threads=1)
        contract = replace(deployment.artifacts.contract, max_rows=MAX_ROWS)  # the deployment takes fewer
        to_squeeze = np.resize(served[triggers], (MAX_ROWS, *served.shape[1:]))  # they are few
        measured = measures_of(deployment.artifacts)
        return cls(deployment, measured, contract, session, served, served[~triggers], to_squeeze, loop)

    def inputs(self, rows: Rows) -> Tensors:
        return {self.deployment.source: rows}

    def batch(self, rows: Rows) -> Batch:
        """These rows as one caller's request, with nothing computed yet."""
        ids = tuple(f"bench.{i}" for i in range(len(rows)))
        until_s = (self.loop.time() + DEADLINE_S,) * len(rows)
        return Batch(ids, (PRINCIPAL,) * len(rows), self.inputs(rows), until_s)

    def answered(self, rows: Rows) -> Batch:
        """The same once the primary has answered, so that reading its outputs costs nothing else."""
        batch = self.batch(rows).with_models(
            {rung.name: rung.model for rung in self.deployment.pipeline.rungs}
        )
        self.loop.run_until_complete(batch.run(self.deployment.primary))
        return batch


@contextmanager
def open_fixture() -> Iterator[MicroFixture]:
    """The loop is uvloop's, as when the gateway serves."""
    loop = uvloop.new_event_loop()
    deployment = DeploymentUnderTest.open(FASHION_FOLDER)
    try:
        yield MicroFixture.prepare(deployment, loop)
    finally:
        deployment.artifacts.close()
        loop.close()
