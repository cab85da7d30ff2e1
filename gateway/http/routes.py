"""Routes of the data plane, and the router that finds the one of a request.

A path is written as in OpenAPI: `{name}` is one part with any text, and `{rest*}` at the end is any number of
parts. The table itself is in `route_table.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from gateway.access.callers import Caller
from gateway.caching import BoundedCache
from gateway.core.decision import Reason
from gateway.listener.messages import Admitted, Reply, Request
from gateway.protocol.contract import Contract
from gateway.protocol.endings import Cause, Rejection
from gateway.serving.data_plane import DataPlane, RequestRejected
from gateway.serving.gateway import Gateway

PathParameters: TypeAlias = dict[str, str]

CACHED_PATHS, LONGEST_CACHED_PARTS = 512, 16
"""How many paths the router remembers, and of how many parts at most."""

EVERY_ROUTE: tuple[Cause, ...] = (
    Rejection.INVALID,
    Rejection.TOO_SLOW,
    Rejection.UNEXPECTED,
    Rejection.HEAD_TOO_LARGE,
    Rejection.UNSUPPORTED,
    Rejection.MISDIRECTED,
    Rejection.FORBIDDEN,
)
"""How any request may end: no HTTP/1.1, too slow, headers too large, expecting what is not served, of another
host, or sent by a browser for a page of another site."""
ROUTES_WITH_A_KEY: tuple[Cause, ...] = (Rejection.UNAUTHENTICATED, Reason.RATE_LIMITED)
PATHS_WITH_PARAMETERS: tuple[Cause, ...] = (Rejection.METHOD_NOT_ALLOWED,)
"""An empty parameter makes it another path, which has other methods."""


class RoutedRequest(NamedTuple):
    """One request with its route found and its caller identified."""

    plane: DataPlane
    request: Request
    decision_id: str
    path: PathParameters
    caller: Caller

    def gateway(self) -> Gateway:
        """The gateway of the model in the path. Raises RequestRejected."""
        return self.plane.model(self.caller, self.path["model"], self.path.get("version"))

    def contract(self) -> Contract:
        """The contract of that model. Raises RequestRejected."""
        return self.gateway().loaded.contract


RouteHandler: TypeAlias = Callable[[RoutedRequest], Admitted | Reply]
"""Replies at once, or admits a body and says what answers it. Raises RequestRejected."""


class Route(NamedTuple):
    """One method of one path.

    scopes: of which the caller's key needs one; PUBLIC: no key is needed. summary, reply, causes: for the
    OpenAPI document; reply: the schema of a 200, None if there is no 200; causes: why else a request to this
    route may end, beside those of every route.
    """

    method: str
    path: str
    scopes: frozenset[str] | None
    handler: RouteHandler
    summary: str
    reply: str | None = None
    causes: tuple[Cause, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(part.strip("{}*") for part in self.path.split("/") if part.startswith("{"))

    @property
    def all_causes(self) -> tuple[Cause, ...]:
        """Why a request to this route may end without an answer."""
        with_a_key = ROUTES_WITH_A_KEY if self.scopes is not None else ()
        with_parameters = PATHS_WITH_PARAMETERS if self.parameters else ()
        return (*EVERY_ROUTE, *with_a_key, *with_parameters, *self.causes)


def model_routes(
    method: str,
    path: str,
    scopes: frozenset[str] | None,
    handler: RouteHandler,
    summary: str,
    reply: str | None = None,
    causes: tuple[Cause, ...] = (),
) -> Iterator[Route]:
    """A route below a model, without and with the model's version in the path."""
    for model in ("v2/models/{model}", "v2/models/{model}/versions/{version}"):
        yield Route(method, model + path, scopes, handler, summary, reply, causes)


class Router:
    """Finds the first route in the table that matches a request. base: parts that a path may begin with."""

    def __init__(self, routes: Sequence[Route], base: tuple[str, ...] = ()) -> None:
        self._table = [(tuple(route.path.split("/")), route) for route in routes]
        self._base = base
        self._cached = BoundedCache(self._match, entries=CACHED_PATHS, longest=LONGEST_CACHED_PARTS)

    def find(self, request: Request) -> tuple[Route, PathParameters]:
        """The route of a request and the parameters in its path. Raises RequestRejected if there is none.

        Cost: 0.4 us for a path that was seen lately; 5 us else.
        """
        methods = self._cached[request.parts]
        if not methods:
            raise RequestRejected(Rejection.NOT_FOUND)
        match = methods.get(request.method)
        if match is None:
            raise RequestRejected(
                Rejection.METHOD_NOT_ALLOWED, headers={"allow": ", ".join(self.methods(request.parts))}
            )
        return match

    def methods(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """The methods of a path, with OPTIONS. Raises RequestRejected if it has none."""
        methods = self._cached[parts]
        if not methods:
            raise RequestRejected(Rejection.NOT_FOUND)
        return (*methods, "OPTIONS")

    def _match(self, parts: tuple[str, ...]) -> dict[str, tuple[Route, PathParameters]]:
        """The routes of a path by method. HEAD has that of GET."""
        if self._base and parts[: len(self._base)] == self._base:
            parts = parts[len(self._base) :]
        methods: dict[str, tuple[Route, PathParameters]] = {}
        for pattern, route in self._table:
            parameters = _path_parameters(pattern, parts)
            if parameters is not None:
                methods.setdefault(route.method, (route, parameters))
        if "GET" in methods:
            methods["HEAD"] = methods["GET"]
        return methods


def _path_parameters(pattern: tuple[str, ...], parts: tuple[str, ...]) -> PathParameters | None:
    """The parameters of a path; None if it does not match the pattern."""
    if pattern[-1] == "{rest*}":
        pattern, parts = pattern[:-1], parts[: len(pattern) - 1]
    if len(pattern) != len(parts):
        return None
    parameters: PathParameters = {}
    for expected, part in zip(pattern, parts, strict=True):
        if expected.startswith("{"):
            parameters[expected[1:-1]] = part
        elif expected != part:
            return None
    return parameters
