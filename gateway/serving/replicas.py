"""The other replicas of this deployment on this machine: forwards a request to all, and merges the replies.

The kernel assigns a connection to any of the replicas, so one replica's reply is only a part. Each also
listens on a unix socket in one folder; the replica that gets a request forwards it to the others there, with
the header `x-fs-alone`, so that they reply for themselves alone.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from fallbacks.worker import Worker
from gateway.serving.unix_path import unix_address

ALONE_HEADER = "x-fs-alone"
TIMEOUT_S = 0.5
STARTUP_GRACE_S = 2.0
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; without it httpx loads all authorities


@dataclass(frozen=True, slots=True)
class PeerReply:
    """The reply of one replica. `status` is 0 if none arrived in time."""

    replica: str
    status: int
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        """The body, or None if it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class PeerReplicas:
    """The sockets in `folder` except our own. token: that which replicas have in common."""

    folder: Path
    own: str
    token: str
    _thread: Worker = field(default_factory=lambda: Worker("peers"))

    async def ask(self, method: str, path: str, timeout_s: float = TIMEOUT_S) -> list[PeerReply]:
        """The reply of every other running replica, in the order of their names. Never raises.

        Cost: that of the slowest, at most `timeout_s`; about 3 ms for one that is idle.
        """
        try:
            sockets = await asyncio.wait_for(self._thread.call(self._sockets), timeout_s)
        except (OSError, TimeoutError):
            return []
        answers = await asyncio.gather(*(self._ask(socket, method, path, timeout_s) for socket in sockets))
        return [answer for answer in answers if answer is not None]

    def _sockets(self) -> list[Path]:
        return sorted(socket for socket in self.folder.glob("*.sock") if socket.stem != self.own)

    async def _ask(self, socket: Path, method: str, path: str, timeout_s: float) -> PeerReply | None:
        headers = {"authorization": f"Bearer {self.token}", ALONE_HEADER: "1", "accept": "application/json"}
        try:
            with unix_address(socket) as address:
                transport = httpx.AsyncHTTPTransport(uds=address, verify=_NO_TLS, trust_env=False)
                client = httpx.AsyncClient(transport=transport, trust_env=False, timeout=timeout_s)
                async with asyncio.timeout(timeout_s), client:
                    reply = await client.request(method, f"http://replica{path}", headers=headers)
                    return PeerReply(socket.stem, reply.status_code, reply.content)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            if _is_connection_refused(error) and _remove_stale_socket(socket):
                return None
            return PeerReply(socket.stem, 0)


def _is_connection_refused(error: BaseException | None) -> bool:
    """Whether no process listens on a socket file: it has ended, or is still starting."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remove_stale_socket(socket: Path) -> bool:
    """Removes the socket file of a replica that has ended; not a fresh one: its replica is still starting."""
    try:
        if time.time() - socket.stat().st_mtime < STARTUP_GRACE_S:
            return False
        socket.unlink()
    except FileNotFoundError:
        pass
    return True


def merge(texts: Sequence[bytes]) -> bytes:
    """Several replicas' Prometheus texts as one, each family once.

    Args:    texts: expositions whose series differ by a `replica` label.
    Returns: HELP and TYPE from the first that has the family, then all of its series.
    """
    heads: dict[str, dict[str, str]] = {}
    series: dict[str, list[str]] = {}
    for text in texts:
        family = ""
        for line in text.decode().split("\n"):
            if line.startswith(("# HELP ", "# TYPE ")):
                _, kind, family = line.split(" ", 3)[:3]
                heads.setdefault(family, {}).setdefault(kind, line)
            elif line and not line.startswith("#"):
                series.setdefault(family, []).append(line)
    lines = [line for family in series for line in (*heads.get(family, {}).values(), *series[family])]
    return "".join(f"{line}\n" for line in lines).encode()
