"""A data plane over a real deployment, with listeners and clients; replies checked for what clients need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from numpy.typing import NDArray

from fallbacks.review.cases import WAITING
from gateway.access.proxies import Proxies
from gateway.access.site import Site
from gateway.core.model import Predictor
from gateway.core.record import RequestRecord
from gateway.http.handler import HttpHandler
from gateway.listener.limits import Limits
from gateway.serving.data_plane import DataPlane
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Repository
from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import answer_unsure
from tests.support.deployments import (
    FULL_RATE,
    Raises,
    clean_rows,
    key_for,
    letters,
    outlier_rows,
    swap,
)
from tests.support.raw_http import RawConnection, RawReply, listening

Rows = NDArray[np.float32]
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

INFER = "/v2/models/letters/infer"
SHORT_BUDGET = ("budget_s: 2\n", "budget_s: 0.4\n")  # of the primary, so that a hanging one costs little
LOCAL = "127.0.0.1"
REMOTE = "192.0.2.7"
LIMITS = Limits(sweep_s=0.05)
X16 = list(range(16))
SITE = Site(LOCAL, ["gateway"])
"""With the hosts that the clients of these tests name."""
PARAMETERS = ("outcome", "reason", "served_by", "policy", "mode", "decision_id")


@dataclass
class ClientReply:
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
        """The status, the outcome and the reason, which a body must repeat (the reply to HEAD has none)."""
        if self.body:
            stamped(self)
        return self.status, self.headers["x-failsafe-outcome"], self.headers["x-failsafe-reason"]

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


@dataclass(frozen=True)
class Listeners:
    """Where one data plane listens. proxied: for clients elsewhere, behind a trusted proxy here."""

    direct: tuple[str, int]
    proxied: tuple[str, int]


@asynccontextmanager
async def listeners_of(handler: HttpHandler, limits: Limits = LIMITS) -> AsyncIterator[Listeners]:
    """A data plane that listens on loopback."""
    async with (
        listening(handler, limits) as direct,
        listening(handler, limits, Proxies([LOCAL])) as proxied,
    ):
        yield Listeners(direct.address, proxied.address)


@dataclass(frozen=True)
class Client:
    """A client of the data plane over HTTP/1.1, with a connection of its own for each request.

    address: where it is; a client elsewhere comes through the trusted proxy, which says so as proxies do.
    source: the loopback address that it connects from.
    """

    listeners: Listeners
    key: str | None = None
    address: str = LOCAL
    source: str = LOCAL

    async def request(
        self, method: str, path: str, body: bytes | Sequence[bytes] = b"", headers: Headers = ()
    ) -> ClientReply:
        """The reply to one request. path: decoded; body: pieces of it are sent as chunks."""
        async with self.connection() as wire:
            await wire.send(self.encode(method, path, body, headers))
            return checked(await wire.reply(head_only=method == "HEAD"))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[RawConnection]:
        """A connection, closed at the end of the block."""
        to = self.listeners.direct if self.address == LOCAL else self.listeners.proxied
        wire = RawConnection(*await asyncio.open_connection(*to, local_addr=(self.source, 0)))
        try:
            yield wire
        finally:
            await wire.close()

    def encode(
        self, method: str, path: str, body: bytes | Sequence[bytes] = b"", headers: Headers = ()
    ) -> bytes:
        """The bytes of one request. Its length is added unless the headers already say one."""
        pairs = [("host", "gateway"), *(headers.items() if isinstance(headers, Mapping) else headers)]
        if self.key is not None:
            pairs.append(("authorization", f"Bearer {self.key}"))
        if self.address != LOCAL:
            pairs.append(("x-forwarded-for", self.address))
        if not isinstance(body, bytes):
            pairs.append(("transfer-encoding", "chunked"))
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*filter(None, body), b""))
        elif body and "content-length" not in {name.lower() for name, _ in pairs}:
            pairs.append(("content-length", str(len(body))))
        lines = [f"{method} {quote(path)}?a=1 HTTP/1.1", *(f"{name}: {value}" for name, value in pairs)]
        return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body

    async def get(self, path: str, headers: Headers = ()) -> ClientReply:
        return await self.request("GET", path, headers=headers)

    async def infer(
        self, x: Rows, headers: Headers = (), binary: bool = False, **members: Any
    ) -> ClientReply:
        """One request for rows, in JSON or in binary as tritonclient sends it."""
        body, more = request_of(x, binary, **members)
        pairs = [*(headers.items() if isinstance(headers, Mapping) else headers), *more]
        return await self.request("POST", INFER, body, pairs)

    async def post(self, body: bytes | Sequence[bytes], headers: Headers = ()) -> ClientReply:
        return await self.request("POST", INFER, body, headers)


def request_of(x: Rows, binary: bool = False, **members: Any) -> tuple[bytes, list[tuple[str, str]]]:
    entry: dict[str, Any] = {"name": "attributes", "datatype": "FP32", "shape": list(x.shape)}
    if not binary:
        entry["data"] = x.ravel().tolist()
        return json.dumps({"inputs": [entry], **members}).encode(), []
    entry["parameters"] = {"binary_data_size": x.nbytes}
    members.setdefault("parameters", {"binary_data_output": True})
    head = json.dumps({"inputs": [entry], **members}).encode()
    return head + x.tobytes(), [("Inference-Header-Content-Length", str(len(head)))]


def checked(got: RawReply) -> ClientReply:
    """The reply, with what holds of every one: header names in lower case, and all parameters of an error."""
    assert all(name == name.lower() and value.isprintable() for name, value in got.headers.items())
    reply = ClientReply(got.status, got.headers, got.body)
    if reply.status != 200 and reply.body:
        assert reply.headers["content-type"] == "application/json"
        assert isinstance(reply.json["error"], str)
        assert reply.json["error"]
        stamped(reply)
    return reply


def stamped(reply: ClientReply) -> ClientReply:
    """The six parameters, none empty, in the body and as headers."""
    for name in PARAMETERS:
        value = reply.parameters[f"fs_{name}"]
        assert isinstance(value, str)
        assert value
        assert reply.headers[f"x-failsafe-{name.replace('_', '-')}"] == value
    return reply


@dataclass
class PlaneFixture:
    """A gateway behind its data plane, with rows that end in a known way.

    good: served; strange: deferred; easy: good, and answered by the fallback when the primary is gone.
    """

    runner: asyncio.Runner
    gateway: Gateway
    handler: HttpHandler
    listeners: Listeners
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
        return self.client(self.keys["ada"])

    @property
    def anonymous(self) -> Client:
        """A caller on this machine without a key."""
        return self.client()

    def client(self, key: str | None = None, address: str = LOCAL) -> Client:
        return Client(self.listeners, key, address)

    def run(self, main: Callable[[], Any]) -> Any:
        return self.runner.run(main())

    @contextmanager
    def spoiled(self, *rungs: Predictor, review: bool = True) -> Iterator[None]:
        """Other predictors behind the first rungs, or no review, during the block."""
        before = self.gateway.loaded
        for depth, predictor in enumerate(rungs):
            swap(self.gateway, predictor, depth)
        if not review:
            pipeline = replace(self.gateway.loaded.pipeline, review=None)
            self.gateway.loaded = replace(self.gateway.loaded, pipeline=pipeline)
        try:
            yield
        finally:
            self.gateway.loaded = before

    async def cases(self) -> set[str]:
        """The ids of the cases that wait for a reviewer."""
        assert isinstance(self.gateway.review, QueuedReview)
        return {record.id for record in await self.gateway.review.store.list_cases(WAITING, 10_000)}

    async def answer_all(self) -> None:
        """A reviewer answers every case that waits, so that the next row opens one of its own."""
        assert isinstance(self.gateway.review, QueuedReview)
        store = self.gateway.review.store
        for claim in await store.claim("grace", 60, 10_000):
            await store.resolve(claim.case.id, claim.fence, "grace", answer_unsure())

    async def new_case(self) -> str:
        """The id of the one case that waits."""
        for _ in range(500):
            if fresh := await self.cases():
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
        """A reviewer answers one case, or the one that the row of this id joined."""
        assert isinstance(self.gateway.review, QueuedReview)
        store = self.gateway.review.store
        record = await store.find(case_id)
        assert record is not None
        for claim in await store.claim("grace", 60, 10_000):
            if claim.case.id == record.id:
                await store.resolve(claim.case.id, claim.fence, "grace", answer)
            else:
                await store.release(claim.case.id, claim.fence)


def plane_of(folder: Path, **keys: str) -> AbstractContextManager[PlaneFixture]:
    """A plane on a folder with these keys, under the usual limits."""
    return limited_plane(folder, LIMITS, keys)


@contextmanager
def limited_plane(folder: Path, limits: Limits, keys: dict[str, str]) -> Iterator[PlaneFixture]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> tuple[Gateway, HttpHandler, Listeners]:
            repository = Repository.open([folder])
            repository.start()
            stack.push_async_callback(repository.close)
            [gateway] = repository.gateways.values()
            peers = PeerReplicas(repository.run, repository.replica, "no token")
            handler = HttpHandler(DataPlane(repository, peers), SITE)
            listeners = await stack.enter_async_context(listeners_of(handler, limits))
            return gateway, handler, listeners

        try:
            yield PlaneFixture(runner, *runner.run(start()), keys)
        finally:
            runner.run(stack.aclose())


def keys_for(folder: Path) -> dict[str, str]:
    return {
        "ada": key_for(folder, "ada"),
        "bob": key_for(folder, "bob"),
        "slow": key_for(folder, "slow", "trusted", 0.001),
        "reader": key_for(folder, "reader", "trusted", None, "read"),
    }


@contextmanager
def whole_plane(factory: pytest.TempPathFactory, limits: Limits = LIMITS) -> Iterator[PlaneFixture]:
    """A plane with a key for each kind of caller, and room for any rate."""
    folder = letters(factory.mktemp("plane"), FULL_RATE, SHORT_BUDGET)
    with limited_plane(folder, limits, keys_for(folder)) as made:
        yield made


def mixed(plane: PlaneFixture) -> Rows:
    """Served, deferred, served."""
    return np.concatenate([plane.good[:1], plane.strange[:1], plane.good[1:2]])
