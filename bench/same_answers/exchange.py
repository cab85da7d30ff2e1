"""An exchange: one request of either protocol to be sent, and the recorded answer. Plain data.

A request may hold placeholders, which are replaced for each tree by what that tree answered before:
`<<key:NAME>>` is a caller's key, `<<id:NAME>>` the decision id in the answer to an earlier exchange, and
`<<cookie:NAME>>`, `<<root:NAME>>` and `<<csrf:NAME>>` are those of a session, from an earlier answer of the
administration plane. `"<<fence:NAME>>"`, with its quotes, is the number of a claim, with blanks before it:
it is as long as the placeholder, so that the stated length of a body stays right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

DATA: Final = "data"
ADMIN: Final = "admin"
COUNT_DELAY_S: Final = 0.5
"""Seconds after which every earlier request is in the counts of the administration plane."""
PLACEHOLDER = re.compile(rb"<<(key|id|cookie|root|csrf):([^>]+)>>")
FENCE_PLACEHOLDER = re.compile(rb'"<<fence:([^>]+)>>"')
CAPTURE_PATTERNS: Mapping[str, re.Pattern[bytes]] = {
    "id": re.compile(rb"(?<![0-9a-f])([0-9a-f]{24})(?![0-9a-f])"),
    "cookie": re.compile(rb"set-cookie: ([a-z_]+=[0-9A-Za-z_-]{43,64})"),
    "root": re.compile(rb"location: (/session/[0-9a-f]{24})"),
    "fence": re.compile(rb'"fence": ?([0-9]{1,16})'),
    "csrf": re.compile(rb'name="csrf" value="([0-9a-f]{64})"'),
}
"""The parts of an answer that a later request may repeat: the first match of each kind."""

TIMED_OUT: Final = b"nothing came in time"
UNRESOLVED: Final = b"an earlier answer does not hold what this request repeats"
RecordedAnswer: TypeAlias = tuple[tuple[str, bytes], ...]
"""The parts of an answer in order: the name of each, and its bytes."""


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """Bytes for a connection of their own, each part sent when the reply to the part before it has come.

    replies: how many the last part gets; 0 is until the server closes the connection. bare: which of all
    replies have no body; shut: whether the sending side is closed once everything is sent; pause_s: before
    it is sent, until what came before is counted.
    """

    name: str
    parts: tuple[bytes, ...]
    plane: str = DATA
    replies: int = 1
    bodyless: tuple[int, ...] = ()
    half_close: bool = False
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GrpcExchange:
    """One call. stream: whether it is made as a stream of one message; coding: of the message."""

    name: str
    method: str
    message: bytes = b""
    metadata: tuple[tuple[str, str], ...] = ()
    stream: bool = False
    coding: str = "NoCompression"
    timeout_s: float = 30.0


Exchange: TypeAlias = HttpExchange | GrpcExchange


class UnresolvedPlaceholder(LookupError):
    """A placeholder names what no earlier answer held."""


@dataclass(frozen=True, slots=True)
class PlaceholderValues:
    """The values of placeholders for one tree: keys by name, and answers by exchange, as received."""

    keys: Mapping[str, str]
    answers: dict[str, RecordedAnswer]

    def fill(self, sent: bytes) -> bytes:
        """The bytes with every placeholder replaced. Raises Unfilled."""
        sent = FENCE_PLACEHOLDER.sub(
            lambda found: self._value("fence", found[1].decode()).rjust(len(found[0])), sent
        )
        return PLACEHOLDER.sub(lambda found: self._value(found[1].decode(), found[2].decode()), sent)

    def _value(self, kind: str, name: str) -> bytes:
        if kind == "key":
            return self.keys[name].encode() if name in self.keys else name.encode()
        for _, content in self.answers.get(name, ()):
            if found := CAPTURE_PATTERNS[kind].search(content):
                return found[1]
        raise UnresolvedPlaceholder(f"no {kind} in what {name!r} was answered")
