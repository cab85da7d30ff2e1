"""What pytest-benchmark found, by stage and size: as plain data for the JSON, and as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.table import Table

from bench.machine import machine
from bench.micro.stages import FORWARD


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage at one size, in microseconds a request. iqr_us: between the quartiles of the rounds.

    share: of the model's own forward pass over as many rows, in the same run.
    """

    stage: str
    rows: int
    median_us: float
    iqr_us: float
    share: float


@dataclass(frozen=True, slots=True)
class MicroReport:
    """All costs of one run, and where it ran."""

    machine: dict[str, str]
    costs: list[StageCost]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From the JSON of pytest-benchmark."""
        return cls(machine(), _costs(found["benchmarks"]))


def _costs(benchmarks: Sequence[Mapping[str, Any]]) -> list[StageCost]:
    forward_us = {
        one["extra_info"]["rows"]: _us(one, "median")
        for one in benchmarks
        if one["extra_info"]["stage"] == FORWARD
    }
    return [
        StageCost(
            info["stage"],
            info["rows"],
            _us(one, "median"),
            _us(one, "iqr"),
            _us(one, "median") / forward_us[info["rows"]],
        )
        for one in benchmarks
        for info in [one["extra_info"]]
    ]


def _us(one: Mapping[str, Any], stat: str) -> float:
    return 1e6 * float(one["stats"][stat]) / float(one["extra_info"]["requests"])


def table(report: MicroReport) -> Table:
    """Stages down, sizes across: microseconds a request, and beside them the share of the forward pass."""
    where = report.machine
    result = Table(
        title="fashion: microseconds a request (median), and as a share of the model's own forward pass",
        title_justify="left",
        caption=f"{where['cpu']}, {where['cores']} cores, commit {where['commit']}",
        caption_justify="left",
    )
    result.add_column("stage", no_wrap=True)
    sizes = sorted({cost.rows for cost in report.costs})
    for rows in sizes:
        result.add_column(f"{rows} rows", justify="right")
        result.add_column("", justify="right", style="dim")
    by_place = {(cost.stage, cost.rows): cost for cost in report.costs}
    for stage in dict.fromkeys(cost.stage for cost in report.costs):
        found = (by_place[stage, rows] for rows in sizes)
        result.add_row(
            stage, *(text for cost in found for text in (f"{cost.median_us:,.1f}", f"{cost.share:.1%}"))
        )
    return result
