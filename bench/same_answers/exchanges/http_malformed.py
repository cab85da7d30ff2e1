"""Inference over HTTP that is malformed: every member replaced by every kind of value, and broken bodies."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from bench.same_answers.exchange import Exchange, HttpExchange
from bench.same_answers.exchanges.http_parts import ADA, binary_body, infer_document, json_tensor, post_infer
from bench.same_answers.sampled_deployment import SampledDeployment

SEED, MUTANTS = 7, 60
PLACES: tuple[tuple[str | int, ...], ...] = (
    ("id",),
    ("parameters",),
    ("parameters", "timeout"),
    ("parameters", "priority"),
    ("parameters", "binary_data_output"),
    ("inputs",),
    ("inputs", 0),
    ("inputs", 0, "name"),
    ("inputs", 0, "datatype"),
    ("inputs", 0, "shape"),
    ("inputs", 0, "shape", 0),
    ("inputs", 0, "shape", 1),
    ("inputs", 0, "data"),
    ("inputs", 0, "data", 3),
    ("inputs", 0, "parameters"),
    ("inputs", 0, "parameters", "binary_data_size"),
    ("inputs", 0, "parameters", "shared_memory_region"),
    ("outputs",),
    ("outputs", 0),
    ("outputs", 0, "name"),
    ("outputs", 0, "parameters"),
    ("outputs", 0, "parameters", "binary_data"),
    ("outputs", 0, "parameters", "classification"),
    ("more",),
)
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, 2**64, 1e39, "x", [], {}, [[1]], {"a": [{}]})
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" " * 100,
    "half an object": b"{",
    "a list": b"[]",
    "null": b"null",
    "no text": b'{"inputs": "\xff\xfe"}',
    "NaN": b'{"inputs": [{"data": [NaN]}]}',
    "infinity": b'{"inputs": [-Infinity]}',
    "beyond all floats": b'{"inputs": 1e999}',
    "a lone surrogate": b'{"id": "\\ud800"}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "the same key twice": b'{"inputs": [], "inputs": []}',
    "ten thousand inputs": json.dumps({"inputs": [{}] * 10_000}).encode(),
    "text after the end": b"{} {}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "XML": b"<inputs/>",
}


def full(deployment: SampledDeployment) -> dict[str, Any]:
    """A valid request that has every member."""
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False, "classification": 2}}]
    parameters = {"timeout": 9_000_000, "priority": 1, "binary_data_output": False}
    held = infer_document(deployment, deployment.row, id="a", parameters=parameters, outputs=outputs, more=1)
    held["inputs"][0]["parameters"] = {}
    return held


def put(held: Any, place: tuple[Any, ...], *value: Any) -> Any:
    """A copy with one place set to a value; without a value, the place is removed."""
    held = copy.deepcopy(held)
    owner = held
    for key in place[:-1]:
        owner = owner[key]
    if value:
        owner[place[-1]] = value[0]
    elif isinstance(owner, list) or place[-1] in owner:
        del owner[place[-1]]
    return held


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Replaced and removed members, bodies that are no request, broken binary data, and mutants."""
    held = full(deployment)
    for place in PLACES:
        at = ".".join(map(str, place))
        yield HttpExchange(f"malformed: without {at}", (_sent(deployment, put(held, place)),))
        for value in VALUES:
            yield HttpExchange(f"malformed: {at} is {value!r}", (_sent(deployment, put(held, place, value)),))
    for name, body in BODIES.items():
        yield HttpExchange(f"malformed: {name}", (post_infer(deployment, body, ADA),))
    yield from _tensors(deployment)
    yield from _binary(deployment)
    yield from _mutants(deployment)


def _sent(deployment: SampledDeployment, held: Any) -> bytes:
    return post_infer(deployment, json.dumps(held).encode(), ADA)


