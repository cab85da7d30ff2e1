"""A data plane on a real deployment, clients through its ASGI door, and replies held to what clients need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fallbacks.review.cases import WAITING
from gateway.core.model import Predictor
from gateway.core.record import RequestRecord
from gateway.deployment.deployment import VAR
from gateway.http.handler import HttpHandler
from gateway.serving import data_plane as plane
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import PeerReplicas
from gateway.serving.review import NoReview, QueuedReview
from tests.support.deployments import (
    FULL_RATE,
    Raises,
    clean_rows,
    key_for,
    letters,
    outlier_rows,
    swap,
)

Rows = NDArray[np.float32]
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

INFER = "/v2/models/letters/infer"
QUICK = ("budget_s: 2\n", "budget_s: 0.4\n")  # of the primary, so that a hanging one costs little
HOME = ("127.0.0.1", 50_000)
AWAY = ("192.0.2.7", 50_000)
X16 = list(range(16))
PARAMETERS = ("outcome", "reason", "served_by", "policy", "mode", "decision_id")


@dataclass
class Reply:
    """What a client got, already held to what every client needs."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        length = self.headers.get("inference-header-content-length")
        held: dict[str, Any] = json.loads(self.body if length is None else self.body[: int(length)])
        return held

    @property
    def parameters(self) -> dict[str, Any]:
        held: dict[str, Any] = self.json["parameters"]
        return held

    @property
    def outcome(self) -> tuple[int, str, str]:
        told = self.parameters
        return self.status, told["fs_outcome"], told["fs_reason"]

    def tensor(self, name: str = "probabilities") -> NDArray[Any]:
        """One output, JSON or binary, as FP32."""
        rest = self.body[int(self.headers.get("inference-header-content-length", len(self.body))) :]
        for output in self.json["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            raw = rest[:size] if size is not None else b""
            rest = rest[size or 0 :]
            if output["name"] == name:
                flat = np.frombuffer(raw, "<f4") if size is not None else np.array(output["data"], "<f4")
                return flat.reshape(output["shape"])
        raise AssertionError(f"no output {name!r}")


@dataclass
class Client:
    """Sends one request at a time through the ASGI door, as a server would."""

    app: HttpHandler
    key: str | None = None
    address: tuple[str, int] | None = HOME

    async def __call__(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Headers = (),
        then: Callable[[], Awaitable[dict[str, Any]]] | None = None,
        whole: bool = False,
    ) -> Reply | None:
        """The reply, or None if there was none.

        Args:    then: what the server says after these chunks, be they the whole body or not.
                 whole: whether they are.
        """
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if self.key is not None:
            pairs.append(("authorization", f"Bearer {self.key}"))
        chunks = [body] if isinstance(body, bytes) else list(body)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": b"a=1",
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
            "client": self.address,
            "server": ("127.0.0.1", 8080),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if chunks:
                chunk = chunks.pop(0)
                more = bool(chunks) or (then is not None and not whole)
                return {"type": "http.request", "body": chunk, "more_body": more}
            if then is not None:
                return await then()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(dict(message))

        await self.app(scope, receive, send)
        return _reply(sent)

    async def get(self, path: str, headers: Headers = ()) -> Reply:
        return some(await self("GET", path, headers=headers))

    async def infer(self, x: Rows, headers: Headers = (), binary: bool = False, **members: Any) -> Reply:
        """One request for rows, in JSON or in binary as tritonclient sends it."""
        body, more = request_of(x, binary, **members)
        pairs = [*(headers.items() if isinstance(headers, Mapping) else headers), *more]
        return some(await self("POST", INFER, body, pairs))

    async def post(self, body: bytes | Sequence[bytes], headers: Headers = ()) -> Reply:
        return some(await self("POST", INFER, body, headers))


def request_of(x: Rows, binary: bool = False, **members: Any) -> tuple[bytes, list[tuple[str, str]]]:
    entry: dict[str, Any] = {"name": "attributes", "datatype": "FP32", "shape": list(x.shape)}
    if not binary:
        entry["data"] = x.ravel().tolist()
        return json.dumps({"inputs": [entry], **members}).encode(), []
    entry["parameters"] = {"binary_data_size": x.nbytes}
    members.setdefault("parameters", {"binary_data_output": True})
    head = json.dumps({"inputs": [entry], **members}).encode()
    return head + x.tobytes(), [("Inference-Header-Content-Length", str(len(head)))]


def some(reply: Reply | None) -> Reply:
    assert reply is not None, "no reply at all"
    return reply


def _reply(sent: list[dict[str, Any]]) -> Reply | None:
    """Checks what holds of every reply: a proper ASGI exchange, and an error that real clients can read."""
    if not sent:
        return None
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    names = [name.decode("ascii") for name, _ in sent[0]["headers"]]
    assert names == [name.lower() for name in names]
    assert len(set(names)) == len(names)
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in sent[0]["headers"]}
    assert all(value.isprintable() for value in headers.values())
    reply = Reply(sent[0]["status"], headers, sent[1]["body"])
    assert int(headers["content-length"]) == len(reply.body)
    if reply.status != 200:
        assert headers["content-type"] == "application/json"
        assert isinstance(reply.json["error"], str)
        assert reply.json["error"]
        stamped(reply)
    return reply


