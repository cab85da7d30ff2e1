"""Opens a review store from its URL: the one place that names every store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fallbacks.review.quotas import Quotas
from fallbacks.review.sqlite.file import sqlite_path
from fallbacks.review.sqlite.store import SqliteReviewStore
from fallbacks.review.store import ReviewStore, StoreError


def place_of(url: str, folder: Path) -> str:
    """What two URLs have in common only if they name one store. Raises StoreError if it names none."""
    return str(sqlite_path(url, folder).resolve())


def open_store(
    url: str,
    folder: Path,
    *,
    capacity: int,
    quotas: Quotas = Quotas(),
    clock: Callable[[], float] | None = None,
) -> ReviewStore:
    """A handle on the store of a URL, which is created where it is missing. Blocks.

    Args:    url: `sqlite:///PATH`; a relative path starts at `folder`. capacity: the most open and leased
             cases together; quotas: what else bounds them, by default nothing; processes that share a store
             should agree on both. clock: seconds since 1970, for tests; by default the store's own, which no
             change of the system's time moves.
    Raises:  StoreError if the URL names no store that exists, or the store cannot be used.
    """
    match url.partition(":")[0]:
        case "sqlite":
            path = sqlite_path(url, folder)
            return SqliteReviewStore.open(path, capacity=capacity, quotas=quotas, clock=clock)
        case _:
            raise StoreError(f"{url}: names no SQLite file; write sqlite:///folder/review.db")
