"""Every part of the growth test over one deployment, as plain data: what goes into the JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.growth.backlog import backlog
from bench.growth.in_process import open_in_process
from bench.growth.interleaved import Effort
from bench.growth.kept_records import kept_records
from bench.growth.part import Part
from bench.growth.principals import keys, principals
from bench.growth.rows import rows
from bench.machine import machine

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is counted, from the size that the others are compared with."""

    principals: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    keys: tuple[int, ...] = (1_000, 10_000, 100_000)
    cases: tuple[int, ...] = (0, 1_000, 10_000, 100_000)
    rows: tuple[int, ...] = (1, 8, 32, 128)
    records: tuple[int, ...] = (1_000, 10_000, 100_000)
    effort: Effort = field(default_factory=lambda: Effort(rounds=60, calls=50))


@dataclass(frozen=True, slots=True)
class Report:
    """machine: with versions and commit."""

    deployment: str
    machine: dict[str, str]
    parts: list[Part]


async def measure(folder: Path, sizes: Sizes, progress: Progress) -> Report:
    """Raises PolicyError or ArtifactError as a gateway at start; OSError or ValueError without samples."""
    parts: list[Part] = []
    with TemporaryDirectory(prefix="growth-") as temporary:
        scratch = Path(temporary)
        async with open_in_process(folder, scratch) as in_process:
            progress("rows a request")
            parts.append(await rows(in_process, sizes.rows, sizes.effort))
            progress("waiting cases")
            parts.append(await backlog(in_process, sizes.cases, scratch, sizes.effort))
            progress("keys")
            parts.append(await keys(sizes.keys, scratch, sizes.effort))
            progress("principals")
            parts.append(await principals(in_process, sizes.principals, sizes.effort))
            progress("kept records")
            parts.append(await kept_records(in_process, sizes.records, scratch, sizes.effort))
            name = in_process.deployment.policy.name
    return Report(name, machine(), parts)
