"""What is printed of the administration token: one that the gateway made, and never one that it was given."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gateway.replica import TOKEN_VARIABLE, admin_token, shown_token
from tests.support.served import TOKEN, copy_of, free_port, serving


def test_a_token_from_the_environment_is_printed_nowhere(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with serving(folder, "--local") as served:
        served.admin.get("/status").raise_for_status()
        commands = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True)
        assert TOKEN not in commands.stdout
    printed = (folder / "serve.log").read_text()
    assert "token   that of GATEWAY_ADMIN_TOKEN\n" in printed
    written = [path for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert written == []


def test_a_token_that_was_made_here_is_printed_once_and_opens_the_administration(tmp_path: Path) -> None:
    folder, ports = copy_of("letters", tmp_path), [free_port() for _ in range(3)]
    options = zip(("--port", "--grpc-port", "--admin-port"), map(str, ports), strict=True)
    command = [sys.executable, "-m", "gateway", "serve", str(folder), "--local"]
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    with subprocess.Popen(
        [*command, *(one for option in options for one in option)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("token "))
            (token,) = re.findall(r"^token   (\S{32})$", line)
            headers = {"authorization": f"Bearer {token}"}
            assert httpx.get(f"http://127.0.0.1:{ports[2]}/metrics", headers=headers).status_code == 200
        finally:
            process.terminate()


def test_what_is_shown_is_the_token_that_later_replicas_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)  # so that it is restored at the end
    monkeypatch.delenv(TOKEN_VARIABLE)
    made = shown_token()
    assert made == admin_token() and len(made) == 32
    assert shown_token() == "that of GATEWAY_ADMIN_TOKEN"
