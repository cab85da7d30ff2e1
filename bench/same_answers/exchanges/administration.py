"""The administration plane: authentication, its pages and its data."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

from bench.same_answers.exchange import ADMIN, COUNT_DELAY_S, Exchange, HttpExchange
from bench.same_answers.exchanges.http_parts import (
    ADMIN_TOKEN,
    HTML,
    JSON,
    OPERATOR,
    get,
    operate,
    request,
    status_exchange,
)
from bench.same_answers.sampled_deployment import SampledDeployment

PAGES = (
    "/",
    "/login",
    "/status",
    "/policy",
    "/review",
    "/pages/style.css",
    "/pages/keys.js",
    "/pages/icon.svg",
)
OTHER = (
    "/nothing",
    "/pages/nothing",
    "/pages/..%2f__init__.py",
    "/decisions/none",
    "/login?next=//evil",
    "/docs",
)
CSRF_BYTES = 64
FORM_CONTENT = "Content-Type: application/x-www-form-urlencoded"


def exchanges(_: SampledDeployment) -> Iterator[Exchange]:
    """Every page with and without the token; a session; wrong methods."""
    who = {"operator": OPERATOR, "stranger": "X-A: b", "wrong token": "Authorization: Bearer wrong"}
    for name, header in who.items():
        for what, accept in (("data", JSON), ("page", HTML)):
            # Ten wrong tokens are compared: with more, the right one is refused as well for a time.
            for target in ("/status",) if name == "wrong token" else (*PAGES, *OTHER):
                title = f"administration: {target} as {what} for {name}"
                pause_s = COUNT_DELAY_S if target == "/status" else 0.0
                yield HttpExchange(title, (get(target, header, accept),), ADMIN, pause_s=pause_s)
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        for target in ("/login", "/policy", "/nothing"):
            bodyless = (0,) if method == "HEAD" else ()
            sent = request(method, target, OPERATOR, JSON, body=b"" if method in ("POST", "PUT") else None)
            yield HttpExchange(f"administration: {method} {target}", (sent,), ADMIN, bodyless=bodyless)
    yield from _session()
    yield HttpExchange("administration: another rung", (operate("POST", "/rungs/none/isolate"),), ADMIN)
    yield HttpExchange("administration: the policy again", (operate("POST", "/policy/reload"),), ADMIN)
    large = request("POST", "/review/claim", OPERATOR, JSON, body=b"x" * 70_000)
    yield HttpExchange("administration: too large", (large,), ADMIN)


def _session() -> Iterator[Exchange]:
    """A login, what its cookie allows, and what needs more than a cookie."""
    for name, token in (("in", ADMIN_TOKEN), ("in with a wrong token", "wrong")):
        form = urlencode({"token": token, "next": "/review"}).encode()
        for what, accept in (("data", JSON), ("page", HTML)):
            sent = request("POST", "/login", FORM_CONTENT, accept, body=form)
            yield HttpExchange(f"session: log {name}, as {what}", (sent,), ADMIN)
    cookie = "Cookie: <<cookie:session: log in, as page>>"
    root = "<<root:session: log in, as page>>"
    for target in ("/status", "/review", "/policy", "/login"):
        yield status_exchange(f"session: {target}", cookie, HTML, target=f"{root}{target}")
    yield status_exchange("session: its cookie elsewhere", cookie, HTML, target="/status")
    origins = {"own": "Sec-Fetch-Site: same-origin", "other": "Sec-Fetch-Site: cross-site"}
    bodies = {"with": (b"csrf=<<csrf:session: /status>>", 5 + CSRF_BYTES), "without": (b"", 0)}
    for name, origin in origins.items():
        for what, (body, length) in bodies.items():
            lines = (FORM_CONTENT, HTML, cookie, origin, f"Content-Length: {length}")
            sent = request("POST", f"{root}/rungs/none/restore", *lines) + body
            yield HttpExchange(f"session: {name} origin {what} its token", (sent,), ADMIN)
    lines = (FORM_CONTENT, HTML, cookie, origins["own"], f"Content-Length: {bodies['with'][1]}")
    sent = request("POST", f"{root}/logout", *lines) + bodies["with"][0]
    yield HttpExchange("session: log out", (sent,), ADMIN)
    yield status_exchange("session: after it", cookie, HTML, target=f"{root}/status")


def final_counts(deployment: SampledDeployment) -> Iterator[Exchange]:
    """The counts of all exchanges before."""
    for target in ("/status", "/metrics"):
        yield status_exchange(f"counts: {target}", OPERATOR, JSON, target=target)
    yield HttpExchange("counts: statistics", (get(f"/v2/models/{deployment.name}/stats"),))
