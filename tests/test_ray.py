"""On a real Ray: two replicas on one port, one of them killed under load, the primary pulled, a clean end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from fallbacks.oip import open_inference_pb2 as pb
from tests.cli.test_several import ask
from tests.support.served import STOP_WITHIN_S, Served, clean_rows, copy_of, descendants, serving
from tests.support.several import named, no_certificate

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = copy_of("letters", tmp_path_factory.mktemp("ray"))
    with serving(folder, "--replicas", "2") as running:
        yield running


def replicas(served: Served) -> set[int]:
    return {
        pid for pid, args in descendants(served.process.pid).items() if args.startswith("ray::ServeReplica")
    }


class Load(threading.Thread):
    """Asks on one connection until told to stop; remembers when each request ended, and how."""

    def __init__(self, base_url: httpx.URL) -> None:
        super().__init__()
        self.stop = threading.Event()
        self.ends: list[tuple[float, str]] = []
        self._client = httpx.Client(base_url=base_url, timeout=10)

    def run(self) -> None:
        rows = clean_rows(64)
        body: dict[str, list[dict[str, object]]] = {
            "inputs": [{"name": "attributes", "datatype": "FP32", "shape": [1, 16]}]
        }
        with self._client as client:
            for i in range(100_000):
                if self.stop.wait(0.02):
                    return
                body["inputs"][0]["data"] = rows[i % 64].tolist()
                try:
                    reply = client.post("/v2/models/letters/infer", json=body)
                    end = reply.headers.get("x-failsafe-outcome", str(reply.status_code))
                except httpx.TransportError as error:
                    end = type(error).__name__
                self.ends.append((time.monotonic(), end))


def test_a_replica_killed_under_load_fails_its_own_requests_and_no_other_and_comes_back(
    served: Served,
) -> None:
    load = [Load(served.data.base_url) for _ in range(6)]
    for one in load:
        one.start()
    time.sleep(1.5)
    before = replicas(served)
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    killed_s = time.monotonic()
    while len(replicas(served) - {victim}) < 2 and time.monotonic() < killed_s + 60:
        time.sleep(0.1)
    time.sleep(2)
    for one in load:
        one.stop.set()
        one.join()
    assert len(replicas(served) - {victim}) == 2, "the replica did not come back"
    lost = [
        (at - killed_s, end)
        for one in load
        for at, end in one.ends
        if end not in ("served", "degraded", "deferred", "refused")
    ]
    assert len(lost) <= len(load), f"more than the requests in flight were lost: {lost}"
    assert all(-0.1 < after < 1.0 for after, _ in lost), f"requests failed long after the kill: {lost}"
    assert sum(len(one.ends) for one in load) > 100


def met_by(served: Served, ids: list[str]) -> list[int]:
    """How many of these decisions each replica has written down."""
    logs = [log.read_text() for log in (served.folder / "var").glob("decisions-*.jsonl")]
    return [sum(id_ in log for id_ in ids) for log in logs]


def test_every_replica_speaks_grpc_on_the_same_port(served: Served) -> None:
    """The kernel spreads connections: over many of them, each replica is met."""
    message = pb.ModelInferRequest(model_name="letters", raw_input_contents=[clean_rows(1).tobytes()])
    message.inputs.add(name="attributes", datatype="FP32", shape=[1, 16])
    ids = []
    for _ in range(24):
        with grpc.insecure_channel(served.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            response = pb.ModelInferResponse.FromString(ask(message.SerializeToString(), timeout=10))
        assert response.parameters["fs_served_by"].string_param == "primary"
        ids.append(response.parameters["fs_decision_id"].string_param)
    until_s = time.monotonic() + 5
    while sum(met := met_by(served, ids)) < 24 and time.monotonic() < until_s:
        time.sleep(0.1)
    assert sum(met) == 24
    assert sum(count > 0 for count in met) == 2


def test_a_pulled_primary_is_replaced_by_the_fallback_at_every_replica(served: Served) -> None:
    rows = clean_rows(40)
    told = served.admin.post("/rungs/primary/isolate")
    assert told.status_code == 200, told.text
    try:
        ends = [served.ask(row[None]).headers for row in rows]
    finally:
        served.admin.post("/rungs/primary/restore").raise_for_status()
    assert {end["x-failsafe-outcome"] for end in ends} <= {"degraded", "deferred"}
    assert {end["x-failsafe-served-by"] for end in ends} <= {"small", "review"}
    back = [served.ask(row[None]).headers["x-failsafe-served-by"] for row in rows]
    assert back.count("primary") > 20


def test_replicas_have_the_environment_of_the_command(served: Served) -> None:
    """No runtime_env says it: guards multiply small matrices, and BLAS threads would wait for each other."""
    environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in replicas(served)]
    assert environments and all(b"OPENBLAS_NUM_THREADS=1" in one for one in environments)


def test_one_scrape_shows_every_replica(served: Served) -> None:
    for row in clean_rows(20):
        served.ask(row[None])
    time.sleep(0.5)
    text = served.admin.get("/metrics").text
    names = {line.split('replica="')[1].split('"')[0] for line in text.splitlines() if 'replica="' in line}
    assert len(names) == 2, names


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    with serving(copy_of("letters", tmp_path)) as running:
        assert running.ask(clean_rows(1)).status_code == 200
        pid = running.process.pid
    until_s = time.monotonic() + STOP_WITHIN_S
    while descendants(pid) and time.monotonic() < until_s:
        time.sleep(0.2)
    assert descendants(pid) == {}
    assert running.process.returncode == 0


def test_several_deployments_are_served_by_every_replica_and_a_broken_one_is_loaded_at_all(
    tmp_path: Path,
) -> None:
    folders = [named(tmp_path, name) for name in ("birds", "trees", "stones")]
    certificate = (folders[-1] / "certificate.json").read_bytes()
    no_certificate(folders[-1])
    state = tmp_path / "state"
    flags = (*map(str, folders[1:]), "--replicas", "2", "--state-dir", str(state))
    with serving(folders[0], *flags) as running:
        until_s, ready_at = time.monotonic() + 60, [0]
        while ready_at[0] < 2 and time.monotonic() < until_s:  # the second one may start later
            ready_at = [one["ready_at"] for one in running.admin.get("/status").json()["deployments"]]
            time.sleep(0.2)
        assert ready_at == [2, 2, 0]
        for name, status in (("birds", 200), ("trees", 200), ("stones", 503)):
            assert ask(running, name, "").status_code == status
        (folders[-1] / "certificate.json").write_bytes(certificate)
        loaded = running.admin.post("/models/stones/load", timeout=90)
        assert [one["changed"] for one in loaded.json()["replicas"].values()] == [True, True]
        for _ in range(8):  # new connections, which the kernel spreads over the replicas
            with httpx.Client(base_url=running.data.base_url, timeout=10) as data:
                assert data.get("/v2/models/stones/ready").status_code == 200
        assert {path.parent.name for path in state.glob("*/review.db")} == {"birds", "trees", "stones"}
    log = (folders[0] / "serve.log").read_text()
    assert "not ready: stones" in log and str(folders[-1] / "certificate.json") in log
    assert running.process.returncode == 0
