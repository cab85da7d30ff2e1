"""On a real Ray: a stop holds at both replicas, and a replica whose controller is gone stops by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.cli.test_keys import gateway
from tests.support.deployments import FULL_RATE, be_patient, edit
from tests.support.served import Served, clean_rows, copy_of, descendants, json_of, serving, wait_until

pytestmark = pytest.mark.ray
LEASE_S = 2
ASKS = 24


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = copy_of("letters", tmp_path_factory.mktemp("ray"))
    be_patient(folder)
    edit(folder, FULL_RATE, ("serving: {", f"serving: {{controller_lease_s: {LEASE_S}, "))
    with serving(folder, "--replicas", "2") as running:
        replicas = running.folder / "var" / "run"
        wait_until(lambda: len(list(replicas.glob("*.sock"))) == 2, "that both replicas have started")
        yield running


def ends(served: Served) -> set[str]:
    """How requests end on many connections: the kernel spreads them over the replicas."""
    url = f"{served.data.base_url}/v2/models/letters/infer"
    replies = [httpx.post(url, json=json_of(clean_rows(1)), timeout=30) for _ in range(ASKS)]
    return {reply.headers["x-failsafe-reason"] for reply in replies}


@contextmanager
def suspended_controller(served: Served) -> Iterator[None]:
    [pid] = [pid for pid, args in descendants(served.process.pid).items() if "ServeController" in args]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_once_the_command_returns_no_replica_answers_until_it_is_resumed(served: Served) -> None:
    assert ends(served) == {"ok"}
    done = gateway("stop", str(served.folder))
    assert ends(served) == {"stopped"}
    assert "in force at 2 of 2 replicas" in done.stdout
    assert "in force at 2 of 2 replicas" in gateway("resume", str(served.folder)).stdout
    assert ends(served) == {"ok"}


def test_replicas_stop_while_their_controller_does_not_answer_and_write_nothing(served: Served) -> None:
    before = (served.folder / "var" / "stops.json").read_bytes()
    with suspended_controller(served):
        wait_until(lambda: ends(served) == {"stopped"}, "that both replicas stop")
        assert served.data.get("/v2/health/ready").status_code == 503
    wait_until(lambda: ends(served) == {"ok"}, "that both replicas answer again")
    assert (served.folder / "var" / "stops.json").read_bytes() == before
