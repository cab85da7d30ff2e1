"""The workload of every micro-benchmark runs once on one real row and computes what its name states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from bench.micro.fixture import FASHION_FOLDER, MicroFixture, open_fixture
from bench.micro.results import MicroReport, StageCost, table
from bench.micro.stages import FORWARD, stages
from bench.micro.workload import AsyncWorkload, SyncWorkload, Workload, calls_a_round, repeat
from gateway.core.decision import Served, Verdict
from gateway.core.model import Forward
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.squeeze import FittedSqueeze
from tests.support.wire_parts import json_of

STAGES = stages(Deployment.read(FASHION_FOLDER).policy)
CLASSES = 10


@pytest.fixture(scope="module")
def fixture() -> Iterator[MicroFixture]:
    with open_fixture() as deployment:
        yield deployment


def _request(found: Any) -> bool:
    array = found.inputs["image"]
    return bool(found.rows == 1 and array.shape == (1, 1, 28, 28) and array.max() > 0.5)


def _outputs(found: Any) -> bool:
    arrays = list(found.values()) if isinstance(found, dict) else found
    return sorted(array.shape for array in arrays) == [(1, CLASSES), (1, CLASSES), (1, 96)]


def _forward(found: Forward) -> bool:
    return bool(found.ok.all() and found.error is None and _outputs(dict(found.outputs)))


def _score(found: Any) -> bool:
    return bool(found.shape == (1,) and np.isfinite(found).all())


def _allowed(found: Any) -> bool:
    return bool(found.verdicts.tolist() == [Verdict.ALLOW] and not found.errors)


def _served(found: Any) -> bool:
    (decision,) = found
    kept = [finding.error for finding in decision.findings] == [None] * 6  # four guards, one rung, one check
    return isinstance(decision.outcome, Served) and kept


def _answer(found: Any) -> bool:
    return bool(found.status == 200 and json_of(found)["outputs"][0]["shape"] == [1, CLASSES])


def _line(found: Any) -> bool:
    return len(found) == 1 and len(orjson.loads(found[0])["findings"]) == 6


COMPUTES: dict[str, Callable[[Any], bool]] = {
    "parse": _request,
    FORWARD: _outputs,
    "forward pass through": _outputs,
    "the same with breaker": _forward,
    "budget": lambda found: found is True,
    "guard ood with": _allowed,
    "guard": _score,
    "measured ahead": lambda found: found.shape == (1, 2),
    "measured with": lambda found: found.shape == (1, 5),
    "check": _score,
    "pipeline.decide": _served,
    "reply": _answer,
    "audit: take": lambda found: (
        found is not None and found.id.endswith("2710")
    ),  # the ten thousand and first
    "audit: serialize": _line,
    "telemetry": lambda found: b'outcome="served"' in found.prometheus(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_workload_computes_what_its_name_states(fixture: MicroFixture, stage: str) -> None:
    body = STAGES[stage](fixture, 1)
    computes = next(check for name, check in COMPUTES.items() if stage.startswith(name))
    assert computes(repeat(body, 1, fixture.loop))


def test_what_all_guards_share_and_every_guard_of_the_policy_are_measured(fixture: MicroFixture) -> None:
    assert sum(name.startswith("measured ") for name in STAGES) == 2
    for guard in fixture.deployment.pipeline.guards:
        assert any(name.startswith(f"guard {guard.name}") for name in STAGES)
    assert [f"budget {one.name}" in STAGES for one in fixture.deployment.pipeline.budgets] == [True]


def test_only_triggered_rows_need_the_model_again(fixture: MicroFixture) -> None:
    guards = fixture.deployment.artifacts.fitted.guards.values()
    (squeeze,) = (one.squeeze for one in guards if isinstance(one, FittedSqueeze))
    model = fixture.deployment.artifacts.models[fixture.deployment.primary]
    for rows, triggers in ((fixture.quiet, False), (fixture.to_squeeze, True)):
        features = model.run(fixture.inputs(rows[:128]))["features"]
        assert len(rows) >= 128 and (squeeze.to_squeeze(features) == triggers).all()


@pytest.mark.parametrize("kind", [SyncWorkload, AsyncWorkload])
def test_a_workload_is_called_as_often_as_the_timing_states(
    fixture: MicroFixture, kind: type[SyncWorkload | AsyncWorkload]
) -> None:
    called: list[int] = []

    def plain() -> int:
        called.append(1)
        return len(called)

    async def awaited() -> int:
        return plain()

    body: Workload = SyncWorkload(plain) if kind is SyncWorkload else AsyncWorkload(awaited)
    assert repeat(body, 7, fixture.loop) == len(called) == 7
    assert calls_a_round(body, fixture.loop) > 100


def _found(stage: str, rows: int, seconds: float, requests: int) -> dict[str, Any]:
    info = {"stage": stage, "rows": rows, "requests": requests}
    return {"extra_info": info, "stats": {"median": seconds, "iqr": seconds / 10}}


def test_costs_are_reported_per_request_and_against_the_forward_pass_at_the_same_size() -> None:
    benchmarks = [_found(FORWARD, 1, 0.02, 10), _found(FORWARD, 8, 0.02, 2), _found("parse", 8, 0.04, 8)]
    report = MicroReport.of({"benchmarks": benchmarks})
    parse = report.costs[-1]
    assert (parse.stage, parse.rows) == ("parse", 8)
    assert parse.median_us == pytest.approx(5000) and parse.iqr_us == pytest.approx(500)
    assert parse.share == pytest.approx(0.5)
    whole = replace(report, costs=[*report.costs, StageCost("parse", 1, 1.0, 0.1, 0.5)])
    assert table(whole).row_count == 2
