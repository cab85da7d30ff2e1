"""Answers clients that connect while the event loop is blocked: a refusal, sent by threads of its own.

Connections wait in the queue of the listening socket until they are accepted, which the event loop cannot do
while it is blocked. Any thread may accept them: the kernel gives each to one of those that ask. So a probe is
told in time, and a caller gets an end. Connections that the event loop has accepted before are left to it.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.listener.connection import CLOSE_HEADER, STATUS_LINES
from gateway.listener.messages import Reply

REPLY_S: Final = 1.0
"""How long a client may take to send its head, and then to read the reply and close."""
HEAD_BYTES: Final = 64 * 1024
MOST_AT_ONCE: Final = 64
"""Connections that are answered at the same time; more wait, for a second at most."""


class StalledListener:
    """The listening socket of a blocked event loop. refusal: makes the reply to each connection.

    tls: all connections are of TLS.
    """

    def __init__(
        self, listening: socket.socket, refusal: Callable[[], Reply], tls: ssl.SSLContext | None = None
    ) -> None:
        self._listening, self._refusal, self._tls = listening, refusal, tls
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._waiting = select.poll()
        self._waiting.register(listening, select.POLLIN)

    def answer_next(self, within_s: float) -> None:
        """Accepts the next connection that comes within this time, and has it answered. From one thread."""
        if not self._free.acquire(timeout=within_s):
            return
        try:
            if self._waiting.poll(within_s * 1000):
                connection, _ = self._listening.accept()
                refusal = (connection, self._refusal())
                threading.Thread(target=self._answer, args=refusal, name="stalled", daemon=True).start()
                return
        except BlockingIOError:
            pass  # the event loop was faster
        except (OSError, RuntimeError):  # no file descriptor or thread is free, or the socket is closed
            time.sleep(within_s)
        self._free.release()

    def _answer(self, connection: socket.socket, reply: Reply) -> None:
        try:
            connection.settimeout(REPLY_S)
            with suppress(OSError), self._secured(connection) as secured:
                self._exchange(secured, reply)
        finally:
            connection.close()
            self._free.release()

    def _secured(self, connection: socket.socket) -> socket.socket:
        """The connection after the handshake of TLS, if it is of TLS. Raises OSError."""
        return connection if self._tls is None else self._tls.wrap_socket(connection, server_side=True)

    def _exchange(self, connection: socket.socket, reply: Reply) -> None:
        """Reads a head, replies, and drops what else comes, so that the client can read the reply."""
        until_s, head = time.monotonic() + REPLY_S, b""
        while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES and time.monotonic() < until_s:
            received = connection.recv(HEAD_BYTES)
            if not received:
                return
            head += received
        connection.sendall(last_reply(reply, head_only=head.startswith(b"HEAD ")))
        connection.shutdown(socket.SHUT_WR)
        until_s = time.monotonic() + REPLY_S
        while time.monotonic() < until_s and connection.recv(HEAD_BYTES):
            pass


def last_reply(reply: Reply, *, head_only: bool) -> bytes:
    """A reply as it is sent, after which the connection ends. head_only: without its body."""
    length = b"content-length: %d\r\n" % len(reply.body)
    body = b"" if head_only else reply.body
    return b"".join((STATUS_LINES[reply.status], reply.headers, length, CLOSE_HEADER, b"\r\n", body))
