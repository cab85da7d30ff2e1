"""A caller with a key before and during each attack: what share is answered, how quickly, at what cost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from bench.growth.server_process import ServerProcess
from bench.load import LoadPlan, run_load
from bench.measurements import LatencySummary, Measurements
from bench.under_attack.attacker import AttackPlan

WARM_UP_S = 1.0
MiB = 2**20


@dataclass(frozen=True, slots=True)
class UnderAttack:
    """One attack. idle, during: latencies in ms of the caller with a key; answered: its share of requests.

    resident_mib, var_mib: of the server before and at most during the attack, and of what it has written.
    ends: of the attacker's own requests or connections.
    """

    attack: str
    idle: LatencySummary
    during: LatencySummary
    answered: float
    resident_mib: tuple[float, float]
    var_mib: tuple[float, float]
    ends: Mapping[str, int]

    @property
    def p99_ratio(self) -> float:
        return self.during.p99 / self.idle.p99


async def capacity(plan: LoadPlan) -> float:
    """Requests a second of a closed loop."""
    measurements, seconds = await run_load(plan, WARM_UP_S)
    return measurements.requests / seconds


async def under_attack(
    name: str, attack: AttackPlan, good: LoadPlan, idle_s: float, server: ServerProcess, scratch: Path
) -> UnderAttack:
    """Measures the caller alone, then beside the attack, which begins a little earlier and ends later."""
    idle, _ = await run_load(replace(good, seconds=idle_s), WARM_UP_S)
    before = server.resident_bytes(), _var_bytes(server.folder)
    path = scratch / "plan.json"
    path.write_bytes(orjson.dumps({**asdict(attack), "seconds": attack.seconds + 2 * WARM_UP_S}))
    command = [sys.executable, "-m", "bench.under_attack.attacker", str(path)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603, ASYNC220 (our own command)
    most = [0]
    watching = asyncio.create_task(_watch(server.resident_bytes, most))
    try:
        during, _ = await run_load(replace(good, seconds=attack.seconds), WARM_UP_S)
        ends = orjson.loads((await asyncio.to_thread(attacker.communicate))[0])
    finally:
        watching.cancel()
        attacker.kill()
        attacker.wait()
    return UnderAttack(
        name,
        LatencySummary.of(idle.all_s()),
        LatencySummary.of(during.all_s()),
        _answered(during),
        (before[0] / MiB, most[0] / MiB),
        (before[1] / MiB, _var_bytes(server.folder) / MiB),
        ends,
    )


async def _watch(resident_bytes: Callable[[], int], most: list[int]) -> None:
    while True:
        most[0] = max(most[0], resident_bytes())
        await asyncio.sleep(0.5)


def _var_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "var").rglob("*") if path.is_file())


def _answered(measurements: Measurements) -> float:
    """The share of requests that were answered, or are with a reviewer."""
    ended = {key: len(series) for key, series in measurements.latencies_s.items()}
    answered = sum(n for (outcome, _), n in ended.items() if outcome in ("served", "degraded", "deferred"))
    return answered / measurements.requests
