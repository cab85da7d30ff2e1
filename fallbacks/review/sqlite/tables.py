"""The tables of the SQLite review store, and the triggers that keep the number of cases in each state."""

from __future__ import annotations

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

from fallbacks.review.cases import CaseState

VERSION: Final = 1
TABLES: Final = MetaData()
NOT_FINAL: Final = text("state NOT IN ('decided', 'expired')")
"""Stored as open or leased. Written exactly as in the partial index, or SQLite would not use that."""
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
    Index("cases_by_age", "created_s", sqlite_where=NOT_FINAL),
    Index("cases_by_decision", "decided_s", sqlite_where=text("decided_s IS NOT NULL")),
)
# In a table of their own, because SQLite rewrites a whole row to change one field of it.
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
"""How many cases are stored in each state: counting rows would take longer the more there are."""

# Triggers keep the counts in the transaction that changes a case, so they are exact across processes, also of
# an older release. Each opening counts again, which corrects counts that were changed by other means.
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
