"""Which requests are addressed to the gateway: by host, and by the page that a browser sends them for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.site import NO_HOST, OTHER_HOST, OTHER_SITE, Site
from gateway.policy.serving import Serving

ON_LOOPBACK = Site("127.0.0.1")
PUBLIC = Site("0.0.0.0", ["Models.Example.org", "*.internal.example.org", "::"])
NAMED = Site("gateway.example.org", [], ["https://app.example.org", "http://localhost:3000"])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.8.9.10:1",
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "[::1]:8080",
    ],
)
def test_on_loopback_its_names_and_addresses_are_taken_with_any_port(host: str) -> None:
    assert ON_LOOPBACK.refuse({b"host": host.encode()}) is None
    assert Site("::1").refuse({b"host": host.encode()}) is None
    assert Site("localhost").refuse({b"host": host.encode()}) is None


@pytest.mark.parametrize(
    "host",
    [
        *("rebind.evil.example:8080", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("evil-localhost", "0.0.0.0:8080", "10.0.0.7", "[::]", "[2001:db8::1]:80", "127.1", "2130706433"),
        *("0x7f000001", "a.localhost", "x"),
    ],
)
def test_on_loopback_another_host_is_refused(host: str) -> None:
    assert ON_LOOPBACK.refuse({b"host": host.encode()}) is OTHER_HOST


@pytest.mark.parametrize(
    "host", ["", " ", "a, b", "localhost, localhost", "localhost:80:80", "localhost/", "a@localhost", "[::1"]
)
def test_what_is_no_host_is_refused_whatever_is_allowed(host: str) -> None:
    for site in (ON_LOOPBACK, PUBLIC, Site("0.0.0.0", ["*"])):
        assert site.refuse({b"host": host.encode()}) is NO_HOST


def test_elsewhere_the_names_of_the_policy_and_addresses_are_taken() -> None:
    for host in ("models.example.org", "MODELS.example.org.:443", "a.internal.example.org", "10.1.2.3:8080"):
        assert PUBLIC.refuse({b"host": host.encode()}) is None
    assert PUBLIC.refuse({b"host": b"a.b.internal.example.org"}) is None
    for host in ("example.org", "xmodels.example.org", "internal.example.org", "localhost", "evil.example"):
        assert PUBLIC.refuse({b"host": host.encode()}) is OTHER_HOST
    assert NAMED.refuse({b"host": b"gateway.example.org:8080"}) is None
    assert Site("127.0.0.1", ["*"]).refuse({b"host": b"any.example"}) is None


def test_a_request_without_host_is_for_the_listener_to_refuse_unless_it_is_of_http_1_0() -> None:
    assert ON_LOOPBACK.refuse({}) is None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost:8080"}, False),
        ({"origin": "http://LOCALHOST:8080"}, False),
        ({"origin": "https://localhost:8080"}, False),  # behind a proxy that ends TLS
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "Cross-Site"}, True),
        ({"sec-fetch-site": "same-site"}, True),  # another port of this host
        ({"sec-fetch-site": "what-comes-next"}, True),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "http://localhost"}, True),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": "localhost:8080"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://evil.example"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost:8080"}, True),
    ],
)
def test_a_request_of_a_browser_for_a_page_of_another_site_is_refused(
    headers: dict[str, str], refused: bool
) -> None:
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    assert ON_LOOPBACK.refuse({b"host": b"localhost:8080", **sent}) is (OTHER_SITE if refused else None)


def test_pages_of_the_origins_of_the_policy_pass() -> None:
    host = {b"host": b"gateway.example.org"}
    for origin in (b"https://app.example.org", b"HTTPS://APP.example.org", b"http://localhost:3000"):
        assert NAMED.refuse({**host, b"origin": origin, b"sec-fetch-site": b"cross-site"}) is None
        assert NAMED.shares_with(origin)
    for origin in (b"http://app.example.org", b"https://app.example.org:8443", b"https://x.app.example.org"):
        assert NAMED.refuse({**host, b"origin": origin}) is OTHER_SITE
    assert NAMED.refuse({**host, b"sec-fetch-site": b"cross-site"}) is OTHER_SITE, "no origin is named"
    assert NAMED.refuse({b"host": b"evil.example", b"origin": b"https://app.example.org"}) is OTHER_HOST
    assert (
        Site("127.0.0.1", origins=["*"]).refuse({b"host": b"[::1]", b"origin": b"https://any.example"})
        is None
    )


@given(st.binary(max_size=400), st.binary(max_size=100), st.binary(max_size=40))
def test_no_header_makes_it_fail(host: bytes, origin: bytes, fetched_from: bytes) -> None:
    for site in (ON_LOOPBACK, PUBLIC, NAMED):
        refusal = site.refuse({b"host": host, b"origin": origin, b"sec-fetch-site": fetched_from})
        assert refusal is None or refusal.error
    assert len(ON_LOOPBACK._by_host) <= 256


@pytest.mark.parametrize(
    "host", ["a.example:80", "https://a.example", "", "*.", "a..b", "*a.example", "a b", "*.*"]
)
def test_the_policy_takes_names_of_hosts_without_a_port(host: str) -> None:
    with pytest.raises(ValueError, match="hosts"):
        Serving(hosts=[host])
    assert Serving(hosts=["*", "*.example.org", "a-b_c.example.org"]).hosts


@pytest.mark.parametrize(
    "origin", ["a.example", "https://a.example/", "ftp://a.example", "", "https://", "null"]
)
def test_the_policy_takes_origins_as_browsers_send_them(origin: str) -> None:
    with pytest.raises(ValueError, match="cors"):
        Serving(cors=[origin])
    assert Serving(cors=["*", "https://a.example", "http://[::1]:3000"]).cors
