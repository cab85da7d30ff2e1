"""From the URL of a policy to a review store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fallbacks.review.open_store import open_store
from fallbacks.review.store import StoreError
from tests.support.review_cases import STORED, a_case


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("var/review.db", "var/review.db"),
        ("odd%3Fname.db", "odd?name.db"),
        ("a folder/r.db", "a folder/r.db"),
    ],
)
def test_relative_path_starts_at_the_folder(tmp_path: Path, name: str, written: str) -> None:
    folder = tmp_path / "what?ever%41"
    store = open_store(f"sqlite:///{name}", folder, capacity=3)
    assert asyncio.run(store.put([a_case("a", 9e9)])) == [STORED]
    store.close()
    assert (folder / written).is_file()


def test_absolute_path_ignores_the_folder(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/r.db", Path("/nowhere"), capacity=3).close()
    assert (tmp_path / "r.db").is_file()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x", "postgresql://x/y", "review.db", ""]
)
def test_url_that_names_no_store_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="write sqlite:///folder"):
        open_store(url, tmp_path, capacity=3)
    assert list(tmp_path.iterdir()) == []
