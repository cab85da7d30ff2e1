"""Opens a SQLite file that several processes share and that must survive a power cut.

| setting            | value | why                                                                     |
|--------------------|-------|-------------------------------------------------------------------------|
| journal_mode       | WAL   | readers never wait for the writer                                       |
| synchronous        | FULL  | a commit is on the disk when it returns; NORMAL may lose the last ones  |
| busy_timeout       | 2 s   | the longest that one replica waits for another's write                  |
| foreign_keys       | ON    | SQLite leaves them off                                                  |
| secure_delete      | ON    | purged rows are overwritten, not only unlinked                          |
| auto_vacuum        | INCR. | pages that are free can be given back; of new files only (`reclaim.py`) |
| journal_size_limit | 64 MB | one burst of large payloads does not occupy the disk for ever           |

A transaction that may write begins IMMEDIATE: it takes the write lock first, so that what it reads stays true
until it commits, across processes, and so that it can wait for the lock instead of failing half-way. Reads
have a connection of their own (`open_reader`): they neither wait for a writer nor delay one.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateColumn

from fallbacks.review.store import StoreError

BUSY_S: Final = 2.0
log = logging.getLogger(__name__)
PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA journal_size_limit = 67108864",
)


def sqlite_path(url: str, folder: Path) -> Path:
    """The file of `sqlite:///PATH`, relative to `folder`. Raises StoreError if it names none."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(f"{url}: {error}; write sqlite:///folder/review.db") from error
    name = parsed.database or ""
    if parsed.get_backend_name() != "sqlite" or not name or name.startswith((":memory:", "file:")):
        raise StoreError(f"{url}: names no SQLite file; write sqlite:///folder/review.db")
    return folder / name


def open_sqlite(path: Path, tables: MetaData, version: int) -> Engine:
    """An engine over a file; creates the folder, the file (mode 0600) and the tables where they are missing.

    Holds one connection, usable by any one thread at a time.

    Raises: StoreError if the file cannot be written, is damaged, is another program's database, or has
            another schema than `version`.
    Cost:   reads the whole file once, so that damage is found at the start and not at a later read.
    """
    try:
        _create(path)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; give a folder that this user may write to") from error
    engine = _engine(path, "BEGIN IMMEDIATE", PRAGMAS)
    try:
        with engine.connect() as connection:
            _check(path, connection)
        with engine.begin() as connection:
            _ensure_schema(path, connection, tables, version)
    except (DBAPIError, sqlite3.Error) as error:
        engine.dispose()
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(
            f"{path}: {cause}; make it writable, or move it away to start an empty one"
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_reader(writer: Engine) -> Engine:
    """A read-only engine over the file of `writer`. Holds one connection, as `writer` does.

    It is opened now: later the path may lead to another file, or to none, which SQLite would make.
    """
    reader = _engine(Path(str(writer.url.database)), "BEGIN", ["PRAGMA query_only = ON"])
    reader.connect().close()
    return reader


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        if path.is_file() and not path.stat().st_size:
            log.warning("%s is empty: the review queue begins anew", path)
        # By name, never by opening: closing any handle of a file drops this process's SQLite locks on it.
        path.chmod(0o600)
    else:
        _begin_file(path)


def _begin_file(path: Path) -> None:
    """Writes the first page of a new file, which settles that free pages can be given back later."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:  # opening it reports errors
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _use_wal(connection)


def _engine(path: Path, begin: str, pragmas: Sequence[str]) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": BUSY_S, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        _use_wal(connection)
        for pragma in pragmas:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Changes a new file to WAL. While other processes do so, SQLite may fail despite busy_timeout."""
    give_up_s = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_s:
                raise
        time.sleep(0.01)


def _check(path: Path, connection: Connection) -> None:
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    if mode != "wal":
        raise StoreError(f"{path}: the file system does not support WAL ({mode}); put it on a local disk")
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise StoreError(f"{path}: damaged ({found}); restore a copy, or move it away to start an empty one")


def _ensure_schema(path: Path, connection: Connection, tables: MetaData, version: int) -> None:
    """Creates missing tables, columns, indexes. Raises StoreError for a foreign database or another version.

    A release may add tables, indexes and columns that have a default without a new version, if older releases
    keep working beside it.
    """
    schema = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))
    present = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
    if not present:
        schema.create(connection)
        connection.execute(insert(schema).values(version=version))
    elif schema.name not in present:
        raise StoreError(f"{path}: another program's database; give the queue a file of its own")
    found = connection.execute(select(schema.c.version)).scalar()
    if found != version:
        raise StoreError(
            f"{path}: schema {found}, but this program knows {version}; use the release that wrote it"
        )
    for table in tables.sorted_tables:
        if table.name in present:
            _add_missing_columns(connection, table)
    tables.create_all(connection)
    for table in tables.sorted_tables:
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def _add_missing_columns(connection: Connection, table: Table) -> None:
    """Adds the columns that a later release has than the one that made the table. Cost: none for its rows."""
    stored = {row.name for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")}
    for column in table.columns:
        if column.name not in stored:
            declared = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {declared}")
