"""The client's address behind trusted proxies: the same as uvicorn's, of what are addresses."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway.access.proxies import Proxies, is_forwarded
from tests.support.raw_http import RunningListener, ScriptedHandler, get, runner

ONE, NET = ["10.0.0.1"], ["10.0.0.0/8", "::1", "fd00::/8"]


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        (ONE, "10.0.0.1", None, "10.0.0.1"),
        (ONE, "10.0.0.1", "192.0.2.7", "192.0.2.7"),
        (ONE, "10.0.0.2", "192.0.2.7", "10.0.0.2"),
        (ONE, "10.0.0.1", "127.0.0.1, 192.0.2.7", "192.0.2.7"),
        (ONE, "10.0.0.1", "192.0.2.7, 10.0.0.1", "192.0.2.7"),
        (ONE, "10.0.0.1", "10.0.0.1, 10.0.0.1", "10.0.0.1"),
        (ONE, "10.0.0.1", "192.0.2.7:55", "192.0.2.7"),
        (NET, "10.9.9.9", "192.0.2.7, 10.1.1.1:80, ::1", "192.0.2.7"),
        (NET, "::1", "2001:db8::1", "2001:db8::1"),
        (NET, "::1", "[2001:db8::1]:99, [fd00::5]:1, 0:0:0:0:0:0:0:1", "2001:db8::1"),
        (["*"], "192.0.2.9", "192.0.2.7, 192.0.2.8", "192.0.2.7"),
        (["*"], "", "192.0.2.7", "192.0.2.7"),
        ([], "10.0.0.1", "192.0.2.7", "10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(
    trusted: list[str], peer: str, forwarded: str | None, client: str
) -> None:
    assert Proxies(trusted).client(peer, None if forwarded is None else forwarded.encode()) == client
    assert of_uvicorn(trusted, peer, forwarded) == client


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        (ONE, "10.0.0.1", "192.0.2.7, ::ffff:10.0.0.1", "192.0.2.7"),
        (ONE, "::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"),
        (["::ffff:10.0.0.1"], "10.0.0.1", "192.0.2.7", "192.0.2.7"),
        (["::ffff:10.0.0.0/104"], "10.2.0.1", "192.0.2.7", "192.0.2.7"),
        (ONE, "10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        (["localhost"], "127.0.0.1", "192.0.2.7", "192.0.2.7"),
        (["localhost"], "::1", "192.0.2.7, 127.0.0.9", "192.0.2.7"),
        (["localhost"], "10.0.0.1", "192.0.2.7", "10.0.0.1"),
    ],
)
def test_an_address_mapped_in_ipv6_is_what_it_maps_and_localhost_is_loopback(
    trusted: list[str], peer: str, forwarded: str, client: str
) -> None:
    assert Proxies(trusted).client(peer, forwarded.encode()) == client


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "unknown",
        "_hidden",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:1:2",
        "127.0.0.1:\xb2",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]:",
        "[127.0.0.1]",
        "127.1",
        "0x7f000001",
        "127.0.0.01",
        "127.0.0.1/32",
        "unix:/run/x",
        "1" * 300,
        "for=127.0.0.1",
    ],
)
def test_an_entry_that_is_no_address_makes_the_peer_the_client(entry: str) -> None:
    for trusted in (ONE, ["*"]):
        for forwarded in (entry, f"127.0.0.1, {entry}" if trusted == ONE else f"{entry}, 127.0.0.1"):
            assert Proxies(trusted).client("10.0.0.1", forwarded.encode("latin-1")) == "10.0.0.1"


@pytest.mark.parametrize("entry", ["proxy", "10.0.0.1/8", "*", "", "10.0.0.1:80", "[::1]", "10.0.0.0/33"])
def test_a_proxy_that_is_no_address_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Proxies(["10.0.0.1", entry])


@pytest.mark.parametrize(
    "name",
    [
        "forwarded",
        "via",
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-anything",
        "x-forwarded",
        "x-original-forwarded-for",
        "true-client-ip",
        "cf-connecting-ip",
    ],
)
def test_one_header_of_a_proxy_says_that_a_request_was_forwarded(name: str) -> None:
    usual = [b"host", b"user-agent", b"accept", b"content-type", b"authorization", b"traceparent"]
    assert not is_forwarded(usual)
    assert not is_forwarded([])
    assert is_forwarded([name.encode()])
    assert is_forwarded([*usual, name.encode()])
    assert is_forwarded([name.encode(), *usual])


def of_uvicorn(trusted: list[str], peer: str, forwarded: str | None) -> str:
    """What uvicorn's own middleware makes of it."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0] if scope["client"] else "")

    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode("latin-1"))]
    scope: Any = {"type": "http", "client": (peer, 1) if peer else None, "headers": headers}
    nothing: Any = None
    asyncio.run(ProxyHeadersMiddleware(app, trusted)(scope, nothing, nothing))
    return seen[0]


HOSTS = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "192.0.2.7", "::1", "fd00::5", "2001:DB8::1", "fe80::1%eth0"]
)
HOPS = st.one_of(
    HOSTS,
    HOSTS.map(lambda host: f"[{host}]:80" if ":" in host else f"{host}:80"),
    HOSTS.map(lambda host: f" {host} "),
)
TRUSTED = st.lists(
    HOSTS | st.sampled_from(["10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0"]), max_size=3
) | st.just(["*"])


@given(TRUSTED, HOSTS, st.lists(HOPS, min_size=1, max_size=4).map(",".join) | st.none())
def test_every_client_is_the_one_that_uvicorn_finds_among_addresses(
    trusted: list[str], peer: str, forwarded: str | None
) -> None:
    proxies = Proxies(trusted)
    sent = None if forwarded is None else forwarded.encode("latin-1")
    for _ in range(2):
        found = of_uvicorn(trusted, peer, forwarded)
        assert ip_address(proxies.client(peer, sent)) == ip_address(found)


@given(TRUSTED, HOSTS, st.text(st.sampled_from("[]:,.0123456789af% \xe9_-+"), max_size=60))
def test_whatever_is_forwarded_the_client_is_an_address(
    trusted: list[str], peer: str, forwarded: str
) -> None:
    assert ip_address(Proxies(trusted).client(peer, forwarded.encode("latin-1")))


def test_the_listener_reads_the_header_of_trusted_proxies_alone_and_repeated_headers_are_one_list() -> None:
    sent = get("/now", "X-Forwarded-For: 192.0.2.6", "x-forwarded-for: 192.0.2.7, 127.0.0.1")
    got: list[str] = []

    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        got.append((await listener.request(sent)).json["address"])

    run = runner(asyncio.new_event_loop)
    run(main, proxies=Proxies(["127.0.0.1"]))
    run(main, proxies=Proxies(["10.0.0.1"]))
    run(main)
    assert got == ["192.0.2.7", "127.0.0.1", "127.0.0.1"]
