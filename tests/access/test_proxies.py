"""The client's address behind trusted proxies: the same as uvicorn's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway.access.proxies import Proxies
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
        (ONE, "10.0.0.1", "", "10.0.0.1"),
        (ONE, "10.0.0.1", "192.0.2.7, ", "10.0.0.1"),
        (ONE, "10.0.0.1", "192.0.2.7:55", "192.0.2.7"),
        (ONE, "10.0.0.1", "unknown", "unknown"),
        (ONE, "", "192.0.2.7", ""),
        (NET, "10.9.9.9", "192.0.2.7, 10.1.1.1:80, ::1", "192.0.2.7"),
        (NET, "::1", "2001:db8::1", "2001:db8::1"),
        (NET, "::1", "[2001:db8::1]:99, [fd00::5]:1, 0:0:0:0:0:0:0:1", "2001:db8::1"),
        (NET, "::1", "[2001:db8::1]x", "[2001:db8::1]x"),
        (["*"], "192.0.2.9", "192.0.2.7, 192.0.2.8", "192.0.2.7"),
        (["*"], "", "192.0.2.7", "192.0.2.7"),
        (["proxy"], "proxy", "192.0.2.7", "192.0.2.7"),
        (["10.0.0.1/8"], "10.0.0.1", "192.0.2.7", "10.0.0.1"),
        ([], "10.0.0.1", "192.0.2.7", "10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(
    trusted: list[str], peer: str, forwarded: str | None, client: str
) -> None:
    assert Proxies(trusted).client(peer, None if forwarded is None else forwarded.encode()) == client
    assert of_uvicorn(trusted, peer, forwarded) == client


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
    [
        "10.0.0.1",
        "10.0.0.2",
        "192.0.2.7",
        "::1",
        "fd00::5",
        "2001:DB8::1",
        "fe80::1%eth0",
        "proxy",
        "unknown",
        "",
    ]
)
HOPS = st.one_of(
    HOSTS,
    HOSTS.map(lambda host: f"[{host}]:80"),
    HOSTS.map(lambda host: f"{host}:80"),
    HOSTS.map(lambda host: f" {host} "),
    st.text(st.sampled_from("[]:,.0123456789af% \xe9_-+"), max_size=12),
)
TRUSTED = st.lists(
    HOSTS | st.sampled_from(["10.0.0.0/8", "10.0.0.1/8", "fd00::/8", "0.0.0.0/0", "::/0", "x/y"]), max_size=3
) | st.just(["*"])


@given(TRUSTED, HOSTS, st.lists(HOPS, max_size=4).map(",".join) | st.none())
def test_every_client_is_the_one_that_uvicorn_finds(
    trusted: list[str], peer: str, forwarded: str | None
) -> None:
    proxies = Proxies(trusted)
    sent = None if forwarded is None else forwarded.encode("latin-1")
    for _ in range(2):
        assert proxies.client(peer, sent) == of_uvicorn(trusted, peer, forwarded)


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
