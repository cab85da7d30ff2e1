"""The pages for operators and reviewers: rendered on the server, usable without JavaScript.

Everything shown may have been written by an attacker. So every template escapes, none holds a script or a
style, and the headers that `require_login.py` sets would not let one run. May import `gateway.serving` and
below, and `gateway.admin.authentication`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, quote

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.persons import Role
from gateway.admin.authentication import signed_in
from gateway.admin.pages import formatting
from gateway.serving.gateway import Gateway
from gateway.serving.repository import UNLOADED, Entry, NotReady, Repository

FOLDER = Path(__file__).parent
STATIC = {"style.css": "text/css", "keys.js": "text/javascript", "icon.svg": "image/svg+xml"}
_BODIES = {name: (FOLDER / name).read_bytes() for name in STATIC}
FORM = "application/x-www-form-urlencoded"

_templates = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,  # which would look at the files for each page
)
_templates.filters.update(
    span=formatting.span,
    count=formatting.count,
    share=formatting.share,
    ms=formatting.milliseconds,
    clock=formatting.clock,
    evidence=formatting.evidence,
)


def load_templates() -> None:
    """Reads every template, so that no page waits for a file. Blocks."""
    for name in _templates.list_templates(["html"]):
        _templates.get_template(name)


def repository_of(request: Request) -> Repository:
    """The deployments of this process."""
    return cast(Repository, request.app.state.repository)


def entry_of(request: Request) -> Entry:
    """The deployment that the path names (`/models/NAME/...`), or the only one. Raises HTTPException 404."""
    entries = repository_of(request).entries
    name: str | None = request.path_params.get("deployment")
    if name is None and len(entries) == 1:
        return next(iter(entries.values()))
    if name is not None and name in entries:
        return entries[name]
    which = "several deployments are served" if name is None else f"no deployment {name!r} is served"
    paths = ", ".join(f"/models/{quote(one, safe='')}" for one in entries)
    raise HTTPException(404, f"{which}: put one of {paths} before the path")


def gateway_of(request: Request) -> Gateway:
    """The gateway of that deployment. Raises HTTPException: 404, or 503 if it is not ready."""
    entry = entry_of(request)
    if isinstance(entry, NotReady):
        raise HTTPException(
            503, f"{entry.name} is not ready: " + ("; ".join(map(str, entry.problems)) or UNLOADED)
        )
    return entry


def wants_html(request: Request) -> bool:
    """Whether the client is a browser; any other gets JSON. `?format=json` overrides."""
    return "text/html" in request.headers.get("accept", "") and request.query_params.get("format") != "json"


def json_reply(payload: Any, status: int = 200) -> Response:
    """A JSON response, indented for terminals."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return Response(orjson.dumps(payload, option=options), status, media_type="application/json")


def page(request: Request, name: str, status: int = 200, **context: Any) -> Response:
    """The HTML of one template with these variables. `name` is the template's file without its suffix.

    Every template also gets `person`, who is signed in, or None; what that person `may_...`; `root`, which
    every path of the session begins with; and `base`, which paths of the deployment begin with: `root`, and
    `/models/NAME` for one of several.
    """
    base, entries = request.scope.get("root_path", ""), repository_of(request).entries
    sender = signed_in(request)
    here = request.path_params.get("deployment") or (next(iter(entries)) if len(entries) == 1 else "")
    html = _templates.get_template(f"{name}.html").render(
        deployment=here or "Gateway",
        deployments=list(entries) if len(entries) > 1 else [],
        base=base,
        here=here,
        person=None if sender is None else sender.person,
        may_review=sender is not None and sender.person.role >= Role.REVIEWER,
        may_operate=sender is not None and sender.person.role >= Role.OPERATOR,
        root="" if sender is None else sender.root,
        csrf="" if sender is None else sender.csrf,
        tab=(request.scope["path"].removeprefix(base) + "/").split("/")[1],
        now_s=time.time(),
        **context,
    )
    return Response(html, status, media_type="text/html")


def problem(request: Request, status: int, title: str, what: str, **more: Any) -> Response:
    """An error response: a page, or `{"error": ...}` with `more` members."""
    if wants_html(request):
        return page(request, "problem", status, title=title, what=what)
    return json_reply({"error": what, **more}, status)


def parse_fields(body: bytes, content_type: str) -> dict[str, Any]:
    """The fields of a form or of a JSON object. Raises ValueError for anything else."""
    if content_type.split(";")[0].strip().lower() == FORM:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=64))
    fields = orjson.loads(body) if body.strip() else {}
    if not isinstance(fields, dict):
        raise ValueError("a JSON object is needed")
    return fields


async def fields_of(request: Request) -> dict[str, Any]:
    """The fields of a POST. Raises HTTPException 422 if its body is neither a form nor a JSON object."""
    try:
        return parse_fields(await request.body(), request.headers.get("content-type", ""))
    except ValueError as error:
        raise HTTPException(422, "the body must be a form or a JSON object") from error


async def static(request: Request) -> Response:
    """The style, the script and the icon. They hold nothing secret: the login page needs them."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404, "there is nothing here")
    return Response(_BODIES[name], media_type=STATIC[name])
