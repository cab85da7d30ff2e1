"""`gateway bench` against a real gateway on a free port, and its errors for wrong input."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.curve import CAPACITY_SHARES
from gateway.access.callers import add_key
from gateway.deployment.deployment import VAR
from gateway.replica import ListenAddress, Replica
from gateway.serving.repository import Repository
from tests.cli.test_samples import three_inputs_rows
from tests.support.typed import deployed, held_out
from tests.support.typed_models import one_input, three_inputs

LETTERS = Path(__file__).parents[2] / "configs" / "letters"
QUICK = ("--seconds", "0.5", "--warm-up", "0.1", "--connections", "4")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _serve(folder: Path, port: int, ready: threading.Event, stop: threading.Event) -> None:
    address = ListenAddress(port=port, grpc_port=_free_port(), admin_port=_free_port())
    replica = Replica(Repository.open([folder]), address, "a token of 16 bytes")
    await replica.start()
    ready.set()
    while not stop.is_set():  # noqa: ASYNC110 (the other side is a thread)
        await asyncio.sleep(0.02)
    await replica.stop()


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment") / "letters"
    shutil.copytree(LETTERS, folder, ignore=shutil.ignore_patterns(VAR))
    return folder


@pytest.fixture(scope="module")
def url(letters: Path) -> Iterator[str]:
    with serving(letters) as found:
        yield found


def _bench(*args: str) -> tuple[int, str, dict[str, Any]]:
    result = CliRunner().invoke(app, [*args, "--json", "-"])
    found = json.loads(result.stdout) if result.stdout else {}
    return result.exit_code, result.stderr, found


@pytest.fixture(scope="module")
def key(url: str, letters: Path) -> str:
    made = add_key(letters / VAR, "bench", tier="trusted", per_s=1e6, scopes=frozenset({"infer"}))
    threading.Event().wait(0.6)  # a running gateway looks for new keys every half second
    return made


def _requests(load: dict[str, Any]) -> int:
    return sum(one["requests"] for one in load["ended"])


def test_every_request_ends_in_an_outcome(url: str, letters: Path, key: str) -> None:
    code, output, found = _bench(url, "--dir", str(letters), "--key", key, "--outliers", "0.5", *QUICK)
    assert code == 0, output
    load = found["callers"]
    assert {"served", "deferred"} <= {one["outcome"] for one in load["ended"]} and load["errors"] == {}
    assert _requests(load) == load["requests"] == sum(load["rows"].values())
    assert sum(one["count"] for one in load["histogram"]) == load["requests"]
    assert 0 < load["latency_ms"]["p50"] <= load["latency_ms"]["p99"] <= load["latency_ms"]["max"]
    assert "served" in output and "requests/s" in output


@pytest.mark.parametrize(
    "options", [("--rows", "8"), ("--rows", "8", "--binary"), ("--binary", "--rate", "40")]
)
def test_it_sends_every_form_of_request(url: str, letters: Path, options: tuple[str, ...]) -> None:
    code, output, found = _bench(f"{url}/v2/models/letters", "--dir", str(letters), *options, *QUICK)
    assert code == 0, output
    rows, load = found["about"]["rows_a_request"], found["callers"]
    assert sum(load["rows"].values()) == rows * load["requests"] > 0
    assert (load["loop"] == "open") == (load["late_ms"]["n"] > 0) == ("--rate" in options)


def test_an_abusive_caller_is_reported_apart_from_the_others(url: str, letters: Path, key: str) -> None:
    small = add_key(letters / VAR, "small", tier="trusted", per_s=1, scopes=frozenset({"infer"}))
    threading.Event().wait(0.6)
    asked = ("--dir", str(letters), "--key", key, "--abusive", "0.5", "--abusive-key", small, *QUICK)
    code, output, found = _bench(url, *asked)
    assert code == 0, output
    assert [found[load]["connections"] for load in ("alone", "callers", "abusive")] == [2, 2, 2]
    limited = {
        load: sum(one["requests"] for one in found[load]["ended"] if one["reason"] == "rate_limited")
        for load in ("alone", "callers", "abusive")
    }
    assert limited["alone"] == limited["callers"] == 0 < limited["abusive"]
    assert _requests(found["callers"]) > 0 and "abusive caller" in output


def test_the_curve_has_every_step_and_the_page_shows_it_without_the_key(
    url: str, letters: Path, key: str, tmp_path: Path
) -> None:
    html = tmp_path / "page.html"
    quick = ("--seconds", "0.3", "--warm-up", "0", "--connections", "4", "--p99-limit", "1e6")
    args = (url, "--dir", str(letters), "--key", key, "--curve", "--html", str(html), *quick)
    asked = [sys.executable, "-m", "bench", *args, "--json", "-"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    curve = json.loads(done.stdout)["curve"]
    assert [step["share"] for step in curve["steps"]] == list(CAPACITY_SHARES)
    kept = [step["offered_per_s"] for step in curve["steps"] if step["keeps_up"]]
    assert curve["saturation_per_s"] == max(kept, default=None) and curve["p99_limit_ms"] == 1e6
    assert all(sum(step["outcomes"].values()) > 0 and not step["errors"] for step in curve["steps"])
    text = html.read_text()
    assert "110 %" in text and "Latency by throughput" in text and "--curve" in text
    assert key not in text and key not in done.stdout


def test_wrong_input_is_an_error_with_exit_code_2(url: str, letters: Path, tmp_path: Path) -> None:
    shutil.copy(letters / "gateway.yaml", tmp_path)
    wrong = {
        (
            url,
            "--dir",
            str(tmp_path),
        ): "guards.npz: cannot be read: No such file or directory; run `gateway calibrate`",
        (url, "--dir", str(letters), "--data", str(tmp_path / "no.csv")): "no.csv: cannot be read",
        (url, "--dir", str(tmp_path / "nowhere")): "is no deployment folder",
        (url, "--dir", str(letters), "--key", "fsg_wrong"): "needs a valid --key",
        (url, "--dir", str(letters), "--rows", "500"): "from 1 to 128 are taken",
        (f"{url}/v2/models/other", "--dir", str(letters)): "is not served there",
        (url, "--dir", str(letters), "--abusive", "0.5"): "needs two callers",
        (url, "--dir", str(letters), "--abusive", "0.9", "--abusive-key", "x"): "leaves none",
        (url, "--dir", str(letters), "--curve", "--rate", "9"): "neither --rate nor --abusive",
        (url, "--dir", str(letters), "--p99-limit", "9"): "is a limit of --curve",
        ("127.0.0.1:8080", "--dir", str(letters)): "is not a URL",
        (f"http://127.0.0.1:{_free_port()}", "--dir", str(letters)): "cannot be reached",
    }
    for args, what in wrong.items():
        code, output, _ = _bench(*args, *QUICK)
        assert (code, what in output) == (2, True), output


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    port, ready, stop = _free_port(), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(folder, port, ready, stop)))
    thread.start()
    try:
        assert ready.wait(60)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(30)


def test_a_deployment_of_several_inputs_gets_all_of_them_in_json_and_in_binary(tmp_path: Path) -> None:
    """Text, booleans and a series: the rows that calibration kept, a file's, and outliers."""
    folder = deployed(tmp_path / "own", three_inputs(), ["said", "total"], three_inputs_rows())
    mine = tmp_path / "mine.npz"
    series = np.tile([-1.0, 1.0], (9, 1))
    np.savez(mine, words=np.array(["wörd"] * 9), mask=np.ones((9, 2, 2), bool), series=series)
    asked = ("--dir", str(folder), "--outliers", "0.3")
    with serving(folder) as url:
        for options in ((), ("--binary",), ("--rows", "5"), ("--binary", "--rows", "5")):
            for data in ((), ("--data", str(mine))):
                code, output, found = _bench(url, *asked, *options, *data, *QUICK)
                assert code == 0, output
                rows = found["about"]["rows_a_request"]
                assert sum(found["callers"]["rows"].values()) == rows * found["callers"]["requests"] > 0
        mine.write_bytes(b"no archive")
        code, output, _ = _bench(url, *asked, "--data", str(mine), *QUICK)
        assert code == 2 and "mine.npz: " in output and "np.savez" in output


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_json_cannot_hold_is_said_and_is_sent_in_binary(datatype: str, tmp_path: Path) -> None:
    folder = deployed(tmp_path, one_input(datatype), ["probabilities"], held_out(datatype))
    with serving(folder) as url:
        code, output, _ = _bench(url, "--dir", str(folder), *QUICK)
        assert (code, f"x: {datatype} travels as binary only: give --binary" in output) == (2, True), output
        code, output, found = _bench(url, "--dir", str(folder), "--binary", *QUICK)
    assert code == 0, output
    assert found["callers"]["requests"] > 0


def test_gateway_bench_is_this_command() -> None:
    args = [sys.executable, "-m", "bench", "http://127.0.0.1:1", "--dir", str(LETTERS)]
    done = subprocess.run(args, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "cannot be reached" in done.stderr
