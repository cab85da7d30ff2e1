"""Runs the cells of the grid on a few processes, one re-split at a time over all cells in turn."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from bench.validity.partial import Cell, append, read
from bench.validity.resplit import Certified

Advance = Callable[[int, int], None]
"""Gets how many re-splits are done, and of how many."""
Resplit = Callable[[str, int, int, Sequence[str]], list[Certified]]
"""One re-split, by a population's name, the rows of a file, the seed and the shapes; defined in a module."""


@dataclass(frozen=True, slots=True)
class GridSettings:
    """What to run. shapes: all; seeds: of the re-splits; partial: the folder of results as they come."""

    resplit: Resplit
    shapes: Sequence[str]
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
        if (shapes := _lacking(settings.shapes, known[cell].get(seed, ())))
    ]
    total = len(settings.cells) * len(settings.seeds)
    done = total - len(missing)
    advance(done, total)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.processes, context) as pool:
        running = {
            pool.submit(settings.resplit, cell.data, cell.rows, seed, shapes): (cell, seed)
            for cell, seed, shapes in missing
        }
        try:
            for future in as_completed(running):
                append(settings.partial, *running[future], future.result())
                done += 1
                advance(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _lacking(every: Sequence[str], found: Sequence[Certified]) -> tuple[str, ...]:
    """The shapes without a result."""
    known = {one.shape for one in found}
    return tuple(shape for shape in every if shape not in known)
