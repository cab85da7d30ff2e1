"""Keys are never lost: by a kill at any moment, by another writer, or with the list of earlier versions."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from gateway.access.callers import Caller, Callers
from gateway.access.keys import Key, add_key, hash_of_key, load_keys
from gateway.core.errors import ArtifactError
from gateway.serving.repository import Repository
from tests.support.deployments import letters

REMOTE = "192.0.2.7"
ADD = """
import sys
from pathlib import Path
from gateway.access.keys import add_key
for i in range(int(sys.argv[3])):
    name, scopes = f"{sys.argv[2]}{i}", frozenset({"infer"})
    print(name, add_key(Path(sys.argv[1]), name, tier="trusted", per_s=None, scopes=scopes), flush=True)
"""
KILLED_AT = """
import os, signal, sys
calls, real = [0], getattr(os, sys.argv[4])
def counted(*arguments, **options):
    calls[0] += 1
    if calls[0] == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(os, sys.argv[4], counted)
"""
SMALL_FILES = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
"""
TORN = """
import os, signal
real = os.write
def torn(descriptor, text):
    real(descriptor, text[: len(text) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = torn
"""


def adder(var: Path, prefix: str, n: int, *more: str, before: str = "") -> subprocess.Popen[str]:
    """A process that adds n keys and prints each once `add_key` has returned."""
    command = [sys.executable, "-c", before + ADD, str(var), prefix, str(n), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def printed(process: subprocess.Popen[str]) -> dict[str, str]:
    """The keys that a process has returned, by name, once it has ended."""
    text, _ = process.communicate(timeout=60)
    pairs = [line.split(" ") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {name: key.strip() for name, key in pairs}


def assert_known(var: Path, keys: dict[str, str]) -> None:
    """A gateway that starts now knows the caller of each key."""
    callers = Callers(var, anonymous_loopback=False)
    assert {
        name for name, key in keys.items() if callers.identify(key, REMOTE) == Caller(name, "trusted")
    } == set(keys)


def add(var: Path, name: str) -> str:
    return add_key(var, name, tier="trusted", per_s=None, scopes=frozenset({"infer"}))


def test_no_kill_at_a_random_moment_loses_a_key_that_was_returned(tmp_path: Path) -> None:
    keys: dict[str, str] = {}
    for round_ in range(6):
        process = adder(tmp_path, f"r{round_}-", 100_000)
        assert process.stdout is not None
        process.stdout.read(1)  # it has begun to return keys
        time.sleep(0.013 * round_)
        process.send_signal(signal.SIGKILL)
        text = f"r{process.communicate()[0]}"
        keys |= dict(line.split(" ") for line in text.splitlines()[:-1])
        load_keys(tmp_path)
    keys["after"] = add(tmp_path, "after")
    assert len(keys) > 6
    assert_known(tmp_path, keys)


def test_a_kill_in_the_middle_of_a_line_loses_that_key_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    keys = {name: add(tmp_path, name) for name in ("ada", "bob")}
    assert printed(adder(tmp_path, "torn", 1, before=TORN)) == {}
    content = (tmp_path / "keys.jsonl").read_bytes()
    assert not content.endswith(b"\n")
    assert_known(tmp_path, keys)
    assert "the last line of the keys on file is cut short: it is ignored" in caplog.text
    keys["eve"] = add(tmp_path, "eve")
    assert "keys.jsonl was cut short: it is removed" in caplog.text
    assert_known(tmp_path, keys)
    assert [key.name for key in load_keys(tmp_path)] == ["ada", "bob", "eve"]
    assert (tmp_path / "keys.jsonl").read_bytes().count(b"\n") == 3


def test_a_running_gateway_survives_a_torn_line_and_honours_what_follows(tmp_path: Path) -> None:
    ada = add(tmp_path, "ada")
    callers = Callers(tmp_path, anonymous_loopback=False)
    printed(adder(tmp_path, "torn", 1, before=TORN))
    callers.check()
    assert callers.identify(ada, REMOTE) == Caller("ada", "trusted")
    bob = add(tmp_path, "bob")
    callers.check()
    assert [callers.identify(key, REMOTE) for key in (ada, bob)] == [
        Caller("ada", "trusted"),
        Caller("bob", "trusted"),
    ]


APPENDS = {"open": 4, "close": 4, "fchmod": 2, "ftruncate": 1, "write": 2, "fsync": 2}
CONVERSION = {"open": 5, "close": 5, "fchmod": 2, "fsync": 4, "replace": 1, "rename": 1, "write": 1}
"""How often each system call is made, at least."""


def moments(calls: dict[str, int]) -> list[tuple[str, int]]:
    return [(call, nth) for call, times in calls.items() for nth in range(1, times + 1)]


@pytest.mark.parametrize(("call", "nth"), moments(APPENDS))
def test_a_kill_before_any_system_call_loses_no_earlier_key(tmp_path: Path, call: str, nth: int) -> None:
    keys = {"ada": add(tmp_path, "ada")}
    with (tmp_path / "keys.jsonl").open("ab") as file:
        file.write(b'{"name": "to')
    process = adder(tmp_path, "new", 2, call, str(nth), before=KILLED_AT)
    keys |= printed(process)
    assert process.returncode == -signal.SIGKILL
    assert_known(tmp_path, keys)
    keys["after"] = add(tmp_path, "after")
    assert_known(tmp_path, keys)


def test_processes_that_add_keys_at_once_lose_none(tmp_path: Path) -> None:
    """From the first: the secret too is made only once."""
    processes = [adder(tmp_path, prefix, 25) for prefix in ("a", "b", "c")]
    keys = {name: key for process in processes for name, key in printed(process).items()}
    assert len(keys) == 75
    assert_known(tmp_path, keys)
    assert len(load_keys(tmp_path)) == 75


def test_a_running_gateway_honours_the_key_of_another_process_within_a_second(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    add(folder / "var", "ada")

    async def main() -> float:
        repository = Repository.open([folder])
        repository.start()
        try:
            adding = asyncio.to_thread(printed, adder(folder / "var", "new", 1))
            (key,) = (await adding).values()
            start_s = time.monotonic()
            for _ in range(1000):
                if repository.callers[0].identify(key, REMOTE) is not None:
                    break
                await asyncio.sleep(0.01)
            return time.monotonic() - start_s
        finally:
            await repository.close()

    assert asyncio.run(main()) < 1.0


# ---------------------------------------------------------------- the list of earlier versions


def old_list(var: Path, n: int) -> dict[str, str]:
    """Writes `keys.json` and `secret` as earlier versions did; the keys by name."""
    var.mkdir(parents=True, exist_ok=True)
    secret = bytes(range(32))
    keys = {f"old{i}": f"fsg_{i}" for i in range(n)}
    rows = [{"name": name, "hash": hash_of_key(key, secret), "tier": "trusted"} for name, key in keys.items()]
    for name, body in (("secret", secret), ("keys.json", json.dumps(rows, indent=2).encode())):
        (var / name).touch(mode=0o600)
        (var / name).write_bytes(body)
    return keys


def test_a_list_of_an_earlier_version_is_converted_at_the_first_read(tmp_path: Path) -> None:
    keys = old_list(tmp_path, 3)
    before = (tmp_path / "keys.json").read_bytes()
    assert_known(tmp_path, keys)
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "keys.jsonl", "keys.json.converted"}
    assert (tmp_path / "keys.json.converted").read_bytes() == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert_known(tmp_path, keys)


def test_a_list_of_an_earlier_version_is_converted_at_the_first_write(tmp_path: Path) -> None:
    keys = old_list(tmp_path, 3)
    keys["new"] = add(tmp_path, "new")
    assert_known(tmp_path, keys)
    assert not (tmp_path / "keys.json").exists()


def test_every_field_of_an_old_list_is_kept(tmp_path: Path) -> None:
    kept = Key(
        name="ada", hash="0" * 64, tier="t", per_s=0.5, scopes=frozenset({"explain"}), models=frozenset({"m"})
    )
    (tmp_path / "keys.json").write_bytes(orjson.dumps([kept.model_dump(mode="json")]))
    assert load_keys(tmp_path) == [kept]
    assert load_keys(tmp_path) == [kept]


@pytest.mark.parametrize(("call", "nth"), moments(CONVERSION))
def test_a_kill_before_any_system_call_of_the_conversion_loses_no_key(
    tmp_path: Path, call: str, nth: int
) -> None:
    keys = old_list(tmp_path, 50)
    process = adder(tmp_path, "new", 1, call, str(nth), before=KILLED_AT)
    keys |= printed(process)
    assert process.returncode == -signal.SIGKILL
    assert_known(tmp_path, keys)
    assert not (tmp_path / "keys.json").exists()


def test_a_kill_while_the_new_file_is_written_loses_no_key(tmp_path: Path) -> None:
    """By the kernel, at the first byte beyond a limit."""
    keys = old_list(tmp_path, 50)
    process = adder(tmp_path, "new", 1, before=SMALL_FILES)
    assert printed(process) == {}
    assert process.returncode == -signal.SIGXFSZ
    assert not (tmp_path / "keys.jsonl").exists()
    assert_known(tmp_path, keys)
    assert not (tmp_path / "keys.json").exists()


def test_processes_that_convert_at_once_lose_no_key(tmp_path: Path) -> None:
    keys = old_list(tmp_path, 500)
    for process in [adder(tmp_path, prefix, 3) for prefix in ("a", "b", "c")]:
        keys |= printed(process)
    assert len(keys) == 509
    assert_known(tmp_path, keys)


def test_keys_that_were_revoked_do_not_come_back_from_a_list_that_was_left(tmp_path: Path) -> None:
    """A conversion that was killed before the list was renamed; then the operator deletes the new file."""
    keys = old_list(tmp_path, 2)
    left = (tmp_path / "keys.json").read_bytes()
    assert_known(tmp_path, keys)
    (tmp_path / "keys.json").write_bytes(left)
    callers = Callers(tmp_path, anonymous_loopback=False)
    (tmp_path / "keys.jsonl").unlink()
    assert Callers(tmp_path, anonymous_loopback=False).identify(keys["old0"], REMOTE) is None
    callers.check()
    assert callers.identify(keys["old0"], REMOTE) is None
    assert (tmp_path / "keys.json.converted").read_bytes() == left, "nothing is overwritten"


def test_an_invalid_list_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b'[{"name": "ada"')
    with pytest.raises(ArtifactError, match=r"keys\.json"):
        load_keys(tmp_path)
    with pytest.raises(ArtifactError, match=r"keys\.json"):
        add(tmp_path, "bob")
    assert Callers(tmp_path, anonymous_loopback=False).identify("fsg_x", REMOTE) is None
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_list_that_appears_while_the_gateway_runs_is_converted(tmp_path: Path) -> None:
    callers = Callers(tmp_path, anonymous_loopback=False)
    keys = old_list(tmp_path, 2)
    callers.check()
    assert callers.identify(keys["old1"], REMOTE) == Caller("old1", "trusted")
    assert not (tmp_path / "keys.json").exists()


def test_a_full_disk_is_an_error_and_loses_no_earlier_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"ada": add(tmp_path, "ada")}
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:20]))
    with pytest.raises(OSError, match="No space left"):
        add(tmp_path, "bob")
    monkeypatch.undo()
    assert_known(tmp_path, keys)
    keys["bob"] = add(tmp_path, "bob")
    assert_known(tmp_path, keys)
