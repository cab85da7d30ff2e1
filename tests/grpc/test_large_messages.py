"""Large messages over gRPC end as small ones do, and a caller with too many invalid ones is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fallbacks.oip import open_inference_pb2 as pb
from gateway.access import metering
from gateway.access.metering import ParseMeter
from gateway.grpc.bounds import INLINE_BYTES, MAX_OTHER_BYTES, OUTLINE_FIELDS, outline_of
from tests.support.data_planes import PlaneFixture, whole_plane
from tests.support.grpc_client import INFER, SERVICE, grpc_client, request_of

LONG = "x" * (2 * INLINE_BYTES - 4096)
"""A parameter with which a message is parsed in the parser process."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made
        made.handler.plane.close()


def large(message: pb.ModelInferRequest) -> pb.ModelInferRequest:
    message.parameters["padding"].string_param = LONG
    assert outline_of(message.SerializeToString()).other_bytes > INLINE_BYTES
    return message


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_a_large_message_gets_the_answer_of_a_small_one(plane: PlaneFixture, raw: bool) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            x = np.repeat(plane.good[:1], 20, axis=0)
            got = await client(INFER, large(request_of(x, raw, id="n7")))
            expected = await client(INFER, request_of(x, raw, id="n7"))
            assert got.outcome == expected.outcome == ("OK", "served", "ok", "primary")
            assert got.tensor().tobytes() == expected.tensor().tobytes()
            assert got.response.id == "n7"

    plane.run(main)


def test_a_large_invalid_message_gets_the_error_of_a_small_one(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            message = request_of(plane.good[:2], raw=False)
            message.inputs[0].contents.fp32_contents.append(1.0)
            message.inputs.add(name="nothing")
            expected = await client(INFER, message)
            got = await client(INFER, large(message))
            assert got.outcome == expected.outcome == ("INVALID_ARGUMENT", "refused", "invalid", "none")
            assert got.error == expected.error

    plane.run(main)


@pytest.mark.parametrize("junk", [b"\xff" * INLINE_BYTES * 2, b"\x0a\xff\xff\xff\x7f" + b"x" * INLINE_BYTES])
def test_large_bytes_that_are_no_message_are_invalid(plane: PlaneFixture, junk: bytes) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            got = await client(INFER, junk)
            assert got.outcome == ("INVALID_ARGUMENT", "refused", "invalid", "none")
            assert "this is no ModelInferRequest" in got.error

    plane.run(main)


def test_a_model_that_is_named_again_behind_the_inputs_is_refused(plane: PlaneFixture) -> None:
    """Else the contract of one model would be held to a message for another."""
    fields = pb.ModelInferRequest(parameters={"p": pb.InferParameter()}).SerializeToString()
    tail = fields * OUTLINE_FIELDS + pb.ModelInferRequest(model_name="other").SerializeToString()

    async def main() -> None:
        async with grpc_client(plane) as client:
            got = await client(INFER, large(request_of(plane.good[:1])).SerializeToString() + tail)
            assert got.outcome == ("INVALID_ARGUMENT", "refused", "invalid", "none")
            assert "must stand before the inputs" in got.error

    plane.run(main)


def test_a_caller_with_too_many_invalid_messages_is_refused(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "INVALID_BURST_S", 0.005)
    monkeypatch.setattr(metering, "INVALID_LEAK", 1e-5)
    monkeypatch.setattr(plane.handler.plane, "meter", ParseMeter())

    async def main() -> None:
        async with grpc_client(plane) as client:
            ends = [(await client(INFER, request_of(plane.good[:1], model_name="letters", id="i"))).code]
            broken = request_of(plane.good[:1])
            broken.inputs[0].datatype = "INT8"
            ends += [(await client(INFER, broken)).code for _ in range(20)]
            assert ends[:2] == ["OK", "INVALID_ARGUMENT"]
            refused = await client(INFER, request_of(plane.good[:1]))
            assert refused.outcome == ("RESOURCE_EXHAUSTED", "refused", "rate_limited", "none")
            assert int(refused.trailers["retry-after"]) >= 1

    plane.run(main)


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", f"/{SERVICE}/ModelMetadata"])
def test_a_message_that_names_a_model_alone_may_not_be_large(plane: PlaneFixture, method: str) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            name = pb.ModelMetadataRequest(name="x" * MAX_OTHER_BYTES).SerializeToString()
            got = await client(method, name)
            assert (got.code, got.trailers["x-failsafe-reason"]) == ("INVALID_ARGUMENT", "too_large")

    plane.run(main)
