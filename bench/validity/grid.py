"""Runs the cells of the grid on a few processes, one re-split at a time over all cells in turn."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bench.validity.partial import Cell, append, read
from bench.validity.pools import POOLS, Pool
from bench.validity.resplit import Certified, resplit
from bench.validity.shapes import SHAPES

Advance = Callable[[int, int], None]
"""Gets how many re-splits are done, and of how many."""


@dataclass(frozen=True, slots=True)
class GridSettings:
    """What to run. seeds: of the re-splits; partial: the folder of results as they come."""

    cells: Sequence[Cell]
    seeds: range
    processes: int
    partial: Path


def run_grid(settings: GridSettings, advance: Advance) -> None:
    """Runs every re-split and shape that has no result yet; all cells have about as many at any time."""
    settings.partial.mkdir(parents=True, exist_ok=True)
    known = {cell: read(settings.partial, cell) for cell in settings.cells}
    missing = [
        (cell, seed, shapes)
        for seed in settings.seeds
        for cell in settings.cells
        if (shapes := _lacking(known[cell].get(seed, ())))
    ]
    total = len(settings.cells) * len(settings.seeds)
    done = total - len(missing)
    advance(done, total)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.processes, context) as pool:
        running = {pool.submit(_resplit, cell, seed, shapes): (cell, seed) for cell, seed, shapes in missing}
        try:
            for future in as_completed(running):
                append(settings.partial, *running[future], future.result())
                done += 1
                advance(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _lacking(found: Sequence[Certified]) -> tuple[str, ...]:
    """The shapes without a result."""
    known = {one.shape for one in found}
    return tuple(shape for shape in SHAPES if shape not in known)


def _resplit(cell: Cell, seed: int, shapes: Sequence[str]) -> list[Certified]:
    return list(resplit(_pool(cell.data), cell.rows, seed, shapes))


@lru_cache(maxsize=len(POOLS))
def _pool(name: str) -> Pool:
    return POOLS[name]()
