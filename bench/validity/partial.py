"""Results of re-splits as they come, one line of JSON each, one file for each population and number of rows.

A run that is interrupted keeps what it has, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.validity.resplit import Certified
from bench.validity.truth import Outcome, Promised


@dataclass(frozen=True, slots=True)
class Cell:
    """A population and how many rows a calibration file has."""

    data: str
    rows: int

    def file(self, folder: Path) -> Path:
        """Where its results are kept."""
        return folder / f"{self.data}-{self.rows}.jsonl"


def append(folder: Path, cell: Cell, seed: int, found: Sequence[Certified]) -> None:
    """Adds what one re-split found, of all shapes or of those that it did not have."""
    compact = [
        [
            one.shape,
            one.budget,
            one.outcome.refused,
            [[p.what, p.at_most, p.true] for p in one.outcome.promises],
            one.outcome.answered,
        ]
        for one in found
    ]
    with cell.file(folder).open("ab") as file:
        file.write(orjson.dumps({"seed": seed, "found": compact}) + b"\n")


def read(folder: Path, cell: Cell) -> dict[int, list[Certified]]:
    """The results by seed. A last line that was not written whole is left out."""
    path = cell.file(folder)
    found: dict[int, list[Certified]] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            one = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        found.setdefault(one["seed"], []).extend(
            Certified(shape, budget, Outcome(refused, tuple(Promised(*p) for p in promises), answered))
            for shape, budget, refused, promises, answered in one["found"]
        )
    return found
