"""`gateway stop` and `gateway resume`, without a gateway and beside one that serves under load."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.serving.latch_file import LatchFile
from tests.cli.test_keys import gateway
from tests.support.deployments import FULL_RATE, be_patient, edit
from tests.support.served import (
    STOP_WITHIN_S,
    Served,
    clean_rows,
    copy_of,
    free_port,
    json_of,
    serving,
    wait_until,
)

OUTCOME = "x-failsafe-outcome"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = copy_of("letters", tmp_path)
    be_patient(made)
    edit(made, FULL_RATE)
    return made


def stops_of(folder: Path, state_dir: Path | None = None) -> list[tuple[str, str | None, str]]:
    stops = LatchFile.of(folder, state_dir).read().stops
    return [(one.model, one.rung, one.reason) for one in stops]


def test_stops_and_resumes_each_by_itself_and_names_what_is_still_stopped(folder: Path) -> None:
    assert gateway("stop", str(folder), "--rung", "primary", "--reason", "drifts").returncode == 0
    done = gateway("stop", str(folder), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["stopped"] == ["letters"]
    assert stops_of(folder) == [("*", "primary", "drifts"), ("*", None, "")]
    done = gateway("resume", str(folder))
    assert done.returncode == 0 and "still stopped: rung primary: stopped by" in done.stderr
    assert stops_of(folder) == [("*", "primary", "drifts")]
    assert gateway("resume", str(folder), "--rung", "primary").returncode == 0
    assert stops_of(folder) == []


def test_with_a_folder_for_state_one_is_stopped_by_name_and_all_without_a_name(folder: Path) -> None:
    state = folder.parent / "state"
    assert gateway("stop", str(folder), "--state-dir", str(state)).returncode == 0
    assert gateway("stop", "--state-dir", str(state)).returncode == 0
    assert stops_of(folder, state) == [("letters", None, ""), ("*", None, "")]
    done = gateway("resume", "--state-dir", str(state), "--json")
    assert [stop["model"] for stop in json.loads(done.stdout)["stops"]] == ["letters"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name the deployment folders; or --state-dir"),
        (["--state-dir", "S", "--rung", "primary"], "--rung: name the deployment folder"),
        (["letters", "--rung", "primry"], "did you mean 'primary'?"),
        (["letters", "--reason", "x" * 501], "--reason: has 501 characters; 500 are the most"),
        (["nothing"], "name a deployment folder"),
    ],
)
def test_what_is_ambiguous_or_wrong_is_refused_and_stops_nothing(
    folder: Path, words: list[str], says: str
) -> None:
    done = gateway("stop", *words, cwd=folder.parent)
    assert done.returncode == 2 and says in done.stderr
    assert stops_of(folder) == []


def test_a_deployment_is_stopped_whose_policy_is_broken(folder: Path) -> None:
    (folder / "gateway.yaml").write_text("{")
    assert gateway("stop", str(folder)).returncode == 0
    assert stops_of(folder) == [("*", None, "")]


def test_a_damaged_file_is_left_to_a_resumption_of_all(folder: Path) -> None:
    file = LatchFile.of(folder, None)
    file.folder.mkdir(mode=0o700)
    file.path.write_text("[")
    done = gateway("resume", str(folder), "--rung", "primary")
    assert done.returncode == 2 and f"`gateway resume {folder}` writes it anew" in done.stderr
    assert file.path.read_text() == "["
    assert gateway("resume", str(folder)).returncode == 0
    assert stops_of(folder) == [] and not file.read().problem


class Load:
    """Callers that ask on until they are told to stop. ends: how each request ended."""

    def __init__(self, running: Served) -> None:
        self.ends: list[str] = []
        self._over = threading.Event()
        url, body = f"{running.data.base_url}/v2/models/letters/infer", json_of(clean_rows(1))
        self._threads = [threading.Thread(target=self._ask, args=(url, body)) for _ in range(4)]

    def _ask(self, url: str, body: dict[str, object]) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._over.is_set():
                self.ends.append(client.post(url, json=body).headers[OUTCOME])

    def __enter__(self) -> Load:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in self._threads:
            one.join()


def ready(running: Served) -> int:
    return running.data.get("/v2/health/ready").status_code


def end(running: Served) -> str:
    return running.ask(clean_rows(1)).headers[OUTCOME]


def test_no_answer_leaves_once_the_command_has_returned_and_a_restart_changes_nothing(folder: Path) -> None:
    with serving(folder, "--local") as running:
        with Load(running) as load:
            wait_until(lambda: load.ends.count("served") > 20, "answers before the stop")
            done = gateway("stop", str(folder))
            n = len(load.ends)
            wait_until(lambda: len(load.ends) > n + 50, "refusals after the stop")
        assert done.returncode == 0 and "in force at 1 of 1 replicas" in done.stdout, done
        # Of the four callers each may have got an answer from before that it had not noted yet.
        assert set(load.ends[n + 4 :]) == {"refused"}
        assert ready(running) == 503
    assert "stopped by" in (folder / "serve.log").read_text()
    with started(folder) as ends:
        assert ends() == "refused"
    assert "stopped: letters: stopped by" in (folder / "again.log").read_text()
    gateway("resume", str(folder))
    with serving(folder, "--local") as running:
        assert end(running) == "served"


@contextmanager
def started(folder: Path) -> Iterator[Callable[[], str]]:
    """A gateway that need not become ready, once it listens; how a request to it ends."""
    ports = [str(free_port()) for _ in range(3)]
    flags = zip(("--port", "--grpc-port", "--admin-port"), ports, strict=True)
    words = ["serve", str(folder), "--local", *(word for flag in flags for word in flag)]
    log = folder / "again.log"
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "gateway", *words], stdout=out, stderr=out)

    def ends() -> str:
        url = f"http://127.0.0.1:{ports[0]}/v2/models/letters/infer"
        return httpx.post(url, json=json_of(clean_rows(1)), timeout=30).headers[OUTCOME]

    try:
        wait_until(lambda: "serving letters at" in log.read_text(), "that it listens")
        yield ends
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_WITHIN_S)


def test_a_file_that_is_damaged_while_it_serves_stops_until_it_is_resumed(folder: Path) -> None:
    with serving(folder, "--local") as running:
        assert end(running) == "served"
        LatchFile.of(folder, None).path.write_text("[")
        wait_until(lambda: end(running) == "refused", "refusals")
        assert "in force at 1 of 1 replicas" in gateway("resume", str(folder)).stdout
        assert (end(running), ready(running)) == ("served", 200)
        gateway("stop", str(folder), "--rung", "primary")
        assert end(running) in ("degraded", "deferred")
        assert ready(running) == 200
