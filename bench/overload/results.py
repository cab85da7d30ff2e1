"""The results of one run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.overload.figures import GreedyFigures, OverloadFigures


@dataclass(frozen=True, slots=True)
class OverloadResults:
    """What `bench/results/overload.json` holds. seconds: of each load; connections: of its mass.

    missed: the targets that this tree missed, each with the load.
    """

    machine: dict[str, str]
    deployment: str
    deadline_s: float
    seconds: float
    connections: int
    overload: list[OverloadFigures]
    greedy: list[GreedyFigures]
    missed: list[str]
