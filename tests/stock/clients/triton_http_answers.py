"""Every way in which tritonclient can ask for inference over HTTP; all must give the model's own bits."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from cases import Case, Target, answered, hold, same, same_bits, same_classes, settle
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

SENT = ("json", "binary")
WANTED = ("json", "binary", "unspecified", "top3-json", "top3-binary")
PACKED = (None, "gzip", "deflate")
TOP = 3
PLENTY_US = 5_000_000
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def given(on: Target, x: np.ndarray, sent: str = "binary") -> list[InferInput]:
    tensor = InferInput(on.input, list(x.shape), "FP32")
    return [tensor.set_data_from_numpy(x, binary_data=sent == "binary")]


def wanted_of(on: Target, wanted: str) -> list[InferRequestedOutput] | None:
    if wanted == "unspecified":
        return None
    top = TOP if wanted.startswith("top") else 0
    return [InferRequestedOutput(on.output, binary_data=wanted.endswith("binary"), class_count=top)]


async def asks(client: Any, on: Target, *, sent: str, wanted: str, rows: int, **more: Any) -> None:
    """One inference, and everything that its answer must be."""
    more = {"headers": on.auth, **more}
    result = await settle(
        client.infer(on.model, given(on, on.rows[:rows], sent), outputs=wanted_of(on, wanted), **more)
    )
    holds(result, on, wanted, rows, more.get("request_id", ""))


def holds(result: Any, on: Target, wanted: str, rows: int, id_: str = "") -> None:
    reply, got = result.get_response(), result.as_numpy(on.output)
    same("model", (reply["model_name"], reply["model_version"]), (on.model, on.version))
    same("id", reply.get("id", ""), id_)
    answered(reply["parameters"])
    binary = "binary_data_size" in reply["outputs"][0].get("parameters", {})
    same("binary", binary, wanted.endswith("binary") or wanted == "unspecified")
    if wanted.startswith("top"):
        same_classes(got, on.expected[:rows], on.labels, TOP)
    else:
        same_bits(got, on.expected[:rows])


def grid(client: Any, on: Target) -> Iterator[Case]:
    """Formats, compressions, sizes, ids and versions, each with each."""
    every = product(SENT, WANTED, PACKED, PACKED, (1, 32), ("", "id-7"), ("", on.version))
    for sent, wanted, packed, unpacked, rows, id_, version in every:
        name = (
            f"infer {sent} to {wanted}, {packed} to {unpacked}, {rows} rows, id {id_!r}, version {version!r}"
        )
        yield (
            name,
            partial(
                asks,
                client,
                on,
                sent=sent,
                wanted=wanted,
                rows=rows,
                request_id=id_,
                model_version=version,
                request_compression_algorithm=packed,
                response_compression_algorithm=unpacked,
            ),
        )


def extras(client: Any, on: Target) -> Iterator[Case]:
    """What may come along: queries, headers, priorities, timeouts, parameters, both ways to send a key."""
    queries = (None, {"a": [1, 2], "b c": "x&y"})
    headers: tuple[dict[str, str], ...] = (
        {},
        {"X-Unknown": "1", "Content-Type": "text/plain", "Accept": "*/*"},
    )
    keys = ({"x-api-key": on.key}, {"Authorization": f"Bearer {on.key}"})
    parameters = (None, {"text": "a", "number": 3, "real": 1.5, "truth": True})
    every = product(SENT, queries, headers, keys, (0, 1), (None, PLENTY_US), parameters)
    for sent, query, header, key, priority, timeout, parameter in every:
        description = (
            f"query {bool(query)}, headers {bool(header)}, {min(key)}, priority {priority}, timeout {timeout}"
        )
        case = partial(
            with_extras,
            client,
            on,
            sent,
            {**header, **key},
            query_params=query,
            priority=priority,
            timeout=timeout,
            parameters=parameter,
        )
        yield f"infer {sent}, {description}, parameters {bool(parameter)}", case


async def with_extras(client: Any, on: Target, sent: str, headers: dict[str, str], **more: Any) -> None:
    await asks(client, on, sent=sent, wanted="unspecified", rows=1, headers=dict(headers), **more)


def plain(on: Target) -> Iterator[Case]:
    """Bodies that the client makes and reads, on connections of the standard library."""
    for rows in (1, 32):
        yield f"a raw request of {rows} rows", partial(raw, on, rows)
    for id_ in (None, "", "id-7", "\N{SNOWMAN}"):
        yield f"the id {id_!r} comes back as it was sent", partial(with_id, on, id_)
    yield "a base path before v2", partial(under_base_path, on)
    for asked, packed in ASKED.items():
        yield (
            f"Accept-Encoding {asked!r} gives {packed or 'a plain body'}",
            partial(accepts, on, asked, packed),
        )


ASKED: dict[str | None, str | None] = {
    None: None,
    "": None,
    "identity": None,
    "gzip": "gzip",
    "deflate": "deflate",
    "GZIP": "gzip",
    "br": None,
    "gzip;q=0": None,
    "gzip;q=0, deflate": "deflate",
    "br, deflate": "deflate",
}


def post(on: Target, body: bytes, length: int | None, headers: dict[str, str]) -> tuple[Any, bytes]:
    connection = http.client.HTTPConnection(on.http, timeout=10)
    sent = {**on.auth, **headers}
    if length is not None:
        sent["Inference-Header-Content-Length"] = str(length)
    connection.putrequest("POST", f"/v2/models/{on.model}/infer", skip_accept_encoding=True)
    for name, value in {**sent, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response, data


def read(response: Any, body: bytes) -> Any:
    hold(response.status == 200, f"{response.status}: {body[:200]!r}")
    length, packed = response.headers["Inference-Header-Content-Length"], response.headers["Content-Encoding"]
    return InferenceServerClient.parse_response_body(
        body, header_length=None if length is None else int(length), content_encoding=packed
    )


async def raw(on: Target, rows: int) -> None:
    holds(read(*post(on, on.rows[:rows].tobytes(), 0, {})), on, "binary", rows)


async def under_base_path(on: Target) -> None:
    client = InferenceServerClient(f"{on.http}{on.base_path}", network_timeout=10)
    await asks(client, on, sent="binary", wanted="binary", rows=1)


async def with_id(on: Target, id_: str | None) -> None:
    document: dict[str, Any] = {
        "inputs": [
            {
                "name": on.input,
                "datatype": "FP32",
                "shape": list(on.rows[:1].shape),
                "data": on.rows[:1].ravel().tolist(),
            }
        ]
    }
    if id_ is not None:
        document["id"] = id_
    response, body = post(on, json.dumps(document).encode(), None, {})
    reply = read(response, body).get_response()
    same("id", reply.get("id"), id_)


async def accepts(on: Target, asked: str | None, packed: str | None) -> None:
    body, length = InferenceServerClient.generate_request_body(
        given(on, on.rows), outputs=wanted_of(on, "json")
    )
    response, data = post(on, body, length, {} if asked is None else {"Accept-Encoding": asked})
    same("Content-Encoding", response.headers["Content-Encoding"], packed)
    holds(read(response, data), on, "json", len(on.rows))
    if packed:
        same("Content-Length", int(response.headers["Content-Length"]), len(data))
        hold(len(data) < len(UNPACK[packed](data)), "compressed, but not smaller")
