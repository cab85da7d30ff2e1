"""The scenes of the demo against running gateways, without Ray: no right deployment is called wrong."""

from __future__ import annotations

import io
import socket
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from gateway.cli.demo import show
from gateway.cli.demo_client import Client, an_answer
from gateway.cli.samples import load_samples
from gateway.cli.scene import Scene
from gateway.cli.walk_through import WalkThrough
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from gateway.protocol.targets import Classes, NoForm, Number
from gateway.replica import ListenAddress
from tests.cli.test_main import gateway
from tests.cli.test_samples import contract, three_inputs_rows
from tests.support.deployments import FULL_RATE, be_patient, edit, key_for, letters
from tests.support.served import TOKEN, copy_of, free_port, serving
from tests.support.typed import POLICY, deployed
from tests.support.typed_models import model, three_inputs

REVIEW = (
    'review: {store: "sqlite:///var/review.db", capacity: 10000, expire_after_s: 86400, on_expire: refuse, '
)
RATE = "  - {name: rate, kind: rate, per_s: 200, burst: 400, budget_s: 0.04, on_error: allow}\n"


def played(folder: Path, data: Path | None = None) -> dict[str, Scene]:
    """The scenes of a deployment that serves, by title."""
    deployment = Deployment.read(folder)
    artifacts = load_artifacts(deployment)
    artifacts.close()
    key = key_for(folder, "demo", "anonymous", 1e6)
    samples = load_samples(folder, artifacts.contract, data)
    with serving(folder, "--local") as served:
        ports = (one.base_url.port for one in (served.data, served.admin))
        port, admin_port = (one for one in ports if one is not None)
        address = ListenAddress(port=port, admin_port=admin_port)
        client = Client(address, deployment.policy, artifacts.contract, key, TOKEN, None)
        with closing(client):
            walk = WalkThrough(client, deployment, artifacts.contract, artifacts.certificate, samples)
            return {scene.title: scene for scene in walk.scenes()}


def ends(scene: Scene) -> Counter[str]:
    found: Counter[str] = Counter()
    for (outcome, reason, _), count in scene.endings.items():
        found[f"{outcome}:{reason}"] += count
    return found


def test_the_ready_deployment_keeps_its_strict_scenes(tmp_path: Path) -> None:
    folder = copy_of("letters", tmp_path)
    be_patient(folder)
    scenes = played(folder)
    assert all(scene.passed for scene in scenes.values()), scenes
    assert {title: dict(scene.least_shares) for title, scene in scenes.items()} == {
        "a person answers": {"deferred": 0.5, "degraded": 0.5},
        "clean test rows": {"served": 0.8},
        "outliers: shuffled": {"deferred": 0.3},
        "outliers: uniform": {"deferred": 0.95},
        "outliers: fractional": {"deferred": 0.9},
        "outliers: noise": {"deferred": 0.95},
        "a burst of one caller": {"refused:rate_limited": 0.3},
        "primary just broken": {"degraded": 0.1, "degraded|deferred": 1.0},
        "primary mended": {"served": 0.8},
    }


def test_an_own_deployment_of_several_inputs_shows_every_outcome(tmp_path: Path) -> None:
    """Text, booleans and numbers; the review queue has room for one case; the caller's limit is low."""
    rate = ("per_s: 1000000, burst: 1000000", "per_s: 2, burst: 1000")
    policy = POLICY.replace(*rate).replace("capacity: 1000", "capacity: 1")
    folder = deployed(tmp_path, three_inputs(), ["said", "probabilities"], three_inputs_rows(), policy)
    scenes = played(folder)
    assert all(scene.passed for scene in scenes.values()), scenes
    assert list(scenes) == [
        "all broken: a person answers",
        "rows kept by calibration",
        "outliers: numbers far off",
        "outliers: unseen text",
        "a burst of one caller",
        "primary just broken",
        "primary mended",
    ]
    assert ends(scenes["all broken: a person answers"])["deferred:unavailable"] == 1
    assert ends(scenes["primary just broken"])["refused:unavailable"] >= 49


@pytest.mark.parametrize(
    ("changes", "missing", "first_ends"),
    [
        (((REVIEW, "x-"),), set[str](), {"refused:unavailable": 1}),
        ((("mode: enforce", "mode: observe"),), {"a burst of one caller"}, None),
        (((RATE, ""),), {"a burst of one caller"}, None),
        ((("anonymous: loopback", "anonymous: nobody"),), set[str](), None),
    ],
    ids=["no review", "observed", "no limit", "keys only"],
)
def test_no_right_deployment_is_called_wrong(
    changes: tuple[tuple[str, str], ...],
    missing: set[str],
    first_ends: dict[str, int] | None,
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)
    path = folder / "gateway.yaml"
    path.write_text(path.read_text().replace("deadline_s:", "mode: enforce\ndeadline_s:", 1))
    if changes[0][0] == REVIEW:
        path.write_text(
            "".join(li for li in path.read_text().splitlines(True) if not li.startswith("review:"))
        )
    else:
        edit(folder, *changes)
    scenes = played(folder)
    assert all(scene.passed for scene in scenes.values()), scenes
    assert ("a burst of one caller" in scenes) == ("a burst of one caller" not in missing)
    assert first_ends in (None, ends(scenes["all broken: a person answers"]))
    assert scenes["primary just broken"].share("served") == 0


