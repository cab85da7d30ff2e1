"""`gateway key`, `key list` and `key revoke` beside a gateway that runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.access.keys import add_key, load_keys
from gateway.cli.moments import format_moment, parse_moment
from tests.support.served import Served, clean_rows, copy_of, serving

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)


def gateway(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def listed(folder: Path, *options: str) -> dict[str, dict[str, object]]:
    done = gateway("key", "list", str(folder), "--json", *options)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


def status_with(running: Served, key: str) -> int:
    return running.ask(clean_rows(1), **{"x-api-key": key}).status_code


def until(running: Served, key: str, status: int) -> float:
    """Seconds until a request with this key ends so."""
    start_s = time.monotonic()
    while status_with(running, key) != status:
        assert time.monotonic() - start_s < 10.0, f"not {status} after ten seconds"
        time.sleep(0.05)
    return time.monotonic() - start_s


def test_a_key_is_listed_expires_and_is_revoked_while_a_gateway_runs(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with serving(folder, "--local") as running:
        made = json.loads(gateway("key", str(folder), "ada", "--expires", "30d", "--json").stdout)
        brief = gateway("key", str(folder), "bob", "--expires", "4s").stdout.strip()
        until(running, made["key"], 200)
        rows = listed(folder)
        assert rows["ada"]["expires"] == made["expires"]
        assert rows["ada"]["expired"] is False
        for _ in range(100):
            if listed(folder)["ada"]["last_used"]:
                break
        last = datetime.fromisoformat(str(listed(folder)["ada"]["last_used"]))
        assert timedelta(0) <= datetime.now(UTC) - last < timedelta(minutes=2)
        until(running, brief, 401)
        assert listed(folder)["bob"]["expired"] is True

        assert gateway("key", "revoke", str(folder), "ada").stdout == "revoked the key of ada\n"
        until(running, made["key"], 401)
        assert set(listed(folder)) == {"bob"}

        (folder / "var" / "keys.jsonl").chmod(0o666)
        eve = add_key_beside(folder)
        assert eve == 2
        metrics = running.admin.get("/metrics").text
        assert any(
            line.startswith("gateway_keys_readable{") and line.endswith(" 0.0")
            for line in metrics.splitlines()
        )
        status = running.admin.get("/status").json()
        assert "written by others" in status["keys_problem"]
        assert status["replicas"][0]["keys_readable"] is False
        (folder / "var" / "keys.jsonl").chmod(0o600)
        until(running, gateway("key", str(folder), "eve").stdout.strip(), 200)
        assert running.admin.get("/status").json()["keys_problem"] == ""
    log = (folder / "serve.log").read_text()
    assert "no key is accepted" in log
    assert "Traceback" not in log
    assert listed(folder)["eve"]["last_used"], "written when the gateway ends"


def add_key_beside(folder: Path) -> int:
    """The exit code of an addition to a file that others may write, after the gateway has seen it so."""
    time.sleep(1.1)
    return gateway("key", str(folder), "eve").returncode


def test_the_list_is_a_table_with_a_line_a_key(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    assert gateway("key", "list", str(folder)).stdout.split() == [
        "NAME",
        "TIER",
        "ROWS/S",
        "SCOPES",
        "MODELS",
        "MADE",
        "EXPIRES",
        "LAST",
        "USED",
    ]
    gateway("key", str(folder), "ada", "--tier", "trusted", "--per-s", "2", "--expires", "2099-01-31")
    gateway("key", str(folder), "bob", "--scope", "infer", "--scope", "explain", "--model", "letters")
    _, ada, bob = gateway("key", "list", str(folder)).stdout.splitlines()
    assert ada.split()[:5] == ["ada", "trusted", "2", "infer", "all"]
    assert "2099-01-31 00:00 UTC" in ada
    assert ada.endswith("not yet")
    assert bob.split()[:5] == ["bob", "anonymous", "policy's", "explain,infer", "letters"]
    assert "never" in bob


def test_an_unknown_name_is_not_revoked_and_the_nearest_is_named(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    gateway("key", str(folder), "team-a")
    done = gateway("key", "revoke", str(folder), "team-b")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "NAME: 'team-b' has no key here; did you mean 'team-a'?\n"


def test_a_key_is_revoked_and_listed_beside_a_policy_that_is_broken(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    add_key(folder / "var", "ada", tier="trusted", per_s=None, scopes=frozenset({"infer"}))
    (folder / "gateway.yaml").write_text("schema: [")
    assert set(listed(folder)) == {"ada"}
    assert (
        gateway("key", "revoke", str(folder), "ada", "--json").stdout == '{"name": "ada", "revoked": true}\n'
    )
    assert load_keys(folder / "var") == []


def test_a_folder_named_like_a_command_is_written_with_its_path(tmp_path: Path) -> None:
    shutil.move(copy_of("letters", tmp_path), tmp_path / "list")
    wrong = gateway("key", "list", "ada", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "`key list` is a command: to make a key for the folder of that name write ./list" in wrong.stderr
    assert gateway("key", "./list", "ada", cwd=tmp_path).stdout.startswith("fsg_")
    assert set(listed(tmp_path / "list")) == {"ada"}
    assert "ada" in gateway("key", "list", "list", cwd=tmp_path).stdout


@pytest.mark.parametrize("command", ["list", "revoke"])
def test_what_is_no_deployment_folder_is_named(tmp_path: Path, command: str) -> None:
    more = ("ada",) * (command == "revoke")
    done = gateway("key", command, str(tmp_path), *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path}/gateway.yaml: there is none: name a deployment folder\n"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", NOW + timedelta(days=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("90s", NOW + timedelta(seconds=90)),
        (" 2w ", NOW + timedelta(weeks=2)),
        ("2027-02-01", datetime(2027, 2, 1, tzinfo=UTC)),
        ("2027-02-01T08:30", datetime(2027, 2, 1, 8, 30, tzinfo=UTC)),
        ("2027-02-01T08:30:00+01:00", datetime(2027, 2, 1, 7, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_date_or_so_long_from_now(text: str, moment: datetime) -> None:
    assert parse_moment(text, NOW) == moment
    assert format_moment(moment).endswith(" UTC")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0d", "not in the future"),
        ("2027-01-31", "not in the future"),
        ("2020-01-01", "not in the future"),
        ("soon", "no moment"),
        ("", "no moment"),
        ("30", "no moment"),
        ("-1d", "no moment"),
        ("1.5d", "no moment"),
        ("999999999w", "no moment"),
        ("2027-13-01", "no moment"),
    ],
)
def test_what_is_no_moment_to_come_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_moment(text, NOW)
