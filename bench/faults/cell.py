"""One fault of one stage, and the sets of ends that its rows may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

World = Literal["parts", "exporter", "upstream"]
"""What is served: alone, with a collector of telemetry, or with its primary in another server."""
REFUSED: Final = frozenset({"refused unavailable", "refused deadline"})
WITHHELD: Final = REFUSED | {"deferred"}
SAFE: Final = WITHHELD | {"degraded"}
ANY: Final = SAFE | {"served"}
LIMITED: Final = ANY | {"refused rate_limited"}
"""Sets of ends, each with all that a busy machine may make of it: the next rung, a person, a refusal."""
UNANSWERED: Final = "deferred, or refused unavailable"
"""How rows end that no model answered: reviewers get a sample of them (`gateway/core/deferral_cap.py`)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault of one stage.

    good, outliers: the ends that such rows may have; mostly: that of most good rows, or UNANSWERED, empty
    where it varies; beside: faults of other parts, put in place with it, settle_s before the load. blocks: it
    stops the gateway for a while, so replies may be late; unconnected: it takes no new connections; restarts:
    the process ends with the cell; kills: it ends under requests, which are counted. remark: what a reader of
    the table should know.
    """

    stage: str
    fault: str
    good: frozenset[str] = ANY
    outliers: frozenset[str] = WITHHELD
    mostly: str = "served"
    beside: tuple[tuple[str, str], ...] = ()
    settle_s: float = 0.0
    world: World = "parts"
    blocks: bool = False
    unconnected: bool = False
    restarts: bool = False
    kills: bool = False
    remark: str = ""

    @property
    def usual_ends(self) -> tuple[str, ...]:
        """How most good rows end; none where it varies."""
        if self.mostly == UNANSWERED:
            return ("deferred", "refused unavailable")
        return (self.mostly,) if self.mostly else ()

    @property
    def name(self) -> str:
        return f"{self.stage} / {self.fault}"


CONTROL: Final = Cell("idle", "control")
