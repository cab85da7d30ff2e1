"""The comparison with peers: its arithmetic on made-up numbers, its baseline server for real."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from bench.client import Response
from bench.measurements import Measurements
from bench.peers.__main__ import app
from bench.peers.compare import ServerRound
from bench.peers.launch import PEERS, SERVERS_BY_NAME
from bench.peers.load_cases import interleave, server_groups
from bench.peers.measure import Round, round_of
from bench.peers.proc import Usage, tree
from bench.peers.process import running
from bench.peers.ratios import MedianWithRange, differences, ratios
from bench.peers.results import beside
from bench.peers.verify import compare_answer
from bench.peers.wrk import wrk_is_missing
from bench.requests import WrongInput
from fallbacks.onnx import OnnxModel

FASHION = Path(__file__).parents[2] / "configs" / "fashion"
EVERYWHERE = frozenset(os.sched_getaffinity(0))
CHILDREN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
until = time.process_time() + 0.3
while time.process_time() < until: pass
print("ready", flush=True)
time.sleep(60)
"""


def _round(per_s: float, p50_ms: float = 1.0, p99_ms: float = 2.0, cpu_us: float = 100.0) -> Round:
    return Round(8, {}, 1.0, per_s, per_s, 1.0, {}, p50_ms, p99_ms, cpu_us, 1.0, 0.1)


def test_ratios_are_of_neighbours_and_not_of_medians() -> None:
    assert ratios([10, 100, 1000], [20, 100, 500]) == MedianWithRange(1.0, 0.5, 2.0)
    assert differences([3, 5], [1, 1]) == MedianWithRange(3.0, 2.0, 4.0)


def test_a_peer_without_throughput_has_no_ratio() -> None:
    assert math.isnan(ratios([1, 2], [0, 1]).median) and math.isnan(MedianWithRange.of([]).median)


def test_each_peer_is_beside_the_gateway_of_its_own_group_and_round() -> None:
    def group(name: str, gateway: float) -> list[ServerRound]:
        rounds = {"gateway": _round(gateway, 7.0), "bare": _round(200.0, 2.0), name: _round(50.0, 9.0)}
        return [ServerRound("json1", name, server, 0, one) for server, one in rounds.items()]

    found = {one.peer: one for one in beside([*group("mlserver", 100.0), *group("bentoml", 300.0)])}
    assert found["mlserver"].throughput.median == 2.0 and found["bentoml"].throughput.median == 6.0
    assert found["bare"].throughput == MedianWithRange(1.0, 0.5, 1.5) and found["bare"].pairs == 2
    assert found["bare"].added_p50_ms.median == 5.0 and found["mlserver"].added_p50_ms.median == -2.0


def test_a_refusal_is_no_throughput() -> None:
    measurements = Measurements()
    for outcome, reason in (("served", "ok"), ("deferred", "abstained"), ("refused", "deadline")):
        measurements.record(Response(200, outcome, reason, b"", 0), 0.0, 0.1, rows=1)
    found = round_of(measurements, 2.0, 0.5, 2**20, 0.1)
    assert (found.requests_per_s, found.rows_per_s, found.cpu_us) == (1.0, 1.0, 250_000.0)
    assert found.answered == pytest.approx(1 / 3) and found.ended["refused deadline"] == 1


def test_no_two_peers_run_together_and_turns_are_interleaved() -> None:
    assert list(server_groups(["bare", "a", "b"])) == [("gateway", "bare", "a"), ("gateway", "bare", "b")]
    assert list(server_groups(["bare"])) == [("gateway", "bare")] and list(server_groups(["a"])) == [
        ("gateway", "a")
    ]
    assert list(interleave(("a", "b"), 2)) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_tree_is_counted_and_ended_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running([sys.executable, "-c", CHILDREN], {}, EVERYWHERE, log) as child:
        until_s = time.monotonic() + 10
        while log.read_text() != "ready\n" and time.monotonic() < until_s:
            time.sleep(0.02)
        family, usage = tree(child.pid), Usage.of(child.pid)
        assert [one.parent for one in family] == [os.getpid(), child.pid]
        assert 0.25 < usage.cpu_s < 5 and usage.rss_bytes > 2**22
    assert not any(Path(f"/proc/{one.pid}").exists() for one in family if one.pid == child.pid)
    assert all(tree(one.pid) == [] for one in family)


def test_an_answer_that_is_not_the_models_is_an_error() -> None:
    model = OnnxModel.load(FASHION / "primary.onnx")
    model.close()
    x = np.zeros((1, 1, 28, 28), np.float32)
    tensor = {"name": "image", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
    request = b"POST / HTTP/1.1\r\nhost: x\r\n\r\n" + orjson.dumps({"inputs": [tensor]})
    right = model.run({"image": x})["probabilities"]

    def answer(y: np.ndarray) -> Response:
        output = {"name": "probabilities", "shape": y.shape, "data": y.ravel().tolist()}
        return Response(200, "", "", orjson.dumps({"outputs": [output]}), 0)

    compare_answer("peer", request, answer(right), model)
    for wrong in (right[:, ::-1], right[:, :9]):
        with pytest.raises(WrongInput, match="is not the model's"):
            compare_answer("peer", request, answer(wrong), model)
    with pytest.raises(WrongInput, match="is no tensor"):
        compare_answer("peer", request, Response(200, "", "", b'{"detail": "ok"}', 0), model)


def test_the_gateway_and_the_baseline_are_measured() -> None:
    check = () if wrk_is_missing() else ("--wrk",)
    quick = (*check, "--rounds", "1", "--seconds", "0.5", "--warm-up", "0.2", "--connections", "4")
    result = CliRunner().invoke(
        app, ["--peers", "bare", "--case", "binary1", *quick, "--dir", str(FASHION), "--json", "-"]
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    ours, bare = (one["round"] for one in found["turns"])
    assert (ours["errors"], bare["errors"]) == ({}, {}) and bare["ended"] == {"answered": bare["requests"]}
    assert {"served ok"} <= ours["ended"].keys() and sum(ours["ended"].values()) == ours["requests"]
    assert 0.7 < ours["answered"] < 1.0 == bare["answered"]
    for one in (ours, bare):
        assert one["requests_per_s"] > 10 and 0 < one["p50_ms"] <= one["p99_ms"]
        assert bool(one["wrk_per_s"]) == bool(check)
        assert one["cpu_us"] > 50 and one["rss_mb"] > 20
    assert found["beside"][0]["throughput"]["median"] == pytest.approx(
        ours["requests_per_s"] / bare["requests_per_s"]
    )
    assert found["versions"]["bare"]["onnxruntime"] and "bare" in result.stderr


@pytest.mark.parametrize(
    ("options", "what"), [(("--peers", "bare,unknown"), "'unknown'"), (("--case", "json9"), "'json9'")]
)
def test_an_unknown_name_is_wrong_input(options: tuple[str, ...], what: str) -> None:
    result = CliRunner().invoke(app, [*options])
    assert result.exit_code == 2 and what in result.stderr


def test_every_peer_has_a_server_and_exact_versions() -> None:
    servers = Path(sys.modules["bench.peers"].__path__[0]) / "servers"
    for name in PEERS:
        if (environment := SERVERS_BY_NAME[name].environment) is None:
            continue
        lines = (servers / f"{environment}.txt").read_text().splitlines()
        assert all("==" in line for line in lines if not line.startswith("#")), environment
        assert not any("://" in line or "/" in line for line in lines), environment
    assert not (servers / "__init__.py").exists()  # scripts: the package never imports what they import
