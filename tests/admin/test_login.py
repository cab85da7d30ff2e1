"""Authentication of the administration plane: nothing passes without the token or a session."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import BaseRoute, Mount, Route

from gateway.admin.app import admin_app
from gateway.admin.pages.login import COOKIE, HEADERS, PUBLIC_PATHS, AdminCredentials
from tests.support.admin_world import (
    BEARER,
    CREDENTIALS,
    FORM,
    HOST,
    HTML,
    OWN_PAGE,
    TOKEN,
    AdminWorld,
    admin_world,
    deployment,
    on_loop,
)

FILLED = {"{id}": "x", "{name}": "primary", "{deployment}": "letters"}


def paths(one: AdminWorld) -> list[tuple[str, str]]:
    """Every method and path of the application."""
    found = list(walked(one.app.routes))
    assert len(found) > 30
    return [one for one in found if one[1] not in PUBLIC_PATHS]


def walked(routes: Sequence[BaseRoute], below: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        assert isinstance(route, Route | Mount), f"{route} is of another kind: teach this test to walk it"
        path = below + route.path
        if isinstance(route, Mount):
            yield from walked(route.routes, path)
            continue
        for mark, value in FILLED.items():
            path = path.replace(mark, value)
        yield from ((method, path) for method in sorted(route.methods or ()))


NO_CREDENTIALS: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer wrong"},
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": f"Bearer {TOKEN}x"},
    {"authorization": f"Bearer {CREDENTIALS.session}"},
    {"authorization": "Bearer \xff"},
    {"cookie": f"{COOKIE}=wrong"},
    {"cookie": f"{COOKIE}={TOKEN}"},
    {"cookie": f"{COOKIE}={CREDENTIALS.csrf}"},
    {"cookie": f"{COOKIE}={CREDENTIALS.session}", "authorization": "Bearer wrong"},
    {"x-fs-alone": "1"},
]


@on_loop
async def test_every_route_without_credentials_is_denied(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for method, path in [*paths(one), ("GET", "/nothing"), ("OPTIONS", "/metrics")]:
            for headers in NO_CREDENTIALS:
                raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
                reply = await one.anonymous.request(method, path, headers=raw)
                assert reply.status_code == 401, (method, path, headers)
                assert reply.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or set(reply.json()) == {"error"}


@on_loop
async def test_a_browser_without_credentials_is_sent_to_the_login_page(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for method, path in paths(one):
            reply = await one.anonymous.request(method, path, headers=HTML)
            assert reply.status_code == 303
            assert reply.headers["location"].startswith("/login"), (method, path)
        for path in PUBLIC_PATHS:
            assert (await one.anonymous.get(path, headers=HTML)).status_code == 200, path


@pytest.mark.parametrize("host", ["x/login?", "x/login#", "/login", "login"])
@pytest.mark.parametrize(
    "path", ["/metrics", "/login?x", "/login/../metrics", "//login", "/pages/../metrics"]
)
@on_loop
async def test_neither_a_crafted_host_nor_a_crafted_path_passes_authentication(
    tmp_path: Path, host: str, path: str
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", host.encode())],
            "scheme": "http",
            "server": ("127.0.0.1", 8082),
            "root_path": "",
            "http_version": "1.1",
        }
        await one.app(scope, receive, send)
        assert sent[0]["status"] == 401


@on_loop
async def test_a_websocket_is_closed(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
        await one.app({"type": "websocket", "path": "/status", "headers": headers}, receive, send)
        assert sent == ["websocket.close"]


@on_loop
async def test_login_sets_a_session_that_holds_at_every_replica_with_the_token(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    async with admin_world(folder) as one, admin_world(folder) as other:
        reply = await one.anonymous.post("/login", data={"token": f" {TOKEN} ", "next": "/review"})
        assert (reply.status_code, reply.headers["location"]) == (303, "/review")
        cookie_header = reply.headers["set-cookie"]
        assert (
            cookie_header.startswith(f"{COOKIE}=")
            and "HttpOnly" in cookie_header
            and "SameSite=strict" in cookie_header
        )
        cookie = {"cookie": cookie_header.split(";")[0]}
        assert TOKEN not in cookie_header
        assert (await other.anonymous.get("/status", headers=cookie)).status_code == 200
        elsewhere = httpx.ASGITransport(admin_app(one.repository, "another token"))
        async with httpx.AsyncClient(transport=elsewhere, base_url=f"http://{HOST}") as client:
            assert (await client.get("/status", headers=cookie)).status_code == 401


@on_loop
async def test_a_wrong_token_gets_no_session(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for fields in ({"token": "wrong"}, {"token": ""}, {}, {"token": CREDENTIALS.session}):
            reply = await one.anonymous.post("/login", data=fields, headers=HTML)
            assert reply.status_code == 401 and "set-cookie" not in reply.headers
            assert "This is not the administration token" in reply.text
        assert (await one.anonymous.post("/login", content=b"\xff", headers=FORM)).status_code == 401


@pytest.mark.parametrize(
    ("asked", "goes"),
    [
        ("/review/a.1?x=y", "/review/a.1?x=y"),
        ("//evil.example", "/status"),
        ("https://evil.example", "/status"),
        ("/\\evil.example", "/status"),
        ("/\tx", "/status"),
        ("javascript:alert(1)", "/status"),
        ("/\u202e", "/status"),
        ("", "/status"),
    ],
)
@on_loop
async def test_login_redirects_to_this_host_alone(tmp_path: Path, asked: str, goes: str) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        reply = await one.anonymous.post("/login", data={"token": TOKEN, "next": asked})
        assert reply.headers["location"] == goes


@on_loop
async def test_logout_deletes_the_session_cookie(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        reply = await one.post("/logout")
        assert reply.headers["location"] == "/login"
        assert f'{COOKIE}=""' in reply.headers["set-cookie"] and "Max-Age=0" in reply.headers["set-cookie"]


GOOD = {"csrf": CREDENTIALS.csrf}


@pytest.mark.parametrize(
    ("headers", "fields", "passes"),
    [
        (OWN_PAGE, GOOD, True),
        ({"origin": f"http://{HOST}"}, GOOD, True),
        ({**OWN_PAGE, "x-csrf-token": CREDENTIALS.csrf}, {}, True),
        ({}, GOOD, False),
        (OWN_PAGE, {}, False),
        (OWN_PAGE, {"csrf": "wrong"}, False),
        (OWN_PAGE, {"csrf": CREDENTIALS.session}, False),
        ({"sec-fetch-site": "same-site"}, GOOD, False),  # another port of this machine
        ({"sec-fetch-site": "cross-site"}, GOOD, False),
        ({"sec-fetch-site": "none"}, GOOD, False),
        ({"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"}, GOOD, False),
        ({"origin": "http://127.0.0.1:9999"}, GOOD, False),
        ({"origin": "null"}, GOOD, False),
        ({"origin": f"http://{HOST}.evil.example"}, GOOD, False),
    ],
)
@on_loop
async def test_a_session_changes_something_only_from_our_own_pages(
    tmp_path: Path, headers: dict[str, str], fields: dict[str, str], passes: bool
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        reply = await one.browser.post("/rungs/primary/isolate", data=fields, headers=headers)
        state = one.gateway.loaded.breakers["primary"].state
        assert (reply.status_code, state) == ((303, "isolated") if passes else (403, "closed"))


@on_loop
async def test_a_cookie_with_json_needs_the_csrf_token_too(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for body, status in ({"csrf": CREDENTIALS.csrf}, 303), ({"csrf": 1}, 403), ([], 403), ({}, 403):
            reply = await one.browser.post("/rungs/primary/isolate", json=body, headers=OWN_PAGE)
            assert reply.status_code == status, body


@on_loop
async def test_a_token_needs_neither_page_nor_csrf(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        assert (await one.script.post("/rungs/primary/isolate")).status_code == 200
        cookie = {"cookie": f"{COOKIE}={CREDENTIALS.session}", **BEARER}
        assert (await one.anonymous.post("/rungs/primary/restore", headers=cookie)).status_code == 200


@on_loop
async def test_every_reply_carries_the_strict_headers(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        replies = [
            await client.request(method, path)
            for client in (one.script, one.browser, one.anonymous)
            for method, path in [*paths(one), *(("GET", path) for path in PUBLIC_PATHS), ("GET", "/nothing")]
        ]
        for reply in replies:
            for name, value in HEADERS.items():
                assert reply.headers.get_list(name) == [value], (reply.url, name)
        policy = HEADERS["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy


@on_loop
async def test_a_large_body_is_not_read(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for client in (one.script, one.browser, one.anonymous):
            path = "/login" if client is one.anonymous else "/review/claim"
            assert (await client.post(path, content=b"x" * 70_000)).status_code == 413


@on_loop
async def test_a_defect_is_reported_without_its_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        monkeypatch.setattr(one.review.store, "list_cases", lambda *_: 1 / 0)
        for client in (one.script, one.browser):
            reply = await client.get("/review")
            assert reply.status_code == 500 and "ZeroDivision" not in reply.text


@pytest.mark.parametrize("token", ["", " ", "\n"])
def test_an_empty_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        AdminCredentials(token)


def test_sessions_of_different_tokens_differ() -> None:
    assert (
        len(
            {
                key
                for token in ("a", "b")
                for key in (AdminCredentials(token).session, AdminCredentials(token).csrf)
            }
        )
        == 4
    )
    assert "compare_digest" in inspect.getsource(AdminCredentials)
