"""Keys: made once, kept as keyed hashes, honoured and forgotten without a restart."""

from __future__ import annotations

import logging
import os
import stat
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from gateway.access import key_table, keys
from gateway.access.callers import CHECK_EVERY_S, Caller, Callers, Key, account_of, add_key, load_keys
from gateway.core.decision import Reason, Refused, Served
from gateway.core.errors import ArtifactError
from tests.support.deployments import batch_of, clean_rows, key_for, letters, opened, run

LOOPBACK = "127.0.0.1"
REMOTE = "192.0.2.7"


@dataclass
class CallersOnClock:
    """The callers of a folder, whose files a thread of the gateway would look at now and then."""

    var: Path
    anonymous: bool = False
    now_s: float = 100.0
    callers: Callers = field(init=False)

    def __post_init__(self) -> None:
        self.callers = Callers(self.var, anonymous_loopback=self.anonymous, clock=lambda: self.now_s)

    def __call__(self, key: str | None, address: str = REMOTE) -> Caller | None:
        return self.callers.identify(key, address)

    def wait(self) -> None:
        """Until the next look at the files."""
        self.now_s += CHECK_EVERY_S
        self.callers.check()


def make(
    var: Path,
    name: str = "ada",
    tier: str = "trusted",
    per_s: float | None = None,
    scopes: frozenset[str] = frozenset({"infer"}),
) -> str:
    return add_key(var, name, tier=tier, per_s=per_s, scopes=scopes)


def test_a_key_identifies_the_caller_that_it_was_made_for(tmp_path: Path) -> None:
    key = make(tmp_path, per_s=7.0, scopes=frozenset({"infer", "read"}))
    known = CallersOnClock(tmp_path)
    assert known(key) == Caller("ada", "trusted", frozenset({"infer", "read"}))
    assert known.callers.rate_of("ada") == 7.0
    assert known.callers.rate_of("unknown") is None


def test_the_tier_of_a_principal_is_that_of_its_key_and_of_all_others_anonymous(tmp_path: Path) -> None:
    make(tmp_path)
    known = CallersOnClock(tmp_path)
    tier_of = known.callers.tier_of
    assert tier_of("ada") == "trusted"
    assert tier_of("bob") == tier_of(f"anonymous@{LOOPBACK}") == "anonymous"
    make(tmp_path, tier="public")
    known.wait()
    assert tier_of("ada") == "public"


def test_every_key_identifies_its_own_caller(tmp_path: Path) -> None:
    keys = {name: make(tmp_path, name) for name in ("ada", "bob", "eve")}
    known = CallersOnClock(tmp_path)
    for name, key in keys.items():
        caller = known(key)
        assert caller is not None
        assert caller.principal == name
    assert len(set(keys.values())) == 3


@pytest.mark.parametrize("wrong", ["fsg_", "x", "fsg_" + "A" * 43, "é" * 43, "\x00", " "])
def test_a_wrong_key_identifies_no_caller_not_even_from_loopback(tmp_path: Path, wrong: str) -> None:
    key = make(tmp_path)
    known = CallersOnClock(tmp_path, anonymous=True)
    for one in (wrong, key[:-1], key + "A", key.upper(), " " + key):
        assert known(one, LOOPBACK) is None


def test_the_hash_in_the_file_is_no_key(tmp_path: Path) -> None:
    make(tmp_path)
    (kept,) = load_keys(tmp_path)
    assert CallersOnClock(tmp_path)(kept.hash) is None


def test_only_a_keyed_hash_is_on_the_disk_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    var = tmp_path / "var"
    keys = [make(var, name) for name in ("ada", "bob")]
    files = [path for path in var.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"keys.jsonl", "secret"}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for key in keys:
            assert key.encode() not in path.read_bytes()
            assert key.removeprefix("fsg_").encode() not in path.read_bytes()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_the_hashes_mean_nothing_under_another_secret(tmp_path: Path) -> None:
    key = make(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(32))
    assert CallersOnClock(tmp_path)(key) is None


def test_a_new_key_is_honoured_within_the_check_interval_without_a_restart(tmp_path: Path) -> None:
    known = CallersOnClock(tmp_path)
    assert known("fsg_unknown") is None
    key = make(tmp_path)
    assert known(key) is None, "no request looks at a file"
    known.wait()
    assert known(key) is not None
    assert CHECK_EVERY_S <= 1.0