def _tensors(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Shapes and data that do not belong together."""
    good = json_tensor(deployment, deployment.row)
    data, shape = good["data"], good["shape"]
    changes: dict[str, dict[str, Any]] = {
        "one value less": {"data": data[1:]},
        "one value more": {"data": [*data, 0.0]},
        "a value above the range": {"data": [99.0, *data[1:]]},
        "a value below the range": {"data": [-99.0, *data[1:]]},
        "two rows announced": {"shape": [2, *shape[1:]]},
        "too many rows": {"shape": [deployment.max_rows + 1, *shape[1:]]},
        "no rows": {"shape": [0, *shape[1:]], "data": []},
        "another rank": {"shape": [1, *shape]},
        "a huge rank": {"shape": [1] * 5000},
        "a product that wraps": {"shape": [2**60 + 1, *shape[1:]]},
        "a long name": {"name": "x" * 100_000},
        "a name with NUL": {"name": deployment.input + "\0"},
        "almost the name": {"name": deployment.input[:-1]},
        "long texts as data": {"data": ["x" * 1000] * len(data)},
        "another datatype and shape": {"datatype": "INT8", "shape": [1]},
    }
    for name, change in changes.items():
        yield HttpExchange(f"malformed: {name}", (_sent(deployment, {"inputs": [good | change]}),))
    yield HttpExchange("malformed: the input twice", (_sent(deployment, {"inputs": [good, good]}),))
    yield HttpExchange(
        "malformed: one input more", (_sent(deployment, {"inputs": [good, good | {"name": "other"}]}),)
    )
    nine = {"id": 1, "parameters": [], "inputs": [{}] * 5, "outputs": [{"name": i} for i in range(9)]}
    yield HttpExchange("malformed: more problems than are shown", (_sent(deployment, nine),))


def _binary(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Binary data that does not fit what is announced."""
    body, length = binary_body(deployment, deployment.row)
    size = deployment.row.nbytes
    announced = b'"binary_data_size": %d' % size
    lengths = [
        "-1",
        "x",
        "",
        "1e3",
        "\xb2",
        "9" * 40,
        "999999",
        "+5",
        str(length - 5),
        str(length + 5),
        "1",
        "0",
    ]
    for value in lengths:
        yield HttpExchange(f"binary: length {value!r}", (_of_length(deployment, body, value),))
    bodies = {
        "a byte less": body[:-1],
        "a byte more": body + b"x",
        "no data": body[:length],
        "not a number": body[:length] + b"\xff" * size,
        "infinity": body[:length] + b"\x00\x00\x80\x7f" * (size // 4),
    }
    for name, changed in bodies.items():
        yield HttpExchange(f"binary: {name}", (_of_length(deployment, changed, str(length)),))
    for told in (b"0", b"-4", b"%d" % (size - 4), b"%d" % (size + 4), b"%d" % 2**63, b'"4"', b"null"):
        changed = body.replace(announced, b'"binary_data_size": ' + told)
        head = str(length + len(changed) - len(body))
        yield HttpExchange(f"binary: announces {told.decode()}", (_of_length(deployment, changed, head),))


def _of_length(deployment: SampledDeployment, body: bytes, length: str) -> bytes:
    return post_infer(deployment, body, f"Inference-Header-Content-Length: {length}", ADA)


def _mutants(deployment: SampledDeployment) -> Iterator[Exchange]:
    """A good body with a few bytes changed, cut or repeated: the same ones each time."""
    chance = random.Random(SEED)
    held = json.dumps(
        infer_document(deployment, deployment.row, id="a", outputs=[{"name": "probabilities"}])
    ).encode()
    for i in range(MUTANTS):
        body = bytearray(held)
        for _ in range(chance.randint(1, 3)):
            at = chance.choice((chance.randrange(80), chance.randrange(len(body)), len(body) - 30))
            match chance.randrange(3):
                case 0:
                    body[at] = chance.randrange(256)
                case 1:
                    del body[at : at + chance.randint(1, 5)]
                case _:
                    body[at:at] = body[at : at + chance.randint(1, 20)]
        yield HttpExchange(f"mutant {i}", (post_infer(deployment, bytes(body), ADA),))
