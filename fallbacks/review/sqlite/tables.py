"""The tables of the SQLite review store. `counting.py` has the triggers that keep the tables of counts."""

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

from fallbacks.review.sqlite.counting import BY_ACCOUNT, BY_STATE

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
    Column("pool", Text, nullable=False, server_default=""),
    Column("digest", LargeBinary),
    Column("bytes", Integer, nullable=False, server_default="0"),
    Index("cases_by_state", "state", "expires_s", "created_s", "id"),
    Index("cases_by_age", "created_s", sqlite_where=NOT_FINAL),
    Index("cases_by_decision", "decided_s", sqlite_where=text("decided_s IS NOT NULL")),
    Index("cases_by_digest", "digest", "expires_s", sqlite_where=NOT_FINAL),
)
"""Columns with a default are of later releases: an older one neither reads nor writes them."""
# In a table of their own, because SQLite rewrites a whole row to change one field of it.
PAYLOADS: Final = Table(
    "payloads",
    TABLES,
    Column("id", Text, ForeignKey(CASES.c.id, ondelete="CASCADE"), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
)
MEMBERS: Final = Table(
    "members",
    TABLES,
    Column("id", Text, primary_key=True),
    Column("case_id", Text, ForeignKey(CASES.c.id, ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Index("members_by_case", "case_id", "position", unique=True),
)
"""Rows that are identical to that of a case and wait for the same answer, each under an id of its own."""
USAGE: Final = Table(
    "case_usage",
    TABLES,
    Column("account", Text, primary_key=True),
    Column("cases", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)
"""What the cases that wait count in each account (`quotas.py`); accounts without any have no row."""
COUNTS: Final = Table(
    "case_counts",
    TABLES,
    Column("state", Text, primary_key=True),
    Column("n", Integer, nullable=False),
)
"""How many cases are stored in each state: counting rows would take longer the more there are."""

STORE_TIME: Final = Table(
    "store_time",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("boot", Text, nullable=False),
    Column("running_s", Float, nullable=False),
    Column("store_s", Float, nullable=False),
    Column("wall_s", Float, nullable=False),
)
"""One row: when the store's time was last kept (`steady_clock.py`)."""

for _statement in (*BY_STATE, *BY_ACCOUNT):
    event.listen(TABLES, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
