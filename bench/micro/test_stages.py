"""Every stage at every size, timed by pytest-benchmark. `python -m bench.micro` runs this."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.deployment_under_test import MAX_ROWS
from bench.micro.fixture import FASHION_FOLDER, MicroFixture
from bench.micro.stages import stages
from bench.micro.workload import calls_a_round, repeat
from gateway.deployment.deployment import Deployment

ROUNDS, WARM_UP = 40, 2
SIZES = (1, 8, 32, MAX_ROWS)
STAGES = stages(Deployment.read(FASHION_FOLDER).policy)


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("stage", STAGES)
def test_stage(benchmark: BenchmarkFixture, fixture: MicroFixture, stage: str, rows: int) -> None:
    """Times many calls at once: divide by `requests`, which is how many requests that were."""
    workload = STAGES[stage](fixture, rows)
    calls = calls_a_round(workload, fixture.loop)
    benchmark.group = f"{rows} rows"
    benchmark.extra_info.update(stage=stage, rows=rows, requests=calls * workload.requests)
    result = benchmark.pedantic(  # type: ignore[no-untyped-call]
        repeat, (workload, calls, fixture.loop), rounds=ROUNDS, warmup_rounds=WARM_UP, iterations=1
    )
    assert result is not None
