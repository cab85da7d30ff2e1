"""How much one replica has done, as the protocol's statistics extension tells it.

It says nothing of why a request was not answered: `fail` is every end but an answer. Of a request's time,
`compute_infer` is that of the models' passes over its batch, `compute_output` that of guards and checks, and
`queue` the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from gateway.core.decision import Degraded, Served
from gateway.core.pipeline import Findings, Trail
from gateway.core.record import RequestRecord

AT_A_TIME = 256
_ANSWERED = (Served, Degraded)
NOTHING = {"count": 0, "ns": 0}


class _Duration:
    """So many times, so long in all."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def told(self) -> dict[str, int]:
        return {"count": self.count, "ns": int(max(self.seconds, 0.0) * 1e9)}


class Statistics:
    """Counts since the replica started. A record is only kept on the request path, and counted a while later.

    models: the names of the rungs in force; executions: how many batches were judged.
    """

    def __init__(self, models: Callable[[], Container[str]]) -> None:
        self.executions = 0
        self._names = models
        self._new: list[RequestRecord] = []
        self._rows = 0
        self._last_s = 0.0
        self._answered, self._failed = _Duration(), _Duration()
        self._models, self._guards, self._rest = _Duration(), _Duration(), _Duration()

    def ended(self, record: RequestRecord) -> None:
        """Takes one request that has ended. Cost: 1 us a request, at once for many."""
        self._new.append(record)
        if len(self._new) >= AT_A_TIME:
            self._count()

    def _count(self) -> None:
        records, self._new = self._new, []
        trail, models_s, guards_s = None, 0.0, 0.0
        for record in records:
            if not all(isinstance(one.outcome, _ANSWERED) for one in record.decisions):
                self._failed.add(record.elapsed_s)
                continue
            self._rows += len(record.decisions)
            self._answered.add(record.elapsed_s)
            findings = record.decisions[0].findings
            if isinstance(findings, Findings) and findings.trail is not trail:  # one a batch
                trail = findings.trail
                models_s, guards_s = self._split(trail)
            self._models.add(models_s)
            self._guards.add(guards_s)
            self._rest.add(record.elapsed_s - models_s - guards_s)
        if records:
            self._last_s = records[-1].received_s + records[-1].elapsed_s

    def _split(self, trail: Trail) -> tuple[float, float]:
        """How long models and how long all else took for one batch."""
        names = self._names()
        models_s = sum(found.elapsed_s for _, found in trail if found.stage in names)
        return models_s, sum(found.elapsed_s for _, found in trail) - models_s

    def told(self) -> dict[str, Any]:
        """The members that a model's statistics have. `last_inference` is in milliseconds since 1970.

        As Triton counts: rows that were answered, and of each part one for each request (perf_analyzer holds
        us to that), though there is nothing to be computed of an input.
        """
        self._count()
        return {
            "last_inference": int(self._last_s * 1e3),
            "inference_count": self._rows,
            "execution_count": self.executions,
            "inference_stats": {
                "success": self._answered.told(),
                "fail": self._failed.told(),
                "queue": self._rest.told(),
                "compute_input": {**NOTHING, "count": self._answered.count},
                "compute_infer": self._models.told(),
                "compute_output": self._guards.told(),
                "cache_hit": NOTHING,
                "cache_miss": NOTHING,
            },
            "batch_stats": [],
        }
