"""Upstreams over HTTP: good answers are read, and any bad one is an error and nothing worse."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from fallbacks.oip.client import UpstreamClient, connect
from fallbacks.oip.description import ModelDescription
from fallbacks.oip.errors import EXCERPT, UnexpectedAnswer, UpstreamFailed, UpstreamUnreachable
from fallbacks.oip.tensors import max_answer_bytes
from tests.support.oip_server import MODEL, SPEC, Handler, OipServer, ReceivedRequest, oip_server, send

X = np.array([[1, 2], [3, 4], [5, 0.1]], np.float32)
LIKE = ModelDescription.parse([("x", "FP32", [-1, 2])], [("y", "FP32", [-1, 2])])
Changes = dict[str, Any]


def output(asked: ReceivedRequest, **changes: Any) -> Changes:
    """The honest output to JSON, twice the input, with some fields changed."""
    one = asked.document["inputs"][0]
    output = {"name": "y", "datatype": "FP32", "shape": one["shape"], "data": [2 * v for v in one["data"]]}
    return output | changes


def with_output(**changes: Any) -> Handler:
    async def answer(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await send(writer, {"id": asked.document["id"], "outputs": [output(asked, **changes)]})

    return answer


honest = with_output()


async def honest_binary(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    size = int(asked.headers["inference-header-content-length"])
    y = (2 * np.frombuffer(asked.body[size:], "<f4")).tobytes()
    output = {
        **SPEC[0],
        "shape": asked.document["inputs"][0]["shape"],
        "parameters": {"binary_data_size": len(y)},
    }
    await send_binary(writer, [output], y)


async def send_binary(writer: asyncio.StreamWriter, outputs: list[Changes], tail: bytes) -> None:
    head = orjson.dumps({"outputs": outputs})
    await send(writer, head + tail, Inference_Header_Content_Length=str(len(head)))


def sends(content: Any, status: str = "200 OK", **headers: str) -> Handler:
    async def answer(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await send(writer, content, status, **headers)

    return answer


@asynccontextmanager
async def asking(
    infer: Handler, *extensions: str, token: str | None = None
) -> AsyncIterator[tuple[OipServer, UpstreamClient]]:
    async with oip_server(infer, extensions) as server:
        client = connect(replace(server.remote, token=token), max_answer_bytes(LIKE.outputs, len(X)))
        try:
            yield server, client
        finally:
            await client.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_it_is_described_by_its_metadata() -> None:
    async def main() -> None:
        async with asking(honest) as (server, client):
            assert await client.describe(5) == LIKE
            assert server.asked[0].path == f"/v2/models/{MODEL}"

    run(main)


def test_a_json_request_has_an_id_a_content_type_and_the_time_that_is_left() -> None:
    async def main() -> None:
        async with asking(honest, token="sesame") as (server, client):
            answer = await client.infer({"x": X}, LIKE, 5)
            assert answer["y"].tobytes() == (2 * X).tobytes()
            (asked,) = server.infer_requests
            assert asked.headers["content-type"] == "application/json"
            assert asked.headers["authorization"] == "Bearer sesame"
            assert asked.document["id"]
            assert 4_000_000 < asked.document["parameters"]["timeout"] <= 5_000_000
            assert asked.document["outputs"] == [{"name": "y"}]

    run(main)


def test_one_connection_serves_many_calls() -> None:
    async def main() -> None:
        async with asking(honest) as (server, client):
            for _ in range(5):
                await client.infer({"x": X}, LIKE, 5)
            assert not server.left.is_set()
            assert [one.document["id"] for one in server.infer_requests] == ["1", "2", "3", "4", "5"]

    run(main)


@pytest.mark.parametrize("extension", ["binary_tensor_data", "binary_data_extension"])
def test_requests_are_binary_where_the_server_lists_the_extension(extension: str) -> None:
    async def main() -> None:
        async with asking(honest_binary, extension) as (server, client):
            answer = await client.infer({"x": X}, LIKE, 5)
            assert answer["y"].tobytes() == (2 * X).tobytes()
            (asked,) = server.infer_requests
            assert asked.binary
            assert asked.document["inputs"][0]["parameters"] == {"binary_data_size": X.nbytes}
            assert asked.document["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]

    run(main)


@pytest.mark.parametrize("server", [b"<html>", None])
def test_a_server_without_metadata_gets_json(server: bytes | None) -> None:
    async def main() -> None:
        async with asking(honest) as (one, client):
            one.about = server
            for _ in range(2):
                await client.infer({"x": X}, LIKE, 5)
            assert [asked.binary for asked in one.infer_requests] == [False, False]
            assert [asked.path for asked in one.asked].count("/v2") == 1

    run(main)


@pytest.mark.parametrize("status", ["400 Bad Request", "415 Unsupported", "422 Unprocessable"])
def test_a_server_that_refuses_binary_gets_json_from_then_on(status: str) -> None:
    async def infer(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (send(writer, {"error": "what?"}, status) if asked.binary else honest(asked, writer))

    async def main() -> None:
        async with asking(infer, "binary_tensor_data") as (server, client):
            for _ in range(3):
                assert (await client.infer({"x": X}, LIKE, 5))["y"][0, 0] == 2
            assert [one.binary for one in server.infer_requests] == [True, False, False, False]

    run(main)


def test_a_refusal_after_an_answered_binary_request_is_not_repeated_as_json() -> None:
    moods = iter([True, False, False])

    async def infer(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (honest_binary(asked, writer) if next(moods) else send(writer, {}, "422 Unprocessable"))

    async def main() -> None:
        async with asking(infer, "binary_tensor_data") as (server, client):
            await client.infer({"x": X}, LIKE, 5)
            with pytest.raises(UpstreamFailed, match="422"):
                await client.infer({"x": X}, LIKE, 5)
            assert len(server.infer_requests) == 2

    run(main)


def test_half_precision_needs_binary() -> None:
    like = ModelDescription.parse([("x", "FP32", [-1, 2])], [("y", "FP16", [-1, 2])])

    async def main() -> None:
        async with asking(honest) as (server, client):
            with pytest.raises(ValueError, match=r"FP16 travels as binary only: use grpc://"):
                await client.infer({"x": X}, like, 5)
            assert not server.infer_requests

    run(main)


N = 2 * len(X)
WRONG: dict[str, Handler] = {
    "too few numbers": with_output(data=[1.0] * (N - 1)),
    "too many numbers": with_output(data=[1.0] * (N + 1)),
    "another datatype": with_output(datatype="FP64"),
    "another row count": with_output(shape=[2, 2], data=[1.0] * 4),
    "another width": with_output(shape=[3, 3], data=[1.0] * 9),
    "another rank": with_output(shape=[6]),
    "a negative size": with_output(shape=[-3, -2]),
    "a size that is true": with_output(shape=[3, True]),
    "no shape": with_output(shape=None),
    "text": with_output(data=["1"] * N),
    "booleans": with_output(data=[True] * N),
    "nested too deep": with_output(data=[[[1.0, 2.0]]] * 3),
    "no data at all": with_output(data=None),
    "another name": with_output(name="z"),
    "a bare NaN": sends(b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [3, 2], "data": [NaN]}]}'),
    "no outputs": sends({"outputs": []}),
    "outputs that are none": sends({"outputs": [1]}),
    "a list": sends([]),
    "a text": sends(b"<html>hello</html>"),
    "nothing": sends(b""),
    "deep nesting": sends(b"[" * 100_000),
    "a header longer than all": sends({"outputs": []}, Inference_Header_Content_Length="1000000"),
    "a header that is no length": sends({"outputs": []}, Inference_Header_Content_Length="-1"),
    "a header of endless digits": sends({"outputs": []}, Inference_Header_Content_Length="9" * 5000),
}


async def crossed(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    await send(writer, {"id": "77", "outputs": [output(asked)]})


async def encoded(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    await send(writer, {"outputs": [output(asked)]}, Content_Encoding="gzip")


async def twice(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    await send(writer, {"outputs": [output(asked)] * 2})


WRONG |= {"another request's answer": crossed, "an encoding": encoded, "an output twice": twice}


def binary_of(size: Any, tail: bytes, **changes: Any) -> Handler:
    async def answer(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        output = {**SPEC[0], "shape": [3, 2], "parameters": {"binary_data_size": size}, **changes}
        await send_binary(writer, [output], tail)

    return answer


WRONG |= {
    "too few bytes": binary_of(20, bytes(20)),
    "bytes left over": binary_of(24, bytes(28)),
    "bytes that are missing": binary_of(24, bytes(20)),
    "a size below nothing": binary_of(-24, bytes(24)),
    "a size that is text": binary_of("24", bytes(24)),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_an_unexpected_answer_is_an_error_and_the_next_call_succeeds(answer: Handler) -> None:
    moods = iter([answer, honest])

    async def main() -> None:
        async with asking(lambda asked, writer: next(moods)(asked, writer)) as (_, client):
            with pytest.raises(UnexpectedAnswer):
                await client.infer({"x": X}, LIKE, 5)
            assert (await client.infer({"x": X}, LIKE, 5))["y"].tobytes() == (2 * X).tobytes()

    run(main)


def test_a_null_is_a_nan() -> None:
    async def main() -> None:
        async with asking(with_output(data=[None, *[1.0] * (N - 1)])) as (_, client):
            y = (await client.infer({"x": X}, LIKE, 5))["y"]
            assert np.isnan(y[0, 0]) and np.isfinite(y[1:]).all()

    run(main)


def test_outputs_that_were_not_requested_are_skipped() -> None:
    async def infer(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        y = struct.pack("<6f", *range(6))
        text = {"name": "label", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": 9}}
        output = {**SPEC[0], "shape": [3, 2], "parameters": {"binary_data_size": len(y)}}
        await send_binary(writer, [text, output], bytes(9) + y)

    async def main() -> None:
        async with asking(infer) as (_, client):
            assert (await client.infer({"x": X}, LIKE, 5))["y"].ravel().tolist() == [0, 1, 2, 3, 4, 5]

    run(main)


async def endless(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


def test_an_answer_that_never_ends_is_cut_at_what_the_outputs_can_need() -> None:
    async def main() -> None:
        async with asking(endless) as (server, client):
            with pytest.raises(UnexpectedAnswer, match=f"over the {max_answer_bytes(LIKE.outputs, 3)} bytes"):
                await client.infer({"x": X}, LIKE, 5)
            await asyncio.wait_for(server.left.wait(), 5)

    run(main)


REDIRECT = {"Location": "http://127.0.0.1:1/v2/models/doubles/infer"}
REFUSING: dict[str, tuple[Handler, type[Exception], str]] = {
    "a page": (sends(b"<html>\n\x1b[31moops</html>" * 999, "500 Oops"), UpstreamFailed, "500: <html>"),
    "a redirect": (sends(b"", "307 Elsewhere", **REDIRECT), UpstreamFailed, "307"),
    "no content": (sends(b"", "204 Nothing"), UpstreamFailed, "204"),
    "accepted": (sends({}, "202 Accepted"), UpstreamFailed, "202"),
    "an error": (sends({"error": "no such model"}, "404 Not Found"), UpstreamFailed, "no such model"),
    "a proxy without a server": (sends(b"", "502 Bad Gateway"), UpstreamUnreachable, "502"),
    "not ready": (sends(b"", "503 Unavailable"), UpstreamUnreachable, "503"),
}


@pytest.mark.parametrize(("answer", "kind", "shown"), REFUSING.values(), ids=REFUSING)
def test_any_other_status_is_an_error_with_the_beginning_of_its_body(
    answer: Handler, kind: type[Exception], shown: str
) -> None:
    async def main() -> None:
        async with asking(answer, token="sesame") as (server, client):
            with pytest.raises(kind) as caught:
                await client.infer({"x": X}, LIKE, 5)
            said = str(caught.value)
            assert shown in said and said.isprintable() and "sesame" not in said
            assert len(said) <= len(f"{server.remote}: 000: ") + EXCERPT
            assert len(server.infer_requests) == 1

    run(main)


async def silent(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def dripping(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:  # never silent for long, and never done
        writer.write(b" ")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_timeout_ends_the_call_and_its_connection(answer: Handler) -> None:
    async def main() -> None:
        async with asking(answer) as (server, client):
            start_s = time.monotonic()
            with pytest.raises(TimeoutError):
                await client.infer({"x": X}, LIKE, 0.2)
            assert 0.15 < time.monotonic() - start_s < 2
            await asyncio.wait_for(server.left.wait(), 5)

    run(main)


def test_a_cancelled_call_is_cancelled_at_the_server_too() -> None:
    async def main() -> None:
        async with asking(silent) as (server, client):
            call = asyncio.create_task(client.infer({"x": X}, LIKE, 60))
            await asyncio.wait_for(server.infers.wait(), 5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(server.left.wait(), 5)

    run(main)


async def drop_connections(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    raise ConnectionResetError


def test_a_refused_or_broken_connection_is_unreachable() -> None:
    async def main() -> None:
        async with asking(drop_connections) as (server, client):
            with pytest.raises(UpstreamUnreachable):
                await client.infer({"x": X}, LIKE, 5)
            gone = server.remote
        client = connect(gone)
        with pytest.raises(UpstreamUnreachable):
            await client.describe(5)
        await client.close()

    run(main)
