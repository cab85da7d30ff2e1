"""Which targets may be attacked: this machine's, or one whose owner confirms it by writing its name.

The URL is parsed once, by the client that connects, so that no two parsers disagree on its host. Redirects
are not followed and proxies of the environment are not used: the host that is checked is the host that is
asked.
"""

from __future__ import annotations

import socket

import httpx

from gateway.addresses import LOCALHOST, is_loopback
from gateway.core.errors import Problem, Problems

OPTION = "--i-own-this"


class Forbidden(Problems):
    """The target is not shown to be the operator's own."""


def permitted(url: str, confirmed: str | None, named: str = "URL") -> httpx.URL:
    """The parsed URL of a target that may be attacked.

    A loopback address needs no confirmation, nor does `localhost` where it resolves to such addresses alone;
    every other name does, even one that resolves to loopback.

    Args:    confirmed: the host's name as the operator wrote it, None if they did not; named: what errors
             call the URL.
    Raises:  Forbidden that says what to write.
    """
    parsed = _parsed(url, named)
    host = parsed.host
    if confirmed is not None:
        if confirmed.strip().lower() != host:
            raise Forbidden([Problem(OPTION, f"names {confirmed!r}, but the {named}'s host is {host!r}")])
        return parsed
    if not _here(host):
        what = (
            f"{host} is not this machine. These are attacks: carry them out on your own deployment only. "
            f"If it is yours, confirm it in writing with {OPTION} {host}"
        )
        raise Forbidden([Problem(named, what)])
    return parsed


def _parsed(url: str, named: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Forbidden([Problem(named, f"{url!r} is not one: {error}")]) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Forbidden([Problem(named, f"{url!r} is not a URL such as http://127.0.0.1:8080")])
    if parsed.userinfo:
        raise Forbidden([Problem(named, "holds a user name; give keys with --key or --keys")])
    return parsed


def _here(host: str) -> bool:
    if host != LOCALHOST:
        return is_loopback(host)
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(map(is_loopback, found))
