"""onnxruntime must neither look up its collector nor keep events: they hold values of callers' inputs.

Each way into the product runs in a process of its own, with an empty home folder and without the variable
that its environment may already hold. onnxruntime writes its event store there as soon as it is imported
with telemetry on, so the empty folder is the proof everywhere; strace, where it is installed, sees look-ups.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.served import CONFIGS, copy_of, free_port

INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
LOAD = "; from fallbacks.onnx import OnnxModel; OnnxModel.load('primary.onnx').close()"
WAYS_IN = {
    "check": ["-m", "gateway", "check", "."],
    "calibrate": ["-m", "gateway", "calibrate", ".", "--data", "rows.npz"],
    "the application under Ray": ["-c", "import gateway.app" + LOAD],
    "a module on its own": ["-c", "import gateway.serving.gateway" + LOAD],
    "bench": ["-m", "bench.quality", "."],
    "training": ["-c", "import fallbacks" + LOAD],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = copy_of("letters", tmp_path)
    with np.load(CONFIGS / "letters" / "letters.npz") as held:
        rows, labels = held["x"][-4000:], [ord(letter) - ord("A") for letter in held["y"][-4000:]]
    np.savez(folder / "rows.npz", x=rows.astype(np.float32), y=np.array(labels))
    return folder


def empty_home(folder: Path) -> dict[str, str]:
    """An environment whose home folder holds nothing yet, in which telemetry is not yet off.

    Nothing else is inherited: onnxruntime also keeps its telemetry off where it finds variables such as `CI`.
    """
    home = folder.parent / "home"
    home.mkdir()
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1])}


def kept_at_home(environment: dict[str, str]) -> list[str]:
    """What the process has kept of telemetry: the device's id and the queue of events."""
    return [str(path) for path in Path(environment["HOME"]).rglob("*") if "Microsoft" in path.parts]


@pytest.mark.parametrize("arguments", WAYS_IN.values(), ids=WAYS_IN)
def test_no_way_in_keeps_an_event(arguments: list[str], folder: Path) -> None:
    environment = empty_home(folder)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert kept_at_home(environment) == []


def test_onnxruntime_itself_would_keep_events_here(folder: Path) -> None:
    """The proof above proves something: without the variable, the same folder fills."""
    environment = empty_home(folder)
    subprocess.run([sys.executable, "-c", "import onnxruntime"], env=environment, check=True)
    assert kept_at_home(environment) != []


TRACED = ("-f", "-qq", "-yy", "-s", "0", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-e", "signal=none")
"""Every way to reach another host. `-yy` shows what a descriptor is and where it is connected to."""
ADDRESS = re.compile(r'(?:->|inet_addr\("|inet_pton\(AF_INET6, ")\[?([0-9a-f:.]*[0-9a-f])')


def strace_into(trace: Path) -> list[str]:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    return [strace, *TRACED, "-o", str(trace)]


def beyond_loopback(trace: Path) -> list[str]:
    """The traced calls that reach another host. A UDP socket that is only connected has sent nothing: Ray
    connects one to learn the address of this host."""
    calls = [line for line in trace.read_text().splitlines() if "<TCP" in line or "<UDP" in line]
    reaching = [line for line in calls if "<TCP" in line or " connect(" not in line]
    return [line for line in reaching if not all(map(of_this_host, ADDRESS.findall(line)))]


@cache
def of_this_host(address: str) -> bool:
    """Whether it can be bound here."""
    address = address.removeprefix("::ffff:")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


@pytest.mark.parametrize(
    "arguments", [["--local"], pytest.param([], marks=pytest.mark.ray)], ids=["local", "Ray"]
)
def test_a_traced_start_looks_up_nothing(arguments: list[str], folder: Path) -> None:
    """`gateway serve`, every thread and process traced, until it is ready and a while longer."""
    environment, trace, ports = empty_home(folder), folder / "trace", [free_port() for _ in range(3)]
    command = [*strace_into(trace), sys.executable, "-m", "gateway", "serve", ".", *arguments]
    for name, port in zip(("--port", "--grpc-port", "--admin-port"), ports, strict=True):
        command += [name, str(port)]
    traced = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{ports[0]}/v2/health/ready", traced)
        time.sleep(2)  # the collector is looked up by a thread of its own
    finally:
        os.killpg(traced.pid, signal.SIGINT)
        traced.wait(60)
    assert beyond_loopback(trace) == []
    assert kept_at_home(environment) == []


def test_a_traced_calibration_looks_up_nothing(folder: Path) -> None:
    environment, trace = empty_home(folder), folder / "trace"
    command = [*strace_into(trace), sys.executable, *WAYS_IN["calibrate"]]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    assert beyond_loopback(trace) == []


def test_the_trace_shows_a_look_up(folder: Path) -> None:
    """The proofs above prove something: this is how a resolver is asked for a name."""
    trace = folder / "trace"
    code = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))"
    subprocess.run([*strace_into(trace), sys.executable, "-c", code], check=False, capture_output=True)
    assert beyond_loopback(trace) != []


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < until_s:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the traced gateway did not become ready")
