"""Refused rows in the audit log: a few in full, the rest as counts; and how much of the log is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served
from gateway.core.record import RequestRecord
from gateway.telemetry import line_file, refusal_counts
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.line_file import LineFile
from gateway.telemetry.refusal_counts import FULL_ROWS, OTHERS

OUTPUT = {"probabilities": np.array([[0.25, 0.75]], np.float32)}
SECOND = 1_700_000_000


def record(*outcomes: Outcome, who: str = "ada", at_s: float = SECOND) -> RequestRecord:
    rows = tuple(Decision(f"d.{i}", outcome) for i, outcome in enumerate(outcomes))
    return RequestRecord("d", who, "letters@1#0", "enforce", at_s, 0.01, rows)


def logged(tmp_path: Path, *records: RequestRecord) -> list[dict[str, Any]]:
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
    for one in records:
        audit.take(one)
    audit.drain()
    assert audit.lost == 0
    return [orjson.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("reason", [r for r in Reason if r is not Reason.OK])
def test_refused_rows_in_masses_are_one_line_with_their_number_and_times(
    tmp_path: Path, reason: Reason
) -> None:
    many = [Refused(reason)] * 128
    lines = logged(tmp_path, *(record(*many, at_s=SECOND + i / 10) for i in range(10)))
    assert [line["row"] for line in lines[:-1]] == list(range(FULL_ROWS))
    assert lines[-1] == {
        "refused_rows": 1280 - FULL_ROWS,
        "reason": str(reason),
        "principal": "ada",
        "policy": "letters@1#0",
        "mode": "enforce",
        "t": SECOND,
        "last_t": SECOND + 0.9,
    }


def test_the_rows_of_a_refused_and_answered_batch_that_are_answered_have_a_line_each(tmp_path: Path) -> None:
    answered: list[Outcome] = [Served(OUTPUT, "primary"), Degraded(OUTPUT, "small", Reason.ABSTAINED)] * 20
    mixed = [*answered, *[Refused(Reason.ABSTAINED)] * 30, *[Deferred("t", Reason.ABSTAINED)] * 20]
    lines = logged(tmp_path, record(*mixed))
    ends = [line["outcome"] for line in lines if "outcome" in line]
    assert {end: ends.count(end) for end in ends} == {
        "served": 20, "degraded": 20, "deferred": 20, "refused": FULL_ROWS
    }  # fmt: skip
    assert [line["refused_rows"] for line in lines if "refused_rows" in line] == [30 - FULL_ROWS]


def test_each_caller_and_reason_is_counted_by_itself(tmp_path: Path) -> None:
    rate, abstained = [Refused(Reason.RATE_LIMITED)] * 10, [Refused(Reason.ABSTAINED)] * 20
    lines = logged(tmp_path, record(*rate, *abstained), record(*rate, who="grace"))
    counts = {(o["principal"], o["reason"]): o["refused_rows"] for o in lines if "refused_rows" in o}
    assert counts == {
        ("ada", "rate_limited"): 10 - FULL_ROWS,
        ("ada", "abstained"): 20 - FULL_ROWS,
        ("grace", "rate_limited"): 10 - FULL_ROWS,
    }


def test_each_second_begins_with_rows_in_full(tmp_path: Path) -> None:
    many = [Refused(Reason.ABSTAINED)] * 50
    lines = logged(tmp_path, *(record(*many, at_s=SECOND + i) for i in range(3)))
    assert sum("row" in line for line in lines) == 3 * FULL_ROWS
    assert sum(line.get("refused_rows", 0) for line in lines) == 3 * (50 - FULL_ROWS)


def test_more_callers_than_are_told_apart_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_counts, "GROUPS", 3)
    many = [Refused(Reason.RATE_LIMITED)] * 10
    lines = logged(tmp_path, *(record(*many, who=f"anonymous@127.0.0.{i}") for i in range(9)))
    counts = {line["principal"]: line["refused_rows"] for line in lines if "refused_rows" in line}
    assert len(counts) == 4
    assert sum("row" in line for line in lines) + sum(counts.values()) == 90
    assert counts[OTHERS] >= 6 * 10 - FULL_ROWS


def test_a_row_that_cannot_be_written_is_a_gap_and_changes_no_count(tmp_path: Path) -> None:
    audit = Audit([JsonLinesSink(tmp_path / "log.jsonl")])
    many = [Refused(Reason.ABSTAINED)] * 20
    audit.take(record(*many))
    audit.take(record(Served(OUTPUT, "\ud800")))
    audit.drain()
    lines = [orjson.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    in_full = sum("row" in line for line in lines)
    assert in_full + sum(line.get("refused_rows", 0) for line in lines) == 20
    assert audit.lost == 1


def test_a_principal_that_is_no_unicode_is_counted(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "log.jsonl")
    sink.accept([record(*[Refused(Reason.ABSTAINED)] * FULL_ROWS)])
    sink.flush(0)
    counts = refusal_counts.RefusalCounts()
    counts.add(record(Refused(Reason.ABSTAINED), who="anonymous@\ud800"), [])
    assert orjson.loads(counts.take_lines()[0])["principal"] == "anonymous@?"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], LineFile]:
    monkeypatch.setattr(line_file, "ROTATE_BYTES", 1000)

    def make(keep_bytes: int, name: str) -> LineFile:
        return LineFile(tmp_path / f"decisions-{name}.jsonl", keep_bytes, "decisions-*.jsonl")

    return make


def test_the_oldest_files_go_when_the_log_has_more_than_is_kept(
    tmp_path: Path, small: Callable[[int, str], LineFile]
) -> None:
    log = small(5000, "now")
    for i in range(100):
        log.append([b'{"n":%d}' % i + b" " * 200])
    kept = sorted(tmp_path.iterdir())
    assert sum(path.stat().st_size for path in kept) <= 5000 + 2 * 1000
    numbers = {orjson.loads(line)["n"] for path in kept for line in path.read_bytes().splitlines()}
    assert numbers == set(range(min(numbers), 100)), "the newest lines are there without a gap"


def test_files_of_earlier_starts_count_and_go_first_and_other_files_stay(
    tmp_path: Path, small: Callable[[int, str], LineFile]
) -> None:
    for age, name in ((300, "decisions-a.jsonl"), (200, "decisions-b.1.jsonl"), (100, "keys.jsonl")):
        (tmp_path / name).write_bytes(b"x" * 3000)
        os.utime(tmp_path / name, (SECOND - age, SECOND - age))
    small(5000, "now").append([b"{}"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "decisions-b.1.jsonl",
        "decisions-now.jsonl",
        "keys.jsonl",
    ]


def test_the_file_that_is_written_is_never_deleted(
    tmp_path: Path, small: Callable[[int, str], LineFile]
) -> None:
    log = small(10, "now")
    log.append([b"x" * 500])
    log.append([b"y" * 100])
    assert (tmp_path / "decisions-now.jsonl").read_bytes() == b"x" * 500 + b"\n" + b"y" * 100 + b"\n"
