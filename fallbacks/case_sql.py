"""The statements that move cases from state to state. Each takes an open transaction, and the time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Float,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from fallbacks.cases import (
    CASES,
    PAYLOADS,
    WAITING,
    Case,
    CaseState,
    Claim,
    Record,
    StaleLease,
    Waiting,
    state_at,
    waiting_at,
)

C = CASES.c

# What `put` runs is built once: it is on the way of every request that goes to a person, and building a
# statement costs as much as running it.
_COUNT = select(func.count()).select_from(CASES).where(waiting_at(bindparam("now_s", type_=Float)))
_KNOWN = (
    select(C.id, C.principal, PAYLOADS.c.payload)
    .join(PAYLOADS, C.id == PAYLOADS.c.id)
    .where(C.id.in_(bindparam("ids", expanding=True)))
)
_INSERT_CASE, _INSERT_PAYLOAD = insert(CASES), insert(PAYLOADS)


def put(connection: Connection, cases: Sequence[Case], capacity: int, now_s: float) -> list[bool]:
    """Takes cases in order, up to `capacity` waiting ones; whether each is in the queue."""
    room = capacity - connection.execute(_COUNT, {"now_s": now_s}).scalar_one()
    known = _known(connection, [one.id for one in cases])
    taken: list[bool] = []
    fresh: list[Case] = []
    for one in cases:
        if one.id not in known and len(fresh) < room and one.expires_s > now_s:
            known[one.id] = one.principal, one.payload
            fresh.append(one)
        taken.append(known.get(one.id) == (one.principal, one.payload))
    if fresh:
        connection.execute(_INSERT_CASE, [_row(one) for one in fresh])
        connection.execute(_INSERT_PAYLOAD, [{"id": one.id, "payload": one.payload} for one in fresh])
    return taken


def _known(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    """Whose and what the cases with these ids are, where there are any."""
    found = connection.execute(_KNOWN, {"ids": ids})
    return {row.id: (row.principal, row.payload) for row in found}


def _row(one: Case) -> dict[str, Any]:
    names = ("id", "principal", "created_s", "expires_s", "why", "model_view")
    return {**{name: getattr(one, name) for name in names}, "state": CaseState.OPEN, "fence": 0}


def claim(connection: Connection, reviewer: str, lease_s: float, limit: int, now_s: float) -> list[Claim]:
    """Leases the waiting cases that nobody holds, the one that expires first first."""
    lapsed = and_(C.state == CaseState.LEASED, C.lease_until_s <= now_s)
    connection.execute(update(CASES).where(lapsed).values(state=CaseState.OPEN))
    # One state and its index's order: the first rows are found without a sort, however long the queue is.
    query = (
        select(CASES, PAYLOADS.c.payload)
        .join(PAYLOADS, C.id == PAYLOADS.c.id)
        .where(C.state == CaseState.OPEN, C.expires_s > now_s)
        .order_by(C.expires_s, C.created_s, C.id)
        .limit(limit)
    )
    claims = []
    for row in connection.execute(query).all():
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
    held = and_(
        waiting_at(now_s),
        C.id == case_id,
        C.fence == fence,
        C.state == CaseState.LEASED,
        C.lease_until_s > now_s,
    )
    if reviewer is not None:
        held = and_(held, C.reviewer == reviewer)
    if connection.execute(update(CASES).where(held).values(values)).rowcount != 1:
        raise StaleLease(f"case {case_id} is not held under fence {fence}")


def expire(connection: Connection, now_s: float) -> int:
    """Stores `expired` for every overdue case; how many."""
    overdue = and_(C.state.in_(WAITING), C.expires_s <= now_s)
    return connection.execute(update(CASES).where(overdue).values(state=CaseState.EXPIRED)).rowcount


def purge(connection: Connection, before_s: float, now_s: float) -> int:
    """Deletes the cases that became final before a time, payloads included; how many."""
    decided = and_(C.state == CaseState.DECIDED, C.decided_s < before_s)
    expired = and_(C.state != CaseState.DECIDED, C.expires_s < before_s, C.expires_s <= now_s)
    return connection.execute(delete(CASES).where(or_(decided, expired))).rowcount


def listing(connection: Connection, states: Collection[CaseState], limit: int, now_s: float) -> list[Record]:
    """Cases in these states: what expires first first, then the final ones, the latest first."""
    final_s = func.coalesce(C.decided_s, C.expires_s)
    final = case((waiting_at(now_s), 0), else_=1)
    query = _records(now_s).where(state_at(now_s).in_(states))
    rows = connection.execute(
        query.order_by(final, case((final == 0, C.expires_s), else_=-final_s), C.created_s, C.id).limit(limit)
    )
    return [_record(row) for row in rows]


def find(connection: Connection, case_id: str, now_s: float) -> Record | None:
    row = connection.execute(_records(now_s).where(C.id == case_id)).one_or_none()
    return None if row is None else _record(row)


def payload(connection: Connection, case_id: str) -> bytes | None:
    found: bytes | None = connection.execute(
        select(PAYLOADS.c.payload).where(PAYLOADS.c.id == case_id)
    ).scalar()
    return found


def waiting(connection: Connection, now_s: float) -> Waiting:
    """Every state's count, and the age of the oldest case that still waits."""
    state = state_at(now_s).label("now")
    rows = connection.execute(
        select(state, func.count().label("n"), func.min(C.created_s).label("first")).group_by(state)
    )
    found = {CaseState(row.now): row for row in rows}
    oldest = [found[name].first for name in WAITING if name in found]
    counts = {name: found[name].n if name in found else 0 for name in CaseState}
    return Waiting(counts, now_s - min(oldest) if oldest else None)


def _records(now_s: float) -> Any:
    return select(*(column for column in CASES.c if column is not C.state), state_at(now_s).label("state"))


def _record(row: Any) -> Record:
    fields = row._asdict()
    return Record(**{**fields, "state": CaseState(fields["state"])})
