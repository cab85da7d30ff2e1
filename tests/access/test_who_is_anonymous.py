"""Who is anonymous, and which credential is refused: the same over HTTP and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.proxies import Proxies
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from tests.support.data_planes import LOCAL, PlaneFixture, request_of, whole_plane
from tests.support.deployments import letters
from tests.support.grpc_client import INFER, grpc_client
from tests.support.grpc_client import request_of as grpc_request

Sent = list[tuple[str, str]]
FORWARDED: dict[str, Sent] = {
    "forwarded": [("forwarded", "for=127.0.0.1")],
    "for": [("x-forwarded-for", "127.0.0.1")],
    "for itself, empty": [("x-forwarded-for", "")],
    "for, twice": [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-for", "127.0.0.1")],
    "for, no address": [("x-forwarded-for", "garbage")],
    "proto": [("x-forwarded-proto", "https")],
    "of its own": [("x-forwarded-tenant", "a")],
    "real ip": [("x-real-ip", "127.0.0.1")],
    "via": [("via", "1.1 proxy")],
}
REFUSED: dict[str, tuple[Sent, str]] = {
    "empty": ([("authorization", "")], "must be `Bearer KEY`"),
    "bearer of nothing": ([("authorization", "Bearer")], "no key after"),
    "bearer of blanks": ([("authorization", "Bearer  ")], "no key after"),
    "basic": ([("authorization", "Basic dXNlcjpwYXNz")], "must be `Bearer KEY`"),
    "basic beside a key": ([("authorization", "Basic dXNlcjo="), ("x-api-key", "{ada}")], "must be `Bearer"),
    "a key without bearer": ([("authorization", "{ada}")], "must be `Bearer KEY`"),
    "an empty x-api-key": ([("x-api-key", "")], "x-api-key is empty"),
    "a key beside an empty one": (
        [("authorization", "Bearer {ada}"), ("x-api-key", "")],
        "x-api-key is empty",
    ),
    "two keys": ([("authorization", "Bearer {ada}"), ("x-api-key", "{bob}")], "different keys"),
    "twice the same": (
        [("authorization", "Bearer {ada}"), ("authorization", "Bearer {ada}")],
        "more than one",
    ),
    "twice": ([("x-api-key", "{ada}"), ("x-api-key", "{bob}")], "more than one key"),
    "an unknown key": ([("x-api-key", "fsg_unknown")], "a valid key is needed"),
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


async def ends_of(plane: PlaneFixture, sent: Sent) -> tuple[tuple[int, str], tuple[str, str]]:
    """Status and error of one row without the fixture's key, over HTTP and over gRPC, both from loopback."""
    filled = [(name, value.format(**plane.keys)) for name, value in sent]
    body, _ = request_of(plane.good[:1])
    reply = await plane.anonymous.post(body, filled)
    async with grpc_client(plane, None) as client:
        result = await client(INFER, grpc_request(plane.good[:1]), filled)
    return (reply.status, reply.json.get("error", "")), (result.code, result.error)


def test_a_caller_on_loopback_without_a_key_is_anonymous(plane: PlaneFixture) -> None:
    async def main() -> None:
        assert await ends_of(plane, []) == ((200, ""), ("OK", ""))
        assert await ends_of(plane, [("user-agent", "x"), ("accept", "*/*")]) == ((200, ""), ("OK", ""))

    plane.run(main)


@pytest.mark.parametrize("sent", FORWARDED.values(), ids=FORWARDED)
def test_a_request_that_was_forwarded_is_not_anonymous(plane: PlaneFixture, sent: Sent) -> None:
    async def main() -> None:
        needed = "a valid key is needed"
        assert await ends_of(plane, sent) == ((401, needed), ("UNAUTHENTICATED", needed))
        with_key = [*sent, ("x-api-key", "{ada}")]
        assert await ends_of(plane, with_key) == ((200, ""), ("OK", ""))

    plane.run(main)


