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
from typing import Final

from sqlalchemy import (
    DDL,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    text,
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
class CaseRecord:
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
UNSETTLED: Final = text("state NOT IN ('decided', 'expired')")
"""Stored as open or leased, in the words of the index that serves only those."""
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
    Index("cases_by_age", "created_s", sqlite_where=UNSETTLED),
    Index("cases_by_decision", "decided_s", sqlite_where=text("decided_s IS NOT NULL")),
)
# Apart from the case, because SQLite rewrites a whole row to change one field of it.
PAYLOADS: Final = Table(
    "payloads",
    TABLES,
    Column("id", Text, ForeignKey(CASES.c.id, ondelete="CASCADE"), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
)
COUNTS: Final = Table(
    "case_counts",
    TABLES,
    Column("state", Text, primary_key=True),
    Column("n", Integer, nullable=False),
)
"""How many cases are stored in each state: to count them would cost more the more there are."""

# The database itself keeps the counts, in whoever's transaction changes a case, so they are exact across
# processes, an older release included; and each opening counts afresh, which mends whatever went past that.
_COUNTING: Final = (
    """CREATE TRIGGER IF NOT EXISTS case_added AFTER INSERT ON cases BEGIN
        UPDATE case_counts SET n = n + 1 WHERE state = NEW.state; END""",
    """CREATE TRIGGER IF NOT EXISTS case_moved AFTER UPDATE OF state ON cases
        WHEN NEW.state <> OLD.state BEGIN
        UPDATE case_counts SET n = n - 1 WHERE state = OLD.state;
        UPDATE case_counts SET n = n + 1 WHERE state = NEW.state; END""",
    """CREATE TRIGGER IF NOT EXISTS case_deleted AFTER DELETE ON cases BEGIN
        UPDATE case_counts SET n = n - 1 WHERE state = OLD.state; END""",
    "DELETE FROM case_counts",
    *(
        f"INSERT INTO case_counts SELECT '{state}', count(*) FROM cases WHERE state = '{state}'"  # noqa: S608
        for state in CaseState
    ),
)
for _statement in _COUNTING:
    event.listen(TABLES, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
