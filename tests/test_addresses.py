"""Addresses as text: one form each, and what is loopback."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.addresses import is_everywhere, is_loopback, parse_network, peer_address


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:0:0:1"]
)
def test_what_is_loopback(text: str) -> None:
    assert is_loopback(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "128.0.0.1",
        "::",
        "::2",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "127.1",
    ],
)
def test_what_is_not_loopback(text: str) -> None:
    assert not is_loopback(text)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_a_peer_has_one_form(host: str, address: str) -> None:
    assert peer_address(host) == address


def test_a_mapped_network_is_what_it_maps() -> None:
    assert parse_network("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert parse_network("::ffff:10.0.0.1") == ip_network("10.0.0.1/32")
    assert parse_network("::/0") == ip_network("::/0")
    with pytest.raises(ValueError, match="host bits"):
        parse_network("10.0.0.1/8")


@pytest.mark.parametrize(
    "entries",
    [["*"], ["0.0.0.0/0"], ["::/0"], ["10.0.0.1", "0.0.0.0/1", "128.0.0.0/1"], ["::ffff:0.0.0.0/96"]],
)
def test_networks_that_hold_every_address_are_everywhere(entries: list[str]) -> None:
    assert is_everywhere(entries)


@pytest.mark.parametrize("entries", [[], ["10.0.0.0/8", "::1"], ["0.0.0.0/1"], ["localhost"]])
def test_other_networks_are_not_everywhere(entries: list[str]) -> None:
    assert not is_everywhere(entries)
