"""Two real replicas under Ray that share a budget: together they admit no more than is stated."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from gateway.deployment.deployment import VAR
from gateway.ledger.ledgers import Ledgers
from tests.cli.test_callers import callers, served_with_budgets
from tests.support.budgets import ROWS, fill
from tests.support.deployments import key_for
from tests.support.served import Served, clean_rows, descendants, json_of, serving, wait_until

pytestmark = pytest.mark.ray
REPLICAS = 2
SLICES = Ledgers(Path(), REPLICAS, on_ray=True).slices


def bound(lives: int) -> float:
    """Rows at once, as gateway/ledger/leased.py states: a full bucket, slices, first rows of each life."""
    return ROWS * (1 + REPLICAS * SLICES.of_burst + lives * SLICES.initial_of_burst)


def passed(running: Served, key: str) -> int:
    """How many rows pass over many connections, until twenty in a row are told to wait for long."""
    passed = told = 0
    body, headers = json_of(clean_rows(1)), {"x-api-key": key}
    for _ in range(3000):
        with httpx.Client(base_url=running.data.base_url, timeout=10) as client:  # the kernel picks a replica
            reply = client.post("/v2/models/letters/infer", json=body, headers=headers)
        if reply.status_code != 429:
            passed, told = passed + 1, 0
        elif int(reply.headers["retry-after"]) > 2:
            if (told := told + 1) == 20:
                return passed
        else:
            time.sleep(0.02)
    raise AssertionError(f"{passed} rows have passed, and no end")


def replicas(running: Served) -> set[int]:
    below = descendants(running.process.pid)
    return {pid for pid, args in below.items() if args.startswith("ray::ServeReplica")}


def test_both_replicas_together_admit_at_most_what_is_stated_also_where_one_is_killed(tmp_path: Path) -> None:
    folder = served_with_budgets(tmp_path, ledger="ray")
    key = key_for(folder, "ada")
    fill(folder / VAR)
    with serving(folder, "--replicas", str(REPLICAS)) as running:
        log = folder / "serve.log"
        wait_until(lambda: "\ntoken " in log.read_text(), "both replicas listen")
        together = passed(running, key)
        assert ROWS * (1 - SLICES.of_burst) <= together <= bound(lives=2)
        found = callers(folder)
        assert found["replicas"] == REPLICAS
        (ada,) = found["budgets"]["extraction"]
        assert ada["spent"] == pytest.approx(together * 8, rel=0.01)
        assert ada["left"] is not None and ada["left"] < 0.1 * ada["burst"]
        victim = min(replicas(running))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(replicas(running) - {victim}) == REPLICAS, "the replica is back")
        time.sleep(2)
        together += passed(running, key)
        assert together <= bound(lives=3)
