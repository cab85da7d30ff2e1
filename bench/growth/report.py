"""Every part of the growth test over one deployment, as plain data: what goes into the JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.growth.backlog import backlog
from bench.growth.in_process import open_in_process
from bench.growth.interleaved import Repetitions
from bench.growth.kept_records import kept_records
from bench.growth.part import GrowthPart
from bench.growth.principals import keys, principals
from bench.growth.rows import rows
from bench.machine import machine
from bench.output import StatusCallback


@dataclass(frozen=True, slots=True)
class GrowthSizes:
    """What is counted, from the size that the others are compared with."""

    principals: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    keys: tuple[int, ...] = (1_000, 10_000, 100_000)
    cases: tuple[int, ...] = (0, 1_000, 10_000, 100_000)
    rows: tuple[int, ...] = (1, 8, 32, 128)
    records: tuple[int, ...] = (1_000, 10_000, 100_000)
    repetitions: Repetitions = field(default_factory=lambda: Repetitions(rounds=60, calls=50))


@dataclass(frozen=True, slots=True)
class GrowthReport:
    """machine: with versions and commit."""

    deployment: str
    machine: dict[str, str]
    parts: list[GrowthPart]


async def measure_growth(folder: Path, sizes: GrowthSizes, show_status: StatusCallback) -> GrowthReport:
    """Raises PolicyError or ArtifactError as a gateway at start; OSError or ValueError without samples."""
    parts: list[GrowthPart] = []
    with TemporaryDirectory(prefix="growth-") as temporary:
        scratch = Path(temporary)
        async with open_in_process(folder, scratch) as in_process:
            show_status("rows a request")
            parts.append(await rows(in_process, sizes.rows, sizes.repetitions))
            show_status("waiting cases")
            parts.append(await backlog(in_process, sizes.cases, scratch, sizes.repetitions))
            show_status("keys")
            parts.append(await keys(sizes.keys, scratch, sizes.repetitions))
            show_status("principals")
            parts.append(await principals(in_process, sizes.principals, sizes.repetitions))
            show_status("kept records")
            parts.append(await kept_records(in_process, sizes.records, scratch, sizes.repetitions))
            name = in_process.deployment.policy.name
    return GrowthReport(name, machine(), parts)
