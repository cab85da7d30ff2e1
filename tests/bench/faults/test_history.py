"""The checker finds each kind of violation that is planted in a good history, and nothing in that history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from bench.faults.cell import ANY, WITHHELD
from bench.faults.client import Exchange, Reply, Request
from bench.faults.history import (
    Violation,
    check_admitted,
    check_audit,
    check_records,
    check_replies,
    check_review,
    check_room,
)
from bench.faults.rules import Rules, unguarded
from gateway.core.decision import Verdict

RULES = Rules(
    0.5, "primary", {"rate": Verdict.ALLOW, "ood": Verdict.DEFER}, {"primary": ["sure"], "small": []}
)
ALLOWED = {"good": ANY, "outlier": WITHHELD}


def finding(stage: str, verdict: str = "allow", **more: str) -> dict[str, Any]:
    return {"stage": stage, "verdict": verdict, **more}


PASSED = [finding("rate"), finding("ood"), finding("primary"), finding("sure")]


def exchange(id_: str, end: str, status: int, kind: str = "good", **document: Any) -> Exchange:
    """One reply after 0.1 s; the decision id is that of the request."""
    outcome, _, reason = end.partition(" ")
    headers = {
        "x-failsafe-outcome": outcome,
        "x-failsafe-reason": reason,
        "x-failsafe-decision-id": id_,
    }
    if end == "served":
        document = {"outputs": []} | document
    request = Request(id_, kind, 1, b"")
    return Exchange(request, 10.0, 10.1, Reply(status, headers, {"id": id_} | document))


def record(id_: str, outcome: str, by: str = "", findings: Any = PASSED, **more: Any) -> dict[str, Any]:
    fields = {"id": id_, "request": id_, "row": 0, "elapsed_ms": 90.0}
    return fields | {"outcome": outcome, "by": by, "findings": findings} | more


def deferred(id_: str) -> Exchange:
    urls = {"fs_review_urls": f"/v2/models/m/reviews/{id_}"}
    return exchange(id_, "deferred", 422, "outlier", parameters=urls)


SERVED, DEFERRED = exchange("a", "served", 200), deferred("b")
RECORDS = [record("a", "served", "primary"), record("b", "deferred", findings=[finding("ood", "defer")])]


def kinds(found: Iterable[Violation]) -> set[str]:
    return {one.kind for one in found}


def test_a_good_history_has_no_violation() -> None:
    exchanges = [SERVED, DEFERRED]
    assert not kinds(check_replies(exchanges, RULES, ALLOWED))
    assert not kinds(check_records(exchanges, RECORDS, RULES))
    assert not kinds(check_review(exchanges, ["b"]))
    assert not kinds(check_audit(RECORDS, RECORDS))
    assert not kinds(check_admitted(exchanges, 2))


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (replace(SERVED, reply=None, error="EOFError"), "no outcome"),
        (replace(SERVED, reply=None, error="ConnectionRefusedError", opened=True), "not connected"),
        (exchange("a", "served", 503), "wrong code"),
        (exchange("a", "refused unavailable", 504), "wrong code"),
        (exchange("a", "refused whatever", 503), "wrong code"),
        (exchange("a", "", 500), "wrong code"),
        (exchange("a", "served", 200, id="another"), "wrong code"),
        (exchange("a", "served", 200, "outlier"), "wrong code"),
        (exchange("a", "deferred", 422, outputs=[]), "unguarded"),
        (replace(SERVED, ended_s=10.56), "late"),
    ],
)
def test_finds_a_reply_that_is(planted: Exchange, kind: str) -> None:
    assert kinds(check_replies([planted], RULES, ALLOWED)) == {kind}


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        ([], "unrecorded"),
        ([RECORDS[0], RECORDS[0]], "unrecorded"),
        ([record("a", "degraded", "small", [*PASSED[:2], finding("small")])], "unrecorded"),
        ([record("a", "served", "primary", elapsed_ms=510.0)], "answered late"),
        ([record("a", "served", "primary", PASSED[1:])], "unguarded"),
    ],
)
def test_finds_a_record_that_contradicts_the_reply(records: list[dict[str, Any]], kind: str) -> None:
    assert kinds(check_records([SERVED], records, RULES)) == {kind}


@pytest.mark.parametrize(
    ("findings", "what"),
    [
        ([finding("rate"), finding("primary"), finding("sure")], "served past ood"),
        ([finding("rate"), finding("ood", "degrade"), *PASSED[2:]], "served past ood"),
        ([finding("rate"), finding("ood", error="NaN"), *PASSED[2:]], "ood failed, and its row went on"),
        ([*PASSED[:2], finding("primary", "degrade"), finding("sure")], "served past primary"),
        (PASSED[:3], "served past sure"),
        ([*PASSED[:3], finding("sure", "degrade")], "served past sure"),
    ],
)
def test_finds_an_answer_past_a_stage(findings: list[dict[str, Any]], what: str) -> None:
    assert list(unguarded(record("a", "served", "primary", findings), RULES)) == [what]


def test_finds_an_answer_under_the_name_of_another_rung() -> None:
    small = [*PASSED[:2], finding("small")]
    assert not list(unguarded(record("a", "degraded", "small", small), RULES))
    assert list(unguarded(record("a", "served", "small", small), RULES)) == ["served by small"]


def test_a_guard_that_fails_open_by_its_policy_lets_rows_pass() -> None:
    findings = [finding("rate", error="NaN"), *PASSED[1:]]
    assert not list(unguarded(record("a", "served", "primary", findings), RULES))


def test_finds_cases_that_are_lost_in_vain_and_doubled() -> None:
    assert kinds(check_review([DEFERRED], [])) == {"lost"}
    assert kinds(check_review([SERVED], ["c"])) == {"in vain"}
    assert kinds(check_review([DEFERRED], ["b", "b"])) == {"doubled"}
    assert kinds(check_review([DEFERRED, DEFERRED], ["b"])) == {"doubled"}


def test_a_gap_of_the_audit_log_has_to_be_stated() -> None:
    assert kinds(check_audit(RECORDS, RECORDS[:1])) == {"audit gap"}
    assert not kinds(check_audit(RECORDS, [{"gap": 1}, RECORDS[0]]))
    assert kinds(check_audit(RECORDS, [*RECORDS, RECORDS[0]])) == {"audit gap"}
    refused = [record("a", "refused")]
    assert not kinds(check_audit(refused, []))  # many of these are counted in one line


def test_finds_more_rows_than_a_limit_lets_in() -> None:
    limited = exchange("c", "refused rate_limited", 429)
    assert kinds(check_admitted([SERVED, SERVED, limited], 1)) == {"over-admitted"}
    assert not kinds(check_admitted([SERVED, limited, limited], 1))
    assert kinds(check_room([DEFERRED, deferred("c")], 1)) == {"over-admitted"}
    assert not kinds(check_room([DEFERRED, SERVED], 1))
