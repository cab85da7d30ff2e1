"""Inference over gRPC that is well formed: rows of every kind, both forms, and what may be asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.same_answers.case import Case
from bench.same_answers.cases.grpc_parts import ADA, ask, infer, message
from bench.same_answers.cases.http_infer import OUTPUT, mixed
from bench.same_answers.deployment import Deployment

SAMPLES, ODD = range(100, 125), range(20, 25)
ASKED: dict[str, tuple[tuple[str, ...], int]] = {
    "the output": ((OUTPUT,), 0),
    "the best 3": ((OUTPUT,), 3),
    "the best 1000": ((OUTPUT,), 1000),
    "how rows end": (("fs_row_outcome",), 0),
    "both": ((OUTPUT, "fs_row_outcome"), 0),
    "both the other way": (("fs_row_outcome", OUTPUT), 0),
}
PARAMETERS: tuple[dict[str, Any], ...] = (
    {"timeout": 9_000_000},
    {"timeout": 0},
    {"priority": 1},
    {"priority": 99},
    {"binary_data_output": False},
    {"unknown": "x", "other": 1.5},
)


def cases(of: Deployment) -> Iterator[Case]:
    """Rows one at a time, batches, outputs, parameters, metadata, codings."""
    for raw in (True, False):
        form = "raw" if raw else "typed"
        for i in SAMPLES:
            yield infer(f"sample {i}, {form}", message(of, of.samples[i : i + 1], raw=raw))
        for kind, rows in of.odd.items():
            for i in ODD:
                yield infer(f"{kind} {i}, {form}", message(of, rows[i : i + 1], raw=raw, id=f"n{i}"))
        for count in (2, 8, 32, 33, 128, 129):
            yield infer(f"{count} rows, {form}", message(of, of.samples[:count], raw=raw))
        yield from _asked(of, raw, form)
    yield from _said(of)


def _asked(of: Deployment, raw: bool, form: str) -> Iterator[Case]:
    for name, (outputs, best) in ASKED.items():
        for what, rows in (("a row", of.row), ("mixed rows", mixed(of)), ("deferred rows", of.strange[:2])):
            for who, key in (("ada", ADA), ("anonymous", ())):
                held = ask(message(of, rows, raw=raw), outputs, best)
                yield infer(f"{name} of {what}, {form}, for {who}", held, key)
    for parameters in PARAMETERS:
        yield infer(f"parameters {parameters}, {form}", ask(message(of, of.row, raw=raw), **parameters))


def _said(of: Deployment) -> Iterator[Case]:
    """Versions, metadata and codings."""
    for version in ("", "1", "2", "x"):
        yield infer(f"version {version!r}", message(of, of.row, model_version=version))
    for identity in ("", "a", "\u00e9\u2603", "x" * 1000):
        yield infer(f"id {identity[:10]!r}", message(of, of.row, id=identity))
    for value in ("9", "1e3", "0", "-1", "soon", "", "nan", "1,5", "0x10"):
        header = (*ADA, ("x-request-timeout-seconds", value))
        yield infer(f"deadline {value!r}", message(of, of.row), header)
    for prefer in ("respond-async", "wait=0", "wait=x", "wait=1"):
        yield infer(f"prefer {prefer}", message(of, of.strange[:1]), (*ADA, ("prefer", prefer)))
    for coding in ("NoCompression", "Gzip", "Deflate"):
        yield infer(f"coding {coding}", message(of, of.samples[:20]), coding=coding)
    yield infer("many reviews", message(of, of.strange[: of.most]))
    for i in range(3):
        yield infer(f"over its rate {i}", message(of, of.row), (("x-api-key", "<<key:slow>>"),))
