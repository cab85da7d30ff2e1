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

from bench.client import Origin
from fallbacks.oip.tensors import UPSTREAM_DTYPES
from gateway.cli.infer_body import infer_body
from gateway.cli.outliers import take
from gateway.cli.samples import Samples, load_samples
from gateway.core.decision import Tensors
from gateway.core.errors import InvalidRequest, Problems
from gateway.deployment.deployment import Deployment
from gateway.policy.schema import InputPolicy, Policy
from gateway.protocol.contract import ROW_OUTCOME, Contract, TensorSpec

MAX_REQUESTS, MAX_REQUESTS_BYTES = 512, 64 * 1024 * 1024
METADATA_TIMEOUT_S = 5.0
DTYPES = {**UPSTREAM_DTYPES, "BYTES": np.dtype(np.object_)}


class WrongInput(Exception):
    """What the user of the load test can correct."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model of a running server: its address, and its inputs and outputs as it describes them."""

    origin: Origin
    path: str
    contract: Contract
    key: str | None


@dataclass(frozen=True, slots=True)
class RequestMix:
    """What to send: rows a request, the share of requests that are made of outliers, JSON or binary.

    data: a file of good rows; None: the deployment's own. row_outcomes: whether a request of several rows
    asks for `fs_row_outcome`. priority: of the request; None: it states none.
    """

    rows: int = 1
    outliers: float = 0.1
    binary: bool = False
    seed: int = 0
    data: Path | None = None
    row_outcomes: bool = True
    priority: int | None = None


def find_target(url: str, folder: Path, key: str | None) -> Target:
    """The model behind a URL: `http://host:port`, with the folder's name, or `.../v2/models/NAME`.

    Raises:  WrongInput: not reachable, no such model, no valid key.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongInput(f"{url}: is not a URL such as http://127.0.0.1:8080")
    path, policy = parts.path.rstrip("/"), _policy(folder)
    if "/v2/models/" not in path:
        path += f"/v2/models/{policy.name}"
    metadata = _get(f"{parts.scheme}://{parts.netloc}{path}", {"x-api-key": key} if key else {})
    try:
        contract = _contract(metadata, policy)
    except (Problems, KeyError, TypeError, ValueError) as error:
        raise WrongInput(f"{url}: does not describe a model that rows can be sent to: {error}") from error
    return Target(Origin.of(parts), path, contract, key)


def _contract(metadata: Mapping[str, Any], policy: Policy) -> Contract:
    """The contract in a model's metadata; which values its inputs take is said by the policy alone."""
    return Contract(
        str(metadata["name"]),
        tuple(_spec(one, policy.inputs.get(one["name"], InputPolicy())) for one in metadata["inputs"]),
        tuple(_spec(one, InputPolicy()) for one in metadata["outputs"]),
        policy.serving.max_batch_rows,
        policy.version,
    )


def _spec(tensor: Mapping[str, Any], values: InputPolicy) -> TensorSpec:
    datatype = tensor["datatype"]
    return TensorSpec(
        str(tensor["name"]),
        DTYPES[datatype].newbyteorder("="),
        tuple(None if size == -1 else int(size) for size in tensor["shape"]),
        values.low,
        values.high,
        bf16=datatype == "BF16",
        missing=values.missing == "allow",
    )


def render_requests(target: Target, folder: Path, mix: RequestMix) -> list[bytes]:
    """Whole HTTP requests, at most 512 or 64 MiB of them, in random order. Raises WrongInput."""
    samples = _samples(target, folder, mix)
    rng = np.random.default_rng(mix.seed)
    outliers = _outliers(samples, folder, mix)
    first = _render_request(target, _some(samples.clean, rng, mix.rows), mix)
    count = min(MAX_REQUESTS, max(2, MAX_REQUESTS_BYTES // len(first)))
    bad = round(mix.outliers * count)
    pools = [outliers] * bad + [samples.clean] * (count - bad)
    requests = [_render_request(target, _some(pool, rng, mix.rows), mix) for pool in pools]
    return [requests[i] for i in rng.permutation(count)]


def _some(pool: Tensors, rng: np.random.Generator, rows: int) -> Tensors:
    """So many rows, each at random."""
    return take(pool, rng.integers(0, len(next(iter(pool.values()))), rows))


def deadline_ms(folder: Path) -> float:
    """How long the deployment gives itself for one request, in milliseconds. Raises WrongInput."""
    return _policy(folder).deadline_s * 1e3


def _render_request(target: Target, x: Tensors, mix: RequestMix) -> bytes:
    inputs = target.contract.inputs
    outputs: list[dict[str, Any]] = [
        {"name": spec.name, "parameters": {"binary_data": mix.binary}} for spec in target.contract.outputs
    ]
    if mix.row_outcomes and mix.rows > 1:
        outputs.append({"name": ROW_OUTCOME.name, "parameters": {"binary_data": False}})
    more = {} if mix.priority is None else {"parameters": {"priority": mix.priority}}
    try:
        body, head = infer_body(inputs, x, {"outputs": outputs, **more}, binary=mix.binary)
    except InvalidRequest as error:
        raise WrongInput(f"{error}: give --binary") from error
    headers = {"host": target.origin.authority}
    if target.key:
        headers["x-api-key"] = target.key
    if head is None:
        headers["content-type"] = "application/json"
    else:
        headers |= {"content-type": "application/octet-stream", "inference-header-content-length": str(head)}
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


def _samples(target: Target, folder: Path, mix: RequestMix) -> Samples:
    try:
        return load_samples(folder, target.contract, mix.data, mix.seed)
    except Problems as error:
        raise WrongInput(f"there are no rows to send: {error}") from error


def _outliers(samples: Samples, folder: Path, mix: RequestMix) -> Tensors:
    """The rows of all families; good rows, which are then not sent, if there are none."""
    found = list(samples.families.values())
    if not found and mix.outliers > 0:
        raise WrongInput(f"--dir {folder}: no outliers can be made of these inputs; give --outliers 0")
    return {name: np.concatenate([rows[name] for rows in found or [samples.clean]]) for name in samples.clean}
