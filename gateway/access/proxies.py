"""The client behind trusted proxies: the rightmost address of X-Forwarded-For that is no trusted proxy.

Each proxy appends the address of its peer, so everything to the left of the first untrusted address is only
claimed by that client. The rules are exactly those of uvicorn's ProxyHeadersMiddleware.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gateway.caching import BoundedCache

MAX_CACHED_CHARACTERS = 253
"""The longest DNS name. Longer texts are not cached: they are no addresses."""


class Proxies:
    """trusted: addresses, networks (`10.0.0.0/8`) and names; or only `*`, which trusts every peer."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._all = list(trusted) == ["*"]
        self._addresses: set[IPv4Address | IPv6Address] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: set[str] = set()
        for entry in trusted:
            try:
                if "/" in entry:
                    self._networks.append(ip_network(entry))
                else:
                    self._addresses.add(ip_address(entry))
            except ValueError:
                self._names.add(entry)
        self._trusted_by_host = BoundedCache(self._is_trusted, entries=4096, longest=MAX_CACHED_CHARACTERS)

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """The address of the client.

        Args:    peer: the other end of the connection; forwarded: X-Forwarded-For, repeated ones joined.
        Cost:    0.3 us for peers without the header; about 2 us for a cached address.
        """
        if forwarded is None or not self.trusts(peer):
            return peer
        hops = [hop.strip() for hop in forwarded.decode("latin-1").split(",")]
        if not self._all:
            for hop in reversed(hops):
                if not self.trusts(host := host_of(hop)):
                    return host or peer
        return host_of(hops[0]) or peer  # all are trusted: the first is the client

    def trusts(self, host: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        if self._all or not host:
            return self._all
        return self._trusted_by_host[host]

    def _is_trusted(self, host: str) -> bool:
        if len(host) > MAX_CACHED_CHARACTERS:
            return host in self._names
        try:
            address = ip_address(host)
        except ValueError:
            return host in self._names
        return address in self._addresses or any(address in network for network in self._networks)


def host_of(hop: str) -> str:
    """The address of one hop without its port: `A.B.C.D:port`, `[v6]:port` or bare.

    Any other text stays as it is, so that nothing becomes trusted by being normalised.
    """
    if hop.startswith("["):
        host, bracket, rest = hop[1:].partition("]")
        return host if bracket and rest[:1] in ("", ":") else hop
    host, colon, port = hop.rpartition(":")
    if not colon or ":" in host:
        return hop
    try:
        int(port)
    except ValueError:
        return hop
    return host
