"""What a policy may say of a model that lives elsewhere, what is certified of it, and what is kept of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from gateway.core.errors import ArtifactError, PolicyError, Problem
from gateway.deployment.certificate import policy_digest
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import read_upstreams, record_upstreams, write_upstreams
from gateway.policy.schema import OipPolicy
from tests.support.deployments import edit, letters
from tests.support.oip_server import SPEC, OipServer, ReceivedRequest, oip_server, send

LOCAL = "model: {kind: onnx, path: primary.onnx}"
THERE = '{kind: oip, url: "http://triton:8000", model: capitals}'
SECRET = "hunter2"


def naming(to: Path, model: str = THERE) -> Path:
    return letters(to, (LOCAL, f"model: {model}"))


def refused(folder: Path) -> Problem:
    with pytest.raises(PolicyError) as caught:
        Deployment.read(folder)
    (problem,) = caught.value.problems
    assert "kind: " in (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    return problem


def test_a_rung_may_name_a_model_elsewhere(tmp_path: Path) -> None:
    named = Deployment.read(naming(tmp_path)).policy.rungs[0].model
    assert named == OipPolicy(kind="oip", url="http://triton:8000", model="capitals")


WRONG = {
    "no address": ("http://triton:8000", "triton:8000", "url", "must be http://host:port"),
    "an address without a port": ("http://triton:8000", "grpc://triton", "url", "grpc://host:8001"),
    "a secret": ("http://triton:8000", f"http://me:{SECRET}@triton", "url", "token_env"),
    "a token itself": ("capitals}", f"capitals, token_env: {SECRET}}}", "token_env", "should match"),
    "no model": ("model: capitals", 'model: ""', "model", "at least 1 character"),
    "another kind": ("kind: oip", "kind: oipp", "kind", "must be one of 'onnx', 'oip'|one of onnx, oip"),
    "an unknown field": ("model: capitals", "modle: capitals, model: capitals", "modle", "not a field"),
}


@pytest.mark.parametrize(("old", "new", "field", "told"), WRONG.values(), ids=WRONG)
def test_a_fault_is_reported_with_field_and_line(
    tmp_path: Path, old: str, new: str, field: str, told: str
) -> None:
    problem = refused(naming(tmp_path, THERE.replace(old, new)))
    assert problem.field == f"rungs[0].model.{field}"
    assert any(one in problem.what for one in told.split("|"))


def test_a_secret_in_the_address_is_not_repeated(tmp_path: Path) -> None:
    assert SECRET not in str(refused(naming(tmp_path, THERE.replace("triton:8000", f"me:{SECRET}@triton"))))


@pytest.mark.parametrize(
    ("old", "new", "matters"),
    [
        ("http://triton:8000", "grpc://elsewhere:8001", False),
        ("capitals}", "capitals, token_env: TOKEN}", False),
        ("capitals}", "lowercase}", True),
        ("capitals}", 'capitals, version: "2"}', True),
        ("capitals}", "capitals, names: {probabilities: output-0}}", True),
        ("capitals}", "capitals, encoder: encoder.onnx}", True),
    ],
)
def test_an_upstream_may_move_but_not_change_under_its_certificate(
    tmp_path: Path, old: str, new: str, matters: bool
) -> None:
    here = policy_digest(Deployment.read(naming(tmp_path / "here")).policy)
    there = policy_digest(Deployment.read(naming(tmp_path / "there", THERE.replace(old, new))).policy)
    assert (here != there) is matters


def test_an_upstream_that_was_never_calibrated_is_reported_with_its_file(tmp_path: Path) -> None:
    folder = naming(tmp_path)
    with pytest.raises(ArtifactError, match=r"upstreams\.json: is missing: run `gateway calibrate`"):
        read_upstreams(Deployment.read(folder))
    with pytest.raises(PolicyError, match=r"rungs\[0\]\.model: upstreams\.json does not hold this model"):
        load_models(Deployment.read(folder), {})


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"schema": 2, "upstreams": {}}', b'{"schema": 1, "upstreams": {"a": 1}}']
)
def test_a_broken_file_is_reported(tmp_path: Path, content: bytes) -> None:
    folder = naming(tmp_path)
    (folder / "upstreams.json").write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_upstreams(Deployment.read(folder))
    (problem,) = caught.value.problems
    assert problem.file == str(folder / "upstreams.json")
    assert problem.what.endswith("run `gateway calibrate` again")


async def doubles(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    one = asked.document["inputs"][0]
    await send(
        writer, {"outputs": [{**SPEC[0], "shape": one["shape"], "data": [2 * v for v in one["data"]]}]}
    )


def record_over(server: OipServer, folder: Path) -> None:
    edit(folder, ("http://triton:8000", server.url))
    deployment = Deployment.read(folder)
    found = record_upstreams(deployment)
    write_upstreams(deployment, found)
    assert {name: one.digest for name, one in read_upstreams(Deployment.read(folder)).items()} == {
        name: one.digest for name, one in found.items()
    }


def test_a_token_comes_from_the_variable_that_the_policy_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_TOKEN", SECRET)
    folder = naming(tmp_path, THERE.replace("capitals}", "doubles, token_env: TRITON_TOKEN}"))

    async def main() -> None:
        async with oip_server(doubles) as server:
            await asyncio.to_thread(record_over, server, folder)
            assert {asked.headers.get("authorization") for asked in server.asked} == {f"Bearer {SECRET}"}

    asyncio.run(main())
    held = orjson.loads((folder / "upstreams.json").read_bytes())
    assert set(held["upstreams"]) == {"primary"} and SECRET not in str(held)


def test_probes_are_within_the_ranges_of_the_inputs(tmp_path: Path) -> None:
    folder = naming(tmp_path, THERE.replace("capitals}", "doubles, names: {attributes: x}}"))

    async def main() -> None:
        async with oip_server(doubles) as server:
            await asyncio.to_thread(record_over, server, folder)

    asyncio.run(main())
    x = read_upstreams(Deployment.read(folder))["primary"].probes["x"]
    assert 1 < x.max() <= 15 and x.min() >= 0


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak"])
def test_a_variable_without_a_token_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("TRITON_TOKEN", token)
    folder = naming(tmp_path, THERE.replace("capitals}", "capitals, token_env: TRITON_TOKEN}"))
    with pytest.raises(PolicyError, match="the environment variable TRITON_TOKEN holds no token"):
        record_upstreams(Deployment.read(folder))
