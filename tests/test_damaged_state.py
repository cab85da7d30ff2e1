"""A start over state that is missing or damaged: refused with the file, or served and said; no traceback."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.access.persons_file import add_person
from gateway.admin.app import admin_app
from gateway.core.errors import Problems
from gateway.serving.repository import Repository
from tests.support.deployments import key_for, letters

LOG = "var/decisions-1-aaaa.jsonl"
ALL = frozenset({"gone", "empty", "cut", "random", "folder", "other"})
NONE: frozenset[str] = frozenset()
REFUSED = {
    **dict.fromkeys(("gateway.yaml", "primary.onnx", "fallback.onnx"), ALL),
    **dict.fromkeys(("guards.npz", "scores.npz", "certificate.json"), ALL),
    "var/review.db": ALL - {"gone", "empty"},
    "var/review.db-wal": frozenset({"folder"}),
    "var/persons-secret": ALL - {"gone", "random"},
    **dict.fromkeys(("var/keys.jsonl", "var/secret", "var/persons.jsonl", "var/last_used.json"), NONE),
    **dict.fromkeys(("var/airlock.json", "var/sessions", LOG, f"{LOG}.running"), NONE),
}
"""How each file of state must be spoiled for a start to be refused; else it is served without it."""
SAID = {
    ("var/review.db", "empty"): "review.db",
    ("var/keys.jsonl", "gone"): "keys.jsonl",
    ("var/keys.jsonl", "random"): "keys.jsonl",
    ("var/keys.jsonl", "folder"): "keys.jsonl",
    ("var/secret", "gone"): "secret",
    ("var/secret", "cut"): "secret",
    ("var/persons.jsonl", "random"): "persons.jsonl",
    ("var/persons.jsonl", "folder"): "persons.jsonl",
    ("var/airlock.json", "random"): "airlock.json",
    (f"{LOG}.running", "random"): LOG.removeprefix("var/"),
}
"""What the log names where it is served without what a file held."""


def cut(path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b"abcd" * 50
    replace(path, content[: len(content) // 2])


def replace(path: Path, content: bytes | None) -> None:
    """Puts this in the place of what is there; None: nothing."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)


def folder(path: Path) -> None:
    replace(path, None)
    path.mkdir()


SPOIL: dict[str, Callable[[Path], None]] = {
    "gone": lambda path: replace(path, None),
    "empty": lambda path: replace(path, b""),
    "cut": cut,
    "random": lambda path: replace(path, os.urandom(5000)),
    "folder": folder,
    "other": lambda path: replace(path, b"[1, 2]" if path.suffix == ".yaml" else b'{"a": [1, null]}'),
}


async def start_and_end(of: Path) -> None:
    repository = Repository.open([of])
    repository.start()
    admin_app(repository, "a token of the tests")
    await repository.close()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment that has been served, whose process was killed once."""
    of = letters(tmp_path_factory.mktemp("used"))
    key_for(of, "ada")
    add_person(of / "var", "grace", "reviewer")
    asyncio.run(start_and_end(of))
    (of / "var" / "last_used.json").write_text('{"ada": 5}')
    (of / LOG).write_text('{"t": 1}\n')
    (of / "var" / "sessions").mkdir()
    return of


@pytest.fixture
def copied(used: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(used, tmp_path / "letters"))


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize("name", REFUSED)
def test_damaged_state_is_refused_with_its_file_or_served_without(
    copied: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    SPOIL[how](copied / name)
    with caplog.at_level(logging.WARNING):
        if how in REFUSED[name]:
            with pytest.raises(Problems) as refused:
                asyncio.run(start_and_end(copied))
            assert all(str(problem) for problem in refused.value.problems)
            assert str(copied) in str(refused.value)
        else:
            asyncio.run(start_and_end(copied))
    assert not [one for one in caplog.records if one.exc_info], "no traceback"
    assert SAID.get((name, how), "") in caplog.text
