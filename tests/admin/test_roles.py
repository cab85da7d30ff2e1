"""What each role may do: every route of the administration, asked by every role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from starlette.routing import BaseRoute, Mount, Route

from gateway.access.persons_file import add_person, revoke_person
from gateway.admin.pages import formatting
from gateway.admin.require_login import PUBLIC_PATHS
from tests.support.admin_world import HTML, AdminWorld, admin_world, deployment, on_loop

ROLES = ("scraper", "viewer", "reviewer", "operator")
OF_A_DEPLOYMENT = {
    ("GET", "/status"): "viewer",
    ("GET", "/policy"): "viewer",
    ("POST", "/policy/reload"): "operator",
    ("POST", "/rungs/{name}/isolate"): "operator",
    ("POST", "/rungs/{name}/restore"): "operator",
    ("GET", "/review"): "reviewer",
    ("POST", "/review/claim"): "reviewer",
    ("GET", "/review/{id}"): "reviewer",
    ("POST", "/review/{id}/answer"): "reviewer",
    ("POST", "/review/{id}/release"): "reviewer",
    ("POST", "/review/{id}/renew"): "reviewer",
    ("GET", "/review/{id}/image.png"): "reviewer",
}
NEEDS = {
    ("GET", "/"): "viewer",
    ("POST", "/logout"): "viewer",
    ("GET", "/sessions"): "viewer",
    ("POST", "/sessions/{id}/end"): "viewer",
    ("GET", "/metrics"): "scraper",
    ("GET", "/decisions/{id}"): "viewer",
    ("POST", "/stop"): "operator",
    ("POST", "/resume"): "operator",
    ("GET", "/stops"): "viewer",
    ("GET", "/callers"): "viewer",
    ("GET", "/models/{deployment}/callers"): "viewer",
    ("POST", "/models/{deployment}/stop"): "operator",
    ("POST", "/models/{deployment}/resume"): "operator",
    ("POST", "/models/{deployment}/load"): "operator",
    ("POST", "/models/{deployment}/unload"): "operator",
    **OF_A_DEPLOYMENT,
    **{(method, f"/models/{{deployment}}{path}"): role for (method, path), role in OF_A_DEPLOYMENT.items()},
}
FILLED = {"{id}": "x", "{name}": "primary", "{deployment}": "letters"}
PUBLIC = PUBLIC_PATHS | {"/pages/{name}"}


def walked(routes: Sequence[BaseRoute], below: str = "") -> Iterator[tuple[str, str]]:
    """The method and path of every route, without HEAD, which is answered as GET is."""
    for route in routes:
        assert isinstance(route, Route | Mount), f"{route} is of another kind: teach this test to walk it"
        if isinstance(route, Mount):
            yield from walked(route.routes, below + route.path)
        else:
            methods = sorted((route.methods or set()) - {"HEAD"})
            yield from ((method, below + route.path) for method in methods)


async def asked(one: AdminWorld, client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    for mark, value in FILLED.items():
        path = path.replace(mark, value)
    return await client.request(method, path)


@on_loop
async def test_every_route_is_in_the_table_of_roles(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        routes = [(method, path) for method, path in walked(one.app.routes) if path not in PUBLIC]
        assert sorted(routes) == sorted(NEEDS)


@pytest.mark.parametrize("role", ROLES)
@on_loop
async def test_every_route_answers_those_whose_role_suffices_and_no_others(tmp_path: Path, role: str) -> None:
    async with admin_world(deployment(tmp_path)) as one, one.of_person("ada", role) as client:
        for (method, path), needs in NEEDS.items():
            allowed = ROLES.index(role) >= ROLES.index(needs)
            reply = await asked(one, client, method, path)
            assert (reply.status_code != 403) == allowed, (role, method, path)
            if not allowed:
                assert f"this needs the role {needs}, and ada is a {role}" in reply.json()["error"]
        refused = [act for act in one.acts() if act["act"] == "refused"]
        changing = [path for (method, path), needs in NEEDS.items() if method == "POST"]
        assert len(refused) == sum(
            ROLES.index(NEEDS["POST", path]) > ROLES.index(role) for path in changing
        ), "an attempt to change something is recorded"
        assert all(act["person"] == "ada" and not act["done"] for act in refused)


@on_loop
async def test_what_a_role_may_not_do_is_on_none_of_its_pages(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        shown = {}
        for role in ROLES[1:]:
            async with one.of_person(f"the-{role}", role) as client:
                text = (await client.get("/status", headers=HTML)).text
                assert f"<b>the-{role}</b>" in text and f">{role}<" in text
                shown[role] = {word for word in ("/isolate", "/policy/reload", "/review") if word in text}
        assert shown == {
            "viewer": set(),
            "reviewer": {"/review"},
            "operator": {"/isolate", "/policy/reload", "/review"},
        }


@on_loop
async def test_a_refused_act_of_a_session_is_recorded_without_the_urls_of_the_session(tmp_path: Path) -> None:
    async with (
        admin_world(deployment(tmp_path)) as one,
        one.signed_in(add_person(one.repository.state, "ada", "viewer")) as ada,
    ):
        assert (await ada.post("/rungs/primary/isolate")).status_code == 403
        (act,) = [act for act in one.acts() if act["act"] == "refused"]
        assert (act["person"], act["on"]) == ("ada", "/rungs/primary/isolate")
        assert ada.root.rpartition("/")[2] not in str(one.acts())


@on_loop
async def test_a_refused_browser_gets_a_page_that_says_which_role_is_needed(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one, one.of_person("ada", "viewer") as client:
        reply = await client.get("/review", headers=HTML)
        assert reply.status_code == 403
        assert "Your role does not allow this" in reply.text and "needs the role reviewer" in reply.text


@on_loop
async def test_every_act_is_in_the_audit_log_with_the_persons_name(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one, one.of_person("ada", "operator") as ada:
        await one.put("x")
        case = (await ada.post("/review/claim")).json()
        await ada.post("/review/x/renew", json={"fence": case["fence"]})
        await ada.post("/review/x/release", json={"fence": case["fence"]})
        case = (await ada.post("/review/claim")).json()
        await ada.post("/review/x/answer", json={"fence": case["fence"], "label": 3})
        await ada.post("/rungs/primary/isolate")
        await ada.post("/rungs/primary/restore")
        await ada.post("/policy/reload")
        await one.anonymous.get("/status", headers={"authorization": "Bearer guess"})
        await one.anonymous.post("/login", data={"token": "guess"})
        await ada.post("/models/letters/unload")
        await ada.post("/models/letters/load")
        tag = one.gateway.loaded.tag
        acts = [(act["act"], act["person"], act["on"], act["done"]) for act in one.acts()]
        assert acts == [
            ("login", "admin", "", True),
            ("claim", "ada", "x", True),
            ("renew", "ada", "x", True),
            ("release", "ada", "x", True),
            ("claim", "ada", "x", True),
            ("answer", "ada", "x", True),
            ("isolate", "ada", "letters/primary", True),
            ("restore", "ada", "letters/primary", True),
            ("reload", "ada", tag, True),
            ("login", "", "", False),
            ("login", "", "", False),
            ("unload", "ada", "letters", True),
            ("load", "ada", tag, True),
        ]
        assert {act["address"] for act in one.acts()} == {"127.0.0.1"}
        assert all(abs(act["t"] - one.gateway.started_s) < 60 for act in one.acts())


@on_loop
async def test_persons_see_and_end_their_own_sessions_and_operators_all(tmp_path: Path) -> None:
    async with (
        admin_world(deployment(tmp_path)) as one,
        one.of_person("ada", "viewer") as ada,
        one.of_person("grace", "reviewer") as grace,
    ):
        tokens = [client.headers["authorization"].removeprefix("Bearer ") for client in (ada, grace)]
        async with one.signed_in(tokens[0]) as of_ada, one.signed_in(tokens[1]) as of_grace:
            listed = {
                name: (await client.get("/sessions")).json()
                for name, client in (("ada", ada), ("grace", grace), ("admin", one.script))
            }
            names = {name: {s["person"] for s in found["sessions"]} for name, found in listed.items()}
            assert names == {"ada": {"ada"}, "grace": {"grace"}, "admin": {"ada", "grace", "admin"}}
            assert [p["name"] for p in listed["ada"]["persons"]] == ["ada"]
            assert [p["name"] for p in listed["admin"]["persons"]] == ["ada", "grace"]
            assert "hash" not in str(listed) and of_ada.cookie not in str(listed)
            (own,) = listed["grace"]["sessions"]
            assert (await ada.post(f"/sessions/{own['id']}/end")).status_code == 404
            assert (await of_grace.client.get("/status")).status_code == 200
            page = (await of_grace.client.get("/sessions")).text
            assert "this one" in page and formatting.clock(own["started"]) in page and "ada" not in page
            assert (await one.script.post(f"/sessions/{own['id']}/end")).status_code == 200
            assert (await of_grace.client.get("/status")).status_code == 303
            assert (await of_ada.client.get("/status")).status_code == 200
            revoke_person(one.repository.state, "ada")
            left = (await one.script.get("/sessions")).json()
            assert {s["person"] for s in left["sessions"]} == {"admin"}, "what opens nothing is not listed"
            for id_ in (own["id"], "..", "x", "0" * 64):
                assert (await one.script.post(f"/sessions/{id_}/end")).status_code == 404
