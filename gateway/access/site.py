"""Which requests are addressed to this gateway: those for its own hosts, from no other site's web page.

A web page can make a browser send requests to a loopback or internal address. It cannot make it lie about
the page: `Host` holds the name in the page's URL where an attacker's name resolves to our address (DNS
rebinding), and `Origin` and `Sec-Fetch-Site` say that another site's page sends. Clients that are no browsers
send neither of the last two.

    | request                                                | result                  |
    |--------------------------------------------------------|-------------------------|
    | no Host, or one that is no host                        | 400                     |
    | a Host that is not ours                                | 421                     |
    | Sec-Fetch-Site: cross-site or same-site                | 403                     |
    | an Origin that is not this host                        | 403                     |
    | the same from an origin that `serving.cors` names      | passes                  |

Our hosts are the names that we are given, `localhost` where we listen on loopback, and IP addresses: where
we listen on loopback those of loopback, else any, since a name is what an attacker can point elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from gateway.addresses import LOCALHOST, is_loopback_host
from gateway.caching import BoundedCache
from gateway.protocol.endings import Rejection

LONGEST_HOST, CACHED_HOSTS = 300, 256
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{0,5})?")
_OWN_PAGES = (b"same-origin", b"none")


class Refusal(NamedTuple):
    """Why a request is not for us: how it ends, and the text of its error."""

    end: Rejection
    error: str


NO_HOST = Refusal(Rejection.INVALID, "Host must be one host, with or without a port")
OTHER_HOST = Refusal(
    Rejection.MISDIRECTED, "Host names no host of this gateway; its operator lists them in serving.hosts"
)
OTHER_SITE = Refusal(
    Rejection.FORBIDDEN,
    "a browser sends this for a page of another site; its operator lists allowed ones in serving.cors",
)


class Site:
    """The hosts of one listener, and the origins whose pages may use it.

    Args:    bound: the host that it listens on. hosts: more names, `*.example.org` for every name below one,
             or `*` for any. origins: of pages, as `https://app.example.org`, or `*` for any.
    """

    def __init__(self, bound: str, hosts: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        self._on_loopback = is_loopback_host(bound)
        names = {_normal(name) for name in (bound, *hosts)}
        self._any_host = "*" in names
        self._names = names | ({LOCALHOST} if self._on_loopback else set())
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._any_origin = "*" in origins
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)
        self._by_host = BoundedCache(self._refuse_host, entries=CACHED_HOSTS, longest=LONGEST_HOST)

    def refuse(self, headers: Mapping[bytes, bytes]) -> Refusal | None:
        """Why a request with these headers is refused; None if it is for us.

        A request without Host is HTTP/1.0, which no browser speaks: the listener refuses it of HTTP/1.1.
        Cost:    0.1 us without headers of a browser, for a host that was seen lately.
        """
        host = headers.get(b"host")
        if host is not None and (refusal := self._by_host[host]) is not None:
            return refusal
        if b"origin" in headers or b"sec-fetch-site" in headers:
            return self._refuse_page(headers, host)
        return None

    def shares_with(self, origin: bytes) -> bool:
        """Whether pages of this origin may read replies."""
        return self._any_origin or origin.lower() in self._origins

    def _refuse_page(self, headers: Mapping[bytes, bytes], host: bytes | None) -> Refusal | None:
        origin = headers.get(b"origin")
        if origin is not None and self.shares_with(origin):
            return None
        if headers.get(b"sec-fetch-site", b"none").lower() not in _OWN_PAGES:
            return OTHER_SITE
        if origin is None or (host and origin.lower().partition(b"://")[2] == host.lower()):
            return None
        return OTHER_SITE

    def _refuse_host(self, raw: bytes) -> Refusal | None:
        match = _HOST.fullmatch(raw.decode("latin-1").strip().lower())
        if match is None:
            return NO_HOST
        return None if self._any_host or self._is_ours(_normal(match[1])) else OTHER_HOST

    def _is_ours(self, name: str) -> bool:
        if name in self._names or name.endswith(self._suffixes):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._on_loopback


def _normal(name: str) -> str:
    """A host as it is compared: in lower case, without brackets and the point at the end."""
    return name.lower().strip("[]").removesuffix(".")
