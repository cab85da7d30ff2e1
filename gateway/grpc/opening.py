"""The first bytes of a connection of gRPC: the preface of HTTP/2 and its SETTINGS (RFC 9113, 3.4), or TLS."""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES, MAX_SETTINGS_BYTES = 9, 1024
SETTINGS = 4
"""The type of the frame."""
RECORD_HEAD_BYTES, MAX_RECORD_BYTES = 5, 2**14
HANDSHAKE = b"\x16\x03"
"""The type of a record of TLS, and the first byte of its version."""


def opening_bytes(begun: bytes, *, tls: bool) -> int | None:
    """How many bytes the opening has, as far as what has come tells; at least one more than came if unknown.

    Args:    begun: all that has come. tls: whether the connection begins with TLS.
    Returns: None if it is no opening.
    """
    return _of_tls(begun) if tls else _of_http_2(begun)


def _of_http_2(begun: bytes) -> int | None:
    if begun[: len(PREFACE)] != PREFACE[: len(begun)]:
        return None
    head = begun[len(PREFACE) :][:FRAME_HEAD_BYTES]
    if len(head) < FRAME_HEAD_BYTES:
        return len(PREFACE) + FRAME_HEAD_BYTES
    size = int.from_bytes(head[:3], "big")
    if head[3] != SETTINGS or size > MAX_SETTINGS_BYTES:
        return None
    return len(PREFACE) + FRAME_HEAD_BYTES + size


def _of_tls(begun: bytes) -> int | None:
    """A record with what is to be the ClientHello, which grpc reads."""
    if begun[:2] != HANDSHAKE[: len(begun)]:
        return None
    if len(begun) < RECORD_HEAD_BYTES:
        return RECORD_HEAD_BYTES
    size = int.from_bytes(begun[3:5], "big")
    return RECORD_HEAD_BYTES + size if 0 < size <= MAX_RECORD_BYTES else None
