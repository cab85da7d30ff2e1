"""What is reported of one load."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GeneratorFigures:
    """cpu_share: of one core; late_p99_ms, late_most_ms: from a request's scheduled time to its sending."""

    cpu_share: float
    late_p99_ms: float
    late_most_ms: float


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """Health probes during a whole load.

    most_ms: the slowest reply. failed: how many were not answered with 200; ends: how many ended how.
    """

    most_ms: float
    failed: int
    ends: dict[str, int]


@dataclass(frozen=True, slots=True)
class OverloadFigures:
    """One load at `times` the capacity; rates are requests a second, shares are of what was offered.

    capacity: of the server just before. goodput: replies of 200 before the deadline, of all classes.
    answered_p50_ms, answered_p99_ms: of replies of 200, from the scheduled time. highest_in_time: the share
    of requests of the highest priority. probe: None where the server has no health endpoint. recovery_s: from
    the end of the load until it answers as before; None: not within the recovery.
    """

    server: str
    rows: int
    times: float
    round: int
    capacity: float
    offered: float
    goodput: float
    answered_p50_ms: float
    answered_p99_ms: float
    shares: dict[str, float]
    highest_in_time: float
    highest_shares: dict[str, float]
    highest_p99_ms: float
    probe: ProbeFigures | None
    recovery_s: float | None
    generator: GeneratorFigures

    @property
    def load(self) -> str:
        """Its name."""
        return f"{self.server}, {self.rows} rows, {self.times:g} times {self.capacity:.0f} requests/s"

    @property
    def goodput_ratio(self) -> float:
        """Goodput over capacity; NaN if the closed loop before got no answer in time."""
        return self.goodput / self.capacity if self.capacity else math.nan


@dataclass(frozen=True, slots=True)
class GreedyFigures:
    """A polite caller at a tenth of the capacity beside a greedy one. answered: its share in time."""

    server: str
    rows: int
    round: int
    capacity: float
    answered_alone: float
    answered: float
    p99_alone_ms: float
    p99_ms: float
    greedy_shares: dict[str, float]
    probe: ProbeFigures | None
    generator: GeneratorFigures

    @property
    def load(self) -> str:
        """Its name."""
        return f"{self.server}, {self.rows} rows, a greedy caller"

    @property
    def p99_ratio(self) -> float:
        return self.p99_ms / self.p99_alone_ms
