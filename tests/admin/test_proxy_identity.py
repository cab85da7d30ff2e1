"""Persons whom a trusted proxy names: believed from that proxy alone, and only to begin a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.access.persons_file import add_person
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from tests.support.admin_world import HTML, AdminWorld, admin_world, deployment, on_loop, rewrite

HEADER = "X-Forwarded-Email"
PROXIED = f"serving: {{trusted_proxies: [10.0.0.0/8], person_header: {HEADER}, anonymous: loopback"
ADA = {HEADER: "ada@example.org", **HTML}


@asynccontextmanager
async def behind_a_proxy(tmp_path: Path) -> AsyncIterator[AdminWorld]:
    """A replica whose person ada is known to a proxy in 10.0.0.0/8."""
    folder = deployment(tmp_path)
    rewrite(folder, "serving: {anonymous: loopback", PROXIED)
    async with admin_world(folder) as one:
        add_person(one.repository.state, "ada", "operator", "ada@example.org")
        yield one


@asynccontextmanager
async def peer(one: AdminWorld, address: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose connection comes from this address, to the name that browsers use."""
    wire = httpx.ASGITransport(one.app, raise_app_exceptions=False, client=(address, 1234))
    async with httpx.AsyncClient(transport=wire, base_url="http://gw.example") as client:
        yield client


@on_loop
async def test_a_person_whom_the_proxy_names_gets_a_session_without_a_token(tmp_path: Path) -> None:
    async with behind_a_proxy(tmp_path) as one, peer(one, "10.0.0.9") as proxy:
        more = {**ADA, "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}
        reply = await proxy.get("/login?next=/review", headers=more)
        root = reply.headers["location"].removesuffix("/review")
        assert reply.status_code == 303 and root.startswith("/session/")
        assert reply.headers["set-cookie"].startswith("__Host-fs_session=")
        proxy.cookies.clear()
        cookie = {"cookie": reply.headers["set-cookie"].split(";")[0]}
        page = await proxy.get(f"{root}/status", headers={**more, **cookie})
        assert page.status_code == 200 and "<b>ada</b>" in page.text
        eve = {**more, **cookie, HEADER: "eve@example.org"}
        assert (await proxy.get(f"{root}/status", headers=eve)).status_code == 303, "another person now"
        (act,) = [act for act in one.acts() if act["person"] == "ada"]
        assert (act["act"], act["address"]) == ("login", "203.0.113.7")


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.7", "11.0.0.1", "::1"])
@on_loop
async def test_the_header_is_not_believed_from_any_other_peer(tmp_path: Path, address: str) -> None:
    async with behind_a_proxy(tmp_path) as one, peer(one, address) as client:
        forged = {**ADA, "x-forwarded-for": "10.0.0.9"}
        reply = await client.get("/login", headers=forged)
        assert reply.status_code == 200 and "set-cookie" not in reply.headers
        assert (await client.get("/status", headers={HEADER: "ada@example.org"})).status_code == 401


@on_loop
async def test_the_header_alone_changes_nothing(tmp_path: Path) -> None:
    async with behind_a_proxy(tmp_path) as one, peer(one, "10.0.0.9") as proxy:
        for headers in ({HEADER: "ada@example.org"}, ADA):
            reply = await proxy.post("/rungs/primary/isolate", headers=headers)
            assert reply.status_code == (303 if headers is ADA else 401)
        assert one.gateway.loaded.breakers["primary"].state == "closed"


@pytest.mark.parametrize("names", [["eve@example.org"], ["ada"], ["ADA@example.org"], ["<script>"]])
@on_loop
async def test_one_who_is_no_person_here_is_told_so(tmp_path: Path, names: list[str]) -> None:
    async with behind_a_proxy(tmp_path) as one, peer(one, "10.0.0.9") as proxy:
        reply = await proxy.get("/login", headers=[*HTML.items(), *((HEADER, name) for name in names)])
        assert reply.status_code == 403 and "is no person here" in reply.text
        assert "set-cookie" not in reply.headers and "<script>" not in reply.text


@on_loop
async def test_a_header_that_comes_twice_names_no_person(tmp_path: Path) -> None:
    async with behind_a_proxy(tmp_path) as one, peer(one, "10.0.0.9") as proxy:
        twice = [(HEADER, "ada@example.org"), (HEADER, "eve@example.org")]
        reply = await proxy.get("/login", headers=[*HTML.items(), *twice])
        assert reply.status_code == 200 and "set-cookie" not in reply.headers


@pytest.mark.parametrize("proxies", ["[]", '["*"]'])
def test_a_header_that_any_client_could_send_is_refused_in_the_policy(tmp_path: Path, proxies: str) -> None:
    folder = deployment(tmp_path)
    rewrite(
        folder,
        "serving: {anonymous: loopback",
        f"serving: {{trusted_proxies: {proxies}, person_header: {HEADER}, anonymous: loopback",
    )
    with pytest.raises(PolicyError, match=r"person_header: is believed from trusted proxies alone"):
        Deployment.read(folder)
