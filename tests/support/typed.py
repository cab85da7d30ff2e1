"""Deployments of every datatype, made as a user makes them, and the protocol's encodings written down again.

Nothing here uses the gateway's own wire code: what it reads and writes is held against these.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from gateway.admin.app import admin_app
from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import Deployment
from gateway.http.handler import HttpHandler
from gateway.serving.data_plane import DataPlane
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Repository
from gateway.serving.review import QueuedReview
from guards import arrays
from tests.support.data_planes import SITE, Client, ClientReply, listeners_of
from tests.support.deployments import key_for
from tests.support.typed_models import DATATYPES, Array, half, one_input, own_run, rows, texts, unhalf

TOKEN = "correct horse battery staple"
INFER = "/v2/models/typed/infer"

POLICY = """\
schema: 1
name: typed
deadline_s: 20
false_alarm_budget: 0.05
answered_error: 0.1
guards:
  - {name: rate, kind: rate, per_s: 1000000, burst: 1000000, budget_s: 1, on_error: allow}
rungs:
  - name: primary
    model: {kind: onnx, path: model.onnx}
    budget_s: 5
    checks: [{name: confidence, kind: confidence, selective_error: 0.1, budget_s: 1, on_error: degrade}]
review: {store: "sqlite:///var/review.db", capacity: 1000, expire_after_s: 86400, budget_s: 5}
expose: [EXPOSED]
disclosure: {trusted: full}
serving: {anonymous: loopback}
"""


def deployed(
    folder: Path, content: bytes, exposed: Sequence[str], held: Mapping[str, Array], policy: str = POLICY
) -> Path:
    """A folder with a model and a policy, calibrated from an .npz file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "gateway.yaml").write_text(policy.replace("EXPOSED", ", ".join(exposed)))
    arrays.save(folder / "held_out.npz", {name: as_numpy(array) for name, array in held.items()})
    calibrate(Deployment.read(folder), folder / "held_out.npz")
    return folder


def as_numpy(array: Array) -> Array:
    """Text as numpy keeps it in a file without pickle."""
    return (
        np.array([item.decode() for item in array.flat]).reshape(array.shape)
        if array.dtype == object
        else array
    )


def held_out(datatype: str) -> dict[str, Array]:
    """Labelled rows: what the model is sure of is right, and of what it is not, every second is."""
    x = np.concatenate([rows(datatype, 700), rows(datatype, 300, unsure=datatype != "BOOL")])
    sure = own_run(one_input(datatype), {"x": (datatype, x)})["probabilities"][:, 1]
    y = np.where(sure == 0.5, np.arange(len(x)) % 2, sure > 0.5).astype(np.int64)
    return {"x": x, "y": y, "group": np.arange(len(x))}


def packed(datatype: str, array: Array) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in array.flat)
    return half(array).tobytes() if datatype == "BF16" else np.ascontiguousarray(array).tobytes()


def unpacked(datatype: str, raw: bytes, shape: Sequence[int]) -> Array:
    if datatype == "BYTES":
        items = []
        while raw:
            (length,) = struct.unpack_from("<I", raw)
            items.append(raw[4 : 4 + length])
            raw = raw[4 + length :]
        return texts(*items).reshape(shape)
    return (
        unhalf(raw, shape)
        if datatype == "BF16"
        else np.frombuffer(raw, DATATYPES[datatype].dtype).reshape(shape)
    )


class Sent(NamedTuple):
    """One input of a request."""

    datatype: str
    array: Array
    binary: bool


def request_of(inputs: Mapping[str, Sent], **members: Any) -> tuple[bytes, dict[str, str]]:
    """The body and its headers, as the protocol says."""
    entries, tail = [], b""
    for name, one in inputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": one.datatype, "shape": list(one.array.shape)}
        if one.binary:
            raw = packed(one.datatype, one.array)
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            flat = one.array.reshape(-1).tolist()
            entry["data"] = [item.decode() for item in flat] if one.datatype == "BYTES" else flat
        entries.append(entry)
    head = json.dumps({"inputs": entries, **members}).encode()
    return head + tail, {"Inference-Header-Content-Length": str(len(head))} if tail else {}


def tensors_of(reply: ClientReply) -> dict[str, Array]:
    """The outputs of a reply, JSON or binary; null in JSON is NaN, None or as numpy has it."""
    assert reply.status == 200, reply.body
    rest = reply.body[int(reply.headers.get("inference-header-content-length", len(reply.body))) :]
    found: dict[str, Array] = {}
    for output in reply.json["outputs"]:
        datatype, shape = output["datatype"], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            found[output["name"]] = unpacked(datatype, rest[:size], shape)
            rest = rest[size:]
        elif datatype == "BYTES":
            found[output["name"]] = texts(*(item.encode() for item in output["data"])).reshape(shape)
        else:
            found[output["name"]] = np.array(output["data"], DATATYPES[datatype].dtype).reshape(shape)
    assert not rest
    return found


def same(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Equal in name, dtype, shape and every bit."""
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        one, other = (a.tolist() if a.dtype == object else a.tobytes() for a in (got[name], array))
        assert one == other, name


@dataclass(frozen=True)
class Typed:
    """A deployment that serves: `ada` may see everything, `anonymous` little, `admin` is the console."""

    gateway: Gateway
    ada: Client
    anonymous: Client
    admin: httpx.AsyncClient

    async def ask(self, inputs: Mapping[str, Sent], **members: Any) -> ClientReply:
        return await self.ada.request("POST", INFER, *request_of(inputs, **members))

    @property
    def review(self) -> QueuedReview:
        assert isinstance(self.gateway.review, QueuedReview)
        return self.gateway.review

    async def page(self, path: str) -> str:
        """A page of the console, as a browser gets it."""
        reply = await self.admin.get(path, headers={"accept": "text/html"})
        assert reply.status_code == 200, reply.text
        return reply.text


@asynccontextmanager
async def typed(folder: Path) -> AsyncIterator[Typed]:
    """Serves a folder; the caller `ada` gets a key, once."""
    key = key_for(folder, "ada")
    repository = Repository.open([folder])
    repository.start()
    try:
        [gateway] = repository.gateways.values()
        peers = PeerReplicas(repository.run, repository.replica, "no token")
        wire = httpx.ASGITransport(admin_app(repository, TOKEN), raise_app_exceptions=False)
        bearer = {"authorization": f"Bearer {TOKEN}"}
        async with (
            listeners_of(HttpHandler(DataPlane(repository, peers), SITE)) as listeners,
            httpx.AsyncClient(transport=wire, base_url="http://127.0.0.1:8082", headers=bearer) as admin,
        ):
            yield Typed(gateway, Client(listeners, key), Client(listeners), admin)
    finally:
        await repository.close()
