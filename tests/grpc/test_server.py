"""The data plane over gRPC: requests end as over HTTP, with gRPC status codes and trailers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import onnxruntime
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2

from fallbacks.oip import open_inference_pb2 as pb
from gateway.access.callers import add_key
from gateway.deployment.deployment import VAR
from gateway.grpc import server as server
from gateway.serving.review_answers import answer_unsure, answer_with_label
from tests.support.data_planes import PlaneFixture, mixed, plane_of, whole_plane
from tests.support.data_planes import request_of as json_request
from tests.support.deployments import FULL_RATE, Hangs, Raises, key_for, letters
from tests.support.grpc_client import (
    INFER,
    ROW_OUTCOME,
    SERVICE,
    GrpcClient,
    grpc_client,
    request_of,
    result_of,
)

CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_a_trusted_caller_gets_the_models_answer_bit_for_bit(plane: PlaneFixture, raw: bool) -> None:
    session = onnxruntime.InferenceSession(plane.gateway.folder / "primary.onnx")

    async def main() -> None:
        async with grpc_client(plane) as client:
            for i in range(10):
                x = plane.good[i : i + 1]
                result = await client.infer(x, raw, id=f"n{i}")
                assert result.outcome == ("OK", "served", "ok", "primary")
                assert bool(result.response.raw_output_contents) is raw
                exact = session.run(["probabilities"], {"attributes": x})[0]
                assert result.tensor().tobytes() == exact.tobytes()
                assert result.response.id == f"n{i}"

    plane.run(main)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_a_client_that_takes_partial_answers_gets_the_rows_and_how_each_ended(
    plane: PlaneFixture, raw: bool
) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            result = await client.infer(mixed(plane), raw, outputs=["probabilities", ROW_OUTCOME])
            assert result.outcome == ("OK", "deferred", "abstained", "primary,review")
            response, shown = result.response, result.tensor()
            assert np.isnan(shown[1]).all()
            assert np.isfinite(shown[[0, 2]]).all()
            ends = [b"served", b"deferred", b"served"]
            held = response.raw_output_contents[1] if raw else response.outputs[1].contents.bytes_contents
            assert held == (b"".join(len(e).to_bytes(4, "little") + e for e in ends) if raw else ends)
            assert result.trailers["x-failsafe-review-urls"].startswith("/reviews/")

    plane.run(main)


@pytest.mark.parametrize("coding", ["NoCompression", "Gzip", "Deflate"])
def test_a_message_may_come_compressed_and_the_answer_is_not(plane: PlaneFixture, coding: str) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            x = np.repeat(plane.good[:1], 20, axis=0)
            result = await client(INFER, request_of(x), compression=getattr(grpc.Compression, coding))
            assert result.outcome == ("OK", "served", "ok", "primary")
            assert result.tensor().shape == (20, 26)

    plane.run(main)


def test_the_metadata_is_the_same_over_http_and_grpc(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:

            async def document(method: str, **members: str) -> Any:
                kind = getattr(pb, f"{method}Request")(**members)
                reply = await client(f"/{SERVICE}/{method}", kind)
                assert reply.code == "OK", reply
                response = getattr(pb, f"{method}Response").FromString(reply.message or b"")
                return MessageToDict(response, preserving_proto_field_name=True)

            assert await document("ServerMetadata") == (await plane.ada.get("/v2")).json
            assert await document("ServerLive") == {"live": True}
            assert await document("ServerReady") == {"ready": True}
            assert await document("ModelReady", name="letters") == {"ready": True}
            about = (await plane.ada.get("/v2/models/letters")).json
            assert about.pop("parameters") == {
                "withheld_rows": "refuse_request"
            }  # no member for it over gRPC
            about["inputs"][0]["shape"] = ["-1", "16"]  # protobuf's JSON writes 64 bits as text
            about["outputs"][0]["shape"] = ["-1", "26"]
            assert await document("ModelMetadata", name="letters", version="1") == about
            config = (await document("ModelConfig", name="letters"))["config"]
            assert config["max_batch_size"] == 128
            assert config["input"][0]["dims"] == ["16"]
            stats = (await plane.ada.get("/v2/models/letters/stats")).json["model_stats"][0]
            (counted,) = (await document("ModelStatistics", name="letters"))["model_stats"]
            assert int(counted["inference_count"]) == stats["inference_count"] > 0
            (listed,) = (await document("RepositoryIndex"))["models"]
            assert listed == {"name": "letters", "version": "1", "state": "READY"}

    plane.run(main)


# ---------------------------------------------------------------- one table for HTTP and gRPC


class Case(NamedTuple):
    """A request and how it ends over both protocols. key: itself or its caller; rows: of the fixture."""

    http: int
    grpc: str
    outcome: str
    reason: str
    by: str
    key: str | None = "ada"
    rows: str = "good"
    broken: tuple[Any, ...] = ()
    review: bool = True
    model: str = "letters"
    version: str = ""
    timeout_us: int = 0


CASES = {
    "served": Case(200, "OK", "served", "ok", "primary"),
    "degraded": Case(200, "OK", "degraded", "unavailable", "small", rows="easy", broken=(Raises(),)),
    "deferred": Case(422, "FAILED_PRECONDITION", "deferred", "abstained", "review", rows="strange"),
    "no review": Case(
        422, "FAILED_PRECONDITION", "refused", "abstained", "none", rows="strange", review=False
    ),
    "stopped": Case(
        503,
        "RESOURCE_EXHAUSTED",
        "refused",
        "unavailable",
        "none",
        broken=(Raises(), Raises()),
        review=False,
    ),
    "deadline": Case(504, "DEADLINE_EXCEEDED", "refused", "deadline", "none", timeout_us=1),
    "wrong key": Case(401, "UNAUTHENTICATED", "refused", "unauthenticated", "none", key="wrong"),
    "no scope": Case(403, "PERMISSION_DENIED", "refused", "forbidden", "none", key="reader"),
    "unknown model": Case(404, "NOT_FOUND", "refused", "not_found", "none", model="fashion"),
    "unknown version": Case(404, "NOT_FOUND", "refused", "not_found", "none", version="9"),
    "invalid": Case(400, "INVALID_ARGUMENT", "refused", "invalid", "none", rows="narrow"),
    "too large": Case(413, "INVALID_ARGUMENT", "refused", "too_large", "none", rows="huge"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_request_ends_the_same_way_over_http_and_grpc(plane: PlaneFixture, case: Case) -> None:
    rows = {"narrow": plane.good[:1, :15], "huge": np.zeros((20_000, 16), np.float32)}
    x = rows[case.rows] if case.rows in rows else getattr(plane, case.rows)[:1]
    path = f"/v2/models/{case.model}{f'/versions/{case.version}' if case.version else ''}/infer"

    async def main() -> None:
        with ExitStack() as stack:
            if case.broken or not case.review:
                stack.enter_context(plane.spoiled(*case.broken, review=case.review))
            key = plane.keys.get(case.key or "", case.key)
            timeout: dict[str, Any] = {}
            if case.timeout_us:
                timeout["parameters"] = {"timeout": case.timeout_us}
            http = await plane.client(key).request("POST", path, json_request(x, **timeout)[0])
            assert http is not None
            parameters = http.parameters
            assert http.outcome == (case.http, case.outcome, case.reason)
            async with grpc_client(plane, case.key) as client:
                message = request_of(x, model_name=case.model, model_version=case.version)
                if case.timeout_us:
                    message.parameters["timeout"].int64_param = case.timeout_us
                reply = await client(INFER, message)
            assert reply.outcome == (case.grpc, case.outcome, case.reason, case.by)
            assert parameters["fs_served_by"] == case.by
            assert reply.trailers["x-failsafe-policy"] == parameters["fs_policy"]
            assert reply.trailers.get("retry-after") == http.headers.get("retry-after")
            if case.grpc != "OK" and case.reason not in ("too_large", "deferred"):
                assert reply.error.isascii()
            if case.outcome == "deferred":
                url = reply.trailers["x-failsafe-review-urls"]
                assert (await plane.ada.get(url)).json["state"] == "waiting"

    plane.run(main)


def test_a_key_beyond_its_rate_gets_retry_after(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane, "slow") as client:
            ends = [await client.infer(plane.good[:1]) for _ in range(4)]
            last = ends[-1]
            assert last.outcome == ("RESOURCE_EXHAUSTED", "refused", "rate_limited", "none")
            assert int(last.trailers["retry-after"]) >= 1

    plane.run(main)


def test_the_reviews_of_a_large_batch_fit_what_a_client_takes_of_trailers(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            result = await client.infer(np.repeat(plane.strange[:1], 128, axis=0))
            assert result.outcome == ("FAILED_PRECONDITION", "deferred", "abstained", "review")
            urls = result.trailers["x-failsafe-review-urls"].split(",")
            assert len(result.trailers["x-failsafe-review-urls"]) <= 4096
            assert 100 < len(urls) < 128
            id_ = result.trailers["x-failsafe-decision-id"]
            assert urls == [f"/reviews/{id_}.{i}" for i in range(len(urls))]

    plane.run(main)


def test_a_call_with_prefer_wait_gets_the_reviewers_answer(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            await plane.answer_all()
            call = asyncio.create_task(client.infer(plane.strange[:1], headers=[("prefer", "wait=10")]))
            await plane.answer(await plane.new_case(), answer_with_label(3))
            result = await call
            assert result.code == "OK"
            assert result.tensor().argmax() == 3

    plane.run(main)


def test_a_reviewer_who_is_not_sure_ends_the_call_as_an_abstention(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            await plane.answer_all()
            call = asyncio.create_task(client.infer(plane.strange[:1], headers=[("prefer", "wait=10")]))
            await plane.answer(await plane.new_case(), answer_unsure())
            result = await call
            assert result.code == "FAILED_PRECONDITION"
            assert result.outcome[1:3] == ("refused", "abstained")

    plane.run(main)


def test_a_clients_deadline_only_shortens(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            with plane.spoiled(Hangs(), Hangs(), review=False):
                start_s = time.perf_counter()
                result = await client(INFER, request_of(plane.good[:1]), timeout=0.2)
                assert result.code == "DEADLINE_EXCEEDED"
                assert time.perf_counter() - start_s < 2.0
                header = [("x-request-timeout-seconds", "0.1")]
                result = await client(INFER, request_of(plane.good[:1]), header)
                assert result.outcome == ("DEADLINE_EXCEEDED", "refused", "deadline", "none")
            assert (await client(INFER, request_of(plane.good[:1]), timeout=9999)).code == "OK"

    plane.run(main)


# ---------------------------------------------------------------- what there is not


@pytest.mark.parametrize(
    "method",
    [
        f"/{SERVICE}/{name}"
        for name in (
            "ModelStreamInfer",
            "SystemSharedMemoryRegister",
            "CudaSharedMemoryStatus",
            "TraceSetting",
            "LogSettings",
            "Nothing",
        )
    ]
    + ["/grpc.health.v1.Health/Watch", "/other.Service/Method"],
)
def test_a_method_that_is_not_served_is_unimplemented_and_the_server_stays_up(
    plane: PlaneFixture, method: str
) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            result = await client(method, b"\x0a\x01x")
            assert result.outcome == ("UNIMPLEMENTED", "refused", "unsupported", "none")
            stream = client.channel.stream_stream(method)(metadata=client.metadata(()))
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.read()
            assert ended.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert dict(ended.value.trailing_metadata())["x-failsafe-reason"] == "unsupported"
            assert (await client.infer(plane.good[:1])).code == "OK"

    plane.run(main)


def test_health_needs_no_key_and_knows_server_service_and_model(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane, "wrong") as client:
            for name in ("", SERVICE, "letters"):
                result = await client(CHECK, health_pb2.HealthCheckRequest(service=name))
                assert result.code == "OK"
                assert health_pb2.HealthCheckResponse.FromString(result.message or b"").status == 1
            result = await client(CHECK, health_pb2.HealthCheckRequest(service="other"))
            assert result.outcome == ("NOT_FOUND", "refused", "not_found", "none")
            result = await client(CHECK, b"\xff")
            assert result.outcome == ("INVALID_ARGUMENT", "refused", "invalid", "none")

    plane.run(main)


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_administration_is_forbidden_to_every_key(plane: PlaneFixture, method: str) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            result = await client(f"/{SERVICE}/{method}")
            assert result.outcome == ("PERMISSION_DENIED", "refused", "forbidden", "none")

    plane.run(main)


# ---------------------------------------------------------------- who does not play along


@pytest.mark.parametrize(
    ("key", "name", "code"),
    [
        ("wrong", "ModelInfer", "UNAUTHENTICATED"),
        ("reader", "ModelInfer", "PERMISSION_DENIED"),
        ("ada", "Nothing", "UNIMPLEMENTED"),
        ("wrong", "ServerLive", "OK"),
    ],
)
def test_a_refused_call_is_refused_before_its_message_is_read(
    plane: PlaneFixture, key: str, name: str, code: str
) -> None:
    async def main() -> None:
        async with grpc_client(plane, key) as client:
            call = client.channel.stream_unary(f"/{SERVICE}/{name}")(metadata=client.metadata(()))
            async with asyncio.timeout(2):
                assert (await result_of(call)).code == code

    plane.run(main)


def test_a_message_that_never_comes_ends_the_call(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_TIMEOUT_S", 0.1)

    async def main() -> None:
        async with grpc_client(plane) as client:
            call = client.channel.stream_unary(INFER)(metadata=client.metadata(()))
            result = await result_of(call)
            assert result.outcome == ("DEADLINE_EXCEEDED", "refused", "too_slow", "none")
            assert plane.gateway.in_flight.total == 0

    plane.run(main)


def test_a_call_without_a_message_is_invalid(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            call = client.channel.stream_unary(INFER)(iter(()), metadata=client.metadata(()))
            assert (await result_of(call)).outcome == ("INVALID_ARGUMENT", "refused", "invalid", "none")

    plane.run(main)


@pytest.mark.parametrize(
    ("limit", "reason"), [("limit_per_caller", "rate_limited"), ("limit", "unavailable")]
)
def test_calls_beyond_the_in_flight_limits_are_refused(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch, limit: str, reason: str
) -> None:
    monkeypatch.setattr(plane.gateway.in_flight, limit, 2)

    async def main() -> None:
        async with grpc_client(plane) as client:
            held = [client.channel.stream_unary(INFER)(metadata=client.metadata(())) for _ in range(2)]
            await wait_for_in_flight(plane, 2)
            result = await client.infer(plane.good[:1])
            assert result.outcome == ("RESOURCE_EXHAUSTED", "refused", reason, "none")
            assert result.trailers["retry-after"] == "1"
            for call in held:
                call.cancel()
            await wait_for_in_flight(plane, 0)
            assert (await client.infer(plane.good[:1])).code == "OK"

    plane.run(main)


async def wait_for_in_flight(plane: PlaneFixture, calls: int) -> None:
    """Returns when `calls` are in flight."""
    for _ in range(500):
        if plane.gateway.in_flight.total == calls:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{plane.gateway.in_flight.total} calls are in flight, not {calls}")


def test_a_call_whose_client_hangs_up_is_judged_recorded_and_keeps_its_slot_until_then(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            with plane.recorded() as seen, plane.spoiled(Hangs()):
                raw = request_of(plane.good[:1]).SerializeToString()
                call = client.channel.unary_unary(INFER)(raw, metadata=client.metadata(()))
                await wait_for_in_flight(plane, 1)
                await asyncio.sleep(0.1)
                call.cancel()
                await asyncio.sleep(0.1)
                assert (plane.gateway.in_flight.total, len(seen)) == (1, 0)
                await wait_for_in_flight(plane, 0)
                assert len(seen) == 1
            assert (await client.infer(plane.good[:1])).code == "OK"

    plane.run(main)


def test_a_defect_ends_as_unavailable_and_is_not_disclosed(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("secret of the inside")

    async def main() -> None:
        async with grpc_client(plane) as client:
            with monkeypatch.context() as patch:
                patch.setattr(plane.handler.plane, "judge", broken)
                result = await client.infer(plane.good[:1])
            assert result.outcome == ("RESOURCE_EXHAUSTED", "refused", "unavailable", "none")
            assert "secret" not in str(result)
            assert (await client.infer(plane.good[:1])).code == "OK"

    plane.run(main)


def test_odd_model_names_and_keys_are_refused_without_an_error(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            for name in ("\r\nx-evil: 1", "é☃", "x" * 5000, "\x00"):
                result = await client(INFER, request_of(plane.good[:1], model_name=name))
                assert result.outcome == ("NOT_FOUND", "refused", "not_found", "none")
                assert len(result.error) < 2000
            result = await GrpcClient(client.channel, client.target)(
                INFER,
                request_of(plane.good[:1]),
                [("authorization-bin", b"\xff")],  # type: ignore[list-item]
            )
            assert result.code == "OK"

    plane.run(main)


def test_a_stop_finishes_the_call_in_flight(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            with plane.spoiled(Hangs()):
                call = asyncio.create_task(client.infer(plane.easy[:1]))
                await wait_for_in_flight(plane, 1)
                assert client.stop is not None
                await client.stop(5.0)
            assert (await call).outcome == ("OK", "degraded", "unavailable", "small")

    plane.run(main)


def test_a_key_for_another_model_and_a_call_without_a_key_are_refused(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, ("anonymous: loopback", "anonymous: nobody"))
    scopes, models = frozenset({"infer"}), frozenset({"fashion"})
    other = add_key(folder / VAR, "other", tier="trusted", per_s=None, scopes=scopes, models=models)
    with plane_of(folder, ada=key_for(folder, "ada"), other=other) as plane:

        async def main() -> None:
            async with grpc_client(plane, None) as client:
                result = await client.infer(plane.good[:1])
                assert result.outcome == ("UNAUTHENTICATED", "refused", "unauthenticated", "none")
                assert (await client(f"/{SERVICE}/ServerLive")).code == "OK"
            assert (await plane.client(other).infer(plane.good[:1])).status == 403
            async with grpc_client(plane, "other") as client:
                result = await client.infer(plane.good[:1])
                assert result.outcome == ("PERMISSION_DENIED", "refused", "forbidden", "none")

        plane.run(main)
