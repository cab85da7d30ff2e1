"""What these tests share: a real gateway on a copy of configs/letters, and clients of its administration."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import httpx
import numpy as np
import orjson
from starlette.applications import Starlette

from fallbacks.oip.payload import encode
from fallbacks.review.cases import Case
from fallbacks.review.quotas import PutResult
from gateway.access.persons_file import add_person
from gateway.admin.app import admin_app
from gateway.admin.authentication import Authentication
from gateway.core.batch import Batch
from gateway.core.decision import Decision
from gateway.core.record import RequestRecord
from gateway.protocol.contract import TensorSpec
from gateway.protocol.targets import Target
from gateway.serving.gateway import Gateway
from gateway.serving.repository import Repository
from gateway.serving.review import QueuedReview

P = ParamSpec("P")
LETTERS = Path(__file__).parents[2] / "configs" / "letters"
TOKEN = "correct horse battery staple"
HOST = "127.0.0.1:8082"
BEARER = {"authorization": f"Bearer {TOKEN}"}
HTML = {"accept": "text/html,application/xhtml+xml"}
OWN_PAGE = {"sec-fetch-site": "same-origin"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an asynchronous test on an event loop of its own."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return wrapper


def deployment(tmp_path: Path) -> Path:
    """A copy of configs/letters that a test may change."""
    files = ("gateway.yaml", "primary.onnx", "fallback.onnx", "guards.npz", "scores.npz", "certificate.json")
    folder = tmp_path / "letters"
    folder.mkdir(parents=True)
    for name in files:
        shutil.copy(LETTERS / name, folder / name)
    return folder


def rewrite(folder: Path, old: str, new: str) -> None:
    """Changes the policy file."""
    path = folder / "gateway.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def ask_for(
    gateway: Gateway, target: Target, *outputs: TensorSpec, inputs: tuple[TensorSpec, ...] = ()
) -> None:
    """Puts another target, and other outputs and inputs if they are given, into the contract in force."""
    loaded = gateway.loaded
    contract = replace(
        loaded.contract,
        target=target,
        outputs=outputs or loaded.contract.outputs,
        inputs=inputs or loaded.contract.inputs,
    )
    gateway.loaded = replace(loaded, contract=contract)


@dataclass(frozen=True)
class Browser:
    """A client that has signed in. reply: to the login; root: of its URLs; csrf: of its forms."""

    client: httpx.AsyncClient
    reply: httpx.Response
    root: str
    cookie: str
    csrf: str

    async def post(self, path: str, **fields: str) -> httpx.Response:
        """What the browser sends when a button of one of our pages is pressed."""
        return await self.client.post(path, data={"csrf": self.csrf, **fields}, headers=OWN_PAGE)


@asynccontextmanager
async def browser_at(app: Starlette, token: str, at: str = f"http://{HOST}") -> AsyncIterator[Browser]:
    """Signs in with a token, as a browser does at the login page."""
    wire = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=wire, base_url=at, headers=HTML) as client:
        reply = await client.post("/login", data={"token": token}, headers=OWN_PAGE)
        root, found, _ = reply.headers["location"].rpartition("/status")
        assert (reply.status_code, found) == (303, "/status")
        client.base_url = httpx.URL(at + root)
        cookie = next(iter(reply.cookies.values()))
        sessions = app.state.authentication.sessions
        yield Browser(client, reply, root, cookie, sessions.csrf(cookie))


@dataclass(frozen=True)
class AdminWorld:
    """One replica with its administration plane, and clients of it.

    script: an API client with the token of the environment; browser: one that has signed in with it, and
    sends paths below the URLs of its session, `root`; anonymous: one that proves nothing.
    """

    repository: Repository
    app: Starlette
    script: httpx.AsyncClient
    browser: httpx.AsyncClient
    anonymous: httpx.AsyncClient
    root: str
    csrf: str

    @property
    def gateway(self) -> Gateway:
        """The gateway of the first deployment that is ready."""
        return next(iter(self.repository.gateways.values()))

    @property
    def review(self) -> QueuedReview:
        assert isinstance(self.gateway.review, QueuedReview)
        return self.gateway.review

    async def post(self, path: str, **fields: str) -> httpx.Response:
        """What a browser sends when a button of one of our pages is pressed."""
        return await self.browser.post(path, data={"csrf": self.csrf, **fields}, headers=OWN_PAGE)

    @property
    def authentication(self) -> Authentication:
        found: Authentication = self.app.state.authentication
        return found

    @asynccontextmanager
    async def signed_in(self, token: str) -> AsyncIterator[Browser]:
        """Another browser, in which the person of this token has signed in."""
        async with browser_at(self.app, token) as browser:
            yield browser

    @asynccontextmanager
    async def of_person(self, name: str, role: str) -> AsyncIterator[httpx.AsyncClient]:
        """An API client with the token of a person who is added."""
        token = add_person(self.repository.state, name, role)
        headers = {"authorization": f"Bearer {token}"}
        wire = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=wire, base_url=f"http://{HOST}", headers=headers) as client:
            yield client

    def location(self, reply: httpx.Response) -> str:
        """Where a browser is sent: a path below the URLs of its session."""
        target = reply.headers["location"]
        assert target.startswith(f"{self.root}/"), target
        return str(target.removeprefix(self.root))

    async def fence(self, id_: str) -> str:
        """The fence of the latest claim of a case, as a form carries it."""
        record = await self.review.store.find(id_)
        assert record is not None
        return str(record.fence)

    def acts(self) -> list[dict[str, Any]]:
        """The acts in the audit log, in order."""
        self.gateway.audit.drain()
        lines = [
            orjson.loads(line)
            for path in self.gateway.state.glob("decisions-*.jsonl")
            for line in path.read_bytes().splitlines()
        ]
        return [line for line in lines if "act" in line]

    async def decide(
        self, rows: np.ndarray[Any, Any], id_: str = "ask", who: str = "ada", model: str | None = None
    ) -> list[Decision]:
        """Has the gateway of a model, or the first, judge rows; waits until telemetry and the audit know."""
        gateway = self.gateway if model is None else self.repository.gateways[model]
        n, loop = len(rows), asyncio.get_running_loop()
        ids = (id_,) if n == 1 else tuple(f"{id_}.{i}" for i in range(n))
        inputs = {"attributes": rows.astype(np.float32)}
        start_s = time.time()
        decisions = await gateway.decide(Batch(ids, (who,) * n, inputs, (loop.time() + 0.5,) * n))
        loaded = gateway.loaded
        gateway.record(
            RequestRecord(id_, who, loaded.tag, loaded.policy.mode, start_s, 0.01, tuple(decisions))
        )
        gateway.audit.drain()
        return decisions

    async def put(self, id_: str, inputs: Mapping[str, Any] | bytes | None = None, **changes: Any) -> None:
        """Puts a case into the queue as the pipeline would."""
        payload = inputs if isinstance(inputs, bytes) else encode(inputs or {"attributes": np.ones((1, 16))})
        raised = [{"stage": "ood", "score": 9.0, "error": None, "form": "full"}]
        fields: dict[str, Any] = {
            "principal": "ada",
            "created_s": time.time() - 90,
            "expires_s": time.time() + 3600,
            "why": orjson.dumps({"reason": "abstained", "raised": raised}).decode(),
            "model_view": "[[3,0.5],[19,0.25],[1,0.125]]",
        }
        case = Case(id=id_, payload=payload, **(fields | changes))
        assert await self.review.store.put([case]) == [PutResult.STORED]


@asynccontextmanager
async def admin_world(*folders: Path) -> AsyncIterator[AdminWorld]:
    """Opens a replica on folders; several replicas may share them."""
    repository = Repository.open(folders)
    app = admin_app(repository, TOKEN)
    wire = httpx.ASGITransport(app, raise_app_exceptions=False)
    at = f"http://{HOST}"
    async with (
        httpx.AsyncClient(transport=wire, base_url=at, headers=BEARER) as script,
        browser_at(app, TOKEN) as browser,
        httpx.AsyncClient(transport=wire, base_url=at) as anonymous,
    ):
        repository.start()
        try:
            yield AdminWorld(repository, app, script, browser.client, anonymous, browser.root, browser.csrf)
        finally:
            await repository.close()
