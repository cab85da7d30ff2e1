"""Audit lines: complete, one a row, and without any output of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given

from gateway.core.decision import (
    Decision,
    Deferred,
    Degraded,
    Finding,
    Outcome,
    Reason,
    Refused,
    Served,
    Verdict,
)
from gateway.core.pipeline import Pipeline
from gateway.telemetry.serialize import serialize_record, serialize_records
from tests.core.test_laws import decide, pipelines, xs
from tests.support.deployments import record_of

OUTPUT = {"probabilities": np.array([[0.25, 0.75]], np.float32)}
SERVED = Decision("d", Served(OUTPUT, "primary"))
FINDINGS = (
    Finding("rate", 0.25, Verdict.ALLOW, True, 0.000_012_4),
    Finding("ood", 5.5, Verdict.DEFER, True, 0.002, form="input_only"),
    Finding("watched", None, Verdict.REFUSE, False, 0.1, error="watched: no answer in 0.100 s"),
    Finding("infinite", float("inf"), Verdict.REFUSE, True, 0.0),
)


def line_fields(outcome: Outcome, *findings: Finding) -> dict[str, Any]:
    """The one line of a record of one row, as data."""
    (line,) = serialize_record(record_of(Decision("d", outcome, findings, "letters@1#0")))
    fields: dict[str, Any] = orjson.loads(line)
    return fields


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Served(OUTPUT, "primary"), {"outcome": "served", "by": "primary", "reason": "ok"}),
        (
            Degraded(OUTPUT, "small", Reason.UNAVAILABLE),
            {"outcome": "degraded", "by": "small", "reason": "unavailable"},
        ),
        (
            Deferred("d.0", Reason.ABSTAINED),
            {"outcome": "deferred", "ticket": "d.0", "reason": "abstained"},
        ),
        (
            Refused(Reason.RATE_LIMITED, 1.5),
            {"outcome": "refused", "reason": "rate_limited", "retry_after_s": 1.5},
        ),
        (
            Refused(Reason.DEADLINE),
            {"outcome": "refused", "reason": "deadline", "retry_after_s": None},
        ),
    ],
)
def test_a_line_states_the_outcome_of_its_row_and_the_reason(
    outcome: Outcome, expected: dict[str, Any]
) -> None:
    assert line_fields(outcome) == {
        "id": "d",
        "request": "d",
        "row": 0,
        "t": 1_700_000_000.0,
        "elapsed_ms": 12.5,
        "principal": "tester",
        "policy": "letters@1#0",
        "mode": "enforce",
        "findings": [],
        **expected,
    }


def test_a_line_holds_the_finding_of_every_stage() -> None:
    assert line_fields(Deferred("d", Reason.ABSTAINED), *FINDINGS)["findings"] == [
        {"stage": "rate", "verdict": "allow", "us": 12, "score": 0.25},
        {"stage": "ood", "verdict": "defer", "us": 2000, "score": 5.5, "form": "input_only"},
        {
            "stage": "watched",
            "verdict": "refuse",
            "us": 100_000,
            "enforced": False,
            "error": "watched: no answer in 0.100 s",
        },
        {"stage": "infinite", "verdict": "refuse", "us": 0, "score": None},
    ]


@given(pipelines(), xs)
def test_findings_serialised_by_stage_equal_those_serialised_row_by_row(
    pipeline: Pipeline, x: list[float]
) -> None:
    decisions = decide(pipeline, x)
    by_row = [decision._replace(findings=tuple(decision.findings)) for decision in decisions]
    assert serialize_record(record_of(*decisions)) == serialize_record(record_of(*by_row))
    alone = [record_of(decision) for decision in reversed(decisions)]
    lines = list(serialize_records(alone, {}))
    assert lines == [line for record in alone for line in serialize_record(record)]


def test_no_output_of_a_model_is_in_a_line() -> None:
    assert b"0.75" not in b"".join(serialize_record(record_of(SERVED)))
