"""The resident memory of a server over many requests, a few of them large: does it grow without end?

At first it must: ten thousand records are kept, models and allocator reach their size. So the first fifth of
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

from bench.growth.large import EVERY, with_large
from bench.growth.server import Server, serving
from bench.growth.slope import Slope, slope
from bench.load import Plan, run
from bench.machine import machine
from bench.requests import Mix, render
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from gateway.protocol.contract import MAX_BODY_BYTES

WARM_UP = 0.2
TOO_LARGE = "HTTP 413 too_large"

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What to send. window_s: how long between two looks at the server's memory."""

    folder: Path
    requests: int
    connections: int = 16
    window_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident bytes after so many requests."""

    requests: int
    rss: int


@dataclass(frozen=True, slots=True)
class Memory:
    """One run. large_bytes: of the largest body taken, and of the one refused; slope: bytes a request."""

    deployment: str
    machine: dict[str, str]
    elapsed_s: float
    large_share: float
    large_bytes: tuple[int, int]
    ends: dict[str, int]
    samples: list[Sample]
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


async def watch(settings: MemorySettings, progress: Progress) -> Memory:
    """Raises WrongInput if the deployment cannot be served or has no samples."""
    with TemporaryDirectory(prefix="growth-") as scratch, serving(settings.folder, Path(scratch)) as server:
        requests = with_large(render(server.target, server.folder, Mix(outliers=0.0)), _limit(server.folder))
        start_s, ends = time.perf_counter(), Counter[str]()
        samples = await _sample(settings, server, requests, ends, progress)
        elapsed_s = time.perf_counter() - start_s
    warm = _warm(samples)
    figures = np.array([(one.requests, one.rss) for one in warm], np.float64)
    return Memory(
        server.target.model,
        machine(),
        elapsed_s,
        1 / EVERY,
        (len(requests[0]), len(requests[EVERY])),
        dict(ends),
        samples,
        slope(figures[:, 0], figures[:, 1]),
    )


async def _sample(
    settings: MemorySettings,
    server: Server,
    requests: Sequence[bytes],
    ends: Counter[str],
    progress: Progress,
) -> list[Sample]:
    samples = [Sample(0, server.resident_bytes())]
    while (sent := samples[-1].requests) < settings.requests:
        at = sent % len(requests)  # each window goes on where the last one ended
        window = [*requests[at:], *requests[:at]]
        plan = Plan(server.target.origin, window, connections=settings.connections, seconds=settings.window_s)
        measurements, _ = await run(plan, 0.0)
        for (outcome, reason), latencies in measurements.latencies_s.items():
            ends[f"{outcome} {reason}"] += len(latencies)
        for kind, count in measurements.errors.items():
            ends["refused too_large" if kind == TOO_LARGE else f"error: {kind}"] += count
        samples.append(Sample(sent + measurements.requests, server.resident_bytes()))
        progress(samples[-1].requests)
    return samples


def _warm(samples: Sequence[Sample]) -> list[Sample]:
    return [one for one in samples if one.requests >= WARM_UP * samples[-1].requests]


def _limit(folder: Path) -> int:
    """The largest body that the deployment takes."""
    artifacts = load_artifacts(Deployment.read(folder))
    artifacts.close()
    return min(MAX_BODY_BYTES, artifacts.contract.body_limit_bytes)
