"""The gRPC port is bounded like the others: what opens no HTTP/2 is closed, and none keeps others out."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks.oip import open_inference_pb2 as pb
from gateway.access.proxies import Proxies
from gateway.access.tls import Tls
from gateway.grpc.opening import PREFACE, opening_bytes
from gateway.listener.limits import Limits
from gateway.replica import bind
from tests.support.certificates import certificate
from tests.support.data_planes import PlaneFixture, Rows, plane_of, whole_plane
from tests.support.deployments import FULL_RATE, key_for, letters
from tests.support.grpc_client import INFER, SERVICE, GrpcClient, grpc_client, listener_of, request_of

HELLO = PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FEW = Limits(connections=12, connections_per_address=8, head_s=30, sweep_s=0.05)
LIVE = f"/{SERVICE}/ServerLive"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


class Crowd:
    """Connections of clients that mean harm, from one address."""

    def __init__(self, target: str, address: str = "127.0.0.1") -> None:
        host, _, port = target.partition(":")
        self._to, self._from = (host, int(port)), (address, 0)
        self.wires: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def join(self, n: int, sent: bytes) -> None:
        for _ in range(n):
            wire = await asyncio.open_connection(*self._to, local_addr=self._from)
            wire[1].write(sent)
            self.wires.append(wire)
        await asyncio.sleep(0.05)

    async def open_ones(self) -> int:
        """How many have not been closed by the other end."""
        still = 0
        for reader, _ in self.wires:
            try:
                async with asyncio.timeout(0.02):
                    while await reader.read(65536):
                        pass
            except TimeoutError:
                still += 1
            except OSError:
                pass
        return still

    def leave(self) -> None:
        for _, writer in self.wires:
            writer.close()


@asynccontextmanager
async def crowd(client: GrpcClient, address: str = "127.0.0.1") -> AsyncIterator[Crowd]:
    made = Crowd(client.target, address)
    try:
        yield made
    finally:
        made.leave()


async def anew(client: GrpcClient, x: Rows) -> str:
    """How a call over a new connection ends."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(client.target, options=options) as channel:
        return (await GrpcClient(channel, client.target, client.key)(INFER, request_of(x), timeout=5)).code


@pytest.mark.parametrize(
    "sent", [b"", PREFACE[:10], PREFACE, HELLO], ids=["nothing", "half", "preface", "hello"]
)
def test_connections_without_a_call_keep_no_client_out(plane: PlaneFixture, sent: bytes) -> None:
    async def main() -> None:
        async with grpc_client(plane, limits=FEW) as client, crowd(client) as squatters:
            for _ in range(3):
                await squatters.join(30, sent)
                assert await anew(client, plane.good[:1]) == "OK"
            assert await squatters.open_ones() <= FEW.connections_per_address

    plane.run(main)


def test_a_connection_with_a_call_under_way_and_one_of_a_known_caller_stay(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane, limits=FEW) as client, crowd(client, "127.0.0.9") as squatters:
            assert (await client.infer(plane.good[:1])).code == "OK"
            await squatters.join(30, HELLO)
            waits = asyncio.create_task(client.infer(plane.strange[:1], headers=[("prefer", "wait=1")]))
            await squatters.join(30, HELLO)
            assert (await waits).outcome[:2] == ("FAILED_PRECONDITION", "deferred")
            assert (await client.infer(plane.good[:1])).code == "OK"
            assert await squatters.open_ones() == FEW.connections_per_address

    plane.run(main)


@pytest.mark.parametrize(
    "sent",
    [
        *(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 50),
        *(PREFACE + b"\0\0\0\1" + bytes(5), PREFACE + b"\xff\0\0\4" + bytes(5)),
    ],
    ids=["HTTP/1.1", "TLS", "noise", "another frame first", "settings without an end"],
)
def test_what_opens_no_http_2_is_closed_at_once(plane: PlaneFixture, sent: bytes) -> None:
    async def main() -> None:
        async with grpc_client(plane, limits=FEW) as client, crowd(client) as strangers:
            await strangers.join(3, sent)
            assert await strangers.open_ones() == 0

    plane.run(main)


