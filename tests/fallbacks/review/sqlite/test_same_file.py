"""A store whose file has gone while it is open takes no case, and says so; what is moved back is used on."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from fallbacks.review.sqlite.same_file import SameFile
from fallbacks.review.sqlite.store import SqliteReviewStore
from fallbacks.review.store import StoreError
from tests.support.review_cases import STORED, a_case

GONE = "deleted, moved or replaced"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteReviewStore]:
    opened = SqliteReviewStore.open(folder / "review.db", capacity=100, clock=lambda: 1000.0)
    yield opened
    opened.close()


def unlink(folder: Path) -> None:
    (folder / "review.db").unlink()


def unlink_log(folder: Path) -> None:
    (folder / "review.db-wal").unlink()


def rename(folder: Path) -> None:
    (folder / "review.db").rename(folder / "moved.db")


def replace(folder: Path) -> None:
    shutil.copy(folder / "review.db", folder / "copy.db")
    (folder / "copy.db").replace(folder / "review.db")


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def move_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replace_folder_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


WAYS: tuple[Callable[[Path], None], ...] = (
    unlink,
    unlink_log,
    rename,
    replace,
    remove_folder,
    move_folder,
    replace_folder_by_a_file,
)


@pytest.mark.parametrize("make_it_go", WAYS)
def test_no_case_is_stored_in_a_file_that_has_gone(
    store: SqliteReviewStore,
    folder: Path,
    make_it_go: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        assert await store.put([a_case("a")]) == [STORED]
        (claim,) = await store.claim("grace", 60.0)
        make_it_go(folder)
        writes: list[Coroutine[Any, Any, Any]] = [
            store.put([a_case("b")]),
            store.put([a_case("c")]),
            store.resolve("a", claim.fence, "grace", "{}"),
            store.release("a", claim.fence),
            store.withdraw(["a"]),
            store.claim("ada", 60.0),
        ]
        ends = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(end) for end in ends] == [StoreError] * len(writes)
        assert all(GONE in str(end) for end in ends)
        with pytest.raises(StoreError, match=GONE):
            await store.counts()
        record = await store.find("a")
        assert record is not None, "what this process knows can still be looked up"
        assert record.state == "leased", "nothing was changed"
        assert await store.find("b") is None

    with caplog.at_level(logging.WARNING, SameFile.__module__):
        asyncio.run(main())
    assert caplog.text.count(GONE) == 1


def test_a_file_that_is_moved_back_is_used_on(
    store: SqliteReviewStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        assert await store.put([a_case("a")]) == [STORED]
        rename(folder)
        with pytest.raises(StoreError, match=GONE):
            await store.put([a_case("b")])
        (folder / "moved.db").rename(folder / "review.db")
        assert await store.put([a_case("b")]) == [STORED]

    with caplog.at_level(logging.WARNING, SameFile.__module__):
        asyncio.run(main())
    assert "is back" in caplog.text
    again = SqliteReviewStore.open(folder / "review.db", capacity=100)
    try:
        assert asyncio.run(again.find("b")) is not None
    finally:
        again.close()


def test_the_end_of_a_store_whose_file_was_replaced_leaves_the_new_one_as_it_is(
    store: SqliteReviewStore, folder: Path
) -> None:
    async def main() -> None:
        assert await store.put([a_case("a")]) == [STORED]
        remove_folder(folder)
        other = SqliteReviewStore.open(folder / "review.db", capacity=100, clock=lambda: 1000.0)
        assert await other.put([a_case("b", payload=b"y" * 20_000)]) == [STORED]
        store.close()
        assert await other.put([a_case("c")]) == [STORED], "its log is still there"
        assert await other.find("b") is not None
        other.close()

    asyncio.run(main())


def _mounted(folder: Path, *options: str) -> bool:
    """Whether a small file system could be mounted, which takes the rights of root."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    if not _mounted(folder, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_cases_until_there_is_room(small_disk: Path) -> None:
    store = SqliteReviewStore.open(small_disk / "review.db", capacity=100, clock=lambda: 1000.0)

    async def main() -> None:
        assert await store.put([a_case("a")]) == [STORED]
        with pytest.raises(Exception, match="full"):
            await store.put([a_case("b", payload=b"y" * 4_000_000)])
        assert await store.find("b") is None
        assert await store.put([a_case("c")]) == [STORED]

    try:
        asyncio.run(main())
    finally:
        store.close()


def test_a_file_on_a_disk_that_is_read_only_is_refused_at_open(small_disk: Path) -> None:
    store = SqliteReviewStore.open(small_disk / "review.db", capacity=100, clock=lambda: 1000.0)
    store.close()
    assert _mounted(small_disk, "-o", "remount,ro")
    with pytest.raises(StoreError, match=r"review.db: .*writ"):
        SqliteReviewStore.open(small_disk / "review.db", capacity=100, clock=lambda: 1000.0)
