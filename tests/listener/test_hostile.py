"""Attacks on a gateway in a process of its own, over raw sockets.

Each attack ends in a refusal in JSON or a closed connection, in time; the next good request is answered in
a second by the same process; and when all is over the process is no larger than it was.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployments import FULL_RATE, edit, letters
from tests.support.raw_http import chunked, get, post
from tests.support.served import Served, clean_rows, serving

INFER = "/v2/models/letters/infer"
TENSOR = {"name": "attributes", "datatype": "FP32", "shape": [1, 16], "data": clean_rows(1)[0].tolist()}
HEAD_S, BODY_S, SPARE_S = 5.0, 10.0, 2.0
MOST = 120
"""Connections that the gateway under attack accepts."""
pytestmark = pytest.mark.alone
CLOSED = 0
"""The end without a reply, or with one that was lost with the connection."""
MB = 2**20
HEAD = re.compile(rb"HTTP/1\.1 (\d+) (?:[^\r\n]*\r\n)+?content-length: (\d+)\r\n(?:[^\r\n]+\r\n)*\r\n")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = letters(tmp_path_factory.mktemp("hostile"), FULL_RATE)
    few = f"anonymous: loopback, max_connections: {MOST}"
    edit(folder, ("anonymous: loopback", few))
    with serving(folder, "--local") as served:
        yield served


def port_of(target: Served) -> int:
    port = target.data.base_url.port
    assert port is not None
    return port


def connected(target: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(target)), timeout=5)


def assert_serves(target: Served) -> None:
    """A good request is answered within a second, by the same process."""
    assert target.process.poll() is None
    start_s = time.monotonic()
    reply = target.data.post(INFER, json={"inputs": [TENSOR]}, headers={"connection": "close"})
    assert time.monotonic() - start_s < 1.0
    assert reply.status_code == 200, reply.text


def final_status(connection: socket.socket, within_s: float = 5.0) -> int:
    """The status of the first reply that is no success; CLOSED if the connection ends before."""
    got, until_s = b"", time.monotonic() + within_s
    while time.monotonic() < until_s:
        while (found := HEAD.match(got)) and len(got) >= (whole := found.end() + int(found[2])):
            status, body, got = int(found[1]), got[found.end() : whole], got[whole:]
            if status >= 400:
                error = json.loads(body)["error"]
                assert isinstance(error, str) and error
                return status
        connection.settimeout(max(0.01, until_s - time.monotonic()))
        try:
            more = connection.recv(MB)
        except TimeoutError:
            break
        except OSError:
            return CLOSED
        if not more:
            return CLOSED
        got += more
    raise AssertionError(f"nothing has come of it in {within_s} s but {got[:200]!r}")


def attack(target: Served, sent: bytes) -> int:
    with connected(target) as connection:
        try:
            connection.sendall(sent)
        except OSError:  # refused before all was sent: the reply may still be there
            pass
        return final_status(connection)


# ---------------------------------------------------------------- requests sent at once


def infer(body: bytes | str, *headers: str) -> bytes:
    return post(INFER, body.encode() if isinstance(body, str) else body, *headers)


def tensor(**members: Any) -> bytes:
    return infer(json.dumps({"inputs": [TENSOR | members]}))


def document(text: str, **members: Any) -> bytes:
    """A good request in which `?` stands for some text."""
    whole = json.dumps({"inputs": [TENSOR | members]})
    assert whole.count('"?"') == 1
    return infer(whole.replace('"?"', text))


def head(*lines: str | bytes, first: str = f"POST {INFER} HTTP/1.1") -> bytes:
    texts = (
        line.encode("latin-1") if isinstance(line, str) else line
        for line in (first, "Host: localhost", *lines)
    )
    return b"".join(line + b"\r\n" for line in texts) + b"\r\n"


def bomb(wbits: int) -> bytes:
    machine = zlib.compressobj(9, wbits=wbits)
    return b"".join([machine.compress(bytes(MB)) for _ in range(300)]) + machine.flush()


CHUNKED = head("Transfer-Encoding: chunked")
DEEP = 250_000
BINARY = json.dumps({"inputs": [TENSOR | {"data": None, "parameters": {"binary_data_size": 64}}]}).encode()
GOOD = json.dumps({"inputs": [TENSOR]})


def binary(tail: bytes, length: int | str = len(BINARY), announced: int = 64) -> bytes:
    header = BINARY.replace(b'"binary_data_size": 64', b'"binary_data_size": %d' % announced)
    return infer(header + tail, f"Inference-Header-Content-Length: {length}")


AT_ONCE: Mapping[str, tuple[bytes, set[int]]] = {
    "200 KB in one header": (head("X-A: " + "a" * 200_000), {431, CLOSED}),
    "200 KB in many headers": (head(*[f"X-{i}: {'a' * 50}" for i in range(3500)]), {431, CLOSED}),
    "a header without end": (head()[:-2] + b"X-A: " + b"a" * MB, {431, CLOSED}),
    "a request line of 1 MB": (head(first=f"GET /{'a' * MB} HTTP/1.1"), {431, CLOSED}),
    "binary garbage": (bytes(range(256)) * 400, {400, CLOSED}),
    "zeros": (bytes(100_000), {400, CLOSED}),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508), {400}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100), {400}),
    "an upgrade to HTTP/2 without a body": (
        head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
        {400},
    ),
    "a huge chunk": (CHUNKED + b"f" * 16 + b"\r\n" + b"x" * 9 * MB, {400, 413, CLOSED}),
    "a chunk beyond 64 bits": (CHUNKED + b"1" + b"0" * 16 + b"\r\nx", {400}),
    "a negative chunk": (CHUNKED + b"-1\r\nx\r\n0\r\n\r\n", {400}),
    "a chunk extension without end": (CHUNKED + b"1;a=" + b"b" * MB, {400, CLOSED}),
    "chunks of one byte": (CHUNKED + b"1\r\nx\r\n" * 100_000, {400, 413, CLOSED}),
    "a flood of trailers": (
        CHUNKED + b"0\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(10_000)) + b"\r\n",
        {431, CLOSED},
    ),
    "a trailer without end": (CHUNKED + b"0\r\nX-A: " + b"a" * MB, {400, 431, CLOSED}),
    "length and chunks": (head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\nGET", {400}),
    "chunks and length": (head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\nGET", {400}),
    "two lengths": (head("Content-Length: 5", "Content-Length: 6") + b"helloG", {400}),
    "a list of lengths": (head("Content-Length: 5, 5") + b"hello", {400}),
    "a length with a sign": (head("Content-Length: +5") + b"hello", {400}),
    "a length beyond 64 bits": (head("Content-Length: " + "9" * 25) + b"hello", {400}),
    "a length of terabytes": (head("Content-Length: " + "9" * 13) + b"hello", {413}),
    "chunked twice": (head("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", {400}),
    "chunked in disguise": (head("Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n", {400, 501}),
    "chunks in HTTP/1.0": (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n", {400}),
    "a space before the colon": (head("Content-Length : 5") + b"hello", {400}),
    "a folded header": (head("X-A: a", " b: c"), {400}),
    "a bare CR": (head("X-A: a\rContent-Length: 5") + b"hello", {400}),
    "a bare LF": (head()[:-4] + b"\nContent-Length: 5\n\nhello", {400}),
    "NUL in a header": (head("X-A: a\0b"), {400}),
    "gzip, a bomb": (infer(bomb(31), "Content-Encoding: gzip"), {413}),
    "deflate, a bomb": (infer(bomb(15), "Content-Encoding: deflate"), {413}),
    "gzip that is none": (infer(GOOD, "Content-Encoding: gzip"), {400}),
    "gzip cut short": (infer(gzip.compress(GOOD.encode())[:-3], "Content-Encoding: gzip"), {400}),
    "gzip twice": (
        infer(gzip.compress(gzip.compress(GOOD.encode())), "Content-Encoding: gzip, gzip"),
        {415},
    ),
    "an unknown coding": (infer(GOOD, "Content-Encoding: middle-out"), {415}),
    "deep arrays": (infer("[" * DEEP), {400, 413}),
    "deep objects": (infer('{"a":' * DEEP + "1" + "}" * DEEP), {400, 413}),
    "deep arrays in the data": (document("[" * DEEP + "]" * DEEP, data="?"), {400, 413}),
    "deep arrays in an ignored member": (document("[" * DEEP + "]" * DEEP, extra="?"), {400, 413}),
    "deep arrays in a string": (document('"' + "[" * DEEP + '"', name="?"), {400, 413}),
    "JSON in JSON": (document(json.dumps(json.dumps(GOOD)), data="?"), {400}),
    "a shape of 2^64": (tensor(shape=[2**64, 16]), {400}),
    "a shape whose product is 2^64": (tensor(shape=[2**32, 2**32]), {400}),
    "a shape whose product wraps to 16": (tensor(shape=[2**60 + 1, 16]), {400}),
    "a negative shape": (tensor(shape=[-1, 16]), {400}),
    "two negatives": (tensor(shape=[-1, -16]), {400}),
    "a huge rank": (tensor(shape=[1] * 5000), {400, 413}),
    "a shape of floats": (tensor(shape=[1.0, 16.0]), {400}),
    "a shape of booleans": (tensor(shape=[True, 16]), {400}),
    "a shape of text": (tensor(shape="1,16"), {400}),
    "no rows": (tensor(shape=[0, 16], data=[]), {400}),
    "too little data": (tensor(data=[1.0] * 15), {400}),
    "too much data": (tensor(data=[1.0] * 17), {400}),
    "data of another kind": (tensor(data=[[[{}]]]), {400}),
    "too little binary data": (binary(bytes(63)), {400}),
    "too much binary data": (binary(bytes(65)), {400}),
    "more binary data than announced": (binary(bytes(64), announced=60), {400}),
    "negative binary data": (binary(bytes(64), announced=-64), {400}),
    "2^63 of binary data": (binary(bytes(64), announced=2**63), {400}),
    "a JSON length beyond the body": (binary(bytes(64), length=10**6), {400}),
    "a JSON length within the JSON": (binary(bytes(64), length=len(BINARY) - 5), {400}),
    "a JSON length within the data": (binary(bytes(64), length=len(BINARY) + 5), {400}),
    "a negative JSON length": (binary(bytes(64), length=-1), {400}),
    "a JSON length that is none": (binary(bytes(64), length="9" * 400), {400}),
    "a length longer than the body, and the end": (infer(GOOD).replace(b": %d" % len(GOOD), b": 9"), {400}),
    "the same tensor twice": (infer(json.dumps({"inputs": [TENSOR, TENSOR]})), {400}),
    "ten thousand tensors": (infer(json.dumps({"inputs": [{}] * 10_000})), {400, 413}),
    "the same key twice": (infer(GOOD[:-1] + ', "inputs": []}'), {400}),
    "NaN": (document("[NaN" + ",0" * 15 + "]", data="?"), {400}),
    "Infinity": (document("[-Infinity" + ",0" * 15 + "]", data="?"), {400}),
    "a number beyond all floats": (document("[1e999" + ",0" * 15 + "]", data="?"), {400}),
    "NaN in binary": (binary(b"\xff" * 64), {400}),
    "a lone surrogate": (document(r'"\ud800"', name="?"), {400}),
    "half of a character": (
        infer(GOOD.replace("attributes", "attrib\udcff").encode("utf-8", "replace")),
        {400},
    ),
    "bytes that are no text": (infer(b'{"inputs": "\xff\xfe"}'), {400}),
    "NUL in a name": (tensor(name="attributes\0"), {400}),
    "NUL in the path": (post("/v2/models/letters%00/infer", GOOD.encode()), {404}),
    "a path with dot segments": (post("/v2/models/../../etc/passwd", b""), {404}),
    "megabytes of digits": (infer("9" * 8 * MB), {400, 413, CLOSED}),
    "digits within the limit": (document("[" + "9" * 5000 + "]", data="?"), {400, 413}),
    "an empty body": (infer(b""), {400}),
    "a body of white space": (infer(b" " * 1000), {400}),
    "a tunnel": (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", {501}),
    "another expectation": (head("Expect: a miracle", "Content-Length: 5"), {417}),
    "too many requests ahead": (get("/v2/health/live").encode() * 20_000, {400, CLOSED}),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_an_attack_ends_in_a_refusal_and_the_next_client_is_served(target: Served, name: str) -> None:
    sent, ends = AT_ONCE[name]
    assert attack(target, sent) in ends
    assert_serves(target)


# ---------------------------------------------------------------- slow requests


def drip(connection: socket.socket, sent: bytes, every_s: float = 0.2) -> int:
    """Sends byte by byte until the other end closes."""
    connection.setblocking(True)
    until_s = time.monotonic() + BODY_S + SPARE_S
    for i in range(len(sent)):
        try:
            connection.sendall(sent[i : i + 1])
            connection.settimeout(every_s)
            if not connection.recv(1, socket.MSG_PEEK):
                return CLOSED
        except TimeoutError:
            assert time.monotonic() < until_s, "it is not stopped"
            continue
        except OSError:
            return CLOSED
        return final_status(connection, 1.0)
    raise AssertionError("all of it was taken")


def sends_and_waits(
    sent: bytes, then: Callable[[socket.socket], object] = lambda _: None
) -> Callable[[socket.socket], int]:
    def send(connection: socket.socket) -> int:
        connection.sendall(sent)
        then(connection)
        return final_status(connection, BODY_S + SPARE_S)

    return send


def half_closed(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def then_drips(first: bytes, more: bytes) -> Callable[[socket.socket], int]:
    def send(connection: socket.socket) -> int:
        connection.sendall(first)
        return drip(connection, more)

    return send


SLOW: Mapping[str, tuple[Callable[[socket.socket], int], set[int], float]] = {
    "slow headers": (lambda connection: drip(connection, head("X-A: " + "a" * 1000)), {408}, HEAD_S),
    "half a head": (sends_and_waits(head()[:-2]), {408}, HEAD_S),
    "a letter": (sends_and_waits(b"P"), {408}, HEAD_S),
    "a slow body": (then_drips(head("Content-Length: 1000"), b"x" * 1000), {408}, BODY_S),
    "half a body": (sends_and_waits(infer(GOOD)[:-1]), {408}, BODY_S),
    "slow chunks": (then_drips(CHUNKED, b"1\r\nx\r\n" * 500), {408}, BODY_S),
    "no last chunk": (sends_and_waits(chunked(INFER, GOOD.encode(), last=b"")), {408}, BODY_S),
    "half a trailer": (sends_and_waits(chunked(INFER, GOOD.encode(), last=b"0\r\nX-")), {408}, BODY_S),
    "nothing, half-closed": (sends_and_waits(b"", half_closed), {CLOSED}, 0.0),
    "half a head, half-closed": (sends_and_waits(head()[:-2], half_closed), {CLOSED}, 0.0),
    "half a body, half-closed": (sends_and_waits(infer(GOOD)[:-1], half_closed), {CLOSED}, 0.0),
    "a refused body that goes on": (
        then_drips(head("Content-Length: 99999999"), b"x" * 1000),
        {413},
        0.0,
    ),
}


def timed(target: Served, send: Callable[[socket.socket], int]) -> tuple[int, float]:
    start_s = time.monotonic()
    with connected(target) as connection:
        return send(connection), time.monotonic() - start_s


@pytest.fixture(scope="module")
def slow(target: Served) -> Iterator[dict[str, Future[tuple[int, float]]]]:
    """All that is slow, at once."""
    with ThreadPoolExecutor(len(SLOW)) as threads:
        yield {name: threads.submit(timed, target, send) for name, (send, _, _) in SLOW.items()}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_attack_ends_in_time_and_clients_are_served_meanwhile(
    target: Served, slow: dict[str, Future[tuple[int, float]]], name: str
) -> None:
    _, ends, within_s = SLOW[name]
    assert_serves(target)
    status, took_s = slow[name].result(timeout=BODY_S + 2 * SPARE_S)
    assert status in ends
    assert within_s - 0.1 < took_s < within_s + SPARE_S


# ---------------------------------------------------------------- many connections


def connect_and_disconnect(target: Served) -> None:
    for i in range(1000):
        with connected(target) as connection:
            if i % 2:
                connection.sendall(b"GET /v2/hea")


def stay_idle(target: Served) -> None:
    with ExitStack() as kept:
        for _ in range(3 * MOST):
            kept.enter_context(connected(target))
        assert_serves(target)


def stay_after_a_request(target: Served) -> None:
    with ExitStack() as kept:
        for _ in range(2 * MOST):
            connection = kept.enter_context(connected(target))
            connection.sendall(infer(GOOD))
        assert_serves(target)


def never_read(target: Served) -> None:
    with ExitStack() as kept:
        for _ in range(MOST // 2):
            connection = kept.enter_context(connected(target))
            connection.sendall(infer(GOOD) * 50)
        assert_serves(target)


def send_half_a_head(target: Served) -> None:
    """To send half a head costs nothing, so such a connection is replaced by a new one."""
    with ExitStack() as kept:
        connections = [kept.enter_context(connected(target)) for _ in range(MOST + 10)]
        for connection in connections:
            connection.sendall(b"GET /v2/hea")
        time.sleep(0.2)
        connections += [
            kept.enter_context(connected(target)) for _ in range(MOST)
        ]  # which replace some of the first
        for connection in connections[-MOST:]:
            connection.sendall(b"GET /v2/hea")
        time.sleep(0.2)
        assert_serves(target)
        assert {final_status(connection, HEAD_S + SPARE_S) for connection in connections} <= {408, CLOSED}


CROWDS = [connect_and_disconnect, stay_idle, stay_after_a_request, never_read, send_half_a_head]


@pytest.mark.parametrize("crowd", CROWDS, ids=lambda crowd: crowd.__name__)
def test_many_connections_do_not_keep_a_good_client_out(
    target: Served, crowd: Callable[[Served], None]
) -> None:
    crowd(target)
    assert_serves(target)


# ---------------------------------------------------------------- memory


def memory_kb(target: Served) -> int:
    rollup = Path(f"/proc/{target.process.pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1])


def fill_the_decision_log(target: Served) -> None:
    """The latest 10,000 can be read; until there are as many, each request adds memory."""
    with connected(target) as connection, connection.makefile("rb") as replies:
        for _ in range(250):
            connection.sendall(infer(GOOD) * 40)
            for _ in range(40):
                head = b"".join(iter(replies.readline, b"\r\n"))
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None
                replies.read(int(length[1]))


def test_memory_does_not_grow_under_repeated_attacks(target: Served) -> None:
    def attack_once() -> int:
        for sent, _ in AT_ONCE.values():
            attack(target, sent)
        for crowd in (connect_and_disconnect, stay_idle, stay_after_a_request, never_read):
            crowd(target)
        assert_serves(target)
        return memory_kb(target)

    fill_the_decision_log(target)
    warm = [attack_once() for _ in range(2)][-1]
    again = [attack_once() for _ in range(3)][-1]
    assert again < warm * 1.05