def test_half_an_opening_is_closed_in_time(plane: PlaneFixture) -> None:
    async def main() -> None:
        limits = replace(FEW, head_s=0.2)
        async with grpc_client(plane, limits=limits) as client, crowd(client) as slow:
            await slow.join(2, b"")
            await slow.join(2, HELLO[:-1])
            await asyncio.sleep(0.5)
            assert await slow.open_ones() == 0
            assert (await client(LIVE)).code == "OK"
            await asyncio.sleep(0.5)
            assert (await client(LIVE)).code == "OK", "that deadline is for the opening alone"

    plane.run(main)


def test_an_opening_may_come_byte_by_byte_and_with_more_behind_it(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane, limits=FEW) as client:
            host, _, port = client.target.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            for i in range(len(HELLO)):
                writer.write(HELLO[i : i + 1])
                await asyncio.sleep(0)
            ping = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"are you?"
            writer.write(ping)
            async with asyncio.timeout(5):
                got = b""
                while b"are you?" not in got:
                    got += await reader.read(65536)
            writer.close()

    plane.run(main)


def test_the_address_is_the_clients_or_what_trusted_proxies_say(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane, None) as client:
            assert (await client.infer(plane.good[:1])).code == "OK", "anonymous, from loopback"
        async with grpc_client(plane, None, proxies=Proxies(["127.0.0.1"])) as client:
            for address, code in (("127.0.0.5", "UNAUTHENTICATED"), ("192.0.2.7", "UNAUTHENTICATED")):
                result = await client.infer(plane.good[:1], headers=[("x-forwarded-for", address)])
                assert result.code == code

    plane.run(main)


@pytest.mark.parametrize(
    "headers", [[("origin", "https://evil.example")], [("sec-fetch-site", "cross-site")]]
)
def test_what_only_browsers_send_is_refused(plane: PlaneFixture, headers: list[tuple[str, str]]) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            assert (await client.infer(plane.good[:1], headers=headers)).outcome[0] == "PERMISSION_DENIED"

    plane.run(main)


