"""What the README and the pages of docs/ say works, run as they say it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.markdown import fences, table, text_of
from tests.support.served import CONFIGS, TOKEN, Served, copy_of, serving

README, OPERATING, WIRE = "README.md", "docs/operating.md", "docs/wire.md"
SHARED_METRICS = {
    "gateway_policies_in_force",
    "gateway_replicas",
    "gateway_review_reachable",
    "gateway_review_cases",
    "gateway_review_oldest_seconds",
}
"""Those of all replicas together, which have no label `replica`."""


def block(language: str, holding: str, page: str = README) -> str:
    """The fenced block of a language that holds some text."""
    found = [fence.text for fence in fences(page, language) if holding in fence.text]
    assert len(found) == 1, f"{len(found)} {language} blocks of {page} hold {holding!r}"
    return found[0]


def commands(holding: str) -> list[list[str]]:
    lines = block("console", holding).splitlines()
    return [line.removeprefix("$ .venv/bin/gateway ").split() for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`gateway serve configs/letters --local`, as the README says it."""
    assert ".venv/bin/gateway serve configs/letters --local" in text_of(README)
    with serving(copy_of("letters", tmp_path_factory.mktemp("readme")), "--local") as running:
        yield running


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder: one model and held-out rows, as the README names them."""
    model = onnx.load(CONFIGS / "letters" / "primary.onnx")
    for output in model.graph.output:
        output.name = {"probabilities": "output_probability"}.get(output.name, output.name)
    for node in model.graph.node:
        node.output[:] = ["output_probability" if one == "probabilities" else one for one in node.output]
    onnx.save(model, tmp_path / "model.onnx")
    with np.load(CONFIGS / "letters" / "letters.npz") as held:
        rows, letters = held["x"][-4000:], held["y"][-4000:]
    lines = [",".join([*map(str, row), str(ord(y) - ord("A"))]) for row, y in zip(rows, letters, strict=True)]
    header = ",".join([*(f"a{i}" for i in range(16)), "y"])
    (tmp_path / "held_out.csv").write_text("\n".join([header, *lines]))
    return tmp_path


def run_in(folder: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "gateway", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_own_model_to_guarded_endpoint_by_the_readmes_commands(mine: Path) -> None:
    *prepare, serve = commands("init mine")
    for words in prepare:
        run_in(mine, words)
    assert serve[:2] == ["serve", "mine"]
    with serving(mine / "mine", *serve[2:]) as running, np.load(CONFIGS / "letters" / "letters.npz") as held:
        reply = running.ask(held["x"][-1:].astype(np.float32))
        assert reply.headers["x-failsafe-outcome"] in ("served", "degraded", "deferred")


def test_the_readmes_policy_is_calibrated_as_the_readme_says(mine: Path) -> None:
    (mine / "mine").mkdir()
    shutil.move(mine / "model.onnx", mine / "mine" / "primary.onnx")
    (mine / "mine" / "gateway.yaml").write_text(block("yaml", "name: mine"))
    assert "calibrate mine --data held_out.csv" in " ".join(text_of(README).split())
    run_in(mine, ["calibrate", "mine", "--data", "held_out.csv"])
    run_in(mine, ["check", "mine"])


def test_the_readmes_request_gets_the_readmes_answer(letters: Served) -> None:
    shown = block("console", "curl")
    body = json.loads(re.findall(r"-d '(.*)'", shown, re.DOTALL)[0])
    promised = json.loads(block("json", '"served"'))
    url = re.findall(r"127\.0\.0\.1:8080(\S+)", shown)[0]
    got = letters.data.post(url, json=body).json()
    body["inputs"][0]["data"] = [15, 0] * 8
    deferred = letters.data.post(url, json=body)
    assert got["outputs"] == promised["outputs"]
    assert got["parameters"] == promised["parameters"] | {
        name: got["parameters"][name] for name in ("fs_policy", "fs_decision_id")
    }
    promised = json.loads(block("json", '"deferred"'))
    assert deferred.status_code == 422
    assert set(deferred.json()) == set(promised)
    assert deferred.json()["error"] == promised["error"]
    assert set(deferred.json()["parameters"]) == set(promised["parameters"])
    assert letters.data.get(deferred.json()["review_url"]).json()["state"] == "waiting"


def test_the_reload_command_of_operating_reloads(letters: Served) -> None:
    (command,) = block("console", "/policy/reload", OPERATING).splitlines()
    port = letters.admin.base_url.port
    done = subprocess.run(
        ["bash", "-c", command.removeprefix("$ ").replace(":8082/", f":{port}/")],
        env=os.environ | {"GATEWAY_ADMIN_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [one["changed"] for one in json.loads(done.stdout)["replicas"].values()] == [False]


def test_the_metrics_that_operating_lists_are_those_of_a_running_gateway(letters: Served) -> None:
    letters.ask(np.zeros((1, 16), np.float32))
    scraped: dict[str, set[str]] = {}
    until_s = time.monotonic() + 10
    while "gateway_stage_seconds" not in scraped and time.monotonic() < until_s:
        time.sleep(0.1)
        scraped = labels_by_metric(letters.admin.get("/metrics").text)
    listed = {row[0].strip("`"): set(re.findall(r"\w+", row[1])) for row in table(OPERATING, "metric")}
    expected = {
        name: labels
        | (set() if name == "gateway_replicas" or name.startswith("gateway_loop_") else {"model"})
        | (set() if name in SHARED_METRICS else {"replica"})
        for name, labels in listed.items()
    }
    assert expected == {
        # a failed stage is counted when one has failed, a missing record when one is missing, and so on
        **scraped,
        "gateway_stage_errors_total": {"stage", "model", "replica"},
        "gateway_records_missed_total": {"model", "replica"},
        "gateway_observed_rows_total": {"stage", "verdict", "model", "replica"},
        "gateway_guard_observed_until_seconds": {"stage", "model", "replica"},
        "gateway_policy_expected": {"policy", "model", "replica"},
        "gateway_model_repeats_total": {"rung", "model", "replica"},
        "gateway_ledger_reachable": {"stage", "model", "replica"},
        "gateway_budget_spent_bits_total": {"stage", "model", "replica"},
    }


def labels_by_metric(text: str) -> dict[str, set[str]]:
    """The names of metrics, histograms without their suffix, with their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = re.sub(r"_(bucket|count|sum)$", "", sample.name)
            if family.type == "histogram" or not sample.name.endswith("_created"):
                found.setdefault(name, set()).update(
                    label for label in sample.labels if label != "le" and not label.startswith("otel_scope")
                )
    return found


