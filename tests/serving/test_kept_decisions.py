"""What is kept of finished requests for `GET /decisions/{id}`: bounded in bytes, and without outputs."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gateway.core.batch import Batch
from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served
from gateway.core.record import RequestRecord, without_outputs
from gateway.telemetry.audit import RECORD_BYTES, ROW_BYTES, Audit
from gateway.telemetry.json_lines import JsonLinesSink
from tests.support.data_planes import plane_of
from tests.support.deployments import FULL_RATE, clean_rows, key_for, letters

OUTPUT = {"probabilities": np.ones((1, 4), np.float32)}


def record(name: str, rows: int) -> RequestRecord:
    decisions = [Decision(f"{name}.{row}", Served(OUTPUT, "primary")) for row in range(rows)]
    return RequestRecord(name, "ada", "p", "enforce", 0.0, 0.01, without_outputs(decisions))


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (Served(OUTPUT, "primary"), Served({}, "primary")),
        (Degraded(OUTPUT, "small", Reason.ABSTAINED), Degraded({}, "small", Reason.ABSTAINED)),
        (Deferred("c", Reason.ABSTAINED), Deferred("c", Reason.ABSTAINED)),
        (Refused(Reason.RATE_LIMITED, 1.5), Refused(Reason.RATE_LIMITED, 1.5)),
    ],
)
def test_a_kept_decision_is_the_same_without_its_outputs(outcome: Outcome, kept: Outcome) -> None:
    assert without_outputs([Decision("a", outcome, (), "p@1")]) == (Decision("a", kept, (), "p@1"),)


def test_records_of_many_rows_push_out_as_many_old_ones_as_they_take_room(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log")], keep_bytes=10 * RECORD_BYTES + 10 * ROW_BYTES)
    for i in range(20):
        audit.take(record(f"small{i}", 1))
    assert [audit.find(f"small{i}") is not None for i in range(20)] == [False] * 10 + [True] * 10
    audit.take(record("large", 9))
    assert audit.find("large") is not None
    assert [audit.find(f"small{i}") is not None for i in range(10, 20)] == [False] * 5 + [True] * 5
    audit.take(record("larger than the bound", 30))
    assert audit.kept_bytes == 0


def test_a_record_that_comes_twice_counts_once(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log")])
    audit.take(record("a", 3))
    audit.take(record("a", 1))
    assert audit.kept_bytes == RECORD_BYTES + ROW_BYTES


def test_a_buffer_for_a_sink_is_bounded_in_rows(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log")], buffer=10)
    for i in range(5):
        audit.take(record(f"{i}", 4))
    assert audit.lost == 2
    audit.drain()
    audit.take(record("after", 4))
    assert audit.lost == 2


def test_a_decision_that_is_kept_keeps_no_output_of_the_model_in_memory(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, history=False)  # which keeps those of the last rows for a while
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:
        answers: list[weakref.ref[Any]] = []
        decide = plane.gateway.decide

        async def remember(batch: Batch, priority: int = 1) -> list[Decision]:
            decisions = await decide(batch, priority)
            for one in decisions:
                if isinstance(one.outcome, Served):
                    # Of a row, as of every view, the array that owns the memory is what must be given back.
                    answers.extend(weakref.ref(cast(Any, a.base)) for a in one.outcome.output.values())
            return decisions

        plane.gateway.decide = remember  # type: ignore[method-assign]

        async def main() -> None:
            asked = await plane.ada.infer(clean_rows(8))
            assert asked.status == 200
            found = plane.gateway.audit.find(asked.parameters["fs_decision_id"])
            assert found is not None and len(list(found.decisions[0].findings)) > 0
            del asked

        plane.run(main)
        gc.collect()
        assert answers
        assert [one() for one in answers if one() is not None] == []
