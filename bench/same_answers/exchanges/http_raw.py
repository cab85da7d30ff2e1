"""Requests that no client library sends: odd framing, pipelining, other versions, malformed heads."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bench.same_answers.exchange import Exchange, HttpExchange
from bench.same_answers.exchanges.http_parts import ADA, get, infer_document, json_infer, request
from bench.same_answers.sampled_deployment import SampledDeployment

LIVE = "/v2/health/live"
LAST_CHUNK = b"0\r\n\r\n"


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Good requests in unusual forms first, then bad ones, each on a connection of its own."""
    yield from _chunked(deployment)
    yield from _pipelined(deployment)
    yield from _versions(deployment)
    for name, (lines, rest) in BAD_HEADS.items():
        yield HttpExchange(f"head: {name}", (_head(deployment, *lines) + rest,), replies=0)
    for name, sent in BAD_BYTES.items():
        yield HttpExchange(f"bytes: {name}", (sent,), replies=0)
    yield from _unfinished(deployment)


def _head(deployment: SampledDeployment, *lines: bytes) -> bytes:
    first = f"POST /v2/models/{deployment.name}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    return first + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    """A body in chunks, without the last one."""
    parts = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)


def _chunked(deployment: SampledDeployment) -> Iterator[Exchange]:
    head = _head(deployment, b"Transfer-Encoding: chunked")
    body = json.dumps(infer_document(deployment, deployment.row)).encode()
    for size in (len(body), 100, 7):
        yield HttpExchange(f"chunked: {size} bytes each", (head + chunks(body, size) + LAST_CHUNK,))
    yield HttpExchange(
        "chunked: capitals",
        (_head(deployment, b"TRANSFER-ENCODING: Chunked") + chunks(body, 500) + LAST_CHUNK,),
    )
    yield HttpExchange("chunked: extensions", (head + chunks(body, 200, b";a=b") + LAST_CHUNK,))
    yield HttpExchange("chunked: trailers", (head + chunks(body, 200) + b"0\r\nX-A: b\r\n\r\n",))
    yield HttpExchange("chunked: nothing", (head + LAST_CHUNK,))
    yield HttpExchange("chunked: not JSON", (head + chunks(b"{", 1) + LAST_CHUNK,))
    yield HttpExchange(
        "chunked: one after another", (head + chunks(body, 300) + LAST_CHUNK + get(LIVE),), replies=2
    )
    yield HttpExchange(
        "chunked: to a path that takes none", (_get_chunked() + chunks(b"abc", 1) + LAST_CHUNK,)
    )
    trailers = b"".join(b"X-%d: a\r\n" % i for i in range(100))
    yield HttpExchange(
        "chunked: many trailers", (head + chunks(body, 900) + b"0\r\n" + trailers + b"\r\n",), replies=0
    )
    for name, rest in BAD_CHUNKS.items():
        yield HttpExchange(f"chunked: {name}", (head + rest,), replies=0, half_close=name in TIMED_OUT_CHUNKS)


def _get_chunked() -> bytes:
    return f"GET {LIVE} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def _pipelined(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Several requests on one connection, at once and one after another."""
    infer, live = json_infer(deployment, deployment.row, ADA), get(LIVE)
    yield HttpExchange("pipelined: three", (live + infer + live,), replies=3)
    yield HttpExchange("pipelined: twenty", (live * 20,), replies=20)
    yield HttpExchange("pipelined: inference", (infer * 4,), replies=4)
    yield HttpExchange("pipelined: a refused one between", (live + get("/nothing") + infer,), replies=3)
    yield HttpExchange(
        "pipelined: HEAD between", (live + request("HEAD", LIVE) + live,), replies=3, bodyless=(1,)
    )
    yield HttpExchange("pipelined: the first closes", (get(LIVE, "Connection: close") + live,), replies=0)
    yield HttpExchange("pipelined: a bad one last", (live + b"BAD\r\n\r\n",), replies=0)
    yield HttpExchange("pipelined: too many", (live * 100,), replies=0)
    yield HttpExchange("one after another", (live, infer, get("/nothing"), infer, live))
    yield HttpExchange(
        "one after another, malformed between", (infer, infer.replace(b"inputs", b"inputz"), infer)
    )
    yield HttpExchange("empty lines before", (b"\r\n\r\n" + live,))
    yield HttpExchange("closed by the caller", (infer,), replies=0, half_close=True)
    yield HttpExchange(
        "the preference to close",
        (json_infer(deployment, deployment.row, ADA, "Connection: close"),),
        replies=0,
    )
    yield HttpExchange("close and more", (get(LIVE, "Connection: close, x"),), replies=0)
    for value in ("keep-alive", "Keep-Alive, x", "upgrade", "x"):
        yield HttpExchange(f"connection: {value}", (get(LIVE, f"Connection: {value}"),))


