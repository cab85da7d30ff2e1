"""Every path of the data plane over HTTP that is not inference, each by every caller and method."""

from __future__ import annotations

from collections.abc import Iterator

from bench.same_answers.exchange import Exchange, HttpExchange
from bench.same_answers.exchanges.http_parts import get, json_infer, request
from bench.same_answers.sampled_deployment import SampledDeployment

CALLER_HEADERS = {
    "anonymous": (),
    "ada": ("Authorization: Bearer <<key:ada>>",),
    "reader": ("x-api-key: <<key:reader>>",),
    "watcher": ("authorization: bearer  <<key:watcher>> ",),
    "wrong": ("Authorization: Bearer wrong",),
}
OTHER_KEYS = {
    "no scheme": ("Authorization: <<key:ada>>",),
    "another scheme": ("Authorization: Basic <<key:ada>>",),
    "a wrong key before a good one": ("Authorization: Bearer wrong", "x-api-key: <<key:ada>>"),
    "two keys": ("x-api-key: <<key:ada>>", "x-api-key: <<key:bob>>"),
    "an empty key": ("x-api-key:",),
    "a key that is no ASCII": ("Authorization: Bearer \xe9",),
    "another address": ("X-Forwarded-For: 192.0.2.1",),
    "a caller limited to this model": ("x-api-key: <<key:limited>>",),
}
INDEX = "/v2/repository/index"


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Paths by callers, methods by paths, and keys in every form."""
    m = f"/v2/models/{deployment.name}"
    told = ["/v2", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/v2/models/stats"]
    told += [f"{m}{v}{rest}" for v in ("", "/versions/1") for rest in ("", "/ready", "/config", "/stats")]
    for caller, key in CALLER_HEADERS.items():
        for target in told:
            yield HttpExchange(f"route: {target} for {caller}", (get(target, *key),))
        yield HttpExchange(f"route: {INDEX} for {caller}", (request("POST", INDEX, *key, body=b"{}"),))
        yield HttpExchange(f"route: infer for {caller}", (json_infer(deployment, deployment.row, *key),))
    for name, key in OTHER_KEYS.items():
        for target in (m, "/v2"):
            yield HttpExchange(f"key: {name} at {target}", (get(target, *key),))
        yield HttpExchange(f"key: {name} at infer", (json_infer(deployment, deployment.row, *key),))
    yield from _methods(deployment)
    yield from _absent(deployment)
    yield from _refused(deployment)


def _methods(deployment: SampledDeployment) -> Iterator[Exchange]:
    m = f"/v2/models/{deployment.name}"
    for target in (
        "/v2",
        "/v2/health/ready",
        m,
        f"{m}/infer",
        INDEX,
        "/decisions/x",
        "/reviews/x",
        "/nothing",
    ):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            body = b"" if method in ("POST", "PUT", "PATCH") else None
            bodyless = (0,) if method == "HEAD" else ()
            yield HttpExchange(
                f"method: {method} {target}", (request(method, target, body=body),), bodyless=bodyless
            )


def _absent(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Paths that do not exist, other models, and other ways to write a path."""
    m = f"/v2/models/{deployment.name}"
    targets = [
        "/",
        "/v1/models/x",
        "/v2/nothing",
        f"{m}/nothing",
        "/metrics",
        "/policy",
        "/review",
        "/v2/models",
    ]
    targets += ["/v2/models/none", "/v2/models/none/ready", f"{m}/versions/2", f"{m}/versions/2/config"]
    targets += [
        "/v2/models/%00",
        "/v2/models/%0d%0ax-a:%20b",
        "/v2/models/%c3%a9",
        f"/v2/models/{'x' * 5000}",
    ]
    targets += [
        "/v2//models/",
        f"//v2/models/{deployment.name}//",
        f"{m}/",
        f"{m}?a=b",
        f"{m}#a",
        f"{m}%2Fready",
    ]
    targets += ["/v2/models/../models", "/v2/models/'\"<script>", f"http://127.0.0.1{m}", "*", "v2", "/%"]
    targets += [
        "/decisions/none",
        "/reviews/none",
        "/decisions/",
        "/reviews/a/b",
        "/decisions/%c3%a9",
        "/reviews/%0a",
    ]
    for target in targets:
        yield HttpExchange(f"path: {target[:60]}", (get(target, "Authorization: Bearer <<key:ada>>"),))
    for target in ("/v2/models/none/infer", f"{m}/versions/2/infer", f"{m}/versions/1/infer"):
        sent = json_infer(deployment, deployment.row).replace(f"{m}/infer".encode(), target.encode())
        yield HttpExchange(f"path: infer at {target}", (sent,))


def _refused(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Endpoints of the protocol that this gateway does not offer."""
    m = f"/v2/models/{deployment.name}"
    targets = [f"{m}{rest}" for rest in ("/trace/setting", "/generate", "/generate_stream", "/infer_stream")]
    targets += ["/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/status"]
    targets += ["/v2/cudasharedmemory/region/a/register", "/v2/cudasharedmemory"]
    targets += [f"/v2/repository/models/{deployment.name}/{what}" for what in ("load", "unload")]
    for target in targets:
        for method in ("GET", "POST"):
            for caller in ("anonymous", "ada", "wrong"):
                sent = request(
                    method, target, *CALLER_HEADERS[caller], body=b"{}" if method == "POST" else None
                )
                yield HttpExchange(f"refused: {method} {target} for {caller}", (sent,))
    for body in (b"", b"{", b'{"ready": true}', b"x" * 70_000):
        yield HttpExchange(f"index: {body[:20]!r}", (request("POST", INDEX, body=body),))
