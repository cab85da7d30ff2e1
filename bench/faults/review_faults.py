"""Faults of the review store. The errors of SQLite are its own.

A page limit makes the disk full, and `query_only` makes it read-only.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.faults.parts import BLOCKS, Switch, misbehave
from bench.faults.patched import Undo, patched
from bench.faults.spoiled import changed_by
from fallbacks.review.cases import Case
from fallbacks.review.quotas import PutResult
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview

SLOW_PUT_S: Final = 0.4
ROOM: Final = 10
"""Cases for which a full queue has room."""
MOST_PAGES: Final = 2**30
FILLERS, FILLER_BYTES = 1000, 3000

ANSWERS: Final[Mapping[str, Callable[[list[PutResult]], Any]]] = {
    "missing rows": lambda stored: stored[:-1],
    "nothing": lambda stored: None,
    "wrong dtype": lambda stored: ["stored"] * len(stored),
}
"""What a store answers that has stored the cases."""


def store_of(gateway: Gateway) -> Any:
    """The review store of a gateway that has one: its insides are broken, so it is of no stated type."""
    assert isinstance(gateway.review, QueuedReview)
    return gateway.review.store


async def break_review(gateway: Gateway, fault: str) -> Undo:
    """Breaks the review store."""
    store = store_of(gateway)
    match fault:
        case "disk full":
            return await _fill_disk(store)
        case "read-only":
            return await _pragma(store, "query_only = ON", "query_only = OFF")
        case "queue full":
            return patched(store, "capacity", ROOM)
        case "hang in its thread":
            return _hang_in_thread(store)
    put, switch = store.put, Switch(fault, BLOCKS)

    async def broken(cases: Any, /) -> Any:
        await misbehave(switch, SLOW_PUT_S)
        return changed_by(ANSWERS, fault, await put(cases))

    return patched(store, "put", broken)


def _hang_in_thread(store: Any) -> Undo:
    finish, released = store._group_commit.finish, threading.Event()

    def hanging(*arguments: Any) -> Any:
        released.wait()
        return finish(*arguments)

    return patched(store._group_commit, "finish", hanging, released)


async def _pragma(store: Any, setting: str, usual: str) -> Undo:
    """Changes a setting of the connection that writes."""

    def change(to: str) -> Callable[[], Any]:
        return lambda: store._group_commit._connection.execute(f"PRAGMA {to}").fetchall()

    await store._writes.call(change(setting), lambda: None)

    async def undo() -> None:
        await store._writes.call(change(usual), lambda: None)

    return undo


async def _fill_disk(store: Any) -> Undo:
    """Lets the file grow no more, and stores cases until not one more fits."""
    grow = await _pragma(store, "max_page_count = 1", f"max_page_count = {MOST_PAGES}")
    ids = [f"filler{i}" for i in range(FILLERS)]
    try:
        for id_ in ids:
            now_s = store.now_s()
            await store.put([Case(id_, "filler", now_s, now_s + 3600.0, bytes(FILLER_BYTES), "{}", "null")])
    except sqlite3.Error:
        pass

    async def undo() -> None:
        await grow()
        await store.withdraw(ids)

    return undo
