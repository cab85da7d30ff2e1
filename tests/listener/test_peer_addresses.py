"""The address of a peer on a socket of both families: IPv4 in the form that it has everywhere else."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.access.proxies import Proxies
from gateway.listener.server import Server
from tests.support.raw_http import ScriptedHandler, get


def dual_stack() -> socket.socket:
    """A socket that listens on IPv6 and, mapped, on IPv4."""
    one = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind(("::", 0))
    one.setblocking(False)
    return one


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        (None, "", "127.0.0.1"),
        (["10.0.0.1"], "192.0.2.7", "127.0.0.1"),
        (["127.0.0.1"], "192.0.2.7", "192.0.2.7"),
        (["127.0.0.1"], "::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_a_peer_of_ipv4_has_its_own_address_on_a_socket_of_both_families(
    trusted: list[str] | None, forwarded: str, address: str
) -> None:
    async def main() -> str:
        listening = dual_stack()
        port = listening.getsockname()[1]
        server = Server(ScriptedHandler(), proxies=None if trusted is None else Proxies(trusted))
        await server.start(listening, 16)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = get("/now", *([f"X-Forwarded-For: {forwarded}"] if forwarded else ()))
        writer.write(sent.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        body = await reader.read(4096)
        writer.close()
        await server.stop(1.0)
        return body.decode()

    assert f'"{address}"' in asyncio.run(main())
