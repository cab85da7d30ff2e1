"""Finished requests as JSON lines, one a row, with everything needed to explain the row; and administrators'
acts, one a line. Pure functions.

The rows of one pass share its stages: names, times and columns of scores. So the findings of a pass are
converted once, stage by stage, and kept while the rows of that pass are serialised, even for several
requests. So a row of a batch costs half as much as one that was decided alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, assert_never

import orjson

from gateway.core.assessment import Assessment, Findings, Trail
from gateway.core.decision import (
    VERDICT_NAMES,
    Deferred,
    Degraded,
    Finding,
    Outcome,
    Refused,
    Served,
    Verdict,
)
from gateway.core.record import AdminAct, RequestRecord

Fields: TypeAlias = dict[str, Any]
PassCache: TypeAlias = dict[int, tuple[Trail, list[list[Fields]]]]
"""By the `id()` of a pass's trail: the trail, which keeps that id its own, and the findings of each row."""


def serialize_record(record: RequestRecord) -> list[bytes]:
    """The rows of one request as JSON lines, without line ends. Cost: 14 us a row that was decided alone."""
    return list(serialize_records([record], {}))


def serialize_act(act: AdminAct) -> bytes:
    """An act as a JSON line, without its end. It has a field `act`, which no line of a row has."""
    return orjson.dumps(
        {
            "act": act.act,
            "t": act.at_s,
            "person": act.person,
            "on": act.on,
            "address": act.address,
            "done": act.done,
        }
    )


def serialize_records(records: Sequence[RequestRecord], cache: PassCache) -> Iterator[bytes]:
    """The rows of several requests as JSON lines, in order, as `serialize_rows` does."""
    for record in records:
        yield from serialize_rows(record, range(len(record.decisions)), cache)


def serialize_rows(record: RequestRecord, rows: Iterable[int], cache: PassCache) -> Iterator[bytes]:
    """Some rows of one request as JSON lines. Cost: 6 us a row of a batch.

    Args:    cache: findings that were converted before; what is converted now is added to it.
    Raises:  TypeError where a text is no Unicode (a lone surrogate).
    """
    for row in rows:
        decision = record.decisions[row]
        yield orjson.dumps(
            {
                "id": decision.id,
                "request": record.id,
                "row": row,
                "t": record.received_s,
                "elapsed_ms": round(record.elapsed_s * 1e3, 3),
                "principal": record.principal,
                "policy": record.policy,
                "mode": record.mode,
                **_outcome_fields(decision.outcome),
                "findings": _findings_fields(decision.findings, cache),
            }
        )


def _outcome_fields(outcome: Outcome) -> Fields:
    match outcome:
        case Served(by=by):
            return {"outcome": "served", "by": by, "reason": "ok"}
        case Degraded(by=by, reason=reason):
            return {"outcome": "degraded", "by": by, "reason": reason}
        case Deferred(ticket, reason):
            return {"outcome": "deferred", "ticket": ticket, "reason": reason}
        case Refused(reason, retry_after_s):
            return {"outcome": "refused", "reason": reason, "retry_after_s": retry_after_s}
        case _:
            assert_never(outcome)


def _findings_fields(findings: Sequence[Finding], cache: PassCache) -> list[Fields]:
    """The findings of one row, one a stage."""
    if not isinstance(findings, Findings):
        return [_finding_fields(*finding) for finding in findings]
    trail = findings.trail
    if id(trail) not in cache:
        cache[id(trail)] = trail, _fields_by_row(trail)
    _, rows = cache[id(trail)]
    return rows[findings.row] if findings.row < len(rows) else []


def _fields_by_row(trail: Trail) -> list[list[Fields]]:
    """The findings of a pass: a list for each row of the batch, with one entry for each stage it reached."""
    n = max((int(rows[-1]) + 1 for rows, _ in trail if len(rows)), default=0)
    by_row: list[list[Fields]] = [[] for _ in range(n)]
    for rows, assessment in trail:
        reached = by_row if len(rows) == n else [by_row[row] for row in rows.tolist()]
        for row, fields in zip(reached, _stage_fields(assessment), strict=True):
            row.append(fields)
    return by_row


def _stage_fields(assessment: Assessment) -> list[Fields]:
    """The findings of one stage: an entry for each row that reached it."""
    scores, stage = assessment.scores.tolist(), assessment.stage
    us = round(assessment.elapsed_s * 1e6)
    if assessment.enforced and not (assessment.errors or assessment.input_only_rows):
        return [
            {"stage": stage, "verdict": VERDICT_NAMES[verdict], "us": us, "score": score}
            if score == score  # not NaN
            else {"stage": stage, "verdict": VERDICT_NAMES[verdict], "us": us}
            for score, verdict in zip(scores, assessment.verdicts.tolist(), strict=True)
        ]
    return [_finding_fields(*assessment.finding(i)) for i in range(len(scores))]


def _finding_fields(
    stage: str,
    score: float | None,
    verdict: Verdict,
    enforced: bool,
    elapsed_s: float,
    form: str,
    error: str | None,
) -> Fields:
    """One finding; fields with their default value are left out."""
    fields: Fields = {"stage": stage, "verdict": VERDICT_NAMES[verdict], "us": round(elapsed_s * 1e6)}
    if score is not None:
        fields["score"] = score
    if form != "full":
        fields["form"] = form
    if not enforced:
        fields["enforced"] = False
    if error is not None:
        fields["error"] = error.encode("utf-8", "replace").decode()
    return fields
