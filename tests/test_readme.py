"""What the README says works, run as it says it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.served import CONFIGS, copy_of, serving

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str, holding: str) -> str:
    """The fenced block of a language that holds some text."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holding in text]
    assert len(found) == 1, f"{len(found)} {language} blocks hold {holding!r}"
    return str(found[0])


def commands(holding: str) -> list[list[str]]:
    lines = block("console", holding).splitlines()
    return [line.removeprefix("$ .venv/bin/gateway ").split() for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: one model, the README's policy, held-out rows."""
    folder = tmp_path_factory.mktemp("readme") / "mine"
    folder.mkdir()
    shutil.copy(CONFIGS / "letters" / "primary.onnx", folder)
    (folder / "gateway.yaml").write_text(block("yaml", "name: mine"))
    with np.load(CONFIGS / "letters" / "letters.npz") as held:
        rows, labels = held["x"], np.array([ord(letter) - ord("A") for letter in held["y"]])
    np.savez(folder.parent / "held_out.npz", x=rows[-4000:].astype(np.float32), y=labels[-4000:])
    return folder


def test_own_model_to_guarded_endpoint_by_the_readmes_commands(mine: Path) -> None:
    *prepare, serve = commands("calibrate mine")
    for words in prepare:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            cwd=mine.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert serve[:2] == ["serve", "mine"]
    with serving(mine, *serve[2:]) as running, np.load(mine.parent / "held_out.npz") as held:
        reply = running.ask(held["x"][:1])
        assert reply.headers["x-failsafe-outcome"] in ("served", "degraded", "deferred")


def test_the_readmes_request_gets_the_readmes_answer(tmp_path: Path) -> None:
    shown = block("console", "curl")
    body = json.loads(re.findall(r"-d '(.*)'", shown, re.DOTALL)[0])
    promised = json.loads(block("json", '"served"'))
    with serving(copy_of("letters", tmp_path), "--local") as running:
        got = running.data.post("/v2/models/letters/infer", json=body).json()
        body["inputs"][0]["data"] = [15, 0] * 8
        deferred = running.data.post("/v2/models/letters/infer", json=body)
    assert got["outputs"] == promised["outputs"]
    assert got["parameters"]["fs_outcome"] == promised["parameters"]["fs_outcome"]
    assert set(got["parameters"]) == set(promised["parameters"])
    assert deferred.status_code == 422
    assert set(deferred.json()) == set(json.loads(block("json", '"deferred"')))


def test_every_command_that_the_readme_names_exists() -> None:
    for name in set(re.findall(r"`?gateway (serve|demo|check|calibrate|key|bench)\b", README)):
        done = subprocess.run(
            [sys.executable, "-m", "gateway", name, "--help"], capture_output=True, check=False
        )
        assert done.returncode == 0, name
