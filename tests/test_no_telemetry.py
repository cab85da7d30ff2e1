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
import subprocess
import sys
import time
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


def test_a_traced_start_looks_up_nothing(folder: Path) -> None:
    """`gateway serve --local`, every connect of every thread traced, one request answered."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    environment, trace, ports = empty_home(folder), folder / "trace", [free_port() for _ in range(3)]
    command = [strace, "-f", "-qq", "-e", "trace=connect", "-e", "signal=none", "-o", str(trace)]
    command += [sys.executable, "-m", "gateway", "serve", ".", "--local"]
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
    beyond = [line for line in trace.read_text().splitlines() if re.search("AF_INET6?", line)]
    assert [line for line in beyond if "127.0.0.1" not in line] == []
    assert kept_at_home(environment) == []


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