def number_model() -> bytes:
    """value = x."""
    made = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["x"], ["value"])]
    inputs, outputs = (made(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "value"))
    return model(nodes, [inputs], [outputs], 1.0)


@pytest.mark.parametrize(
    ("task", "exposed", "end"),
    [
        ("regression", "value, lower, upper", "degraded:unavailable"),
        ("opaque", "value", "refused:abstained"),
    ],
)
def test_a_person_answers_in_the_form_of_the_task(task: str, exposed: str, end: str, tmp_path: Path) -> None:
    """A number for a regressor; of an opaque model nothing can be answered, and the row is refused."""
    rng = np.random.default_rng(0)
    x = rng.uniform(10, 20, (1000, 1)).astype(np.float32)
    policy = POLICY.replace("deadline_s", f"task: {task}\ndeadline_s")
    check = "{name: confidence, kind: confidence, selective_error: 0.1, budget_s: 1, on_error: degrade}"
    if task == "regression":
        policy = policy.replace("kind: confidence", "kind: interval")
    else:
        policy = policy.replace("answered_error: 0.1\n", "").replace(f"    checks: [{check}]\n", "")
    held: dict[str, np.ndarray] = {"x": x, "y": x[:, 0] + rng.normal(size=1000)}
    scenes = played(deployed(tmp_path, number_model(), exposed.split(", "), held, policy))
    assert all(scene.passed for scene in scenes.values()), scenes
    first_scene = scenes["all broken: a person answers"]
    assert ends(first_scene) == {"deferred:unavailable": 1, end: 1}


def test_rows_that_are_mostly_refused_are_called_wrong_but_not_those_of_a_file(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    path = folder / "gateway.yaml"
    text = path.read_text()
    path.write_text(text.replace("budget_s: 2\n    checks", "budget_s: 0.000001\n    checks"))
    assert path.read_text() != text
    scenes = played(folder)
    assert not scenes["rows kept by calibration"].passed
    file = tmp_path / "mine.npz"
    np.savez(file, attributes=load_samples(folder, contract(folder)).clean["attributes"])
    assert played(folder, file)["rows of the file"].passed


@pytest.mark.parametrize(
    ("ending", "right"),
    [
        (("refused", "unavailable", "none"), True),
        (("refused", "deadline", "none"), True),
        (("served", "ok", "primary"), True),
        (("HTTP 500", "HTTP 500", "HTTP 500"), False),
        (("no reply", "ReadTimeout", "none"), False),
        (("refused", "invalid", "none"), False),
        (("refused", "unauthenticated", "none"), False),
    ],
)
def test_a_scene_is_wrong_if_one_request_was_rejected_or_had_no_outcome(
    ending: tuple[str, str, str], right: bool
) -> None:
    assert Scene("one of many", Counter({("served", "ok", "primary"): 99, ending: 1})).passed is right


def test_a_scene_is_wrong_if_a_share_is_too_small_or_an_outcome_must_not_be() -> None:
    half = Counter({("served", "ok", "primary"): 5, ("degraded", "unavailable", "small"): 5})
    assert Scene("half", half, {"served": 0.5, "served|degraded": 1.0}).passed
    assert not Scene("half", half, {"served": 0.6}).passed
    assert not Scene("half", half, never=("degraded",)).passed
    assert not Scene("nothing was sent", Counter()).passed


def test_a_person_answers_in_the_form_of_the_target() -> None:
    assert an_answer(Classes(("a", "b"))) == {"label": 0}
    assert an_answer(Number(10.0, 21.0)) == {"value": 16}
    assert an_answer(Number(0.2, 0.6)) == {"value": 0.4}
    assert an_answer(Number(-1.7e308, 1.7e308)) == {"value": 0}
    assert an_answer(NoForm()) == {"unsure": True}


def test_mistakes_are_said_before_anything_starts(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    port = str(free_port())
    ports = ("--port", port, "--grpc-port", str(free_port()), "--admin-port", str(free_port()))
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    uncalibrated = letters(tmp_path / "un")
    (uncalibrated / "guards.npz").unlink()
    wrong = {
        (str(tmp_path / "nowhere"),): "nowhere",
        (str(uncalibrated),): "guards.npz: is missing: run `gateway calibrate`",
        (str(folder), "--data", str(tmp_path / "none.npz")): "none.npz: cannot be read",
        (
            str(folder),
            "--data",
            str(tmp_path / "rows.csv"),
        ): "takes 16 numbers a row, and the file has 2 columns",
    }
    for words, what in wrong.items():
        done = gateway("demo", *words, *ports, "--once")
        assert (done.returncode, what in done.stderr, "Traceback" in done.stderr) == (2, True, False), done
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        done = gateway("demo", str(folder), *ports, "--once")
    assert (done.returncode, f"cannot listen on 127.0.0.1:{port}" in done.stderr) == (2, True), done
    assert not (folder / "var" / "keys.jsonl").exists()


def test_the_table_names_the_scenes_that_went_wrong() -> None:
    right = Scene("right", Counter({("served", "ok", "primary"): 3, ("degraded", "abstained", "small"): 1}))
    left = Scene("left", Counter({("HTTP 500", "HTTP 500", "none"): 1}))
    out = io.StringIO()
    assert not show("letters", [right, left], Console(file=out, width=110))
    text = out.getvalue()
    assert "not as it should be: left" in text and "should be: right" not in text
    assert "75%" in text and "ok, by primary" in text and text.count("WRONG") == 1
    assert show("letters", [right], Console(file=out, width=110))
