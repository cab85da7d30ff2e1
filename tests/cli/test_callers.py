"""A real gateway with budgets: `gateway callers`, restarts without a new budget, and what start refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gateway.deployment.deployment import VAR
from gateway.ledger.ledgers import LIVES_EACH
from tests.support.budgets import LABELS, PRICE, ROWS, entry, fill
from tests.support.deployments import FULL_RATE, drop_queries, edit, key_for
from tests.support.served import Served, clean_rows, copy_of, near_rows, serving

FIRST = ROWS // LIVES_EACH


def gateway(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def served_with_budgets(to: Path, ledger: str = "local") -> Path:
    folder = copy_of("letters", to)
    drop_queries(folder)  # a row that is asked again would be free
    edit(folder, FULL_RATE, LABELS, ("  - name: ood\n", f"{entry(ledger=ledger)}  - name: ood\n"))
    return folder


def passed(running: Served, key: str) -> int:
    """How many rows pass, one a request, until the wait is long."""
    passed = 0
    for row in clean_rows(2 * ROWS):
        reply = running.ask(row[None], **{"x-api-key": key})
        if reply.status_code == 429:
            if int(reply.headers["retry-after"]) > 2:
                return passed
            time.sleep(0.05)
        else:
            passed += 1
    raise AssertionError(f"{passed} rows have passed, and no end")


def callers(folder: Path) -> Any:
    done = gateway("callers", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_restart_of_the_process_gives_no_new_budget_and_the_command_says_what_is_left(
    tmp_path: Path,
) -> None:
    folder = served_with_budgets(tmp_path)
    key = key_for(folder, "ada")
    fill(folder / VAR)
    with serving(folder, "--local") as running:
        assert passed(running, key) == ROWS
        found = callers(folder)
        assert (found["deployment"], found["replicas"]) == ("letters", 1)
        (ada,) = found["budgets"]["extraction"]
        assert ada["principal"] == "ada" and abs(ada["spent"] - ROWS * PRICE) < 1
        assert ada["left"] < PRICE and ada["refused"] >= 1
        text = gateway("callers", str(folder)).stdout.splitlines()
        assert text[0] == "extraction: bits, at 1 replica"
        assert text[2].split()[:4] == ["ada", "800", "0", "800"]
    for restarts in (1, 2):
        with serving(folder, "--local") as running:
            assert passed(running, key) <= FIRST, "the rows before the first lease, which are owed"
            (ada,) = callers(folder)["budgets"]["extraction"]
            assert ada["left"] <= (1 - restarts) * FIRST * PRICE + PRICE
    done = gateway("callers", str(folder))
    assert done.returncode == 1 and "no running gateway answers for letters" in done.stderr


def test_a_killed_process_gives_no_new_budget_either(tmp_path: Path) -> None:
    folder = served_with_budgets(tmp_path)
    key = key_for(folder, "ada")
    fill(folder / VAR)
    with serving(folder, "--local") as running:
        assert passed(running, key) == ROWS
        running.process.kill()
        running.process.wait()
    with serving(folder, "--local") as running:
        assert passed(running, key) <= FIRST


def test_a_start_refuses_a_ledger_that_does_not_suit_with_file_and_line(tmp_path: Path) -> None:
    folder = served_with_budgets(tmp_path, ledger="ray")
    done = gateway("serve", str(folder), "--local")
    assert done.returncode == 2
    assert f"{folder}/gateway.yaml:16: guards[1].ledger: `ray` is an actor of a Ray cluster" in done.stderr
    assert gateway("check", str(folder)).returncode == 0
    edit(folder, ('ledger: "ray"', 'ledger: "local"'))
    done = gateway("serve", str(folder), "--replicas", "2")
    assert done.returncode == 2 and "a file for one replica, and there are 2" in done.stderr
    edit(folder, ("serving: {", "serving: {replicas: 2, "))
    done = gateway("check", str(folder))
    assert done.returncode == 2 and "serving.replicas is 2" in done.stderr


def test_a_deployment_without_a_budget_has_none_to_list_but_a_searcher_is_named(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    edit(folder, FULL_RATE)
    key = key_for(folder, "eve")
    with serving(folder, "--local") as running:
        text = gateway("callers", str(folder)).stdout
        assert "no budget of bits" in text and "queries: no caller is suspected, at 1 replica" in text
        for row in near_rows(clean_rows(1)):
            running.ask(row[None], **{"x-api-key": key})
        (eve,) = callers(folder)["suspects"]["queries"]
        assert eve["evidence"] >= 1000 and [one["principal"] for one in eve["members"]] == ["eve"]
        lines = gateway("callers", str(folder)).stdout.splitlines()
        assert lines[1] == "queries: suspects, at 1 replica"
        assert lines[3].split()[2:] == ["1", str(eve["rows"]), "eve"]
