"""Opening a SQLite file that other processes are changing to WAL."""

from __future__ import annotations

import sqlite3
from typing import Any, cast

import pytest

from fallbacks.review.sqlite import file


class Busy:
    """A connection to a new file that other processes are changing to WAL at this moment."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors

    def execute(self, statement: str) -> None:
        assert statement == "PRAGMA journal_mode = WAL"
        if self.errors:
            raise sqlite3.OperationalError(self.errors.pop(0))


def test_file_that_others_are_changing_to_wal_is_tried_again() -> None:
    busy = Busy(["database is locked"] * 3)
    file._use_wal(cast(Any, busy))
    assert not busy.errors


def test_file_that_stays_locked_or_cannot_be_written_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        file._use_wal(cast(Any, Busy(["attempt to write a readonly database"])))
    monkeypatch.setattr(file, "BUSY_S", -1.0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        file._use_wal(cast(Any, Busy(["database is locked"])))
