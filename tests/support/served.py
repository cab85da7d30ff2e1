"""A gateway in a process of its own, as a user starts it, on a copy of a deployment and on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TOKEN = "token-of-the-test-suite"
STOP_WITHIN_S = 240.0
"""How long a gateway that was stopped may take to end. That is not promised: tests check that it ends."""
IN_BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
"""Starts a command as a shell without job control starts it in the background: SIGINT is ignored."""


def copy_of(name: str, to: Path) -> Path:
    """The committed files of a deployment in a folder of its own."""
    target = to / name
    shutil.copytree(CONFIGS / name, target, ignore=shutil.ignore_patterns("var"))
    return target


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def json_of(rows: NDArray[Any]) -> dict[str, Any]:
    """The body of a request for rows of configs/letters."""
    data = {"shape": list(rows.shape), "data": rows.ravel().tolist()}
    return {"inputs": [{"name": "attributes", "datatype": "FP32"} | data]}


def wait_until(reached: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + STOP_WITHIN_S
    while not reached():
        assert time.monotonic() < until_s, f"not within {STOP_WITHIN_S:.0f} s: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Served:
    """A running gateway: its process, clients for both ports of HTTP, and where it speaks gRPC."""

    process: subprocess.Popen[str]
    folder: Path
    grpc: str
    data: httpx.Client
    admin: httpx.Client

    @property
    def model(self) -> str:
        return self.folder.name

    def ask(self, rows: NDArray[Any], **headers: str) -> httpx.Response:
        return self.data.post(
            f"/v2/models/{self.model}/infer",
            json=json_of(rows),
            headers=headers,
        )


@contextmanager
def serving(
    folder: Path,
    *flags: str,
    up_within_s: float = 90.0,
    cwd: Path | None = None,
    launcher: Sequence[str] = (),
    log_folder: Path | None = None,
) -> Iterator[Served]:
    """`gateway serve FOLDER FLAGS`, ended by Ctrl-C. launcher: a command that runs the rest."""
    port, grpc_port, admin_port = free_port(), free_port(), free_port()
    command = [
        *launcher,
        sys.executable,
        "-m",
        "gateway",
        "serve",
        str(folder),
        "--port",
        str(port),
        "--grpc-port",
        str(grpc_port),
        "--admin-port",
        str(admin_port),
        *flags,
    ]
    env = os.environ | {"GATEWAY_ADMIN_TOKEN": TOKEN}
    log = (log_folder or folder) / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )
    data = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
    bearer = {"authorization": f"Bearer {TOKEN}", "accept": "application/json"}
    admin = httpx.Client(base_url=f"http://127.0.0.1:{admin_port}", headers=bearer, timeout=10)
    try:
        _wait_until_up(process, data, log, up_within_s)
        yield Served(process, folder, f"127.0.0.1:{grpc_port}", data, admin)
    finally:
        data.close()
        admin.close()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            remaining = descendants(process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise TimeoutError(
                f"not ended {STOP_WITHIN_S} s after Ctrl-C; {remaining} remain:\n{log.read_text()}"
            ) from None


def _wait_until_up(process: subprocess.Popen[str], data: httpx.Client, log: Path, within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise RuntimeError(f"the gateway ended with {process.returncode}:\n{log.read_text()}")
        try:
            if data.get("/v2/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError(f"not up within {within_s} s:\n{log.read_text()}")


def descendants(pid: int) -> dict[int, str]:
    """Every living process below `pid`, by its command line; Ray's daemons are in the same session."""
    told = subprocess.run(
        ["ps", "-eo", "pid,sid,args", "--no-headers"], capture_output=True, text=True, check=True
    )
    found = {}
    for line in told.stdout.splitlines():
        one, session, args = line.split(None, 2)
        if int(session) == pid and int(one) != pid:
            found[int(one)] = args
    return found


def clean_rows(n: int) -> NDArray[np.float32]:
    """n clean test rows of configs/letters."""
    with np.load(CONFIGS / "letters" / "samples.npz") as held:
        return np.asarray(held["attributes"][:n], np.float32)


SEARCH_ROWS = 60
"""So many near rows of one caller are noticed as a search, and more."""


def near_rows(row: NDArray[np.float32], n: int = SEARCH_ROWS, seed: int = 0) -> NDArray[np.float32]:
    """A row of letters, [1, 16], and n - 1 that differ from it by one step in two columns, as in a search."""
    rng, found = np.random.default_rng(seed), np.repeat(row, n, 0)
    for one in found[1:]:
        for at in rng.choice(16, 2, replace=False):
            one[at] += -1 if one[at] == 15 or (one[at] > 0 and rng.random() < 0.5) else 1
    return found


def outlier_rows(n: int) -> NDArray[np.float32]:
    """n rows of configs/letters that no letter has."""
    with np.load(CONFIGS / "letters" / "outliers.npz") as held:
        return np.asarray(held["uniform"][:n], np.float32)