def test_the_parameters_and_headers_that_wire_lists_are_those_of_a_reply(letters: Served) -> None:
    reply = letters.ask(np.array([[15, 0] * 8], np.float32))
    rows = table(WIRE, "parameter in the body")
    marked = "fs_row_outcomes"  # only under `withheld_rows: mark`: tests/http/test_marked_rows.py
    assert {row[0].strip("`") for row in rows} - {marked} == set(reply.json()["parameters"])
    named = {name for row in rows for name in re.findall(r"`(x-failsafe-\S+)`", row[1])}
    assert named - {"x-failsafe-review-urls"} == {
        name for name in reply.headers if name.startswith("x-failsafe")
    }


def test_the_routes_of_administration_that_operating_lists_exist(letters: Served) -> None:
    paths = {path for row in table(OPERATING, "route") for path in re.findall(r"(/[\w/{}]+)", row[0])}
    assert {"/status", "/metrics", "/policy", "/policy/reload", "/review/claim"} <= paths
    whole = [path for path in paths if path not in ("/restore", "/renew")]  # written after their siblings
    for path in whole:
        name = "letters" if path.startswith("/models/") else "primary"
        assert letters.admin.request("OPTIONS", path.replace("{name}", name)).status_code == 405, path
    assert letters.admin.request("OPTIONS", "/nothing").status_code == 404
