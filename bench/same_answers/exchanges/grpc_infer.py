"""Inference over gRPC that is well formed: rows of every kind, both forms, and request options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.same_answers.exchange import Exchange
from bench.same_answers.exchanges.grpc_parts import ADA, infer_exchange, message, with_options
from bench.same_answers.exchanges.http_infer import OUTPUT, mixed
from bench.same_answers.sampled_deployment import SampledDeployment

SAMPLES, OUTLIERS = range(100, 125), range(20, 25)
OUTPUT_OPTIONS: dict[str, tuple[tuple[str, ...], int]] = {
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


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Rows one at a time, batches, outputs, parameters, metadata, codings."""
    for raw in (True, False):
        form = "raw" if raw else "typed"
        for i in SAMPLES:
            yield infer_exchange(
                f"sample {i}, {form}", message(deployment, deployment.samples[i : i + 1], raw=raw)
            )
        for kind, rows in deployment.outliers.items():
            for i in OUTLIERS:
                yield infer_exchange(
                    f"{kind} {i}, {form}", message(deployment, rows[i : i + 1], raw=raw, id=f"n{i}")
                )
        for count in (2, 8, 32, 33, 128, 129):
            yield infer_exchange(
                f"{count} rows, {form}", message(deployment, deployment.samples[:count], raw=raw)
            )
        yield from _outputs(deployment, raw, form)
    yield from _request_metadata(deployment)


def _outputs(deployment: SampledDeployment, raw: bool, form: str) -> Iterator[Exchange]:
    for name, (outputs, best) in OUTPUT_OPTIONS.items():
        for what, rows in (
            ("a row", deployment.row),
            ("mixed rows", mixed(deployment)),
            ("deferred rows", deployment.noise_rows[:2]),
        ):
            for who, key in (("ada", ADA), ("anonymous", ())):
                held = with_options(message(deployment, rows, raw=raw), outputs, best)
                yield infer_exchange(f"{name} of {what}, {form}, for {who}", held, key)
    for parameters in PARAMETERS:
        yield infer_exchange(
            f"parameters {parameters}, {form}",
            with_options(message(deployment, deployment.row, raw=raw), **parameters),
        )


def _request_metadata(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Versions, metadata and codings."""
    for version in ("", "1", "2", "x"):
        yield infer_exchange(
            f"version {version!r}", message(deployment, deployment.row, model_version=version)
        )
    for identity in ("", "a", "\u00e9\u2603", "x" * 1000):
        yield infer_exchange(f"id {identity[:10]!r}", message(deployment, deployment.row, id=identity))
    for value in ("9", "1e3", "0", "-1", "soon", "", "nan", "1,5", "0x10"):
        header = (*ADA, ("x-request-timeout-seconds", value))
        yield infer_exchange(f"deadline {value!r}", message(deployment, deployment.row), header)
    for prefer in ("respond-async", "wait=0", "wait=x", "wait=1"):
        yield infer_exchange(
            f"prefer {prefer}", message(deployment, deployment.noise_rows[:1]), (*ADA, ("prefer", prefer))
        )
    for coding in ("NoCompression", "Gzip", "Deflate"):
        yield infer_exchange(f"coding {coding}", message(deployment, deployment.samples[:20]), coding=coding)
    yield infer_exchange("many reviews", message(deployment, deployment.noise_rows[: deployment.max_rows]))
    for i in range(3):
        yield infer_exchange(
            f"over its rate {i}", message(deployment, deployment.row), (("x-api-key", "<<key:slow>>"),)
        )
