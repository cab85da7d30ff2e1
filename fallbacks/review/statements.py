"""The statements that move cases from state to state. Each takes an open transaction, and the time.

Each finds its rows by an index and touches no others: none costs more because many cases wait, or are kept.
How cases come in is in `intake.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any, Final

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
    update,
)

from fallbacks.review.cases import (
    CASES,
    COUNTS,
    PAYLOADS,
    UNSETTLED,
    WAITING,
    Case,
    CaseRecord,
    CaseState,
    Claim,
    StaleLease,
    Waiting,
)

C = CASES.c
NOW: Final = bindparam("now_s", type_=Float)
_ID, _LIMIT = bindparam("id", type_=Text), bindparam("limit", type_=Integer)

# States stand in the statements as they are, not as parameters: SQLite must see that a partial index serves.
_OPEN, _LEASED, _, _EXPIRED = (C.state == literal_column(f"'{state}'") for state in CaseState)
_DECIDED = C.decided_s.is_not(None)
STORED_WAITING: Final = C.state.in_([literal_column(f"'{state}'") for state in WAITING])
_DUE, LATE = C.expires_s > NOW, C.expires_s <= NOW
_HELD, _LAPSED = C.lease_until_s > NOW, C.lease_until_s <= NOW

TRULY: Final[dict[CaseState, tuple[ColumnElement[bool], ...]]] = {
    CaseState.OPEN: (and_(_OPEN, _DUE), and_(_LEASED, _DUE, _LAPSED)),
    CaseState.LEASED: (and_(_LEASED, _DUE, _HELD),),
    CaseState.DECIDED: (_DECIDED,),
    CaseState.EXPIRED: (_EXPIRED, and_(_OPEN, LATE), and_(_LEASED, LATE)),
}
"""What is stored of the cases that are truly in each state now: together every case, and none twice."""


# Built once: to build a statement costs three times what it costs to run it.
def _count(*where: ColumnElement[bool]) -> Any:
    return select(func.count()).select_from(CASES).where(*where).scalar_subquery()


def _counted(state: CaseState) -> Any:
    return select(COUNTS.c.n).where(COUNTS.c.state == literal_column(f"'{state}'")).scalar_subquery()


def _records(state: ColumnElement[Any]) -> Select[Any]:
    return select(*(state.label(f.name) if f.name == "state" else C[f.name] for f in fields(CaseRecord)))


def _listed(state: CaseState, where: ColumnElement[bool]) -> Select[Any]:
    """The first of the cases that meet one condition of TRULY, as an index gives them."""
    final_s = {CaseState.DECIDED: C.decided_s.desc(), CaseState.EXPIRED: C.expires_s.desc()}
    first = final_s.get(state, C.expires_s.asc())
    return (
        _records(literal_column(f"'{state}'")).where(where).order_by(first, C.created_s, C.id).limit(_LIMIT)
    )


_LISTING = {state: [_listed(state, where) for where in TRULY[state]] for state in CaseState}
_NOW_IN = case(
    (and_(STORED_WAITING, LATE), CaseState.EXPIRED.value),
    (and_(_LEASED, _LAPSED), CaseState.OPEN.value),
    else_=C.state,
)
_FIND = _records(_NOW_IN).where(C.id == _ID)
_PAYLOAD = select(PAYLOADS.c.payload).where(PAYLOADS.c.id == _ID)
_STATUS = select(
    *(_counted(state).label(state.value) for state in CaseState),
    _count(_OPEN, LATE).label("late_open"),
    _count(_LEASED, LATE).label("late_leased"),
    _count(_LEASED, _DUE, _LAPSED).label("lapsed"),
    select(C.created_s)
    .where(UNSETTLED, _DUE)
    .order_by(C.created_s)
    .limit(1)
    .scalar_subquery()
    .label("first_s"),
)


def claim(connection: Connection, reviewer: str, lease_s: float, limit: int, now_s: float) -> list[Claim]:
    """Leases the waiting cases that nobody holds, the one that expires first first."""
    now = {"now_s": now_s}
    connection.execute(update(CASES).where(_LEASED, _LAPSED).values(state=CaseState.OPEN), now)
    # One state and its index's order: the first rows are found without a sort, however long the queue is.
    query = (
        select(CASES, PAYLOADS.c.payload)
        .join(PAYLOADS, C.id == PAYLOADS.c.id)
        .where(_OPEN, _DUE)
        .order_by(C.expires_s, C.created_s, C.id)
        .limit(limit)
    )
    claims = []
    for row in connection.execute(query, now).all():
        one = Case(row.id, row.principal, row.created_s, row.expires_s, row.payload, row.why, row.model_view)
        held = Claim(one, row.fence + 1, min(now_s + lease_s, one.expires_s))
        lease = {"reviewer": reviewer, "lease_until_s": held.until_s, "fence": held.fence}
        connection.execute(update(CASES).where(C.id == one.id).values(state=CaseState.LEASED, **lease))
        claims.append(held)
    return claims


def change_held(
    connection: Connection,
    case_id: str,
    fence: int,
    now_s: float,
    values: dict[str, Any],
    reviewer: str | None = None,
) -> None:
    """Changes a case that is held under this fence (and by this reviewer, where given), else StaleLease."""
    held = and_(C.id == case_id, C.fence == fence, *TRULY[CaseState.LEASED])
    if reviewer is not None:
        held = and_(held, C.reviewer == reviewer)
    if connection.execute(update(CASES).where(held).values(values), {"now_s": now_s}).rowcount != 1:
        raise StaleLease(f"case {case_id} is not held under fence {fence}")


def expire(connection: Connection, now_s: float, limit: int) -> int:
    """Stores `expired` for up to `limit` overdue cases; how many."""
    overdue = select(C.id).where(STORED_WAITING, LATE).limit(limit)
    statement = update(CASES).where(C.id.in_(overdue)).values(state=CaseState.EXPIRED)
    return connection.execute(statement, {"now_s": now_s}).rowcount


def purge(connection: Connection, before_s: float, limit: int, now_s: float) -> int:
    """Deletes up to `limit` of the cases that became final before a time, payloads included; how many."""
    decided = select(C.id).where(C.decided_s < before_s)
    never = [CaseState.EXPIRED, *WAITING]
    expired = select(C.id).where(C.state.in_(never), C.expires_s < before_s, LATE)
    statement = delete(CASES).where(C.id.in_(decided.union_all(expired).limit(limit)))
    return connection.execute(statement, {"now_s": now_s}).rowcount


def listing(
    connection: Connection, states: Collection[CaseState], limit: int, now_s: float
) -> list[CaseRecord]:
    """Cases in these states: what expires first first, then the final ones, the latest first."""
    given = {"now_s": now_s, "limit": limit}
    parts = [part for state in set(states) for part in _LISTING[state]]
    found = [_record(row) for part in parts for row in connection.execute(part, given)]
    return sorted(found, key=_place)[:limit]


def _place(one: CaseRecord) -> tuple[bool, float, float, str]:
    if one.state in WAITING:
        return False, one.expires_s, one.created_s, one.id
    return True, -(one.expires_s if one.decided_s is None else one.decided_s), one.created_s, one.id


def find(connection: Connection, case_id: str, now_s: float) -> CaseRecord | None:
    row = connection.execute(_FIND, {"id": case_id, "now_s": now_s}).one_or_none()
    return None if row is None else _record(row)


def payload(connection: Connection, case_id: str) -> bytes | None:
    found: bytes | None = connection.execute(_PAYLOAD, {"id": case_id}).scalar()
    return found


def waiting(connection: Connection, now_s: float) -> Waiting:
    """Every state's count, and the age of the oldest case that still waits."""
    is_ = connection.execute(_STATUS, {"now_s": now_s}).one()
    counts = {
        CaseState.OPEN: is_.open - is_.late_open + is_.lapsed,
        CaseState.LEASED: is_.leased - is_.late_leased - is_.lapsed,
        CaseState.DECIDED: is_.decided,
        CaseState.EXPIRED: is_.expired + is_.late_open + is_.late_leased,
    }
    return Waiting(counts, None if is_.first_s is None else now_s - is_.first_s)


def _record(row: Row[Any]) -> CaseRecord:
    values = row._asdict()
    return CaseRecord(**{**values, "state": CaseState(values["state"])})
