"""The resident memory of a server over many requests, a few of them large, and whether it goes on growing.

It grows at first: ten thousand records are kept, models and allocator reach their size. So the first fifth of
the requests is the warm-up, and the slope is of the rest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.growth.large import LARGE_INTERVAL, with_large
from bench.growth.server_process import ServerProcess, serve_copy
from bench.growth.slope import Slope, slope
from bench.load import LoadPlan, run_load
from bench.machine import machine
from bench.requests import RequestMix, render_requests
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from gateway.protocol.contract import MAX_BODY_BYTES

WARM_UP = 0.2
TOO_LARGE = "HTTP 413 too_large"

CountCallback = Callable[[int], None]
"""Gets the number of requests sent so far."""


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What to send. window_s: how long between two readings of the server's memory."""

    folder: Path
    requests: int
    connections: int = 16
    window_s: float = 2.0


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Resident bytes after so many requests."""

    requests: int
    rss: int


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """One run. large_bytes: of the largest body taken, and of the one refused; slope: bytes a request."""

    deployment: str
    machine: dict[str, str]
    elapsed_s: float
    large_share: float
    large_bytes: tuple[int, int]
    ends: dict[str, int]
    samples: list[MemorySample]
    slope: Slope

    @property
    def requests(self) -> int:
        return self.samples[-1].requests

    @property
    def warm_rss(self) -> int:
        return _warm(self.samples)[0].rss

    @property
    def failed(self) -> bool:
        """Whether anything came back but the four outcomes and the refusals that were provoked."""
        return any(end.startswith("error: ") for end in self.ends)


async def watch(settings: MemorySettings, progress: CountCallback) -> MemoryReport:
    """Raises WrongInput if the deployment cannot be served or has no samples."""
    with (
        TemporaryDirectory(prefix="growth-") as scratch,
        serve_copy(settings.folder, Path(scratch)) as server,
    ):
        requests = with_large(
            render_requests(server.target, server.folder, RequestMix(outliers=0.0)), _limit(server.folder)
        )
        start_s, ends = time.perf_counter(), Counter[str]()
        samples = await _sample(settings, server, requests, ends, progress)
        elapsed_s = time.perf_counter() - start_s
    warm = _warm(samples)
    figures = np.array([(one.requests, one.rss) for one in warm], np.float64)
    return MemoryReport(
        server.target.contract.model,
        machine(),
        elapsed_s,
        1 / LARGE_INTERVAL,
        (len(requests[0]), len(requests[LARGE_INTERVAL])),
        dict(ends),
        samples,
        slope(figures[:, 0], figures[:, 1]),
    )


async def _sample(
    settings: MemorySettings,
    server: ServerProcess,
    requests: Sequence[bytes],
    ends: Counter[str],
    progress: CountCallback,
) -> list[MemorySample]:
    samples = [MemorySample(0, server.resident_bytes())]
    while (sent := samples[-1].requests) < settings.requests:
        at = sent % len(requests)  # each window goes on where the last one ended
        window = [*requests[at:], *requests[:at]]
        plan = LoadPlan(
            server.target.origin, window, connections=settings.connections, seconds=settings.window_s
        )
        measurements, _ = await run_load(plan, 0.0)
        for (outcome, reason), latencies in measurements.latencies_s.items():
            ends[f"{outcome} {reason}"] += len(latencies)
        for kind, count in measurements.errors.items():
            ends["refused too_large" if kind == TOO_LARGE else f"error: {kind}"] += count
        samples.append(MemorySample(sent + measurements.requests, server.resident_bytes()))
        progress(samples[-1].requests)
    return samples


def _warm(samples: Sequence[MemorySample]) -> list[MemorySample]:
    return [one for one in samples if one.requests >= WARM_UP * samples[-1].requests]


def _limit(folder: Path) -> int:
    """The largest body that the deployment takes."""
    artifacts = load_artifacts(Deployment.read(folder))
    artifacts.close()
    return min(MAX_BODY_BYTES, artifacts.contract.body_limit_bytes)
