"""Authentication of the administration plane: nothing passes without the token or a session."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import BaseRoute, Mount, Route

from gateway.access.persons_file import add_person, revoke_person
from gateway.admin.app import admin_app
from gateway.admin.authentication import COOKIE
from gateway.admin.require_login import HEADERS, PUBLIC_PATHS
from tests.support.admin_world import (
    BEARER,
    FORM,
    HOST,
    HTML,
    OWN_PAGE,
    TOKEN,
    AdminWorld,
    admin_world,
    browser_at,
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


def no_credentials(one: AdminWorld) -> list[dict[str, str]]:
    """Headers that prove nothing at plain paths, the two halves of a session alone among them."""
    cookie = one.browser.cookies[COOKIE]
    return [
        {},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"{COOKIE}=wrong"},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}={cookie}"},
        {"cookie": f"{COOKIE}={one.csrf}"},
        {"x-fs-alone": "1"},
    ]


@on_loop
async def test_every_route_without_credentials_is_denied(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for method, path in [*paths(one), ("GET", "/nothing"), ("OPTIONS", "/metrics")]:
            for headers in no_credentials(one):
                reply = await one.anonymous.request(method, path, headers=headers)
                assert reply.status_code == 401, (method, path, headers)
                assert reply.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or set(reply.json()) == {"error"}


@pytest.mark.parametrize("given", ["wrong", f"{TOKEN}x", TOKEN[:-1], "", "\xff", "cookie", "handle", "hash"])
@on_loop
async def test_a_wrong_token_is_denied_with_or_without_a_session(tmp_path: Path, given: str) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        known = {
            "cookie": one.browser.cookies[COOKIE],
            "handle": one.root.rpartition("/")[2],
            "hash": one.authentication.persons.admin.credential,
        }
        raw = {b"authorization": f"Bearer {known.get(given, given)}".encode("latin-1")}
        for client in (one.anonymous, one.browser):
            reply = await client.get("/status?format=json", headers=raw)
            assert reply.status_code == 401


@on_loop
async def test_the_cookie_opens_nothing_without_the_urls_of_its_session(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        cookie = {"cookie": f"{COOKIE}={one.browser.cookies[COOKIE]}"}
        async with one.signed_in(TOKEN) as other:
            for root in ("", "/session", "/session/", f"{one.root}x", one.root[:-1], other.root):
                reply = await one.anonymous.get(f"{root}/status", headers=cookie)
                assert reply.status_code == 401, root
        assert (await one.anonymous.get(f"{one.root}/status", headers=cookie)).status_code == 200
        assert (await one.anonymous.get(f"{one.root}/status")).status_code == 401


@on_loop
async def test_a_cookie_is_not_sent_to_another_port_of_the_host_and_opens_nothing_at_another_name(
    tmp_path: Path,
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        async with one.signed_in(TOKEN) as browser:
            asked = browser.client.build_request("GET", "http://127.0.0.1:9590/")
            assert "cookie" not in asked.headers
            own = browser.client.build_request("GET", f"http://{HOST}{browser.root}/status")
            assert own.headers["cookie"] == f"{COOKIE}={browser.cookie}"
        cookie = {"cookie": f"{COOKIE}={one.browser.cookies[COOKIE]}"}
        for host in ("localhost:8082", "127.0.0.1:9590", "evil.example"):
            reply = await one.anonymous.get(f"{one.root}/status", headers={**cookie, "host": host})
            assert reply.status_code == 401, host


@on_loop
async def test_with_tls_the_cookie_is_bound_to_the_host_by_its_name(tmp_path: Path) -> None:
    async with (
        admin_world(deployment(tmp_path)) as one,
        browser_at(one.app, TOKEN, "https://gw.example:8082") as browser,
    ):
        parts = browser.reply.headers["set-cookie"].split("; ")
        assert parts[0].startswith("__Host-fs_session=")
        assert {"HttpOnly", "Path=/", "SameSite=strict", "Secure", "Max-Age=43200"} == set(parts[1:])
        assert (await browser.client.get("/status")).status_code == 200
        plain = {"cookie": f"{COOKIE}={browser.cookie}", "host": "gw.example:8082"}
        assert (await one.anonymous.get(f"{browser.root}/status", headers=plain)).status_code == 401


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
async def test_login_starts_a_session_that_holds_at_every_replica(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    async with admin_world(folder) as one, admin_world(folder) as other:
        reply = await one.anonymous.post("/login", data={"token": f" {TOKEN} ", "next": "/review"})
        assert reply.status_code == 303
        root = reply.headers["location"].removesuffix("/review")
        header = reply.headers["set-cookie"]
        assert header.startswith(f"{COOKIE}=") and TOKEN not in header
        assert {"HttpOnly", f"Path={root}", "SameSite=strict", "Max-Age=43200"} == set(header.split("; ")[1:])
        cookie = {"cookie": header.split(";")[0]}
        assert (await other.anonymous.get(f"{root}/status", headers=cookie)).status_code == 200
        elsewhere = httpx.ASGITransport(admin_app(one.repository, "another token of sixteen"))
        async with httpx.AsyncClient(transport=elsewhere, base_url=f"http://{HOST}") as client:
            denied = await client.get(f"{root}/status", headers=cookie)
            assert denied.status_code == 401, "sessions of a token end with it"


@on_loop
async def test_two_logins_start_two_sessions_that_share_nothing(tmp_path: Path) -> None:
    async with (
        admin_world(deployment(tmp_path)) as one,
        one.signed_in(TOKEN) as first,
        one.signed_in(TOKEN) as second,
    ):
        assert len({first.cookie, second.cookie, first.root, second.root, first.csrf, second.csrf}) == 6
        assert len(first.cookie) >= 43


@on_loop
async def test_logout_ends_the_session_at_every_replica(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    async with admin_world(folder) as one, admin_world(folder) as other, one.signed_in(TOKEN) as browser:
        cookie = {"cookie": f"{COOKIE}={browser.cookie}"}
        reply = await browser.post("/logout")
        assert reply.headers["location"] == "/login"
        assert f'{COOKIE}=""' in reply.headers["set-cookie"] and "Max-Age=0" in reply.headers["set-cookie"]
        assert f"Path={browser.root}" in reply.headers["set-cookie"]
        for world in (one, other):
            for path in ("/status", "/metrics"):
                again = await world.anonymous.get(f"{browser.root}{path}", headers=cookie)
                assert again.status_code == 401
        assert (await one.browser.get("/status")).status_code == 200, "other sessions go on"


@on_loop
async def test_a_session_ends_after_twelve_hours(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        sessions = one.authentication.sessions
        for hours, status in ((11.99, 200), (12.01, 303)):
            sessions._clock = itertools.repeat(time.time() + hours * 3600).__next__
            assert (await one.browser.get("/status")).status_code == status
        assert one.authentication.sessions.all() == []


@pytest.mark.parametrize("change", ["revoked", "another token"])
@on_loop
async def test_the_sessions_of_a_person_end_with_the_persons_token(tmp_path: Path, change: str) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        state = one.repository.state
        async with one.signed_in(add_person(state, "ada", "operator")) as ada:
            assert (await ada.client.get("/status")).status_code == 200
            if change == "revoked":
                revoke_person(state, "ada")
            else:
                add_person(state, "ada", "operator")
            assert (await ada.client.get("/status")).status_code == 303
            assert (await ada.post("/rungs/primary/isolate")).status_code == 303
            assert one.gateway.loaded.breakers["primary"].state == "closed"


@on_loop
async def test_a_session_follows_the_role_that_its_person_has_now(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        file = one.repository.state / "persons.jsonl"
        async with one.signed_in(add_person(one.repository.state, "ada", "operator")) as ada:
            assert (await ada.post("/policy/reload")).status_code == 303
            file.write_text(file.read_text().replace("operator", "viewer"))
            assert (await ada.post("/policy/reload")).status_code == 403
            assert (await ada.client.get("/status")).status_code == 200


@on_loop
async def test_a_wrong_token_gets_no_session(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        scraper = add_person(one.repository.state, "prometheus", "scraper")
        cookie = one.browser.cookies[COOKIE]
        replica = one.app.state.peers.token
        wrong = ("wrong", "", cookie, scraper, replica)
        for fields in ({}, *({"token": token} for token in wrong)):
            reply = await one.anonymous.post("/login", data=fields, headers=HTML)
            assert reply.status_code == 401 and "set-cookie" not in reply.headers
            assert "This is no token of a person here" in reply.text
        assert (await one.anonymous.post("/login", content=b"\xff", headers=FORM)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
    ],
)
@on_loop
async def test_another_site_cannot_sign_a_browser_in(tmp_path: Path, headers: dict[str, str]) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        reply = await one.anonymous.post("/login", data={"token": TOKEN}, headers=headers)
        assert reply.status_code == 403 and "set-cookie" not in reply.headers


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
        root, found, rest = reply.headers["location"].partition(goes)
        assert (found, rest) == (goes, "") and re.fullmatch(r"/session/[0-9a-f]{24}", root)


GOOD = {"csrf": "CSRF"}


@pytest.mark.parametrize(
    ("headers", "fields", "passes"),
    [
        (OWN_PAGE, GOOD, True),
        ({"origin": f"http://{HOST}"}, GOOD, True),
        ({**OWN_PAGE, "x-csrf-token": "CSRF"}, {}, True),
        ({}, GOOD, False),
        (OWN_PAGE, {}, False),
        (OWN_PAGE, {"csrf": "wrong"}, False),
        (OWN_PAGE, {"csrf": "COOKIE"}, False),
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
        values = {"CSRF": one.csrf, "COOKIE": one.browser.cookies[COOKIE]}
        headers, fields = (
            {name: values.get(value, value) for name, value in given.items()} for given in (headers, fields)
        )
        reply = await one.browser.post("/rungs/primary/isolate", data=fields, headers=headers)
        state = one.gateway.loaded.breakers["primary"].state
        assert (reply.status_code, state) == ((303, "isolated") if passes else (403, "closed"))


@on_loop
async def test_a_cookie_with_json_needs_the_csrf_token_too(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for body, status in ({"csrf": one.csrf}, 303), ({"csrf": 1}, 403), ([], 403), ({}, 403):
            reply = await one.browser.post("/rungs/primary/isolate", json=body, headers=OWN_PAGE)
            assert reply.status_code == status, body


@on_loop
async def test_a_token_needs_neither_page_nor_csrf(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        assert (await one.script.post("/rungs/primary/isolate")).status_code == 200
        cookie = {"cookie": f"{COOKIE}={one.browser.cookies[COOKIE]}", **BEARER}
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


@pytest.mark.parametrize("token", ["", " ", "\n", "fifteen-bytes-x"])
@on_loop
async def test_a_token_that_could_be_guessed_opens_no_administration(tmp_path: Path, token: str) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        with pytest.raises(ValueError, match="could be guessed"):
            admin_app(one.repository, token)
