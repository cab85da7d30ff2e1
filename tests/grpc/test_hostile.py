"""Hostile calls against the gRPC server of a gateway in a process of its own."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.support.deployments import FULL_RATE, clean_rows, edit
from tests.support.grpc_client import INFER, request_of
from tests.support.served import Served, copy_of, serving

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
pytestmark = pytest.mark.alone
DATA, HEADERS, RST, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
CONNECTIONS = 512


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = copy_of("letters", tmp_path_factory.mktemp("hostile"))
    room = f"anonymous: loopback, max_connections: {CONNECTIONS}"
    edit(folder, FULL_RATE, ("anonymous: loopback", room))
    with serving(folder, "--local") as made:
        yield made


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def literal(name: str, value: str) -> bytes:
    """One header without Huffman and without the table."""

    def text(one: str) -> bytes:
        size = len(one)
        if size < 127:
            return bytes([size]) + one.encode()
        size, head = size - 127, b"\x7f"
        while size > 127:
            head, size = head + bytes([size & 127 | 128]), size >> 7
        return head + bytes([size]) + one.encode()

    return b"\0" + text(name) + text(value)


def head(**more: str) -> bytes:
    pairs = {":method": "POST", ":scheme": "http", ":path": INFER, ":authority": "x", "te": "trailers"}
    pairs |= {"content-type": "application/grpc"} | {k.replace("_", "-"): v for k, v in more.items()}
    return b"".join(literal(*pair) for pair in pairs.items())


def opened(at: str, *frames: bytes) -> socket.socket:
    """A connection that has said hello, and so much more."""
    host, _, port = at.partition(":")
    wire = socket.create_connection((host, int(port)), timeout=5)
    with contextlib.suppress(OSError):  # some are hung up on while they speak
        wire.sendall(b"".join((PREFACE, frame(SETTINGS, 0, 0), *frames)))
    return wire


def heard(wire: socket.socket, within_s: float = 0.3) -> bytes:
    """What comes until the other end falls silent or hangs up."""
    wire.settimeout(within_s)
    got = b""
    with contextlib.suppress(OSError):
        while more := wire.recv(65536):
            got += more
    return got


def bomb(at: str, coding: str) -> None:
    """100 MiB of nothing, as some 100 KiB."""
    packed = gzip.compress(bytes(100 * 2**20)) if coding == "gzip" else zlib.compress(bytes(100 * 2**20))
    message = b"\x01" + struct.pack(">I", len(packed)) + packed
    parts = [message[i : i + 16_000] for i in range(0, min(len(message), 64_000), 16_000)]
    rest = message[64_000:]
    with opened(at, frame(HEADERS, END_HEADERS, 1, head(grpc_encoding=coding))) as wire:
        for part in parts:
            wire.sendall(frame(DATA, 0, 1, part))
        time.sleep(0.1)  # until the window is larger
        with contextlib.suppress(OSError):
            for i in range(0, len(rest), 16_000):
                last = END_STREAM if i + 16_000 >= len(rest) else 0
                wire.sendall(frame(DATA, last, 1, rest[i : i + 16_000]))
        assert b"grpc-status" in heard(wire)


def one(*frames: bytes) -> Callable[[str], None]:
    def attack(at: str) -> None:
        with opened(at, *frames) as wire:
            heard(wire)

    return attack


def bare(*sent: bytes) -> Callable[[str], None]:
    def attack(at: str) -> None:
        host, _, port = at.partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as wire:
            with contextlib.suppress(OSError):
                wire.sendall(b"".join(sent))
            heard(wire)

    return attack


def flood(at: str) -> None:
    """More connections than the server accepts."""
    wires = []
    try:
        for _ in range(1100):
            with contextlib.suppress(OSError):
                wires.append(opened(at))
        time.sleep(0.3)
    finally:
        for wire in wires:
            wire.close()


STREAMS = range(1, 6001, 2)
HEAD = head()
ATTACKS: dict[str, Callable[[str], None]] = {
    "gzip bomb": lambda at: bomb(at, "gzip"),
    "deflate bomb": lambda at: bomb(at, "deflate"),
    "noise": bare(os.urandom(65_536)),
    "HTTP/1.1": bare(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
    "preface and silence": one(),
    "half a preface": bare(PREFACE[:10]),
    "a flood of connections": flood,
    "streams without end": one(*(frame(HEADERS, END_HEADERS, i, HEAD) for i in STREAMS)),
    "rapid reset": one(
        *(frame(HEADERS, END_HEADERS, i, HEAD) + frame(RST, 0, i, struct.pack(">I", 8)) for i in STREAMS)
    ),
    "headers without end": one(
        frame(HEADERS, 0, 1, HEAD),
        *(frame(CONTINUATION, 0, 1, literal("x-a", "a" * 8000)) for _ in range(200)),
    ),
    "200 KB of headers": one(
        frame(HEADERS, 0, 1, HEAD),
        *(frame(CONTINUATION, 0, 1, literal(f"x-{i}", "a" * 10_000)) for i in range(20)),
        frame(CONTINUATION, END_HEADERS, 1),
    ),
    "a message that stops": one(
        frame(HEADERS, END_HEADERS, 1, HEAD), frame(DATA, 0, 1, b"\0\0\0\x10\0" + b"x" * 9)
    ),
    "a message that says 4 GiB": one(
        frame(HEADERS, END_HEADERS, 1, HEAD), frame(DATA, 0, 1, b"\0\xff\xff\xff\xff" + b"x" * 9)
    ),
    "pings": one(*(frame(PING, 0, 0, b"12345678") for _ in range(5000))),
    "a window of nothing": one(
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)), frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD)
    ),
}


def well(served: Served) -> None:
    """A good caller on a connection of its own is answered within a second."""
    raw = request_of(clean_rows(1)).SerializeToString()
    start_s = time.perf_counter()
    with grpc.insecure_channel(served.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            channel.unary_unary(INFER)(raw, timeout=5)
        except grpc.RpcError as error:  # a row may be deferred: that is an answer
            assert "x-failsafe-outcome" in dict(error.trailing_metadata()), error
    assert time.perf_counter() - start_s < 1.0
    assert served.process.poll() is None


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_ends_soon_and_the_next_request_is_answered(
    served: Served, attack: Callable[[str], None]
) -> None:
    start_s = time.perf_counter()
    attack(served.grpc)
    assert time.perf_counter() - start_s < 5.0
    well(served)


def test_connections_beyond_the_limit_are_closed_and_later_ones_accepted(served: Served) -> None:
    wires = [opened(served.grpc) for _ in range(CONNECTIONS + 40)]
    time.sleep(0.5)
    refused = sum(hung_up(wire) for wire in wires)
    for wire in wires:
        wire.close()
    assert refused >= 40
    well(served)


def hung_up(wire: socket.socket) -> bool:
    """Whether the other end has, whatever it said before."""
    wire.setblocking(False)
    try:
        while wire.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_repeated_attacks_leave_no_memory_behind(served: Served) -> None:
    def megabytes() -> float:
        pages = Path(f"/proc/{served.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def all_of_them() -> float:
        for name, attack in ATTACKS.items():
            if name != "a flood of connections":  # the slow one, tried above
                attack(served.grpc)
        well(served)
        return megabytes()

    all_of_them()
    before = all_of_them()
    assert all_of_them() < before * 1.05
