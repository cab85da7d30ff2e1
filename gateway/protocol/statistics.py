"""Counts and durations of the requests of one replica, as in the protocol's statistics extension.

They do not say why a request was not answered: `fail` is every end but an answer. Of a request's time,
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
_NONE = {"count": 0, "ns": 0}


class _Duration:
    """A count, and a total time."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def as_dict(self) -> dict[str, int]:
        return {"count": self.count, "ns": int(max(self.seconds, 0.0) * 1e9)}


class Statistics:
    """Counts since the replica started. On the request path a record is only kept; it is counted later.

    models: the names of the rungs in force; executions: how many batches were judged.
    """

    def __init__(self, models: Callable[[], Container[str]]) -> None:
        self.executions = 0
        self._model_names = models
        self._uncounted: list[RequestRecord] = []
        self._rows = 0
        self._last_s = 0.0
        self._answered, self._failed = _Duration(), _Duration()
        self._models, self._guards, self._rest = _Duration(), _Duration(), _Duration()

    def add(self, record: RequestRecord) -> None:
        """Counts one request that has ended. Cost: 1 us a request, spent for many at once."""
        self._uncounted.append(record)
        if len(self._uncounted) >= AT_A_TIME:
            self._count()

    def _count(self) -> None:
        records, self._uncounted = self._uncounted, []
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
        """Seconds that models, and that all other stages, took for one batch."""
        names = self._model_names()
        models_s = sum(found.elapsed_s for _, found in trail if found.stage in names)
        return models_s, sum(found.elapsed_s for _, found in trail) - models_s

    def as_dict(self) -> dict[str, Any]:
        """The members that a model's statistics have. `last_inference` is in milliseconds since 1970.

        Counted as Triton does: rows that were answered, and each part once for each request (perf_analyzer
        checks that), though inputs need no computation.
        """
        self._count()
        return {
            "last_inference": int(self._last_s * 1e3),
            "inference_count": self._rows,
            "execution_count": self.executions,
            "inference_stats": {
                "success": self._answered.as_dict(),
                "fail": self._failed.as_dict(),
                "queue": self._rest.as_dict(),
                "compute_input": {**_NONE, "count": self._answered.count},
                "compute_infer": self._models.as_dict(),
                "compute_output": self._guards.as_dict(),
                "cache_hit": _NONE,
                "cache_miss": _NONE,
            },
            "batch_stats": [],
        }
