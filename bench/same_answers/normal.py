"""Parts that differ between two runs of the same code, and their replacements. All else is compared.

`RULES` is the list for HTTP, and decision ids are replaced everywhere. `grpc_wire.CANONICAL` lists messages
that are read and written again, because protobuf writes a map in any order, and sets times of statistics to
zero; a reply in a coding is compared decoded, because the ids in it decide its bytes.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from bench.same_answers.exchange import CAPTURE_PATTERNS, RecordedAnswer

NUMBER = rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
TIMES = (
    "received|expires|case_expires|t|elapsed_ms|us|ns|last_inference|age_s|oldest_s|lease_until|uptime_s"
    "|median_s"
)


class Rule(NamedTuple):
    """One replacement. of: content types (a regular expression); to: what stands for each match."""

    what: str
    of: bytes
    pattern: re.Pattern[bytes]
    to: bytes


RULES = (
    Rule(
        "times and durations, as members of JSON",
        rb"application/json",
        re.compile(rb'("(?:' + TIMES.encode() + rb')": ?)' + NUMBER),
        rb"\1<time>",
    ),
    Rule(
        "the score of the rate guard, which is a time",
        rb"application/json",
        re.compile(rb'("stage": ?"rate",\s*"verdict": ?"[a-z]+",\s*"us": ?<time>,\s*"score": ?)' + NUMBER),
        rb"\1<time>",
    ),
    Rule(
        "a replica's name: its process id and random digits",
        rb"application/json|text/html|text/plain",
        re.compile(rb"\b[0-9]+-[0-9a-f]{4}\b"),
        rb"<replica>",
    ),
    Rule(
        "durations, in pages",
        rb"text/html",
        re.compile(
            rb"\b[0-9]+(?:[.,][0-9]+)?(?: |&nbsp;|\xc2\xa0|\xe2\x80\xaf)?(?:ms|us|\xc2\xb5s|s|min|h)\b"
        ),
        rb"<time>",
    ),
    Rule(
        "fences of claims, in JSON", rb"application/json", re.compile(rb'("fence": ?)[0-9]+'), rb"\1<fence>"
    ),
    Rule(
        "CSRF tokens of sessions and fences, in pages",
        rb"text/html",
        re.compile(rb'(name="(csrf|fence)" value=")[0-9a-f]+'),
        rb"\1<\2>",
    ),
    Rule(
        "values of metrics, not their names and labels",
        rb"text/plain; version=0\.0\.4",
        re.compile(rb"(?m)^([^#\n]\S*) \S+$"),
        rb"\1 <value>",
    ),
)
SESSION_COOKIE = re.compile(rb"(?im)^(set-cookie: *[a-z_]+=)[0-9A-Za-z_-]{43,64}")
NORMAL_ID = "decision-%015d"
"""What stands for the n-th decision id (24 hexadecimal digits) of one answer. It is as long as an id."""
CONTENT_LENGTH_HEADER = re.compile(rb"(?im)^(content-length: *)([0-9]+)")
"""The length of a body that a rule has changed is set to what it is then, if it was right."""
CONTENT_ENCODING = re.compile(rb"(?im)^content-encoding: *(gzip|deflate)")
CONTENT_TYPE = re.compile(rb"(?im)^content-type: *([^\r\n]*)")
DECODERS: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.decompress, b"deflate": zlib.decompress}


def normalize(answer: RecordedAnswer) -> RecordedAnswer:
    """The answer without what has to differ."""
    numbers: dict[bytes, bytes] = {}

    def numbered(found: re.Match[bytes]) -> bytes:
        return numbers.setdefault(found[1], (NORMAL_ID % (len(numbers) + 1)).encode())

    return tuple(
        (name, CAPTURE_PATTERNS["id"].sub(numbered, SESSION_COOKIE.sub(rb"\1<cookie>", content)))
        for name, content in _apply_all_rules(answer)
    )


def _apply_all_rules(answer: RecordedAnswer) -> Iterable[tuple[str, bytes]]:
    """The fields with every rule applied: a body by the headers before it, whose length follows it."""
    fields = list(answer)
    for i, (name, body) in enumerate(fields):
        if not name.startswith("body") or i == 0:
            continue
        head = fields[i - 1][1]
        changed = apply_rules(body, head)
        fields[i] = (name, changed)
        stated = CONTENT_LENGTH_HEADER.search(head)
        if changed != body and stated and int(stated[2]) == len(body):
            fields[i - 1] = (fields[i - 1][0], CONTENT_LENGTH_HEADER.sub(rb"\g<1>%d" % len(changed), head))
    return fields


def apply_rules(body: bytes, head: bytes) -> bytes:
    """A body, decoded, with the rules of its content type applied."""
    if coding := CONTENT_ENCODING.search(head):
        body = DECODERS[coding[1].lower()](body)
    kind = CONTENT_TYPE.search(head)
    for rule in RULES:
        if kind and re.match(rule.of, kind[1]):
            body = rule.pattern.sub(rule.to, body)
    return body
