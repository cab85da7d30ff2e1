"""What a connection may take of us before anybody knows who it is, and what a request may claim of itself.

The parser (llhttp) is strict by itself about syntax, and about a Content-Length that is repeated, no number
or beside a Transfer-Encoding. What it lets through and we do not serve is refused here, before the body:
ambiguous framing above all, since whatever stands before us may have read it in another way.
"""

from __future__ import annotations

import logging
import math
import resource
from dataclasses import dataclass

from gateway.listener.messages import Fault, Headers

BODY_TIMEOUT_S = 10.0
CHUNK_LINE_BYTES = 16
SPARE_CONNECTIONS = 64
"""How many connections beyond the limit are told why they are turned away."""
OTHER_FILES = 256
"""Open files of everything but connections: stores, logs, models, Ray."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of each connection, whoever is at the other end, and of all. A body's size is the handler's to limit.

    handshake_s: of TLS; head_bytes, headers: of one request, trailers included; head_s: from its first byte
    to the end of the head; body_s: from there to its end; idle_s: between two requests; stuck_s: in which a
    caller takes not one byte of a reply; linger_s: for a caller to read why we hang up; ahead: requests sent
    without waiting for an answer; chunks: of one body; sweep_s: how often the clock is looked at;
    connections: open at once; connections_per_caller: of one principal, unless proxies stand before it.
    """

    head_bytes: int = 16 * 1024
    headers: int = 64
    handshake_s: float = 5.0
    head_s: float = 5.0
    body_s: float = BODY_TIMEOUT_S
    idle_s: float = 75.0
    stuck_s: float = 10.0
    linger_s: float = 2.0
    ahead: int = 64
    chunks: int = 16_384
    sweep_s: float = 0.5
    connections: int = 2048
    connections_per_caller: int = 256

    def framing_bytes(self, chunks: int) -> int:
        """How much around the data of so many chunks is still honest: a line each, and trailers."""
        return self.head_bytes + CHUNK_LINE_BYTES * chunks


def room_for(connections: int) -> int:
    """How many connections of HTTP this process can have open: so many, if it may open as many files.

    And as many again, which gRPC may have.

    Raises the soft limit of open files where that is too low. What even the hard one does not allow is told
    in the log.
    """
    wanted = 2 * connections + SPARE_CONNECTIONS + OTHER_FILES
    soft, hard = (math.inf if n == resource.RLIM_INFINITY else n for n in _open_files())
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), _open_files()[1]))
    room = int(max(1, min(connections, connections + (soft - wanted) // 2)))
    if room < connections:
        log.warning("at most %d connections at once: %d open files are allowed (ulimit -Hn)", room, soft)
    return room


def _open_files() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


class Violation(Exception):
    """A caller broke a rule, after which the bytes of its connection mean nothing any more."""

    def __init__(self, fault: Fault, what: str = "") -> None:
        super().__init__(what)
        self.fault, self.what = fault, what


SPECIAL = frozenset({b"transfer-encoding", b"expect", b"connection", b"upgrade"})
"""The headers for which `hold` has to be asked, and so it must where the connection will not be kept."""


def hold(headers: Headers, version: str, upgrade: bool) -> bool:
    """Holds a head to what this server does. Returns whether it speaks HTTP/1.1; else it is 1.0.

    Raises:  Violation for another protocol, another coding, another expectation or ambiguous framing.
    """
    if upgrade:
        raise Violation(Fault.UNSUPPORTED, "this server speaks HTTP/1.1 and upgrades to nothing else")
    if version not in ("1.1", "1.0"):
        raise Violation(Fault.INVALID, "this server speaks HTTP/1.1 and HTTP/1.0")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if version != "1.1" or b"content-length" in headers:
            raise Violation(Fault.INVALID, "Transfer-Encoding beside Content-Length or before HTTP/1.1")
        if coding.lower() != b"chunked":
            raise Violation(Fault.UNSUPPORTED, "Transfer-Encoding must be chunked")
    if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
        raise Violation(Fault.UNMET_EXPECTATION, "Expect must be 100-continue")
    return version == "1.1"