def test_a_call_that_waits_for_a_person_survives_a_ping_a_second(plane: PlaneFixture) -> None:
    pings = [
        *(("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 5000)),
        *(("grpc.http2.max_pings_without_data", 0), ("grpc.use_local_subchannel_pool", 1)),
    ]

    async def main() -> None:
        async with (
            grpc_client(plane) as client,
            grpc.aio.insecure_channel(client.target, options=pings) as own,
        ):
            pinging = GrpcClient(own, client.target, client.key)
            result = await pinging.infer(plane.strange[:1], headers=[("prefer", "wait=6")])
            assert result.outcome[:2] == ("FAILED_PRECONDITION", "deferred")
            assert result.trailers["x-failsafe-review-urls"]

    plane.run(main)


def test_a_flood_of_pings_ends_its_connection(plane: PlaneFixture) -> None:
    async def main() -> None:
        ping = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"12345678"
        async with grpc_client(plane) as client, crowd(client) as flooding:
            await flooding.join(1, HELLO + 50 * ping)
            reader, _ = flooding.wires[0]
            async with asyncio.timeout(5):
                got = b""
                while more := await reader.read(65536):
                    got += more
            assert b"too_many_pings" in got
            assert (await client(LIVE)).code == "OK"

    plane.run(main)


# ---------------------------------------------------------------- TLS


def test_over_tls_calls_are_answered_and_what_finishes_no_handshake_is_closed(
    plane: PlaneFixture, tmp_path: Path
) -> None:
    pem, key = certificate(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    tls = Tls(pem.read_bytes(), key.read_bytes(), context)

    async def main() -> None:
        own = bind("127.0.0.1", 0)
        target = f"127.0.0.1:{own.getsockname()[1]}"
        listener = listener_of(plane.handler.plane, limits=replace(FEW, head_s=0.4), tls=tls)
        await listener.start(own)
        try:
            trusted = grpc.ssl_channel_credentials(pem.read_bytes())
            async with grpc.aio.secure_channel(target, trusted) as channel:
                client = GrpcClient(channel, target, plane.keys["ada"])
                assert (await client.infer(plane.good[:1])).code == "OK"
                async with crowd(client) as squatters:
                    for sent in (b"", b"\x16", b"\x16\x03\x01\x02\x00" + bytes(100), HELLO):
                        await squatters.join(3, sent)
                    await squatters.join(3, b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
                    await asyncio.sleep(1.0)
                    assert await squatters.open_ones() == 0
                    assert (await client.infer(plane.good[:1])).code == "OK"
        finally:
            await listener.stop(0)

    plane.run(main)


# ---------------------------------------------------------------- the opening


@given(st.binary(max_size=60), st.booleans())
def test_an_opening_is_never_as_long_as_half_of_it(begun: bytes, tls: bool) -> None:
    for came in (begun, HELLO[: len(begun)], b"\x16\x03" + begun):
        needed = opening_bytes(came, tls=tls)
        if needed is not None and len(came) < needed:
            assert opening_bytes(came[:-1], tls=tls) is not None, "it was none before"
    assert opening_bytes(HELLO[: len(begun)], tls=False) in (len(HELLO), len(HELLO) - 9 + 9)


def test_an_opening_is_the_preface_and_its_settings_whole() -> None:
    settings = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0])
    assert opening_bytes(PREFACE + settings, tls=False) == len(PREFACE) + 9 + 6
    assert opening_bytes(b"", tls=False) == len(PREFACE) + 9
    assert opening_bytes(b"PRI * HTTP/1.1", tls=False) is None
    assert opening_bytes(b"\x16\x03\x01\x01\x00", tls=True) == 5 + 256
    assert opening_bytes(b"\x16\x03\x01\xff\xff", tls=True) is None
    assert opening_bytes(HELLO, tls=True) is None


def test_its_unix_socket_is_for_its_owner_alone_and_removed_at_the_end(plane: PlaneFixture) -> None:
    async def main() -> None:
        repository = plane.handler.plane.repository
        path = repository.run / f"{repository.replica}.grpc"
        async with grpc_client(plane) as client:
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o077 == 0
            assert (await client(LIVE)).message == pb.ServerLiveResponse(live=True).SerializeToString()
        assert not path.exists()

    plane.run(main)


def test_the_unix_sockets_of_listeners_that_were_killed_are_removed(plane: PlaneFixture) -> None:
    async def main() -> None:
        run = plane.handler.plane.repository.run
        run.mkdir(exist_ok=True)
        killed, starting, other = run / "killed.grpc", run / "starting.grpc", run / "other.grpc"
        for path in (killed, starting, other):
            with socket.socket(socket.AF_UNIX) as left_over:
                left_over.bind(str(path))
        hour_ago = time.time() - 3600
        os.utime(killed, (hour_ago, hour_ago))
        other.unlink()
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(str(other))
            alive.listen()
            os.utime(other, (hour_ago, hour_ago))
            async with grpc_client(plane) as client:
                assert (await client(LIVE)).code == "OK"
                assert (killed.exists(), starting.exists(), other.exists()) == (False, True, True)
        starting.unlink()
        other.unlink()

    plane.run(main)


@pytest.mark.parametrize("folder", ["per%41cent and ünïcode", "deep" * 30], ids=["odd", "long"])
def test_it_serves_from_any_folder(tmp_path: Path, folder: str) -> None:
    within = letters(tmp_path / folder, FULL_RATE)
    with plane_of(within, ada=key_for(within, "ada")) as plane:

        async def main() -> None:
            async with grpc_client(plane) as client:
                assert (await client.infer(plane.good[:1])).code == "OK"

        plane.run(main)
