"""An upstream over HTTP: binary tensors where its server takes them, JSON elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from typing import Final

import httpx

from fallbacks.oip import documents
from fallbacks.oip.address import Remote
from fallbacks.oip.described import Described
from fallbacks.oip.errors import Unanswered, Unreachable, WrongAnswer, excerpt
from fallbacks.oip.tensors import Array
from fallbacks.predictor import Tensors

# Idle connections are left before uvicorn, which keeps them for 5 s, closes them under a request.
LIMITS: Final = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=4.0)
METADATA_BYTES: Final = 2**20
ERROR_BYTES: Final = 65536
HEAD_BYTES: Final = "inference-header-content-length"
NO_BINARY: Final = (400, 415, 422)
NOBODY: Final = (502, 503, 504)


class Refused(Unanswered):
    """A status other than 200."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


class HttpClient:
    """A pool of connections, bound to the loop on which it is first used. Follows no redirect, asks no proxy.

    `_binary`: whether binary requests are answered; None until one was. The server's word alone is not
    enough, so the first one that it refuses is asked again as JSON, and what was answered is remembered.
    """

    def __init__(self, remote: Remote, answer_bytes: int) -> None:
        headers = {"accept-encoding": "identity", "user-agent": "failsafe-gateway"}
        if remote.token:
            headers["authorization"] = f"Bearer {remote.token}"
        # Without encryption no certificates are read, which takes longer than all else here.
        verify = ssl.create_default_context() if remote.address.encrypted else False
        self._http = httpx.AsyncClient(
            headers=headers, limits=LIMITS, verify=verify, follow_redirects=False, trust_env=False
        )
        origin = f"{remote.address.scheme}://{remote.address.authority}"
        self._server = httpx.URL(f"{origin}{remote.address.path}/v2")
        self._model = httpx.URL(origin + remote.path)
        self._infer = httpx.URL(f"{origin}{remote.path}/infer")
        self._remote = remote
        self._answer_bytes = answer_bytes
        self._ids = itertools.count(1)
        self._binary: bool | None = None
        self._listed: bool | None = None

    async def describe(self, timeout_s: float) -> Described:
        _, content = await self._send("GET", self._model, None, {}, timeout_s, METADATA_BYTES)
        return documents.described(content)

    async def infer(self, inputs: Tensors, like: Described, timeout_s: float) -> dict[str, Array]:
        until_s = asyncio.get_running_loop().time() + timeout_s
        if self._listed is None:
            self._listed = await self._lists_binary(timeout_s)
        if self._binary is False or not self._listed:
            return await self._ask(inputs, like, until_s, binary=False)
        try:
            found = await self._ask(inputs, like, until_s, binary=True)
        except Refused as error:
            if self._binary or error.status not in NO_BINARY:
                raise
            found = await self._ask(inputs, like, until_s, binary=False)
            self._binary = False
            return found
        self._binary = True
        return found

    async def _lists_binary(self, timeout_s: float) -> bool:
        """What the server's own metadata says; one that keeps it to itself says no."""
        try:
            _, content = await self._send("GET", self._server, None, {}, timeout_s, METADATA_BYTES)
            return documents.speaks_binary(content)
        except (Refused, WrongAnswer):
            return False

    async def _ask(
        self, inputs: Tensors, like: Described, until_s: float, *, binary: bool
    ) -> dict[str, Array]:
        left_s, asked = until_s - asyncio.get_running_loop().time(), str(next(self._ids))
        body, head_bytes = documents.question(inputs, like, asked, left_s, binary=binary)
        headers = {"content-type": "application/json"}
        if head_bytes is not None:
            headers = {"content-type": "application/octet-stream", HEAD_BYTES: str(head_bytes)}
        told, content = await self._send("POST", self._infer, body, headers, left_s, self._answer_bytes)
        length = told.get(HEAD_BYTES)
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
            raise WrongAnswer(f"{HEAD_BYTES} is {excerpt(length)!r}")
        n = len(inputs[like.inputs[0].name])
        return documents.answer(content, None if length is None else int(length), asked, like, n)

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
        most_bytes: int,
    ) -> tuple[httpx.Headers, bytes]:
        """The headers and body of a 200 within `timeout_s` in all."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.stream(method, url, content=body, headers=headers, timeout=timeout_s) as response,
            ):
                if response.status_code != 200:
                    raise await self._refusal(response)
                return response.headers, await self._read(response, most_bytes)
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{self._remote}: {type(error).__name__}") from None
        except httpx.HTTPError as error:
            told = excerpt(str(error)) or type(error).__name__
            raise Unreachable(f"{self._remote}: {told}") from None

    async def _refusal(self, response: httpx.Response) -> Unanswered:
        told = bytearray()
        async for part in response.aiter_raw():
            told += part
            if len(told) > ERROR_BYTES:
                break
        status = response.status_code
        what = f"{self._remote}: {status}: {excerpt(told[:800].decode(errors='replace'))}"
        return Unreachable(what) if status in NOBODY else Refused(status, what)

    async def _read(self, response: httpx.Response, most_bytes: int) -> bytes:
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise WrongAnswer(f"the answer is encoded as {excerpt(encoding)!r}, which was not asked for")
        parts, size = [], 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > most_bytes:
                raise WrongAnswer(f"the answer is over the {most_bytes} bytes that it may have")
            parts.append(part)
        return b"".join(parts)

    async def close(self) -> None:
        await self._http.aclose()
