"""Server reflection, as grpcurl and its like use it: both versions, several questions a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.grpc.reflection import MAX_QUESTIONS, METHODS
from tests.support.data_planes import PlaneFixture, whole_plane
from tests.support.grpc_client import SERVICE, GrpcClient, grpc_client

Question = reflection_pb2.ServerReflectionRequest


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


async def ask(client: GrpcClient, method: str, questions: Sequence[Any]) -> list[Any]:
    sent = [one if isinstance(one, bytes) else one.SerializeToString() for one in questions]
    call = client.channel.stream_stream(method)(iter(sent), metadata=client.metadata(()), timeout=20)
    return [reflection_pb2.ServerReflectionResponse.FromString(raw) async for raw in call]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_services_and_the_files_that_describe_them_are_found(plane: PlaneFixture, method: str) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            listed, of_infer, unknown = await ask(
                client,
                method,
                [
                    Question(list_services=""),
                    Question(file_containing_symbol=SERVICE),
                    Question(file_containing_symbol="no.such.Service"),
                ],
            )
            names = {one.name for one in listed.list_services_response.service}
            assert {SERVICE, "grpc.health.v1.Health"} < names
            for name in names:
                [found] = await ask(client, method, [Question(file_containing_symbol=name)])
                assert found.file_descriptor_response.file_descriptor_proto, name
            [raw, *_] = of_infer.file_descriptor_response.file_descriptor_proto
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
            assert "ModelInfer" in {method.name for method in file.service[0].method}
            assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

    plane.run(main)


@pytest.mark.parametrize("key", ["no such key", "reader"])
def test_it_takes_a_key_for_metadata(plane: PlaneFixture, key: str) -> None:
    async def main() -> None:
        async with grpc_client(plane, key) as client:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await ask(client, min(METHODS), [Question(list_services="")])
            trailers = dict(ended.value.trailing_metadata() or ())
            expected = (
                ("PERMISSION_DENIED", "forbidden")
                if key == "reader"
                else ("UNAUTHENTICATED", "unauthenticated")
            )
            assert (ended.value.code().name, trailers["x-failsafe-reason"]) == expected

    plane.run(main)


def test_what_is_no_question_or_too_many_end_the_call(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            for questions in (
                [b"\xff\xff"],
                [Question(list_services="")] * (MAX_QUESTIONS + 1),
                [b"x" * 100_000],
            ):
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await ask(client, min(METHODS), questions)
                assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert len(await ask(client, min(METHODS), [])) == 0

    plane.run(main)
