"""Access to the data plane: a walk over every route there is, so that none can be forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.callers import add_key
from gateway.access.keys import SCOPES
from gateway.deployment.deployment import VAR
from gateway.grpc.methods import METHODS
from gateway.http.route_table import ROUTES
from gateway.http.routes import Route
from gateway.serving.data_plane import (
    ALWAYS_FORBIDDEN,
    INFERENCE_SCOPES,
    METADATA_SCOPES,
    OWN_RESULT_SCOPES,
    PUBLIC,
)
from tests.support.data_planes import REMOTE, PlaneFixture, plane_of
from tests.support.deployments import FULL_RATE, letters
from tests.support.grpc_client import grpc_client

OPEN = {"v2", "v2/health/live", "v2/health/ready"}
NAMES = {"{model}": "letters", "{version}": "1", "{id}": "none", "{rest*}": "status"}


def path_of(route: Route) -> str:
    path = "/" + route.path
    for name, value in NAMES.items():
        path = path.replace(name, value)
    return path


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    folder = letters(tmp_path_factory.mktemp("access"), FULL_RATE)

    def key(name: str, scopes: set[str], models: set[str] | None = None) -> str:
        allowed = None if models is None else frozenset(models)
        return add_key(
            folder / VAR, name, tier="trusted", per_s=None, scopes=frozenset(scopes), models=allowed
        )

    keys = {scope: key(scope, {scope}) for scope in SCOPES}
    keys |= {"nothing": key("nothing", {"elsewhere"}), "other": key("other", set(SCOPES), {"other"})}
    with plane_of(folder, ada=key("ada", set(SCOPES)), **keys) as made:
        yield made


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_without_a_key_only_health_and_the_servers_metadata_are_open(
    plane: PlaneFixture, route: Route
) -> None:
    async def main() -> None:
        unknown = plane.client(None, REMOTE)
        reply = await unknown.request(route.method, path_of(route))
        if route.path in OPEN:
            assert reply.status == 200
        else:
            assert reply.outcome == (401, "refused", "unauthenticated")

    plane.run(main)


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
@pytest.mark.parametrize("scope", [*SCOPES, "nothing"])
def test_a_key_admits_to_the_routes_of_its_scope_alone(plane: PlaneFixture, route: Route, scope: str) -> None:
    async def main() -> None:
        reply = await plane.client(plane.keys[scope], REMOTE).request(route.method, path_of(route))
        if route.scopes is PUBLIC or scope in route.scopes:
            assert reply.status not in (401, 403)
        else:
            assert reply.outcome == (403, "refused", "forbidden")

    plane.run(main)


@pytest.mark.parametrize("route", [r for r in ROUTES if "{model}" in r.path], ids=name_of)
def test_a_key_for_other_models_is_refused_for_this_one(plane: PlaneFixture, route: Route) -> None:
    async def main() -> None:
        reply = await plane.client(plane.keys["other"], REMOTE).request(route.method, path_of(route))
        assert reply.status == 403 or reply.outcome == (501, "refused", "unsupported")

    plane.run(main)


@pytest.mark.parametrize("path", sorted({path_of(route) for route in ROUTES}))
def test_a_method_without_a_route_is_refused_on_every_path(plane: PlaneFixture, path: str) -> None:
    known = {route.method for route in ROUTES if path_of(route) == path}

    async def main() -> None:
        allowed = known | {"OPTIONS"} | ({"HEAD"} if "GET" in known else set())
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
            reply = await plane.ada.request(method, path)
            assert reply.outcome == (405, "refused", "method_not_allowed")
            assert set(reply.headers["allow"].split(", ")) == allowed

    plane.run(main)


def test_every_method_of_grpc_is_closed_to_callers_without_a_key_and_to_keys_without_its_scope(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        async with grpc_client(plane, None) as call:
            for path, method in METHODS.items():
                for key in ("fsg_wrong", *SCOPES, "nothing"):
                    code = (await call(path, b"", [("x-api-key", plane.keys.get(key, key))])).code
                    if method.scopes is PUBLIC:
                        assert code == "OK", path
                    elif key == "fsg_wrong":
                        assert code == "UNAUTHENTICATED", path
                    elif key in method.scopes:
                        assert code not in ("UNAUTHENTICATED", "PERMISSION_DENIED"), (path, key)
                    else:
                        assert code == "PERMISSION_DENIED", (path, key)

    plane.run(main)


def test_no_key_on_this_port_loads_or_unloads_a_model(plane: PlaneFixture) -> None:
    closed = [route for route in ROUTES if route.scopes == ALWAYS_FORBIDDEN]
    assert {route.path.rpartition("/")[2] for route in closed} == {"load", "unload"}

    async def main() -> None:
        for route in closed:
            assert (await plane.ada.request(route.method, path_of(route))).status == 403

    plane.run(main)


def test_every_scope_that_a_route_asks_for_is_one_that_a_key_can_have() -> None:
    assert set(SCOPES) == (INFERENCE_SCOPES | METADATA_SCOPES | OWN_RESULT_SCOPES)
    assert all(route.scopes is PUBLIC or route.scopes <= set(SCOPES) for route in ROUTES)


def test_findings_of_a_decision_are_shown_to_the_scope_explain_alone(plane: PlaneFixture) -> None:
    async def main() -> None:
        for key, shown in (("ada", True), ("infer", False)):
            client = plane.client(plane.keys[key], REMOTE)
            reply = await client.infer(plane.strange[:1])
            decision = (await client.get(f"/decisions/{reply.parameters['fs_decision_id']}")).json
            assert ("findings" in decision["rows"][0]) is shown

    plane.run(main)


def test_paths_work_behind_the_base_path_and_without_it(tmp_path: Path) -> None:
    folder = letters(tmp_path, ("anonymous: loopback", 'anonymous: loopback, base_path: "/team/a"'))
    with plane_of(
        folder, ada=add_key(folder / VAR, "ada", tier="trusted", per_s=1e6, scopes=INFERENCE_SCOPES)
    ) as one:

        async def main() -> None:
            assert (await one.ada.get("/team/a/v2/models/letters")).status == 200
            assert (await one.ada.get("/v2/models/letters")).status == 200
            for elsewhere in ("/team/v2", "/team/a/team/a/v2", "/other/a/v2"):
                assert (await one.ada.get(elsewhere)).status == 404

        one.run(main)
