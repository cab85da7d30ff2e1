"""Gives back the room of what is no longer needed: payloads that older releases kept, and free pages."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy import Engine

FREE_PAGES_KEPT: Final = 2048
"""8 MiB that the next cases reuse without a growing file."""
PAGES_AT_ONCE: Final = 1024
"""4 MiB: a concurrent put waits for no more."""
PAYLOADS_AT_ONCE: Final = 8
_FINAL_PAYLOADS: Final = """
SELECT payloads.id FROM payloads JOIN cases ON cases.id = payloads.id
WHERE cases.state IN ('decided', 'expired')"""


def drop_final_payloads(engine: Engine) -> None:
    """Deletes the payloads of final cases, which older releases kept for 30 days. Blocks.

    In transactions of a few payloads each: SQLite overwrites them with zeros, and the log must not hold all.
    """
    with engine.begin() as connection:
        ids = connection.exec_driver_sql(_FINAL_PAYLOADS).scalars().all()
    for start in range(0, len(ids), PAYLOADS_AT_ONCE):
        with engine.begin() as connection:
            some = [(id_,) for id_ in ids[start : start + PAYLOADS_AT_ONCE]]
            connection.exec_driver_sql("DELETE FROM payloads WHERE id = ?", some)


def release_free_pages(engine: Engine) -> bool:
    """Shortens the file by up to PAGES_AT_ONCE free pages; whether there may be more. Blocks.

    A file that an older release made cannot be shortened: its free pages are reused.
    """
    with engine.begin() as pooled:
        connection = pooled.connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        before = _free_pages(connection)
        surplus = min(before - FREE_PAGES_KEPT, PAGES_AT_ONCE)
        if surplus <= 0:
            return False
        connection.execute(f"PRAGMA incremental_vacuum({surplus})").fetchall()  # one step a page
        return _free_pages(connection) < before


def _free_pages(connection: sqlite3.Connection) -> int:
    pages: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return pages
