"""Inference over HTTP that is well formed: rows of every kind, forms of requests, and request options."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

import numpy as np

from bench.same_answers.exchange import Exchange, HttpExchange
from bench.same_answers.exchanges.http_parts import (
    ADA,
    binary_body,
    binary_infer,
    infer_document,
    json_infer,
    json_tensor,
    post_infer,
)
from bench.same_answers.sampled_deployment import InputRows, SampledDeployment

SAMPLES, BINARY, OUTLIERS = 40, 12, 8
OUTPUT = "probabilities"
OUTPUTS = {
    "the output": [{"name": OUTPUT}],
    "in binary": [{"name": OUTPUT, "parameters": {"binary_data": True}}],
    "not in binary": [{"name": OUTPUT, "parameters": {"binary_data": False}}],
    "the best 3": [{"name": OUTPUT, "parameters": {"classification": 3}}],
    "the best 3 in binary": [{"name": OUTPUT, "parameters": {"classification": 3, "binary_data": True}}],
    "the best 1000": [{"name": OUTPUT, "parameters": {"classification": 1000}}],
    "how rows end": [{"name": "fs_row_outcome"}],
    "both": [{"name": OUTPUT}, {"name": "fs_row_outcome"}],
    "both in binary": [
        {"name": "fs_row_outcome", "parameters": {"binary_data": True}},
        {"name": OUTPUT, "parameters": {"binary_data": True}},
    ],
    "none": [],
}
PARAMETERS = (
    {"timeout": 9_000_000},
    {"timeout": 0},
    {"priority": 0},
    {"priority": 1},
    {"priority": 99},
    {"binary_data_output": True},
    {"binary_data_output": False},
    {"unknown": {"a": 1}},
    {"sequence_id": 7, "sequence_start": True},
)


def mixed(deployment: SampledDeployment) -> InputRows:
    """Three rows of which the middle one is deferred."""
    return np.concatenate([deployment.samples[:1], deployment.noise_rows[:1], deployment.samples[1:2]])


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Rows of both files one at a time, batches, and every form of a request."""
    for i in range(SAMPLES):
        yield HttpExchange(
            f"infer: sample {i}", (json_infer(deployment, deployment.samples[i : i + 1], ADA),)
        )
    for i in range(SAMPLES, SAMPLES + BINARY):
        yield HttpExchange(
            f"infer: sample {i} in binary", (binary_infer(deployment, deployment.samples[i : i + 1], ADA),)
        )
        yield HttpExchange(
            f"infer: sample {i}, anonymous", (json_infer(deployment, deployment.samples[i : i + 1]),)
        )
    for kind, rows in deployment.outliers.items():
        for i in range(OUTLIERS):
            yield HttpExchange(f"infer: {kind} {i}", (json_infer(deployment, rows[i : i + 1], ADA),))
    for count in (2, 3, 8, 31, 32, 33, 64, 127, 128, 129, 200):
        rows = deployment.samples[:count]
        yield HttpExchange(f"infer: {count} rows", (json_infer(deployment, rows, ADA, id=f"{count} rows"),))
        yield HttpExchange(f"infer: {count} rows in binary", (binary_infer(deployment, rows, ADA),))
    for key in ("bob", "limited", "reader", "watcher"):
        yield HttpExchange(
            f"infer: by {key}", (json_infer(deployment, deployment.row, f"x-api-key: <<key:{key}>>"),)
        )
    sent = json_infer(deployment, deployment.row, "x-api-key: <<key:slow>>")
    yield HttpExchange("infer: by a caller over its rate", (sent, sent, sent))
    yield from _outputs(deployment)
    yield from _parameters(deployment)
    yield from _codings(deployment)
    yield from _forms(deployment)


