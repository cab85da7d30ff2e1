"""On a real Ray: two replicas on one port, one of them killed under load, the primary pulled, a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import pytest

from fallbacks.oip import open_inference_pb2 as pb
from tests.cli.test_private_state import open_to_others, open_umask
from tests.cli.test_several import ask
from tests.support.served import (
    IN_BACKGROUND,
    STOP_WITHIN_S,
    TOKEN,
    Served,
    clean_rows,
    copy_of,
    descendants,
    free_port,
    serving,
    wait_until,
)
from tests.support.several import named, no_certificate

pytestmark = pytest.mark.ray
LISTEN = "0A"
IPV4_LOOPBACK, MAPPED_LOOPBACK = "0100007F", "0000000000000000FFFF00000100007F"
IPV6_LOOPBACK = "00000000000000000000000001000000"
JOIN = """
import sys
import ray
ray.init(address=sys.argv[1], namespace="x", log_to_driver=False, logging_level="ERROR")
ran = ray.remote(num_cpus=0)(lambda: "the task ran")
print(ray.get(ran.remote(), timeout=60))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = copy_of("letters", tmp_path_factory.mktemp("ray"))
    with open_umask(), serving(folder, "--replicas", "2") as running:
        # The first replica answers before the second has started; the addresses are printed when both listen.
        wait_until(lambda: "\ntoken " in (folder / "serve.log").read_text(), "both replicas listen")
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


def test_replicas_are_no_less_urgent_than_the_command(served: Served) -> None:
    """Ray's own choice is 15: every other process of the machine would go before a caller's request."""
    own = os.getpriority(os.PRIO_PROCESS, served.process.pid)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in replicas(served)} == {own}


def test_one_scrape_shows_every_replica(served: Served) -> None:
    for row in clean_rows(20):
        served.ask(row[None])
    time.sleep(0.5)
    text = served.admin.get("/metrics").text
    names = {line.split('replica="')[1].split('"')[0] for line in text.splitlines() if 'replica="' in line}
    assert len(names) == 2, names


def open_files(pid: int) -> Iterator[Path]:
    """What the descriptors of a process lead to."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield link.readlink()


def listening_at(pids: Iterable[int]) -> dict[str, set[str]]:
    """The addresses of every listening socket of TCP of these processes, in the kernel's notation."""
    inodes = {str(target) for pid in pids for target in open_files(pid)}
    found: dict[str, set[str]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].partition(":")
                found.setdefault(address, set()).add(port)
    return found


def test_no_process_listens_on_another_interface_than_loopback(served: Served) -> None:
    found = listening_at(descendants(served.process.pid))
    assert sum(map(len, found.values())) > 8, "Ray's own processes listen too"
    assert set(found) <= {IPV4_LOOPBACK, IPV6_LOOPBACK, MAPPED_LOOPBACK}


def test_others_can_open_nothing_of_rays_session_which_lies_in_var(served: Served) -> None:
    found = (served.folder / "var" / "ray").glob("*/session_*")
    (session,) = (path for path in found if not path.is_symlink())
    assert (session / "sockets" / "raylet").is_socket()
    until_s = time.monotonic() + 20
    while open_to_others(served.folder / "var") and time.monotonic() < until_s:
        time.sleep(0.1)  # every new process of Ray opens the folders again, below one that stays closed
    assert open_to_others(served.folder / "var") == {}


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)


def joined(served: Served, token: str) -> str:
    """What comes of a task that a program with this token sends to the cluster."""
    pids = descendants(served.process.pid)
    gcs = next(pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "gcs_server\n")
    ports = {int(port, 16) for found in listening_at([gcs]).values() for port in found}
    variables = ("RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    own = environment_of(next(iter(replicas(served))))
    env = os.environ | {name: own[name] for name in variables} | {"RAY_AUTH_TOKEN": token}
    command = [sys.executable, "-c", JOIN, f"127.0.0.1:{ports.pop()}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    return done.stdout


def test_the_administrators_token_opens_nothing_of_ray_whose_token_is_its_own(served: Served) -> None:
    (own,) = {environment_of(pid)["RAY_AUTH_TOKEN"] for pid in replicas(served)}
    assert own != TOKEN
    assert len(own) > 30
    assert "the task ran" in joined(served, own)
    assert "the task ran" not in joined(served, TOKEN)


def test_ctrl_c_leaves_no_process_and_no_session_behind_in_a_deep_folder(tmp_path: Path) -> None:
    (tmp_path / ("d" * 100)).mkdir()
    short = set(Path("/tmp").glob("fsg-*"))
    with serving(folder := copy_of("letters", tmp_path / ("d" * 100))) as running:
        assert running.ask(clean_rows(1)).status_code == 200
        pid = running.process.pid
        (made,) = set(Path("/tmp").glob("fsg-*")) - short
        assert made.stat().st_mode & 0o777 == 0o700
        assert (made / "f").resolve().parent == folder / "var" / "ray"
    assert not made.exists()
    assert list((folder / "var" / "ray").iterdir()) == []
    until_s = time.monotonic() + STOP_WITHIN_S
    while descendants(pid) and time.monotonic() < until_s:
        time.sleep(0.2)
    assert descendants(pid) == {}
    assert running.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_while_ray_starts_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    folder = copy_of("letters", tmp_path)
    sessions = folder / "var" / "ray"
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()), "--admin-port", str(free_port()))
    command = (*IN_BACKGROUND, sys.executable, "-m", "gateway", "serve", str(folder), *ports)
    with (tmp_path / "serve.log").open("w") as log:
        starting = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: any(sessions.glob("*/session_*")), "Ray starts")
        starting.send_signal(number)
        starting.wait(STOP_WITHIN_S)
        wait_until(lambda: descendants(starting.pid) == {}, "every process has ended")
        assert list(sessions.iterdir()) == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(starting.pid, signal.SIGKILL)


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
