"""A part of the table, at 40 requests a cell, against gateways and servers that run.

How late replies are, and how many good rows are served, depends on how busy the machine is: neither is
asserted. That each fault took effect is: few of these cells allow the ends of a gateway without fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from rich.console import Console

from bench.faults.__main__ import run_cells
from bench.faults.cell import CONTROL, Cell
from bench.faults.cells import CELLS
from bench.faults.result import CellResult

REQUESTS, RATE = 40, 100.0
BY_THE_MACHINE = {"late", "not mostly"}
CHOSEN = (
    "rate / exit",
    "rate / wrong dtype",
    "rate / caller over its limit",
    "ood / raise",
    "ood / hang",
    "ood / NaN",
    "noise / wrong shape",
    "perturbation / cancel itself",
    "confidence / missing rows",
    "small_confidence / exit",
    "primary / raise",
    "primary / hang in its thread",
    "primary / wrong dtype",
    "primary / texts",
    "small / nothing",
    "review / raise",
    "review / disk full",
    "review / read-only",
    "review / queue full",
    "audit / disk full",
    "audit / a folder in its place",
    "files / model truncated",
    "process / clock stepped forward",
    "process / descriptors exhausted",
    "process / kill -9",
)
UPSTREAM = ("upstream / down", "upstream / wrong ids", "upstream / NaN")


def run(names: Sequence[str]) -> list[CellResult]:
    cells = [cell for cell in CELLS if cell.name in names]
    assert len(cells) == len(names)
    return asyncio.run(run_cells(cells, REQUESTS, RATE, Console(quiet=True)))


@pytest.mark.parametrize("names", [CHOSEN, UPSTREAM], ids=["parts", "upstream"])
def test_no_part_that_fails_lets_a_request_end_otherwise_than_it_must(names: tuple[str, ...]) -> None:
    results = run(names)
    assert {f"{one.stage} / {one.fault}" for one in results} == {*names, CONTROL.name}
    assert all(sum(one.ends.values()) == REQUESTS for one in results)
    found = [one.examples for one in results if one.violations.keys() - BY_THE_MACHINE]
    assert not found


def test_a_cell_that_allows_too_little_is_found() -> None:
    """The ends of a gateway without fault are violations of a cell that expects one."""
    blind = Cell("process", "clock stepped back", good=frozenset({"refused unavailable"}))
    (_, result) = asyncio.run(run_cells([blind], REQUESTS, RATE, Console(quiet=True)))
    assert result.violations["wrong code"] > 0
