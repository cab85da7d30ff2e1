"""Inference over HTTP that is well formed: rows of every kind, forms of requests, and what may be asked."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

import numpy as np

from bench.same_answers.case import Case, Http
from bench.same_answers.cases.http_parts import (
    ADA,
    binary_body,
    binary_infer,
    document,
    infer,
    json_infer,
    tensor,
)
from bench.same_answers.deployment import Deployment, Rows

SAMPLES, BINARY, ODD = 40, 12, 8
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


def mixed(of: Deployment) -> Rows:
    """Three rows of which the middle one is deferred."""
    return np.concatenate([of.samples[:1], of.strange[:1], of.samples[1:2]])


def cases(of: Deployment) -> Iterator[Case]:
    """Rows of both files one at a time, batches, and every form of a request."""
    for i in range(SAMPLES):
        yield Http(f"infer: sample {i}", (json_infer(of, of.samples[i : i + 1], ADA),))
    for i in range(SAMPLES, SAMPLES + BINARY):
        yield Http(f"infer: sample {i} in binary", (binary_infer(of, of.samples[i : i + 1], ADA),))
        yield Http(f"infer: sample {i}, anonymous", (json_infer(of, of.samples[i : i + 1]),))
    for kind, rows in of.odd.items():
        for i in range(ODD):
            yield Http(f"infer: {kind} {i}", (json_infer(of, rows[i : i + 1], ADA),))
    for count in (2, 3, 8, 31, 32, 33, 64, 127, 128, 129, 200):
        rows = of.samples[:count]
        yield Http(f"infer: {count} rows", (json_infer(of, rows, ADA, id=f"{count} rows"),))
        yield Http(f"infer: {count} rows in binary", (binary_infer(of, rows, ADA),))
    for key in ("bob", "limited", "reader", "watcher"):
        yield Http(f"infer: by {key}", (json_infer(of, of.row, f"x-api-key: <<key:{key}>>"),))
    sent = json_infer(of, of.row, "x-api-key: <<key:slow>>")
    yield Http("infer: by a caller over its rate", (sent, sent, sent))
    yield from _outputs(of)
    yield from _parameters(of)
    yield from _codings(of)
    yield from _forms(of)


def _outputs(of: Deployment) -> Iterator[Case]:
    """Which outputs, how, of rows that end in one way and in several."""
    for name, outputs in OUTPUTS.items():
        for what, rows in (("a row", of.row), ("mixed rows", mixed(of)), ("deferred rows", of.strange[:2])):
            for who, key in (("ada", ADA), ("anonymous", "X-A: b")):
                yield Http(
                    f"outputs: {name} of {what} for {who}", (json_infer(of, rows, key, outputs=outputs),)
                )
        sent = binary_infer(of, mixed(of), ADA, outputs=outputs, parameters={"binary_data_output": True})
        yield Http(f"outputs: {name}, all in binary", (sent,))


def _parameters(of: Deployment) -> Iterator[Case]:
    """Parameters of a request, its id, and the header that shortens its deadline."""
    for parameters in PARAMETERS:
        yield Http(f"parameters: {parameters}", (json_infer(of, of.row, ADA, parameters=parameters),))
    for identity in ("", "a", "\u00e9\u2603", "x" * 1000, '"\\\n', None):
        yield Http(f"id: {str(identity)[:10]!r}", (json_infer(of, of.row, ADA, id=identity),))
        yield Http(
            f"id: {str(identity)[:10]!r}, deferred", (json_infer(of, of.strange[:1], ADA, id=identity),)
        )
    for value in ("9", "1e3", "0", "-1", "soon", "", "nan", "inf", "1,5", "\xb2", "0x10", "1_0"):
        sent = json_infer(of, of.row, ADA, f"X-Request-Timeout-Seconds: {value}")
        yield Http(f"deadline: {value!r}", (sent,))


def _codings(of: Deployment) -> Iterator[Case]:
    """Bodies and replies in codings."""
    plain = json.dumps(document(of, of.samples[:8])).encode()
    packed = {"gzip": gzip.compress(plain, mtime=0), "deflate": zlib.compress(plain), "identity": plain}
    for coding, body in packed.items():
        for stated in (coding, coding.upper(), f" {coding} "):
            yield Http(f"coding: {stated!r}", (infer(of, body, ADA, f"Content-Encoding: {stated}"),))
    for stated in ("br", "gzip, gzip", "x-gzip", "", "gzip;q=1"):
        yield Http(
            f"coding: unknown {stated!r}", (infer(of, packed["gzip"], ADA, f"Content-Encoding: {stated}"),)
        )
    wrong = {
        "none": plain,
        "cut": packed["gzip"][:-3],
        "twice": packed["gzip"] * 2,
        "more": packed["gzip"] + b"x",
    }
    for name, body in wrong.items():
        for coding in ("gzip", "deflate"):
            yield Http(f"coding: {name} as {coding}", (infer(of, body, ADA, f"Content-Encoding: {coding}"),))
    bomb = gzip.compress(bytes(2**25), mtime=0)
    yield Http("coding: much more than it seems", (infer(of, bomb, ADA, "Content-Encoding: gzip"),))
    body, length = binary_body(of, of.samples[:8])
    lines = (f"Inference-Header-Content-Length: {length}", "Content-Encoding: gzip", ADA)
    yield Http("coding: binary", (infer(of, gzip.compress(body, mtime=0), *lines),))
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
        for count in (1, of.most):
            sent = json_infer(of, of.samples[:count], ADA, f"Accept-Encoding: {accept}")
            yield Http(f"coding: {count} rows, accepts {accept}", (sent,))


def _forms(of: Deployment) -> Iterator[Case]:
    """Other ways to write the same request: raw, nested, shuffled, with more than is read."""
    raw = "Inference-Header-Content-Length: 0"
    for count in (1, 3, of.most, of.most + 1):
        body = of.samples[:count].astype("<f4").tobytes()
        yield Http(f"raw: {count} rows", (infer(of, body, raw, ADA),))
        yield Http(f"raw: {count} rows and a byte", (infer(of, body + b"x", raw, ADA),))
    yield Http("raw: nothing", (infer(of, b"", raw, ADA),))
    nested = tensor(of, of.samples[:2]) | {"data": of.samples[:2].astype(float).tolist()}
    yield Http("form: nested", (infer(of, json.dumps({"inputs": [nested]}).encode(), ADA),))
    body = json.dumps(document(of, of.row, extra=[1, {"a": None}], more="x")).encode()
    yield Http("form: more than is read", (infer(of, body, ADA),))
    yield Http("form: with white space", (infer(of, b" \r\n\t" + body + b"\n ", ADA),))
    for kind in ("text/plain", "application/octet-stream", "application/json; charset=utf-16", "nothing"):
        yield Http(f"form: as {kind}", (infer(of, body, ADA, f"Content-Type: {kind}"),))
    whole = np.rint(of.row)
    entry = tensor(of, whole) | {"data": [int(value) for value in whole.ravel()]}
    yield Http("form: integers", (infer(of, json.dumps({"inputs": [entry]}).encode(), ADA),))
