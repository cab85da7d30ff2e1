"""The answers of two trees beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.same_answers.exchange import TIMED_OUT, UNRESOLVED, Exchange, HttpExchange, RecordedAnswer
from bench.same_answers.normal import normalize

SHOWN_BYTES, BEFORE_BYTES = 4000, 500
ABSENT_PART = b"(absent)"
MISSING = frozenset({("end", TIMED_OUT), ("not sent", UNRESOLVED), ("code", b"StatusCode.UNAVAILABLE")})
"""Parts that stand for a missing answer: a difference even if both trees have them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One part of an answer that is not the same; `here` and `there` are after normalisation."""

    part: str
    here: str
    there: str


@dataclass(frozen=True, slots=True)
class ComparedExchange:
    """One exchange and how the answers of the two trees differ."""

    deployment: str
    protocol: str
    case: str
    outcome: str
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether both trees gave the same answer."""
        return not self.differences


def protocol_of(case: Exchange) -> str:
    """The protocol under which an exchange is counted."""
    if isinstance(case, HttpExchange):
        return "HTTP" if case.plane == "data" else "HTTP, administration"
    return "gRPC"


def compare_answers(
    deployment: str, case: Exchange, here: RecordedAnswer, there: RecordedAnswer
) -> ComparedExchange:
    """Two answers to one request; the outcome is that of this tree."""
    found = [*_differences(normalize(here), normalize(there))]
    found += [Difference(name, _excerpt(content), "") for name, content in here if (name, content) in MISSING]
    return ComparedExchange(deployment, protocol_of(case), case.name, recorded_outcome(here), tuple(found))


def _differences(here: RecordedAnswer, there: RecordedAnswer) -> Iterator[Difference]:
    one, other = dict(here), dict(there)
    for part in {**one, **other}:
        ours, theirs = one.get(part, ABSENT_PART), other.get(part, ABSENT_PART)
        if ours != theirs:
            at = _common_prefix(ours, theirs)
            yield Difference(part, _excerpt(ours, at), _excerpt(theirs, at))


def _common_prefix(ours: bytes, theirs: bytes) -> int:
    """How many bytes both begin with."""
    least = min(len(ours), len(theirs))
    return next((i for i in range(least) if ours[i] != theirs[i]), least)


def _excerpt(content: bytes, at: int = 0) -> str:
    """Bytes as readable text, the rest escaped; of a long part only what is around offset `at`."""
    start = max(0, at - BEFORE_BYTES) if len(content) > SHOWN_BYTES else 0
    text = content[start : start + SHOWN_BYTES].decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    left = len(content) - start - SHOWN_BYTES
    return (
        (f"{start} bytes, and then ..." * bool(start)) + text + (f"... and {left} bytes" if left > 0 else "")
    )


def recorded_outcome(answer: RecordedAnswer) -> str:
    """How a request ended by its headers or trailers: served, degraded, deferred, refused, or not judged."""
    for name, content in answer:
        if name.startswith(("headers", "trailing")):
            for line in content.splitlines():
                if line.startswith(b"x-failsafe-outcome: "):
                    return line.partition(b": ")[2].decode("ascii", "replace")
    return "(not judged)"


@dataclass(frozen=True, slots=True)
class TableLine:
    """One line of the table: the requests of one protocol to one deployment."""

    deployment: str
    protocol: str
    requests: int
    identical: int
    outcomes: dict[str, int]


def table_of(results: Sequence[ComparedExchange]) -> list[TableLine]:
    """Counts by deployment and protocol, in the order of the requests."""
    groups: dict[tuple[str, str], list[ComparedExchange]] = {}
    for one in results:
        groups.setdefault((one.deployment, one.protocol), []).append(one)
    return [
        TableLine(
            *of, len(found), sum(one.same for one in found), dict(Counter(one.outcome for one in found))
        )
        for of, found in groups.items()
    ]
