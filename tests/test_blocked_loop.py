"""A served gateway whose guard blocks the event loop: others are told meanwhile, and all is well after it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.deployments import FULL_RATE, edit
from tests.support.served import Served, clean_rows, copy_of, json_of, serving, wait_until

pytestmark = pytest.mark.alone
BLOCKING = 7.25
"""The first attribute of a row on which a guard blocks the event loop."""
LAUNCHER = f"""
import runpy, sys, time
from gateway.deployment.measures import Measures

full = Measures.full

async def blocking(self, batch):
    if (batch.inputs["attributes"][:, 0] == {BLOCKING}).any():
        time.sleep(2.5)
    return await full(self, batch)

Measures.full = blocking
sys.argv = sys.argv[3:]
runpy.run_module("gateway", run_name="__main__")
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder, launcher = copy_of("letters", tmp_path), tmp_path / "launcher.py"
    edit(folder, FULL_RATE)
    launcher.write_text(LAUNCHER)
    with serving(folder, "--local", launcher=(sys.executable, str(launcher))) as running:
        yield running


def metric(served: Served, name: str) -> float:
    lines = served.admin.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name}{{")).rsplit(" ", 1)[1])


def test_a_guard_that_blocks_the_loop_leaves_no_probe_without_an_answer(served: Served) -> None:
    rows = clean_rows(1)
    odd = rows.copy()
    odd[0, 0] = BLOCKING
    assert metric(served, "gateway_loop_stalls_total") == 0
    ends: list[int] = []
    blocked = threading.Thread(target=lambda: ends.append(served.ask(odd).status_code))
    blocked.start()
    url = str(served.data.base_url)
    while (probe := httpx.get(f"{url}/v2/health/ready", timeout=10)).status_code == 200:
        pass  # until the guard has the row
    assert (probe.status_code, probe.headers["connection"]) == (503, "close")
    assert probe.headers["x-failsafe-outcome"] == "refused"
    assert int(probe.headers["retry-after"]) >= 1
    assert "blocked" in probe.json()["error"]
    infer = httpx.post(f"{url}/v2/models/letters/infer", json=json_of(rows), timeout=10)
    assert (infer.status_code, infer.headers["x-failsafe-reason"]) == (503, "unavailable")
    assert infer.headers["x-failsafe-decision-id"] != probe.headers["x-failsafe-decision-id"]
    assert httpx.head(f"{url}/v2/health/live", timeout=10).content == b""
    assert blocked.is_alive(), "these were answered while the guard still blocked"
    blocked.join()
    assert ends == [504]
    wait_until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200, "it is seen to run again")
    assert served.ask(rows).status_code == 200
    assert metric(served, "gateway_loop_stalls_total") == 1
    wait_until(lambda: metric(served, "gateway_loop_longest_stall_seconds") > 2, "its length is known")
    logged = (served.folder / "serve.log").read_text()
    assert logged.count("its thread is at") == 1
    assert "in blocking" in logged
