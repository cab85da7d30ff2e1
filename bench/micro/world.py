"""configs/fashion opened in this process, with real rows sorted by what the gateway makes of them.

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

from bench.opened import Opened
from fallbacks.onnx_file import open_session, read_once
from gateway.cli.samples import Rows, load_samples
from gateway.core.batch import Batch
from gateway.core.decision import Tensors
from gateway.deployment.compile import measures_of
from gateway.deployment.measures import Measures
from gateway.policy.kinds.squeeze import FittedSqueeze
from gateway.policy.schema import OnnxPolicy
from gateway.protocol.contract import Contract

FOLDER = Path(__file__).parents[2] / "configs" / "fashion"
MOST_ROWS = 128
PATIENCE_S = 3600.0
PRINCIPAL = "bench"


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """served: float32[n, 1, 28, 28]; of these, the quiet ones trigger no second pass, the others repeated."""

    opened: Opened
    measures: Measures
    contract: Contract
    session: onnxruntime.InferenceSession
    served: Rows
    quiet: Rows
    to_squeeze: Rows
    loop: asyncio.AbstractEventLoop

    @classmethod
    def over(cls, opened: Opened, loop: asyncio.AbstractEventLoop) -> Self:
        """Decides every sample once, to know which rows are which."""
        samples = load_samples(FOLDER, opened.source).clean
        ends = loop.run_until_complete(opened.decide(samples))
        served = samples[ends.outcome == "served"]
        (squeeze,) = (
            one.squeeze for one in opened.artifacts.guards.values() if isinstance(one, FittedSqueeze)
        )
        features = opened.artifacts.models[opened.primary].run({opened.source: served})["features"]
        woken = squeeze.to_squeeze(features)
        named = opened.policy.rungs[0].model
        assert isinstance(named, OnnxPolicy), "the deployment's own model is compared"
        path = FOLDER / named.path
        session = open_session(path.name, read_once(path), threads=1)
        contract = replace(opened.artifacts.contract, max_rows=MOST_ROWS)  # the deployment takes fewer
        to_squeeze = np.resize(served[woken], (MOST_ROWS, *served.shape[1:]))  # they are few
        measured = measures_of(opened.artifacts)
        return cls(opened, measured, contract, session, served, served[~woken], to_squeeze, loop)

    def inputs(self, rows: Rows) -> Tensors:
        return {self.opened.source: rows}

    def batch(self, rows: Rows) -> Batch:
        """These rows as one caller's request, with nothing computed yet."""
        ids = tuple(f"bench.{i}" for i in range(len(rows)))
        until_s = (self.loop.time() + PATIENCE_S,) * len(rows)
        return Batch(ids, (PRINCIPAL,) * len(rows), self.inputs(rows), until_s)

    def answered(self, rows: Rows) -> Batch:
        """The same once the primary has answered, so that whoever reads its answer pays for nothing else."""
        asking = self.batch(rows).asking({rung.name: rung.model for rung in self.opened.pipeline.rungs})
        self.loop.run_until_complete(asking.run(self.opened.primary))
        return asking


@contextmanager
def open_world() -> Iterator[World]:
    """The loop is uvloop's, as when the gateway serves."""
    loop = uvloop.new_event_loop()
    opened = Opened.open(FOLDER)
    try:
        yield World.over(opened, loop)
    finally:
        opened.artifacts.close()
        loop.close()