def test_a_key_made_again_replaces_the_old_one(tmp_path: Path) -> None:
    old = make(tmp_path)
    known = CallersOnClock(tmp_path)
    assert known(old) is not None
    new = make(tmp_path, tier="anonymous")
    known.wait()
    assert known(old) is None
    assert known(new) == Caller("ada", "anonymous")
    assert len(load_keys(tmp_path)) == 1


def test_when_the_file_is_removed_no_key_is_known_any_more(tmp_path: Path) -> None:
    key = make(tmp_path, per_s=3.0)
    known = CallersOnClock(tmp_path)
    assert known(key) is not None
    (tmp_path / "keys.jsonl").unlink()
    known.wait()
    assert known(key) is None
    assert known.callers.rate_of("ada") is None
    make(tmp_path, "bob")
    known.wait()
    assert known(key) is None


GOOD = b'{"name": "ada", "hash": "' + b"0" * 64 + b'"}'
INVALID = {
    "cut short": b'{"name": "ada", "ha\n',
    "cut short before another": b'{"name": "ada", "ha\n' + GOOD + b"\n",
    "a number": b"7\n",
    "null": b"null\n",
    "a list, as earlier versions had": b"[" + GOOD + b"]\n",
    "two on one line": GOOD + GOOD + b"\n",
    "not utf-8": b"\xff\n",
    "an unknown field": GOOD[:-1] + b', "admin": true}\n',
    "no hash": b'{"name": "ada"}\n',
}


