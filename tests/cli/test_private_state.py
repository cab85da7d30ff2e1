"""What a gateway writes is for its owner alone, and lies where `--state-dir` says."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.served import Served, clean_rows, copy_of, outlier_rows, serving

OBEY_MODES = (
    sys.executable,
    "-c",
    "import ctypes, os, sys\n"
    "for capability in (1, 2): ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)
"""Runs a command that is refused what a file's mode forbids, as root too: without CAP_DAC_OVERRIDE and
CAP_DAC_READ_SEARCH, dropped by PR_CAPBSET_DROP."""
OTHERS = 0o077
OTHER_USER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")


def gateway(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*OBEY_MODES, sys.executable, "-m", "gateway", *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@contextmanager
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(folder: Path) -> dict[str, str]:
    """What in a folder others may open, with its mode; the folder itself too."""
    paths = [folder, *folder.rglob("*")]
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths if not path.is_symlink()}
    return {str(path): f"{mode:o}" for path, mode in modes.items() if mode & OTHERS}


def use(running: Served, key: str) -> None:
    """Requests that are served and deferred, a review, a reload, metrics."""
    assert running.ask(clean_rows(1), **{"x-api-key": key}).status_code == 200
    for row in outlier_rows(5):
        running.ask(row[None], **{"x-api-key": key})
    claim = running.admin.post("/review/claim", json={"reviewer": "grace"})
    assert claim.status_code == 200
    case = claim.json()
    answer = {"fence": case["fence"], "reviewer": "grace", "unsure": True}
    assert running.admin.post(f"/review/{case['id']}/answer", json=answer).status_code == 200
    assert running.admin.post("/policy/reload").status_code == 200
    assert running.admin.get("/metrics").status_code == 200


@pytest.mark.parametrize("var", ["missing", "made before", "made by others' habits"])
def test_others_can_open_nothing_that_a_gateway_writes_whatever_the_umask(tmp_path: Path, var: str) -> None:
    with open_umask():
        folder = copy_of("letters", tmp_path)
        if var != "missing":
            (folder / "var").mkdir(mode=0o755 if var == "made before" else 0o777)
        key = gateway("key", str(folder), "ada", "--tier", "trusted").stdout.strip()
        with serving(folder, "--local") as running:
            use(running, key)
            assert open_to_others(folder / "var") == {}
        done = gateway("calibrate", str(folder), "--data", str(folder / "letters.npz"))
        assert done.returncode == 0, done.stderr
        gateway("key", "revoke", str(folder), "ada")
    written = {path.name.split("-")[0] for path in (folder / "var").iterdir()}
    assert written >= {
        "keys.jsonl",
        "secret",
        "last_used.json",
        "decisions",
        "review.db",
        "calibrations.jsonl",
    }
    assert open_to_others(folder / "var") == {}


@pytest.mark.parametrize("first", ["key", "check", "serve", "calibrate"])
def test_whichever_command_makes_var_makes_it_private(tmp_path: Path, first: str) -> None:
    with open_umask():
        folder = copy_of("letters", tmp_path)
        match first:
            case "serve":
                with serving(folder, "--local"):
                    pass
            case "calibrate":
                gateway("calibrate", str(folder), "--data", str(folder / "letters.npz"))
            case _:
                gateway(first, str(folder), *(("ada",) * (first == "key")))
    assert (folder / "var").is_dir()
    assert open_to_others(folder / "var") == {}


def test_a_log_that_others_could_read_is_closed_when_it_is_written_again(tmp_path: Path) -> None:
    from gateway.telemetry.line_file import LineFile

    path = tmp_path / "log.jsonl"
    path.write_text("old\n")
    path.chmod(0o666)
    with open_umask():
        LineFile(path).append([b"new"])
        LineFile(tmp_path / "a" / "b.jsonl").append([b"new"])
    assert path.read_text() == "old\nnew\n"
    assert open_to_others(path) == open_to_others(tmp_path / "a") == {}


def test_a_folder_for_state_beside_a_read_only_policy_holds_everything_that_is_written(
    tmp_path: Path,
) -> None:
    folder = copy_of("letters", tmp_path)
    state = tmp_path / ("s" * 60) / ("t" * 60) / "state"
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path.name for path in folder.iterdir()}
    try:
        with open_umask():
            checked = gateway("check", str(folder), "--state-dir", str(state))
            assert checked.returncode == 0, checked.stderr
            made = gateway("key", str(folder), "ada", "--tier", "trusted", "--state-dir", str(state))
            key = made.stdout.strip()
            flags = ("--local", "--state-dir", str(state))
            with serving(folder, *flags, launcher=OBEY_MODES, log_folder=tmp_path) as running:
                use(running, key)
                assert running.ask(clean_rows(1), **{"x-api-key": "fsg_wrong"}).status_code == 401
                assert sorted(path.suffix for path in (state / "run").iterdir()) == [".grpc", ".sock"]
                assert open_to_others(state) == {}
            rows = json.loads(gateway("key", "list", str(folder), "--state-dir", str(state), "--json").stdout)
        assert {path.name for path in folder.iterdir()} == before
        assert [row["name"] for row in rows if row["last_used"]] == ["ada"]
        assert {path.name.split("-")[0] for path in state.iterdir()} >= {
            "decisions",
            "review.db",
            "keys.jsonl",
        }
        assert open_to_others(state) == {}
    finally:
        folder.chmod(0o755)


def test_without_a_folder_for_state_a_read_only_policy_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    folder.chmod(0o555)
    try:
        done = gateway("check", str(folder))
    finally:
        folder.chmod(0o755)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{folder}/var: ")
    assert "--state-dir" in done.stderr


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    (folder / "var").mkdir(mode=0o700)
    os.chown(folder / "var", OTHER_USER, OTHER_USER)
    for words in (("check", str(folder)), ("key", str(folder), "ada")):
        done = gateway(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{folder}/var: " in done.stderr
        assert f"belongs to user {OTHER_USER}" in done.stderr
    assert list((folder / "var").iterdir()) == []


def test_a_folder_that_users_share_is_refused_and_not_closed_to_them(tmp_path: Path) -> None:
    folder, shared = copy_of("letters", tmp_path), tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    done = gateway("check", str(folder), "--state-dir", str(shared))
    assert done.returncode == 2
    assert "is shared by users: name a folder of its own below it" in done.stderr
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert gateway("check", str(folder), "--state-dir", str(shared / "own")).returncode == 0
    assert open_to_others(shared / "own") == {}


def test_a_link_to_an_open_folder_is_refused_and_the_folder_left_as_it_is(tmp_path: Path) -> None:
    folder, elsewhere = copy_of("letters", tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (folder / "var").symlink_to(elsewhere)
    done = gateway("check", str(folder))
    assert done.returncode == 2
    assert "chmod 700" in done.stderr
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
    elsewhere.chmod(0o700)
    assert gateway("check", str(folder)).returncode == 0
    shutil.rmtree(elsewhere)
