"""HTTP/1.1 over a plain socket: what is sent and what comes are bytes, which no client library changes."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

from bench.same_answers.exchange import TIMED_OUT, HttpExchange, RecordedAnswer

REPLY_S, CLOSE_S = 20.0, 20.0
CONTENT_LENGTH = re.compile(rb"^content-length: *([0-9]+) *\r$", re.IGNORECASE | re.MULTILINE)
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
SOCKET_READ_BYTES = 2**16


@dataclass(slots=True)
class HttpConnection:
    """One connection. unread: bytes received and not yet taken; parts: the answer so far."""

    sock: socket.socket
    unread: bytes = b""
    ended: bool = False
    parts: list[tuple[str, bytes]] = field(default_factory=list)

    def receive(self) -> bool:
        """Waits for more bytes; False at the end of the connection."""
        try:
            got = self.sock.recv(SOCKET_READ_BYTES)
        except ConnectionError:
            got = b""
        self.unread += got
        self.ended = self.ended or not got
        return bool(got)

    def take(self, count: int) -> bytes:
        """So many bytes, or as many as there are before the end."""
        while len(self.unread) < count and self.receive():
            pass
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def reply(self, number: int, bodyless: bool) -> bool:
        """Takes one reply, with what comes before it as 1xx. False if the connection ends before."""
        while True:
            while b"\r\n\r\n" not in self.unread:
                if not self.receive():
                    return False
            head, _, self.unread = self.unread.partition(b"\r\n\r\n")
            first, _, lines = head.partition(b"\r\n")
            status = STATUS_LINE.match(first)
            before = status is not None and status[1][:1] == b"1"
            prefix = f"{len(self.parts)}, before " if before else ""
            self.parts.append((f"{prefix}status {number}", first))
            self.parts.append((f"{prefix}headers {number}", lines))
            if not before:
                break
        length = CONTENT_LENGTH.search(lines + b"\r")
        bodyless = bodyless or first.split(b" ")[1:2] in ([b"204"], [b"304"])
        if not bodyless:
            self.parts.append((f"body {number}", self.take(int(length[1])) if length else b""))
        return True


def send_exchange(port: int, exchange: HttpExchange, parts: tuple[bytes, ...]) -> RecordedAnswer:
    """What comes back for a case whose placeholders are filled in: every reply, then how it ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=REPLY_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = HttpConnection(sock)
        try:
            _exchange(connection, exchange, parts)
        except TimeoutError:
            connection.parts.append(("end", TIMED_OUT))
    return tuple(connection.parts)


def _exchange(connection: HttpConnection, exchange: HttpExchange, parts: tuple[bytes, ...]) -> None:
    number, last = 0, len(parts) - 1
    for i, part in enumerate(parts):
        _send_part(connection, part)
        if i == last and exchange.half_close:
            connection.sock.shutdown(socket.SHUT_WR)
        replies = exchange.replies if i == last else 1
        while replies == 0 or number < i + replies:
            if not connection.reply(number, number in exchange.bodyless):
                break
            number += 1
    if not connection.ended and not exchange.half_close:
        _close_sending(connection)
    connection.sock.settimeout(CLOSE_S)
    while connection.receive():
        pass
    connection.parts.append(("rest", connection.unread))
    connection.parts.append(("end", b"%d replies, then the end" % number))


def _send_part(connection: HttpConnection, part: bytes) -> None:
    """Sends a part; the server may close the connection meanwhile, and its reply is read all the same."""
    try:
        connection.sock.sendall(part)
    except ConnectionError:
        pass


def _close_sending(connection: HttpConnection) -> None:
    try:
        connection.sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
