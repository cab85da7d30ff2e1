"""A key's life: it is listed, expires, is revoked, and the file says when it was last used."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.callers import WRITE_USES_EVERY_S, Callers
from gateway.access.keys import add_key, load_keys, parse_keys, revoke_key
from gateway.access.last_used import merge_last_used, read_last_used

REMOTE = "192.0.2.7"
NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)
REVOKE = """
import sys
from pathlib import Path
from gateway.access.keys import add_key, revoke_key
for i in range(int(sys.argv[3])):
    add_key(Path(sys.argv[1]), f"{sys.argv[2]}{i}", tier="t", per_s=None, scopes=frozenset({"infer"}))
    if i % 2:
        assert revoke_key(Path(sys.argv[1]), f"{sys.argv[2]}{i}")
"""


def make(var: Path, name: str, expires: datetime | None = None) -> str:
    return add_key(var, name, tier="trusted", per_s=None, scopes=frozenset({"infer"}), expires=expires)


class Clocks:
    """Callers on two clocks that the test moves together."""

    def __init__(self, var: Path, wall_s: float) -> None:
        self.since_s, self.wall_s = 0.0, wall_s
        self.callers = Callers(
            var, anonymous_loopback=False, clock=lambda: self.since_s, wall_clock=lambda: self.wall_s
        )

    def wait(self, s: float) -> None:
        self.since_s += s
        self.wall_s += s
        self.callers.check()

    def knows(self, key: str) -> bool:
        return self.callers.identify(key, REMOTE) is not None


def test_a_key_is_accepted_until_the_moment_at_which_it_expires(tmp_path: Path) -> None:
    brief, forever = make(tmp_path, "ada", NOON), make(tmp_path, "bob")
    known = Clocks(tmp_path, NOON.timestamp() - 2.0)
    assert [known.knows(key) for key in (brief, forever)] == [True, True]
    known.wait(1.0)
    assert known.knows(brief)
    known.wait(1.0)
    assert [known.knows(key) for key in (brief, forever)] == [False, True]
    again = Clocks(tmp_path, NOON.timestamp() + 1)
    assert [again.knows(key) for key in (brief, forever)] == [False, True]


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2020-01-01", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2027-01-31T12:00:00Z", NOON),
        ("2027-01-31T13:00:00+01:00", NOON),
        ("2027-01-31T12:00:00", NOON),
    ],
)
def test_a_moment_may_be_written_by_hand(written: str, moment: datetime) -> None:
    line = f'{{"name": "ada", "hash": "{"0" * 64}", "expires": "{written}"}}\n'
    (key,) = parse_keys(line.encode())
    assert key.expires == moment


@pytest.mark.parametrize("written", ['""', '"soon"', "true", "[]", '"2027-13-01"', '"30d"'])
def test_a_moment_that_is_none_makes_the_file_invalid(written: str) -> None:
    line = f'{{"name": "ada", "hash": "{"0" * 64}", "expires": {written}}}\n'
    with pytest.raises(ValueError, match="line 1 is no key: expires"):
        list(parse_keys(line.encode()))


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_is_kept_to_the_second(
    tmp_path_factory: pytest.TempPathFactory, moment: datetime
) -> None:
    var = tmp_path_factory.mktemp("var")
    make(var, "ada", moment)
    (key,) = load_keys(var)
    assert key.expires == moment
    assert key.made is not None
    assert datetime.now(UTC) - key.made < timedelta(minutes=1)


def test_a_revoked_key_is_unknown_to_a_running_gateway_within_a_second(tmp_path: Path) -> None:
    keys = {name: make(tmp_path, name) for name in ("ada", "bob", "eve")}
    known = Clocks(tmp_path, 0.0)
    assert all(known.knows(key) for key in keys.values())
    assert revoke_key(tmp_path, "bob")
    known.wait(0.9)
    assert {name: known.knows(key) for name, key in keys.items()} == {"ada": True, "bob": False, "eve": True}
    assert [key.name for key in load_keys(tmp_path)] == ["ada", "eve"]
    assert stat.S_IMODE((tmp_path / "keys.jsonl").stat().st_mode) == 0o600


def test_revoking_a_key_that_was_replaced_revives_no_earlier_one(tmp_path: Path) -> None:
    old, new = make(tmp_path, "ada"), make(tmp_path, "ada")
    known = Clocks(tmp_path, 0.0)
    assert known.knows(new)
    assert revoke_key(tmp_path, "ada")
    known.wait(1.0)
    assert not known.knows(old)
    assert not known.knows(new)
    assert b"ada" not in (tmp_path / "keys.jsonl").read_bytes()


def test_an_unknown_name_is_not_revoked_and_nothing_is_written(tmp_path: Path) -> None:
    make(tmp_path, "ada")
    before = (tmp_path / "keys.jsonl").stat()
    assert not revoke_key(tmp_path, "bob")
    assert (tmp_path / "keys.jsonl").stat() == before


def test_additions_and_revocations_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REVOKE, str(tmp_path)]
    running = [subprocess.Popen([*command, prefix, "20"]) for prefix in ("a", "b", "c")]
    known = Clocks(tmp_path, 0.0)
    while any(process.poll() is None for process in running):
        known.wait(1.0)
        known.knows("fsg_any")
        assert "line" not in known.callers.problem, "a reader saw a file in the middle of a change"
    assert [process.returncode for process in running] == [0, 0, 0]
    kept = {key.name for key in load_keys(tmp_path)}
    assert kept == {f"{prefix}{i}" for prefix in "abc" for i in range(0, 20, 2)}


# ---------------------------------------------------------------- last used


def written(known: Clocks) -> dict[str, int]:
    """What is on file after the gateway wrote what is due."""
    known.callers.write_uses(known.callers.take_uses())
    return read_last_used(known.callers.folder)


def test_the_last_use_is_written_at_once_and_then_at_most_once_a_minute(tmp_path: Path) -> None:
    keys = {name: make(tmp_path, name) for name in ("ada", "bob", "eve")}
    known = Clocks(tmp_path, 1_000_000.0)
    assert written(known) == {}
    known.knows(keys["ada"])
    assert written(known) == {"ada": 1_000_000}
    known.wait(10.0)
    known.knows(keys["bob"])
    known.knows("fsg_wrong")
    assert written(known) == {"ada": 1_000_000}
    known.wait(WRITE_USES_EVERY_S - 10.0)
    assert written(known) == {"ada": 1_000_000, "bob": 1_000_010}
    assert known.callers.take_uses(at_once=True) == {}


def test_an_expired_key_is_not_used(tmp_path: Path) -> None:
    key = make(tmp_path, "ada", NOON)
    known = Clocks(tmp_path, NOON.timestamp())
    assert not known.knows(key)
    assert written(known) == {}


def test_several_replicas_write_into_one_file_and_the_latest_use_counts(tmp_path: Path) -> None:
    key = make(tmp_path, "ada")
    late, early = Clocks(tmp_path, 2_000.0), Clocks(tmp_path, 1_000.0)
    for replica in (late, early):
        assert replica.knows(key)
        assert written(replica) == {"ada": 2_000}


def test_the_file_of_last_uses_is_private_and_forgets_keys_that_are_gone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        merge_last_used(tmp_path, {"ada": 1.9, "gone": 2.0}, {"ada"})
    finally:
        os.umask(before)
    assert read_last_used(tmp_path) == {"ada": 1}
    assert stat.S_IMODE((tmp_path / "last_used.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"ada": "x"}'])
def test_a_damaged_file_of_last_uses_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last_used.json").write_bytes(content)
    assert read_last_used(tmp_path) == {}
    merge_last_used(tmp_path, {"ada": 5.0}, {"ada"})
    assert read_last_used(tmp_path) == {"ada": 5}


def test_a_folder_that_cannot_be_written_stops_no_request(tmp_path: Path) -> None:
    key = make(tmp_path, "ada")
    known = Clocks(tmp_path, 1_000.0)
    (tmp_path / "last_used.json.draft").mkdir()
    assert known.knows(key)
    assert written(known) == {}
    known.wait(WRITE_USES_EVERY_S)
    assert known.knows(key)


def test_two_keys_of_one_file_are_counted_apart_by_name(tmp_path: Path) -> None:
    keys: Iterator[str] = iter([make(tmp_path, "ada"), make(tmp_path, "bob")])
    known = Clocks(tmp_path, 1_000.0)
    assert known.knows(next(keys))
    known.wait(1.0)
    assert known.knows(next(keys))
    assert written(known) == {"ada": 1_000, "bob": 1_001}
