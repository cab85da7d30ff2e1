"""Cases that wait for a person: what is stored of them, and which state a case is in at a given time.

    open ──claim──> leased ──resolve──> decided
      ^               │
      └─release, or───┘        open or leased, past expires_s ──> expired
        the lease ends

Time moves cases too, and no sweeper is relied on for that: whoever reads or writes gives the time, and a case
past its expiry is expired, a lease past its end is none. The stored state only catches up later.

A claim raises the case's fence. Whoever acts on a case shows the fence of their claim, so that a reviewer
whose lease ended unnoticed cannot overwrite the one who holds the case now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    case,
)


class CaseState(StrEnum):
    """Waiting for anybody, in somebody's hands, answered, or too late."""

    OPEN = "open"
    LEASED = "leased"
    DECIDED = "decided"
    EXPIRED = "expired"


WAITING: Final = (CaseState.OPEN, CaseState.LEASED)


@dataclass(frozen=True, slots=True)
class Case:
    """One question for a person. Times are seconds of the wall clock; `why` and `model_view` are JSON."""

    id: str
    principal: str
    created_s: float
    expires_s: float
    payload: bytes
    why: str
    model_view: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.created_s) and math.isfinite(self.expires_s)):
            raise ValueError(f"case {self.id}: created_s and expires_s must be finite")


@dataclass(frozen=True, slots=True)
class Claim:
    """A case in one reviewer's hands until `until_s`; `fence` proves it."""

    case: Case
    fence: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """A case as stored, but for its payload. `reviewer` claimed it last; `answer` is JSON, once decided."""

    id: str
    principal: str
    created_s: float
    expires_s: float
    why: str
    model_view: str
    state: CaseState
    fence: int
    reviewer: str | None
    lease_until_s: float | None
    answer: str | None
    decided_s: float | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many cases are in each state, and how long the oldest open or leased one has waited."""

    counts: dict[CaseState, int]
    oldest_age_s: float | None


class StaleLease(Exception):
    """The case is not held under this fence: the lease ended, somebody else has it, or it is final."""


VERSION: Final = 1
TABLES: Final = MetaData()
CASES: Final = Table(
    "cases",
    TABLES,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
    Column("why", Text, nullable=False),
    Column("model_view", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("reviewer", Text),
    Column("lease_until_s", Float),
    Column("answer", Text),
    Column("decided_s", Float),
    Index("cases_by_state", "state", "expires_s", "created_s", "id"),
)
# Apart from the case, because SQLite rewrites a whole row to change one field of it.
PAYLOADS: Final = Table(
    "payloads",
    TABLES,
    Column("id", Text, ForeignKey(CASES.c.id, ondelete="CASCADE"), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
)


def waiting_at(now_s: float | BindParameter[float]) -> ColumnElement[bool]:
    """Open or leased, and not past its expiry."""
    return and_(CASES.c.state.in_(WAITING), CASES.c.expires_s > now_s)


def state_at(now_s: float) -> ColumnElement[Any]:
    """The state that a case is truly in, whatever is stored."""
    c = CASES.c
    lapsed = and_(c.state == CaseState.LEASED, c.lease_until_s <= now_s)
    overdue = and_(c.state.in_(WAITING), c.expires_s <= now_s)
    return case((overdue, CaseState.EXPIRED.value), (lapsed, CaseState.OPEN.value), else_=c.state)
