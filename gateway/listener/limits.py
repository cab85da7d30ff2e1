"""The limits of a connection before its client is authenticated, and the check of a request's head.

The parser (llhttp) is strict by itself about syntax, and about a Content-Length that is repeated, no number
or beside a Transfer-Encoding. What it accepts and this server does not serve is refused here, before the
body: ambiguous framing above all, since a proxy before this server may have read it in another way, which is
how requests are smuggled.
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
"""How many connections beyond the limit get a 503; any more are closed without a reply."""
OTHER_FILES = 256
"""Open files other than connections: stores, logs, models, Ray."""
FILES_PER_GRPC_CONNECTION = 3
"""The client's, and both ends of the unix socket to grpc."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each connection, whether or not its client is known, and of all.

    The handler limits the size of a body.

    handshake_s: of TLS; head_bytes, headers: of one request, trailers included; head_s: from its first byte
    to the end of the head; body_s: from there to its end; idle_s: between two requests; stuck_s: in which a
    client takes not one byte of a reply; linger_s: for a client to read the last reply and close; pipelined:
    requests sent without waiting for a reply; chunks: of one body; sweep_s: how often deadlines are compared
    with the clock; connections: open at once; connections_per_address, connections_per_caller: of one address
    and of one principal, unless proxies stand before the server; spare_connections: how many more are told
    why they are refused.
    """

    head_bytes: int = 16 * 1024
    headers: int = 64
    handshake_s: float = 5.0
    head_s: float = 5.0
    body_s: float = BODY_TIMEOUT_S
    idle_s: float = 75.0
    stuck_s: float = 10.0
    linger_s: float = 2.0
    pipelined: int = 64
    chunks: int = 16_384
    sweep_s: float = 0.5
    connections: int = 2048
    connections_per_address: int = 1024
    connections_per_caller: int = 256
    spare_connections: int = SPARE_CONNECTIONS

    def framing_bytes(self, chunks: int) -> int:
        """How many bytes around the data of so many chunks are accepted: a line each, and trailers."""
        return self.head_bytes + CHUNK_LINE_BYTES * chunks


def connection_capacity(connections: int, reserved_files: int) -> int:
    """How many connections of HTTP this process can have open: `connections`, or fewer.

    gRPC may have as many again. Raises the soft limit of open files where that is too low; if the hard limit
    allows fewer connections, logs a warning.

    Args:    reserved_files: for what must never be without: administration, stores, logs, models.
    """
    files_each = 1 + FILES_PER_GRPC_CONNECTION
    needed = files_each * connections + SPARE_CONNECTIONS + reserved_files
    soft, hard = (math.inf if n == resource.RLIM_INFINITY else n for n in _open_files())
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), _open_files()[1]))
    capacity = int(max(1, min(connections, connections + (soft - needed) // files_each)))
    if capacity < connections:
        log.warning("at most %d connections at once: %d open files are allowed (ulimit -Hn)", capacity, soft)
    return capacity


def _open_files() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


class RemoteProtocolError(Exception):
    """A client broke HTTP or a limit, after which the bytes of its connection have no meaning any more."""

    def __init__(self, fault: Fault, what: str = "") -> None:
        super().__init__(what)
        self.fault, self.what = fault, what


CHECKED_HEADERS = frozenset({b"transfer-encoding", b"expect", b"connection", b"upgrade"})
"""A head with one of these needs `check_head`; so does one without Host, and one after which the connection
closes."""


def check_head(headers: Headers, version: str, tunnel: bool) -> bool:
    """Checks a head for what this server does not do. Returns whether it is HTTP/1.1; else it is HTTP/1.0.

    An offer to upgrade is ignored (RFC 9110, section 7.8): Java's client makes one by default.

    Args:    tunnel: whether the method is CONNECT.
    Raises:  RemoteProtocolError for another protocol, coding or expectation, and for ambiguous framing.
    """
    if tunnel:
        raise RemoteProtocolError(Fault.UNSUPPORTED, "this server makes no tunnels")
    if version not in ("1.1", "1.0"):
        raise RemoteProtocolError(Fault.INVALID, "this server speaks HTTP/1.1 and HTTP/1.0")
    if version == "1.1" and b"host" not in headers:
        raise RemoteProtocolError(Fault.INVALID, "HTTP/1.1 needs the header Host")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if version != "1.1" or b"content-length" in headers:
            what = "Transfer-Encoding beside Content-Length or before HTTP/1.1"
            raise RemoteProtocolError(Fault.INVALID, what)
        if coding.lower() != b"chunked":
            raise RemoteProtocolError(Fault.UNSUPPORTED, "Transfer-Encoding must be chunked")
    if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
        raise RemoteProtocolError(Fault.UNMET_EXPECTATION, "Expect must be 100-continue")
    return version == "1.1"


def head_of_body(headers: Headers) -> bytes:
    """A head after which llhttp reads the body that these checked headers announce."""
    if b"transfer-encoding" in headers:
        return b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    return b"POST / HTTP/1.1\r\ncontent-length: %b\r\n\r\n" % headers.get(b"content-length", b"0")
