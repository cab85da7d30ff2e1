"""Chooses the rows to send: those of which it is known how they end with the primary, and without it.

They are decided by the deployment's pipeline in this process, where every part has a minute: which rows are
chosen does not depend on how busy the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.deployment_under_test import DeploymentUnderTest
from bench.faults.rows import Candidates


async def choose(folder: Path, candidates: Candidates) -> tuple[Sequence[int], Sequence[int]]:
    """Indices of good rows, which are served, and degraded without the primary; and of outliers.

    A guard stops each outlier in both cases. Cost: two passes of every candidate.
    """
    deployment = await asyncio.to_thread(DeploymentUnderTest.open, folder)
    try:
        good, outliers = candidates.good[deployment.source], candidates.outliers[deployment.source]
        healthy, broken = await deployment.decide(good), await deployment.decide(good, broken=True)
        served = (healthy.outcome == "served") & (broken.outcome == "degraded")
        healthy, broken = await deployment.decide(outliers), await deployment.decide(outliers, broken=True)
        deferred = (healthy.outcome == "deferred") & (broken.outcome == "deferred")
        return _indices(served), _indices(deferred & healthy.stopped & broken.stopped)
    finally:
        deployment.artifacts.close()


def _indices(mask: NDArray[np.bool_]) -> Sequence[int]:
    return [int(i) for i in np.flatnonzero(mask)]
