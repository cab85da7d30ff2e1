"""The bytes of the audit log and of /metrics are those that were recorded before the sinks were made."""

from __future__ import annotations

from pathlib import Path

from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.metrics import Telemetry
from tests.telemetry.sample_records import TRAIL, sample_records

RECORDED = Path(__file__).parent / "recorded"


def test_audit_lines_are_identical_to_the_recorded_ones(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
    for record in sample_records():
        audit.take(record)
    audit.drain()
    assert (tmp_path / "log.jsonl").read_bytes() == (RECORDED / "audit.jsonl").read_bytes()


def test_metrics_text_is_identical_to_the_recorded_one() -> None:
    telemetry = Telemetry("letters", "replica-1")
    telemetry.add_pass(TRAIL)
    telemetry.add_pass(TRAIL)
    telemetry.accept(sample_records())
    assert telemetry.prometheus() == (RECORDED / "metrics.txt").read_bytes()
    telemetry.close()
