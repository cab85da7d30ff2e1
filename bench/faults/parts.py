"""Guards, budgets and models that misbehave on demand: wrappers around the real ones.

A `Switch` names the fault that its part has now. A part without a fault is the real one, so a fault can be
switched on and off while the gateway serves. `FaultyGuard` and `FaultyBudget` stand around what a stage asks,
`FaultyModel` around what a circuit breaker asks: the breaker, the budgets and the checks of form are real.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.faults.spoiled import CHARGES, OUTPUTS, SCORES, changed_by
from fallbacks.onnx import OnnxModel
from gateway.core.budget import Budget
from gateway.core.decision import Tensors
from gateway.core.model import Predictor
from gateway.core.stage import Guard

BLOCK_S, BLOCKS = 0.35, 2
"""How long a fault holds the event loop at a time, longer than any budget allows; and how often in a cell."""
HANG_S: Final = 3600.0


class BrokenOnPurpose(Exception):
    """What a part raises."""


@dataclass(slots=True)
class Switch:
    """The fault that a part has now; empty for none. blocks: how often it still blocks the event loop."""

    fault: str = ""
    blocks: int = 0

    def put(self, fault: str) -> None:
        self.fault, self.blocks = fault, BLOCKS

    def block(self) -> None:
        """Holds the event loop, if it has not done so often enough."""
        if self.blocks:
            self.blocks -= 1
            time.sleep(BLOCK_S)


async def misbehave(switch: Switch, slow_s: float) -> None:
    """What a part does before it answers: nothing where the fault is one of its answer."""
    match switch.fault:
        case "raise":
            raise BrokenOnPurpose
        case "exit":
            sys.exit(3)
        case "cancel itself":
            raise asyncio.CancelledError
        case "hang":
            await asyncio.sleep(HANG_S)
        case "slow":
            await asyncio.sleep(slow_s)
        case "block the loop":
            switch.block()


@dataclass(frozen=True, slots=True)
class FaultyGuard:
    """A guard or check. slow_s: how long it takes where it is slow."""

    inner: Guard[Any]
    switch: Switch
    slow_s: float

    async def score(self, rows: Any, /) -> Any:
        await misbehave(self.switch, self.slow_s)
        scores = await self.inner.score(rows)
        return changed_by(SCORES, self.switch.fault, scores)


@dataclass(frozen=True, slots=True)
class FaultyBudget:
    """A budget. It is called on the event loop, so it cannot hang without blocking that."""

    inner: Budget
    switch: Switch

    def charge(self, principal: str, rows: int, /) -> Any:
        match self.switch.fault:
            case "raise":
                raise BrokenOnPurpose
            case "exit":
                sys.exit(3)
            case "block the loop":
                self.switch.block()
        return changed_by(CHARGES, self.switch.fault, self.inner.charge(principal, rows))


@dataclass(frozen=True, slots=True)
class FaultyModel:
    """A model, as a circuit breaker calls it. released: ends the calls that hang in its thread."""

    inner: Predictor
    switch: Switch
    slow_s: float
    released: threading.Event = field(default_factory=threading.Event)
    first: dict[str, Any] = field(default_factory=dict)

    async def predict(self, inputs: Tensors, /) -> Any:
        fault = self.switch.fault
        await misbehave(self.switch, self.slow_s)
        if fault == "hang in its thread" and isinstance(self.inner, OnnxModel):
            await self._hang_in_thread(self.inner)
        outputs = await self.inner.predict(inputs)
        for name, array in outputs.items():
            self.first.setdefault(name, array[:1])
        if fault == "stuck":
            return {name: np.repeat(self.first[name], len(a), axis=0) for name, a in outputs.items()}
        return changed_by(OUTPUTS, fault, outputs)

    async def _hang_in_thread(self, model: OnnxModel) -> None:
        """A call that does not end when it is cancelled, as in native code."""
        worker = model._workers.free()
        if worker is None:
            raise BrokenOnPurpose
        await worker.call(self.released.wait, lambda: None)
