"""An upstream over HTTP: binary tensors where its server accepts them, JSON elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from typing import Final

import httpx

from fallbacks.oip import json_messages
from fallbacks.oip.address import RemoteModel
from fallbacks.oip.description import ModelDescription
from fallbacks.oip.errors import (
    RequestRefused,
    UnexpectedAnswer,
    UpstreamFailed,
    UpstreamUnreachable,
    excerpt,
)
from fallbacks.oip.tensors import Array
from fallbacks.predictor import Tensors

# Idle connections are closed before uvicorn, which keeps them for 5 s, closes them under a request.
CONNECTION_LIMITS: Final = httpx.Limits(
    max_connections=64, max_keepalive_connections=16, keepalive_expiry=4.0
)
METADATA_BYTES: Final = 2**20
ERROR_BYTES: Final = 65536
HEAD_BYTES: Final = "inference-header-content-length"
BINARY_REFUSED: Final = (400, 415, 422)
UNREACHABLE: Final = (502, 503, 504)
OF_THE_ROWS: Final = (400, 413, 422, 500)
"""The statuses by which servers refuse rows that their model cannot take."""


class HttpClient:
    """A pool of connections, bound to the loop of its first call. Follows no redirect and uses no proxy.

    A server that lists the binary extension may still refuse binary requests. So the first one that it
    refuses is repeated as JSON. `_accepts_binary` is which of the two it answered, None before that.
    """

    def __init__(self, remote: RemoteModel, max_answer_bytes: int) -> None:
        headers = {"accept-encoding": "identity", "user-agent": "failsafe-gateway"}
        if remote.token:
            headers["authorization"] = f"Bearer {remote.token}"
        # Certificates are read only for TLS: that takes longer than the rest of this constructor.
        verify = ssl.create_default_context() if remote.address.encrypted else False
        self._http = httpx.AsyncClient(
            headers=headers, limits=CONNECTION_LIMITS, verify=verify, follow_redirects=False, trust_env=False
        )
        origin = f"{remote.address.scheme}://{remote.address.authority}"
        self._server = httpx.URL(f"{origin}{remote.address.path}/v2")
        self._model = httpx.URL(origin + remote.path)
        self._infer = httpx.URL(f"{origin}{remote.path}/infer")
        self._remote = remote
        self._max_answer_bytes = max_answer_bytes
        self._ids = itertools.count(1)
        self._accepts_binary: bool | None = None
        self._lists_binary: bool | None = None

    async def describe(self, timeout_s: float) -> ModelDescription:
        _, content = await self._send("GET", self._model, None, {}, timeout_s, METADATA_BYTES)
        return json_messages.decode_metadata(content)

    async def infer(
        self, inputs: Tensors, description: ModelDescription, timeout_s: float
    ) -> dict[str, Array]:
        until_s = asyncio.get_running_loop().time() + timeout_s
        if self._lists_binary is None:
            self._lists_binary = await self._read_extensions(timeout_s)
        if self._accepts_binary is False or not self._lists_binary:
            return await self._request(inputs, description, until_s, binary=False)
        try:
            found = await self._request(inputs, description, until_s, binary=True)
        except UpstreamFailed as error:
            if self._accepts_binary or error.status not in BINARY_REFUSED:
                raise
            found = await self._request(inputs, description, until_s, binary=False)
            self._accepts_binary = False
            return found
        self._accepts_binary = True
        return found

    async def _read_extensions(self, timeout_s: float) -> bool:
        """Whether the server's metadata lists the binary extension; False where it has no metadata."""
        try:
            _, content = await self._send("GET", self._server, None, {}, timeout_s, METADATA_BYTES)
            return json_messages.lists_binary_extension(content)
        except UpstreamUnreachable:
            raise
        except (UpstreamFailed, UnexpectedAnswer):
            return False

    async def _request(
        self, inputs: Tensors, description: ModelDescription, until_s: float, *, binary: bool
    ) -> dict[str, Array]:
        left_s, request_id = until_s - asyncio.get_running_loop().time(), str(next(self._ids))
        body, head_bytes = json_messages.encode_request(
            inputs, description, request_id, left_s, binary=binary
        )
        headers = {"content-type": "application/json"}
        if head_bytes is not None:
            headers = {"content-type": "application/octet-stream", HEAD_BYTES: str(head_bytes)}
        reply_headers, content = await self._send(
            "POST", self._infer, body, headers, left_s, self._max_answer_bytes
        )
        length = reply_headers.get(HEAD_BYTES)
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
            raise UnexpectedAnswer(f"{HEAD_BYTES} is {excerpt(length)!r}")
        n = len(inputs[description.inputs[0].name])
        return json_messages.decode_json_response(
            content, None if length is None else int(length), request_id, description, n
        )

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
        max_bytes: int,
    ) -> tuple[httpx.Headers, bytes]:
        """The headers and body of a 200 within `timeout_s` in all."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.stream(method, url, content=body, headers=headers, timeout=timeout_s) as response,
            ):
                if response.status_code != 200:
                    raise await self._failure(response)
                return response.headers, await self._read(response, max_bytes)
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{self._remote}: {type(error).__name__}") from None
        except httpx.HTTPError as error:
            what = excerpt(str(error)) or type(error).__name__
            raise UpstreamUnreachable(f"{self._remote}: {what}") from None

    async def _failure(self, response: httpx.Response) -> UpstreamFailed:
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > ERROR_BYTES:
                break
        status = response.status_code
        what = f"{self._remote}: {status}: {excerpt(body[:800].decode(errors='replace'))}"
        if status in UNREACHABLE:
            return UpstreamUnreachable(what, status)
        return RequestRefused(what, status) if status in OF_THE_ROWS else UpstreamFailed(what, status)

    async def _read(self, response: httpx.Response, max_bytes: int) -> bytes:
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise UnexpectedAnswer(f"the answer is encoded as {excerpt(encoding)!r}, which was not asked for")
        parts, size = [], 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > max_bytes:
                raise UnexpectedAnswer(f"the answer is over the {max_bytes} bytes that it may have")
            parts.append(part)
        return b"".join(parts)

    async def close(self) -> None:
        await self._http.aclose()
