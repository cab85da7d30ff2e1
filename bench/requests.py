"""What the load generator sends: requests on a deployment's own samples, rendered before the clock runs.

A request is made of good rows alone or of outliers alone. With several rows it also asks for
`fs_row_outcome`, the outcome of each row; the outcome of the request is that of its worst row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import orjson

from bench import families
from bench.client import Origin
from gateway.cli.samples import Rows, Samples, load_samples
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from gateway.policy.schema import Policy
from gateway.protocol.contract import ROW_OUTCOME

MAX_REQUESTS, MAX_REQUESTS_BYTES = 512, 64 * 1024 * 1024
METADATA_TIMEOUT_S = 5.0


class WrongInput(Exception):
    """What the user of the load test can correct."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model of a running gateway: its address, its one input, and its outputs."""

    origin: Origin
    path: str
    model: str
    source: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    key: str | None


@dataclass(frozen=True, slots=True)
class RequestMix:
    """What to send: rows a request, the share of requests that are made of outliers, JSON or binary."""

    rows: int = 1
    outliers: float = 0.1
    binary: bool = False
    seed: int = 0


def find_target(url: str, folder: Path, key: str | None) -> Target:
    """The model behind a URL: `http://host:port`, with the folder's name, or `.../v2/models/NAME`.

    Raises:  WrongInput: not reachable, no such model, no valid key, a form that samples cannot fill.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongInput(f"{url}: is not a URL such as http://127.0.0.1:8080")
    path = parts.path.rstrip("/")
    if "/v2/models/" not in path:
        path += f"/v2/models/{_policy(folder).name}"
    metadata = _get(f"{parts.scheme}://{parts.netloc}{path}", {"x-api-key": key} if key else {})
    inputs = metadata["inputs"]
    if len(inputs) != 1 or inputs[0]["datatype"] != "FP32":
        raise WrongInput(f"{url}: takes {inputs}; samples can fill one FP32 input")
    return Target(
        Origin.of(parts),
        path,
        str(metadata["name"]),
        str(inputs[0]["name"]),
        tuple(inputs[0]["shape"][1:]),
        tuple(str(output["name"]) for output in metadata["outputs"]),
        key,
    )


def render_requests(target: Target, folder: Path, mix: RequestMix) -> list[bytes]:
    """Whole HTTP requests, at most 512 or 64 MiB of them, in random order. Raises WrongInput."""
    samples = _samples(target, folder)
    rng = np.random.default_rng(mix.seed)
    outliers = _outliers(samples, folder, mix)
    first = _render_request(target, samples.clean[rng.integers(0, len(samples.clean), mix.rows)], mix.binary)
    count = min(MAX_REQUESTS, max(2, MAX_REQUESTS_BYTES // len(first)))
    bad = round(mix.outliers * count)
    pools = [outliers] * bad + [samples.clean] * (count - bad)
    requests = [
        _render_request(target, pool[rng.integers(0, len(pool), mix.rows)], mix.binary) for pool in pools
    ]
    return [requests[i] for i in rng.permutation(count)]


def deadline_ms(folder: Path) -> float:
    """How long the deployment gives itself for one request, in milliseconds. Raises WrongInput."""
    return _policy(folder).deadline_s * 1e3


def _render_request(target: Target, x: Rows, binary: bool) -> bytes:
    tensor: dict[str, Any] = {"name": target.source, "datatype": "FP32", "shape": x.shape}
    outputs: list[dict[str, Any]] = [
        {"name": name, "parameters": {"binary_data": binary}} for name in target.outputs
    ]
    if len(x) > 1:
        outputs.append({"name": ROW_OUTCOME.name, "parameters": {"binary_data": False}})
    headers = {"host": target.origin.authority}
    if target.key:
        headers["x-api-key"] = target.key
    if binary:
        tensor["parameters"] = {"binary_data_size": x.nbytes}
        head = orjson.dumps({"inputs": [tensor], "outputs": outputs})
        headers |= {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(head)),
        }
        body = head + x.tobytes()
    else:
        headers["content-type"] = "application/json"
        document = {"inputs": [tensor | {"data": np.ascontiguousarray(x).ravel()}], "outputs": outputs}
        body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    headers["content-length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {target.path}/infer HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def _policy(folder: Path) -> Policy:
    try:
        return Deployment.read(folder).policy
    except Problems as error:
        raise WrongInput(f"--dir {folder}: is no deployment folder: {error.problems[0]}") from error


def _get(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    try:
        reply = httpx.get(url, headers=headers, timeout=METADATA_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WrongInput(f"{url}: cannot be reached: {error}") from error
    if reply.status_code in (401, 403):
        raise WrongInput(f"{url}: needs a valid --key; make one with `gateway key DIR bench`")
    if reply.status_code == 404:
        raise WrongInput(f"{url}: is not served there; name the deployment that is with --dir")
    try:
        metadata: dict[str, Any] = reply.json()
        return {name: metadata[name] for name in ("name", "inputs", "outputs")}
    except (ValueError, KeyError, TypeError) as error:
        raise WrongInput(f"{url}: does not describe a model (HTTP {reply.status_code})") from error


def _samples(target: Target, folder: Path) -> Samples:
    try:
        samples = load_samples(folder, target.source)
    except ValueError as error:
        raise WrongInput(f"--dir {folder}: has no samples of {target.source!r} to send: {error}") from error
    if not len(samples.clean) or samples.clean.shape[1:] != target.shape:
        raise WrongInput(f"--dir {folder}: samples are {samples.clean.shape}, the model takes {target.shape}")
    return samples


def _outliers(samples: Samples, folder: Path, mix: RequestMix) -> Rows:
    """The folder's outliers, or some made from its samples."""
    bounds = float(samples.clean.min()), float(samples.clean.max())
    found = samples.families or families.outliers(samples.clean, samples.y, bounds, mix.seed)
    if not found and mix.outliers > 0:
        raise WrongInput(f"--dir {folder}: has no outliers.npz; give --outliers 0")
    return np.concatenate([*found.values(), samples.clean[:0]])
