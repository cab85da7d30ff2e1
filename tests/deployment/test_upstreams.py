"""A ladder whose first rung lives in a real MLServer, and one whose first rung is another gateway."""

from __future__ import annotations

import logging
import runpy
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import onnx
import orjson
import pytest

from bench.peers.process import free_port
from fallbacks.oip.description import ModelDescription
from fallbacks.oip.grpc import decode_grpc_response
from fallbacks.oip.open_inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse
from fallbacks.onnx import OnnxModel
from gateway.calibration.calibrate import calibrate
from gateway.core.decision import Decision, Degraded, Served
from gateway.core.errors import ArtifactError, PolicyError, Problem, Problems
from gateway.deployment.deployment import Deployment
from gateway.serving.gateway import Gateway
from tests.support.deployments import (
    CONFIGS,
    FULL_RATE,
    batch_of,
    clean_rows,
    edit,
    letters,
    opened,
    outlier_rows,
    run,
)
from tests.support.mlserver import MODEL, MLServer, mlserver

pytestmark = pytest.mark.stock
LETTERS = CONFIGS / "letters"
LOCAL = "model: {kind: onnx, path: primary.onnx}"


def elsewhere(url: str, more: str = "") -> str:
    return f'model: {{kind: oip, url: "{url}", model: {MODEL}{more}}}'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part of the calibration rows of configs/letters."""
    split = runpy.run_path(str(LETTERS / "train.py"))["split"](0)
    path: Path = tmp_path_factory.mktemp("data") / "calibration.npz"
    np.savez(path, attributes=split.calibration.attributes[:4000], y=split.calibration.y[:4000])
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLServer]:
    """A server that runs until the module ends."""
    with mlserver(LETTERS, tmp_path_factory.mktemp("mlserver") / "work") as one:
        yield one


@pytest.fixture(scope="module")
def calibrated(server: MLServer, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """configs/letters without its primary, which MLServer has, certified anew."""
    folder = letters(tmp_path_factory.mktemp("calibrated"), (LOCAL, elsewhere(server.http)), FULL_RATE)
    for name in ("primary.onnx", "guards.npz", "scores.npz", "certificate.json"):
        (folder / name).unlink()
    calibrate(Deployment.read(folder), data)
    return folder


@pytest.fixture
def folder(calibrated: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(calibrated, tmp_path / "letters", ignore=shutil.ignore_patterns("var"))


def move(folder: Path, server: MLServer, url: str) -> None:
    """Another address is no other model: the certificate does not speak of it."""
    edit(folder, (server.http, url))


def by_outcome(decisions: list[Decision]) -> list[str]:
    return [type(decision.outcome).__name__ for decision in decisions]


def refused(folder: Path) -> tuple[Problem, ...]:
    with pytest.raises(Problems) as caught:
        Gateway.open(folder)
    return caught.value.problems


def decided(folder: Path, *batches: Any) -> list[Decision]:
    found: list[Decision] = []

    async def main() -> None:
        async with opened(folder) as gateway:
            for rows in batches:
                found.extend(await gateway.decide(batch_of(rows)))

    run(main)
    return found


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_answers_as_the_same_model_in_this_process_does(
    folder: Path, server: MLServer, data: Path, tmp_path: Path, protocol: str
) -> None:
    move(folder, server, getattr(server, protocol))
    local = letters(tmp_path / "local", FULL_RATE)
    calibrate(Deployment.read(local), data)
    rows = clean_rows(60), outlier_rows(20)
    there, here = decided(folder, *rows), decided(local, *rows)
    assert by_outcome(there) == by_outcome(here)
    assert by_outcome(there).count("Served") > 30
    assert "Deferred" in by_outcome(there[60:])
    for one, other in zip(there, here, strict=True):
        if isinstance(one.outcome, Served) and isinstance(other.outcome, Served):
            for name, array in other.outcome.output.items():
                assert np.allclose(one.outcome.output[name], array, rtol=1e-4, atol=1e-5)


def test_typed_contents_of_a_real_server_are_read(server: MLServer) -> None:
    """MLServer answers in the form in which it was asked; a proxy before it may ask in the other."""
    rows = clean_rows(3)
    tensor = ModelInferRequest.InferInputTensor(
        name="attributes",
        datatype="FP32",
        shape=rows.shape,
        contents=InferTensorContents(fp32_contents=rows.ravel().tolist()),
    )
    output = ModelInferRequest.InferRequestedOutputTensor(name="probabilities")
    question = ModelInferRequest(model_name=MODEL, inputs=[tensor], outputs=[output])
    model = OnnxModel.load(LETTERS / "primary.onnx")
    wanted = model.run({"attributes": rows})["probabilities"]
    model.close()

    async def main() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=ModelInferRequest.SerializeToString,
                response_deserializer=ModelInferResponse.FromString,
            )
            answer = await ask(question, timeout=5)
        assert not answer.raw_output_contents
        like = ModelDescription.parse(
            [("attributes", "FP32", [-1, 16])], [("probabilities", "FP32", [-1, 26])]
        )
        assert decode_grpc_response(answer, answer.id, like, 3)["probabilities"].tobytes() == wanted.tobytes()

    run(main)


def test_it_degrades_when_the_server_is_killed_and_recovers_with_it(
    folder: Path, server: MLServer, tmp_path: Path
) -> None:
    ports = free_port(), free_port()
    move(folder, server, f"http://127.0.0.1:{ports[0]}")

    async def main() -> None:
        with mlserver(LETTERS, tmp_path / "first", port=ports[0], grpc_port=ports[1]) as first:
            gateway = Gateway.open(folder)
            gateway.start()
            rows = clean_rows(20)
            assert "Served" in by_outcome(await gateway.decide(batch_of(rows)))
            first.kill()
        without = await gateway.decide(batch_of(rows))
        assert set(by_outcome(without)) <= {"Degraded", "Deferred"}
        assert {d.outcome.by for d in without if isinstance(d.outcome, Degraded)} == {"small"}
        gateway.loaded.breakers["primary"].isolate()
        gateway.loaded.breakers["primary"].restore()  # rather than wait until it lets a probe through
        with mlserver(LETTERS, tmp_path / "second", port=ports[0], grpc_port=ports[1]):
            assert "Served" in by_outcome(await gateway.decide(batch_of(rows)))
        await gateway.close()

    run(main)


def test_it_starts_while_the_server_is_down_and_serves_once_it_is_up(
    folder: Path, server: MLServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ports = free_port(), free_port()
    move(folder, server, f"http://127.0.0.1:{ports[0]}")

    async def main() -> None:
        with caplog.at_level(logging.WARNING, "gateway.deployment.upstreams"):
            gateway = Gateway.open(folder)
        assert "rung primary cannot be checked now" in caplog.text
        gateway.start()
        assert await gateway.healthy(), "a replica whose upstream is down is of use"
        assert set(by_outcome(await gateway.decide(batch_of(clean_rows(5))))) <= {"Degraded", "Deferred"}
        gateway.loaded.breakers["primary"].isolate()
        gateway.loaded.breakers["primary"].restore()
        with mlserver(LETTERS, tmp_path / "mlserver", port=ports[0], grpc_port=ports[1]):
            assert "Served" in by_outcome(await gateway.decide(batch_of(clean_rows(20))))
        await gateway.close()

    run(main)


def another_model(to: Path) -> Path:
    """The primary of configs/letters with one weight changed a little, as after a new training."""
    to.mkdir()
    model = onnx.load(LETTERS / "primary.onnx")
    weights = model.graph.initializer[0]
    changed = onnx.numpy_helper.to_array(weights) * np.float32(1.05)
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    onnx.save(model, to / "primary.onnx")
    return to


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_another_model_at_the_same_place_refuses_to_start(
    folder: Path, server: MLServer, tmp_path: Path, protocol: str
) -> None:
    with mlserver(another_model(tmp_path / "other"), tmp_path / "mlserver") as other:
        move(folder, server, getattr(other, protocol))
        (problem,) = refused(folder)
    assert problem.field == "rungs[0].model"
    assert "answers otherwise than when it was calibrated: run `gateway calibrate`" in problem.what
    assert "kind: oip" in (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1]


def test_another_model_that_comes_later_never_answers(folder: Path, server: MLServer, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    move(folder, server, f"http://127.0.0.1:{ports[0]}")

    async def main() -> None:
        gateway = Gateway.open(folder)
        gateway.start()
        other = another_model(tmp_path / "other")
        with mlserver(other, tmp_path / "mlserver", port=ports[0], grpc_port=ports[1]):
            found = await gateway.decide(batch_of(clean_rows(20)))
        assert set(by_outcome(found)) <= {"Degraded", "Deferred"}
        await gateway.close()

    run(main)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_that_hangs_costs_its_budget_and_no_more(
    folder: Path, server: MLServer, tmp_path: Path, protocol: str
) -> None:
    with mlserver(LETTERS, tmp_path / "mlserver") as own:
        move(folder, server, getattr(own, protocol))
        edit(
            folder,
            (
                "budget_s: 2\n    checks:\n      - {name: confidence",
                "budget_s: 0.3\n    checks:\n      - {name: confidence",
            ),
        )

        async def main() -> None:
            async with opened(folder) as gateway:
                await gateway.decide(batch_of(clean_rows(5)))
                own.freeze()
                start_s = time.monotonic()
                found = await gateway.decide(batch_of(clean_rows(5)))
                assert 0.25 < time.monotonic() - start_s < 1.5
                assert set(by_outcome(found)) <= {"Degraded", "Deferred"}
                own.thaw()

        run(main)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_reload_holds_the_server_to_its_probes_while_the_loop_runs(
    folder: Path, server: MLServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    move(folder, server, getattr(server, protocol))

    async def main() -> None:
        async with opened(folder) as gateway:
            assert gateway._keeping is not None
            await gateway._keeping  # a folder that changes before its version is kept is logged as an error
            edit(folder, ("capacity: *", "capacity: 77"))
            assert await gateway.reload()
            assert "Served" in by_outcome(await gateway.decide(batch_of(clean_rows(20))))
            with mlserver(another_model(tmp_path / "other"), tmp_path / "mlserver") as other:
                edit(folder, (getattr(server, protocol), getattr(other, protocol)))
                with pytest.raises(ArtifactError, match="answers otherwise"):
                    await gateway.reload()
            assert "Served" in by_outcome(await gateway.decide(batch_of(clean_rows(20))))

    run(main)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def cut(to: Path, outputs: dict[str, str]) -> Path:
    """The primary of configs/letters with some of its outputs, under other names."""
    model = onnx.load(LETTERS / "primary.onnx")
    kept = {value.name: value for value in model.graph.output}
    del model.graph.output[:]
    for theirs, ours in outputs.items():
        value = onnx.ValueInfoProto()
        value.CopyFrom(kept[ours])
        value.name = theirs
        model.graph.output.append(value)
        if theirs != ours:
            model.graph.node.append(onnx.helper.make_node("Identity", [ours], [theirs]))
    to.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, to)
    return to.parent


def test_features_come_from_an_encoder_beside_a_server_that_gives_none(
    tmp_path: Path, data: Path, server: MLServer, calibrated: Path
) -> None:
    bare = cut(tmp_path / "bare" / "primary.onnx", {"output-0": "probabilities"})
    more = ", names: {probabilities: output-0}, encoder: encoder.onnx"
    with mlserver(bare, tmp_path / "mlserver") as one:
        folder = letters(tmp_path, (LOCAL, elsewhere(one.http, more)), FULL_RATE)
        (folder / "primary.onnx").unlink()
        cut(folder / "encoder.onnx", {"features": "features", "logits": "logits"})
        calibrate(Deployment.read(folder), data)
        rows = clean_rows(40), outlier_rows(10)
        found = decided(folder, *rows)
        assert by_outcome(found) == by_outcome(decided(calibrated, *rows))
    encoder = onnx.load(folder / "encoder.onnx")
    encoder.doc_string = "another file"
    onnx.save(encoder, folder / "encoder.onnx")
    assert [problem.field for problem in refused(folder)] == ["digests.models.primary"]


def test_what_is_stored_is_bound_by_the_certificate(folder: Path, server: MLServer) -> None:
    path = folder / "upstreams.json"
    held = orjson.loads(path.read_bytes())
    other = held["upstreams"]["primary"]
    other["answers"], other["probes"] = other["answers"], other["probes"].replace("A", "B", 1)
    path.write_bytes(orjson.dumps(held))
    (problem,) = refused(folder)
    assert problem.file == str(path) or problem.field == "digests.models.primary"
    path.unlink()
    (problem,) = refused(folder)
    assert (problem.file, problem.what) == (str(path), "is missing: run `gateway calibrate`")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (", names: {probabilities: output-0}", "'output-0' is neither"),
        (", token_env: NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE holds no token"),
    ],
)
def test_a_mismatch_with_the_server_is_reported_with_its_line(
    tmp_path: Path, server: MLServer, data: Path, more: str, told: str
) -> None:
    folder = letters(tmp_path, (LOCAL, elsewhere(server.http, more)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(PolicyError) as caught:
        calibrate(Deployment.read(folder), data)
    (problem,) = caught.value.problems
    assert told in problem.what and problem.field.startswith("rungs[0].model")
    assert "kind: oip" in (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_server_that_is_not_there_cannot_be_calibrated(tmp_path: Path, data: Path) -> None:
    folder = letters(tmp_path, (LOCAL, elsewhere(f"http://127.0.0.1:{free_port()}")))
    with pytest.raises(PolicyError, match="cannot be calibrated"):
        calibrate(Deployment.read(folder), data)
