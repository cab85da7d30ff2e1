"""Rows that reviewers answer: what the caller and the operator see, and what the reviewer does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.same_answers.exchange import ADMIN, Exchange, HttpExchange
from bench.same_answers.exchanges.http_parts import ADA, HTML, JSON, get, json_infer, operate
from bench.same_answers.sampled_deployment import SampledDeployment

REVIEW_CASES = ("review: a", "review: b", "review: c", "review: d")


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """One row after another is deferred; a reviewer answers two of them."""
    for i, name in enumerate(REVIEW_CASES):
        yield HttpExchange(name, (json_infer(deployment, deployment.noise_rows[i : i + 1], ADA, id=f"n{i}"),))
    yield from _caller_views("waits")
    yield from _operator_views()
    yield from _reviewer_actions()
    yield from _malformed_actions()
    yield from _caller_views("answered")
    yield HttpExchange(
        "review: asynchronous",
        (json_infer(deployment, deployment.noise_rows[4:5], ADA, "Prefer: respond-async"),),
    )
    yield HttpExchange(
        "review: waited for", (json_infer(deployment, deployment.noise_rows[5:6], ADA, "Prefer: wait=1"),)
    )
    wait = "Prefer: respond-async, wait=1"
    yield HttpExchange(
        "review: waited for, then asynchronous",
        (json_infer(deployment, deployment.noise_rows[6:7], ADA, wait),),
    )
    for prefer in ("wait=0", "wait=x", "wait", ";;", "wait=,respond-async", "handling=lenient"):
        sent = json_infer(deployment, deployment.noise_rows[7:8], ADA, f"Prefer: {prefer}")
        yield HttpExchange(f"review: Prefer: {prefer}", (sent,))


def _caller_views(when: str) -> Iterator[Exchange]:
    """Replies to callers about their own rows, and about rows of other callers."""
    for name in REVIEW_CASES:
        for what in ("reviews", "decisions"):
            yield HttpExchange(f"{name}: {what}, {when}", (get(f"/{what}/<<id:{name}>>", ADA),))
    for who in ("bob", "watcher", "reader", "wrong"):
        for what in ("reviews", "decisions"):
            sent = get(f"/{what}/<<id:{REVIEW_CASES[0]}>>", f"x-api-key: <<key:{who}>>")
            yield HttpExchange(f"review: {what} asked for by {who}, {when}", (sent,))
    yield HttpExchange(f"review: anonymous, {when}", (get(f"/reviews/<<id:{REVIEW_CASES[0]}>>"),))


def _operator_views() -> Iterator[Exchange]:
    """The queue and its cases, as data and as pages."""
    for what, accept in (("data", JSON), ("page", HTML)):
        for target in ("/review", *(f"/review/<<id:{name}>>" for name in REVIEW_CASES[:2]), "/review/none"):
            yield HttpExchange(f"review: {target} as {what}", (operate("GET", target, accept),), ADMIN)
    for query in ("", "?input=image", "?input=none"):
        target = f"/review/<<id:{REVIEW_CASES[0]}>>/image.png{query}"
        yield HttpExchange(f"review: picture {query}", (operate("GET", target),), ADMIN)
    for name in REVIEW_CASES:
        yield HttpExchange(f"{name}: operator's", (operate("GET", f"/decisions/<<id:{name}>>"),), ADMIN)


def _reviewer_actions() -> Iterator[Exchange]:
    """Two cases are claimed and answered; one is given back and claimed again."""
    a, b, c = (f"/review/<<id:{name}>>" for name in REVIEW_CASES[:3])
    of_a, of_b, of_c, again = (
        {"fence": f"<<fence:review: the operator {what}>>"}
        for what in ("claims", "claims for a time", "claims the third", "claims it again")
    )
    steps: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("claims", "/review/claim", {}),
        ("claims for a time", "/review/claim", {"lease_s": 300}),
        ("guesses a fence", f"{a}/answer", {"fence": 1, "label": 3}),
        ("answers", f"{a}/answer", of_a | {"label": 3}),
        ("answers again", f"{a}/answer", of_a | {"label": 4}),
        ("is not sure", f"{b}/answer", of_b | {"unsure": True}),
        ("claims the third", "/review/claim", {}),
        ("keeps it longer", f"{c}/renew", of_c | {"lease_s": 60}),
        ("gives it back", f"{c}/release", of_c),
        ("gives it back again", f"{c}/release", of_c),
        ("claims it again", "/review/claim", {}),
        ("is late", f"{c}/answer", of_c | {"label": 0}),
        ("is in time", f"{c}/answer", again | {"label": 0}),
    )
    for what, target, fields in steps:
        yield HttpExchange(f"review: the operator {what}", (operate("POST", target, **fields),), ADMIN)


def _malformed_actions() -> Iterator[Exchange]:
    """Malformed actions of a reviewer."""
    d = f"/review/<<id:{REVIEW_CASES[3]}>>"
    steps: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("a lease that is too long", "/review/claim", {"lease_s": 1e9}),
        ("no fence", f"{d}/answer", {"label": 1}),
        ("no label", f"{d}/answer", {"fence": 1}),
        ("an unknown label", f"{d}/answer", {"fence": 1, "label": "none"}),
        ("a label beyond the last", f"{d}/answer", {"fence": 1, "label": 99}),
        ("an unknown case", "/review/none/answer", {"fence": 1, "label": 1}),
        ("an unknown action", f"{d}/forget", {"fence": 1}),
    )
    for what, target, fields in steps:
        yield HttpExchange(f"review: wrong: {what}", (operate("POST", target, **fields),), ADMIN)
