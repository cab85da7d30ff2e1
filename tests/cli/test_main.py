"""The `gateway` command as a person or a script meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tests.support.onnx_bytes import field
from tests.support.served import CONFIGS, clean_rows, copy_of, free_port, outlier_rows, serving


def gateway(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_command_names_its_version() -> None:
    done = gateway("--version")
    assert (done.returncode, done.stdout) == (0, f"failsafe-gateway {version('failsafe-gateway')}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_the_commands(shell: str) -> None:
    """What a shell calls to complete `gateway ca`: the instruction and the words are in variables."""
    words = {"COMP_WORDS": "gateway ca", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "gateway ca"}
    asked = {"_GATEWAY_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args", **words}
    command = Path(sys.executable).parent / "gateway"
    done = subprocess.run(
        [str(command)], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60, check=False
    )
    assert "calibrate" in done.stdout
    assert "serve" not in done.stdout


@pytest.mark.parametrize("name", sorted(p.parent.name for p in CONFIGS.glob("*/gateway.yaml")))
def test_check_accepts_every_deployment_that_is_committed(name: str) -> None:
    done = gateway("check", str(CONFIGS / name), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["policy"].startswith(f"{name}@")


def test_check_names_file_line_field_and_the_nearest_choice(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    path = folder / "gateway.yaml"
    path.write_text(path.read_text().replace("on_error: defer", "on_error: defre"))
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "defre" in text)
    done = gateway("check", str(folder))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}:{line}: guards[1].on_error: ")
    assert "did you mean 'defer'?" in done.stderr
    problems = json.loads(gateway("check", str(folder), "--json").stdout)["problems"]
    assert problems[0]["line"] == line


def test_check_refuses_a_model_that_was_not_certified(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with (folder / "primary.onnx").open("ab") as model:
        model.write(field(6, "ModelProto.doc_string: the same answers, and other bytes"))
    done = gateway("check", str(folder))
    assert done.returncode == 2
    assert "the model of rung 'primary' is not the one that was certified" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_suggests_the_nearest_file(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    path = folder / "gateway.yaml"
    path.write_text(path.read_text().replace("path: primary.onnx", "path: primry.onnx"))
    assert "did you mean 'primary.onnx'?" in gateway("check", str(folder)).stderr


def test_serve_refuses_a_public_address_and_a_port_in_use(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    public = gateway("serve", str(folder), "--local", "--host", "0.0.0.0", "--port", str(free_port()))
    assert public.returncode == 2
    assert "trusted_proxies" in public.stderr
    with serving(folder, "--local") as running:
        port = str(running.data.base_url.port)
        taken = gateway("serve", str(folder), "--local", "--port", port, "--admin-port", str(free_port()))
    assert taken.returncode == 2
    assert port in taken.stderr


def test_local_serving_answers_and_ends_by_ctrl_c_with_everything_written(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with serving(folder, "--local") as running:
        ids = [running.ask(row[None]).headers["x-failsafe-decision-id"] for row in clean_rows(30)]
    assert running.process.returncode == 0
    lines = [
        line for log in (folder / "var").glob("decisions-*.jsonl") for line in log.read_text().splitlines()
    ]
    assert [json.loads(line)["request"] for line in lines] == ids


def test_a_key_is_shown_once_and_honoured_within_a_second(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with serving(folder, "--local") as running:
        assert running.ask(clean_rows(1), **{"x-api-key": "fsg_wrong"}).status_code == 401
        made = gateway("key", str(folder), "team-a", "--tier", "trusted", "--json")
        key = json.loads(made.stdout)["key"]
        time.sleep(1)
        assert running.ask(clean_rows(1), **{"x-api-key": key}).status_code == 200
    assert all(key.encode() not in p.read_bytes() for p in (folder / "var").rglob("*") if p.is_file())


def test_a_key_for_an_unknown_tier_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    done = gateway("key", str(copy_of("letters", tmp_path)), "team-a", "--tier", "trustd")
    assert done.returncode == 2
    assert "did you mean 'trusted'?" in done.stderr


def test_calibrate_says_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    data = tmp_path / "data.npz"
    np.savez(data, attributes=clean_rows(100))
    done = gateway("calibrate", str(folder), "--data", str(data))
    assert done.returncode == 2
    assert "y" in done.stderr
    assert "Traceback" not in done.stderr


def test_deferred_rows_survive_a_kill(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    with pytest.raises(ProcessLookupError), serving(folder, "--local") as running:
        replies = [running.ask(row[None]) for row in outlier_rows(10)]
        urls = [reply.json()["review_url"] for reply in replies if reply.status_code == 422]
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
        raise ProcessLookupError
    assert len(urls) == 10
    with serving(folder, "--local") as again:
        assert {again.data.get(url).json()["state"] for url in urls} == {"waiting"}
