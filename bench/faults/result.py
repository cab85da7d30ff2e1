"""How one cell went: what was found in its history, less what its fault excuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.faults.cell import Cell
from bench.faults.client import Exchange
from bench.faults.history import Violation, ends_of
from bench.faults.rows import GOOD

MOSTLY: Final = 0.5


@dataclass(frozen=True, slots=True)
class CellResult:
    """How one cell went.

    ends: of requests by name; violations: how many of each kind; examples: one of each. unanswered: requests
    without a reply because the process was ended or took no connection. late, slowest_ms: by the callers'
    clock.
    """

    stage: str
    fault: str
    requests: int
    ends: Mapping[str, int]
    violations: Mapping[str, int]
    examples: Sequence[str]
    unanswered: int
    late: int
    slowest_ms: float
    remark: str = ""

    @property
    def passed(self) -> bool:
        return not self.violations


def result_of(cell: Cell, exchanges: Sequence[Exchange], found: Sequence[Violation]) -> CellResult:
    """The result of a cell. Lateness is excused where it blocks, no reply where it kills."""
    excused = {"late"} if cell.blocks else set()
    if cell.unconnected or cell.kills:
        excused.add("not connected")
    if cell.kills:
        excused |= {"no outcome", "in vain", "unrecorded"}
    counted = [one for one in found if one.kind not in excused]
    good = ends_of([one for one in exchanges if one.request.kind == GOOD])
    usual = sum(good[end] for end in cell.usual_ends)
    if cell.usual_ends and usual < MOSTLY * good.total():
        counted.append(Violation("not mostly", "", f"{cell.mostly}: {usual} of {good.total()}"))
    first = {one.kind: f"{one.kind}: {one.request} {one.what}" for one in reversed(counted)}
    kinds = Counter(one.kind for one in found)
    return CellResult(
        stage=cell.stage,
        fault=cell.fault,
        requests=len(exchanges),
        ends=ends_of(exchanges),
        violations=Counter(one.kind for one in counted),
        examples=list(first.values()),
        unanswered=kinds["no outcome"] + kinds["not connected"],
        late=kinds["late"],
        slowest_ms=1e3 * max(one.elapsed_s for one in exchanges),
        remark=cell.remark,
    )
