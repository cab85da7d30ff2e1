"""Puts faults into the parts of one gateway while it serves, and takes all of them out again.

Every guard, check, budget and model is wrapped once, before the first request, so that a fault is a switch.
Those of the review store are put in place by `review_faults.py`, those of the audit log, telemetry and the
process by `process_faults.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from bench.faults.parts import FaultyBudget, FaultyGuard, FaultyModel, Switch
from bench.faults.process_faults import FAULTS
from fallbacks.breaker import Breaker
from gateway.core.pipeline import AnyGuard, Rung
from gateway.core.record import RequestRecord
from gateway.core.stage import Stage
from gateway.serving.gateway import Gateway
from gateway.telemetry.serialize import serialize_record

SLOW: Final = 2.0
"""How many times its budget a slow part takes."""


class Injection:
    """The faults of one gateway. switches: of every guard, check, budget and model, by name."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.switches: dict[str, Switch] = {}
        self._models: list[FaultyModel] = []
        self._undo: list[Callable[[], Awaitable[None]]] = []
        self._records: list[RequestRecord] = []
        self._wrap_parts()
        self._keep_records()

    async def put(self, part: str, fault: str) -> None:
        """One more fault. Raises KeyError for a part or fault that there is not."""
        if part in self.switches:
            self.switches[part].put(fault)
        else:
            self._undo.append(await FAULTS[part](self.gateway, fault))

    async def heal(self) -> None:
        """Takes every fault out, and closes the circuits that these opened."""
        for switch in self.switches.values():
            switch.put("")
        for model in self._models:
            model.released.set()
            model.released.clear()
        while self._undo:
            await self._undo.pop()()
        for breaker in self.gateway.loaded.breakers.values():
            breaker.isolate()
            breaker.restore()

    def take_records(self) -> list[str]:
        """The rows of the requests that ended since the last call, as lines of the audit log."""
        records, self._records = self._records, []
        return [line.decode() for record in records for line in serialize_record(record)]

    def _keep_records(self) -> None:
        """Keeps what is recorded, whatever becomes of the audit log."""
        take = self.gateway.audit.take

        def keep(record: RequestRecord) -> None:
            self._records.append(record)
            take(record)

        self.gateway.audit.take = keep  # type: ignore[method-assign]

    def _wrap_parts(self) -> None:
        loaded = self.gateway.loaded
        pipeline = loaded.pipeline
        for budget in pipeline.budgets:
            budget.budget = FaultyBudget(budget.budget, self._switch(budget.name))
        wrapped = replace(
            pipeline,
            guards=tuple(self._guard(stage) for stage in pipeline.guards),
            rungs=tuple(self._rung(rung) for rung in pipeline.rungs),
        )
        self.gateway.loaded = replace(loaded, pipeline=wrapped)

    def _guard(self, stage: AnyGuard) -> AnyGuard:
        if isinstance(stage, Stage):
            return self._stage(stage)
        alone = stage.without_features
        return replace(
            stage,
            full=self._stage(stage.full),
            without_features=self._stage(alone) if isinstance(alone, Stage) else alone,
        )

    def _stage(self, stage: Stage[Any]) -> Stage[Any]:
        guard = FaultyGuard(stage.guard, self._switch(stage.name), SLOW * stage.budget_s)
        return replace(stage, guard=guard)

    def _rung(self, rung: Rung) -> Rung:
        breaker = rung.model.predictor
        assert isinstance(breaker, Breaker)
        switch = self._switch(rung.name)
        model = FaultyModel(breaker._predictor, switch, SLOW * rung.model.budget_s)
        breaker._predictor = model
        self._models.append(model)
        return Rung(rung.model, tuple(self._stage(check) for check in rung.checks))

    def _switch(self, part: str) -> Switch:
        return self.switches.setdefault(part, Switch())
