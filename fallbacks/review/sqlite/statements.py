"""The statements that read cases and change their state. Each takes an open transaction, and the time.

Each finds its rows by an index and touches no others, so none takes longer because more cases are stored.
`insertion.py` has the statements that insert cases.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from dataclasses import fields
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    select,
    text,
    update,
)

from fallbacks.review.cases import WAITING, Case, CaseCounts, CaseRecord, CaseState, Claim
from fallbacks.review.sqlite.tables import CASES, COUNTS, MEMBERS, NOT_FINAL, PAYLOADS
from fallbacks.review.store import StaleLease

C = CASES.c
NOW: Final = bindparam("now_s", type_=Float)
_ID, _LIMIT = bindparam("id", type_=Text), bindparam("limit", type_=Integer)

# States are literals in the statements, not parameters, or SQLite could not choose a partial index.
_OPEN, _LEASED, _, _EXPIRED = (C.state == literal_column(f"'{state}'") for state in CaseState)
_DECIDED = C.decided_s.is_not(None)
STORED_WAITING: Final = C.state.in_([literal_column(f"'{state}'") for state in WAITING])
_NOT_OVERDUE, OVERDUE = C.expires_s > NOW, C.expires_s <= NOW
_LEASE_RUNS, _LEASE_ENDED = C.lease_until_s > NOW, C.lease_until_s <= NOW

STATE_CONDITIONS: Final[dict[CaseState, tuple[ColumnElement[bool], ...]]] = {
    CaseState.OPEN: (and_(_OPEN, _NOT_OVERDUE), and_(_LEASED, _NOT_OVERDUE, _LEASE_ENDED)),
    CaseState.LEASED: (and_(_LEASED, _NOT_OVERDUE, _LEASE_RUNS),),
    CaseState.DECIDED: (_DECIDED,),
    CaseState.EXPIRED: (_EXPIRED, and_(_OPEN, OVERDUE), and_(_LEASED, OVERDUE)),
}
"""Conditions on the stored columns, by the state that a case is in now. Disjoint; they cover every case."""


class Swept(NamedTuple):
    """How many cases one transaction of a sweep changed, and whether there may be more."""

    cases: int
    more: bool


# Built once: building a statement takes three times as long as running it.
def _count(*where: ColumnElement[bool]) -> Any:
    return select(func.count()).select_from(CASES).where(*where).scalar_subquery()


def _stored_count(state: CaseState) -> Any:
    return select(COUNTS.c.n).where(COUNTS.c.state == literal_column(f"'{state}'")).scalar_subquery()


def _select_records(state: ColumnElement[Any]) -> Select[Any]:
    return select(*(state.label(f.name) if f.name == "state" else C[f.name] for f in fields(CaseRecord)))


def _list_statement(state: CaseState, where: ColumnElement[bool]) -> Select[Any]:
    """The first cases that meet one condition of STATE_CONDITIONS, in the order of an index."""
    latest_first = {CaseState.DECIDED: C.decided_s.desc(), CaseState.EXPIRED: C.expires_s.desc()}
    first = latest_first.get(state, C.expires_s.asc())
    return (
        _select_records(literal_column(f"'{state}'"))
        .where(where)
        .order_by(first, C.created_s, C.id)
        .limit(_LIMIT)
    )


_LIST_STATEMENTS = {
    state: [_list_statement(state, where) for where in STATE_CONDITIONS[state]] for state in CaseState
}
_STATE_NOW = case(
    (and_(STORED_WAITING, OVERDUE), CaseState.EXPIRED.value),
    (and_(_LEASED, _LEASE_ENDED), CaseState.OPEN.value),
    else_=C.state,
)
# A row that joined the case of an identical one stands as that case does.
_ASKED = func.json_each(bindparam("ids", type_=Text)).table_valued("value", name="asked")
_CASE_ID = func.coalesce(
    select(MEMBERS.c.case_id).where(MEMBERS.c.id == _ASKED.c.value).scalar_subquery(), _ASKED.c.value
)
_FIND = _select_records(_STATE_NOW).add_columns(_ASKED.c.value.label("asked"))
_FIND = _FIND.select_from(_ASKED).join(CASES, C.id == _CASE_ID)
_PAYLOAD = select(PAYLOADS.c.payload).where(PAYLOADS.c.id == _ID)
_DECIDED_SINCE = select(C.id).where(_DECIDED, C.decided_s >= bindparam("since_s", type_=Float))
_COUNTS = select(
    *(_stored_count(state).label(state.value) for state in CaseState),
    _count(_OPEN, OVERDUE).label("overdue_open"),
    _count(_LEASED, OVERDUE).label("overdue_leased"),
    _count(_LEASED, _NOT_OVERDUE, _LEASE_ENDED).label("lease_ended"),
    select(C.created_s)
    .where(NOT_FINAL, _NOT_OVERDUE)
    .order_by(C.created_s)
    .limit(1)
    .scalar_subquery()
    .label("oldest_created_s"),
)

EXPIRE_BYTES: Final = 16 * 2**20
"""A transaction that expires cases stops with the one that makes their payloads this large: it overwrites
them with zeros."""

EXPIRE_SQL: Final = """
UPDATE cases SET state = 'expired' WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (
            SELECT id, bytes FROM cases
            WHERE state IN ('open', 'leased') AND expires_s <= :now_s LIMIT :limit))
    WHERE before < :most_bytes)"""
"""Stores `expired` for up to `limit` overdue cases, of these for those that begin before `most_bytes`."""
_EXPIRE = text(EXPIRE_SQL)


def claim(connection: Connection, reviewer: str, lease_s: float, limit: int, now_s: float) -> list[Claim]:
    """Leases open cases, those that expire first."""
    now = {"now_s": now_s}
    connection.execute(update(CASES).where(_LEASED, _LEASE_ENDED).values(state=CaseState.OPEN), now)
    # One state in its index's order: the first rows are found without a sort, however many cases wait.
    query = (
        select(CASES, PAYLOADS.c.payload)
        .join(PAYLOADS, C.id == PAYLOADS.c.id)
        .where(_OPEN, _NOT_OVERDUE)
        .order_by(C.expires_s, C.created_s, C.id)
        .limit(limit)
    )
    claims = []
    for row in connection.execute(query, now).all():
        open_case = Case(
            row.id, row.principal, row.created_s, row.expires_s, row.payload, row.why, row.model_view
        )
        claim = Claim(open_case, _new_fence(row.fence), min(now_s + lease_s, open_case.expires_s))
        lease = {"reviewer": reviewer, "lease_until_s": claim.until_s, "fence": claim.fence}
        connection.execute(update(CASES).where(C.id == row.id).values(state=CaseState.LEASED, **lease))
        claims.append(claim)
    return claims


def _new_fence(last: int) -> int:
    """A random number below 2^53, which is what every client of JSON can hold; another than the last."""
    while (fence := 1 + secrets.randbelow(2**53 - 1)) == last:
        pass
    return fence


def change_leased(
    connection: Connection,
    case_id: str,
    fence: int,
    now_s: float,
    values: dict[str, Any],
    reviewer: str | None = None,
) -> None:
    """Changes a case leased under this fence (and to this reviewer, where given), or raises StaleLease."""
    leased = and_(C.id == case_id, C.fence == fence, *STATE_CONDITIONS[CaseState.LEASED])
    if reviewer is not None:
        leased = and_(leased, C.reviewer == reviewer)
    if connection.execute(update(CASES).where(leased).values(values), {"now_s": now_s}).rowcount != 1:
        raise StaleLease(f"case {case_id} is not held under fence {fence}")


def expire(connection: Connection, now_s: float, limit: int) -> Swept:
    """Stores `expired` for up to `limit` overdue cases; how many."""
    values = {"now_s": now_s, "limit": limit, "most_bytes": EXPIRE_BYTES}
    changed = connection.execute(_EXPIRE, values).rowcount
    return Swept(changed, changed > 0)


def purge(
    connection: Connection, decided_before_s: float, expired_before_s: float, limit: int, now_s: float
) -> Swept:
    """Deletes cases that became final before these times: up to `limit`, or as many rows that joined them."""
    decided = select(C.id).where(C.decided_s < decided_before_s)
    undecided = [CaseState.EXPIRED, *WAITING]
    expired = select(C.id).where(C.state.in_(undecided), C.expires_s < expired_before_s, OVERDUE)
    old = decided.union_all(expired).limit(limit)
    members = select(MEMBERS.c.id).where(MEMBERS.c.case_id.in_(old)).limit(limit)
    values = {"now_s": now_s}
    if connection.execute(delete(MEMBERS).where(MEMBERS.c.id.in_(members)), values).rowcount == limit:
        return Swept(0, True)
    changed = connection.execute(delete(CASES).where(C.id.in_(old)), values).rowcount
    return Swept(changed, changed == limit)


def list_cases(
    connection: Connection, states: Collection[CaseState], limit: int, now_s: float
) -> list[CaseRecord]:
    """Cases in these states: those that wait, soonest expiry first, then the final ones, latest first."""
    parameters = {"now_s": now_s, "limit": limit}
    queries = [query for state in set(states) for query in _LIST_STATEMENTS[state]]
    found = [_record(row) for query in queries for row in connection.execute(query, parameters)]
    return sorted(found, key=_sort_key)[:limit]


def _sort_key(record: CaseRecord) -> tuple[bool, float, float, str]:
    if record.state in WAITING:
        return False, record.expires_s, record.created_s, record.id
    final_s = record.expires_s if record.decided_s is None else record.decided_s
    return True, -final_s, record.created_s, record.id


def find_all(connection: Connection, ids: Collection[str], now_s: float) -> dict[str, CaseRecord]:
    """The cases under these ids, by the id that was asked for."""
    rows = connection.execute(_FIND, {"ids": json.dumps(list(ids)), "now_s": now_s})
    return {row.asked: _record(row) for row in rows}


def decided_since(connection: Connection, since_s: float) -> list[str]:
    """The ids of the cases that were decided at `since_s` or later."""
    return list(connection.execute(_DECIDED_SINCE, {"since_s": since_s}).scalars())


def payload(connection: Connection, case_id: str) -> bytes | None:
    found: bytes | None = connection.execute(_PAYLOAD, {"id": case_id}).scalar()
    return found


def counts(connection: Connection, now_s: float) -> CaseCounts:
    """Every state's count, and the age of the oldest case that waits."""
    stored = connection.execute(_COUNTS, {"now_s": now_s}).one()
    by_state = {
        CaseState.OPEN: stored.open - stored.overdue_open + stored.lease_ended,
        CaseState.LEASED: stored.leased - stored.overdue_leased - stored.lease_ended,
        CaseState.DECIDED: stored.decided,
        CaseState.EXPIRED: stored.expired + stored.overdue_open + stored.overdue_leased,
    }
    return CaseCounts(by_state, None if stored.oldest_created_s is None else now_s - stored.oldest_created_s)


def _record(row: Row[Any]) -> CaseRecord:
    values = row._asdict()
    values.pop("asked", None)
    return CaseRecord(**{**values, "state": CaseState(values["state"])})
