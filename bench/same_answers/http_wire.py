"""HTTP/1.1 over a plain socket: what is sent and what comes are bytes, which no client library changes."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

from bench.same_answers.exchange import TIMED_OUT, HttpExchange, RecordedAnswer

REPLY_S, CLOSE_S = 20.0, 20.0
CONTENT_LENGTH = re.compile(rb"^content-length: *([0-9]+) *\r$", re.IGNORECASE | re.MULTILINE)
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
READ_BYTES = 2**16


@dataclass(slots=True)
class Wire:
    """One connection, and what came over it that is not taken yet."""

    own: socket.socket
    held: bytes = b""
    ended: bool = False
    fields: list[tuple[str, bytes]] = field(default_factory=list)

    def more(self) -> bool:
        """Waits for more bytes; False at the end of the connection."""
        try:
            got = self.own.recv(READ_BYTES)
        except ConnectionError:
            got = b""
        self.held += got
        self.ended = self.ended or not got
        return bool(got)

    def take(self, count: int) -> bytes:
        """So many bytes, or as many as there are before the end."""
        while len(self.held) < count and self.more():
            pass
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def reply(self, number: int, bodyless: bool) -> bool:
        """Takes one reply, with what comes before it as 1xx. False if the connection ends before."""
        while True:
            while b"\r\n\r\n" not in self.held:
                if not self.more():
                    return False
            head, _, self.held = self.held.partition(b"\r\n\r\n")
            first, _, lines = head.partition(b"\r\n")
            status = STATUS_LINE.match(first)
            before = status is not None and status[1][:1] == b"1"
            prefix = f"{len(self.fields)}, before " if before else ""
            self.fields.append((f"{prefix}status {number}", first))
            self.fields.append((f"{prefix}headers {number}", lines))
            if not before:
                break
        length = CONTENT_LENGTH.search(lines + b"\r")
        bodyless = bodyless or first.split(b" ")[1:2] in ([b"204"], [b"304"])
        if not bodyless:
            self.fields.append((f"body {number}", self.take(int(length[1])) if length else b""))
        return True


def send_exchange(port: int, exchange: HttpExchange, parts: tuple[bytes, ...]) -> RecordedAnswer:
    """What comes back for a case whose placeholders are filled in: every reply, then how it ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=REPLY_S) as own:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(own)
        try:
            _exchange(wire, exchange, parts)
        except TimeoutError:
            wire.fields.append(("end", TIMED_OUT))
    return tuple(wire.fields)


def _exchange(wire: Wire, exchange: HttpExchange, parts: tuple[bytes, ...]) -> None:
    number, last = 0, len(parts) - 1
    for i, part in enumerate(parts):
        _send_part(wire, part)
        if i == last and exchange.half_close:
            wire.own.shutdown(socket.SHUT_WR)
        replies = exchange.replies if i == last else 1
        while replies == 0 or number < i + replies:
            if not wire.reply(number, number in exchange.bodyless):
                break
            number += 1
    if not wire.ended and not exchange.half_close:
        _close_sending(wire)
    wire.own.settimeout(CLOSE_S)
    while wire.more():
        pass
    wire.fields.append(("rest", wire.held))
    wire.fields.append(("end", b"%d replies, then the end" % number))


def _send_part(wire: Wire, part: bytes) -> None:
    """Sends a part; the server may close the connection meanwhile, and its reply is read all the same."""
    try:
        wire.own.sendall(part)
    except ConnectionError:
        pass


def _close_sending(wire: Wire) -> None:
    try:
        wire.own.shutdown(socket.SHUT_WR)
    except OSError:
        pass
