"""What browsers send: for a page of another site, by a rebound name, and for pages that the policy allows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.site import Site
from gateway.http.handler import HttpHandler
from gateway.policy.serving import Serving
from tests.support.data_planes import (
    INFER,
    LIMITS,
    Client,
    ClientReply,
    PlaneFixture,
    listeners_of,
    request_of,
    whole_plane,
)

EVIL, APP = "https://evil.example", "https://app.example.org"
EXPOSED = "access-control-allow-origin"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


async def send(client: Client, sent: bytes, head_only: bool = False) -> ClientReply:
    async with client.connection() as wire:
        await wire.send(sent)
        got = await wire.reply(head_only)
        return ClientReply(got.status, got.headers, got.body)


def infer_lines(client: Client, body: bytes, *lines: str, target: str = INFER) -> bytes:
    head = [f"POST {target} HTTP/1.1", f"authorization: Bearer {client.key}", *lines]
    head.append(f"content-length: {len(body)}")
    return "".join(f"{line}\r\n" for line in head).encode() + b"\r\n" + body


CROSS_SITE = {
    "a form of another site": ["host: localhost", f"origin: {EVIL}", "sec-fetch-site: cross-site"],
    "without an origin": ["host: localhost", "sec-fetch-site: cross-site", "sec-fetch-mode: no-cors"],
    "an older browser": ["host: localhost", f"origin: {EVIL}"],
    "a sandboxed frame": ["host: localhost", "origin: null"],
    "another port of this host": ["host: localhost:8080", "origin: http://localhost:3000"],
    "in JSON": ["host: localhost", f"origin: {EVIL}", "content-type: application/json"],
}
REBOUND = {
    "by name": (["host: rebind.evil.example:9580"], INFER),
    "of the same origin, the browser thinks": (
        ["host: evil.example", "origin: http://evil.example", "sec-fetch-site: same-origin"],
        INFER,
    ),
    "in the target": (["host: localhost"], f"http://evil.example{INFER}"),
    "0.0.0.0": (["host: 0.0.0.0:8080"], INFER),
}


@pytest.mark.parametrize("lines", CROSS_SITE.values(), ids=CROSS_SITE)
def test_what_a_browser_sends_across_sites_is_refused_and_no_case_is_made(
    plane: PlaneFixture, lines: list[str]
) -> None:
    async def main() -> None:
        known = await plane.cases()
        body, _ = request_of(plane.strange[:1])
        reply = await send(plane.ada, infer_lines(plane.ada, body, *lines))
        assert reply.outcome == (403, "refused", "forbidden")
        assert EXPOSED not in reply.headers
        await asyncio.sleep(0.05)
        assert await plane.cases() == known

    plane.run(main)


@pytest.mark.parametrize(("lines", "target"), REBOUND.values(), ids=REBOUND)
def test_a_request_for_another_host_is_refused_and_no_case_is_made(
    plane: PlaneFixture, lines: list[str], target: str
) -> None:
    async def main() -> None:
        known = await plane.cases()
        body, _ = request_of(plane.strange[:1])
        reply = await send(plane.ada, infer_lines(plane.ada, body, *lines, target=target))
        assert reply.outcome == (421, "refused", "misdirected")
        assert "serving.hosts" in reply.json["error"]
        for path in ("/v2/health/live", "/v2/models/letters/stats", "/nowhere"):
            got = await plane.anonymous.get(path, [("host", "evil.example")])
            assert got.status == 400, "two hosts"
        assert await plane.cases() == known

    plane.run(main)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "Text/Plain;charset=UTF-8", "multipart/form-data; boundary=x"]
)
def test_inference_takes_no_media_type_that_a_page_may_send_unasked(
    plane: PlaneFixture, media_type: str
) -> None:
    async def main() -> None:
        known = await plane.cases()
        keyed = await plane.ada.infer(plane.good[:1], {"content-type": media_type})
        assert keyed.status == 200, "a page cannot send a key unasked"
        reply = await plane.anonymous.infer(plane.strange[:1], {"content-type": media_type})
        assert reply.outcome == (415, "refused", "unsupported_media")
        assert "application/json" in reply.headers["accept"]
        assert await plane.cases() == known

    plane.run(main)


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/octet-stream", "application/x-www-form-urlencoded", "x"]
)
def test_inference_takes_every_other_media_type_as_clients_send_them(
    plane: PlaneFixture, media_type: str
) -> None:
    async def main() -> None:
        assert (await plane.ada.infer(plane.good[:1], {"content-type": media_type})).status == 200

    plane.run(main)


def test_http_1_0_needs_no_host(plane: PlaneFixture) -> None:
    async def main() -> None:
        reply = await send(plane.anonymous, b"GET /v2/health/ready HTTP/1.0\r\n\r\n")
        assert reply.status == 200

    plane.run(main)


# ---------------------------------------------------------------- HEAD and OPTIONS


@pytest.mark.parametrize(
    "path",
    [
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/letters", "/v2/models/letters/ready"),
        *("/v2/models/letters/config", "/openapi.json", "/decisions/x", "/reviews/x", "/nowhere"),
        *("/v2/models/other", "/v2/logging"),
    ],
)
def test_head_is_answered_as_get_without_the_body_and_the_connection_kept(
    plane: PlaneFixture, path: str
) -> None:
    async def main() -> None:
        async with plane.ada.connection() as wire:
            for _ in range(2):
                got = await wire.request(plane.ada.encode("GET", path))
                await wire.send(plane.ada.encode("HEAD", path))
                head = await wire.reply(head_only=True)
                assert (head.status, head.headers.keys()) == (got.status, got.headers.keys())
                assert head.headers["content-length"] == got.headers["content-length"]
                assert head.headers.get("content-type") == got.headers.get("content-type")
                assert not head.closes

    plane.run(main)


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (INFER, "POST, OPTIONS"),
        ("/v2/health/live", "GET, HEAD, OPTIONS"),
        ("/v2/logging", "GET, POST, HEAD, OPTIONS"),
    ],
)
def test_options_says_which_methods_a_path_has(plane: PlaneFixture, path: str, allow: str) -> None:
    async def main() -> None:
        async with plane.anonymous.connection() as wire:
            await wire.send(plane.anonymous.encode("OPTIONS", path))
            got = await wire.reply()
            assert (got.status, got.headers["allow"], got.body) == (204, allow, b"")
            assert not any(name.startswith("access-control") for name in got.headers)
            assert (await wire.request(plane.ada.encode("OPTIONS", "/nowhere"))).status == 404

    plane.run(main)


# ---------------------------------------------------------------- pages that the policy allows


PREFLIGHT = {"origin": APP, "access-control-request-method": "POST", "sec-fetch-site": "cross-site"}


def test_by_default_no_preflight_request_is_granted(plane: PlaneFixture) -> None:
    async def main() -> None:
        reply = await plane.anonymous.request("OPTIONS", INFER, headers=PREFLIGHT)
        assert reply.outcome == (403, "refused", "forbidden")
        assert not any(name.startswith("access-control") for name in reply.headers)

    assert Serving().cors == []
    plane.run(main)


@pytest.mark.parametrize("origins", [[APP], ["*"]])
def test_a_page_of_an_allowed_origin_may_ask_and_reads_every_reply(
    plane: PlaneFixture, origins: list[str], tmp_path: Path
) -> None:
    async def main() -> None:
        handler = HttpHandler(plane.handler.plane, Site("127.0.0.1", ["gateway"], origins))
        async with listeners_of(handler, LIMITS) as listeners:
            page = Client(listeners, plane.keys["ada"])
            granted = await page.request("OPTIONS", INFER, headers=PREFLIGHT)
            assert granted.status == 204
            assert granted.headers["access-control-allow-methods"] == "GET, HEAD, POST, OPTIONS"
            assert "authorization" in granted.headers["access-control-allow-headers"]
            assert int(granted.headers["access-control-max-age"]) > 0
            sent = {"origin": APP, "sec-fetch-site": "cross-site", "accept-encoding": "gzip"}
            many = await page.infer(plane.good[:60], sent, outputs=[{"name": "fs_row_outcome"}])
            assert (many.status, many.headers["vary"]) == (200, "origin") or (
                many.headers["vary"] == "accept-encoding, origin"
            )
            deferred = await page.infer(plane.strange[:1], sent)
            unknown = await page.get("/nowhere", sent)
            assert (deferred.status, unknown.status) == (422, 404)
            for reply in (granted, many, deferred, unknown):
                assert reply.headers[EXPOSED] == APP
                assert "origin" in reply.headers["vary"]
                assert "access-control-allow-credentials" not in reply.headers
            without = await page.get("/v2/health/live")
            assert EXPOSED not in without.headers

    plane.run(main)


def test_a_page_of_another_origin_is_refused_though_one_is_allowed(plane: PlaneFixture) -> None:
    async def main() -> None:
        handler = HttpHandler(plane.handler.plane, Site("127.0.0.1", ["gateway"], [APP]))
        async with listeners_of(handler, LIMITS) as listeners:
            page = Client(listeners, plane.keys["ada"])
            for headers in ({**PREFLIGHT, "origin": EVIL}, {"origin": EVIL}):
                reply = await page.request("OPTIONS", INFER, headers=headers)
                assert reply.status == 403 and EXPOSED not in reply.headers
            assert (await page.infer(plane.good[:1], {"origin": EVIL})).status == 403

    plane.run(main)