@pytest.mark.parametrize("content", INVALID.values(), ids=INVALID)
def test_no_key_is_accepted_from_a_broken_file_until_it_is_mended(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = make(tmp_path, per_s=3.0)
    known = CallersOnClock(tmp_path)
    assert known(key) is not None
    good = (tmp_path / "keys.jsonl").read_bytes()
    (tmp_path / "keys.jsonl").write_bytes(content)
    for _ in range(3):
        known.wait()
        assert known(key) is None
        assert known.callers.rate_of("ada") is None
    assert "keys.jsonl" in known.callers.problem or "line" in known.callers.problem
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert "no key is accepted" in record.message
    assert record.exc_info is None
    assert "\n" not in record.message
    with pytest.raises(ArtifactError, match=r"keys\.jsonl"):
        load_keys(tmp_path)
    with pytest.raises(ArtifactError):
        make(tmp_path, "bob")
    assert (tmp_path / "keys.jsonl").read_bytes() == content, "what is broken is not overwritten"
    (tmp_path / "keys.jsonl").write_bytes(good)
    make(tmp_path, "bob")
    known.wait()
    assert known(key) is not None
    assert known.callers.problem == ""


def test_a_secret_that_comes_back_makes_keys_known_again(tmp_path: Path) -> None:
    key = make(tmp_path)
    (tmp_path / "secret").rename(tmp_path / "elsewhere")
    known = CallersOnClock(tmp_path)
    assert known(key) is None
    (tmp_path / "elsewhere").rename(tmp_path / "secret")
    known.wait()
    assert known(key) is not None


def test_a_file_in_place_of_the_folder_means_that_no_key_is_known(tmp_path: Path) -> None:
    var = tmp_path / "var"
    var.write_text("")
    assert CallersOnClock(var)("fsg_x") is None
    assert CallersOnClock(var, anonymous=True)(None, LOOPBACK) == Caller(f"anonymous@{LOOPBACK}")


def record_starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From where the file was read, each time that it was."""
    starts: list[int] = []

    def parse_keys(content: bytes, start: int = 0) -> Iterator[Key]:
        starts.append(start)
        return keys.parse_keys(content, start)

    monkeypatch.setattr(key_table, "parse_keys", parse_keys)
    return starts


def test_of_a_file_that_has_only_grown_only_the_new_keys_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = record_starts(monkeypatch)
    made = {name: make(tmp_path, name, per_s=1.0) for name in ("ada", "bob")}
    known = CallersOnClock(tmp_path)
    end = (tmp_path / "keys.jsonl").read_bytes().rfind(b"\n") + 1
    made["eve"] = make(tmp_path, "eve", per_s=2.0)
    known.wait()
    assert {name: getattr(known(key), "principal", None) for name, key in made.items()} == {
        "ada": "ada",
        "bob": "bob",
        "eve": "eve",
    }
    assert starts == [0, end]
    assert [known.callers.rate_of(name) for name in ("bob", "eve")] == [1.0, 2.0]


def test_a_file_that_has_changed_before_its_end_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = record_starts(monkeypatch)
    ada, bob = make(tmp_path, "ada", per_s=5.0), make(tmp_path, "bob")
    known = CallersOnClock(tmp_path)
    assert known(ada) is not None
    lines = (tmp_path / "keys.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "keys.jsonl").write_bytes(lines[1])
    known.wait()
    assert [known(key) is not None for key in (ada, bob)] == [False, True]
    assert known.callers.rate_of("ada") is None
    (tmp_path / "keys.jsonl").write_bytes(b"")
    known.wait()
    assert known(bob) is None
    assert starts == [0, 0, 0]


def test_a_key_that_replaces_another_is_appended_and_the_other_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = record_starts(monkeypatch)
    old, bob = make(tmp_path, "ada", per_s=5.0), make(tmp_path, "bob")
    known = CallersOnClock(tmp_path)
    assert known(old) is not None
    end = (tmp_path / "keys.jsonl").stat().st_size
    new = make(tmp_path, "ada")
    known.wait()
    assert [known(key) is not None for key in (old, bob, new)] == [False, True, True]
    assert known.callers.rate_of("ada") is None
    assert starts == [0, end]
    again = CallersOnClock(tmp_path)
    assert [again(key) is not None for key in (old, bob, new)] == [False, True, True]


def test_a_caller_that_was_seen_is_never_out_of_date(tmp_path: Path) -> None:
    """By hand, the same hash again at the end of the file: the last one counts."""
    key = make(tmp_path)
    known = CallersOnClock(tmp_path)
    assert known(key) == known(key) == Caller("ada", "trusted")
    row = orjson.loads((tmp_path / "keys.jsonl").read_bytes()) | {"tier": "anonymous"}
    with (tmp_path / "keys.jsonl").open("ab") as file:
        file.write(orjson.dumps(row) + b"\n")
    known.wait()
    assert known(key) == Caller("ada", "anonymous")


def test_only_so_many_callers_that_were_seen_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_table, "MAX_SEEN_KEYS", 2)
    made = {name: make(tmp_path, name) for name in ("ada", "bob", "eve")}
    known = CallersOnClock(tmp_path)
    for _ in range(3):
        for name, key in made.items():
            assert known(key) == Caller(name, "trusted")
            assert known(key + "x") is None
            assert len(known.callers._table.seen) <= 2


class SlowRead:
    """Makes the next reads of a file wait until they are let go on, and runs one in a thread."""

    def __init__(self, known: CallersOnClock, monkeypatch: pytest.MonkeyPatch) -> None:
        self._go_on, self._reached = threading.Event(), threading.Event()
        monkeypatch.setattr(key_table, "parse_keys", self._parse_keys)
        self._thread = threading.Thread(target=known.callers.check)

    def _parse_keys(self, content: bytes, start: int = 0) -> Iterator[Key]:
        self._reached.set()
        assert self._go_on.wait(10.0)
        return keys.parse_keys(content, start)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._reached.wait(10.0)

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._thread.join()


def test_requests_go_on_while_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make(tmp_path)
    known = CallersOnClock(tmp_path)
    new = make(tmp_path, "bob")
    with SlowRead(known, monkeypatch):
        assert (known(key), known(new)) == (Caller("ada", "trusted"), None)
    assert known(new) == Caller("bob", "trusted")


def test_keys_that_are_removed_while_the_file_is_read_do_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = CallersOnClock(tmp_path)
    key = make(tmp_path)
    with SlowRead(known, monkeypatch):
        (tmp_path / "keys.jsonl").unlink()
    assert known(key) is None
    known.wait()
    assert known(key) is None
    assert "is gone" in known.callers.problem


def test_identifying_writes_nothing(tmp_path: Path) -> None:
    var = tmp_path / "var"
    assert CallersOnClock(var)("fsg_x") is None
    assert not var.exists(), "a request with an unknown key made files"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1"])
def test_anonymous_callers_are_known_from_loopback_each_address_its_own_principal(
    tmp_path: Path, address: str
) -> None:
    assert CallersOnClock(tmp_path, anonymous=True)(None, address) == Caller(f"anonymous@{address}")
    assert CallersOnClock(tmp_path, anonymous=True)("", address) is None, "an empty key is no lack of one"


@pytest.mark.parametrize(
    ("address", "principal"),
    [
        ("::ffff:127.0.0.1", "anonymous@127.0.0.1"),
        ("::ffff:7f00:1", "anonymous@127.0.0.1"),
        ("0:0:0:0:0:0:0:1", "anonymous@::1"),
    ],
)
def test_an_address_in_another_form_is_the_same_anonymous_caller(
    tmp_path: Path, address: str, principal: str
) -> None:
    assert CallersOnClock(tmp_path, anonymous=True)(None, address) == Caller(principal)


def test_long_addresses_that_a_proxy_forwards_are_not_kept(tmp_path: Path) -> None:
    callers = CallersOnClock(tmp_path, anonymous=True)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for i in range(200):
            assert callers(None, f"{i}" + "x" * 10_000) is None
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500_000


@pytest.mark.parametrize(
    "address",
    ["192.0.2.7", "10.0.0.1", "0.0.0.0", "::", "fe80::1", "::ffff:10.0.0.1", "", "localhost", "unix:"],
)
def test_anonymous_callers_from_other_addresses_are_unknown(tmp_path: Path, address: str) -> None:
    assert CallersOnClock(tmp_path, anonymous=True)(None, address) is None


def test_anonymous_callers_are_unknown_where_the_policy_forbids_them(tmp_path: Path) -> None:
    assert CallersOnClock(tmp_path, anonymous=False)(None, LOOPBACK) is None


def test_no_key_can_take_the_name_of_an_anonymous_caller(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        make(tmp_path, f"anonymous@{LOOPBACK}")
    assert not (tmp_path / "keys.jsonl").exists()


@pytest.mark.parametrize("per_s", [-1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused_when_the_key_is_made(tmp_path: Path, per_s: float) -> None:
    """The rate guard cannot score it, and its on_error is often allow: no limit at all."""
    with pytest.raises(ValueError, match="per_s"):
        make(tmp_path, per_s=per_s)


def test_the_file_is_readable_text(tmp_path: Path) -> None:
    make(tmp_path, "ada", per_s=2.5)
    kept = orjson.loads((tmp_path / "keys.jsonl").read_bytes())
    assert kept["name"] == "ada"
    assert (kept["tier"], kept["per_s"], kept["scopes"]) == ("trusted", 2.5, ["infer"])
    assert len(bytes.fromhex(kept["hash"])) == 32


def test_the_rate_of_a_key_reaches_the_rate_guard(tmp_path: Path) -> None:
    folder = letters(tmp_path, ("per_s: *, burst: *", "per_s: 2, burst: 4"))
    key_for(folder, "slow", per_s=0.5)
    key_for(folder, "quick", per_s=100.0)

    async def main() -> dict[str, list[type]]:
        async with opened(folder) as gateway:
            gateway.callers.identify(None, LOOPBACK)
            outcomes = {}
            for name in ("slow", "quick", "default"):
                decisions = await gateway.decide(batch_of(clean_rows(8), name, name=name))
                outcomes[name] = [type(decision.outcome) for decision in decisions]
                for decision in decisions:
                    if isinstance(decision.outcome, Refused):
                        assert decision.outcome.reason is Reason.RATE_LIMITED
                        assert decision.outcome.retry_after_s is not None
                        assert decision.outcome.retry_after_s > 0
            return outcomes

    outcomes = run(main)
    assert outcomes["slow"] == [Served] * 1 + [Refused] * 7
    assert outcomes["quick"] == [Served] * 8
    assert outcomes["default"] == [Served] * 4 + [Refused] * 4


def test_callers_without_a_key_share_an_account_that_no_key_can_have() -> None:
    shared = account_of("anonymous@127.0.0.1")
    assert shared == account_of("anonymous@::1")
    assert shared not in ("anonymous", "anonymous@127.0.0.1")
    assert [account_of(name) for name in ("ada", "anonymous")] == ["ada", "anonymous"]
