"""A short run against a gateway that is really served, the slow model, and wrong input."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from bench.overload.__main__ import app
from bench.overload.servers import copy_deployment
from bench.overload.slow_deployment import slow_deployment
from bench.overload.slow_model import answer_of
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from tests.support.deployments import CONFIGS

pytestmark = pytest.mark.alone
CORES = frozenset(os.sched_getaffinity(0))
needs_two_cores = pytest.mark.skipif(len(CORES) < 2, reason="the generator needs a core of its own")


@needs_two_cores
def test_a_short_run_reports_every_request_of_a_served_gateway(tmp_path: Path) -> None:
    out = tmp_path / "overload.json"
    asked = ["--rows", "1", "--times", "1", "--seconds", "1", "--connections", "64", "--json", str(out)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code in (0, 1), done.stderr  # 1: this machine has other work, and targets are missed
    found = orjson.loads(out.read_bytes())
    (one,), (greedy,) = found["overload"], found["greedy"]
    assert sum(one["shares"].values()) == pytest.approx(1 if one["offered"] else 0)
    assert not {"other", "abstained", "rate_limited", "answered"} & one["shares"].keys()
    assert one["server"] == greedy["server"] == "here"
    assert sum(one["probe"]["ends"].values()) > 20
    assert bool(found["missed"]) == (done.exit_code == 1)
    assert "goodput" in done.stdout


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--rows", "1,x"), "--rows: '1,x' is not numbers above 0"),
        (("--times", "0"), "--times: '0' is not numbers above 0"),
        (("--peers", "mlserver"), "--peers: 'mlserver' is not 'bare'"),
        (("--peers", "bare", "--deployment", "slow"), "which the deployment `slow` has not"),
        (("--deployment", "nothing"), "--deployment: 'nothing' is neither"),
        (("--tree", "/nowhere"), "/nowhere has no .venv"),
    ],
)
@needs_two_cores
def test_wrong_input_ends_with_code_2_and_says_what_to_correct(asked: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_a_copy_of_a_deployment_has_room_in_its_review_queue_and_is_otherwise_the_same(
    tmp_path: Path,
) -> None:
    copy_deployment(CONFIGS / "letters", tmp_path / "letters")
    before = (CONFIGS / "letters" / "gateway.yaml").read_text()
    after = (tmp_path / "letters" / "gateway.yaml").read_text()
    assert after == before.replace("capacity: 10000,", "capacity: 1000000,") != before
    assert not (tmp_path / "letters" / "var").exists()


@pytest.mark.parametrize("data", [[[0, 0, 0], [0.25, 1, 1]], [0, 0, 0, 0.25, 1, 1]])
def test_the_slow_model_answers_from_the_first_number_of_each_row(data: list[object]) -> None:
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": data}]})
    answer, rows = answer_of(body)
    assert rows == 2
    assert orjson.loads(answer)["outputs"][0]["data"] == [1.0, 0.0, 0.75, 0.25]


def test_the_slow_deployment_is_certified_for_the_model_that_runs(tmp_path: Path) -> None:
    with slow_deployment(tmp_path / "slow", CORES) as folder:
        artifacts = load_artifacts(Deployment.read(folder))  # raises where the model is not the certified one
        assert [one.name for one in artifacts.contract.inputs] == ["x"]
        artifacts.close()