def _outputs(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Which outputs, how, of rows that end in one way and in several."""
    for name, outputs in OUTPUTS.items():
        for what, rows in (
            ("a row", deployment.row),
            ("mixed rows", mixed(deployment)),
            ("deferred rows", deployment.noise_rows[:2]),
        ):
            for who, key in (("ada", ADA), ("anonymous", "X-A: b")):
                yield HttpExchange(
                    f"outputs: {name} of {what} for {who}",
                    (json_infer(deployment, rows, key, outputs=outputs),),
                )
        sent = binary_infer(
            deployment, mixed(deployment), ADA, outputs=outputs, parameters={"binary_data_output": True}
        )
        yield HttpExchange(f"outputs: {name}, all in binary", (sent,))


def _parameters(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Parameters of a request, its id, and the header that shortens its deadline."""
    for parameters in PARAMETERS:
        yield HttpExchange(
            f"parameters: {parameters}", (json_infer(deployment, deployment.row, ADA, parameters=parameters),)
        )
    for identity in ("", "a", "\u00e9\u2603", "x" * 1000, '"\\\n', None):
        yield HttpExchange(
            f"id: {str(identity)[:10]!r}", (json_infer(deployment, deployment.row, ADA, id=identity),)
        )
        yield HttpExchange(
            f"id: {str(identity)[:10]!r}, deferred",
            (json_infer(deployment, deployment.noise_rows[:1], ADA, id=identity),),
        )
    for value in ("9", "1e3", "0", "-1", "soon", "", "nan", "inf", "1,5", "\xb2", "0x10", "1_0"):
        sent = json_infer(deployment, deployment.row, ADA, f"X-Request-Timeout-Seconds: {value}")
        yield HttpExchange(f"deadline: {value!r}", (sent,))


def _codings(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Bodies and replies in codings."""
    plain = json.dumps(infer_document(deployment, deployment.samples[:8])).encode()
    packed = {"gzip": gzip.compress(plain, mtime=0), "deflate": zlib.compress(plain), "identity": plain}
    for coding, body in packed.items():
        for stated in (coding, coding.upper(), f" {coding} "):
            yield HttpExchange(
                f"coding: {stated!r}", (post_infer(deployment, body, ADA, f"Content-Encoding: {stated}"),)
            )
    for stated in ("br", "gzip, gzip", "x-gzip", "", "gzip;q=1"):
        yield HttpExchange(
            f"coding: unknown {stated!r}",
            (post_infer(deployment, packed["gzip"], ADA, f"Content-Encoding: {stated}"),),
        )
    wrong = {
        "none": plain,
        "cut": packed["gzip"][:-3],
        "twice": packed["gzip"] * 2,
        "more": packed["gzip"] + b"x",
    }
    for name, body in wrong.items():
        for coding in ("gzip", "deflate"):
            yield HttpExchange(
                f"coding: {name} as {coding}",
                (post_infer(deployment, body, ADA, f"Content-Encoding: {coding}"),),
            )
    bomb = gzip.compress(bytes(2**25), mtime=0)
    yield HttpExchange(
        "coding: much more than it seems", (post_infer(deployment, bomb, ADA, "Content-Encoding: gzip"),)
    )
    body, length = binary_body(deployment, deployment.samples[:8])
    lines = (f"Inference-Header-Content-Length: {length}", "Content-Encoding: gzip", ADA)
    yield HttpExchange("coding: binary", (post_infer(deployment, gzip.compress(body, mtime=0), *lines),))
    for accept in (
        "gzip",
        "deflate",
        "gzip, deflate",
        "deflate;q=1, gzip;q=0.5",
        "*",
        "identity",
        "br",
        "gzip;q=0",
    ):
        for count in (1, deployment.max_rows):
            sent = json_infer(deployment, deployment.samples[:count], ADA, f"Accept-Encoding: {accept}")
            yield HttpExchange(f"coding: {count} rows, accepts {accept}", (sent,))


def _forms(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Other ways to write the same request: raw, nested, shuffled, with more than is read."""
    raw = "Inference-Header-Content-Length: 0"
    for count in (1, 3, deployment.max_rows, deployment.max_rows + 1):
        body = deployment.samples[:count].astype("<f4").tobytes()
        yield HttpExchange(f"raw: {count} rows", (post_infer(deployment, body, raw, ADA),))
        yield HttpExchange(f"raw: {count} rows and a byte", (post_infer(deployment, body + b"x", raw, ADA),))
    yield HttpExchange("raw: nothing", (post_infer(deployment, b"", raw, ADA),))
    nested = json_tensor(deployment, deployment.samples[:2]) | {
        "data": deployment.samples[:2].astype(float).tolist()
    }
    yield HttpExchange(
        "form: nested", (post_infer(deployment, json.dumps({"inputs": [nested]}).encode(), ADA),)
    )
    body = json.dumps(infer_document(deployment, deployment.row, extra=[1, {"a": None}], more="x")).encode()
    yield HttpExchange("form: more than is read", (post_infer(deployment, body, ADA),))
    yield HttpExchange("form: with white space", (post_infer(deployment, b" \r\n\t" + body + b"\n ", ADA),))
    for kind in ("text/plain", "application/octet-stream", "application/json; charset=utf-16", "nothing"):
        yield HttpExchange(f"form: as {kind}", (post_infer(deployment, body, ADA, f"Content-Type: {kind}"),))
    whole = np.rint(deployment.row)
    entry = json_tensor(deployment, whole) | {"data": [int(value) for value in whole.ravel()]}
    yield HttpExchange(
        "form: integers", (post_infer(deployment, json.dumps({"inputs": [entry]}).encode(), ADA),)
    )
