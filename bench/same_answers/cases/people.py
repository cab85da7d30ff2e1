"""Rows that people answer: what the caller sees, and what the person does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.same_answers.case import ADMIN, Case, Http
from bench.same_answers.cases.http_parts import ADA, HTML, JSON, get, json_infer, operate
from bench.same_answers.deployment import Deployment

CASES = ("people: a", "people: b", "people: c", "people: d")


def cases(of: Deployment) -> Iterator[Case]:
    """One row after another is deferred; a person answers two of them."""
    for i, name in enumerate(CASES):
        yield Http(name, (json_infer(of, of.strange[i : i + 1], ADA, id=f"n{i}"),))
    yield from _polled("waits")
    yield from _looked_at()
    yield from _answered()
    yield from _wrong()
    yield from _polled("answered")
    yield Http("people: asynchronous", (json_infer(of, of.strange[4:5], ADA, "Prefer: respond-async"),))
    yield Http("people: waited for", (json_infer(of, of.strange[5:6], ADA, "Prefer: wait=1"),))
    wait = "Prefer: respond-async, wait=1"
    yield Http("people: waited for, then asynchronous", (json_infer(of, of.strange[6:7], ADA, wait),))
    for prefer in ("wait=0", "wait=x", "wait", ";;", "wait=,respond-async", "handling=lenient"):
        sent = json_infer(of, of.strange[7:8], ADA, f"Prefer: {prefer}")
        yield Http(f"people: Prefer: {prefer}", (sent,))


def _polled(when: str) -> Iterator[Case]:
    """What callers hear of their rows, and of rows that are not theirs."""
    for name in CASES:
        for what in ("reviews", "decisions"):
            yield Http(f"{name}: {what}, {when}", (get(f"/{what}/<<id:{name}>>", ADA),))
    for who in ("bob", "watcher", "reader", "wrong"):
        for what in ("reviews", "decisions"):
            sent = get(f"/{what}/<<id:{CASES[0]}>>", f"x-api-key: <<key:{who}>>")
            yield Http(f"people: {what} asked for by {who}, {when}", (sent,))
    yield Http(f"people: anonymous, {when}", (get(f"/reviews/<<id:{CASES[0]}>>"),))


def _looked_at() -> Iterator[Case]:
    """The queue and its cases, as data and as pages."""
    for what, accept in (("data", JSON), ("page", HTML)):
        for target in ("/review", *(f"/review/<<id:{name}>>" for name in CASES[:2]), "/review/none"):
            yield Http(f"people: {target} as {what}", (operate("GET", target, accept),), ADMIN)
    for query in ("", "?input=image", "?input=none"):
        target = f"/review/<<id:{CASES[0]}>>/image.png{query}"
        yield Http(f"people: picture {query}", (operate("GET", target),), ADMIN)
    for name in CASES:
        yield Http(f"{name}: operator's", (operate("GET", f"/decisions/<<id:{name}>>"),), ADMIN)


def _answered() -> Iterator[Case]:
    """Two cases are claimed and answered; one is given back and claimed again."""
    a, b, c = (f"/review/<<id:{name}>>" for name in CASES[:3])
    steps = (
        ("claims", "/review/claim", {"reviewer": "eve"}),
        ("claims for a time", "/review/claim", {"reviewer": "eve", "lease_s": 300}),
        ("answers", f"{a}/answer", {"reviewer": "eve", "fence": 1, "label": 3}),
        ("answers again", f"{a}/answer", {"reviewer": "eve", "fence": 1, "label": 4}),
        ("is not sure", f"{b}/answer", {"reviewer": "eve", "fence": 1, "unsure": True}),
        ("claims the third", "/review/claim", {"reviewer": "mallory"}),
        ("keeps it longer", f"{c}/renew", {"fence": 1, "lease_s": 60}),
        ("gives it back", f"{c}/release", {"fence": 1}),
        ("gives it back again", f"{c}/release", {"fence": 1}),
        ("claims it again", "/review/claim", {"reviewer": "eve"}),
        ("is late", f"{c}/answer", {"reviewer": "mallory", "fence": 1, "label": 0}),
    )
    for what, target, fields in steps:
        yield Http(f"people: eve {what}", (operate("POST", target, **fields),), ADMIN)


def _wrong() -> Iterator[Case]:
    """What a reviewer may get wrong."""
    d = f"/review/<<id:{CASES[3]}>>"
    steps: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("no reviewer", "/review/claim", {}),
        ("an empty reviewer", "/review/claim", {"reviewer": " "}),
        ("a lease that is too long", "/review/claim", {"reviewer": "eve", "lease_s": 1e9}),
        ("no fence", f"{d}/answer", {"reviewer": "eve", "label": 1}),
        ("no label", f"{d}/answer", {"reviewer": "eve", "fence": 1}),
        ("an unknown label", f"{d}/answer", {"reviewer": "eve", "fence": 1, "label": "none"}),
        ("a label beyond the last", f"{d}/answer", {"reviewer": "eve", "fence": 1, "label": 99}),
        ("an unknown case", "/review/none/answer", {"reviewer": "eve", "fence": 1, "label": 1}),
        ("an unknown action", f"{d}/forget", {"fence": 1}),
    )
    for what, target, fields in steps:
        yield Http(f"people: wrong: {what}", (operate("POST", target, **fields),), ADMIN)
