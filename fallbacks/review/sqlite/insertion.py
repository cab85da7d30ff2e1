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
from fallbacks.review.quotas import MEMBER_BYTES, PutResult, Quotas, Share, accounts_of, check_room
from fallbacks.review.sqlite.statements import EXPIRE_BYTES, EXPIRE_SQL

Run: TypeAlias = Callable[[str, dict[str, Any]], sqlite3.Cursor]
"""Runs one statement in the open transaction."""

MAX_MEMBERS: Final = 1000
"""The most rows that join one case. The next identical row opens a case again."""
EXPIRED_AT_ONCE, EXPIRY_ROUNDS = 200, 4
"""A put that lacks room marks up to 800 overdue cases, or those of 64 MiB: another waits for no more."""

# The case to join is the one that expires last, unless it would end before half of the new row's time.
PLACE: Final = """
SELECT
    (SELECT coalesce(cases.principal = :principal AND (
        cases.digest = :digest OR cases.digest IS NULL AND EXISTS (
            SELECT 1 FROM payloads WHERE payloads.id = cases.id AND payloads.payload = :payload)), 0)
     FROM cases WHERE cases.id = coalesce((SELECT case_id FROM members WHERE members.id = :id), :id)),
    same_id, coalesce((SELECT max(position) FROM members WHERE case_id = same_id), 0),
    whole.cases, whole.bytes, own.cases, own.bytes, pool.cases, pool.bytes
FROM (SELECT 1)
LEFT JOIN case_usage AS whole ON whole.account = 'all'
LEFT JOIN case_usage AS own ON own.account = 'principal/' || :principal
LEFT JOIN case_usage AS pool ON pool.account = 'pool/' || :pool
LEFT JOIN (
    SELECT id AS same_id FROM cases WHERE digest = :digest AND state NOT IN ('decided', 'expired')
    AND 2 * (expires_s - :now_s) >= :expires_s - :now_s ORDER BY expires_s DESC LIMIT 1) ON true"""
"""Whether the case that is stored under an id is this one (those of older releases have no digest); the case
that it may join; and what is taken of each of its accounts. One statement, since each gives the interpreter
away and has to wait until it gets it back."""
INSERT_CASE: Final = """
INSERT INTO cases (id, principal, created_s, expires_s, why, model_view, state, fence, pool, digest, bytes)
VALUES (:id, :principal, :created_s, :expires_s, :why, :model_view, 'open', 0, :pool, :digest, :bytes)"""
INSERT_PAYLOAD: Final = "INSERT INTO payloads (id, payload) VALUES (:id, :payload)"
INSERT_MEMBER: Final = "INSERT INTO members (id, case_id, position) VALUES (:id, :case_id, :position)"
"""A trigger charges its bytes to the case (`counting.py`)."""


class Limits(NamedTuple):
    """The time of a transaction, read once its locks are held, and what the store may hold."""

    now_s: float
    capacity: int
    quotas: Quotas


class _Place(NamedTuple):
    """A row of PLACE. known: None if nothing is stored under the id; same_id: None if none may be joined."""

    known: int | None
    same_id: str | None
    last_position: int
    whole: Share
    own: Share
    pool: Share

    @classmethod
    def find(cls, run: Run, case: Case, values: dict[str, Any]) -> _Place:
        known, same_id, last_position, *used = run(PLACE, values).fetchone()
        if not case.group or last_position >= MAX_MEMBERS:
            same_id = None
        whole, own, pool = (Share(used[at] or 0, used[at + 1] or 0) for at in (0, 2, 4))
        return cls(known, same_id, last_position, whole, own, pool)

    def room(self, case: Case, limits: Limits) -> PutResult:
        """STORED if the case fits; else the reason why it does not."""
        taken = Share(1, case.size_bytes) if self.same_id is None else Share(0, MEMBER_BYTES)
        used = dict(zip(accounts_of(case), (self.whole, self.own, self.pool), strict=False))
        return check_room(used, case, taken, limits.capacity, limits.quotas)


def store_case(run: Run, case: Case, limits: Limits) -> PutResult:
    """Stores a case, or finds it stored. Cost: 60 us; index look-ups alone, however many cases are stored.

    Where there is no room, overdue cases are marked, and it is tried again.
    """
    values = _values_of(case, limits.now_s)
    overdue = {"now_s": limits.now_s, "limit": EXPIRED_AT_ONCE, "most_bytes": EXPIRE_BYTES}
    result = _store_if_room(run, case, values, limits)
    for _ in range(EXPIRY_ROUNDS):
        if result in (PutResult.STORED, PutResult.REJECTED) or not run(EXPIRE_SQL, overdue).rowcount:
            break
        result = _store_if_room(run, case, values, limits)
    return result


def _store_if_room(run: Run, case: Case, values: dict[str, Any], limits: Limits) -> PutResult:
    place = _Place.find(run, case, values)
    if place.known is not None:
        return PutResult.STORED if place.known else PutResult.REJECTED
    if case.expires_s <= limits.now_s:
        return PutResult.REJECTED
    result = place.room(case, limits)
    if result is PutResult.STORED:
        _insert(run, values, place)
    return result


def _insert(run: Run, values: dict[str, Any], place: _Place) -> None:
    """Inserts a row into the case that it may join, or as a case of its own."""
    if place.same_id is None:
        run(INSERT_CASE, values)
        run(INSERT_PAYLOAD, values)
    else:
        run(INSERT_MEMBER, {**values, "case_id": place.same_id, "position": place.last_position + 1})


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
