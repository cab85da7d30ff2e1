"""`gateway init` and `gateway inspect` as a newcomer meets them: with a model, with rows, with mistakes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.cli.test_main import gateway
from tests.support.served import CONFIGS

LETTERS, DIAMONDS = CONFIGS / "letters", CONFIGS / "diamonds"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out rows of configs/letters, with the classes by name."""
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    with np.load(LETTERS / "letters.npz") as held:
        np.savez(path, x=held["x"][-2000:].astype(np.float32), y=held["y"][-2000:].astype(np.str_))
    return path


def test_a_model_with_a_fallback_and_rows_is_ready_to_serve(tmp_path: Path, rows: Path) -> None:
    files = "--model", str(LETTERS / "primary.onnx"), "--fallback", str(LETTERS / "fallback.onnx")
    classes = np.load(rows)
    numbered = tmp_path / "numbered.npz"
    np.savez(numbered, x=classes["x"], y=np.array([ord(one) - ord("A") for one in classes["y"]]))
    folder = tmp_path / "My Letters"
    done = gateway("init", str(folder), *files, "--data", str(numbered))
    assert done.returncode == 0, done.stderr
    assert f"next: gateway serve '{folder}' --local" in done.stdout
    policy = yaml.safe_load((folder / "gateway.yaml").read_text())
    assert policy["name"] == "my-letters"
    assert [rung["name"] for rung in policy["rungs"]] == ["primary", "fallback"]
    assert policy["guards"][1]["detectors"] == ["gen", "rmd", "residual", "knn", "raw"]
    assert sorted(path.name for path in folder.glob("*.onnx")) == ["fallback.onnx", "primary.onnx"]
    checked = gateway("check", str(folder), "--json")
    assert json.loads(checked.stdout)["policy"].startswith("my-letters@1#")


def test_without_rows_the_next_command_is_calibrate(tmp_path: Path) -> None:
    done = gateway("init", str(tmp_path / "one"), "--model", str(DIAMONDS / "primary.onnx"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"next: gateway calibrate {tmp_path / 'one'} --data ROWS"
    policy = yaml.safe_load((tmp_path / "one" / "gateway.yaml").read_text())
    assert (policy["task"], policy["expose"]) == ("regression", ["value", "lower", "upper"])
    assert policy["rungs"][0]["model"]["names"] == {"value": "variable"}


def test_names_of_classes_are_taken_in_order_and_their_error_is_told(tmp_path: Path, rows: Path) -> None:
    done = gateway("init", str(tmp_path / "x"), "--model", str(LETTERS / "primary.onnx"), "--data", str(rows))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "x" / "gateway.yaml").read_text()
    assert yaml.safe_load(text)["labels"] == [chr(ord("A") + i) for i in range(26)]
    (wrong,) = re.findall(r"of your rows ([0-9.]+)% are", text)
    assert float(wrong) < 5, "the order fits the model"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--model: is missing: give an ONNX file, or --upstream URL"),
        (["--model", "nowhere.onnx"], "nowhere.onnx: is not a file"),
        (["--model", str(LETTERS / "gateway.yaml")], "gateway.yaml"),
        (["--upstream", "http://127.0.0.1:9"], "names no model; give http://HOST:PORT/v2/models/NAME"),
        (["--upstream", "http://127.0.0.1:9/v2/models/m"], "cannot be calibrated"),
        (
            ["--model", str(LETTERS / "primary.onnx"), "--fallback", str(DIAMONDS / "fallback.onnx")],
            "the fallback takes the inputs carat, depth,",
        ),
        (["--model", str(LETTERS / "primary.onnx"), "--data", str(LETTERS / "none.csv")], "none.csv"),
    ],
    ids=["no model", "no file", "no ONNX file", "no model's URL", "no server", "other inputs", "no rows"],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path, words: list[str], says: str) -> None:
    done = gateway("init", str(tmp_path / "new"), *words)
    assert done.returncode == 2
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new" / "gateway.yaml").exists()


def test_a_folder_that_has_a_policy_is_left_alone(tmp_path: Path) -> None:
    shutil.copy(LETTERS / "gateway.yaml", tmp_path)
    done = gateway("init", str(tmp_path), "--model", str(LETTERS / "primary.onnx"))
    assert done.returncode == 2
    assert f"{tmp_path / 'gateway.yaml'}: exists" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.yaml"]


def test_inspect_shows_roles_guards_and_promises() -> None:
    shown = gateway("inspect", str(DIAMONDS / "primary.onnx")).stdout
    for expected in ("task: regression", "clarity", "as categories or text", "value", "absolute error"):
        assert expected in shown
    found = json.loads(gateway("inspect", str(LETTERS / "primary.onnx"), "--json").stdout)
    assert found["task"] == "classification"
    assert found["inputs"][0]["guarded"] == "as 16 numbers"
    assert {one["name"]: one["role"] for one in found["outputs"]} == {
        "probabilities": "probabilities",
        "logits": "logits",
        "features": "features",
    }


def test_inspect_names_what_is_no_model() -> None:
    done = gateway("inspect", str(LETTERS / "samples.npz"))
    assert done.returncode == 2
    assert "samples.npz: " in done.stderr and "Traceback" not in done.stderr