def _versions(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Other versions, expectations, upgrades, methods and targets."""
    live10 = request("GET", LIVE, version="1.0")
    yield HttpExchange("HTTP/1.0", (live10,), replies=0)
    yield HttpExchange(
        "HTTP/1.0, kept alive", (request("GET", LIVE, "Connection: keep-alive", version="1.0"),), replies=0
    )
    infer = json_infer(deployment, deployment.row, ADA)
    yield HttpExchange("HTTP/1.0, inference", (infer.replace(b"HTTP/1.1", b"HTTP/1.0"),), replies=0)
    for version in (b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9", b"http/1.1", b"ICY/1.1", b""):
        yield HttpExchange(
            f"written as version {version.decode()!r}", (get(LIVE).replace(b"HTTP/1.1", version),), replies=0
        )
    head, _, body = infer.partition(b"\r\n\r\n")
    expects = head + b"\r\nExpect: 100-continue\r\n\r\n"
    yield HttpExchange("expects 100-continue", (expects + body,))
    yield HttpExchange(
        "expects 100-Continue, refused", (expects.replace(b"/v2", b"/v3") + body,), replies=0, half_close=True
    )
    yield HttpExchange("expects something else", (head + b"\r\nExpect: 200-ok\r\n\r\n" + body,), replies=0)
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    yield HttpExchange("upgrade to h2c", (get(LIVE, *upgrade),))
    yield HttpExchange("upgrade to websocket", (get(LIVE, "Connection: Upgrade", "Upgrade: websocket"),))
    yield HttpExchange("upgrade without connection", (get(LIVE, "Upgrade: h2c"),))
    yield HttpExchange("no host", (f"GET {LIVE} HTTP/1.1\r\n\r\n".encode(),), replies=0)
    yield HttpExchange("two hosts", (get(LIVE, "Host: other"),))
    yield HttpExchange("an absolute target", (get(f"http://other{LIVE}"),))
    yield HttpExchange("a tunnel", (request("CONNECT", "other:443"),), replies=0)
    for method in ("TRACE", "PROPFIND", "QUERY", "get", "NONE", "G" * 100):
        yield HttpExchange(f"method {method[:20]}", (request(method, LIVE),), replies=0, half_close=True)


def _unfinished(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Incomplete requests: the client closes, or the time limit for them passes."""
    whole = json_infer(deployment, deployment.row)
    for name, sent in {
        "nothing": b"",
        "a letter": b"P",
        "half a head": whole[:40],
        "half a body": whole[:-9],
    }.items():
        yield HttpExchange(f"unfinished: {name}, closed by the caller", (sent,), replies=0, half_close=True)
    yield HttpExchange("unfinished: half a head", (whole[:40],), replies=0)
    yield HttpExchange("unfinished: half a body", (whole[:-9],), replies=0)


TIMED_OUT_CHUNKS = ("a size that is too large", "a long extension")
"""Those for which the server waits ten seconds, unless the client closes."""
BAD_CHUNKS = {
    "a size that is none": b"x\r\n",
    "a negative size": b"-1\r\nx\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"1" + b"0" * 16 + b"\r\nx",
    "a size that is too large": b"f" * 8 + b"\r\nx",
    "a chunk longer than it says": b"1\r\nxy\r\n0\r\n\r\n",
    "a long extension": b"1;a=" + b"b" * 20_000 + b"\r\nx\r\n",
}
BAD_HEADS: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "one long header": ((b"X-A: " + b"a" * 20_000,), b""),
    "many headers": (tuple(b"X-%d: a" % i for i in range(100)), b""),
    "just too many": (tuple(b"X-%d: a" % i for i in range(64)), b""),
    "length and chunks": ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), b"0\r\n\r\n"),
    "chunks and length": ((b"Transfer-Encoding: chunked", b"Content-Length: 5"), b"0\r\n\r\n"),
    "two lengths": ((b"Content-Length: 5", b"Content-Length: 6"), b"helloG"),
    "a list of lengths": ((b"Content-Length: 5, 5",), b"hello"),
    "a length with a sign": ((b"Content-Length: +5",), b"hello"),
    "a length that is no number": ((b"Content-Length: x",), b"hello"),
    "a length beyond 64 bits": ((b"Content-Length: " + b"9" * 25,), b"hello"),
    "a length of terabytes": ((b"Content-Length: " + b"9" * 13,), b"hello"),
    "chunked twice": ((b"Transfer-Encoding: chunked, chunked",), b"0\r\n\r\n"),
    "another coding": ((b"Transfer-Encoding: gzip, chunked",), b"0\r\n\r\n"),
    "not chunked": ((b"Transfer-Encoding: identity",), b""),
    "a space before the colon": ((b"Content-Length : 5",), b"hello"),
    "a folded header": ((b"X-A: a", b" b: c"), b""),
    "a bare CR": ((b"X-A: a\rContent-Length: 5",), b"hello"),
    "a bare LF": ((b"X-A: a\nContent-Length: 5",), b"hello"),
    "NUL": ((b"X-A: a\0b",), b""),
    "no colon": ((b"X-A",), b""),
    "no name": ((b": a",), b""),
    "a name with a space": ((b"X A: a",), b""),
}
BAD_BYTES = {
    "every byte": bytes(range(256)) * 4,
    "zeros": bytes(1000),
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    "a request line alone": b"GET /\r\n\r\n",
    "a long request line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    "a tab in the request line": b"GET\t/v2 HTTP/1.1\r\n\r\n",
    "two spaces": b"GET  /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "a target that is no path": b"GET v2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a target with a byte beyond ASCII": b"GET /\xff HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
}