def stamped(reply: Reply) -> Reply:
    """The six parameters, none empty, in the body and as headers."""
    for name in PARAMETERS:
        told = reply.parameters[f"fs_{name}"]
        assert isinstance(told, str)
        assert told
        assert reply.headers[f"x-failsafe-{name.replace('_', '-')}"] == told
    return reply


@dataclass
class DataPlane:
    """A gateway behind its data plane, with rows that end in a known way.

    good: served; strange: deferred; easy: good, and answered by the fallback when the primary is gone.
    """

    runner: asyncio.Runner
    gateway: Gateway
    app: HttpHandler
    keys: dict[str, str]
    good: Rows = field(init=False)
    strange: Rows = field(init=False)
    easy: Rows = field(init=False)

    def __post_init__(self) -> None:
        self.good = self._ending(clean_rows(120), "served")
        self.strange = self._ending(outlier_rows(20), "deferred")
        with self.spoiled(Raises()):
            self.easy = self._ending(self.good, "degraded")

    def _ending(self, x: Rows, outcome: str) -> Rows:
        async def main() -> Rows:
            asked = [{"name": "fs_row_outcome"}]
            keep: list[str] = []
            for at in range(0, len(x), 100):
                reply = await self.ada.infer(x[at : at + 100], outputs=asked)
                keep += reply.json["outputs"][0]["data"]
            return x[[end == outcome for end in keep]]

        found = self.runner.run(main())
        assert len(found), f"no row is {outcome}"
        return found

    @property
    def ada(self) -> Client:
        """A caller who may see everything."""
        return Client(self.app, self.keys["ada"])

    @property
    def anyone(self) -> Client:
        """An anonymous caller on this machine."""
        return Client(self.app)

    def run(self, main: Callable[[], Any]) -> Any:
        return self.runner.run(main())

    @contextmanager
    def spoiled(self, *rungs: Predictor, people: bool = True) -> Iterator[None]:
        """Other predictors behind the first rungs, or no people, for a while."""
        before = self.gateway.loaded
        for depth, predictor in enumerate(rungs):
            swap(self.gateway, predictor, depth)
        if not people:
            pipeline = replace(self.gateway.loaded.pipeline, review=NoReview())
            self.gateway.loaded = replace(self.gateway.loaded, pipeline=pipeline)
        try:
            yield
        finally:
            self.gateway.loaded = before

    async def cases(self) -> set[str]:
        """The ids of the cases that wait for a person."""
        assert isinstance(self.gateway.review, QueuedReview)
        return {record.id for record in await self.gateway.review.store.list_cases(WAITING, 10_000)}

    async def new_case(self, known: set[str]) -> str:
        """The id of the one case that has come since."""
        for _ in range(500):
            if fresh := await self.cases() - known:
                return fresh.pop()
            await asyncio.sleep(0.01)
        raise AssertionError("no case came")

    @contextmanager
    def recorded(self) -> Iterator[list[RequestRecord]]:
        """The records that are made meanwhile."""
        seen: list[RequestRecord] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.gateway, "record", seen.append)
            yield seen

    async def answer(self, case_id: str, answer: str) -> None:
        """A person answers one case."""
        assert isinstance(self.gateway.review, QueuedReview)
        store = self.gateway.review.store
        for claim in await store.claim("grace", 60, 10_000):
            if claim.case.id == case_id:
                await store.resolve(case_id, claim.fence, "grace", answer)
            else:
                await store.release(claim.case.id, claim.fence)


@contextmanager
def plane_of(folder: Path, **keys: str) -> Iterator[DataPlane]:
    with asyncio.Runner() as runner:

        async def start() -> Gateway:
            gateway = Gateway.open(folder)
            gateway.start()
            return gateway

        gateway = runner.run(start())
        try:
            siblings = PeerReplicas(folder / VAR / "run", gateway.replica, "no token")
            yield DataPlane(runner, gateway, HttpHandler(plane.DataPlane(gateway, siblings)), keys)
        finally:
            runner.run(gateway.close())


def keys_for(folder: Path) -> dict[str, str]:
    return {
        "ada": key_for(folder, "ada"),
        "bob": key_for(folder, "bob"),
        "slow": key_for(folder, "slow", "trusted", 0.001),
        "reader": key_for(folder, "reader", "trusted", None, "read"),
    }


@contextmanager
def whole_plane(factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    """A plane with a key for each kind of caller, and room for any rate."""
    folder = letters(factory.mktemp("plane"), FULL_RATE, QUICK)
    with plane_of(folder, **keys_for(folder)) as made:
        yield made


def mixed(plane: DataPlane) -> Rows:
    """Served, deferred, served."""
    return np.concatenate([plane.good[:1], plane.strange[:1], plane.good[1:2]])
