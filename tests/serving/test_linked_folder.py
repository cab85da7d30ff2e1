"""A private folder with a short path: made, in use, left by a killed process, removed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.serving.linked_folder import LinkedFolder
from gateway.serving.unix_path import LONGEST

LONGEST_SESSION = "session_2026-11-29_07-16-21_728886_4194304/sockets/plasma_store"
HOLD = """
import signal, sys
from pathlib import Path
from gateway.serving.linked_folder import LinkedFolder
print(LinkedFolder.make(Path(sys.argv[1])).path, flush=True)
signal.pause()
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def held(inside: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder, and its short path."""
    command = [sys.executable, "-c", HOLD, str(inside)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as told:
        return process, Path(told.readline().strip())


def test_a_socket_deep_in_it_has_a_short_path_whatever_the_folder(tmp_path: Path) -> None:
    made = LinkedFolder.make(tmp_path / ("d" * 120) / "ray")
    try:
        assert len(os.fsencode(made.path / LONGEST_SESSION)) <= LONGEST
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(made.path / "s"))
        assert (made.folder / "s").is_socket()
        assert made.folder.parent == tmp_path / ("d" * 120) / "ray"
    finally:
        made.remove()


def test_it_is_for_its_owner_alone_whatever_the_umask_and_what_is_put_into_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = LinkedFolder.make(tmp_path / "ray")
        (made.path / "logs").mkdir(mode=0o777)
        (made.path / "logs" / "a.log").write_text("")
        (made.path / "latest").symlink_to("logs")
        made.path.chmod(0o777)
    finally:
        os.umask(before)
    made.close_to_others()
    modes = [
        mode_of(path) for path in (tmp_path / "ray", made.path.parent, made.folder, made.folder / "logs")
    ]
    assert modes == [0o700] * 4
    assert mode_of(made.folder / "logs" / "a.log") == 0o600
    made.remove()


def test_nothing_is_left_when_it_is_removed(tmp_path: Path) -> None:
    made = LinkedFolder.make(tmp_path / "ray")
    (made.path / "logs").mkdir()
    made.remove()
    assert not made.path.parent.exists()
    assert list((tmp_path / "ray").iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    inside = tmp_path / "ray"
    (killed, gone), (running, kept) = held(inside), held(inside)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert gone.resolve().is_dir()
        made = LinkedFolder.make(inside)
        assert not gone.parent.exists()
        assert kept.resolve().is_dir()
        assert {path.resolve() for path in inside.iterdir()} == {made.folder, kept.resolve()}
        made.remove()
    finally:
        running.kill()
        running.wait()
    LinkedFolder.make(inside).remove()
    assert list(inside.iterdir()) == []
    assert not kept.parent.exists()


@pytest.mark.parametrize("written", ["/etc/passwd", "", "relative", "/tmp/fsg-none/f", "\x00"])
def test_a_short_path_that_was_tampered_with_removes_nothing_else(tmp_path: Path, written: str) -> None:
    left = tmp_path / "ray" / "left"
    left.mkdir(parents=True)
    (left / "short_path").write_text(written)
    made = LinkedFolder.make(tmp_path / "ray")
    made.remove()
    assert not left.exists()
    assert Path("/etc/passwd").exists()
