"""The other replicas of this deployment on this machine: request the same from all, and reply as one.

The kernel gives a connection to any of the replicas, so one replica's answer is only a part. Each also
listens on a unix socket in one folder; the replica that gets a request forwards it to the others there, and
they reply for themselves alone, because the forwarded request carries `x-fs-alone`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

ALONE = "x-fs-alone"
TIMEOUT_S = 0.5
FRESH_S = 2.0
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; httpx would read all authorities each time


@dataclass(frozen=True, slots=True)
class PeerReply:
    """The reply of one replica. `status` is 0 where none came in time."""

    replica: str
    status: int
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        """The body, or None where it is no JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class PeerReplicas:
    """The sockets in `folder` except our own. token: the administration token of each."""

    folder: Path
    own: str
    token: str

    async def ask(self, method: str, path: str, timeout_s: float = TIMEOUT_S) -> list[PeerReply]:
        """The reply of every other running replica, in the order of their names. Never raises.

        Cost: that of the slowest, at most `timeout_s`; about 3 ms for one that is idle.
        """
        others = sorted(one for one in self.folder.glob("*.sock") if one.stem != self.own)
        answers = await asyncio.gather(*(self._ask(one, method, path, timeout_s) for one in others))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, at: Path, method: str, path: str, timeout_s: float) -> PeerReply | None:
        headers = {"authorization": f"Bearer {self.token}", ALONE: "1", "accept": "application/json"}
        wire = httpx.AsyncHTTPTransport(uds=str(at), verify=_NO_TLS, trust_env=False)
        try:
            async with (
                asyncio.timeout(timeout_s),
                httpx.AsyncClient(transport=wire, trust_env=False, timeout=timeout_s) as client,
            ):
                reply = await client.request(method, f"http://replica{path}", headers=headers)
                return PeerReply(at.stem, reply.status_code, reply.content)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            if _refused(error) and _forget(at):
                return None
            return PeerReply(at.stem, 0)


def _refused(error: BaseException | None) -> bool:
    """Whether no process listens on a socket file: it has ended, or is still starting."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _forget(at: Path) -> bool:
    """Removes the socket file of a replica that has ended; not a fresh one: its replica is still starting."""
    try:
        if time.time() - at.stat().st_mtime < FRESH_S:
            return False
        at.unlink()
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
