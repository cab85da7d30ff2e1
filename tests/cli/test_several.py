"""`gateway serve DIR...` as a user starts it: several deployments, one of them broken on purpose."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.deployments import edit
from tests.support.served import Served, clean_rows, free_port, outlier_rows, serving
from tests.support.several import named, no_certificate, unreadable


def gateway(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words], capture_output=True, text=True, timeout=120, check=False
    )


def ask(served: Served, model: str, key: str, rows: int = 1, odd: bool = False) -> httpx.Response:
    x = outlier_rows(rows) if odd else clean_rows(rows)
    tensor = {"name": "attributes", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    headers = {"x-api-key": key} if key else {}
    return served.data.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]}, headers=headers)


def test_a_folder_of_deployments_is_served_and_the_broken_one_is_repaired_and_loaded(tmp_path: Path) -> None:
    _, trees, stones = (named(tmp_path / "all", name) for name in ("birds", "trees", "stones"))
    no_certificate(stones)
    with serving(tmp_path / "all", "--local") as served:
        log = (tmp_path / "all" / "serve.log").read_text()
        assert "serving birds at" in log and "serving trees at" in log
        assert "not ready: stones" in log and str(stones / "certificate.json") in log
        for model, status in (("birds", 200), ("trees", 200), ("stones", 503)):
            assert ask(served, model, "").status_code == status
        shutil.copy(named(tmp_path / "again", "stones") / "certificate.json", stones)
        loaded = served.admin.post("/models/stones/load", timeout=60)
        assert loaded.status_code == 200, loaded.text
        assert ask(served, "stones", "").status_code == 200
        shutil.copy(trees / "certificate.json", stones)
        assert served.admin.post("/models/stones/policy/reload", timeout=60).status_code == 409
        assert ask(served, "stones", "").status_code == 200
    assert served.process.returncode == 0
    assert {path.parent.parent.name for path in (tmp_path / "all").glob("*/var/decisions-*.jsonl")} == {
        "birds",
        "trees",
        "stones",
    }


def test_keys_of_the_state_open_every_model_and_a_limited_one_its_own(tmp_path: Path) -> None:
    folders = [str(named(tmp_path, name)) for name in ("birds", "trees")]
    for folder in folders:
        edit(Path(folder), ("anonymous: loopback", "anonymous: nobody"))
    state = tmp_path / "state"
    made = gateway("key", *folders, "ada", "--tier", "trusted", "--state-dir", str(state), "--json")
    ada = json.loads(made.stdout)["key"]
    bob = gateway("key", *folders, "bob", "--model", "birds", "--state-dir", str(state)).stdout.strip()
    with serving(Path(folders[0]), folders[1], "--local", "--state-dir", str(state)) as served:
        assert [ask(served, model, ada).status_code for model in ("birds", "trees")] == [200, 200]
        assert [ask(served, model, bob).status_code for model in ("birds", "trees")] == [200, 403]
        assert ask(served, "trees", ada, odd=True).status_code == 422
    assert not (Path(folders[1]) / "var").exists()
    assert {"birds", "trees", "run", "keys.jsonl", "secret"} <= {path.name for path in state.iterdir()}
    assert list((state / "trees").glob("decisions-*.jsonl"))


def test_a_key_for_several_needs_a_place_that_they_share_and_a_model_that_is_there(tmp_path: Path) -> None:
    folders = [str(named(tmp_path, name)) for name in ("birds", "trees")]
    nowhere = gateway("key", *folders, "ada")
    assert nowhere.returncode == 2 and "--state-dir" in nowhere.stderr
    state = ("--state-dir", str(tmp_path / "state"))
    wrong = gateway("key", *folders, "ada", "--model", "tree", *state)
    assert wrong.returncode == 2 and "did you mean 'trees'?" in wrong.stderr
    assert gateway("key", str(tmp_path), "ada", "--model", "trees", *state).returncode == 0


def test_if_all_are_broken_every_problem_is_printed_and_one_alone_fails_as_before(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    no_certificate(birds)
    unreadable(trees)
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()), "--admin-port", str(free_port()))
    both = gateway("serve", str(birds), str(trees), "--local", *ports)
    assert both.returncode == 2 and "Traceback" not in both.stderr
    assert str(birds / "certificate.json") in both.stderr and "did you mean 'defer'?" in both.stderr
    alone = gateway("serve", str(birds), "--local", *ports)
    assert alone.returncode == 2 and str(birds / "certificate.json") in alone.stderr


@pytest.mark.parametrize(
    "change", [("name: trees", "name: birds"), ("anonymous: loopback", "anonymous: nobody")]
)
def test_names_that_collide_and_settings_that_differ_are_refused(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    edit(trees, change)
    done = gateway("serve", str(birds), str(trees), "--local", "--port", str(free_port()))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{trees / 'gateway.yaml'}:" in done.stderr and f"{birds / 'gateway.yaml'}:" in done.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = gateway("serve", str(named(tmp_path, "birds")), str(tmp_path / "tree"), "--local")
    assert done.returncode == 2 and str(tmp_path / "tree") in done.stderr


def test_administration_outside_loopback_is_refused_without_tls(tmp_path: Path) -> None:
    ports = ("--port", str(free_port()), "--admin-host", "0.0.0.0")
    done = gateway("serve", str(named(tmp_path, "birds")), "--local", *ports)
    assert done.returncode == 2 and "0.0.0.0 is not loopback" in done.stderr
