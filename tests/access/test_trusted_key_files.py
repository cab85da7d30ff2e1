"""No key is accepted from files that another user may have written, or that cannot be read."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.access.callers import Callers
from gateway.access.keys import add_key, load_keys, revoke_key
from gateway.core.errors import ArtifactError

REMOTE = "192.0.2.7"
OTHER_USER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def var() -> Iterator[Path]:
    """A folder that other users can reach."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder / "var"
    shutil.rmtree(folder)


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(0)


class Known:
    """A file of keys with one key in it, and a gateway that knows it, on a clock of its own."""

    def __init__(self, var: Path) -> None:
        self.var, self.now_s = var, 0.0
        self.key = add_key(var, "ada", tier="trusted", per_s=None, scopes=frozenset({"infer"}))
        self.callers = Callers(var, anonymous_loopback=True, clock=lambda: self.now_s)
        assert self.accepted()

    def accepted(self) -> bool:
        """Whether the key is accepted after the next look at the files."""
        self.now_s += 1.0
        self.callers.check()
        return self.callers.identify(self.key, REMOTE) is not None


def writable_by_all(path: Path) -> None:
    path.chmod(0o666)


def writable_by_the_group(path: Path) -> None:
    path.chmod(0o620)


def of_another_user(path: Path) -> None:
    os.chown(path, OTHER_USER, OTHER_USER)


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_folder(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    os.mkfifo(path)


def gone(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


SPOILED: list[tuple[Callable[[Path], None], str]] = [
    (writable_by_all, "written by others"),
    (writable_by_the_group, "written by others"),
    (of_another_user, "belongs to user 65534"),
    (a_link, "no regular file"),
    (a_folder, "no regular file"),
    (a_pipe, "no regular file"),
    (gone, ""),
]


@as_root
@pytest.mark.parametrize("name", ["keys.jsonl", "secret"])
@pytest.mark.parametrize(("spoil", "what"), SPOILED, ids=lambda one: getattr(one, "__name__", ""))
def test_no_key_is_accepted_while_a_file_is_not_ours_alone(
    var: Path, name: str, spoil: Callable[[Path], None], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    known, path = Known(var), var / name
    content, held = path.read_bytes(), path.stat()
    spoil(path)
    for _ in range(3):
        assert not known.accepted()
        assert known.callers.identify(None, "127.0.0.1") is not None, "anonymous callers need no key"
    assert what in known.callers.problem
    assert name in known.callers.problem
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.exc_info is None
    assert str(path) in record.message

    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    assert path.stat().st_uid == held.st_uid
    assert known.accepted()
    assert known.callers.problem == ""
    assert "keys are accepted again" in caplog.text


@as_root
@pytest.mark.parametrize("spoil", [writable_by_all, of_another_user, a_link])
def test_nothing_is_added_to_or_revoked_from_a_file_that_is_not_ours_alone(
    var: Path, spoil: Callable[[Path], None]
) -> None:
    """Else a line that another user wrote would be believed from then on."""
    known = Known(var)
    spoil(var / "keys.jsonl")
    content = (var / "keys.jsonl").read_bytes()
    with pytest.raises(ArtifactError, match=r"keys\.jsonl"):
        add_key(var, "bob", tier="trusted", per_s=None, scopes=frozenset({"infer"}))
    with pytest.raises(ArtifactError, match=r"keys\.jsonl"):
        revoke_key(var, "ada")
    with pytest.raises(ArtifactError, match=r"keys\.jsonl"):
        load_keys(var)
    assert (var / "keys.jsonl").read_bytes() == content
    assert not known.accepted()


@as_root
def test_a_file_that_cannot_be_read_is_tried_again_without_a_change_on_the_disk(var: Path) -> None:
    known = Known(var)
    (var / "keys.jsonl").write_bytes((var / "keys.jsonl").read_bytes())
    var.chmod(0o755)
    with another_user():
        assert not known.accepted()
        assert "Permission denied" in known.callers.problem
    assert known.accepted()
    var.chmod(0o700)
    with another_user():
        assert not known.accepted()
    assert known.accepted()


def test_a_deployment_without_keys_has_no_problem(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert Callers(folder, anonymous_loopback=False).problem == ""


def test_a_file_that_is_gone_is_a_problem_after_a_restart_too(tmp_path: Path) -> None:
    """The secret beside it says that there were keys."""
    known = Known(tmp_path)
    (tmp_path / "keys.jsonl").unlink()
    assert "is gone" in Callers(tmp_path, anonymous_loopback=False).problem
    add_key(tmp_path, "bob", tier="trusted", per_s=None, scopes=frozenset({"infer"}))
    assert Callers(tmp_path, anonymous_loopback=False).problem == ""
    assert not known.accepted()


def test_revoking_every_key_is_no_problem(tmp_path: Path) -> None:
    known = Known(tmp_path)
    assert revoke_key(tmp_path, "ada")
    assert not known.accepted()
    assert known.callers.problem == ""
    assert Callers(tmp_path, anonymous_loopback=False).problem == ""


def test_keys_are_not_added_under_another_secret_than_the_others_have(tmp_path: Path) -> None:
    Known(tmp_path)
    (tmp_path / "secret").unlink()
    with pytest.raises(ArtifactError, match="secret"):
        add_key(tmp_path, "bob", tier="trusted", per_s=None, scopes=frozenset({"infer"}))
    assert not (tmp_path / "secret").exists()


@pytest.mark.parametrize("secret", [b"", b"short"])
def test_no_key_is_accepted_under_a_secret_that_was_cut_short(tmp_path: Path, secret: bytes) -> None:
    known = Known(tmp_path)
    (tmp_path / "secret").write_bytes(secret)
    assert not known.accepted()
    assert "secret" in known.callers.problem