@pytest.mark.parametrize("sent", FORWARDED.values(), ids=FORWARDED)
def test_nor_is_one_that_a_trusted_proxy_forwarded(plane: PlaneFixture, sent: Sent) -> None:
    async def main() -> None:
        body, _ = request_of(plane.good[:1])
        elsewhere = plane.client(None, "127.0.0.9")
        assert (await elsewhere.post(body, sent)).outcome == (401, "refused", "unauthenticated")

    plane.run(main)


def test_a_trusted_proxy_that_sends_no_header_is_itself_the_caller(plane: PlaneFixture) -> None:
    async def main() -> None:
        reader, writer = await asyncio.open_connection(*plane.listeners.proxied)
        body, _ = request_of(plane.good[:1])
        writer.write(plane.anonymous.encode("POST", "/v2/models/letters/infer", body))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()

    plane.run(main)


@pytest.mark.parametrize(("sent", "what"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_credential_is_refused_and_never_anonymous(
    plane: PlaneFixture, sent: Sent, what: str
) -> None:
    async def main() -> None:
        (status, error), (code, text) = await ends_of(plane, sent)
        assert (status, code) == (401, "UNAUTHENTICATED")
        assert what in error
        assert error == text
        assert not any(key in error for key in plane.keys.values())

    plane.run(main)


def test_the_same_key_in_both_headers_is_one_credential(plane: PlaneFixture) -> None:
    async def main() -> None:
        sent = [("authorization", "Bearer {ada}"), ("x-api-key", "{ada}")]
        assert await ends_of(plane, sent) == ((200, ""), ("OK", ""))

    plane.run(main)


def test_health_is_answered_whatever_the_credential(plane: PlaneFixture) -> None:
    async def main() -> None:
        for sent, _ in REFUSED.values():
            filled = [(name, value.format(**plane.keys)) for name, value in sent]
            assert (await plane.anonymous.get("/v2/health/ready", filled)).status == 200

    plane.run(main)


# ---------------------------------------------------------------- the policy


def policy_problems(tmp_path: Path, serving: str) -> list[str]:
    folder = letters(tmp_path, ("anonymous: loopback", serving))
    try:
        Deployment.read(folder)
    except PolicyError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("trusted", ['"*"', '"0.0.0.0/0"', '"::/0"', '"0.0.0.0/1", "128.0.0.0/1"'])
def test_every_peer_as_a_trusted_proxy_is_refused_beside_anonymous_callers(
    tmp_path: Path, trusted: str
) -> None:
    (problem,) = policy_problems(tmp_path / "a", f"anonymous: loopback, trusted_proxies: [{trusted}]")
    assert "serving.trusted_proxies" in problem
    assert "anonymous: nobody" in problem
    assert policy_problems(tmp_path / "b", f"anonymous: nobody, trusted_proxies: [{trusted}]") == []


@pytest.mark.parametrize("entry", ["proxy.internal", "10.0.0.1/8", "10.0.0.1:80", "[::1]", "", "10.0.0.*"])
def test_a_trusted_proxy_that_is_no_address_is_refused_at_its_place(tmp_path: Path, entry: str) -> None:
    (problem,) = policy_problems(tmp_path, f'anonymous: loopback, trusted_proxies: ["10.0.0.1", "{entry}"]')
    assert "serving.trusted_proxies[1]" in problem
    assert repr(entry) in problem


def test_a_star_beside_other_proxies_is_refused(tmp_path: Path) -> None:
    (problem,) = policy_problems(tmp_path, 'anonymous: nobody, trusted_proxies: ["*", "10.0.0.1"]')
    assert "must stand alone" in problem


@pytest.mark.parametrize("entry", [LOCAL, "::1", "10.0.0.0/8", "fd00::/8", "localhost", "::ffff:10.0.0.1"])
def test_addresses_networks_and_localhost_are_trusted_proxies(tmp_path: Path, entry: str) -> None:
    assert policy_problems(tmp_path, f'anonymous: loopback, trusted_proxies: ["{entry}"]') == []
    Proxies([entry])
