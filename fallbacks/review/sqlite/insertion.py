"""Stores one case in an open write transaction, if quotas allow: a case of its own, or a row of an open one.

A row joins the case of an identical one only if both are the same caller's. Across callers it would tell one
of them, by how soon the answer comes and by what still has room, that another has sent the very same row.

The statements run at the driver's cursor. This is the one place where that counts: rows are put in the middle
of the request path, the interpreter's time is what limits a replica, and SQLAlchemy Core takes 18 us a
statement and 35 us a transaction where the driver takes 2.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from fallbacks.review.cases import Case
from fallbacks.review.quotas import MEMBER_BYTES, PutResult, Quotas, Share, check_room
from fallbacks.review.sqlite.statements import EXPIRE_BYTES, EXPIRE_SQL

Run: TypeAlias = Callable[[str, dict[str, Any]], sqlite3.Cursor]
"""Runs one statement in the open transaction."""

MAX_MEMBERS: Final = 1000
"""The most rows that join one case. The next identical row opens a case again."""
EXPIRED_AT_ONCE, EXPIRY_ROUNDS = 200, 4
"""A put that lacks room marks up to 800 overdue cases, or those of 64 MiB: another waits for no more."""

KNOWN: Final = """
SELECT cases.principal = :principal AND (cases.digest = :digest OR cases.digest IS NULL AND EXISTS (
    SELECT 1 FROM payloads WHERE payloads.id = cases.id AND payloads.payload = :payload))
FROM cases WHERE cases.id = coalesce((SELECT case_id FROM members WHERE members.id = :id), :id)"""
"""Whether the case that is stored under an id is this one. Those of older releases have no digest."""
# The one that expires last, unless it would end before half of the new row's time.
JOINABLE: Final = """
SELECT id, coalesce((SELECT max(position) FROM members WHERE case_id = cases.id), 0)
FROM cases WHERE digest = :digest AND state NOT IN ('decided', 'expired')
AND 2 * (expires_s - :now_s) >= :expires_s - :now_s ORDER BY expires_s DESC LIMIT 1"""
USED: Final = """
SELECT account, cases, bytes FROM case_usage
WHERE account IN ('all', 'principal/' || :principal, 'pool/' || :pool)"""
INSERT_CASE: Final = """
INSERT INTO cases (id, principal, created_s, expires_s, why, model_view, state, fence, pool, digest, bytes)
VALUES (:id, :principal, :created_s, :expires_s, :why, :model_view, 'open', 0, :pool, :digest, :bytes)"""
INSERT_PAYLOAD: Final = "INSERT INTO payloads (id, payload) VALUES (:id, :payload)"
INSERT_MEMBER: Final = "INSERT INTO members (id, case_id, position) VALUES (:id, :case_id, :position)"
CHARGE_MEMBER: Final = "UPDATE cases SET bytes = bytes + :bytes WHERE id = :case_id"


class Limits(NamedTuple):
    """The time of a transaction, read once its locks are held, and what the store may hold."""

    now_s: float
    capacity: int
    quotas: Quotas


class OpenCase(NamedTuple):
    """A case that a row may join, and the position of the last row that did."""

    id: str
    last_position: int


def store_case(run: Run, case: Case, limits: Limits) -> PutResult:
    """Stores a case, or finds it stored. Cost: 60 us; index look-ups alone, however many cases are stored."""
    values = _values_of(case, limits.now_s)
    known = run(KNOWN, values).fetchone()
    if known is not None:
        return PutResult.STORED if known[0] else PutResult.REJECTED
    if case.expires_s <= limits.now_s:
        return PutResult.REJECTED
    joined = _joinable(run, values) if case.group else None
    result = _make_room(run, case, Share(0, MEMBER_BYTES) if joined else Share(1, case.size_bytes), limits)
    if result is PutResult.STORED:
        if joined is None:
            run(INSERT_CASE, values)
            run(INSERT_PAYLOAD, values)
        else:
            member = {"id": case.id, "case_id": joined.id, "position": joined.last_position + 1}
            run(INSERT_MEMBER, member)
            run(CHARGE_MEMBER, {"case_id": joined.id, "bytes": MEMBER_BYTES})
    return result


def _values_of(case: Case, now_s: float) -> dict[str, Any]:
    return {
        "id": case.id,
        "principal": case.principal,
        "created_s": case.created_s,
        "expires_s": case.expires_s,
        "why": case.why,
        "model_view": case.model_view,
        "payload": case.payload,
        "pool": case.pool,
        "digest": case.digest(),
        "bytes": case.size_bytes,
        "now_s": now_s,
    }


def _joinable(run: Run, values: dict[str, Any]) -> OpenCase | None:
    """The open case that asks the same, if it has room for another row."""
    found = run(JOINABLE, values).fetchone()
    return None if found is None or found[1] >= MAX_MEMBERS else OpenCase(*found)


def _make_room(run: Run, case: Case, taken: Share, limits: Limits) -> PutResult:
    """STORED if there is room, or is once overdue cases are marked; else the reason why there is none."""
    overdue = {"now_s": limits.now_s, "limit": EXPIRED_AT_ONCE, "most_bytes": EXPIRE_BYTES}
    for _ in range(EXPIRY_ROUNDS):
        result = check_room(_used(run, case), case, taken, limits.capacity, limits.quotas)
        if result is PutResult.STORED or not run(EXPIRE_SQL, overdue).rowcount:
            return result
    return check_room(_used(run, case), case, taken, limits.capacity, limits.quotas)


def _used(run: Run, case: Case) -> dict[str, Share]:
    """What is taken of each account of a case."""
    rows = run(USED, {"principal": case.principal, "pool": case.pool})
    return {account: Share(cases, size_bytes) for account, cases, size_bytes in rows}
